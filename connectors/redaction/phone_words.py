"""Words near a number that show whether it is a phone number, in the languages of support desks.

Each list holds beginnings of words in lower case, folded as the texts are (see ``folding``).
"""

import re
from bisect import bisect_left
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from connectors.redaction.folding import UNSPACED, fold, folded_words
from connectors.redaction.placeholders import PLACEHOLDER

_FOR = folded_words(
    """
    phone telephone telefon tel. mobile cellphone cellular landline whatsapp callback hotline viber
    rufnummer handynummer handy mobil festnetz rückruf anruf angerufen erreich durchwahl zurückruf
    téléphon telephon portable appel joindre joignable rappel contactez
    teléfono móvil movil celular llám llam telefón telefone telemóvel telemovel ligar ligue contato
    cellulare chiam richiam recapito mobiel bellen gsm puhelin
    komórk komork zadzwo dzwoni oddzwo volej zavol hívj hívás telefoon suna sunați aray cep privatnummer geschäftsnummer büronummer
    τηλ κινητ καλέσ καλεσ
    тел телефон моб сотов звон позвон перезвон набер ватсап вотсап дзвон подзвон
    هاتف الهاتف جوال الجوال موبايل الموبايل تلفون التلفون اتصل واتساب טלפון הטלפון נייד הנייד פלאפון להתקשר
    फ़ोन फोन मोबाइल कॉल ফোন মোবাইল
    thoại sđt đt telp telepon hubungi handphone
    """
)
_FOR_WHOLE = frozenset(
    folded_words(
        """
        call called calling calls phoned cell mob mobi tel tele tlf tfno telf tél ph fon fax ring sms dial
        reach contact text bel cel txt cellulaire ara ringa ringe ringen kontakt kontakta contacto contatto
        """
    )
)
_AGAINST = folded_words(
    """
    order purchase invoice ticket tracking booking parcel shipment claim serial voucher coupon isbn imei
    barcode reservation receipt transaction consignment waybill passport delivery
    bestell rechnung auftrag sendung paket vorgang aktenzeichen zähler buchung liefer seriennummer
    gutschein beleg steuer quittung versandnummer kundennummer vertragsnummer
    commande facture colis suivi dossier référence referencia referência riferimento confirmation réservation expédition livraison siret
    pedido factura seguimiento envío albarán reserva encomenda fatura rastreio
    ordine fattura spedizione tracciamento prenotazione pratica
    bestelling factuur zending klantnummer beställning kundnummer faktura försändelse
    bestilling ordre kundenummer forsendelse tilaus lasku asiakasnumero
    zamówien zamowien faktur przesył paczk objednávk faktúr zásilk rendelés számla
    comandă comanda factură sipariş siparis kargo παραγγελ τιμολόγ αποστολ
    заказ счет счёт накладн трек отправлен квитанц артикул посылк замовлен рахун відправлен
    طلب الطلب فاتورة الفاتورة شحنة الشحنة حجز עסקה הזמנה חשבונית משלוח
    ऑर्डर आर्डर चालान pesanan resi đơn hóa
    """
)
_AGAINST_WHOLE = frozenset(
    folded_words(
        """
        ref réf rif reference orders code código codigo codice kod код iva nip инн pin sku id vin po upc ean gtin vat ust iban bic rma build version
        firmware release revision pnr aufnr bestnr kdnr rgnr nif cif dni nhs nino ssn siren batch lot
        ord inv cvv isin wkn
        """
    )
)
# These hold a number when one follows at once: "account 123", but not "on my account, call ...".
_HOLDERS = folded_words(
    """
    account acct policy product member article contract meter warranty quote licen model konto
    kunden customer client vertrag artikel mitglied abonné abonnement contrat cliente contrato contratto
    klant klient umow müşteri договор клиент брон kund szerződés
    """
)
_HOLDERS_WHOLE = frozenset(folded_words("case card item part parts karte carte tarjeta carta"))
_NUMBER = frozenset(
    folded_words(
        """
        number numbers no num nr nummer nummern numéro numero número numer numeru num номер номером
        numara numarası číslo cislo nummeret numret szám numărul αριθμός رقم nomor số
        """
    )
)
_OWN = frozenset(
    folded_words(
        """
        my your his her our their mine yours
        mein meine meiner meinen ihre ihrer ihren deine dein eure unsere seine unter
        mon ma mes votre vos ton notre son mi su tu sus mis nuestro mio mia suo tuo vostro
        meu minha seu sua mijn uw jouw je min din dit mitt ditt mój moj moja twój swój
        мой моя мій моят ваш твой свой můj muj váš benim sizin μου σας رقمي मेरा आपका saya anda
        """
    )
)
# Between "my" and "number"; any other word there is what the number is of: "my locker number".
_PLAIN = frozenset(
    folded_words(
        """
        new old best other another correct right wrong same current direct private personal work home
        office business second usual main daytime evening uk us german local international emergency
        alternative preferred own actual neue alte richtige aktuelle andere
        is are was the a this that on at it its under be here ist lautet die der das unter es est
        le la el il lo l o é è os er är on to jest есть это вот eto also and
        """
    )
)
_OF = frozenset(folded_words("de du des d di del della do da dos der von van"))
_COPULA = re.compile(
    r"(?:(?<![^\W_])(?:is|was|are|ist|lautet|war|est|es|era|è|é|is|er|är|on|jest|to|это|je|:|=|are)|[:=])"
    r"[\s:=,\"'(]*(?:(?:le|the|el|il|o|now|jetzt|also)\s+)?[\s:=\"'(+-]*$"
)
_ON = re.compile(
    r"(?<![^\W_])(?:for|on|of|with|from|about|to|in|linked|registered|associated|zu|für|mit|bei|von|auf"
    r"|pour|avec|sur|du|de|para|con|en|del|per|do|na|voor|bij|для|на|к|по)(?![^\W_])"
)
_UNSPACED_WORDS = re.compile(
    fold(
        "(?P<reach>电话|電話|座机|座機|手机|手機|联系方式|聯絡|联络|致电|致電|来电|打给|打給|拨打|撥打|微信|短信|携帯|ケータイ|お電話|連絡先"
        "|전화|휴대폰|핸드폰|연락처|연락|폰번호|โทร|เบอร์|มือถือ|ติดต่อ|ទូរស័ព្ទ)"
        "|(?P<against>订单|訂單|单号|單號|运单|運單|快递|快遞|发票|發票|会员|會員|注文|伝票|追跡|追踪|追蹤|予約|请求书|請求|会計|型番"
        "|型号|型號|序列|编号|編號|管理番号|お客様番号|契約|合同|账号|帳號|账户|口座|주문|송장|운송장|예약|회원|계좌|일련|คำสั่งซื้อ|พัสดุ|ใบแจ้งหนี้)"
        "|(?P<own>(?:我的|你的|您的|我们的|私の|僕の|내|제|저의)\\s?(?:号码|號碼|番号|번호))"
        "|(?P<number>号码|號碼|番号|번호)"
    ).text
)
_TOKEN = re.compile(
    rf"(?P<word>[^\W\d_{UNSPACED}]+)|(?P<hash>\#)|(?P<unspaced>[{UNSPACED}]+)|(?P<break>[.!?;\n](?=\s|$))"
)
_DIGITS = re.compile(r"\d{4}")
_LIST = re.compile(r"\D{0,12}\d[\d ,;/&+-]*(?:(?:and|or|und|oder|et|ou|y|o|e)[\d ,;/&+-]*)*")
_ABBREVIATED = "n č no nr id num núm tel ref réf art ord inv cod cód best fact"
_BREAK = re.compile(  # of a sentence
    r"(?:[!?;\n]|\." + "".join(rf"(?<!\b{word}\.)" for word in _ABBREVIATED.split()) + r")(?:\s|$)"
)
_TEXT_ME = re.compile(r"(?: me| us)?(?: on| at)?[ :]+[+(\d]")
_NEXT_NUMBER = re.compile(r"[^\d,;!?\n]{0,14}\d{4}")
_AT_ONCE = 4
_BEFORE, _AFTER, _HELD = 60, 40, 16
_MAX_WORD_LENGTH, _MAX_NUMBER_LENGTH, _CLAUSE = 30, 50, 200
_LETTERS_OF_SIGNATURES = frozenset("tmp")  # "T: 020 ...", "M. 07 ..."


