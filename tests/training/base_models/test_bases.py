"""Bases are whole or not there, and serve exactly the weights that training computes with."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from training.base_models import manifest
from training.base_models.manifest import (
    BUILTIN,
    Builtin,
    list_bases,
    load_base,
    serving_sha256,
    verify_base,
)
from training.errors import BaseModelError

heavy = pytest.mark.heavy
pytestmark = pytest.mark.timeout(180)


def quiet(_: str) -> None:
    """Say nothing."""


def add(source: Path | str, root: Path, **options: Any) -> manifest.BaseModel:
    from training.base_models.quantize import add_base  # noqa: PLC0415 - loads torch

    return add_base(str(source), root, **{"on_progress": quiet, **options})


def test_a_missing_base_is_answered_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="tenantune bases add smollm2"):
        load_base(tmp_path / "smollm2")
    assert list_bases(tmp_path / "nowhere") == []


def test_a_base_file_that_is_not_text_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "base.json").write_bytes('{"name": "café"}'.encode("latin-1"))
    with pytest.raises(BaseModelError, match=r"base.json: .*utf-8"):
        load_base(tmp_path)


@heavy
def test_serving_weights_are_the_nf4_weights_bit_for_bit(tiny_base: Path) -> None:
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    from training.base_models.quantize import dequantised, load_nf4  # noqa: PLC0415

    quantised = load_nf4(tiny_base / "nf4", device="cpu")
    serving = AutoModelForCausalLM.from_pretrained(tiny_base / "serving")
    plain = dict(serving.named_modules())
    compared = 0
    for name, module in quantised.named_modules():
        if type(module).__name__ == "Linear4bit":
            assert plain[name].weight.dtype == torch.bfloat16
            assert torch.equal(plain[name].weight, dequantised(module))
            compared += 1
    assert compared == 14  # seven linear layers in each of two blocks
    parameters = dict(quantised.named_parameters())
    for name, weight in serving.named_parameters():
        if "layernorm" in name or "embed" in name:
            assert torch.equal(weight, parameters[name])


@heavy
@pytest.mark.parametrize("unpacked", [False, True])
@pytest.mark.parametrize("name", ["bfloat16", "float32"])
def test_both_folders_compute_the_same(tiny_base: Path, name: str, *, unpacked: bool) -> None:
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    from training.base_models.quantize import load_nf4  # noqa: PLC0415

    ids, dtype = torch.arange(3, 60).unsqueeze(0), getattr(torch, name)
    with torch.no_grad():
        nf4 = load_nf4(tiny_base / "nf4", device="cpu", dtype=dtype, unpacked=unpacked).eval()
        serving = AutoModelForCausalLM.from_pretrained(tiny_base / "serving", dtype=dtype).eval()
        assert torch.equal(nf4(input_ids=ids).logits, serving(input_ids=ids).logits)


@heavy
def test_gradients_are_those_of_the_serving_weights(tiny_base: Path) -> None:
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    from training.base_models.quantize import load_nf4  # noqa: PLC0415

    ids = torch.arange(3, 60).unsqueeze(0)
    grads = []
    for model in (
        load_nf4(tiny_base / "nf4", device="cpu", dtype=torch.float32),
        AutoModelForCausalLM.from_pretrained(tiny_base / "serving", dtype=torch.float32),
    ):
        embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
        model(inputs_embeds=embedded).logits.square().sum().backward()
        grads.append(embedded.grad)
    assert torch.allclose(grads[0], grads[1], rtol=1e-4)


@heavy
def test_a_base_made_twice_is_the_same_bytes(
    tiny_checkpoint: Path, tiny_base: Path, tmp_path: Path
) -> None:
    again, first = add(tiny_checkpoint, tmp_path), load_base(tiny_base)
    assert again.files == first.files
    assert again.serving_sha256 == first.serving_sha256 == serving_sha256(tiny_base / "serving")


@heavy
def test_two_at_once_make_it_once(tiny_checkpoint: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(add, tiny_checkpoint, tmp_path, on_progress=lines.append) for _ in range(2)
        ]
        one, other = (job.result() for job in jobs)
    assert one == other
    assert sum("quantising" in line for line in lines) == 1
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["tiny"]


@heavy
def test_what_an_interrupted_conversion_left_is_never_used(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    half = tmp_path / ".tiny.partial-1"
    (half / "serving").mkdir(parents=True)
    (half / "base.json").write_text("{}")
    assert list_bases(tmp_path) == []
    add(tiny_checkpoint, tmp_path)
    assert not half.exists()
    assert [base.name for base in list_bases(tmp_path)] == ["tiny"]


@heavy
def test_a_failed_conversion_leaves_nothing(tiny_checkpoint: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_checkpoint, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        add(broken, tmp_path / "bases")
    assert [p for p in (tmp_path / "bases").iterdir() if p.is_dir()] == []


@heavy
def test_a_damaged_base_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    copy = tmp_path / tiny_base.name
    shutil.copytree(tiny_base, copy)
    assert verify_base(copy) == load_base(copy)
    weights = copy / "serving" / "model.safetensors"
    sound = weights.read_bytes()
    weights.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    load_base(copy)
    with pytest.raises(BaseModelError, match="is not the file that was made"):
        verify_base(copy)
    weights.write_bytes(sound[:-1])
    with pytest.raises(BaseModelError, match="damaged"):
        load_base(copy)
    weights.unlink()
    with pytest.raises(BaseModelError, match="is missing"):
        load_base(copy)


@heavy
def test_a_model_without_a_chat_template_needs_one_given(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    shutil.copytree(tiny_checkpoint, plain)
    template = plain / "chat_template.jinja"
    given = tmp_path / "given.jinja"
    template.rename(given)
    with pytest.raises(BaseModelError, match="--chat-template"):
        add(plain, tmp_path / "bases")
    base = add(plain, tmp_path / "bases", chat_template=given)
    served = tmp_path / "bases" / base.name / "serving" / "chat_template.jinja"
    assert served.read_bytes() == given.read_bytes()


@heavy
def test_a_name_belongs_to_one_source(tiny_checkpoint: Path, tmp_path: Path) -> None:
    add(tiny_checkpoint, tmp_path)
    with pytest.raises(BaseModelError, match="another name"):
        add("someone/tiny", tmp_path)
    with pytest.raises(BaseModelError, match=r"use a-z"):
        add(tiny_checkpoint, tmp_path, name="../outside")


@heavy
def test_a_hub_model_needs_the_network_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="HF_HUB_OFFLINE"):
        add("someone/some-model", tmp_path)
    with pytest.raises(BaseModelError, match="give a built-in"):
        add("no-such-thing", tmp_path)


@heavy
def test_a_builtin_file_that_was_changed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = BUILTIN["smollm2-135m-instruct"]
    other = Builtin(real.distribution, real.version, "__init__.py", real.sha256, 1, "none")
    monkeypatch.setitem(BUILTIN, "changed", other)
    with pytest.raises(BaseModelError, match="not the file that was published"):
        add("changed", tmp_path)
