"""Weights of a network in a file: safetensors, or a state dict that torch reads with `weights_only`.

Files hold them as people's programs wrap them: below a key, behind a prefix that a wrapper put before each name, beside
a moving average of the same weights, or beside layers that only training used. What fits the network is taken; where
two sets fit, the user chooses.
"""

import json
import re
import warnings
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from interpret_robust.core.errors import UserError
from interpret_robust.core.plugins import first_words
from interpret_robust.datasets.class_names import Outputs
from interpret_robust.models.card import check_weights
from interpret_robust.models.file_classes import find_class_names
from interpret_robust.models.file_colors import find_normalization
from interpret_robust.models.file_rest import (
    COUNTER,
    DEEPEST,
    EXTRA,
    find_copies,
    find_mappings_of_parts,
    is_average,
    is_between_steps,
    is_of_other_layer,
    is_progress,
    join,
    tensors_in,
    words_of,
)
from interpret_robust.models.normalization import Statistics

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


class Rest(NamedTuple):
    """What a file and a network do not have in common.

    `extras` are paths of tensors in the file that look like parts of other layers, `gaps` names of what layers of
    the network keep beside their tensors, which the file does not hold. `class_lists` are the names of classes in their
    order that the file holds, each with its path.
    """

    extras: list[str]
    gaps: list[str]
    class_lists: list[tuple[str, Outputs]]


def load_weights(
    network: nn.Module, label: str, path: Path, key: str | None = None, normalization: Statistics | None = None
) -> Rest:
    """Load a file's weights into a network, all of them, and return what it and the file do not have in common.

    Those are of layers that the network has nothing like, as a loss or a head that only training used; without a `key`
    also those at other keys, as masks or adapters, but not what an optimizer and the like keep.

    Args:
        network: whose names and shapes they must have, behind whatever prefix.
        label: what sentences call it.
        path: of the file.
        key: where in the file they lie, with dots between levels, or the prefix of their names; None for the only place
            that fits.
        normalization: mean and deviation of the pixels that the network gets; None where the user chose them, so that
            what the file holds of it does not count.

    Raises UserError where no set of tensors in the file, or more than one, fits the network; where the file has further
    parts of layers that the network has, or further layers of their kind, as the file of a deeper network; where a mean
    and a deviation of colors lie beside the weights that nobody uses; and where an optimizer was still to change them.

    Example:
        >>> load_weights(network, "torchvision:resnet18", Path("last.ckpt"), "model_ema")
    """
    content, state = _read(path), network.state_dict()
    expected = {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}
    tied_names = _tied_names(network)
    target = Target(
        expected,
        frozenset(_last(name) for name in expected),
        (EXTRA, *(name for name, item in state.items() if not isinstance(item, Tensor))),
    )
    sets = [
        (place, _fill_in(weights, tied_names))
        for wrapper in (COMPILER_PREFIX, WRAPPER_PREFIX)
        for place, weights in _sets(content, target, wrapper)
    ]
    matches = [(place, weights) for place, weights in sets if _fits(weights, expected)]
    matches = matches or [(place, weights) for place, weights in sets if _loads(network, weights, expected)]
    places = _drop_repetitions(matches, expected)
    candidates = places if key is None else _drop_repetitions(_sets_at(key, matches), expected)
    if not candidates:
        tensors_by_place: dict[str, Mapping[str, Any]] = {}
        for place, weights in (*places, *sets):
            tensors_by_place.setdefault(place, weights.tensors)
        raise _describe_mismatch(path, label, tensors_by_place, expected, key)
    (place, first), *rivals = candidates
    if any(not _are_equal(first.tensors, other.tensors) for _, other in rivals):
        top = ", '' the top" if any(place == "" for place, _ in candidates) else ""
        raise UserError(
            f"{path} holds several weights of {label}, at {_list_places(candidates)}: --weights-key chooses one of "
            f"them{top}."
        )
    used_paths = {path for _, weights in matches for path in _used_paths(weights, target)}
    other_tensors = {path: tensor for path, tensor in tensors_in(content) if path not in used_paths}
    if key is None:
        _check_choice(path, label, content, other_tensors, target, place)
    _check_tied(path, label, first.tensors, tied_names)
    _load(network, path, label, state, first)
    if normalization and (name := find_normalization(content, used_paths, _numbers_in_use(network, normalization))):
        raise UserError(
            f"{path} holds weights of {label}, and at '{name}' what looks like the normalization that they were "
            "trained with: --normalize says which one is right."
        )
    gaps = [name for name in state if name.endswith(EXTRA) and name not in first.tensors and _is_something(state[name])]
    region = "" if key is None else place
    nearby = {path: tensor for path, tensor in other_tensors.items() if path.startswith(region)}
    extras = list(_find_extras(nearby, first, expected, looks_elsewhere=key is None))
    if key is None:
        parameters = [tensor.shape for tensor in network.parameters() if not is_lazy(tensor)]
        copies = (*find_copies(other_tensors, parameters), *find_mappings_of_parts(content))
        extras += [path for path in copies if path not in extras]
    return Rest(extras, gaps, [*find_class_names(content)])


