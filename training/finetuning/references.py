"""Before training: the index of the training split, and what each reply is shown of it.

Both are kept in the run's folder, so a run that resumes trains on the same:

    retrieval.safetensors   `training.retrieval.index.ExchangeIndex`; the adapter takes it along
    shown.json              the customers' turns as they are shown, of training and validation
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import torch

from connectors.conversation import Split
from training.adapters.package import INDEX_NAME
from training.config import TrainingSpec
from training.data.chat_template import stop_token_ids, token_ids
from training.data.contexts import contexts_of
from training.data.dataset import Dataset, Example, load
from training.data.products import find_products
from training.errors import Interrupted
from training.evaluation.sentence_embedder import load_embedder
from training.events import EventWriter, StageEvent
from training.filesystem import write_atomically
from training.finetuning.preparation import examples_of
from training.retrieval import large
from training.retrieval.articles import ArticleIndex, sha256_of
from training.retrieval.index import ExchangeIndex
from training.retrieval.prompts import Shown, find_references, shown_turns, training_turns

SHOWN_FILE = "shown.json"


def settle_references(spec: TrainingSpec, progress: EventWriter) -> TrainingSpec:
    """The spec without ``references`` where too few replies are distinct; otherwise as it is.

    Where agents pick from a few templates, the weights hold them, and a run learns more from more
    conversations than from longer prompts (``training/LOG.md``).

    Raises:
        BadInput: the dataset is not whole.
    """
    recipe = spec.recipe
    if not recipe.references:
        return spec
    replies = [
        context.reference
        for example in load(Path(spec.dataset)).read("train")
        for context in contexts_of(example)
    ]
    share = len(set(replies)) / len(replies) if replies else 0.0
    if share >= recipe.min_distinct_replies:
        return spec
    progress.emit(
        StageEvent,
        stage="indexing",
        detail=f"no past exchanges are shown: {share:.0%} of the replies are distinct, and the recipe "
        f"shows them from {recipe.min_distinct_replies:.0%} on",
    )
    return msgspec.structs.replace(spec, recipe=msgspec.structs.replace(recipe, references=0))


class ShownSplits(msgspec.Struct, frozen=True, kw_only=True):
    """What is shown of each split. ``made_from``: dataset, seed and recipe, hashed."""

    made_from: str
    splits: dict[Split, Shown]


def prepare_references(
    spec: TrainingSpec, out: Path, progress: EventWriter, *, should_stop: Callable[[], bool]
) -> dict[Split, Shown]:
    """Index the training split and find what each reply is shown; what is there already is read.

    Nothing is done where the recipe has no use for it (`uses_index`), and the spec no ``knowledge``. An index is
    only made for the former.

    Raises:
        BadInput: the dataset or the file of articles is not whole.
        Interrupted: ``should_stop`` said so.
    """
    recipe = spec.recipe
    if not recipe.uses_index and spec.knowledge is None:
        return {}
    dataset = load(Path(spec.dataset))
    made_from = _made_from(spec, dataset)
    path = out / SHOWN_FILE
    if path.is_file():
        found = msgspec.json.decode(path.read_bytes(), type=ShownSplits)
        if found.made_from == made_from and (not recipe.uses_index or (out / INDEX_NAME).is_file()):
            return found.splits
    what = ["past exchanges"] * recipe.uses_index + ["articles"] * (spec.knowledge is not None)
    progress.emit(StageEvent, stage="indexing", detail=f"{' and '.join(what)}, by meaning")
    index = None
    if recipe.uses_index:
        copies = recipe.copy_words and not recipe.references
        tokenize = copied_tokens(Path(spec.base)) if copies else None
        index = build_index(dataset, should_stop=should_stop, tokenize=tokenize)
        index.save(out / INDEX_NAME)
        if len(index) > large.EXACT_ROWS:
            index = ExchangeIndex.load(out / INDEX_NAME)  # searched as it will be when it is served
    shown = ShownSplits(made_from=made_from, splits=find_shown(spec, dataset, index))
    write_atomically(path, msgspec.json.encode(shown))
    return shown.splits


def _made_from(spec: TrainingSpec, dataset: Dataset) -> str:
    """A hash of all that decides what is shown."""
    recipe = spec.recipe
    shares = (recipe.unreferenced, recipe.distractors)
    facts = [dataset.sha256, spec.seed, spec.method, recipe.references, shares, recipe.copy_words]
    if spec.knowledge is not None:
        facts.append(sha256_of(Path(spec.knowledge)))
    return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()


def find_shown(
    spec: TrainingSpec, dataset: Dataset, index: ExchangeIndex | None
) -> dict[Split, Shown]:
    """What the replies that a run reads are shown of the index and the spec's articles, training and validation.

    Raises:
        BadInput: the file of articles is not whole.
    """
    recipe = spec.recipe
    articles = ArticleIndex.load(Path(spec.knowledge)) if spec.knowledge is not None else None
    if not recipe.references and articles is None:
        return {}
    train, validation = (examples_of(spec, dataset, split) for split in ("train", "validation"))
    # what desirable replies are shown must not tell them from undesirable ones
    compares = spec.method != "supervised"
    embed = load_embedder(torch.float32)
    indexed = training_turns(
        _indexed(train),
        index,
        recipe.references,
        unreferenced=0.0 if compares else recipe.unreferenced,
        distractors=0.0 if compares else recipe.distractors,
        seed=spec.seed,
        embed=embed,
        articles=articles,
    )

    def found(examples: Sequence[Example]) -> Shown:
        """What replies that are not in the index are shown."""
        contexts = [context for example in examples for context in contexts_of(example)]
        references = find_references(
            contexts, index, recipe.references, embed=embed, articles=articles
        )
        return shown_turns(contexts, references)

    undesirable = [example for example in train if not example.desirable]
    return {"train": indexed | found(undesirable), "validation": found(validation)}


def copied_tokens(base: Path) -> Callable[[str], list[int]]:
    """Gives a reply's token ids of a base, each once, with those that end its turn."""
    from transformers import AutoTokenizer, GenerationConfig  # noqa: PLC0415 - takes seconds

    serving = base / "serving"
    tokenizer = AutoTokenizer.from_pretrained(serving)
    try:
        stop_ids = stop_token_ids(tokenizer, GenerationConfig.from_pretrained(serving))
    except OSError:  # the base has none
        stop_ids = stop_token_ids(tokenizer, None)
    return lambda reply: sorted({*token_ids(tokenizer, reply), *stop_ids})


def build_index(
    dataset: Dataset,
    *,
    should_stop: Callable[[], bool],
    tokenize: Callable[[str], list[int]] | None = None,
) -> ExchangeIndex:
    """Index the training split's desirable replies: what was unwanted is no example to follow.

    ``tokenize``: see `ExchangeIndex.build`.

    Raises:
        Interrupted: ``should_stop`` said so.
    """

    def stop_or_go(done: int, total: int) -> None:
        if should_stop():
            raise Interrupted(f"stopped after {done:,} of {total:,} texts were indexed")

    examples = _indexed(dataset.read("train"))
    index = ExchangeIndex.build(
        examples,
        embed=load_embedder(torch.float32),
        on_progress=stop_or_go,
        tokenize=tokenize,
    )
    index.products = find_products(examples, system_prompt=dataset.system_prompt)
    return index


def _indexed(examples: Sequence[Example]) -> list[Example]:
    return [example for example in examples if example.desirable]
