"""Answers of analyses in a program: numbers by name, tables, pictures."""

import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from matplotlib.figure import Figure

from interpret_robust import analyses, figures
from interpret_robust.analyses.engine import printing
from interpret_robust.api.arguments import check_path
from interpret_robust.api.wording import use_python_words
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import UserError, check_truth, find_nearest
from interpret_robust.core.files import replace_file
from interpret_robust.core.intervals import Interval
from interpret_robust.core.locks import Lock
from interpret_robust.core.parsing import format_count
from interpret_robust.core.plugins import quote_error
from interpret_robust.core.provenance import read_package_version
from interpret_robust.core.spelling import american
from interpret_robust.figures import saving
from interpret_robust.figures.drawing import check_shared, compose, group_results
from interpret_robust.results import hdf5
from interpret_robust.results.names import label, tell_apart
from interpret_robust.results.tables import add_captions

PER_IMAGE = "per_image/"
INTERVAL_AXIS = "of"
"""The axis of a statistic whose places are a value and the ends of its 95 % interval."""


class Statistic(Interval):
    """A statistic of an answer: an interval that says what it is, in which unit, and over how many images.

    Example:
        >>> ir.open("analyses/masking-cifar10-small-at-seed0-test-first1000.h5")["accuracy/natural"]
        <Statistic 0.622 [0.5915, 0.6515]: share of natural images classified rightly, Wilson 95 %; 1000 images>
    """

    meaning = ""

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}{self.meaning and ': '}{self.meaning}>"


