"""Keys and passwords in a text, by the formats that their issuers publish.

Each format names where it is documented. What has no such prefix is found only behind a word that says
what it is: "the password is ...".
"""

import re
from collections.abc import Iterator
from typing import NamedTuple


class Secret(NamedTuple):
    """``text[start:end]`` is a secret of this kind."""

    start: int
    end: int
    kind: str


_FORMATS: tuple[tuple[str, str], ...] = (
    # docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html, "Unique ID prefixes"
    ("AWS access key", r"(?<![A-Z0-9])(?:AKIA|ASIA)[A-Z2-7]{16}(?![A-Z0-9])"),
    # github.blog/2021-04-05-behind-githubs-new-authentication-token-formats
    ("GitHub token", r"(?<!\w)(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_\w{22,255})(?!\w)"),
    # docs.gitlab.com/security/tokens, "Token prefixes"
    ("GitLab token", r"(?<!\w)glpat-[\w-]{20,64}"),
    # docs.slack.dev/authentication/tokens
    ("Slack token", r"(?<!\w)xox[abeprs]-[A-Za-z0-9-]{10,250}|(?<!\w)xapp-\d-[A-Za-z0-9-]{10,250}"),
    # docs.stripe.com/keys
    (
        "Stripe key",
        r"(?<!\w)(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,255}|(?<!\w)whsec_[A-Za-z0-9+/=]{24,128}",
    ),
    # docs.cloud.google.com/docs/authentication/api-keys
    ("Google API key", r"(?<![\w-])AIza[\w-]{35}(?![\w-])"),
    # platform.openai.com/docs/api-reference/authentication
    ("OpenAI key", r"(?<![\w-])sk-(?:proj-|svcacct-|admin-)?[A-Za-z0-9_-]{32,255}"),
    # www.twilio.com/docs/sendgrid/ui/account-and-settings/api-keys
    ("SendGrid key", r"(?<!\w)SG\.[\w-]{22}\.[\w-]{43}(?![\w-])"),
    # docs.npmjs.com/about-access-tokens
    ("npm token", r"(?<!\w)npm_[A-Za-z0-9]{36}(?!\w)"),
    # RFC 7519: two base64url JSON objects and a signature
    ("JSON web token", r"(?<![\w.-])eyJ[\w-]{10,2000}\.eyJ[\w-]{10,4000}\.[\w-]{10,1000}"),
    # RFC 7468
    ("private key", r"-----BEGIN (?:[A-Z]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----"),
)
_PASSWORD = re.compile(
    r"(?<!\w)(?:password|passwort|kennwort|mot de passe|contraseña|wachtwoord|senha|pwd|api[ _-]?key|secret[ _-]?key"
    r"|access[ _-]?token)(?: (?:is|ist|est|es|is now|lautet|for you is))?(?: ?[:=] ?| )[\"'`]?(?P<value>[^\s\"'`]{6,80})",
    re.IGNORECASE,
)
_PATTERNS = tuple((kind, re.compile(pattern)) for kind, pattern in _FORMATS)
_PLACEHOLDERS = re.compile(r"[\[{<*•]|x{3}|\.{3}|https?:", re.IGNORECASE)


def secrets_in(text: str) -> Iterator[Secret]:
    """All secrets of a text; one that two formats fit comes once, as the first."""
    taken: list[tuple[int, int]] = []
    for kind, pattern in _PATTERNS:
        for found in pattern.finditer(text):
            if not any(found.start() < end and start < found.end() for start, end in taken):
                taken.append(found.span())
                yield Secret(*found.span(), kind)
    for found in _PASSWORD.finditer(text):
        start, end = found.span("value")
        overlaps = any(start < b and a < end for a, b in taken)
        if not overlaps and _is_password(found["value"].rstrip(".,;:!?)")):
            yield Secret(start, end, "password")


def _is_password(value: str) -> bool:
    """Letters with digits or signs inside: "password is: Xy7!kk22", and not "password reset"."""
    if _PLACEHOLDERS.match(value):
        return False
    letters = any(character.isalpha() for character in value)
    digits = any(character.isdigit() for character in value)
    return len(value) >= 6 and letters and digits  # noqa: PLR2004 - shorter is a PIN or a word
