"""A table as it is printed: rows by column, with what stands over and under them."""

import csv
import io
import json
import math
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from textwrap import fill
from typing import Any

from interpret_robust.core.parsing import NO_NUMBER

Lines = Sequence[Sequence[str]]


class Table(list[dict[str, str]]):
    """Rows by column, in the order in which keys first appear.

    Attributes:
        title: what it shows, over it; empty where that is plain.
        note: over what its numbers are, under it; empty where each row says so.
        prefix: what all cells of its first column begin with, said once where it is printed as text; or empty.
    """

    def __init__(self, rows: Iterable[dict[str, str]], title: str = "", note: str = "", prefix: str = "") -> None:
        super().__init__(rows)
        self.title, self.note, self.prefix = title, note, prefix


def render(rows: Sequence[Mapping[str, str]], form: str = "text") -> str:
    """Return rows under their keys, in the order in which keys first appear, in one of FORMS.

    No line break at the end.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return _RENDERERS[form]([columns, *([row.get(column, "") for column in columns] for row in rows)])


def add_caption(table: Table, form: str = "text") -> str:
    """Return a table with its title over it and its note under it.

    Small print in LaTeX, fields in JSON, left out of CSV.
    """
    if form == "csv":
        return render(table, form)
    if form == "json":
        return json.dumps(_document(table), indent=1, ensure_ascii=False)
    if form == "text":
        table = drop_prefix(table)
    title, note = (_caption(text, form) for text in (table.title, table.note))
    return ("\n\n" if form == "markdown" else "\n").join(filter(None, [title, render(table, form), note]))


def _caption(text: str, form: str) -> str:
    if form == "text":
        return fill(text, measure_line(), break_on_hyphens=False)
    return rf"{{\footnotesize {to_latex(text)}}}\par" if form == "latex" and text else text


def add_captions(tables: Iterable[Table], form: str = "text") -> str:
    """Return several tables as `add_caption` writes each, one after the other; in JSON as one list."""
    if form == "json":
        return json.dumps([_document(table) for table in tables], indent=1, ensure_ascii=False)
    return "\n\n".join(add_caption(table, form) for table in tables)


def _document(table: Table) -> dict[str, Any]:
    return {"title": table.title, "note": table.note, "rows": json.loads(render(table, "json"))}


def to_latex(text: str) -> str:
    r"""Return text as LaTeX typesets it: no character of it is a command, and what backticks enclose is typewriter.

    Example:
        >>> print(to_latex("see `irt train --copies`"))
        see \texttt{irt train -{}-copies}
    """
    plain = "".join(_LATEX.get(character, character) for character in text)
    return re.sub("`([^`]+)`", r"\\texttt{\1}", re.sub("-(?=-)", "-{}", plain))


WIDTH = 120
"""Columns of a table that is written to a file or a pipe, and of the widest lines of running text."""


def measure_terminal() -> int:
    """Return the columns of the terminal that is written to; WIDTH for a file or a pipe, or what COLUMNS says."""
    return shutil.get_terminal_size((WIDTH, 24)).columns


def measure_line() -> int:
    """Return the columns of running text: those of the terminal, and at most WIDTH."""
    return min(measure_terminal(), WIDTH)


def drop_prefix(table: Table) -> Table:
    """Return a table whose first column lacks what all its cells begin with, which the note says."""
    if not table.prefix:
        return table
    column = next(iter(table[0]))
    rows = [row | {column: row[column].removeprefix(table.prefix)} for row in table]
    prefix = f"Full names of {column}s begin with {table.prefix}"
    return Table(rows, table.title, " ".join(filter(None, [table.note, prefix])))


def _text(lines: Lines) -> str:
    limit = measure_terminal()
    return "\n\n".join(_block(wrap(part, limit)) for part in fold(lines, limit))


def wrap(lines: Lines, limit: int) -> Lines:
    """Return a table whose longest cells are broken into lines, so that it is at most `limit` characters wide.

    Cells with an interval are not broken, and no word is: a table of many of them stays wider.

    Example:
        >>> wrap([["claim", "why"], ["a", "it was not seen in any of the seeds"]], 28)
        [['claim', 'why'], ['a', 'it was not seen in\\nany of the seeds']]
    """
    widths, floors = _widths(lines), _floors(lines)
    while _total(widths) > limit:
        spare = [width if width > floor else 0 for width, floor in zip(widths, floors, strict=True)]
        if not any(spare):
            break
        widths[spare.index(max(spare))] -= 1
    return [[_wrap(cell, width) for cell, width in zip(line, widths, strict=True)] for line in lines]


def _wrap(cell: str, width: int) -> str:
    return cell if len(cell) <= width else fill(cell, width, break_long_words=False, break_on_hyphens=False)


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + 2 * (len(widths) - 1)


def _floors(lines: Lines) -> list[int]:
    """Return how narrow each column can be: its longest word, and at least NARROWEST where it has more than one."""
    floors = []
    for width, column in zip(_widths(lines), zip(*lines, strict=True), strict=True):
        words = [word for cell in column for word in ([cell] if _HAS_INTERVAL.search(cell) else cell.split())]
        floors.append(min(width, max([NARROWEST, *map(len, words)])))
    return floors


NARROWEST = 14
"""Characters of a column of running text, at least."""


def _block(lines: Lines) -> str:
    """Return a table as text: numbers at the right of their column, all else at the left."""
    widths = _widths(lines)
    is_number = [all(_NUMERIC.fullmatch(cell) for cell in column[1:]) for column in zip(*lines, strict=True)]
    printed_lines = [
        "\n".join(
            "  ".join(
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(part, widths, is_number, strict=True)
            ).rstrip()
            for part in zip_longest(*(cell.split("\n") for cell in line), fillvalue="")
        )
        for line in lines
    ]
    return "\n".join([printed_lines[0], "  ".join("-" * width for width in widths), *printed_lines[1:]])


def fold(lines: Lines, limit: int) -> list[Lines]:
    """Return a table as tables that can be at most `limit` characters wide, each with the first columns, see `wrap`.

    These are as many as tell all rows apart, at most MOST_KEYS; the first alone if that takes more, or two thirds of
    the width. Nothing is left out: a cell that cannot be broken stays whole, in a table of its own. A column such as
    `at, paper` stays beside the column `at` before it, if the two fit.

    Example:
        >>> fold([["model", "a", "b"], ["x", "1.25", "2.5"]], 12)
        [[['model', 'a'], ['x', '1.25']], [['model', 'b'], ['x', '2.5']]]
    """
    if not lines[0]:
        return [lines]
    floors = _floors(lines)
    keys = [*range(_count_keys(lines))]
    if 3 * _total(floors[: len(keys)]) > 2 * limit:
        keys = [0]

    def fits(columns: Sequence[int]) -> bool:
        return _total([floors[place] for place in (*keys, *columns)]) <= limit

    groups: list[list[int]] = [[]]
    for block in _inseparable(lines[0], len(keys)):
        for columns in [block] if fits(block) else [[column] for column in block]:
            if groups[-1] and not fits([*groups[-1], *columns]):
                groups.append([])
            groups[-1] += columns
    return [[[line[column] for column in (*keys, *group)] for line in lines] for group in groups]


MOST_KEYS = 3
"""Columns that are repeated at most where a table is folded."""


def _count_keys(lines: Lines) -> int:
    """Return how many of the first columns tell all rows apart; 1 where that takes more than MOST_KEYS."""
    counts = range(1, min(MOST_KEYS, len(lines[0]) - 1) + 1)
    return next((count for count in counts if len({tuple(line[:count]) for line in lines}) == len(lines)), 1)


def _inseparable(head: Sequence[str], first: int) -> Iterator[list[int]]:
    """Yield the columns from `first` on, those together that stay side by side: `at` and `at, paper`."""
    columns: list[int] = []
    for column in range(first, len(head)):
        if columns and not head[column].startswith(f"{head[columns[0]]}, "):
            yield columns
            columns = []
        columns.append(column)
    if columns:
        yield columns


_HAS_INTERVAL = re.compile(r"(\d|%|points) \[")
"""A number with its interval, unlike the range of a number, such as `in [0, 1]`."""

_NUMERIC = re.compile(rf"[-+]?\d+(\.\d+)?( %)?|{NO_NUMBER}")
"""A cell that is a plain number, or stands for one that is not known."""

_REAL = r"[-+\u2212]?(\d+(\.\d+)?(e[-+]?\d+)?|nan|inf)"
_PARTS = re.compile(
    rf"(?P<value>{_REAL})(?P<unit>( ?%| points)?)"
    rf"( \[(?P<low>{_REAL}), (?P<high>{_REAL})\]| (\+-|\u00b1) (?P<deviation>{_REAL})( ?%)?)?"
    rf"( \((?P<in_brackets>{_REAL})( ?%)?\))?"
)
"""A cell that is a number: alone, or with its interval, the deviation of a mean, or a number to compare it with."""

PARTS = ("low", "high", "deviation", "in_brackets")
"""What a number can have beside it."""


def split_cell(cell: str) -> dict[str, str]:
    """Return the numbers of a cell as text, in the unit that it prints: its value, and those of PARTS that it has.

    Nothing for a cell that is not a number.

    Example:
        >>> split_cell("6.0 % [2.1, 16.2]"), split_cell("44.6 +- 1.5 %"), split_cell("cannot tell")
        ({'value': '6.0', 'low': '2.1', 'high': '16.2'}, {'value': '44.6', 'deviation': '1.5'}, {})
    """
    match = _PARTS.fullmatch(cell)
    if not match:
        return {}
    return {name: match[name].replace("\u2212", "-") for name in ("value", *PARTS) if match[name]}


def _json(lines: Lines) -> str:
    """Return the rows as JSON objects: numbers and intervals are numbers; an empty cell, and what is not known, is
    null.
    """
    names, *rows = lines
    return json.dumps([dict(zip(names, map(_value, row), strict=True)) for row in rows], ensure_ascii=False)


def _value(cell: str) -> Any:
    """Return a number as a number, and one with an interval or a deviation as its parts; what is NaN is null."""
    numbers = {name: _number(text) for name, text in split_cell(cell).items()}
    if not numbers:
        return None if cell in ("", NO_NUMBER) else cell
    return numbers if len(numbers) > 1 else numbers["value"]


def _number(text: str) -> float | None:
    """Return a number that JSON has."""
    number = float(text)
    if not math.isfinite(number):
        return None
    return int(text) if re.fullmatch(r"[-+]?\d+", text) else number


def _csv(lines: Lines) -> str:
    """Return the rows with a number a cell: an interval is in three columns, `NAME`, `NAME_low` and `NAME_high`.

    The deviation of a mean is in `NAME_deviation`, a number in brackets in `NAME_in_brackets`. What is not known is
    empty, and what is not a number stays as it is printed.
    """
    columns: dict[str, list[str]] = {}
    for name, *cells in zip(*lines, strict=True):
        numbers = [split_cell(cell) for cell in cells]
        columns[name] = [
            parts.get("value", "" if cell == NO_NUMBER else cell) for parts, cell in zip(numbers, cells, strict=True)
        ]
        for part in PARTS:
            if any(part in parts for parts in numbers):
                columns[f"{name}_{part}"] = [parts.get(part, "") for parts in numbers]
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([list(columns), *zip(*columns.values(), strict=True)])
    return buffer.getvalue().rstrip("\n")


def _markdown(lines: Lines) -> str:
    escaped_lines = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    widths = [max(3, width) for width in _widths(escaped_lines)]
    head, *body = [f"| {' | '.join(_pad(line, widths))} |" for line in escaped_lines]
    return "\n".join([head, f"| {' | '.join('-' * width for width in widths)} |", *body])


def _latex(lines: Lines) -> str:
    """Return a tabular with the rules of the package booktabs."""
    head, *body = [rf"{' & '.join(map(to_latex, line))} \\" for line in lines]
    opening = rf"\begin{{tabular}}{{{'l' * len(lines[0])}}}"
    return "\n".join([opening, r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"])


def _widths(lines: Lines) -> list[int]:
    return [max(len(part) for cell in column for part in cell.split("\n")) for column in zip(*lines, strict=True)]


def _pad(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]


_RENDERERS: dict[str, Callable[[Lines], str]] = {
    "text": _text,
    "markdown": _markdown,
    "latex": _latex,
    "csv": _csv,
    "json": _json,
}


FORMS = tuple(_RENDERERS)
"""What a table can be written as."""


_LATEX = {character: f"\\{character}" for character in "%&$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "\u00b1": r"$\pm$",
    "\u2212": "$-$",
}
