"""An encoder of texts for a command, which does not have the server's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from server.cli.console import App
from server.embeddings.service import EmbeddingService, build_embeddings
from server.scratch import scratch


@asynccontextmanager
async def own_encoder(app: App) -> AsyncIterator[EmbeddingService]:
    """An encoder of this command's own, which ends with it; its process starts with the first text."""
    with scratch(app.settings, "encoder") as folder:
        embeddings = build_embeddings(app.settings, run=folder)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(embeddings.run())
            try:
                yield embeddings
            finally:
                running.cancel()
