"""Tables in each form: read back, they hold the same cells."""

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from attack_files import random
from make_golden import file_of

from interpret_robust import analyses
from interpret_robust.analyses.engine import printing
from interpret_robust.analyses.engine.printing import render_answers
from interpret_robust.cli.analysis import analysis_command
from interpret_robust.results import attack_tables, hdf5
from interpret_robust.results.attack_comparison import make_comparisons
from interpret_robust.results.names import label
from interpret_robust.results.tables import FORMS, Table, add_caption, render, to_latex

ROWS = [
    {"accuracy, %": "white-box PGD-20", "at": "52.2 \u00b1 1.1", "at_0, paper": "39.72"},
    {"accuracy, %": "a | b & c", "at": "", "p < 0.05": "1e-3"},
    {"at": "{x} $5 #1 ~a ^b \\c", "accuracy, %": "\u22121, > 0, 100 %"},
    {"accuracy, %": 'say "a, b"', "p < 0.05": "[49.0, 55.2]"},
]
CELLS = [
    ["accuracy, %", "at", "at_0, paper", "p < 0.05"],
    ["white-box PGD-20", "52.2 \u00b1 1.1", "39.72", ""],
    ["a | b & c", "", "", "1e-3"],
    ["\u22121, > 0, 100 %", "{x} $5 #1 ~a ^b \\c", "", ""],
    ['say "a, b"', "", "", "[49.0, 55.2]"],
]

ESCAPES = {
    r"\textbackslash{}": "\\",
    r"\textasciitilde{}": "~",
    r"\textasciicircum{}": "^",
    r"$\pm$": "\u00b1",
    "$-$": "\u2212",
    "$<$": "<",
    "$>$": ">",
    **{f"\\{character}": character for character in "%&$#_{}"},
}


def from_text(text: str) -> list[list[str]]:
    """Columns begin where those of the rule do."""
    lines = text.splitlines()
    spans = [match.span() for match in re.finditer("-+", lines.pop(1))]
    return [[line[start:end].rstrip() for start, end in spans] for line in lines]


def from_markdown(text: str) -> list[list[str]]:
    head, rule, *body = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines()]
    assert all(re.fullmatch(" -{3,} ", cell) for cell in rule)
    return [[cell.strip().replace(r"\|", "|") for cell in line] for line in (head, *body)]


def from_latex(text: str) -> list[list[str]]:
    begin, top, head, middle, *body, bottom, end = text.splitlines()
    assert (begin, end) == (r"\begin{tabular}{llll}", r"\end{tabular}")
    assert (top, middle, bottom) == (r"\toprule", r"\midrule", r"\bottomrule")
    pattern = "|".join(map(re.escape, ESCAPES))
    assert all(line.endswith(r" \\") for line in (head, *body))
    return [
        [re.sub(pattern, lambda match: ESCAPES[match[0]], cell) for cell in line.removesuffix(r" \\").split(" & ")]
        for line in (head, *body)
    ]


def from_json(text: str) -> list[list[str]]:
    rows = json.loads(text)
    assert rows[0]["at_0, paper"] == 39.72 and rows[0]["at"] == {"value": 52.2, "deviation": 1.1}
    assert rows[1]["p < 0.05"] == 0.001
    rows[0]["at"], rows[1]["p < 0.05"] = CELLS[1][1], CELLS[2][3]
    return [list(rows[0]), *(["" if cell is None else str(cell) for cell in row.values()] for row in rows)]


def from_csv(text: str) -> list[list[str]]:
    first, *rest = csv.reader(io.StringIO(text))
    assert first[2] == "at_deviation" and [line[2] for line in rest] == ["1.1", "", "", ""]
    rest[0][1] += f" \u00b1 {rest[0][2]}"
    return [[*line[:2], *line[3:]] for line in (first, *rest)]


