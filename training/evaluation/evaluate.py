"""How good is an adapter? Held-out perplexity and replies of base, new, live and lookup.

All models run on the base's serving weights: the engine serves these, and they equal what training
computed with. Every model reads the same tokens: the dataset's system prompt, the base's own chat
template, the true history.

    python -m training.evaluation.evaluate --adapter DIR --base DIR --dataset DIR [--live DIR] [--knowledge FILE] --out FILE.json
"""

import argparse
import math
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch

from training.adapters.package import INDEX_NAME, read_manifest, spec_of
from training.base_models.compute_dtype_probe import choose_all
from training.compute_dtype import TypeChoice, Work
from training.config import TrainingSpec
from training.data.chat_template import TrainingSequence, token_ids
from training.data.contexts import Context
from training.data.products import find_products
from training.errors import TrainingError
from training.evaluation.generator import Generator, OnProgress, TokenLogprobs
from training.evaluation.heldout import (
    SPLIT,
    HeldOutData,
    ScoringInputs,
    choose_contexts,
)
from training.evaluation.metrics import Embed, count_facts, exact_match, similarities, token_f1
from training.evaluation.retrieval_baseline import look_up
from training.evaluation.scores import (
    ConversationLosses,
    ReplyLogprobs,
    differences_of,
    perplexity_differences,
    preference_differences,
    scores_of,
    shared_preferences,
)
from training.evaluation.sentence_embedder import load_embedder
from training.evaluation.shared_holdout import SharedHoldout, find_shared_holdout
from training.evaluation.topics import find_coverage
from training.events import EXIT_BAD_INPUT, EXIT_OK, EventWriter, evaluation_reporter
from training.filesystem import write_atomically
from training.references import Reference
from training.results import (
    Difference,
    Evaluation,
    Reply,
    ReplySample,
    Scores,
    Subject,
)
from training.retrieval.articles import ArticleIndex
from training.retrieval.index import ExchangeIndex
from training.retrieval.prompts import Shown, find_references, shown_turns, supporting
from training.retrieval.quoting import CANDIDATES, Answer, choose

_COMPUTED: dict[Work, str] = {"evaluation": "models", "sentences": "similarity"}


