"""What every blob store must do alike."""

import hashlib
from datetime import timedelta

import obstore
import pytest

from server.errors import NotFound, TooLarge
from server.storage.blobs import BlobError, BlobStore

MIB = 1 << 20


async def chunks(*parts: bytes, fail: bool = False):
    for part in parts:
        yield part
    if fail:
        raise ConnectionResetError


@pytest.fixture(params=["folder", "file url", "memory"])
def store(request: pytest.FixtureRequest, tmp_path) -> BlobStore:
    urls = {
        "folder": str(tmp_path / "blobs"),
        "file url": f"file://{tmp_path}/with%20blank",
        "memory": "memory://",
    }
    return BlobStore.open(urls[request.param])


async def read(store: BlobStore, sha256: str) -> bytes:
    return b"".join([chunk async for chunk in store.iterate(sha256)])


async def everything_in(store: BlobStore) -> list[str]:
    return [meta["path"] for batch in store._store.list() for meta in batch]


@pytest.mark.parametrize("parts", [(), (b"",), (b"a",), (b"x" * 11 * MIB, b"y" * 7)])
async def test_a_stream_comes_back_by_its_hash(store, parts, tmp_path):
    sha256, size = await store.put_stream(chunks(*parts), max_bytes=64 * MIB)
    whole = b"".join(parts)
    assert sha256 == hashlib.sha256(whole).hexdigest()
    assert size == len(whole)
    assert await read(store, sha256) == whole
    async with store.local(sha256, within=tmp_path) as path:
        assert path.read_bytes() == whole


async def test_the_same_bytes_twice_are_kept_once(store):
    first = await store.put_stream(chunks(b"a", b"b"), max_bytes=10)
    second = await store.put_stream(chunks(b"ab"), max_bytes=10)
    assert first == second
    assert len(await everything_in(store)) == 1


async def test_exactly_the_limit_is_taken_and_a_byte_more_leaves_nothing(store):
    await store.put_stream(chunks(b"12345"), max_bytes=5)
    with pytest.raises(TooLarge) as caught:
        await store.put_stream(chunks(b"123", b"456"), max_bytes=5)
    assert caught.value.limit_bytes == 5
    assert len(await everything_in(store)) == 1


async def test_a_stream_that_breaks_off_leaves_nothing(store):
    with pytest.raises(ConnectionResetError):
        await store.put_stream(chunks(b"x" * 6 * MIB, fail=True), max_bytes=64 * MIB)
    assert await everything_in(store) == []


async def test_deleting_is_idempotent_and_what_is_gone_is_not_found(store, tmp_path):
    sha256, _ = await store.put_stream(chunks(b"a"), max_bytes=10)
    assert await store.exists(sha256)
    await store.delete(sha256)
    await store.delete(sha256)
    assert not await store.exists(sha256)
    with pytest.raises(NotFound):
        await read(store, sha256)
    with pytest.raises(NotFound):
        async with store.local(sha256, within=tmp_path):
            pass


async def test_what_is_old_is_listed_and_half_uploads_are_cleared(store, tmp_path):
    sha256, _ = await store.put_stream(chunks(b"a"), max_bytes=10)
    await obstore.put_async(store._store, "incoming/left", b"a")
    for path in tmp_path.rglob("incoming"):
        (path / "half#1").write_bytes(b"a")
    day, none = timedelta(days=1), timedelta(seconds=-1)
    await store.clear_incoming(day)
    assert [key async for key in store.list_old(day)] == []
    assert len(await everything_in(store)) == 2
    await store.clear_incoming(none)
    assert [key async for key in store.list_old(none)] == [sha256]
    assert len(await everything_in(store)) == 1
    assert not list(tmp_path.rglob("half#1"))


def test_an_address_of_no_known_kind_is_refused():
    with pytest.raises(BlobError, match="gopher"):
        BlobStore.open("gopher://x")
