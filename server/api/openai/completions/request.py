"""Reads a completion's body: what it asks for, or an error that names the field."""

from server.api.body import BodyReader
from server.api.openai.completions.schemas import MAX_PROMPTS, TextBody
from server.api.openai.sampling import check_sampling, nucleus, stops
from server.chat.completions import TextRequest, TextSampling
from server.errors import Invalid

MAX_CHARACTERS = 1_000_000
MAX_CHOICES = 64
DEFAULT_MAX_TOKENS = 16

UNSUPPORTED = {"suffix": "the models served here only continue a text at its end"}
_body = BodyReader(TextBody, unsupported=UNSUPPORTED)


def parse(data: bytes) -> TextBody:
    """Read a body; raises as ``BodyReader.read``."""
    return _body.read(data)


def to_texts(body: TextBody) -> TextRequest:
    """What the body asks for, in the chat service's terms.

    Raises:
        Invalid: fields that contradict each other, or prompts that cannot be continued.
    """
    n = body.n or 1
    check_sampling(n=n, temperature=body.temperature, seed=body.seed)
    if body.best_of is not None and body.best_of != n:
        raise Invalid(
            "'best_of' must be the same as 'n': answers are not generated to be thrown away.",
            param="best_of",
            code="unsupported_value",
        )
    if body.stream_options is not None and not body.stream:
        raise Invalid("'stream_options' is only for 'stream': true.", param="stream_options")
    if body.max_tokens == 0 and not body.echo:
        raise Invalid("Without 'echo', 'max_tokens' must be at least 1.", param="max_tokens")
    asked = TextRequest(
        prompts=_prompts(body.prompt),
        sampling=TextSampling(
            max_tokens=DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens,
            temperature=body.temperature,
            top_p=nucleus(body.top_p),
            n=n,
            stop=stops(body.stop),
            seed=body.seed,
            presence_penalty=body.presence_penalty or 0.0,
            frequency_penalty=body.frequency_penalty or 0.0,
            logit_bias=body.logit_bias or None,
            logprobs=body.logprobs,
            echo=bool(body.echo),
        ),
    )
    if asked.choices > MAX_CHOICES:
        raise Invalid(f"More than {MAX_CHOICES} answers in all ('n' for each prompt).", param="n")
    if asked.characters > MAX_CHARACTERS:
        raise Invalid(
            f"The prompts have more than {MAX_CHARACTERS} characters in all.",
            param="prompt",
            code="context_length_exceeded",
        )
    return asked


def _prompts(
    prompt: str | list[str | int | list[int]],
) -> tuple[str, ...] | tuple[tuple[int, ...], ...]:
    if isinstance(prompt, str):
        return (prompt,)
    tokens = tuple(part for part in prompt if isinstance(part, int))
    if len(tokens) == len(prompt):
        return (tokens,)
    if len(prompt) > MAX_PROMPTS:
        raise Invalid(f"More than {MAX_PROMPTS} prompts.", param="prompt")
    texts = tuple(part for part in prompt if isinstance(part, str))
    if len(texts) == len(prompt):
        return texts
    lists = tuple(tuple(part) for part in prompt if isinstance(part, list))
    if len(lists) == len(prompt):
        return lists
    raise Invalid(
        "'prompt' must be a string, a list of strings, a list of token ids, or a list of those.",
        param="prompt",
        code="invalid_type",
    )
