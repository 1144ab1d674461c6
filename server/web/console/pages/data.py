"""Data: uploads of transcripts, what came of each, and the dataset versions that were made of them.

It works without a script. With one, an upload shows its progress, and what is being read its state.
"""

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple

from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Stream
from sqlalchemy.ext.asyncio import AsyncSession

from connectors.errors import UnknownFormat
from connectors.importers import HEAD_BYTES
from server.adapters import service as adapters
from server.adapters.versions import newest_topics, topics_to_csv
from server.api.upload import UploadedFile
from server.curation.service import overview
from server.datasets import versions
from server.db.models import Import, SourceFile, Tenant
from server.db.session import Database
from server.errors import Invalid, NotFound, StorageFull, TooLarge
from server.insights import intents
from server.settings import Settings
from server.storage.blobs import BlobStore
from server.storage.references import acquire_reference, stored
from server.tenants import service as tenants
from server.transcripts import columns, deletion, service, uploads
from server.web.console.downloads import csv_file, csv_of_all
from server.web.console.figures import size
from server.web.console.forms import read_form, see_other
from server.web.console.navigation import address_of_page
from server.web.console.rendering import page
from server.web.console.session import FORM_HEADER, signed_in

_ADMIN = [signed_in("admin")]


class Refusal(NamedTuple):
    """Why a file was not taken. ``same``: the earlier upload of the same bytes."""

    status: int
    message: str
    same: uploads.Upload | None = None


