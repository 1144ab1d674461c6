"""Measures a layer of the base's shape in both types, for `training.compute_dtype` to choose by.

``python -m training.base_models.compute_dtype_probe BASE_FOLDER`` prints `MachineChoices` as JSON.
"""

import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psutil
import torch
from torch.nn import functional

from training.base_models.manifest import load_base
from training.compute_dtype import (
    COMPUTE_FILE,
    WORKS,
    ComputeType,
    LayerShape,
    MachineChoices,
    TypeChoice,
    Work,
    choose_faster,
    layer_shape,
    limit_by_memory,
    load_choices,
    machine_key,
    save_choices,
)
from training.config import Recipe
from training.errors import BaseModelError

# all-MiniLM-L6-v2's layers (its config.json)
_SENTENCES = LayerShape(hidden=384, keys=384, intermediate=1536, heads=12)
# Rows that go through a layer together: a trainer's batch; histories and the replies that are
# written together; questions; what an engine does at 8 and 32 streams, and a piece of a prompt.
_ROWS: dict[Work, tuple[int, ...]] = {
    "training": (64,),
    "evaluation": (64, 16),
    "sentences": (64,),
    "engine": (8, 32, 64),
}
_WORDS: dict[Work, str] = {
    "training": "64 tokens forward and back",
    "evaluation": "64 and 16 tokens read",
    "sentences": "64 tokens of sentences",
    "engine": "8, 32 and 64 tokens read",
}
_RANK = 16
# Wider layers are measured in part, so that the whole stays well under a second.
_WIDEST = 2048
_REPEATS = 5
_HOPELESS = 8.0
_FIRST_BF16 = (8, 0)  # compute capability of Ampere, the first cards with bfloat16 units


