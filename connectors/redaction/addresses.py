"""Postal addresses: by their form, and those that an export's fields name.

A street with a house number is one in every language that is read here. A postcode with a place behind
it, or a street's name that is also a plain word ("24 Hour Drive"), is one often enough to ask a person.
A city alone is none: "the shop in Berlin".
"""

import re
from collections.abc import Iterable, Iterator
from itertools import islice

from connectors.redaction.folding import fold
from connectors.redaction.recognizer import Span

_CAP = r"[A-Z\u00c0-\u00de\u0141\u015a\u017b][\w'.-]*"
_CITY = rf"{_CAP}(?:[ -](?:(?:am|an der|im|la|de|del|sur|upon|on|di|do|da|el|los|las|a\.\ ?d\.)[ -])?{_CAP}){{0,3}}"
_UK_POSTCODE = r"(?:GIR ?0AA|[A-PR-UWYZ](?:\d{1,2}|[A-HK-Y]\d{1,2}|\d[A-HJKPSTUW]|[A-HK-Y]\d[ABEHMNPRVWXY]) ?\d[ABD-HJLNP-UW-Z]{2})"
_US_STATE = (
    r"(?:A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|PA|RI|S[CD]|T[NX]|UT"
    r"|V[AT]|W[AIVY])"
)
_PLACE = (
    rf"(?:(?:{_CITY},? )?{_US_STATE},? \d{{5}}(?:-\d{{4}})?(?!\d)|(?:{_CITY},? )?{_UK_POSTCODE}(?!\w)"
    rf"|(?:[A-Z]{{1,2}}-)?\d{{4}} ?[A-Z]{{2}},? {_CITY}|(?:[A-Z]{{1,2}}-)?\d{{4,5}},? {_CITY}|{_CITY},? \d{{5}}(?!\d))"
)
_REST = (
    r"(?:,? ?(?i:apt|apartment|flat|unit|suite|ste|floor|wohnung|whg|bât|bâtiment|appt|piso|puerta|scala|int)\.? ?"
    r"#?[\w-]{1,6}|,? ?#\d{1,5}|,? \d{1,2}[ºª°](?: ?[A-Z])?)?"
)
_TAIL = rf"{_REST}(?:(?:,? ?\n ?|,? ){_PLACE})?"
_STREET_WORD = r"(?i:street|road|avenue|lane|boulevard)|(?:[Ss]t|[Rr]d|[Aa]ve|[Bb]lvd|[Ll]n|Pkwy|Hwy|Cres)\b\.?"
_MAYBE_STREET_WORD = (
    r"(?:Drive|Court|Way|Place|Square|Terrace|Close|Crescent|Gardens|Highway|Parkway|Row|Mews|Grove|Hill|Walk"
    r"|Park|Circle|Trail|Dr\.?|Ct\.?|Pl\.?|Sq\.?)"
)
_EN_NAME = r"(?:[NSEW]\.? |(?:North|South|East|West) )?(?:[\w'.-]{1,20} ){1,3}?"
_EN_CAPS = rf"(?:[NSEW]\.? )?(?:{_CAP} |\d{{1,3}}(?:st|nd|rd|th) ){{1,3}}?"
_HOUSE = r"(?<![\w.,#$€£/-])\d{1,5}(?:[A-Za-z]|[-/]\d{1,4})?"
_OF = r"(?:(?:de la|de los|de las|de|du|des|del|della|delle|dei|di|da|do|dos|das|d'|l'|la|le|les|el|los|las) ?){0,2}"

