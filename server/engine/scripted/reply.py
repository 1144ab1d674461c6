"""What the scripted engine answers, in vLLM's shapes."""

import hashlib
import time
import uuid
from typing import Any

import msgspec

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


class Reply:
    """What one request is answered, and how it looks on the wire."""

    def __init__(
        self,
        model: str,
        messages: list[Any],
        body: dict[str, Any],
        *,
        words: int = 0,
        poisoned: bool,
    ) -> None:
        self.model = model
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._prompt_tokens = sum(len(str(m.get("content", "")).split()) + 4 for m in messages)
        self._logprobs = bool(body.get("logprobs"))
        self.count = int(body.get("n") or 1)
        self.usage_wanted = bool((body.get("stream_options") or {}).get("include_usage"))
        shortest, longest = NATURAL_LENGTH
        natural = shortest + int(share(model, messages) * (longest - shortest))
        length = max(natural, words, int(body.get("min_tokens") or 0))
        limit = int(
            body.get("max_completion_tokens") or body.get("max_tokens") or DEFAULT_MAX_TOKENS
        )
        self._finish = "stop" if length < limit else "length"
        words = [f"[{model}]"]
        while len(words) < min(length, limit):
            words.append(WORDS[int(share(model, messages, len(words)) * len(WORDS))])
        self.words = [POISONED] * len(words) if poisoned else words

    def _piece(self, place: int) -> str:
        return self.words[place] if place == 0 else f" {self.words[place]}"

    def _token_logprobs(self, places: range) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        return {
            "content": [
                {
                    "token": self._piece(place),
                    "logprob": -0.1,
                    "bytes": list(self._piece(place).encode()),
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
            "message": {"role": "assistant", "content": " ".join(self.words), "refusal": None},
            "logprobs": self._token_logprobs(range(len(self.words))),
            "finish_reason": self._finish,
            "stop_reason": None,
        }
        choices = [{"index": index, **choice} for index in range(self.count)]
        counts = usage(self._prompt_tokens, len(self.words) * self.count)
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
            "delta": {"content": self._piece(place)},
            "logprobs": self._token_logprobs(range(place, place + 1)),
            "finish_reason": self._finish if last else None,
        }
        if last:
            choice["stop_reason"] = None
        choices = [{"index": index, **choice} for index in range(self.count)]
        return self._wrap("chat.completion.chunk", choices)

    def closing(self) -> dict[str, Any]:
        """The chunk with the usage, after the last token."""
        counts = usage(self._prompt_tokens, len(self.words) * self.count)
        return {**self._wrap("chat.completion.chunk", []), "usage": counts}


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