class NumberContext(Enum):
    """What words say about a number near them."""

    PHONE = "phone"
    OTHER = "other"
    NUMBER = "number"  # only that it is a number


_UNSPACED_MEANINGS = {
    "reach": NumberContext.PHONE,
    "own": NumberContext.PHONE,
    "against": NumberContext.OTHER,
    "number": NumberContext.NUMBER,
}


class _Signal(NamedTuple):
    start: int
    end: int
    meaning: NumberContext
    reach: int = _BEFORE  # characters, to the number behind


class PhoneWords:
    """The signal words of one folded text, found once."""

    def __init__(self, text: str) -> None:
        self._text = PLACEHOLDER.sub(lambda found: " " * len(found[0]), text).casefold()
        if len(self._text) != len(text):  # a letter whose lower case is two: rare, and harmless
            self._text = text.lower() if len(text.lower()) == len(text) else text
        self._signals = list(_signals(self._text))
        self.any_at_all = bool(self._signals)
        self._starts = [signal.start for signal in self._signals]
        self.words = sum(1 for _ in re.finditer(r"[^\W\d_]+", self._text[:200]))

    def any_round(self, start: int) -> bool:
        """Whether there is a signal word near a number that begins there."""
        at = bisect_left(self._starts, start - _BEFORE - _MAX_WORD_LENGTH)
        return at < len(self._starts) and self._starts[at] < start + _MAX_NUMBER_LENGTH + _AFTER

    def last(self) -> NumberContext | None:
        """What the text asks for: the meaning of its last signal word."""
        return self._signals[-1].meaning if self._signals else None

    def before(self, start: int) -> NumberContext | None:
        """What the words before a number that begins there say."""
        at = bisect_left(self._starts, start) - 1
        while at >= 0 and not self._reaches(self._signals[at], start):
            if self._signals[at].end < start - _BEFORE:
                return None
            at -= 1
        if at < 0:
            return None
        head = self._signals[at]
        if not _COPULA.search(self._text, max(head.end, start - _BEFORE), start):
            return head.meaning
        # "the mobile registered with my account is ...": of the mobile, not of the account.
        while at > 0:
            previous = self._signals[at - 1]
            if head.start - previous.end > _BEFORE or previous.start < start - _CLAUSE:
                break
            gap = self._text[previous.end : head.start]
            noun = self._text[previous.start : previous.end] in _NUMBER
            if _BREAK.search(gap) or not _ON.search(gap) or (noun and gap.strip() in _OF):
                break
            at, head = at - 1, previous
        return head.meaning

    def _reaches(self, signal: _Signal, start: int) -> bool:
        if not start - signal.reach <= signal.end <= start:
            return False
        if signal.meaning is not NumberContext.OTHER:
            return True
        between = self._text[signal.end : start]
        if _BREAK.search(between):
            return len(between) <= _AT_ONCE  # "my order? 123"
        # "order 1234567, 020 ...": a number in between has used up what speaks against,
        # unless it is a list of them.
        return _DIGITS.search(between) is None or _LIST.fullmatch(between) is not None

    def behind(self, end: int) -> NumberContext | None:
        """What the words behind a number that ends there say."""
        at = bisect_left(self._starts, end)
        if at == len(self._signals) or self._signals[at].start > end + _AFTER:
            return None
        signal = self._signals[at]
        between = self._text[end : signal.start]
        if _BREAK.search(between) or _DIGITS.search(between):
            return None
        if _NEXT_NUMBER.match(self._text, signal.end):  # of which the word speaks
            return None
        return signal.meaning


