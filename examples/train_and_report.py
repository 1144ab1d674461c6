# %% [markdown]
# # Train, and read the report
#
# One run from transcripts to a report, without a server: the same pipeline that a job runs. The base is
# the built-in one with 135 M parameters, and the budget is tiny, so that this takes about two minutes
# on two cores. Do not expect good answers: expect a report that says how far it got.

# %%
import json
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

import msgspec

from connectors.import_pipeline import run_import
from connectors.redaction.redactor import Redactor
from server.settings import Settings
from training.base_models.manifest import load_base
from training.config import Objectives, TrainingSpec, load_recipe
from training.data.dataset import create_version
from training.reports.report import build_report, render_html, render_terminal

settings = Settings.from_env()
work = Path(tempfile.mkdtemp(prefix="tenantune-example-"))

# %% [markdown]
# ## The base
#
# It is made once, in the data folder: quantised to NF4, and dequantised again for the engine.

# %%
subprocess.run(
    [sys.executable, "-m", "server", "bases", "add", settings.base], check=True, capture_output=True
)
base = load_base(settings.bases / settings.base)
print(f"{base.name}: {base.parameters:,} parameters, serving weights {base.serving_sha256[:12]}")

# %% [markdown]
# ## The dataset
#
# Conversations are redacted, cleaned of duplicates, and split so that nothing held out has a near-duplicate
# in training. A dataset version is a folder that is named by its hash.

# %%
sample = resources.files("connectors.samples") / "loaf.jsonl"
with sample.open("rb") as stream:
    conversations = list(run_import(stream, "loaf.jsonl", redactor=Redactor()))
dataset = create_version(
    conversations,
    work / "datasets",
    system_prompt="You are the customer desk of Lumen & Loaf, a bakery that delivers bread boxes.",
)
print(dataset.manifest.counts, "dropped:", dataset.manifest.dropped)

# %% [markdown]
# ## The run
#
# A recipe is the knobs, a spec is what and where. `python -m training SPEC OUT` runs it and says what it
# does as lines of JSON; stopped at any point, it goes on with `--resume`.

# %%
recipe = msgspec.structs.replace(
    load_recipe("cpu-demo"),
    name="tiny-budget",
    max_train_tokens=4000,
    train_minutes=0.5,
    min_train_tokens=1500,
    validate_every=4,
    validation_conversations=6,
    evaluation_conversations=8,
    evaluation_replies=4,
    max_reply_tokens=24,
)
spec = TrainingSpec(
    label="loaf", base=str(settings.bases / base.name), dataset=str(dataset.folder), recipe=recipe
)
spec_path, out = work / "spec.json", work / "run"
spec_path.write_bytes(msgspec.json.encode(spec))
subprocess.run(
    [sys.executable, "-m", "training", str(spec_path), str(out)], check=True, capture_output=True
)

events = [json.loads(line) for line in (out / "events.jsonl").read_text("utf-8").splitlines()]
for event in events:
    if event["event"] in {"step", "validation"}:
        print(f"{event['event']:>10} {event['step']:>3}  loss {event['loss']:.3f}")

# %% [markdown]
# ## The report
#
# Held-out conversations, never trained on: the base, the new adapter, and the reply that a look-up of the
# nearest training question would give. Each gate holds a 95 % interval against its bound.
#
# Parity is marked UNSAFE: it compares the trainer with the engine that will serve the adapter, and no engine ran
# here. What was not measured does not pass. In a job of the server it is measured.

# %%
report = build_report(
    out, tenant="loaf", dataset_folder=dataset.folder, base=base, objectives=Objectives()
)
render_terminal(report)
page = work / "report.html"
page.write_text(render_html(report), encoding="utf-8")
print(f"as a page: {page}")

# %%
scores = report.evaluation
print(
    f"perplexity of held-out replies: base {scores.base.perplexity:.1f}, new {scores.new.perplexity:.1f}"
)
