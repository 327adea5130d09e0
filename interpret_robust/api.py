"""What the commands do, from Python.

import interpret_robust as ir

model = ir.load("torchvision:resnet18", "images.npz", weights="resnet18.safetensors", normalize="imagenet")
answer = ir.analyze("attention-rank", model, limit=100, steps=10)
answer.figure("rank.png")
"""

import copy
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from interpret_robust import analyses, datasets
from interpret_robust.analyses.engine import printing
from interpret_robust.analyses.engine.work import Work
from interpret_robust.core import device as devices
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import UserError, unknown
from interpret_robust.core.files import replacing
from interpret_robust.datasets import Dataset
from interpret_robust.datasets.batches import BATCH_SIZE, to_pixels
from interpret_robust.figures import style
from interpret_robust.figures.drawing import drawn
from interpret_robust.models import card as cards
from interpret_robust.models import external
from interpret_robust.models.card import Card
from interpret_robust.models.subject import Subject
from interpret_robust.results import hdf5

Data = Dataset | str | Path
"""A dataset, its name, or the path of its `.npz`; arrays become one by `datasets.in_memory.of_arrays`."""


def load(model: str | Path | nn.Module, data: Data | None = None, **card: Any) -> Subject:
    """A model to ask questions of.

    Args:
        model: what `--model` takes, or a network itself, of which a copy is kept: it may be trained on.
        data: which images it is for; a checkpoint of `irt train` knows its own.
        card: fields of `models.card.Card` that say how it is read, such as `weights`, `normalize` and `local_layer`.

    Raises UserError as the commands do.
    """
    if "arguments" in card:
        card["arguments"] = tuple(dict(card["arguments"]).items())
    if isinstance(model, nn.Module):
        kind = type(model)
        declared = cards.reference(f"{kind.__module__}:{kind.__qualname__}", **{"label": kind.__name__, **card})
        assert isinstance(declared, Card)
        if declared.weights is not None or declared.arguments:
            raise UserError("a network that is given as it is has its weights: name them where it is built.")
        found = _data(data)
        return external.bring(copy.deepcopy(model), declared, found, found.name)
    reference = cards.reference(str(model), **card)
    if isinstance(data, Dataset) and isinstance(reference, Card):
        return external.bring(external.network_of(reference, len(data.class_names)), reference, data, data.name)
    return external.subject(reference, None if data is None or isinstance(data, Dataset) else str(data))


def analyze(
    name: str,
    model: Subject,
    data: Data | None = None,
    *,
    evaluators: Sequence[Subject] = (),
    split: str = "test",
    limit: int | None = None,
    batch_size: int = BATCH_SIZE,
    recalibrate: str = "none",
    device: str = "auto",
    **settings: Any,
) -> "Answer":
    """Ask a question of a model.

    Args:
        name: of the analysis, such as `attention-rank`; `irt analyze --help` lists them.
        model: from `load`.
        data: other images than those it was loaded for.
        evaluators: models that read what this one gives, where the question needs any.
        split, limit: which images: those of `train` or `test`, the first so many or all.
        batch_size: images at a time.
        recalibrate: `clean`, `adversarial` or `both`: training images that batch-norm statistics are measured on
            first; `none` leaves the model as it is.
        device: `cpu`, `cuda`, or `auto`.
        settings: options of the analysis by name, such as `steps=10`.

    Raises UserError as the commands do.
    """
    if name not in analyses.names():
        raise unknown("analysis", name, analyses.names())
    analysis = analyses.get(name)
    options = {field.name for field in fields(analysis.settings)}
    for given in settings:
        if given not in options:
            raise unknown(f"setting of {name}", given, options)
    if analysis.readers == "evaluators" and not evaluators:
        raise UserError(f"{name} needs models that read what {model.told} gives: give evaluators.")
    folder = Path(tempfile.mkdtemp(prefix="irt-"))
    try:
        work = Work(
            analysis,
            model,
            _data(data) if data is not None else _own(model),
            folder,
            settings=analysis.settings(**settings),
            split=split,
            limit=limit,
            batch_size=batch_size,
            device=devices.resolve(device),
            evaluators=evaluators,
            default_evaluators=False,
            recalibrate=recalibrate,
        )
        return Answer(hdf5.read(work.run()), folder)
    except BaseException:
        shutil.rmtree(folder)
        raise


