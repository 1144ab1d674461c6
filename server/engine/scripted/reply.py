"""What the scripted engine answers, in vLLM's shapes."""

import hashlib
import re
import time
import uuid
from typing import Any

import msgspec

from server.engine.scripted.calls import calls_for, json_for

_TEXT = (
    "about after again also around before better bring call can clear come day each early every "
    "find first from gladly good great have help here how just keep kindly know like look made "
    "many more need new next note now once open order over place please point ready right see "
    "send set show small soon start still sure take thank then there thing time today tomorrow "
    "under until very wait want week well what when where which while will with work year you"
)
WORDS = _TEXT.split()
POISONED = "!!!!"
NATURAL_LENGTH = (8, 24)  # words of a reply, at least and at most
DEFAULT_MAX_TOKENS = 4096
_PIECES = re.compile(r"\s*(?:\w+|.)", re.DOTALL)


class Reply:
    """What one request is answered, and how it looks on the wire.

    ``words``: its tokens, as the text they add, at least ``shortest``. ``count``: how many answers,
    all alike.
    """

    def __init__(
        self,
        model: str,
        messages: list[Any],
        body: dict[str, Any],
        *,
        shortest: int = 0,
        poisoned: bool,
    ) -> None:
        self.model = model
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self.prompt_tokens = sum(len(str(m.get("content", "")).split()) + 4 for m in messages)
        self._logprobs = bool(body.get("logprobs"))
        self.count = int(body.get("n") or 1)
        self.usage_wanted = bool((body.get("stream_options") or {}).get("include_usage"))
        limit = int(
            body.get("max_completion_tokens") or body.get("max_tokens") or DEFAULT_MAX_TOKENS
        )
        self._calls = calls_for(body)
        self._named = isinstance(body.get("tool_choice"), dict)
        self._deltas: list[dict[str, Any]]
        if self._calls:
            parts = [part for i, call in enumerate(self._calls) for part in call.deltas(i)]
            self._deltas = [{"tool_calls": [part]} for part in parts]
            self.words = [part["function"].get("arguments", "") for part in parts]
        else:
            wanted = json_for(body)
            if wanted is None:
                shortest = max(shortest, int(body.get("min_tokens") or 0))
                self.words = words(model, messages, shortest, limit)
            else:
                self.words = _PIECES.findall(wanted)
            if poisoned:
                self.words = [POISONED, *(f" {POISONED}" for _ in self.words[1:])]
            self._deltas = [{"content": word} for word in self.words]
        self._finish = "stop" if len(self.words) < limit else "length"
        self.words, self._deltas = self.words[:limit], self._deltas[:limit]

    @property
    def _finish_reason(self) -> str:
        """As vLLM says it: a call that it was told to make ends as an answer does."""
        called = self._calls and not self._named and self._finish == "stop"
        return "tool_calls" if called else self._finish

    def _message(self) -> dict[str, Any]:
        text = "".join(self.words)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if not self._calls:
            return message
        if self._finish == "length":  # cut off: vLLM gives back what the model wrote
            written = "\n".join(call.text for call in self._calls)
            return {**message, "content": written[: len(text)]}
        return {**message, "content": None, "tool_calls": [c.whole() for c in self._calls]}

    def _token_logprobs(self, places: range) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        return {
            "content": [
                {
                    "token": self.words[place],
                    "logprob": -0.1,
                    "bytes": list(self.words[place].encode()),
                    "top_logprobs": [],
                }
                for place in places
            ]
        }

    def _wrap(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self.model,
            "choices": choices,
        }

    def whole(self) -> dict[str, Any]:
        """The answer in one piece."""
        choice = {
            "message": self._message(),
            "logprobs": self._token_logprobs(range(len(self.words))),
            "finish_reason": self._finish_reason,
            "stop_reason": None,
        }
        choices = [{"index": index, **choice} for index in range(self.count)]
        counts = usage(self.prompt_tokens, len(self.words) * self.count)
        return {**self._wrap("chat.completion", choices), "usage": counts}

    def opening(self) -> dict[str, Any]:
        """The first chunk of a stream: the role, nothing else."""
        choice = {
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
        choices = [{"index": index, **choice} for index in range(self.count)]
        return self._wrap("chat.completion.chunk", choices)

    def chunk(self, place: int) -> dict[str, Any]:
        """One token of every choice; the last one says why it is the last."""
        last = place == len(self.words) - 1
        choice: dict[str, Any] = {
            "delta": self._deltas[place],
            "logprobs": self._token_logprobs(range(place, place + 1)),
            "finish_reason": self._finish_reason if last else None,
        }
        if last:
            choice["stop_reason"] = None
        choices = [{"index": index, **choice} for index in range(self.count)]
        return self._wrap("chat.completion.chunk", choices)

    def closing(self) -> dict[str, Any]:
        """The chunk with the usage, after the last token."""
        counts = usage(self.prompt_tokens, len(self.words) * self.count)
        return {**self._wrap("chat.completion.chunk", []), "usage": counts}


def words(model: str, said: Any, shortest: int, limit: int) -> list[str]:  # noqa: ANN401
    """Words that follow from the model and from what was said, the model's name first."""
    least, most = NATURAL_LENGTH
    natural = least + int(share(model, said) * (most - least))
    found = [f"[{model}]"]
    while len(found) < min(max(natural, shortest), limit):
        found.append(f" {WORDS[int(share(model, said, len(found)) * len(WORDS))]}")
    return found


def usage(prompt: int, completion: int) -> dict[str, int]:
    """Token counts, as the API gives them."""
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "completion_tokens": completion,
    }


def share(*parts: object) -> float:
    """A number in [0, 1) that follows from the parts."""
    digest = hashlib.blake2b(msgspec.json.encode(parts), digest_size=6).digest()
    return int.from_bytes(digest, "big") / (1 << 48)
