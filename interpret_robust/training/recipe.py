"""Every number of a training run, as named presets. Each is a published recipe or one measured here."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from interpret_robust.attacks.settings import BatchNormMode, Norm, check_norm, check_numbers
from interpret_robust.core.errors import UserError, describe, unknown
from interpret_robust.core.parsing import parse_number
from interpret_robust.datasets.records import RECORDS
from interpret_robust.models.variants import Variant

if TYPE_CHECKING:
    from interpret_robust.attacks.pgd import PGD


def _field(meaning: str, default: Any = MISSING, **metadata: Any) -> Any:
    """Return a field of a recipe, with what it means; `newer` as in `core.configs.as_stored`."""
    return field(default=default, metadata={"help": meaning, **metadata})


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: every number of it. `list_meanings` says what each field is, as `irt recipes` prints it.

    Example:
        >>> PRESETS["quick"].epochs, list_meanings()["epochs"]
        (8, 'passes over the training images; an incomplete last batch is dropped')
    """

    name: str = _field("name of the preset")
    epochs: int = _field("passes over the training images; an incomplete last batch is dropped")
    batch_size: int = _field("images in a step")
    learning_rate: float = _field("largest learning rate of the schedule")
    optimizer: Literal["sgd", "adam"] = _field("sgd (with momentum) or adam", "sgd")
    schedule: Literal["one-cycle", "steps", "constant"] = _field(
        "one-cycle rises linearly to learning_rate and falls linearly to zero; steps divides it by ten at one half and "
        "at three quarters of training; or constant",
        "one-cycle",
    )
    warm_up: float = _field("share of the steps over which one-cycle rises", 0.25)
    momentum: float = _field("momentum of sgd", 0.9)
    weight_decay: float = _field("weight decay of convolution and matrix weights; biases and norms have none", 5e-4)
    norm: Norm = _field(  # noqa: RUF009 - it gives a field
        "norm of the attack's ball in training: linf, l2 or l1", "linf", newer="linf"
    )
    eps: float = _field("radius of the attack in training (Eq. 2), in pixel units", 8 / 255)
    attack_step: float = _field("step size of the attack in training", 2 / 255)
    attack_steps: int = _field("number of steps of the attack in training", 5)
    attack_batch_norm: BatchNormMode = _field(  # noqa: RUF009 - it gives a field
        "batch-norm statistics in the attack: eval uses the running ones, train those of the batch", "eval"
    )
    attack_precision: Literal["float32", "bfloat16"] = _field(
        "precision of the attack's gradients on a CPU: bfloat16 takes them from a copy of the network; weights, "
        "attacked images and the loss stay float32; a GPU computes in bfloat16 in either case",
        "float32",
        newer="float32",
    )
    eps_ramp: float = _field("share of the steps over which eps and attack_step grow linearly from zero", 0.0)
    weight_reg: float = _field("the lambda of Eq. 7 for at-reg", 0.1)
    weight_att_reg: float = _field("the lambda of Eq. 7 for at-att-reg", 0.01)
    pad: int = _field("pixels of zeros added around images before a random crop", 2)
    flip: bool = _field("whether half of the images are mirrored", False)
    ema: float | None = _field(
        "decay per step of the running mean of weights that becomes the model; none for the last weights", None
    )

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            _check_kind(name, value)
            if isinstance(value, float | int) and not 0 <= value < math.inf:
                text = f"{value:g}" if isinstance(value, float) else value  # whole numbers may be beyond all floats
                raise UserError(f"{name} is {text}: numbers of a recipe are finite and not negative.")
        if self.epochs < 1 or self.batch_size < 1:
            raise UserError(f"epochs {self.epochs}, batch size {self.batch_size}: both must be at least 1.")
        if not 0 <= self.eps_ramp <= 1 or not 0 <= self.warm_up < 1:
            raise UserError(f"eps_ramp {self.eps_ramp:g}, warm_up {self.warm_up:g}: shares of training lie in 0 to 1.")
        if self.ema is not None and not 0 < self.ema < 1:
            raise UserError(f"ema is {self.ema:g}: a decay per step lies between 0 and 1, such as 0.995.")
        if self.momentum >= 1:
            raise UserError(f"momentum is {self.momentum:g}: it is less than 1, such as 0.9, or training diverges.")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise unknown(name, getattr(self, name), choices)
        check_numbers(self.eps, self.attack_step, self.attack_steps, batch_norm=self.attack_batch_norm, norm=self.norm)

    def attack(self, share: float) -> "PGD":
        """Return the attack when `share` of the training steps are done."""
        from interpret_robust.attacks.pgd import PGD  # which loads torch

        growth = min(1.0, share / self.eps_ramp) if self.eps_ramp else 1.0
        return PGD(
            eps=self.eps * growth,
            step_size=self.attack_step * growth,
            steps=self.attack_steps,
            batch_norm=self.attack_batch_norm,
            norm=self.norm,
        )

    def rate(self, share: float) -> float:
        """Return the learning rate when `share` of the training steps are done."""
        match self.schedule:
            case "constant":
                return self.learning_rate
            case "steps":
                return self.learning_rate * (1.0 if share < 0.5 else 0.1 if share < 0.75 else 0.01)
            case "one-cycle":
                growth = share / self.warm_up if self.warm_up else 1.0
                return self.learning_rate * min(growth, (1 - share) / (1 - self.warm_up))

    def feature_weight(self, variant: Variant) -> float:
        """Return the lambda of Eq. 7 for a variant; zero without regularization."""
        if not variant.regularized:
            return 0.0
        return self.weight_att_reg if variant.has_attention else self.weight_reg


