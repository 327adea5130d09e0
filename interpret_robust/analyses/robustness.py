"""How accurate is a model on natural images and under attack, white-box and transferred? (Tables 1 to 3, 5 and 6)

The model is the source: one trajectory of PGD on the cross-entropy and one on the margin (the paper's CW) start from
it, and are read at several numbers of steps. Each reading is classified by the source itself, which gives the
white-box rows of its column of the paper's table, and by its copies, of whose columns it gives the black-box rows.
Nothing is attacked twice: at the default settings an image costs 300 gradients of the source.

With `apgd`, APGD-CE and then APGD-T are read after them. APGD-CE attacks every image. APGD-T is for the worst case: it
attacks the images that the source has had right so far, on the natural image and on all readings and restarts before
it. Of each other image its reading holds the last of these that the source had wrong, so that the white-box accuracy
of the reading is that of the worst case, and the targets read what broke the source.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from interpret_robust.analyses.engine.analysis import Analysis
from interpret_robust.analyses.engine.settings import BallSettings
from interpret_robust.analyses.engine.work import Work
from interpret_robust.attacks.adversarial import check_adversarial
from interpret_robust.attacks.apgd import APGD, TARGETED_CLASSES, TargetedAPGD, check_apgd
from interpret_robust.attacks.noise import per_image_noise
from interpret_robust.attacks.settings import LossName
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import UserError
from interpret_robust.core.intervals import Interval, rates
from interpret_robust.core.parsing import format_part
from interpret_robust.datasets import Split
from interpret_robust.datasets.batches import Batch, to_numpy
from interpret_robust.models import Classifier
from interpret_robust.models.classifier import predict_classes
from interpret_robust.models.losses import margin_loss
from interpret_robust.results.attack_comparison import make_comparisons
from interpret_robust.results.attack_outcomes import count_gradients, find_headline, list_readings
from interpret_robust.results.columns import Axes, Columns
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.schema import Column, Schema, describe_plot, interval

ROW = ("restart", "reading", "target")

SCHEMA = Schema(
    name="robustness",
    version=2,
    per_image=(
        Column("per_image/label", "i2", "true class"),
        Column("per_image/prediction_natural", "i2", "class that the target predicts, natural image", ("target",)),
        Column("per_image/margin_natural", "f4", "true logit minus the best other, natural image", ("target",)),
        Column("per_image/prediction", "i2", "class that the target predicts, adversarial image of the source", ROW),
        Column("per_image/margin", "f4", "true logit minus the best other, adversarial image", ROW),
        Column("per_image/perturbation", "f4", "largest pixel change, in units of pixels in [0, 1]", ROW[:2]),
        Column("per_image/perturbation_l2", "f4", "L2 norm of the change, same units", ROW[:2]),
        Column("per_image/gradients", "i4", "gradients of the source taken for this image, all rows together"),
    ),
    summary=(
        interval("accuracy/natural", "share of natural images classified rightly, Wilson 95 %", "target"),
        interval(
            "accuracy/adversarial", "share right under a reading at every restart, Wilson 95 %", "reading", "target"
        ),
        interval("accuracy/worst", "share right on the natural image and all readings and restarts", "target"),
    ),
    groups={"accuracy": describe_plot("worst", "target:of", "Worst-case accuracy")},
)


class _Trajectory(NamedTuple):
    """One attack of the table: what people call it, its loss, the purpose of its starts' random numbers."""

    name: str
    loss: LossName
    purpose: int


TRAJECTORIES = {"pgd": _Trajectory("PGD", "cross-entropy", 0), "cw": _Trajectory("CW", "margin", 3)}
"""By the setting that names their readings. PGD starts where that of every other analysis does."""

APGD_NAMES = "APGD-CE", "APGD-T"
APGD_PURPOSES = 4, 5
"""Of the random numbers of APGD-CE's and APGD-T's starts."""


