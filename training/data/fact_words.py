"""Words and signs by which facts are known in running text: units, currencies, months, days.

English, German, French, Spanish, Italian, Dutch and Portuguese. Keys are in lower case, as `fold`
leaves them.
"""

from collections.abc import Mapping

from connectors.redaction.folding import folded_words


def _table(lines: Mapping[str, str]) -> dict[str, str]:
    """Of ``name: "its spellings"`` a table spelling -> name; an underscore stands for a blank."""
    return {
        word.replace("_", " "): name
        for name, words in lines.items()
        for word in folded_words(words)
    }


UNITS = _table(
    {
        "second": "s sec secs second seconds sekunde sekunden seconde secondes segundo segundos secondo secondi",
        "minute": "min mins minute minutes minuten minuto minutos minuti minuut",
        "hour": "h hr hrs hour hours stunde stunden std heure heures hora horas ora ore uur uren",
        "day": "day days tag tage tagen jour jours día días dia dias giorno giorni dag dagen"
        " calendar_day calendar_days kalendertag kalendertage kalendertagen",
        "working day": "working_day working_days business_day business_days workday workdays werktag werktage"
        " werktagen arbeitstag arbeitstage arbeitstagen jour_ouvré jours_ouvrés jour_ouvrable jours_ouvrables"
        " día_hábil días_hábiles día_laborable días_laborables giorno_lavorativo giorni_lavorativi werkdag"
        " werkdagen dia_útil dias_úteis",
        "week": "week weeks wk wks woche wochen semaine semaines semana semanas settimana settimane weken",
        "month": "month months monat monate monaten mois mes meses mese mesi maand maanden mês",
        "year": "year years yr yrs jahr jahre jahren an ans année années año años anno anni jaar ano anos",
        "percent": "% percent per_cent prozent pourcent pour_cent por_ciento per_cento procent por_cento",
        "mm": "mm millimetre millimetres millimeter millimeters",
        "cm": "cm centimetre centimetres centimeter centimeters zentimeter",
        "m": "m metre metres meter meters mètre mètres metro metros metri",
        "km": "km kilometre kilometres kilometer kilometers kilomètre kilomètres",
        "mile": "mi mile miles meile meilen",
        "inch": "inch inches zoll pouces pulgadas",
        "foot": "ft foot feet",
        "g": "g gram grams gramm gramme grammes gramos",
        "kg": "kg kgs kilo kilos kilogram kilograms kilogramm",
        "lb": "lb lbs",
        "oz": "oz ounce ounces",
        "ml": "ml millilitre millilitres milliliter milliliters",
        "l": "l litre litres liter liters litro litros",
        "KB": "kb",
        "MB": "mb megabyte megabytes",
        "GB": "gb gigabyte gigabytes",
        "TB": "tb terabyte terabytes",
        "Mbit/s": "mbps mbit/s",
        "W": "w watt watts",
        "V": "v volt volts",
        "kWh": "kwh",
        "°C": "°c celsius",
        "°F": "°f fahrenheit",
        "person": "person persons people personen personne personnes persona personas persone guest guests"
        " gäste gästen",
        "night": "night nights nacht nächte nächten nuit nuits noche noches notte notti nachten",
        "piece": "piece pieces pcs stück stk pièce pièces pieza piezas pezzi stuks item items",
        "star": "star stars sterne sternen étoiles estrellas stelle sterren",
    }
)
"""How a unit is written -> its name here."""

SHORT_UNITS = frozenset({"s", "m", "g", "l", "w", "v", "h", "an"})
"""Units that are also a letter or a word: known only right behind a figure."""

CURRENCIES = _table(
    {
        "EUR": "€ eur euro euros",
        "USD": "$ usd us$ dollar dollars dólares",
        "GBP": "£ gbp pound pounds quid",
        "CHF": "chf sfr franken",
        "JPY": "¥ jpy yen",
        "INR": "₹ inr rs rs. rupee rupees",
        "PLN": "pln zł",
        "SEK": "sek",
        "NOK": "nok",
        "DKK": "dkk",
        "CAD": "cad ca$ c$",
        "AUD": "aud au$ a$",
        "BRL": "brl r$",
        "MXN": "mxn",
        "TRY": "₺ try",
        "UAH": "₴ uah",
        "KRW": "₩ krw",
        "RUB": "₽ rub",
    }
)
"""How a currency is written -> ISO 4217. A bare dollar is a US dollar, a bare pound a British one."""

