"""Knowledge: read one uploaded file of articles, and make it searchable."""

import structlog

from server.errors import ServerError
from server.jobs.steps.context import StepContext
from server.knowledge import importing

log = structlog.get_logger(__name__)


async def read_articles(context: StepContext, upload_id: str) -> None:
    """Read one file of articles. An unexpected error ends the upload as failed."""
    try:
        await importing.run_upload(
            context.database,
            upload_id,
            settings=context.settings,
            embeddings=context.embeddings,
        )
    except Exception as exc:
        log.exception("reading articles failed", id=upload_id)
        failed = ServerError(f"{type(exc).__name__}: {exc}", code="internal")
        await importing.end_upload(context.database, context.blobs, upload_id, exc=failed)
