"""What looking into the past adds to the first token, by the size of the index.

    python -m tests.bench.grounding 1000 10000 100000

A server of its own, over the fake engine, whose tokens cost nothing, and with the real encoder. The same chats are sent with
``metadata={"retrieval": "off"}`` and without, by turns, one at a time; no question twice, for vectors of texts are kept. The
adapter is one of ``copy_words``, so its prompts are as long either way. Vectors of the index are random, which costs an exact
search the same. Prints the median and the 95th percentile of milliseconds to the first token, and their differences.
"""

import asyncio
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import structlog

from server.db.session import Database
from server.settings import Settings
from tests.bench.retrieval import SIZE, exchange
from tests.server.retrieval.indexed import letters_of, publish
from tests.server.serving import Serving, serving
from training.adapters.package import INDEX_NAME
from training.retrieval.index import ExchangeIndex

CHATS = 120


def random_index(rows: int) -> ExchangeIndex:
    vectors = np.random.default_rng(1).standard_normal((rows, 2 * SIZE), dtype=np.float32) / SIZE
    exchanges = [exchange(number) for number in range(rows)]
    return ExchangeIndex(
        exchanges,
        vectors.astype(np.float16),
        tokens=[letters_of(each.reply) for each in exchanges],
        copy_bias=1.0,
    )


async def first_token(server: Serving, key: str, slug: str, question: str, *, off: bool) -> float:
    """Milliseconds."""
    body = {
        "model": slug,
        "stream": True,
        "messages": [
            {"role": "user", "content": f"Hello, {question}"},
            {"role": "assistant", "content": f"Good morning! About {question}, please go on."},
            {"role": "user", "content": f"When does {question} come, and what does it cost?"},
        ],
        "metadata": {"retrieval": "off"} if off else {},
    }
    began = time.perf_counter()
    async with server.post(key, body) as answer:
        async for line in answer.content:
            if b'"content"' in line:
                return (time.perf_counter() - began) * 1000
    raise SystemExit("an answer without words")


async def measure(server: Serving, rows: int) -> None:
    slug = f"rows-{rows}"
    await server.tenant(slug)
    await publish(server, slug, references=0, copy_bias=1.0)
    (folder,) = server.settings.adapters.glob(f"{slug}.*")
    random_index(rows).save(folder / INDEX_NAME)
    key = await server.key(slug)
    await first_token(server, key, slug, "a first one", off=False)  # starts the encoder
    taken: dict[bool, list[float]] = {True: [], False: []}
    for number in range(CHATS):
        for off in (True, False) if number % 2 else (False, True):
            question = f"order {number} of {rows}{' again' if off else ''}"
            taken[off].append(await first_token(server, key, slug, question, off=off))
    figures = [
        (statistics.median(each), statistics.quantiles(each, n=20)[-1]) for each in taken.values()
    ]
    (off_p50, off_p95), (on_p50, on_p95) = figures
    print(
        f"{rows:>8,} exchanges: off {off_p50:.1f} ms (p95 {off_p95:.1f}), on {on_p50:.1f} ms (p95 {on_p95:.1f}), "
        f"added {on_p50 - off_p50:.1f} ms (p95 {on_p95 - off_p95:.1f})",
        flush=True,
    )


async def main(sizes: list[int]) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        settings = Settings(home=home, base="tiny-base", engine="vllm")
        database = Database(settings.database)
        await database.migrate()
        async with serving(settings, database, tokens_per_second=1e6) as server:
            for rows in sizes:
                await measure(server, rows)
        await database.dispose()


if __name__ == "__main__":
    asyncio.run(main([int(size) for size in sys.argv[1:]] or [1_000, 10_000, 100_000]))
