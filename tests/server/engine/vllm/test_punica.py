"""The CPU kernels against plain float64 arithmetic."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

torch: Any = None  # by the fixture below: collecting tests must not load it

SLOTS, MAX_RANK, INPUTS = 4, 32, 96
NONE = -1
MIXED = [NONE, 0, 2, 0, NONE, 2, 2, 1, NONE, 0]
LAYERS = {"one output": (80,), "gate and up": (128, 128), "q, k and v": (96, 32, 32)}


@pytest.fixture(scope="module", autouse=True)
def libraries():
    globals()["torch"] = pytest.importorskip("torch")
    pytest.importorskip("vllm")


class Layer:
    """Stacked weights as vLLM keeps them; slot 1 has rank 8, slot 3 is empty."""

    def __init__(self, widths: Sequence[int], seed: int = 0) -> None:
        self.random = torch.Generator().manual_seed(seed)
        self.widths = tuple(widths)
        self.a = tuple(
            torch.zeros(SLOTS, 1, MAX_RANK, INPUTS, dtype=torch.bfloat16) for _ in widths
        )
        self.b = tuple(torch.zeros(SLOTS, 1, w, MAX_RANK, dtype=torch.bfloat16) for w in widths)
        for slot, rank in ((0, 16), (1, 8), (2, MAX_RANK)):
            self.load(slot, rank)

    def load(self, slot: int, rank: int, *, skip: Sequence[int] = ()) -> None:
        """Put a new random adapter into a slot, as ``set_lora`` does."""
        for i, (a, b) in enumerate(zip(self.a, self.b, strict=True)):
            a[slot] = 0
            b[slot] = 0
            if i not in skip:
                a[slot, 0, :rank].copy_(self.normal(rank, INPUTS))
                b[slot, 0, :, :rank].copy_(self.normal(self.widths[i], rank))

    def normal(self, *shape: int):
        return torch.randn(*shape, generator=self.random).to(torch.bfloat16)

    def expected(self, y, x, slots: Sequence[int], scale: float = 1.0):
        """In float64, row by row."""
        out = y.double()
        for row, slot in enumerate(slots):
            offset = 0
            for a, b, width in zip(self.a, self.b, self.widths, strict=True):
                if slot != NONE:
                    shrunk = a[slot, 0].double() @ x[row].double() * scale
                    out[row, offset : offset + width] += b[slot, 0].double() @ shrunk
                offset += width
        return out


def wrapper_for(slots: Sequence[int], samples: Sequence[int] | None = None):
    """Our wrapper, told which slot each row has."""
    from vllm.lora.layers import LoRAMapping  # noqa: PLC0415

    from server.engine.backends.vllm.plugin.punica import GroupedPunicaWrapper  # noqa: PLC0415

    wrapper = GroupedPunicaWrapper(4096, max_batches=1024, device="cpu")
    ids = [slot + 1 for slot in slots]
    prompt = [slot + 1 for slot in (slots if samples is None else samples)]
    mapping = LoRAMapping(tuple(ids), tuple(prompt), is_prefill=True)
    wrapper.update_metadata(mapping, [1, 2, 3, 4], SLOTS + 1, 1000)
    return wrapper


def close(got, expected) -> bool:
    """Within bfloat16's rounding of the result and of the inner product."""
    bound = 0.02 * expected.abs() + 0.02 * expected.abs().max()
    return bool(((got.double() - expected).abs() <= bound).all())


@pytest.mark.parametrize("widths", LAYERS.values(), ids=LAYERS.keys())
@pytest.mark.parametrize(
    "slots",
    [[0], [NONE], [3], [1] * 5, [NONE, NONE, 2, 2], MIXED, MIXED * 60, [2] * 700, [0, NONE] * 300],
    ids=["one", "base", "empty slot", "same", "tail", "mixed", "long mixed", "prompt", "two"],
)
def test_each_row_gets_its_own_adapter(widths, slots):
    layer = Layer(widths)
    x, y = layer.normal(len(slots), INPUTS), layer.normal(len(slots), sum(widths))
    got = y.clone()
    wrapper_for(slots).add_lora_linear(got, x, layer.a, layer.b, 1.0, widths)
    assert close(got, layer.expected(y, x, slots))


@pytest.mark.parametrize("slots", [MIXED, MIXED * 60], ids=["float32", "bfloat16"])
def test_rows_without_adapter_keep_every_bit(slots):
    layer = Layer((80, 40))
    y = layer.normal(len(slots), 120)
    got = y.clone()
    wrapper_for(slots).add_lora_linear(
        got, layer.normal(len(slots), INPUTS), layer.a, layer.b, 1.0, layer.widths
    )
    base = torch.tensor(slots) == NONE
    assert torch.equal(got[base], y[base])
    assert not torch.equal(got[~base], y[~base])


def test_stock_wrapper_gives_base_rows_the_last_slot():
    """Why there is a wrapper of ours; when this fails, vLLM has mended its own."""
    from vllm.lora.layers import LoRAMapping  # noqa: PLC0415
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU  # noqa: PLC0415

    layer = Layer((80,))
    layer.load(3, 16)
    stock = PunicaWrapperCPU(4096, max_batches=1024, device="cpu")
    mapping = LoRAMapping((0, 1), (0, 1), is_prefill=True)
    stock.update_metadata(mapping, [1, 2, 3, 4], SLOTS + 1, 1000)
    x, y = layer.normal(2, INPUTS), layer.normal(2, 80)
    got = y.clone()
    stock.add_lora_linear(got, x, layer.a, layer.b, 1.0, layer.widths)
    assert close(got, layer.expected(y, x, [3, 0]))


