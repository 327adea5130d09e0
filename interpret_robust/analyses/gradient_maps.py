"""What do gradients of the loss look like? (Figure 4: gradient maps, clipped and raw)

A map is the gradient of the cross-entropy of a target class with respect to the pixels in [0, 1], with its sign:
+g, the direction in which the loss rises, which is what the paper says it draws. What one sees depends on the scale
rule, so the file holds the maps themselves, and how much each rule clips and leaves visible.

A map is stored as g / max|g| in half precision beside max|g|: their product is g with an error of at most
2^-11 max|g| (the signed map of example images is such a product).
"""

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from interpret_robust.analyses.engine.analysis import Analysis
from interpret_robust.analyses.engine.selection import Selection
from interpret_robust.analyses.engine.settings import SourceSettings
from interpret_robust.analyses.engine.work import Work
from interpret_robust.attribution.gradients import compute_map, draw_targets
from interpret_robust.attribution.scale_rules import (
    RULES,
    Rule,
    as_image,
    find_degenerate,
    measure_deviation,
    pool_deviations,
    scale_maps,
    sum_moments,
)
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.bootstrap import column_means
from interpret_robust.core.intervals import Interval
from interpret_robust.core.parsing import format_number
from interpret_robust.datasets import Split
from interpret_robust.datasets.batches import Batch, to_numpy
from interpret_robust.models import Classifier
from interpret_robust.models.classifier import predict_classes
from interpret_robust.models.losses import cross_entropy
from interpret_robust.results.columns import Columns
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.schema import Column, Schema, describe_plot, interval

Target = Literal["true", "predicted", "random"]
RULES_BY_VIEW: dict[str, tuple[Rule, ...]] = {"clip": ("clip", "clip-set"), "raw": ("max", "min-max")}
QUANTILES = (0.0, 0.1, 0.5, 0.9, 1.0)

_MAP, _IMAGE = ("color", "y", "x"), ("y", "x", "color")
SCHEMA = Schema(
    name="gradient-maps",
    version=2,
    per_image=(
        Column("per_image/label", "i2", "true class"),
        Column("per_image/prediction", "i2", "predicted class"),
        Column("per_image/target", "i2", "class whose cross-entropy is differentiated"),
        Column("per_image/loss", "f4", "cross-entropy of the target class"),
        Column(
            "per_image/map",
            "f2",
            "g / max|g|, signed: a gradient is positive where a brighter pixel raises the loss",
            _MAP,
        ),
        Column("per_image/scale", "f4", "max|g|; map * scale is g with an error of at most 2^-11 max|g|"),
        Column("per_image/mean", "f4", "mean of the entries of g"),
        Column("per_image/deviation", "f4", "standard deviation of the entries of g about their mean"),
        Column("per_image/degenerate", "u1", "1 where g is zero everywhere: map and scale are then zero"),
        Column("per_image/saturated", "f4", "share of entries that the rule makes 0 or 1", ("rule",)),
        Column("per_image/contrast", "f4", "mean |v - 1/2| of the map as an image v in [0, 1]", ("rule",)),
        Column("per_image/image", "u1", "the image", _IMAGE),
    ),
    summary=(
        interval(
            "view/saturated",
            "mean share of entries that the rule makes 0 or 1, with bootstrap 95 % interval; max and min-max do so to "
            "the extreme entries of every map by construction",
            "rule",
        ),
        interval("view/contrast", "mean of per_image/contrast, with bootstrap 95 % interval; a zero map has 0", "rule"),
        Column("set/deviation", "f8", "standard deviation of the entries of all maps: the clip-set rule's"),
        Column("set/degenerate", "i8", "maps that are zero everywhere, shown as gray"),
        Column("scale/quantile", "f8", "quantiles over images of max|g|, zero maps among them", ("share",)),
        Column("examples/index", "i4", "images chosen by the settings; best is the lowest loss", ("example",)),
        Column("examples/label", "i2", "true class of the examples", ("example",)),
        Column("examples/prediction", "i2", "predicted class of the examples", ("example",)),
        Column("examples/target", "i2", "class whose cross-entropy is differentiated", ("example",)),
        Column("examples/scale", "f4", "max|g| of the examples", ("example",)),
        Column("examples/image", "u1", "the images", ("example", *_IMAGE)),
        Column("examples/map", "f4", "signed gradient g of the examples", ("example", *_MAP)),
        Column(
            "examples/view",
            "u1",
            "maps of the examples as images; zero is 128 but by min-max",
            ("example", "rule", *_IMAGE),
        ),
    ),
    groups={
        "examples": describe_plot("map", "example:color:y:x", "Gradient of the cross-entropy with respect to pixels"),
        "view": describe_plot("contrast", "rule:of", "Contrast of gradient maps under each scale rule"),
    },
    labels={"rule": RULES, "share": tuple(f"{share:.0%}" for share in QUANTILES)},
)


