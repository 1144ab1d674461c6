"""Transcripts and datasets over HTTP."""

from typing import Annotated, Any

import msgspec
from litestar import Controller, Request, delete, get
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from connectors.errors import BadMapping
from connectors.importers import ImportOptions, parse_map
from server.api.admin.upload import post_file, received
from server.api.guards import needs
from server.datasets import service as dataset_service
from server.datasets.schemas import DatasetView, dataset_view
from server.db.session import Database
from server.errors import Invalid
from server.settings import Settings
from server.storage.blobs import BlobStore
from server.storage.references import acquire_reference
from server.tenants import service as tenants
from server.transcripts import deletion, service
from server.transcripts.schemas import (
    ImportDeletion,
    ImportView,
    UploadForm,
    import_view,
)


class TranscriptController(Controller):
    """``/admin/tenants/<slug>/transcripts``, their imports and datasets."""

    path = "/admin/tenants/{slug:str}"
    guards = (needs("train"),)

    @post_file("/transcripts", form=UploadForm)
    async def upload(
        self,
        slug: FromPath[str],
        request: Request[Any, Any, Any],
        *,
        database: NamedDependency[Database],
        blobs: NamedDependency[BlobStore],
        settings: NamedDependency[Settings],
        filename: Annotated[
            str, QueryParameter(description="The file's name, where the body is the file itself.")
        ] = "upload",
        importer: Annotated[
            str | None, QueryParameter(description="The file's format; found out when absent.")
        ] = None,
        mapping: Annotated[
            list[str] | None,
            QueryParameter(name="map", description="A column of a table, as `text=Message`."),
        ] = None,
        encoding: Annotated[
            str | None, QueryParameter(description="Of the text; found out when absent.")
        ] = None,
        delimiter: Annotated[
            str | None, QueryParameter(description="Of a table; found out when absent.")
        ] = None,
        dates: Annotated[
            str | None,
            QueryParameter(
                description="Of a table: `day-first` or `month-first`, where its dates do not tell."
            ),
        ] = None,
        order: Annotated[
            str | None,
            QueryParameter(
                description="Of a table's rows: `oldest-first` or `newest-first`, where no time tells."
            ),
        ] = None,
        split: Annotated[
            str | None,
            QueryParameter(description="`train`, `validation` or `test`, for all of the file."),
        ] = None,
    ) -> ImportView:
        """Store a file, raw or as the part ``file`` of a form, and queue its import.

        The options may be given in the query or as fields of the form.
        """
        async with database.reading() as session:
            await tenants.get(session, slug)
        plain = {
            "encoding": encoding,
            "delimiter": delimiter,
            "dates": dates,
            "order": order,
            "split": split,
        }
        async with received(
            request, filename, database=database, blobs=blobs, settings=settings
        ) as file:
            options = _options(
                [*(mapping or []), *file.fields.get("map", [])],
                {name: value or file.field(name) for name, value in plain.items()},
            )
            async with database.transaction() as session:
                tenant = await tenants.get(session, slug)
                await acquire_reference(session, blobs, file.sha256)
                row, source = await service.queue_import(
                    session,
                    tenant,
                    sha256=file.sha256,
                    size_bytes=file.size_bytes,
                    filename=file.filename,
                    importer=importer or file.field("importer"),
                    options=options,
                )
                return import_view(row, source)

    @get("/imports")
    async def list_imports(
        self, slug: FromPath[str], database: NamedDependency[Database]
    ) -> list[ImportView]:
        """The last hundred uploads and what came of them, newest first."""
        async with database.reading() as session:
            tenant = await tenants.get(session, slug)
            found = await service.list_imports(session, tenant)
            return [import_view(row, source) for row, source in found]

    @get("/imports/{import_id:str}")
    async def read_import(
        self,
        slug: FromPath[str],
        import_id: FromPath[str],
        database: NamedDependency[Database],
    ) -> ImportView:
        """One upload and what came of it."""
        async with database.reading() as session:
            tenant = await tenants.get(session, slug)
            return import_view(*await service.get_import(session, tenant, import_id))

    @delete("/imports/{import_id:str}", status_code=200)
    async def remove_import(
        self,
        slug: FromPath[str],
        import_id: FromPath[str],
        *,
        database: NamedDependency[Database],
        blobs: NamedDependency[BlobStore],
        settings: NamedDependency[Settings],
        datasets: Annotated[
            bool,
            QueryParameter(
                description="Remove the dataset versions that hold its conversations as well. Their "
                "adapters stay, and cannot be scored again."
            ),
        ] = False,
    ) -> ImportDeletion:
        """Delete an upload and its conversations, but those that another import has too.

        Datasets and adapters that were made from them stay, and are named in the answer.
        """
        async with database.transaction() as session:
            deleted, leftovers = await deletion.delete_import(
                session, slug, import_id, datasets=datasets
            )
        await deletion.remove(leftovers, database=database, blobs=blobs, settings=settings)
        return deleted

    @get("/datasets")
    async def list_datasets(
        self, slug: FromPath[str], database: NamedDependency[Database]
    ) -> list[DatasetView]:
        """Dataset versions, newest first."""
        async with database.reading() as session:
            tenant = await tenants.get(session, slug)
            return [
                dataset_view(row) for row in await dataset_service.list_datasets(session, tenant)
            ]

    @get("/datasets/{sha256:str}")
    async def read_dataset(
        self, slug: FromPath[str], sha256: FromPath[str], database: NamedDependency[Database]
    ) -> DatasetView:
        """One dataset version."""
        async with database.reading() as session:
            tenant = await tenants.get(session, slug)
            return dataset_view(await dataset_service.get_dataset(session, tenant, sha256))


def _options(mapping: list[str], plain: dict[str, str | None]) -> ImportOptions:
    """The options of an import, from a request's parameters or fields.

    Raises:
        Invalid: one of them has no such value.
    """
    try:
        columns, roles = parse_map(mapping)
    except BadMapping as exc:
        raise Invalid(str(exc), param="map") from exc
    options = ImportOptions(mapping=columns, roles=roles)
    for name, value in plain.items():
        if value:  # a form sends an empty field for what is not filled in
            try:
                checked = msgspec.convert({name: value}, ImportOptions)
            except msgspec.ValidationError as exc:
                raise Invalid(f"{name}: {exc}", param=name) from exc
            options = msgspec.structs.replace(options, **{name: getattr(checked, name)})
    return options
