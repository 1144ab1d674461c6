"""Checks and reads the files of fine-tuning jobs: a line at a time, without a database."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from connectors.importers import Rejected
from connectors.redaction.redactor import Redactor
from connectors.training_files import Method, Record, read, redact, system_message
from training.data.dataset import MIN_EXAMPLES
from training.data.splitting import is_usable

SHOWN = 20


class Checked(msgspec.Struct):
    """What a file holds. ``problems`` are the first ``SHOWN`` of ``unfit`` lines that are no example.

    ``left_out`` counts parts of good examples (calls of tools), by reason. ``usable`` are the
    examples that can be trained on, counted up to ``FEWEST``; ``unusable`` says why the others
    before cannot.
    """

    examples: int = 0
    usable: int = 0
    unfit: int = 0
    problems: list[Rejected] = []
    left_out: Counter[str] = msgspec.field(default_factory=Counter)
    unusable: Counter[str] = msgspec.field(default_factory=Counter)

    def complaint(self) -> str | None:
        """What is wrong with the file, line by line; None where nothing is."""
        if not self.unfit:
            return None
        lines = [f"line {each.line}: {each.detail}" for each in self.problems]
        if self.unfit > len(lines):
            lines.append(f"and {self.unfit - len(lines)} more")
        count = "1 line is" if self.unfit == 1 else f"{self.unfit} lines are"
        return "\n".join([f"{count} not fit to train on.", *lines])


def check(path: Path, method: Method) -> Checked:
    """Read a whole file and say what is wrong with it."""
    found = Checked(problems=[])
    with path.open("rb") as stream:
        for item in read(stream, method):
            match item:
                case Rejected(part=True):
                    found.left_out[item.reason] += 1
                case Rejected():
                    found.unfit += 1
                    if len(found.problems) < SHOWN:
                        found.problems.append(item)
                case _:
                    found.examples += 1
                    if found.usable < MIN_EXAMPLES:
                        found.usable += is_usable(item, found.unusable)
    return found


def few(found: Checked) -> str | None:
    """What is wrong with a training file that has too few examples; None where it has enough.

    As at OpenAI, whose API asks for as many, they may be alike.
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


def redacted(path: Path, method: Method, redactor: Redactor) -> Iterator[Record]:
    """The examples of a file that was checked, without personal data."""
    with path.open("rb") as stream:
        for item in read(stream, method):
            if not isinstance(item, Rejected):
                yield redact(item, redactor)[0]


class SharedPrompt:
    """Whether all examples begin with one and the same system message."""

    def __init__(self) -> None:
        self._first: str | None = None
        self._differ = False

    def see(self, record: Record) -> None:
        """Look at one more example."""
        said = system_message(record)
        self._differ = self._differ or self._first not in {None, said}
        self._first = said

    @property
    def differ(self) -> bool:
        """Whether examples say different things, so that none of it can be the model's prompt."""
        return self._differ

    def after(self, prompt: str) -> str:
        """The tenant's prompt, and what the examples share, in the order in which serving joins them."""
        own = "" if self._differ else self._first or ""
        return "\n\n".join(part for part in (prompt, own) if part)
