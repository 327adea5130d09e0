"""Every public name has an example, and what it says is what happens."""

import doctest
import inspect
import pkgutil
import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
import pytest
import torch

import interpret_robust as ir
from interpret_robust import cli

ROOT = Path(__file__).parent.parent


def public() -> dict[str, Any]:
    """What `ir` gives and what the reference lists, by name; a module that is called stands for its call."""
    things = {name: getattr(ir, name) for name in ir.__all__ if name != "__version__"}
    page = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    for path in re.findall(r"^::: (\S+)$", page, re.MULTILINE):
        module, _, name = path.rpartition(".")
        things[name] = getattr(import_module(module), name)
    return {name: type(thing).__call__ if isinstance(thing, ModuleType) else thing for name, thing in things.items()}


PUBLIC = public()


def test_the_public_names_are_those_of_the_package_and_the_reference() -> None:
    assert {"Card", "ask"} == PUBLIC.keys() - {*ir.__all__}
    assert len(PUBLIC) == len(ir.__all__) - 1 + 2


def test_the_reference_has_every_command_in_its_table_and_no_other() -> None:
    page = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    table = page.partition("| command | what it does |")[2].partition("\n\n")[0]
    cells = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| `irt ")]
    documented_commands = {words for cell in cells for words in re.findall(r"`irt ([a-z-]+(?: [a-z-]+)?)", cell)}
    context = click.Context(cli.irt)
    entries = {name: cli.irt.get_command(context, name) for name in cli.irt.list_commands(context)}
    groups = {name: command for name, command in entries.items() if isinstance(command, click.Group)}
    parents = {"analyze"}  # its commands are the questions
    commands = entries.keys() - groups.keys() | parents
    commands |= {f"{name} {part}" for name, group in groups.items() if name not in parents for part in group.commands}
    assert {words.removesuffix(" all") for words in documented_commands} == commands


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_has_an_example_that_works(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = inspect.getdoc(PUBLIC[name]) or ""
    assert re.search(r"^Example:\n    >>> ", text, re.MULTILINE), f"{name} has no example"
    monkeypatch.chdir(ROOT)
    names = {"ir": ir, "np": np, "torch": torch, "dataclass": dataclass, name: PUBLIC[name]}
    example = doctest.DocTestParser().get_doctest(text, names, name, None, None)
    report: list[str] = []
    with torch.random.fork_rng():
        failures = doctest.DocTestRunner(verbose=False).run(example, out=report.append).failed
    assert not failures, "".join(report)


CALLED_BY_READERS = {"model", "network", "build", "finish", "read"}
"""Things of the reader's that examples call."""


class Runner(doctest.DocTestRunner):
    """Takes an example that needs a model or a file of the reader's as an illustration, but no unknown function."""

    def report_unexpected_exception(self, out: Any, test: Any, example: Any, exc_info: Any) -> None:
        error = exc_info[1]
        is_called = isinstance(error, NameError) and re.search(rf"(?<![\w.]){error.name}\(", example.source)
        is_illustration = error.name in CALLED_BY_READERS if is_called else True
        if not (isinstance(error, (NameError, FileNotFoundError, ir.UserError)) and is_illustration):
            super().report_unexpected_exception(out, test, example, exc_info)


def test_examples_of_all_other_functions_say_what_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    report: list[str] = []
    count = 0
    with torch.random.fork_rng():
        for module in pkgutil.walk_packages(ir.__path__, "interpret_robust."):
            if module.name.endswith("__main__"):
                continue
            names = {"ir": ir, "np": np, "torch": torch, "Path": Path}
            finder = doctest.DocTestFinder(exclude_empty=True)
            for example in finder.find(import_module(module.name), extraglobs=names):
                count += bool(example.examples)
                Runner(verbose=False).run(example, out=report.append)
    assert not report, "".join(report)
    assert count > 80
