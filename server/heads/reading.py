"""Reads an upload of labelled images, as a process of its own.

    python -m server.heads.reading    (a ``ReadingRequest`` on standard input, an ``Outcome`` out)

See ``server/reader_processes.py``. Libraries in C unpack these files: a file that is made to do harm ends
this process alone, within bounds that the system holds.
"""

from pathlib import Path

import msgspec

from connectors.importers.base import MIB
from server.errors import Invalid
from server.reader_processes import (
    answer,
    ask,
    end_with_parent,
    limit_resources,
    make_nice,
    read_request,
)
from training.errors import BadInput
from training.heads.examples import LabelledImage, LeftOut

CPU_SECONDS = 600
"""The most images of one upload, of 12 million pixels each, take some two minutes."""
MEMORY_BYTES = 2048 * MIB
"""Of address space, code included. An image of the most pixels takes 0.5 GB at most."""
PICTURE_BYTES = 1 * MIB


class ReadingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to read: ``source``, called ``filename``; pictures go to the folder ``pictures``."""

    source: str
    filename: str
    pictures: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What was read and what was left out, or the ``error`` for which nothing can be used."""

    images: list[LabelledImage] = []
    left_out: list[LeftOut] = []
    error: str | None = None


async def read(reading: ReadingRequest) -> Outcome:
    """Run a process that reads. It ends when this call is cancelled, or this process ends.

    Raises:
        Invalid: nothing of it can be used (``invalid_labels``), or the process did not survive it
            (``reader_ended``).
    """
    output = await ask("server.heads.reading", reading, about=reading.filename)
    outcome = msgspec.json.decode(output, type=Outcome)
    if outcome.error is not None:
        raise Invalid(outcome.error, param="file", code="invalid_labels")
    return outcome


def main() -> None:
    """Read as the ``ReadingRequest`` on standard input says, and write the ``Outcome``."""
    from training.heads.images import read_images  # noqa: PLC0415 - loads numpy; others need its types

    reading = read_request(ReadingRequest)
    make_nice()
    limit_resources(cpu_seconds=CPU_SECONDS, memory_bytes=MEMORY_BYTES, file_bytes=PICTURE_BYTES)
    end_with_parent()
    try:
        images, left_out = read_images(
            Path(reading.source), Path(reading.pictures), name=reading.filename
        )
        outcome = Outcome(images=images, left_out=left_out)
    except BadInput as exc:
        outcome = Outcome(error=str(exc))
    except MemoryError:
        outcome = Outcome(
            error=f"{reading.filename}: it takes more memory to read than {MEMORY_BYTES // MIB:,} MiB; "
            "give smaller images"
        )
    answer(outcome)


if __name__ == "__main__":
    main()