def evaluate(
    spec: TrainingSpec,
    trained_folder: Path,
    progress: EventWriter | None = None,
    *,
    computing: Mapping[Work, TypeChoice],
    index: ExchangeIndex | None = None,
) -> Evaluation:
    """Evaluate an adapter against the base, the live adapter and plain look-up.

    The same seed gives the same conversations and contexts. Where nothing was held out, or nothing
    of it fits, nothing is measured, and a note says so. The live adapter is scored on what neither
    it nor the new one was trained on (`find_shared_holdout`).

        computing = choose_all(Path(spec.base), recipe=spec.recipe).choices
        evaluation = evaluate(spec, out / "trained", computing=computing)
        verdict = apply_gates(evaluation, parity, Objectives())

    Args:
        spec: Its recipe says how much is read: ``evaluation_conversations`` for perplexity, and
            ``evaluation_replies`` replies of at most ``max_reply_tokens`` tokens.
        trained_folder: PEFT's two files of the new adapter; only read.
        progress: Gets an `EvaluationEvent` after each batch. The caller closes it.
        computing: The types to compute in, for ``evaluation`` and for ``sentences``.
        index: What the adapter is served with, where its recipe uses one: base and adapter then answer
            with retrieval too. So they do with the spec's ``knowledge``.

    Raises:
        BadInput: the base's template refuses a held-out conversation, or the file of articles is not whole.
        BaseModelError: the base is not whole.
    """
    started = time.monotonic()
    held_out = HeldOutData(spec)
    if not held_out.examples:
        return _nothing_measured(held_out, f"no conversation was held out in the {SPLIT} split")
    shared = find_shared_holdout(spec, held_out.examples)
    adapters: dict[Subject, Path] = {"new": trained_folder}
    if spec.live_adapter is not None and shared.conversations:
        adapters["live"] = Path(spec.live_adapter)
    dtype = getattr(torch, computing["evaluation"].type)
    generator = Generator.serving(Path(spec.base) / "serving", adapters, dtype=dtype)
    contexts = choose_contexts(held_out.examples, spec.recipe.evaluation_replies, seed=spec.seed)
    plain = model_inputs(spec, held_out, generator, contexts)
    if not plain.named:
        longest = spec.recipe.max_length
        return _nothing_measured(
            held_out, f"no held-out reply fits into {longest} tokens: raise the recipe's max_length"
        )
    training = [example for example in held_out.dataset.read("train") if example.desirable]
    rows: dict[Subject, ModelInputs] = {"base": plain, "new": plain}
    if index is not None or spec.knowledge is not None:
        grounded = retrieval_inputs(plain, index, spec, held_out, generator)
        rows |= {"base_retrieval": grounded, "new_plain": plain, "new": grounded}
    if "live" in adapters:
        rows["live"] = _live_inputs(spec, held_out, generator, plain)
    outputs = _outputs(generator, rows, progress, live_conversations=shared.conversations)
    report = evaluation_reporter(progress, "lookup", total=len(contexts))
    embed = load_embedder(getattr(torch, computing["sentences"].type))
    looked_up = (
        look_up(training, contexts, embed=embed, seed=spec.seed)
        if index is None
        else [nearest_reply(found) for found in rows["new"].references]
    )
    products = find_products(training, system_prompt=held_out.dataset.system_prompt)
    replies = _rated_replies(contexts, rows, outputs, looked_up, embed=embed, products=products)
    samples = _samples(contexts, replies, shared, rows)
    topics = find_coverage(training, held_out.examples, samples, embed=embed, seed=spec.seed)
    report(len(contexts))
    comparisons = _comparison_count(held_out, plain)
    scores = _scores(spec, held_out, outputs, samples)
    differences = _differences(spec, held_out, outputs, samples)
    return Evaluation(
        split=SPLIT,
        conversations=len(held_out.examples),
        comparisons=comparisons,
        base=scores["base"],
        base_retrieval=scores.get("base_retrieval"),
        new_plain=scores.get("new_plain"),
        new=scores["new"],
        live=scores.get("live"),
        lookup=scores["lookup"],
        differences=differences,
        samples=samples,
        seconds=round(time.monotonic() - started, 2),
        notes=(
            *_notes(held_out, plain, comparisons, computing=computing),
            *_retrieval_notes(index, samples),
            *_article_notes(spec, samples),
        ),
        live_note=shared.note,
        topics=topics,
    )


_ADAPTERS: dict[Subject, Subject] = {
    "base": "base",
    "base_retrieval": "base",
    "new_plain": "new",
    "new": "new",
    "live": "live",
}
"""Which adapter each subject answers with."""


class ModelInputs(NamedTuple):
    """What a model is given: held-out tokens to score, and contexts to reply to.

    ``references[i]``: what context i is shown, or whose words its reply leans on; none without retrieval.
    ``copied[i]``: the token ids of those words, which the reply to context i gets ``copy_bias`` for.
    ``quotable[i]``: the past exchanges whose reply may be sent in place of what was written, which counts
    ``draft_weight`` beside them.
    """

    named: list[tuple[str, TrainingSequence]]
    undesirable: list[TrainingSequence]
    contexts: list[Context]
    scoring: ScoringInputs
    max_reply_tokens: int
    references: list[list[Reference]]
    copied: Sequence[Sequence[int]] = ()
    copy_bias: float = 0.0
    quotable: Sequence[Sequence[Reference]] = ()
    draft_weight: float = 1.0
    products: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """Sequences to score and replies to write, for the progress of one model."""
        return len(self.scoring.sequences) + len(self.undesirable) + len(self.contexts)


