"""View an open file under the names of today, whatever names it holds."""

from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from interpret_robust.core.errors import UserError
from interpret_robust.core.spelling import SCHEMAS, american, british
from interpret_robust.results.columns import read_part
from interpret_robust.results.schema import PROVENANCE


def is_old(file: h5py.File) -> bool:
    """Return whether an open file holds old names."""
    return str(file.attrs["schema"]) in SCHEMAS


class View:
    """An open file under the names of today: what it holds, its axes and its attributes, however old it is."""

    def __init__(self, file: h5py.File) -> None:
        self._file, self.is_old = file, is_old(file)

    @property
    def attributes(self) -> dict[str, Any]:
        """Return the attributes of its root."""
        return dict(self._file.attrs)

    @property
    def format_version(self) -> int:
        """Return the version of its format."""
        return int(self._file.attrs["format_version"])

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __getitem__(self, name: str) -> h5py.Dataset | h5py.Group:
        return self._file[self._stored_name(name)]

    def get(self, name: str) -> h5py.Dataset | h5py.Group | None:
        """Return what has a name, None where nothing has."""
        return self._file.get(self._stored_name(name)) if self.today(name) == name else None

    def today(self, name: str) -> str:
        """Return the name of today, from the one that the file holds."""
        return american(name) if self.is_old else name

    def _stored_name(self, name: str) -> str:
        return british(name) if self.is_old else name

    def datasets(self) -> Iterator[tuple[str, h5py.Dataset]]:
        """Yield every dataset but provenance, by its path."""
        datasets: list[tuple[str, h5py.Dataset]] = []

        def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Dataset) and not name.startswith(PROVENANCE):
                datasets.append((self.today(name), item))

        self._file.visititems(visit)
        yield from datasets

    def axes(self, dataset: h5py.Dataset) -> tuple[str, ...]:
        """Return the names of the axes of a dataset. Raises UserError where they are not texts, one for each axis."""
        labels = np.atleast_1d(dataset.attrs.get("DIMENSION_LABELS", np.full(dataset.ndim, "")))
        if labels.shape != (dataset.ndim,) or not all(isinstance(label, str) for label in labels):
            raise self._axes_error(f"the names of the axes of {dataset.name}")
        return tuple(self.today(str(label)) for label in labels)

    def places(self, axis: str) -> list[str]:
        """Return the names of the places along an axis. Raises UserError where they are not there."""
        scale = self.get(axis)
        if not isinstance(scale, h5py.Dataset):
            raise self._axes_error(f"the names of the places along {axis}")
        return [str(value) for value in read_part(scale, ())]

    def scales(self, dataset: h5py.Dataset) -> list[list[h5py.Dataset]]:
        """Return the scales of each axis of a dataset; none where it has none that can be read."""
        if "DIMENSION_LIST" not in dataset.attrs:
            return []
        attribute = dataset.attrs.get_id("DIMENSION_LIST")
        kind = h5py.check_vlen_dtype(attribute.dtype)
        if attribute.shape != (dataset.ndim,) or kind is None or h5py.check_ref_dtype(kind) is not h5py.Reference:
            return []
        listing = dataset.attrs["DIMENSION_LIST"]
        return [[self._file[reference] for reference in references] for references in listing]

    def _axes_error(self, problem: str) -> UserError:
        return UserError(
            f"{self._file.filename} is damaged ({problem} are not there): run its analysis again with --overwrite."
        )

    def attribute(self, group: str, name: str) -> str:
        """Return a text attribute, names joined by colons; empty where there is none."""
        values = np.atleast_1d(self[group].attrs.get(name, ""))
        return self.today(":".join(map(str, values)))
