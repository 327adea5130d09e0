"""Sets of tensors in what a file holds, each of which may be a network's weights, and whether one fits.

A set lies below a key, behind a prefix that a wrapper put before each name, beside a moving average of the same
weights, or beside layers that only training used.
"""

import re
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from interpret_robust.models.weights.rest import COUNTER, DEEPEST, EXTRA, is_progress, join

COMPILER_PREFIX = re.compile(r"(?<![^.])_orig_mod\.")


WRAPPER_PREFIX = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|module)\.")
"""What wrappers of single layers put into names; `module` may also be a layer's own name."""


class WeightSet(NamedTuple):
    """What a file has of a network: tensors, and what layers keep beside them, by name as the network has them.

    `versions` are those of layers by path, `paths` where each tensor lies in the file, by its name in the network, and
    `neighbors` the paths of all tensors that lie beside them.
    """

    tensors: Mapping[str, Any]
    versions: Mapping[str, Any]
    paths: Mapping[str, str]
    neighbors: Collection[str]


class Target(NamedTuple):
    """What a network has: tensors by name, the last words of these names, and the names of what else it keeps."""

    tensors: Mapping[str, Tensor]
    last_words: Collection[str]
    extra_names: tuple[str, ...]


def describe_target(state: Mapping[str, Any]) -> Target:
    """Return what a network has by its state dict.

    Example:
        >>> describe_target({"fc.bias": torch.zeros(2)}).last_words
        frozenset({'bias'})
    """
    tensors = {name: item for name, item in state.items() if isinstance(item, Tensor)}
    others = (name for name in state if name not in tensors)
    return Target(tensors, frozenset(map(_last, tensors)), (EXTRA, *others))


def find_sets(content: Any, target: Target) -> Iterator[tuple[str, WeightSet]]:
    """Yield place and content for each place and each prefix below which tensors of a network may lie.

    Names are read with and without what wrappers of layers put into them.

    Example:
        >>> target = describe_target({"bias": torch.zeros(2)})
        >>> [place for place, _ in find_sets({"net": {"module.bias": torch.zeros(2)}}, target)]
        ['net.module', 'net']
    """
    for wrapper in (COMPILER_PREFIX, WRAPPER_PREFIX):
        yield from _sets(content, target, wrapper)


def _sets(
    content: Any, target: Target, wrapper: re.Pattern[str], place: str = "", depth: int = 0
) -> Iterator[tuple[str, WeightSet]]:
    """Yield place and content for each place and each prefix below which tensors of the network may lie.

    Names are without what `wrapper` matches, unless two would be equal.
    """
    if depth > DEEPEST:
        return
    if isinstance(content, list | tuple):  # of those that hold mappings: an epoch and a state dict
        content = {place: item for place, item in enumerate(content) if isinstance(item, Mapping)}
    if not isinstance(content, Mapping):
        return
    items = {
        str(name): item
        for name, item in content.items()
        if isinstance(item, Tensor) or str(name).endswith(target.extra_names)
    }
    new_names = {name: _modern_name(wrapper.sub("", name), target.tensors) for name in items}
    if len(set(new_names.values())) < len(items):
        new_names = {name: name for name in items}
    tensors = {new_name: items[name] for name, new_name in new_names.items()}
    paths = {new_name: join(place, name) for name, new_name in new_names.items()}
    versions = {wrapper.sub("", f"{path}."): version for path, version in _versions(content).items()}
    may_fit = any(_last(name) in target.last_words for name in tensors)
    for prefix in _prefixes(tensors, target.tensors) if may_fit else [""] if tensors else []:
        weights = WeightSet(
            _cut_prefix(prefix, tensors),
            {path.rstrip("."): item for path, item in _cut_prefix(prefix, versions).items()},
            _cut_prefix(prefix, paths),
            set(paths.values()),
        )
        yield join(place, prefix.rstrip(".")), weights
    for name, item in content.items():
        yield from _sets(item, target, wrapper, join(place, str(name)), depth + 1)


_WEIGHT_NORM = re.compile(r"((?:.*\.)?)(\w+)_([gv])")


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _modern_name(name: str, expected: Iterable[str]) -> str:
    """Return the name that torch's parametrization gives what its older weight norm called `weight_g` or `weight_v`."""
    if match := _WEIGHT_NORM.fullmatch(name):
        modern = f"{match[1]}parametrizations.{match[2]}.original{'gv'.index(match[3])}"
        if any(modern.endswith(other) for other in expected):
            return modern
    return name


def _versions(content: Mapping[Any, Any]) -> Mapping[str, Any]:
    """Return the versions of layers, by their paths, that torch saves beside a state dict; none of another mapping."""
    versions = getattr(content, "_metadata", None)
    return versions if isinstance(versions, Mapping) else {}


def _cut_prefix(prefix: str, items: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): item for name, item in items.items() if name.startswith(prefix)}


