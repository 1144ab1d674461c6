"""A command that makes a request, for every operation."""

import json
from typing import Any

# easier to recognise than "string"
SAMPLES: dict[str, Any] = {
    "model": "acme",
    "slug": "acme",
    "name": "Acme",
    "role": "user",
    "content": "Where is my parcel?",
    "input": "Where is my parcel?",
    "prompt": "Where is my parcel?",
    "purpose": "fine-tune",
    "training_file": "file-abc123",
    "version": 1,
    "url": "https://example.com/hook",
    "filename": "tickets.jsonl",
    "mime_type": "application/jsonl",
}
_DEPTH = 6


def curl(document: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> str:
    """The command, with ``$URL`` and ``$KEY`` for what only the reader knows."""
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            name = parameter["name"]
            sample = SAMPLES.get(name, name.upper())
            path = path.replace("{" + name + "}", str(sample))
    lines = [
        f'curl "$URL{path}"'
        if method in {"get", "post"}
        else f'curl -X {method.upper()} "$URL{path}"'
    ]
    if operation["security"]:
        lines.append('-H "Authorization: Bearer $KEY"')
    content = operation.get("requestBody", {}).get("content", {})
    if "application/json" in content:
        body = example(document, content["application/json"]["schema"])
        text = json.dumps(body, indent=2, ensure_ascii=False).replace("'", "'\\''")
        lines += ['-H "Content-Type: application/json"', f"-d '{text}'"]
    elif "multipart/form-data" in content:
        form = _resolve(document, content["multipart/form-data"]["schema"])
        for name in form.get("required", ()):
            binary = form["properties"][name].get("format") == "binary"
            sample = (
                "@tickets.jsonl" if binary else example(document, form["properties"][name], name)
            )
            lines.append(f"-F {name}={sample}")
    elif method == "post":
        lines.append("-X POST")
    return " \\\n  ".join(lines)


def example(
    document: dict[str, Any], schema: dict[str, Any], name: str = "", depth: int = 0
) -> Any:  # noqa: ANN401 - JSON
    """A small value that follows a schema: the required fields, and no more."""
    schema = _resolve(document, schema)
    values = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    if values:
        return SAMPLES[name] if SAMPLES.get(name) in values else values[0]
    if "properties" in schema:
        return _object(document, schema, depth)
    if name in SAMPLES:
        return SAMPLES[name]
    for choice in schema.get("anyOf", ()):
        if choice.get("type") != "null":
            return example(document, choice, name, depth)
    if schema.get("type") == "array":
        return [example(document, schema.get("items", {}), name, depth + 1)]
    known = {"integer": schema.get("minimum", 1), "number": 1.0, "boolean": True, "string": "..."}
    return schema.get("default") or known.get(schema.get("type", ""), {})


def _object(document: dict[str, Any], schema: dict[str, Any], depth: int) -> dict[str, Any]:
    fields = schema["properties"]
    names = list(schema.get("required", ()))
    if "role" in fields and "content" in fields and "content" not in names:
        names.append("content")  # a message that says nothing is no example
    if depth >= _DEPTH:  # a schema that holds itself
        return {}
    return {name: example(document, fields[name], name, depth + 1) for name in names}


def _resolve(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return schema
    found: dict[str, Any] = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found