class Answer:
    """What an analysis measured of one model.

    `answer["spearman"]` is the statistic of that name: an interval (`Statistic`) where it has one, else a number or an
    array. `arrays` and `statistics` name all that there is. The file of `analyze` lies in a temporary folder that goes
    when the answer does: `save` keeps it. The file of `open` stays where it is.

    Example:
        >>> answer = ir.open("analyses/attention-rank-cifar10-small-at-att-seed0-test-first1000.h5")
        >>> answer["spearman"].plain()
        '-0.62 [-0.63, -0.61]'
        >>> answer.arrays["attention"].shape
        (1000, 64)
    """

    def __init__(self, result: hdf5.Result, *, is_temporary: bool = False) -> None:
        self.result, self.is_temporary = result, is_temporary
        self.analysis = result.analysis
        schema = analyses.get(self.analysis).schema.restrict(result.version)
        self._axes = {column.path: tuple(axes) for column, axes in schema.columns()}
        self._docs = {column.path: column.doc for column, _ in schema.columns()}

    @property
    def model(self) -> str:
        """Return what tables call the model, such as `at-att seed 0`."""
        return label(self.result)

    def __getitem__(self, name: str) -> Any:
        """Return a statistic or column by its path, or by the end of its path where only one has it.

        Raises UserError where there is none of that name, or more than one.
        """
        name = str(name)  # such as 0, which a list of answers takes
        path = self._path(name)
        values = self.result[path]
        if self._axes[path][-1:] == (INTERVAL_AXIS,) and values.size == values.shape[-1]:
            statistic = Statistic(*values.ravel().tolist())
            statistic.meaning = f"{self._meaning(path)}; {format_count(self.result.count, 'image')}"
            return statistic
        if name in self._titles and path != name:
            raise UserError(
                f"'{name}' is a column of the table and the end of {path}, which is something else: give a whole path, "
                f"one of {', '.join(self.statistics)}."
            )
        return values

    def _meaning(self, path: str) -> str:
        """Return what a statistic is, with what it is of: `mean of Spearman of attention and robustness, ...`."""
        first_part, *_ = self._docs[path].split(";")
        return re.sub(r"per_image/\w+", lambda column: self._docs.get(column[0], column[0]), first_part)

    @cached_property
    def _titles(self) -> frozenset[str]:
        """Return the columns of the printed table, whose names are not those of statistics."""
        return frozenset(analyses.get(self.analysis).table_row(self.result))

    def _path(self, name: str) -> str:
        if name in self._axes:
            return name
        ends = [path for path in self._axes if path.endswith(f"/{name}")]
        matches = [path for path in ends if not path.startswith((PER_IMAGE, "examples/"))] or ends
        if len(matches) == 1:
            return str(matches[0])
        if matches:
            raise UserError(f"'{name}' is the name of several arrays: {', '.join(matches)}.")
        names = {path.rpartition("/")[2]: path for path in self._axes} | {path: path for path in self._axes}
        nearest = find_nearest(name, list(names))
        hint = f"did you mean '{nearest}'?" if nearest else f"there are {', '.join(self.statistics)}."
        if name in self._titles:
            hint = f"it is a column of the printed table; the statistics are {', '.join(self.statistics)}."
        raise UserError(f"{self.analysis} holds nothing called '{name}': {hint}")

    @property
    def arrays(self) -> Mapping[str, AnyArray]:
        """Return the columns with a row an image, by name without `per_image/`, read when they are asked for."""
        return _Lazy(self.result, [path for path in self._axes if path.startswith(PER_IMAGE)], PER_IMAGE)

    @property
    def statistics(self) -> Mapping[str, AnyArray]:
        """Return all that was computed from these, by name. A last axis of three is a value and its 95 % interval."""
        return _Lazy(self.result, [path for path in self._axes if not path.startswith(PER_IMAGE)])

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what pickles it: a path, or the bytes of a file that goes when the answer does."""
        if not self.is_temporary:
            return Answer, (self.result,)
        self.result.check_current()
        return _unpack, (self.result.path.name, self.result.path.read_bytes())

    def __repr__(self) -> str:
        place = "not saved (save keeps it)" if self.is_temporary else f"file {self.result.path}"
        images = format_count(self.result.data["images"], "image")
        return (
            f"<Answer {self.analysis} of {self.model}: {images}, {len(self.arrays)} arrays, "
            f"{len(self.statistics)} statistics, {place}>"
        )

    def __str__(self) -> str:
        """Return the table that the command prints."""
        return _text([self.result])

    def _repr_html_(self) -> str:
        return _html([self.result])

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Keep the file at `path`, whole or not at all; in a folder, under the name that `irt analyze` gives it.

        A path that does not end as a file's name does, such as `analyses`, is a folder, which is made. Raises UserError
        where there is a file already, unless it may go, and where the folder cannot be made.

        Example:
            >>> answer = ir.analyze("alignment", ir.load(path))  # doctest: +SKIP
            >>> answer.save("analyses")  # doctest: +SKIP
        """
        check_truth("overwrite", overwrite)
        place = Path(check_path("path", path))
        if not place.suffix and not place.is_file():
            _make_folder(place)
        target = _target(self, place, overwrite=overwrite)
        self.result.check_current()
        with replace_file(target) as partial:
            shutil.copyfile(self.result.path, partial)
        return target

    def figure(self, path: str | Path | None = None, panel: str | None = None) -> Figure:
        """Return its picture; with a path, also write it there with its caption beside it, as PNG and PDF.

        Of an analysis with several pictures it is that of `panel`, as `irt figure --panel` names it, or the first.
        Raises UserError for a panel that there is not, and where the file at `path` is no picture of irt's.
        """
        return _figure([self.result], path, panel)

    def to_dataframe(self) -> Any:
        """Return a pandas DataFrame with a row an image: the columns that hold one value an image, and their index.

        Raises UserError where pandas is not installed.
        """
        pandas = _library("pandas")
        columns = {name: values for name, values in self.arrays.items() if values.ndim == 1}
        frame = pandas.DataFrame(columns)
        frame.index.name = "image"
        return frame

    def to_xarray(self) -> Any:
        """Return an xarray DataTree of the whole file, read into memory, with named axes.

        Raises UserError where xarray or h5netcdf is not installed, and where axes of the file are damaged.
        """
        xarray = _library("xarray")
        _library("h5netcdf")
        self.result.check_current()
        try:
            with xarray.open_datatree(self.result.path, engine="h5netcdf") as tree:
                groups = {node.path: _with_text(node.to_dataset(inherit=False).load()) for node in tree.subtree}
        except hdf5.UNREADABLE as error:
            raise UserError(
                f"{self.result.path} cannot be read by xarray ({quote_error(error)}): `irt validate` tells what of it "
                "is damaged."
            ) from error
        content = xarray.DataTree.from_dict(groups)
        return content.map_over_datasets(_rename) if self.result.is_old else content


