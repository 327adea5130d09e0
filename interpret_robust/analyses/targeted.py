"""Can an attack make a model predict a chosen class? (targeted PGD; the untargeted accuracy is that of `robustness`)

Each image has a target class, see `attacks.targets`. PGD goes down the loss towards it, from each restart, and of the
restarts the one with the largest margin of the target is kept. It succeeds where the target is the predicted class.
Images of the target class itself are left out of all shares.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch

from interpret_robust.analyses.engine.analysis import Analysis
from interpret_robust.analyses.engine.settings import AttackSettings
from interpret_robust.attacks.pgd import PGD
from interpret_robust.attacks.targets import check_rule, choose_targets
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.intervals import Interval, rates
from interpret_robust.datasets import Split
from interpret_robust.datasets.batches import Batch, to_numpy
from interpret_robust.models import Classifier
from interpret_robust.models.classifier import predict_classes
from interpret_robust.models.losses import margin_loss
from interpret_robust.results.columns import Columns
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.schema import Column, Schema, describe_plot, interval

SCHEMA = Schema(
    name="targeted",
    version=1,
    per_image=(
        Column("per_image/label", "i2", "true class"),
        Column("per_image/aim", "i2", "class that the attack aims at"),
        Column("per_image/prediction_natural", "i2", "predicted class of the natural image"),
        Column("per_image/prediction", "i2", "predicted class of the adversarial image"),
        Column("per_image/margin", "f4", "the aim's logit minus the best other, adversarial image"),
    ),
    summary=(
        interval(
            "share/aimed", "share of images of another class that are predicted as their aim, Wilson 95 %", "image"
        ),
        interval(
            "share/right",
            "share of images of another class than their aim that are classified rightly, Wilson 95 %",
            "image",
        ),
        Column("count/aimed", "i8", "number of images of another class than their aim: those that shares are of"),
    ),
    groups={"share": describe_plot("aimed", "image:of", "Share of images taken for the class that the attack aims at")},
    labels={"image": ("natural", "adversarial")},
)


@dataclass(frozen=True)
class TargetedSettings(AttackSettings):
    """The attack, and what it aims at."""

    targets: str = field(
        default="least-likely", metadata={"help": "Target class: least-likely, next, random, or a class such as 3."}
    )
    restarts: int = field(default=1, metadata={"help": "Random starts of the attack."})

    is_shared: ClassVar[bool] = False

    def resolve(self, job: Mapping[str, Any]) -> Self:
        """Resolve as the attack does. Raises UserError also for targets that there are not."""
        check_rule(self.targets)
        return super().resolve(job)

    def pgd(self) -> PGD:
        """Return the targeted attack of resolved settings. Raises UserError where they are out of range."""
        return replace(self.attack(self.steps), restarts=self.restarts, targeted=True)


def rows(model: Classifier, batch: Batch, settings: TargetedSettings) -> dict[str, AnyArray]:
    """Return targets and outcomes of one batch."""
    with torch.no_grad():
        natural = model(batch.images)
    aims = choose_targets(settings.targets, natural, batch.labels, settings.seed, batch.indices)
    adversarial = settings(model, batch.images, aims, batch.indices)
    with torch.no_grad():
        logits = model(adversarial)
    columns = {
        "label": batch.labels,
        "aim": aims,
        "prediction_natural": predict_classes(natural),
        "prediction": predict_classes(logits),
        "margin": -margin_loss(logits, aims),
    }
    return {f"per_image/{name}": to_numpy(values) for name, values in columns.items()}


def summarize(arrays: Columns, _: Split) -> dict[str, Any]:
    """Return shares with their intervals, each (value, low, high), of images whose aim is not their class."""
    label, aim = arrays["per_image/label"], arrays["per_image/aim"]
    places = label != aim
    predictions = np.stack([arrays["per_image/prediction_natural"], arrays["per_image/prediction"]], 1)[places]
    return {
        "share/aimed": rates(predictions == aim[places, None]),
        "share/right": rates(predictions == label[places, None]),
        "count/aimed": np.int64(places.sum()),
    }


def table_row(result: Result) -> dict[str, str]:
    """Return the shares of a finished file."""
    successes, right = result["share/aimed"], result["share/right"]
    shares = {"taken for the target": successes[1], "without an attack": successes[0], "still right": right[1]}
    return {
        "target": str(result.config["settings"]["targets"]),
        **{name: Interval(*values).percent() for name, values in (shares | {"natural": right[0]}).items()},
        "images": str(int(result["count/aimed"])),
    }


ANALYSIS = Analysis(SCHEMA, TargetedSettings, rows, summarize, table_row)
