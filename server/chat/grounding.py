"""Shows a chat what others were answered who asked the like, exactly as in training.

What is found stands in the customer's turn (`training.references.show`), where the adapter was trained so, and the
words of the nearest reply are raised while it writes (`training.evaluation.copying`). The system
prompt and the history stay as they are, so the engine finds them in its prefix cache.

A request is left alone where it does not end with a customer's turn, where it asks for that, where the
tenant has switched it off, and where it brings its own text: clients that retrieve for themselves put
what they found into the system message or the turn.
"""

import msgspec

from server.adapters.schemas import Resolved
from server.chat.schemas import ChatRequest
from server.retrieval.schemas import Grounding
from server.retrieval.service import RetrievalService
from training.references import show

OWN_TEXT_CHARACTERS = 1_000
"""A turn or system message beyond this brings its own text; about what the encoder reads (256 tokens)."""


class Grounded(msgspec.Struct, frozen=True, kw_only=True):
    """A request as the model reads it, and what it is shown. ``dataset``: of the index, where there is one."""

    request: ChatRequest
    grounding: Grounding
    dataset: str | None


async def ground(
    retrieval: RetrievalService, request: ChatRequest, resolved: Resolved
) -> Grounded | None:
    """The request with what is found; None where there is nothing to look into.

    The base that is asked for by its own name is left alone: it is no tenant's assistant.

    Args:
        retrieval: finds it.
        request: the caller's.
        resolved: who answers.
    """
    adapter = resolved.adapter
    if adapter is None and not resolved.retrieval:
        return None
    loaded = await retrieval.index_of(adapter.path) if adapter is not None else None
    if loaded is None and not await retrieval.has_articles(resolved.tenant_id):
        return None
    grounding = _left_alone(request, resolved)
    if grounding is None:
        *history, turn = request.messages
        last = history[-1] if history else None
        grounding = await retrieval.find(
            loaded,
            turn.content,
            before=last.content if last is not None and last.role == "assistant" else "",
            tenant_id=resolved.tenant_id,
            slug=resolved.slug,
        )
        given = grounding.references
        if loaded is not None:
            request = _leaning(request, loaded.logit_bias(given))
        if loaded is None or not loaded.references:
            given = tuple(each for each in given if each.kind == "article")
        shown = msgspec.structs.replace(turn, content=show(turn.content, given))
        request = msgspec.structs.replace(request, messages=(*history, shown))
    return Grounded(
        request=request, grounding=grounding, dataset=loaded.dataset if loaded else None
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


def without_references(grounded: Grounded, request: ChatRequest) -> Grounded | None:
    """The request as the caller wrote it, for where it does not fit with what it is shown.

    None where it is as long as it was.
    """
    if grounded.request.messages == request.messages:
        return None
    grounding = Grounding(images=grounded.grounding.images, why_not="too_long")
    return msgspec.structs.replace(grounded, request=request, grounding=grounding)


def with_images(found: Grounded | None, request: ChatRequest) -> Grounded | None:
    """What a request is shown, with what stands in it in place of images."""
    if not request.images:
        return found
    found = found or Grounded(request=request, grounding=Grounding(), dataset=None)
    grounding = msgspec.structs.replace(found.grounding, images=request.images)
    return msgspec.structs.replace(found, grounding=grounding)


def _left_alone(request: ChatRequest, resolved: Resolved) -> Grounding | None:
    """Why a request is shown nothing; None where it may be shown something."""
    if not request.retrieval or not resolved.retrieval:
        return Grounding(why_not="switched_off")
    if not request.messages or request.messages[-1].role != "user":
        return Grounding(why_not="no_question")
    own = "" if request.system in resolved.system_prompt else request.system
    if max(len(own), len(request.messages[-1].content)) > OWN_TEXT_CHARACTERS:
        return Grounding(why_not="own_text")
    return None
