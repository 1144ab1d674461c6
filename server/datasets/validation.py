"""Checks and reads the training files of fine-tuning jobs, line by line and without a database."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from connectors.importers import Rejected
from connectors.redaction.redactor import Redactor
from connectors.training_files import Method, Record, read, redact, system_message
from training.data.dataset import MIN_EXAMPLES
from training.data.splitting import is_usable

MAX_SHOWN_PROBLEMS = 20


class FileCheck(msgspec.Struct):
    """What a training file holds.

    ``invalid`` lines are no example; ``problems`` are the first ``MAX_SHOWN_PROBLEMS`` of them.
    ``skipped`` counts parts of good examples (calls of tools), by reason. ``usable`` examples can be
    trained on, and are counted up to ``MIN_EXAMPLES``; ``unusable`` counts those before that cannot,
    by reason.
    """

    examples: int = 0
    usable: int = 0
    invalid: int = 0
    problems: list[Rejected] = []
    skipped: Counter[str] = msgspec.field(default_factory=Counter)
    unusable: Counter[str] = msgspec.field(default_factory=Counter)

    def describe_problems(self) -> str | None:
        """What is wrong with the file, line by line; None where nothing is."""
        if not self.invalid:
            return None
        lines = [f"line {each.line}: {each.detail}" for each in self.problems]
        if self.invalid > len(lines):
            lines.append(f"and {self.invalid - len(lines)} more")
        count = "1 line is" if self.invalid == 1 else f"{self.invalid} lines are"
        return "\n".join([f"{count} not fit to train on.", *lines])


def check_file(path: Path, method: Method) -> FileCheck:
    """Read a whole file and say what is wrong with it."""
    found = FileCheck(problems=[])
    with path.open("rb") as stream:
        for item in read(stream, method):
            match item:
                case Rejected(part=True):
                    found.skipped[item.reason] += 1
                case Rejected():
                    found.invalid += 1
                    if len(found.problems) < MAX_SHOWN_PROBLEMS:
                        found.problems.append(item)
                case _:
                    found.examples += 1
                    if found.usable < MIN_EXAMPLES:
                        found.usable += is_usable(item, found.unusable)
    return found


def too_few_examples(found: FileCheck) -> str | None:
    """Why a training file has too few examples; None where it has enough.

    OpenAI's API asks for as many, and like there they may be alike.
    """
    if found.usable >= MIN_EXAMPLES:
        return None
    if not found.unusable:
        return f"{found.examples} examples; a training file needs at least {MIN_EXAMPLES}"
    reasons = ", ".join(f"{count} {reason}" for reason, count in found.unusable.items())
    return (
        f"{found.usable} of its {found.examples} examples can be used (left out: {reasons}); a "
        f"training file needs at least {MIN_EXAMPLES}"
    )


def redacted_examples(path: Path, method: Method, redactor: Redactor) -> Iterator[Record]:
    """The examples of a file that was checked, redacted."""
    with path.open("rb") as stream:
        for item in read(stream, method):
            if not isinstance(item, Rejected):
                yield redact(item, redactor)[0]


class SharedPrompt:
    """Finds the system message that all examples share, if they do."""

    def __init__(self) -> None:
        self._first: str | None = None
        self._differ = False

    def add(self, record: Record) -> None:
        """Look at one more example."""
        message = system_message(record)
        self._differ = self._differ or self._first not in {None, message}
        self._first = message

    @property
    def differ(self) -> bool:
        """Whether examples begin differently, so that none of it can be the model's prompt."""
        return self._differ

    def joined_to(self, prompt: str) -> str:
        """The tenant's prompt and then the shared message, in the order in which serving joins them."""
        shared = "" if self._differ else self._first or ""
        return "\n\n".join(part for part in (prompt, shared) if part)
