"""The fake engine's text completions, in the shapes of vLLM's ``/v1/completions``."""

import time
import uuid
from typing import Any

from server.engine.backends.fake.reply import POISONED, usage, words
from server.engine.backends.fake.written import Written, usage_options

DEFAULT_MAX_TOKENS = 16


class Continuation:
    """The answers to one request: ``n`` for each prompt.

    ``count``: the number of answers in all. ``steps``: the number of tokens of the longest.
    """

    def __init__(self, model: str, body: dict[str, Any], *, poisoned: bool) -> None:
        self.model = model
        self._id = f"cmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())
        prompt = body["prompt"]
        one = isinstance(prompt, str) or isinstance(prompt[0], int)
        self._prompts: list[str | list[int]] = [prompt] if one else prompt
        self._times = int(body.get("n") or 1)
        self._echo = bool(body.get("echo"))
        self._logprobs: int | None = body.get("logprobs")
        self.usage_wanted, self._counts_wanted = usage_options(body)
        limit = body.get("max_tokens")
        limit = DEFAULT_MAX_TOKENS if limit is None else int(limit)
        shortest = int(body.get("min_tokens") or 0)
        self._written = []
        for said in self._prompts:
            found = words(model, said, shortest, max(limit, 1))
            if poisoned:
                found = [f" {POISONED}" for _ in found]
            self._written.append(Written(found, limit=limit, stop=body.get("stop")))
        self.count = len(self._prompts) * self._times
        self.steps = max(1, *(len(written.tokens) for written in self._written))

    def whole(self) -> dict[str, Any]:
        """The answers in one piece."""
        choices = []
        for index in range(self.count):
            prompt = index // self._times
            written = self._written[prompt]
            echoed = self._echoed(prompt)
            tokens = [
                t for place in range(len(written.tokens)) for t in written.logprob_tokens(place)
            ]
            text = "".join(echoed) + written.text
            choices.append(self._choice(index, text, [*echoed, *tokens], 0))
        return {**self._wrap(choices), "usage": self._usage()}

    def chunks(self, place: int) -> list[dict[str, Any]]:
        """The token at this index of each answer that has one; the last has the finish reason."""
        chunks = []
        for index in range(self.count):
            prompt = index // self._times
            written = self._written[prompt]
            size = len(written.tokens)
            if place >= max(size, 1):
                continue
            tokens = [*self._echoed(prompt)] if place == 0 else []
            text = "".join(tokens)
            before = [*self._echoed(prompt), *written.tokens[:place]] if place else []
            if size:
                tokens += written.logprob_tokens(place)
                text += written.pieces[place]
            choice = self._choice(index, text, tokens, len("".join(before)))
            if place < size - 1:
                choice |= {"finish_reason": None, "stop_reason": None}
            chunk = self._wrap([choice])
            if self._counts_wanted:
                chunk["usage"] = usage(self._prompt_tokens(prompt), place + 1)
            chunks.append(chunk)
        return chunks

    def closing(self) -> dict[str, Any]:
        """The chunk with the usage, after the last token."""
        return {**self._wrap([]), "usage": self._usage()}

    def _echoed(self, prompt: int) -> list[str]:
        if not self._echo:
            return []
        said = self._prompts[prompt]
        return [said] if isinstance(said, str) else [f" {token}" for token in said]

    def _choice(self, index: int, text: str, tokens: list[str], offset: int) -> dict[str, Any]:
        written = self._written[index // self._times]
        return {
            "index": index,
            "text": text,
            "logprobs": self._logprobs_of(tokens, offset),
            "finish_reason": written.finish,
            "stop_reason": written.stop_reason,
            "prompt_logprobs": None,
        }

    def _logprobs_of(self, tokens: list[str], offset: int) -> dict[str, Any] | None:
        if self._logprobs is None:
            return None
        offsets = [offset + len("".join(tokens[:place])) for place in range(len(tokens))]
        return {
            "text_offset": offsets,
            "token_logprobs": [-0.1 for _ in tokens],
            "tokens": tokens,
            "top_logprobs": [{token: -0.1} for token in tokens],
        }

    def _wrap(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "text_completion",
            "created": self._created,
            "model": self.model,
            "choices": choices,
        }

    def _prompt_tokens(self, prompt: int) -> int:
        said = self._prompts[prompt]
        return len(said.split()) if isinstance(said, str) else len(said)

    def _usage(self) -> dict[str, int]:
        """Where nothing is to be generated, vLLM still generates one token, and counts it."""
        prompts = sum(self._prompt_tokens(prompt) for prompt in range(len(self._prompts)))
        generated = sum(max(len(written.tokens), 1) for written in self._written)
        return usage(prompts, generated * self._times)
