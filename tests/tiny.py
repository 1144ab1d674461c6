"""A two-layer Llama with random weights and its own tokenizer, made into a base in seconds."""

# ruff: noqa: PLC0415 - only the child process imports torch

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from training.base_models.manifest import BaseModel

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SAMPLE = Path(__file__).parents[1] / "connectors" / "samples" / "loaf.jsonl"
# what describes a base, without the files
TINY = BaseModel(
    name="tiny",
    source="tiny",
    source_sha256="0" * 64,
    license="Apache-2.0",
    architecture="LlamaForCausalLM",
    parameters=1,
    hidden_size=576,
    layers=30,
    vocab_size=49152,
    max_length=8192,
    quantisation="nf4",
    serving_sha256="a" * 64,
    files={},
    packages={},
    created_at="",
)


def make_tiny_tokenizer() -> Any:
    """Its tokenizer: a thousand words from the sample transcripts."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    bpe.train([str(SAMPLE)], vocab_size=1000, special_tokens=["<|im_start|>", "<|im_end|>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        bos_token="<|im_start|>",
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def make_tiny_checkpoint(folder: Path, *, heads: int = 4) -> Path:
    """Write a transformers checkpoint; its words come from the sample transcripts.

    ``heads``: vLLM on a CPU has no attention for heads of fewer than 32 dimensions, so at most 2 there.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tiny_tokenizer()
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=heads,
            num_key_value_heads=heads // 2,
            max_position_embeddings=1024,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).to(torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_tiny_base(root: Path, *, name: str = "tiny", heads: int = 4) -> Path:
    """A base under ``root``; made in child processes, so that tests need not import torch."""
    checkpoint = root.parent / name
    env = {**os.environ, "OMP_NUM_THREADS": "2"}
    code = "from pathlib import Path; from tests.tiny import *; "
    code += f"make_tiny_checkpoint(Path({str(checkpoint)!r}), heads={heads})"
    here = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=here, env=env)
    argv = [sys.executable, "-m", "training.base_models.quantize", str(checkpoint), str(root)]
    subprocess.run(argv, check=True, cwd=here, env=env)
    return root / name
