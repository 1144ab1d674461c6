"""From a conversation to token ids and the loss mask.

Training sees exactly the text that serving renders: the base's own chat template, tokenised once
for the whole conversation. Rendering prefixes gives the mask: the difference between
``render(turns before, add_generation_prompt=True)`` and ``render(turns up to the reply)`` is what
the model has to write. The mask includes the stop token, but not the newline that a template puts
after it. This works for any template, so there is no second one with ``{% generation %}`` markers
that could drift from the one that serves.

Some templates write a past reply differently from the newest one (Qwen3 drops its thinking
block). There each reply becomes a sequence of its own, rendered as serving would render it.

A customer's turn may be shown with references (`training.retrieval`) while it is answered, and
stands in the history without them afterwards. Such a reply is a `Branch`: what the model reads for
it is the conversation up to the turn, and then the turn as it is shown. So the history is in the
sequence once, however many replies follow it.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from connectors.conversation import ChatMessage
from training.errors import BadInput

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase


class Branch(NamedTuple):
    """The tokens ``start`` to ``end`` (half-open) follow the first ``after``, not those between."""

    after: int
    start: int
    end: int


class TrainingSequence(msgspec.Struct, frozen=True):
    """Token ids, and for each whether its loss counts.

    ``loss_mask`` is False for the first token, and for the first of each branch. ``branches`` are at the
    end, one after another; each sees what is before its ``after``, and itself.
    """

    token_ids: list[int]
    loss_mask: list[bool]
    branches: tuple[Branch, ...] = ()

    @property
    def positions(self) -> list[int]:
        """The place of each token in what the model reads."""
        trunk = self.branches[0].start if self.branches else len(self.token_ids)
        found = list(range(trunk))
        for after, start, end in self.branches:
            found += range(after, after + end - start)
        return found

    def paths(self) -> list[list[int]]:
        """The places of the tokens that the model reads together: the trunk, then each branch's."""
        trunk = self.branches[0].start if self.branches else len(self.token_ids)
        branches = [[*range(after), *range(start, end)] for after, start, end in self.branches]
        return [list(range(trunk)), *branches]


def stop_token_ids(
    tokenizer: "PreTrainedTokenizerBase", generation_config: "GenerationConfig | None"
) -> frozenset[int]:
    """Tokens at which the engine ends a reply: the tokenizer's and the generation config's."""
    ids = generation_config.eos_token_id if generation_config is not None else None
    listed = ids if isinstance(ids, list) else [ids]
    return frozenset(i for i in (*listed, tokenizer.eos_token_id) if i is not None)