def _numbers_in_use(network: nn.Module, normalization: Statistics) -> set[tuple[float, ...]]:
    """Return the numbers by which pixels are normalized, and those that the network holds, of four digits."""
    lists = [tensor.flatten().tolist() for tensor in network.buffers() if tensor.numel() <= 3]
    numbers_in_use = {tuple(round(float(number), 4) for number in numbers) for numbers in [*normalization, *lists]}
    return numbers_in_use | {3 * numbers for numbers in numbers_in_use if len(numbers) == 1}


def _sets_at(key: str, sets: Collection[tuple[str, WeightSet]]) -> list[tuple[str, WeightSet]]:
    """Return the sets of tensors at a key of a file, or below it where there are none."""
    place = key.rstrip(".")
    at_key = [pair for pair in sets if pair[0].rstrip(".") == place]
    return at_key or [pair for pair in sets if pair[0].startswith(f"{place}.")]


def _find_extras(
    other_tensors: Mapping[str, Tensor], weights: WeightSet, expected: Mapping[str, Tensor], *, looks_elsewhere: bool
) -> Iterator[str]:
    """Yield the paths of tensors that look like parts of layers: beside the weights, and at other keys if asked for."""
    shapes = {name: tensor.shape for name, tensor in expected.items()}
    for path, tensor in other_tensors.items():
        is_beside = path in weights.neighbors and not path.endswith((COUNTER, EXTRA)) and _is_of_layer(path, tensor)
        if is_beside or (looks_elsewhere and is_of_other_layer(path, tensor, shapes)):
            yield path


def _is_something(extra: Any) -> bool:
    return extra is not None and not (isinstance(extra, dict | list | tuple | bytes) and not extra)


def _is_of_layer(path: str, tensor: Tensor) -> bool:
    """Return whether a tensor beside the weights may be a layer's: numbers that tell how far training was are none."""
    return tensor.numel() > 1 or (tensor.is_floating_point() and ("." in path or not is_progress(path, tensor)))


def _drop_repetitions(matches: Iterable[tuple[str, WeightSet]], names: Iterable[str]) -> list[tuple[str, WeightSet]]:
    """Return places and weights by names, each of the file once: wrappers in names are read in two ways."""
    sets_by_tensors: dict[Hashable, tuple[str, WeightSet]] = {}
    for place, weights in matches:
        tensors = frozenset(id(weights.tensors.get(name)) for name in names)
        sets_by_tensors.setdefault(tensors, (place, weights))
    return list(sets_by_tensors.values())


MOST_PLACES = 6
"""Places that a sentence lists."""


def _list_places(candidates: Sequence[tuple[str, WeightSet]]) -> str:
    """Return the places of weights in a file, as `--weights-key` takes them."""
    places = list(dict.fromkeys(repr(place) if place else "the top" for place, _ in candidates))
    remark = f" and {len(places) - MOST_PLACES} more" if len(places) > MOST_PLACES else ""
    return ", ".join(places[:MOST_PLACES]) + remark


def _check_choice(
    path: Path, label: str, content: Any, other_tensors: Mapping[str, Tensor], target: Target, place: str
) -> None:
    """Raise UserError where a file may hold better weights than those at a place, in a form that is not read."""
    own_words = {word for name in target.tensors for word in words_of(name)}
    for average, tensor in other_tensors.items():
        if not is_average(average, tensor, own_words):
            continue
        raise UserError(
            f"{path} holds weights of {label}, and at '{average}' what looks like a moving average of them in another "
            f"form: --weights-key '{place}' takes the weights as they are."
        )
    if is_between_steps(content):
        raise UserError(
            f"{path} holds weights of {label} as a schedule-free optimizer has them while it trains, which are not "
            f"those to evaluate: call optimizer.eval() before they are saved, or take them as they are, with "
            f"--weights-key '{place}'."
        )


