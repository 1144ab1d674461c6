"""Insults and obscenities in a text, by a list of our own, in seven languages.

Only words that no support desk writes in good faith, and that mean nothing harmless in another of the
languages, a name, a place or a dish: so neither "retard" (French for delay) nor "hure" (a pate).
Whole words, in any case. Rudeness in plain words is not found.
"""

import re

_WORDS: dict[str, tuple[str, ...]] = {
    "en": (
        r"(?:mother)?fuck(?:s|ed|er|ers|ing)?",
        r"(?:bull|horse)?shit(?:s|ty|head|heads)?",
        r"(?:ass|arse)holes?",
        r"(?:dick|fuck)heads?",
        r"bitch(?:es)?",
        r"cunts?",
        r"wankers?",
        r"twats?",
        r"idiots?(?!-)",
        r"imbeciles?",
        r"retarded",
        r"nigg(?:er|a)s?",
    ),
    "de": (
        r"arschl(?:o|ö|oe)ch(?:er)?",
        r"wichsern?|wichser",
        r"hurens(?:o|ö|oe)hne?",
        r"fotzen?",
        r"schei(?:ß|ss)(?:e|er|en)?",
        r"missgeburt(?:en)?",
        r"schlampen?",
        r"idioten",
        r"vollidiot(?:en)?",
        r"verpiss dich",
        r"fick(?:t|en)? dich",
    ),
    "fr": (
        r"conn(?:ard|asse)s?",
        r"encul(?:é|ée|és|ées|er)",
        r"salopes?",
        r"putain",
        r"merde",
        r"fils de pute",
        r"va te faire foutre",
    ),
    "es": (
        r"gilipollas",
        r"hij(?:o|a)s? de (?:la gran )?puta",
        r"put(?:o|a)s?",
        r"cabr(?:ó|o)n(?:es)?",
        r"mierda",
        r"pendej(?:o|a)s?",
    ),
    "it": (r"stronz(?:o|a|i|e)", r"vaffanculo", r"coglion(?:e|i)", r"puttan(?:a|e)"),
    "nl": (r"klootza(?:k|kken)", r"kankerlijers?", r"kutwij(?:f|ven)"),
    "pt": (r"caralho", r"foda-se", r"filho da puta", r"merda"),
}
_INSULT = re.compile(
    rf"(?<![\w-])(?:{'|'.join(word for words in _WORDS.values() for word in words)})(?!\w)",
    re.IGNORECASE,
)


def insult_in(text: str) -> str:
    """The first insult or obscenity of a text, as it is written there; empty where there is none."""
    found = _INSULT.search(text)
    return found[0] if found else ""