def test_reloaded_slot_never_serves_the_old_adapter():
    layer = Layer((96, 32, 32))
    slots = [0, NONE, 1, 0]
    wrapper = wrapper_for(slots)
    x, y = layer.normal(4, INPUTS), layer.normal(4, 160)
    for rank in (4, MAX_RANK, 16):
        layer.load(0, rank)
        got = y.clone()
        wrapper.add_lora_linear(got, x, layer.a, layer.b, 1.0, layer.widths)
        assert close(got, layer.expected(y, x, slots))


@pytest.mark.parametrize("skip", [(0,), (1,), (0, 2), (0, 1, 2)])
def test_adapter_of_some_outputs_leaves_the_others(skip):
    layer = Layer((96, 32, 32))
    layer.load(0, 8, skip=skip)
    slots = [0, 0, 1]
    x, y = layer.normal(3, INPUTS), layer.normal(3, 160)
    got = y.clone()
    wrapper_for(slots).add_lora_linear(got, x, layer.a, layer.b, 1.0, layer.widths)
    assert close(got, layer.expected(y, x, slots))
    starts = (0, 96, 128, 160)
    for i in skip:
        part = slice(starts[i], starts[i + 1])
        assert torch.equal(got[:2, part], y[:2, part])


def test_scale_and_replacement():
    layer = Layer((80,))
    x, y = layer.normal(len(MIXED), INPUTS), layer.normal(len(MIXED), 80)
    got = y.clone()
    wrapper = wrapper_for(MIXED)
    wrapper.add_lora_linear(got, x, layer.a, layer.b, 0.5, layer.widths, add_inputs=False)
    cleared = torch.where((torch.tensor(MIXED) == NONE)[:, None], y, torch.zeros_like(y))
    assert close(got, layer.expected(cleared, x, MIXED, scale=0.5))


def test_logits_follow_the_sampled_rows():
    layer = Layer((80,))
    samples = [2, NONE, 0]
    x, y = layer.normal(3, INPUTS), layer.normal(3, 80)
    got = y.clone()
    wrapper = wrapper_for([2, 2, 2, NONE, 0, 0], samples)
    wrapper.add_lora_logits(got, x, layer.a[0], layer.b[0], 1.0)
    assert close(got, layer.expected(y, x, samples))


def test_embeddings_are_expanded_row_by_row():
    layer = Layer((80,))
    x, y = layer.normal(len(MIXED), MAX_RANK), layer.normal(len(MIXED), 80)
    got = y.clone()
    wrapper_for(MIXED).add_lora_embedding(got, x, layer.b[0], add_input=True)
    expected = y.double()
    for row, slot in enumerate(MIXED):
        if slot != NONE:
            expected[row] += layer.b[0][slot, 0].double() @ x[row].double()
    assert close(got, expected)


def test_shrink_then_expand_is_the_whole_product():
    layer = Layer((96, 32, 32))
    x, y = layer.normal(len(MIXED), INPUTS), layer.normal(len(MIXED), 160)
    got, wrapper = y.clone(), wrapper_for(MIXED)
    shrunk = torch.zeros(3, len(MIXED), MAX_RANK, dtype=torch.float32)
    wrapper.add_shrink(shrunk, x, layer.a, 1.0)
    wrapper.add_expand(got, shrunk, layer.b, layer.widths, offset_start=0, add_input=True)
    assert close(got, layer.expected(y, x, MIXED))


def test_batch_of_another_size_is_refused():
    layer = Layer((80,))
    with pytest.raises(RuntimeError, match="for 2 rows, the batch has 3"):
        wrapper_for([0, 1]).add_lora_linear(
            layer.normal(3, 80), layer.normal(3, INPUTS), layer.a, layer.b, 1.0, layer.widths
        )


def test_registering_installs_kernels_resolver_and_zeroing(monkeypatch, tmp_path):
    from vllm.lora.resolver import LoRAResolverRegistry  # noqa: PLC0415
    from vllm.platforms.cpu import CpuPlatform  # noqa: PLC0415
    from vllm.v1.kv_cache_interface import KVCacheConfig  # noqa: PLC0415

    from server.engine.backends.vllm.plugin import register  # noqa: PLC0415

    stock_wrapper = CpuPlatform.__dict__["get_punica_wrapper"]
    monkeypatch.setattr(CpuPlatform, "get_punica_wrapper", stock_wrapper)
    monkeypatch.setattr(KVCacheConfig, "needs_kv_cache_zeroing", False)
    monkeypatch.setitem(LoRAResolverRegistry.resolvers, "tenantune", None)
    del LoRAResolverRegistry.resolvers["tenantune"]
    monkeypatch.setenv("TENANTUNE_ADAPTERS", str(tmp_path))

    register()
    register()

    assert CpuPlatform.get_punica_wrapper().endswith(".GroupedPunicaWrapper")
    config = KVCacheConfig(num_blocks=1, kv_cache_tensors=[], kv_cache_groups=[])
    assert config.needs_kv_cache_zeroing
    resolver = LoRAResolverRegistry.get_resolver("tenantune")
    assert asyncio.run(resolver.resolve_lora("base", "../../x")) is None
    assert asyncio.run(resolver.resolve_lora("base", "acme.0123456789ab")) is None
