"""Shows a chat what others were answered who asked the like, exactly as in training.

What is found stands in the customer's turn (`training.references.show`), where the adapter was trained so. The
words of the nearest reply may be raised while it writes (`training.evaluation.copying`), and an agent's own reply
may be sent in its place (``quoting.py``), where one is near. The system prompt and the history stay
as they are, so the engine finds them in its prefix cache.

A request is left alone where it does not end with a customer's turn, where it asks for that, where the
tenant has switched it off, and where it brings its own text: clients that retrieve for themselves put
what they found into the system message or the turn.
"""

import msgspec

from server.adapters.schemas import Resolved
from server.chat.schemas import ChatRequest
from server.retrieval.schemas import Grounding, Ungrounded
from server.retrieval.service import RetrievalService
from training.references import Reference, show

OWN_TEXT_CHARACTERS = 1_000
"""A turn or system message beyond this brings its own text; about what the encoder reads (256 tokens)."""


class Grounded(msgspec.Struct, frozen=True, kw_only=True):
    """A request as its caller wrote it and as the model reads it, and what it is shown.

    ``dataset``: the hash of the dataset version that the adapter was trained on, where there is one.
    ``quotable``: the past exchanges whose reply may be sent in place of what is written, which counts
    ``draft_weight`` beside them; ``products``: names that are facts then.
    """

    asked: ChatRequest
    request: ChatRequest
    grounding: Grounding
    dataset: str | None
    quotable: tuple[Reference, ...] = ()
    draft_weight: float = 1.0
    products: tuple[str, ...] = ()


async def ground(retrieval: RetrievalService, request: ChatRequest, resolved: Resolved) -> Grounded:
    """The request with what is found.

    The base that is asked for by its own name is left alone: it is no tenant's assistant.

    Args:
        retrieval: finds it.
        request: the caller's.
        resolved: who answers.
    """
    asked, adapter = request, resolved.adapter
    quotable: tuple[Reference, ...] = ()
    loaded = await retrieval.index_of(adapter.path) if adapter is not None else None
    why_not = _left_alone(request, resolved)
    if why_not is None and loaded is None and not await retrieval.has_articles(resolved.tenant_id):
        why_not = "nothing_indexed"
    if why_not is not None:
        grounding = Grounding(why_not=why_not)
    else:
        *history, turn = request.messages
        last = history[-1] if history else None
        before = last.content if last is not None and last.role == "assistant" else ""
        grounding = await retrieval.find(
            loaded, turn.content, before=before, tenant_id=resolved.tenant_id, slug=resolved.slug
        )
        exchanges = tuple(each for each in grounding.references if each.kind == "exchange")
        given = tuple(each for each in grounding.references if each.kind == "article")
        if loaded is not None:
            if loaded.supports(exchanges, is_first=not before):
                request = _leaning(request, loaded.logit_bias(exchanges))
                # no past reply knows what an article says
                quotable = exchanges if loaded.quotes and not given else ()
            given = exchanges[: loaded.references] + given
        shown = msgspec.structs.replace(turn, content=show(turn.content, given))
        request = msgspec.structs.replace(request, messages=(*history, shown))
    return Grounded(
        asked=asked,
        request=request,
        grounding=msgspec.structs.replace(grounding, images=request.images),
        dataset=await retrieval.dataset_of(adapter.path) if adapter is not None else None,
        quotable=quotable,
        draft_weight=loaded.index.draft_weight if loaded is not None else 1.0,
        products=loaded.index.products if loaded is not None else (),
    )


def _leaning(request: ChatRequest, bias: dict[int, float]) -> ChatRequest:
    """The request with the bias; what the caller asks for comes first, and a form is left to its grammar."""
    sampling = request.sampling
    if not bias or sampling.response_format is not None or request.tools is not None:
        return request
    bias |= sampling.logit_bias or {}
    return msgspec.structs.replace(
        request, sampling=msgspec.structs.replace(sampling, logit_bias=bias)
    )


def without_references(grounded: Grounded) -> Grounded | None:
    """The request as the caller wrote it, for where it does not fit with what it is shown.

    None where it is as long as it was.
    """
    if grounded.request.messages == grounded.asked.messages:
        return None
    grounding = Grounding(images=grounded.grounding.images, why_not="too_long")
    return msgspec.structs.replace(
        grounded, request=grounded.asked, grounding=grounding, quotable=()
    )


def with_quote(grounded: Grounded, quoted: Reference) -> Grounded:
    """What an answer rests on that is an agent's own reply."""
    grounding = msgspec.structs.replace(grounded.grounding, quoted=quoted.id)
    return msgspec.structs.replace(grounded, grounding=grounding)


def _left_alone(request: ChatRequest, resolved: Resolved) -> Ungrounded | None:
    """Why a request is shown nothing; None where it may be shown something."""
    if resolved.adapter is None and resolved.model != resolved.slug:
        return "base"
    if not request.retrieval or not resolved.retrieval:
        return "switched_off"
    if not request.messages or request.messages[-1].role != "user":
        return "no_question"
    own = "" if request.system in resolved.system_prompt else request.system
    if max(len(own), len(request.messages[-1].content)) > OWN_TEXT_CHARACTERS:
        return "own_text"
    return None
