"""What the engine process is told by the server that starts it: a few environment variables.

They are a private wire between ``server.engine.backends.vllm.launch`` and this plugin, not operator settings.
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
    """``adapters``: the folder of published adapters; None means this engine is not ours."""

    adapters: Path | None
    base_name: str
    base_sha256: str
    kernels: Kernels = "grouped"
    allow_untested_vllm: bool = False


def read(environ: Mapping[str, str] | None = None) -> PluginEnvironment:
    """Read the variables.

    Raises:
        ValueError: a variable holds something else than it may.
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
