"""What vLLM's CPU back end needs mending: see ``punica`` for the kernels.

Cache blocks: a request that ended in NaN leaves NaN in its blocks of the KV cache, and attention
multiplies even masked positions of a reused block, so the next request there answers garbage, for
ever. vLLM can zero blocks as it hands them out, but does so only for some architectures.
"""

import logging

from vllm.platforms.cpu import CpuPlatform
from vllm.v1.kv_cache_interface import KVCacheConfig

from server.engine.backends.vllm.plugin.environment import Kernels

GROUPED = "server.engine.backends.vllm.plugin.punica.GroupedPunicaWrapper"

logger = logging.getLogger("vllm.tenantune")


def install(kernels: Kernels) -> None:
    """Use our LoRA kernels (unless told ``stock``) and zero cache blocks before their reuse."""
    if kernels == "grouped":
        CpuPlatform.get_punica_wrapper = classmethod(lambda _: GROUPED)
    else:
        logger.warning(
            "Stock LoRA kernels: base requests may be answered with a tenant's adapter. "
            "For measurements only."
        )
    KVCacheConfig.needs_kv_cache_zeroing = property(lambda _: True)
