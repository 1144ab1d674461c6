"""What the tests of whole processes share."""

from pathlib import Path

import pytest

from tests.tiny import make_tiny_base


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny base; what that was made from is ``tiny`` beside the folder."""
    folder = tmp_path_factory.mktemp("made") / "bases"
    make_tiny_base(folder)
    return folder
