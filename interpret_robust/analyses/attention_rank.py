"""Does attention go to robust features? (Figure 2: attention weight against robustness rank)

For each image the positions of the local features are ranked by the L2 distance between their clean and
their adversarial feature, rank 0 the most robust. Distance grows with a feature's norm, and attention is
computed from the features, so the same correlation is also given for the relative distance.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interpret_robust.attacks import AttackSettings
from interpret_robust.datasets import Split
from interpret_robust.models import Classifier
from interpret_robust.results import AnyArray, Column, Result, Schema
from interpret_robust.statistics import Interval, bootstrap_mean, column_means, page_trend, row_spearman
from interpret_robust.streaming import Analysis, Batch, to_numpy

OBJECT_SHARE = 0.25
"""A position lies on the object where the mask covers at least this share of its pixels."""

SIGNIFICANT = 0.05
MOST_EXAMPLES = 10

_POSITION = ("position",)
SCHEMA = Schema(
    name="attention-rank",
    version=1,
    per_image=(
        Column("per_image/label", "i2", "true class"),
        Column("per_image/prediction_clean", "i2", "predicted class of the clean image"),
        Column("per_image/prediction_adversarial", "i2", "predicted class of the adversarial image"),
        Column("per_image/attention", "f4", "attention weight on the clean image, positions row-major", _POSITION),
        Column("per_image/attention_adversarial", "f4", "attention weight on the adversarial image", _POSITION),
        Column("per_image/distance", "f4", "L2 over channels between clean and adversarial local feature", _POSITION),
        Column("per_image/feature_norm", "f4", "L2 over channels of the clean local feature", _POSITION),
        Column("per_image/spearman", "f4", "Spearman of attention and robustness (minus distance) over positions"),
        Column("per_image/spearman_relative", "f4", "the same with distance / feature norm"),
        Column("per_image/attention_on_object", "f4", "clean attention on positions of the object; NaN without mask"),
        Column("per_image/object_area", "f4", "share of positions on the object; NaN without mask"),
    ),
    summary=(
        Column("curve/rank", "i4", "robustness rank, 0 the most robust", ("rank",)),
        Column("curve/attention_mean", "f8", "attention at this rank, mean over images", ("rank",)),
        Column("curve/attention_low", "f8", "lower end of its bootstrap 95 % interval", ("rank",)),
        Column("curve/attention_high", "f8", "upper end of its bootstrap 95 % interval", ("rank",)),
        Column("curve/uniform", "f8", "attention if all positions had the same"),
        Column("test/spearman", "f8", "mean per-image Spearman, bootstrap 95 % interval", ("of",)),
        Column("test/spearman_relative", "f8", "the same for relative distance", ("of",)),
        Column("test/undefined", "i8", "images without a correlation: constant attention or distance"),
        Column("test/page_more_robust", "f8", "Page's trend p: attention grows with robustness"),
        Column("test/page_less_robust", "f8", "Page's trend p: attention falls with robustness"),
        Column("object/attention", "f8", "mean attention on the object, bootstrap 95 % interval", ("of",)),
        Column("object/area", "f8", "mean share of positions on the object: what uniform attention would give"),
        Column("example/index", "i4", "chosen by rule: the first image of each of the first ten classes", ("example",)),
        Column("example/image", "u1", "the images", ("example", "height", "width", "channel")),
        Column("example/attention", "f4", "their clean attention", ("example", "position")),
        Column("example/spearman", "f4", "their Spearman", ("example",)),
    ),
    groups={
        "curve": {
            "NX_class": "NXdata",
            "signal": "attention_mean",
            "axes": "rank",
            "title": "Attention against robustness rank",
        }
    },
)


def rows(model: Classifier, batch: Batch, attack: AttackSettings) -> dict[str, AnyArray]:
    """Attention, distances and correlations of one batch."""
    adversarial = attack(model, batch.images, batch.labels, batch.indices)
    with torch.no_grad():
        clean, attacked = model.features(batch.images), model.features(adversarial)
        assert clean.attention is not None and attacked.attention is not None
        distance = to_numpy(position_norm(clean.local - attacked.local))
        norm = to_numpy(position_norm(clean.local))
        attention = to_numpy(clean.attention)
        columns = {
            "label": to_numpy(batch.labels),
            "prediction_clean": to_numpy(model.classifier(clean.pooled).argmax(1)),
            "prediction_adversarial": to_numpy(model.classifier(attacked.pooled).argmax(1)),
            "attention": attention,
            "attention_adversarial": to_numpy(attacked.attention),
            "distance": distance,
            "feature_norm": norm,
            "spearman": row_spearman(attention, -distance),
            "spearman_relative": row_spearman(attention, -relative(distance, norm)),
        }
    columns |= _on_object(attention, batch.masks, (clean.local.shape[2], clean.local.shape[3]))
    return {f"per_image/{name}": values for name, values in columns.items()}


def position_norm(local: Tensor) -> Tensor:
    """L2 norm over the channels of local features (N, C, H, W), positions row-major: (N, H*W)."""
    norm: Tensor = torch.linalg.vector_norm(local, dim=1)
    return norm.flatten(1)


def relative(distance: AnyArray, norm: AnyArray) -> AnyArray:
    """Distance over norm; where the norm is zero the distance itself."""
    return distance / np.where(norm > 0, norm, 1)


def attention_by_rank(attention: AnyArray, distance: AnyArray) -> AnyArray:
    """Attention (N, P) in the order of each image's distance, the smallest (most robust) first."""
    return np.take_along_axis(attention, np.argsort(distance, axis=1, kind="stable"), axis=1)


