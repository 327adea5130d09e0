"""The gallery: the first images of a split with each model's attention, gradient map, answers and scores.

Pictures of one kind and one model are one sheet, whose places the page shows one by one. Gradient maps are
compressed as JPEG; the numbers are in the files.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image

from interpret_robust.attribution.scale_rules import as_image
from interpret_robust.core.arrays import AnyArray
from interpret_robust.results.attack_outcomes import find_headline, list_readings
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import find_weights, label, tell_apart
from interpret_robust.study.report import commands
from interpret_robust.study.report.embedding import make_data_url

MOST_IMAGES = 120
"""Images of the gallery: the first ones of the split."""

COLUMNS = 12
"""Places in a row of a sheet."""


@dataclass(frozen=True)
class Score:
    """A number for each image and model to sort by: `values` finds it for the first images of a file."""

    label: str
    analysis: str
    values: Callable[[Result, int], AnyArray]


def _column(name: str, place: str | None = None) -> Callable[[Result, int], AnyArray]:
    """Return the first rows of a column; where it holds several maps, of the one called `place`."""

    def values(result: Result, count: int) -> AnyArray:
        rows = result.first(f"per_image/{name}", count)
        return rows if place is None else rows[:, result["map"].tolist().index(place)]

    return values


def _margin_natural(result: Result, count: int) -> AnyArray:
    margins: AnyArray = result.first("per_image/margin_natural", count)[:, 0]
    return margins


def _margin_under_attack(result: Result, count: int) -> AnyArray:
    return _adversarial_result(result, "margin", count)


def _adversarial_result(result: Result, column: str, count: int) -> AnyArray:
    """Return what a source says of its first adversarial images, by the first restart of the headline's reading,
    (N,).
    """
    name = find_headline(result)
    assert name is not None  # see _beside
    place = list_readings(result).index(name)
    values: AnyArray = result.first(f"per_image/{column}", count)[:, 0, place, 0]
    return values


def _read_by(result: Result, count: int) -> AnyArray:
    """Return the share of evaluators that see the true class in -g, by the clip rule."""
    cell = {"target": "true", "rule": "clip", "sign": "minus"}
    places = tuple(result[axis].tolist().index(name) for axis, name in cell.items())
    answers = result.first("per_image/evaluator_prediction", count)[(slice(None), slice(None), *places)]
    share: AnyArray = (answers == result.first("per_image/label", count)[:, None]).mean(1)
    return share


SCORES = (
    Score("margin of the true class", "robustness", _margin_natural),
    Score("margin under attack", "robustness", _margin_under_attack),
    Score("Spearman (Figure 2)", "attention-rank", _column("spearman")),
    Score("positions attended", "attention-rank", _column("effective_positions")),
    Score("weights on the object", "localization", _column("share", "weights")),
    Score("gradient on the object", "localization", _column("share", "gradient")),
    Score("gradient along edges", "alignment", _column("edge_cosine")),
    Score("evaluators that read the map", "gradmap-score", _read_by),
)


def make_gallery(results: Sequence[Result]) -> dict[str, Any] | None:
    """Return the gallery's images, models, sheets and scores; None without gradient maps, whose files hold the images.

    It is of the dataset that comes first, and there of the images that most models' maps were made of. Of several files
    of one analysis and one model it shows the one with the fewest settings changed.
    """
    results = tell_apart(results)
    maps = _most_shared([result for result in results if result.analysis == "gradient-maps"])
    if not maps:
        return None
    count = min(MOST_IMAGES, maps[0].count)
    models = [_Model(maps_of_model, _pair(maps_of_model, results), count) for maps_of_model in maps]
    return {
        "of": maps[0].config["data"],
        "count": count,
        "rows": math.ceil(count / COLUMNS),
        "image": make_data_url(_sheet(maps[0].first("per_image/image", count)), "PNG", optimize=True),
        "sheets": [model.sheets() for model in models],
        "told": {
            "columns": COLUMNS,
            "classes": maps[0].job["class_names"],
            "labels": maps[0].first("per_image/label", count).tolist(),
            "scores": [score.label for score in SCORES],
            "models": [model.describe() for model in models],
        },
    }


@dataclass(frozen=True)
class _Model:
    """What the gallery shows of one model: its file of gradient maps, those of other analyses by name, and how many."""

    maps: Result
    other_files: Mapping[str, Result]
    count: int

    def describe(self) -> dict[str, Any]:
        """Return answers and scores as JSON can hold them; None where there is no file of them."""
        robustness, rank = self.other_files.get("robustness"), self.other_files.get("attention-rank")
        return {
            "name": label(self.maps),
            "clean": self.maps.first("per_image/prediction", self.count).tolist(),
            "adversarial": robustness and _adversarial_result(robustness, "prediction", self.count).tolist(),
            "weights": rank and find_weights(rank),
            "largest": rank and f"{_largest(self._weights(rank)):.2g}",
            "uniform": rank and f"{1 / math.prod(rank.config['local_grid']):.2g}",
            "scores": [self._scores(score) for score in SCORES],
        }

    def sheets(self) -> dict[str, str]:
        """Return the sheets of its gradient maps by the clip rule and, where there is a file of it, of its
        attention.
        """
        maps = torch.from_numpy(self.maps.first("per_image/map", self.count).astype(np.float32))
        views = (255 * as_image(maps, "clip", 0.0)).round().byte().permute(0, 2, 3, 1).numpy()
        sheets = {"gradient": make_data_url(_sheet(views), "JPEG", quality=90, subsampling=0)}
        if rank := self.other_files.get("attention-rank"):
            weights = self._weights(rank)
            shade = mpl.colormaps["viridis"].with_extremes(bad="gray")
            colors = shade(np.ma.masked_invalid(weights / _largest(weights)), bytes=True)[..., :3]
            tiles = colors.reshape(len(weights), *rank.config["local_grid"], 3)
            sheets["attention"] = make_data_url(_sheet(tiles), "PNG", optimize=True)
        return sheets

    def _weights(self, rank: Result) -> AnyArray:
        return rank.first("per_image/attention", self.count)

    def _scores(self, score: Score) -> list[float | None] | None:
        if score.analysis not in self.other_files:
            return None
        values = score.values(self.other_files[score.analysis], self.count).astype(np.float64)
        return [round(value, 4) if math.isfinite(value) else None for value in values.tolist()]


def _largest(weights: AnyArray) -> float:
    """Return the largest weight that is a number; 1 where none is."""
    return float(np.nanmax(weights)) if np.isfinite(weights).any() else 1.0


def _most_shared(maps: Sequence[Result]) -> list[Result]:
    """Return one file of gradient maps a model, all of the images of the first dataset that most models have."""
    by_data: dict[str, dict[str, Result]] = {}
    first = [result for result in maps if result.data["dataset"] == maps[0].data["dataset"]]
    for result in sorted(first, key=_changes):
        by_data.setdefault(result.config["data"]["sha256"], {}).setdefault(result.model_id, result)
    models = max(by_data.values(), key=len, default={})
    return [result for result in maps if result in models.values()]


def _pair(maps: Result, results: Sequence[Result]) -> dict[str, Result]:
    """Return files of other analyses of the same model that begin with the same images, by the analysis.

    Attacks only if any was read.
    """
    by_question: dict[str, Result] = {}
    for result in sorted(results, key=_changes):
        name = result.analysis
        is_of_model = (result.model_id, result.recalibration) == (maps.model_id, maps.recalibration)
        is_same = is_of_model and begins_alike(result, maps)
        if is_same and (name != "robustness" or find_headline(result)):
            by_question.setdefault(name, result)
    return by_question


def begins_alike(result: Result, maps: Result) -> bool:
    """Return whether the first images of a file are those of `maps`: of one split, with the same labels in its order.

    Files of 100 and of 1,000 images join so; a limit draws the beginning of what a larger one does.
    """
    if result.data == maps.data:
        return True
    data = [[entry.data[key] for key in ("dataset", "split")] for entry in (result, maps)]
    if data[0] != data[1] or result.count < maps.count:
        return False
    labels = [entry.first("per_image/label", maps.count) for entry in (result, maps)]
    return bool((labels[0] == labels[1]).all())


def _changes(result: Result) -> int:
    return len(commands.list_changes(result)) + (result.recalibration != "none")


def _sheet(tiles: AnyArray) -> Image.Image:
    """Return tiles (N, H, W, C) uint8, row by row in COLUMNS; places without a tile are black."""
    count, height, width, channels = tiles.shape
    rows = math.ceil(count / COLUMNS)
    places = np.zeros((rows * COLUMNS, height, width, channels), np.uint8)
    places[:count] = tiles
    sheet = places.reshape(rows, COLUMNS, height, width, channels).swapaxes(1, 2)
    pixels = sheet.reshape(rows * height, COLUMNS * width, channels)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