def _signals(text: str) -> Iterator[_Signal]:
    clause: list[tuple[str, NumberContext | None]] = []
    last: _Signal | None = None  # in a script without blanks
    for token in _TOKEN.finditer(text):
        start, end = token.span()
        match token.lastgroup:
            case "hash":
                yield _Signal(start, end, NumberContext.OTHER)
            case "break":
                clause.clear()
            case "unspaced":
                for found in _UNSPACED_WORDS.finditer(token[0]):
                    meaning = _UNSPACED_MEANINGS[found.lastgroup or ""]
                    if (
                        meaning is NumberContext.NUMBER
                        and last
                        and start + found.start() - last.end <= 1
                    ):
                        meaning = last.meaning  # "the order's number"
                    last = _Signal(start + found.start(), start + found.end(), meaning)
                    yield last
            case _:
                word = token[0]
                known = _by_itself(word, text, end) or _by_place(word, clause[-4:])
                clause.append((word, known))
                if known:
                    yield _Signal(start, end, known)
                elif word in _HOLDERS_WHOLE or word.startswith(_HOLDERS):
                    yield _Signal(start, end, NumberContext.OTHER, _HELD)


def _by_place(word: str, before: list[tuple[str, NumberContext | None]]) -> NumberContext | None:
    """What a word means after the words before it: "my number", "my locker number", "numéro de casier"."""
    if word not in _NUMBER:
        of = len(before) > 1 and before[-1][0] in _OF and before[-2][0] in _NUMBER
        return NumberContext.OTHER if of and word not in _OWN and word not in _PLAIN else None
    of_what = None
    for earlier, meaning in reversed(before):
        if meaning:
            return meaning
        if earlier in _OWN:
            return of_what or NumberContext.PHONE
        if earlier not in _PLAIN:
            if of_what:
                return None
            of_what = NumberContext.OTHER
    return None if of_what else NumberContext.NUMBER


def _by_itself(word: str, text: str, end: int) -> NumberContext | None:
    if word in _FOR_WHOLE or word.startswith(_FOR):
        if word == "text" and not _TEXT_ME.match(text, end):
            return None
        return NumberContext.PHONE
    if word in _AGAINST_WHOLE or word.startswith(_AGAINST):
        return NumberContext.OTHER
    if word in _LETTERS_OF_SIGNATURES and text[end : end + 1] in (":", "."):
        return NumberContext.PHONE
    if word.endswith(("nummer", "number")) and len(word) > len("nummer"):
        return NumberContext.OTHER  # of something: the telephone's are known
    return None