class ModelOutput(NamedTuple):
    """What one model made of `ModelInputs`; ``texts[i]`` is its reply to context i."""

    losses: ConversationLosses
    logprobs: ReplyLogprobs
    texts: list[str]


def model_inputs(
    spec: TrainingSpec,
    held_out: HeldOutData,
    generator: Generator,
    contexts: list[Context],
    references: Mapping[tuple[str, int], list[Reference]] | None = None,
) -> ModelInputs:
    """Tokenise the held-out data; ``named`` is empty where nothing fits.

    ``references``: of each held-out reply, by conversation and turn, where they are shown.
    """
    shown: Shown | None = None
    if references is not None:
        every = held_out.contexts
        shown = shown_turns(every, [references[each.conversation, each.turn] for each in every])
    named = held_out.sequences(generator, shown)
    undesirable = held_out.undesirable(generator, shown)
    return ModelInputs(
        named,
        undesirable,
        contexts,
        ScoringInputs(named, [(c, held_out.prompt(generator, c, shown)) for c in contexts]),
        longest_reply(generator, contexts, spec.recipe.max_reply_tokens),
        [(references or {}).get((c.conversation, c.turn), []) for c in contexts],
    )


def held_out_references(
    held_out: HeldOutData, index: ExchangeIndex | None, spec: TrainingSpec
) -> dict[tuple[str, int], list[Reference]]:
    """What every held-out reply is shown, as it would be at serving."""
    contexts = held_out.contexts
    found = find_references(
        contexts,
        index,
        spec.recipe.references,
        embed=load_embedder(torch.float32),
        articles=ArticleIndex.load(Path(spec.knowledge)) if spec.knowledge is not None else None,
    )
    keys = [(context.conversation, context.turn) for context in contexts]
    return dict(zip(keys, found, strict=True))


def retrieval_inputs(
    plain: ModelInputs,
    index: ExchangeIndex | None,
    spec: TrainingSpec,
    held_out: HeldOutData,
    generator: Generator,
) -> ModelInputs:
    """``plain`` with retrieval as the spec's adapter is served: references, a copy bias, replies to quote.

    Where nothing supports an answer, no words are raised and nothing is quoted. Perplexity is without
    both; the bias changed it by 0.01 nats where it was measured.
    """
    recipe, contexts = spec.recipe, plain.contexts
    inputs = plain
    if recipe.references or spec.knowledge is not None:
        references = held_out_references(held_out, index, spec)
        if any(references.values()):
            inputs = model_inputs(spec, held_out, generator, contexts, references)
    if index is None:
        return inputs
    nearest = find_references(contexts, index, CANDIDATES, embed=load_embedder(torch.float32))
    near = supporting(index, contexts, nearest)
    if not recipe.references:
        inputs = inputs._replace(
            references=[
                [*found[:1], *articles]
                for found, articles in zip(nearest, inputs.references, strict=True)
            ],
            copied=[index.copied(found) for found in near],
            copy_bias=index.copy_bias,
        )
    if index.draft_weight < 1:
        # no past reply knows what an article says
        quotable = [
            [] if _has_article(shown) else found
            for shown, found in zip(inputs.references, near, strict=True)
        ]
        inputs = inputs._replace(
            quotable=quotable, draft_weight=index.draft_weight, products=index.products
        )
    return inputs


def nearest_reply(references: Sequence[Reference]) -> str:
    """The reply that followed the nearest past question; empty where there is none."""
    return next((each.text for each in references if each.kind == "exchange"), "")


