"""What the demo shows at its end: three answers, the scores, and how to go on."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from server.cli.console import print_message, stderr
from server.cli.demo.api_client import DemoFailed
from server.cli.demo.samples import SAMPLES

_SCORES = (
    ("held-out perplexity", "perplexity", "{:.2f}"),
    ("replies just like the agent's", "exact", "{:.0%}"),
    ("token F1", "token_f1", "{:.2f}"),
    ("same meaning (cosine)", "similarity", "{:.2f}"),
)
_MAX_WIDTH = 120


def print_comparison(
    question: str,
    answers: Mapping[str, str],
    adapters: Mapping[str, dict[str, Any]],
    *,
    base: str,
) -> None:
    """A table of the answers and scores.

    Args:
        question: What was asked.
        answers: By slug, and of the base under ``base``.
        adapters: The live adapters by slug, as the API shows them.
        base: The base model's name.
    """
    shown = Table(title=f"“{question}”", title_style="bold", show_lines=True)
    shown.add_column(f"base\n{base}", ratio=1)
    for sample in SAMPLES:
        shown.add_column(f"{sample.name}\n{adapters[sample.slug]['model']}", ratio=1)
    shown.add_row(answers["base"], *(answers[sample.slug] for sample in SAMPLES))
    for name, key, form in _SCORES:
        cells = [_cell(name, key, form, adapters[sample.slug]["scores"]) for sample in SAMPLES]
        shown.add_row("", *cells)
    stderr.print()
    stderr.print(shown, width=min(stderr.width, _MAX_WIDTH))


def _cell(name: str, key: str, form: str, scores: dict[str, Any]) -> str:
    others = f"base {form.format(scores['base'][key])}"
    if scores["lookup"].get(key) is not None:
        others += f", lookup {form.format(scores['lookup'][key])}"
    return f"{name}: {form.format(scores['new'][key])}\n({others})"


def verify(answers: Mapping[str, str], adapters: Mapping[str, dict[str, Any]]) -> None:
    """Check what ``--check`` promises.

    Raises:
        DemoFailed: answers are empty or the same, or an adapter is no better than the base.
    """
    if not all(answers.values()) or len(set(answers.values())) != len(answers):
        raise DemoFailed(f"the three answers are not three: {dict(answers)}")
    for slug, adapter in adapters.items():
        scores = adapter["scores"]
        if not scores["new"]["perplexity"] < scores["base"]["perplexity"]:
            raise DemoFailed(f"{slug}: the adapter is no better than the base")


def print_next_steps(url: str, keys: Mapping[str, str]) -> None:
    """Where the server is, its keys, and a first request to copy."""
    print_message(f"\nserver        {url}")
    for who, key in keys.items():
        print_message(f"key {who:9} {key}")
    print_message(
        f"\ncurl {url}/v1/chat/completions -H 'Authorization: Bearer {keys['loaf']}' \\\n"
        "  -H 'Content-Type: application/json' \\\n"
        '  -d \'{"model": "loaf", "messages": [{"role": "user", "content": "Is there a fee '
        "to skip a week?\"}]}'\n",
    )
