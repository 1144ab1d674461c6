"""The widget's tests come in by its own door alone."""

import pytest


@pytest.fixture
def doors() -> set[str]:
    return {"WIDGET"}
