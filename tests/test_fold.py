"""Tables fit the terminal, and nothing is left out of them; JSON has numbers as numbers."""

import json

import pytest

from interpret_robust.core.errors import unknown
from interpret_robust.results import tables
from interpret_robust.results.tables import Table, captioned, fold, render

ROWS = [
    {"model": "cifar10-small-at", "natural": "61.8", "PGD-20": "31.2 ± 0.1", "images": "1000"},
    {"model": "at", "natural": "9.75", "PGD-20": "31.6 ± 0.4", "images": "20"},
]


@pytest.mark.parametrize("limit", [18, 27, 40, 60, None])
def test_a_folded_table_is_narrow_and_whole(limit: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "terminal_width", lambda: limit)
    text = render(ROWS)
    if limit is not None and limit >= 28:  # the widest pair of columns
        assert max(map(len, text.splitlines())) <= limit
    for row in ROWS:
        for cell in row.values():
            assert cell in text
    lines = [list(ROWS[0]), *(list(row.values()) for row in ROWS)]
    parts = fold(lines, limit)
    assert [name for part in parts for name in part[0][1:]] == ["natural", "PGD-20", "images"]
    assert all([line[0] for line in part] == ["model", "cifar10-small-at", "at"] for part in parts)


def test_numbers_stand_at_the_right_of_their_column() -> None:
    lines = render([{"model": "a", "images": "1000"}, {"model": "bb", "images": "20"}]).splitlines()
    assert lines == ["model  images", "-----  ------", "a        1000", "bb         20"]


def test_json_has_numbers_as_numbers() -> None:
    table = Table([{"model": "a", "share": "0.25", "images": "7", "p": ""}], "title", "note")
    assert json.loads(captioned(table, "json")) == {
        "title": "title",
        "note": "note",
        "rows": [{"model": "a", "share": 0.25, "images": 7, "p": None}],
    }


def test_latex_typesets_the_note() -> None:
    text = captioned(Table([{"a": "1"}], "", "50 % of images"), "latex")
    assert r"\footnotesize 50 \% of images" in text and "% 50" not in text


def test_a_name_in_other_letters_is_recognized() -> None:
    assert "did you mean 'at-att'" in str(unknown("variant", "AT-ATT", ["at", "at-att", "natural"]))
    assert "did you mean 'at'" in str(unknown("variant", "AT", ["at", "at-att", "natural"]))
