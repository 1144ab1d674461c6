"""The base and its adapters, loaded once, as evaluation uses them: to score and to generate.

Made to be quick on a CPU too: it computes only the logits that are needed, batches prompts of
similar length, and decodes all replies in one batch that finished replies leave.
"""

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
    PreTrainedModel,
)
from transformers.cache_utils import Cache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_outputs import BaseModelOutputWithPast

from training.adapters.validation import WEIGHTS_NAME
from training.base_models.quantize import load_nf4
from training.data.batching import length_batches
from training.data.chat_template import TrainingSequence, stop_token_ids
from training.data.collate import collate
from training.results import Subject

BATCH_TOKENS = 4096
LOGIT_ROWS = 512  # rows of (vocabulary) float32 at a time: 100 MB at 49,152 tokens
_ATTENTION = "grouped_sdpa"

OnProgress = Callable[[int], None]
"""Called with the number of sequences or replies that were finished since the last call."""


class TokenLogprobs(NamedTuple):
    """Of one sequence, for each token in the loss mask: its log-probability, and the argmax."""

    logprobs: list[float]
    greedy: list[int]


class Prefill(NamedTuple):
    """A model's state after a prompt, where a reply starts.

    ``layers``: keys and values of each layer, each (heads, length, head size). ``hidden``: the last
    hidden state, (hidden size,). ``length``: tokens of the prompt.
    """

    layers: list[tuple[torch.Tensor, torch.Tensor]]
    hidden: torch.Tensor
    length: int


