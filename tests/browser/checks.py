"""Checks that hold for every page: accessibility, width, size of targets."""

import json
import os
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest
from playwright.sync_api import Frame, Page

AXE = Path(__file__).parents[1] / "e2e" / "node" / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
COLOUR_RULES = ["color-contrast", "link-in-text-block"]
WIDTHS = (320, 360, 1440)
LEAST_TARGET = 24  # CSS pixels, WCAG 2.2 (2.5.8)
FINGER_TARGET = 44

_SIDEWAYS = """() => {
  const most = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= most) return [];
  const wide = [...document.body.querySelectorAll("*")].filter(
    (node) => node.getBoundingClientRect().right > most + 1 && !node.closest(".scroll, pre"));
  return [`${document.documentElement.scrollWidth} of ${most} px`,
    ...wide.slice(0, 5).map((node) => node.outerHTML.slice(0, 120))];
}"""
# A link in a sentence is exempt; a box to tick counts together with its label.
_SMALL = """([targets, least]) => {
  const found = [];
  const inSentence = (node) => node.matches("a, .link") && [...node.parentElement.childNodes].some(
    (other) => other !== node && other.nodeType === Node.TEXT_NODE && /\\w/.test(other.data));
  for (const node of document.querySelectorAll(targets)) {
    if (node.type === "hidden" || inSentence(node)) continue;
    if (!node.checkVisibility({ visibilityProperty: true }) || node.closest(".skip, .sr")) continue;
    const boxes = [node, ...(node.labels ?? [])].map((each) => each.getBoundingClientRect());
    const width = Math.max(...boxes.map((box) => box.right)) - Math.min(...boxes.map((box) => box.left));
    const height = Math.max(...boxes.map((box) => box.bottom)) - Math.min(...boxes.map((box) => box.top));
    if (Math.min(width, height) < least - 0.5)
      found.push(`${Math.round(width)} x ${Math.round(height)}: ${node.outerHTML.slice(0, 120)}`);
  }
  return found;
}"""


def absent(what: str, why: str) -> NoReturn:
    """Skip a test that needs ``what``, and say why; where CI is set, that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is not there: {why}")
    pytest.skip(f"{what} IS NOT THERE, SO NOTHING WAS TESTED HERE: {why}")


def accessibility_faults(page: Page | Frame, *, colours_alone: bool = False) -> list[str]:
    """What axe finds on a page as it is now, a line for each element.

    ``colours_alone``: by the rules that another colour scheme could break, where the rest was tried.
    """
    if not page.evaluate("'axe' in window"):
        page.evaluate(_axe())
    found = page.evaluate(
        "(rules) => axe.run(document, { runOnly: rules, resultTypes: ['violations'] })"
        ".then((result) => JSON.stringify(result.violations))",
        COLOUR_RULES if colours_alone else RULES,
    )
    return [
        f"{fault['id']}: {fault['help']}: {node['html'][:160]} ({node['failureSummary'][:200]})"
        for fault in json.loads(found)
        for node in fault["nodes"]
    ]


def sideways(page: Page | Frame) -> list[str]:
    """How far a page scrolls sideways, and what makes it; nothing where it does not."""
    found: list[str] = page.evaluate(_SIDEWAYS)
    return found


def small_targets(page: Page | Frame) -> list[str]:
    """What a pointer must hit and is smaller than ``LEAST_TARGET``."""
    targets = "a[href], button, input, select, textarea, summary"
    found: list[str] = page.evaluate(_SMALL, [targets, LEAST_TARGET])
    return found


def small_for_a_finger(page: Page | Frame) -> list[str]:
    """Controls that are smaller than ``FINGER_TARGET``; links in a line of text are let be."""
    targets = "button:not(.link), a.btn, .nav a, .tenant, .seg a, input, select, textarea, summary"
    found: list[str] = page.evaluate(_SMALL, [targets, FINGER_TARGET])
    return found


@cache
def _axe() -> str:
    if not AXE.exists():
        absent("axe", "`make test` installs it; or run `npm ci` in tests/e2e/node")
    return AXE.read_text(encoding="utf-8")
