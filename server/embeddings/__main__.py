import argparse
import asyncio
import math
import sys
from pathlib import Path

from server import embeddings
from server.embeddings.encoder import Encoder, FakeEncoder
from server.embeddings.socket_server import serving


def _load(kind: str, threads: int) -> Encoder:
    if kind == "fake":
        return FakeEncoder()
    from server.embeddings.sentence_encoder import SentenceEncoder  # noqa: PLC0415 - loads torch

    return SentenceEncoder(threads=threads)


async def _serve(encoder: Encoder, uds: Path, start_seconds: float) -> None:
    await asyncio.sleep(start_seconds)
    async with serving(encoder, uds):
        sys.stderr.write("ready\n")
        await asyncio.sleep(math.inf)


def main() -> None:
    """Serve until ended by a signal. The socket appears when the model is ready."""
    parser = argparse.ArgumentParser(prog="server.embeddings", description=embeddings.__doc__)
    parser.add_argument("--uds", type=Path, required=True)
    parser.add_argument("--encoder", choices=("sentence", "fake"), default="sentence")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--start-seconds", type=float, default=0.0, help="for tests: a slow start")
    options = parser.parse_args()
    encoder = _load(options.encoder, options.threads)
    asyncio.run(_serve(encoder, options.uds, options.start_seconds))


if __name__ == "__main__":
    main()
