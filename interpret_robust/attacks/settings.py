"""What the numbers of an attack may be. Without torch, so that a recipe can be checked before torch is loaded."""

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Literal, cast, get_args

from interpret_robust.core.errors import UserError, describe, unknown

LossName = Literal["cross-entropy", "margin"]
BatchNormMode = Literal["eval", "train"]
Norm = Literal["linf", "l2", "l1"]

NORM_TEXTS: dict[Norm, str] = {"linf": "l-infinity", "l2": "L2", "l1": "L1"}
"""What people call the norms."""

STEPS_IN_RADIUS: dict[Norm, int] = {"linf": 4, "l2": 8, "l1": 10}
"""How many steps of the default length make a radius.

In L2 the length is 2.5 eps over 20 steps, as in the robustness library (https://github.com/MadryLab/robustness); Rice
et al. 2020 (https://arxiv.org/abs/2002.11569) train with 15/128. In L1 it is that of cleverhans' SLIDE, 1 for eps 10.
"""


def choose_step(eps: float, norm: Norm) -> float:
    """Return the length of a step where none is named. Raises UserError for a norm that there is not.

    Example:
        >>> choose_step(0.5, "l2")
        0.0625
    """
    check_norm(norm)
    return eps / STEPS_IN_RADIUS[norm]


def resolve_ball(norm: str | None, eps: float | None, recipe: Mapping[str, Any]) -> tuple[Norm, float]:
    """Return the norm and the radius of an attack: without a radius those of training, with one l-infinity by default.

    Of a model whose training is not known, without a radius, they are l-infinity and EPS.

    Raises UserError for a norm that there is not, and for one that is not that of training without a radius.

    Example:
        >>> resolve_ball(None, None, {"eps": 0.5, "norm": "l2"}), resolve_ball(None, 0.1, {"eps": 0.5, "norm": "l2"})
        (('l2', 0.5), ('linf', 0.1))
    """
    if eps is not None:
        return check_norm("linf" if norm is None else norm), eps
    own_norm: Norm = recipe.get("norm", "linf")
    if norm is not None and check_norm(norm) != own_norm:
        raise UserError(
            f"norm is {norm} and the radius of the model's training is in {own_norm}: give another with it, such as "
            f"--eps {EXAMPLE_RADII[check_norm(norm)]}."
        )
    return own_norm, recipe.get("eps", EPS)


EPS = 8 / 255
"""The radius of attacks on a model of which no training radius is known."""

EXAMPLE_RADII: dict[Norm, str] = {"linf": "8/255", "l2": "0.5", "l1": "12"}
"""What RobustBench (linf, l2) and Croce & Hein 2021 (l1) ask of CIFAR-10."""


def check_norm(norm: str) -> Norm:
    """Return a norm's name. Raises UserError for one that there is not."""
    if norm not in get_args(Norm):
        raise unknown("norm", norm, get_args(Norm))
    return cast(Norm, norm)


def check_numbers(
    eps: float,
    step_size: float,
    steps: int,
    restarts: int = 1,
    loss: str = "cross-entropy",
    batch_norm: str = "eval",
    norm: str = "linf",
) -> None:
    """Raise UserError for numbers and choices that no attack can have, see `attacks.pgd.PGD`.

    How large a radius in L2 and L1 may be depends on the size of images, see `attacks.norms.check_reach`.
    """
    check_norm(norm)
    for name, number in (("eps", eps), ("step size", step_size)):
        if not isinstance(number, Real) or isinstance(number, bool):
            raise UserError(f"{name} is {describe(number)}: it must be a number.")
    for name, count in (("steps", steps), ("restarts", restarts)):
        if not isinstance(count, Integral) or isinstance(count, bool):
            raise UserError(f"{name} are {describe(count)}: give a whole number.")
    if norm == "linf" and not 0 <= eps <= 1:
        raise UserError(f"eps is {eps:g}: it must lie within 0 and 1, in units of pixels in [0, 1] (8/255, not 8).")
    if not 0 <= eps < math.inf:
        raise UserError(f"eps is {eps:g}: it must not be negative or infinite.")
    if not 0 <= step_size < math.inf:
        raise UserError(f"step size is {step_size:g}: it must not be negative or infinite.")
    if steps < 0 or restarts < 1:
        raise UserError(f"steps {steps}, restarts {restarts}: steps must not be negative, restarts at least one.")
    for kind, value, choices in (
        ("loss", loss, get_args(LossName)),
        ("batch norm mode", batch_norm, get_args(BatchNormMode)),
    ):
        if value not in choices:
            raise unknown(kind, value, choices)
