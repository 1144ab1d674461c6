"""Training speed of our run against plain trl scripts with the same settings, on the same data.

    python -m tests.bench.training --base BASE_FOLDER --dataset DATASET_FOLDER --recipe cpu-small

Same LoRA, rate and conversations on both sides, each in its own process, one after the other, twice,
in turns. The peers are what trl's documentation shows: ``SFTTrainer`` over ``messages``,
``assistant_only_loss``, a fixed number of conversations a batch.

    trl         QLoRA on the same NF4 base, in bfloat16, as the documentation has it
    trl-fast    the same, in the type that the machine is measured to be faster in
    lora        LoRA without quantisation (the serving weights), in that type

Counted are tokens of conversations (padding is not work), over the time from the first step's end to
the last one's. Prints each round and the ratios of the medians as JSON.
"""

# ruff: noqa: PLC0415 - the two sides are loaded in processes of their own

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from training.config import TrainingSpec, load_recipe
from training.data.dataset import load
from training.events import EventWriter, StepEvent, parse

PEERS = ("trl", "trl-fast", "lora")
# SmolLM2's own template with the markers that `assistant_only_loss` needs.
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}"
    "{% endgeneration %}{{ '\n' }}{% else %}{{ message['content'] + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}"
)


def ours(given: argparse.Namespace) -> None:
    """Our run; the last line is JSON."""
    from training.finetuning.qlora import train

    recipe = msgspec.structs.replace(
        load_recipe(given.recipe),
        max_train_tokens=given.tokens,
        train_minutes=0.0,
        validate_every=10_000,
        checkpoint_every=10_000,
    )
    spec = TrainingSpec(
        label="bench", base=str(given.base), dataset=str(given.dataset), recipe=recipe
    )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        progress = EventWriter(out / "events.jsonl")
        train(spec, out, progress, resume=False, should_stop=lambda: False)
        events = map(parse, (out / "events.jsonl").read_bytes().splitlines())
        steps = [event for event in events if isinstance(event, StepEvent)]
    print(
        json.dumps(
            {"tokens": steps[-1].tokens - steps[0].tokens, "seconds": steps[-1].at - steps[0].at}
        )
    )


def measure(side: str) -> tuple[int, float]:
    """(tokens, seconds) of a side, in a process of its own, after its first step."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.training", "--side", side, *sys.argv[1:]],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    return answer["tokens"], answer["seconds"]


def plain_trl(given: argparse.Namespace) -> None:
    """The plain script; the last line is JSON."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from training.base_models.compute_dtype_probe import choose

    measured = choose("training", given.base).type
    dtype = torch.bfloat16 if given.side == "trl" else getattr(torch, measured)
    weights = "serving" if given.side == "lora" else "nf4"
    model = AutoModelForCausalLM.from_pretrained(given.base / weights, dtype=dtype)
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.compute_dtype, module.compute_type_is_set = dtype, True
    recipe, data = load_recipe(given.recipe), load(given.dataset)
    tokenizer = AutoTokenizer.from_pretrained(given.base / "nf4")
    tokenizer.chat_template = TEMPLATE
    system = {"role": "system", "content": data.system_prompt}
    conversations = [
        {"messages": [system, *({"role": m.role, "content": m.content} for m in example.messages)]}
        for example in data.read("train")
    ]
    lengths = [
        len(tokenizer.apply_chat_template(c["messages"], return_dict=False)) for c in conversations
    ]
    batch = max(1, round(recipe.batch_tokens / statistics.mean(lengths)))
    steps = max(3, round(given.tokens / (batch * statistics.mean(lengths))))
    marks: list[tuple[float, float]] = []

    class Mark(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args, state, control, **_):
            marks.append((time.monotonic(), state.num_input_tokens_seen))

    with tempfile.TemporaryDirectory() as out:
        trainer = SFTTrainer(
            model,
            args=SFTConfig(
                output_dir=out,
                max_steps=steps,
                per_device_train_batch_size=batch,
                learning_rate=recipe.learning_rate,
                max_length=recipe.max_length,
                assistant_only_loss=True,
                include_num_input_tokens_seen="non_padding",
                gradient_checkpointing=False,
                bf16=dtype == torch.bfloat16,
                report_to="none",
                save_strategy="no",
                use_cpu=not torch.cuda.is_available(),
                seed=17,
            ),
            train_dataset=Dataset.from_list(conversations),
            processing_class=tokenizer,
            peft_config=LoraConfig(
                r=recipe.rank,
                lora_alpha=recipe.alpha,
                target_modules="all-linear",
                task_type="CAUSAL_LM",
            ),
            callbacks=[Mark()],
        )
        trainer.train()
    (first_at, first), (last_at, last) = marks[0], marks[-1]
    print(json.dumps({"tokens": int(last - first), "seconds": last_at - first_at}))


def main() -> None:
    """Run the rounds and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--recipe", default="cpu-small")
    parser.add_argument("--tokens", type=int, default=8000, help="trained on in a round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=PEERS)
    parser.add_argument("--side", choices=("ours", *PEERS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        (ours if given.side == "ours" else plain_trl)(given)
        return
    speeds: dict[str, list[float]] = {name: [] for name in ("ours", *given.peers)}
    for number in range(given.rounds):
        for name, measured in speeds.items():
            tokens, seconds = measure(name)
            measured.append(tokens / seconds)
            print(f"round {number + 1}: {name} {tokens / seconds:.0f} tokens/s", flush=True)
    medians = {name: round(statistics.median(values), 1) for name, values in speeds.items()}
    ratios = {f"ours / {name}": round(medians["ours"] / medians[name], 2) for name in given.peers}
    print(json.dumps({**medians, **ratios}))


if __name__ == "__main__":
    main()
