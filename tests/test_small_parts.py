"""The small parts: messages, tables, numbers, files that appear whole, and datasets by name."""

import hashlib
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from interpret_robust.core.errors import UserError, take_first_line, unknown
from interpret_robust.core.files import hash_file, replace_file
from interpret_robust.core.parsing import format_duration, parse_duration, parse_number
from interpret_robust.datasets import catalogue
from interpret_robust.datasets.cluttered_digits import make_cluttered_digits
from interpret_robust.datasets.npz import shorten, write_npz
from interpret_robust.datasets.records import RECORDS
from interpret_robust.results.tables import render

# What a mistake is told.


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("at-at", "unknown variant 'at-at': did you mean 'at-att'? known are at, at-att, natural."),
        ("Natural", "unknown variant 'Natural': did you mean 'natural'? known are at, at-att, natural."),
        ("qqq", "unknown variant 'qqq': known are at, at-att, natural."),
        ("", "unknown variant '': known are at, at-att, natural."),
    ],
)
def test_an_unknown_name_is_told_the_nearest_and_all(name: str, sentence: str) -> None:
    assert str(unknown("variant", name, iter(["natural", "at", "at-att"]))) == sentence


# Tables.


def test_a_table_is_aligned_under_its_keys() -> None:
    rows = [{"model": "at", "natural": "93.5 %"}, {"model": "at-att-reg", "images": "1000"}, {}]
    assert render(rows) == "\n".join(
        [
            "model       natural  images",
            "----------  -------  ------",
            "at          93.5 %",
            "at-att-reg           1000",
            "",
        ]
    )


def test_columns_stand_in_the_order_in_which_they_first_appear() -> None:
    assert render([{"b": "1"}, {"a": "2", "b": "3"}]).splitlines() == ["b  a", "-  -", "1", "3  2"]


# Numbers as people write them.


@pytest.mark.parametrize(
    ("text", "value"),
    [("8/255", 8 / 255), ("0.03", 0.03), ("-1/4", -0.25), ("1e-3", 1e-3), (" 2 / 8 ", 0.25), ("0/5", 0.0)],
)
def test_numbers_may_be_fractions(text: str, value: float) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize("text", ["", "eight", "8/", "/255", "1/2/3", "8/0", "0/0", "1/-0.0", "8,5", "0x10"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"could not convert|divides by zero"):
        parse_number(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("90", 90.0), ("90s", 90.0), ("5m", 300.0), ("2h", 7200.0), ("1/2h", 1800.0), ("0.5m", 30.0), ("0", 0.0)],
)
def test_lengths_of_time_have_units(text: str, value: float) -> None:
    assert parse_duration(text) == value


@pytest.mark.parametrize("text", ["", "s", "5d", "5 hours", "-1s", "-2h", "nan", "1/0h", "2hm"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"could not convert|divides by zero|is negative"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (75, "1 min 15 s"),
        (3599.6, "1 h"),
        (7199, "2 h"),
        (11630.2, "3 h 14 min"),
        (200000, "55 h 33 min"),
    ],
)
def test_a_length_of_time_has_the_largest_two_of_its_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_an_endless_time_is_a_time() -> None:
    assert parse_duration("inf") == math.inf


# Files that appear whole or not at all.


@pytest.mark.parametrize("content", [None, b"old"])
def test_a_file_is_replaced_in_one_step(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "deep" / "x.bin"
    if content is not None:
        path.parent.mkdir()
        path.write_bytes(content)
    with replace_file(path) as partial:
        assert partial == path.with_name(f"x.bin.{os.getpid()}.partial")
        partial.write_bytes(b"new")
        assert (path.read_bytes() if path.exists() else None) == content
    assert path.read_bytes() == b"new"
    assert [file.name for file in path.parent.iterdir()] == ["x.bin"]


@pytest.mark.parametrize("content", [None, b"old"])
@pytest.mark.parametrize("failure", [ValueError("no"), KeyboardInterrupt(), SystemExit(1)])
def test_after_a_failure_a_file_is_as_it_was(tmp_path: Path, content: bytes | None, failure: BaseException) -> None:
    path = tmp_path / "x.bin"
    if content is not None:
        path.write_bytes(content)

    def write() -> None:
        with replace_file(path) as partial:
            partial.write_bytes(b"half")
            raise failure

    with pytest.raises(type(failure)):
        write()
    assert [file.read_bytes() for file in tmp_path.iterdir()] == ([] if content is None else [content])


def test_a_failure_to_put_in_place_leaves_no_partial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", fail)
    (tmp_path / "x.bin").write_bytes(b"old")
    with pytest.raises(PermissionError), replace_file(tmp_path / "x.bin") as partial:
        partial.write_bytes(b"new")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"x.bin": b"old"}


