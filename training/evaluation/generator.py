"""The base and its adapters, loaded once: what evaluation asks of a model.

Scores given tokens and writes greedy replies, quickly on a CPU too: no logits but those asked
for, prompts of like length together, one decoding batch from which finished replies drop out.
"""

# ruff: noqa: TID253 - the second half of the door in training/evaluation/evaluate.py

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MethodType
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from peft.tuners.lora import Linear as LoraLinear
from safetensors import safe_open
from torch.nn import functional
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
)
from transformers.cache_utils import Cache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_outputs import BaseModelOutputWithPast

from training.adapters.validation import WEIGHTS_NAME
from training.base_models.quantize import load_nf4
from training.data.batching import length_batches
from training.data.chat_template import TrainingSequence, stop_token_ids
from training.results import Subject

BATCH_TOKENS = 4096
LOGIT_ROWS = 512  # rows of (vocabulary) float32 at a time: 100 MB at 49,152 words
_ATTENTION = "grouped_sdpa"

OnProgress = Callable[[int], None]  # told how many more sequences or replies are finished


class TokenLogprobs(NamedTuple):
    """For each learnt token: its log-probability, and the token held most probable there."""

    logprobs: list[float]
    greedy: list[int]


class Prefill(NamedTuple):
    """A model's state where a reply may start.

    ``layers``: keys and values, each (heads, length, size); ``hidden``: (hidden size,).
    """

    layers: list[tuple[torch.Tensor, torch.Tensor]]
    hidden: torch.Tensor
    length: int