class DataController(Controller):
    """What people see of a tenant's data, and do with it."""

    include_in_schema = False
    path = "/console/t/{slug:str}/data"
    guards = (signed_in("viewer"),)

    @get()
    async def list_(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
        after: FromQuery[str | None] = None,
        done: FromQuery[str] = "",
    ) -> Response[str]:
        """The tenant's uploads, newest first, and the form for another."""
        return await _uploads_page(request, tenant, database, settings, after=after, done=done)

    @post(guards=_ADMIN, request_max_body_size=None)
    async def upload(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        database: NamedDependency[Database],
        blobs: NamedDependency[BlobStore],
        settings: NamedDependency[Settings],
    ) -> Response[Any]:
        """Store a file as it streams in, look what it is, and queue it; or say why not."""
        most = settings.max_upload_bytes
        file = UploadedFile(request, filename="upload", max_bytes=most, raw=False)
        taken = await _take(
            file.chunks(),
            lambda: file.filename,  # known when all of it has come
            tenant,
            database=database,
            blobs=blobs,
            most=most,
        )
        if isinstance(taken, Refusal):
            return await _uploads_page(request, tenant, database, settings, refusal=taken)
        if FORM_HEADER in request.headers:  # a script, which would fetch the page twice
            where = f"{_address(tenant)}/imports/{taken}"
            return Response(b"", status_code=HTTPStatus.CREATED, headers={"location": where})
        return _see(tenant, taken)

    @post("/sample", guards=_ADMIN)
    async def load_sample(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        database: NamedDependency[Database],
        blobs: NamedDependency[BlobStore],
        settings: NamedDependency[Settings],
    ) -> Response[Any]:
        """Queue the sample that comes with the product."""
        taken = await _take(
            _once(uploads.sample()),
            lambda: uploads.SAMPLE,
            tenant,
            database=database,
            blobs=blobs,
            most=settings.max_upload_bytes,
        )
        if isinstance(taken, Refusal):
            return await _uploads_page(request, tenant, database, settings, refusal=taken)
        return _see(tenant, taken)

    @get("/uploads.csv")
    async def uploads_csv(
        self, tenant: NamedDependency[Tenant], database: NamedDependency[Database]
    ) -> Stream:
        """Every upload of the tenant, a line each."""
        return await csv_of_all(
            database,
            lambda session, limit, last: uploads.list_uploads(
                session, tenant, limit=limit, after=last.id if last else None
            ),
            uploads.to_csv,
            f"{tenant.slug}-uploads.csv",
        )

    @get("/versions")
    async def list_versions(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        database: NamedDependency[Database],
        after: FromQuery[str | None] = None,
    ) -> Response[str]:
        """The tenant's dataset versions, newest first."""
        async with database.reading() as session:
            # one more than is shown, which the last one that is shown can be compared with
            found = await versions.list_versions(
                session, tenant, limit=versions.PAGE + 1, after=after
            )
        shown = found[: versions.PAGE]
        return await page(
            request,
            "data/versions.html",
            rows=list(zip(shown, [*found[1:], None], strict=False)),
            older=shown[-1].id if len(found) > len(shown) else None,
            first_page=after is None,
        )

    @get("/versions.csv")
    async def versions_csv(
        self, tenant: NamedDependency[Tenant], database: NamedDependency[Database]
    ) -> Stream:
        """Every dataset version of the tenant, a line each."""
        return await csv_of_all(
            database,
            lambda session, limit, last: versions.list_versions(
                session, tenant, limit=limit, after=last.id if last else None
            ),
            versions.to_csv,
            f"{tenant.slug}-versions.csv",
        )

    @get("/topics")
    async def show_topics(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        database: NamedDependency[Database],
    ) -> Response[str]:
        """What the conversations are about, and how good the replies to each topic are."""
        async with database.reading() as session:
            found = await newest_topics(session, tenant)
            curation = await overview(session, tenant)
            by_intent = await intents.count_by_intent(session, tenant.id)
        return await page(
            request,
            "data/topics.html",
            found=found,
            scan=curation.scan,
            intents=by_intent,
        )

    @get("/intents.csv")
    async def intents_csv(
        self, tenant: NamedDependency[Tenant], database: NamedDependency[Database]
    ) -> Response[bytes]:
        """What conversations of the widget are about, a line for each intent."""
        async with database.reading() as session:
            found = await intents.count_by_intent(session, tenant.id)
        return csv_file(intents.to_csv(found), f"{tenant.slug}-intents.csv")

    @get("/topics.csv")
    async def topics_csv(
        self, tenant: NamedDependency[Tenant], database: NamedDependency[Database]
    ) -> Response[bytes]:
        """The topics, a line each."""
        async with database.reading() as session:
            found = await newest_topics(session, tenant)
        data = topics_to_csv(found.topics if found else ())
        return csv_file(data, f"{tenant.slug}-topics.csv")

    @get("/versions/compare")
    async def compare(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
        version: Annotated[list[str] | None, QueryParameter()] = None,
    ) -> Response[str]:
        """What differs between two versions."""
        hashes = list(dict.fromkeys(version or ()))
        async with database.reading() as session:
            choice = await versions.list_versions(session, tenant)
            difference = None
            if len(hashes) == 2:  # noqa: PLR2004 - two versions
                difference = await versions.compare(session, tenant, (hashes[0], hashes[1]))
        if difference is None:
            return await page(
                request,
                "data/compare.html",
                status=HTTPStatus.UNPROCESSABLE_ENTITY,
                difference=None,
                choice=choice,
                chosen=hashes,
            )
        return await page(
            request,
            "data/compare.html",
            difference=difference,
            moved=await versions.find_moved(difference, settings=settings),
            words=versions.DROPPED,
        )

    @get("/imports/{import_id:str}")
    async def read(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        import_id: FromPath[str],
        *,
        database: NamedDependency[Database],
        blobs: NamedDependency[BlobStore],
        settings: NamedDependency[Settings],
    ) -> Response[str]:
        """What came of an upload; of a table that is not read yet, its columns."""
        async with database.reading() as session:
            row, source = await service.get_import(session, tenant, import_id)
            examples = await uploads.snippets(session, tenant, import_id)
            is_first = row.state == "done" and not await adapters.list_for(session, tenant)
        if row.state == "draft":
            chosen = columns.Chosen()
            look = await columns.look(
                row, source, tenant, chosen=chosen, blobs=blobs, settings=settings
            )
            return await _columns_page(request, row, source, chosen, look)
        report = uploads.report_of(row)
        return await page(
            request,
            "data/import.html",
            row=row,
            filename=source.filename,
            size=size(source.size_bytes),
            removed_at=source.removed_at,
            state=uploads.STATES[row.state],
            next_step=address_of_page("Home", tenant) if is_first else "",
            problem=uploads.as_sentence((row.error or {}).get("message", "")),
            report=report,
            speakers=uploads.speakers(report) if report else [],
            notes=_notes(report.notes) if report else [],
            rejected=uploads.rejected_groups(report) if report else [],
            redacted=[(word, f"{count:,}") for word, count in uploads.kinds_redacted(report)]
            if report
            else [],
            replaced=sum(report.redacted.values()) if report else 0,
            snippets=examples,
        )

    @post("/imports/{import_id:str}/columns", guards=_ADMIN)
    async def choose_columns(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        import_id: FromPath[str],
        *,
        database: NamedDependency[Database],
        blobs: NamedDependency[BlobStore],
        settings: NamedDependency[Settings],
    ) -> Response[Any]:
        """Show a table as it would be read with these columns, or queue it to be read so."""
        fields = await read_form(request)
        chosen = columns.read_choice(fields)
        async with database.reading() as session:
            row, source = await service.get_import(session, tenant, import_id)
        if row.state != "draft":
            return _see(tenant, import_id)
        look = await columns.look(
            row, source, tenant, chosen=chosen, blobs=blobs, settings=settings
        )
        if fields.get("do") != "import" or look.problem:
            is_refused = fields.get("do") == "import"
            return await _columns_page(request, row, source, chosen, look, is_refused=is_refused)
        async with database.transaction() as session:
            await service.confirm(session, tenant, import_id, options=look.options)
        return _see(tenant, import_id)

    @get("/imports/{import_id:str}/rejected.csv")
    async def rejected_csv(
        self,
        tenant: NamedDependency[Tenant],
        import_id: FromPath[str],
        database: NamedDependency[Database],
    ) -> Response[bytes]:
        """The rejected records that the report names, a line each."""
        async with database.reading() as session:
            row, _ = await service.get_import(session, tenant, import_id)
        report = uploads.report_of(row)
        if report is None:
            raise NotFound("This upload has no report yet: it is written when all of it is read.")
        name = f"{tenant.slug}-{import_id}-rejected.csv"
        return csv_file(uploads.rejected_to_csv(report), name)

    @get("/imports/{import_id:str}/delete", guards=_ADMIN)
    async def ask_to_delete(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        import_id: FromPath[str],
        database: NamedDependency[Database],
    ) -> Response[str]:
        """Ask once more, by the upload's name, and say what hangs on it."""
        async with database.reading() as session:
            return await _delete_page(request, session, tenant, import_id)

    @post("/imports/{import_id:str}/delete", guards=_ADMIN)
    async def delete(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        import_id: FromPath[str],
        *,
        database: NamedDependency[Database],
        blobs: NamedDependency[BlobStore],
        settings: NamedDependency[Settings],
    ) -> Response[Any]:
        """Delete an upload and its conversations."""
        with_datasets = (await read_form(request)).get("datasets") == "yes"
        async with database.transaction() as session:
            _, leftovers = await deletion.delete_import(
                session, tenant.slug, import_id, datasets=with_datasets
            )
        await deletion.remove(leftovers, database=database, blobs=blobs, settings=settings)
        return see_other(f"{_address(tenant)}?done=deleted")


