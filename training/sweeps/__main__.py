"""The command ``python -m training.sweeps SPEC OUT [--with-parent]``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from training.signals import GRACE_SECONDS, Stopper
from training.sweeps.sweep import run

NICENESS = 10
"""Tenants' chats come first on a machine that does both."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and run; exit codes are those of `training.events`."""
    parser = argparse.ArgumentParser(
        prog="python -m training.sweeps",
        description="Look for a better recipe within a budget of time. Progress is JSON lines.",
        epilog="Exit codes: 0 done, 1 failed, 2 bad input, 75 stopped with its state saved (run it "
        "again to go on).",
    )
    parser.add_argument("spec", type=Path, help="JSON, see training/sweeps/config.py")
    parser.add_argument("out", type=Path, help="folder for trials, checkpoints and the recipe")
    parser.add_argument(
        "--with-parent", action="store_true", help="stop when standard input closes"
    )
    given = parser.parse_args(arguments)
    os.nice(NICENESS)
    stopper = Stopper(grace_seconds=GRACE_SECONDS, with_parent=given.with_parent)
    return run(given.spec, given.out, stopper=stopper)


if __name__ == "__main__":
    os.umask(0o077)  # what is written here quotes transcripts
    sys.exit(main())