class Generator:
    """A causal language model with adapters, one of which is active at a time.

        generator = Generator.serving(base / "serving", {"new": folder}, dtype=torch.float32)
        with generator.using("new"):
            scored, prefills = generator.score([sequence], [[range(prompt_length)]], on_progress)
            (ids,) = generator.generate(prefills[0], 64, on_progress)
        print(generator.text(ids))

    Args:
        model: The base with its adapters, as PEFT wraps it, or a model without any; the generator owns
            it from here on.
        folder: Where the tokenizer is.
    """

    def __init__(self, model: PeftModel | PreTrainedModel, folder: Path) -> None:
        self.peft = model.eval() if isinstance(model, PeftModel) else None
        self.causal = model.get_base_model() if isinstance(model, PeftModel) else model.eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.stop_ids = stop_token_ids(self.tokenizer, self.causal.generation_config)
        self.device = self.causal.device
        self._any_token = torch.zeros(1, 1, dtype=torch.long, device=self.device)

    @classmethod
    def serving(
        cls, folder: Path, adapters: Mapping[Subject, Path], *, dtype: torch.dtype
    ) -> "Generator":
        """Load the serving weights, computed in ``dtype`` as an engine does.

        Args:
            folder: The ``serving`` folder of a base.
            adapters: PEFT folders by the name to use them under; at least one.
            dtype: The type of the arithmetic, and of the loaded weights.
        """
        causal = _load_causal(folder, dtype)
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
    def whole(cls, folder: Path, tokenizer: Path, *, dtype: torch.dtype) -> "Generator":
        """Load a model without adapters from ``folder``, and a base's tokenizer; use it as ``base``."""
        return cls(_load_causal(folder, dtype), tokenizer)

    @classmethod
    def training(cls, folder: Path, adapter: Path, *, dtype: torch.dtype) -> "Generator":
        """Load the NF4 checkpoint with PEFT's own arithmetic in ``dtype``, as the trainer does.

        The adapter is called ``new``. Its weights keep the type that they are stored in, which is
        the one that they were trained in.
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
        """Make an adapter the active one, or none for ``base``; no gradients inside."""
        with torch.inference_mode():
            if self.peft is None:
                yield
            elif subject == "base":
                with self.peft.disable_adapter():
                    yield
            else:
                self.peft.set_adapter(subject)
                yield

    def score(
        self,
        sequences: Sequence[TrainingSequence],
        prompts: Sequence[Sequence[Sequence[int]]],
        on_progress: OnProgress,
    ) -> tuple[list[TokenLogprobs], list[list[Prefill]]]:
        """Score the masked tokens of sequences, and keep the states where replies start.

        Each sequence is read once, so a prompt that is the beginning of a conversation is not read
        a second time.

        Args:
            sequences: Tokens with the mask of those to score, given all tokens before them.
            prompts: For each sequence, the prompts to keep a `Prefill` of: the places of their tokens.
            on_progress: Called after each batch.

        Returns:
            For each sequence its log-probabilities, and its prefills in the order of its ``prompts``.
        """
        scored: dict[int, TokenLogprobs] = {}
        prefills: dict[int, list[Prefill]] = {}
        lengths = [len(s.token_ids) for s in sequences]
        for batch in length_batches(lengths, max_tokens=BATCH_TOKENS):
            # Padding stands on the right, where causal attention keeps it from the tokens.
            ids = _pad([sequences[i].token_ids for i in batch], self.device)
            cache = DynamicCache() if any(prompts[i] for i in batch) else None
            hidden = self._decode(
                ids, past_key_values=cache, **self._branches([sequences[i] for i in batch])
            )
            for row, index in enumerate(batch):
                mask = torch.tensor(sequences[index].loss_mask, device=self.device)
                targets = mask.nonzero()[:, 0]
                scored[index] = self._score(hidden[row, targets - 1], ids[row, targets])
                prefills[index] = [
                    _copy_prefill(hidden, cache, row, places) for places in prompts[index]
                ]
            on_progress(len(batch))
        order = range(len(sequences))
        return [scored[index] for index in order], [prefills[index] for index in order]

    def _branches(self, sequences: Sequence[TrainingSequence]) -> dict[str, torch.Tensor]:
        """The mask and positions of sequences, where one of them has branches."""
        if not any(sequence.branches for sequence in sequences):
            return {}
        batch = collate(sequences, pad=0)
        return {
            "attention_mask": batch["branch_mask"].to(self.device),
            "position_ids": batch["position_ids"].to(self.device),
        }

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
        self,
        prefills: Sequence[Prefill],
        max_tokens: int,
        on_progress: OnProgress,
        *,
        copied: Sequence[Sequence[int]] = (),
        copy_bias: float = 0.0,
    ) -> list[list[int]]:
        """Greedy replies as token ids, without the token that ends a turn.

        All are decoded in one batch, which finished replies leave.

        Args:
            prefills: Where the replies start, of the active adapter.
            max_tokens: Tokens of one reply, at most.
            on_progress: Called with the number of replies that ended.
            copied: For each reply the tokens whose logits are raised, as an engine does by ``logit_bias``.
            copy_bias: By how much, in nats.
        """
        if not prefills:
            return []
        raised = self._raised(copied, copy_bias)
        lengths = torch.tensor([prefill.length for prefill in prefills], device=self.device)
        longest = int(lengths.max())
        cache = Cache(layers=_preallocated_layers(prefills, longest, longest + max_tokens))
        hidden = torch.stack([prefill.hidden for prefill in prefills])
        seen = torch.arange(longest, device=self.device) < lengths[:, None]
        written: list[list[int]] = [[] for _ in prefills]
        rows = list(range(len(prefills)))
        for _ in range(max_tokens):
            logits = self._logits(hidden)
            words = (logits if raised is None else logits.float() + raised).argmax(-1)
            going = [i for i, word in enumerate(words.tolist()) if word not in self.stop_ids]
            on_progress(len(rows) - len(going))
            if len(going) < len(rows):
                rows = [rows[i] for i in going]
                keep = torch.tensor(going, dtype=torch.long, device=self.device)
                words, lengths, seen = words[keep], lengths[keep], seen[keep]
                raised = raised if raised is None else raised[keep]
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

    def reply_logprobs(self, prompt: Sequence[int], reply: Sequence[int]) -> torch.Tensor:
        """(tokens of the reply, vocabulary): log-probabilities of every token, where each of the reply is next."""
        ids = torch.tensor([[*prompt, *reply]], device=self.device)
        hidden = self._decode(ids[:, :-1], past_key_values=None)[0, len(prompt) - 1 :]
        return self._logits(hidden).float().log_softmax(-1)

    def _raised(self, copied: Sequence[Sequence[int]], copy_bias: float) -> torch.Tensor | None:
        """(replies, vocabulary): what is added to the logits; None for nothing."""
        if not copy_bias or not any(copied):
            return None
        words = self.causal.get_output_embeddings().weight.shape[0]
        raised = torch.zeros(len(copied), words, device=self.device)
        for row, tokens in enumerate(copied):
            raised[row, torch.tensor(tokens, dtype=torch.long)] = copy_bias
        return raised

    def text(self, ids: Sequence[int]) -> str:
        """A reply's token ids as the text that the customer reads."""
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

        Goes through the model's own forward with the decoder replaced, since some models scale or
        cap their logits after the output layer.
        """
        decoder = self.causal.get_decoder()
        states = BaseModelOutputWithPast(last_hidden_state=hidden[None])
        decoder.forward = lambda *_, **__: states
        try:
            logits: torch.Tensor = self.causal(input_ids=self._any_token).logits[0]
        finally:
            del decoder.forward
        return logits


def _load_causal(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    AttentionInterface.register(_ATTENTION, _grouped_attention)
    AttentionMaskInterface.register(_ATTENTION, sdpa_mask)
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, device_map={"": _device()}, attn_implementation=_ATTENTION
    )


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _pad(rows: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """(rows, longest), padded with token 0 on the right."""
    ids = torch.zeros(len(rows), max(len(row) for row in rows), dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
    return ids.to(device)


def _copy_prefill(
    hidden: torch.Tensor, cache: Cache | None, row: int, places: Sequence[int]
) -> Prefill:
    """Copy one row's state out of a batch, so that the batch can be freed."""
    chosen = torch.tensor(places, device=hidden.device)
    layers = [
        (layer.keys[row].index_select(1, chosen), layer.values[row].index_select(1, chosen))
        for layer in (cache.layers if cache is not None else ())
    ]
    return Prefill(layers, hidden[row, places[-1]].clone(), len(places))


