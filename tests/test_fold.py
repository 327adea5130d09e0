"""Tables fit the terminal, and nothing is left out of them; JSON has numbers as numbers."""

import json
import sys

import pytest

from interpret_robust.cli import irt, main
from interpret_robust.core.errors import UserError, unknown
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


def test_several_tables_are_one_json_document() -> None:
    first, second = Table([{"a": "1"}], "one"), Table([{"b": "x"}], "", "two")
    rows = [{"title": "one", "note": "", "rows": [{"a": 1}]}, {"title": "", "note": "two", "rows": [{"b": "x"}]}]
    assert json.loads(tables.captioned_all([first, second], "json")) == rows
    assert tables.captioned_all([first, second]) == f"{captioned(first)}\n\n{captioned(second)}"


def test_a_second_model_is_refused() -> None:
    with pytest.raises(UserError, match=r"--model is given 2 times \(a, b\)"):
        irt.main(["evaluate", "--model", "a", "--model", "b"], standalone_mode=False)


def test_without_a_command_the_help_keeps_its_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["irt", "data"])
    with pytest.raises(SystemExit) as exit_status:
        main()
    assert exit_status.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "irt: a command is missing."
    assert max(map(len, lines)) <= 80 and any(line.strip().startswith("list ") for line in lines)
