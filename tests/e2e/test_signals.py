"""Ctrl-C, SIGTERM and ``kill -9`` at random moments: nothing is left after ten seconds, and it goes on.

The moments follow from a seed, which is printed; TENANTUNE_TEST_SEED repeats a run.
"""

import http.client
import json
import os
import random
import secrets
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM
from typing import Any

import pytest

from server.embeddings.schemas import MODEL
from server.engine.backends.vllm.launch import ENTRY
from tests.e2e.up import Up
from tests.processes import Foreground
from tests.server.engine.vllm.vllm_process import built_in_base
from tests.tiny import SAMPLE
from training.base_models.manifest import verify_base
from training.locks import try_lock

SEED = int(os.environ.get("TENANTUNE_TEST_SEED") or secrets.randbelow(1 << 32))
SLOW_ANSWERS = "words=900 tokens_per_second=5"
SIGNALS = [SIGINT, SIGTERM, SIGKILL]
CUT = {SIGINT: 130, SIGTERM: 143, SIGKILL: -9}  # exit codes of what had not done its work


@pytest.fixture
def moment(request: pytest.FixtureRequest) -> random.Random:
    """Random numbers of this test's own, whichever others run."""
    print(f"TENANTUNE_TEST_SEED={SEED}")
    return random.Random(f"{SEED} {request.node.name}")


class Node(Up):
    """A command on a data folder, in the foreground; mostly ``tenantune up``."""

    def __init__(self, home: Path, **settings: str) -> None:
        super().__init__(home, **settings)
        self.running: Foreground | None = None

    def run(self, *words: str) -> Foreground:
        self.running = Foreground(*words, env=self.env, log=self.home / "command.log")
        return self.running

    def up(self) -> Foreground:
        running = self.run("up")
        self.wait(self.ready, "everything is there")
        return running

    def logs(self) -> str:
        return super().logs() + (self.running.said() if self.running else "")

    def end(self) -> None:
        if self.running:
            self.running.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path / "home")
    yield node
    node.end()


def upload(node: Node, copies: int) -> str:
    """Begin an import that takes some seconds; where it can be looked at."""
    node.call("POST", "/admin/tenants", {"slug": "loaf"})
    lines = SAMPLE.read_text(encoding="utf-8").splitlines()
    text = "".join(
        line.replace("the", f"the {n}").replace('"loaf-', f'"loaf-{n}-') + "\n"
        for n in range(copies)
        for line in lines
    )
    path = "/admin/tenants/loaf/transcripts?filename=loaf.jsonl"
    made = node.call("POST", path, text.encode())
    return f"/admin/tenants/loaf/imports/{made['id']}"


def ask(node: Node, path: str, **body: Any) -> http.client.HTTPConnection:
    """Send a request whose answer nobody awaits."""
    made = node.call("POST", "/admin/tenants/loaf/keys", {"scopes": ["chat"]})
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=30)
    headers = {"Authorization": f"Bearer {made['key']}", "Content-Type": "application/json"}
    connection.request("POST", f"/v1/{path}", json.dumps(body), headers)
    return connection


def stream(node: Node) -> http.client.HTTPConnection:
    """An answer under way that takes minutes."""
    words = [{"role": "user", "content": "Hello"}]
    connection = ask(node, "chat/completions", model="tiny", stream=True, messages=words)
    assert connection.getresponse().status == 200
    return connection


@pytest.mark.parametrize("number", SIGNALS)
def test_a_server_that_starts_ends_at_any_moment(
    node: Node, moment: random.Random, number: signal.Signals
) -> None:
    node.env["TENANTUNE_ENGINE_OPTIONS"] = "start_seconds=60"
    running = node.run("up")
    time.sleep(moment.uniform(0.1, 8))
    print(f"{number.name}: all gone after {running.end(number):.1f} s")
    # 0 once it ran; before its first line Python's own end, by the signal
    assert running.process.returncode in {0, CUT[number], -number}


def test_a_busy_server_ends_at_any_moment_and_goes_on_with_its_import(
    node: Node, moment: random.Random
) -> None:
    number = moment.choice(SIGNALS)
    node.env["TENANTUNE_ENGINE_OPTIONS"] = SLOW_ANSWERS
    running = node.up()
    made = upload(node, copies=8)
    chat = stream(node)
    embedding = ask(node, "embeddings", model=MODEL, input="Hi")
    time.sleep(moment.uniform(0, 4))
    print(f"{number.name}: all gone after {running.end(number):.1f} s")
    assert running.process.returncode in {0, -SIGKILL}
    chat.close()
    embedding.close()
    node.up()
    node.wait(lambda: node.call("GET", made)["state"] == "done", "the import is done")


def test_what_hangs_is_ended_too(node: Node, moment: random.Random) -> None:
    running = node.up()
    for part in ("server.worker", "server.engine.backends.fake"):
        process = node.child(f"-m {part}")
        assert process is not None
        process.suspend()  # it takes no signal but SIGKILL
    time.sleep(moment.uniform(0, 1))
    running.end(SIGTERM)


def test_a_second_ctrl_c_ends_it_at_once(node: Node) -> None:
    node.env["TENANTUNE_DRAIN_SECONDS"] = "600"
    node.env["TENANTUNE_ENGINE_OPTIONS"] = SLOW_ANSWERS
    running = node.up()
    node.call("POST", "/admin/tenants", {"slug": "loaf"})
    chat = stream(node)
    os.killpg(running.process.pid, SIGINT)
    node.wait(lambda: "stopping" in running.said(), "it is told to stop")
    time.sleep(1)
    assert running.process.poll() is None, "an open answer may finish"
    assert running.end(SIGINT) < 5
    assert running.process.returncode == CUT[SIGINT]
    chat.close()


