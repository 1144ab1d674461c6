"""What an engine says of itself to tests alone: the server has no use for it."""

import msgspec

from server.engine.client import EngineClient

_SECONDS = 30.0


class _Adapters(msgspec.Struct):
    adapters: list[str]


async def loaded_adapters(client: EngineClient) -> list[str]:
    """Names of the adapters that the engine has loaded."""
    data = await client._get("/tenantune/adapters", _SECONDS)
    return msgspec.json.decode(data, type=_Adapters).adapters


async def engine_metrics(client: EngineClient) -> str:
    """The engine's own metrics, as Prometheus text."""
    return (await client._get("/metrics", _SECONDS)).decode()
