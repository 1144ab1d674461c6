"""Routes beside vLLM's own: load an adapter, drop it, list what is loaded, describe the engine.

They are for the server alone: the engine listens on a unix socket, or in a private network.
"""

import os
from argparse import Namespace
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec
import vllm
from fastapi import FastAPI, Request, Response
from starlette.datastructures import State

from server.engine.backends.vllm.plugin.environment import read
from server.engine.backends.vllm.plugin.lora_registry import LoraRegistry, NameInUse
from server.engine.backends.vllm.plugin.resolver import (
    ADAPTER_NAME,
    Missing,
    Refused,
    shared_resolver,
)


class EnsureRequest(msgspec.Struct, frozen=True):
    """``path``: the adapter's folder, absolute, as this process sees it."""

    name: str
    path: str


class DropRequest(msgspec.Struct, frozen=True):
    """``name``: an adapter's engine name."""

    name: str


class AdapterRoutes:
    """vLLM's ``EndpointPlugin``."""

    name = "tenantune"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        """Add our routes."""
        for path, method, handler in (
            ("/tenantune/adapters", "GET", _list),
            ("/tenantune/adapters/ensure", "POST", _ensure),
            ("/tenantune/adapters/drop", "POST", _drop),
            ("/tenantune/info", "GET", _info),
        ):
            app.add_api_route(path, handler, methods=[method], include_in_schema=False)

    async def init_state(
        self,
        engine_client: Any,  # noqa: ANN401 - vLLM's EngineClient
        state: State,
        args: Namespace,
    ) -> None:
        """Remember what the routes need.

        Raises:
            RuntimeError: the engine was started without LoRA, or not by us.
        """
        environment = read()
        lora = state.vllm_config.lora_config
        if environment.adapters is None or lora is None:
            raise RuntimeError("start this engine with the command that tenantune builds")
        # vLLM asks its resolvers only with this switch on, which also opens three stock routes that
        # load any folder under any name. By now those routes have been left out.
        os.environ["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"  # noqa: TID251 - vLLM reads it there
        resolver = shared_resolver(environment)
        resolver.serving = Path(args.model)
        resolver.max_rank = lora.max_lora_rank
        state.tenantune = LoraRegistry(engine_client, state.openai_serving_models, resolver)
        cache, scheduler = state.vllm_config.cache_config, state.vllm_config.scheduler_config
        state.tenantune_info = {
            "vllm": vllm.__version__,
            "base": environment.base_name,
            "base_sha256": environment.base_sha256,
            "max_loras": lora.max_loras,
            "max_cpu_loras": lora.max_cpu_loras,
            "max_lora_rank": lora.max_lora_rank,
            "settings": {
                "kernels": environment.kernels,
                "model": args.model,
                "dtype": str(state.vllm_config.model_config.dtype).removeprefix("torch."),
                "max_model_len": state.vllm_config.model_config.max_model_len,
                "max_num_seqs": scheduler.max_num_seqs,
                "max_num_batched_tokens": scheduler.max_num_batched_tokens,
                "kv_cache_memory_bytes": cache.kv_cache_memory_bytes,
                "prefix_caching": cache.enable_prefix_caching,
            },
        }


async def _ensure(request: Request) -> Response:
    try:
        wanted = msgspec.json.decode(await request.body(), type=EnsureRequest)
    except msgspec.DecodeError as exc:
        return _error(HTTPStatus.BAD_REQUEST, str(exc), code="invalid_value")
    folder = Path(wanted.path)
    if not ADAPTER_NAME.fullmatch(wanted.name) or not folder.is_absolute() or ".." in folder.parts:
        message = "name must be <slug>.<12 hexadecimal digits>, and path absolute without '..'"
        return _error(HTTPStatus.UNPROCESSABLE_ENTITY, message, code="adapter_refused")
    registry: LoraRegistry = request.app.state.tenantune
    try:
        seconds = await registry.ensure(wanted.name, folder)
    except Missing as exc:
        return _error(HTTPStatus.NOT_FOUND, str(exc), code="adapter_missing")
    except NameInUse as exc:
        return _error(HTTPStatus.CONFLICT, str(exc), code="name_in_use")
    except Refused as exc:
        return _error(HTTPStatus.UNPROCESSABLE_ENTITY, str(exc), code="adapter_refused")
    return _json({"name": wanted.name, "loaded_ms": round(seconds * 1000, 1)})


async def _drop(request: Request) -> Response:
    try:
        wanted = msgspec.json.decode(await request.body(), type=DropRequest)
    except msgspec.DecodeError as exc:
        return _error(HTTPStatus.BAD_REQUEST, str(exc), code="invalid_value")
    registry: LoraRegistry = request.app.state.tenantune
    dropped = await registry.drop(wanted.name)
    return _json({"name": wanted.name, "dropped": dropped})


async def _list(request: Request) -> Response:
    registry: LoraRegistry = request.app.state.tenantune
    return _json({"adapters": registry.names})


async def _info(request: Request) -> Response:
    return _json(request.app.state.tenantune_info)


def _json(body: object, status: int = HTTPStatus.OK) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")


def _error(status: HTTPStatus, message: str, *, code: str) -> Response:
    kind = "invalid_request_error"
    error = {"message": message, "type": kind, "param": None, "code": code}
    return _json({"error": error}, status)
