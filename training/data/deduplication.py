"""Pairs of texts that are nearly the same: MinHash finds candidates, exact Jaccard decides.

Texts are normalised (lower case, digits to 0, no punctuation) and compared by their sets of
character 4-grams. At ``jaccard >= 0.70`` two customers ask the same thing in nearly the same words.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

METHOD = "minhash-lsh candidates, exact jaccard of character n-grams of normalised text"
NGRAM = 4
SAME_SPLIT = 0.70
# 64 bands of 5 rows: a pair at 0.70 is missed once in 130,000; pairs below 0.4 are seldom found.
_BANDS, _ROWS = 64, 5

Shingles = npt.NDArray[np.uint64]

_PUNCTUATION = re.compile(r"[^\w\s]|_")
_DIGIT = re.compile(r"\d")
_BLANKS = re.compile(r"\s+")


def normalise(text: str) -> str:
    """Lower case, digits to 0, no punctuation, single blanks; a text of only punctuation stays."""
    plain = _DIGIT.sub("0", _PUNCTUATION.sub("", text.lower()))
    return _BLANKS.sub(" ", plain).strip() or text.strip()


def shingles(normalised: str) -> Shingles:
    """The text's 4-grams as sorted distinct numbers (exact up to U+FFFF); never empty."""
    codes = np.frombuffer(normalised.ljust(NGRAM).encode("utf-32-le"), dtype=np.uint32)
    packed = np.zeros(len(codes) - NGRAM + 1, dtype=np.uint64)
    for offset in range(NGRAM):
        part = codes[offset : offset + len(packed)].astype(np.uint64)
        packed = (packed << np.uint64(16)) | (part & np.uint64(0xFFFF))
    return np.unique(packed)


def jaccard(a: Shingles, b: Shingles) -> float:
    """Shared over all distinct 4-grams, 0 to 1."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


def candidates(texts: Sequence[Shingles]) -> Iterator[tuple[int, int]]:
    """Yield index pairs (i > j) that may be near-duplicates, in order of i, each once.

    Pairs whose sizes alone rule out ``SAME_SPLIT`` are skipped.
    """
    from datasketch import MinHash, MinHashLSH  # noqa: PLC0415 - imports scipy: 2.5 s

    lsh = MinHashLSH(num_perm=_BANDS * _ROWS, params=(_BANDS, _ROWS))
    blank = MinHash(num_perm=_BANDS * _ROWS, seed=1, hashfunc=int)
    sizes = [len(text) for text in texts]
    for i, text in enumerate(texts):
        sketch = blank.copy()
        sketch.update_batch(_hashes(text))
        for j in sorted(lsh.query(sketch)):
            small, large = sorted((sizes[i], sizes[j]))
            if small >= SAME_SPLIT * large:
                yield i, j
        lsh.insert(i, sketch, check_duplication=False)


def _hashes(text: Shingles) -> list[int]:
    """32-bit mixes of the packed 4-grams (Fibonacci hashing), as MinHash wants them."""
    mixed = (text ^ (text >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15)
    hashes: list[int] = (mixed >> np.uint64(32)).tolist()
    return hashes


def digest(*parts: str) -> str:
    """SHA-256 of the parts, joined by a separator that text cannot contain."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
