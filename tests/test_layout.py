"""The shape of the house: few rooms, imports one way, no circles."""

import ast
import importlib
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

import interpret_robust

PACKAGE = Path(interpret_robust.__file__).parent

MAY_IMPORT = {
    "core": set(),
    "datasets": {"core"},
    "models": {"core", "datasets"},
    "results": {"core", "models"},
    "attacks": {"core", "datasets", "models", "results"},
    "attribution": {"core", "datasets", "models", "attacks"},
    "training": {"core", "datasets", "models", "attacks"},
    "figures": {"core", "datasets", "results"},
    "analyses": {"core", "datasets", "models", "results", "attacks", "attribution"},
    "study": {"core", "datasets", "models", "results", "attacks", "attribution", "training", "figures", "analyses"},
}
"""Which rooms each room may import from. `api` and `cli` stand above all of them and may import any."""
TOP = {"api", "cli"}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name below it; a package has the name of its folder."""
    names = {path: path.relative_to(PACKAGE).with_suffix("").parts for path in PACKAGE.rglob("*.py")}
    return {".".join(parts[:-1] if parts[-1] == "__init__" else parts): path for path, parts in names.items()}


def imports(path: Path, paths: dict[str, Path]) -> Iterator[str]:
    """The modules of the package that a file imports, also inside functions, but for types alone."""
    tree = ast.parse(path.read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or id(node) in for_types or node.module is None:
            continue
        top, _, rest = node.module.partition(".")
        if top == PACKAGE.name:
            for alias in node.names:
                whole = f"{rest}.{alias.name}".lstrip(".")
                yield whole if whole in paths else rest


def test_at_most_twelve_entries_and_each_is_listed() -> None:
    notes = ("py.typed", "commit")  # the second of an installed package, see hatch_build.py
    entries = {path.stem for path in PACKAGE.iterdir() if not path.name.startswith("__") and path.name not in notes}
    assert entries == MAY_IMPORT.keys() | TOP
    assert len(entries) <= 12


def test_imports_run_one_way_between_rooms() -> None:
    paths = modules()
    wrong = [
        f"{name} imports {target}"
        for name, path in paths.items()
        for target in imports(path, paths)
        if (room := name.partition(".")[0]) in MAY_IMPORT
        and (other := target.partition(".")[0]) != room
        and other not in MAY_IMPORT[room]
    ]
    assert wrong == []


def test_no_module_imports_itself_through_others() -> None:
    paths = modules()
    graph = {
        name: {target for target in imports(path, paths) if target != name} for name, path in paths.items() if name
    }
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError where there is a circle
    assert set(graph) <= set(order)


BENCHMARKS = sorted((Path(interpret_robust.__file__).parents[1] / "benchmarks").glob("*.py"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of libraries to compare with
@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_a_benchmark_can_be_imported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test runs them all, and each names parts of the package; libraries to compare with may be missing."""
    monkeypatch.syspath_prepend(str(path.parent))
    try:
        module = importlib.import_module(path.stem)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("interpret_robust"):
            raise
        pytest.skip(f"{error.name} is not installed")
    assert module.__doc__


def test_modules_and_their_parts_that_docstrings_name_exist() -> None:
    """Such as `names.label`: what is named by its module, from whichever folder on."""
    places = {path.relative_to(PACKAGE).with_suffix("").parts for path in PACKAGE.rglob("*.py")}
    modules = {parts[:-1] if parts[-1] == "__init__" else parts for parts in places} - {()}
    strangers = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for name in re.findall(r"`([a-z_]+(?:\.[A-Za-z_]+)+)`", path.read_text(encoding="utf-8")):
            parts = tuple(name.split("."))
            matches = [
                (module, parts[count:])
                for count in range(1, len(parts) + 1)
                for module in modules
                if module[-count:] == parts[:count] != ("model",)  # which is a model in most sentences
            ]
            if matches and not any(has_part(module, rest) for module, rest in matches):
                strangers.append(f"{path.name}: {name}")
    assert strangers == []


def has_part(module: tuple[str, ...], names: tuple[str, ...]) -> bool:
    value: Any = importlib.import_module(".".join(["interpret_robust", *module]))
    for name in names:
        if not hasattr(value, name):
            return False
        value = getattr(value, name)
    return True
