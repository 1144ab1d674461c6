"""Which conversations go into which step, decided before the run starts.

The whole run is one list of steps: a pure function of the lengths, the recipe and the seed. So
the estimate knows the exact number of tokens, and a resumed run goes on at step n of the same
list without any sampler state.
"""

import random
from collections.abc import Sequence
from itertools import accumulate

import msgspec

MAX_PADDING = 0.05
Batch = list[int]  # indices of sequences that are padded to one length


class BatchPlan(msgspec.Struct, frozen=True):
    """``steps[s]`` is the batches of one optimiser step, run one after another.

    ``tokens[s]`` counts the step's real tokens, ``padded[s]`` those with padding; ``epochs[s]`` is
    the epoch that ends with the step, as a fraction.
    """

    steps: list[list[Batch]]
    tokens: list[int]
    padded: list[int]
    epochs: list[float]

    @property
    def padding(self) -> float:
        """Share of all computed positions that are padding."""
        return 1 - sum(self.tokens) / sum(self.padded) if self.padded else 0.0


def truncate_plan(plan: BatchPlan, tokens: int) -> BatchPlan:
    """The plan up to the step that reaches ``tokens``; equal to a plan made with that bound, and no ``min_epochs``."""
    done = 0
    for step, count in enumerate(plan.tokens, start=1):
        done += count
        if done >= tokens:
            return BatchPlan(*(part[:step] for part in msgspec.structs.astuple(plan)))
    return plan


def length_batches(
    lengths: Sequence[int], *, max_tokens: int, rng: random.Random | None = None
) -> list[Batch]:
    """Cut sequences, by length, into batches of at most ``max_tokens`` positions.

    No batch is padded by more than `MAX_PADDING`; a sequence longer than ``max_tokens`` is a batch
    of its own. With ``rng``, sequences of equal length change places and batches end elsewhere, so
    that a sequence has other neighbours in each epoch.
    """
    tie = rng.random if rng else lambda: 0.0
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], tie(), i))
    batches: list[Batch] = []
    batch: Batch = []
    real = 0
    limit = max_tokens * (rng.uniform(0.5, 1.0) if rng else 1.0)  # only of the first batch
    for i in order:
        width = lengths[batch[0]] if batch else lengths[i]
        positions = width * (len(batch) + 1)
        if batch and (positions > limit or real + lengths[i] < positions * (1 - MAX_PADDING)):
            batches.append(batch)
            batch, real, limit = [], 0, max_tokens
        batch.append(i)
        real += lengths[i]
    return [*batches, batch] if batch else batches


def plan_run(
    lengths: Sequence[int],
    *,
    seed: int,
    epochs: float,
    step_tokens: int,
    batch_tokens: int,
    min_epochs: float = 0.0,
    max_train_tokens: int = 0,
    tokens: Sequence[int] | None = None,
) -> BatchPlan:
    """Plan a run: shuffled batches, gathered into steps.

    Args:
        lengths: Positions of each item, padding within it included.
        seed: Decides the order.
        epochs: Passes over all items; may be a fraction.
        step_tokens: Positions of one optimiser step, at most.
        batch_tokens: Positions of one forward pass, at most.
        min_epochs: Passes over what is read, at least: where the run would end before, it reads only some
            of the items. They are drawn by the seed, and fewer are among more.
        max_train_tokens: End with the step that reaches this number of tokens (0: no bound).
        tokens: Real tokens of each item, where ``lengths`` contain padding.
    """
    plan = BatchPlan([], [], [], [])
    tokens = lengths if tokens is None else tokens
    total = sum(tokens)
    target = epochs * total if not max_train_tokens else min(epochs * total, max_train_tokens)
    read: Sequence[int] = range(len(lengths))
    if min_epochs * total > target:
        read = _some(tokens, target / min_epochs, seed=seed)
        total = sum(tokens[i] for i in read)
    widths = [lengths[i] for i in read]
    done, epoch = 0, 0
    while total and done < target:
        rng = random.Random(f"{seed}:{epoch}")  # noqa: S311 - an order, not a secret
        drawn = length_batches(widths, max_tokens=min(step_tokens, batch_tokens), rng=rng)
        batches = [[read[i] for i in batch] for batch in drawn]
        rng.shuffle(batches)
        for step in _steps(batches, lengths, step_tokens):
            plan.steps.append(step)
            plan.tokens.append(sum(tokens[i] for batch in step for i in batch))
            plan.padded.append(sum(positions(lengths, batch) for batch in step))
            done += plan.tokens[-1]
            plan.epochs.append(done / total)
            if done >= target:
                break
        epoch += 1
    return plan


def _some(tokens: Sequence[int], most: float, *, seed: int) -> list[int]:
    """Items in a random order up to ``most`` tokens, but one at least; sorted."""
    order = list(range(len(tokens)))
    random.Random(f"{seed}:some").shuffle(order)  # noqa: S311 - an order, not a secret
    sums = accumulate(tokens[i] for i in order)
    return sorted(order[: max(1, sum(reached <= most for reached in sums))])


def positions(lengths: Sequence[int], batch: Batch) -> int:
    """Positions that a batch computes, padding included."""
    return len(batch) * max(lengths[i] for i in batch)


def _steps(batches: list[Batch], lengths: Sequence[int], step_tokens: int) -> list[list[Batch]]:
    steps: list[list[Batch]] = []
    room = 0
    for batch in batches:
        size = positions(lengths, batch)
        if not steps or size > room:
            steps.append([])
            room = step_tokens
        steps[-1].append(batch)
        room -= size
    return steps