def test_what_an_earlier_kill_left_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / f"x.bin.{os.getpid()}.partial").write_bytes(b"far more than is written now")
    with replace_file(tmp_path / "x.bin") as partial:
        partial.write_bytes(b"new")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"new"]


REPLACE = """
import sys
from pathlib import Path
from interpret_robust.core.files import replace_file
with replace_file(Path(sys.argv[1])) as partial:
    partial.write_bytes(b"theirs")
"""


def test_two_processes_may_make_the_same_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    with replace_file(path) as partial:
        partial.write_bytes(b"ours, first half")
        subprocess.run([sys.executable, "-c", REPLACE, str(path)], check=True)
        assert path.read_bytes() == b"theirs"
        with partial.open("ab") as file:
            file.write(b" and second half")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {
        "x.bin": b"ours, first half and second half"
    }


GENERATE = """
import functools, sys, time
from pathlib import Path
from interpret_robust.datasets import catalogue, records
begun = Path(sys.argv[1])
make = records.make_cluttered_digits
def together(**settings):
    (begun / sys.argv[2]).touch()
    time.sleep(0.5)
    return make(40, 20, **settings)
records.make_cluttered_digits = together
found = catalogue.load("cluttered-digits")
print(found.train.sha256, len(found.test))
"""


@pytest.mark.long
def test_of_two_processes_one_generates_the_dataset_and_the_other_waits_for_it(fresh: Path, tmp_path: Path) -> None:
    (tmp_path / "begun").mkdir()
    command = [sys.executable, "-c", GENERATE, str(tmp_path / "begun")]
    processes = [subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in "ab"]
    lines = {process.communicate(timeout=60)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert lines == {f"{make_cluttered_digits(40, 20).train.sha256} 20\n"}
    assert len(list((tmp_path / "begun").iterdir())) == 1
    assert list(fresh.iterdir()) == [catalogue.find_file("cluttered-digits")]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def note(name: str) -> None:
        real: Callable[..., None] = getattr(os, name)

        def record(*arguments: object) -> None:
            calls.append(name)
            real(*arguments)

        monkeypatch.setattr(os, name, record)

    note("fsync")
    note("replace")
    with replace_file(tmp_path / "x.bin") as partial:
        partial.write_bytes(b"new")
    assert calls == ["fsync", "replace", "fsync"]


def test_the_checksum_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(range(256)) * 5000)
    assert hash_file(tmp_path / "x") == hashlib.sha256(bytes(range(256)) * 5000).hexdigest()


