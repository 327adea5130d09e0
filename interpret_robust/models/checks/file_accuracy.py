"""Whether a model is about as accurate as its file of weights says."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import scipy
from torch import Tensor

from interpret_robust.models.checks.judgment import SIGNIFICANT, Judgment
from interpret_robust.models.weights.content import read_content
from interpret_robust.models.weights.rest import join, list_mappings

ACCURACY = re.compile(r"((best|top|val|valid|validation|test|eval)_?)*(acc(uracy)?[@_]?1?|(top|prec)[@_]?1)")
"""What programs call the accuracy on images that were not trained on, in lower case."""

MOST_LOST = 0.2
"""Share of the stated accuracy that a model may lack: it may be that of another epoch, of other images, of training."""


def doubt_about_accuracy(path: Path, judgment: Judgment) -> str | None:
    """Return a sentence where fewer images are right than the file of the weights says, or None.

    It begins with a verb, to be read behind the model's name.

    Example:
        >>> doubt_about_accuracy(Path("last.pt"), judgment)
        "is right on 40% of 100 test images, and 'best_acc' in last.pt is 0.93: is the network built as ...?"
    """
    accuracy, right = judgment.accuracy, judgment.right
    if accuracy >= 1 - MOST_LOST:  # no stated share is high enough: the file need not be read again
        return None
    for place, number, share in find_accuracies(read_content(path)):
        if accuracy < (1 - MOST_LOST) * share and scipy.special.bdtr(right.sum(), len(right), share) < SIGNIFICANT:
            return (
                f"{judgment.summary}, and '{place}' in {path.name} is {number:g}: is the network built as it was "
                "trained (activations, padding, pooling), and are these images of its classes, prepared alike?"
            )
    return None


def find_accuracies(content: Any) -> Iterator[tuple[str, float, float]]:
    """Yield the path of each number that is called like an accuracy, the number, and the share that it means.

    A number above 1 is a percentage.

    Example:
        >>> list(find_accuracies({"net": {}, "acc": 93.5, "train_acc": 99.9}))
        [('acc', 93.5, 0.935)]
    """
    for place, mapping in list_mappings(content):
        for name, item in mapping.items():
            if ACCURACY.fullmatch(str(name).lower()) and isinstance(item, int | float | Tensor) and _is_one(item):
                number = float(item)
                share = number / 100 if number > 1 else number
                if 0 < share < 1:
                    yield join(place, str(name)), number, share


def _is_one(item: Any) -> bool:
    return not isinstance(item, Tensor) or (item.numel() == 1 and not item.is_complex())
