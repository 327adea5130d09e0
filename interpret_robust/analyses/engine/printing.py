"""Tables: of anything, in several forms, and the headline numbers of analyses, for a terminal or a page."""

from collections.abc import Callable, Sequence
from pathlib import Path

from interpret_robust import analyses
from interpret_robust.results import attack_tables, hdf5, names, remarks
from interpret_robust.results.tables import Table, add_captions, render

NUMBERS: dict[str, Callable[[Sequence[hdf5.Result]], list[dict[str, str]]]] = {"robustness": attack_tables.list_numbers}
"""Analyses whose CSV is not what is printed but one table of its numbers."""


def render_answers(files: Sequence[Path], views: Sequence[str] = (), form: str = "text") -> str:
    """Return the headline numbers of an analysis's files, a row a model in the paper's order, then comparisons."""
    results = [hdf5.read(path) for path in files]
    numbers = NUMBERS.get(results[0].analysis)
    if form == "csv" and numbers:
        return render(numbers(sorted(results, key=names.order)), form)
    return add_captions(make_tables(results, views), form)


def _prefix(results: Sequence[hdf5.Result]) -> str:
    """Return dataset and architecture as all names of several models begin with them, or nothing."""
    prefixes = {f"{result.job['dataset']}-{result.job['architecture']}-" for result in results}
    prefix = prefixes.pop()
    is_shared = not prefixes and len(results) > 1 and all(result.model_name.startswith(prefix) for result in results)
    return prefix if is_shared else ""


def _maps(result: hdf5.Result) -> dict[str, str]:
    """Return a column that says what maps are where they are no gradients."""
    source = names.find_maps(result)
    return {} if source == names.GRADIENT else {"maps": source}


def make_tables(results: Sequence[hdf5.Result], views: Sequence[str] = ()) -> list[Table]:
    """Return the rows of these tables, by column.

    Under a table stands the attack that its numbers rest on; where models were attacked in several ways, a column. So
    there is one of weights of positions where one model has answers of several kinds.
    """
    in_paper_order = sorted(names.tell_apart(results), key=names.order)
    analysis = analyses.get(in_paper_order[0].analysis)
    attacks = list(dict.fromkeys(map(names.attack, in_paper_order)))
    is_mixed = len({(item.model_id, names.find_weights(item)) for item in results}) > len(
        {item.model_id for item in results}
    )
    rows = [
        {
            "model": result.model_name,
            **({"weights": names.find_weights(result)} if is_mixed else {}),
            **_maps(result),
            **({"attack": names.attack(result)} if len(attacks) > 1 else {}),
            **analysis.table_row(result, *views),
        }
        for result in in_paper_order
    ]
    attack = f"Attack: {attacks[0]}." if len(attacks) == 1 and attacks[0] else ""
    sentences = [
        remarks.describe_doubts(in_paper_order),
        attack,
        remarks.describe_stand_ins(in_paper_order),
        remarks.describe_remarks(in_paper_order),
    ]
    note = " ".join(filter(None, sentences))
    prefix, tables = _prefix(results), analysis.compare(in_paper_order, *views) if analysis.compare else []
    return [
        Table(rows, note=note, prefix=prefix),
        *(
            table
            if isinstance(table, Table)
            else Table(table, note=attack, prefix=prefix if "model" in table[0] else "")
            for table in tables
        ),
    ]
