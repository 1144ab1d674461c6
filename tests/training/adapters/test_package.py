"""Damaged, foreign and dangerous adapter folders are refused; whole ones are published whole."""

import contextlib
import hashlib
import json
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.training.adapters.sample_manifest import MANIFEST
from tests.training.bare import save_tensors
from training.adapters import package
from training.errors import ArtifactError, BaseModelError, TrainingError, UnsafeWeights

RANK, HIDDEN, INNER, VOCAB, LAYERS = 4, 24, 40, 96, 2
MODULES = {
    f"model.layers.{layer}.{name}": shape
    for layer in range(LAYERS)
    for name, shape in {
        "self_attn.q_proj": (HIDDEN, HIDDEN),
        "self_attn.v_proj": (HIDDEN // 2, HIDDEN),
        "mlp.down_proj": (HIDDEN, INNER),
    }.items()
}
FIRST_A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
FIRST_B = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
Tensors = dict[str, np.ndarray[Any, Any]]


class Base(NamedTuple):
    name: str
    serving_sha256: str
    serving: Path


def lora_tensors(*, scale_a: float = 0.2, scale_b: float = 0.1, rank: int = RANK) -> Tensors:
    random = np.random.default_rng(5)
    tensors: Tensors = {}
    for module, (outputs, inputs) in MODULES.items():
        prefix = f"base_model.model.{module}"
        tensors[f"{prefix}.lora_A.weight"] = random.normal(0, scale_a, (rank, inputs))
        tensors[f"{prefix}.lora_B.weight"] = random.normal(0, scale_b, (outputs, rank))
    return tensors


def peft_config(**changes: Any) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "peft_version": "0.21.2",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "some/base",
        "r": RANK,
        "lora_alpha": 8,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": ["q_proj", "v_proj", "down_proj"],
        "inference_mode": True,
        "init_lora_weights": True,
        "megatron_core": "megatron.core",
        "qalora_group_size": 16,
        "use_dora": False,
        "modules_to_save": None,
        "rank_pattern": {},
        **changes,
    }


def make_adapter(
    folder: Path,
    base: Base,
    *,
    tensors: Tensors | None = None,
    config: dict[str, Any] | None = None,
    dtype: str = "F32",
    label: str = "acme",
) -> Path:
    folder.mkdir(parents=True)
    save_tensors(folder / "adapter_model.safetensors", tensors or lora_tensors(), dtype=dtype)
    (folder / "adapter_config.json").write_text(json.dumps(config or peft_config()))
    ref = package.BaseRef(name=base.name, serving_sha256=base.serving_sha256)
    package.write_manifest(folder, msgspec.structs.replace(MANIFEST, label=label, base=ref))
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Base:
    serving = tmp_path / "base" / "serving"
    serving.mkdir(parents=True)
    random = np.random.default_rng(3)
    tensors = {f"{name}.weight": random.normal(0, 0.2, shape) for name, shape in MODULES.items()}
    tensors["model.embed_tokens.weight"] = random.normal(0, 0.2, (VOCAB, HIDDEN))
    tensors["model.norm.weight"] = np.ones(HIDDEN)
    save_tensors(serving / "model.safetensors", tensors, dtype="BF16")
    (serving / "config.json").write_text(json.dumps({"vocab_size": VOCAB}))
    return Base(name="tiny", serving_sha256="a" * 64, serving=serving)


@pytest.fixture
def adapter(tmp_path: Path, base: Base) -> Path:
    return make_adapter(tmp_path / "job" / "adapter", base)


def test_a_whole_adapter_verifies_and_its_weights_pass(adapter: Path, base: Base) -> None:
    manifest = package.verify(adapter, base=base)
    assert manifest.files["adapter_model.safetensors"].size_bytes == (
        (adapter / "adapter_model.safetensors").stat().st_size
    )
    assert package.check_weights(adapter, base_serving=base.serving).scaling == 2.0


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_every_dtype_that_training_writes_passes(tmp_path: Path, base: Base, dtype: str) -> None:
    folder = make_adapter(tmp_path / "x", base, dtype=dtype)
    package.check_weights(folder, base_serving=base.serving)


