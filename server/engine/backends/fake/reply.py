"""The fake engine's chat answers, in vLLM's shapes."""

import hashlib
import time
import uuid
from typing import Any

import msgspec

from server.engine.backends.fake.calls import CallParser, calls_for, json_for
from server.engine.backends.fake.generated_text import PIECES, GeneratedText, usage_options

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
    """The answer to one request, in one piece or as chunks.

    ``words`` are its tokens, at least ``shortest`` of them. ``count``: the number of answers, all
    of which are the same.
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
        self.usage_wanted, self._counts_wanted = usage_options(body)
        limit = int(
            body.get("max_completion_tokens") or body.get("max_tokens") or DEFAULT_MAX_TOKENS
        )
        self._calls = calls_for(body)
        self._named = isinstance(body.get("tool_choice"), dict)
        wanted = json_for(body)
        if self._calls:
            found = PIECES.findall("\n".join(call.text for call in self._calls))
        elif wanted is None:
            shortest = max(shortest, int(body.get("min_tokens") or 0))
            found = words(model, messages, shortest, limit)
        else:
            found = PIECES.findall(wanted)
        if poisoned and not self._calls:
            found = [POISONED, *(f" {POISONED}" for _ in found[1:])]
        generated = GeneratedText(found, limit=limit, stop=body.get("stop"))
        self.words, self._generated = generated.tokens, generated
        parser = CallParser() if body.get("tools") and body.get("tool_choice") != "none" else None
        self._deltas = [parser.parse(p) if parser else {"content": p} for p in generated.pieces]

    def _finish_reason(self, *, called: bool) -> str:
        """As vLLM has it: a call of a function that the request names ends as an answer does."""
        finish = self._generated.finish
        return "tool_calls" if called and not self._named and finish == "stop" else finish

    def _message(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": self._generated.text}
        message["refusal"] = None
        if not self._calls or self._generated.cut:  # vLLM returns what the model wrote
            return message
        return {**message, "content": None, "tool_calls": [c.whole() for c in self._calls]}

    def _token_logprobs(self, positions: range) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        tokens = [
            token for position in positions for token in self._generated.logprob_tokens(position)
        ]
        return {
            "content": [
                {
                    "token": token,
                    "logprob": -0.1,
                    "bytes": list(token.encode()),
                    "top_logprobs": [],
                }
                for token in tokens
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
        message = self._message()
        choice = {
            "message": message,
            "logprobs": self._token_logprobs(range(len(self.words))),
            "finish_reason": self._finish_reason(called="tool_calls" in message),
            "stop_reason": self._generated.stop_reason,
        }
        choices = [{"index": index, **choice} for index in range(self.count)]
        counts = usage(self.prompt_tokens, len(self.words) * self.count)
        return {**self._wrap("chat.completion", choices), "usage": counts}

    def opening(self) -> list[dict[str, Any]]:
        """The first chunk of each choice: the role, nothing else."""
        choice = {
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
        return self._chunks(choice, tokens=0)

    def chunks(self, position: int) -> list[dict[str, Any]]:
        """One token of each choice; the last one has the finish reason.

        Empty where a token adds nothing yet, as at the beginning of a call.
        """
        last = position == len(self.words) - 1
        delta = self._deltas[position]
        if not (delta or last or self._logprobs):
            return []
        choice: dict[str, Any] = {
            "delta": delta,
            "logprobs": self._token_logprobs(range(position, position + 1)),
            "finish_reason": None,
        }
        if last:
            called = any("tool_calls" in delta for delta in self._deltas)
            choice["finish_reason"] = self._finish_reason(called=called)
            choice["stop_reason"] = self._generated.stop_reason
        return self._chunks(choice, tokens=position + 1)

    def _chunks(self, choice: dict[str, Any], *, tokens: int) -> list[dict[str, Any]]:
        """One chunk for each choice, with that choice's counts where the request asks for them."""
        chunks = [
            self._wrap("chat.completion.chunk", [{"index": index, **choice}])
            for index in range(self.count)
        ]
        if self._counts_wanted:
            for chunk in chunks:
                chunk["usage"] = usage(self.prompt_tokens, tokens)
        return chunks

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
