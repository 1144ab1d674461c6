"""With the real libraries: exports load elsewhere and say the same; what came in is proved as ours."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.training.bare import lora_of, make_foreign
from tests.training.conftest import write_spec
from training.adapters.export import Form, entries, write_folder
from training.adapters.foreign import convert_adapter
from training.adapters.package import BaseRef, LoraShape, verify, write_manifest
from training.adapters.validation import linear_shapes
from training.base_models.manifest import load_base
from training.config import Objectives, TrainingSpec
from training.data.dataset import Dataset
from training.pipeline import run
from training.reports.report import build_report, render_html
from training.results import Evaluation, ParitySample

from tests.training.adapters.sample_manifest import MANIFEST  # isort: skip

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(400)]
HERE = Path(__file__).parents[3]


@pytest.fixture
def adapter(tiny_base: Path, tmp_path: Path) -> Path:
    """An adapter of the tiny base that changes what it says."""
    serving_base = load_base(tiny_base)
    shapes = linear_shapes(tiny_base / "serving")
    targets = sorted({path.rpartition(".")[2] for path in shapes})
    folder = make_foreign(
        tmp_path / "adapter", tensors=lora_of(shapes), target_modules=targets, lora_alpha=16
    )
    manifest = msgspec.structs.replace(
        MANIFEST,
        base=BaseRef(name=serving_base.name, serving_sha256=serving_base.serving_sha256),
        lora=LoraShape(rank=4, alpha=16, targets=tuple(targets)),
    )
    write_manifest(folder, manifest)
    return folder


def exported(form: Form, adapter: Path, base: Path, tmp_path: Path) -> Path:
    write_folder(entries(form, adapter, base), tmp_path / form)
    return tmp_path / form


def test_exports_say_elsewhere_what_they_say_here(
    adapter: Path, tiny_base: Path, tmp_path: Path
) -> None:
    """transformers and peft alone, in float32, so that only the weights' rounding is seen."""
    import torch  # noqa: PLC0415
    from peft import PeftModel  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    peft, merged, base = (
        exported(form, adapter, tiny_base, tmp_path) for form in ("peft", "merged", "base")
    )
    tokenizer = AutoTokenizer.from_pretrained(merged)
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(base).chat_template
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Can I skip a week?"}],
        tokenize=False,
        add_generation_prompt=True,
    )
    ids = torch.tensor([tokenizer(text)["input_ids"]])

    def logprobs(model: Any) -> Any:
        with torch.inference_mode():
            return model.eval()(input_ids=ids).logits.float().log_softmax(-1)

    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    alone = logprobs(plain)
    ours = AutoModelForCausalLM.from_pretrained(tiny_base / "serving", dtype=torch.float32)
    here = logprobs(PeftModel.from_pretrained(ours, adapter))
    there = logprobs(PeftModel.from_pretrained(plain, peft))
    assert torch.equal(here, there)
    assert (there - alone).abs().mean() > 0.05  # it does something
    one = logprobs(AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32))
    assert (one - there).abs().mean() < 0.005

    wanted = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_base / "serving", dtype=torch.float32), adapter
    ).merge_and_unload()
    found = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.bfloat16)
    for name, weight in wanted.state_dict().items():
        assert torch.equal(found.state_dict()[name], weight.to(torch.bfloat16)), name