def _prefixes(tensors: Collection[str], expected: Collection[str]) -> list[str]:
    """Return what stands before a name of the network in names of tensors, whole words of it, the shortest first."""
    anchors = [name for name in expected if not name.endswith(COUNTER)]
    if not tensors or not anchors:
        return []
    anchor = next((name for name in anchors if any(other.endswith(name) for other in tensors)), anchors[0])
    ends = [name.removesuffix(anchor) for name in tensors if name.endswith(anchor)]
    prefixes: list[str] = []
    for end in sorted({end for end in ends if end == "" or end.endswith(".")}, key=lambda end: (len(end), end)):
        # A network may have the anchor's name inside too: ResNet-18 has conv1.weight and layer1.0.conv1.weight.
        if not any(end.startswith(prefix) and end.removeprefix(prefix) + anchor in expected for prefix in prefixes):
            prefixes.append(end)
    return prefixes or [""]


def choose_sets(key: str, sets: Collection[tuple[str, WeightSet]]) -> list[tuple[str, WeightSet]]:
    """Return the sets of tensors at a key of a file, or below it where there are none."""
    place = key.rstrip(".")
    at_key = [pair for pair in sets if pair[0].rstrip(".") == place]
    return at_key or [pair for pair in sets if pair[0].startswith(f"{place}.")]


def drop_repetitions(matches: Iterable[tuple[str, WeightSet]], names: Iterable[str]) -> list[tuple[str, WeightSet]]:
    """Return places and weights by names, each of the file once: wrappers in names are read in two ways."""
    sets_by_tensors: dict[Hashable, tuple[str, WeightSet]] = {}
    for place, weights in matches:
        tensors = frozenset(id(weights.tensors.get(name)) for name in names)
        sets_by_tensors.setdefault(tensors, (place, weights))
    return list(sets_by_tensors.values())


def fits(weights: WeightSet, expected: Mapping[str, Tensor]) -> bool:
    """Return whether a set has all tensors of a network in their shapes, and none of further layers like its own.

    Example:
        >>> fits(weights, network.state_dict())
        True
    """
    if any(name not in weights.tensors for name in expected if not name.endswith((COUNTER, EXTRA))):
        return False  # at once: a file may hold thousands of mappings
    return not list_mismatches(weights.tensors, expected)


def list_mismatches(tensors: Mapping[str, Any], expected: Mapping[str, Tensor]) -> list[str]:
    """Return the names that differ in shape, that only the network has, and that only the file has of layers like its.

    Like its are those that have its name up to numbers: the file may be that of a deeper network.
    """
    kinds = {_kind(name) for name in expected}
    return sorted(
        name
        for name in expected.keys() | {name for name, item in tensors.items() if _may_be_of(kinds, name, item)}
        if not name.endswith((COUNTER, EXTRA))
        and (name not in expected or name not in tensors or not is_alike(tensors[name], expected[name]))
    )


def _may_be_of(kinds: Collection[str | None], name: str, item: Any) -> bool:
    """Return whether what only a file has may be of a layer of some kinds, or of none."""
    kind = _kind(name)
    return isinstance(item, Tensor) and (kind in kinds if kind else not is_progress(name, item))


def _kind(name: str) -> str | None:
    """Return the name of the outermost layer of a tensor without its numbers; None for a tensor of no layer."""
    layer, dot, _ = name.partition(".")
    return re.sub(r"\d+", "", layer) if dot else None


def is_alike(tensor: Tensor, expected: Tensor) -> bool:
    """Return whether two tensors have one shape and one kind of numbers, whose scale is not lost.

    A tensor of the device `meta` has a shape without numbers; a layer of torch that is lazy takes any shape.
    """
    if is_lazy(tensor) or is_lazy(expected):
        return not is_lazy(tensor)
    if tensor.shape != expected.shape or tensor.is_meta:
        return False
    if tensor.is_floating_point() and not expected.is_floating_point():  # a whole file that was cast
        return bool((tensor == tensor.round()).all())
    return not loses_numbers(tensor, expected)


def loses_numbers(tensor: Tensor, expected: Tensor) -> bool:
    """Return whether numbers lack the scale that integers and floats of 8 bits have, or are too large for a network."""
    if tensor.dtype == expected.dtype:
        return False
    if expected.is_floating_point() and (not tensor.is_floating_point() or tensor.itemsize == 1):
        return True
    copy = tensor.to(expected.dtype)
    if expected.is_floating_point():
        return not torch.equal(copy.isfinite(), tensor.isfinite())
    return not bool((copy == tensor).all())


def are_equal(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Return whether two sets of tensors are equal where both have a name; counters of batch norm do not count.

    Example:
        >>> are_equal({"bias": torch.zeros(2)}, {"bias": torch.zeros(2), "num_batches_tracked": torch.tensor(3)})
        True
    """
    names = first.keys() & second.keys() | {name for name in {*first, *second} if name.endswith(EXTRA)}
    return all(is_equal(first.get(name), second.get(name)) for name in names if not name.endswith(COUNTER))


def is_equal(first: Any, second: Any) -> bool:
    """Return whether two things of a file are equal, tensors and what holds them too; NaN is equal to NaN."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        if first.is_nested or second.is_nested or first.dtype != second.dtype or first.shape != second.shape:
            return first is second
        first, second = first.to_dense(), second.to_dense()
        is_close = first.is_floating_point() and torch.isclose(first, second, rtol=0, atol=0, equal_nan=True).all()
        return torch.equal(first, second) or bool(is_close)
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(is_equal(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(is_equal, first, second))
    return first is second or (type(first) is type(second) and bool(first == second))
