"""What a file of weights, or a network, says its classes are called, and whether the data have them in that order."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from torch import nn

from interpret_robust.datasets.class_names import Outputs, find, parse
from interpret_robust.models.weights.rest import join, list_mappings, split_words

CLASSES = split_words("class classes label labels category categories target targets names")
"""Words of names under which programs keep those of their classes, such as `class_to_idx` or `id2label`."""

BYWORDS = CLASSES | split_words(
    "name idx index indices id ids int str to map mapping list dict order train dataset data"
)
"""Words that may stand beside these."""


def list_order_doubts(
    class_lists: Iterable[tuple[str, Outputs]], class_names: Sequence[str], owner: str
) -> Iterator[str]:
    """Yield a sentence, without its subject, for each list of names of classes in another order than the labels.

    Args:
        class_lists: paths and names, of which `find_class_names` yields those of a file.
        class_names: of the data, in the order of the labels. A name that a list lacks says nothing, nor does a list of
            another length.
        owner: of the lists, as sentences call it.

    Example:
        >>> list(list_order_doubts([("classes", [["dog"], ["cat"]])], ["cat", "dog"], "net.pt"))[0][:55]
        "has 'cat' as its class 1 by 'classes' of net.pt, and th"
    """
    for path, outputs in class_lists:
        places = find(class_names, outputs) if len(outputs) == len(class_names) else []
        moves = [(label, place) for label, place in enumerate(places) if place not in (None, label)]
        if moves:
            label, place = moves[0]
            yield (
                f"has '{class_names[label]}' as its class {place} by '{path}' of {owner}, and the images have it as "
                f"label {label} ({len(moves)} of {len(places)} classes differ so): answers count for other classes, "
                "unless that is the order of something else. Number the labels as the model does its classes: "
                "--classes FILE, which names them, or in Python where the data are made."
            )


def list_class_names(network: nn.Module) -> Iterator[tuple[str, Outputs]]:
    """Yield path and names of classes that a network keeps, or its configuration, such as those of `transformers`."""
    yield from find_class_names(vars(network))
    config = vars(network).get("config")
    if hasattr(config, "__dict__"):
        yield from ((f"config.{path}", outputs) for path, outputs in find_class_names(vars(config)))


def find_class_names(content: Any) -> Iterator[tuple[str, Outputs]]:
    """Yield path and names, in the order of its outputs, of what mappings and lists hold that is called like these.

    Example:
        >>> list(find_class_names({"meta": {"class_to_idx": {"dog": 0, "cat": 1}}}))
        [('meta.class_to_idx', [['dog'], ['cat']])]
    """
    for place, mapping in list_mappings(content):
        for name, item in mapping.items():
            if _is_called_so(str(name)) and (outputs := _read(item)):
                yield join(place, str(name)), outputs


def _is_called_so(name: str) -> bool:
    words = split_words(name)
    return not words.isdisjoint(CLASSES) and words <= BYWORDS


def _read(item: Any) -> Outputs:
    """Return the names that a list, a mapping from or to numbers, or a text of either gives, none elsewhere."""
    if isinstance(item, str):
        with suppress(ValueError, RecursionError):
            item = json.loads(item)
        item = [part.strip() for part in item.split(",")] if isinstance(item, str) else item
    item = list(item) if isinstance(item, tuple) else item
    with suppress(ValueError, TypeError, AttributeError, RecursionError):
        return parse(item) if isinstance(item, list | Mapping) else []
    return []