def open(path: str | Path) -> "Answer":
    """Return the answer in a file of `irt analyze` or of `Answer.save`: the same object as `analyze` gives.

    Raises UserError for a file that is missing, damaged, or of an unknown analysis.
    """
    return Answer(analyses.read(Path(path)))


def questions() -> dict[str, str]:
    """Return the names of the analyses, each with one sentence about it."""
    return {name: analyses.about(name) for name in analyses.names()}


def samples(data: Data, count: int, *, split: str = "test") -> tuple[Tensor, Tensor]:
    """Return the first `count` images of a split and their labels, in the split's own order.

    Pixels are float32 (count, C, H, W) in [0, 1], labels int64 (count,). Example: `x, y = samples("mnist", 8)`.
    Raises UserError where the split does not have so many images.
    """
    source = _data(data).split(split)
    if not 1 <= count <= len(source):
        raise UserError(f"count is {count}: the {split} split has {len(source)} images, so give 1 to {len(source)}.")
    first = source.first(count)
    pixels = to_pixels(torch.from_numpy(first.images.copy())).permute(0, 3, 1, 2).contiguous()
    return pixels, torch.from_numpy(first.labels.copy())


def _data(data: Data | None) -> Dataset:
    if data is None:
        raise UserError("say which images the model is for: a dataset, its name, or the path of an .npz.")
    return data if isinstance(data, Dataset) else datasets.load(str(data))


def _own(model: Subject) -> Dataset:
    """The images that a model was loaded for."""
    return model.data if isinstance(model, external.Brought) else datasets.load(model.source)


@dataclass(frozen=True, eq=False, repr=False)
class Answer:
    """What an analysis found: `answer["test/spearman"]` is one array; `arrays` and `statistics` name them all.

    The file of `analyze` lies in a temporary folder that goes when the answer does: `save` keeps it. The file of
    `open`, which has no such folder, stays where it is.
    """

    result: hdf5.Result
    folder: Path | None = None

    def __post_init__(self) -> None:
        if self.folder is not None:
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def __getitem__(self, name: str) -> AnyArray:
        """One dataset of the file. Raises UserError where there is none of that name."""
        return self.result[name]

    @property
    def arrays(self) -> Mapping[str, AnyArray]:
        """The columns with a row an image, by name without `per_image/`, read when they are asked for."""
        return _Lazy(self, [name for name in self._names() if name.startswith("per_image/")], "per_image/")

    @property
    def statistics(self) -> Mapping[str, AnyArray]:
        """Everything that was found from these, by name. A last axis of three is a value and its 95 % interval."""
        return _Lazy(self, [name for name in self._names() if not name.startswith("per_image/")])

    def _names(self) -> list[str]:
        schema = analyses.get(self._analysis).schema
        return [column.path for column, _ in schema.columns()]

    @property
    def _analysis(self) -> str:
        return self.result.schema.partition("/")[0]

    def __repr__(self) -> str:
        """Return one line: the analysis, its file, and how many arrays and statistics it has."""
        return (
            f"<Answer {self._analysis}: {len(self.arrays)} arrays, {len(self.statistics)} statistics, "
            f"file {self.result.path.name}>"
        )

    def __str__(self) -> str:
        """The table that the command prints."""
        return printing.text_of([self.result.path])

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Keep the file at `path`, whole or not at all. Raises UserError where there is one, unless it may go."""
        target = Path(path)
        if target.exists() and not overwrite:
            raise UserError(f"{target} is there already: overwrite=True replaces it.")
        with replacing(target) as partial:
            shutil.copyfile(self.result.path, partial)
        return target

    def figure(self, path: str | Path | None = None) -> Figure:
        """Its picture; with a path, also written there with its caption beside it, as PNG and PDF."""
        drawing = drawn(self._analysis, [self.result])
        if path is not None:
            target = Path(path)
            version = metadata.version("interpret-robust")
            style.save(drawing, target.parent, target.stem, style.inputs([self.result]), version)
        return drawing.figure


class _Lazy(Mapping[str, AnyArray]):
    """Arrays of an answer by name, each read when it is asked for."""

    def __init__(self, answer: Answer, names: Sequence[str], prefix: str = "") -> None:
        self._answer, self._prefix = answer, prefix
        self._keys = [name.removeprefix(prefix) for name in names]

    def __getitem__(self, name: str) -> AnyArray:
        if name not in self._keys:
            raise KeyError(name)
        return self._answer[self._prefix + name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)
