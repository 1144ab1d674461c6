"""E-mail addresses: in any script, and disguised ("jane at post dot example").

A change of script ends an address: in Chinese, Japanese and Thai nothing else separates it from the
words around it.
"""

import re
from collections.abc import Iterator

from connectors.redaction.folding import UNSPACED, folded_words
from connectors.redaction.recognizer import Span

_LATIN = "A-Za-z\u00c0-\u024f\u1e00-\u1eff"
_OTHER = rf"(?:(?![{_LATIN}{UNSPACED}])[^\W\d_])"  # Cyrillic, Greek, Arabic, Devanagari ...

_AT_WORDS = "at|\u00e4t|arroba|arobase|arobas|chiocciola|klammeraffe|apenstaartje|ma\u0142pa|\u0441\u043e\u0431\u0430\u043a\u0430"
_DOT_WORDS = "dot|punkt|punto|point|ponto|punt|kropka|\u0442\u043e\u0447\u043a\u0430"
_AT = re.compile(
    rf"(?P<sign>[ ]?@[ ]?|%40)"
    rf"|[ ]{{0,2}}[(\[{{<][ ]?(?:@|{_AT_WORDS})[ ]?[)\]}}>][ ]{{0,2}}"
    rf"|[(\[]a[)\]]"
    rf"|(?P<word>[ ](?:{_AT_WORDS})[ ])",
    re.IGNORECASE,
)
_DOT = rf"(?:\.|%2e|[ ]{{0,2}}[(\[{{<][ ]?(?:\.|d|{_DOT_WORDS})[ ]?[)\]}}>][ ]{{0,2}}|[ ](?:{_DOT_WORDS})[ ])"
_LABEL = rf"(?:[{_LATIN}0-9][{_LATIN}0-9-]{{0,62}}|{_OTHER}(?:{_OTHER}|[0-9-]){{0,62}}|[{UNSPACED}]{{1,30}})"
# Registered top-level domains of scripts without blanks, where words may follow at once.
_UNSPACED_TLD = (
    "\u4e2d\u56fd|\u4e2d\u570b|\u516c\u53f8|\u7f51\u7edc|\u7db2\u7d61|\u7f51\u5740|\u4e2d\u6587\u7f51|\u9999\u6e2f|\u53f0\u6e7e|\u53f0\u7063"
    "|\u65b0\u52a0\u5761|\u5728\u7ebf|\u7f51\u5e97|\u7f51\u7ad9|\u96c6\u56e2|\u6211\u7231\u4f60|\u5546\u6807|\u307f\u3093\u306a|\u30b3\u30e0|\ud55c\uad6d|\ub2f7\ucef4"
    "|\u0e44\u0e17\u0e22"
)
_TLD = rf"(?:(?:xn--[a-z0-9-]{{1,59}}|[A-Za-z]{{2,24}})(?![A-Za-z0-9_-])|{_OTHER}{{2,24}}|{_UNSPACED_TLD}|[{UNSPACED}]{{2,12}})"
_DOMAIN = re.compile(
    rf"(?:{_LABEL}{_DOT}){{1,8}}?{_TLD}(?!\.?[A-Za-z0-9]|{_DOT}{_TLD})", re.IGNORECASE
)
_MAX_LOCAL_LENGTH = 128  # twice what a mail server accepts: no rest of an address may stay
_LOCAL = re.compile(rf"[\w.+%'&-]{{1,{_MAX_LOCAL_LENGTH}}}")  # of the reversed text
_TRIM = re.compile(r"[^\w]+$")
_CLASSES = re.compile(rf"(?P<unspaced>[{UNSPACED}])|(?P<latin>[{_LATIN}])|(?P<other>[^\W\d_])")
_HAS_DOT_WORD = re.compile(rf"(?<![^\W_])(?:{_DOT_WORDS})(?![^\W_])", re.IGNORECASE)
_MAIL_BEFORE = re.compile(
    r"(?:e-?mails?|mail|mail address|address|adresse|correo|\u043f\u043e\u0447\u0442\u0430)(?:[ ](?:is|me|address|ist|est|es))?[ ]?[:=]?[ ]?$",
    re.IGNORECASE,
)
_PROVIDERS = re.compile(
    r"(?:g|google|hot|proton|ya|free|fast|rocket|zoho)?mail\.|yahoo\.|outlook\.|icloud\.|gmx\.|web\.de|aol\.|live\."
    r"|msn\.|me\.com|protonmail\.|yandex\.|qq\.|163\.|126\.|naver\.|daum\.|orange\.|wanadoo\.|t-online\.",
    re.IGNORECASE,
)
_DOTS = re.compile(_DOT, re.IGNORECASE)
_LABELS = re.compile(_LABEL)
# "write to jane@example.com.Thanks": a sentence that begins without a blank.
_NEXT_SENTENCE = re.compile(r"([a-z0-9-]+(?:\.[a-z0-9-]+)+)\.[A-Z][a-z]+")
_NO_DOMAIN = frozenset(folded_words("the a an this that my your our his her their its"))
_NO_LOCAL = frozenset(
    folded_words(
        "me us you him her them look shop is it store page site website here order online found available visit"
        " click meet be are was live hosted anyone someone people support"
    )
)


class EmailRecognizer:
    """E-mail addresses; a blank round the @ is allowed, and ``(at)``, ``%40``, ``dot`` are read."""

    supported_entities = ("EMAIL",)

    def analyze(self, text: str, context: str = "") -> Iterator[Span]:
        """See ``Recognizer.analyze``."""
        done = 0
        for at in _AT.finditer(text):
            local = _local_part(text[max(done, at.start() - _MAX_LOCAL_LENGTH) : at.start()])
            if not local:
                continue
            domain = _DOMAIN.match(text, at.end())
            start = at.start() - len(local)
            if domain is None or (at["word"] and not _is_intended(text, start, local, domain[0])):
                continue
            whole = domain[0]
            if runs_on := _NEXT_SENTENCE.fullmatch(whole):
                whole = runs_on[1]
            done = at.end() + len(whole)
            yield Span(start, done, "EMAIL", f"{local}@{_undisguised(whole)}".casefold())


def _local_part(before: str) -> str:
    """The part of the text before the @ that belongs to the address."""
    found = _LOCAL.match(before[::-1])
    if found is None:
        return ""
    run = found[0]
    if not run.isascii():
        run = run[: _border(run)]
    return _TRIM.sub("", run)[::-1]


def _border(reversed_run: str) -> int:
    """Where the script changes."""
    previous = None
    for at, character in enumerate(reversed_run):
        found = _CLASSES.match(character)
        script = found.lastgroup if found else None
        if script and previous and script != previous:
            return at
        # Digits hang on the letters behind them; signs begin anew.
        previous = script or (previous if character.isdigit() else None)
    return len(reversed_run)


def _is_intended(text: str, start: int, local: str, domain: str) -> bool:
    """Whether "jane at post dot example" is meant as an address: "look at shop.example" is not."""
    first = _LABELS.match(domain)
    if local.casefold() in _NO_LOCAL or (first and first[0].casefold() in _NO_DOMAIN):
        return False
    if _HAS_DOT_WORD.search(domain) or re.search(r"[._\d]", local):
        return True
    announced = _MAIL_BEFORE.search(text[max(0, start - 24) : start])
    return announced is not None or _PROVIDERS.match(domain) is not None


def _undisguised(domain: str) -> str:
    """The domain with its dots written as dots."""
    return _DOTS.sub(".", domain)
