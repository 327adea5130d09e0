"""The numbers that README and docs state come from files, or from commands that stand beside them."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pages", ROOT / "benchmarks" / "pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NAMES = ("table2", "section4.3", "figure2", "table4-test", "table4-train", "substitutes-test", "substitutes-train")


@pytest.mark.parametrize("names", [(*NAMES, "evaluators-test"), ("audit",)], ids=["tables", "audit"])
def test_each_block_of_the_study_is_what_its_files_give(pages: ModuleType, names: tuple[str, ...]) -> None:
    text = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
    blocks = [match[2] for match in pages.BLOCK.finditer(text)]
    assert sorted(blocks) == sorted(pages.TABLES) and set(names) <= set(blocks)
    assert pages.fill(text, names) == text, "run python benchmarks/pages.py"


NUMBER = re.compile(r"(?<![\w./-])[-+]?\d+\.\d+(?![\w.])")
"""A number with decimals: counts, settings and versions are of other kinds."""

CONSTANTS = {
    "README.md": {
        "3.11": "the oldest Python",
        "0.024": "McNemar's p of the MNIST table, seed 0, printed by `irt reproduce table1 --seeds 2`",
        "0.0003": "the same, seed 1",
        **dict.fromkeys(("43.2", "41.5", "41.3", "45.2", "46.4", "50.6"), "docs/study.md, evaluators-test"),
        **dict.fromkeys(("0.55", "0.62"), "docs/study.md, figure2"),
        **dict.fromkeys(("0.35", "0.75", "84.8", "86.7", "26.4"), "printed by `irt reproduce audit`"),
        "10.4": "printed by `irt reproduce table1 --seeds 2`",
    },
    "docs/study.md": {
        "26.78": "the paper, Table 4",
        "27.10": "the paper, Table 4",
        "30.32": "the paper, Table 4",
        "30.11": "the paper, Table 4",
        "28.72": "the paper, Table 4",
        "28.60": "the paper, Table 4",
        "31.59": "the paper, Table 4",
        "31.46": "the paper, Table 4",
    },
}
"""Numbers of prose that stand in no table of their page, and what they are."""


def prose_numbers(text: str) -> Iterator[str]:
    """The numbers with decimals of a page outside its tables, code blocks and links."""
    text = re.sub(r"```.*?```", "", text, flags=re.S)
    text = re.sub(r"`[^`]*`|\]\([^)]*\)", "", text)
    lines = (line for line in text.split("\n") if not line.startswith("|"))
    for match in NUMBER.finditer("\n".join(lines)):
        yield match[0].lstrip("+-")


def differences(row: str) -> set[str]:
    """What any two numbers of a row of a table differ by, as prose states gains."""
    numbers = [float(number) for number in re.findall(r"\d+\.\d+", row)]
    return {f"{abs(first - second):.{digits}f}" for first in numbers for second in numbers for digits in (1, 2)}


@pytest.mark.parametrize("page", sorted(CONSTANTS))
def test_no_number_of_the_prose_is_without_a_source(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    rows = [line for line in text.split("\n") if line.startswith("|")]
    stated = set(re.findall(r"\d+\.\d+", "\n".join(rows)))
    known = stated | set.union(*map(differences, rows)) | CONSTANTS[page].keys()
    assert [number for number in prose_numbers(text) if number not in known] == []
