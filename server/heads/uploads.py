"""From a file of labelled texts or images that is stored to a version that waits to be trained."""

from server.db.models import Head
from server.db.session import Database
from server.heads import service
from server.scratch import scratch
from server.settings import Settings
from server.storage.blobs import BlobStore
from server.tenants import service as tenants
from training.heads.config import Task


async def queue_stored(
    slug: str | None,
    sha256: str,
    *,
    task: Task,
    filename: str,
    database: Database,
    blobs: BlobStore,
    settings: Settings,
) -> Head:
    """Check a stored file and queue a version; the file itself is not needed afterwards.

    Without a ``slug`` the version is of a shared head.

    Raises:
        NotFound: there is no such tenant.
        Invalid: the file cannot be used, as ``service.check_examples``.
        Conflict: too many of the tenant's heads wait already.
    """
    with scratch(settings, "labels") as folder, scratch(settings, "pictures") as pictures:
        async with blobs.local(sha256, within=folder) as path:
            upload = await service.check_examples(
                path, filename=filename, task=task, scratch=pictures
            )
        async with database.transaction() as session:
            return await service.queue(
                session,
                None if slug is None else await tenants.get(session, slug),
                upload,
                task=task,
                filename=filename,
                settings=settings,
            )
