"""What an index of past exchanges costs, by its size: building, memory, a search, and what training asks of it.

    python -m tests.bench.retrieval 1000 10000 100000

Building is measured with the real encoder on the first 500 exchanges and told a thousand; vectors of the
searched index are random, which costs an exact search the same. The peer is a search of all rows in
float32, sorted whole, as numpy's documentation has it.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np

from training.data.contexts import Context
from training.evaluation.sentence_embedder import load_embedder
from training.retrieval.index import Exchange, ExchangeIndex, Vectors, encode

ROUNDS = 20
TOGETHER = 256  # replies of a training split; `training.retrieval.prompts` takes 1,024
SIZE = 384


def exchange(number: int) -> Exchange:
    return Exchange(
        conversation=f"c{number}",
        turn=1,
        question=f"Where is my order number {number}? It was to come on Monday the {number % 28}th.",
        before="" if number % 3 else f"Good morning, how can I help you with {number}?",
        reply=f"Your order {number} is on its way. You have it in {number % 9} working days.",
    )


def as_context(found: Exchange) -> Context:
    return Context(
        conversation=found.conversation,
        turn=found.turn,
        history=(),  # only of what is not in the index
        reference=found.reply,
    )


def milliseconds(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        taken.append((time.perf_counter() - started) * 1000)
    return median(taken)


def plain_search(vectors: Vectors, query: Vectors) -> object:
    return np.argsort(-(vectors @ query[0]))[:2]


def main() -> None:
    import torch  # noqa: PLC0415 - not for --help

    embed = load_embedder(torch.float32)
    started = time.process_time()
    few = [exchange(number) for number in range(500)]
    encode([(each.question, each.before) for each in few], embed)
    building = (time.process_time() - started) * 2
    source = np.random.default_rng(1)
    print(f"building: {building:.1f} CPU s a thousand exchanges")
    for size in map(int, sys.argv[1:] or ["1000", "10000", "100000"]):
        vectors = source.standard_normal((size, 2 * SIZE), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) / 2**0.5
        query = vectors[:1].copy()
        index = ExchangeIndex(
            [exchange(number) for number in range(size)], vectors.astype(np.float16)
        )
        asked = [as_context(each) for each in index.exchanges[:TOGETHER]]
        started = time.perf_counter()
        index.neighbours(asked, 2)
        training = (time.perf_counter() - started) * 1000 / len(asked)
        ours = milliseconds(partial(index.search, query, 2))
        peer = milliseconds(partial(plain_search, vectors, query))
        print(
            f"{size:>7,} exchanges: {ours:7.2f} ms a search, {peer:7.2f} plain float32 "
            f"({ours / peer:.2f} x the time), {training:.3f} for each of {len(asked)} together; "
            f"{size * 8 * SIZE / 1e6:.0f} MB of vectors in memory, half of it on disk"
        )


if __name__ == "__main__":
    main()
