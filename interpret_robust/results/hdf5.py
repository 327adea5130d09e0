"""Read the HDF5 file of an analysis, checked.

    /  @format @format_version @schema @complete @n_done @config_sha256 @content_sha256 @created_utc ...
    provenance/   config_json, environment_json, run_json: where every number comes from
    per_image/    one row an image, written batch by batch
    the rest      statistics, computed from per_image/ when all rows are there

After the end of what HDF5 reads stands the seal, see `results.seal`. How a file is written: `results.writer`. Files of
before 2026-12 have names in British spelling; whatever reads them here has those of today, see `core.spelling`.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py

from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.configs import hash_config
from interpret_robust.core.errors import UserError, reason_in_brackets
from interpret_robust.core.files import check_present, check_readable, stamp
from interpret_robust.core.spelling import SCHEMAS, american, translate_config
from interpret_robust.results import seal
from interpret_robust.results.checksums import is_intact
from interpret_robust.results.columns import read_part
from interpret_robust.results.model_entry import ModelEntry, list_evaluators
from interpret_robust.results.schema import PROVENANCE
from interpret_robust.results.view import View

FORMAT = "interpret-robust"
FORMAT_VERSION = 2
"""Of files that netCDF4, kerchunk and VirtualiZarr read. Format 1 is read to the same values; it has half precision,
names of variable length, checksums of chunks, and scales that two groups share.
"""

_SMALL_BYTES = 64 * 1024
"""A dataset of no more than this stays in memory once it is read: statistics, names of places, columns of few images.
"""


@dataclass(frozen=True)
class Result:
    """A finished file. `result["curve/attention_mean"]` reads one dataset from it, a small one once.

    Raises UserError when it is read after its file was replaced: it would mix numbers of two files.

    Attributes:
        stamp: what tells the file from one that replaced it, see `core.files.stamp`.
        distinction: how its model differs from others of its name that stand beside it, see `names.tell_apart`.
    """

    path: Path
    schema: str
    config: dict[str, Any]
    stamp: tuple[int, ...] | None
    distinction: str = ""
    _small: dict[str, AnyArray] = field(default_factory=dict, init=False, repr=False, compare=False)
    _is_there: dict[str, bool] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __getitem__(self, name: str) -> AnyArray:
        if name not in self._small:
            values = self._part(name, ())
            if values.nbytes > _SMALL_BYTES:
                return values
            self._small[name] = values
        self.check_current()
        return self._small[name].copy()

    def check_current(self) -> None:
        """Raise UserError where the file is no longer there, or was replaced since it was opened."""
        if stamp(self.path) != self.stamp:
            _check_there(self.path)
            raise UserError(f"{self.path} was replaced since it was opened: open it again.")

    @contextmanager
    def _view(self) -> Iterator["View"]:
        """Yield the file, open for reading. Raises UserError where it cannot be read, or was replaced."""
        with _view(self.path) as file:
            self.check_current()  # once it is open, another file may take its place
            yield file

    def axes(self, name: str) -> tuple[str, ...]:
        """Return the names of the axes of one dataset, `value`, `low` and `high` of an interval lying along `of`.

        Example:
            >>> read(Path("analyses/robustness-mine.h5")).axes("accuracy/natural")
            ('target', 'of')
        """
        with self._view() as file:
            return file.axes(file[name])

    @property
    def is_old(self) -> bool:
        """Return whether the file itself holds old names."""
        with self._view() as file:
            return file.is_old

    def first(self, name: str, count: int) -> AnyArray:
        """Return the first `count` rows of one dataset; no other row is read."""
        return self._part(name, slice(count))

    def _part(self, name: str, part: Any) -> AnyArray:
        with self._view() as file:
            dataset = file.get(name)
            if dataset is None:
                raise UserError(f"{self.path} holds no '{name}'.")
            return read_part(dataset, part)

    def __contains__(self, name: str) -> bool:
        if name not in self._is_there:
            with self._view() as file:
                self._is_there[name] = name in file
        return self._is_there[name]

    @property
    def analysis(self) -> str:
        """Return the name of its analysis."""
        return self.schema.partition("/")[0]

    @property
    def version(self) -> int:
        """Return the version of its schema."""
        return int(self.schema.partition("/")[2])

    @property
    def model(self) -> ModelEntry:
        """Return what it says of its model."""
        stored = self.config["checkpoint"]
        return ModelEntry(str(stored["name"]), str(stored["sha256"]), stored["job"])

    @property
    def evaluators(self) -> list[ModelEntry]:
        """Return what it says of the models that read what its model gives."""
        return list_evaluators(self.config)

    @property
    def model_name(self) -> str:
        """Return what tables call its model, what tells it from others of that name, and its recalibration."""
        anew = "" if self.recalibration == "none" else f"recalibrated on {self.recalibration} images"
        details = ", ".join(filter(None, [self.distinction, anew]))
        return f"{self.model.title} ({details})" if details else self.model.title

    @property
    def recalibration(self) -> str:
        """Return the training images that its model was recalibrated on: `clean`, `adversarial`, `both` or `none`."""
        images: str = self.config.get("recalibration", {"images": "none"})["images"]
        return images

    @property
    def model_id(self) -> str:
        """Return what tells its model from all others, see `model_entry.identify_model`."""
        return self.model.id

    @property
    def evaluator_ids(self) -> list[str]:
        """Return the ids of the models that read what its model gives, see `model_entry.identify_model`."""
        return [evaluator.id for evaluator in self.evaluators]

    @property
    def job(self) -> dict[str, Any]:
        """Return how its model was made: dataset, architecture, variant, seed and recipe."""
        job: dict[str, Any] = self.config["checkpoint"]["job"]
        return job

    @property
    def data(self) -> dict[str, Any]:
        """Return which images it is of: dataset, split, how many, and their SHA-256."""
        data: dict[str, Any] = self.config["data"]
        return data

    @cached_property
    def run(self) -> dict[str, Any]:
        """Return how and when it was made, and where its images came from, see `Work.origin`."""
        with self._view() as file:
            run: dict[str, Any] = json.loads(read_part(file[f"{PROVENANCE}/run_json"], ()).item())
        return run

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the file's root."""
        with self._view() as file:
            return file.attributes

    @property
    def doubts(self) -> tuple[str, ...]:
        """Return what makes its numbers doubtful, a sentence each, as it was found when they were made."""
        return tuple(self.run.get("doubts", ()))

    @property
    def count(self) -> int:
        """Return the number of images."""
        return int(self.attributes["n_done"])


