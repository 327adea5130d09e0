"""The numbers of README and docs: each is of a file, of a command that the page states, or a constant with a reason."""

import importlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from interpret_robust import figures
from interpret_robust.core.folders import Folders
from interpret_robust.figures import drawing, saving
from interpret_robust.models.checks.image_forms import GAMMA
from interpret_robust.models.checks.losses import LEAST_MEDIAN, LEAST_QUARTILE
from interpret_robust.models.checks.norms import LARGEST_DISTANCE

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
PAGES = sorted([REPOSITORY / "README.md", *DOCS.rglob("*.md")])

NUMBER = re.compile(r"(?<![\w.])\d+\.\d+(?![\d.]*\w)|(?<![\w.])\d+(?= ?%)|(?<![\w.])\d+(?= points)")
"""What a sentence measures: a decimal, a percentage, a number of points."""

COMMANDS = {
    "agreement.md": "python benchmarks/agreement.py",
    "flags.md": "irt analyze masking",
    "plans.md": "python benchmarks/audit_plan.py",
    "recipes.md": "https://github.com/MadryLab/cifar10_challenge",
    "scale.md": "benchmarks/ranks.py",
    "schemas.md": "Written by `python -m",
    "speed.md": "python benchmarks/speed.py",
}
"""Pages that say themselves which command, or which publication, all their numbers are of."""

CONSTANTS = {
    "1810.02424": "the paper on arXiv",
    "95": "the level of all confidence intervals",
    "5": "the level of tests",
    "0.05": "the level of tests",
    "0.3": "the paper's eps on MNIST",
    "0.01": "the paper's step on MNIST",
    "3.11": "the oldest Python that is supported",
    "4.1": "a section of the paper",
    "4.2": "a section of the paper",
    "4.3": "a section of the paper",
    "4.4": "a section of the paper",
}
SIMULATION = {"2": "", "8": "", "13": ""}
"""Percent of simulated studies in which a true zero is told from zero: `test_statistics.py` simulates them."""

OF_PAGES = {
    "results.md": {"38": "the goal that was set for `narrow` before it was trained", "13": SIMULATION["13"]},
    "choices.md": SIMULATION
    | dict.fromkeys(("24", "11", "7", "14", "26", "0.7", "1.5"), "of few images and smooth maps: simulated there too"),
    "traps.md": SIMULATION
    | dict.fromkeys(("0.67", "0.72", "0.61"), "an untrained transformer, of which the page says how"),
    "trial.md": {str(LEAST_MEDIAN): "constants of the check of the loss", str(LEAST_QUARTILE): ""}
    | {
        str(LARGEST_DISTANCE): "the constant of the check of batch norms",
        "0.2": "docs/choices/norm_check.json, rounded up",
    }
    | {str(GAMMA): "the constant of linear light"}
    | {"0.25": "the step of the check of steps", "40": "its bound", "89": "docs/choices/step_check.json, rounded down"}
    | {"6": "docs/choices/step_check.json, rounded up"},
}


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    return importlib.import_module("pages")


def sentences(pages: Any, text: str) -> str:
    """A page without code, blocks, quoted numbers, comments and addresses."""
    patterns = (r"^```.*?^```$", pages.BLOCK.pattern, pages.QUOTE.pattern, r"<!--.*?-->", r"`[^`\n]*`", r"\]\([^)]*\)")
    for pattern in patterns:
        text = re.sub(pattern, "", text, flags=re.MULTILINE | re.DOTALL)
    return text


def find_untraced(pages: Any, path: Path) -> Iterator[str]:
    """The numbers of a page's sentences that nothing gives."""
    text = path.read_text(encoding="utf-8")
    code_numbers = set(NUMBER.findall("\n".join(re.findall(r"^```.*?^```$", text, re.MULTILINE | re.DOTALL))))
    sources = code_numbers | CONSTANTS.keys() | OF_PAGES.get(path.name, {}).keys()
    return (number for number in NUMBER.findall(sentences(pages, text)) if number not in sources)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_number_of_a_sentence_is_of_a_file_a_stated_command_or_a_constant(pages: Any, path: Path) -> None:
    if path.name in COMMANDS:
        assert COMMANDS[path.name] in path.read_text(encoding="utf-8")
    else:
        assert list(find_untraced(pages, path)) == []


