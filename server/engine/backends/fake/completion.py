"""The fake engine's text completions, in the shapes of vLLM's ``/v1/completions``."""

import time
import uuid
from typing import Any

from server.engine.backends.fake.generated_text import GeneratedText, usage_options
from server.engine.backends.fake.reply import POISONED, usage, words

DEFAULT_MAX_TOKENS = 16


class Completion:
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
        self._generated = []
        for said in self._prompts:
            found = words(model, said, shortest, max(limit, 1))
            if poisoned:
                found = [f" {POISONED}" for _ in found]
            self._generated.append(GeneratedText(found, limit=limit, stop=body.get("stop")))
        self.count = len(self._prompts) * self._times
        self.steps = max(1, *(len(generated.tokens) for generated in self._generated))

    def whole(self) -> dict[str, Any]:
        """The answers in one piece."""
        choices = []
        for index in range(self.count):
            prompt = index // self._times
            generated = self._generated[prompt]
            echoed = self._echoed(prompt)
            tokens = [
                t
                for position in range(len(generated.tokens))
                for t in generated.logprob_tokens(position)
            ]
            text = "".join(echoed) + generated.text
            choices.append(self._choice(index, text, [*echoed, *tokens], 0))
        return {**self._wrap(choices), "usage": self._usage()}

    def chunks(self, position: int) -> list[dict[str, Any]]:
        """The token at this index of each answer that has one; the last has the finish reason."""
        chunks = []
        for index in range(self.count):
            prompt = index // self._times
            generated = self._generated[prompt]
            size = len(generated.tokens)
            if position >= max(size, 1):
                continue
            tokens = [*self._echoed(prompt)] if position == 0 else []
            text = "".join(tokens)
            before = [*self._echoed(prompt), *generated.tokens[:position]] if position else []
            if size:
                tokens += generated.logprob_tokens(position)
                text += generated.pieces[position]
            choice = self._choice(index, text, tokens, len("".join(before)))
            if position < size - 1:
                choice |= {"finish_reason": None, "stop_reason": None}
            chunk = self._wrap([choice])
            if self._counts_wanted:
                chunk["usage"] = usage(self._prompt_tokens(prompt), position + 1)
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
        generated = self._generated[index // self._times]
        return {
            "index": index,
            "text": text,
            "logprobs": self._logprobs_of(tokens, offset),
            "finish_reason": generated.finish,
            "stop_reason": generated.stop_reason,
            "prompt_logprobs": None,
        }

    def _logprobs_of(self, tokens: list[str], offset: int) -> dict[str, Any] | None:
        if self._logprobs is None:
            return None
        offsets = [offset + len("".join(tokens[:position])) for position in range(len(tokens))]
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
        tokens = sum(max(len(generated.tokens), 1) for generated in self._generated)
        return usage(prompts, tokens * self._times)
