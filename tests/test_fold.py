"""Tables fit the terminal, and nothing is left out of them; JSON has numbers as numbers."""

import csv
import io
import json
import math
import shutil
import sys

import pytest

from interpret_robust.cli import irt, main
from interpret_robust.core.errors import UserError, unknown
from interpret_robust.results import tables
from interpret_robust.results.tables import Table, add_caption, fold, render

ROWS = [
    {"model": "cifar10-small-at", "natural": "61.8", "PGD-20": "31.2 ± 0.1", "images": "1000"},
    {"model": "at", "natural": "9.75", "PGD-20": "31.6 ± 0.4", "images": "20"},
]


def test_a_measured_column_and_the_papers_beside_it_are_not_parted() -> None:
    lines = [
        ["accuracy, %", "at", "at, paper", "at-att", "at-att, paper"],
        ["natural", "61.8", "80.79", "64.2", "82.75"],
    ]
    heads = [[part[0] for part in fold(lines, limit)] for limit in (66, 50, 30)]
    assert heads == [
        [lines[0]],
        [["accuracy, %", "at", "at, paper"], ["accuracy, %", "at-att", "at-att, paper"]],
        [["accuracy, %", "at", "at, paper"], ["accuracy, %", "at-att"], ["accuracy, %", "at-att, paper"]],
    ]


@pytest.mark.parametrize("limit", [18, 27, 40, 60, 120])
def test_a_folded_table_is_narrow_and_whole(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "measure_terminal", lambda: limit)
    text = render(ROWS)
    if limit >= 28:  # the widest pair of columns
        assert max(map(len, text.splitlines())) <= limit
    for row in ROWS:
        for cell in row.values():
            assert cell in text
    lines = [list(ROWS[0]), *(list(row.values()) for row in ROWS)]
    parts = fold(lines, limit)
    assert [name for part in parts for name in part[0][1:]] == ["natural", "PGD-20", "images"]
    assert all([line[0] for line in part] == ["model", "cifar10-small-at", "at"] for part in parts)


def test_the_columns_that_tell_rows_apart_are_in_every_part() -> None:
    lines = [["model", "map", "order", "area", "gap"]]
    lines += [["at", name, order, "0.12", "-0.5"] for name in ("gradient", "edges") for order in ("first", "last")]
    heads = [[part[0] for part in fold(lines, limit)] for limit in (40, 33, 24)]
    keys = ["model", "map", "order"]
    assert heads == [
        [[*keys, "area", "gap"]],
        [[*keys, "area"], [*keys, "gap"]],
        [["model", "map", "order"], ["model", "area", "gap"]],
    ]
    assert [line[:3] for line in fold(lines, 33)[1][1:]] == [line[:3] for line in lines[1:]]
    alike = [["model", "a", "b", "c", "d"], *[["at", "1", "1", "1", place] for place in "12"]]
    assert [part[0][0] for part in fold(alike, 9)] == ["model"] * 4, "four columns are too many"


CLAIMS = [
    {
        "claim": "more attention goes to more robust features",
        "verdict": "does not hold",
        "n": "2",
        "interval": "-0.6 [-0.8, -0.4]",
    },
    {
        "claim": "attention sits on the object",
        "verdict": "the files cannot tell",
        "n": "3",
        "interval": "0.1 [-0.1, 0.3]",
    },
]


@pytest.mark.parametrize("limit", [45, 60, 80, 200])
def test_long_sentences_are_broken_into_lines_and_intervals_are_not(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "measure_terminal", lambda: limit)
    lines = render(CLAIMS).splitlines()
    assert max(map(len, lines)) <= limit
    text = "\n".join(lines)
    assert all(row["interval"] in text for row in CLAIMS)
    words = sorted(word for row in CLAIMS for cell in row.values() for word in cell.split())
    output_words = sorted(word for line in lines for word in line.split())
    assert all(output_words.count(word) >= words.count(word) for word in words)


def test_a_file_is_as_wide_as_a_page_unless_columns_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert tables.measure_terminal() in (tables.WIDTH, shutil.get_terminal_size().columns)
    monkeypatch.setenv("COLUMNS", "33")
    assert tables.measure_terminal() == 33


def test_what_all_names_begin_with_is_said_once_in_text_only() -> None:
    table = Table(
        [{"model": "digits-small-at"}, {"model": "digits-small-at-att"}], note="3 images.", prefix="digits-small-"
    )
    assert add_caption(table).splitlines()[2:] == [
        "at",
        "at-att",
        "3 images. Full names of models begin with digits-small-",
    ]
    assert "digits-small-at-att" in add_caption(table, "csv") and "Models" not in add_caption(table, "markdown")


