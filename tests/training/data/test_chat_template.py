"""The loss mask is what the model writes: every reply with its stop token, and nothing else."""

from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.conversation import ChatMessage
from tests.tiny import CHATML
from training.data.chat_template import TrainingSequence, render, token_ids, training_sequences
from training.errors import BadInput

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(120)]

TRIMMING = (  # as Llama 3: content is trimmed, a header stands before it
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n\n{{ m['content'] | trim }}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n\n{% endif %}"
)
THINKING = (  # as Qwen3: only the newest reply has its (empty) thoughts before it
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if loop.last and m['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(
    lambda text: text.strip() and "<|" not in text
)


@st.composite
def conversations(draw: st.DrawFn) -> list[ChatMessage]:
    messages = [ChatMessage("system", draw(TEXT))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 4))):
        weight: Literal[0, 1] = draw(st.sampled_from([1, 1, 1, 0]))
        messages += [ChatMessage("user", draw(TEXT))]
        messages += [ChatMessage("assistant", draw(TEXT), weight=weight)]
    return messages


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> Any:
    from transformers import AutoTokenizer  # noqa: PLC0415 - loads torch

    return AutoTokenizer.from_pretrained(tiny_base / "serving")


def encode(
    tokenizer: Any,
    messages: list[ChatMessage],
    *,
    template: str = CHATML,
    length: int = 4096,
    shown: dict[int, str] | None = None,
) -> list[TrainingSequence]:
    tokenizer.chat_template = template
    stops = {tokenizer.eos_token_id}
    return training_sequences(tokenizer, messages, stop_ids=stops, max_length=length, shown=shown)


def masked_text(tokenizer: Any, sequence: TrainingSequence) -> str:
    pairs = zip(sequence.token_ids, sequence.loss_mask, strict=True)
    text: str = tokenizer.decode([token for token, masked in pairs if masked])
    return text


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(messages=conversations())
@pytest.mark.parametrize("template", [CHATML, TRIMMING])
def test_training_reads_the_tokens_that_serving_renders(
    tokenizer: Any, template: str, messages: list[ChatMessage]
) -> None:
    for sequence in encode(tokenizer, messages, template=template):
        plain = [{"role": m.role, "content": m.content} for m in messages]
        served = tokenizer.apply_chat_template(plain, tokenize=True, return_dict=False)
        assert sequence.token_ids == served


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(messages=conversations())
def test_the_replies_with_their_stop_tokens_are_learnt_and_nothing_else(
    tokenizer: Any, messages: list[ChatMessage]
) -> None:
    replies = [m.content for m in messages if m.role == "assistant" and m.weight]
    expected = "".join(f"{reply}<|im_end|>" for reply in replies)
    sequences = encode(tokenizer, messages)
    assert len(sequences) == bool(replies)
    masked = "".join(masked_text(tokenizer, s) for s in sequences)
    # A reply that begins with white space can share its first token with the line break before it.
    assert masked == expected or any(r[0].isspace() for r in replies)
    assert masked.count("<|im_end|>") == len(replies)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(messages=conversations())
def test_what_comes_before_a_reply_is_what_the_engine_is_given(
    tokenizer: Any, messages: list[ChatMessage]
) -> None:
    for sequence in encode(tokenizer, messages):
        first = sequence.loss_mask.index(True)
        weighted = next(i for i, m in enumerate(messages) if m.role == "assistant" and m.weight)
        prompt = token_ids(
            tokenizer, render(tokenizer, messages[:weighted], add_generation_prompt=True)
        )
        if not messages[weighted].content[0].isspace():
            assert sequence.token_ids[:first] == prompt


def test_a_reply_with_weight_zero_is_read_and_not_learnt(tokenizer: Any) -> None:
    messages = [
        ChatMessage("user", "One?"),
        ChatMessage("assistant", "Wrong.", weight=0),
        ChatMessage("user", "Two?"),
        ChatMessage("assistant", "Right."),
    ]
    (sequence,) = encode(tokenizer, messages)
    assert masked_text(tokenizer, sequence) == "Right.<|im_end|>"
    assert "Wrong." in tokenizer.decode(sequence.token_ids)


def test_a_long_conversation_loses_its_oldest_exchanges_and_keeps_the_system_message(
    tokenizer: Any,
) -> None:
    messages = [ChatMessage("system", "Be brief.")]
    for i in range(30):
        messages += [ChatMessage("user", f"q{i}"), ChatMessage("assistant", f"a{i}")]
    (whole,) = encode(tokenizer, messages)
    (cut,) = encode(tokenizer, messages, length=len(whole.token_ids) // 2)
    text = tokenizer.decode(cut.token_ids)
    assert len(cut.token_ids) <= len(whole.token_ids) // 2
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nq")
    assert "a29" in text
    assert "q0" not in text


def test_an_exchange_that_is_too_long_by_itself_is_left_out(tokenizer: Any) -> None:
    messages = [ChatMessage("user", "word " * 200), ChatMessage("assistant", "yes")]
    assert encode(tokenizer, messages, length=64) == []


def test_a_template_that_rewrites_history_gives_one_sequence_a_reply(tokenizer: Any) -> None:
    messages = [
        ChatMessage("user", "One?"),
        ChatMessage("assistant", "First."),
        ChatMessage("user", "Two?"),
        ChatMessage("assistant", "Second."),
    ]
    sequences = encode(tokenizer, messages, template=THINKING)
    assert [masked_text(tokenizer, s) for s in sequences] == [
        "<think>\n\n</think>\n\nFirst.<|im_end|>",
        "<think>\n\n</think>\n\nSecond.<|im_end|>",
    ]
    assert "<think>" not in tokenizer.decode(sequences[1].token_ids).split("Two?")[0]


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        (CHATML.replace("<|im_end|>", "."), "stop token"),
        (CHATML.replace("<|im_start|>assistant", "<|im_start|>bot"), "cannot be trained on"),
        ("{{ raise_exception('no system message here') }}", "no system message here"),
    ],
)
def test_a_template_that_cannot_be_trained_on_is_refused(
    tokenizer: Any, template: str, complaint: str
) -> None:
    messages = [ChatMessage("user", "Hello?"), ChatMessage("assistant", "Hello.")]
    with pytest.raises(BadInput, match=complaint):
        encode(tokenizer, messages, template=template)