@contextmanager
def _view(path: Path) -> Iterator[View]:
    """Yield a file as `_open` does, under the names of today."""
    with _open(path) as file:
        yield View(file)


def read(path: Path, schema: str | Sequence[str] | None = None) -> Result:
    """Open a finished file, checking format, schema, completeness and checksum.

    Args:
        path: the file.
        schema: label of what it must hold, such as `attention-rank/1`, or labels of several versions, the newest
            first; anything of ours for None.

    Raises UserError for a missing, damaged, foreign or unfinished file, or another schema.
    """
    identity = stamp(path)
    has_seal = _seal_of(path)
    with _open(path) as file:
        label = _label(file)
        if not file.attrs["complete"]:
            raise UserError(f"{path} is unfinished: run its analysis again to go on.")
        if schema is not None:
            _check_schema(path, label, list_labels(schema))
        config = json.loads(file[f"{PROVENANCE}/config_json"].asstr()[()])
        if hash_config(config) != file.attrs["config_sha256"] or not (has_seal or is_intact(file)):
            raise _damage_error(path)
    return Result(path, label, translate_config(config), identity)


def list_datasets(path: Path) -> list[tuple[str, str, str]]:
    """Return the path, type and meaning of every dataset of a file, in order."""
    _seal_of(path)
    with _view(path) as file:
        return [(name, _shape(dataset), _meaning(dataset)) for name, dataset in file.datasets()]


def _shape(dataset: h5py.Dataset) -> str:
    """Return the type and shape of a dataset, such as `float32 8x20`."""
    shape = "x".join(map(str, dataset.shape)) or "scalar"
    return f"{'text' if dataset.dtype.kind in 'OS' else dataset.dtype} {shape}"


