"""How vLLM is started: each setting has a reason, and the operator's word is the last."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from server.engine.backends.vllm.hardware import Gpu, Machine, this_machine, usable_cores
from server.engine.backends.vllm.launch import CPU_HEAD_SIZES, vllm_command
from server.engine.process.command import EngineCommand
from server.settings import SettingsError
from tests.tiny import TINY as BASE
from training.compute_dtype import TypeChoice

GIB = 2**30
CPU = Machine(cores=2, memory_bytes=20 * GIB, vllm="cpu", vllm_version="0.32.0")
GPU = Machine(
    cores=16,
    memory_bytes=100 * GIB,
    vllm="gpu",
    vllm_version="0.32.0",
    gpus=(Gpu("H200", 140 * GIB),),
)
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
}


FLOAT32 = TypeChoice(type="float32", reason="float32 takes 2 ms, bfloat16 20")
BFLOAT16 = TypeChoice(type="bfloat16", reason="bfloat16 takes 1 ms, float32 2")


@pytest.fixture
def command(tmp_path):
    serving = tmp_path / "serving"
    serving.mkdir()
    (serving / "config.json").write_bytes(msgspec.json.encode(CONFIG))

    def build(machine=CPU, *, base=BASE, computing=FLOAT32, **overrides):
        return vllm_command(
            base=base,
            serving=serving,
            adapters=tmp_path / "adapters",
            run=tmp_path / "run",
            overrides=overrides,
            machine=machine,
            computing=computing,
        )

    return build


def test_a_base_whose_heads_vllm_cannot_serve_is_refused_on_a_cpu(command, tmp_path):
    config = {**CONFIG, "head_dim": 16}
    (tmp_path / "serving" / "config.json").write_bytes(msgspec.json.encode(config))
    with pytest.raises(
        SettingsError, match=r"'tiny' has attention heads of 16 .* serves only 32, 64"
    ):
        command()
    command(GPU)


@pytest.mark.heavy
def test_vllm_serves_these_heads_on_a_cpu():
    cpu_attn = pytest.importorskip("vllm.v1.attention.backends.cpu_attn")
    sizes = cpu_attn.CPUAttentionBackend.get_supported_head_sizes()
    assert tuple(sizes) == CPU_HEAD_SIZES


def value(command: EngineCommand, flag: str) -> str:
    return command.argv[command.argv.index(flag) + 1]


@pytest.mark.parametrize("machine", [CPU, GPU], ids=["cpu", "gpu"])
def test_every_choice_has_a_reason_and_is_in_the_command(command, machine):
    built = command(machine)
    for choice in built.choices:
        assert choice.reason
        if choice.name.isupper():
            assert built.env.get(choice.name, "") == choice.value
        elif choice.name == "turn_seconds":
            assert choice.value in value(built, "--additional-config")
        elif choice.value:
            flag = choice.name.replace("_", "-")
            assert {f"--{flag}", f"--no-{flag}"} & set(built.argv)


def test_engine_listens_on_a_socket_and_loads_only_our_plugin(command, tmp_path):
    built = command()
    assert value(built, "--uds") == str(built.uds)
    assert "--port" not in built.argv
    assert built.env["VLLM_PLUGINS"] == "tenantune"
    assert built.env["TENANTUNE_BASE_SHA256"] == "a" * 64
    assert built.env["TENANTUNE_ADAPTERS"] == str(tmp_path / "adapters")
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in built.env


def test_caches_stay_in_the_data_folder(command, tmp_path):
    caches = {k: v for k, v in command().env.items() if k.endswith(("_ROOT", "_DIR"))}
    assert len(caches) == 4
    assert all(v.startswith(str(tmp_path / "run")) for v in caches.values())


def test_operator_overrides_flags_and_variables(command):
    built = command(
        **{"max_loras": "6", "OMP_NUM_THREADS": "7", "seed": "5", "enable-prefix-caching": "false"}
    )
    assert (value(built, "--max-loras"), built.env["OMP_NUM_THREADS"]) == ("6", "7")
    assert value(built, "--seed") == "5"
    assert "--no-enable-prefix-caching" in built.argv
    reasons = {c.name: c.reason for c in built.choices}
    assert {reasons[n] for n in ("max_loras", "OMP_NUM_THREADS", "seed")} == {"set by the operator"}


def test_empty_override_leaves_the_setting_to_vllm(command):
    built = command(lora_target_modules="", LD_PRELOAD="")
    assert "--lora-target-modules" not in built.argv
    assert "LD_PRELOAD" not in built.env


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("uds", "/tmp/x"),
        ("model", "/other"),
        ("TENANTUNE_ADAPTERS", "/x"),
        ("max_loras", "many"),
        ("max_lora_rank", "20"),
        ("max_cpu_loras", "1"),
        ("turn_seconds", "soon"),
        ("turn_seconds", "0"),
    ],
)
def test_override_that_cannot_be_used_is_named(command, name, text):
    with pytest.raises(SettingsError, match=name):
        command(**{name: text})


def test_the_length_of_a_turn_reaches_the_scheduler(command):
    assert value(command(), "--additional-config") == '{"turn_seconds": 1.0}'
    assert value(command(turn_seconds="3"), "--additional-config") == '{"turn_seconds": 3.0}'
    assert "--additional-config" not in command(turn_seconds="").argv


def test_the_adapter_cache_follows_the_engines_limits(command):
    built = command(max_loras="2", max_cpu_loras="6")
    assert (built.max_active_adapters, built.max_loaded_adapters) == (6, 6)


def test_small_machine_still_holds_one_conversation(command):
    small = msgspec.structs.replace(CPU, cores=1, memory_bytes=GIB)
    per_token = 2 * 2 * 30 * 3 * 64
    built = command(small)
    assert int(value(built, "--kv-cache-memory-bytes")) >= 4096 * per_token
    assert int(value(built, "--max-num-seqs")) == 18
    assert built.max_num_seqs == 18


def test_preloaded_libraries_are_those_found(command):
    found = msgspec.structs.replace(
        CPU, preload=(Path("/a/libtcmalloc.so"), Path("/b/libiomp5.so"))
    )
    assert command(found).env["LD_PRELOAD"] == "/a/libtcmalloc.so:/b/libiomp5.so"
    assert "LD_PRELOAD" not in command().env


def test_unknown_architecture_keeps_vllms_own_list_of_targets(command, tmp_path):
    (tmp_path / "serving" / "config.json").write_text('{"architectures": ["GPT2LMHeadModel"]}')
    assert "--lora-target-modules" not in command().argv


def test_quota_of_a_container_limits_the_cores(tmp_path):
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert usable_cores(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert usable_cores(tmp_path) >= 1


def test_builder_and_plugin_package_load_neither_vllm_nor_torch():
    code = (
        "import sys, server.engine.backends.vllm.launch, server.engine.backends.vllm.plugin; server.engine.backends.vllm.plugin.register();"
        "sys.exit(any(m in sys.modules for m in ('vllm', 'torch', 'litestar')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_calls_are_read_in_the_form_of_the_bases_template(command, tmp_path):
    template = tmp_path / "serving" / "chat_template.jinja"
    template.write_text("{% if tools %}[TOOL_CALLS]{% endif %}")
    built = command()
    assert value(built, "--tool-call-parser") == "mistral"
    assert "--enable-auto-tool-choice" in built.argv
    assert value(command(tool_call_parser="granite"), "--tool-call-parser") == "granite"
    none = command(tool_call_parser="").argv
    assert "--tool-call-parser" not in none
    assert "--no-enable-auto-tool-choice" in none


@pytest.mark.parametrize("computing", [FLOAT32, BFLOAT16], ids=["float32", "bfloat16"])
def test_the_engine_computes_in_the_type_that_was_measured(command, computing):
    built = command(computing=computing)
    assert value(built, "--dtype") == computing.type
    (choice,) = [choice for choice in built.choices if choice.name == "dtype"]
    assert choice.reason == computing.reason
    assert value(command(computing=computing, dtype="half"), "--dtype") == "half"


def test_a_float32_cache_holds_half_as_many_tokens(command):
    reasons = [
        next(c.reason for c in command(computing=kind).choices if c.name == "kv_cache_memory_bytes")
        for kind in (FLOAT32, BFLOAT16)
    ]
    float32, bfloat16 = (int(reason.split()[0]) for reason in reasons)
    assert bfloat16 == 2 * float32


@pytest.mark.parametrize(("capability", "dtype"), [("9.0", "bfloat16"), ("7.5", "float16")])
def test_a_card_without_bfloat16_serves_in_float16(
    command, monkeypatch, tmp_path, capability, dtype
):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho 'Some Card, 16000, {capability}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    gpus = this_machine().gpus
    machine = msgspec.structs.replace(GPU, gpus=gpus)
    assert value(command(machine, computing=None), "--dtype") == dtype
