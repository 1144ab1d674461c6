"""Which number type a machine computes in, chosen by a measurement. No torch here.

Stored weights keep their type; only the arithmetic differs. The flags of a CPU alone prove nothing.
Without AVX-512, bfloat16 is emulated (a training step took 20 times as long as in float32). With
AVX512-bf16 but without AMX it was slower than float32 on one machine (151 tokens/s against 285) and
faster on another (11.6 ms a layer against 17.7). So both are tried briefly, on a layer of the base's
own shape.
"""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from training.errors import BaseModelError
from training.filesystem import write_atomically

ComputeType = Literal["bfloat16", "float16", "float32"]
Work = Literal["training", "evaluation", "sentences", "engine"]
WORKS: tuple[Work, ...] = ("training", "evaluation", "sentences", "engine")
BYTES: Mapping[ComputeType, int] = {"bfloat16": 2, "float16": 2, "float32": 4}
COMPUTE_FILE = "compute.json"
# bfloat16 rounds to 8 bits of mantissa, so it must be faster by more than noise.
_WORTH_ROUNDING = 0.9
_PROBE_SECONDS = 120
_EMULATION = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")


class TypeChoice(msgspec.Struct, frozen=True, kw_only=True):
    """A type and why. ``milliseconds``: what one layer of the base took in each type tried."""

    type: ComputeType
    reason: str
    milliseconds: dict[str, float] = {}


class LayerShape(msgspec.Struct, frozen=True, kw_only=True):
    """A decoder layer: widths of its inputs, its keys and values, and between its two halves."""

    hidden: int
    keys: int
    intermediate: int
    heads: int


class MachineChoices(msgspec.Struct, frozen=True, kw_only=True):
    """The choice for each kind of work on ``device`` (its own name).

    The figures hold for one ``machine`` (a hash of what they depend on) and for the ``base`` whose
    layers were tried.
    """

    machine: str
    base: str
    device: str
    choices: dict[Work, TypeChoice]


def layer_shape(folder: Path) -> LayerShape:
    """Read the shape of a base's layers from the ``config.json`` of its serving weights.

    Raises:
        BaseModelError: the file is not there, or does not say how wide the layers are.
    """
    path = folder / "serving" / "config.json"
    try:
        config: dict[str, Any] = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        text = config.get("text_config") or config
        hidden = int(text["hidden_size"])
    except (OSError, msgspec.DecodeError, KeyError, TypeError, ValueError) as exc:
        raise BaseModelError(f"{path}: cannot tell the width of a layer ({exc!r})") from exc
    heads = int(text.get("num_attention_heads") or 1)
    size = int(text.get("head_dim") or hidden // heads)
    return LayerShape(
        hidden=hidden,
        keys=int(text.get("num_key_value_heads") or heads) * size,
        intermediate=int(text.get("intermediate_size") or 4 * hidden),
        heads=heads,
    )


def choose_faster(milliseconds: Mapping[str, float], *, what: str) -> TypeChoice:
    """Choose between bfloat16 and float32 by the time each took.

    ``what`` is the measured work, in words.
    """
    half, full = milliseconds["bfloat16"], milliseconds["float32"]
    chosen: ComputeType = "bfloat16" if half < _WORTH_ROUNDING * full else "float32"
    return TypeChoice(
        type=chosen,
        reason=f"{what}: bfloat16 {half:.2g} ms a layer, float32 {full:.2g} ms here",
        milliseconds=dict(milliseconds),
    )


def weights_fit(kind: ComputeType, *, parameters: int, free_bytes: int) -> bool:
    """Whether a base's weights in a type take at most half of the free memory."""
    return parameters * BYTES[kind] <= free_bytes // 2


def limit_by_memory(choice: TypeChoice, *, parameters: int, free_bytes: int) -> TypeChoice:
    """The choice, or bfloat16 where float32 weights would take over half of the free memory."""
    if choice.type != "float32" or weights_fit(
        "float32", parameters=parameters, free_bytes=free_bytes
    ):
        return choice
    needed = parameters * BYTES["float32"]
    why = (
        f"float32 weights would need {needed / 1e9:.1f} GB, more than half of the "
        f"{free_bytes / 1e9:.1f} GB that are free; {choice.reason}"
    )
    return msgspec.structs.replace(choice, type="bfloat16", reason=why)


def machine_key() -> str:
    """A hash of what the figures depend on: processor, features, cores, torch, CPU emulation."""
    parts = [
        platform.machine(),
        importlib.metadata.version("torch"),
        str(len(os.sched_getaffinity(0))),
        *(f"{name}={os.environ.get(name, '')}" for name in _EMULATION),  # noqa: TID251 - torch's own
    ]
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for name in ("model name", "flags", "Features"):
        parts += next(([line] for line in lines if line.startswith(name)), [])
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def read_choices(path: Path) -> MachineChoices | None:
    """Read the choices saved in ``path``, of any machine; None if there are none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=MachineChoices)
    except (OSError, msgspec.DecodeError):
        return None


def load_choices(path: Path, base: Path) -> MachineChoices | None:
    """Read the choices saved in ``path`` if they are of this machine and ``base``; else None."""
    kept = read_choices(path)
    if kept is None or (kept.machine, kept.base) != (machine_key(), base.name):
        return None
    return kept


def save_choices(path: Path, choices: MachineChoices) -> None:
    """Save choices for `load_choices`."""
    write_atomically(path, msgspec.json.format(msgspec.json.encode(choices), indent=2))


def measure_in_subprocess(base: Path, *, kept: Path | None = None) -> MachineChoices:
    """Measure in a process of its own, for programs that do not load torch.

    Args:
        base: The base's folder.
        kept: A file to take an earlier measurement on this machine from, or to save a new one in.

    Raises:
        BaseModelError: nothing could be measured; the message ends with the child's output.
    """
    if kept is not None and (found := load_choices(kept, base)) is not None:
        return found
    argv = [
        sys.executable,
        "-m",
        "training.parent_watch",
        "training.base_models.compute_dtype_probe",
        str(base),
    ]
    # the child ends when its standard input closes, so keep that open until then
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        try:
            status = child.wait(_PROBE_SECONDS)
        except subprocess.TimeoutExpired as exc:
            raise BaseModelError(f"compute type: no figures in {_PROBE_SECONDS} s") from exc
        finally:
            child.kill()
        assert child.stdout is not None and child.stderr is not None  # noqa: S101, PT018 - pipes
        printed, errors = child.stdout.read(), child.stderr.read().decode(errors="replace")
    try:
        choices = msgspec.json.decode(printed, type=MachineChoices)
    except msgspec.DecodeError as exc:
        why = errors.strip()[-500:] or f"ended with {status}"
        raise BaseModelError(f"compute type: {why}") from exc
    if kept is not None:
        save_choices(kept, choices)
    return choices