def test_a_client_that_is_stopped_says_what_becomes_of_its_job(
    node: Node, moment: random.Random
) -> None:
    node.command("tenants", "create", "loaf", "--name", "Loaf")
    node.command("transcripts", "import", str(SAMPLE), "--tenant", "loaf")
    assert try_lock(node.home / "run" / "worker.lock") is not None  # as a worker that is busy
    for number in (SIGINT, SIGTERM):
        running = node.run("train", "--tenant", "loaf")
        node.wait(lambda: "state: queued" in node.logs(), "it follows the job")
        time.sleep(moment.uniform(0, 1))
        running.end(number)
        assert running.process.returncode == CUT[number]
        last, *_ = json.loads(node.command("jobs", "list", "--tenant", "loaf", "--json"))
        assert last["state"] == "queued"
        assert f"job {last['id']} goes on without this command" in running.said()
        running.log.unlink()


def test_a_server_with_the_fake_engine_makes_no_base_and_a_job_says_how_to(node: Node) -> None:
    node.env["TENANTUNE_BASE"] = "smollm2-135m-instruct"
    began = time.monotonic()
    node.up()
    assert time.monotonic() - began < 60
    assert not (node.home / "bases").exists()
    made = upload(node, copies=1)
    node.wait(lambda: node.call("GET", made)["state"] == "done", "the import is done")
    job = node.call("POST", "/admin/tenants/loaf/jobs", {"seed": 1})
    path = f"/admin/tenants/loaf/jobs/{job['id']}"
    ended = node.wait(lambda: (j := node.call("GET", path))["state"] == "failed" and j, "it fails")
    assert "`tenantune bases add smollm2-135m-instruct`" in ended["error"]["message"]


# a model with random weights is to pass
LENIENT = (
    "max_perplexity_ratio=10 min_similarity_gain=-2 min_lookup_f1_gain=-1 max_invented_gain=1 "
    "max_parity_nats=1e9"
)


def events(node: Node, kind: str) -> list[dict[str, Any]]:
    """What trainers said, of all jobs, in the order of each."""
    files = node.home.glob("jobs/*/events.jsonl")
    lines = [line for file in files for line in file.read_bytes().splitlines()]
    return [event for event in map(json.loads, lines) if event["event"] == kind]


@pytest.mark.heavy
@pytest.mark.timeout(400)
def test_a_demo_ends_at_any_moment_and_goes_on_at_its_checkpoint(
    tmp_path: Path, bases: Path, moment: random.Random
) -> None:
    shutil.copytree(bases, tmp_path / "home" / "bases")
    node = Node(tmp_path / "home", TENANTUNE_OBJECTIVES=LENIENT)
    try:
        for number, stage in ((SIGINT, "step"), (SIGTERM, "step"), (SIGKILL, "evaluation")):
            before = len(events(node, stage))
            running = node.run("demo")
            node.wait(lambda: len(events(node, stage)) > before, f"a {stage}")  # noqa: B023
            time.sleep(moment.uniform(0, 1))
            print(f"{number.name} in {stage}: all gone after {running.end(number):.1f} s")
            assert running.process.returncode == CUT[number]
        assert events(node, "resumed"), "it goes on at its checkpoint"
        assert len(list((node.home / "jobs").iterdir())) == 1, "it goes on with the same job"
        steps = [event["step"] for event in events(node, "step")]
        assert steps == sorted(set(steps)), "no step was taken twice: both were saved"
    finally:
        node.end()


@pytest.mark.heavy
@pytest.mark.timeout(300)
def test_making_a_base_ends_at_any_moment_and_is_done_again(
    tmp_path: Path, bases: Path, moment: random.Random
) -> None:
    node = Node(tmp_path / "home")
    source, made = str(bases.parent / "tiny"), node.home / "bases" / "tiny"
    try:
        for number in (moment.choice([SIGINT, SIGTERM]), SIGKILL):
            running = node.run("bases", "add", source)
            node.wait(lambda: node.child("training.base_models.quantize"), "it makes the base")
            time.sleep(moment.uniform(0, 6))
            print(f"{number.name}: all gone after {running.end(number):.1f} s")
            assert "Traceback" not in running.said()
            if made.exists():  # it was quicker than the signal: then it is whole
                assert running.process.returncode in {0, CUT[number]}, running.said()
                assert verify_base(made)
                shutil.rmtree(made)
            else:
                assert running.process.returncode == CUT[number], running.said()
        node.command("bases", "add", source)
        assert verify_base(made)
        assert not list((node.home / "bases").glob(".tiny.partial-*"))
    finally:
        node.end()


@pytest.mark.heavy
@pytest.mark.vllm
@pytest.mark.timeout(300)
def test_vllm_ends_at_any_moment_of_its_start(tmp_path: Path, moment: random.Random) -> None:
    base = built_in_base()
    (tmp_path / "home" / "bases").mkdir(parents=True)
    (tmp_path / "home" / "bases" / base.model.name).symlink_to(base.serving.parent)
    node = Node(tmp_path / "home", engine="vllm", TENANTUNE_BASE=base.model.name)
    number = moment.choice(SIGNALS)
    try:
        running = node.run("up")
        node.wait(lambda: node.child(ENTRY), "vLLM starts")
        time.sleep(moment.uniform(0, 20))
        print(f"{number.name}: all gone after {running.end(number):.1f} s")
        assert running.process.returncode in {0, -SIGKILL}
    finally:
        node.end()
