"""What the numbers of PGD may be. Without torch, so that a recipe can be checked before torch is loaded."""

import math
from numbers import Integral, Real
from typing import Literal, get_args

from interpret_robust.core.errors import UserError, unknown

LossName = Literal["cross-entropy", "margin"]
BatchNormMode = Literal["eval", "train"]


def check_numbers(
    eps: float,
    step_size: float,
    steps: int,
    restarts: int = 1,
    loss: str = "cross-entropy",
    batch_norm: str = "eval",
) -> None:
    """Raise UserError for numbers and choices that no attack can have, see `attacks.pgd.PGD`."""
    for name, number in (("eps", eps), ("step size", step_size)):
        if not isinstance(number, Real):
            raise UserError(f"{name} is {number!r}: it must be a number.")
    if not isinstance(steps, Integral):
        raise UserError(f"steps are {steps!r}: give a whole number.")
    if not 0 <= eps <= 1:
        raise UserError(f"eps is {eps:g}: it must lie within 0 and 1, in units of pixels in [0, 1] (8/255, not 8).")
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
