"""Folders for what is only there while something is read: uploads' copies, conversations on their way.

In the data folder and not in the system's: it is closed to others, on the disk that has room for
uploads, and what a process leaves that is killed is found again and removed (``clear``).
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
    """An empty folder, gone at the end."""
    root = private_folder(settings.scratch)
    # whose it is can be told from its name, however the process ends
    with tempfile.TemporaryDirectory(prefix=f"{name}-{os.getpid()}-", dir=root) as folder:
        yield Path(folder)


def clear(settings: Settings) -> None:
    """Remove what processes left that are no more."""
    for folder in settings.scratch.glob("*-*-*"):
        owner = folder.name.split("-")[1]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)  # what is left goes the next time
