"""What an answer was given, and the receipt of it."""

from collections.abc import Iterable
from typing import Literal

import msgspec

from server.schemas import Moment
from training.references import Reference

Ungrounded = Literal[
    "base", "nothing_indexed", "no_question", "own_text", "switched_off", "unavailable", "too_long"
]
"""Why an answer was shown no references."""


class ImageLabel(msgspec.Struct, frozen=True, kw_only=True):
    """What an image head says of an image: a label, how probable it is, and the head's version.

    ``shared``: the head is the operator's.
    """

    label: str
    probability: float
    version: int
    shared: bool = False


class Grounding(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer is shown. ``supported``: the nearest reference is as near as is usual for this tenant.

    ``images``: what the model read in place of the request's images. ``quoted``: the id of the reference
    whose reply is the answer; None where the model wrote it.
    """

    references: tuple[Reference, ...] = ()
    images: tuple[ImageLabel, ...] = ()
    supported: bool | None = None
    why_not: Ungrounded | None = None
    quoted: str | None = None


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """An article that an answer was given, as visitors and programs may know it."""

    title: str
    url: str | None = None


def sources_of(references: Iterable[Reference]) -> tuple[Source, ...]:
    """The articles among references, each once.

    Never the exchanges: those are other customers' words.
    """
    articles = (each for each in references if each.kind == "article")
    return tuple(dict.fromkeys(Source(title=each.title, url=each.url) for each in articles))


class ReceiptView(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer rests on.

    ``version``: of the adapter that answered, null where the base did; ``dataset``: the hash of the dataset
    version that it was trained on, whose exchanges are among ``references``, the nearest first.
    ``supported``: whether the nearest is as near as for most of the tenant's own questions, or an article is
    near; null where nothing was looked up. ``why_not``: why there are no references. ``base``: the base was
    asked for by its own name; ``nothing_indexed``: the version has no index and the tenant no articles;
    ``no_question``: the request does not end with a customer's turn; ``own_text``: it
    brought its own; ``switched_off``: by the tenant or the request; ``unavailable``: the encoder did not
    answer in time; ``too_long``: with them the request did not fit into the model's context. ``images``: what the tenant's image head said of the request's images, in their order. ``quoted``:
    the id of the reference whose reply the answer is, word for word; null where the model wrote it.
    """

    id: str
    object: Literal["receipt"] = "receipt"
    created_at: Moment
    model: str
    version: int | None
    dataset: str | None
    supported: bool | None
    why_not: Ungrounded | None
    references: tuple[Reference, ...]
    quoted: str | None
    images: tuple[ImageLabel, ...]
