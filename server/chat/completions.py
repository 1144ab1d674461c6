"""Texts to be continued as they are: what a request asks for, and what comes back."""

from typing import ClassVar

import msgspec

from server.chat.schemas import CHARACTERS_PER_TOKEN
from server.engine.backend import TEXT
from server.usage.schemas import Usage


class TextSampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How to continue a text. Field names are the engine's; what is None is left to the policy.

    ``logprobs``: how many alternatives to list for each token. With ``echo`` the answer begins with
    the prompt.
    """

    max_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    n: int = 1
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] | None = None
    logprobs: int | None = None
    echo: bool = False


class TextRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Texts to be continued, at least one: all strings, or all token ids."""

    path: ClassVar[str] = TEXT

    prompts: tuple[str, ...] | tuple[tuple[int, ...], ...]
    sampling: TextSampling

    @property
    def choices(self) -> int:
        """How many answers come back: ``n`` for each prompt, in their order."""
        return len(self.prompts) * self.sampling.n

    @property
    def streams(self) -> bool:
        """Whether the engine can stream the answers.

        vLLM 0.32 breaks off several answers to a prompt whose own log-probabilities are asked for,
        where one answer's first token comes together with another's second.
        """
        sampling = self.sampling
        return not sampling.echo or sampling.logprobs is None or sampling.n == 1

    @property
    def characters(self) -> int:
        """Length of all prompts; a guess for token ids."""
        return sum(
            len(prompt) * (1 if isinstance(prompt, str) else CHARACTERS_PER_TOKEN)
            for prompt in self.prompts
        )


class TextLogprobs(msgspec.Struct, frozen=True):
    """Log-probabilities of an answer's tokens; None for the first token of a prompt."""

    text_offset: list[int] = []
    token_logprobs: list[float | None] = []
    tokens: list[str] = []
    top_logprobs: list[dict[str, float] | None] = []


class TextChoice(msgspec.Struct):
    """One of the answers, or what a chunk adds to it."""

    text: str
    index: int
    logprobs: TextLogprobs | None = None
    finish_reason: str | None = None


class TextCompletion(msgspec.Struct):
    """All answers in one piece, or one event of the engine's stream."""

    choices: list[TextChoice]
    usage: Usage | None = None