def render(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[ChatMessage],
    *,
    add_generation_prompt: bool = False,
) -> str:
    """Text of a conversation as the engine renders it.

    With ``add_generation_prompt``, it ends where the next reply begins.

    Raises:
        BadInput: the template refuses the conversation (some allow no system message).
    """
    plain = [{"role": m.role, "content": m.content} for m in messages]
    try:
        text: str = tokenizer.apply_chat_template(
            plain, tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except Exception as exc:  # Jinja raises what the template says, of any type
        raise BadInput(f"the base's chat template refuses this conversation: {exc}") from exc
    return text


def token_ids(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Tokenise rendered text; special tokens in it are recognised, none is added."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def training_sequences(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[ChatMessage],
    *,
    stop_ids: Collection[int],
    max_length: int,
    shown: Mapping[int, str] | None = None,
) -> list[TrainingSequence]:
    """Encode a conversation: usually as one sequence, else as one for each reply (see the module).

    Replies with weight 0 are read, but not trained on.

    Args:
        tokenizer: The base's, with its chat template.
        messages: The conversation, system message included.
        stop_ids: Tokens that end a reply; see `stop_token_ids`.
        max_length: Tokens of a sequence, at most. A longer conversation loses its oldest exchanges
            and keeps the system message.
        shown: For some replies, by their place in ``messages``: the text of the customer's turn before
            them as it is shown while they are written. They become branches, and do not count as they
            stand in the conversation.

    Returns:
        The sequences; none where the last exchange alone is too long, or no reply has weight.

    Raises:
        BadInput: the template does not open a reply the way it writes one, or does not end it.
    """
    shown = shown or {}
    replies = [i for i, m in enumerate(messages) if m.role == "assistant" and m.weight]
    if not replies:
        return []
    counted = [i for i in replies if i not in shown]
    whole = render(tokenizer, messages)
    written = {i: render(tokenizer, messages[: i + 1]) for i in replies}
    if not all(whole.startswith(text) for text in written.values()):
        pieces = [messages[: i + 1] for i in counted]
        pieces += [_as_shown(messages, i, text) for i, text in shown.items() if i in replies]
        return [
            sequence
            for piece in pieces
            for sequence in _fit(
                tokenizer, piece, [len(piece) - 1], stop_ids=stop_ids, max_length=max_length
            )
        ]
    if not any(i in shown for i in replies):
        return _fit(tokenizer, messages, replies, stop_ids=stop_ids, max_length=max_length)
    return _with_branches(
        tokenizer,
        messages,
        counted,
        {i: text for i, text in shown.items() if i in replies},
        stop_ids=stop_ids,
        max_length=max_length,
    )


def _as_shown(messages: Sequence[ChatMessage], reply: int, text: str) -> list[ChatMessage]:
    """The conversation up to a reply, with the turn before it as it is shown."""
    turn = msgspec.structs.replace(messages[reply - 1], content=text)
    return [*messages[: reply - 1], turn, messages[reply]]


def _with_branches(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[ChatMessage],
    counted: Sequence[int],
    shown: Mapping[int, str],
    *,
    stop_ids: Collection[int],
    max_length: int,
) -> list[TrainingSequence]:
    """One trunk, and a branch for each reply of ``shown``; more sequences where they do not fit."""
    trunk = token_ids(tokenizer, render(tokenizer, messages))
    found: list[TrainingSequence] = []
    branches: list[tuple[int, TrainingSequence]] = []
    for reply, text in shown.items():
        piece = _as_shown(messages, reply, text)
        ids = token_ids(tokenizer, render(tokenizer, piece))
        start, end = _reply_span(tokenizer, piece, len(piece) - 1, ids, stop_ids)
        after = min(_common_prefix(ids, trunk), start - 1)
        if end > max_length:  # what is left of its history differs from the trunk
            found += _fit(
                tokenizer, piece, [len(piece) - 1], stop_ids=stop_ids, max_length=max_length
            )
            continue
        mask = [False] * (start - after) + [True] * (end - start)
        branches.append((after, TrainingSequence(ids[after:end], mask)))
    if not counted:
        rows = [TrainingSequence([], [])]
    else:
        rows = _fit(tokenizer, messages, counted, stop_ids=stop_ids, max_length=max_length)
        if not rows or len(trunk) > max_length:  # a shortened trunk is not what branches follow
            found += rows
            rows = [TrainingSequence([], [])]
    return [*_attach(rows[0], trunk, branches, max_length=max_length), *found]


def _attach(
    row: TrainingSequence,
    trunk: list[int],
    branches: Sequence[tuple[int, TrainingSequence]],
    *,
    max_length: int,
) -> list[TrainingSequence]:
    """Put branches behind ``row``, and behind further copies of the trunk where one gets too long."""
    rows: list[TrainingSequence] = []
    group: list[tuple[int, TrainingSequence]] = []
    for branch in branches:
        if group and _length(row, [*group, branch]) > max_length:
            rows.append(_joined(row, trunk, group))
            row, group = TrainingSequence([], []), []
        elif not group and row.token_ids and _length(row, [branch]) > max_length:
            rows.append(row)
            row = TrainingSequence([], [])
        group.append(branch)
    if group or row.token_ids:
        rows.append(_joined(row, trunk, group))
    return rows


def _length(row: TrainingSequence, group: Sequence[tuple[int, TrainingSequence]]) -> int:
    needed = max(len(row.token_ids), *(after for after, _ in group))
    return needed + sum(len(branch.token_ids) for _, branch in group)


def _joined(
    row: TrainingSequence, trunk: list[int], group: Sequence[tuple[int, TrainingSequence]]
) -> TrainingSequence:
    """The trunk, as long as it is needed, and the branches."""
    needed = max([len(row.token_ids), *(after for after, _ in group)])
    ids = trunk[:needed]
    mask = [*row.loss_mask, *[False] * (needed - len(row.loss_mask))]
    places: list[Branch] = []
    for after, branch in group:
        places.append(Branch(after, len(ids), len(ids) + len(branch.token_ids)))
        ids += branch.token_ids
        mask += branch.loss_mask
    return TrainingSequence(ids, mask, tuple(places))


def _fit(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[ChatMessage],
    replies: Sequence[int],
    *,
    stop_ids: Collection[int],
    max_length: int,
) -> list[TrainingSequence]:
    """Encode, dropping the oldest exchange until the sequence fits."""
    ids = token_ids(tokenizer, render(tokenizer, messages))
    if len(ids) > max_length:
        kept = drop_oldest_exchange(messages)
        if kept is None:
            return []
        dropped = len(messages) - len(kept)
        first = next(i for i, m in enumerate(kept) if m.role == "user")
        later = [i - dropped for i in replies if i - dropped > first]
        if not later:
            return []
        return _fit(tokenizer, kept, later, stop_ids=stop_ids, max_length=max_length)
    mask = [False] * len(ids)
    for i in replies:
        start, end = _reply_span(tokenizer, messages, i, ids, stop_ids)
        mask[start:end] = [True] * (end - start)
    return [TrainingSequence(ids, mask)]


def drop_oldest_exchange(messages: Sequence[ChatMessage]) -> list[ChatMessage] | None:
    """The messages without their first exchange; None where there is only one."""
    users = [i for i, m in enumerate(messages) if m.role == "user"]
    if len(users) < 2:  # noqa: PLR2004
        return None
    return [*messages[: users[0]], *messages[users[1] :]]


def _reply_span(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[ChatMessage],
    reply: int,
    ids: list[int],
    stop_ids: Collection[int],
) -> tuple[int, int]:
    """Half-open range of the tokens of ``ids`` that the model writes for ``messages[reply]``."""
    opened = render(tokenizer, messages[:reply], add_generation_prompt=True)
    written = render(tokenizer, messages[: reply + 1])
    if not written.startswith(opened):
        raise BadInput(
            "the base's chat template opens a reply with "
            f"{opened[-40:]!r} but writes it differently: it cannot be trained on"
        )
    prompt = token_ids(tokenizer, opened)
    start = _common_prefix(prompt, ids)
    if start < len(prompt):  # the reply's first characters merged into the prompt's last token
        start += 1
    end = _common_prefix(token_ids(tokenizer, written), ids)
    while end > start and ids[end - 1] not in stop_ids:
        end -= 1
    if end == start:
        raise BadInput(
            "the base's chat template does not end a reply with a stop token "
            f"({sorted(stop_ids)}): a model trained on it would never stop"
        )
    return start, end


def _common_prefix(one: list[int], other: list[int]) -> int:
    for i, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return i
    return min(len(one), len(other))
