"""How much what an adapter writes counts beside its agents' replies, when one of them is chosen to be sent.

The weight of `training.retrieval.quoting.choose`. Where an adapter's drafts are as close to what agents wrote in the
validation split as the replies to the nearest questions are, its vote counts more. Fitting the weight itself
was tried: a hundred replies do not tell weights apart, but they do tell who writes better (``training/LOG.md``).
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from training.compute_dtype import TypeChoice
from training.config import TrainingSpec
from training.data.contexts import Context
from training.evaluation.evaluate import longest_reply
from training.evaluation.generator import Generator
from training.evaluation.heldout import HeldOutData, ScoringInputs, choose_contexts
from training.evaluation.metrics import token_f1
from training.evaluation.sentence_embedder import load_embedder
from training.events import EventWriter, evaluation_reporter
from training.references import Reference
from training.retrieval.articles import ArticleIndex
from training.retrieval.index import ExchangeIndex
from training.retrieval.prompts import find_references, shown_turns, supporting
from training.retrieval.quoting import CANDIDATES

FITTED_ON = 100
"""Replies of the validation split."""
FEWEST = 20
"""With fewer, nothing is quoted."""
TRUSTED = 0.4
"""The weight of drafts that are as good as the nearest replies: they are sent unless several agents say otherwise."""
DOUBTED = 0.2
"""The weight of those that are not."""
BATCH = 32  # replies that are written together: their keys and values are 0.6 GB in float32


def fit_draft_weight(
    spec: TrainingSpec,
    trained_folder: Path,
    index: ExchangeIndex,
    progress: EventWriter | None = None,
    *,
    computing: TypeChoice,
) -> float:
    """`TRUSTED` or `DOUBTED`; 1 where the validation split has fewer than `FEWEST` replies.

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
    return weight_of(contexts, drafts, found)


def weight_of(
    contexts: Sequence[Context], drafts: Sequence[str], found: Sequence[Sequence[Reference]]
) -> float:
    """`TRUSTED` where the drafts' mean token F1 is at least that of the nearest past replies."""
    written = [
        token_f1(draft, each.reference) for draft, each in zip(drafts, contexts, strict=True)
    ]
    past = [
        token_f1(references[0].text if references else "", each.reference)
        for references, each in zip(found, contexts, strict=True)
    ]
    return TRUSTED if sum(written) >= sum(past) else DOUBTED


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
