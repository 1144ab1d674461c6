"""The examples run from their first cell to their last, as notebooks, and say what they promise."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import jupytext
import pytest
from nbclient import NotebookClient

from tests.server.engine.vllm.vllm_process import built_in_base

EXAMPLES = Path(__file__).parents[2] / "examples"
Said = Callable[[str], str]


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Said:
    """Runs an example in a kernel of its own; what its cells printed, cell after cell."""
    monkeypatch.setenv("TENANTUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")])
    )
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))

    def run(name: str) -> str:
        notebook = jupytext.read(EXAMPLES / name)
        client = NotebookClient(notebook, timeout=600, kernel_name="python3", coalesce_streams=True)
        client.execute(cwd=str(tmp_path))
        outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
        return "\n".join(
            out["text"] if out["output_type"] == "stream" else out["data"]["text/plain"]
            for out in outputs
            if out["output_type"] == "display_data" or out.get("name") == "stdout"
        )

    return run


def test_every_example_has_a_test() -> None:
    tested = set(re.findall(r'said\("([a-z_]+\.py)"\)', Path(__file__).read_text("utf-8")))
    assert tested == {path.name for path in EXAMPLES.glob("*.py")}


def test_import_and_redact(said: Said) -> None:
    text = said("import_and_redact.py")
    assert "kept      260 conversations" in text
    assert "[IBAN_1]" in text
    assert "write to [EMAIL_1]" in text


@pytest.mark.timeout(300)
def test_chat_with_tools(said: Said) -> None:
    text = said("chat_with_tools.py")
    assert 'skip_week {"weeks":2}' in text
    assert re.search(r'\{"weeks":\d+,"fee":(true|false)\}', text)


@pytest.mark.heavy
@pytest.mark.timeout(600)
def test_train_and_report(said: Said, tmp_path: Path) -> None:
    built_in = built_in_base()  # making one takes half a minute, and other tests need it too
    bases = tmp_path / "home" / "bases"
    bases.mkdir(parents=True)
    (bases / built_in.model.name).symlink_to(built_in.serving.parent)
    text = said("train_and_report.py")
    # steps are not compared: of a handful, what each reads differs by more than they teach
    assert re.search(r"step +\d+ +loss [0-9.]+", text)
    base, new = re.search(r"replies: base ([0-9.]+), new ([0-9.]+)", text).groups()  # type: ignore[union-attr]
    assert float(new) < float(base) / 2
    assert "UNSAFE" in text