def test_an_imported_adapter_is_proved_as_ours_are(
    spec: TrainingSpec, tiny_base: Path, small_dataset: Dataset, *, tmp_path: Path
) -> None:
    shapes = linear_shapes(tiny_base / "serving")
    first, *_ = shapes
    theirs = make_foreign(
        tmp_path / "theirs",
        tensors=lora_of(shapes, ranks={first: 8}),
        dtype="F16",
        target_modules="all-linear",
        rank_pattern={first: 8},
        use_rslora=True,
    )
    taken = convert_adapter(theirs, tmp_path / "taken", base=tiny_base, source="theirs")
    imported = msgspec.structs.replace(spec, imported=str(tmp_path / "taken"))
    out = tmp_path / "job"
    assert run(write_spec(tmp_path, imported), out, resume=True) == 0
    manifest = verify(out / "adapter", base=load_base(tiny_base))
    assert manifest.foreign == taken.foreign
    assert manifest.lora == taken.lora
    assert manifest.training is not None
    assert manifest.training.steps == 0
    assert set(manifest.scores) == {"base", "new", "lookup"}
    evaluation = msgspec.json.decode((out / "evaluation.json").read_bytes(), type=Evaluation)
    assert evaluation.new != evaluation.base
    assert msgspec.json.decode((out / "parity.json").read_bytes(), type=list[ParitySample])
    report = build_report(
        out,
        tenant="Loaf",
        dataset_folder=small_dataset.folder,
        base=load_base(tiny_base),
        objectives=Objectives(),
    )
    assert report.provenance.foreign == taken.foreign
    page = render_html(report)
    assert "trained elsewhere" in page
    assert "may have been among it" in page


WANDB = """
import json, os
from pathlib import Path

run = None
config = type("Config", (dict,), {"update": lambda self, *a, **k: None})()


class Run(dict):
    id = name = url = "fake"
    summary = {}

    def __init__(self, **options):
        self.options = options

    def _label(self, **_):
        pass

    def __getattr__(self, name):
        return lambda *a, **k: None


def init(**options):
    global run
    run = Run(**options)
    _tell({"init": options, "mode": os.environ["WANDB_MODE"], "dir": os.environ["WANDB_DIR"]})
    return run


def log(figures, **_):
    _tell({"log": figures})


def _tell(what):
    with (Path(os.environ["TOLD"])).open("a") as file:
        file.write(json.dumps(what, default=str) + "\\n")


def define_metric(*_, **__):
    pass


def finish(*_, **__):
    pass


def termwarn(*_, **__):
    pass


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return lambda *a, **k: None
"""


def test_a_tracker_gets_each_step_and_stays_on_this_machine(
    spec: TrainingSpec, tmp_path: Path
) -> None:
    """transformers' own callback, and a package in the place of the tracker's that writes a file."""
    package = tmp_path / "packages" / "wandb"
    for folder in ("", "sdk", "sdk/lib"):
        (package / folder).mkdir(parents=True, exist_ok=True)
        (package / folder / "__init__.py").write_text(WANDB if not folder else "")
    (package / "sdk" / "lib" / "config_util.py").write_text("class ConfigError(Exception): ...\n")
    (package.parent / "wandb-0.99.dist-info").mkdir()
    (package.parent / "wandb-0.99.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: wandb\nVersion: 0.99\n"
    )
    recipe = msgspec.structs.replace(
        spec.recipe, report_to=("wandb",), max_train_tokens=3000, validate_every=2
    )
    path = write_spec(tmp_path, msgspec.structs.replace(spec, recipe=recipe))
    out, log = tmp_path / "job-7", tmp_path / "wandb.jsonl"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    env = {
        **kept,
        "PYTHONPATH": os.pathsep.join([str(package.parent), str(HERE)]),
        "TOLD": str(log),
        "OMP_NUM_THREADS": "1",
    }
    argv = [sys.executable, "-m", "training", str(path), str(out)]
    done = subprocess.run(argv, env=env, cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    logged = [json.loads(line) for line in log.read_text().splitlines()]
    assert logged[0]["mode"] == "offline"
    assert logged[0]["dir"] == str(out / "trackers")
    assert logged[0]["init"]["name"] == "job-7"
    figures = [each["log"] for each in logged if "log" in each]
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    steps = [event for event in events if event["event"] == "step"]
    losses = {
        each["train/global_step"]: each["train/loss"] for each in figures if "train/loss" in each
    }
    assert losses == {event["step"]: event["loss"] for event in steps}
    validations = [event for event in events if event["event"] == "validation"]
    found = [each["eval/loss"] for each in figures if "eval/loss" in each]
    assert found == [event["loss"] for event in validations]
    assert found
