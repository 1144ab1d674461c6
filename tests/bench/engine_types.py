"""Tokens a second of the engine in each number type, and whether the measured choice is the faster.

    python -m tests.bench.engine_types [--types bfloat16 float32] [--streams 1 8 32]

Starts vLLM with the server's own command and the built-in base once in each type, one after the
other, and asks it over its socket: greedy answers of a fixed length, for the base and for an adapter
of rank 64. Prints each figure, the ratio of the types, and what `training.compute_dtype` chose.
"""

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

import aiohttp

from server.engine.backends.vllm.launch import vllm_command
from tests.server.engine.vllm.vllm_process import Base, VllmProcess, built_in_base, make_adapter
from training.compute_dtype import ComputeType, measure_in_subprocess

QUESTIONS = ("Where is my parcel?", "Can I get a refund?", "How do I change my address?")


async def answer(session: aiohttp.ClientSession, model: str, number: int, tokens: int) -> int:
    """Tokens of one answer."""
    body = {
        "model": model,
        "prompt": f"Customer {number}: {QUESTIONS[number % len(QUESTIONS)]}\nAgent:",
        "max_tokens": tokens,
        "min_tokens": tokens,
        "temperature": 0,
    }
    async with session.post("http://engine/v1/completions", json=body) as reply:
        reply.raise_for_status()
        return int((await reply.json())["usage"]["completion_tokens"])


async def speed(
    session: aiohttp.ClientSession, model: str, streams: int, tokens: int, rounds: int
) -> float:
    """Tokens a second of so many answers at a time, the best round."""
    best = 0.0
    for turn in range(rounds):
        began = time.perf_counter()
        numbers = range(turn * 1000, turn * 1000 + streams)
        done = await asyncio.gather(*(answer(session, model, n, tokens) for n in numbers))
        best = max(best, sum(done) / (time.perf_counter() - began))
    return best


async def one_type(
    base: Base, home: Path, kind: ComputeType, given: argparse.Namespace
) -> dict[str, float]:
    """The figures of one type, by subject and streams."""
    (home / "run").mkdir(parents=True)
    adapter = make_adapter(base, home / "adapters", "bench", rank=64, seed=1, strength=0.1)
    command = vllm_command(
        base=base.model,
        serving=base.serving,
        adapters=home / "adapters",
        run=home / "run",
        overrides={"dtype": kind},
    )
    process = VllmProcess(command, home / "vllm.log")
    found: dict[str, float] = {}
    try:
        process.wait_ready()
        async with process.session() as session:
            ensure = {"name": adapter.name, "path": adapter.path}
            url = "http://engine/tenantune/adapters/ensure"
            async with session.post(url, json=ensure) as reply:
                reply.raise_for_status()
            for subject, model in (("base", base.model.name), ("adapter", adapter.name)):
                await speed(session, model, 2, 8, 1)  # what the first request builds
                for streams in given.streams:
                    name = f"{subject} {streams}"
                    found[name] = await speed(session, model, streams, given.tokens, given.rounds)
                    print(f"{kind:9} {name:12} {found[name]:7.1f} tokens/s", flush=True)
    finally:
        process.stop()
    return found


async def main(given: argparse.Namespace) -> None:
    """Run every type and print the ratios as JSON."""
    base = built_in_base()
    chosen = measure_in_subprocess(base.serving.parent).choices["engine"]
    print(f"chosen: {chosen.type} ({chosen.reason})", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        speeds = {
            kind: await one_type(base, Path(folder) / kind, kind, given) for kind in given.types
        }
    ratios = {}
    if {"bfloat16", "float32"} <= speeds.keys():
        half, full = speeds["bfloat16"], speeds["float32"]
        ratios = {name: round(full[name] / half[name], 2) for name in full}
    print(json.dumps({"chosen": chosen.type, "float32 / bfloat16": ratios, **speeds}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--types", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--streams", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=48, help="of an answer")
    parser.add_argument("--rounds", type=int, default=2)
    asyncio.run(main(parser.parse_args()))
