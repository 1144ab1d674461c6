"""The environment variables by which the server configures this plugin in the engine's process.

``server.engine.backends.vllm.launch`` sets them. They are not settings for operators.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, cast

import msgspec

ADAPTERS = "TENANTUNE_ADAPTERS"
BASE_NAME = "TENANTUNE_BASE_NAME"
BASE_SHA256 = "TENANTUNE_BASE_SHA256"
LORA_KERNELS = "TENANTUNE_LORA_KERNELS"
ALLOW_UNTESTED_VLLM = "TENANTUNE_ALLOW_UNTESTED_VLLM"

Kernels = Literal["grouped", "stock"]


class PluginEnvironment(msgspec.Struct, frozen=True, kw_only=True):
    """What the server says to the engine that it starts.

    Args:
        adapters: the folder of published adapters; None in an engine that we did not start.
        base_name: the name of the base model.
        base_sha256: the hash of its serving weights; empty where it is not to be checked.
        kernels: the LoRA kernels on a CPU: ours (``grouped``), or vLLM's (``stock``).
        allow_untested_vllm: run with a vLLM that the plugin was not tested with.
    """

    adapters: Path | None
    base_name: str
    base_sha256: str
    kernels: Kernels = "grouped"
    allow_untested_vllm: bool = False


def read(environ: Mapping[str, str] | None = None) -> PluginEnvironment:
    """Read the variables.

    Raises:
        ValueError: a variable has a value that is not allowed.
    """
    source = os.environ if environ is None else environ  # noqa: TID251 - the engine's own process
    kernels = source.get(LORA_KERNELS) or "grouped"
    if kernels not in ("grouped", "stock"):
        raise ValueError(f"{LORA_KERNELS} is {kernels!r}: use 'grouped' or 'stock'")
    folder = source.get(ADAPTERS)
    return PluginEnvironment(
        adapters=Path(folder) if folder else None,
        base_name=source.get(BASE_NAME, ""),
        base_sha256=source.get(BASE_SHA256, ""),
        kernels=cast("Kernels", kernels),
        allow_untested_vllm=source.get(ALLOW_UNTESTED_VLLM) == "1",
    )
