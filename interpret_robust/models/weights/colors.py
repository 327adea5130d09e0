"""Whether a file of weights says how its pixels were normalized: by tensors, numbers, or the words of a program."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

from torch import Tensor

from interpret_robust.models.weights.rest import CURVES, DEEPEST, WORD, join, list_items, split_words

MEANS, DEVIATIONS = {"mean", "means"}, {"std", "stds", "stdev", "stddev"}
"""Words of the normalization of colors."""

OTHER_MEANS, OTHER_DEVIATIONS = (
    {"mu", "loc", "shift", "subtract"},
    {"sd", "sigma", "var", "variance", "scale", "divide"},
)
"""Words that are of colors only where both lie beside each other."""

COLORS = split_words(
    "new rgb bgr color colors channel channels pixel pixels image images img input inputs data dataset train norm "
    "normalize normalization normalizer imagenet r g b value values preprocess default"
)
"""Words that may stand beside these in a name."""

RESULTS = CURVES | split_words(
    "optimizer optimizers optim result results summary stats init noise test val valid weight weights reward"
)
"""Words of paths whose means are not of colors."""

PAIR = re.compile(r"normali[sz]|mean_?std|stats$")
"""In names of a mean and a deviation that lie together."""

NUMBER = r"[-+]?\d*\.?\d+(?:e[-+]?\d+)?"
NUMBERS = re.compile(rf"[\[(\s]*({NUMBER}(?:[\s,]+{NUMBER})*)[\])\s]*", re.IGNORECASE)
"""A text of numbers, such as an option of a program."""

PROGRAM = re.compile(
    rf"\bNormalize\(\s*(?:\w+=)?\s*[\[(]?\s*{NUMBER}"
    rf"|\b(?:(?:pixel|image|img|rgb|data|norm\w*)_)?means?(?:_rgb)?[\"']?\s*(?:[=:]\s*[\[(]|:\s*\n\s*-)\s*{NUMBER}"
)
"""In the text of a program or of its configuration that normalizes colors."""

SWITCH = re.compile(
    r"(do|use)_normalize|(normali[sz]|standardi[sz]|whiten)e?_(input|image|img|pixel|color)s?"
    r"|(input|image|img|pixel)s?_(norm|normali[sz](e|ed|ation)|standardi[sz](e|ed|ation))"
    r"|(per_image_)?standardi[sz](e|ation)|zca|(zca_)?whiten(ing)?"
)
"""What a switch is called, such as an option of a program, by which pixels are normalized in a way it does not tell."""

KNOWN_NAMES = re.compile(r"imagenet|cifar|svhn|mnist|clip|inception|openai")
"""In names of normalizations."""


class Figure(NamedTuple):
    """A number, or a few in a list or tensor, in a file: their path, and whether they are a list."""

    path: str
    numbers: tuple[float, ...]
    is_list: bool

    @property
    def name(self) -> str:
        """Return the last part of its path, without its place in a list."""
        return re.sub(r"(\.\d+)+$", "", self.path).rpartition(".")[2].lower()

    def is_called(self, *words: Collection[str]) -> bool:
        """Return whether it is called by one of some words, and by no other than words of colors."""
        own_words, expected = split_words(self.name), set().union(*words)
        return not own_words.isdisjoint(expected) and own_words - expected <= COLORS


def find_normalization(
    content: Any, used_paths: Collection[str], numbers_in_use: Collection[tuple[float, ...]]
) -> str | None:
    """Return the path of what looks like the normalization of colors in what a file holds; None where none is.

    That is a mean, or a deviation, of three numbers, whether a tensor, a list or a text; of one number where both lie
    beside each other; both in one list; the words of a transform; the name of a normalization; and a switch that turns
    one on, where none is used. The tensors at `used_paths` are the network's own, and `numbers_in_use` are numbers that
    are used already, of four digits.

    Example:
        >>> find_normalization({"args": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}}, set(), [])
        'args.mean'
    """
    figures_by_place: dict[str, list[Figure]] = defaultdict(list)
    is_plain = all(set(numbers) in ({0.0}, {1.0}) for numbers in numbers_in_use)
    for path, item in _leaves(content):
        if path in used_paths:
            continue
        if (isinstance(item, str) and _is_spoken(path, item)) or (item is True and is_plain and _is_switch(path)):
            return path
        numbers = tuple(round(number, 4) for number in _numbers(item))
        if numbers and numbers not in numbers_in_use:
            figures_by_place[path.rpartition(".")[0]].append(Figure(path, numbers, not isinstance(item, int | float)))
    paths = (path for place, figures in figures_by_place.items() for path in _colors_among(place, figures))
    return next(paths, None)


def _leaves(content: Any, place: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the path of each thing in mappings and lists, and the thing; a few numbers together are one."""
    if not isinstance(content, Mapping | list | tuple) or _numbers(content):
        yield place, content
    elif depth < DEEPEST:
        for name, item in list_items(content):
            yield from _leaves(item, join(place, str(name)), depth + 1)


