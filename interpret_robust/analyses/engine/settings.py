"""What an analysis is asked with: the bases of its settings, whose fields become options."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any, ClassVar, Literal, Self, get_args, get_origin, get_type_hints

from torch import Tensor, nn

from interpret_robust.attacks.noise import per_image_noise
from interpret_robust.attacks.norms import Ball, make_ball
from interpret_robust.attacks.pgd import PGD
from interpret_robust.attacks.settings import LossName, Norm, check_norm, choose_step, resolve_ball
from interpret_robust.attribution.gradients import SOURCE_HELP, SPATIAL_WEIGHT_HELP, check_source, resolve_weight
from interpret_robust.core.errors import UserError, describe, unknown


def shares_attack(settings: Any) -> bool:
    """Return whether an analysis with these settings takes an attack that others of the same ball take too."""
    return isinstance(settings, BallSettings) and settings.is_shared


def check_seed(seed: int) -> None:
    """Raise UserError for what is no whole number of at most 63 bits, as generators take them: from 0 on."""
    if not isinstance(seed, Integral):
        raise UserError(f"seed is {describe(seed)}: give a whole number.")
    if seed < 0:
        raise UserError(f"seed is {seed}: it must not be negative.")
    if seed >= 2**63:
        raise UserError(f"seed is {seed}: it must be below 2^63.")


@dataclass(frozen=True)
class Settings:
    """Base of an analysis's settings. Fields become options of the command.

    Example:
        >>> @dataclass(frozen=True)
        ... class Radius(ir.Settings):
        ...     eps: float = 8 / 255
        >>> Radius(eps=0.1).resolve({}).eps
        0.1
    """

    def resolve(self, job: Mapping[str, Any]) -> Self:  # noqa: ARG002
        """Return these settings with nothing left open, for a checkpoint's job.

        Raises UserError for a negative seed, and for a choice that there is not.
        """
        for name, kind in get_type_hints(type(self)).items():
            if get_origin(kind) is Literal and getattr(self, name) not in get_args(kind):
                raise unknown(name, getattr(self, name), get_args(kind))
        check_seed(getattr(self, "seed", 0))
        return self


@dataclass(frozen=True)
class BallSettings(Settings):
    """The ball, the step and the starts of an analysis's attack.

    Without a radius the ball is that of the checkpoint's own training; with one, it is in l-infinity where no norm is
    named.
    """

    eps: float | None = field(default=None, metadata={"help": "Radius, such as 8/255. [default: that of training]"})
    step_size: float | None = field(
        default=None, metadata={"help": "Length of a step. [default: eps / 4; l2: eps / 8, l1: eps / 10]"}
    )
    seed: int = field(default=0, metadata={"help": "Seed of the random starts."})
    norm: str | None = field(
        default=None,
        metadata={
            "help": "Norm of --eps: linf, l2 or l1. [default: linf; without --eps, that of training]",
            "newer": "linf",
        },
    )

    is_shared: ClassVar[bool] = True
    """Whether the analysis attacks every image of a batch by PGD on the cross-entropy, from the usual starts.

    If so, `attacks.cache` may share the steps with other analyses.
    """

    def resolve(self, job: Mapping[str, Any]) -> Self:
        """Return these settings with nothing left open, for a checkpoint's job.

        Raises UserError where one is out of range.
        """
        super().resolve(job)
        norm, eps = resolve_ball(self.norm, self.eps, job.get("recipe", {}))
        step_size = choose_step(eps, norm) if self.step_size is None else self.step_size
        settings = replace(self, eps=eps, step_size=step_size, norm=norm)
        settings.attack(0)
        if norm == "linf" and step_size > 1:
            raise UserError(f"step size is {step_size:g}: it must lie within 0 and 1, in units of pixels in [0, 1].")
        return settings

    def attack(self, steps: int, loss: LossName = "cross-entropy") -> PGD:
        """Return the attack of resolved settings. Raises UserError where they are out of range."""
        assert self.eps is not None and self.step_size is not None
        return PGD(eps=self.eps, step_size=self.step_size, steps=steps, loss=loss, norm=self.norm_name)

    def ball(self) -> Ball:
        """Return the ball of resolved settings."""
        assert self.eps is not None
        return make_ball(self.norm_name, self.eps)

    @property
    def norm_name(self) -> Norm:
        """Return the norm of settings with a radius. Raises UserError for one that there is not."""
        return check_norm("linf" if self.norm is None else self.norm)


@dataclass(frozen=True)
class AttackSettings(BallSettings):
    """PGD of some steps: the attack of an analysis."""

    steps: int = field(default=20, metadata={"help": "Steps of PGD."})

    def pgd(self) -> PGD:
        """Return the attack of resolved settings. Raises UserError where they are out of range."""
        return self.attack(self.steps)

    def resolve(self, job: Mapping[str, Any]) -> Self:
        """Return these settings with their ball filled in. Raises UserError also for steps out of range."""
        settings = super().resolve(job)
        settings.pgd()
        return settings

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, indices: Sequence[int]) -> Tensor:
        """Return adversarial images, each a function of the model, the image, its index and the seed alone."""
        return self.pgd()(model, images, labels, per_image_noise(self.seed, indices))


@dataclass(frozen=True)
class SourceSettings(Settings):
    """What the maps are that an analysis looks at."""

    source: str = field(default="gradient", metadata={"help": SOURCE_HELP})

    def resolve(self, job: Mapping[str, Any]) -> Self:
        """Return these settings. Raises UserError also where there is no such source."""
        check_source(self.source)
        return super().resolve(job)


@dataclass(frozen=True)
class WeightSettings(Settings):
    """Whose weights of positions an analysis looks at; named before other bases, whose `resolve` goes first."""

    spatial_weight: str = field(default="auto", metadata={"help": SPATIAL_WEIGHT_HELP})

    def resolve(self, job: Mapping[str, Any]) -> Self:
        """Return these settings with `auto` as attention, or as Grad-CAM where the model has none.

        Raises UserError also for attention of a model without.
        """
        return replace(super().resolve(job), spatial_weight=resolve_weight(self.spatial_weight, job))
