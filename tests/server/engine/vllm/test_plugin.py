"""The plugin's own rules, without an engine."""

import pytest

from server.engine.backends.vllm.plugin import check_version
from server.engine.backends.vllm.plugin.environment import read


@pytest.mark.parametrize("version", ["0.32.0", "0.32.7", "0.32.0+cpu"])
def test_tested_minor_is_taken(version):
    check_version(version, allowed=False)


@pytest.mark.parametrize("version", ["0.31.2", "0.33.0", "1.32.0", "0.320.0"])
def test_other_minor_is_refused_unless_allowed(version, caplog):
    with pytest.raises(RuntimeError, match="TENANTUNE_ALLOW_UNTESTED_VLLM=1"):
        check_version(version, allowed=False)
    check_version(version, allowed=True)
    assert version in caplog.text


def test_engine_that_is_not_ours_is_left_alone():
    assert read({}).adapters is None


def test_kernels_are_one_of_two():
    assert read({"TENANTUNE_LORA_KERNELS": "stock"}).kernels == "stock"
    with pytest.raises(ValueError, match="'grouped' or 'stock'"):
        read({"TENANTUNE_LORA_KERNELS": "fast"})
