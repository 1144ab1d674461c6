"""Columns, and fields of records, that hold postal addresses: recognized by their headers."""

import re

from connectors.importers.normalization import normalize, normalized_words

_HEADERS = normalized_words(
    "address addresses addr street streetname streetaddress city town zip zipcode postcode postalcode postal "
    "adresse anschrift straße strasse hausnummer plz postleitzahl ort stadt wohnort "
    "rue codepostal ville dirección direccion calle códigopostal codigopostal ciudad población "
    "indirizzo cap città citta adres straat huisnummer woonplaats plaats endereço morada cep cidade"
)
_PARTS = normalized_words(
    "address addr street zip zipcode postcode postal adresse anschrift strasse straße plz direccion dirección "
    "indirizzo adres endereço city ort ville ciudad"
)
_OTHER_WORDS = normalized_words("email mail ip mac url web wallet host from to cc bcc reply id")


def is_address_header(header: str) -> bool:
    """Whether a header such as ``shipping_address``, ``PLZ`` or ``customerCity`` is of an address."""
    if normalize(header) in _HEADERS:
        return True
    parts = {normalize(part) for part in re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z])", header) if part}
    return not parts.isdisjoint(_PARTS) and parts.isdisjoint(_OTHER_WORDS)