def _is_spoken(path: str, text: str) -> bool:
    """Return whether a text is a program that normalizes, or the name of a normalization where one is asked for."""
    is_asked_for = re.search(r"norm|preproc|mean_std", path.rpartition(".")[2].lower())
    return bool(is_asked_for and KNOWN_NAMES.search(text.lower())) or bool(PROGRAM.search(text))


def _is_switch(path: str) -> bool:
    """Return whether a name is that of a switch of normalization, in whatever case its words are written."""
    words = WORD.findall(path.rpartition(".")[2])
    return SWITCH.fullmatch("_".join(words).lower()) is not None


def _numbers(item: Any) -> list[float]:
    """Return the numbers of a leaf of a file if they are 1, 2, 3 or 6, none of anything else."""
    if isinstance(item, Tensor):
        numbers = (
            item.flatten().tolist() if item.is_floating_point() and not item.is_nested and item.numel() <= 6 else []
        )
    elif isinstance(item, Mapping):
        is_by_channel = {str(name).lower() for name in item} == set("rgb")
        numbers = _together([*item.values()]) if is_by_channel else []
    elif isinstance(item, list | tuple):
        numbers = _together(item[:7])
    elif isinstance(item, str):
        match = NUMBERS.fullmatch(item)
        numbers = [float(number) for number in re.split(r"[\s,]+", match[1])] if match else []
    else:
        numbers = [float(item)] if type(item) in (int, float) else []
    return numbers if len(numbers) in (1, 2, 3, 6) else []


def _together(items: Sequence[Any]) -> list[float]:
    """Return the numbers of all items, none if one has none."""
    if any(isinstance(item, Tensor | Mapping) for item in items):
        return []
    parts = [_numbers(item) for item in items]
    return [number for part in parts for number in part] if all(parts) else []


def _colors_among(place: str, figures: Sequence[Figure]) -> Iterator[str]:
    """Yield the paths of those figures of one mapping that look like a normalization of colors."""
    means = [figure for figure in figures if figure.is_called(MEANS, OTHER_MEANS)]
    deviations = [figure for figure in figures if figure.is_called(DEVIATIONS, OTHER_DEVIATIONS)]
    is_of_results = not split_words(place).isdisjoint(RESULTS)
    for mean, deviation in product(means, deviations):
        sizes = {len(mean.numbers), len(deviation.numbers)}
        is_plain = mean.is_called(MEANS) and deviation.is_called(DEVIATIONS, {"var", "sd"})
        if sizes == {3} or (sizes <= {1, 3} and not is_of_results and (is_plain or mean.is_list)):
            yield mean.path
    if not is_of_results:
        lists = [figure for figure in figures if len(figure.numbers) == 3]
        yield from (figure.path for figure in lists if figure.is_called(MEANS, DEVIATIONS, {"mu"}))
    yield from (figure.path for figure in figures if figure.is_list and _is_pair(figure))


def _is_pair(figure: Figure) -> bool:
    """Return whether a list is a mean and a deviation, or one of two lists that are, or the range of all pixels."""
    size, is_named = len(figure.numbers), PAIR.search(figure.name) is not None
    if size == 2 and re.search(r"(input|pixel|image)_?range", figure.name):
        return figure.numbers != (0, 1)
    is_half = size == 3 and figure.path[-1].isdigit()
    return is_named and (is_half or size == 6 or (size == 2 and "stats" not in figure.name))
