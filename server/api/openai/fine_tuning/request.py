"""Reads a request for a job: its body, its model, its files; a list's filters."""

import asyncio
import re
import secrets
from collections.abc import Iterable, Sequence

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from connectors.training_files import Method
from server.adapters import names
from server.api.body import BodyReader
from server.api.metadata import MAX_PAIRS, MAX_VALUE
from server.api.openai.fine_tuning.schemas import JobBody, SupervisedHyperparameters
from server.datasets.validation import too_few_examples, validate_file
from server.db.models import File
from server.errors import Invalid, NotFound
from server.files import service as files
from server.jobs.schemas import Hyperparameters, JobRequest, Learning
from server.scratch import scratch
from server.settings import Settings
from server.storage.blobs import BlobStore

_reader = BodyReader(JobBody)
_FILTER = re.compile(r"metadata\[(?P<key>.{1,64})\]", re.DOTALL)


def parse(data: bytes) -> JobBody:
    """The body.

    Raises:
        Invalid: it asks for what is not served; names the parameter.
    """
    body = _reader.read(data)
    if body.integrations:
        raise Invalid(
            "Unsupported parameter: 'integrations': this server sends metrics to nobody; read "
            "them from the job's events and its result file.",
            param="integrations",
            code="unsupported_parameter",
        )
    method = body.method
    if method is None:
        return body
    if method.type == "reinforcement":
        raise Invalid(
            "Unsupported value: 'method.type' does not support 'reinforcement' here; there are "
            "'supervised', 'dpo' and 'kto'.",
            param="method.type",
            code="unsupported_value",
        )
    for name in ("supervised", "dpo", "kto", "reinforcement"):
        if name != method.type and getattr(method, name) is not None:
            raise Invalid(
                f"Invalid value: 'method.{name}' does not go with the type '{method.type}'.",
                param=f"method.{name}",
            )
    if body.hyperparameters is not None:
        raise Invalid(
            "Give 'hyperparameters' within 'method', or without a 'method'; not both.",
            param="hyperparameters",
        )
    return body


def method_of(body: JobBody) -> Method:
    """How to learn."""
    kind = body.method.type if body.method else "supervised"
    assert kind != "reinforcement"  # noqa: S101 - ``parse`` has refused it
    return kind


def hyperparameters_of(body: JobBody) -> Hyperparameters:
    """What is set of the recipe, "auto" left out."""
    given: SupervisedHyperparameters | None = body.hyperparameters
    if body.method is not None:
        section = getattr(body.method, body.method.type)
        given = section and section.hyperparameters
    found = msgspec.to_builtins(given) if given else {}
    numbers = {name: value for name, value in found.items() if value not in (None, "auto")}
    return Hyperparameters(**numbers)


async def files_of(session: AsyncSession, tenant_id: str, body: JobBody) -> list[tuple[str, File]]:
    """The job's files, by parameter.

    Raises:
        Invalid: there is none of that id, or it was uploaded for another purpose.
    """
    found = []
    for param in ("training_file", "validation_file"):
        file_id: str | None = getattr(body, param)
        if file_id is None:
            continue
        file = await files.find(session, tenant_id, file_id)
        if file is None:
            raise _bad_file(param, f"No such File object: {file_id}")
        if file.purpose != "fine-tune":
            raise _bad_file(
                param,
                f"{file_id} was uploaded for '{file.purpose}'; upload it with purpose 'fine-tune'",
            )
        found.append((param, file))
    return found


async def check_files(
    blobs: BlobStore, named: Sequence[tuple[str, File]], method: Method, *, settings: Settings
) -> None:
    """Read the files, line by line.

    Raises:
        Invalid: a file has lines that are not examples of this method, or too few of them.
    """
    for param, file in named:
        try:
            with scratch(settings, "check") as folder:
                async with blobs.local(file.sha256, within=folder) as path:
                    checked = await asyncio.to_thread(validate_file, path, method)
        except NotFound as exc:
            raise _bad_file(param, f"No such File object: {files.public_id(file)}") from exc
        complaint = checked.error_message()
        if complaint is None and param == "training_file":
            complaint = too_few_examples(checked)
        if complaint is None and not checked.examples:
            complaint = "it holds no example"
        if complaint is not None:
            raise _bad_file(param, f"{param} cannot be used for '{method}': {complaint}")


async def to_learning(
    session: AsyncSession, tenant_id: str, body: JobBody, *, settings: Settings
) -> Learning:
    """What a job learns from, and what it begins with.

    Raises:
        Invalid: a file is not there.
        ModelNotFound: there is no such model to begin with.
        Conflict: it was trained on a base that is not served.
    """
    named = dict(await files_of(session, tenant_id, body))
    validation = named.get("validation_file")
    return Learning(
        training_file_id=named["training_file"].id,
        validation_file_id=validation.id if validation else None,
        start_adapter_id=await start_of(session, tenant_id, body.model, settings=settings),
        method=method_of(body),
        hyperparameters=hyperparameters_of(body),
        metadata=body.metadata,
    )


async def start_of(
    session: AsyncSession, tenant_id: str, model: str, *, settings: Settings
) -> str | None:
    """The id of the adapter that a job on this model begins with; None: with a new one.

    Raises:
        ModelNotFound: no such name for this tenant.
        Conflict: it was trained on a base that is not served.
    """
    resolved = await names.resolve(
        session, tenant_id, model, base=settings.base, adapters=settings.adapters
    )
    if resolved.version is None:
        return None
    return (await names.own(session, tenant_id, f"{resolved.slug}@{resolved.version}")).id


def to_request(body: JobBody) -> JobRequest:
    """The rest of the body; a seed is drawn where none is given."""
    seed = secrets.randbelow(1 << 31) if body.seed is None else body.seed
    return JobRequest(seed=seed, suffix=body.suffix or "")


def metadata_filter(query: Iterable[tuple[str, str]]) -> tuple[dict[str, str], bool]:
    """``metadata[key]=value`` pairs of a query, and whether ``metadata=null`` asks for none.

    Raises:
        Invalid: both forms, or a form that is neither.
    """
    pairs: dict[str, str] = {}
    none = False
    for name, value in query:
        if name == "metadata":
            if value not in {"null", ""}:
                raise Invalid(
                    "Invalid value for 'metadata': filter with metadata[key]=value, or with "
                    "metadata=null for jobs without.",
                    param="metadata",
                )
            none = none or value == "null"
        elif match := _FILTER.fullmatch(name):
            pairs[match["key"]] = value
        elif name.startswith("metadata["):
            raise Invalid(
                "Invalid value for 'metadata': a key has 1 to 64 characters.", param="metadata"
            )
    if (pairs and none) or len(pairs) > MAX_PAIRS:
        raise Invalid(
            f"Invalid value for 'metadata': at most {MAX_PAIRS} pairs, and not together with null.",
            param="metadata",
        )
    if any(len(value) > MAX_VALUE for value in pairs.values()):
        raise Invalid(
            f"Invalid value for 'metadata': a value has at most {MAX_VALUE} characters.",
            param="metadata",
        )
    return pairs, none


def _bad_file(param: str, message: str) -> Invalid:
    return Invalid(message, param=param, code=f"invalid_{param}")
