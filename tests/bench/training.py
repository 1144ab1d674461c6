"""Training speed of our run against a plain trl script with the same settings, on the same data.

    python -m tests.bench.training --base BASE_FOLDER --dataset DATASET_FOLDER --recipe cpu-small

Both train the same NF4 base with the same LoRA, rate and conversations, each in its own process,
one after the other, twice, in turns. The peer is what trl's documentation shows: ``SFTTrainer``
over ``messages``, ``assistant_only_loss``, a fixed number of conversations a batch. Counted are
tokens of conversations (padding is not work), over the time from the first step's end to the last
one's. Prints each round and the ratio of the medians as JSON.
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

from training.dataset import load
from training.progress import StepEvent, parse
from training.spec import TrainingSpec, load_recipe

# SmolLM2's own template with the markers that `assistant_only_loss` needs.
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}"
    "{% endgeneration %}{{ '\n' }}{% else %}{{ message['content'] + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}"
)


def ours(given: argparse.Namespace) -> tuple[int, float]:
    """(tokens, seconds) of our run after its first step."""
    recipe = msgspec.structs.replace(
        load_recipe(given.recipe),
        max_train_tokens=given.tokens,
        validate_every=10_000,
        checkpoint_every=10_000,
    )
    spec = TrainingSpec(
        label="bench", base=str(given.base), dataset=str(given.dataset), recipe=recipe
    )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        (out / "spec.json").write_bytes(msgspec.json.encode(spec))
        code = (
            "import sys; from pathlib import Path; from training.progress import Progress\n"
            "from training.qlora import train; from training.spec import load_spec\n"
            "out = Path(sys.argv[1])\n"
            "train(load_spec(out / 'spec.json'), out, Progress(out / 'events.jsonl'),"
            " resume=False, should_stop=lambda: False)"
        )
        subprocess.run(
            [sys.executable, "-c", code, folder], check=True, capture_output=True, text=True
        )
        events = map(parse, (out / "events.jsonl").read_bytes().splitlines())
        steps = [event for event in events if isinstance(event, StepEvent)]
    return steps[-1].tokens - steps[0].tokens, steps[-1].at - steps[0].at


def peer(given: argparse.Namespace) -> tuple[int, float]:
    """(tokens, seconds) of the plain script after its first step."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.training", "--peer", *sys.argv[1:]],
        check=True,
        capture_output=True,
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
            AutoModelForCausalLM.from_pretrained(given.base / "nf4", dtype=torch.bfloat16),
            args=SFTConfig(
                output_dir=out,
                max_steps=steps,
                per_device_train_batch_size=batch,
                learning_rate=recipe.learning_rate,
                max_length=recipe.max_length,
                assistant_only_loss=True,
                include_num_input_tokens_seen="non_padding",
                gradient_checkpointing=False,
                bf16=recipe.adapter_dtype == "bfloat16",
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
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peer:
        plain_trl(given)
        return
    speeds: dict[str, list[float]] = {"ours": [], "trl": []}
    for number in range(given.rounds):
        for name, side in (("ours", ours), ("trl", peer)):
            tokens, seconds = side(given)
            speeds[name].append(tokens / seconds)
            print(f"round {number + 1}: {name} {tokens / seconds:.0f} tokens/s", flush=True)
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    print(json.dumps({**medians, "ratio": medians["ours"] / medians["trl"]}))


if __name__ == "__main__":
    main()
