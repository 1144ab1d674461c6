"""OpenAI's published schemas, to hold answers against."""

import json
from pathlib import Path
from typing import Any

import jsonschema

DOCUMENT = json.loads((Path(__file__).parents[3] / "data" / "openai_chat_schemas.json").read_text())


def conforms(value: Any, name: str) -> None:
    """Fail unless a value is what the schema says, without keys that it does not name."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    jsonschema.validate(value, schema, cls=jsonschema.Draft202012Validator)
    unknown = set(value) - set(DOCUMENT["components"]["schemas"][name]["properties"])
    assert not unknown, f"{name} has no {unknown}"
