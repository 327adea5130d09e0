"""How accurate is a model on corrupted images, and does adversarial robustness help there?

Images meet fifteen corruptions at five severities (Hendrycks & Dietterich 2019, https://arxiv.org/abs/1903.12261), made
here by `datasets.corruptions`: numbers are not those on the published CIFAR-10-C and ImageNet-C.

The mean error is that over all corruptions and severities, as is usual for CIFAR-10-C. The paper's mean corruption
error divides each corruption's error by that of AlexNet before the mean. Here the first model of the table that
compares models stands in its place.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch

from interpret_robust.analyses.engine.analysis import Analysis
from interpret_robust.analyses.engine.settings import Settings
from interpret_robust.analyses.engine.work import Work
from interpret_robust.core.arrays import Array
from interpret_robust.core.bootstrap import finite_column_means, ratio_of_means
from interpret_robust.core.errors import UserError, unknown
from interpret_robust.core.intervals import Interval, rate, rates
from interpret_robust.datasets import Split
from interpret_robust.datasets.batches import Batch, to_numpy
from interpret_robust.datasets.cifar_c import GROUPS, SEVERITIES
from interpret_robust.datasets.corruptions import CORRUPTIONS, corrupt_images
from interpret_robust.models import Classifier
from interpret_robust.models.classifier import predict_classes
from interpret_robust.results.columns import Axes, Columns
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import list_places, shorten_name
from interpret_robust.results.schema import Column, Schema, describe_plot, interval
from interpret_robust.results.tables import Table

WHOLE = "all"
"""All corruptions: what they are called in settings and among groups."""

_CELL, _IMAGE = ("corruption", "severity"), ("y", "x", "color")
SCHEMA = Schema(
    name="corruptions",
    version=1,
    per_image=(
        Column("per_image/label", "i2", "true class"),
        Column("per_image/prediction_natural", "i2", "predicted class of the natural image"),
        Column("per_image/prediction", "i2", "predicted class of the corrupted image", _CELL),
        Column(
            "per_image/right",
            "f4",
            "share of the group's corruptions and severities at which it is classified rightly; NaN where it has none",
            ("group",),
        ),
    ),
    summary=(
        interval("accuracy/natural", "share of natural images classified rightly, Wilson 95 %"),
        interval("accuracy/corrupted", "share of corrupted images classified rightly, Wilson 95 %", *_CELL),
        interval(
            "accuracy/by_corruption", "mean accuracy over severities, bootstrap 95 % interval over images", "corruption"
        ),
        interval("accuracy/by_group", "mean accuracy over the group's corruptions and severities, bootstrap", "group"),
        interval(
            "accuracy/loss_by_group",
            "accuracy on natural images minus that mean, paired bootstrap over images",
            "group",
        ),
        interval("error/mean", "one minus the mean accuracy over all corruptions and severities, bootstrap"),
        Column("examples/natural", "u1", "the first image", _IMAGE),
        Column("examples/corrupted", "u1", "the first image at the largest severity", ("corruption", *_IMAGE)),
    ),
    groups={"accuracy": describe_plot("corrupted", "corruption:severity:of", "Accuracy on corrupted images")},
    labels={"group": (*GROUPS, WHOLE)},
)


@dataclass(frozen=True)
class CorruptionSettings(Settings):
    """Which corruptions, how strong, and their random numbers."""

    corruptions: str = field(default=WHOLE, metadata={"help": "Names such as fog,snow; groups such as noise; or all."})
    severities: str = field(default="1,2,3,4,5", metadata={"help": "Severities of the corruptions, from 1 to 5."})
    seed: int = field(default=0, metadata={"help": "Seed of the random numbers, which differ between images."})

    def resolve(self, job: Mapping[str, Any]) -> Self:
        """Return these settings with corruptions by their own names and severities, each once and in order.

        Raises UserError for those that there are not.
        """
        names, strengths = set(_corruptions_of(self.corruptions)), sorted(set(_severities_of(self.severities)))
        return replace(
            super().resolve(job),
            corruptions=",".join(name for name in CORRUPTIONS if name in names),
            severities=",".join(map(str, strengths)),
        )

    def names(self) -> tuple[str, ...]:
        """Return the corruptions of resolved settings."""
        return tuple(self.corruptions.split(","))

    def strengths(self) -> tuple[int, ...]:
        """Return the severities of resolved settings."""
        return tuple(map(int, self.severities.split(",")))


def _corruptions_of(text: str) -> Iterator[str]:
    choices = {WHOLE: tuple(CORRUPTIONS), **GROUPS, **{name: (name,) for name in CORRUPTIONS}}
    for name in (part.strip() for part in text.split(",")):
        if name not in choices:
            raise unknown("corruption", name, choices)
        yield from choices[name]


def _severities_of(text: str) -> Iterator[int]:
    for part in text.split(","):
        if part.strip() not in map(str, range(1, SEVERITIES + 1)):
            raise UserError(f"the severities are '{text}', and must be numbers from 1 to {SEVERITIES}, such as 1,3,5.")
        yield int(part)


def axes(work: Work) -> Axes:
    """Return the corruptions and the severities."""
    return {"corruption": work.settings.names(), "severity": work.settings.strengths()}


@torch.no_grad()
def rows(model: Classifier, batch: Batch, settings: CorruptionSettings) -> dict[str, Array]:
    """Return predictions of one batch, natural and corrupted."""
    pixels = to_numpy(batch.images.permute(0, 2, 3, 1))

    def predict(name: str, severity: int) -> Array:
        pictures = torch.from_numpy(corrupt_images(pixels, name, severity, settings.seed, batch.indices))
        return to_numpy(predict_classes(model(pictures.permute(0, 3, 1, 2).to(batch.images.device))))

    labels = to_numpy(batch.labels)
    predictions = [[predict(name, severity) for severity in settings.strengths()] for name in settings.names()]
    prediction = np.moveaxis(np.array(predictions), 2, 0)
    columns = {
        "label": labels,
        "prediction_natural": to_numpy(predict_classes(model(batch.images))),
        "prediction": prediction,
        "right": group_means(_right(prediction, labels), settings.names()),
    }
    return {f"per_image/{name}": values for name, values in columns.items()}


def _right(prediction: Array, labels: Array) -> Array:
    """Return the share of severities (N, corruption) at which predictions (N, corruption, severity) are right."""
    share: Array = (prediction == labels[:, None, None]).mean(2)
    return share


def group_means(values: Array, corruptions: Sequence[str]) -> Array:
    """Return means (N, group) of values (N, corruption): over each group, NaN where it has none, and over all."""
    members = [[place for place, name in enumerate(corruptions) if name in group] for group in GROUPS.values()]
    means = [values[:, part].mean(1) if part else np.full(len(values), np.nan) for part in members]
    return np.stack([*means, values.mean(1)], 1)


def summarize(columns: Columns, _: Split) -> dict[str, Any]:
    """Return accuracies with their intervals, by corruption and severity, by corruption and by group."""
    labels, prediction = columns["per_image/label"], columns["per_image/prediction"]
    natural = columns["per_image/prediction_natural"] == labels
    of_group = columns["per_image/right"].astype(np.float64)
    return {
        "accuracy/natural": rate(natural),
        "accuracy/corrupted": rates(prediction == labels[:, None, None]),
        "accuracy/by_corruption": finite_column_means(_right(prediction, labels)),
        "accuracy/by_group": finite_column_means(of_group),
        "accuracy/loss_by_group": finite_column_means(natural[:, None] - of_group),
        "error/mean": finite_column_means(1 - of_group[:, -1:])[0],
    }


def examples(_: Columns, split: Split, settings: CorruptionSettings) -> dict[str, Any]:
    """Return the first image, and what each corruption makes of it at the largest severity."""
    natural = split.images[:1]
    pixels, severity = natural / np.float32(255), settings.strengths()[-1]
    pictures = [corrupt_images(pixels, name, severity, settings.seed, range(1))[0] for name in settings.names()]
    return {"examples/natural": natural[0], "examples/corrupted": np.rint(255 * np.stack(pictures))}


def table_row(result: Result) -> dict[str, str]:
    """Return mean accuracies of a finished file, natural, by group and over all."""
    means = dict(zip(list_places(result, "group"), result["accuracy/by_group"], strict=True))
    intervals = {"natural": result["accuracy/natural"]} | {
        name: mean for name, mean in means.items() if np.isfinite(mean[0])
    }
    row = {name: Interval(*values).percent() for name, values in intervals.items()}
    return row | {"mean error": Interval(*result["error/mean"]).percent(), "images": str(result.count)}


def compare(results: Sequence[Result]) -> list[Table]:
    """Return the accuracy of models by corruption, and what the rest gain and lose against the first of them.

    Only models that were asked of the same images under the same settings stand side by side.
    """
    first = results[0]
    rivals = [result for result in results[1:] if _question(result) == _question(first)]
    accuracies = {
        _short_name(result): [Interval(*interval) for interval in result["accuracy/by_corruption"]]
        for result in (first, *rivals)
    }
    cells = {name: [interval.percent() for interval in intervals] for name, intervals in accuracies.items()}
    tables = [_tabulate_corruptions(first, cells, "Accuracy by corruption, the mean over severities")]
    if rivals:
        note, name = "Intervals are of the paired bootstrap over images.", first.model_name
        tables.append(
            Table(
                [_compare(first, rival) for rival in rivals],
                f"Against {name}: mean corruption error relative to its own (below 100 %: better), and differences of "
                "accuracy (above zero: better)",
                note,
            )
        )
        first_costs = _costs(first)
        costs = {
            _short_name(rival): [
                Interval(*interval).points() for interval in finite_column_means(_costs(rival) - first_costs)
            ]
            for rival in rivals
        }
        title = f"Accuracy lost to each corruption, less what {name} loses (below zero: loses less)"
        tables.append(_tabulate_corruptions(first, costs, title, note))
    return tables


def _question(result: Result) -> tuple[Any, Any]:
    return result.config["data"], result.config["settings"]


def _short_name(result: Result) -> str:
    return shorten_name(result, result.model_name)


def _tabulate_corruptions(first: Result, cells: Mapping[str, Sequence[str]], title: str, note: str = "") -> Table:
    """Return a table with a row a corruption and a column a model, from the cells of each model."""
    rows_of_table = [
        {"corruption": name} | {model: of_model[place] for model, of_model in cells.items()}
        for place, name in enumerate(list_places(first, "corruption"))
    ]
    return Table(rows_of_table, title, note)


def _compare(first: Result, second: Result) -> dict[str, str]:
    """Return the relative error of the second model, and by how much its accuracies are above those of the first."""
    errors = [1 - _right(result["per_image/prediction"], result["per_image/label"]) for result in (second, first)]
    outcomes = [np.c_[_natural(result), result["per_image/right"].astype(np.float64)] for result in (second, first)]
    means = dict(
        zip(["natural", *list_places(first, "group")], finite_column_means(np.subtract(*outcomes)), strict=True)
    )
    return {
        "model": second.model_name,
        "relative mCE": ratio_of_means(*errors).percent(),
        **{name: Interval(*mean).points() for name, mean in means.items() if np.isfinite(mean[0])},
    }


def _costs(result: Result) -> Array:
    """Return whether the natural image is right, less the share of severities at which it is (N, corruption)."""
    return _natural(result)[:, None] - _right(result["per_image/prediction"], result["per_image/label"])


def _natural(result: Result) -> Array:
    """Return whether natural images are right (N,), as 0 and 1."""
    is_right: Array = (result["per_image/prediction_natural"] == result["per_image/label"]).astype(np.float64)
    return is_right


ANALYSIS = Analysis(
    SCHEMA, CorruptionSettings, rows, summarize, table_row, axes=axes, examples=examples, compare=compare
)
