"""Heads over HTTP, a tenant's and the shared ones: labelled texts or images in, versions, which is live, and what one says of them."""

from typing import Annotated, Any

from litestar import Controller, Request, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from server.api.admin.upload import post_file, received
from server.api.guards import needs
from server.db.session import Database
from server.embeddings.images import ImageInput, classify_images
from server.embeddings.service import EmbeddingService
from server.errors import Invalid
from server.heads import rules, service
from server.heads.schemas import (
    Classification,
    ClassifyTexts,
    DayCount,
    HeadChoice,
    HeadForm,
    HeadTaskChoice,
    HeadView,
    Labelled,
    RulesChoice,
    SharedHeadView,
    SharingChoice,
    TaskRules,
)
from server.heads.uploads import queue_stored
from server.insights import labelling
from server.settings import Settings
from server.storage.blobs import BlobStore
from server.tenants import service as tenants
from training.heads.config import IMAGE, TASKS, Task


class HeadController(Controller):
    """``/admin/tenants/{slug}/heads``."""

    path = "/admin/tenants/{slug:str}/heads"
    guards = (needs("train"),)

    @post_file("/", form=HeadForm)
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
        task: Annotated[
            str | None, QueryParameter(description="`sentiment`, `annoyance`, `intent` or `image`.")
        ] = None,
    ) -> HeadView:
        """Check labelled texts (JSON lines or CSV with text and label), and queue a version's training.

        For the task `image`: a zip archive with a folder for each label, and images in them.
        """
        async with database.reading() as session:
            await tenants.get(session, slug)
        async with received(
            request, filename, database=database, blobs=blobs, settings=settings
        ) as file:
            row = await queue_stored(
                slug,
                file.sha256,
                task=_task(task or file.field("task")),
                filename=file.filename,
                database=database,
                blobs=blobs,
                settings=settings,
            )
        return service.view(row)

    @get()
    async def list_for(
        self, slug: FromPath[str], database: NamedDependency[Database]
    ) -> list[HeadView]:
        """All versions with their scores, by task, newest first."""
        async with database.reading() as session:
            tenant = await tenants.get(session, slug)
            return [service.view(row) for row in await service.list_for(session, tenant)]

    @get("/counts")
    async def count(
        self,
        slug: FromPath[str],
        *,
        database: NamedDependency[Database],
        days: Annotated[int, QueryParameter(ge=1, le=366)] = 30,
    ) -> list[DayCount]:
        """How many of the visitors' messages got which label, by UTC day."""
        async with database.reading() as session:
            tenant = await tenants.get(session, slug)
            return await labelling.counts(session, tenant.id, days=days)

    @post("/promote", status_code=200)
    async def promote(
        self,
        slug: FromPath[str],
        data: JSONBody[HeadChoice],
        *,
        database: NamedDependency[Database],
    ) -> HeadView:
        """Let a version label visitors' messages from now on."""
        async with database.transaction() as session:
            tenant = await tenants.get(session, slug)
            row = await service.promote(session, tenant, data.task, data.version, force=data.force)
            return service.view(row)

    @post("/rollback", status_code=200)
    async def roll_back(
        self,
        slug: FromPath[str],
        data: JSONBody[HeadTaskChoice],
        *,
        database: NamedDependency[Database],
    ) -> HeadView:
        """Go back to the version that was live before; again returns to the later one."""
        async with database.transaction() as session:
            tenant = await tenants.get(session, slug)
            return service.view(await service.roll_back(session, tenant, data.task))

    @post("/retire", status_code=204)
    async def retire(
        self,
        slug: FromPath[str],
        data: JSONBody[HeadTaskChoice],
        *,
        database: NamedDependency[Database],
    ) -> None:
        """Let no version of a task label messages any more."""
        async with database.transaction() as session:
            tenant = await tenants.get(session, slug)
            await service.retire(session, tenant, data.task)

    @get("/rules")
    async def list_rules(
        self, slug: FromPath[str], database: NamedDependency[Database]
    ) -> list[TaskRules]:
        """Which labels hand a conversation to a person, by task."""
        async with database.reading() as session:
            tenant = await tenants.get(session, slug)
            found = [(task, await rules.list_for(session, tenant.id, task)) for task in TASKS]
        return [
            TaskRules(task=task, rules=[rules.view(row) for row in rows])
            for task, rows in found
            if rows
        ]

    @put("/rules")
    async def change_rules(
        self,
        slug: FromPath[str],
        data: JSONBody[RulesChoice],
        *,
        database: NamedDependency[Database],
    ) -> TaskRules:
        """Let these labels of a task, and no others, hand a conversation to a person.

        They hold for messages that are written from now on, where the probability is `at_least` that.
        """
        async with database.transaction() as session:
            tenant = await tenants.get(session, slug)
            found = await rules.replace(session, tenant, data.task, data.rules)
            return TaskRules(task=data.task, rules=[rules.view(row) for row in found])

    @get("/shared")
    async def list_shared(
        self, slug: FromPath[str], database: NamedDependency[Database]
    ) -> list[SharedHeadView]:
        """The operator's live heads, and which of them the tenant uses."""
        async with database.reading() as session:
            return await service.list_shared(session, await tenants.get(session, slug))

    @put("/shared")
    async def use_shared(
        self,
        slug: FromPath[str],
        data: JSONBody[SharingChoice],
        *,
        database: NamedDependency[Database],
    ) -> SharingChoice:
        """Use the operator's head of a task where no own one is live, which is so at first, or do not."""
        async with database.transaction() as session:
            tenant = await tenants.get(session, slug)
            await service.use_shared(session, tenant, data.task, use=data.use)
        return data

    @delete("/{task:str}/{version:int}")
    async def delete(
        self,
        slug: FromPath[str],
        task: FromPath[Task],
        version: FromPath[int],
        *,
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> None:
        """Delete a version that is not live, and what it was trained on; what it said stays."""
        async with database.transaction() as session:
            tenant = await tenants.get(session, slug)
            await service.delete(session, tenant, task, version)
        async with database.transaction() as session:
            await service.remove_unused(session, tenant, settings=settings)

    @post("/classify", status_code=200)
    async def classify(
        self,
        slug: FromPath[str],
        data: JSONBody[ClassifyTexts],
        *,
        database: NamedDependency[Database],
        embeddings: NamedDependency[EmbeddingService],
        settings: NamedDependency[Settings],
    ) -> Classification:
        """What the live version, or another, says of texts or images: calibrated probabilities.

        Images are `data:` URLs, for the task `image`; texts are for the others.
        """
        given, other = data.texts, data.images
        if data.task == IMAGE:
            given, other = other, given
        if not given or other:
            what = "'images', and no 'texts'" if data.task == IMAGE else "'texts', and no 'images'"
            raise Invalid(f"The task {data.task} takes {what}.", param="task")
        async with database.reading() as session:
            tenant = await tenants.get(session, slug)
            row = (
                await service.live(session, tenant, data.task)
                if data.version is None
                else await service.get(session, tenant, data.task, data.version)
            )
        folder = service.weights_folder(settings, row)
        if data.task == IMAGE:
            images = [ImageInput(url, f"images[{i}]") for i, url in enumerate(data.images)]
            found = await classify_images(embeddings, images, tenant=tenant.id, head=folder)
        else:
            found = await embeddings.classify(data.texts, tenant=tenant.id, head=folder)
        return Classification(
            task=row.task,
            version=row.version,
            shared=row.tenant_id is None,
            labels=[
                Labelled(
                    label=each.label,
                    probability=each.probability,
                    probabilities=each.probabilities,
                )
                for each in found
            ],
        )


class SharedHeadController(Controller):
    """``/admin/heads``."""

    path = "/admin/heads"
    guards = (needs("operator"),)

    @post_file("/", form=HeadForm)
    async def upload_shared(
        self,
        request: Request[Any, Any, Any],
        *,
        database: NamedDependency[Database],
        blobs: NamedDependency[BlobStore],
        settings: NamedDependency[Settings],
        filename: Annotated[
            str, QueryParameter(description="The file's name, where the body is the file itself.")
        ] = "upload",
        task: Annotated[
            str | None, QueryParameter(description="`sentiment`, `annoyance`, `intent` or `image`.")
        ] = None,
    ) -> HeadView:
        """Check labelled texts or images, and queue the training of a shared head.

        Tenants without a live head of their own use it. Upload nothing of one tenant that others must not
        learn of: it is trained on what you upload, and on nothing else.
        """
        async with received(
            request, filename, database=database, blobs=blobs, settings=settings
        ) as file:
            row = await queue_stored(
                None,
                file.sha256,
                task=_task(task or file.field("task")),
                filename=file.filename,
                database=database,
                blobs=blobs,
                settings=settings,
            )
        return service.view(row)

    @get(operation_id="shared_heads_list")
    async def list_all(self, database: NamedDependency[Database]) -> list[HeadView]:
        """All versions of the shared heads with their scores, by task, newest first."""
        async with database.reading() as session:
            return [service.view(row) for row in await service.list_for(session, None)]

    @post("/promote", status_code=200)
    async def promote_shared(
        self, data: JSONBody[HeadChoice], *, database: NamedDependency[Database]
    ) -> HeadView:
        """Let a version label the messages of tenants without a live head of their own."""
        async with database.transaction() as session:
            row = await service.promote(session, None, data.task, data.version, force=data.force)
            return service.view(row)

    @post("/rollback", status_code=200)
    async def roll_back_shared(
        self, data: JSONBody[HeadTaskChoice], *, database: NamedDependency[Database]
    ) -> HeadView:
        """Go back to the shared version that was live before; again returns to the later one."""
        async with database.transaction() as session:
            return service.view(await service.roll_back(session, None, data.task))

    @post("/retire", status_code=204)
    async def retire_shared(
        self, data: JSONBody[HeadTaskChoice], *, database: NamedDependency[Database]
    ) -> None:
        """Let no shared version of a task label messages any more."""
        async with database.transaction() as session:
            await service.retire(session, None, data.task)

    @delete("/{task:str}/{version:int}")
    async def delete_shared(
        self,
        task: FromPath[Task],
        version: FromPath[int],
        *,
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> None:
        """Delete a shared version that is not live, and what it was trained on."""
        async with database.transaction() as session:
            await service.delete(session, None, task, version)
        async with database.transaction() as session:
            await service.remove_unused(session, None, settings=settings)


def _task(name: str | None) -> Task:
    for task in TASKS:
        if task == name:
            return task
    raise Invalid(f"Say which task the labels are for: {', '.join(TASKS)}.", param="task")
