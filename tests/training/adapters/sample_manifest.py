"""A manifest for tests that need one and do not care what it says."""

from training.adapters.package import AdapterManifest, BaseRef, LoraShape
from training.config import Recipe

MANIFEST = AdapterManifest(
    label="acme",
    base=BaseRef(name="tiny", serving_sha256="a" * 64),
    dataset_sha256="d" * 64,
    system_prompt="You are Acme's assistant.",
    recipe=Recipe(
        name="tiny",
        rank=4,
        alpha=8,
        learning_rate=1e-3,
        epochs=1,
        batch_tokens=64,
        max_length=512,
        validate_every=1,
        checkpoint_every=1,
        evaluation_replies=3,
        evaluation_conversations=3,
        max_reply_tokens=5,
        memory_bytes=1,
    ),
    seed=1,
    lora=LoraShape(rank=4, alpha=8, targets=("q_proj", "v_proj", "down_proj")),
    packages={"peft": "0.21.2"},
    created_at="2026-11-23T00:00:00Z",
)