def test_an_adapter_that_learned_nothing_yet_passes(tmp_path: Path, base: Base) -> None:
    folder = make_adapter(tmp_path / "x", base, tensors=lora_tensors(scale_b=0.0))
    package.check_weights(folder, base_serving=base.serving)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def zero_tail(path: Path) -> None:
    size = path.stat().st_size
    os.truncate(path, size - min(512, size // 2))
    os.truncate(path, size)


def flip_one_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def append_a_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def replace_by_link(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        zero_tail,
        flip_one_bit,
        append_a_byte,
        replace_by_link,
        replace_by_pipe,
        Path.unlink,
    ],
)
def test_a_file_that_is_not_the_one_written_is_refused(
    adapter: Path, base: Base, name: str, damage: Callable[[Path], None]
) -> None:
    damage(adapter / name)
    with pytest.raises(ArtifactError, match=name):
        package.verify(adapter, base=base)


@pytest.mark.parametrize(
    "name", ["README.md", "adapter_model.bin", "optimizer.PT", "x.pkl", ".hidden", "tokenizer.json"]
)
def test_an_unexpected_file_is_refused_by_name(adapter: Path, name: str) -> None:
    (adapter / name).write_bytes(b"anything")
    with pytest.raises(ArtifactError, match=name):
        package.verify(adapter)


def test_an_unexpected_folder_is_refused(adapter: Path) -> None:
    (adapter / "checkpoint-1").mkdir()
    with pytest.raises(ArtifactError, match="checkpoint-1"):
        package.verify(adapter)


def test_a_pickle_cannot_be_given_a_manifest(adapter: Path, base: Base) -> None:
    manifest = package.read_manifest(adapter)
    (adapter / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ArtifactError, match="can run code"):
        package.write_manifest(adapter, manifest)


def test_a_link_to_an_adapter_folder_is_refused(adapter: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(adapter)
    with pytest.raises(ArtifactError, match="not an adapter folder"):
        package.verify(link)


@pytest.mark.parametrize(
    "manifest",
    [b"", b"null", b"{", b'{"format": "other/9"}', b"[" * 100_000, b" " * (2 << 20), b"\xff\xfe"],
)
def test_a_manifest_that_is_none_is_refused(adapter: Path, manifest: bytes) -> None:
    (adapter / "manifest.json").write_bytes(manifest)
    with pytest.raises(ArtifactError, match="manifest"):
        package.verify(adapter)


def test_a_manifest_cannot_point_outside_its_folder(adapter: Path) -> None:
    fields = msgspec.json.decode((adapter / "manifest.json").read_bytes())
    fields["files"]["../../secret"] = fields["files"]["adapter_config.json"]
    (adapter / "manifest.json").write_bytes(msgspec.json.encode(fields))
    with pytest.raises(ArtifactError, match="must list exactly"):
        package.verify(adapter)


def test_another_base_is_refused_by_name_and_hash(adapter: Path, base: Base) -> None:
    other = base._replace(name="tiny-2", serving_sha256="b" * 64)
    with pytest.raises(UnsafeWeights, match=r"'tiny' \(a{12}\); this server runs 'tiny-2' \(b{12}"):
        package.verify(adapter, base=other)


def changed(**tensors: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> Tensors:
    result = lora_tensors()
    for name, change in tensors.items():
        result[name] = change(result[name])
    return result


def with_value(value: float) -> Tensors:
    tensors = lora_tensors()
    tensors[FIRST_B][3, 1] = value
    return tensors


def without(*names: str) -> Tensors:
    return {name: values for name, values in lora_tensors().items() if name not in names}


DANGEROUS: dict[str, tuple[Tensors, str]] = {
    "nan": (with_value(np.nan), "not finite"),
    "infinity": (with_value(np.inf), "not finite"),
    "minus infinity": (with_value(-np.inf), "not finite"),
    "one huge weight": (with_value(1e20), r"weight of 1e\+20"),
    "A a million times": (lora_tensors(scale_a=2e5), "lora_A.weight holds a weight of"),
    "B a million times": (lora_tensors(scale_b=1e5), "lora_B.weight holds a weight of"),
    "B 1e20 times": (lora_tensors(scale_b=1e19), "lora_B.weight holds a weight of"),
    "both a thousand-fold, but under the bound": (
        lora_tensors(scale_a=20, scale_b=20),
        "times the base's weight",
    ),
    "half rank": (lora_tensors(rank=RANK // 2), "rank 4 on this base needs"),
    "double rank": (lora_tensors(rank=RANK * 2), "rank 4 on this base needs"),
    "half-size": (changed(**{FIRST_B: lambda b: b[: HIDDEN // 2]}), r"needs \[24, 4\]"),
    "transposed": (changed(**{FIRST_A: lambda a: a.T}), r"shape \[24, 4\]"),
    "flat": (changed(**{FIRST_A: lambda a: a.reshape(-1)}), r"shape \[96\]"),
    "missing B": (without(FIRST_B), "lora_B.weight is missing"),
    "missing layer": (without(FIRST_A, FIRST_B), "lora_A.weight is missing"),
    "no tensor": ({"x": np.zeros(1)}, "x: not a LoRA weight"),
    "extra layer": (
        lora_tensors() | {FIRST_A.replace("layers.0", "layers.9"): np.zeros((RANK, HIDDEN))},
        "layers.9.self_attn.q_proj.lora_A.weight: not a LoRA weight of a layer named in",
    ),
    "layer not targeted": (
        lora_tensors() | {FIRST_A.replace("q_proj", "k_proj"): np.zeros((RANK, HIDDEN))},
        "k_proj.lora_A.weight: not a LoRA weight",
    ),
    "base weight": (
        lora_tensors() | {"base_model.model.model.norm.weight": np.ones(HIDDEN)},
        r"norm\.weight: not a LoRA weight",
    ),
    "DoRA magnitude": (
        lora_tensors() | {FIRST_A.replace("lora_A.weight", "lora_magnitude_vector"): np.ones(24)},
        "lora_magnitude_vector: not a LoRA weight",
    ),
}


@pytest.mark.parametrize("case", DANGEROUS)
def test_dangerous_weights_are_refused_with_the_tensors_name(
    tmp_path: Path, base: Base, case: str
) -> None:
    tensors, message = DANGEROUS[case]
    folder = make_adapter(tmp_path / "x", base, tensors=tensors)
    package.verify(folder, base=base)  # its own manifest is right: only the weights are bad
    with pytest.raises(UnsafeWeights, match=message):
        package.check_weights(folder, base_serving=base.serving)


def test_double_precision_weights_are_refused(tmp_path: Path, base: Base) -> None:
    folder = make_adapter(tmp_path / "x", base, dtype="F64")
    with pytest.raises(UnsafeWeights, match="dtype F64"):
        package.check_weights(folder, base_serving=base.serving)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"lora_bias": True}, "lora_bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 64}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 1e9}}, "alpha_pattern"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"layers_to_transform": [0]}, "layers_to_transform"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"something_new": {"deep": 1}}, "something_new"),
        ({"peft_type": "IA3"}, "peft_type"),
        ({"r": 0}, r"\$\.r"),
        ({"r": 4096}, "rank 4096"),
        ({"r": "4"}, r"\$\.r"),
        ({"lora_alpha": 0}, "lora_alpha"),
        ({"lora_alpha": 1e12}, "times the base's weight"),
        ({"target_modules": ".*"}, "target_modules"),
        ({"target_modules": []}, "target_modules"),
        ({"target_modules": ["q_proj", "w_proj"]}, "no layer 'w_proj'"),
        ({"target_modules": ["embed_tokens"]}, "no layer 'embed_tokens'"),
    ],
)
def test_a_configuration_the_engine_would_misread_is_refused(
    tmp_path: Path, base: Base, changes: dict[str, Any], message: str
) -> None:
    folder = make_adapter(tmp_path / "x", base, config=peft_config(**changes))
    with pytest.raises(UnsafeWeights, match=message):
        package.check_weights(folder, base_serving=base.serving)


def test_rank_stabilised_scaling_is_followed(tmp_path: Path, base: Base) -> None:
    folder = make_adapter(tmp_path / "x", base, config=peft_config(use_rslora=True))
    assert package.check_weights(folder, base_serving=base.serving).scaling == 4.0


def header(**entries: Any) -> bytes:
    raw = json.dumps(entries).encode()
    return len(raw).to_bytes(8, "little") + raw


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04",
        (2**63).to_bytes(8, "little") + b"{}",
        (0).to_bytes(8, "little"),
        (9 << 20).to_bytes(8, "little") + b"{" + b" " * (9 << 20),
        (3).to_bytes(8, "little") + b"[1]",
        (2).to_bytes(8, "little") + b"{x",
        (100_001).to_bytes(8, "little") + b"{" + b"[" * 100_000,
        header(a=ENTRY),
        header(a=ENTRY) + bytes(9),
        header(a={**ENTRY, "shape": [3]}) + bytes(8),
        header(a={**ENTRY, "shape": [-1, -2]}) + bytes(8),
        header(a={**ENTRY, "shape": [2**62, 2**62]}) + bytes(8),
        header(a={**ENTRY, "shape": "2"}) + bytes(8),
        header(a={**ENTRY, "dtype": "O"}) + bytes(8),
        header(a={**ENTRY, "data_offsets": [8, 16]}) + bytes(16),
        header(a={**ENTRY, "data_offsets": [8, 0]}) + bytes(8),
        header(a=ENTRY, b=ENTRY) + bytes(8),
        header(a={**ENTRY, "more": 1}) + bytes(8),
        header(a=None),
        (44).to_bytes(8, "little") + b'{"a":null,"a":null}'.ljust(44),
    ],
    ids=range(21),
)
def test_a_malformed_weights_file_is_refused(adapter: Path, base: Base, content: bytes) -> None:
    (adapter / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"adapter_model\.safetensors"):
        package.check_weights(adapter, base_serving=base.serving)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_damage_to_the_files_gets_past_or_raises_anything_else(
    data: st.DataObject, base: Base, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = make_adapter(tmp_path_factory.mktemp("damage") / "x", base)
    path = folder / data.draw(
        st.sampled_from(["adapter_model.safetensors", "adapter_config.json"]), label="file"
    )
    whole = path.read_bytes()
    start = data.draw(st.integers(0, len(whole)), label="start")
    length = data.draw(st.integers(0, 64), label="length")
    put = data.draw(st.binary(max_size=64), label="put")
    damaged = whole[:start] + put + whole[start + length :]
    path.write_bytes(damaged)
    if damaged != whole:
        with pytest.raises(ArtifactError):
            package.verify(folder, base=base)
    with contextlib.suppress(TrainingError):
        package.check_weights(folder, base_serving=base.serving)


def test_a_base_without_weights_is_named(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="nowhere"):
        package.check_weights(adapter, base_serving=tmp_path / "nowhere")


def test_a_sharded_base_is_read_whole(adapter: Path, base: Base) -> None:
    random = np.random.default_rng(3)
    (base.serving / "model.safetensors").unlink()
    for shard, names in enumerate((list(MODULES)[:3], list(MODULES)[3:])):
        tensors = {f"{name}.weight": random.normal(0, 0.2, MODULES[name]) for name in names}
        save_tensors(base.serving / f"model-{shard}.safetensors", tensors, dtype="BF16")
    package.check_weights(adapter, base_serving=base.serving)


def test_publishing_names_the_folder_by_the_manifests_hash(adapter: Path, tmp_path: Path) -> None:
    published = package.publish(adapter, tmp_path / "adapters", "acme")
    digest = hashlib.sha256((adapter / "manifest.json").read_bytes()).hexdigest()
    assert published == tmp_path / "adapters" / f"acme.{digest[:12]}"
    assert package.verify(published) == package.verify(adapter)


@pytest.mark.parametrize(
    ("around", "folder", "file"),
    [(0o700, 0o700, 0o400), (0o750, 0o750, 0o440), (0o755, 0o755, 0o444)],
)
def test_a_published_adapter_is_as_open_as_the_folder_that_it_goes_into(
    adapter: Path, tmp_path: Path, around: int, folder: int, file: int
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    root.chmod(around)
    published = package.publish(adapter, root, "acme")
    assert stat.S_IMODE(published.stat().st_mode) == folder
    assert {stat.S_IMODE(path.stat().st_mode) for path in published.iterdir()} == {file}


def test_publishing_twice_changes_nothing(adapter: Path, tmp_path: Path) -> None:
    first = package.publish(adapter, tmp_path / "adapters", "acme")
    before = first.stat()
    assert package.publish(adapter, tmp_path / "adapters", "acme") == first
    assert (first.stat().st_ino, first.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_publishers_at_the_same_time_agree_and_leave_nothing_behind(
    adapter: Path, tmp_path: Path
) -> None:
    root = tmp_path / "adapters"
    barrier = threading.Barrier(8)
    found: list[Path] = []

    def publish() -> None:
        barrier.wait()
        found.append(package.publish(adapter, root, "acme"))

    threads = [threading.Thread(target=publish) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert [path.name for path in root.iterdir()] == [found[0].name]


def test_a_damaged_folder_is_not_published(adapter: Path, tmp_path: Path) -> None:
    zero_tail(adapter / "adapter_model.safetensors")
    with pytest.raises(ArtifactError):
        package.publish(adapter, tmp_path / "adapters", "acme")
    assert not (tmp_path / "adapters").exists()


def test_a_publication_cut_short_leaves_no_adapter(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.adapters.package.shutil.copyfile", full)
    with pytest.raises(OSError, match="No space"):
        package.publish(adapter, tmp_path / "adapters", "acme")
    assert list((tmp_path / "adapters").iterdir()) == []


def test_what_a_killed_publisher_left_is_swept_later(adapter: Path, tmp_path: Path) -> None:
    old, fresh = tmp_path / "adapters" / ".incoming-old", tmp_path / "adapters" / ".incoming-new"
    for left in (old, fresh):
        left.mkdir(parents=True)
    os.utime(old, (1, 1))
    package.publish(adapter, tmp_path / "adapters", "acme")
    assert fresh.exists()
    assert not old.exists()


def test_a_manifest_changed_after_publishing_is_refused(adapter: Path, tmp_path: Path) -> None:
    published = package.publish(adapter, tmp_path / "adapters", "acme")
    path = published / "manifest.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"Acme's assistant", b"Evil's assistant"))
    with pytest.raises(ArtifactError, match="changed after publishing"):
        package.verify(published)


@pytest.mark.parametrize("label", ["", "a", "A", "a--b", "-a", "a-", "../x", "a.b", "x" * 41])
def test_a_label_that_is_no_slug_names_no_engine_model(adapter: Path, label: str) -> None:
    with pytest.raises(ArtifactError, match="label"):
        package.engine_name(label, adapter)


def test_another_tenants_adapter_is_not_published_under_this_label(
    adapter: Path, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match="adapter of 'acme', not of 'other'"):
        package.publish(adapter, tmp_path / "adapters", "other")
