"""A point estimate with its 95 % interval, and Wilson's interval of a share."""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from interpret_robust.core.arrays import Array
from interpret_robust.core.parsing import format_number

CONFIDENCE = 0.95
TAILS = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
WIDTH = 1.959963984540054
"""The upper of TAILS of the standard normal distribution."""

MOST_MORE = 4
"""Decimals that are added at most to show on which side of zero an end of an interval lies."""


class Interval(NamedTuple):
    """A point estimate and its 95 % interval."""

    value: float
    low: float
    high: float

    def percent(self) -> str:
        """Return a share as text such as `48.8 % [45.7, 51.9]`."""
        return self._text("z.1f", 100, " %")

    def points(self) -> str:
        """Return a difference of shares as text such as `+6.4 points [+3.5, +9.3]`."""
        return self._text(f"+z.{self._decimals(1, 100)}f", 100, " points")

    def plain(self) -> str:
        """Return text such as `-0.59 [-0.61, -0.57]`."""
        return self._text(f"z.{self.decimals}f")

    def signed(self) -> str:
        """Return text such as `+0.05 [-0.02, +0.12]`, of a number that is to be told from zero."""
        return self._text(f"+z.{self.decimals}f")

    @property
    def has_ends(self) -> bool:
        """Return whether there is an interval, as there is none of a single image."""
        return not math.isnan(self.low)

    @property
    def decimals(self) -> int:
        """Return how many decimals `plain` and `signed` print."""
        return self._decimals(2)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'unknown' if math.isnan(self.value) else self._text('.4g')}>"

    def _decimals(self, usual: int, scale: float = 1) -> int:
        """Return the usual number of decimals, and up to MOST_MORE more where an end of the interval would be zero."""
        least = min((scale * abs(end) for end in (self.low, self.high) if abs(end) > 0), default=math.inf)
        return usual + next((more for more in range(MOST_MORE) if least >= 0.5 * 10 ** -(usual + more)), MOST_MORE)

    def _text(self, form: str, scale: float = 1, unit: str = "") -> str:
        """Return the value, with its ends where it has them; NO_NUMBER where it is unknown."""
        value = format_number(scale * self.value, form, unit)
        if math.isnan(self.value) or not self.has_ends:
            return value
        low, high = (format_number(scale * end, form) for end in (self.low, self.high))
        return f"{value} [{low}, {high}]"


UNKNOWN = Interval(np.nan, np.nan, np.nan)
"""What is not known: of nothing, or of what does not vary."""


def wilson(successes: int, count: int) -> Interval:
    """Return the share of successes among `count` images with Wilson's 95 % interval. Raises ValueError for no
    images.
    """
    if count < 1:
        raise ValueError(f"{successes} of {count}: there is no share of no images.")
    share, z = successes / count, WIDTH
    center = (2 * count * share + z**2) / (2 * (count + z**2))
    reach = z / (2 * (count + z**2)) * np.sqrt(4 * count * share * (1 - share) + z**2)
    low = center - reach if successes else 0.0
    high = center + reach if successes < count else 1.0
    return Interval(share, float(low), float(high))


def rate(outcomes: npt.NDArray[Any]) -> Interval:
    """Return the share of outcomes (N,) that are 1, with Wilson's interval.

    NaN is left out. Where nothing else is there, the answer is NaN.
    """
    outcomes = outcomes[np.isfinite(outcomes)]
    return wilson(int(outcomes.sum()), len(outcomes)) if len(outcomes) else UNKNOWN


def rates(outcomes: npt.NDArray[Any]) -> Array:
    """Return the shares of outcomes (N, ...) that are 1, each with Wilson's interval, as `rate` does: (..., 3)."""
    intervals = [rate(outcomes[(slice(None), *place)]) for place in np.ndindex(outcomes.shape[1:])]
    return np.array(intervals, np.float64).reshape(*outcomes.shape[1:], 3)
