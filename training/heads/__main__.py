"""The command ``python -m training.heads``: make a dataset, train a head, ask a head."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from training.errors import TrainingError
from training.events import EXIT_BAD_INPUT, EXIT_OK
from training.heads.config import IMAGE, TASKS, Task
from training.heads.dataset import create_version
from training.heads.examples import Example, pictures_of, read_examples
from training.heads.images import read_images, read_picture
from training.heads.package import Head
from training.heads.pipeline import run
from training.signals import GRACE_SECONDS, Stopper


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and run; exit codes are those of `training.events`."""
    parser = argparse.ArgumentParser(
        prog="python -m training.heads",
        description="Small classifiers on a pre-trained encoder of texts or images.",
        epilog="Exit codes: 0 done, 1 failed, 2 bad input, 75 stopped with its state saved "
        "(run again with --resume).",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser(
        "dataset", help="split labelled examples; prints the dataset's folder"
    )
    made.add_argument(
        "examples",
        type=Path,
        help="JSON lines or CSV with text and label; for images a folder or zip archive with a folder "
        "for each label",
    )
    made.add_argument("root", type=Path, help="folder of all datasets")
    made.add_argument("--task", choices=TASKS, required=True)
    made.add_argument("--seed", type=int, default=17, help="decides which are held out")
    train = commands.add_parser("train", help="train a head; progress is JSON lines")
    train.add_argument("spec", type=Path, help="JSON, see training/heads/config.py")
    train.add_argument("out", type=Path, help="folder for what is under way, and the head")
    train.add_argument("--resume", action="store_true", help="go on where a run in OUT stopped")
    train.add_argument("--with-parent", action="store_true", help="stop when standard input closes")
    asked = commands.add_parser(
        "classify",
        help="classify what is in the lines of standard input: texts, or files of images",
    )
    asked.add_argument("head", type=Path, help="the folder of a finished head")
    given = parser.parse_args(arguments)
    if given.command == "train":
        stopper = Stopper(grace_seconds=GRACE_SECONDS, with_parent=given.with_parent)
        return run(given.spec, given.out, resume=given.resume, stopper=stopper)
    try:
        if given.command == "dataset":
            examples = _examples(given.examples, given.root, given.task)
            dataset = create_version(examples, given.root, task=given.task, seed=given.seed)
            print(dataset.folder)  # noqa: T201 - what the command is for
        else:
            head = Head(given.head.resolve())
            lines = [line.strip() for line in sys.stdin if line.strip()]
            if head.manifest.task == IMAGE:
                found = head.classify([read_picture(Path(line).read_bytes()) for line in lines])
            else:
                found = head.classify(lines)
            for said in found:
                print(msgspec.json.encode(said._asdict()).decode())  # noqa: T201 - likewise
    except (TrainingError, OSError) as exc:
        sys.stderr.write(f"{exc}\n")
        return EXIT_BAD_INPUT
    return EXIT_OK


def _examples(path: Path, root: Path, task: Task) -> list[Example]:
    """What is in a file or folder; which images were left out is said on standard error."""
    if task != IMAGE:
        return [*read_examples(path)]
    found, left_out = read_images(path, pictures_of(root))
    for each in left_out:
        sys.stderr.write(f"left out: {each.place}: {each.detail}\n")
    return [*found]


if __name__ == "__main__":
    os.umask(0o077)  # what is written here quotes what customers wrote
    sys.exit(main())
