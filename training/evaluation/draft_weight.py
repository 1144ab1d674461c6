"""How much what an adapter writes counts beside its agents' replies, when one of them is chosen to be sent.

The weight of `training.retrieval.quoting.choose` with which the answers to the validation split are best: in token
F1, less what invented facts cost. An adapter that writes better than its agents' nearest replies fit keeps the
word. A hundred replies tell weights apart by some 0.02, so `USUAL` stays unless another is better beyond one
standard error of the difference (the rule of Breiman et al. 1984, Classification and Regression Trees, 3.4.3).
"""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

import torch

from training.compute_dtype import TypeChoice
from training.config import TrainingSpec
from training.data.contexts import Context
from training.evaluation.evaluate import longest_reply
from training.evaluation.generator import Generator
from training.evaluation.heldout import HeldOutData, ScoringInputs, choose_contexts
from training.evaluation.metrics import count_facts, token_f1
from training.evaluation.sentence_embedder import load_embedder
from training.events import EventWriter, evaluation_reporter
from training.references import Reference
from training.retrieval.articles import ArticleIndex
from training.retrieval.index import ExchangeIndex
from training.retrieval.prompts import find_references, shown_turns, supporting
from training.retrieval.quoting import CANDIDATES, INVENTED_COST, choose

FITTED_ON = 100
"""Replies of the validation split."""
FEWEST = 20
"""With fewer, nothing is quoted."""
USUAL = 0.2
"""The best on average of six tenants (``training/LOG.md``)."""
WEIGHTS = (0.1, USUAL, 0.3, 0.4, 1.0)
"""Those that are tried. Between 0.4 and 1 the draft wins nearly always."""
BATCH = 32  # replies that are written together: their keys and values are 0.6 GB in float32


def fit_draft_weight(
    spec: TrainingSpec,
    trained_folder: Path,
    index: ExchangeIndex,
    progress: EventWriter | None = None,
    *,
    computing: TypeChoice,
) -> float:
    """The weight, one of `WEIGHTS`; 1 where the validation split has fewer than `FEWEST` replies.

    Args:
        spec: Of the run.
        trained_folder: PEFT's two files of the adapter.
        index: Of the training split, with its ``copy_bias``.
        progress: Gets an `EvaluationEvent` as replies end.
        computing: The type to compute in.
    """
    held_out = HeldOutData(spec, "validation")
    contexts, found = _answered_from_the_past(spec, held_out, index)
    if len(contexts) < FEWEST:
        return 1.0
    dtype = getattr(torch, computing.type)
    generator = Generator.serving(Path(spec.base) / "serving", {"new": trained_folder}, dtype=dtype)
    report = evaluation_reporter(progress, "quoting", total=len(contexts))
    drafts: list[str] = []
    for start in range(0, len(contexts), BATCH):
        part = slice(start, start + BATCH)
        drafts += _drafts(spec, held_out, generator, contexts[part], found[part], index=index)
        report(len(contexts[part]))
    return best_weight(contexts, drafts, supporting(index, contexts, found))


def best_weight(
    contexts: Sequence[Context], drafts: Sequence[str], quotable: Sequence[Sequence[Reference]]
) -> float:
    """The one of `WEIGHTS` whose answers are best, or `USUAL`."""

    def gains(weight: float) -> list[float]:
        found = []
        for context, draft, references in zip(contexts, drafts, quotable, strict=True):
            text = choose(draft, references, context.said, draft_weight=weight).text
            invented = count_facts(text, context.reference, context.said).invented
            found.append(token_f1(text, context.reference) - INVENTED_COST * invented)
        return found

    usual = gains(USUAL)
    best, better = USUAL, 0.0
    for weight in WEIGHTS:
        differences = [one - other for one, other in zip(gains(weight), usual, strict=True)]
        mean, spread = fmean(differences), stdev(differences)
        if mean > max(better, spread / math.sqrt(len(differences))):
            best, better = weight, mean
    return best


def _answered_from_the_past(
    spec: TrainingSpec, held_out: HeldOutData, index: ExchangeIndex
) -> tuple[list[Context], list[list[Reference]]]:
    """Contexts of the split and what is found for each; those with an article are never quotes."""
    contexts = choose_contexts(held_out.examples, FITTED_ON, seed=spec.seed)
    articles = ArticleIndex.load(Path(spec.knowledge)) if spec.knowledge is not None else None
    embed = load_embedder(torch.float32)
    found = find_references(contexts, index, CANDIDATES, embed=embed, articles=articles)
    kept = [
        (context, some)
        for context, some in zip(contexts, found, strict=True)
        if all(each.kind == "exchange" for each in some)
    ]
    return [context for context, _ in kept], [some for _, some in kept]


def _drafts(
    spec: TrainingSpec,
    held_out: HeldOutData,
    generator: Generator,
    contexts: Sequence[Context],
    found: Sequence[Sequence[Reference]],
    *,
    index: ExchangeIndex,
) -> list[str]:
    """What the adapter writes, as it is served."""
    count = spec.recipe.references
    shown = shown_turns(contexts, [each[:count] for each in found]) if count else None
    copied = [] if count else list(map(index.copied, supporting(index, contexts, found)))
    scoring = ScoringInputs([], [(c, held_out.prompt(generator, c, shown)) for c in contexts])
    with generator.using("new"):
        _, prefills = generator.score(scoring.sequences, scoring.prompts, lambda _: None)
        ids = generator.generate(
            scoring.prompt_prefills(prefills),
            longest_reply(generator, contexts, spec.recipe.max_reply_tokens),
            lambda _: None,
            copied=copied,
            copy_bias=index.copy_bias,
        )
    return list(map(generator.text, ids))
