"""What the widget's frame is made of: the panel's document, the tenant's colours, and their headers."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from server.conversations import colours, origins, tokens, widgets
from server.conversations.schemas import LANGUAGES, Language
from server.conversations.widgets import Site
from server.web.static import static_files
from server.webhooks.vault import Vault

Scheme = Literal["light", "dark"]
_HERE = Path(__file__).parent
_ITSELF = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'none'; form-action 'none'; base-uri 'none'; "
    "require-trusted-types-for 'script'"
)


def language_of(asked: str, site: Site) -> Language:
    """The language of a panel: the page's where we have it, else the widget's, else English."""
    for wanted in (asked, site.widget.language):
        primary = wanted.lower().replace("_", "-").partition("-")[0]
        for language in LANGUAGES:
            if language == primary:
                return language
    return "en"


def panel(site: Site, language: Language, *, vault: Vault, preview_styles: str = "") -> str:
    """The panel's document, with a nonce that makes one session within a minute.

    ``preview_styles``: the address of what ``preview_css`` gives, for the console's preview.
    """
    widget = site.widget
    styles = (
        [preview_styles] if preview_styles else [static_files().url("panel.css"), theme_url(site)]
    )
    key = widgets.session_key(widget, vault)
    return _render(
        "panel.html",
        language=_texts()[language],
        lang=language,
        languages=[(code, _texts()[code]["name"]) for code in LANGUAGES],
        name=site.name,
        monogram=site.name.strip()[:1].upper(),
        greeting=widget.greeting,
        suggestions=widget.suggestions,
        nonce=tokens.make_nonce(key, widget.public_key, preview=bool(preview_styles)),
        address=f"/widget/{widget.public_key}",
        styles=styles,
    )


def refused(*, origin: str | None, console: str) -> str:
    """A document that shows nothing, and says on the browser's console why.

    ``origin`` is the site that may not show the widget; None: there is no such widget.
    """
    return _render("refused.html", origin=origin or "", console=console)


def panel_headers(site: Site) -> dict[str, str]:
    """The headers of the panel's document: browsers show it on the allowed sites alone."""
    widget = site.widget
    allowed = origins.frame_ancestors(widget.origins, localhost=widget.allow_localhost)
    return _headers(allowed)


def preview_headers() -> dict[str, str]:
    """The headers of the console's preview: no other site may frame it."""
    return _headers("frame-ancestors 'self'")


def refused_headers() -> dict[str, str]:
    """The headers of the document that shows nothing; any site may frame it."""
    return _headers("frame-ancestors *")


def theme_url(site: Site) -> str:
    """The address of a widget's colours; it changes with them."""
    digest = hashlib.sha256(theme_css(site).encode()).hexdigest()[:12]
    return f"/widget/{site.widget.public_key}/theme.css?v={digest}"


def theme_css(site: Site) -> str:
    """A widget's colours in both schemes, corrected where they were hard to read."""
    return _theme_css(site.widget.accent)


def preview_css(accent: str, scheme: Scheme) -> str:
    """The panel's styles with an accent colour, in one scheme whatever the browser prefers.

    Raises:
        ValueError: ``accent`` is no colour.
    """
    css = static_files()["panel.css"].content.decode() + _theme_css(accent)
    for condition in ("(prefers-color-scheme: dark)", "(prefers-color-scheme:dark)"):
        css = css.replace(condition, "all" if scheme == "dark" else "not all")
    return css.replace("color-scheme: light dark", f"color-scheme: {scheme}")


def _theme_css(accent: str) -> str:
    theme = colours.theme(accent)
    light, dark = _properties(theme.light), _properties(theme.dark)
    return f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"


def _properties(shade: colours.Shade) -> str:
    colour, upon = shade.colour, shade.on
    return (
        f"--tt-accent:{colour};--tt-on-accent:{upon};--tt-link:{colour};"
        f"--tt-me:{colour};--tt-on-me:{upon}"
    )


def _headers(frame_ancestors: str) -> dict[str, str]:
    return {
        "content-security-policy": f"{_ITSELF}; {frame_ancestors}",
        "cache-control": "no-store",
        "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        "referrer-policy": "same-origin",
        "x-content-type-options": "nosniff",
        "x-robots-tag": "noindex",
    }


def _render(template: str, /, **context: Any) -> str:  # noqa: ANN401 - what the template shows
    return _templates().get_template(template).render(asset=static_files().url, **context)


@cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined
    )


@cache
def _texts() -> dict[str, dict[str, Any]]:
    """The panel's words by language."""
    folder = _HERE / "languages"
    return {code: msgspec.json.decode((folder / f"{code}.json").read_bytes()) for code in LANGUAGES}