def _outputs(
    generator: Generator,
    rows: Mapping[Subject, ModelInputs],
    progress: EventWriter | None,
    *,
    live_conversations: Collection[str],
) -> dict[Subject, ModelOutput]:
    """What every subject made of its inputs. What differs in the bias alone is read once."""
    outputs: dict[Subject, ModelOutput] = {}
    for subject, inputs in rows.items():
        if subject in outputs:
            continue
        alike: list[Subject] = [
            other
            for other, given in rows.items()
            if _ADAPTERS[other] == _ADAPTERS[subject] and given.scoring is inputs.scoring
        ]
        found = run_model(
            generator,
            _ADAPTERS[subject],
            [rows[each] for each in alike],
            evaluation_reporter(
                progress, subject, total=inputs.total + (len(alike) - 1) * len(inputs.contexts)
            ),
            only=live_conversations if subject == "live" else None,
        )
        outputs |= zip(alike, found, strict=True)
    return {subject: outputs[subject] for subject in rows}


def _live_inputs(
    spec: TrainingSpec, held_out: HeldOutData, generator: Generator, plain: ModelInputs
) -> ModelInputs:
    """What the live adapter is given: with its own index, where it is served with one, and the articles."""
    folder = Path(spec.live_adapter or "")
    recipe = read_manifest(folder).recipe
    has_index = (folder / INDEX_NAME).is_file()
    if not has_index and spec.knowledge is None:
        return plain
    index = ExchangeIndex.load(folder / INDEX_NAME) if has_index else None
    recipe = msgspec.structs.replace(spec.recipe, references=recipe.references)
    spec = msgspec.structs.replace(spec, recipe=recipe)
    return retrieval_inputs(plain, index, spec, held_out, generator)


def run_model(
    generator: Generator,
    subject: Subject,
    alike: Sequence[ModelInputs],
    report: OnProgress,
    *,
    only: Collection[str] | None,
) -> list[ModelOutput]:
    """Score the held-out tokens and write the replies.

    Args:
        generator: the model.
        subject: which of its adapters.
        alike: inputs that differ in their copy bias at most; an output for each.
        report: called after each batch, and as replies end.
        only: the conversations that count; None: all.
    """
    inputs = alike[0]
    scoring, undesirable = inputs.scoring, inputs.undesirable
    with generator.using(subject):
        scored, prefills = generator.score(scoring.sequences, scoring.prompts, report)
        others, _ = generator.score(undesirable, [()] * len(undesirable), report)
        replies = [
            generator.generate(
                scoring.prompt_prefills(prefills),
                each.max_reply_tokens,
                report,
                copied=each.copied,
                copy_bias=each.copy_bias,
            )
            for each in alike
        ]
    losses = _conversation_losses(inputs.named, scored, only)
    logprobs = ReplyLogprobs(_logprobs(scored[: len(inputs.named)]), _logprobs(others))
    return [ModelOutput(losses, logprobs, list(map(generator.text, ids))) for ids in replies]


def _scores(
    spec: TrainingSpec,
    held_out: HeldOutData,
    outputs: Mapping[Subject, ModelOutput],
    samples: Sequence[ReplySample],
) -> dict[Subject, Scores]:
    """Scores of each subject."""
    subjects: list[Subject] = [*outputs, "lookup"]
    found: dict[Subject, Scores] = {}
    for name in subjects:
        output = outputs.get(name)
        found[name] = scores_of(
            [getattr(sample, name) for sample in samples],
            losses=output and output.losses,
            seed=spec.seed,
            preferences=shared_preferences(
                output and output.logprobs,
                base=outputs["base"].logprobs,
                paired=held_out.paired,
            ),
        )
    return found


def _differences(
    spec: TrainingSpec,
    held_out: HeldOutData,
    outputs: Mapping[Subject, ModelOutput],
    samples: Sequence[ReplySample],
) -> tuple[Difference, ...]:
    """New minus every other subject, in perplexity, preferences and replies."""
    subjects: list[Subject] = [*outputs, "lookup"]
    return (
        *perplexity_differences(
            {name: found.losses for name, found in outputs.items()}, seed=spec.seed
        ),
        *preference_differences(
            outputs["new"].logprobs,
            outputs["base"].logprobs,
            paired=held_out.paired,
            seed=spec.seed,
        ),
        *differences_of(
            {name: [getattr(sample, name) for sample in samples] for name in subjects},
            conversations=[sample.conversation for sample in samples],
            seed=spec.seed,
        ),
    )


