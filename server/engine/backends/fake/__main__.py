import argparse
import asyncio
import math
import sys
from pathlib import Path

from server.engine.backends import fake
from server.engine.backends.fake.engine import TURN_SECONDS, Engine


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


async def _serve(engine: Engine, uds: Path, start_seconds: float) -> None:
    _say("Starting to load model (fake)")
    await asyncio.sleep(start_seconds)
    async with engine.serving(uds):
        _say("Application startup complete")
        await asyncio.sleep(math.inf)


def main() -> None:
    """Serve until ended by a signal."""
    parser = argparse.ArgumentParser(prog="server.engine.backends.fake", description=fake.__doc__)
    parser.add_argument("--uds", type=Path, required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--adapters", type=Path, required=True)
    parser.add_argument("--max-loras", type=int, default=4)
    parser.add_argument("--max-cpu-loras", type=int, default=32)
    parser.add_argument("--max-num-seqs", type=int, default=256)
    parser.add_argument("--tokens-per-second", type=float, default=200.0)
    parser.add_argument("--words", type=int, default=0, help="the least length of a reply")
    parser.add_argument("--max-model-len", type=int, default=0, help="0: no limit")
    parser.add_argument("--turn-seconds", type=float, default=TURN_SECONDS)
    parser.add_argument("--start-seconds", type=float, default=0.0)
    options = parser.parse_args()
    engine = Engine(
        base=options.base,
        adapters=options.adapters,
        max_loras=options.max_loras,
        max_cpu_loras=options.max_cpu_loras,
        max_num_seqs=options.max_num_seqs,
        tokens_per_second=options.tokens_per_second,
        turn_seconds=options.turn_seconds,
        words=options.words,
        max_model_len=options.max_model_len,
    )
    asyncio.run(_serve(engine, options.uds, options.start_seconds))


if __name__ == "__main__":
    main()
