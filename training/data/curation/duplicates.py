"""Groups of conversations in which customers ask nearly the same."""

from collections.abc import Sequence

from connectors.conversation import Conversation, chat_messages
from training.data.deduplication import SAME_SPLIT, candidates, jaccard, shingles
from training.data.splitting import customer_side


def near_duplicates(conversations: Sequence[Conversation]) -> list[list[int]]:
    """Positions of conversations that belong together, the largest group first; none alone.

    As a dataset version compares them: character 4-grams of what the customer says, Jaccard similarity
    of at least 0.70 to one other of the group. Conversations without a reply are in no group.
    """
    from scipy.cluster.hierarchy import DisjointSet  # noqa: PLC0415 - 1 s

    asked = [
        (at, customer_side(messages))
        for at, conversation in enumerate(conversations)
        if (messages := chat_messages(conversation))
    ]
    texts = [shingles(text) for _, text in asked]
    groups = DisjointSet(range(len(texts)))
    for i, j in candidates(texts):
        if not groups.connected(i, j) and jaccard(texts[i], texts[j]) >= SAME_SPLIT:
            groups.merge(i, j)
    found = [sorted(asked[i][0] for i in group) for group in groups.subsets() if len(group) > 1]
    return sorted(found, key=lambda group: (-len(group), group))
