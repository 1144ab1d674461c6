"""Answers of our making, where a test is about how one is shown: everything but ``/messages`` is the server's."""

import json
from collections.abc import Mapping, Sequence

from playwright.sync_api import Frame

# Replaces the panel's fetch for messages: events come as a server sends them, in chunks of any size.
_FAKE = """({ events, pause, status, problem }) => {
  const real = window.fetch;
  window.fetch = async (url, options) => {
    if (!String(url).endsWith("/messages")) return real(url, options);
    if (problem) return new Response(JSON.stringify(problem), { status });
    const encoder = new TextEncoder();
    const body = new ReadableStream({
      async start(controller) {
        options.signal.addEventListener("abort", () => controller.error(options.signal.reason));
        for (const event of events) {
          controller.enqueue(encoder.encode(event));
          if (pause) await new Promise((resolve) => setTimeout(resolve, pause));
        }
        controller.close();
      },
    });
    return new Response(body, { headers: { "content-type": "text/event-stream" } });
  };
}"""


def _event(name: str, **data: object) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def _message(role: str, text: str) -> dict[str, object]:
    return {"id": f"made-{role}-{len(text)}", "role": role, "text": text, "state": "complete"}


def answer_with(
    frame: Frame,
    *parts: str,
    pause: int = 0,
    error: str = "",
    complete: bool = True,
    sources: Sequence[Mapping[str, str | None]] = (),
    **unsupported: object,
) -> None:
    """Answer messages with these parts, ``pause`` ms apart; ``error`` is an event at the end instead.

    ``unsupported``: the fields of the end where nothing supports the answer.
    """
    text = "".join(parts)
    events = [_event("accepted", message=_message("visitor", "?"), answer_id="made")]
    events += [_event("delta", text=part) for part in parts]
    if error:
        events.append(_event("error", code=error, message="", retry_after=600, handoff=True))
    elif complete:
        message = _message("assistant", text) | ({"sources": list(sources)} if sources else {})
        events.append(_event("done", message=message, reason="stop", **unsupported))
    frame.evaluate(_FAKE, {"events": events, "pause": pause})


def refuse_with(frame: Frame, status: int, **problem: object) -> None:
    """Refuse messages with a problem."""
    frame.evaluate(_FAKE, {"problem": problem, "status": status})