@dataclass(frozen=True)
class TableSettings(BallSettings):
    """Which attacks are read at which steps."""

    pgd: str = field(default="5,20,100,200", metadata={"help": "Numbers of steps of PGD, or none."})
    cw: str = field(default="30,100", metadata={"help": "Numbers of steps of CW (PGD on the margin), or none."})
    apgd: str = field(
        default="none",
        metadata={"help": "Add APGD-CE and APGD-T of so many steps to the worst case, such as 100.", "newer": "none"},
    )
    restarts: int = field(default=1, metadata={"help": "Random starts of each attack."})

    def resolve(self, job: Mapping[str, Any]) -> Self:
        """Resolve as settings of any ball, the steps in order. Raises UserError also where these are no numbers of
        steps.
        """
        settings = super().resolve(job)
        if settings.restarts < 1:
            raise UserError(f"restarts is {settings.restarts}: there must be at least one.")
        if steps := settings.apgd_steps():
            assert settings.eps is not None
            check_apgd(settings.eps, steps, settings.norm_name)
        pgd, cw = (",".join(map(str, steps)) or "none" for steps in settings.steps().values())
        return replace(settings, pgd=pgd, cw=cw, apgd=str(settings.apgd_steps() or "none"))

    def steps(self) -> dict[str, list[int]]:
        """Return the steps at which each trajectory is read, rising; none of a trajectory that is not wanted."""
        return {name: _steps(name, getattr(self, name)) for name in TRAJECTORIES}

    def apgd_steps(self) -> int | None:
        """Return the steps of APGD-CE, and of APGD-T towards each class; None where neither is wanted."""
        steps = _steps("apgd", self.apgd)
        if len(steps) > 1:
            raise UserError(f"apgd: '{self.apgd}' are several numbers of steps: give one, such as 100, for APGD.")
        return steps[0] if steps else None

    def readings(self) -> tuple[str, ...]:
        """Return text such as `PGD-5`, `PGD-20`, `CW-30`, `APGD-CE-100`, `APGD-T-100`."""
        names = [f"{TRAJECTORIES[name].name}-{step}" for name, steps in self.steps().items() for step in steps]
        steps = self.apgd_steps()
        return (*names, *(f"{name}-{steps}" for name in APGD_NAMES if steps))


def _steps(name: str, text: str) -> list[int]:
    if text.strip() == "none":
        return []
    try:
        steps = sorted({int(part) for part in text.split(",")})
    except ValueError:
        steps = [0]
    if steps[0] < 1:
        raise UserError(f"{name}: '{text}' is no list of steps: give numbers from 1 on, such as 5,20, or none.")
    return steps


class Context(NamedTuple):
    """The settings, and the models beside the source that read what its trajectories give."""

    settings: TableSettings
    evaluators: Mapping[str, Classifier]


def prepare(work: Work) -> Context:
    """Return the `Context` of a run. Raises UserError for APGD-T of fewer classes than it compares."""
    classes = len(work.dataset.class_names)
    if work.settings.apgd_steps() and classes < TARGETED_CLASSES:
        raise UserError(
            f"{work.dataset.name} has {classes} classes, and APGD-T needs {TARGETED_CLASSES}: leave --apgd out."
        )
    return Context(work.settings, work.evaluators)


def axes(work: Work) -> Axes:
    """Return readings, restarts and targets, the source itself first."""
    settings: TableSettings = work.settings
    names = (work.config["checkpoint"]["name"], *work.config.get("evaluators", {"names": ()})["names"])
    return {"reading": settings.readings(), "restart": settings.restarts, "target": names}


class _Record:
    """What the targets answered to the adversarial images of a batch, as it grows.

    Attributes:
        right: the images (N,) that the source, the first target, has had right so far.
        last_broken: of each other image the last that the source had wrong (N, C, H, W).
    """

    def __init__(self, targets: Sequence[Classifier], batch: Batch, settings: TableSettings) -> None:
        shape = (len(batch.indices), settings.restarts, len(settings.readings()))
        self._targets, self._batch = targets, batch
        self.columns: dict[str, AnyArray] = {
            "prediction": np.zeros((*shape, len(targets)), np.int16),
            "margin": np.zeros((*shape, len(targets)), np.float32),
            "perturbation": np.zeros(shape, np.float32),
            "perturbation_l2": np.zeros(shape, np.float32),
        }
        natural = [_read(target, batch.images, batch.labels) for target in targets]
        for name in ("prediction", "margin"):
            self.columns[f"{name}_natural"] = np.stack([answers[name] for answers in natural], axis=-1)
        self.right = torch.ones_like(batch.labels, dtype=torch.bool)
        self.last_broken = batch.images
        self._sort_out(batch.images, natural[0]["prediction"])

    def note(self, restart: int, reading: int, adversarial: Tensor) -> None:
        """Record what the targets answer at this place, and how far the images (N, C, H, W) are from the natural
        ones.
        """
        place = (slice(None), restart, reading)
        difference = (adversarial - self._batch.images).flatten(1)
        self.columns["perturbation"][place] = to_numpy(difference.abs().amax(1))
        self.columns["perturbation_l2"][place] = to_numpy(torch.linalg.vector_norm(difference, dim=1))
        for index, target in enumerate(self._targets):
            for name, values in _read(target, adversarial, self._batch.labels).items():
                self.columns[name][(*place, index)] = values
        self._sort_out(adversarial, self.columns["prediction"][(*place, 0)])

    def _sort_out(self, images: Tensor, prediction: AnyArray) -> None:
        wrong = torch.from_numpy(prediction.astype(np.int64)).to(self._batch.labels.device) != self._batch.labels
        self.right = self.right & ~wrong
        self.last_broken = torch.where(wrong[:, None, None, None], images, self.last_broken)