def _notes(
    held_out: HeldOutData,
    inputs: ModelInputs,
    comparisons: int | None,
    *,
    computing: Mapping[Work, TypeChoice],
) -> tuple[str, ...]:
    """What was measured, and how, in words."""
    tokens = sum(sum(sequence.loss_mask) for _, sequence in inputs.named)
    notes = [
        f"{tokens:,} assistant tokens of {len(held_out.examples)} conversations of the {SPLIT} "
        "split, end of turn included",
        f"{len(inputs.contexts)} greedy replies to true histories, at most "
        f"{inputs.max_reply_tokens} tokens each",
        "lookup: the reply that followed the nearest training question, without any model",
        *(
            f"{what} computed in {computing[work].type}: {computing[work].reason}"
            for work, what in _COMPUTED.items()
        ),
    ]
    if inputs.undesirable:
        notes.append(
            f"{comparisons:,} comparisons of wanted and unwanted replies, by mean log-probability "
            "of a token, so that length decides nothing"
        )
    return tuple(notes)


def _retrieval_notes(index: ExchangeIndex | None, samples: Sequence[ReplySample]) -> Iterator[str]:
    """How those with retrieval answered."""
    if index is None:
        return
    how = (
        f"words of the nearest reply are raised by {index.copy_bias:g} nats (not in perplexity)"
        if index.tokens is not None
        else "shown the nearest"
    )
    yield f"with retrieval: {how} of {len(index):,} exchanges of other conversations, as it would be served"
    if index.draft_weight < 1:
        quoted = sum(sample.new.quoted is not None for sample in samples)
        yield (
            f"{quoted:,} of the {len(samples):,} replies with retrieval are an agent's own, quoted: what the "
            f"adapter writes counts {index.draft_weight:g} beside them"
        )


def _article_notes(spec: TrainingSpec, samples: Sequence[ReplySample]) -> Iterator[str]:
    if spec.knowledge is not None:
        shown = sum(_has_article(sample.references) for sample in samples)
        yield (
            f"{shown:,} of the {len(samples):,} replies with retrieval are shown a piece of the tenant's "
            "articles, as these were when the job began"
        )


def _has_article(references: Sequence[Reference]) -> bool:
    return any(each.kind == "article" for each in references)


