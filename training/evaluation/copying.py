"""How much the words of the nearest past reply are preferred while an answer is written.

At serving the engine adds ``copy_bias`` nats to the logit of every token of the reply that followed the
nearest past question (``logit_bias`` of the OpenAI API). So p(w) becomes p(w) exp(b [w in R]) / Z: the
model's own distribution, tilted towards a set of words R as by a unigram cache (Kuhn & De Mori 1990;
Grave et al. 2017, arXiv 1612.04426). It costs no token of a prompt, in training or at serving. The bias
is the one that makes the validation split's replies most probable; the negative log-likelihood is
convex in b, so there is one.

A model that is sure, and right, is hardly changed; one that wavers between an amount that it makes up
and the amount of the reply is. What it is worth is in ``training/LOG.md``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from training.compute_dtype import TypeChoice
from training.config import TrainingSpec
from training.data.chat_template import token_ids
from training.evaluation.generator import Generator
from training.evaluation.heldout import HeldOutData, choose_contexts
from training.evaluation.sentence_embedder import load_embedder
from training.retrieval.index import ExchangeIndex
from training.retrieval.prompts import find_references

FITTED_ON = 40
"""Replies of the validation split: at some 20 tokens each, the bias is known to about 0.1 nats."""
MOST = 5.0
"""Nats. With more a model could hardly end, or say, anything else. Templates would ask for ten."""


class Copied(NamedTuple):
    """A token of a reply: the probability of the nearest past reply's words there, and whether it is one."""

    probability: float
    is_copied: bool


def fit_copy_bias(
    spec: TrainingSpec, trained_folder: Path, index: ExchangeIndex, *, computing: TypeChoice
) -> float:
    """The bias in nats, in [0, `MOST`]; 0 where the validation split is empty.

    Args:
        spec: Of the run.
        trained_folder: PEFT's two files of the adapter.
        index: Of the training split, with ``tokens``.
        computing: The type to compute in.
    """
    held_out = HeldOutData(spec)
    examples = [each for each in held_out.dataset.read("validation") if each.desirable]
    contexts = choose_contexts(examples, FITTED_ON, seed=spec.seed)
    if not contexts:
        return 0.0
    embed = load_embedder(torch.float32)
    found = find_references(contexts, index, 1, embed=embed)
    dtype = getattr(torch, computing.type)
    generator = Generator.serving(Path(spec.base) / "serving", {"new": trained_folder}, dtype=dtype)
    (stop, *_) = sorted(generator.stop_ids)
    tokens: list[Copied] = []
    with generator.using("new"):
        for context, references in zip(contexts, found, strict=True):
            prompt = held_out.prompt(generator, context)
            reply = [*token_ids(generator.tokenizer, context.reference), stop]
            reply = reply[: max(0, spec.recipe.max_length - len(prompt))]
            if reply:
                words = torch.tensor(index.copied(references), device=generator.device)
                mass = generator.reply_logprobs(prompt, reply)[:, words].exp().sum(1).tolist()
                copied = set(words.tolist())
                tokens += [Copied(p, w in copied) for p, w in zip(mass, reply, strict=True)]
    return round(best_bias(tokens), 2)


def best_bias(tokens: Sequence[Copied]) -> float:
    """The b in [0, `MOST`] that maximises the sum of b [w in R] - log(1 - p + p exp(b)).

    Its slope, the copied tokens less those expected under b, falls with b.
    """
    p = torch.tensor([token.probability for token in tokens], dtype=torch.float64).clamp(0.0, 1.0)
    copied = sum(token.is_copied for token in tokens)

    def slope(bias: float) -> float:
        raised = p * torch.tensor(bias, dtype=torch.float64).exp()
        return copied - float((raised / (1 - p + raised)).sum())

    low, high = 0.0, MOST
    if not tokens or slope(low) <= 0:
        return low
    if slope(high) >= 0:
        return high
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return low
