"""How accurate is a model on natural and on adversarial images? (white-box PGD; Tables 1 to 3, 5 and 6)"""

from typing import Any

import torch

from interpret_robust.attacks import AttackSettings, margin_loss
from interpret_robust.datasets import Split
from interpret_robust.models import Classifier
from interpret_robust.results import AnyArray, Columns, Result
from interpret_robust.schema import Column, Schema, interval
from interpret_robust.statistics import Interval, wilson
from interpret_robust.streaming import Analysis, Batch, to_numpy

SCHEMA = Schema(
    name="robustness",
    version=1,
    per_image=(
        Column("per_image/label", "i2", "true class"),
        Column("per_image/prediction_natural", "i2", "predicted class of the natural image"),
        Column("per_image/prediction_adversarial", "i2", "predicted class of the adversarial image"),
        Column("per_image/margin_natural", "f4", "true logit minus the best other, natural image"),
        Column("per_image/margin_adversarial", "f4", "true logit minus the best other, adversarial image"),
        Column("per_image/perturbation", "f4", "largest pixel change, in units of pixels in [0, 1]"),
    ),
    summary=(
        interval("accuracy/natural", "share of natural images classified rightly, with Wilson 95 % interval"),
        interval("accuracy/adversarial", "the same of adversarial images"),
    ),
    groups={
        "accuracy": {
            "NX_class": "NXdata",
            "signal": "adversarial",
            "axes": "of",
            "title": "Accuracy on adversarial images",
        }
    },
)


def rows(model: Classifier, batch: Batch, attack: AttackSettings) -> dict[str, AnyArray]:
    """Outcomes of one batch."""
    adversarial = attack(model, batch.images, batch.labels, batch.indices)
    columns = {
        "label": batch.labels,
        "perturbation": (adversarial - batch.images).abs().amax((1, 2, 3)),
    }
    with torch.no_grad():
        for name, images in (("natural", batch.images), ("adversarial", adversarial)):
            logits = model(images)
            columns[f"prediction_{name}"] = logits.argmax(1)
            columns[f"margin_{name}"] = -margin_loss(logits, batch.labels)
    return {f"per_image/{name}": to_numpy(values) for name, values in columns.items()}


def summarise(arrays: Columns, _: Split) -> dict[str, Any]:
    """Accuracies with their intervals, each (value, low, high)."""
    labels = arrays["per_image/label"]
    return {
        f"accuracy/{name}": wilson(int((arrays[f"per_image/prediction_{name}"] == labels).sum()), len(labels))
        for name in ("natural", "adversarial")
    }


def table_row(result: Result) -> dict[str, str]:
    """Natural and adversarial accuracy of a finished file."""
    return {
        "natural": Interval(*result["accuracy/natural"]).percent(),
        f"PGD-{result.config['settings']['steps']}": Interval(*result["accuracy/adversarial"]).percent(),
        "images": str(result.count),
    }


ANALYSIS = Analysis(SCHEMA, AttackSettings, rows, summarise, table_row)
