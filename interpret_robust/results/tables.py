"""A table as it is printed: rows by column, with what stands over and under them."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from textwrap import fill

Lines = Sequence[Sequence[str]]


class Table(list[dict[str, str]]):
    """Rows by column, in the order in which keys first appear.

    Attributes:
        title: what it shows, over it; empty where that is plain.
        note: over what its numbers are, under it; empty where each row says so.
    """

    def __init__(self, rows: Iterable[dict[str, str]], title: str = "", note: str = "") -> None:
        super().__init__(rows)
        self.title, self.note = title, note


def render(rows: Sequence[Mapping[str, str]], form: str = "text") -> str:
    """Rows under their keys, in the order in which keys first appear, in one of FORMS; no line break at the end."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return _RENDERERS[form]([columns, *([row.get(column, "") for column in columns] for row in rows)])


def captioned(table: Table, form: str = "text") -> str:
    """A table with its title over it and its note under it: comments in LaTeX, and left out of CSV."""
    if form == "csv":
        return render(table, form)
    title, note = (f"% {text}" if text and form == "latex" else text for text in (table.title, table.note))
    if form == "text":
        note = fill(note, 120, break_on_hyphens=False)
    return ("\n\n" if form == "markdown" else "\n").join(filter(None, [title, render(table, form), note]))


def to_latex(text: str) -> str:
    """Text as LaTeX typesets it: no character of it is a command."""
    return "".join(_LATEX.get(character, character) for character in text)


def _text(lines: Lines) -> str:
    widths = _widths(lines)
    padded = ["  ".join(_padded(line, widths)).rstrip() for line in lines]
    return "\n".join([padded[0], "  ".join("-" * width for width in widths), *padded[1:]])


def _markdown(lines: Lines) -> str:
    escaped = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    widths = [max(3, width) for width in _widths(escaped)]
    head, *body = [f"| {' | '.join(_padded(line, widths))} |" for line in escaped]
    return "\n".join([head, f"| {' | '.join('-' * width for width in widths)} |", *body])


def _latex(lines: Lines) -> str:
    """A tabular with the rules of the package booktabs."""
    head, *body = [rf"{' & '.join(map(to_latex, line))} \\" for line in lines]
    opening = rf"\begin{{tabular}}{{{'l' * len(lines[0])}}}"
    return "\n".join([opening, r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"])


def _csv(lines: Lines) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(lines)
    return buffer.getvalue().rstrip("\n")


def _widths(lines: Lines) -> list[int]:
    return [max(map(len, column)) for column in zip(*lines, strict=True)]


def _padded(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]


_RENDERERS: dict[str, Callable[[Lines], str]] = {"text": _text, "markdown": _markdown, "latex": _latex, "csv": _csv}


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
