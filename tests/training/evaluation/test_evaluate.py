"""Evaluation against plain, one-by-one computation with transformers and PEFT."""

# ruff: noqa: PLC0415 - torch is loaded only when these tests run

import json
import math
import os
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.training.adapters.sample_manifest import MANIFEST
from tests.training.conftest import FLOAT32, loaf
from tests.training.evaluation.samples import conversation
from training.adapters.package import WEIGHTS_NAME, BaseRef, write_manifest
from training.base_models.manifest import load_base
from training.compute_dtype import ComputeType, TypeChoice, Work
from training.config import Method, Objectives, TrainingSpec
from training.data.contexts import contexts_of
from training.data.dataset import Dataset, create_version, load
from training.evaluation.gates import apply_gates
from training.events import EvaluationEvent
from training.references import Reference
from training.results import Evaluation, ParitySample
from training.retrieval.index import ExchangeIndex, Thresholds

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(180)]

REPLIES, MOST = 4, 12


@pytest.fixture(scope="module")
def adapters(
    tiny_base: Path, small_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Three adapters with random weights: new, live, and one that holds a NaN."""
    root = tmp_path_factory.mktemp("adapters")
    return {
        "new": make_adapter(tiny_base, root / "new", seed=1),
        "live": make_adapter(tiny_base, root / "live", seed=2, dataset=small_dataset.sha256),
        "broken": make_adapter(tiny_base, root / "broken", seed=3, broken=True),
    }


def make_adapter(
    base: Path, folder: Path, *, seed: int, broken: bool = False, dataset: str = "d" * 64
) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base / "serving", dtype=torch.bfloat16),
        LoraConfig(
            r=4,
            lora_alpha=8,
            target_modules=["q_proj", "k_proj", "down_proj"],
            task_type="CAUSAL_LM",
        ),
        autocast_adapter_dtype=False,
    )
    for name, weights in model.named_parameters():
        if "lora_B" in name:
            # Sharp attention: else a random model hardly minds where a token stands.
            torch.nn.init.normal_(weights, std=0.5 if "down_proj" in name else 4.0)
            if broken:
                weights.data[0, 0] = math.nan
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    found = load_base(base)
    ref = BaseRef(name=found.name, serving_sha256=found.serving_sha256)
    write_manifest(folder, msgspec.structs.replace(MANIFEST, base=ref, dataset_sha256=dataset))
    return folder


@pytest.fixture
def small(spec: TrainingSpec) -> TrainingSpec:
    recipe = msgspec.structs.replace(
        spec.recipe, evaluation_replies=REPLIES, evaluation_conversations=4, max_reply_tokens=MOST
    )
    return msgspec.structs.replace(spec, recipe=recipe)


class PlainModel:
    """The slow and obvious way: one text at a time, all logits, PEFT as it comes."""

    def __init__(self, base: Path, adapter: Path | None) -> None:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        self.torch = torch
        self.model: Any = AutoModelForCausalLM.from_pretrained(
            base / "serving", dtype=torch.bfloat16
        )
        if adapter is not None:
            self.model = PeftModel.from_pretrained(
                self.model, adapter, autocast_adapter_dtype=False
            )
        self.model.eval().float()

    def logprobs(self, ids: list[int]) -> Any:
        """(positions, vocabulary); row i is over the token at i + 1."""
        with self.torch.inference_mode():
            logits = self.model(input_ids=self.torch.tensor([ids])).logits[0].float()
        return logits.log_softmax(-1)


@pytest.fixture(scope="module")
def generator(tiny_base: Path, adapters: dict[str, Path]) -> Any:
    import torch

    from training.evaluation.generator import Generator

    # In float32 nothing is left to rounding: the two ways must agree to a thousandth.
    return Generator.serving(
        tiny_base / "serving",
        {"new": adapters["new"], "live": adapters["live"]},
        dtype=torch.float32,
    )


def scoring_inputs(
    spec: TrainingSpec, generator: Any, *, references: bool = False
) -> tuple[Any, Any]:
    """With ``references``, every reply is shown something."""
    from training.evaluation.heldout import HeldOutData, ScoringInputs, choose_contexts

    held_out = HeldOutData(spec)
    contexts = choose_contexts(held_out.examples, REPLIES, seed=spec.seed)
    shown: dict[str, dict[int, str]] = {}
    for context in held_out.contexts if references else []:
        text = f"Q: {context.question[::-1]}\nA: as before\n\n{context.question}"
        shown.setdefault(context.conversation, {})[context.turn] = text
    prompts = [held_out.prompt(generator, context, shown) for context in contexts]
    named = held_out.sequences(generator, shown)
    return ScoringInputs(named, list(zip(contexts, prompts, strict=True))), prompts


def ignore(_: int) -> None:
    pass


@pytest.mark.parametrize("subject", ["base", "new", "live"])
def test_scores_are_those_of_one_text_at_a_time(
    small: TrainingSpec, generator: Any, adapters: dict[str, Path], subject: Any
) -> None:
    plain = PlainModel(Path(small.base), adapters.get(subject))
    inputs, _ = scoring_inputs(small, generator)
    with generator.using(subject):
        scored, _ = generator.score(inputs.sequences, inputs.prompts, ignore)
    for sequence, found in zip(inputs.sequences, scored, strict=True):
        logprobs = plain.logprobs(sequence.token_ids)
        positions = [i for i, trained in enumerate(sequence.loss_mask) if trained]
        assert len(found.logprobs) == len(positions)
        for position, logprob in zip(positions, found.logprobs, strict=True):
            expected = float(logprobs[position - 1, sequence.token_ids[position]])
            assert logprob == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("subject", ["base", "new", "live"])
def test_every_token_of_a_reply_is_the_most_probable_one_alone(
    small: TrainingSpec, generator: Any, adapters: dict[str, Path], subject: Any
) -> None:
    check_replies(small, generator, adapters.get(subject), subject=subject)


def test_a_reply_after_references_is_scored_as_if_read_alone(
    small: TrainingSpec, generator: Any, adapters: dict[str, Path]
) -> None:
    plain = PlainModel(Path(small.base), adapters["new"])
    inputs, prompts = scoring_inputs(small, generator, references=True)
    assert any(len(sequence.branches) > 1 for sequence in inputs.sequences)
    assert sum(len(found) for found in inputs.prompts) == len(prompts)
    with generator.using("new"):
        scored, _ = generator.score(inputs.sequences, inputs.prompts, ignore)
    for sequence, found in zip(inputs.sequences, scored, strict=True):
        alone: list[float] = []
        for path in sequence.paths()[1:]:
            logprobs = plain.logprobs([sequence.token_ids[place] for place in path])
            alone += [
                float(logprobs[row - 1, sequence.token_ids[place]])
                for row, place in enumerate(path)
                if sequence.loss_mask[place]
            ]
        assert found.logprobs == pytest.approx(alone, abs=1e-3)


def test_a_reply_after_references_is_written_as_if_alone(
    small: TrainingSpec, generator: Any, adapters: dict[str, Path]
) -> None:
    check_replies(small, generator, adapters["new"], subject="new", references=True)


def test_so_it_is_after_a_shortened_history(
    small: TrainingSpec, generator: Any, adapters: dict[str, Path]
) -> None:
    recipe = msgspec.structs.replace(small.recipe, max_length=110)
    short = msgspec.structs.replace(small, recipe=recipe)
    inputs, _ = scoring_inputs(short, generator)
    assert any(not any(sequence.loss_mask) for sequence in inputs.sequences)
    assert any(lengths for lengths in inputs.prompts)
    check_replies(short, generator, adapters["new"], subject="new")


def test_a_finished_reply_leaves_the_others_as_they_are(
    small: TrainingSpec, generator: Any, adapters: dict[str, Path]
) -> None:
    free = check_replies(small, generator, adapters["new"], subject="new")
    # Stop at the tokens with which two of the replies go on: they then end at different steps.
    stops = frozenset((free[0][3], free[2][6]))
    replies = check_replies(small, generator, adapters["new"], subject="new", stops=stops)
    assert len({len(reply) for reply in replies}) > 1


def check_replies(
    spec: TrainingSpec,
    generator: Any,
    adapter: Path | None,
    *,
    subject: str,
    stops: frozenset[int] = frozenset(),
    references: bool = False,
    copied: tuple[list[int], ...] = (),
    copy_bias: float = 0.0,
) -> list[list[int]]:
    plain = PlainModel(Path(spec.base), adapter)
    inputs, prompts = scoring_inputs(spec, generator, references=references)
    default_stops = generator.stop_ids
    generator.stop_ids = stops or default_stops
    try:
        with generator.using(subject):
            _, prefills = generator.score(inputs.sequences, inputs.prompts, ignore)
            replies: list[list[int]] = generator.generate(
                inputs.prompt_prefills(prefills), MOST, ignore, copied=copied, copy_bias=copy_bias
            )
    finally:
        generator.stop_ids = default_stops
    assert len(replies) == REPLIES
    for number, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
        logprobs = plain.logprobs([*prompt, *reply])
        if copied:
            logprobs[:, copied[number]] += copy_bias
        for step, token in enumerate(reply):
            row = logprobs[len(prompt) - 1 + step]
            assert float(row.max() - row[token]) < 1e-3
        if len(reply) < MOST:
            row = logprobs[len(prompt) - 1 + len(reply)]
            assert float(row.max() - max(row[token] for token in stops or default_stops)) < 1e-3
    return replies


def test_raised_words_are_written_where_they_become_the_most_probable(
    small: TrainingSpec, generator: Any, adapters: dict[str, Path]
) -> None:
    free = check_replies(small, generator, adapters["new"], subject="new")
    copied = tuple([*range(20 * number, 20 * number + 60)] for number in range(REPLIES))
    raised = check_replies(
        small, generator, adapters["new"], subject="new", copied=copied, copy_bias=2.0
    )
    assert raised != free


def test_the_subjects_do_differ(small: TrainingSpec, generator: Any) -> None:
    inputs, _ = scoring_inputs(small, generator)
    found: dict[str, float] = {}
    for subject in ("base", "new", "live", "base"):
        with generator.using(subject):
            scored, _ = generator.score(inputs.sequences, inputs.prompts, ignore)
        total = sum(sum(each.logprobs) for each in scored)
        assert found.setdefault(subject, total) == total
    assert len(set(found.values())) == 3


class RecordingWriter:
    """Keeps events instead of printing them."""

    def __init__(self) -> None:
        self.events: list[EvaluationEvent] = []

    def emit(self, kind: type[Any], **fields: Any) -> None:
        self.events.append(kind(at=0.0, **fields))


def run(spec: TrainingSpec, adapter: Path, progress: Any = None) -> Evaluation:
    from training.evaluation.evaluate import evaluate

    return evaluate(spec, adapter, progress, computing=FLOAT32)


def test_the_whole_evaluation_says_everything_and_says_it_again(
    small: TrainingSpec, adapters: dict[str, Path]
) -> None:
    writer = RecordingWriter()
    spec = msgspec.structs.replace(small, live_adapter=str(adapters["live"]))
    first = run(spec, adapters["new"], writer)
    assert first.live is not None
    subjects = {"base": first.base, "new": first.new, "live": first.live, "lookup": first.lookup}
    assert {scores.replies for scores in subjects.values()} == {REPLIES}
    assert first.new.tokens == first.base.tokens > 50
    assert first.lookup.perplexity is None
    assert first.base.perplexity is not None
    assert first.base.perplexity == pytest.approx(math.exp(first.base.nats_per_token or 0))
    assert len(first.samples) == REPLIES
    assert len(first.differences) == 20
    last = {event.subject: event for event in writer.events}
    assert list(last) == ["base", "new", "live", "lookup"]
    assert all(event.done == event.total for event in last.values())
    again = run(spec, adapters["new"])
    assert msgspec.structs.replace(again, seconds=0.0) == msgspec.structs.replace(
        first, seconds=0.0
    )


def test_with_a_copy_bias_replies_differ_and_perplexity_does_not(
    small: TrainingSpec, adapters: dict[str, Path]
) -> None:
    import torch

    from training.evaluation.copying import MOST as MOST_NATS
    from training.evaluation.copying import fit_copy_bias
    from training.evaluation.evaluate import evaluate
    from training.evaluation.sentence_embedder import load_embedder
    from training.finetuning.references import copied_tokens

    spec = small
    index = ExchangeIndex.build(
        load(Path(spec.dataset)).read("train"),
        embed=load_embedder(torch.float32),
        tokenize=copied_tokens(Path(spec.base)),
    )
    fitted = fit_copy_bias(spec, adapters["new"], index, computing=FLOAT32["evaluation"])
    assert 0 <= fitted <= MOST_NATS
    index.copy_bias = 3.0
    found = evaluate(spec, adapters["new"], computing=FLOAT32, index=index)
    assert found.base_retrieval is not None
    assert found.new_plain is not None
    assert found.base_retrieval.perplexity == found.base.perplexity
    assert found.new_plain.perplexity == found.new.perplexity
    assert any(sample.new != sample.new_plain for sample in found.samples)
    assert all(len(sample.references) == 1 for sample in found.samples)
    assert [sample.lookup and sample.lookup.text for sample in found.samples] == [
        sample.references[0].text for sample in found.samples
    ]
    without = evaluate(spec, adapters["new"], computing=FLOAT32)
    assert without.new == found.new_plain
    index.copy_bias = 0.0  # where there was nothing to fit it on, or no word helped
    unraised = evaluate(spec, adapters["new"], computing=FLOAT32, index=index)
    assert unraised.new == unraised.new_plain == found.new_plain
    assert unraised.lookup == found.lookup
    assert any("raised by 3 nats" in note for note in found.notes)


def test_where_replies_are_quoted_those_are_what_is_measured(
    small: TrainingSpec, adapters: dict[str, Path]
) -> None:
    import torch

    from training.evaluation.draft_weight import DOUBTED, TRUSTED, fit_draft_weight
    from training.evaluation.evaluate import evaluate
    from training.evaluation.sentence_embedder import load_embedder

    index = ExchangeIndex.build(
        load(Path(small.dataset)).read("train"), embed=load_embedder(torch.float32)
    )
    writer = RecordingWriter()
    fitted = fit_draft_weight(
        small,
        adapters["new"],
        index,
        writer,  # type: ignore[arg-type] # it has what is called of one
        computing=FLOAT32["evaluation"],
    )
    assert fitted in {1.0, DOUBTED, TRUSTED}
    if writer.events:
        assert writer.events[-1].done == writer.events[-1].total
    index.draft_weight = 0.1
    found = evaluate(small, adapters["new"], computing=FLOAT32, index=index)
    past = {f"{each.conversation}:{each.turn}": each.reply for each in index.exchanges}
    quoted = [sample.new for sample in found.samples if sample.new.quoted is not None]
    assert quoted  # two tiny layers write nothing that agrees with an agent
    assert all(reply.text == past[reply.quoted] for reply in quoted if reply.quoted is not None)
    assert any(f"{len(quoted)} of the {len(found.samples)} replies" in each for each in found.notes)
    assert all(sample.new_plain and not sample.new_plain.quoted for sample in found.samples)
    index.thresholds = Thresholds(2.0, 2.0)  # nothing supports an answer
    alone = evaluate(small, adapters["new"], computing=FLOAT32, index=index)
    assert not any(sample.new.quoted for sample in alone.samples)
    assert [sample.new for sample in alone.samples] == [
        sample.new_plain for sample in found.samples
    ]


def test_drafts_count_more_where_they_are_as_good_as_the_nearest_replies() -> None:
    from training.evaluation.draft_weight import DOUBTED, TRUSTED, weight_of

    contexts = contexts_of(conversation("held out", *["do you bake rye", "On Fridays only."] * 3))
    past = [Reference(kind="exchange", id="c:1", title="", text="On Fridays.", score=0.9)]
    found = [past] * 3
    assert weight_of(contexts, ["On Fridays only.", "On Fridays.", "On Fridays."], found) == TRUSTED
    assert weight_of(contexts, ["On Fridays."] * 3, found) == TRUSTED
    assert weight_of(contexts, ["On Fridays only.", "Bread.", "Rye."], found) == DOUBTED
    assert weight_of(contexts, ["Bread."] * 3, [[], [], []]) == TRUSTED  # nothing to send instead


@pytest.mark.parametrize(
    ("mass", "copied"), [([0.5, 0.2, 0.9], [1, 1, 1]), ([0.5, 0.5], [0, 0]), ([], [])]
)
def test_a_bias_stays_in_its_bounds(mass: list[float], copied: list[int]) -> None:
    from training.evaluation.copying import MOST as MOST_NATS
    from training.evaluation.copying import Copied, best_bias

    tokens = [Copied(p, bool(c)) for p, c in zip(mass, copied, strict=True)]
    assert best_bias(tokens) == (MOST_NATS if any(copied) else 0)


def test_the_best_bias_makes_the_replies_most_probable() -> None:
    from training.evaluation.copying import Copied, best_bias

    tokens = [Copied(0.1 + 0.8 * (n % 7) / 7, n % 3 != 0) for n in range(60)]

    def nats(bias: float) -> float:
        return sum(
            math.log(1 - p + p * math.exp(bias)) - bias * is_copied for p, is_copied in tokens
        )

    best = best_bias(tokens)
    assert 0.1 < best < 4
    assert nats(best) < min(nats(best - 0.01), nats(best + 0.01))


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_shared_preferences_are_those_of_one_text_at_a_time(
    small: TrainingSpec,
    adapters: dict[str, Path],
    preference_datasets: dict[Method, Dataset],
    generator: Any,
    method: Method,
) -> None:
    from training.evaluation.heldout import HeldOutData

    folder = preference_datasets[method].folder
    spec = msgspec.structs.replace(small, method=method, dataset=str(folder))
    found = run(spec, adapters["new"])
    held_out = HeldOutData(spec)
    desirable = [sequence for _, sequence in held_out.sequences(generator)]
    undesirable = held_out.undesirable(generator)
    assert found.comparisons == (
        len(desirable) if method == "dpo" else len(desirable) * len(undesirable)
    )
    totals: dict[str, list[list[float]]] = {}
    for subject, scores in (("base", found.base), ("new", found.new)):
        plain = PlainModel(Path(spec.base), adapters.get(subject))
        means: dict[str, list[float]] = {"desirable": [], "undesirable": []}
        for name, sequences in (("desirable", desirable), ("undesirable", undesirable)):
            for sequence in sequences:
                table, ids = plain.logprobs(sequence.token_ids), sequence.token_ids
                reply = [i for i, trained in enumerate(sequence.loss_mask) if trained]
                total = sum(float(table[i - 1, ids[i]]) for i in reply)
                means[name].append(total / len(reply))
                totals.setdefault(subject, [[], []])[name == "undesirable"].append(total)
        margin = sum(means["desirable"]) / len(desirable) - sum(means["undesirable"]) / len(
            undesirable
        )
        assert scores.preference_margin == pytest.approx(margin, abs=0.02)  # bf16 there
        assert scores.preference_accuracy is not None
    assert found.lookup.preference_accuracy is found.base.preference_gain is None
    good, bad = (
        [new - base for new, base in zip(*both, strict=True)]
        for both in zip(totals["new"], totals["base"], strict=True)
    )
    pairs = list(zip(good, bad, strict=True) if method == "dpo" else product(good, bad))
    assert found.new.preference_gain == sum(g > b for g, b in pairs) / len(pairs)
    assert any("comparisons of wanted and unwanted replies" in note for note in found.notes)


def test_an_adapter_full_of_nan_gets_no_perplexity(
    small: TrainingSpec, adapters: dict[str, Path]
) -> None:
    found = run(small, adapters["broken"])
    assert found.new.perplexity is None
    assert found.base.perplexity is not None
    assert msgspec.json.decode(msgspec.json.encode(found), type=Evaluation) == found


def test_a_live_adapter_of_another_base_is_left_out_with_a_note(
    small: TrainingSpec, adapters: dict[str, Path], tmp_path: Path
) -> None:
    other = make_adapter(Path(small.base), tmp_path / "other", seed=4)
    text = (other / "manifest.json").read_text()
    (other / "manifest.json").write_text(
        text.replace(load_base(Path(small.base)).serving_sha256, "f" * 64)
    )
    found = run(msgspec.structs.replace(small, live_adapter=str(other)), adapters["new"])
    assert found.live is None
    assert "another base" in found.live_note


def test_a_live_adapter_of_other_data_is_left_out_with_a_note(
    small: TrainingSpec, adapters: dict[str, Path]
) -> None:
    found = run(msgspec.structs.replace(small, live_adapter=str(adapters["new"])), adapters["live"])
    assert found.live is None
    assert {difference.against for difference in found.differences} == {"base", "lookup"}
    assert "what it was trained on is not here" in found.live_note


def test_differences_in_perplexity_are_those_of_the_scores(
    small: TrainingSpec, adapters: dict[str, Path]
) -> None:
    found = run(msgspec.structs.replace(small, live_adapter=str(adapters["live"])), adapters["new"])
    assert found.live is not None
    for name, other in (("base", found.base), ("live", found.live)):
        difference = found.difference("nats_per_token", name)  # type: ignore[arg-type]
        assert difference is not None
        assert difference.items == found.conversations
        assert found.new.nats_per_token is not None
        assert other.nats_per_token is not None
        assert difference.mean == pytest.approx(found.new.nats_per_token - other.nats_per_token)


def test_where_nothing_fits_nothing_is_measured_and_no_gate_can_tell(
    small: TrainingSpec, adapters: dict[str, Path]
) -> None:
    recipe = msgspec.structs.replace(small.recipe, max_length=8)
    found = run(msgspec.structs.replace(small, recipe=recipe), adapters["new"])
    assert (found.conversations, found.new.tokens, found.samples) == (0, 0, ())
    assert "raise the recipe's max_length" in found.notes[0]
    verdict = apply_gates(found, None, Objectives())
    assert {gate.result for gate in verdict.gates if gate.name != "parity"} == {"cannot_tell"}


def test_where_nothing_is_held_out_parity_is_of_what_was_trained_on(
    small: TrainingSpec, adapters: dict[str, Path], tmp_path: Path
) -> None:
    from training.evaluation.parity import parity_reference

    alike = create_version(
        [msgspec.structs.replace(loaf()[0], id=f"c{n}") for n in range(10)],
        tmp_path,
        system_prompt="You answer for Loaf, a bakery.",
        as_given=True,
    )
    spec = msgspec.structs.replace(small, dataset=str(alike.folder))
    found = run(spec, adapters["new"])
    assert (found.conversations, found.notes) == (
        0,
        ("nothing was measured: no conversation was held out in the test split",),
    )
    samples = parity_reference(spec, adapters["new"], computing=FLOAT32, tokens=60)
    assert sum(len(sample.positions) for sample in samples) >= 60


@pytest.mark.parametrize(("trained_in", "apart"), [("bfloat16", 0.05), ("float32", 1e-4)])
def test_the_parity_reference_is_the_trainers_and_near_the_serving_base(
    small: TrainingSpec,
    generator: Any,
    adapters: dict[str, Path],
    tmp_path: Path,
    *,
    trained_in: ComputeType,
    apart: float,
) -> None:
    """The quantised base and the serving base are one model: in float32 nothing is between them."""
    import torch
    from safetensors.torch import load_file, save_file

    from training.evaluation.parity import parity_reference

    trained = shutil.copytree(adapters["new"], tmp_path / "trained")
    weights = load_file(trained / WEIGHTS_NAME)
    dtype = getattr(torch, trained_in)
    save_file({name: w.to(dtype) for name, w in weights.items()}, trained / WEIGHTS_NAME)
    computing: dict[Work, TypeChoice] = {
        "training": TypeChoice(type=trained_in, reason="the test says so")
    }
    samples = parity_reference(small, trained, computing=computing, tokens=60)
    assert 60 <= sum(len(s.positions) for s in samples) < 400
    assert msgspec.json.decode(msgspec.json.encode(samples), type=list[ParitySample]) == samples
    inputs, _ = scoring_inputs(small, generator)
    with generator.using("new"):
        scored, _ = generator.score(inputs.sequences, inputs.prompts, ignore)
    served = {tuple(q.token_ids): s for q, s in zip(inputs.sequences, scored, strict=True)}
    gaps: list[float] = []
    for sample in samples:
        assert sample.positions[0] > 0
        assert len(sample.logprobs) == len(sample.positions) == len(sample.greedy)
        there = served[sample.token_ids].logprobs
        gaps += [abs(x - y) for x, y in zip(sample.logprobs, there, strict=True)]
    assert sum(gaps) / len(gaps) < apart


def test_an_adapter_folder_is_evaluated_from_the_command_line(
    small: TrainingSpec, small_dataset: Dataset, adapters: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "evaluation.json"
    argv = [sys.executable, "-m", "training.evaluation.evaluate", "--base", small.base]
    argv += ["--dataset", str(small_dataset.folder), "--out", str(out)]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*argv, "--adapter", str(adapters["new"])], capture_output=True, check=True, env=env
    )
    assert msgspec.json.decode(out.read_bytes(), type=Evaluation).new.replies > 0
    assert {json.loads(line)["event"] for line in done.stdout.splitlines()} == {"evaluation"}


def test_a_folder_that_is_no_adapter_is_reported_in_one_line(
    small: TrainingSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from training.evaluation.evaluate import main

    folders = ["--base", small.base, "--dataset", small.dataset, "--adapter", str(tmp_path)]
    assert main([*folders, "--out", str(tmp_path / "x.json")]) == 2
    assert capsys.readouterr().err.startswith("evaluation: cannot read")