def _meaning(dataset: h5py.Dataset) -> str:
    return american(str(dataset.attrs.get("long_name", "names along this axis")))


def read_provenance(path: Path) -> dict[str, Any]:
    """Return the configuration, environment and run of a file.

    Raises UserError where it cannot be read, or its configuration names no analysis.
    """
    _seal_of(path)
    with _open(path) as file:
        group = file[PROVENANCE]
        content = {name.removesuffix("_json"): json.loads(group[name].asstr()[()]) for name in sorted(group)}
        config = translate_config(content["config"])
        return content | {"config": config | {"analysis": config["analysis"]}}


def attributes(path: Path) -> dict[str, Any]:
    """Return the attributes of a file's root."""
    _seal_of(path)
    with _open(path) as file:
        return dict(file.attrs) | ({"schema": _label(file)} if "schema" in file.attrs else {})


def _label(file: h5py.File) -> str:
    """Return the label of a file's schema, by the name of today."""
    label = str(file.attrs["schema"])
    return SCHEMAS.get(label, label)


def _seal_of(path: Path) -> bool:
    """Return whether a file has a seal, which holds. Raises UserError where it does not."""
    if not path.is_file():
        return False
    check_readable(path)
    holds = seal.holds(path)
    if holds is False:
        raise _damage_error(path)
    return bool(holds)


def _damage_error(path: Path) -> UserError:
    return UserError(
        f"{path} is damaged (its content differs from its checksum): run its analysis again with --overwrite."
    )


def _check_there(path: Path) -> None:
    if path.is_dir():
        raise UserError(f"{path} is a folder: give one of the analysis files in it.")
    check_present(path, "analysis file", "`irt analyze` makes them")


@contextmanager
def _open(path: Path) -> Iterator[h5py.File]:
    """Yield the file, open for reading. Raises UserError where it is missing, foreign, newer, or damaged anywhere."""
    _check_there(path)
    try:
        with h5py.File(path, "r") as file:
            own = file.attrs
            if own.get("format") != FORMAT:
                raise UserError(f"{path} is an HDF5 file, but not one that `irt analyze` wrote: give such a file.")
            version = int(own["format_version"])
            if version > FORMAT_VERSION:
                raise UserError(
                    f"{path} has format {version} and this irt reads up to {FORMAT_VERSION}: update interpret-robust."
                )
            yield file
    except BlockingIOError:
        raise UserError(f"{path} is being written by another process: try again when that has ended.") from None
    except UNREADABLE as error:
        raise UserError(_unreadable(path, error)) from None


def _unreadable(path: Path, error: Exception) -> str:
    """Return the sentence for a file that cannot be read: another kind of file, or a damaged one."""
    with open(path, "rb") as file:
        if file.read(len(_SIGNATURE)) != _SIGNATURE and path.suffix != ".h5":
            return f"{path} is no analysis file: those are HDF5 files that `irt analyze` writes, NAME.h5."
    return f"{path} is damaged or no HDF5 file ({reason_in_brackets(error)}): run its analysis again with --overwrite."


_SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""What an HDF5 file begins with."""


UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, AttributeError, TypeError, IndexError, OverflowError)
"""What h5py raises where bytes of a file are not what they were."""


def list_labels(schema: str | Sequence[str]) -> Sequence[str]:
    """Return the labels that a file may have, of one or of several."""
    return (schema,) if isinstance(schema, str) else schema


def _check_schema(path: Path, label: str, readable: Sequence[str]) -> None:
    expected = readable[0]
    name, wanted_name = label.partition("/")[0], expected.partition("/")[0]
    if name != wanted_name:
        raise UserError(
            f"{path} holds {label}, and {wanted_name} is needed here: `irt analyze {wanted_name}` makes it."
        )
    if label not in readable:
        older = int(label.partition("/")[2]) < int(expected.partition("/")[2])
        remedy = "run its analysis again with --overwrite" if older else "update interpret-robust"
        raise UserError(f"{path} has {label} and this irt reads {expected}: {remedy}.")