def _check_kind(name: str, value: Any) -> None:
    """Raise UserError where a program gives a field that holds a number, or True or False, something else."""
    if KINDS.get(name) not in NUMBERS:
        return
    kind, right = NUMBERS[KINDS[name]]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{name} is {describe(value)}: give {right}.")


KINDS = {name: kind for name, kind in get_type_hints(Recipe).items() if name != "name"}
"""The type of each field that `--set` can change."""

NUMBERS: dict[Any, tuple[Any, str]] = {
    bool: (bool, "True or False"),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    float | None: (Real | None, "a number or None"),
}
"""By the type of a field, what it may hold, and what a sentence calls this."""

CHOICES: dict[str, tuple[str, ...]] = {
    name: get_args(kind) for name, kind in KINDS.items() if get_origin(kind) is Literal
}
"""What fields can be that are no numbers."""

PRESETS = {
    recipe.name: recipe
    for recipe in (
        # Measured here on cluttered-digits with `small`: README, "What it prints".
        Recipe("quick", epochs=8, batch_size=64, learning_rate=0.1, attack_step=5 / 255, attack_steps=2, eps_ramp=0.4),
        # github.com/MadryLab/cifar10_challenge, with the paper's attack of 5 steps of 2/255. 205 epochs of
        # 390 steps are 79,950 of the challenge's 80,000.
        Recipe(
            "paper",
            epochs=205,
            batch_size=128,
            learning_rate=0.1,
            schedule="steps",
            weight_decay=2e-4,
            attack_batch_norm="train",
            flip=True,
        ),
        # github.com/locuslab/fast_adversarial (Wong, Rice & Kolter 2020), CIFAR-10 PGD-7 with the cyclic rate
        # of 40 epochs: 82.46 % natural, 50.69 % PGD-50-10 on PreAct ResNet-18.
        Recipe(
            "fast",
            epochs=40,
            batch_size=128,
            learning_rate=0.2,
            warm_up=0.4,
            attack_steps=7,
            attack_batch_norm="train",
            pad=4,
            flip=True,
        ),
        # github.com/MadryLab/mnist_challenge: 83 epochs of 1,200 steps are 99,600 of its 100,000.
        Recipe(
            "mnist",
            epochs=83,
            batch_size=50,
            learning_rate=1e-4,
            optimizer="adam",
            schedule="constant",
            weight_decay=0.0,
            eps=0.3,
            attack_step=0.01,
            attack_steps=40,
            weight_reg=0.01,
            weight_att_reg=0.01,
            pad=0,
        ),
        # Measured here: the challenge's network and radius in a fiftieth of its time, for two cores.
        Recipe(
            "mnist-quick",
            epochs=4,
            batch_size=100,
            learning_rate=3e-3,
            optimizer="adam",
            warm_up=0.4,
            weight_decay=0.0,
            eps=0.3,
            attack_step=0.1,
            attack_steps=4,
            eps_ramp=0.3,
            weight_reg=0.01,
            weight_att_reg=0.01,
            pad=0,
        ),
        # Measured here: CIFAR-10 with `small` on two cores, docs/results.md.
        Recipe(
            "cifar-quick",
            epochs=16,
            batch_size=128,
            learning_rate=0.1,
            attack_step=5 / 255,
            attack_steps=2,
            eps_ramp=0.4,
            flip=True,
        ),
    )
}


