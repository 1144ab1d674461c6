"""Markdown in the panel: what it becomes, and that it becomes nothing else."""

from typing import Any

import pytest
from playwright.sync_api import Frame

from server.web.static import static_files
from tests.browser.widget.conftest import Chat, Visitors

CUTS = 12_000
MICROSECONDS_A_CHARACTER = 1000

_DRAW = """async ([module, text]) => {
  const { Markdown } = await import(module);
  const drawn = document.createElement("div");
  const markdown = new Markdown(drawn);
  markdown.write(text);
  markdown.end();
  drawn.querySelectorAll("button").forEach((button) => button.remove());
  drawn.querySelectorAll("[href]").forEach((link) => { link.removeAttribute("rel"); link.removeAttribute("target"); });
  return drawn.innerHTML;
}"""
# Texts made of what Markdown is made of; each drawn in one piece, and cut at random.
_FUZZ = r"""async ([module, cuts]) => {
  const { Markdown } = await import(module);
  const pieces = ["**", "*", "_", "__", "***", "`", "``", "```", "```js\n", "~~", "[", "](", "](https://a.example/x)",
    "](javascript:alert(1))", "](data:text/html,x)", "](/relative)", ")", "]", "!", "![alt](http://evil.example/x.png)",
    "https://b.example/p", "http://", "javascript:", "\n", "\n\n", "\n- ", "\n  - ", "\n1. ", "\n12) ", "\n> ", "\n# ", "### ",
    "    ", "\t", "| a | b |\n|---|---|\n| 1 | 2 |\n", "|", "word", " ", "$", "\\(", "\\", "<b>", "<br>",
    "<img src=x onerror=alert(1)>", "<script>", "</p>", "&amp;", "h", "ht", "5", "é", "😀", "[ ] ", "- [x] t", "---\n",
    "a*b", "x_y_z", "(", ":", ".", "end"];
  const tags = new Set("P STRONG EM S A CODE PRE DIV BUTTON svg use UL OL LI BLOCKQUOTE BR HR TABLE TR TH TD".split(" "));
  let seed = 7;
  const random = (below) => (seed = (seed * 1103515245 + 12345) % 2147483648) % below;
  const draw = (parts) => {
    const drawn = document.createElement("div");
    const markdown = new Markdown(drawn);
    for (const part of parts) markdown.write(part);
    markdown.end();
    return drawn;
  };
  const faults = [];
  for (let done = 0; done < cuts; ) {
    let text = "";
    for (let left = 1 + random(14); left--; ) text += pieces[random(pieces.length)];
    const whole = draw([text]);
    for (const element of whole.querySelectorAll("*")) {
      if (!tags.has(element.tagName)) faults.push(["tag", text, element.tagName]);
      for (const { name, value } of element.attributes) {
        if (/^on|style|src|srcset|srcdoc/.test(name)) faults.push(["attribute", text, name]);
        if (element.tagName === "A" && name === "href" && !/^(https?|mailto|tel):/.test(value)) faults.push(["address", text, value]);
      }
    }
    for (const longest of [1, 3, 8]) {
      const parts = [];
      for (let at = 0, size; at < text.length; at += size) parts.push(text.slice(at, at + (size = 1 + random(longest))));
      if (draw(parts).innerHTML !== whole.innerHTML) faults.push(["cut", text, parts]);
      done++;
    }
  }
  return faults.slice(0, 5);
}"""
_TIME = """async ([module, text]) => {
  const { Markdown } = await import(module);
  const markdown = new Markdown(document.createElement("div"));
  const before = performance.now();
  markdown.write(text);
  markdown.end();
  return performance.now() - before;
}"""


@pytest.fixture
def frame(chat: Chat, visitor: Visitors) -> Frame:
    return visitor(chat.page()).open().frame


