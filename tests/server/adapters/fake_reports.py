"""Reports of versions that nobody trained: a dozen held-out questions, and what everybody answered."""

import math
from typing import Any

import msgspec

from connectors.conversation import ChatMessage
from training.adapters.package import KnowledgeRef
from training.config import Objectives
from training.evaluation.gates import apply_gates
from training.reports.loss_curve import CurvePoint
from training.reports.report import Provenance, Report
from training.results import (
    Difference,
    Evaluation,
    LanguageCoverage,
    Metric,
    Parity,
    Reply,
    ReplySample,
    Scores,
    Subject,
    TopicCoverage,
)

# question, the agent's reply, the base's, the live version's, the new one's
TALK = (
    (
        "Do you ship to Switzerland?",
        "Yes, we do! It takes three to five days, and customs are included.",
        "I am an AI language model and cannot know whether this store ships to Switzerland.",
        "Yes, we ship to Switzerland. Delivery takes five days.",
        "Yes, we do! It takes three to five days, and customs are included in the price you see.",
    ),
    (
        "My bread arrived squashed.",
        "I am sorry to hear that! Send me a photo and your order number, and a new one is on its way.",
        "Bread can be squashed for many reasons. You could make breadcrumbs of it.",
        "Sorry about that. Please send your order number.",
        "Oh no, I am sorry! Could you send me your order number? A new loaf leaves tomorrow.",
    ),
    (
        "Can I change the delivery day?",
        "Of course, until noon of the day before. Which day suits you?",
        "Delivery days depend on the company.",
        "Yes, until noon of the day before.",
        "Of course! Until noon of the day before. Which day would you like?",
    ),
    (
        "Is the rye loaf vegan?",
        "It is: flour, water, salt, and our sourdough.",
        "Rye bread is often vegan, but not always. Check the label.",
        "Yes, it is vegan.",
        "Yes, it is vegan.",
    ),
)


def _in(
    language: str, conversations: int, replies: int, new: float | None, lookup: float | None
) -> LanguageCoverage:
    return LanguageCoverage(
        language=language, conversations=conversations, replies=replies, new=new, lookup=lookup
    )


TOPICS = tuple(
    TopicCoverage(
        words=words,
        example=example,
        share=conversations / 208,
        conversations=conversations,
        replies=replies,
        new=new,
        lookup=lookup,
        languages=languages,
    )
    for words, example, conversations, replies, new, lookup, languages in (
        (
            *(("delivery", "day", "address"), "Can I change the delivery day?", 81, 9, 0.58, 0.44),
            (_in("en", 60, 7, 0.62, 0.45), _in("de", 21, 2, 0.44, 0.4)),
        ),
        (
            *(("vegan", "allergy", "nuts"), "Is the rye loaf vegan?", 70, 10, 0.51, 0.35),
            (_in("en", 66, 10, 0.51, 0.35), _in("de", 4, 0, None, None)),
        ),
        (
            *(("refund", "squashed"), "My bread arrived squashed.", 45, 6, 0.29, 0.31),
            (_in("en", 37, 4, 0.36, 0.33), _in("de", 8, 2, 0.15, 0.27)),
        ),
        (
            *((), "Hello, are you there?", 12, 0, None, None),
            (_in("und", 7, 0, None, None), _in("en", 5, 0, None, None)),
        ),
    )
)


