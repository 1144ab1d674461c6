"""What we add to vLLM, through its own plugin groups and nothing else.

``register`` (group ``vllm.general_plugins``) runs in each of the engine's processes;
``routes.AdapterRoutes`` (group ``vllm.endpoint_plugins``) in the one that answers HTTP. Importing
this package imports neither vLLM nor torch.
"""

import logging

from server.engine.backends.vllm.plugin.environment import ALLOW_UNTESTED_VLLM, Kernels, read
from server.engine.tool_format import HERMES

TESTED_VLLM = "0.32"
_PUNICA = "server.engine.backends.vllm.plugin.punica.GroupedPunicaWrapper"
_TOOL_PARSER = "server.engine.backends.vllm.plugin.tool_parser"

logger = logging.getLogger("vllm.tenantune")


def register() -> None:
    """Install the resolver and the tool parser; on a CPU also the LoRA kernels and zeroed blocks.

    Does nothing in an engine that this server did not start. May be called more than once.

    Raises:
        RuntimeError: this vLLM is of a minor version that the plugin was not tested with.
    """
    environment = read()
    if environment.adapters is None:
        return
    import vllm  # noqa: PLC0415 - heavy, and only there inside an engine

    check_version(vllm.__version__, allowed=environment.allow_untested_vllm)

    from vllm.lora.resolver import LoRAResolverRegistry  # noqa: PLC0415
    from vllm.platforms import current_platform  # noqa: PLC0415
    from vllm.tool_parsers import ToolParserManager  # noqa: PLC0415

    from server.engine.backends.vllm.plugin.resolver import NAME, shared_resolver  # noqa: PLC0415

    if NAME not in LoRAResolverRegistry.get_supported_resolvers():
        LoRAResolverRegistry.register_resolver(NAME, shared_resolver(environment))
    ToolParserManager.register_lazy_module(HERMES, _TOOL_PARSER, "CompactHermes")
    if current_platform.is_cpu():
        _repair_cpu_backend(environment.kernels)


def check_version(version: str, *, allowed: bool) -> None:
    """Refuse a vLLM whose internals this plugin was not checked against.

    Raises:
        RuntimeError: the minor version is another, and ``allowed`` is not set.
    """
    if version.split(".")[:2] == TESTED_VLLM.split("."):
        return
    message = (
        f"vLLM {version} is installed, and tenantune was tested with {TESTED_VLLM}: it replaces "
        f"LoRA kernels that answer one tenant with another's adapter. Install vLLM {TESTED_VLLM}"
    )
    if not allowed:
        raise RuntimeError(f"{message}, or set {ALLOW_UNTESTED_VLLM}=1 to take the risk.")
    logger.warning("%s; starting all the same, as %s=1 asks.", message, ALLOW_UNTESTED_VLLM)


def _repair_cpu_backend(kernels: Kernels) -> None:
    """Replace vLLM's LoRA kernels (``punica`` says why), and zero cache blocks before their reuse.

    A request that ended in NaN leaves NaN in its blocks of the key-value cache. Attention
    multiplies even the masked positions of a reused block, so every later request there would
    answer garbage. vLLM can zero blocks as it hands them out, but does so for some architectures.
    """
    from vllm.platforms.cpu import CpuPlatform  # noqa: PLC0415
    from vllm.v1.kv_cache_interface import KVCacheConfig  # noqa: PLC0415

    if kernels == "grouped":
        CpuPlatform.get_punica_wrapper = classmethod(lambda _: _PUNICA)
    else:
        logger.warning(
            "Stock LoRA kernels: base requests may be answered with a tenant's adapter. "
            "For measurements only."
        )
    KVCacheConfig.needs_kv_cache_zeroing = property(lambda _: True)
