"""A mean as tables print it beside what it is compared with."""

from collections.abc import Callable

import numpy as np

from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.intervals import Interval
from interpret_robust.core.parsing import put_beside


def compare_means(mean: AnyArray, baseline: AnyArray, form: Callable[[Interval], str]) -> str:
    """Return text such as `84.1 % [83.0, 85.2] (17.3 %)`: a mean and its interval, and a baseline without its own.

    Both are (value, low, high); `form` prints an interval.

    Example:
        >>> compare_means(np.array([0.462, 0.451, 0.473]), np.array([0.3, 0.29, 0.31]), Interval.plain)
        '0.46 [0.45, 0.47] (0.30)'
    """
    return put_beside(form(Interval(*mean)), form(Interval(baseline[0], np.nan, np.nan)))
