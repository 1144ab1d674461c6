"""The pages against the code: what they tell people to type exists, and where they point is something."""

import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from itertools import takewhile
from pathlib import Path

import pytest
import rich_click as click

from docs.generate import pages
from server.cli import main
from server.settings import describe
from training.config import recipe_names

ROOT = Path(__file__).parents[1]
WRITTEN = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if path.parent.name != "reference"),
]
PAGES = [*WRITTEN, *sorted((ROOT / "docs" / "reference").glob("*.md"))]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
FENCED = re.compile(r"^ *```[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
QUOTED = re.compile(r"`([^`\n]+)`")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def code_in(page: Path) -> list[str]:
    """What a page shows as code: the lines of its blocks, and what stands between back-ticks."""
    text = text_of(page)
    blocks = "\n".join(FENCED.findall(text)).replace("\\\n", " ").splitlines()
    # a command between back-ticks may go over the end of a line
    return [*blocks, *re.findall(r"`([^`]+)`", FENCED.sub("", text))]


def commands_in(page: Path) -> list[list[str]]:
    """The words after ``tenantune``, of each command that a page names."""
    commands = []
    for code in code_in(page):
        for command in re.findall(r"(?<![\w/.-])tenantune (?=[a-z])(.*)", code, re.DOTALL):
            words = shlex.shlex(
                command.replace("[OPTIONS]", ""), posix=True, punctuation_chars=True
            )
            words.whitespace_split = True
            commands.append(
                list(takewhile(lambda word: not re.fullmatch(r"[();<>|&]+", word), words))
            )
    return commands


named = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@named
def test_every_command_that_a_page_names_exists_and_takes_its_words(page: Path) -> None:
    for words in commands_in(page):
        command: click.Command = main
        rest = list(words)
        while rest and isinstance(command, click.Group):
            found = command.get_command(click.Context(command), rest.pop(0))
            assert found, f"tenantune {' '.join(words)}"
            command = found
        if rest:  # else it is only mentioned
            parser = command.make_parser(click.Context(command))
            try:
                _, left_over, _ = parser.parse_args([word for word in rest if word != "--help"])
            except click.UsageError as exc:
                pytest.fail(f"tenantune {' '.join(words)}: {exc.message}")
            assert left_over == [], f"tenantune {' '.join(words)}"


@named
def test_every_variable_that_a_page_names_is_a_setting(page: Path) -> None:
    known = {variable for variable, _, _ in describe()}
    assert set(re.findall(r"\bTENANTUNE_[A-Z_]*[A-Z]\b", text_of(page))) <= known


@named
def test_every_recipe_that_a_page_names_exists(page: Path) -> None:
    assert set(re.findall(r"\b(?:cpu|gpu)-(?:demo|small|[0-9]+gb)\b", text_of(page))) <= set(
        recipe_names()
    )


@named
def test_make_targets_that_a_page_names_exist(page: Path) -> None:
    for code in code_in(page):
        if target := re.match(r" *make ([a-z-]+)", code):
            assert re.search(rf"^{target[1]}:", MAKEFILE, re.MULTILINE), target[1]


EXAMPLES = (  # files that the recipes of CONTRIBUTING.md make
    "importers/dialogue.py",
    "web/console/pages/changes.py",
    "web/console/templates/changes.html",
)


@named
def test_files_and_folders_that_a_page_names_exist(page: Path) -> None:
    tops = {path.name for path in ROOT.iterdir()}
    for code in QUOTED.findall(FENCED.sub("", text_of(page))):
        top, slash, rest = code.partition("/")
        if slash and top in tops - {"dist", ".venv"} and re.fullmatch(r"[\w./-]*", rest):
            is_example = page.name == "CONTRIBUTING.md" and rest in EXAMPLES
            assert is_example or (ROOT / code).exists(), code


@named
def test_python_modules_that_a_page_runs_exist(page: Path) -> None:
    for module in re.findall(r"python -m ((?:server|training|tests)[\w.]*)", text_of(page)):
        path = ROOT.joinpath(*module.split("."))
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and Sphinx make them."""
    titles = re.findall(r"^#+ (.+)$", FENCED.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@named
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", text_of(page))):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        to = (page.parent / name).resolve() if name else page
        assert to.exists(), target
        assert not anchor or anchor in anchors_of(to), target


def test_generated_pages_are_up_to_date() -> None:
    stale = [path.name for path, text in pages().items() if text_of(path) != text]
    assert stale == [], "run: make docs-pages"


class Loaded(HTMLParser):
    """Addresses that a browser fetches to show a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and given.get("rel") not in {"next", "prev", "index", "search"}:
            self.addresses.add(given.get("href") or "")
        elif tag != "a":
            self.addresses.add(given.get("src") or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, built as strictly as ``make docs`` does."""
    made = tmp_path_factory.mktemp("site")
    strict = ("--nitpicky", "--fail-on-warning", "--keep-going", "--quiet")
    argv = [sys.executable, "-m", "sphinx", *strict, str(ROOT / "docs"), str(made)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return made


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    html = list(site.rglob("*.html"))
    assert len(html) > len(list((ROOT / "docs").rglob("*.md")))  # search and index beside them
    for page in html:
        loaded = Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        assert [a for a in loaded.addresses if "//" in a] == [], page
    for style in site.rglob("*.css"):
        outside = re.findall(r"url\(\s*[\"']?(?:https?:)?//|@import", style.read_text("utf-8"))
        assert outside == [], style


def test_every_page_can_be_reached_from_the_first(site: Path) -> None:
    start = (site / "index.html").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert f'href="{page.relative_to(ROOT / "docs").with_suffix(".html")}"' in start or (
            page.name == "index.md"
        )
