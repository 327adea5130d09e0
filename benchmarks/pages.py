"""Write the tables and numbers of README and docs from the files that they rest on.

    python benchmarks/pages.py            # write
    python benchmarks/pages.py --check    # only say which pages would change

A page holds blocks, a table each, as HTML comments that no reader sees:

    <!-- irt: NAME = answers "analyses/robustness-*-at-*.h5" --part 0 --columns "model, natural" -->
    | the table, in Markdown |
    <!-- end -->

`answers GLOB` is what `irt analyze` prints of these files, `audit GLOB` what `irt audit` prints, `readers GLOB` how
often each evaluator reads maps and edges, `history GLOB` how accurate checkpoints were in each epoch of their training,
`stored FILE TABLE` a table of a JSON file in `docs/results/`, which names
the command and the commit that made it. `--part` takes one of the
tables that are printed, `--rows` those in which a text occurs, `--columns` some columns. A number in a sentence names
its block, a row by the end of one of its cells, and a column:

    `at` keeps <!-- table2: white-box PGD-20 / at -->31.2<!-- / --> %

`... / at 2` is the second number of that cell, and `... / at abs` the first without its sign. Names of blocks are
unique over all pages, so that README can quote a table of the results page.
"""

import argparse
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- irt: ([\w-]+) = (.*?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
QUOTE = re.compile(r"(<!-- ([\w-]+): ([^>]*?) / ([^>]*?)(?: (\d))?( abs)? -->)(.*?)(<!-- / -->)")
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e-?\d+)?")
Rows = list[dict[str, str]]


class Table(NamedTuple):
    """The rows of a table by column, and what stands over and under it."""

    rows: Rows
    title: str
    note: str


def list_pages() -> list[Path]:
    """Return the paths of README and of all pages of docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def parse_rows(markdown: str) -> Rows:
    """Return the rows of the first table in a text, by column."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    head, _, *body = [
        [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines
    ]
    return [dict(zip(head, cells, strict=True)) for cells in body]


def read_tables(texts: Mapping[Path, str]) -> dict[str, Rows]:
    """Return the rows of every block of all pages, by the block's name.

    Raises ValueError for two blocks of one name.
    """
    blocks = [(match[2], parse_rows(match[4])) for text in texts.values() for match in BLOCK.finditer(text)]
    names = [name for name, _ in blocks]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"blocks of one name: {', '.join(sorted(twice))}")
    return dict(blocks)


def find_number(rows: Rows, row: str, column: str, place: int = 1, *, absolute: bool = False) -> str:
    """Return a number of a table: the one at `place`, from 1, in the cell of a row and a column.

    Raises ValueError where not exactly one row has a cell that ends in `row`, or the cell has no such number.

    Example:
        >>> find_number([{"accuracy": "PGD-20", "at": "31.2 ± 0.1"}], "PGD-20", "at", 2)
        '0.1'
    """
    matches = [cells for cells in rows if any(cell == row for cell in cells.values())]
    matches = matches or [cells for cells in rows if any(cell.endswith(row) for cell in cells.values())]
    if len(matches) != 1 or column not in matches[0]:
        raise ValueError(f"{len(matches)} rows for {row!r}, columns {', '.join(rows[0])}")
    numbers = NUMBER.findall(matches[0][column].replace("\u2212", "-"))
    if len(numbers) < place:
        raise ValueError(f"no number {place} in {row} / {column}: {matches[0][column]!r}")
    number: str = numbers[place - 1]
    return number.lstrip("+-") if absolute else number


def fill_quotes(text: str, tables: Mapping[str, Rows]) -> str:
    """Return a page with every quoted number as its block has it. Raises ValueError for an unknown block or cell."""

    def fill(match: re.Match[str]) -> str:
        opening, name, row, column, place, absolute, _, closing = match.groups()
        if name not in tables:
            raise ValueError(f"no block {name}")
        try:
            number = find_number(tables[name], row, column, int(place or 1), absolute=bool(absolute))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        return opening + number + closing

    return QUOTE.sub(fill, text)


def fill_blocks(text: str, render: Callable[[str], str]) -> str:
    """Return a page with every block as `render` makes it of what its comment says."""
    return BLOCK.sub(lambda match: f"{match[1]}\n{render(match[3])}\n\n{match[5]}", text)


def _split_names(text: str) -> list[str]:
    """Return names that semicolons part, or commas where there are none."""
    return [name.strip() for name in text.split(";" if ";" in text else ",")]