def make_report(
    *,
    version: int = 3,
    live: bool = True,
    questions: int = 8,
    few: bool = False,
    ratio: float = 0.52,
    **objectives: float,
) -> dict[str, Any]:
    """A report as an adapter's row holds it.

    ``few``: too little was held out for intervals. ``ratio``: of the perplexity to the base's.
    """
    evaluation = _evaluation(live=live, questions=questions, few=few, ratio=ratio)
    parity = Parity(mean_abs=0.0042, p99_abs=0.03, max_abs=0.2, tokens=2011, conversations=12)
    report = Report(
        tenant="Lumen & Loaf",
        version=version,
        evaluation=evaluation,
        parity=parity,
        verdict=apply_gates(evaluation, parity, Objectives(**objectives)),
        training_curve=[CurvePoint(step, 3 - step / 20) for step in range(1, 40)],
        validation_curve=[CurvePoint(step, 3 - step / 25) for step in range(10, 40, 10)],
        provenance=Provenance(
            base="smollm2-135m-instruct",
            base_sha256="a" * 64,
            base_parameters=134_515_008,
            parameters=4_884_480,
            dataset_sha256="3" * 64,
            conversations={"train": 208, "validation": 26, "test": 26},
            dropped={"near_duplicate": 3},
            recipe="cpu-small",
            seed=17,
            rank=16,
            tokens=26_103,
            steps=40,
            seconds=184.0,
            stopped="epochs done",
            packages={"peft": "0.19.0", "torch": "2.13.0"},
            computed_in=("float32",),
            knowledge=KnowledgeRef(sha256="5" * 64, pieces=1_234),
        ),
        made_at="2026-11-23T10:00:00+00:00",
    )
    made: dict[str, Any] = msgspec.to_builtins(report)
    return made


def _evaluation(*, live: bool, questions: int, few: bool, ratio: float) -> Evaluation:
    def apart(metric: Metric, mean: float, against: Subject) -> Difference:
        low, high = (None, None) if few else (mean - 0.06, mean + 0.06)
        items = 4 if few else 26
        return Difference(
            metric=metric, against=against, mean=mean, low=low, high=high, items=items
        )

    return Evaluation(
        split="test",
        conversations=26,
        base=_scores(10.4, 0.12, 0.25, few=few),
        new=_scores(10.4 * ratio, 0.49, 0.71, few=few),
        live=_scores(6.0, 0.41, 0.66, few=few) if live else None,
        lookup=_scores(None, 0.3, 0.58, few=few),
        differences=(
            apart("nats_per_token", math.log(ratio), "base"),
            apart("similarity", 0.46, "base"),
            apart("token_f1", 0.37, "base"),
            apart("token_f1", 0.19, "lookup"),
            apart("inventing", -0.1, "base"),
            *(
                (apart("nats_per_token", -0.1, "live"), apart("similarity", 0.05, "live"))
                if live
                else ()
            ),
        ),
        samples=tuple(_sample(number, live=live) for number in range(questions)),
        notes=("8 greedy replies to true histories",),
        topics=TOPICS if live else (),
    )


def _scores(perplexity: float | None, f1: float, similarity: float, *, few: bool) -> Scores:
    return Scores(
        perplexity=perplexity,
        perplexity_low=None if few or perplexity is None else perplexity * 0.95,
        perplexity_high=None if few or perplexity is None else perplexity * 1.06,
        nats_per_token=math.log(perplexity) if perplexity else None,
        tokens=5053 if perplexity else 0,
        exact=0.1,
        token_f1=f1,
        similarity=similarity,
        replies=26,
        inventing=0.1,
    )


def _sample(number: int, *, live: bool) -> ReplySample:
    question, agent, base, before, new = TALK[number % len(TALK)]
    if number >= len(TALK):
        question, new = f"{question} ({number})", f"{new} ({number})"
    history = [ChatMessage(role="user", content=question)]
    if number % 2:
        history = [
            ChatMessage(role="user", content="Hello!"),
            ChatMessage(role="assistant", content="Hello, how can I help?"),
            *history,
        ]
    return ReplySample(
        conversation=f"loaf-{number}",
        turn=len(history),
        history=tuple(history),
        reference=agent,
        base=_reply(base),
        new=_reply(new),
        live=_reply(before) if live else None,
        lookup=_reply(agent),
    )


def _reply(text: str) -> Reply:
    return Reply(text=text, exact=False, token_f1=0.5, similarity=0.7)
