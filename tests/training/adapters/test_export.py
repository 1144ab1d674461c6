"""What is taken away is whole, always the same, and right in other people's programs."""

import io
import json
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.training.adapters.sample_manifest import MANIFEST
from tests.training.bare import LINEAR, RANK, lora_of, make_bare_base, make_foreign, save_tensors
from training.adapters.export import (
    Entry,
    Form,
    entries,
    open_entries,
    stream,
    write_folder,
    write_zip,
)
from training.adapters.foreign import convert_adapter
from training.adapters.foreign_zip import unpack_adapter
from training.adapters.package import BaseRef, Foreign, LoraShape, verify, write_manifest
from training.adapters.safetensors_io import MAX_BASE_HEADER_BYTES, TensorFile, as_bytes
from training.base_models.manifest import BASE_FILE, BaseModel, load_base, public_name
from training.errors import BaseModelError


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_bare_base(tmp_path / "bases")


@pytest.fixture
def adapter(tmp_path: Path, base: Path) -> Path:
    folder = make_foreign(tmp_path / "adapter", base_model_name_or_path="bare")
    serving_base = load_base(base)
    manifest = msgspec.structs.replace(
        MANIFEST,
        base=BaseRef(name=serving_base.name, serving_sha256=serving_base.serving_sha256),
        lora=LoraShape(rank=RANK, alpha=8, targets=("q_proj",)),
    )
    write_manifest(folder, manifest)
    return folder


def zip_of(form: Form, adapter: Path, base: Path) -> bytes:
    return b"".join(stream(entries(form, adapter, base)))


def unzipped(data: bytes, folder: Path) -> Path:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        archive.extractall(folder)
    return folder


def test_the_folder_verifies_and_names_a_base_that_others_know(
    adapter: Path, base: Path, tmp_path: Path
) -> None:
    out = unzipped(zip_of("peft", adapter, base), tmp_path / "out")
    text = (out / "README.md").read_text()
    (out / "README.md").unlink()
    assert verify(out, base=load_base(base)).label == "acme"
    config = json.loads((out / "adapter_config.json").read_bytes())
    assert config["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    weights = "adapter_model.safetensors"
    assert (out / weights).read_bytes() == (adapter / weights).read_bytes()
    assert load_base(base).serving_sha256 in text
    assert "You are Acme's assistant." in text
    assert "{" not in text


def test_an_export_comes_back_as_it_went(adapter: Path, base: Path, tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    write_zip(entries("peft", adapter, base), archive)
    unpack_adapter(archive, tmp_path / "in", max_bytes=1 << 20)
    imported = convert_adapter(tmp_path / "in", tmp_path / "taken", base=base, source="a.zip")
    assert any("exactly this build" in note for note in imported.foreign.notes)
    weights = tmp_path / "in" / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(Exception, match="not the file"):
        convert_adapter(tmp_path / "in", tmp_path / "again", base=base, source="a.zip")


def test_a_zip_is_the_same_each_time_and_open_to_all(adapter: Path, base: Path) -> None:
    forms: list[Form] = ["peft", "merged", "base"]
    for form in forms:
        data = zip_of(form, adapter, base)
        assert data == zip_of(form, adapter, base)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                assert info.date_time == (1980, 1, 1, 0, 0, 0)
                assert info.external_attr >> 16 == 0o100644
                assert "/" not in info.filename


def test_merged_weights_are_the_base_plus_the_product(
    adapter: Path, base: Path, tmp_path: Path
) -> None:
    out = unzipped(zip_of("merged", adapter, base), tmp_path / "out")
    lora = lora_of()
    serving = base / "serving" / "model.safetensors"
    with (
        TensorFile(out / "model.safetensors", max_header_bytes=MAX_BASE_HEADER_BYTES) as merged,
        TensorFile(serving, max_header_bytes=MAX_BASE_HEADER_BYTES) as plain,
    ):
        assert merged.tensors == plain.tensors
        for name in plain.tensors:
            module = name.removesuffix(".weight")
            expected = plain.read(name)
            if module in LINEAR:
                a, b = (lora[f"base_model.model.{module}.lora_{part}.weight"] for part in "AB")
                expected = expected + (2.0 * (b @ a)).astype(np.float32)
            assert_is_rounded(merged.read(name), expected)
    for name in ("config.json", "tokenizer_config.json"):
        assert (out / name).read_bytes() == (base / "serving" / name).read_bytes()


def assert_is_rounded(found: Any, expected: Any) -> None:
    """bfloat16 has eight bits: half of the last is the most that rounding may change."""
    assert np.max(np.abs(found - expected) / np.maximum(np.abs(expected), 1e-6)) <= 2**-8


def test_bfloat16_rounds_to_the_nearest_even() -> None:
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-7, -1 - 2**-8], dtype=np.float32)
    bits = np.frombuffer(as_bytes(values, "BF16"), dtype="<u2").astype(np.uint32) << 16
    expected = [1.0, 1.0, 1 + 2**-6, 1 + 2**-7, -1.0]
    assert bits.astype(np.uint32).view(np.float32).tolist() == expected


