"""The paper's variants: what is trained on, which head pools, and whether features are regularized."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from interpret_robust.core.errors import UserError, unknown
from interpret_robust.core.plugins import list_entry_points, load_entry_point

Head = Literal["average", "nonlinear", "linear"] | Callable[[int], Any]
"""How local features are pooled: one of ours by its name, or a function of the number of channels that gives one."""


@dataclass(frozen=True)
class Variant:
    """One row of the paper: `adversarial` training or natural, the head, and the regularizer of Eq. 6.

    A variant of a user's may have a head and a distance of its own.

    Attributes:
        name: what files, tables and `irt train` call it.
        adversarial: whether it is trained on attacked images.
        regularized: whether the recipe's weight of Eq. 7 is that of regularization; else it is zero.
        head: of `models.attention`; one of a user's gives pooled features of as many channels as the local ones have.
        distance: of pooled features (N, C) of clean and adversarial images, (N,), in place of that of Eq. 6.

    Example:
        >>> ir.Variant("at-mine", adversarial=True, head="nonlinear").has_attention
        True
    """

    name: str
    adversarial: bool
    head: Head = "average"
    regularized: bool = False
    distance: Callable[[Any, Any], Any] | None = None

    @property
    def has_attention(self) -> bool:
        """Return whether its head weights positions. A head of a user's is taken to."""
        return self.head != "average"

    @property
    def meaning(self) -> str:
        """Return in words how such a model is trained and built."""
        attention = {"average": "", "linear": "linear attention"}.get(str(self.head), "attention")
        parts = " and ".join(filter(None, [attention, "feature regularization" if self.regularized else ""]))
        training = "adversarial training" if self.adversarial else "natural training"
        return f"{training} with {parts}" if parts else training


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("natural", adversarial=False),
        Variant("natural-linear-att", adversarial=False, head="linear"),
        Variant("natural-att", adversarial=False, head="nonlinear"),
        Variant("at", adversarial=True),
        Variant("at-reg", adversarial=True, regularized=True),
        Variant("at-att", adversarial=True, head="nonlinear"),
        Variant("at-att-reg", adversarial=True, head="nonlinear", regularized=True),
    )
}


def explain_variant(name: str) -> str:
    """Return what the name of a variant of the paper means; empty for another name.

    Example:
        >>> explain_variant("at-att-reg")
        'adversarial training with attention and feature regularization'
    """
    return VARIANTS[name].meaning if name in VARIANTS else ""


def order_as_paper(name: str, seed: int | None) -> tuple[int, str, int]:
    """Return a key that sorts models as the paper's tables do, naturally trained ones first, and others after them
    by name.
    """
    order = list(VARIANTS)
    place = order.index(name) if name in order else len(order)
    return place, name, seed or 0


def find_variant(name: str) -> Variant:
    """Return the variant called `name`: of the paper, or of an installed package. Raises UserError for another name."""
    if name in VARIANTS:
        return VARIANTS[name]
    if name not in list_entry_points("variants"):
        raise unknown("variant", name, (*VARIANTS, *list_entry_points("variants")))
    entry = load_entry_point("variants", name)
    if not isinstance(entry, Variant) or entry.name != name:
        raise UserError(f"the entry point '{name}' of interpret_robust.variants is no Variant of that name.")
    return entry


def is_adversarial(job: Mapping[str, Any]) -> bool:
    """Return whether a model's job is known to be adversarial training."""
    return not is_external(job) and find_variant(job["variant"]).adversarial


def has_attention(job: Mapping[str, Any]) -> bool:
    """Return whether a model has weights over positions of its own."""
    if is_external(job):
        return job["layers"]["attention"] is not None
    return find_variant(job["variant"]).has_attention


def is_external(job: Mapping[str, Any]) -> bool:
    """Return whether a model comes from elsewhere, so that its training is not known."""
    return "card" in job
