"""How accurate is a model under AutoAttack (standard), through torchattacks? (optional extra `autoattack`)

Croce & Hein 2020 (https://arxiv.org/abs/2003.01690): APGD on the cross-entropy, APGD on the targeted DLR loss, FAB
towards each of the likeliest other classes, and Square, a random search of 5000 queries that needs no gradient. Each
attacks only the images that are still right after those before it, so that the last accuracy is that of the worst
case of each image. `torchattacks.AutoAttack` takes 10 iterations where the paper and its leaderboard take 100
(https://github.com/Harry24k/adversarial-attacks-pytorch/issues/196): the four are put together here instead.

The library draws its random numbers for a batch at once, so that an image's outcome depends on its batch. The seed of
a batch depends on the setting and on the batch's first image: the same batch size gives the same file.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from interpret_robust.analyses.engine.analysis import Analysis
from interpret_robust.analyses.engine.settings import BallSettings, Settings
from interpret_robust.analyses.engine.work import Work
from interpret_robust.attacks.adversarial import check_adversarial
from interpret_robust.attacks.apgd import MOST_TARGETS
from interpret_robust.attacks.network import switch_batch_norm
from interpret_robust.attacks.norms import Ball, check_reach
from interpret_robust.attacks.settings import Norm
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import UserError, unknown
from interpret_robust.core.intervals import Interval, rate, rates
from interpret_robust.datasets import Split
from interpret_robust.datasets.batches import Batch, to_numpy
from interpret_robust.models import Classifier
from interpret_robust.models.classifier import predict_classes
from interpret_robust.models.losses import margin_loss
from interpret_robust.results import autoattack_tables
from interpret_robust.results.columns import Axes, Columns
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.schema import Column, Schema, describe_plot, interval
from interpret_robust.results.tables import Table

SCHEMA = Schema(
    name="autoattack",
    version=1,
    per_image=(
        Column("per_image/label", "i2", "true class"),
        Column("per_image/prediction_natural", "i2", "class of the natural image"),
        Column("per_image/prediction", "i2", "class after this attack and all before it", ("attack",)),
        Column("per_image/margin", "f4", "true logit minus the best other, after all attacks"),
        Column("per_image/perturbation", "f4", "length of the change in the ball's norm; 0 where no attack succeeded"),
    ),
    summary=(
        interval("accuracy/natural", "share of natural images classified rightly, Wilson 95 %"),
        interval("accuracy/after", "share right after this attack and all before it, Wilson 95 %", "attack"),
    ),
    groups={"accuracy": describe_plot("after", "attack:of", "Accuracy after each attack of AutoAttack")},
)

ITERATIONS, QUERIES = 100, 5000
"""Of the standard version."""


LIBRARY_NORMS: dict[Norm, str] = {"linf": "Linf", "l2": "L2"}
"""What the library calls the norms in which it has all four attacks."""


def _apgd_ce(library: Any, model: nn.Module, classes: int, **ball: Any) -> Any:  # noqa: ARG001
    return library.APGD(model, steps=ITERATIONS, loss="ce", **ball)


def _apgd_t(library: Any, model: nn.Module, classes: int, **ball: Any) -> Any:
    return library.APGDT(model, steps=ITERATIONS, n_classes=_aimed_at(classes), **ball)


def _fab_t(library: Any, model: nn.Module, classes: int, **ball: Any) -> Any:
    return library.FAB(model, steps=ITERATIONS, multi_targeted=True, n_classes=_aimed_at(classes), **ball)


def _square(library: Any, model: nn.Module, classes: int, **ball: Any) -> Any:  # noqa: ARG001
    return library.Square(model, n_queries=QUERIES, resc_schedule=False, **ball)


def _aimed_at(classes: int) -> int:
    """Return the number of classes that the library is told: it aims at all but one."""
    return min(classes, MOST_TARGETS + 1)


ATTACKS: dict[str, Callable[..., Any]] = {
    "apgd-ce": _apgd_ce,
    "apgd-t": _apgd_t,
    "fab-t": _fab_t,
    "square": _square,
}
"""The standard version, in its order, each from the library, a model, its classes, and the norm, eps and seed."""


@dataclass(frozen=True)
class AutoAttackSettings(Settings):
    """The ball, the attacks and their seed."""

    eps: float | None = field(default=None, metadata={"help": "Radius, such as 8/255. [default: that of training]"})
    attacks: str = field(default=",".join(ATTACKS), metadata={"help": "Attacks of AutoAttack to run, in this order."})
    seed: int = field(default=0, metadata={"help": "Seed of the attacks, from which each batch gets its own."})
    norm: str | None = field(
        default=None,
        metadata={
            "help": "Norm of --eps: linf or l2. [default: linf; without --eps, that of training]",
            "newer": "linf",
        },
    )

    def resolve(self, job: Mapping[str, Any]) -> Self:
        """Return these settings for a checkpoint's job.

        Raises UserError for another radius, norm, seed or attack than there is.
        """
        settings, ball = super().resolve(job), BallSettings(self.eps, norm=self.norm).resolve(job)
        if ball.norm_name not in LIBRARY_NORMS:
            raise UserError(
                f"norm is {ball.norm_name}: AutoAttack is run by torchattacks, which has all of its attacks in "
                f"{' and '.join(LIBRARY_NORMS)} alone; `irt evaluate` attacks in every norm."
            )
        names = [name.strip() for name in self.attacks.split(",")]
        for name in names:
            if name not in ATTACKS:
                raise unknown("attack", name, ATTACKS)
        return replace(settings, eps=ball.eps, norm=ball.norm, attacks=",".join(dict.fromkeys(names)))

    def names(self) -> tuple[str, ...]:
        """Return the attacks of resolved settings."""
        return tuple(self.attacks.split(","))

    def ball(self) -> Ball:
        """Return the ball of resolved settings."""
        return BallSettings(self.eps, norm=self.norm).ball()

    @property
    def norm_name(self) -> Norm:
        """Return the norm of resolved settings."""
        return BallSettings(norm=self.norm).norm_name


class AutoAttack(NamedTuple):
    """The attacks of resolved settings through the library, on a model of so many classes."""

    library: Any
    settings: AutoAttackSettings
    classes: int

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, first: int) -> list[Tensor]:
        """Return what is left of images (N, C, H, W) in [0, 1], from number `first` on, after each attack.

        An image is as it was until an attack changes the model's answer. Global random numbers and the model's mode
        are left as found.
        """
        seed = int(np.random.SeedSequence([self.settings.seed, first]).generate_state(1)[0])
        devices = [images.device] if images.device.type == "cuda" else []
        ball = {"norm": LIBRARY_NORMS[self.settings.norm_name], "eps": self.settings.ball().eps, "seed": seed}
        iterates, adversarial = [], images.contiguous()  # FAB views what it is given
        with torch.random.fork_rng(devices), switch_batch_norm(model, "eval"):
            for name in self.settings.names():
                attack = ATTACKS[name](self.library, model, self.classes, **ball)
                adversarial = _where_right(attack, model, adversarial, labels)
                iterates.append(adversarial)
        return iterates


@torch.no_grad()
def _where_right(attack: Any, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the images, attacked where the model is right, and changed where that succeeded."""
    (right,) = (predict_classes(model(images)) == labels).nonzero(as_tuple=True)
    if len(right) == 0:
        return images
    candidates = attack(images[right], labels[right]).detach()
    is_broken = predict_classes(model(candidates)) != labels[right]
    result = images.clone()
    result[right[is_broken]] = candidates[is_broken]
    return result


