"""Decides which conversations a dataset keeps, and which split each belongs to.

No two splits hold near-duplicates (`training.data.deduplication`): conversations in which customers
ask nearly the same go to one split together. A conversation is dropped as a duplicate only where
the customer's *and* the agent's side are nearly identical, since training needs the same question
in other words (measured on 5,247 short exchanges: dropping at 0.70 loses 813, at 0.90 loses 58).
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, assert_never, get_args

import msgspec

from connectors.control_tokens import has_control_token
from connectors.conversation import ChatMessage, Conversation, Role, Split, Turn, chat_messages
from connectors.preference import Preference, UnpairedPreference
from training.data.deduplication import (
    SAME_SPLIT,
    candidates,
    digest,
    jaccard,
    normalise,
    shingles,
)

SPLITS: tuple[Split, ...] = get_args(Split)
DUPLICATE = 0.90  # similarity of the customer's side, and of the agent's

REASONS = (
    "unanswered",
    "nothing_to_train",
    "control_token",
    "exact_duplicate",
    "near_duplicate",
    "near_duplicate_of_other_split",
)
NO_PREFERENCE = "no_preference"  # both replies say the same; counted for preferences alone


Record = Conversation | Preference | UnpairedPreference

_NOT_SPOKEN = (Role.NOTE, Role.SYSTEM)


class UsableRecord(NamedTuple):
    """A record that can be trained on. The first of several duplicates in sort order is kept.

    ``rank``: train sorts before held-out. ``key`` and ``raw``: hashes of the normalised and of the
    exact content. ``messages`` ends in the chosen reply of a preference. ``label``: whether that
    reply is desirable. ``customer`` and ``agent``: what each side says, normalised; ``unwanted``:
    the rejected reply, normalised.
    """

    rank: int
    key: str
    raw: str
    id: str
    pinned: Split | None
    messages: list[ChatMessage]
    rejected: str | None
    label: bool
    customer: str
    agent: str
    unwanted: str


def usable(records: Iterable[Record], dropped: Counter[str]) -> list[UsableRecord]:
    """The records that can be trained on, sorted: their order of arrival does not matter."""
    items = []
    for record in records:
        messages, rejected = _messages(record)
        texts = [message.content for message in messages] + ([rejected] if rejected else [])
        if not messages:
            dropped["unanswered"] += 1
        elif not any(m.role == "assistant" and m.weight and m.content.strip() for m in messages):
            dropped["nothing_to_train"] += 1
        elif any(map(has_control_token, texts)):
            dropped["control_token"] += 1
        elif rejected is not None and rejected.split() == messages[-1].content.split():
            dropped[NO_PREFERENCE] += 1
        else:
            items.append(_item(record, messages, rejected))
    return sorted(items, key=lambda item: item[:4])


def _messages(record: Record) -> tuple[list[ChatMessage], str | None]:
    """(messages, rejected reply); in a preference or judgement only the last reply has weight."""
    match record:
        case Conversation():
            return chat_messages(record), None
        case UnpairedPreference():
            return _one_reply(record.turns), None
        case Preference():
            asked = [turn for turn in record.turns if turn.role not in _NOT_SPOKEN]
            chosen = _one_reply((*record.turns, *record.chosen))
            rejected = _one_reply((*record.turns, *record.rejected))
            last_asks = bool(asked) and asked[-1].role == Role.CUSTOMER
            if not last_asks or not rejected or chosen[:-1] != rejected[:-1]:
                return [], None
            return chosen, rejected[-1].content
        case _:
            assert_never(record)


def _one_reply(turns: tuple[Turn, ...]) -> list[ChatMessage]:
    """Messages with weight on the last reply only; none where the last turn is not a reply."""
    spoken = [turn for turn in turns if turn.role not in _NOT_SPOKEN]
    messages = chat_messages(Conversation(id="", turns=turns))
    if not messages or spoken[-1].role == Role.CUSTOMER:
        return []
    before = [
        msgspec.structs.replace(m, weight=0 if m.role == "assistant" else m.weight)
        for m in messages[:-1]
    ]
    return [*before, msgspec.structs.replace(messages[-1], weight=1)]


def _item(record: Record, messages: list[ChatMessage], rejected: str | None) -> UsableRecord:
    ranks = {"train": 0, None: 1, "validation": 2, "test": 3}
    label = record.label if isinstance(record, UnpairedPreference) else True
    said = [f"{m.role} {normalise(m.content)}" for m in messages]
    whole = msgspec.json.encode(messages)
    if rejected is not None:
        said.append(f"rejected {normalise(rejected)}")
        whole += rejected.encode()
    if not label:
        said.append("unwanted")
        whole += b"unwanted"
    return UsableRecord(
        rank=ranks[record.split],
        key=digest(*said),
        raw=hashlib.sha256(whole).hexdigest(),
        id=record.id,
        pinned=record.split,
        messages=messages,
        rejected=rejected,
        label=label,
        customer=customer_side(messages),
        agent=_side(messages, "assistant"),
        unwanted=normalise(rejected or ""),
    )


def customer_side(messages: Iterable[ChatMessage]) -> str:
    """All that the customer says, normalised: equal where the same is asked."""
    return _side(messages, "user")


def _side(messages: Iterable[ChatMessage], role: str) -> str:
    return normalise("".join(m.content + "\n" for m in messages if m.role == role))


def exact_duplicates(
    items: Iterable[UsableRecord],
) -> tuple[list[UsableRecord], list[UsableRecord]]:
    """(first occurrences, exact repeats); digits and punctuation do not count."""
    first: dict[str, UsableRecord] = {}
    others = [item for item in items if first.setdefault(item.key, item) is not item]
    return list(first.values()), others


def is_usable(record: Record, dropped: Counter[str]) -> bool:
    """Whether the record can be trained on; if not, ``dropped`` counts the reason."""
    return bool(usable([record], dropped))


def cluster_near_duplicates(
    items: Sequence[UsableRecord], dropped: Counter[str], *, keep: bool = False
) -> list[list[UsableRecord]]:
    """Group items that must be in one split, and drop those that duplicate an earlier item.

    With ``keep``, duplicates stay in their group; only an item pinned to another split is dropped.
    """
    from scipy.cluster.hierarchy import (  # noqa: PLC0415 - 1 s
        DisjointSet,
    )

    texts = [shingles(item.customer) for item in items]
    groups = DisjointSet(range(len(items)))
    gone: set[int] = set()
    for i, j in candidates(texts):
        if i in gone or j in gone:
            continue
        pinned = items[i].pinned if items[i].pinned != "train" else None
        apart = pinned is not None and pinned != items[j].pinned
        if keep and not apart and groups.connected(i, j):
            continue  # among ten thousand similar texts, one comparison each is enough
        similarity = jaccard(texts[i], texts[j])
        if similarity < SAME_SPLIT:
            continue
        if apart:
            gone.add(i)
            dropped["near_duplicate_of_other_split"] += 1
        elif not keep and similarity >= DUPLICATE and _same_answers(items[i], items[j]):
            gone.add(i)
            dropped["near_duplicate"] += 1
        else:
            groups.merge(i, j)
    together: dict[int, list[UsableRecord]] = {}
    for at, item in enumerate(items):
        if at not in gone:
            together.setdefault(groups[at], []).append(item)
    return list(together.values())


def _same_answers(a: UsableRecord, b: UsableRecord) -> bool:
    return a.label == b.label and _same(a.agent, b.agent) and _same(a.unwanted, b.unwanted)


def _same(a: str, b: str) -> bool:
    return a == b or jaccard(shingles(a), shingles(b)) >= DUPLICATE


def assign_splits(
    clusters: Sequence[list[UsableRecord]], *, seed: int, fractions: tuple[float, float, float]
) -> dict[Split, list[UsableRecord]]:
    """Assign by the hash of (seed, cluster), so that a growing dataset keeps its old test split.

    In a small dataset, a held-out split takes the clusters nearest to its edge until it has half of
    its share, and at least one conversation. A cluster of more than twice the share goes to train.

    Args:
        clusters: From `cluster_near_duplicates`; each stays whole.
        seed: Of the hash.
        fractions: Shares of train, validation and test of the clusters that are not pinned.
    """
    splits: dict[Split, list[UsableRecord]] = {split: [] for split in SPLITS}
    free: list[tuple[float, str, list[UsableRecord]]] = []
    for cluster in clusters:
        pinned = next((item.pinned for item in cluster if item.pinned), None)
        if pinned:
            splits[pinned] += cluster
        else:
            name = min(digest(item.customer) for item in cluster)
            free.append((int(digest(str(seed), name)[:13], 16) / 16**13, name, cluster))
    free.sort(key=lambda entry: entry[:2], reverse=True)
    total = sum(len(cluster) for _, _, cluster in free)
    held_out: tuple[tuple[Split, float], ...] = (
        ("test", fractions[2]),
        ("validation", fractions[1]),
    )
    edge = 1.0
    for split, share in held_out:
        edge -= share
        if splits[split] or not share:
            continue
        left = []
        for entry in free:
            hashed, _, cluster = entry
            short = len(splits[split]) < max(1, int(share * total / 2))
            if (hashed >= edge or short) and len(cluster) <= max(1, 2 * share * total):
                splits[split] += cluster
            else:
                left.append(entry)
        free = left
    for _, _, cluster in free:
        splits["train"] += cluster
    return splits