def render_block(words: str) -> str:
    """Return the Markdown of a block from the files that its comment names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["answers", "audit", "readers", "history", "stored"])
    parser.add_argument("source")
    parser.add_argument("table", nargs="?")
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument("--columns", type=_split_names)
    parser.add_argument("--rows", default="")
    parser.add_argument("--plain", action="store_true", help="Without title and note.")
    options = parser.parse_args(shlex.split(words))
    if options.kind == "stored":
        table = _read_table(options.source, options.table)
    elif options.kind == "history":
        table = _list_epochs(options.source)
    else:
        table = _compute_table(options.kind, options.source, options.part)
    rows = [row for row in table.rows if any(options.rows in cell for cell in row.values())]
    columns = options.columns or list(dict.fromkeys(key for row in rows for key in row))
    body = _render_markdown(columns, [[row.get(column, "") for column in columns] for row in rows])
    return body if options.plain else "\n\n".join(filter(None, [table.title, body, table.note]))


def _read_table(source: str, name: str) -> Table:
    table = json.loads((ROOT / "docs" / "results" / source).read_text(encoding="utf-8"))["tables"][name]
    return Table(table["rows"], table["title"], table["note"])


def _list_epochs(pattern: str) -> Table:
    """Return the accuracy of checkpoints of one recipe on their training images, a row an epoch."""
    from interpret_robust.models import checkpoint_file
    from interpret_robust.models.variants import order_as_paper

    facts = [checkpoint_file.read(path).about for path in ROOT.glob(pattern)]
    facts.sort(key=lambda entry: order_as_paper(entry["job"]["variant"], None))
    models: dict[str, list[dict[str, Any]]] = {entry["job"]["variant"]: entry["history"] for entry in facts}
    rows = [
        {
            "epoch": str(epochs[0]["epoch"]),
            "learning rate": f"{epochs[0]['learning_rate']:.3f}",
            "eps of 255": f"{255 * epochs[0]['eps']:.1f}",
            **{variant: f"{100 * epoch['accuracy']:.1f}" for variant, epoch in zip(models, epochs, strict=True)},
        }
        for epochs in zip(*models.values(), strict=True)
    ]
    note = "Accuracy in percent on the adversarial training images, as they were attacked in training."
    return Table(rows, "", note)


def _compute_table(kind: str, pattern: str, part: int) -> Table:
    from interpret_robust import analyses
    from interpret_robust.analyses.engine import printing
    from interpret_robust.study import audit

    results = [analyses.read(path) for path in sorted(ROOT.glob(pattern))]
    if not results:
        raise ValueError(f"no file is called {pattern}")
    if kind == "readers":
        return Table(_compare_readers(results), "", f"{results[0].count} {results[0].config['data']['split']} images.")
    table = (
        audit.tabulate_verdicts(audit.audit_results(results)[part])
        if kind == "audit"
        else printing.make_tables(results)[part]
    )
    return Table(list(table), table.title, table.note)


def _compare_readers(results: list[Any]) -> Rows:
    """Return how often each evaluator reads clipped maps -g, and Sobel edges of the image in their place."""
    from interpret_robust.results import gradmap_tables
    from interpret_robust.results.names import label, list_places, shorten_name

    return [
        {
            "map of": label(result),
            "read by": shorten_name(result, reader),
            "gradient map": f"{100 * gradmap_tables.is_read(result, reader, 'clip').mean():.1f} %",
            "Sobel edges": f"{100 * result['controls/accuracy'][place, _find_edges(result), 0, 0, 0]:.1f} %",
        }
        for result in results
        for place, reader in enumerate(list_places(result, "evaluator"))
    ]


def _find_edges(result: Any) -> int:
    from interpret_robust.results.names import list_places

    return list_places(result, "control").index("sobel")


def _render_markdown(columns: list[str], body: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *body]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def rewrite() -> Iterator[tuple[Path, str, str]]:
    """Yield each page, its text, and its text with all blocks and quotes written anew."""
    old = {path: path.read_text(encoding="utf-8") for path in list_pages()}
    new = {path: fill_blocks(text, render_block) for path, text in old.items()}
    tables = read_tables(new)
    for path, text in new.items():
        yield path, old[path], fill_quotes(text, tables)


def main() -> None:
    """Write the pages, or say which would change."""
    parser = argparse.ArgumentParser(description="Write the tables and numbers of README and docs from their files.")
    parser.add_argument("--check", action="store_true", help="Write nothing; exit status 1 where a page would change.")
    check = parser.parse_args().check
    changes = [(path, new) for path, old, new in rewrite() if old != new]
    for path, new in changes:
        print(path.relative_to(ROOT))
        if not check:
            path.write_text(new, encoding="utf-8")
    sys.exit(bool(check and changes))


if __name__ == "__main__":
    main()
