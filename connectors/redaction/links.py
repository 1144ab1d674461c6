"""URLs that are private to one person, in contrast to public pages.

The assistant should learn the links of the help centre. So a link stays, unless it has a secret (a
token, a signature, a session, a password reset) or belongs to one person (the page of an order, an
address in the query).
"""

import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, unquote, urlsplit

from connectors.redaction.emails import EmailRecognizer
from connectors.redaction.folding import UNSPACED
from connectors.redaction.placeholders import PLACEHOLDER
from connectors.redaction.recognizer import Span

_EMAILS = EmailRecognizer()

_URL = re.compile(
    r"(?:(?<![A-Za-z0-9])[a-z][a-z0-9+.-]{1,20}://|(?<![A-Za-z0-9])www\."
    r"|(?<![A-Za-z0-9@._-])(?:[a-z0-9-]{1,63}\.){1,6}[a-z]{2,24}(?=[/?]))"
    rf"[^\s<>\"'`{UNSPACED}]+",
    re.IGNORECASE,
)
# The value of such a key is a secret, whatever it looks like.
_SECRET_KEY = re.compile(
    r"token|secret|passw|pwd|api_?key|signature|^sig$|^sid$|jwt|otp|credential|^pin$|hmac|magic"
    r"|session_?id|^mkt_tok$|^mc_eid$",
    re.IGNORECASE,
)
# The value of such a key is a secret unless it is a plain word or a count: "state=open".
_DOUBTFUL_KEY = re.compile(
    r"^key$|^k$|auth(?!or)|session|^code$|^state$|nonce|invite|reset|ticket|hash|access|^u?uid$|^cid$"
    r"|verif|confirm|activat|unsub|share_?(?:id|key)|^h$|^s$|^t$",
    re.IGNORECASE,
)
_PERSON_KEY = re.compile(
    r"(?:order|customer|client|user|member|account|contact|booking|reservation|parcel|shipment"
    r"|consignment|tracking|track|invoice|subscriber|recipient|kunden|bestell|auftrags|sendungs)"
    r"_?(?:id|no|nr|num|number|code|ref|nummer)?s?$|^tracknumbers?$|^piececode$|^awb$",
    re.IGNORECASE,
)
# Campaign tags, and click ids that only the advertiser can read.
_PUBLIC_KEY = re.compile(
    r"utm_\w*|hsa_\w*|gclid|gclsrc|gbraid|wbraid|dclid|fbclid|msclkid|ttclid|twclid|igshid|igsh|yclid"
    r"|_ga|_gl|ref_?|ref_src|feature|v|list|si|variant|v\d?|rev|ver|version|build|etag",
    re.IGNORECASE,
)
# Sites whose ids are of pages, videos and apps.
_PUBLIC_HOST = re.compile(
    r"(?:.*\.)?(?:youtube\.com|youtube-nocookie\.com|youtu\.be|vimeo\.com|open\.spotify\.com"
    r"|apps\.apple\.com|itunes\.apple\.com|play\.google\.com|github\.com|gitlab\.com|wikipedia\.org"
    r"|notion\.site|amazon\.[a-z.]{2,6}|ebay\.[a-z.]{2,6}|goo\.gl|g\.page|trustpilot\.com)"
)
_AUTH_SEGMENT = re.compile(
    r"(?:magic|reset|password|passwort|invite|invitation|invites|verify|verification|confirm|activate"
    r"|activation|login|signin|auth|oauth|sso|unsubscribe|token|share|shared|session|s|preferences)"
    r"(?:[-_](?:password|link|email|e-mail|account|token|login|in|invite))?"
    r"|(?:forgot|new|set|change)[-_]password|sign-in|log-in|one-time-login",
    re.IGNORECASE,
)
_PERSON_SEGMENT = re.compile(
    r"(?:my[-_]?)?(?:orders?|track|tracking|parcels?|shipments?|bookings?|reservations?|invoices?"
    r"|receipts?|customers?|accounts?|users?|members?|profiles?|claims?|returns?|deliver(?:y|ies)"
    r"|bestellung(?:en)?|sendung(?:en)?|commandes?|pedidos?|ordini|bestelling(?:en)?|tickets?|cases?"
    r"|requests?)(?:[-_](?:status|details?|tracking|id))?",
    re.IGNORECASE,
)
_WORDS_OF_HELP = re.compile(
    r"(?:articles?|solutions?|hc|help|support|faqs?|kb|docs?|blog|posts?|news|categor(?:y|ies)|sections?"
    r"|topics?|guides?|knowledge\w*|learn|wiki|questions?|hilfe|aide|ayuda)",
    re.IGNORECASE,
)
_TREES = frozenset(["commit", "commits", "blob", "tree", "raw"])
_ARTICLE = re.compile(r"(?:[A-Za-z]{0,3}\d{1,20}[-_])?[^\W\d_]+(?:[-_][^\W_]{1,24})+(?:\.\w{2,5})?")
_VOUCHER = re.compile(r"[A-Z]{3,12}[-_]?\d{0,4}[-_]?[A-Z]{0,12}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TOKENS = re.compile(r"[^A-Za-z0-9]+")
# A word, a word in capitals, words set together, with a count or a year behind; or a number.
_WORDY = re.compile(
    r"(?:[A-Z]?[a-z]+|[A-Z]+|[A-Z]?[a-z]+(?:[A-Z][a-z]+)+)\d{0,4}|\d{1,4}[a-z]{0,3}"
)
_CHANGES = re.compile(r"(?<=[0-9])(?=[A-Za-z])|(?<=[A-Za-z])(?=[0-9])|(?<=[a-z])(?=[A-Z])")
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_COUNTS = frozenset(["s", "t", "h", "state"])  # a page, a time
_MIN_SECRET_LENGTH = 4  # "otp=1234" is one, "reset=yes" is none
_MIN_LINK_CODE_LENGTH = 6
_MIN_RANDOM_LENGTH = 20
_MIN_CHANGES = 3  # between letters, digits and cases: "iphone15" has one


class UrlRecognizer:
    """URLs that carry a secret or belong to a person. The placeholder stands behind the host."""

    supported_entities = ("URL",)

    def analyze(self, text: str, context: str = "") -> Iterator[Span]:
        """See ``Recognizer.analyze``."""
        if "/" not in text and "?" not in text:
            return
        for found in _URL.finditer(text):
            url = found[0].rstrip(".,;:!?)]}\u2026")
            if url.count("[") > url.count("]") and found[0].startswith(f"{url}]"):
                url += "]"
            has_scheme = "://" in url
            try:
                parts = urlsplit(url if has_scheme else f"//{url}")
                host = parts.hostname or ""
                port = f":{parts.port}" if parts.port else ""
            except ValueError:
                continue
            if (
                parts.password
                or (parts.username and has_scheme)
                or _is_private(host, parts.path, parts.query, parts.fragment)
            ):
                scheme = f"{parts.scheme}://" if has_scheme else ""
                start = found.start()
                yield Span(start, start + len(url), "URL", url, prefix=f"{scheme}{host}{port}/")


def _is_private(host: str, path: str, query: str, fragment: str) -> bool:
    public_host = _PUBLIC_HOST.fullmatch(host) is not None
    segments = [unquote(segment) for segment in path.split("/")]
    on_auth_page = any(_AUTH_SEGMENT.fullmatch(segment) for segment in segments)
    pairs = parse_qsl(query) + parse_qsl(fragment)
    if any(
        _private_pair(*pair, on_auth_page=on_auth_page, public_host=public_host) for pair in pairs
    ):
        return True
    # A literal address is replaced where it stands; a hidden one takes the link with it.
    if "%40" in f"{path}{query}{fragment}" and any(
        _EMAILS.analyze(unquote(f"{path} {query} {fragment}"))
    ):
        return True
    if public_host:
        return False
    route = fragment.lstrip("!").split("/") if "/" in fragment else []
    return _private_path(segments) or _private_path(route)


def _private_path(segments: list[str]) -> bool:
    before = ""
    helpful = False
    for segment in segments:
        if _is_random(segment) and not (_COMMIT.fullmatch(segment) and before in _TREES):
            return True
        if len(segment) >= _MIN_LINK_CODE_LENGTH and not _is_article(segment):
            code = any(not _WORDY.fullmatch(token) for token in _TOKENS.split(segment) if token)
            if code and _AUTH_SEGMENT.fullmatch(before):
                return True
            digits = sum(character.isdigit() for character in segment)
            numbered = code and digits >= _MIN_SECRET_LENGTH
            if numbered and not helpful and _PERSON_SEGMENT.fullmatch(before):
                return True
        helpful = helpful or _WORDS_OF_HELP.fullmatch(segment) is not None
        before = segment
    return False


def _is_article(segment: str) -> bool:
    """A slug, or an article's number and its slug: "360012345678-How-do-I-reset"."""
    words = sum(token.isalpha() for token in _TOKENS.split(segment))
    return words > 1 and _ARTICLE.fullmatch(segment) is not None


def _private_pair(key: str, value: str, *, on_auth_page: bool, public_host: bool) -> bool:
    if PLACEHOLDER.fullmatch(value) or len(value) < _MIN_SECRET_LENGTH:
        return False
    if _SECRET_KEY.search(key):
        return value != "false"
    voucher = key.casefold() == "code" and not on_auth_page and _VOUCHER.fullmatch(value)
    if voucher or _PUBLIC_KEY.fullmatch(key):
        return False
    if _DOUBTFUL_KEY.search(key) and value.isdigit():
        return on_auth_page or key.casefold() not in _COUNTS
    if _DOUBTFUL_KEY.search(key):
        return any(not _WORDY.fullmatch(token) for token in _TOKENS.split(value) if token)
    theirs = _PERSON_KEY.fullmatch(key) and sum(map(str.isdigit, value)) >= _MIN_SECRET_LENGTH
    return bool(theirs) or (not public_host and _is_random(value))


def _is_random(value: str) -> bool:
    """Whether it looks generated: long, of mixed letters and digits, and not a slug."""
    if _UUID.search(value):
        return True
    if len(value) < _MIN_RANDOM_LENGTH:
        return False
    for token in _TOKENS.split(value):
        turns = len(_CHANGES.findall(token))
        longest = len(token) >= _MIN_RANDOM_LENGTH
        if turns >= _MIN_CHANGES and (longest or len(value) - len(token) <= _MIN_SECRET_LENGTH):
            return True
    tokens = [token for token in _TOKENS.split(value) if token]
    strange = [token for token in tokens if not _WORDY.fullmatch(token) and not token.isdigit()]
    return sum(map(len, strange)) * 2 > len(value) and any(
        len(_CHANGES.findall(token)) >= _MIN_CHANGES for token in strange
    )