def object_positions(masks: AnyArray, grid: tuple[int, int]) -> AnyArray:
    """Which positions (N, H*W) of a grid lie on the object, from masks over pixels.

    A position stands for its rectangle of pixels, and is on the object where the mask covers at least
    OBJECT_SHARE of it.
    """
    count, height, width = masks.shape
    cells = masks.reshape(count, grid[0], height // grid[0], grid[1], width // grid[1])
    inside: AnyArray = cells.mean((2, 4)).reshape(count, -1) >= OBJECT_SHARE
    return inside


def summarise(arrays: Mapping[str, AnyArray], images: Split) -> dict[str, Any]:
    """The paper's curve, the tests, and example images."""
    attention = arrays["per_image/attention"]
    ranked = attention_by_rank(attention, arrays["per_image/distance"])
    mean, low, high = column_means(ranked)
    spearman = arrays["per_image/spearman"]
    examples = np.unique(images.labels, return_index=True)[1][:MOST_EXAMPLES]
    return {
        "curve/rank": np.arange(ranked.shape[1]),
        "curve/attention_mean": mean,
        "curve/attention_low": low,
        "curve/attention_high": high,
        "curve/uniform": 1 / ranked.shape[1],
        "test/spearman": bootstrap_mean(spearman),
        "test/spearman_relative": bootstrap_mean(arrays["per_image/spearman_relative"]),
        "test/undefined": int(np.isnan(spearman).sum()),
        "test/page_more_robust": page_trend(ranked[:, ::-1]).p_value,
        "test/page_less_robust": page_trend(ranked).p_value,
        "object/attention": bootstrap_mean(arrays["per_image/attention_on_object"]),
        "object/area": arrays["per_image/object_area"].mean(),
        "example/index": examples,
        "example/image": images.images[examples],
        "example/attention": attention[examples],
        "example/spearman": spearman[examples],
    }


def table_row(result: Result) -> dict[str, str]:
    """The correlation, the trend and the attention on the object of a finished file."""
    on_object = Interval(*result["object/attention"])
    row = {
        "Spearman": Interval(*result["test/spearman"]).plain(),
        "of relative distance": Interval(*result["test/spearman_relative"]).plain(),
        "attention goes to": _reading(result),
        "images": str(result.count),
    }
    if np.isfinite(on_object.value):
        row["attention on object"] = f"{on_object.percent()} (area {float(result['object/area']):.1%})"
    return row


def _reading(result: Result) -> str:
    """What both correlations and the trend say together, at the 5 % level."""
    intervals = [result[f"test/{name}"] for name in ("spearman", "spearman_relative")]
    if all(low > 0 for _, low, _ in intervals) and result["test/page_more_robust"] < SIGNIFICANT:
        return "more robust features"
    if all(high < 0 for _, _, high in intervals) and result["test/page_less_robust"] < SIGNIFICANT:
        return "less robust features"
    return "cannot tell"


def _on_object(attention: AnyArray, masks: AnyArray | None, grid: tuple[int, int]) -> dict[str, AnyArray]:
    if masks is None:
        unknown = np.full(len(attention), np.nan)
        return {"attention_on_object": unknown, "object_area": unknown}
    inside = object_positions(masks, grid)
    return {"attention_on_object": (attention * inside).sum(1), "object_area": inside.mean(1)}


ANALYSIS = Analysis(SCHEMA, AttackSettings, rows, summarise, table_row, needs_attention=True)