async def _take(
    chunks: AsyncIterable[bytes],
    name: Callable[[], str],
    tenant: Tenant,
    *,
    database: Database,
    blobs: BlobStore,
    most: int,
) -> str | Refusal:
    """Store bytes and queue them; the import's id, or why they were not taken. Then nothing is kept."""
    try:
        async with stored(database, blobs, chunks, max_bytes=most) as (sha256, size_bytes):
            head = await _head(blobs, sha256)
            async with database.transaction() as session:
                mine = await tenants.get(session, tenant.slug)
                same = await uploads.find_same(session, mine, sha256)
                if same is not None:
                    return same.id if same.state == uploads.STATES["draft"] else _known(same)
                await acquire_reference(session, blobs, sha256)
                row = await uploads.add(
                    session,
                    mine,
                    sha256=sha256,
                    size_bytes=size_bytes,
                    filename=name(),
                    head=head,
                )
                return row.id
    except UnknownFormat as exc:
        return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, _why_unknown(str(exc), name()))
    except Invalid as exc:
        return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, exc.message)
    except TooLarge as exc:
        message = (
            f"The file is larger than {size(exc.limit_bytes)}: split it, or compress it with gzip."
        )
        return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)
    except StorageFull as exc:
        return Refusal(HTTPStatus.INSUFFICIENT_STORAGE, exc.message)


async def _once(data: bytes) -> AsyncGenerator[bytes]:
    yield data


async def _head(blobs: BlobStore, sha256: str) -> bytes:
    """The first bytes of a stored file, by which its format is known."""
    head = b""
    async for chunk in blobs.iterate(sha256):
        head += chunk
        if len(head) >= HEAD_BYTES:
            break
    return head[:HEAD_BYTES]


