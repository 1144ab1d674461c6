from array import array
from collections.abc import Sequence

import pytest

from server.embeddings.encoders import FakeEncoder
from server.embeddings.encoding_service import EncodingService
from server.embeddings.schemas import EmbedRequest


class _Counting(FakeEncoder):
    """Notes how many positions each batch computes."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def encode(self, texts: Sequence[str]) -> list["array[float]"]:
        self.batches.append(len(texts) * max(self.count(texts)))
        return super().encode(texts)


async def test_batches_are_bounded_and_rows_come_back_in_order():
    encoder = _Counting()
    service = EncodingService(encoder)
    texts = [f"word{n} " * (1 + n * 37 % 250) for n in range(120)]
    answer = await service.embed(EmbedRequest(tenant="acme", texts=texts, dimensions=384))
    assert max(encoder.batches) <= 1024
    assert len(encoder.batches) > 1
    for row, vector in zip(answer.vectors, encoder.encode(texts), strict=True):
        assert list(array("f", row)) == pytest.approx(list(vector), abs=1e-6)
    assert answer.tokens == sum(encoder.count(texts))
