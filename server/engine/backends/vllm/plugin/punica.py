"""LoRA on a CPU: tokens grouped by adapter, two matrix products a group.

vLLM's own wrapper copies and casts one adapter's matrices for each token, and uses the index of a
token without an adapter, -1, to pick one: the last slot's. When that slot is in use, base requests
that share a batch with adapter requests are answered by a tenant's adapter. Here such tokens are
left as they are.

Axes: ``x`` (tokens, in); ``lora_a_stacked[i]`` (slots, 1, max rank, in); ``lora_b_stacked[i]``
(slots, 1, out_i, max rank); ``y`` (tokens, sum of out_i), the base's output, changed in place.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from server.engine.backends.vllm.plugin.slots import SlotCache, SlotWeights

# Up to this many multiplications of one product, float32 beats bfloat16, whose matmul in torch 2.13
# takes 35-60 us to begin with, against 5-10: measured with 2 threads on AVX512-bf16 with AMX.
# Above it, bfloat16 is up to 4 times as fast.
FLOAT32_PRODUCTS = 1 << 22

Rows: TypeAlias = slice | torch.Tensor


class Groups:
    """Which rows of a batch belong to which slot; rows of no slot (-1) appear nowhere.

    One group of neighbouring rows is a slice. Otherwise ``order`` lists the rows slot by slot, and
    each group is a range of that list.
    """

    def __init__(self, slot_of_row: torch.Tensor) -> None:
        slots = slot_of_row.tolist()
        self.rows = len(slots)
        by_slot: dict[int, list[int]] = {}
        for row, slot in enumerate(slots):
            if slot >= 0:
                by_slot.setdefault(slot, []).append(row)
        listed = [row for rows in by_slot.values() for row in rows]
        self.ranges: list[tuple[int, int, int]] = []
        start = 0
        for slot, rows in by_slot.items():
            self.ranges.append((slot, start, start + len(rows)))
            start += len(rows)
        self.count = start
        self.order: Rows
        first = listed[0] if listed else 0
        if listed == list(range(first, first + start)):
            self.order = slice(first, first + start)
        else:
            self.order = torch.tensor(listed, dtype=torch.long)

    def take(self, x: torch.Tensor) -> torch.Tensor:
        """The grouped rows of ``x``, in this order.

        Raises:
            RuntimeError: the batch has another number of rows than the metadata speaks of.
        """
        if x.size(0) != self.rows:
            raise RuntimeError(f"LoRA metadata is for {self.rows} rows, the batch has {x.size(0)}")
        if isinstance(self.order, slice):
            return x[self.order]
        return x.index_select(0, self.order)

    def add(self, y: torch.Tensor, delta: torch.Tensor) -> None:
        """Add ``delta`` (grouped rows, n) to the same rows of ``y`` (rows, n), in y's dtype."""
        delta = delta.to(y.dtype)
        if isinstance(self.order, slice):
            y[self.order] += delta
        else:
            y.index_add_(0, self.order, delta)


