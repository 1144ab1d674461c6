"""Temporary folders: copies of uploads, and conversations while they are being processed.

They are in the data folder, not in the system's: it is closed to other users, it is on the disk
that has room for uploads, and folders of a killed process are found and removed (``clear``).
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from server.home import private_folder
from server.settings import Settings


@contextmanager
def scratch(settings: Settings, name: str) -> Iterator[Path]:
    """An empty folder, removed at the end of the block."""
    root = private_folder(settings.scratch)
    # its name says which process it belongs to
    with tempfile.TemporaryDirectory(prefix=f"{name}-{os.getpid()}-", dir=root) as folder:
        yield Path(folder)


def clear(settings: Settings) -> None:
    """Remove the folders of processes that are not running any more."""
    for folder in settings.scratch.glob("*-*-*"):
        owner = folder.name.split("-")[1]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(
                folder, ignore_errors=True
            )  # what cannot be removed now is tried again the next time
