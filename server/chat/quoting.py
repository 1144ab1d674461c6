"""Holds an answer back until it is whole, and sends an agent's own reply where that agrees better.

What is compared and how is in `training.retrieval.quoting`; an evaluation does the same. A reader sees the first
word when the last one is written, so it is a recipe that says whether its adapters quote.
"""

import asyncio
from collections.abc import Callable, Sequence

from server.chat.grounding import Grounded
from server.chat.schemas import CHARACTERS_PER_TOKEN, ChunkChoice
from server.chat.stream import C
from training.references import Reference


class Quoting:
    """One answer, held back.

    Args:
        references: the past exchanges whose replies may be sent, the nearest first.
        said: the texts of the conversation.
        draft_weight: see `training.retrieval.quoting.choose`.
        products: the same.
        on_quoted: called with the exchange whose reply is sent, before it is.
    """

    def __init__(
        self,
        references: Sequence[Reference],
        said: Sequence[str],
        *,
        draft_weight: float,
        products: tuple[str, ...] = (),
        on_quoted: Callable[[Reference], None],
    ) -> None:
        self._references = references
        self._said = said
        self._draft_weight = draft_weight
        self._products = products
        self._on_quoted = on_quoted
        self._draft: list[str] = []

    async def take(self, choices: list[C]) -> list[C]:
        """What is sent of a chunk: its beginning and its end, which has the whole text."""
        return [choice for choice in choices if await self._is_sent(choice)]

    async def _is_sent(self, choice: object) -> bool:
        if not isinstance(choice, ChunkChoice):
            return True
        delta = choice.delta
        self._draft.append(delta.content or "")
        delta.content = ""
        if choice.finish_reason is None:
            return delta.role is not None
        delta.content, quoted = await asyncio.to_thread(self._choose)
        if quoted is not None:
            choice.finish_reason = "stop"  # a quote is whole, wherever the draft was cut off
            self._on_quoted(quoted)
        return True

    def _choose(self) -> tuple[str, Reference | None]:
        from training.retrieval.quoting import choose  # noqa: PLC0415 - not before it is needed

        draft = "".join(self._draft)
        return choose(
            draft,
            self._references,
            self._said,
            draft_weight=self._draft_weight,
            products=self._products,
        )


def quoting_of(grounded: Grounded, *, on_quoted: Callable[[Reference], None]) -> Quoting | None:
    """What holds an answer back that may be a quote; None where it is sent as it is written.

    That is where nothing can be quoted, and where the caller says more of the text than its length and how freely
    it is written: calls, a form, several answers, log-probabilities, a bias, texts that end it. No quote is
    longer than what was asked for.
    """
    asked, sampling = grounded.asked, grounded.asked.sampling
    controlled = (
        asked.tools is not None
        or sampling.response_format is not None
        or sampling.n > 1
        or sampling.logprobs
        or bool(sampling.logit_bias)
        or bool(sampling.stop)
    )
    quotable = grounded.quotable
    if sampling.max_tokens is not None:
        most = sampling.max_tokens * CHARACTERS_PER_TOKEN
        quotable = tuple(each for each in quotable if len(each.text) <= most)
    if controlled or not quotable:
        return None
    return Quoting(
        quotable,
        [message.content for message in asked.messages],
        draft_weight=grounded.draft_weight,
        products=grounded.products,
        on_quoted=on_quoted,
    )