def test_a_number_that_nothing_gives_is_seen(pages: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "In 95 % of 12.5 % `13.5`, <!-- t: a / b -->3.25<!-- / -->, 7 points, 17.5.\n\n```\n17.5\n```\n",
        encoding="utf-8",
    )
    assert list(find_untraced(pages, page)) == ["12.5", "7"]


@pytest.fixture
def texts() -> dict[Path, str]:
    return {path: path.read_text(encoding="utf-8") for path in PAGES}


def test_quoted_numbers_are_those_of_their_tables(pages: Any, texts: dict[Path, str]) -> None:
    tables = pages.read_tables(texts)
    assert {path for path, text in texts.items() if pages.fill_quotes(text, tables) != text} == set()
    assert sum(len(pages.QUOTE.findall(text)) for text in texts.values()) >= 30


def test_no_line_begins_with_a_comment_inside_a_sentence(pages: Any, texts: dict[Path, str]) -> None:
    """Markdown would end the paragraph there."""
    assert [line for text in texts.values() for line in text.splitlines() if pages.QUOTE.match(line.lstrip())] == []


@pytest.mark.long
def test_every_block_is_what_its_files_give(pages: Any, texts: dict[Path, str]) -> None:
    assert {path for path, old, new in pages.rewrite() if old != new} == set()


def test_a_quote_takes_the_number_of_its_row_column_and_place(pages: Any) -> None:
    rows = pages.parse_rows(
        "| model | a | b, paper |\n|---|---|---|\n| x-one | 1.5 [-0.5, 2] | 9 |\n| x-two | +7 | p \\| 1 |"
    )
    assert rows[1] == {"model": "x-two", "a": "+7", "b, paper": "p | 1"}
    assert pages.find_number(rows, "one", "a", 2) == "-0.5"
    assert pages.find_number(rows, "two", "a", absolute=True) == "7"
    text = "<!-- t: two / a -->0<!-- / -->; <!-- t: one / b, paper -->0<!-- / -->; <!-- t: two / a abs -->0<!-- / -->"
    assert re.findall(r">([-+\d.]+)<", pages.fill_quotes(text, {"t": rows})) == ["+7", "9", "7"]
    for row, column in (("x", "a"), ("three", "a"), ("one", "c")):
        with pytest.raises(ValueError, match=r"rows for|no number"):
            pages.find_number(rows, row, column)


@pytest.mark.parametrize("path", sorted((DOCS / "results").glob("*.json")), ids=lambda path: path.name)
def test_stored_tables_say_what_made_them(path: Path) -> None:
    table = json.loads(path.read_text(encoding="utf-8"))
    assert table["command"].startswith("irt ") and re.fullmatch(r"[0-9a-f]{7,40}", table["commit"])
    assert table["images"] > 0 and table["seeds"] and table["written"] and table["tables"]


def test_pictures_of_the_shipped_study_are_those_of_its_folder() -> None:
    copies = {path.read_bytes() for path in (REPOSITORY / "figures").glob("*.png")}
    pictures = sorted((DOCS / "images").glob("cifar10-*.png"))
    assert len(pictures) >= 8
    assert [path.name for path in pictures if path.read_bytes() not in copies] == []


def test_shipped_pictures_are_drawn_from_the_shipped_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So that `irt report` and `irt reproduce` change nothing in a fresh clone. What a user has added is left out."""
    command = ["git", "ls-files", "analyses", "figures"]
    listing = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("git does not say what is shipped")
    for name in listing.stdout.splitlines():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(REPOSITORY / name)
    names: list[str] = []
    monkeypatch.setattr(drawing, "compose", lambda *_: None)
    monkeypatch.setattr(saving, "save", lambda _, __, name, *___, **____: names.append(name))
    pictures = drawing.draw_folder(figures.list_names(), Folders(tmp_path), lambda _: None)
    assert names == [] and len(pictures) > 25
