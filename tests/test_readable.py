"""A file that may not be read is said to be just that; a plan fetches nothing."""

import builtins
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from interpret_robust.cli import irt, study
from interpret_robust.core.errors import UserError
from interpret_robust.core.files import list_files
from interpret_robust.datasets import sources
from interpret_robust.datasets.npz import load_arrays
from interpret_robust.models import checkpoint
from interpret_robust.models.card import Card
from interpret_robust.models.weights import content as file_content
from interpret_robust.results import hdf5

READERS: dict[str, Callable[[Path], Any]] = {
    "a.h5": hdf5.read,
    "a.safetensors": checkpoint.read,
    "a.npz": load_arrays,
    "a.json": Card.read,
    "a.pt": file_content.read_content,
}


@pytest.mark.parametrize("name", READERS)
def test_permissions_are_not_damage(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, plain = tmp_path / name, builtins.open
    path.write_bytes(b"anything")

    def refuse(file: Any, *arguments: Any, **options: Any) -> Any:
        if Path(str(file)) == path:
            raise PermissionError(13, "Permission denied", str(file))
        return plain(file, *arguments, **options)

    monkeypatch.setattr(builtins, "open", refuse)
    with pytest.raises(UserError, match=rf"{name} may not be read: its permissions do not allow it\.$"):
        READERS[name](path)


@pytest.mark.parametrize("command", ["report", "flags", "audit", "figure robustness", "analyze robustness"])
def test_a_folder_that_may_not_be_read_is_not_empty(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "checkpoints" if command.startswith("analyze") else "analyses"
    folder, plain = tmp_path / name, os.scandir
    folder.mkdir()

    def refuse(path: Any = ".") -> Any:
        if Path(str(path)) == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return plain(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=rf"{name} may not be read: its permissions do not allow it\.$"):
        irt.main([*command.split(), "--root", str(tmp_path)], standalone_mode=False)


def test_files_of_a_folder_are_those_that_match_by_name(tmp_path: Path) -> None:
    for name in ("b-2.h5", "a-1.h5", "b-1.h5", "b-1.txt"):
        (tmp_path / name).touch()
    assert list_files(tmp_path, "b-*.h5") == [tmp_path / "b-1.h5", tmp_path / "b-2.h5"]
    assert list_files(tmp_path / "none", "*") == []


def test_a_plan_counts_what_is_there_and_what_more_models_are_to_read() -> None:
    assert study._count_present(["yes", "no", "anew", "yes", "damaged"], "answer") == (
        "2 of 5 answers (1 more to be made anew)"
    )
    assert study._count_present(["no"], "model") == "0 of 1 model"


def test_a_plan_fetches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IRT_DATA", str(tmp_path / "empty"))
    monkeypatch.setattr(sources, "fetch", lambda *_: pytest.fail("fetched"))
    with pytest.raises(UserError, match="`irt data get cifar100-sorted` fetches them"):
        irt.main(["plan", "table5", "--root", str(tmp_path)], standalone_mode=False)
