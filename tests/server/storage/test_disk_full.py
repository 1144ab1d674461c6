"""A disk without room: what cannot be stored is refused with the reason, and the rest goes on."""

import io
import resource
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from aiohttp import FormData
from httpx2 import AsyncClient
from sqlalchemy import event

from server.chat.cache_salt import SECRET_BYTES
from server.db.session import Database
from server.errors import StorageFull
from server.settings import Settings
from server.storage.blobs import BlobError, BlobStore
from tests.server.serving import QUESTION, Serving, database_url, serving

__all__ = ["database_url"]

MIB = 1 << 20
EMPTY_PLACE = "there is no room left"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MiB with 200 files, where this process may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m,nr_inodes=200", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.call(mount, stderr=subprocess.DEVNULL):
        pytest.skip("needs root, to mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest_asyncio.fixture
async def cramped(small_disk: Path, settings: Settings, sqlite_url: str) -> AsyncIterator[Serving]:
    """A server with everything on it: database, uploads, engine."""
    home = small_disk / "home"
    home.mkdir()
    shutil.copyfile(sqlite_url, home / "tenantune.sqlite")
    cramped = msgspec.structs.replace(
        settings,
        home=home,
        database_url=str(home / "tenantune.sqlite"),
        blobs_url="",
        max_upload_bytes=64 * MIB,
    )
    database = Database(cramped.database)
    async with serving(cramped, database, tokens_per_second=2000) as made:
        await made.tenant("acme")
        await made.tenant("other")
        await made.adapter("other")
        yield made


def fill(folder: Path) -> Path:
    """Take all the room that is left."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        for size in (MIB, 4096, 1):
            with suppress(OSError):
                while True:
                    file.write(b"0" * size)
    return ballast


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def upload(server: Serving, key: str, size: int) -> tuple[int, Any, Any]:
    form = FormData({"purpose": "user_data"})
    form.add_field("file", io.BytesIO(b"x" * size), filename="a.txt")
    async with server.session.post(
        f"{server.url}/v1/files", data=form, headers={"authorization": f"Bearer {key}"}
    ) as answer:
        return answer.status, await answer.json(), answer.headers


async def say(server: Serving, key: str) -> int:
    async with server.post(key, {"model": "other", "messages": [QUESTION]}) as answer:
        await answer.read()
        return int(answer.status)


async def ready(server: Serving) -> tuple[int, Any]:
    async with server.session.get(f"{server.url}/health/ready") as answer:
        return answer.status, (await answer.json())["checks"]["disk"]


async def test_an_upload_that_does_not_fit_is_refused_and_leaves_nothing(cramped: Serving) -> None:
    key = await cramped.key("acme", "train")
    for size in (17 * MIB, 40 * MIB):
        status, answer, headers = await upload(cramped, key, size)
        assert (status, answer["error"]["code"]) == (507, "disk_full")
        assert answer["error"]["type"] == "server_error"
        assert EMPTY_PLACE in answer["error"]["message"].lower()
        assert headers["x-should-retry"] == "false"
        assert files_in(cramped.settings.home / "blobs") == []
    async with cramped.session.post(
        f"{cramped.url}/admin/tenants/acme/transcripts",
        data=io.BytesIO(b"x" * 40 * MIB),
        headers={"authorization": f"Bearer {key}"},
    ) as problem:
        assert problem.status == 507
        assert problem.content_type == "application/problem+json"
        assert (await problem.json())["code"] == "disk_full"
    assert files_in(cramped.settings.home / "blobs") == []
    assert await ready(cramped) == (200, {"ok": True, "state": "available", "reason": None})


async def test_the_first_chat_of_an_installation_is_answered_on_a_full_disk(
    cramped: Serving,
) -> None:
    train, chat = await cramped.key("acme", "train"), await cramped.key("other")
    assert (await upload(cramped, train, 100))[0] == 200
    ballast = fill(cramped.settings.home)
    assert await say(cramped, chat) == 200
    status, answer, _ = await upload(cramped, train, MIB)
    assert (status, answer["error"]["code"]) == (507, "disk_full")
    status, disk = await ready(cramped)
    assert (status, disk["ok"], disk["state"]) == (503, False, "full")
    assert "no room is left" in disk["reason"]
    async with cramped.session.get(
        f"{cramped.url}/v1/files", headers={"authorization": f"Bearer {train}"}
    ) as listed:
        assert listed.status == 200
        assert len((await listed.json())["data"]) == 1
    ballast.unlink()
    assert (await ready(cramped))[0] == 200
    assert (await upload(cramped, train, MIB))[0] == 200
    assert await say(cramped, chat) == 200


async def test_no_more_files_is_a_full_disk_too(cramped: Serving) -> None:
    key = await cramped.key("acme", "train")
    made = []
    with suppress(OSError):
        for number in range(1000):
            made.append(cramped.settings.home / f"file-{number}")
            made[-1].touch()
    status, answer, _ = await upload(cramped, key, 100)
    assert (status, answer["error"]["code"]) == (507, "disk_full")
    assert (await ready(cramped))[0] == 503
    for path in made:
        path.unlink(missing_ok=True)
    assert (await upload(cramped, key, 100))[0] == 200


async def test_a_database_without_room_says_so_and_reads_on(
    client: AsyncClient, database: Database, operator: dict[str, str]
) -> None:
    async with database.engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        [[pages]] = await raw.execute_fetchall("PRAGMA page_count")
    with full_database(database, int(pages)):
        body = {"slug": "new", "name": "New", "system_prompt": "x" * 16_000}
        answer = await client.post("/admin/tenants", json=body, headers=operator)
        assert (answer.status_code, answer.json()["code"]) == (503, "disk_full")
        assert answer.headers["retry-after"]
        assert (await client.get("/admin/tenants", headers=operator)).status_code == 200
    assert (await client.post("/admin/tenants", json=body, headers=operator)).status_code == 201


@contextmanager
def full_database(database: Database, pages: int) -> Iterator[None]:
    """Let no connection add a page: SQLite's own bound, with the error of a full disk."""

    def limit(connection: Any, _record: object, *_more: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA max_page_count={pages}")
        cursor.close()

    def lift(connection: Any, _record: object, *_more: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA max_page_count=1073741823")
        cursor.close()

    event.listen(database.engine.sync_engine, "checkout", limit)
    try:
        yield
    finally:
        event.remove(database.engine.sync_engine, "checkout", limit)
        event.listen(database.engine.sync_engine, "checkout", lift)


async def test_a_bound_on_the_size_of_files_is_a_full_disk(
    client: AsyncClient, make_tenant: Any, make_key: Any, settings: Settings
) -> None:
    """Quotas and limits on files end a write as a full disk does; this one needs no root."""
    await make_tenant("acme")
    key = await make_key("acme", "train")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, before[1]))
    try:
        answer = await client.post(
            "/v1/files",
            data={"purpose": "user_data"},
            files={"file": ("a.txt", b"x" * 900_000)},
            headers=key,
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "disk_full")
    assert files_in(Path(settings.blobs)) == []


async def test_what_chats_need_of_the_disk_is_made_at_the_start(
    client: AsyncClient, settings: Settings
) -> None:
    assert client
    assert len((settings.home / "installation.key").read_bytes()) == SECRET_BYTES
    assert (settings.run / "worker.token").read_text()


async def test_a_bucket_that_cannot_be_reached_is_told(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, database: Database
) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_REGION": "x",
        "AWS_ENDPOINT": "http://127.0.0.1:9",  # discard: nobody listens
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    bucket = msgspec.structs.replace(settings, blobs_url="s3://bucket/uploads")
    async with serving(bucket, database) as server:
        await server.tenant()
        key = await server.key("acme", "train")
        status, answer, headers = await upload(server, key, 100)
        assert (status, answer["error"]["code"]) == (503, "storage_unavailable")
        assert "127.0.0.1" not in answer["error"]["message"]
        assert headers["retry-after"]
        status, answer, _ = await upload(server, key, 900_000)
        assert status == 503
    store = BlobStore.open(bucket.blobs)
    with pytest.raises(BlobError):
        await anext(store.iterate("0" * 64))
    with pytest.raises(BlobError):
        await store.delete("0" * 64)


async def test_a_refused_file_costs_no_descriptor(small_disk: Path) -> None:
    store = BlobStore.open(str(small_disk / "blobs"))

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * MIB

    def descriptors() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    with pytest.raises(StorageFull):
        await store.put_stream(chunks(), max_bytes=64 * MIB)
    before = descriptors()
    for _ in range(5):
        with pytest.raises(StorageFull):
            await store.put_stream(chunks(), max_bytes=64 * MIB)
    assert descriptors() <= before
