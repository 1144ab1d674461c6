"""Where copies of uploads lie while they are read, and what is left of a process that is killed."""

import stat
import subprocess
import sys
from pathlib import Path

from server.scratch import clear, scratch
from server.settings import Settings

DIES = """
import os, sys
from pathlib import Path
from server.scratch import scratch
from server.settings import Settings
with scratch(Settings(home=Path(sys.argv[1])), "import") as folder:
    (folder / "copy").write_text("raw")
    os._exit(1)
"""


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    subprocess.run([sys.executable, "-c", DIES, str(settings.home)], check=False)
    (left,) = settings.scratch.iterdir()
    assert (left / "copy").exists()
    with scratch(settings, "dataset") as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(settings.scratch.stat().st_mode) == 0o700
        clear(settings)
        assert list(settings.scratch.iterdir()) == [folder]
    assert list(settings.scratch.iterdir()) == []
