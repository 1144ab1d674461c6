"""Uploads over a real connection: one that breaks, and one that is refused in its middle."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from openai import APIStatusError
from sqlalchemy import func, select

from server.db.models import File
from server.settings import Settings
from tests.server.serving import Serving, database_url, server, until

__all__ = ["database_url", "server"]

MIB = 1 << 20


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Enough for the store to begin a file before the upload ends."""
    return msgspec.structs.replace(settings, max_upload_bytes=32 * MIB)


def stored(server: Serving) -> list[Path]:
    """Every file of the blob store, half ones too."""
    return [path for path in Path(server.settings.blobs).rglob("*") if path.is_file()]


async def test_a_line_that_is_cut_in_mid_upload_leaves_no_row_and_no_file(server: Serving) -> None:
    await server.tenant()
    key = await server.key("acme", "train")
    host, _, port = server.url.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"POST /v1/files HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {key}\r\n"
        f"content-type: multipart/form-data; boundary=x\r\ncontent-length: {30 * MIB}\r\n\r\n"
        '--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
        '--x\r\ncontent-disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'.encode()
        + b"x" * 25 * MIB
    )
    await writer.drain()
    await until(lambda: stored(server))
    writer.close()
    await writer.wait_closed()
    await until(lambda: not stored(server))
    async with server.database.reading() as session:
        assert await session.scalar(select(func.count()).select_from(File)) == 0


async def test_the_official_client_hears_that_its_file_is_too_large(server: Serving) -> None:
    """Though it is still sending when the answer comes."""
    await server.tenant()
    client = server.openai(await server.key("acme", "train"))
    with pytest.raises(APIStatusError) as caught:
        await client.files.create(file=b"x" * 33 * MIB, purpose="fine-tune")
    assert caught.value.status_code == 413
    assert caught.value.code == "too_large"
    assert stored(server) == []
