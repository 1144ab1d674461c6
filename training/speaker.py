"""The base and its adapters, loaded once: what evaluation asks of a model.

Scores given tokens and writes greedy replies, quickly on a CPU too: no logits but those asked
for, prompts of like length together, one decoding batch from which finished replies drop out.
"""

# ruff: noqa: TID253 - the second half of the door in training/evaluate.py

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MethodType
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from peft.tuners.lora import Linear as LoraLinear
from torch.nn import functional
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_outputs import BaseModelOutputWithPast

from training.bases import load_nf4
from training.batches import length_batches
from training.evaluation import Subject
from training.template import TrainingSequence, stop_token_ids

BATCH_TOKENS = 4096
LOGIT_ROWS = 512  # rows of (vocabulary) float32 at a time: 100 MB at 49,152 words
_ATTENTION = "grouped_sdpa"

Done = Callable[[int], None]  # told how many more sequences or replies are finished


class Scored(NamedTuple):
    """For each learnt token: its log-probability, and the token held most probable there."""

    logprobs: list[float]
    greedy: list[int]


class Speaker:
    """A causal language model with adapters that are switched on one at a time."""

    def __init__(self, wrapped: PeftModel, folder: Path) -> None:
        self.peft = wrapped.eval()
        self.causal = wrapped.get_base_model()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.stop_ids = stop_token_ids(self.tokenizer, self.causal.generation_config)
        self.device = self.causal.device
        self._any_token = torch.zeros(1, 1, dtype=torch.long, device=self.device)

    @classmethod
    def serving(cls, folder: Path, adapters: Mapping[Subject, Path]) -> "Speaker":
        """The serving weights in bf16, computed the way an engine does."""
        AttentionInterface.register(_ATTENTION, _grouped_attention)
        AttentionMaskInterface.register(_ATTENTION, sdpa_mask)
        causal = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.bfloat16,
            device_map={"": _device()},
            attn_implementation=_ATTENTION,
        )
        (first, path), *others = adapters.items()
        wrapped = PeftModel.from_pretrained(causal, path, adapter_name=first)
        for name, path in others:
            wrapped.load_adapter(path, adapter_name=name)
        for module in wrapped.modules():
            if isinstance(module, LoraLinear):
                module.lora_A.to(torch.bfloat16)
                module.lora_B.to(torch.bfloat16)
                module.forward = MethodType(_lean_forward, module)
        return cls(wrapped, folder)

    @classmethod
    def training(cls, folder: Path, adapter: Path, *, float32: bool) -> "Speaker":
        """The NF4 checkpoint with PEFT's own arithmetic, as the trainer computes it.

        ``float32``: the adapter's weights were trained in that, and not in bf16.
        """
        wrapped = PeftModel.from_pretrained(
            load_nf4(folder, device=_device()),
            adapter,
            adapter_name="new",
            autocast_adapter_dtype=float32,
        )
        return cls(wrapped, folder)

    @contextmanager
    def speaking_as(self, subject: Subject) -> Iterator[None]:
        """Switch to an adapter, or to none for ``base``; no gradients inside."""
        with torch.inference_mode():
            if subject == "base":
                with self.peft.disable_adapter():
                    yield
            else:
                self.peft.set_adapter(subject)
                yield

    def score(self, sequences: Sequence[TrainingSequence], tell: Done) -> list[Scored]:
        """Log-probability of every learnt token given all before it."""
        scored: dict[int, Scored] = {}
        lengths = [len(s.token_ids) for s in sequences]
        for batch in length_batches(lengths, max_tokens=BATCH_TOKENS):
            # Padding stands on the right, where causal attention keeps it from the tokens.
            ids = _pad([sequences[i].token_ids for i in batch], self.device)
            hidden = self._read(ids).last_hidden_state
            for row, index in enumerate(batch):
                learnt = torch.tensor(sequences[index].learnt, device=self.device).nonzero()[:, 0]
                scored[index] = self._score_row(hidden[row, learnt - 1], ids[row, learnt])
            tell(len(batch))
        return [scored[index] for index in range(len(sequences))]

    def _score_row(self, hidden: torch.Tensor, targets: torch.Tensor) -> Scored:
        """hidden: (tokens, hidden size), the states before each of ``targets``: (tokens,)."""
        logprobs: list[float] = []
        greedy: list[int] = []
        for states, words in zip(hidden.split(LOGIT_ROWS), targets.split(LOGIT_ROWS), strict=True):
            logits = self._logits(states).float()
            chosen = logits.gather(1, words[:, None])[:, 0] - logits.logsumexp(1)
            logprobs += chosen.tolist()
            greedy += logits.argmax(1).tolist()
        return Scored(logprobs, greedy)

    def reply(self, prompts: Sequence[list[int]], max_tokens: int, tell: Done) -> list[str]:
        """Greedy replies, all decoded together; a finished one makes room for the others."""
        if not prompts:
            return []
        cache, hidden = self._prefill(prompts)
        written: list[list[int]] = [[] for _ in prompts]
        rows = list(range(len(prompts)))
        lengths = torch.tensor([len(p) for p in prompts], device=self.device)
        seen = torch.arange(int(lengths.max()), device=self.device) < lengths[:, None]
        for _ in range(max_tokens):
            words = self._logits(hidden).argmax(-1)
            open_rows = [i for i, word in enumerate(words.tolist()) if word not in self.stop_ids]
            tell(len(rows) - len(open_rows))
            if not open_rows:
                rows = []
                break
            if len(open_rows) < len(rows):
                keep = torch.tensor(open_rows, device=self.device)
                cache.batch_select_indices(keep)
                words, lengths, seen = words[keep], lengths[keep], seen[keep]
                rows = [rows[i] for i in open_rows]
            for row, word in zip(rows, words.tolist(), strict=True):
                written[row].append(word)
            seen = functional.pad(seen, (0, 1), value=True)
            hidden = self._read(
                words[:, None],
                past_key_values=cache,
                attention_mask=seen,
                position_ids=lengths[:, None],
            ).last_hidden_state[:, -1]
            lengths = lengths + 1
        tell(len(rows))
        return [self.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in written]

    def _prefill(self, prompts: Sequence[list[int]]) -> tuple[DynamicCache, torch.Tensor]:
        """Read prompts in batches of like length; return their joined cache and last states.

        The cache is padded on the right of each prompt; its reader masks those places.
        """
        longest = max(len(p) for p in prompts)
        order: list[int] = []
        last: list[torch.Tensor] = []
        layers: list[list[tuple[torch.Tensor, torch.Tensor]]] = []
        for batch in length_batches([len(p) for p in prompts], max_tokens=BATCH_TOKENS):
            ids = _pad([prompts[i] for i in batch], self.device)
            out = self._read(ids, past_key_values=DynamicCache())
            ends = torch.tensor([len(prompts[i]) - 1 for i in batch], device=self.device)
            last.append(out.last_hidden_state[torch.arange(len(batch), device=self.device), ends])
            missing = longest - ids.shape[1]
            layers.append(
                [
                    tuple(functional.pad(part, (0, 0, 0, missing)) for part in (la.keys, la.values))
                    for la in out.past_key_values.layers
                ]
            )
            order += batch
        back = torch.tensor(order, device=self.device).argsort()
        joined = [
            tuple(torch.cat(parts)[back] for parts in zip(*layer, strict=True))
            for layer in zip(*layers, strict=True)
        ]
        return DynamicCache(joined), torch.cat(last)[back]

    def _read(self, ids: torch.Tensor, **options: Any) -> Any:  # noqa: ANN401 - transformers' own
        caching = "past_key_values" in options
        return self.causal.get_decoder()(input_ids=ids, use_cache=caching, **options)

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


def _lean_forward(layer: LoraLinear, x: torch.Tensor) -> torch.Tensor:
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