def temporary_answer(path: Path) -> Answer:
    """Return the answer in a file whose folder goes when the answer does."""
    answer = Answer(hdf5.read(path), is_temporary=True)
    weakref.finalize(answer.result, shutil.rmtree, path.parent, ignore_errors=True)
    return answer


def _unpack(name: str, content: bytes) -> Answer:
    """Return an answer from the bytes of its file."""
    path = temporary_folder() / name
    path.write_bytes(content)
    return temporary_answer(path)


def temporary_folder() -> Path:
    """Return a new folder for the file of an answer."""
    return Path(tempfile.mkdtemp(prefix="irt-"))


class Answers(Sequence[Answer]):
    """What an analysis measured of several models: a sequence of `Answer`; by a name, that number of each model.

    Example:
        >>> start = "analyses/attention-rank-cifar10-small-at-att"
        >>> answers = ir.open([f"{start}-seed0-test-first1000.h5", f"{start}-seed1-test-first1000.h5"])
        >>> [f"{name} {value.value:.2f}" for name, value in answers["spearman"].items()]
        ['cifar10-small-at-att-seed0 -0.62', 'cifar10-small-at-att-seed1 -0.58']
    """

    def __init__(self, answers: Sequence[Answer]) -> None:
        if not answers:
            raise UserError("there are no answers among these: give at least one.")
        if len({answer.analysis for answer in answers}) != 1:
            raise UserError("answers of several analyses have nothing in common: open each by itself.")
        self._answers = list(answers)
        self.analysis = self._answers[0].analysis

    @overload
    def __getitem__(self, key: int) -> Answer: ...

    @overload
    def __getitem__(self, key: slice) -> "Answers": ...

    @overload
    def __getitem__(self, key: str) -> Any: ...

    def __getitem__(self, key: int | slice | str) -> Any:
        """Return an answer by its place or its model's name in tables, or what `key` names of each model, by that name.

        The name of a recalibrated model says so: `NAME (recalibrated on clean images)`.

        Raises UserError for a name that neither a model nor a number has, and where several answers are of one model.
        """
        if isinstance(key, str):
            by_model = self._name_answers()
            return by_model.get(key) or {name: answer[key] for name, answer in by_model.items()}
        return Answers(self._answers[key]) if isinstance(key, slice) else self._answers[key]

    def _name_answers(self) -> dict[str, Answer]:
        """Return the answers by the name of their model in files, models of one name told apart.

        Raises UserError for several answers of one model, such as of training and of test images.
        """
        results = tell_apart([answer.result for answer in self._answers])
        names = [result.model_name for result in results]
        if duplicates := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise UserError(f"several answers are of {duplicates[0]}: take one by its place, such as answers[0].")
        return {result.model_name: answer for result, answer in zip(results, self._answers, strict=True)}

    def __len__(self) -> int:
        return len(self._answers)

    def __repr__(self) -> str:
        models = format_count(len(self), "model")
        return "\n  ".join([f"<Answers {self.analysis} of {models}:", *map(repr, self._answers)]) + ">"

    def __str__(self) -> str:
        """Return the tables that the command prints: a row a model, then comparisons."""
        return _text([answer.result for answer in self._answers])

    def _repr_html_(self) -> str:
        return _html([answer.result for answer in self._answers])

    def save(self, folder: str | Path, *, overwrite: bool = False) -> list[Path]:
        """Keep all files in `folder`, which is made, each under the name that `irt analyze` gives it.

        Raises UserError, and keeps none, where there is one of them already, unless it may go, for two models of one
        name, and where the folder cannot be made.

        Example:
            >>> answers = ir.analyze("alignment", [ir.load(path) for path in paths])  # doctest: +SKIP
            >>> answers.save("analyses")  # `irt figure alignment` draws them now  # doctest: +SKIP
        """
        check_truth("overwrite", overwrite)
        place = Path(check_path("folder", folder))
        _make_folder(place)
        targets = [_target(answer, place, overwrite=overwrite) for answer in self._answers]
        for target in targets:
            if targets.count(target) > 1:
                raise UserError(f"two models are called {target.name} in files: give one of them another label.")
        return [answer.save(place, overwrite=overwrite) for answer in self._answers]

    def figure(self, path: str | Path | None = None, panel: str | None = None) -> Figure:
        """Return the picture of all models; see `Answer.figure`."""
        return _figure([answer.result for answer in self._answers], path, panel)

    def to_dataframe(self) -> Any:
        """Return the frames of all models, one below the other, with a column `model`; see `Answer.to_dataframe`."""
        pandas = _library("pandas")
        results = tell_apart([answer.result for answer in self._answers])
        frames = [
            answer.to_dataframe().assign(model=label(result))
            for answer, result in zip(self._answers, results, strict=True)
        ]
        return pandas.concat(frames)

    def to_xarray(self) -> Any:
        """Return an xarray DataTree with a branch a model, by the model's name in files; see `Answer.to_xarray`."""
        xarray = _library("xarray")
        trees = {name: answer.to_xarray() for name, answer in self._name_answers().items()}
        return xarray.DataTree(children=trees)