class Generator:
    """A causal language model with adapters that are switched on one at a time."""

    def __init__(self, wrapped: PeftModel, folder: Path) -> None:
        self.peft = wrapped.eval()
        self.causal = wrapped.get_base_model()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.stop_ids = stop_token_ids(self.tokenizer, self.causal.generation_config)
        self.device = self.causal.device
        self._any_token = torch.zeros(1, 1, dtype=torch.long, device=self.device)

    @classmethod
    def serving(
        cls, folder: Path, adapters: Mapping[Subject, Path], *, dtype: torch.dtype
    ) -> "Generator":
        """The serving weights, computed in ``dtype`` the way an engine does."""
        AttentionInterface.register(_ATTENTION, _grouped_attention)
        AttentionMaskInterface.register(_ATTENTION, sdpa_mask)
        causal = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            device_map={"": _device()},
            attn_implementation=_ATTENTION,
        )
        (first, path), *others = adapters.items()
        wrapped = PeftModel.from_pretrained(causal, path, adapter_name=first)
        for name, path in others:
            wrapped.load_adapter(path, adapter_name=name)
        for module in wrapped.modules():
            if isinstance(module, LoraLinear):
                module.lora_A.to(dtype)
                module.lora_B.to(dtype)
                module.forward = MethodType(_fused_lora_forward, module)
        return cls(wrapped, folder)

    @classmethod
    def training(cls, folder: Path, adapter: Path, *, dtype: torch.dtype) -> "Generator":
        """The NF4 checkpoint with PEFT's own arithmetic in ``dtype``, as the trainer computes it.

        The adapter's weights keep the type that they are stored in, the one they were trained in.
        """
        wrapped = PeftModel.from_pretrained(
            load_nf4(folder, device=_device(), dtype=dtype),
            adapter,
            adapter_name="new",
            autocast_adapter_dtype=False,
        )
        with safe_open(adapter / WEIGHTS_NAME, framework="pt") as stored:
            trained_in = stored.get_tensor(next(iter(stored.keys()))).dtype
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.data = parameter.data.to(trained_in)
        return cls(wrapped, folder)

    @contextmanager
    def using(self, subject: Subject) -> Iterator[None]:
        """Switch to an adapter, or to none for ``base``; no gradients inside."""
        with torch.inference_mode():
            if subject == "base":
                with self.peft.disable_adapter():
                    yield
            else:
                self.peft.set_adapter(subject)
                yield

    def score(
        self,
        sequences: Sequence[TrainingSequence],
        prompt_lengths: Sequence[Sequence[int]],
        on_progress: OnProgress,
    ) -> tuple[list[TokenLogprobs], list[list[Prefill]]]:
        """Read sequences once: score what is learnt, and keep where replies may start.

        For each sequence, the log-probability of every learnt token given all before it; and for
        each of its ``cuts`` the state after so many tokens. A prompt that is the beginning of a
        conversation is thus never read a second time.
        """
        scored: dict[int, TokenLogprobs] = {}
        starts: dict[int, list[Prefill]] = {}
        lengths = [len(s.token_ids) for s in sequences]
        for batch in length_batches(lengths, max_tokens=BATCH_TOKENS):
            # Padding stands on the right, where causal attention keeps it from the tokens.
            ids = _pad([sequences[i].token_ids for i in batch], self.device)
            cache = DynamicCache() if any(prompt_lengths[i] for i in batch) else None
            hidden = self._decode(ids, past_key_values=cache)
            for row, index in enumerate(batch):
                learnt = torch.tensor(sequences[index].loss_mask, device=self.device).nonzero()[
                    :, 0
                ]
                scored[index] = self._score(hidden[row, learnt - 1], ids[row, learnt])
                starts[index] = [
                    _copy_prefill(hidden, cache, row, cut) for cut in prompt_lengths[index]
                ]
            on_progress(len(batch))
        order = range(len(sequences))
        return [scored[index] for index in order], [starts[index] for index in order]

    def _score(self, hidden: torch.Tensor, targets: torch.Tensor) -> TokenLogprobs:
        """hidden: (tokens, hidden size), the states before each of ``targets``: (tokens,)."""
        logprobs: list[float] = []
        greedy: list[int] = []
        for states, words in zip(hidden.split(LOGIT_ROWS), targets.split(LOGIT_ROWS), strict=True):
            if len(words):
                logits = self._logits(states).float()
                chosen = logits.gather(1, words[:, None])[:, 0] - logits.logsumexp(1)
                logprobs += chosen.tolist()
                greedy += logits.argmax(1).tolist()
        return TokenLogprobs(logprobs, greedy)

    def generate(
        self, prefills: Sequence[Prefill], max_tokens: int, on_progress: OnProgress
    ) -> list[list[int]]:
        """Greedy replies as token ids, without the token that ends a turn.

        All are decoded together; a finished one makes room for the others.
        """
        if not prefills:
            return []
        lengths = torch.tensor([start.length for start in prefills], device=self.device)
        longest = int(lengths.max())
        cache = Cache(layers=_roomy_layers(prefills, longest, longest + max_tokens))
        hidden = torch.stack([start.hidden for start in prefills])
        seen = torch.arange(longest, device=self.device) < lengths[:, None]
        written: list[list[int]] = [[] for _ in prefills]
        rows = list(range(len(prefills)))
        for _ in range(max_tokens):
            words = self._logits(hidden).argmax(-1)
            going = [i for i, word in enumerate(words.tolist()) if word not in self.stop_ids]
            on_progress(len(rows) - len(going))
            if len(going) < len(rows):
                rows = [rows[i] for i in going]
                keep = torch.tensor(going, dtype=torch.long, device=self.device)
                words, lengths, seen = words[keep], lengths[keep], seen[keep]
                cache.batch_select_indices(keep)
            if not rows:
                break
            for row, word in zip(rows, words.tolist(), strict=True):
                written[row].append(word)
            seen = functional.pad(seen, (0, 1), value=True)
            hidden = self._decode(
                words[:, None],
                past_key_values=cache,
                attention_mask=seen,
                position_ids=lengths[:, None],
            )[:, -1]
            lengths = lengths + 1
        on_progress(len(rows))
        return written

    def text(self, ids: Sequence[int]) -> str:
        """A reply's token ids as what the customer reads."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True)
        return text.strip()

    def _decode(
        self,
        ids: torch.Tensor,
        *,
        past_key_values: Cache | None,
        **options: torch.Tensor,
    ) -> torch.Tensor:
        """ids: (rows, positions) -> last hidden states: (rows, positions, hidden size)."""
        states: torch.Tensor = self.causal.get_decoder()(
            input_ids=ids,
            past_key_values=past_key_values,
            use_cache=past_key_values is not None,
            **options,
        ).last_hidden_state
        return states

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden: (rows, hidden size) -> (rows, vocabulary), for these rows alone.

        Goes through the model's own forward with the decoder standing still, since some models
        scale or cap their logits after the output layer.
        """
        decoder = self.causal.get_decoder()
        states = BaseModelOutputWithPast(last_hidden_state=hidden[None])
        decoder.forward = lambda *_, **__: states
        try:
            logits: torch.Tensor = self.causal(input_ids=self._any_token).logits[0]
        finally:
            del decoder.forward
        return logits


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _pad(rows: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """(rows, longest), padded with token 0 on the right."""
    ids = torch.zeros(len(rows), max(len(row) for row in rows), dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
    return ids.to(device)


def _copy_prefill(hidden: torch.Tensor, cache: Cache | None, row: int, length: int) -> Prefill:
    """Copy one row's state out of a batch, so that the batch can be let go."""
    layers = [
        (layer.keys[row, :, :length].clone(), layer.values[row, :, :length].clone())
        for layer in (cache.layers if cache is not None else ())
    ]
    return Prefill(layers, hidden[row, length - 1].clone(), length)


class _RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values with room for what will be written: a step copies one token, not all.

    Concatenating instead costs a fifth of a step of 32 rows with 200 tokens each.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, used: int) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values, self.used = keys, values, used

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new positions and return all that are used."""
        end = self.used + key_states.shape[-2]
        self.keys[:, :, self.used : end] = key_states
        self.values[:, :, self.used : end] = value_states
        self.used = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_seq_length(self) -> int:
        """Positions in use, of however many there is room for."""
        return self.used


def _roomy_layers(starts: Sequence[Prefill], used: int, room: int) -> list[_RoomyLayer]:
    """Join the starts' caches, padded on the right; whoever reads them masks those places."""
    joined: list[_RoomyLayer] = []
    for layer in zip(*(start.layers for start in starts), strict=True):
        parts: list[torch.Tensor] = []
        for states in zip(*layer, strict=True):
            heads, _, size = states[0].shape
            buffer = states[0].new_zeros(len(states), heads, room, size)
            for row, state in enumerate(states):
                buffer[row, :, : state.shape[1]] = state
            parts.append(buffer)
        joined.append(_RoomyLayer(parts[0], parts[1], used))
    return joined


def _grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,  # noqa: ANN401 - transformers' own
) -> tuple[torch.Tensor, None]:
    """Attention as transformers does it, but decoding on a CPU does not copy keys for each query head.

    A step of 32 rows with 200 tokens each of a 135M model: 97 ms of attention before, 21 after.
    """
    if query.shape[2] > 1 or attention_mask is None or query.device.type != "cpu":
        done: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **options
        )
        return done
    mixed = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, scale=options.get("scaling"), enable_gqa=True
    )
    return mixed.transpose(1, 2), None


def _fused_lora_forward(layer: LoraLinear, x: torch.Tensor) -> torch.Tensor:
    """PEFT's LoRA layer with scaling and sum inside the product.

    As three operations over (tokens, outputs) they cost a CPU as much again as half the layer.
    """
    out: torch.Tensor = layer.base_layer(x)
    if layer.disable_adapters:
        return out
    name = layer.active_adapters[0]
    down = functional.linear(x, layer.lora_A[name].weight).flatten(0, -2)
    up = layer.lora_B[name].weight.T
    return torch.addmm(out.flatten(0, -2), down, up, alpha=layer.scaling[name]).view_as(out)