@dataclass(frozen=True)
class MapSettings(SourceSettings, Selection):
    """Of what a map is taken, and which are shown."""

    target: Target = field(
        default="true", metadata={"help": "Class whose loss is used; random is any class but the true one."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of random targets, and of a source with noise."})


class Context(NamedTuple):
    """The settings, and the standard deviation of the entries of all maps."""

    settings: MapSettings
    set_deviation: float


class Maps(NamedTuple):
    """Signed maps (N, C, H, W) of a batch, the classes (N,) they are of, and the logits (N, classes)."""

    maps: Tensor
    targets: Tensor
    logits: Tensor


def prepare(work: Work) -> Context:
    """Return the settings, and the common deviation of all maps, from a first pass over them."""
    work.settings.check(len(work.split))
    of_batches = work.over_batches(
        lambda batch: sum_moments(compute_signed_maps(work.model, batch, work.settings).maps), 3
    )
    return Context(work.settings, pool_deviations(of_batches))


def compute_signed_maps(model: Classifier, batch: Batch, settings: MapSettings) -> Maps:
    """Return the maps of one batch."""
    with torch.no_grad():
        logits = model(batch.images)
    match settings.target:
        case "true":
            targets = batch.labels
        case "predicted":
            targets = logits.argmax(1)
        case "random":
            targets = draw_targets(batch.labels, batch.indices, logits.shape[1], settings.seed)
    return Maps(
        compute_map(settings.source, model, batch.images, targets, batch.indices, settings.seed), targets, logits
    )


def rows(model: Classifier, batch: Batch, context: Context) -> dict[str, AnyArray]:
    """Return the maps of one batch, and what each rule makes of them."""
    maps, targets, logits = compute_signed_maps(model, batch, context.settings)
    unit, largest = scale_maps(maps)
    views = torch.stack([as_image(maps, rule, context.set_deviation).flatten(1) for rule in RULES], 1)
    columns = {
        "label": batch.labels,
        "prediction": predict_classes(logits),
        "target": targets,
        "loss": cross_entropy(logits, targets),
        "map": unit.half(),
        "scale": largest,
        "mean": largest * unit.mean((1, 2, 3)),
        "deviation": largest * measure_deviation(unit),
        "degenerate": find_degenerate(maps),
        "saturated": ((views == 0) | (views == 1)).float().mean(2),
        "contrast": (views - 0.5).abs().mean(2),
        "image": (255 * batch.images).round().permute(0, 2, 3, 1),
    }
    return {f"per_image/{name}": to_numpy(values) for name, values in columns.items()}


def summarize(columns: Columns, _: Split) -> dict[str, Any]:
    """Return what the rules do to the maps, on average, and how large maps are."""
    return {
        "view/saturated": column_means(columns["per_image/saturated"]),
        "view/contrast": column_means(columns["per_image/contrast"]),
        "set/deviation": _set_deviation(columns),
        "set/degenerate": int(columns["per_image/degenerate"].sum()),
        "scale/quantile": np.quantile(columns["per_image/scale"], QUANTILES),
    }


def examples(columns: Columns, split: Split, settings: MapSettings) -> dict[str, Any]:
    """Return the chosen images with their maps, signed and under each rule. No other map is read."""
    index = settings.indices(split.labels, -columns["per_image/loss"])
    scale = columns.rows_at("per_image/scale", index)
    maps = columns.rows_at("per_image/map", index).astype(np.float32) * scale[:, None, None, None]
    common = _set_deviation(columns)
    views = torch.stack([as_image(torch.from_numpy(maps), rule, common) for rule in RULES], 1)
    shown_columns = {name: columns.rows_at(f"per_image/{name}", index) for name in ("label", "prediction", "target")}
    shown_columns |= {"index": index, "scale": scale, "image": columns.rows_at("per_image/image", index), "map": maps}
    shown_columns["view"] = to_numpy((255 * views).round().movedim(2, 4))
    return {f"examples/{name}": values for name, values in shown_columns.items()}


def table_row(result: Result, *views: str) -> dict[str, str]:
    """Return how large gradients are, and what the rules of the chosen views make of them."""
    low, middle, high = result["scale/quantile"][1:4]
    spread = "" if np.isnan(middle) else f" [{low:.2g}, {high:.2g}]"
    row = {"max|g|, median [10 %, 90 %]": format_number(middle, ".2g") + spread}
    for place, rule in enumerate(RULES):
        if any(rule in RULES_BY_VIEW[view] for view in views or RULES_BY_VIEW):
            if rule in RULES_BY_VIEW["clip"]:
                row[f"{rule}: clipped"] = Interval(*result["view/saturated"][place]).percent()
            row[f"{rule}: contrast"] = Interval(*result["view/contrast"][place]).percent()
    row["zero maps"] = str(result["set/degenerate"])
    if constant := int(((result["per_image/deviation"] == 0) & (result["per_image/degenerate"] == 0)).sum()):
        row["constant maps"] = str(constant)
    return row | {"images": str(result.count)}


def _set_deviation(columns: Columns) -> float:
    """Return the standard deviation of all entries.

    Their variance is that within maps and that between the maps' means.
    """
    means, deviations = (columns[f"per_image/{name}"].astype(np.float64) for name in ("mean", "deviation"))
    return float(np.sqrt((deviations**2).mean() + means.var()))


ANALYSIS = Analysis(
    SCHEMA, MapSettings, rows, summarize, table_row, prepare=prepare, examples=examples, views=tuple(RULES_BY_VIEW)
)