CENTS = _table({"USD": "cent cents ¢", "EUR": "centime centimes céntimos", "GBP": "pence"})
"""Hundredths of a currency."""

MULTIPLES = {
    "k": 1_000,
    "thousand": 1_000,
    "tausend": 1_000,
    "mille": 1_000,
    "mil": 1_000,
    "million": 1_000_000,
    "millions": 1_000_000,
    "millionen": 1_000_000,
    "mio": 1_000_000,
    "mio.": 1_000_000,
    "millones": 1_000_000,
}

MONTHS = {
    word: month
    for month, words in enumerate(
        (
            "january jan januar jänner janvier enero gennaio januari janeiro",
            "february feb februar février febrero febbraio februari fevereiro",
            "march mar märz mrz mars marzo maart março",
            "april apr avril abril aprile",
            "may mai mayo maggio mei maio",
            "june jun juni juin junio giugno junho",
            "july jul juli juillet julio luglio julho",
            "august aug août agosto augustus",
            "september sep sept septembre septiembre settembre setembro",
            "october oct oktober okt octobre octubre ottobre outubro",
            "november nov novembre noviembre novembro",
            "december dec dezember dez décembre diciembre dicembre dezembro",
        ),
        1,
    )
    for word in folded_words(words)
}

WEEKDAYS = {
    word: day
    for day, words in enumerate(
        (
            "monday mondays montag montags lundi lunes lunedì maandag segunda-feira",
            "tuesday tuesdays dienstag dienstags mardi martes martedì dinsdag terça-feira",
            "wednesday wednesdays mittwoch mittwochs mercredi miércoles mercoledì woensdag quarta-feira",
            "thursday thursdays donnerstag donnerstags jeudi jueves giovedì donderdag quinta-feira",
            "friday fridays freitag freitags vendredi viernes venerdì vrijdag sexta-feira",
            "saturday saturdays samstag samstags sonnabend samedi sábado sabato zaterdag",
            "sunday sundays sonntag sonntags dimanche domingo domenica zondag",
        ),
        1,
    )
    for word in folded_words(words)
}
"""Day of the week, Monday 1 to Sunday 7, as in ISO 8601."""

SHORT_WEEKDAYS = {
    word: day
    for day, words in enumerate(
        (
            "mon mo lun lu",
            "tue tues di mar",
            "wed mi mer",
            "thu thur thurs do jeu jue",
            "fri fr ven vie",
            "sat sa sam sáb",
            "sun so dim dom",
        ),
        1,
    )
    for word in folded_words(words)
}
"""Known only in a span of days: "Mon-Fri", "Mo-Fr"."""

COUNTS = {
    word: str(count)
    for count, words in {
        1: "one ein eine einen einem einer un une uno una um uma één",
        2: "two zwei deux dos due twee dois duas",
        3: "three drei trois tres tre drie três",
        4: "four vier quatre cuatro quattro quatro",
        5: "five fünf cinq cinco cinque vijf",
        6: "six sechs seis sei zes",
        7: "seven sieben sept siete sette zeven sete",
        8: "eight acht huit ocho otto oito",
        9: "nine neun neuf nueve nove negen",
        10: "ten zehn dix diez dieci tien dez",
        11: "eleven elf onze once undici",
        12: "twelve zwölf douze doce dodici twaalf doze",
        14: "fourteen vierzehn quatorze catorce quattordici veertien",
        15: "fifteen fünfzehn quinze quince quindici vijftien",
        20: "twenty zwanzig vingt veinte venti twintig vinte",
        24: "vierundzwanzig",
        30: "thirty dreißig dreissig trente treinta trenta dertig trinta",
        60: "sixty sechzig soixante sesenta sessanta zestig sessenta",
        90: "ninety neunzig noventa novanta negentig",
    }.items()
    for word in folded_words(words)
}
"""Written-out numbers; known only in front of a unit or a currency."""