def longest_reply(generator: Generator, contexts: Sequence[Context], most: int) -> int:
    """Tokens to let a reply have: a quarter more than the longest true one here, and 8.

    A model that never stops by itself (the base, mostly) is cut there, which can only help its
    scores.
    """
    longest = max((len(token_ids(generator.tokenizer, c.reference)) for c in contexts), default=0)
    return min(most, longest + longest // 4 + 8)


def _nothing_measured(held_out: HeldOutData, why: str) -> Evaluation:
    none = scores_of([], losses=None)
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


def _comparison_count(held_out: HeldOutData, inputs: ModelInputs) -> int | None:
    if not inputs.undesirable:
        return _no_comparisons(held_out)
    return len(inputs.named) * (1 if held_out.paired else len(inputs.undesirable))


def _conversation_losses(
    named: Sequence[tuple[str, TrainingSequence]],
    scored: Sequence[TokenLogprobs],
    only: Collection[str] | None,
) -> ConversationLosses:
    """Of every conversation, or ``only`` of these; one may be of several sequences."""
    rows: dict[str, list[float]] = {}
    for (name, _), found in zip(named, scored, strict=False):  # the rest are prompts
        if only is None or name in only:
            rows.setdefault(name, []).extend(found.logprobs)
    return ConversationLosses(
        conversations=list(rows),
        nll=[-math.fsum(logprobs) for logprobs in rows.values()],
        tokens=[len(logprobs) for logprobs in rows.values()],
    )


def _logprobs(replies: Sequence[TokenLogprobs]) -> list[list[float]]:
    return [reply.logprobs for reply in replies]


def _rated_replies(
    contexts: Sequence[Context],
    rows: Mapping[Subject, ModelInputs],
    outputs: Mapping[Subject, ModelOutput],
    looked_up: list[str],
    *,
    embed: Embed,
    products: tuple[str, ...],
) -> dict[Subject, list[Reply]]:
    """What every subject would send in each context; a lookup sends what the training data gives."""
    sent = {
        subject: _sent(contexts, rows[subject], found.texts) for subject, found in outputs.items()
    }
    sent["lookup"] = list(map(Answer, looked_up))
    return {
        subject: [
            msgspec.structs.replace(reply, quoted=answer.quoted and answer.quoted.id)
            for reply, answer in zip(
                rate_replies([answer.text for answer in answers], contexts, embed, products),
                answers,
                strict=True,
            )
        ]
        for subject, answers in sent.items()
    }


def _sent(contexts: Sequence[Context], inputs: ModelInputs, texts: Sequence[str]) -> list[Answer]:
    """What is sent of what a model wrote: that, or an agent's own reply."""
    if not inputs.quotable:
        return list(map(Answer, texts))
    return [
        choose(
            text,
            references,
            context.said,
            draft_weight=inputs.draft_weight,
            products=inputs.products,
        )
        for context, references, text in zip(contexts, inputs.quotable, texts, strict=True)
    ]


def rate_replies(
    texts: Sequence[str], contexts: Sequence[Context], embed: Embed, products: tuple[str, ...]
) -> list[Reply]:
    """Each reply with its closeness to the one that the agent wrote; ``products`` are names that count."""
    references = [context.reference for context in contexts]
    meaning = similarities(texts, references, embed=embed)
    return [
        Reply(
            text=text,
            exact=exact_match(text, context.reference),
            token_f1=token_f1(text, context.reference),
            similarity=similarity,
            facts=count_facts(text, context.reference, context.said, products),
        )
        for text, context, similarity in zip(texts, contexts, meaning, strict=True)
    ]


def _samples(
    contexts: Sequence[Context],
    replies: Mapping[Subject, Sequence[Reply]],
    shared: SharedHoldout,
    rows: Mapping[Subject, ModelInputs],
) -> tuple[ReplySample, ...]:
    """Every subject's replies; the live adapter's only to conversations of the shared holdout."""
    grounded = rows["new"]
    return tuple(
        ReplySample(
            conversation=context.conversation,
            turn=context.turn,
            history=context.history,
            reference=context.reference,
            references=tuple(grounded.references[number]),
            **{
                name: written[number]
                for name, written in replies.items()
                if name != "live" or context.conversation in shared.conversations
            },
        )
        for number, context in enumerate(contexts)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate a finished adapter folder on a dataset; the result is JSON in ``--out``."""
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluation.evaluate", description=__doc__
    )
    for name in ("adapter", "base", "dataset", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--live", type=Path)
    parser.add_argument("--knowledge", type=Path)
    options: Any = parser.parse_args(arguments)
    out: Path = options.out
    try:
        manifest = read_manifest(options.adapter)
        spec = spec_of(
            manifest,
            base=options.base,
            dataset=options.dataset,
            adapters=options.adapter.parent,
            live=options.live,
            knowledge=options.knowledge,
        )
        progress = EventWriter(out.with_suffix(".events.jsonl"))
        computing = choose_all(Path(spec.base), recipe=spec.recipe).choices
        index = (
            ExchangeIndex.load(options.adapter / INDEX_NAME)
            if (options.adapter / INDEX_NAME).is_file()
            else None
        )
        result = evaluate(
            spec, options.adapter.resolve(), progress, computing=computing, index=index
        )
    except TrainingError as exc:
        print(f"evaluation: {exc}", file=sys.stderr)  # noqa: T201 - this is the command line
        return EXIT_BAD_INPUT
    write_atomically(out, msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
