"""Token sequences as the padded batch that trl's trainers take."""

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from training.data.chat_template import TrainingSequence

IGNORED = -100  # a label that has no loss


def collate(rows: Sequence[TrainingSequence], *, pad: int) -> dict[str, torch.Tensor]:
    """Pad sequences on the right; each tensor is (sequences, width).

    ``input_ids``; ``attention_mask`` is 1 on tokens and 0 on padding; ``completion_mask`` is 1 on the
    tokens of the loss mask. Where a sequence has branches also ``position_ids``, and
    ``branch_mask`` of `branch_mask`.
    """
    columns: dict[str, tuple[list[torch.Tensor], int]] = {
        "input_ids": ([torch.tensor(row.token_ids) for row in rows], pad),
        "attention_mask": ([torch.ones(len(row.token_ids), dtype=torch.long) for row in rows], 0),
        "completion_mask": ([torch.tensor(row.loss_mask).long() for row in rows], 0),
    }
    if any(row.branches for row in rows):
        columns["position_ids"] = ([torch.tensor(row.positions) for row in rows], 0)
    batch = {
        name: pad_sequence(tensors, batch_first=True, padding_value=padding)
        for name, (tensors, padding) in columns.items()
    }
    if "position_ids" in batch:
        batch["branch_mask"] = branch_mask(rows, width=batch["input_ids"].shape[1])
    return batch


def branch_mask(rows: Sequence[TrainingSequence], *, width: int) -> torch.Tensor:
    """(sequences, 1, width, width), True where the token of a row may look at that of a column."""
    mask = torch.ones(width, width, dtype=torch.bool).tril().repeat(len(rows), 1, 1)
    for row, sequence in enumerate(rows):
        for after, start, end in sequence.branches:
            mask[row, start:end, after:start] = False
    return mask[:, None]