def _in_panel(frame: Frame, script: str, argument: Any) -> Any:
    return frame.evaluate(script, [static_files().url("markdown.js"), argument])


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("Until **Tuesday *noon***", "<p>Until <strong>Tuesday *noon</strong>*</p>"),
        (
            "*a* __b__ ***c*** ~~d~~",
            "<p><em>a</em> <strong>b</strong> <strong><em>c</em></strong> <s>d</s></p>",
        ),
        ("snake_case_name **open", "<p>snake_case_name **open</p>"),
        (r"\*not\* $5 and $6", "<p>*not* $5 and $6</p>"),
        ("# A\nb\nc\n\nd", "<p><strong>A</strong></p><p>b<br>c</p><p>d</p>"),
        (
            "1. a\n2. b\n   - c\n\ntext",
            "<ol><li>a</li><li>b<ul><li>c</li></ul></li></ol><p>text</p>",
        ),
        ("5. e\n* f", '<ol start="5"><li>e</li></ol><ul><li>f</li></ul>'),
        ("- [x] a\n- [ ] b", "<ul><li>☑ a</li><li>☐ b</li></ul>"),
        ("> a\n> b\n\nc", "<blockquote><p>a<br>b</p></blockquote><p>c</p>"),
        ("`x` `` `y` ``", '<p><code dir="ltr">x</code> <code dir="ltr"> `y` </code></p>'),
        (
            "a\n```py\nb **c**\n\nd\n```\ne",
            '<p>a</p><div class="code" dir="ltr"><pre><code>b **c**\n\nd\n</code></pre></div><p>e</p>',
        ),
        (
            "| a | b |\n|---|---|\n| 1 | **2** |",
            '<div class="wide" tabindex="0"><table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td><strong>2</strong></td></tr></table></div>',
        ),
        ("[b](https://a.example/x_(y)) [1]", '<p><a href="https://a.example/x_(y)">b</a> [1]</p>'),
        (
            "(https://a.example/x).",
            '<p>(<a href="https://a.example/x">https://a.example/x</a>).</p>',
        ),
        ("[m](mailto:a@b.example)", '<p><a href="mailto:a@b.example">m</a></p>'),
        (
            "![bread](http://evil.example/x.png)",
            '<p><a href="http://evil.example/x.png">bread</a></p>',
        ),
        ("[x](javascript:alert(1)) [y](/basket)", "<p>x y</p>"),
        ("<img src=x onerror=alert(1)>", "<p>&lt;img src=x onerror=alert(1)&gt;</p>"),
        ("[half](/basket", "<p>[half](/basket</p>"),
        ("---\n```", '<hr><div class="code" dir="ltr"><pre><code></code></pre></div>'),
    ],
)
def test_what_markdown_becomes(frame: Frame, text: str, html: str) -> None:
    assert _in_panel(frame, _DRAW, text) == html


def test_a_link_is_live_only_when_its_address_is_complete(frame: Frame) -> None:
    script = """async ([module, text]) => {
      const { Markdown } = await import(module);
      const drawn = document.createElement("div");
      const markdown = new Markdown(drawn);
      const seen = new Set();
      for (const each of text) {
        markdown.write(each);
        drawn.querySelectorAll("a").forEach((link) => seen.add(link.outerHTML));
      }
      return [...seen];
    }"""
    [link] = _in_panel(frame, script, "See [My basket](https://a.example/basket?week=48) now")
    assert link == (
        '<a href="https://a.example/basket?week=48" rel="noopener nofollow ugc" target="_blank">'
        "My basket</a>"
    )


def test_how_an_answer_was_cut_makes_no_difference(frame: Frame) -> None:
    assert _in_panel(frame, _FUZZ, CUTS) == []


@pytest.mark.parametrize(
    "text",
    [
        "*",
        "*a",
        "_a ",
        "`",
        "`a``",
        "[",
        "![",
        "[a](",
        "~~a",
        "- ",
        "***a ",
        ">",
        "\\",
        "|a",
        "* **",
    ],
)
def test_no_text_takes_long(frame: Frame, text: str) -> None:
    made = text * (8000 // len(text))
    # some 10 us a character, measured; ten thousand times that where a pattern goes astray
    assert _in_panel(frame, _TIME, made) * 1000 / len(made) < MICROSECONDS_A_CHARACTER