_CERTAIN = (
    # 12 Baker Street, Flat 3, London NW1 6XE
    rf"{_HOUSE},? (?:{_EN_CAPS}(?:{_STREET_WORD})|(?i:{_EN_NAME}(?:street|avenue|boulevard)))(?!\w){_TAIL}",
    rf"{_HOUSE},? {_EN_CAPS}{_MAYBE_STREET_WORD}(?!\w){_REST}(?:,? ?\n ?|,? ){_PLACE}",
    # Hauptstraße 12a, 10115 Berlin; Am Markt 5, 10115 Berlin; Kerkstraat 8, 1017 GC Amsterdam
    r"(?<![\w-])(?:[A-Z\u00c4\u00d6\u00dc][\w.-]* ){0,2}?[A-Z\u00c4\u00d6\u00dc]?[\w.-]*(?:[Ss]tra(?:ß|ss)e|[Ss]tr\.|[Gg]asse|[Aa]llee|chaussee|ufer"
    rf"|straat|laan|gracht|kade) ?\d{{1,4}} ?(?:[a-z](?!\w)|[-/] ?\d{{1,4}})?(?!\d){_TAIL}",
    rf"(?<![\w-])(?:(?:Am|An der|Im|In der|Auf der|Zum|Zur|Unter den|Alte[rn]?|Neue[rn]?|Große[rn]?) )?{_CAP}(?: {_CAP})? \d{{1,4}}"
    rf" ?[a-z]?,? ?\n? ?(?:[A-Z]-)?\d{{5}} {_CITY}",
    rf"(?<![\w-])[A-Z\u00c4\u00d6\u00dc][\w-]{{2,20}}(?:weg|platz|damm|ring|steig|plein) \d{{1,4}} ?[a-z]?,? ?\n? ?\d{{4,5}} ?(?:[A-Z]{{2}} )?{_CITY}",
    # 12 rue de la Paix, 75002 Paris
    rf"{_HOUSE}(?: ?(?:bis|ter))?,? (?i:rue|avenue|av\.|boulevard|bd|chemin|impasse|allée|quai|route|place) {_OF}"
    rf"{_CAP}(?: (?:{_OF}{_CAP})){{0,3}}{_TAIL}",
    # Calle Mayor 5, 28013 Madrid; Via Roma, 10; Rua Augusta 20
    rf"(?<!\w)(?:Calle|C/|Avenida|Avda\.?|Av\.|Plaza|Paseo|Carrer|Ronda|Via|Viale|Piazza|Corso|Rua|Travessa|Avinguda) ?{_OF}"
    rf"{_CAP}(?: (?:{_OF}{_CAP})){{0,3}},? (?:n\.?[ºo°]\.? ?|núm\.? )?\d{{1,4}}(?!\d)(?: ?[A-Z](?!\w))?{_TAIL}",
    # boxes
    rf"(?<!\w)(?:P\.? ?O\.? ?Box|Postfach|Boîte postale|Apartado(?: de correos)?|Casella postale|Postbus) \d{{1,3}}(?: ?\d{{2,3}})?(?!\d){_TAIL}",
)
_UNCERTAIN = (
    rf"{_HOUSE},? {_EN_CAPS}{_MAYBE_STREET_WORD}(?!\w)",
    rf"(?<![\w-]){_UK_POSTCODE}(?!\w)",
    rf"(?<![\w-])(?:{_CITY}, )?{_US_STATE},? \d{{5}}(?:-\d{{4}})?(?![\w-])",
    r"(?<![\w-])[A-Z\u00c4\u00d6\u00dc][\w-]{2,20}(?:weg|damm|ring|steig|plein|platz) \d{1,4} ?[a-z]?(?!\w)",
    rf"(?<![\w.,#-])(?:[A-Z]{{1,2}}-)?\d{{5}} {_CITY}",
    rf"(?<![\w.,#-])\d{{4}} [A-Z]{{2}} {_CITY}",
)
# "Stellplatz 4" is no street, nor are "5 Star Place" and "24 Hour Drive".
_NO_STREET = re.compile(
    r"(?:stell|park|sitz|arbeits|tisch|speicher|fenster|gang|lager|start|lade)pl[aä]tz|^\d+[ -](?:hour|day|star|way|minute|step|year|week|month)s?\b"
    r"|^\d+ (?:or|and|in|at|on|of|to|per|from) ",
    re.IGNORECASE,
)
_NEEDED = re.compile(r"\d")
_CERTAIN_ONES = tuple(re.compile(pattern) for pattern in _CERTAIN)
_UNCERTAIN_ONES = tuple(re.compile(pattern) for pattern in _UNCERTAIN)
_BLANKS = re.compile(r"[\s,]+")
_MIN_PLACE_LENGTH = 4
_MAX_PLACES, _MAX_PLACE_LENGTH = 40, 300  # of one conversation; what is longer is no address


class AddressRecognizer:
    """Addresses by their form: English, German, French, Spanish, Italian, Dutch, Portuguese."""

    supported_entities = ("ADDRESS",)

    def analyze(self, text: str, context: str = "") -> Iterator[Span]:
        """See ``Recognizer.analyze``. Certain ones come first."""
        if not _NEEDED.search(text):
            return
        for patterns, certain in ((_CERTAIN_ONES, True), (_UNCERTAIN_ONES, False)):
            for pattern in patterns:
                for found in pattern.finditer(text):
                    if not _NO_STREET.search(found[0]):
                        rule = "address" if certain else "part of an address"
                        yield Span(
                            *_trimmed(found), "ADDRESS", _key(found[0]), rule=rule, certain=certain
                        )


class PlaceRecognizer:
    """The addresses that a conversation's own fields name, wherever its texts repeat them.

    Args:
        places: Values of fields such as ``shipping_address``, ``street``, ``postcode``, ``city``. One
            without a digit (a city) is replaced only beside another part of the address.
    """

    supported_entities = ("ADDRESS",)

    def __init__(self, places: Iterable[str]) -> None:
        wholes: set[str] = set()
        numbered: set[str] = set()
        bare: set[str] = set()
        for place in islice(places, _MAX_PLACES):
            if len(place) > _MAX_PLACE_LENGTH:
                continue
            plain = _plain(fold(place).text)
            parts = [_plain(part) for part in re.split(r"[,;\n]", fold(place).text)]
            if len(parts) > 1 and any(character.isdigit() for character in plain):
                wholes.add(plain)
            for part in parts:
                if len(part) >= _MIN_PLACE_LENGTH:
                    (numbered if any(c.isdigit() for c in part) else bare).add(part)
        self._key = " ".join(sorted(wholes | numbered))
        begins = _either(wholes | numbered)
        beside = _either(wholes | numbered | bare)
        self._pattern = (
            re.compile(
                rf"(?<!\w)(?:(?:{beside})[\s,]{{1,3}})?(?:{begins})(?:[\s,]{{1,3}}(?:{beside}))*(?!\w)",
                re.IGNORECASE,
            )
            if begins
            else None
        )

    def analyze(self, text: str, context: str = "") -> Iterator[Span]:
        """See ``Recognizer.analyze``."""
        if self._pattern:
            for found in self._pattern.finditer(text):
                yield Span(*found.span(), "ADDRESS", self._key, rule="field")


def _either(values: Iterable[str]) -> str:
    ordered = sorted(values, key=lambda value: (-len(value), value))
    return "|".join(re.escape(value).replace(r"\ ", r"[\s,]{1,3}") for value in ordered)


def _plain(text: str) -> str:
    return _BLANKS.sub(" ", text).strip()


def _key(text: str) -> str:
    return _plain(text).casefold()


def _trimmed(found: re.Match[str]) -> tuple[int, int]:
    return found.start(), found.start() + len(found[0].rstrip(" .,\n"))
