"""Import: read one uploaded file into conversations."""

import structlog

from server.errors import ServerError
from server.jobs.steps.context import StepContext
from server.transcripts import importing

log = structlog.get_logger(__name__)


async def run_import(context: StepContext, import_id: str) -> None:
    """Read one uploaded file into conversations. An unexpected error ends the import as failed."""
    try:
        await importing.run_import(context.database, import_id, settings=context.settings)
    except Exception as exc:
        log.exception("import failed", id=import_id)
        failed = ServerError(f"{type(exc).__name__}: {exc}", code="internal")
        await importing.end_import(context.database, context.blobs, import_id, exc=failed)