def _make_folder(place: Path) -> None:
    """Make a folder, unless it is there. Raises UserError where that cannot be."""
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{place} cannot be a folder ({error.strerror}): name one, such as analyses.") from error


def _target(answer: Answer, path: Path, *, overwrite: bool) -> Path:
    """Return where an answer is kept: at a path, or in a folder by the name of its file. Raises UserError if taken."""
    target = path / answer.result.path.name if path.is_dir() else path
    if target.exists() and not overwrite:
        raise UserError(f"{target} is there already: overwrite=True replaces it.")
    return target


def _rename(data: Any) -> Any:
    """Return an xarray Dataset of an old file under the names of today."""
    names = {name: american(name) for name in (*data.variables, *data.dims)}
    attributes: dict[str, Any] = {key: american(text) for key, text in data.attrs.items() if isinstance(text, str)}
    if isinstance(axes := data.attrs.get("axes"), list):
        attributes["axes"] = [american(axis) for axis in axes]
    return data.rename({name: today for name, today in names.items() if name != today}).assign_attrs(attributes)


@use_python_words()
def _figure(results: Sequence[hdf5.Result], path: str | Path | None, panel: str | None) -> Figure:
    target = None if path is None else Path(check_path("path", path))
    check_shared(results, [f"{result.model_name} in {result.path}" for result in results])
    drawing = compose(results[0].analysis, results, panel)
    if target is not None:
        with Lock(target.with_suffix(".png")):
            saving.save(drawing, target.parent, target.stem, saving.list_inputs(results), read_package_version())
    return drawing.figure


def _text(results: Sequence[hdf5.Result]) -> str:
    """Return the tables that the command prints of some results."""
    return add_captions(printing.make_tables(results))


def _html(results: Sequence[hdf5.Result]) -> str:
    """Return the tables and all pictures of some results as HTML that stands alone."""
    from markupsafe import escape

    from interpret_robust.study.report.embedding import make_data_url

    images = [
        _image(_figure(group, None, panel), make_data_url)
        for group in group_results(results, with_architecture=False)
        for panel in figures.list_plots(results[0].analysis)
    ]
    return f"<pre>{escape(_text(results))}</pre>{''.join(images)}"


def _image(figure: Figure, embed: Any) -> str:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return f'<img src="{embed(Image.open(buffer), "PNG")}">'


def _with_text(group: Any) -> Any:
    """Return an xarray Dataset with text in the place of bytes, which names are in a file."""
    names = [name for name, values in group.variables.items() if values.dtype.kind == "S"]
    return group.assign({name: (group[name].dims, np.char.decode(group[name].values, "utf-8")) for name in names})


def _library(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(f"this needs {name}, which is missing: pip install {name}.") from None


class _Lazy(Mapping[str, AnyArray]):
    """Arrays of a file by name, each read when it is asked for."""

    def __init__(self, result: hdf5.Result, names: Sequence[str], prefix: str = "") -> None:
        self._result, self._prefix = result, prefix
        self._keys = [name.removeprefix(prefix) for name in names]

    def __getitem__(self, name: str) -> AnyArray:
        if name not in self._keys:
            raise KeyError(name)
        return self._result[self._prefix + name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __repr__(self) -> str:
        return f"<{len(self._keys)} arrays: {', '.join(self._keys)}>"

    def __len__(self) -> int:
        return len(self._keys)
