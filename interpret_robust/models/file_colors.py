"""Whether a file of weights says how its pixels were normalized: by tensors, numbers, or the words of a program."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any, NamedTuple

from torch import Tensor

from interpret_robust.models.file_rest import CURVES, DEEPEST, items_of, join, words_of
from interpret_robust.models.normalization import STATISTICS

MEANS = {"mean", "means", "mu"}
DEVIATIONS = {"std", "stds", "stdev", "stddev", "sd", "sigma", "var", "variance"}
"""Words of the normalization of colors."""

PAIR = re.compile(r"normali[sz]|mean_?std|stats$")
"""In names of a mean and a deviation that lie together."""

NO_COLORS = CURVES | {
    *("running", "optimizer", "optimizers", "optim", "opt", "metric", "metrics", "init", "noise", "time", "score"),
}
"""Words of paths whose means are not of colors."""

NUMBER = r"[-+]?\d*\.?\d+(?:e[-+]?\d+)?"
NUMBERS = re.compile(rf"[\[(\s]*({NUMBER}(?:[\s,]+{NUMBER})*)[\])\s]*", re.IGNORECASE)
"""A text of numbers, such as an option of a program."""


class Figure(NamedTuple):
    """A number, or a list or tensor of a few, in a file: its path, how many they are, and whether they are a list."""

    path: str
    size: int
    is_list: bool

    @property
    def name(self) -> str:
        """Return the last part of its path, without its place in a list."""
        return re.sub(r"(\.\d+)+$", "", self.path).rpartition(".")[2].lower()

    @property
    def words(self) -> set[str]:
        """Return the words of its name."""
        return words_of(self.name)


def find_normalization(content: Any, used_paths: set[str]) -> str | None:
    """Return the path of what looks like the normalization of colors in what a file holds; None where none is.

    That is a mean, or a deviation, of three numbers, whether a tensor, a list or a text; of one number where both lie
    beside each other; both in one list; the words of a transform; and the name of a normalization. The tensors at
    `used_paths` are the network's own.

    Example:
        >>> find_normalization({"args": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}}, set())
        'args.mean'
    """
    figures_by_place: dict[str, list[Figure]] = defaultdict(list)
    for path, item in _leaves(content):
        if path in used_paths or not words_of(path).isdisjoint(NO_COLORS):
            continue
        if isinstance(item, str) and _is_spoken(path, item):
            return path
        for figure in _figures(path, item):
            figures_by_place[path.rpartition(".")[0]].append(figure)
    return next((path for figures in figures_by_place.values() for path in _colors_among(figures)), None)


def _leaves(content: Any, place: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the path of each thing in mappings and lists, and the thing; a list of numbers is one."""
    is_container = isinstance(content, Mapping | list | tuple) and not _count(content)
    if not is_container:
        yield place, content
    elif depth < DEEPEST:
        for name, item in items_of(content):
            yield from _leaves(item, join(place, str(name)), depth + 1)


def _is_spoken(path: str, text: str) -> bool:
    """Return whether a text is a transform that normalizes, or the name of a normalization where one is asked for."""
    is_name = text.lower() in STATISTICS.keys() - {"none"} and "normali" in path.lower()
    return is_name or bool(re.search(r"\bNormalize\(.*mean=", text, re.DOTALL))


def _figures(path: str, item: Any) -> Iterator[Figure]:
    """Yield what a leaf of a file has of numbers, if they are few."""
    if isinstance(item, str) and (match := NUMBERS.fullmatch(item)):
        item = [float(number) for number in re.split(r"[\s,]+", match[1])]
    count = item.numel() if isinstance(item, Tensor) and item.is_floating_point() else _count(item)
    if count in (1, 2, 3, 6):
        yield Figure(path, count, isinstance(item, Tensor | list | tuple))


def _count(item: Any) -> int:
    """Return how many numbers a number or a list of numbers has, at whatever depth; 0 where anything else is there."""
    if isinstance(item, list | tuple):
        counts = [_count(part) for part in item[:7]]
        return sum(counts) if all(counts) else 0
    return int(type(item) in (int, float))


def _colors_among(figures: list[Figure]) -> Iterator[str]:
    """Yield the paths of those figures of one mapping that look like a normalization of colors."""
    means = [figure for figure in figures if not figure.words.isdisjoint(MEANS)]
    deviations = [figure for figure in figures if not figure.words.isdisjoint(DEVIATIONS)]
    yield from (figure.path for figure in (*means, *deviations) if figure.size == 3)
    yield from (figure.path for figure in figures if figure.is_list and _is_pair(figure))
    for mean, deviation in product(means, deviations):
        is_plain = len(mean.words) == len(deviation.words) == 1 and mean.words != {"mu"}
        if mean.size == deviation.size == 1 and (is_plain or mean.is_list):
            yield mean.path


def _is_pair(figure: Figure) -> bool:
    """Return whether a list is a mean and a deviation, or one of two lists that are."""
    is_half = figure.size == 3 and figure.path[-1].isdigit()
    is_named = PAIR.search(figure.name) is not None
    return is_named and (is_half or figure.size == 6 or (figure.size == 2 and "stats" not in figure.name))