class _PreallocatedLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values in buffers with space for the reply: a step copies one token, not all.

    Concatenating instead costs a fifth of a step of 32 rows with 200 tokens each. transformers'
    `StaticLayer` attends over the whole buffer, which takes 1.4 times the time (64 steps of 32 rows
    after some 220 tokens, SmolLM2-135M in float32: 77 against 56 CPU seconds), and it cannot drop
    rows.
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
        """Positions in use; the buffers are longer."""
        return self.used


def _preallocated_layers(
    prefills: Sequence[Prefill], used: int, capacity: int
) -> list[_PreallocatedLayer]:
    """Join the prefills' caches, padded on the right; the attention mask hides the padding."""
    joined: list[_PreallocatedLayer] = []
    for layer in zip(*(prefill.layers for prefill in prefills), strict=True):
        parts: list[torch.Tensor] = []
        for states in zip(*layer, strict=True):
            heads, _, size = states[0].shape
            buffer = states[0].new_zeros(len(states), heads, capacity, size)
            for row, state in enumerate(states):
                buffer[row, :, : state.shape[1]] = state
            parts.append(buffer)
        joined.append(_PreallocatedLayer(parts[0], parts[1], used))
    return joined


def _grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,  # noqa: ANN401 - transformers' own
) -> tuple[torch.Tensor, None]:
    """The attention of transformers, but decoding on a CPU copies no keys for each query head.

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
    """PEFT's LoRA layer with the scaling and the sum fused into the second product.

    As three operations over (tokens, outputs) they take a CPU half as long as the layer itself.
    """
    out: torch.Tensor = layer.base_layer(x)
    if layer.disable_adapters:
        return out
    name = layer.active_adapters[0]
    down = functional.linear(x, layer.lora_A[name].weight).flatten(0, -2)
    up = layer.lora_B[name].weight.T
    return torch.addmm(out.flatten(0, -2), down, up, alpha=layer.scaling[name]).view_as(out)
