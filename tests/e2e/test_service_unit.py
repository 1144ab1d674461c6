"""The unit in ``docs/how-to/run-and-watch.md`` runs, writes where it may, and stops as systemd asks.

There is no systemd in a test. Its part is played here: the environment it gives, bubblewrap for
``ProtectSystem=strict`` and ``PrivateTmp`` where that works, and ``KillMode=mixed``.
"""

import configparser
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.up import Up
from tests.processes import family
from tests.tiny import SAMPLE

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "run-and-watch.md"
HERE = Path(sys.executable).parent / "tenantune"  # as /opt/tenantune/.venv/bin/tenantune
# what a service of the system gets, whatever the shell of its operator has (man systemd.exec)
SYSTEM = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
    "LANG": "C.UTF-8",
    "HOME": "/nonexistent",  # `useradd --system` makes none
}


def text() -> str:
    found = re.search(r"```ini\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found[1]


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text())
    return parser


class Service(Up):
    """The unit's ExecStart, with the fake engine and a data folder of the test's."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.service = unit()["Service"]
        given = dict(pair.split("=", 1) for pair in shlex.split(self.service["Environment"]))
        assert Path(given["TENANTUNE_HOME"]) == Path("/var/lib") / self.service["StateDirectory"]
        ours = {name: value for name, value in self.env.items() if name.startswith("TENANTUNE_")}
        env = {**SYSTEM, **given, **ours, "PYTHONPATH": str(ROOT)}
        command = [str(HERE), *shlex.split(self.service["ExecStart"])[1:]]
        self.restricted_by = self.restrictions()
        with (home / "up.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.restricted_by, *command],
                cwd="/",
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def main(self) -> psutil.Process:
        """The main process; bubblewrap starts it as its child, and ends as it ends."""
        assert self.process is not None
        started = psutil.Process(self.process.pid)
        return started.children()[0] if self.restricted_by else started

    def restrictions(self) -> list[str]:
        """The system is read-only, /tmp is its own, and only the state directory can be written."""
        assert self.service["ProtectSystem"] == "strict"
        assert self.service.getboolean("PrivateTmp")
        words = ["bwrap", "--ro-bind", "/", "/", "--dev-bind", "/dev", "/dev", "--tmpfs", "/tmp"]
        for path in (str(ROOT), sys.prefix):  # also where these are under /tmp
            words += ["--ro-bind", path, path]
        words += ["--bind", str(self.home), str(self.home), "--"]
        works = (
            shutil.which("bwrap") and not subprocess.run([*words, "true"], check=False).returncode
        )
        return words if works else []


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path / "home")
    yield service
    for pid in family(service.home):
        os.kill(pid, signal.SIGKILL)
    service.end()


def test_the_unit_starts_works_and_stops_by_the_signal_that_it_names(service: Service) -> None:
    service.wait(service.ready, "everything is there")
    main = service.main()
    service.call("POST", "/admin/tenants", {"slug": "loaf"})
    path = "/admin/tenants/loaf/transcripts?filename=loaf.jsonl"
    made = service.call("POST", path, SAMPLE.read_bytes())
    path = f"/admin/tenants/loaf/imports/{made['id']}"
    service.wait(lambda: service.call("GET", path)["state"] == "done", "the import is done")
    assert {main.pid} < set(family(service.home)), "it has children"
    assert service.service["KillMode"] == "mixed"  # the signal goes to the main process alone
    main.send_signal(signal.Signals[service.service.get("KillSignal", "SIGTERM")])
    # after that time systemd would kill what is left
    assert service.process is not None
    code = service.process.wait(timeout=int(service.service["TimeoutStopSec"]))
    assert code == 0, service.logs()
    assert family(service.home) == {}, "nothing is left that would have to be killed"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_knows_every_word_of_the_unit(tmp_path: Path) -> None:
    path = tmp_path / "tenantune.service"
    path.write_text(re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={HERE}", text()))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False
    )
    assert path.name not in done.stderr
    assert done.returncode == 0, done.stderr