class GroupedPunicaWrapper(PunicaWrapperCPU):  # type: ignore[misc] # vLLM is not followed by mypy
    """Replaces every operation of the stock wrapper that picks weights by index."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - vLLM's signature
        super().__init__(*args, **kwargs)
        self._tokens = Groups(torch.empty(0, dtype=torch.long))
        self._samples = self._tokens
        self._cache = SlotCache()

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Group the rows of the coming batch; vLLM calls this when the mapping changes."""
        super().update_metadata(*args, **kwargs)
        self._tokens = Groups(self.token_lora_indices)
        self._samples = Groups(self.sampler_indices)

    def add_lora_linear(  # noqa: PLR0917 - vLLM's signature
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: Sequence[torch.Tensor],
        lora_b_stacked: Sequence[torch.Tensor],
        scale: float,
        output_slices: Sequence[int],
        *,
        add_inputs: bool = True,
        **_: Any,  # noqa: ANN401
    ) -> None:
        """``y[:, slice i] += x @ A_i.T @ B_i.T * scale`` on each token's own adapter."""
        self._apply(
            self._tokens,
            y,
            x,
            lora_a_stacked,
            lora_b_stacked,
            scale=scale,
            widths=output_slices,
            replace=not add_inputs,
        )

    def add_lora_logits(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        scale: float,
        **_: Any,  # noqa: ANN401
    ) -> None:
        """``y += x @ A.T @ B.T * scale``; rows are the sampled positions."""
        widths = (min(y.size(-1), lora_b_stacked.size(-2)),)
        stacked = ((lora_a_stacked,), (lora_b_stacked,))
        self._apply(self._samples, y, x, *stacked, scale=scale, widths=widths)

    def add_lora_embedding(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        add_inputs: bool = True,
        **_: Any,  # noqa: ANN401
    ) -> None:
        """``y += x @ B.T``; x (tokens, max rank) is already looked up in A."""
        self.add_expand(y, (x,), (lora_b_stacked,), (lora_b_stacked.size(-2),), 0, add_inputs)

    def add_shrink(
        self,
        y: Sequence[torch.Tensor] | torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: Sequence[torch.Tensor],
        scale: float,
        **_: Any,  # noqa: ANN401
    ) -> None:
        """``y[i] = x @ A_i.T * scale``, for sharded LoRA; rows of no slot stay as they are."""
        groups = self._tokens
        taken = groups.take(x.view(-1, x.shape[-1]))
        for out, stacked in zip(y, lora_a_stacked, strict=True):
            shrunk = torch.empty(groups.count, stacked.size(-2), dtype=out.dtype)
            for slot, start, end in groups.ranges:
                shrunk[start:end] = scale * (taken[start:end] @ stacked[slot].flatten(0, -2).T)
            out.view(-1, out.shape[-1])[groups.order] = shrunk

    def add_expand(  # noqa: PLR0917 - vLLM's signature
        self,
        y: torch.Tensor,
        x: Sequence[torch.Tensor] | torch.Tensor,
        lora_b_stacked: Sequence[torch.Tensor],
        output_slices: Sequence[int],
        offset_start: int = 0,
        add_inputs: bool = True,
        **_: Any,  # noqa: ANN401
    ) -> None:
        """``y[:, slice i] += x[i] @ B_i.T``, for sharded LoRA and embeddings."""
        groups = self._tokens
        flat = y.view(-1, y.shape[-1])
        offset = offset_start
        for shrunk, stacked, width in zip(x, lora_b_stacked, output_slices, strict=True):
            taken = groups.take(shrunk).to(stacked.dtype)
            delta = torch.empty(groups.count, width, dtype=stacked.dtype)
            for slot, start, end in groups.ranges:
                matrix = stacked[slot].flatten(0, -2)[:width]
                delta[start:end] = taken[start:end] @ matrix.T
            part = flat[:, offset : offset + width]
            if not add_inputs:
                part[groups.order] = 0
            groups.add(part, delta)
            offset += width

    def _apply(
        self,
        groups: Groups,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: Sequence[torch.Tensor],
        lora_b_stacked: Sequence[torch.Tensor],
        *,
        scale: float,
        widths: Sequence[int],
        replace: bool = False,
    ) -> None:
        cached = self._cache.of(lora_a_stacked, lora_b_stacked, widths)
        present = [(cached.slot(slot), start, end) for slot, start, end in groups.ranges]
        if not any(weights.rank for weights, _, _ in present):
            return
        flat = y.view(-1, y.shape[-1])[:, : sum(widths)]
        taken = groups.take(x.view(-1, x.shape[-1]))
        if replace:
            flat[groups.order] = 0
        if len(present) == 1:
            groups.add(flat, _product(present[0][0], taken, scale=scale))
            return
        total = torch.zeros(groups.count, flat.size(1), dtype=torch.float32)
        for weights, start, end in present:
            if weights.rank:
                total[start:end] = _product(weights, taken[start:end], scale=scale)
        groups.add(flat, total)


def _product(weights: SlotWeights, x: torch.Tensor, *, scale: float) -> torch.Tensor:
    """``concat_i(x @ A_i.T @ B_i.T) * scale``: (rows, sum of out_i), in float32 or x's dtype."""
    if x.size(0) * weights.elements <= FLOAT32_PRODUCTS:
        a, bs, x = weights.a, weights.bs, x.float()
    else:
        a, bs = weights.half_a, weights.half_bs
    shrunk = x @ a
    if scale != 1.0:
        shrunk *= scale
    if len(bs) == 1 and weights.whole:
        return shrunk @ bs[0].matrix
    delta = (
        x.new_empty(x.size(0), weights.width)
        if weights.whole
        else x.new_zeros(x.size(0), weights.width)
    )
    for b in bs:
        torch.mm(
            shrunk[:, b.first_rank : b.first_rank + b.matrix.size(0)],
            b.matrix,
            out=delta[:, b.offset : b.offset + b.matrix.size(1)],
        )
    return delta
