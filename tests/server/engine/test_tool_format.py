"""Which form of calls a base's chat template writes."""

from pathlib import Path

import msgspec
import pytest

from server.engine.tool_format import HERMES, tool_format

QWEN = "{% if tools %}...{{ '<tools>' }}{% endif %}{{ '<tool_call>' }}"
CODER = "{% if tools %}{{ '<tool_call>\n<function=' }}{% endif %}"
LLAMA = "{% if tools is not none %}{% endif %}{{ '<|start_header_id|>ipython' }}"
MISTRAL = "{% if tools is defined %}[AVAILABLE_TOOLS]{% endif %}[TOOL_CALLS]"
OTHER = "{% for tool in tools %}<|tool|>{% endfor %}"
CHATML = "{% for message in messages %}<|im_start|>{{ message.role }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "native", "parser"),
    [
        (CHATML, False, HERMES),
        (QWEN, True, HERMES),
        (CODER, True, "qwen3_coder"),
        (LLAMA, True, "llama3_json"),
        (MISTRAL, True, "mistral"),
        (OTHER, True, HERMES),
    ],
    ids=["plain", "qwen", "qwen-coder", "llama", "mistral", "other"],
)
def test_the_template_tells(tmp_path: Path, template: str, native: bool, parser: str) -> None:
    (tmp_path / "chat_template.jinja").write_text(template)
    found = tool_format(tmp_path)
    assert (found.native, found.parser) == (native, parser)
    assert found.reason


def test_templates_inside_the_tokenizers_settings_count(tmp_path: Path) -> None:
    for kept in (QWEN, [{"name": "default", "template": CHATML}, {"name": "t", "template": QWEN}]):
        config = msgspec.json.encode({"chat_template": kept})
        (tmp_path / "tokenizer_config.json").write_bytes(config)
        assert tool_format(tmp_path).native


def test_without_a_template_the_server_writes_the_tools(tmp_path: Path) -> None:
    assert not tool_format(tmp_path).native
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert not tool_format(tmp_path).native