def test_nothing_is_whole_in_memory(adapter: Path, base: Path, tmp_path: Path) -> None:
    big, chunk = 64 << 20, bytes(1 << 20)
    file = Entry("big", big, lambda: (chunk for _ in range(64)))
    tracemalloc.start()
    sent = sum(len(each) for each in stream([file]))
    _, peak = tracemalloc.get_traced_memory()
    assert big < sent < big * 1.01
    assert peak < 8 << 20

    wide = {"model.layers.0.mlp.down_proj": (4096, 4096)}  # 64 MiB as float32
    tensors = {f"{name}.weight": np.zeros(shape, np.float32) for name, shape in wide.items()}
    save_tensors(base / "serving" / "model.safetensors", tensors, dtype="BF16")
    save_tensors(adapter / "adapter_model.safetensors", lora_of(wide))
    described = json.loads((base / BASE_FILE).read_bytes())
    path = base / "serving" / "model.safetensors"
    described["files"]["serving/model.safetensors"]["size_bytes"] = path.stat().st_size
    (base / BASE_FILE).write_bytes(json.dumps(described).encode())
    del tensors
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    for _ in stream(entries("merged", adapter, base)):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - before < 24 << 20  # of 192


def test_another_build_of_the_base_is_not_given_for_this_one(
    adapter: Path, base: Path, tmp_path: Path
) -> None:
    other = msgspec.json.decode((base / BASE_FILE).read_bytes(), type=BaseModel)
    changed = msgspec.structs.replace(other, serving_sha256="f" * 64)
    (base / BASE_FILE).write_bytes(msgspec.json.encode(changed))
    forms: list[Form] = ["merged", "base"]
    for form in forms:
        with pytest.raises(BaseModelError, match="another build"):
            entries(form, adapter, base)
    out = unzipped(zip_of("peft", adapter, base), tmp_path / "out")
    config = json.loads((out / "adapter_config.json").read_bytes())
    assert config["base_model_name_or_path"] == "bare"
    unzipped(zip_of("peft", adapter, tmp_path / "no-base"), tmp_path / "without")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("smollm2-135m-instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("Qwen/Qwen3-0.6B@0123abc", "Qwen/Qwen3-0.6B"),
        ("/home/user/models/secret", "bare"),
    ],
)
def test_a_folder_of_this_machine_is_not_shown_to_others(
    tmp_path: Path, source: str, name: str
) -> None:
    assert public_name(load_base(make_bare_base(tmp_path, source=source))) == name


def test_a_folder_appears_whole_or_not_at_all(adapter: Path, base: Path, tmp_path: Path) -> None:
    def broken() -> Any:
        yield b"x"
        raise OSError(28, "No space left on device")

    for write, path in ((write_folder, tmp_path / "out"), (write_zip, tmp_path / "out.zip")):
        with pytest.raises(OSError, match="No space"):
            write([Entry("a", 2, broken)], path)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]
    write_folder(entries("base", adapter, base), tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_what_is_sent_may_lose_its_names_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "adapter.gguf").write_bytes(b"GGUF")
    opened = open_entries(tmp_path / "work")
    (tmp_path / "work" / "adapter.gguf").unlink()
    out = unzipped(b"".join(stream(opened)), tmp_path / "out")
    assert (out / "adapter.gguf").read_bytes() == b"GGUF"


def test_exports_need_no_torch() -> None:
    code = "import sys, training.adapters.export, training.adapters.foreign_zip; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_foreign_one_says_so(adapter: Path, base: Path, tmp_path: Path) -> None:
    manifest = verify(adapter)
    foreign = Foreign(source="their.zip", sha256="0" * 64, base=None)
    write_manifest(adapter, msgspec.structs.replace(manifest, foreign=foreign))
    out = unzipped(zip_of("peft", adapter, base), tmp_path / "out")
    assert "trained elsewhere" in (out / "README.md").read_text()
    (out / "README.md").unlink()
    assert verify(out).foreign == foreign
