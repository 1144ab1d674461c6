"""Runs a tiny model with six adapters on two slots in vLLM; writes what happened to result.json."""

# ruff: noqa: PLC0415

import json
import sys
from pathlib import Path
from typing import Any

ADAPTERS, SLOTS, TOKENS = 6, 2, 60


def make(root: Path) -> None:
    """A random model, and adapters large enough that each answers differently."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            vocab_size=256,
            max_position_embeddings=256,
        )
    )
    for weights in model.parameters():
        weights.data.normal_(0, 0.25)
    model.save_pretrained(root / "model")
    for number in range(ADAPTERS):
        folder = root / f"adapter-{number}"
        folder.mkdir()
        tensors = {}
        for layer in range(2):
            for module, width in (("q_proj", 64), ("v_proj", 32)):
                name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
                tensors[f"{name}.lora_A.weight"] = torch.randn(8, 64) * 0.3
                tensors[f"{name}.lora_B.weight"] = torch.randn(width, 8) * 0.3
        save_file(tensors, folder / "adapter_model.safetensors")
        config = {
            "peft_type": "LORA",
            "r": 8,
            "lora_alpha": 16,
            "target_modules": ["q_proj", "v_proj"],
            "bias": "none",
        }
        (folder / "adapter_config.json").write_text(json.dumps(config))


def main(root: Path) -> None:
    """All requests together, then each adapter's alone on the same engine."""
    from vllm import LLM, SamplingParams, TokensPrompt
    from vllm.lora.request import LoRARequest

    make(root)
    engine = LLM(
        str(root / "model"),
        dtype="float32",
        skip_tokenizer_init=True,
        enable_lora=True,
        max_loras=SLOTS,
        max_cpu_loras=ADAPTERS,
        max_lora_rank=8,
        max_model_len=128,
        enforce_eager=True,
        scheduler_cls="server.engine.backends.vllm.plugin.lora_scheduler.scheduler",
        additional_config={"turn_seconds": 0.02},
    ).llm_engine
    how = {
        "greedy": SamplingParams(
            temperature=0, max_tokens=TOKENS, ignore_eos=True, detokenize=False
        ),
        "seeded": SamplingParams(seed=5, max_tokens=TOKENS, ignore_eos=True, detokenize=False),
    }

    def run(adapters: range) -> dict[str, dict[str, Any]]:
        for number in adapters:
            lora = LoRARequest(f"a{number}", number + 1, str(root / f"adapter-{number}"))
            for kind, params in how.items():
                prompt = TokensPrompt(prompt_token_ids=[(number * 7 + i) % 256 for i in range(40)])
                engine.add_request(f"{kind}-{number}", prompt, params, lora_request=lora)
        seen: dict[str, dict[str, Any]] = {}
        step = 0
        while engine.has_unfinished_requests():
            step += 1
            for output in engine.step():
                entry = seen.setdefault(output.request_id, {"first_step": step})
                if output.finished:
                    entry["last_step"] = step
                    entry["tokens"] = list(output.outputs[0].token_ids)
        return seen

    together = run(range(ADAPTERS))
    engine.reset_prefix_cache()
    alone = {}
    for number in range(ADAPTERS):
        alone.update(run(range(number, number + 1)))
    (root / "result.json").write_text(json.dumps({"together": together, "alone": alone}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