# Without batch norm the network of the MNIST challenge does not learn at the rate of `quick`.
QUICK_CNN: dict[str, Any] = {"optimizer": "adam", "learning_rate": 2e-3, "epochs": 10}


def choose_preset(name: str, architecture: str) -> Recipe:
    """Return the recipe called `name` for an architecture. Raises UserError for an unknown name."""
    if name not in PRESETS:
        raise unknown("recipe", name, PRESETS)
    is_quick_cnn = name in ("quick", "cifar-quick") and architecture == "cnn"
    return replace(PRESETS[name], **(QUICK_CNN if is_quick_cnn else {}))


def fit_dataset(recipe: Recipe, dataset: str) -> Recipe:
    """Return a recipe without mirrored or cropped images where those of the dataset may not be."""
    if record := RECORDS.get(dataset):
        return replace(recipe, flip=recipe.flip and record.can_flip, pad=recipe.pad if record.can_crop else 0)
    return recipe


def change(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Return a recipe with other values of some fields. In another norm, steps keep their share of the radius.

    Raises UserError for values out of range, and for another norm without a radius.

    Example:
        >>> change(PRESETS["quick"], {"norm": "l2", "eps": 0.5}).attack_step
        0.3125
    """
    if changes.get("norm", recipe.norm) != recipe.norm:
        check_norm(changes["norm"])
        if "eps" not in changes:
            raise UserError(f"norm is {changes['norm']}: give a radius in it too, such as eps=0.5.")
        if "attack_step" not in changes:
            if not recipe.eps:
                raise UserError(f"norm is {changes['norm']}, and eps of the recipe is 0: give attack_step too.")
            changes = {"attack_step": changes["eps"] * (recipe.attack_step / recipe.eps), **changes}
    return replace(recipe, **changes)


def choose_default_preset(dataset: str) -> str:
    """Return the preset of a dataset's record, `paper` for data from elsewhere."""
    return RECORDS[dataset].recipe if dataset in RECORDS else "paper"


def list_meanings() -> dict[str, str]:
    """Return what each field of a recipe means that `--set` can change."""
    return {entry.name: entry.metadata["help"] for entry in fields(Recipe) if entry.name != "name"}


def parse(override: str) -> tuple[str, Any]:
    """Return a field and its value from `field=value`.

    Raises UserError for an unknown field and for a value of another kind. What is out of range depends on other fields.

    Example:
        >>> parse("eps=4/255")[1] == 4 / 255
        True
    """
    name, separator, text = override.partition("=")
    if not separator:
        raise UserError(f"'{override}' sets nothing: give a field and its value, such as epochs=4.")
    if name not in KINDS:
        raise unknown("recipe field", name, KINDS)
    try:
        value = _value(name, text)
    except ValueError:
        kind = "a whole number, such as 4" if KINDS[name] is int else "a number or a fraction, such as 0.5 or 8/255"
        raise UserError(f"{override}: '{text}' is no value for {name}: give {kind}.") from None
    return name, value


def _value(name: str, text: str) -> Any:
    """Return the value of a field as its text. Raises ValueError where it is no number, UserError for a wrong flag."""
    if name in CHOICES:
        return text
    if KINDS[name] is bool:
        if text not in ("true", "false"):
            raise UserError(f"{name}={text}: {name} is true or false.")
        return text == "true"
    return int(text) if KINDS[name] is int else parse_number(text)