def _load(network: nn.Module, path: Path, label: str, state: Mapping[str, Any], weights: WeightSet) -> None:
    """Load what a file holds into a network whose state dict is `state`; it keeps its own counters where these lack.

    Raises UserError where a layer refuses what it is given.
    """
    expected = {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}
    earlier_state = {name: tensor.clone() for name, tensor in expected.items() if not is_lazy(tensor)}
    content: OrderedDict[str, Any] = OrderedDict(state if _fits(weights, expected) else weights.tensors)
    for name, item in weights.tensors.items():
        if name in state and not (name.endswith(COUNTER) and not _is_alike(item, state[name])):
            content[name] = item.to_dense() if isinstance(item, Tensor) else item
    vars(content)["_metadata"] = weights.versions  # where torch looks for them
    try:
        network.load_state_dict(content)
    except Exception as error:  # of a layer that reads its own part of a file
        raise UserError(
            f"{path} does not load into {label}, though all shapes fit ({first_words(error)}): load it where the "
            "network is built, as --model package.module:callable."
        ) from error
    if omission := _find_omission(network, earlier_state, weights.tensors):
        raise UserError(
            f"{path} does not fill '{omission}' of {label}, which stays as it was built: its own way of loading "
            "leaves that out. Load the file where the network is built, as --model package.module:callable."
        )


def _find_omission(network: nn.Module, earlier_state: Mapping[str, Tensor], tensors: Mapping[str, Any]) -> str | None:
    """Return the name of a tensor that loading left as it was, though nothing in the file is equal to it, or None."""
    state = network.state_dict()
    items = [item.to_dense() for item in tensors.values() if isinstance(item, Tensor) and not item.is_nested]
    for name, tensor in earlier_state.items():
        if name.endswith((COUNTER, EXTRA)) or name not in state or not _is_equal(state[name], tensor):
            continue
        candidates = [tensors[name].to_dense()] if isinstance(tensors.get(name), Tensor) else items
        if not any(_is_equal(item.to(tensor.dtype).flatten(), tensor.flatten()) for item in candidates):
            return name
    return None


def _loads(network: nn.Module, weights: WeightSet, expected: Mapping[str, Tensor]) -> bool:
    """Return whether a network takes tensors of other names or shapes, as one with hooks that rename or resize them.

    Integers for numbers of the network lack their scale, though torch takes them.
    """
    content: OrderedDict[str, Any] = OrderedDict(weights.tensors)
    vars(content)["_metadata"] = weights.versions
    if 2 * len(content) < len(expected) or any(
        name in content and _loses_numbers(content[name], tensor) for name, tensor in expected.items()
    ):
        return False
    try:
        network.load_state_dict(content)
    except Exception:
        return False
    return True


def _used_paths(weights: WeightSet, target: Target) -> Iterator[str]:
    """Yield the paths of what a network reads of a file."""
    are_renamed = not _fits(weights, target.tensors)
    yield from (
        path
        for name, path in weights.paths.items()
        if name in target.tensors or name in target.extra_names or are_renamed
    )


def _tied_names(network: nn.Module) -> list[list[str]]:
    """Return the names of each tensor that a network has by several."""
    names = defaultdict(list)
    for name, tensor in network.state_dict().items():
        if isinstance(tensor, Tensor) and not is_lazy(tensor) and tensor.numel() and not tensor.is_meta:
            names[_memory_of(tensor)].append(name)
    return [group for group in names.values() if len(group) > 1]


def _memory_of(tensor: Tensor) -> Hashable:
    """Return what two tensors share whose numbers are the same ones."""
    if tensor.layout != torch.strided:
        return id(tensor)
    return tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride()


def _fill_in(weights: WeightSet, tied_names: Iterable[list[str]]) -> WeightSet:
    """Return tensors with all names of those that a network has by several: a file may hold each once."""
    tensors = dict(weights.tensors)
    for names in tied_names:
        if present := [name for name in names if name in tensors]:
            tensors |= {name: tensors[present[0]] for name in names if name not in tensors}
    return weights._replace(tensors=tensors)


