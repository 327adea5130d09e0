"""The paper's variants: what is trained on, which head pools, and whether features are regularised."""

from dataclasses import dataclass
from typing import Literal

from interpret_robust.errors import unknown


@dataclass(frozen=True)
class Variant:
    """One row of the paper: `adversarial` training or natural, the head, and the regulariser of Eq. 6."""

    name: str
    adversarial: bool
    head: Literal["average", "nonlinear", "linear"] = "average"
    regularised: bool = False


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("natural", adversarial=False),
        Variant("natural-linear-att", adversarial=False, head="linear"),
        Variant("natural-att", adversarial=False, head="nonlinear"),
        Variant("at", adversarial=True),
        Variant("at-reg", adversarial=True, regularised=True),
        Variant("at-att", adversarial=True, head="nonlinear"),
        Variant("at-att-reg", adversarial=True, head="nonlinear", regularised=True),
    )
}


def paper_order(name: str, seed: int) -> tuple[int, int]:
    """A key that sorts models as the paper's tables do, naturally trained ones first."""
    return list(VARIANTS).index(name), seed


def variant(name: str) -> Variant:
    """The variant called `name`. Raises UserError for another name."""
    if name not in VARIANTS:
        raise unknown("variant", name, VARIANTS)
    return VARIANTS[name]
