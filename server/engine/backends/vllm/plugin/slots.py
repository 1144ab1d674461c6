"""The matrices of one adapter in one layer, cut to its rank and ready to multiply.

vLLM keeps the adapters of a layer in tensors of ``max_loras`` slots, padded to the highest rank
that is allowed. The copies made here are discarded when any of these tensors is written to, which
torch counts (``Tensor._version``), so a slot that gets another adapter never serves the old one.
"""

from collections.abc import Sequence

import msgspec
import torch


class OutputSlice(msgspec.Struct, frozen=True):
    """``matrix``: (rank_i, out_i), for columns from ``offset`` of y, ranks from ``first_rank``."""

    matrix: torch.Tensor
    offset: int
    first_rank: int


class SlotWeights(msgspec.Struct, frozen=True, kw_only=True):
    """``a``: (in, rank), the output slices' matrices beside each other, rank their sum.

    ``half_a`` and ``half_bs`` are the same in the dtype that vLLM holds. ``width``: columns of y;
    ``whole``: every one of them has a matrix; ``elements``: of all matrices together.
    """

    a: torch.Tensor
    bs: tuple[OutputSlice, ...]
    half_a: torch.Tensor
    half_bs: tuple[OutputSlice, ...]
    rank: int
    width: int
    whole: bool
    elements: int


class LayerSlots:
    """The slots of one layer."""

    def __init__(
        self, a: Sequence[torch.Tensor], b: Sequence[torch.Tensor], widths: Sequence[int]
    ) -> None:
        self._a = tuple(a)
        self._b = tuple(b)
        self._widths = tuple(widths)
        self._versions: tuple[int, ...] = ()
        self._slots: dict[int, SlotWeights] = {}

    def made_of(self, a: Sequence[torch.Tensor], widths: Sequence[int]) -> bool:
        """Whether this is the layer with these tensors."""
        return self._a[0] is a[0] and self._widths == tuple(widths)

    def slot(self, slot: int) -> SlotWeights:
        """The adapter that is in ``slot`` now."""
        versions = tuple(t._version for t in (*self._a, *self._b))  # noqa: SLF001 - torch's name
        if versions != self._versions:
            self._slots.clear()
            self._versions = versions
        weights = self._slots.get(slot)
        if weights is None:
            weights = self._slots[slot] = self._read(slot)
        return weights

    def _read(self, slot: int) -> SlotWeights:
        columns, slices = [], []
        offset = first = 0
        for stacked_a, stacked_b, width in zip(self._a, self._b, self._widths, strict=True):
            a = stacked_a[slot].flatten(0, -2)
            b = stacked_b[slot].flatten(0, -2)[:width]
            rank = min(_used(a, axis=1), _used(b, axis=0))
            if rank:
                columns.append(a[:rank].T)
                slices.append(OutputSlice(b[:, :rank].T.contiguous(), offset, first))
                first += rank
            offset += width
        half_a = torch.cat(columns, dim=1) if columns else self._a[0].new_empty(0, 0)
        full = tuple(OutputSlice(s.matrix.float(), s.offset, s.first_rank) for s in slices)
        return SlotWeights(
            a=half_a.float(),
            bs=full,
            half_a=half_a,
            half_bs=tuple(slices),
            rank=first,
            width=offset,
            whole=len(slices) == len(self._widths),
            elements=half_a.numel() + sum(s.matrix.numel() for s in slices),
        )


class SlotCache:
    """The layers seen so far."""

    def __init__(self) -> None:
        self._layers: dict[int, LayerSlots] = {}

    def of(
        self, a: Sequence[torch.Tensor], b: Sequence[torch.Tensor], widths: Sequence[int]
    ) -> LayerSlots:
        """The layer with these stacked tensors."""
        layer = self._layers.get(id(a[0]))
        if layer is None or not layer.made_of(a, widths):
            layer = self._layers[id(a[0])] = LayerSlots(a, b, widths)
        return layer


def _used(matrix: torch.Tensor, *, axis: int) -> int:
    """Index after the last rank whose weights are not all zero; NaN counts as a weight."""
    used = (matrix != 0).any(dim=axis).nonzero()
    return int(used[-1]) + 1 if used.numel() else 0