def _check_tied(path: Path, label: str, tensors: Mapping[str, Tensor], tied_names: Iterable[list[str]]) -> None:
    """Raise UserError where a file holds several tensors for one of the network."""
    for first, *more_names in tied_names:
        for name in more_names:
            if not torch.equal(tensors[first], tensors[name]):
                raise UserError(
                    f"{path} has other numbers at '{first}' than at '{name}', which are one tensor in {label}: build "
                    "it with a tensor for each."
                )


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


def _fits(weights: WeightSet, expected: Mapping[str, Tensor]) -> bool:
    if any(name not in weights.tensors for name in expected if not name.endswith((COUNTER, EXTRA))):
        return False  # at once: a file may hold thousands of mappings
    return not _mismatches(weights.tensors, expected)


def _mismatches(tensors: Mapping[str, Any], expected: Mapping[str, Tensor]) -> list[str]:
    """Return the names that differ in shape, that only the network has, and that only the file has of layers like its.

    Like its are those that have its name up to numbers: the file may be that of a deeper network.
    """
    kinds = {_kind(name) for name in expected}
    return sorted(
        name
        for name in expected.keys() | {name for name, item in tensors.items() if _may_be_of(kinds, name, item)}
        if not name.endswith((COUNTER, EXTRA))
        and (name not in expected or name not in tensors or not _is_alike(tensors[name], expected[name]))
    )


def _may_be_of(kinds: Collection[str | None], name: str, item: Any) -> bool:
    """Return whether what only a file has may be of a layer of some kinds, or of none."""
    kind = _kind(name)
    return isinstance(item, Tensor) and (kind in kinds if kind else not is_progress(name, item))


def _kind(name: str) -> str | None:
    """Return the name of the outermost layer of a tensor without its numbers; None for a tensor of no layer."""
    layer, dot, _ = name.partition(".")
    return re.sub(r"\d+", "", layer) if dot else None


def _is_alike(tensor: Tensor, expected: Tensor) -> bool:
    """Return whether two tensors have one shape and one kind of numbers, whose scale is not lost.

    A tensor of the device `meta` has a shape without numbers; a layer of torch that is lazy takes any shape.
    """
    if is_lazy(tensor) or is_lazy(expected):
        return not is_lazy(tensor)
    if tensor.shape != expected.shape or tensor.is_meta:
        return False
    if tensor.is_floating_point() and not expected.is_floating_point():  # a whole file that was cast
        return bool((tensor == tensor.round()).all())
    return not _loses_numbers(tensor, expected)


def _loses_numbers(tensor: Tensor, expected: Tensor) -> bool:
    """Return whether numbers lack the scale that integers and floats of 8 bits have, or are too large for a network."""
    if tensor.dtype == expected.dtype:
        return False
    if expected.is_floating_point() and (not tensor.is_floating_point() or tensor.itemsize == 1):
        return True
    copy = tensor.to(expected.dtype)
    if expected.is_floating_point():
        return not torch.equal(copy.isfinite(), tensor.isfinite())
    return not bool((copy == tensor).all())


