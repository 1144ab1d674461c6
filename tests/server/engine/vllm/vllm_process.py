"""A real vLLM for tests: the command that the server would run, on a unix socket.

One start costs half a minute, so a module shares one. ``make_adapter`` writes adapters of random
weights that visibly change what the base says.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file

from server.engine.adapter_cache import AdapterRef
from server.engine.backends.vllm.launch import vllm_command
from server.engine.process.command import EngineCommand
from training.adapters.package import (
    AdapterManifest,
    BaseRef,
    LoraShape,
    engine_name,
    publish,
    write_manifest,
)
from training.adapters.safetensors_io import TensorFile
from training.adapters.validation import CONFIG_NAME, WEIGHTS_NAME
from training.base_models.manifest import DEFAULT_BASE, BaseModel, load_base
from training.config import Recipe

REPO = Path(__file__).parents[4]
READY_SECONDS = 240
# What vLLM finds out about a model's class in a process of its own, for 10 s of CPU, and keeps for the
# next start. In a data folder of its own each test's engine would do so anew.
CACHE = REPO / ".pytest_cache" / "vllm"
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Base(NamedTuple):
    """A base and where its serving weights are."""

    model: BaseModel
    serving: Path


def built_in_base() -> Base:
    """The built-in base, made once per checkout (30 s), or taken from TENANTUNE_TEST_BASES."""
    given = os.environ.get("TENANTUNE_TEST_BASES")
    root = Path(given) if given else REPO / ".pytest_cache" / "bases"
    if not (root / DEFAULT_BASE).is_dir():
        # In a process of its own: torch stays out of this one.
        code = "import sys; from pathlib import Path; from training.base_models.quantize import add_base; "
        code += "add_base(sys.argv[1], Path(sys.argv[2]), on_progress=print)"
        words = [".venv/bin/python", "-c", code, DEFAULT_BASE, str(root)]
        subprocess.run(words, cwd=REPO, check=True, timeout=600, stdout=subprocess.DEVNULL)
    folder = root / DEFAULT_BASE
    return Base(load_base(folder), folder / "serving")


def make_adapter(
    base: Base,
    root: Path,
    label: str,
    *,
    rank: int,
    seed: int,
    strength: float = 0.5,
    poison: bool = False,
) -> AdapterRef:
    """Publish an adapter of random weights in ``root``.

    ``strength``: size of the change relative to the weight it changes. With ``poison`` one weight
    is NaN and the folder is otherwise in order.
    """
    random = np.random.default_rng(seed)
    tensors: dict[str, npt.NDArray[Any]] = {}
    with TensorFile(base.serving / "model.safetensors", max_header_bytes=1 << 20) as weights:
        for name, info in weights.tensors.items():
            module = name.removesuffix(".weight")
            if module.rpartition(".")[2] not in TARGETS:
                continue
            outputs, inputs = info.shape
            size = strength * float(weights.read(name, rows=64).std()) / np.sqrt(rank)
            a = random.standard_normal((rank, inputs), dtype=np.float32)
            b = random.standard_normal((outputs, rank), dtype=np.float32) * np.float32(size)
            tensors[f"base_model.model.{module}.lora_A.weight"] = a
            tensors[f"base_model.model.{module}.lora_B.weight"] = b
    if poison:
        next(iter(tensors.values()))[0, 0] = np.nan
    made = root.parent / f"{label}-made"
    made.mkdir(parents=True)
    save_file(tensors, made / WEIGHTS_NAME, {"format": "pt"})
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": list(TARGETS)}
    (made / CONFIG_NAME).write_text(json.dumps(config))
    write_manifest(made, _manifest(base, label, rank, seed))
    folder = publish(made, root, label)
    return AdapterRef(name=engine_name(label, folder), path=str(folder))


def _manifest(base: Base, label: str, rank: int, seed: int) -> AdapterManifest:
    recipe = Recipe(
        name="random",
        rank=rank,
        alpha=rank,
        learning_rate=1.0,
        epochs=1.0,
        batch_tokens=1,
        max_length=1,
        validate_every=1,
        checkpoint_every=1,
        memory_bytes=1,
    )
    return AdapterManifest(
        label=label,
        base=BaseRef(name=base.model.name, serving_sha256=base.model.serving_sha256),
        dataset_sha256="0" * 64,
        system_prompt="",
        recipe=recipe,
        seed=seed,
        lora=LoraShape(rank=rank, alpha=rank, targets=TARGETS),
        packages={},
        created_at="2026-01-01T00:00:00Z",
    )


class VllmProcess:
    """A vLLM that runs; ``stop`` ends its whole process group."""

    def __init__(self, command: EngineCommand, log: Path) -> None:
        self.command = command
        self.log = log
        with log.open("wb") as output:
            self._child = subprocess.Popen(
                command.argv,
                env={**os.environ, **command.env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        """Wait until it is well; blocks, so that fixtures of any kind may call it.

        Raises:
            RuntimeError: it ended or took too long; the message has the end of its log.
        """
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and self._child.poll() is None:
            if self._is_well():
                return
            time.sleep(0.2)
        self.stop()
        raise RuntimeError(f"vLLM did not start:\n{self.read_log()[-4000:]}")

    def read_log(self) -> str:
        """All that it printed."""
        return self.log.read_text(errors="replace")

    def _is_well(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            try:
                client.connect(str(self.command.uds))
                client.sendall(b"GET /health HTTP/1.0\r\nHost: engine\r\n\r\n")
                return b" 200 " in client.recv(64)
            except OSError:
                return False

    def session(self) -> aiohttp.ClientSession:
        """A client of its socket."""
        connector = aiohttp.UnixConnector(str(self.command.uds), limit=0)
        return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(120))

    def stop(self) -> None:
        """End it and all its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()


def small_command(base: Base, home: Path, **overrides: str) -> EngineCommand:
    """The server's command with two slots, a small cache and short conversations."""
    small = {
        "max_loras": "2",
        "max_cpu_loras": "4",
        "max_model_len": "512",
        "kv_cache_memory_bytes": str(256 << 20),
        "VLLM_CACHE_ROOT": str(CACHE),
        **overrides,
    }
    run = home / "run"
    run.mkdir(exist_ok=True)
    return vllm_command(
        base=base.model, serving=base.serving, adapters=home / "adapters", run=run, overrides=small
    )


class RunningEngine(NamedTuple):
    """What the ``vllm_engine`` fixture gives: ``adapters`` of rank 8 and 64, published, not loaded."""

    process: VllmProcess
    base_files: Base
    home: Path
    adapters: tuple[AdapterRef, AdapterRef]

    @property
    def base(self) -> str:
        """The base's model name."""
        return self.base_files.model.name

    @property
    def url(self) -> str:
        """As in ``TENANTUNE_ENGINE_URL``."""
        return f"unix:{self.process.command.uds}"


@pytest.fixture(scope="session")
def vllm_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    """One vLLM for all tests that ask for it. Drop what you load."""
    home = tmp_path_factory.mktemp("vllm")
    base = built_in_base()
    root = home / "adapters"
    adapters = (
        make_adapter(base, root, "acme", rank=8, seed=1),
        make_adapter(base, root, "zenith", rank=64, seed=2),
    )
    process = VllmProcess(small_command(base, home), home / "vllm.log")
    try:
        process.wait_ready()
        yield RunningEngine(process, base, home, adapters)
    finally:
        process.stop()
