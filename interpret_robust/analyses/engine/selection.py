"""Which images are shown: always by a rule that the file records, never by hand."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from interpret_robust.analyses.engine.settings import Settings
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import UserError

MOST_IMAGES = 10
"""Images of a panel."""

RULES = f"first-per-class, random:SEED, indices:0,7,42 (at most {MOST_IMAGES}) or extremes (best, median and worst)"
_FORM = re.compile(rf"first-per-class|extremes|random:\d+|indices:\d+(,\d+){{0,{MOST_IMAGES - 1}}}")


@dataclass(frozen=True)
class Selection(Settings):
    """The rule by which an analysis's example images are chosen."""

    select: str = field(default="first-per-class", metadata={"help": f"Images to show: {RULES}."})

    def resolve(self, job: Mapping[str, Any]) -> Self:
        """Return these settings. Raises UserError for a rule that does not exist."""
        self._parse()
        return super().resolve(job)

    def check(self, count: int) -> None:
        """Raise UserError unless all images that are named are among `count`: better before the work than after."""
        rule, numbers = self._parse()
        for index in numbers:
            if rule == "indices" and index >= count:
                raise UserError(f"--select {self.select}: there are images 0 to {count - 1}, not {index}.")

    def indices(self, labels: AnyArray, score: AnyArray) -> AnyArray:
        """Return indices of at most MOST_IMAGES images, from labels (N,) and a score (N,) for which more is better.

        `first-per-class` takes the first image of each of the first MOST_IMAGES classes; `random` draws without putting
        back, and sorts; `extremes` takes the three best, the three around the median and the three worst of the
        finite scores, in this order, or all where there are fewer than nine. Raises UserError for an image that is
        not there, and where `extremes` finds no score.
        """
        self.check(len(labels))
        rule, numbers = self._parse()
        match rule:
            case "first-per-class":
                return np.unique(labels, return_index=True)[1][:MOST_IMAGES]
            case "random":
                return np.sort(np.random.default_rng(numbers[0]).permutation(len(labels))[:MOST_IMAGES])
            case "indices":
                return np.array(numbers)
            case _:
                return _extremes(score)

    def _parse(self) -> tuple[str, list[int]]:
        """Return the rule and the numbers after its colon."""
        if not _FORM.fullmatch(self.select):
            raise UserError(f"--select {self.select} selects nothing: the rules are {RULES}.")
        rule, _, argument = self.select.partition(":")
        return rule, [int(number) for number in argument.split(",") if number]


def _extremes(score: AnyArray) -> AnyArray:
    order = np.argsort(-score, kind="stable")
    order = order[np.isfinite(score[order])]
    if len(order) == 0:
        raise UserError("--select extremes: no image has a score here.")
    if len(order) < 9:
        return order
    middle = len(order) // 2
    return np.concatenate([order[:3], order[middle - 1 : middle + 2], order[-3:]])
