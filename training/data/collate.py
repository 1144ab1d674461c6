"""Token sequences as the padded batch that trl's trainers take."""

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from training.data.chat_template import TrainingSequence

IGNORED = -100  # a label that has no loss


def collate(rows: Sequence[TrainingSequence], *, pad: int) -> dict[str, torch.Tensor]:
    """Pad sequences on the right; each tensor is (sequences, width).

    ``input_ids``; ``attention_mask`` is 1 on tokens and 0 on padding; ``completion_mask`` is 1 on the
    tokens of the loss mask.
    """
    columns: dict[str, tuple[list[torch.Tensor], int]] = {
        "input_ids": ([torch.tensor(row.token_ids) for row in rows], pad),
        "attention_mask": ([torch.ones(len(row.token_ids), dtype=torch.long) for row in rows], 0),
        "completion_mask": ([torch.tensor(row.loss_mask).long() for row in rows], 0),
    }
    return {
        name: pad_sequence(tensors, batch_first=True, padding_value=padding)
        for name, (tensors, padding) in columns.items()
    }
