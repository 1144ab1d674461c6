"""The command ``python -m training SPEC OUT [--resume] [--with-parent] [--controls-of ADAPTER]``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from training.pipeline import run, run_controls
from training.signals import GRACE_SECONDS, Stopper


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and run; exit codes are those of `training.events`."""
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description="Train, evaluate and write one adapter. Progress is JSON lines.",
        epilog="Exit codes: 0 done, 1 failed, 2 bad input, 75 stopped with its state saved "
        "(run again with --resume).",
    )
    parser.add_argument("spec", type=Path, help="training spec, JSON (see training/config.py)")
    parser.add_argument("out", type=Path, help="folder for checkpoints, events and the adapter")
    parser.add_argument(
        "--resume", action="store_true", help="go on where an earlier run in OUT stopped"
    )
    parser.add_argument(
        "--with-parent", action="store_true", help="stop when standard input closes"
    )
    parser.add_argument(
        "--controls-of",
        type=Path,
        metavar="ADAPTER",
        help="train nothing anew: only what the finished adapter in this folder is compared with",
    )
    given = parser.parse_args(arguments)
    stopper = Stopper(grace_seconds=GRACE_SECONDS, with_parent=given.with_parent)
    if given.controls_of is not None:
        adapter: Path = given.controls_of
        return run_controls(given.spec, given.out, adapter, resume=given.resume, stopper=stopper)
    return run(given.spec, given.out, resume=given.resume, stopper=stopper)


if __name__ == "__main__":
    os.umask(0o077)  # what is written here quotes transcripts
    sys.exit(main())