def rows(model: Classifier, batch: Batch, context: Context) -> dict[str, AnyArray]:
    """Return outcomes of one batch."""
    settings = context.settings
    record = _Record([model, *context.evaluators.values()], batch, settings)
    counter = torch.zeros(len(batch.indices), dtype=torch.int64, device=batch.images.device)
    for restart, reading, adversarial in _readings(model, batch, settings, counter):
        record.note(restart, reading, adversarial)
    gradients = to_numpy(counter)
    if settings.apgd_steps():
        gradients = gradients + _note_apgd(model, batch, settings, record)
    columns = {"label": to_numpy(batch.labels), **record.columns, "gradients": gradients}
    return {f"per_image/{name}": values for name, values in columns.items()}


def _readings(
    model: Classifier, batch: Batch, settings: TableSettings, counter: Tensor
) -> Iterator[tuple[int, int, Tensor]]:
    """Yield restart, reading and adversarial images (N, C, H, W) of the trajectories; count the gradients taken."""
    first = 0
    for name, steps in settings.steps().items():
        attack = settings.attack(max(steps, default=0), TRAJECTORIES[name].loss)
        noise = per_image_noise(settings.seed, batch.indices, TRAJECTORIES[name].purpose)
        for restart in range(settings.restarts if steps else 0):
            for step, iterate in attack.iterates(model, batch.images, batch.labels, noise, steps, counter):
                adversarial = check_adversarial(model, iterate, batch.images, attack.eps, attack.norm)
                yield restart, first + steps.index(step), adversarial
        first += len(steps)


def _note_apgd(model: Classifier, batch: Batch, settings: TableSettings, record: _Record) -> AnyArray:
    """Attack with APGD-CE, then with APGD-T what is right so far; return how many gradients each image cost, (N,)."""
    steps = settings.apgd_steps()
    assert settings.eps is not None and steps
    noises = [per_image_noise(settings.seed, batch.indices, purpose) for purpose in APGD_PURPOSES]
    first = len(settings.readings()) - len(APGD_NAMES)
    gradient_counts = torch.zeros_like(batch.labels)
    for restart in range(settings.restarts):
        attack = APGD(settings.eps, steps, norm=settings.norm_name)
        adversarial, gradients = attack(model, batch.images, batch.labels, noises[0])
        record.note(restart, first, adversarial)
        gradient_counts += gradients
    for restart in range(settings.restarts):
        targeted = TargetedAPGD(settings.eps, steps, norm=settings.norm_name)
        adversarial, gradients = targeted(model, batch.images, batch.labels, noises[1], subset=record.right)
        record.note(restart, first + 1, torch.where(record.right[:, None, None, None], adversarial, record.last_broken))
        gradient_counts += gradients
    return to_numpy(gradient_counts)


@torch.no_grad()
def _read(target: Classifier, images: Tensor, labels: Tensor) -> dict[str, AnyArray]:
    """Return a target's answers (N,) and its margins (N,)."""
    logits = target(images)
    return {"prediction": to_numpy(predict_classes(logits)), "margin": to_numpy(-margin_loss(logits, labels))}


def summarize(arrays: Columns, _: Split) -> dict[str, Any]:
    """Return accuracies with their intervals, each (value, low, high)."""
    label = arrays["per_image/label"]
    natural = arrays["per_image/prediction_natural"] == label[:, None]
    is_right = (arrays["per_image/prediction"] == label[:, None, None, None]).all(1)
    return {
        "accuracy/natural": rates(natural),
        "accuracy/adversarial": rates(is_right),
        "accuracy/worst": rates(natural & is_right.all(1)),
    }


def table_row(result: Result) -> dict[str, str]:
    """Return white-box accuracies of a finished file, natural, by the headline's attack and in the worst case."""
    intervals = {"natural": result["accuracy/natural"][0]}
    if name := find_headline(result):
        intervals |= {name: result["accuracy/adversarial"][list_readings(result).index(name), 0]}
        intervals |= {"worst case": result["accuracy/worst"][0]}
    count = round(float(result["per_image/gradients"].mean()))
    is_total_known = not any(name.startswith("APGD-T") for name in list_readings(result))
    gradients = format_part(count, count_gradients(result) if is_total_known else count)
    percents = {name: Interval(*values).percent() for name, values in intervals.items()}
    return percents | {"images": str(result.count), "gradients an image": gradients}


ANALYSIS = Analysis(
    SCHEMA,
    TableSettings,
    rows,
    summarize,
    table_row,
    prepare=prepare,
    axes=axes,
    compare=make_comparisons,
    readers="copies",
)
