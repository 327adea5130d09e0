"""One estimate that bears on a claim, and how people read it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from interpret_robust.core.bootstrap import FEWEST_IMAGES
from interpret_robust.core.intervals import Interval
from interpret_robust.core.parsing import format_number
from interpret_robust.study.paper import Row

Kind = Literal["main", "control", "further"]
"""What a measure is for: it decides; a claim holds only if it holds too, but it refutes none; it is only shown."""


@dataclass(frozen=True)
class Measure:
    """One estimate that bears on a claim, above zero where the claim holds.

    Attributes:
        quantity: what is estimated.
        models: of which variant; or of which two the difference, first minus second.
        split: of which images.
        seeds: of which training seeds.
        values: each seed's own estimate.
        images: each seed's number of images that have a value.
        estimate: the mean over seeds and images with its 95 % interval, by `average_seeds`; for one seed by bootstrap.
        p_value: of `average_seeds`; for one seed of McNemar's exact test where the values are yes or no, else None.
        levels: the two models' own means.
        paper_figures: the paper's figures of the two models in percent; none where it lacks one.
        percent: whether it is a share, or a difference of shares.
        kind: what it is for.
        setting: natural, white-box or black-box, of a claim on accuracy.
        files: what it was computed from.
    """

    quantity: str
    models: tuple[str, ...]
    split: str
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    images: tuple[int, ...]
    estimate: Interval
    p_value: float | None = None
    levels: tuple[float, ...] = ()
    paper_figures: tuple[float, ...] = ()
    percent: bool = False
    kind: Kind = "main"
    setting: str = ""
    files: tuple[str, ...] = field(default=(), compare=False)

    @property
    def sign(self) -> int:
        """Return 1 or -1 where the interval tells the estimate from zero, else 0.

        It tells nothing on fewer images than FEWEST_IMAGES: intervals over so few are too sure, with several seeds too.
        """
        if max(self.images) < FEWEST_IMAGES:
            return 0
        return int(self.estimate.low > 0) - int(self.estimate.high < 0)

    @property
    def comparison(self) -> str:
        """Return text such as `at-att minus at`."""
        return " minus ".join(self.models)

    @property
    def count(self) -> str:
        """Return the number of images of a seed: as `1000`, or `997 to 1000` where it differs."""
        return " to ".join(map(str, dict.fromkeys((min(self.images), max(self.images)))))

    @property
    def images_text(self) -> str:
        """Return the number of images of a seed with their split: as `1000 test images`."""
        return f"{self.count} {self.split} image{'s' if max(self.images) > 1 else ''}"

    @property
    def condition(self) -> str:
        """Return text such as `seeds 0, 1, 2; 1000 test images each`, or `seed 0; 8 test images, too few to tell`."""
        is_few = max(self.images) < FEWEST_IMAGES
        if len(self.seeds) == 1:
            basis = "too few to tell" if is_few else "the interval is over images alone"
            return f"seed {self.seeds[0]}; {self.images_text}, {basis}"
        basis = ", too few to tell" if is_few else ""
        return f"seeds {', '.join(map(str, self.seeds))}; {self.images_text} each{basis}"

    @property
    def our_figures(self) -> str:
        """Return text such as `at 52.1 -> at-att 58.5`, in percent where it is of shares; of a single model its
        name.
        """
        if not self.levels:
            return self.comparison
        form, scale = (".1f", 100) if self.percent else (f".{self.estimate.decimals}f", 1)
        return _side_by_side(self.models, [format_number(scale * level, form) for level in self.levels])

    @property
    def paper(self) -> str:
        """Return text such as `at 39.72 -> at-att 41.39 (+1.67)`; empty where the paper has no such figures."""
        return format_pair(self.models, self.paper_figures)

    def text(self) -> str:
        """Return text such as `+6.4 points [+3.5, +9.3]` or `-0.60 [-0.61, -0.59]`."""
        return self.estimate.points() if self.percent else self.estimate.signed()

    def seed_texts(self) -> list[str]:
        """Return text such as `seed 0: +6.4 points`."""
        estimates = [Interval(value, math.nan, math.nan) for value in self.values]
        texts = [estimate.points() if self.percent else estimate.signed() for estimate in estimates]
        return [f"seed {seed}: {text}" for seed, text in zip(self.seeds, texts, strict=True)]


def list_figures(models: tuple[str, ...], row: Row) -> tuple[float, ...]:
    """Return a row's figures of two models; none where it lacks one."""
    return tuple(row[model] for model in models) if set(models) <= row.keys() else ()


def format_pair(models: Sequence[str], figures: Sequence[float]) -> str:
    """Return text such as `at 39.72 -> at-att 41.39 (+1.67)`; empty for no figures."""
    if not figures:
        return ""
    return f"{_side_by_side(models, [f'{figure:.2f}' for figure in figures])} ({figures[0] - figures[1]:+.2f})"


def _side_by_side(models: Sequence[str], levels: Sequence[str]) -> str:
    """Return text such as `at 52.1 -> at-att 58.5`: what the first model is compared with comes first."""
    return " -> ".join(" ".join(pair) for pair in reversed(list(zip(models, levels, strict=True))))