def _are_equal(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    names = first.keys() & second.keys() | {name for name in {*first, *second} if name.endswith(EXTRA)}
    return all(_is_equal(first.get(name), second.get(name)) for name in names if not name.endswith(COUNTER))


def _is_equal(first: Any, second: Any) -> bool:
    """Return whether two things of a file are equal, tensors and what holds them too; NaN is equal to NaN."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        if first.is_nested or second.is_nested or first.dtype != second.dtype or first.shape != second.shape:
            return first is second
        first, second = first.to_dense(), second.to_dense()
        is_close = first.is_floating_point() and torch.isclose(first, second, rtol=0, atol=0, equal_nan=True).all()
        return torch.equal(first, second) or bool(is_close)
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(_is_equal(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(_is_equal, first, second))
    return first is second or (type(first) is type(second) and bool(first == second))


def _describe_mismatch(
    path: Path, label: str, sets: Mapping[str, Mapping[str, Tensor]], expected: Mapping[str, Tensor], key: str | None
) -> UserError:
    """Return the sentence that says where the set of tensors that comes nearest differs."""
    if not sets:
        return UserError(f"{path} holds no state dict: save model.state_dict().")
    candidates = {place: item for place, item in sets.items() if key is None or place.rstrip(".") == key.rstrip(".")}
    if not candidates:
        places = ", ".join(repr(place) for place in sets if place) or "none"
        return UserError(f"{path} holds no weights of {label} at --weights-key {key}; places that do: {places}.")
    differences = {place: _mismatches(tensors, expected) for place, tensors in candidates.items()}
    place = min(differences, key=lambda place: (len(expected.keys() & differences[place]), len(differences[place])))
    tensors, mismatches = candidates[place], differences[place]
    name = mismatches[0]
    place_text = f" at '{place}'" if place else ""
    remedy = ""
    if all(mismatch.lower().startswith("aux") for mismatch in mismatches):
        remedy = " It lacks auxiliary heads: --model-arg aux_logits=false builds the network without them."
    return UserError(
        f"{path} does not hold the weights of {label}: {len(mismatches)} tensors{place_text} differ, first {name} "
        f"({_shape_in(tensors, name)} in the file, {_shape_in(expected, name)} in the network).{remedy}"
    )


def _shape_in(tensors: Mapping[str, Tensor], name: str) -> str:
    if name not in tensors:
        return "none"
    tensor = tensors[name]
    if is_lazy(tensor):
        return "a shape left open"
    dtype = str(tensor.dtype).removeprefix("torch.")
    kind = " without numbers" if tensor.is_meta else "" if dtype == "float32" else f" of {dtype}"
    return f"shape {tuple(tensor.shape)}{kind}"


def read_tensors(path: Path | IO[bytes], *, mmap: bool = False) -> Any:
    """Return what `torch.save` wrote: tensors, numbers, texts and what contains them, on the CPU; nothing is unpickled.

    Raises whatever torch raises for another file, without its warnings.

    Example:
        >>> read_tensors(Path("weights.pt"))["classifier.bias"].shape
        torch.Size([10])
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


LFS = b"version https://git-lfs"


def _read(path: Path) -> Any:
    """Return what a file holds. Raises UserError for a file that is missing, damaged, or of another kind."""
    check_weights(path)
    try:
        if _is_safetensors(path):
            return _read_metadata(path) | load_file(path)
        with open(path, "rb") as file:  # not by its name, by which torch tells safetensors
            return read_tensors(file)
    except Exception as error:  # torch's unpickler raises what it likes
        if reason := _describe_kind(path):
            raise UserError(f"{path} {reason}") from None
        if isinstance(error, SafetensorError | OSError | RuntimeError | ValueError | EOFError | KeyError):
            raise UserError(
                f"{path} is damaged or holds no weights ({first_words(error)}): save model.state_dict() anew."
            ) from None
        raise UserError(
            f"{path} is no state dict that torch reads with weights_only, and nothing else is unpickled: save "
            "model.state_dict(), or better a safetensors file."
        ) from error


def _read_metadata(path: Path) -> dict[str, Any]:
    """Return what a safetensors file says beside its tensors, with what its texts hold where they are JSON."""
    with safe_open(path, "pt") as file:
        metadata: dict[str, Any] = dict(file.metadata() or {})
    for name, text in metadata.items():
        with suppress(ValueError, RecursionError):
            metadata[name] = json.loads(text)
    return metadata


def _is_safetensors(path: Path) -> bool:
    """Return whether a file is of safetensors, whatever its name ends with: a length, and a header in braces."""
    with open(path, "rb") as file:
        start = file.read(9)
    is_archive = start.startswith(b"PK")
    return start[8:9] == b"{" or (path.suffix == ".safetensors" and not is_archive)


def _describe_kind(path: Path) -> str | None:
    """Return what a file is that holds no weights, in words after its name; None where that cannot be told."""
    with open(path, "rb") as file:
        start = file.read(len(LFS))
    if start == LFS:
        return "is a pointer that Git LFS left in place of the file: `git lfs pull` fetches that."
    if path.name.endswith(".index.json"):
        return "lists the parts of weights in several files: save them as one."
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [name.rpartition("/")[2] for name in archive.namelist()]
        if any(name.endswith(".npy") for name in names):
            return "holds arrays of NumPy, and weights are read from tensors: save them as safetensors."
        if "constants.pkl" in names or "data.pkl" not in names:
            return "is a program of torch (jit or export), and none is run: save model.state_dict()."
    return None
