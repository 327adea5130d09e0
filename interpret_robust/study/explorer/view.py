"""What is looked at: an image, the class that an attack leads away from, and the attack."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from interpret_robust.analyses.robustness import TRAJECTORIES
from interpret_robust.attacks.noise import Noise, per_image_noise
from interpret_robust.attacks.pgd import PGD
from interpret_robust.attacks.settings import LossName, Norm, check_norm
from interpret_robust.core.errors import UserError, unknown
from interpret_robust.core.parsing import parse_number
from interpret_robust.results.names import format_length

MOST_STEPS = 200
"""Of an attack that somebody waits for."""

NOTCHES = 16
"""Places of the slider of eps above zero; the radius that models were trained with is in its middle."""


@dataclass(frozen=True)
class View:
    """An image by its key, a class, and PGD against it as `irt evaluate` runs it."""

    image: str
    label: int
    eps: float
    steps: int
    loss: LossName
    norm: Norm = "linf"

    def attack(self) -> PGD:
        """Return the attack, with the default step of its norm."""
        return PGD(eps=self.eps, steps=self.steps, loss=self.loss, norm=self.norm)

    def noise(self, seed: int, index: int) -> Noise:
        """Return the random start of the attack: that of `irt evaluate` for its loss, a seed and an image's index."""
        return per_image_noise(seed, [index], list_losses()[self.loss]["purpose"])


def list_losses() -> dict[LossName, Any]:
    """Return each loss with the option of `irt evaluate` that reads attacks on it, and the purpose of their starts'
    random numbers; the default comes first.
    """
    return {
        trajectory.loss: {"option": option, "purpose": trajectory.purpose}
        for option, trajectory in TRAJECTORIES.items()
    }


def parse(query: Mapping[str, str], classes: int) -> View:
    """Return the view that the fields of an address ask for. Raises UserError where one is missing or out of range."""
    names = [field.name for field in fields(View)]
    for name in names:
        if name not in query:
            raise UserError(f"'{name}' is missing: an address has {', '.join(names)}.")
    label, steps = (read_whole(name, query[name]) for name in ("label", "steps"))
    if not 0 <= label < classes:
        raise UserError(f"label is {label}: there are {classes} classes, from 0 to {classes - 1}.")
    if not 1 <= steps <= MOST_STEPS:
        raise UserError(f"steps are {steps}: give 1 to {MOST_STEPS}.")
    for loss in list_losses():
        if query["loss"] == loss:
            norm = check_norm(query["norm"][:40])
            view = View(query["image"], label, _radius(query["eps"]), steps, loss, norm)
            view.attack()  # says what is out of range
            return view
    raise unknown("loss", query["loss"][:40], list_losses())


def list_radii(training_radii: Sequence[float], norm: Norm) -> list[str]:
    """Return the places of the slider of eps in a norm, as people write them: from 0 to twice the largest of
    `training_radii`.

    Example:
        >>> list_radii([8 / 255], "linf")[:3], list_radii([0.5], "l2")[-2:]
        (['0', '1/255', '2/255'], ['0.9375', '1'])
    """
    largest = 2 * max(training_radii)
    if norm == "linf":
        largest = min(largest, 1.0)
    is_whole = format_length(largest / 2, norm).endswith("/255")
    shares = [largest * place / NOTCHES for place in range(1, NOTCHES + 1)]
    return ["0", *(f"{255 * share:.4g}/255" if is_whole else f"{share:.4g}" for share in shares)]


def read_whole(name: str, text: str) -> int:
    """Return the whole number that a field of an address holds. Raises UserError for another text."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UserError(f"{name} is '{text[:40]}': give a whole number.")
    return int(text)


def _radius(text: str) -> float:
    try:
        return parse_number(text)
    except ValueError:
        raise UserError(f"eps is '{text[:40]}': give a number such as 8/255.") from None
