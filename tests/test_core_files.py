"""Files that appear whole or not at all, and what kills leave of them."""

from pathlib import Path

import pytest

from interpret_robust.core.errors import UserError
from interpret_robust.core.files import check_present, remove_leftovers, stamp


def test_what_a_kill_left_of_a_file_goes_and_nothing_else(tmp_path: Path) -> None:
    names = ["a.png.12.partial", "a.pdf.7.partial", "a.png", "a.b.png.12.partial", "a.png.x.partial", "a.h5.partial"]
    for name in names:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path / "a.png", tmp_path / "a.pdf", tmp_path / "missing" / "a.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[2:])


def test_brackets_in_a_name_are_no_pattern(tmp_path: Path) -> None:
    for name in ("[a].png.12.partial", "a.png.12.partial"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path / "[a].png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png.12.partial"]


def test_a_stamp_of_no_file_is_not_that_of_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert stamp("") is stamp(None) is stamp(Path("missing")) is None
    (tmp_path / "there").write_text("a")
    first = stamp("there")
    (tmp_path / "there").write_text("ab")
    assert first is not None and stamp(Path("there")) != first


def test_a_file_that_is_not_there_is_told_with_the_nearest_name_of_its_folder(tmp_path: Path) -> None:
    for name in ("cifar10-small-at-seed0.safetensors", "cifar10-small-at-seed0.h5", "other.safetensors"):
        (tmp_path / name).touch()
    with pytest.raises(UserError) as error:
        check_present(tmp_path / "cifar10-small-at-sed0.safetensors", "checkpoint", "`irt train` makes them")
    nearest = tmp_path / "cifar10-small-at-seed0.safetensors"
    assert str(error.value).endswith(f"-sed0.safetensors: did you mean {nearest}? `irt train` makes them.")
    with pytest.raises(UserError, match=r"mine\.safetensors: `irt train` makes them\.$"):
        check_present(tmp_path / "mine.safetensors", "checkpoint", "`irt train` makes them")
