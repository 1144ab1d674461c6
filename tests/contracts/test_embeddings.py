"""What the server relies on, asked of every encoder: the fake one and all-MiniLM-L6-v2."""

import subprocess
import time
from array import array
from collections.abc import Iterator
from itertools import pairwise
from math import fsum
from pathlib import Path

import pytest

from server.embeddings.client import EncoderClient
from server.embeddings.schemas import DIMENSIONS, EmbedRequest
from server.embeddings.service import encoder_command
from server.errors import Invalid

PARCEL = "Where is my parcel?"


@pytest.fixture(
    scope="module",
    params=["fake", pytest.param("sentence", marks=[pytest.mark.heavy])],
)
def uds(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Each encoder in turn, one process for all tests."""
    run = tmp_path_factory.mktemp("encoder")
    command = encoder_command(run, request.param)
    with (run / "encoder.log").open("wb") as log:
        process = subprocess.Popen(
            command.argv, env={**command.env, "PATH": ""}, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + 100
        while not command.uds.exists():
            assert process.poll() is None, (run / "encoder.log").read_text()
            assert time.monotonic() < deadline, (run / "encoder.log").read_text()
            time.sleep(0.05)
        yield command.uds
    finally:
        process.kill()
        process.wait()


async def embed(
    uds: Path, *texts: str, dimensions: int = DIMENSIONS
) -> tuple[list["array[float]"], int]:
    client = EncoderClient(uds)
    try:
        request = EmbedRequest(tenant="acme", texts=list(texts), dimensions=dimensions)
        found = await client.embed(request)
    finally:
        await client.close()
    return [array("f", vector) for vector in found.vectors], found.tokens


def likeness(one: "array[float]", other: "array[float]") -> float:
    return fsum(a * b for a, b in zip(one, other, strict=True))


async def test_vectors_have_length_one_and_the_models_dimensions(uds: Path) -> None:
    vectors, tokens = await embed(uds, PARCEL, "Hello", "  ", "\U0001f600")
    assert [len(vector) for vector in vectors] == [DIMENSIONS] * 4
    assert [likeness(v, v) for v in vectors] == pytest.approx([1.0] * 4, abs=1e-5)
    assert tokens >= 4 * 2


async def test_the_same_text_has_the_same_vector_in_any_company(uds: Path) -> None:
    alone, _ = await embed(uds, PARCEL)
    texts = [PARCEL, "word " * 200, "Hi", PARCEL, *(f"Number {n}" for n in range(300))]
    together, _ = await embed(uds, *texts)
    assert len(together) == len(texts)
    for place in (0, 3):
        assert list(together[place]) == pytest.approx(list(alone[0]), abs=1e-5)
    for one, other in pairwise(together[4:]):
        assert one != other


async def test_texts_about_the_same_are_alike(uds: Path) -> None:
    (asked, same, other), _ = await embed(
        uds, PARCEL, "Where is my parcel now?", "We bake bread on Sundays"
    )
    assert likeness(asked, same) > 0.5 > likeness(asked, other)


async def test_fewer_dimensions_are_the_first_ones_at_length_one(uds: Path) -> None:
    (whole,), _ = await embed(uds, PARCEL)
    (short,), _ = await embed(uds, PARCEL, dimensions=8)
    assert len(short) == 8
    assert likeness(short, short) == pytest.approx(1.0, abs=1e-5)
    scale = whole[0] / short[0]
    assert [value * scale for value in short] == pytest.approx(list(whole[:8]), abs=1e-5)


async def test_a_text_beyond_the_models_length_is_refused_and_one_at_it_is_read(uds: Path) -> None:
    _, tokens = await embed(uds, "a " * 254)
    assert tokens == 256
    with pytest.raises(Invalid, match=r"257 tokens \(input\[1\]\)") as refused:
        await embed(uds, "short", "a " * 255)
    assert refused.value.code == "context_length_exceeded"