def test_numbers_stand_at_the_right_of_their_column() -> None:
    lines = render([{"model": "a", "images": "1000"}, {"model": "bb", "images": "20"}]).splitlines()
    assert lines == ["model  images", "-----  ------", "a        1000", "bb         20"]


def test_json_has_numbers_as_numbers() -> None:
    table = Table([{"model": "a", "share": "0.25", "images": "7", "p": ""}], "title", "note")
    assert json.loads(add_caption(table, "json")) == {
        "title": "title",
        "note": "note",
        "rows": [{"model": "a", "share": 0.25, "images": 7, "p": None}],
    }


def test_latex_typesets_the_note() -> None:
    text = add_caption(Table([{"a": "1"}], "", "50 % of images"), "latex")
    assert r"\footnotesize 50 \% of images" in text and "% 50" not in text


def test_a_name_in_other_letters_is_recognized() -> None:
    assert "did you mean 'at-att'" in str(unknown("variant", "AT-ATT", ["at", "at-att", "natural"]))
    assert "did you mean 'at'" in str(unknown("variant", "AT", ["at", "at-att", "natural"]))


def test_several_tables_are_one_json_document() -> None:
    first, second = Table([{"a": "1"}], "one"), Table([{"b": "x"}], "", "two")
    rows = [{"title": "one", "note": "", "rows": [{"a": 1}]}, {"title": "", "note": "two", "rows": [{"b": "x"}]}]
    assert json.loads(tables.add_captions([first, second], "json")) == rows
    assert tables.add_captions([first, second]) == f"{add_caption(first)}\n\n{add_caption(second)}"


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


CELLS = {
    "share": "6.0 % [2.1, 16.2]",
    "change": "-0.5 points [-2.1, +1.1]",
    "Spearman": "\u22120.39 [-0.44, \u22120.35]",
    "mean": "44.6 +- 1.5 %",
    "at": "61.8 \u00b1 0.4",
    "object (area)": "25.3 % [22.9, 27.7] (28.9%)",
    "edges": "46.4 %",
    "gap": "3.21%",
    "p": "4.4e-05",
    "none": "nan % [nan, nan]",
    "unknown": "-",
    "text": "[1, 2]",
    "of": "15.4 of 16",
    "empty": "",
}


def test_json_has_intervals_as_numbers() -> None:
    (row,) = json.loads(add_caption(Table([CELLS]), "json"))["rows"]
    assert row == {
        "share": {"value": 6.0, "low": 2.1, "high": 16.2},
        "change": {"value": -0.5, "low": -2.1, "high": 1.1},
        "Spearman": {"value": -0.39, "low": -0.44, "high": -0.35},
        "mean": {"value": 44.6, "deviation": 1.5},
        "at": {"value": 61.8, "deviation": 0.4},
        "object (area)": {"value": 25.3, "low": 22.9, "high": 27.7, "in_brackets": 28.9},
        "edges": 46.4,
        "gap": 3.21,
        "p": 4.4e-05,
        "none": {"value": None, "low": None, "high": None},
        "unknown": None,
        "text": "[1, 2]",
        "of": "15.4 of 16",
        "empty": None,
    }


def test_csv_has_an_interval_in_three_columns_and_a_number_in_each_cell() -> None:
    text = render([CELLS, {"share": "zero by construction", "at": "7.5"}], "csv")
    first, second = csv.DictReader(io.StringIO(text))
    assert [name for name in first if name.startswith("share")] == ["share", "share_low", "share_high"]
    assert (second["share"], second["share_low"], second["share_high"]) == ("zero by construction", "", "")
    assert (first["text"], first["of"], first["empty"], first["unknown"]) == ("[1, 2]", "15.4 of 16", "", "")
    numbers = {
        **{"share": 6.0, "share_low": 2.1, "share_high": 16.2},
        **{"change": -0.5, "change_low": -2.1, "change_high": 1.1},
        **{"Spearman": -0.39, "Spearman_low": -0.44, "Spearman_high": -0.35},
        **{"mean": 44.6, "mean_deviation": 1.5, "at": 61.8, "at_deviation": 0.4, "edges": 46.4, "gap": 3.21},
        **{"object (area)": 25.3, "object (area)_low": 22.9, "object (area)_high": 27.7},
        **{"object (area)_in_brackets": 28.9, "p": 4.4e-05},
    }
    assert {name: float(first[name]) for name in numbers} == numbers
    assert all(math.isnan(float(first[f"none{part}"])) for part in ("", "_low", "_high"))
    assert first.keys() - numbers.keys() == {"none", "none_low", "none_high", "unknown", "text", "of", "empty"}
    assert (second["at"], second["at_deviation"]) == ("7.5", "")