class _Layer:
    """One decoder layer with LoRA, as plain tensors: what the time of a step goes into."""

    def __init__(self, shape: LayerShape, dtype: torch.dtype, *, backward: bool) -> None:
        wide, keys, middle = (
            min(_WIDEST, size) for size in (shape.hidden, shape.keys, shape.intermediate)
        )
        self.heads = max(1, min(shape.heads, wide // 32))
        wide -= wide % self.heads
        self.wide, self.dtype, self.backward = wide, dtype, backward
        sizes = [(wide, wide), (keys, wide), (keys, wide), (wide, wide)]
        sizes += [(middle, wide), (middle, wide), (wide, middle)]
        self.weights = [torch.full(size, 0.01, dtype=dtype) for size in sizes]
        self.down = [torch.full((_RANK, size[1]), 0.01, dtype=dtype) for size in sizes]
        self.up = [torch.full((size[0], _RANK), 0.01, dtype=dtype) for size in sizes]
        self.norm = torch.ones(wide, dtype=dtype)
        for weight in (*self.down, *self.up):
            weight.requires_grad_(backward)

    def _linear(self, number: int, x: torch.Tensor) -> torch.Tensor:
        changed = functional.linear(functional.linear(x, self.down[number]), self.up[number])
        return functional.linear(x, self.weights[number]) + changed

    def run(self, rows: int) -> float:
        """Milliseconds of this thread's CPU for one pass of ``rows`` tokens."""
        x = torch.full((1, rows, self.wide), 0.1, dtype=self.dtype, requires_grad=self.backward)
        began = time.thread_time()
        with torch.set_grad_enabled(self.backward):
            normed = functional.rms_norm(x, (self.wide,), self.norm)
            query, key, value = (self._linear(number, normed) for number in range(3))
            split = (1, rows, self.heads, self.wide // self.heads)
            heads = query.view(split).transpose(1, 2)
            mixed = functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True)
            mixed = mixed.transpose(1, 2).reshape(1, rows, self.wide)
            x = x + self._linear(3, mixed) + (key.sum() + value.sum()) * 0
            normed = functional.rms_norm(x, (self.wide,), self.norm)
            x = x + self._linear(
                6, functional.silu(self._linear(4, normed)) * self._linear(5, normed)
            )
        if self.backward:
            x.sum().backward()
        return (time.thread_time() - began) * 1e3


def measure(shape: LayerShape, rows: Sequence[int], *, backward: bool) -> dict[str, float]:
    """Milliseconds of one layer's passes in float32 and bfloat16, the minimum of several.

    On one thread and by its CPU time, the types in turn: what two threads take together, and how
    long one takes by the clock, depend on who else is on the machine, and the choice must not.
    (With eight programs on two cores the clock chose a type at random, and a run took nine times
    as long.) A type that is hopeless is not tried often.
    """
    found: dict[str, float] = {}
    with _one_thread():
        layers = {
            name: _Layer(shape, dtype, backward=backward)
            for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
        }
        for _ in range(1 + _REPEATS):  # the first pass also builds kernels
            for name, layer in layers.items():
                best = min(found.values(), default=math.inf)
                if found.get(name, 0) <= _HOPELESS * best:
                    took = sum(layer.run(count) for count in rows)
                    found[name] = min(found.get(name, took), took)
    return {name: round(best, 3) for name, best in found.items()}


def choose(work: Work, base: Path, *, requested: ComputeType | None = None) -> TypeChoice:
    """Choose the type for ``work`` with the base in ``base`` on this process's device.

    ``requested``: a recipe's own choice; used without a measurement.

    Raises:
        BaseModelError: the base does not say how wide its layers are.
    """
    if requested is not None:
        return TypeChoice(type=requested, reason="the recipe insists")
    if torch.cuda.is_available():
        return _on_gpu(work)
    shape = _SENTENCES if work == "sentences" else layer_shape(base)
    found = measure(shape, _ROWS[work], backward=work == "training")
    choice = choose_faster(found, what=_WORDS[work])
    if work == "sentences":
        return choice
    return limit_by_memory(
        choice,
        parameters=load_base(base).parameters,
        free_bytes=int(psutil.virtual_memory().available),
    )


def _on_gpu(work: Work) -> TypeChoice:
    name, capability = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    if capability >= _FIRST_BF16:
        return TypeChoice(type="bfloat16", reason=f"{name} computes in it")
    if work == "engine":
        return TypeChoice(type="float16", reason=f"{name} has no bfloat16")
    # float16 without scaled losses lets small gradients vanish (Micikevicius et al. 2017)
    return TypeChoice(type="float32", reason=f"{name} has no bfloat16, and float16 loses gradients")


def choose_all(base: Path, *, recipe: Recipe | None = None) -> MachineChoices:
    """Choose for every kind of work; a recipe's own choice is for training and evaluation.

    Raises:
        BaseModelError: the base does not say how wide its layers are.
    """
    gpu = torch.cuda.is_available()
    capability = torch.backends.cpu.get_cpu_capability()
    requested: dict[Work, ComputeType] = {}
    if recipe is not None and recipe.compute_dtype != "auto":
        requested = {"training": recipe.compute_dtype, "evaluation": recipe.compute_dtype}
    works = WORKS if recipe is None else [work for work in WORKS if work != "engine"]
    return MachineChoices(
        machine=machine_key(),
        base=base.name,
        device=torch.cuda.get_device_name() if gpu else f"CPU, {capability}",
        choices={work: choose(work, base, requested=requested.get(work)) for work in works},
    )


def choose_for_run(base: Path, recipe: Recipe, out: Path) -> MachineChoices:
    """The choices of a run, saved in its folder: on the same machine, a resumed run keeps them.

    Raises:
        BaseModelError: the base does not say how wide its layers are.
    """
    path = out / COMPUTE_FILE
    found = load_choices(path, base)
    if found is None:
        found = choose_all(base, recipe=recipe)
        save_choices(path, found)
    return found


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def main() -> None:
    """Print the choices for the base whose folder is given."""
    try:
        found = choose_all(Path(sys.argv[1]))
    except BaseModelError as exc:
        sys.exit(f"error: {exc}")
    print(msgspec.json.encode(found).decode())  # noqa: T201 - a command's output


if __name__ == "__main__":
    main()
