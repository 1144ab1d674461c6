"""How long pages' tasks take, from the trace that Chromium writes of itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser

_CATEGORIES = ["disabled-by-default-devtools.timeline"]  # which has the tasks of every thread
_PATIENCE = 60  # seconds, for the trace to come


@contextmanager
def traced_tasks(chromium: Browser) -> Iterator[list[float]]:
    """The tasks of pages' main threads in this block: milliseconds of processor time.

    The list is filled at the block's end. What other programs take does not count: time on the clock
    does on a busy machine, and so in what browsers report as long tasks.
    """
    session = chromium.new_browser_cdp_session()
    tasks: list[float] = []
    found: dict[tuple[int, int], list[float]] = {}
    pages: set[tuple[int, int]] = set()
    ended: list[dict[str, Any]] = []

    def collect(answer: dict[str, Any]) -> None:
        for event in answer["value"]:
            thread = event["pid"], event["tid"]
            if event["name"] == "RunTask" and "tdur" in event:
                found.setdefault(thread, []).append(event["tdur"] / 1000)
            elif event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain":
                pages.add(thread)

    def end(answer: dict[str, Any]) -> None:  # Playwright takes no built-in function
        ended.append(answer)

    session.on("Tracing.dataCollected", collect)
    session.on("Tracing.tracingComplete", end)
    config = {"includedCategories": _CATEGORIES, "excludedCategories": ["*"]}
    session.send("Tracing.start", {"transferMode": "ReportEvents", "traceConfig": config})
    yield tasks
    session.send("Tracing.end")
    page = chromium.contexts[0].pages[0]
    for _ in range(_PATIENCE * 20):
        if ended:
            break
        page.wait_for_timeout(50)
    session.detach()
    assert ended, "the trace does not end"
    assert not ended[0]["dataLossOccurred"]
    tasks.extend(each for thread in pages for each in found.get(thread, []))
