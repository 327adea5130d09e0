"""Tables: of anything, for a terminal, and the headline numbers of analyses, for a terminal or a page."""

from collections.abc import Sequence
from pathlib import Path

from interpret_robust import analyses, labels, results


def table(rows: Sequence[dict[str, str]]) -> str:
    """Rows as aligned columns under their keys, in the order in which keys first appear."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, *([row.get(column, "") for column in columns] for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    padded = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([padded[0], "  ".join("-" * width for width in widths), *padded[1:]])


def text_of(files: Sequence[Path], views: Sequence[str] = ()) -> str:
    """The headline numbers of an analysis's files, a row a model in the paper's order, then comparisons."""
    return "\n\n".join(map(table, rows_of([results.read(path) for path in files], views)))


def rows_of(opened: Sequence[results.Result], views: Sequence[str] = ()) -> list[list[dict[str, str]]]:
    """The rows of these tables, by column."""
    ordered = sorted(opened, key=labels.order)
    analysis = analyses.get(ordered[0].schema.partition("/")[0])
    rows = [{"model": result.config["checkpoint"]["name"], **analysis.table_row(result, *views)} for result in ordered]
    compared = analysis.compare(ordered, *views) if analysis.compare else []
    return [rows, *compared]
