"""What a content security policy without exceptions does not allow is in no template and no script."""

import re
from pathlib import Path

import pytest

from server.web.static import FOLDERS

WEB = Path(__file__).parents[3] / "server" / "web"
TEMPLATES = sorted(WEB.rglob("*.html"))
SCRIPTS = sorted(path for folder in FOLDERS[:2] for path in folder.glob("*.js"))
IN_TEMPLATES = {
    "a style attribute": r"\sstyle\s*=",
    "a style element": r"<style\b",
    "a handler in an attribute": r"\son[a-z]+\s*=",
    "hx-on": r"hx-on\b",
    "js: in an attribute": r"\b(?:js|javascript):",
    "a filter in hx-trigger, which is a function": r"hx-trigger(?::inherited)?=\"[^\"]*\[",
    "a script in the page": r"<script(?![^>]*\ssrc=|\stype=\"application/json\")",
    "an address elsewhere": r"(?:src|href|action)=\"(?:https?:)?//",
    "text that is not escaped": r"\|\s*safe\b|autoescape",
}
IN_SCRIPTS = {
    "HTML from text": r"\.(?:innerHTML|outerHTML)\s*\+?=(?!=)|insertAdjacentHTML|document\.write",
    "code from text": r"\beval\(|new Function|setTimeout\(\s*[\"'`]",
    "a style attribute": r"setAttribute\(\s*[\"']style",
    "a handler in an attribute": r"setAttribute\(\s*[\"']on",
    "an address elsewhere": r"[\"'`](?:https?:)?//(?!www\.w3\.org/)\w",
    "pages kept in the browser": r"\b(?:localStorage|sessionStorage|indexedDB)\b",
}


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.relative_to(WEB).as_posix())
def test_a_template_holds_nothing_that_the_policy_refuses(template):
    # without comments, and without statements, whose parameters look like attributes
    text = re.sub(r"\{#.*?#\}|\{%.*?%\}", "", template.read_text(), flags=re.DOTALL)
    found = {what: re.findall(pattern, text) for what, pattern in IN_TEMPLATES.items()}
    assert not {what: hits for what, hits in found.items() if hits}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(WEB).as_posix())
def test_a_script_holds_nothing_that_the_policy_refuses(script):
    text = re.sub(r"^\s*//.*$", "", script.read_text(), flags=re.MULTILINE)
    allowed = {"pages kept in the browser"} if "widget" in script.parts else set()
    found = {
        what: re.findall(pattern, text)
        for what, pattern in IN_SCRIPTS.items()
        if what not in allowed
    }
    assert not {what: hits for what, hits in found.items() if hits}


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("a style attribute", '<p style="x">'),
        ("a style element", "<style>"),
        ("a handler in an attribute", '<p onclick="x">'),
        ("hx-on", '<p hx-on:click="x">'),
        ("js: in an attribute", '<a href="javascript:x">'),
        ("a filter in hx-trigger, which is a function", '<p hx-trigger="click[ctrlKey]">'),
        ("a script in the page", "<script>x</script>"),
        ("an address elsewhere", '<script src="//cdn.example/x.js"></script>'),
        ("text that is not escaped", "{{ x | safe }}"),
    ],
)
def test_the_search_finds_what_it_is_for(what, text):
    assert re.search(IN_TEMPLATES[what], text)


def test_what_asks_again_by_itself_brings_the_counts_of_the_navigation_along():
    own = {
        "components/polling.html",
        "engine/now.html",
    }  # no tenant's counts stand beside the engine
    templates = WEB / "console" / "templates"
    asking = [path for path in templates.rglob("*.html") if 'hx-trigger="every' in path.read_text()]
    assert {path.relative_to(templates).as_posix() for path in asking} == own


def test_every_component_says_in_a_line_what_it_is():
    components = WEB / "console" / "templates" / "components"
    for path in sorted(components.glob("*.html")):
        text = path.read_text()
        shown = [name for name in re.findall(r"\{% macro (\w+)", text) if not name.startswith("_")]
        said = re.findall(r"^\{# (?:call )?(\w+)[( :]", text, re.MULTILINE)
        assert set(shown) == set(said), path.name


def test_every_component_is_in_the_gallery():
    gallery = WEB.parents[1] / "tests" / "browser" / "templates"
    shown = "".join(path.read_text() for path in gallery.glob("*.html"))
    for path in (WEB / "console" / "templates" / "components").glob("*.html"):
        for name in re.findall(r"\{% macro (\w+)", path.read_text()):
            assert name.startswith("_") or re.search(
                rf"(?:\{{\{{|call|[~(=]|\{{\{{.*) *{name}\(", shown
            ), name