# Datasets by name.


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An own folder of datasets, with none in memory."""
    monkeypatch.setenv("IRT_DATA", str(tmp_path / "data"))
    catalogue._load.cache_clear()
    yield tmp_path / "data"
    catalogue._load.cache_clear()


def save(path: Path, classes: int = 3, *, masks: bool = False) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(classes)
    arrays: dict[str, np.ndarray] = {}
    for part, count in (("train", 4 * classes), ("test", 2 * classes)):
        arrays[f"x_{part}"] = rng.integers(0, 256, (count, 16, 20, 3), np.uint8)
        arrays[f"y_{part}"] = np.arange(count) % classes
        if masks:
            arrays[f"mask_{part}"] = rng.random((count, 16, 20)) < 0.5
    write_npz(path, arrays)
    return arrays


def test_the_folder_of_datasets_is_the_one_asked_for(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert catalogue.find_cache_folder() == fresh
    monkeypatch.delenv("IRT_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(fresh / "cache"))
    assert catalogue.find_cache_folder() == fresh / "cache" / "interpret-robust"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(fresh / "home"))
    assert catalogue.find_cache_folder() == fresh / "home" / ".cache" / "interpret-robust"


def test_each_name_stands_for_a_file(fresh: Path) -> None:
    paths = {name: catalogue.find_file(name) for name in RECORDS}
    assert len(set(paths.values())) == len(paths) == 7
    assert all(path.parent == fresh for path in paths.values())
    assert paths["cifar10"].name == "cifar10.npz"
    assert paths["cluttered-digits"].name.startswith("cluttered-digits-v")
    assert catalogue.find_file("some/where.npz") == Path("some/where.npz")


def test_an_unknown_dataset_is_told_what_there_is(fresh: Path) -> None:
    for ask in (catalogue.find_file, catalogue.load):
        with pytest.raises(UserError, match=r"unknown dataset 'cifar': did you mean 'cifar10'\?") as error:
            ask("cifar")
        assert all(name in str(error.value) for name in (*RECORDS, "the path of a folder, .npz, .csv"))
    assert not fresh.exists()


@pytest.mark.parametrize("masks", [True, False])
def test_a_path_is_a_dataset_with_numbered_classes(fresh: Path, tmp_path: Path, masks: bool) -> None:
    arrays = save(tmp_path / "mine.npz", masks=masks)
    dataset = catalogue.load(str(tmp_path / "mine.npz"))
    assert (dataset.name, dataset.image_shape) == ("mine", (3, 16, 20))
    assert dataset.class_names == ("class 0", "class 1", "class 2")
    for part, split in (("train", dataset.train), ("test", dataset.test)):
        np.testing.assert_array_equal(split.images, arrays[f"x_{part}"])
        np.testing.assert_array_equal(split.labels, arrays[f"y_{part}"])
        assert (split.images.dtype.name, split.labels.dtype.name) == ("uint8", "int64")
        assert (split.masks is None) is not masks
        if split.masks is not None:
            np.testing.assert_array_equal(split.masks, arrays[f"mask_{part}"])
    assert not fresh.exists()


def test_a_dataset_is_read_from_the_folder_asked_for(fresh: Path) -> None:
    path = catalogue.find_file("cluttered-digits")
    arrays = save(path, classes=10)
    content = path.read_bytes()
    dataset = catalogue.load("cluttered-digits")
    np.testing.assert_array_equal(dataset.test.images, arrays["x_test"])
    assert dataset.class_names[:3] == ("zero", "one", "two")
    assert path.read_bytes() == content
    assert catalogue.load("cluttered-digits") is dataset


def test_a_split_is_cut_and_known_by_its_bytes(fresh: Path, tmp_path: Path) -> None:
    arrays = save(tmp_path / "mine.npz", masks=True)
    dataset = catalogue.load(str(tmp_path / "mine.npz"))
    first = dataset.split("train").first(5)
    assert first.masks is not None
    np.testing.assert_array_equal(first.images, arrays["x_train"][:5])
    np.testing.assert_array_equal(first.masks, arrays["mask_train"][:5])
    assert len(dataset.train.first(None)) == len(dataset.train.first(999)) == 12
    assert dataset.train.first(12).sha256 == dataset.train.sha256 != first.sha256
    expected = hashlib.sha256(arrays["x_train"].tobytes() + arrays["y_train"].astype(np.int64).tobytes())
    assert dataset.train.sha256 == expected.hexdigest()
    with pytest.raises(UserError, match="has no split 'validation', but train and test"):
        dataset.split("validation")


def test_an_error_that_is_cut_has_no_open_quote() -> None:
    assert take_first_line(ValueError("no module 'a\nb'.")) == "no module 'a...'"
    assert take_first_line(ValueError('it isn\'t "here\nor there"')) == 'it isn\'t "here..."'
    assert take_first_line(ValueError("no module 'a'.\nmore")) == "no module 'a'"
    assert take_first_line(ValueError("rock 'n roll.")) == "rock 'n roll", "it is not cut"
    assert shorten("holds '" + "ab " * 200 + "'").endswith(" ab...'")
    assert shorten("holds 'a\n  b'") == "holds 'a b'"
