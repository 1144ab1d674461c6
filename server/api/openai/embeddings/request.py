"""Reads an embedding request's body: its texts, or an error that names the field."""

from server.api.body import BodyReader
from server.api.openai.embeddings.schemas import (
    MAX_CHARACTERS,
    MAX_TEXT_CHARACTERS,
    MAX_TEXTS,
    EmbeddingBody,
)
from server.embeddings.schemas import MODEL
from server.errors import Invalid, ModelNotFound

_body = BodyReader(EmbeddingBody)


def parse(data: bytes) -> EmbeddingBody:
    """Read a body.

    Raises:
        Invalid: as ``BodyReader.read``.
        ModelNotFound: another model than the one that embeds.
    """
    body = _body.read(data)
    if body.model != MODEL:
        raise ModelNotFound(body.model)
    return body


def texts_of(body: EmbeddingBody) -> list[str]:
    """The texts to embed, none empty.

    Raises:
        Invalid: token ids, an empty text, or too much at once.
    """
    given = [body.input] if isinstance(body.input, str) else body.input
    texts = [text for text in given if isinstance(text, str)]
    if len(texts) < len(given):
        raise Invalid(
            f"'input' must be text: token ids of another tokenizer mean something else to {MODEL}. "
            "LangChain's OpenAIEmbeddings sends text with check_embedding_ctx_length=False.",
            param="input",
            code="unsupported_value",
        )
    if len(texts) > MAX_TEXTS:
        raise Invalid(f"'input' must have at most {MAX_TEXTS} texts.", param="input")
    for place, text in enumerate(texts):
        where = "input" if isinstance(body.input, str) else f"input[{place}]"
        if not text:
            raise Invalid(f"'{where}' cannot be an empty string.", param=where)
        if len(text) > MAX_TEXT_CHARACTERS:
            raise Invalid(
                f"'{where}' has {len(text)} characters; this model reads at most 256 tokens.",
                param=where,
                code="context_length_exceeded",
            )
    if sum(map(len, texts)) > MAX_CHARACTERS:
        raise Invalid(
            f"'input' must have at most {MAX_CHARACTERS} characters in all: send it in several "
            "requests.",
            param="input",
        )
    return texts