def _known(same: uploads.Upload) -> Refusal:
    if same.kept is not None:
        what = f"{same.kept:,} conversations were kept of it"
    else:
        what = f"it is not read yet: {same.state.word.lower()}"
    message = (
        f"The same bytes were uploaded before as '{same.filename}', and {what}. Nothing was stored "
        "twice. To read them in another way, delete that upload first."
    )
    return Refusal(HTTPStatus.CONFLICT, message, same)


def _why_unknown(message: str, filename: str) -> str:
    """Why a file is no transcript, without the list of formats, which stands on the page."""
    first = message.split("\n", 1)[0]
    hint = first.partition("no format fits.")[2].strip()
    return f"'{filename}' is no transcript in one of the formats below. {hint}".strip()


async def _uploads_page(
    request: Request[Any, Any, Any],
    tenant: Tenant,
    database: Database,
    settings: Settings,
    *,
    after: str | None = None,
    done: str = "",
    refusal: Refusal | None = None,
) -> Response[str]:
    """The list; with a refusal it is an answer of its status, with the message at the field."""
    async with database.reading() as session:
        found = await uploads.list_uploads(session, tenant, limit=uploads.PAGE + 1, after=after)
        counts = await service.count_conversations(session, [tenant.id])
    shown = found[: uploads.PAGE]
    return await page(
        request,
        "data/uploads.html",
        status=refusal.status if refusal else HTTPStatus.OK,
        rows=shown,
        older=shown[-1].id if len(found) > len(shown) else None,
        after=after,
        first_page=after is None,
        conversations=counts.get(tenant.id, 0),
        refusal=refusal,
        done=done == "deleted",
        formats=uploads.formats(),
        sample=uploads.SAMPLE_CONVERSATIONS,
        max_bytes=settings.max_upload_bytes,
        most=size(settings.max_upload_bytes),
        size=size,
    )


async def _columns_page(
    request: Request[Any, Any, Any],
    row: Import,
    source: SourceFile,
    chosen: columns.Chosen,
    look: columns.Look,
    *,
    is_refused: bool = False,
) -> Response[str]:
    """The columns of a table and its first rows; an answer of 422 where it cannot be imported so."""
    fields = {at: field for field, at in look.head.columns.items()}
    labels = {field: label for field, label, _ in columns.CHOICES}
    notes = look.report.notes if look.report else {}
    return await page(
        request,
        "data/columns.html",
        status=HTTPStatus.UNPROCESSABLE_ENTITY if is_refused else HTTPStatus.OK,
        row=row,
        filename=source.filename,
        size=size(source.size_bytes),
        choices=columns.CHOICES,
        chosen=chosen,
        look=look,
        used={at: labels.get(field, field) for at, field in fields.items()},
        names=set(look.head.names),
        role_words=columns.ROLES,
        speakers=uploads.speakers(look.report) if look.report else [],
        notes=[note for note in _notes(notes) if note[0] != _NOTE_WORDS["columns"]],
        rejected=uploads.rejected_groups(look.report) if look.report else [],
        is_refused=is_refused,
    )


async def _delete_page(
    request: Request[Any, Any, Any], session: AsyncSession, tenant: Tenant, import_id: str
) -> Response[str]:
    row, source = await service.get_import(session, tenant, import_id)
    holding, trained = await deletion.made_from(session, tenant, row)
    report = uploads.report_of(row)
    return await page(
        request,
        "data/delete.html",
        row=row,
        filename=source.filename,
        kept=report.stored + report.known if report else 0,
        datasets=len(holding),
        models=[f"{tenant.slug}@{adapter.version}" for adapter in trained],
    )


_NOTE_WORDS = {
    "encoding": "Encoding",
    "columns": "Columns",
    "roles": "Who speaks",
    "dates": "Dates",
    "times": "Times",
    "order": "Order",
    "internal notes": "Internal notes",
    "names": "Names",
    "html": "HTML",
    "no agent": "No agent",
    "no customer": "No customer",
}


def _notes(notes: Mapping[str, str]) -> list[tuple[str, str]]:
    """What the importer noticed and assumed, in words."""
    return [(_NOTE_WORDS.get(name, name), uploads.for_a_page(said)) for name, said in notes.items()]


def _address(tenant: Tenant) -> str:
    return f"/console/t/{tenant.slug}/data"


def _see(tenant: Tenant, import_id: str) -> Response[Any]:
    """Go to an upload's page."""
    return see_other(f"{_address(tenant)}/imports/{import_id}")
