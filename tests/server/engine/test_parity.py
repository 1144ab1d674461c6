"""Trained in float32 and served in bfloat16: the same model, near enough to pass the gate."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from server.engine.client import EngineClient
from tests.server.engine.vllm.vllm_process import RunningEngine, VllmProcess, small_command
from tests.training.conftest import loaf, write_spec
from training.adapters.package import publish, read_manifest
from training.config import Objectives, Recipe, TrainingSpec
from training.data.dataset import create_version
from training.results import ParitySample, compare_parity

pytestmark = [pytest.mark.heavy, pytest.mark.vllm, pytest.mark.timeout(420)]

# Two steps are enough to move the weights, at a rate that moves them far.
RECIPE = Recipe(
    name="two steps",
    rank=8,
    alpha=16,
    learning_rate=1e-2,
    epochs=1.0,
    max_train_tokens=300,
    batch_tokens=200,
    max_length=200,
    compute_dtype="float32",
    adapter_dtype="auto",
    validate_every=100,
    validation_conversations=1,
    checkpoint_every=100,
    evaluation_replies=1,
    evaluation_conversations=2,
    max_reply_tokens=1,
    memory_bytes=3_000_000_000,
)


@pytest.fixture(scope="module")
def run(vllm_engine: RunningEngine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of `RECIPE` on the built-in base."""
    root = tmp_path_factory.mktemp("parity")
    dataset = create_version(loaf(), root / "datasets", system_prompt="You answer for a bakery.")
    spec = TrainingSpec(
        label="loaf",
        base=str(vllm_engine.base_files.serving.parent),
        dataset=str(dataset.folder),
        recipe=RECIPE,
    )
    out = root / "out"
    argv = [sys.executable, "-m", "training", str(write_spec(root, spec)), str(out)]
    subprocess.run(argv, check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def bfloat16_engine(
    vllm_engine: RunningEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VllmProcess]:
    """An engine that serves in bfloat16, whatever suits the machine."""
    running = vllm_engine.process
    if "bfloat16" in running.command.argv:
        yield running
        return
    home = tmp_path_factory.mktemp("bfloat16")
    command = small_command(vllm_engine.base_files, home, dtype="bfloat16")
    process = VllmProcess(command, home / "vllm.log")
    try:
        process.wait_ready()
        yield process
    finally:
        process.stop()


async def test_an_adapter_trained_in_float32_is_the_same_model_served_in_bfloat16(
    run: Path, bfloat16_engine: VllmProcess
) -> None:
    manifest = read_manifest(run / "adapter")
    assert manifest.training is not None
    assert manifest.training.computed_in == ("float32",)
    samples = msgspec.json.decode((run / "parity.json").read_bytes(), type=list[ParitySample])
    folder = publish(run / "adapter", run / "published", "loaf")

    client = EngineClient(uds=bfloat16_engine.command.uds)
    try:
        dtype = (await client.info()).settings.dtype
        base = [await client.score(_base(bfloat16_engine), list(s.token_ids)) for s in samples]
        await client.ensure_adapter(folder.name, str(folder))
        scored = [await client.score(folder.name, list(s.token_ids)) for s in samples]
        await client.drop_adapter(folder.name)
    finally:
        await client.close()
    parity = compare_parity(samples, scored, trained_in="float32", served_in=dtype)
    assert (parity.trained_in, parity.served_in) == ("float32", "bfloat16")
    assert parity.mean_abs < Objectives().max_parity_nats
    # a gate that could not tell the adapter from the base would prove nothing
    assert compare_parity(samples, base).mean_abs > 5 * parity.mean_abs


def _base(process: VllmProcess) -> str:
    argv = process.command.argv
    return argv[argv.index("--served-model-name") + 1]
