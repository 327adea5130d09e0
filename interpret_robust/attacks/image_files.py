"""Read the arrays of a file of adversarial images, as people and libraries save them: HDF5, .npy, .npz, .pth or .pt.

AutoAttack saves a dict with the tensor `adv_complete`, or one of a tensor for each of its attacks; torchattacks a dict
of `adv_inputs`, `labels` and perhaps `clean_inputs`. Nothing is unpickled: torch reads tensors with `weights_only`.
"""

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from interpret_robust.core.errors import UserError, reason_in_brackets
from interpret_robust.core.files import check_readable
from interpret_robust.core.plugins import quote_error
from interpret_robust.datasets.npz import UNREADABLE
from interpret_robust.models.weights.content import check_archive, read_tensors
from interpret_robust.results.hdf5 import FORMAT

Arrays = Mapping[str, Any]
"""Arrays by name, those in a group as `group/name`; a file that holds one array alone has it as ``."""

CLEAN_NAMES = ("clean_inputs", "clean_images", "x_clean", "clean", "x_test", "x", "images")
LABEL_NAMES = ("labels", "label", "y_test", "y", "targets")
"""What clean images and true classes beside the adversarial images are called."""


@contextmanager
def open_arrays(path: Path) -> Iterator[Arrays]:
    """Yield the arrays of a file; those of HDF5 and .npy are read when they are sliced.

    Raises UserError where the file is missing, damaged or of another kind, and where it would have to be unpickled.
    """
    if path.is_dir():
        raise UserError(
            f"{path} is a folder: stack its pictures in the order of the split, as uint8 (N, H, W, C), with numpy.save."
        )
    if not path.is_file():
        raise UserError(f"there is no file {path}: give HDF5, .npy, .npz, .pth or .pt.")
    check_readable(path)
    if not h5py.is_hdf5(path):
        read = {".npz": _npz, ".pth": _tensors, ".pt": _tensors}.get(path.suffix, _npy)
        yield read(path)
        return
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"{path} is damaged ({reason_in_brackets(error)}): save it anew, or copy it again.") from None
    with file:
        yield _datasets(file)


def name_image(path: Path, arrays: Arrays, key: str | None) -> str:
    """Return the name of the array of images: the one that `key` names, or the only one of four axes, else of three.

    Of several, the only one that has `adv` in its name. Raises UserError where that leaves none or more than one.
    """
    if key and list(arrays) == [""]:
        raise UserError(f"{path} is no HDF5 file: --key {key} is for datasets of HDF5 and arrays of .npz and .pth.")
    if not key and _is_own(arrays):
        raise UserError(
            f"{path} is an answer of `irt analyze`, and `irt verify` checks adversarial images: `irt validate {path}` "
            "checks an answer; if it holds images that you mean, name them with --key."
        )
    by_axes = {axes: [name for name, array in arrays.items() if array.ndim == axes] for axes in (3, 4)}
    names = by_axes[4] or by_axes[3]
    adversarial_names = [name for name in names if "adv" in name.lower()]
    choices = [key.strip("/")] if key else adversarial_names if len(adversarial_names) == 1 else names
    if len(choices) > 1:
        are_numbered = all(name.rpartition("/")[2].isdigit() for name in choices)
        remedy = ", or join them if they are batches of one split" if are_numbered else ""
        raise UserError(
            f"{path} holds several arrays that might be the images: name one with --key {' or '.join(names)}{remedy}."
        )
    if not choices or choices[0] not in by_axes[4] + by_axes[3]:
        listing = f"there are {', '.join(names)}" if names else "it holds no dataset of three or four axes"
        raise UserError(f"{path} has no images{f' called {key}' if key else ''}: {listing}.")
    return choices[0]


def _is_own(arrays: Arrays) -> bool:
    """Return whether arrays are those of an answer of this package."""
    return any(
        isinstance(array, h5py.Dataset) and array.file.attrs.get("format") == FORMAT for array in arrays.values()
    )


def list_neighbors(arrays: Arrays, name: str) -> Arrays:
    """Return the other arrays of the group that `name` is in, by their names there."""
    group = name.rpartition("/")[0]
    return {
        other.rpartition("/")[2]: array
        for other, array in arrays.items()
        if other != name and other.rpartition("/")[0] == group
    }


def _datasets(file: h5py.File) -> Arrays:
    arrays: dict[str, Any] = {}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            arrays[name] = item

    file.visititems(visit)
    return arrays


def _npy(path: Path) -> Arrays:
    try:
        return {"": np.lib.format.open_memmap(path, mode="r")}
    except (ValueError, EOFError) as error:
        reason = reason_in_brackets(error)
    if "Python objects" in reason:
        raise UserError(f"{path} holds Python objects, which are never unpickled: give uint8, or floats in [0, 1].")
    raise UserError(f"{path} is neither HDF5 nor a whole .npy file ({reason}): save the images with numpy.save.")


def _npz(path: Path) -> Arrays:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
        with np.load(path, allow_pickle=False) as file:
            return {name.removesuffix(".npy"): file[name] for name in members}
    except (*UNREADABLE, KeyError) as error:
        reason = quote_error(error)
    if "allow_pickle" in reason:
        raise UserError(f"{path} holds Python objects, which are never unpickled: give uint8, or floats in [0, 1].")
    raise UserError(f"{path} is no whole .npz file ({reason}): save the images anew with numpy.savez.")


def _tensors(path: Path) -> Arrays:
    check_archive(path)
    try:
        content = read_tensors(path, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch's unpickler raises what it likes
        raise UserError(
            f"{path} holds no tensors that torch reads with weights_only, and nothing else is unpickled: save the "
            "images alone, torch.save(images, FILE)."
        ) from error
    return dict(_flat("", content))


def _flat(name: str, content: Any) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Yield the tensors of nested dicts and lists by name; NumPy has no bfloat16, which float32 holds."""
    if isinstance(content, Tensor) and content.layout == torch.strided:
        tensor = content.detach()
        yield name, (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    elif isinstance(content, dict | list | tuple):
        items = content.items() if isinstance(content, dict) else enumerate(content)
        for key, item in items:
            yield from _flat(f"{name}/{key}".lstrip("/"), item)
