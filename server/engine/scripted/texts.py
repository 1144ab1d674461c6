"""How the scripted engine continues texts, in the shapes of vLLM's ``/v1/completions``."""

import time
import uuid
from typing import Any

from server.engine.scripted.reply import POISONED, usage, words

DEFAULT_MAX_TOKENS = 16


class Continuation:
    """Answers to one request: ``n`` for each prompt, all of as many tokens as the longest.

    ``words``: the tokens of each prompt's answer. ``count``: how many answers in all.
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
        self.usage_wanted = bool((body.get("stream_options") or {}).get("include_usage"))
        limit = body.get("max_tokens")
        limit = DEFAULT_MAX_TOKENS if limit is None else int(limit)
        shortest = int(body.get("min_tokens") or 0)
        self.words = [words(model, said, shortest, max(limit, 1))[:limit] for said in self._prompts]
        if poisoned:
            self.words = [[f" {POISONED}" for _ in said] for said in self.words]
        self._finishes = ["stop" if len(said) < limit else "length" for said in self.words]
        self.count = len(self._prompts) * self._times
        self.steps = max(1, *(len(said) for said in self.words))

    def whole(self) -> dict[str, Any]:
        """The answers in one piece."""
        return {
            **self._wrap([self._choice(i, self._tokens(i), 0) for i in range(self.count)]),
            "usage": self._usage(),
        }

    def chunk(self, place: int) -> dict[str, Any]:
        """One token of every answer that has so many; the last says why it is the last."""
        choices = []
        for index in range(self.count):
            prompt = index // self._times
            said = self.words[prompt]
            if place >= max(len(said), 1):
                continue
            echoed = self._echoed(prompt) if place == 0 else []
            before = [*self._echoed(prompt), *said[:place]] if place else []
            offset = len("".join(before))
            choice = self._choice(index, [*echoed, *said[place : place + 1]], offset)
            if place < len(said) - 1:
                choice |= {"finish_reason": None, "stop_reason": None}
            choices.append(choice)
        return self._wrap(choices)

    def closing(self) -> dict[str, Any]:
        """The chunk with the usage, after the last token."""
        return {**self._wrap([]), "usage": self._usage()}

    def _echoed(self, prompt: int) -> list[str]:
        if not self._echo:
            return []
        said = self._prompts[prompt]
        return [said] if isinstance(said, str) else [f" {token}" for token in said]

    def _tokens(self, index: int) -> list[str]:
        prompt = index // self._times
        return [*self._echoed(prompt), *self.words[prompt]]

    def _choice(self, index: int, tokens: list[str], offset: int) -> dict[str, Any]:
        return {
            "index": index,
            "text": "".join(tokens),
            "logprobs": self._told(tokens, offset),
            "finish_reason": self._finishes[index // self._times],
            "stop_reason": None,
            "prompt_logprobs": None,
        }

    def _told(self, tokens: list[str], offset: int) -> dict[str, Any] | None:
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

    def _usage(self) -> dict[str, int]:
        prompts = sum(
            len(said.split()) if isinstance(said, str) else len(said) for said in self._prompts
        )
        return usage(prompts, sum(len(said) for said in self.words) * self._times)
