"""What commands print fits a terminal of 80 columns, and no file or number of it is lost."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from make_golden import FOLDER as GOLDEN
from make_golden import file_of

from interpret_robust import cli
from interpret_robust.analyses import robustness
from interpret_robust.core.errors import UserError
from interpret_robust.core.file_names import find_shared_prefix
from interpret_robust.datasets import npz
from interpret_robust.study import plan as study
from interpret_robust.study.reproduction import plan
from interpret_robust.training.recipe import PRESETS, Recipe, list_meanings
from interpret_robust.training.recipe_file import find_recipe

Make = Callable[..., Path]


@pytest.fixture
def print_lines(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Run a command in a terminal of 80 columns, and return its lines."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*words: object) -> list[str]:
        outcome = CliRunner().invoke(cli.irt, [*map(str, words)], standalone_mode=False)
        assert outcome.exception is None, outcome.exception
        lines = outcome.stdout.splitlines()
        assert max(map(len, lines)) <= 80
        return lines

    return run


@pytest.mark.parametrize("name", ["quick", "audit"])
def test_a_plan_fits_and_its_lines_give_every_file(
    name: str, print_lines: Callable[..., list[str]], tmp_path: Path
) -> None:
    steps = plan(study.find_study(name))
    (tmp_path / steps[1].file).parent.mkdir()
    (tmp_path / steps[1].file).touch()
    rows: list[tuple[str, ...]] = []
    files: dict[str, list[str]] = {}
    lines = print_lines("plan", name, "--root", tmp_path)
    models = sum(not step.needs for step in steps)
    assert lines[-1] == f"0 of {models} models and 0 of {len(steps) - models} answers are here."
    for line in lines:
        if line.startswith("Full names of files begin with "):
            prefix = line.removeprefix("Full names of files begin with ")
            files |= {prefix + file: rest for file, *rest in rows}
            rows = []
        elif match := re.fullmatch(r"(\S+\.(?:h5|safetensors)) +(damaged|no)(?: +(\d+) models?)?", line):
            rows.append(match.groups())
    assert list(files) == [str(step.file) for step in steps] and not rows
    assert [place for place, (is_here, _) in enumerate(files.values()) if is_here == "damaged"] == [1]
    assert [int(needs or 0) for _, needs in files.values()] == [len(step.needs) for step in steps]


def test_the_list_of_checkpoints_fits_and_says_once_what_all_names_begin_with(
    print_lines: Callable[..., list[str]], make_checkpoint: Make, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for variant, seed in (("natural", 1), ("at", 0)):
        make_checkpoint(folder, variant, seed)
    lines = print_lines("checkpoints", "list", "--root", tmp_path)
    assert lines[-1] == "Full names of checkpoints begin with cluttered-digits-small-"
    assert [line.split()[0] for line in lines[2:4]] == ["at-seed0", "natural-seed1"]
    assert all(re.search(r" test +60 images +\d\.\d$", line) for line in lines[2:4])


def test_what_a_file_holds_fits_whatever_the_path(print_lines: Callable[..., list[str]], tmp_path: Path) -> None:
    folder = tmp_path / ("a-very-long-name" * 10)
    folder.mkdir()
    file = folder / "robustness-cluttered-digits-small-natural-linear-att-seed0-test-pgd20-cwnone-first1000.h5"
    shutil.copyfile(file_of(robustness.SCHEMA), file)
    lines = print_lines("show", file)
    head = lines[: lines.index("")]
    assert "".join(line.strip() for line in head).replace(" ", "").startswith(f"{file}:robustness/2,8images")


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.h5")), ids=lambda path: path.stem)
def test_what_is_said_of_every_kind_of_answer_fits(print_lines: Callable[..., list[str]], file: Path) -> None:
    print_lines("show", file)


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (["cifar10-small-at-seed0", "cifar10-small-at-att-seed0"], "cifar10-small-at-"),
        (["cifar10-small-at", "cifar100-small-at"], ""),
        (["cifar10-small-at"], ""),
        ([], ""),
    ],
)
def test_a_shared_prefix_ends_where_a_part_of_a_name_does(names: list[str], prefix: str) -> None:
    assert find_shared_prefix(names) == prefix


def test_the_fields_of_all_recipes_are_listed_with_values_that_set_takes(print_lines: Callable[..., list[str]]) -> None:
    text = "\n".join(print_lines("recipes"))
    outcome = CliRunner().invoke(cli.irt, ["recipes", "--form", "json"])
    rows = {row.pop("field"): row for row in json.loads(outcome.stdout)}
    assert list(rows) == [entry.name for entry in fields(Recipe) if entry.name != "name"]
    for name, recipe in PRESETS.items():
        for field, row in rows.items():
            value = getattr(recipe, field)
            assert row[name] == (str(value).lower() if value is None or isinstance(value, bool) else value)
            if value is not None:
                assert getattr(find_recipe("quick", "mine", (f"{field}={row[name]}",)), field) == value
    assert all(field in text for field in rows) and "5/255" in text
    assert rows["flip"]["meaning"] == list_meanings()["flip"] and all(row["meaning"] for row in rows.values())


@pytest.mark.parametrize("command", ["train", "data", "recipes"])
def test_help_says_where_fields_are_listed(command: str, print_lines: Callable[..., list[str]]) -> None:
    text = " ".join(" ".join(print_lines(command, "--help")).split())
    if command == "data":
        assert all(name in text for name in (*npz.ALL_NAMES, *npz.OPTIONAL))
    elif command == "train":
        assert "`irt recipes` lists all fields" in text and "`irt data --help` says what an .npz has to hold" in text


def commands(command: click.Command, *words: str) -> Iterator[tuple[str, ...]]:
    """Every command and every group, as it is typed."""
    yield words
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from commands(inner, *words, name)


@pytest.mark.parametrize("words", [*commands(cli.irt)], ids=" ".join)
def test_the_help_of_every_command_fits(words: tuple[str, ...], print_lines: Callable[..., list[str]]) -> None:
    lines = print_lines(*words, "--help")
    assert lines[0].startswith(" ".join(["Usage: irt", *words]))
    assert not any(line.endswith("...") for line in lines[1:]), "a sentence is cut off"
    command: Any = cli.irt
    for name in words:
        command = command.get_command(click.Context(command), name)
    assert any(line.strip() == "Examples:" for line in lines) or isinstance(command, click.Group)


def test_a_recipe_by_its_name_is_shown_alone(print_lines: Callable[..., list[str]]) -> None:
    lines = print_lines("recipes", "paper")
    assert lines[0].split() == ["field", "paper", "meaning"]
    assert any(re.match(r"epochs +205 +passes over the training images", line) for line in lines)
    with pytest.raises(UserError, match="unknown recipe 'papr': did you mean 'paper'"):
        CliRunner().invoke(cli.irt, ["recipes", "papr"], catch_exceptions=False)
