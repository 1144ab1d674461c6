"""How much room the installation takes, on both databases."""

import msgspec

from server.storage import space
from server.storage.blobs import BlobStore


async def test_the_files_of_each_part_are_added_up(settings, database):
    blobs = BlobStore.open(settings.blobs)
    assert blobs.folder is not None
    for folder in (settings.adapters / "acme.1", settings.adapters / "acme.2", blobs.folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "weights").write_bytes(b"x" * 1000)
    (settings.adapters / "gone").symlink_to("/nowhere")
    found = await space.measure(settings, database, blobs)
    assert 2000 <= found.adapters < 2100
    assert (found.uploads, found.datasets, found.bases) == (1000, 0, 0)
    assert found.database
    assert found.database > 10_000
    assert 0 < found.free <= found.total


async def test_what_is_in_a_bucket_is_not_measured(settings, database):
    away = msgspec.structs.replace(settings, home=settings.home / "not" / "there")
    found = await space.measure(away, database, BlobStore.open("memory://"))
    assert (found.uploads, found.adapters) == (None, 0)
