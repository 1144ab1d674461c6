"""Every parameter that the official client can send is either read or refused by name."""

import importlib
import typing

import msgspec
import pytest
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.fine_tuning import job_create_params
from openai.types.responses import response_create_params

from server.api.openai.chat.schemas import CompletionBody
from server.api.openai.completions.schemas import TextBody
from server.api.openai.embeddings.schemas import EmbeddingBody
from server.api.openai.fine_tuning.schemas import JobBody
from server.api.openai.responses.schemas import ResponseBody


@pytest.mark.parametrize(
    ("resource", "body", "published"),
    [
        ("chat", CompletionBody, chat_create_params.CompletionCreateParamsStreaming),
        ("completions", TextBody, completion_create_params.CompletionCreateParamsStreaming),
        ("embeddings", EmbeddingBody, embedding_create_params.EmbeddingCreateParams),
        ("fine_tuning", JobBody, job_create_params.JobCreateParams),
        ("responses", ResponseBody, response_create_params.ResponseCreateParamsStreaming),
    ],
)
def test_no_parameter_is_unknown(
    resource: str, body: type[msgspec.Struct], published: type
) -> None:
    module = importlib.import_module(f"server.api.openai.{resource}.request")
    read = {field.encode_name for field in msgspec.structs.fields(body)}
    refused = set(getattr(module, "UNSUPPORTED", {}))
    assert set(typing.get_type_hints(published)) - read - refused == set()