PARSERS: dict[str, Callable[[str], list[list[str]]]] = {
    "text": from_text,
    "markdown": from_markdown,
    "latex": from_latex,
    "csv": from_csv,
    "json": from_json,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_table_read_back_has_the_same_cells(form: str) -> None:
    assert PARSERS[form](render(ROWS, form)) == CELLS


def test_latex_says_what_was_said_with_no_command_of_its_own() -> None:
    assert to_latex("at_0 & 52 %") == r"at\_0 \& 52 \%"
    assert to_latex("52.2 \u00b1 1.1") == r"52.2 $\pm$ 1.1"
    assert to_latex(r"\input{x}$y$~^#") == r"\textbackslash{}input\{x\}\$y\$\textasciitilde{}\textasciicircum{}\#"
    assert to_latex("p < 1 > \u22122") == "p $<$ 1 $>$ $-$2"
    assert to_latex("(`irt train --eps_x 1%`) or `a`") == r"(\texttt{irt train -{}-eps\_x 1\%}) or \texttt{a}"
    assert to_latex("a -- b --- c") == "a -{}- b -{}-{}- c"


def test_title_and_note_stand_over_and_under_a_table_but_not_among_its_rows() -> None:
    table = Table(ROWS, "50 % of it", "over 3 seeds")
    for form in FORMS:
        body = render(ROWS, form)
        if form == "json":
            parts = {"title": "50 % of it", "note": "over 3 seeds", "rows": json.loads(body)}
            assert json.loads(add_caption(table, form)) == parts
            continue
        assert add_caption(Table(ROWS), form) == body
        assert (
            add_caption(table, form)
            == {
                "text": f"50 % of it\n{body}\nover 3 seeds",
                "markdown": f"50 % of it\n\n{body}\n\nover 3 seeds",
                "latex": rf"{{\footnotesize 50 \% of it}}\par" f"\n{body}\n" r"{\footnotesize over 3 seeds}\par",
                "csv": body,
            }[form]
        )


def test_the_attack_table_follows_the_headlines_and_its_csv_is_numbers(tmp_path: Path) -> None:
    models = [[("at", 1), ("at", 0)], [("at", 0), ("at", 1)]]
    files = [random(tmp_path, model, place) for place, model in enumerate(models)]
    headlines, *comparisons = printing.make_tables(files)
    assert [row["model"] for row in headlines] == [f"cluttered-digits-small-at-seed{seed}" for seed in (0, 1)]
    assert comparisons == make_comparisons(files[::-1]) and len(comparisons) == 1
    paths = [result.path for result in files]
    for form in ("text", "markdown", "latex"):
        parts = [add_caption(table, form) for table in (headlines, *comparisons)]
        assert render_answers(paths, form=form) == "\n\n".join(parts)
    numbers = attack_tables.list_numbers(files[::-1])
    rows = list(csv.DictReader(render_answers(paths, form="csv").splitlines()))
    assert rows == numbers and len(numbers) == 9


@pytest.mark.parametrize(
    ("name", "attack"),
    [
        ("attention-maps", "PGD-20, eps 8/255, step 2/255"),
        ("attention-rank", "PGD-20, eps 8/255, step 2/255"),
        ("feature-deletion", "PGD-20, eps 8/255, step 2/255"),
        ("masking", "eps 8/255, step 2/255"),
        ("autoattack", "eps 8/255"),
        ("gradient-maps", ""),
    ],
)
def test_a_table_says_the_attack_under_it_or_in_each_row_where_models_differ_in_it(name: str, attack: str) -> None:
    result = hdf5.read(file_of(analyses.get(name).schema))
    note = f"Attack: {attack}." if attack else ""
    tables = printing.make_tables([result])
    assert {table.note for table in tables} == {note}
    assert not any("attack" in row for table in tables for row in table)
    settings = result.config["settings"]
    stronger = replace(result, config=result.config | {"settings": settings | {"eps": 0.5, "restarts": 3}})
    table, *_ = printing.make_tables([result, stronger])
    assert table.note == ""
    step = f", step {settings['step_size'] * 255:.0f}/255" if "step_size" in settings else ""
    steps = f"PGD-{settings['steps']}, " if "steps" in settings else ""
    assert [row["attack"] for row in table] == [attack, f"{steps}eps 0.5{step}, 3 restarts"]


def test_doubts_come_first_in_a_note_and_few_positions_last() -> None:
    """Spearman of n pairs that have nothing to do with each other has the standard deviation 1 / sqrt(n - 1)."""
    result = hdf5.read(file_of(analyses.get("attention-rank").schema))

    def change(*grid: int, **run: Any) -> hdf5.Result:
        changed_result = replace(result, config=result.config | {"local_grid": list(grid)})
        changed_result.__dict__["run"] = result.run | run
        return changed_result

    odd = {"doubts": ["it is odd."]}
    (table,) = printing.make_tables([change(2, 5), change(2, 5, **odd), change(1, 1, **odd)])
    assert table.note == "In doubt: it is odd. Attack: PGD-20, eps 8/255, step 2/255."
    (table,) = printing.make_tables([change(1, 5, **odd), change(1, 1)])
    assert table.note == (
        "In doubt: it is odd. Attack: PGD-20, eps 8/255, step 2/255. Spearman is over only 5 positions in "
        f"{label(result)}, which tells little: if attention and robustness had nothing to do with each other, that of "
        "one image would still scatter by 0.50 about zero (standard deviation). An earlier layer of a network has more "
        "positions (`irt model layers`)."
    )


def test_the_commands_offer_every_form() -> None:
    (option,) = [
        parameter for parameter in analysis_command("robustness", "irt evaluate").params if parameter.name == "form"
    ]
    assert tuple(option.type.choices) == FORMS  # type: ignore[attr-defined]
