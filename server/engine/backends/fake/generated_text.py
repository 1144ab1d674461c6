"""The visible text of the fake engine's tokens, with stop strings handled as vLLM does."""

import re
from typing import Any

PIECES = re.compile(r"\s*(?:\w+|.)", re.DOTALL)
TURN_END = "<|im_end|>"


class GeneratedText:
    """Tokens that are generated until a limit, a stop string, or their end.

    ``tokens`` are those that were generated, with those of the stop string. ``pieces`` has, for
    each token, the text that it adds to the answer: it lags behind while a stop string may have
    begun, and never contains one.
    """

    def __init__(self, tokens: list[str], *, limit: int, stop: str | list[str] | None) -> None:
        stops = [stop] if isinstance(stop, str) else list(stop or ())
        self.tokens = tokens[:limit]
        self.finish = "stop" if len(tokens) < limit else "length"
        self.cut = len(tokens) > limit  # there would have been more
        self.stop_reason: str | None = None
        held = max(map(len, stops), default=1) - 1
        text, shown, self.pieces = "", 0, list[str]()
        for position, token in enumerate(self.tokens):
            text += token
            last = position == len(self.tokens) - 1
            found = min(((at, s) for s in stops if (at := text.find(s)) >= 0), default=None)
            if found is not None:
                text, self.stop_reason = text[: found[0]], found[1]
                self.tokens = self.tokens[: position + 1]
                self.finish, self.cut, last = "stop", True, True
            until = max(shown, len(text) - (0 if last else held))
            self.pieces.append(text[shown:until])
            shown = until
            if found is not None:
                break
        self.text = text

    def logprob_tokens(self, position: int) -> list[str]:
        """The tokens in the log-probabilities at a position; the last one adds the end token."""
        ends = position == len(self.tokens) - 1 and self.finish == "stop" and not self.cut
        return [self.tokens[position], *([TURN_END] if ends else ())]


def usage_options(body: dict[str, Any]) -> tuple[bool, bool]:
    """Whether a stream has token counts at its end, and whether it has them in every chunk."""
    options = body.get("stream_options") or {}
    wanted = bool(options.get("include_usage"))
    return wanted, wanted and bool(options.get("continuous_usage_stats"))
