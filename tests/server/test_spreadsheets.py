"""Tables that a spreadsheet opens and does not run."""

import pytest

from server.spreadsheets import harmless, to_csv


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "\nx"])
def test_a_text_that_begins_like_a_formula_gets_an_apostrophe(cell: str) -> None:
    assert harmless(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["a=b", "", -1, 0.5, None])
def test_other_cells_stay_as_they_are(cell: str | float | None) -> None:
    assert harmless(cell) == cell


def test_a_table_has_a_header_and_quotes_what_must_be() -> None:
    assert to_csv(("a", "b"), [("x,y", 1), (None, "=z")]) == b'a,b\n"x,y",1\n,\'=z\n'
