"""How fast a tenant's articles are searched, and where an index would be better.

    python -m tests.bench.knowledge [--sizes 1000 10000 100000] [--peers FOLDER]

Pieces of text with clustered unit vectors (centres with noise, as texts about some topics have) are put
into a database of SQLite; then our search, which is exact, is asked as the server asks it, text and all.
Beside it, on the same vectors, alone and without any text: usearch's exact search and its HNSW index in
float16, and sqlite-vec's exact search, where they are installed (or in FOLDER, from
``pip install --target FOLDER --no-deps usearch numkong tqdm sqlite-vec``). Recall is the share of the ten nearest
by float32 that are found.
"""

import argparse
import asyncio
import importlib
import resource
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import insert

from server.db.models import Article, ArticleChunk, ArticleVersion, Tenant, new_id
from server.db.scope import of_tenant
from server.db.session import Database
from server.embeddings.schemas import DIMENSIONS
from server.knowledge import service
from server.knowledge.search import KnowledgeSearch
from server.tenants import service as tenants
from server.tenants.schemas import TenantRequest

QUESTIONS = 60
COUNT = 10
TEXT = "A sentence of a help page tells what is to be done. " * 12  # 624 characters


def clustered(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 384) unit vectors in float32 around some topics."""
    centres = rng.normal(size=(max(8, count // 200), DIMENSIONS)).astype(np.float32)
    chosen = centres[rng.integers(len(centres), size=count)]
    found = chosen + 0.7 * rng.normal(size=(count, DIMENSIONS)).astype(np.float32)
    unit: np.ndarray = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit


async def fill(database: Database, vectors: np.ndarray) -> Tenant:
    """A tenant with these pieces, a hundred an article."""
    async with database.transaction() as session:
        tenant = await tenants.create(session, TenantRequest(slug="acme", name="Acme"))
    halves = vectors.astype("<f2")
    for start in range(0, len(vectors), 10_000):
        async with database.transaction() as session:
            for first in range(start, min(start + 10_000, len(vectors)), 100):
                rows = halves[first : first + 100]
                article = Article(tenant_id=tenant.id, name=f"{first}.md")
                session.add(article)
                await session.flush()
                version = ArticleVersion(
                    tenant_id=tenant.id,
                    article_id=article.id,
                    number=1,
                    state="current",
                    title="A help page",
                    format="markdown",
                    sha256="0" * 64,
                    source_sha256="0" * 64,
                    sections=1,
                    chunks=len(rows),
                    characters=1,
                    text_bytes=len(TEXT) * len(rows),
                )
                session.add(version)
                await session.flush()
                values = [
                    {
                        "id": new_id(),
                        "tenant_id": tenant.id,
                        "version_id": version.id,
                        "ordinal": at,
                        "headings": ["What to do"],
                        "text": TEXT,
                        "vector": row.tobytes(),
                    }
                    for at, row in enumerate(rows)
                ]
                await session.execute(insert(ArticleChunk), values)
            await service.count_revision(session, tenant.id)
    return tenant


async def measure(vectors: np.ndarray, questions: np.ndarray, folder: Path) -> str:
    """Our search: one row of the table."""
    database = Database(f"sqlite+aiosqlite:///{folder / f'{len(vectors)}.sqlite'}")
    await database.migrate()
    tenant = await fill(database, vectors)
    search = KnowledgeSearch(database)
    before = rss()
    began = time.perf_counter()
    await search.search(tenant.id, questions[0].tobytes(), COUNT)
    load = time.perf_counter() - began
    grown = rss() - before
    milliseconds = []
    recalls = []
    cpu = 0.0
    async with database.reading() as session:
        ids = list(
            await session.execute(
                of_tenant(tenant.id)
                .select(Article.name, ArticleChunk.ordinal, ArticleChunk.id)
                .join(ArticleVersion, ArticleVersion.article_id == Article.id)
                .join(ArticleChunk, ArticleChunk.version_id == ArticleVersion.id)
            )
        )
    at = {(name, ordinal): int(name.removesuffix(".md")) + ordinal for name, ordinal, _ in ids}
    for question, right in zip(questions, nearest(vectors, questions), strict=True):
        began, used = time.perf_counter(), time.process_time()
        found = await search.search(tenant.id, question.tobytes(), COUNT)
        cpu += time.process_time() - used
        milliseconds.append(1000 * (time.perf_counter() - began))
        recalls.append(len({at[each.name, each.ordinal] for each in found} & right) / COUNT)
    line = row(
        "ours, float16, exact",
        load,
        search.cached_bytes,
        milliseconds,
        recalls,
        note=f"process grew by {grown >> 20} MiB",
        cpu=cpu,
    )
    search.close()
    await database.dispose()
    return line


def nearest(vectors: np.ndarray, questions: np.ndarray) -> list[set[int]]:
    """The right answers: by float32, of all."""
    scores = questions @ vectors.T
    return [set(np.argsort(-each)[:COUNT].tolist()) for each in scores]


def peers(vectors: np.ndarray, questions: np.ndarray) -> list[str]:
    """The same by others, where they are installed."""
    right = nearest(vectors, questions)
    lines = []
    for name, build in (
        ("usearch, exact, f16", usearch_exact),
        ("usearch, HNSW, f16", usearch_hnsw),
        ("sqlite-vec, exact, f32", sqlite_vec),
    ):
        began = time.perf_counter()
        try:
            ask, size = build(vectors)
        except (ImportError, AttributeError):  # or a Python whose SQLite takes no extensions
            lines.append(f"  {name:<24} cannot be used here")
            continue
        load = time.perf_counter() - began
        ask(questions[0])
        milliseconds = []
        recalls = []
        cpu = 0.0
        for question, wanted in zip(questions, right, strict=True):
            began, used = time.perf_counter(), time.process_time()
            found = ask(question)
            cpu += time.process_time() - used
            milliseconds.append(1000 * (time.perf_counter() - began))
            recalls.append(len(set(found) & wanted) / COUNT)
        lines.append(row(name, load, size, milliseconds, recalls, cpu=cpu))
    return lines


Ask = Callable[[np.ndarray], Sequence[int]]


def usearch_exact(vectors: np.ndarray) -> tuple[Ask, int]:
    module: Any = importlib.import_module("usearch.index")
    halves = vectors.astype(np.float16)

    def ask(question: np.ndarray) -> Sequence[int]:
        found = module.search(halves, question.astype(np.float16), COUNT, "cos", exact=True)
        return [int(each) for each in found.keys]

    return ask, halves.nbytes


def usearch_hnsw(vectors: np.ndarray) -> tuple[Ask, int]:
    module: Any = importlib.import_module("usearch.index")
    index = module.Index(ndim=DIMENSIONS, metric="cos", dtype="f16")
    index.add(np.arange(len(vectors)), vectors)

    def ask(question: np.ndarray) -> Sequence[int]:
        return [int(each) for each in index.search(question, COUNT).keys]

    return ask, int(index.memory_usage)


def sqlite_vec(vectors: np.ndarray) -> tuple[Ask, int]:
    module: Any = importlib.import_module("sqlite_vec")
    connection = sqlite3.connect(":memory:")
    connection.enable_load_extension(True)
    module.load(connection)
    connection.execute(f"CREATE VIRTUAL TABLE v USING vec0(e float[{DIMENSIONS}])")
    connection.executemany(
        "INSERT INTO v (rowid, e) VALUES (?, ?)",
        ((at, each.tobytes()) for at, each in enumerate(vectors)),
    )

    def ask(question: np.ndarray) -> Sequence[int]:
        query = "SELECT rowid FROM v WHERE e MATCH ? AND k = ? ORDER BY distance"
        return [each[0] for each in connection.execute(query, (question.tobytes(), COUNT))]

    return ask, vectors.nbytes


def row(
    name: str,
    load: float,
    size: int,
    milliseconds: Sequence[float],
    recalls: Sequence[float],
    *,
    cpu: float,
    note: str = "",
) -> str:
    ordered = sorted(milliseconds)
    return (
        f"  {name:<24} load {load:7.2f} s  {size / (1 << 20):7.1f} MiB  "
        f"median {statistics.median(ordered):7.2f} ms  p95 {ordered[int(0.95 * len(ordered))]:7.2f} ms  "
        f"CPU {1000 * cpu / len(ordered):7.2f} ms  recall {statistics.mean(recalls):.3f}  {note}"
    )


def rss() -> int:
    """The most memory that the process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


async def main() -> None:
    """Print a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--peers", type=Path, help="where usearch and sqlite-vec are installed")
    options = parser.parse_args()
    if options.peers:
        sys.path.append(str(options.peers))
    rng = np.random.default_rng(7)
    for size in options.sizes:
        vectors = clustered(rng, size)
        questions = vectors[rng.integers(size, size=QUESTIONS)]
        questions = questions + 0.02 * rng.normal(size=questions.shape).astype(np.float32)
        questions /= np.linalg.norm(questions, axis=1, keepdims=True)
        print(f"{size:,} pieces")
        with tempfile.TemporaryDirectory() as folder:
            print(await measure(vectors, questions, Path(folder)))
        print("\n".join(peers(vectors, questions)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
