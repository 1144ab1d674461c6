"""Validates the files of fine-tuning jobs, a line at a time: whether a job can train on them.

The formats themselves are parsed in ``connectors.training_files``.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from connectors.importers import Rejected
from connectors.redaction.redactor import Redactor
from connectors.training_files import (
    Method,
    TrainingExample,
    read_examples,
    redact_example,
    system_message,
)
from training.data.dataset import MIN_EXAMPLES
from training.data.splitting import is_usable

MAX_PROBLEMS = 20


class FileValidation(msgspec.Struct):
    """What a file holds.

    ``problems`` are the first ``MAX_PROBLEMS`` of the ``invalid`` lines. ``skipped`` counts parts of
    valid examples (tool calls), by reason. ``usable`` examples can be trained on, counted up to
    ``MIN_EXAMPLES``; ``unusable`` counts the reasons of the others before.
    """

    examples: int = 0
    usable: int = 0
    invalid: int = 0
    problems: list[Rejected] = []
    skipped: Counter[str] = msgspec.field(default_factory=Counter)
    unusable: Counter[str] = msgspec.field(default_factory=Counter)

    def error_message(self) -> str | None:
        """The invalid lines, one a line; None where the file is valid."""
        if not self.invalid:
            return None
        lines = [f"line {each.line}: {each.detail}" for each in self.problems]
        if self.invalid > len(lines):
            lines.append(f"and {self.invalid - len(lines)} more")
        count = "1 line is" if self.invalid == 1 else f"{self.invalid} lines are"
        return "\n".join([f"{count} not fit to train on.", *lines])


def validate_file(path: Path, method: Method) -> FileValidation:
    """Read a whole file and collect what is wrong with it."""
    found = FileValidation(problems=[])
    with path.open("rb") as stream:
        for item in read_examples(stream, method):
            match item:
                case Rejected(part=True):
                    found.skipped[item.reason] += 1
                case Rejected():
                    found.invalid += 1
                    if len(found.problems) < MAX_PROBLEMS:
                        found.problems.append(item)
                case _:
                    found.examples += 1
                    if found.usable < MIN_EXAMPLES:
                        found.usable += is_usable(item, found.unusable)
    return found


def too_few_examples(found: FileValidation) -> str | None:
    """The error message for a training file with too few examples; None where it has enough.

    As with OpenAI, which asks for the same number, examples may be alike.
    """
    if found.usable >= MIN_EXAMPLES:
        return None
    if not found.unusable:
        return f"{found.examples} examples; a training file needs at least {MIN_EXAMPLES}"
    reasons = ", ".join(f"{count} {reason}" for reason, count in found.unusable.items())
    return (
        f"{found.usable} of its {found.examples} examples can be used (rejected: {reasons}); a "
        f"training file needs at least {MIN_EXAMPLES}"
    )


def read_redacted(path: Path, method: Method, redactor: Redactor) -> Iterator[TrainingExample]:
    """The examples of a valid file, without personal data."""
    with path.open("rb") as stream:
        for item in read_examples(stream, method):
            if not isinstance(item, Rejected):
                yield redact_example(item, redactor)[0]


class SharedSystemMessage:
    """The system message that all examples share. Call ``observe`` for each of them."""

    def __init__(self) -> None:
        self._first: str | None = None
        self._differ = False

    def observe(self, record: TrainingExample) -> None:
        """Take the next example."""
        message = system_message(record)
        self._differ = self._differ or self._first not in {None, message}
        self._first = message

    @property
    def differ(self) -> bool:
        """Whether the examples' messages differ, so that none can be the model's prompt."""
        return self._differ

    def appended_to(self, prompt: str) -> str:
        """The tenant's prompt followed by the shared message, as serving joins them."""
        own = "" if self._differ else self._first or ""
        return "\n\n".join(part for part in (prompt, own) if part)