def prepare(work: Work) -> AutoAttack:
    """Return the attacks. Raises UserError without the library, and where the data have too few classes for APGD-T."""
    try:
        import torchattacks
    except ImportError:
        raise UserError(
            "AutoAttack needs an optional library, torchattacks: `pip install 'interpret-robust[autoattack]'`."
        ) from None
    classes = len(work.dataset.class_names)
    if classes < 4 and "apgd-t" in work.settings.names():
        raise UserError(
            f"apgd-t needs four classes and {work.dataset.name} has {classes}: use --attacks apgd-ce,fab-t,square."
        )
    channels, height, width = work.dataset.image_shape
    check_reach(work.settings.norm_name, work.settings.ball().eps, channels * height * width)
    if work.settings.norm_name == "l2" and "square" in work.settings.names():
        _check_square(torchattacks, (channels, height, width))
    return AutoAttack(torchattacks, work.settings, classes)


def _check_square(library: Any, shape: tuple[int, int, int]) -> None:
    """Raise UserError where the library's Square in L2 cannot place its windows in images (C, H, W): it is tried.

    See https://github.com/fra31/auto-attack/issues/95.
    """
    try:
        with torch.random.fork_rng([]):
            layer = nn.Linear(math.prod(shape), 2)
            layer.weight.data, layer.bias.data = torch.zeros_like(layer.weight), torch.tensor([1.0, 0.0])
            square = library.Square(nn.Sequential(nn.Flatten(), layer), norm="L2", eps=1.0, n_queries=1, seed=0)
            square(torch.zeros(1, *shape), torch.tensor([0]))  # which is right, so that the attack begins
    except (RuntimeError, ZeroDivisionError):
        raise UserError(
            f"torchattacks' square in L2 does not work on images of {shape[1]}x{shape[2]} pixels: use --attacks "
            "apgd-ce,apgd-t,fab-t, and `irt analyze masking` for a random search."
        ) from None