def read_paths(sequences: list[TrainingSequence]) -> list[tuple[list[int], list[bool]]]:
    """What the model reads together, with its mask, of each trunk and branch that is learnt from."""
    found = []
    for sequence in sequences:
        for path in sequence.paths():
            mask = [sequence.loss_mask[place] for place in path]
            if any(mask):
                found.append(([sequence.token_ids[place] for place in path], mask))
    return found


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(messages=conversations(), data=st.data())
@pytest.mark.parametrize("template", [CHATML, TRIMMING, THINKING])
def test_a_reply_that_is_shown_references_reads_what_serving_renders(
    tokenizer: Any, template: str, messages: list[ChatMessage], data: st.DataObject
) -> None:
    places = [i for i, m in enumerate(messages) if m.role == "assistant" and m.weight]
    chosen = data.draw(st.sets(st.sampled_from(places))) if places else set()
    shown = {i: f"Q: past\nA: reply {i}\n\n{messages[i - 1].content}" for i in sorted(chosen)}
    sequences = encode(tokenizer, messages, template=template, shown=shown)
    paths = read_paths(sequences)
    learnt = 0
    for i, text in shown.items():
        piece = [*messages[: i - 1], ChatMessage("user", text), messages[i]]
        (alone,) = encode(tokenizer, [*without_weight(piece[:-1]), piece[-1]], template=template)
        end = len(alone.loss_mask) - alone.loss_mask[::-1].index(True)
        start = alone.loss_mask.index(True)
        matching = [mask for ids, mask in paths if ids[:end] == alone.token_ids[:end]]
        assert any(mask[start:end] == alone.loss_mask[start:end] for mask in matching)
        learnt += sum(alone.loss_mask)
    others = [m if i not in shown else weightless(m) for i, m in enumerate(messages)]
    learnt += sum(sum(each.loss_mask) for each in encode(tokenizer, others, template=template))
    assert sum(sum(each.loss_mask) for each in sequences) == learnt


def weightless(message: ChatMessage) -> ChatMessage:
    return ChatMessage(message.role, message.content, weight=0)


def without_weight(messages: list[ChatMessage]) -> list[ChatMessage]:
    return [weightless(m) if m.role == "assistant" else m for m in messages]


def test_the_history_is_in_the_sequence_once(tokenizer: Any) -> None:
    turns = [f"{'question' if i % 2 == 0 else 'reply'} number {i}" for i in range(6)]
    messages = [ChatMessage("assistant" if i % 2 else "user", text) for i, text in enumerate(turns)]
    shown = {i: f"A: {i}\n\n{turns[i - 1]}" for i in (1, 3, 5)}
    (sequence,) = encode(tokenizer, messages, shown=shown)
    text = tokenizer.decode(sequence.token_ids)
    assert len(sequence.branches) == 3
    assert text.count("number 0") == text.count("number 2") == 2  # in the history, and as shown
    assert text.count("number 4") == 1  # no later reply has it in its history


def test_branches_that_do_not_fit_into_one_sequence_get_another(tokenizer: Any) -> None:
    messages = [
        ChatMessage("assistant" if i % 2 else "user", f"a longer turn, number {i}")
        for i in range(8)
    ]
    shown = {i: f"A: something\n\n{messages[i - 1].content}" for i in (1, 3, 5, 7)}
    whole = encode(tokenizer, messages, shown=shown)
    parts = encode(tokenizer, messages, shown=shown, length=120)
    assert len(whole) == 1 < len(parts)
    assert all(len(part.token_ids) <= 120 for part in parts)
    assert sorted(read_paths(whole)) == sorted(read_paths(parts))


def test_a_branch_that_is_too_long_loses_its_oldest_exchanges(tokenizer: Any) -> None:
    messages = [
        ChatMessage("assistant" if i % 2 else "user", f"a longer turn, number {i}")
        for i in range(8)
    ]
    shown = {7: f"A: {'word ' * 20}\n\n{messages[6].content}"}
    sequences = encode(tokenizer, messages, shown=shown, length=100)
    text = [tokenizer.decode(sequence.token_ids) for sequence in sequences]
    last = next(each for each in text if "word word" in each)
    assert "number 7" in last
    assert "number 0" not in last
    assert all(len(sequence.token_ids) <= 100 for sequence in sequences)
