"""International bank account numbers: a country's length and the check digits."""

import re
from collections.abc import Iterator
from functools import lru_cache

from stdnum import iban, numdb

from connectors.redaction.recognizer import Span

_IBAN = re.compile(
    r"(?:(?<![a-z0-9])|(?<=iban))[a-z]{2}[ .-]{0,3}\d[ .-]?\d(?:[ .,/\n-]{0,3}[a-z0-9]){11,30}",
    re.ASCII | re.IGNORECASE,
)
_COUNTRY_AND_CHECK = 4  # characters before the account number itself
_PART = re.compile(r"(\d+)!")  # of a structure such as "4!a6!n8!n"


class IbanRecognizer:
    """IBANs, in groups or not; the words after one are not swallowed."""

    supported_entities = ("IBAN",)

    def analyze(self, text: str, context: str = "") -> Iterator[Span]:
        """See ``Recognizer.analyze``."""
        at = 0
        while found := _IBAN.search(text, at):
            end = _iban_end(found[0])
            if end:
                key = re.sub(r"[^A-Za-z0-9]", "", found[0][:end]).upper()
                yield Span(found.start(), found.start() + end, "IBAN", key)
            at = found.start() + (end or 2)


def _iban_end(candidate: str) -> int:
    """How many characters of the candidate are an IBAN; 0 for none."""
    length = _iban_length(candidate[:2].upper())
    places = [at for at, character in enumerate(candidate) if character.isalnum()]
    if not 0 < length <= len(places):
        return 0
    end = places[length - 1] + 1
    ends_there = end == len(candidate) or not candidate[end].isalnum()
    plain = "".join(candidate[at] for at in places[:length])
    return end if ends_there and iban.is_valid(plain, check_country=False) else 0


@lru_cache(maxsize=1024)
def _iban_length(country: str) -> int:
    """The whole length of a country's IBANs, by SWIFT's registry; 0 where it has none."""
    structure = numdb.get("iban").info(country)[0][1].get("bban", "")
    return _COUNTRY_AND_CHECK + sum(map(int, _PART.findall(structure))) if structure else 0