def axes(work: Work) -> Axes:
    """Return the attacks."""
    return {"attack": work.settings.names()}


def rows(model: Classifier, batch: Batch, attack: AutoAttack) -> dict[str, AnyArray]:
    """Return outcomes of one batch."""
    adversarial = attack(model, batch.images, batch.labels, batch.indices.start)
    ball = attack.settings.ball()
    last = check_adversarial(model, adversarial[-1], batch.images, ball.eps, attack.settings.norm_name)
    with torch.no_grad():
        natural, answers = model(batch.images), [model(images) for images in adversarial]
    columns = {
        "label": batch.labels,
        "prediction_natural": predict_classes(natural),
        "prediction": torch.stack([predict_classes(logits) for logits in answers], 1),
        "margin": -margin_loss(answers[-1], batch.labels),
        "perturbation": ball.length(last - batch.images).float(),
    }
    return {f"per_image/{name}": to_numpy(values) for name, values in columns.items()}


def summarize(arrays: Columns, _: Split) -> dict[str, Any]:
    """Return accuracies with their intervals, each (value, low, high)."""
    label = arrays["per_image/label"]
    right_after = arrays["per_image/prediction"] == label[:, None]
    return {
        "accuracy/natural": rate(arrays["per_image/prediction_natural"] == label),
        "accuracy/after": rates(right_after),
    }


def table_row(result: Result) -> dict[str, str]:
    """Return accuracies of a finished file, after each attack and those before it."""
    accuracies = dict(zip(result["attack"].tolist(), result["accuracy/after"], strict=True))
    intervals = {"natural": result["accuracy/natural"]} | {
        f"after {name}": values for name, values in accuracies.items()
    }
    return {name: Interval(*values).percent() for name, values in intervals.items()} | {"images": str(result.count)}


def compare(results: Sequence[Result]) -> list[Table]:
    """Return AutoAttack against our own worst case, for each model that has a file of both in one folder."""
    pairs = [(result, autoattack_tables.find_ours(result)) for result in results]
    tables = [
        {"model": result.model_name, **autoattack_tables.compare_with_ours(result, robustness).cells()}
        for result, robustness in pairs
        if robustness
    ]
    return (
        [Table(tables, "AutoAttack against our own worst case, on the same images in the same ball")] if tables else []
    )


ANALYSIS = Analysis(SCHEMA, AutoAttackSettings, rows, summarize, table_row, prepare=prepare, axes=axes, compare=compare)
