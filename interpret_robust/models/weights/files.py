"""Weights of a network in a file as people's programs wrap them: what fits the network is taken.

Where two sets of tensors fit, the user chooses, and what the file holds beside them is told.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from interpret_robust.core.errors import UserError
from interpret_robust.core.plugins import quote_error
from interpret_robust.datasets.class_names import Outputs
from interpret_robust.models.normalization import Statistics
from interpret_robust.models.weights.classes import find_class_names
from interpret_robust.models.weights.colors import find_normalization
from interpret_robust.models.weights.content import read_content
from interpret_robust.models.weights.rest import (
    COUNTER,
    EXTRA,
    find_copies,
    find_mappings_of_parts,
    find_tensors,
    is_average,
    is_between_steps,
    is_of_other_layer,
    is_progress,
    split_words,
)
from interpret_robust.models.weights.sets import (
    Target,
    WeightSet,
    are_equal,
    choose_sets,
    describe_target,
    drop_repetitions,
    find_sets,
    fits,
    is_alike,
    is_equal,
    list_mismatches,
    loses_numbers,
)


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

    Not in common are tensors of layers that the network lacks, as a loss or a head that only training used; without a
    `key` also those at other keys, as masks or adapters, but not what an optimizer and the like keep.

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
    content, state, tied_names = read_content(path), network.state_dict(), _tied_names(network)
    target = describe_target(state)
    sets = [(place, _fill_in(weights, tied_names)) for place, weights in find_sets(content, target)]
    matches = [(place, weights) for place, weights in sets if fits(weights, target.tensors)]
    are_renamed = not matches
    if are_renamed:
        matches = [(place, weights) for place, weights in sets if _loads(network, weights, target.tensors)]
    place, weights = _choose(path, label, key, matches, sets, target.tensors)
    used_paths = {used for _, match in matches for used in _used_paths(match, None if are_renamed else target)}
    other_tensors = {path: tensor for path, tensor in find_tensors(content) if path not in used_paths}
    if key is None:
        _check_choice(path, label, content, other_tensors, target, place)
    _check_tied(path, label, weights.tensors, tied_names)
    _load(network, path, label, weights, weights.tensors if are_renamed else state)
    if normalization and (name := find_normalization(content, used_paths, _numbers_in_use(network, normalization))):
        raise UserError(
            f"{path} holds weights of {label}, and at '{name}' what looks like the normalization that they were "
            "trained with: --normalize says which one is right."
        )
    extra_names = [name for name in state if name.endswith(EXTRA) and _is_something(state[name])]
    gaps = [name for name in extra_names if name not in weights.tensors]
    extras = _list_extras(network, content, other_tensors, weights, None if key is None else place)
    return Rest(extras, gaps, [*find_class_names(content)])


def count_rows(network: nn.Module, path: Path, key: str | None, count: int) -> int | None:
    """Return how many rows a file has in all tensors that differ from the network's, which have `count` of them.

    That is the number of classes of a network that was built for another one. None where anything else differs, or
    nothing.

    Example:
        >>> count_rows(torchvision.models.resnet18(num_classes=1000), Path("ten_classes.pt"), None, 1000)
        10
    """
    target = describe_target(network.state_dict())
    sets = [*find_sets(read_content(path), target)]
    for _, weights in sets if key is None else choose_sets(key, sets):
        names = list_mismatches(weights.tensors, target.tensors)
        if not (weights.tensors.keys() & target.tensors.keys()).issuperset(names):
            continue
        pairs = [(weights.tensors[name], target.tensors[name]) for name in names]
        row_counts = {len(item) if item.ndim else 0 for item, _ in pairs}
        if len(row_counts) == 1 and all(tensor.shape == (count, *item.shape[1:]) for item, tensor in pairs):
            return row_counts.pop()
    return None


def _choose(
    path: Path,
    label: str,
    key: str | None,
    matches: Sequence[tuple[str, WeightSet]],
    sets: Sequence[tuple[str, WeightSet]],
    expected: Mapping[str, Tensor],
) -> tuple[str, WeightSet]:
    """Return the place and the tensors of the only match, at a key if one is given.

    Raises UserError where none of the sets matches, or where several do that differ.
    """
    places = drop_repetitions(matches, expected)
    candidates = places if key is None else drop_repetitions(choose_sets(key, matches), expected)
    if not candidates:
        tensors_by_place: dict[str, Mapping[str, Any]] = {}
        for place, weights in (*places, *sets):
            tensors_by_place.setdefault(place, weights.tensors)
        raise _describe_mismatch(path, label, tensors_by_place, expected, key)
    (_, first), *rivals = candidates
    if any(not are_equal(first.tensors, other.tensors) for _, other in rivals):
        top = ", '' the top" if any(place == "" for place, _ in candidates) else ""
        raise UserError(
            f"{path} holds several weights of {label}, at {_list_places(candidates)}: --weights-key chooses one of "
            f"them{top}."
        )
    return candidates[0]


def _numbers_in_use(network: nn.Module, normalization: Statistics) -> set[tuple[float, ...]]:
    """Return the numbers by which pixels are normalized, and those that the network holds, of four digits."""
    buffers = [tensor for tensor in network.buffers() if tensor.is_floating_point() and tensor.numel() <= 3]
    lists = [tensor.flatten().tolist() for tensor in buffers]
    numbers_in_use = {tuple(round(float(number), 4) for number in numbers) for numbers in [*normalization, *lists]}
    return numbers_in_use | {3 * numbers for numbers in numbers_in_use if len(numbers) == 1}


def _list_extras(
    network: nn.Module, content: Any, other_tensors: Mapping[str, Tensor], weights: WeightSet, region: str | None
) -> list[str]:
    """Return the paths of what looks like parts of layers: beside the weights, or elsewhere too without a region."""
    shapes = {name: item.shape for name, item in network.state_dict().items() if isinstance(item, Tensor)}
    beginning = f"{region.rstrip('.')}." if region else ""
    extras = [
        path
        for path, tensor in other_tensors.items()
        if (path.startswith(beginning) and _is_beside(weights, path, tensor))
        or (region is None and is_of_other_layer(path, tensor, shapes))
    ]
    if region is None:
        parameters = [tensor.shape for tensor in network.parameters() if not is_lazy(tensor)]
        copies = (*find_copies(other_tensors, parameters), *find_mappings_of_parts(content))
        extras += [path for path in copies if path not in extras]
    return extras


def _is_beside(weights: WeightSet, path: str, tensor: Tensor) -> bool:
    """Return whether a tensor lies beside weights and may be a layer's."""
    return path in weights.neighbors and not path.endswith((COUNTER, EXTRA)) and _is_of_layer(path, tensor)


def _is_something(extra: Any) -> bool:
    return extra is not None and not (isinstance(extra, dict | list | tuple | bytes) and not extra)


def _is_of_layer(path: str, tensor: Tensor) -> bool:
    """Return whether a tensor beside the weights may be a layer's: numbers that tell how far training was are none."""
    return tensor.numel() > 1 or (tensor.is_floating_point() and ("." in path or not is_progress(path, tensor)))


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
    own_words = {word for name in target.tensors for word in split_words(name)}
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


def _load(network: nn.Module, path: Path, label: str, weights: WeightSet, base: Mapping[str, Any]) -> None:
    """Load what a file holds into a network: `base`, with the tensors of the file in place of its own.

    A network keeps its own counters where the file's are of another kind. Raises UserError where a layer refuses what
    it is given.
    """
    state = network.state_dict()
    tensors = {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor) and not is_lazy(tensor)}
    earlier_state = {name: tensor.clone() for name, tensor in tensors.items()}
    content: OrderedDict[str, Any] = OrderedDict(base)
    for name, item in weights.tensors.items():
        if name in state and not (name.endswith(COUNTER) and not is_alike(item, state[name])):
            content[name] = item.to_dense() if isinstance(item, Tensor) else item
    vars(content)["_metadata"] = weights.versions  # where torch looks for them
    try:
        network.load_state_dict(content)
    except Exception as error:  # of a layer that reads its own part of a file
        raise UserError(
            f"{path} does not load into {label}, though all shapes fit ({quote_error(error)}): load it where the "
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
        if name.endswith((COUNTER, EXTRA)) or name not in state or not is_equal(state[name], tensor):
            continue
        candidates = [tensors[name].to_dense()] if isinstance(tensors.get(name), Tensor) else items
        if not any(is_equal(item.to(tensor.dtype).flatten(), tensor.flatten()) for item in candidates):
            return name
    return None


def _loads(network: nn.Module, weights: WeightSet, expected: Mapping[str, Tensor]) -> bool:
    """Return whether a network takes tensors of other names or shapes, as one with hooks that rename or resize them.

    Integers for numbers of the network lack their scale, though torch takes them.
    """
    content: OrderedDict[str, Any] = OrderedDict(weights.tensors)
    vars(content)["_metadata"] = weights.versions
    if 2 * len(content) < len(expected) or any(
        name in content and loses_numbers(content[name], tensor) for name, tensor in expected.items()
    ):
        return False
    try:
        network.load_state_dict(content)
    except Exception:
        return False
    return True


def _used_paths(weights: WeightSet, target: Target | None) -> Iterator[str]:
    """Yield the paths of what a network reads of a file: what a target has, or all where the network renames it."""
    for name, path in weights.paths.items():
        if target is None or name in target.tensors or name in target.extra_names:
            yield path


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
        for name in more_names:  # counters of batch norms may be left out of a file
            if {first, name} <= tensors.keys() and not torch.equal(tensors[first], tensors[name]):
                raise UserError(
                    f"{path} has other numbers at '{first}' than at '{name}', which are one tensor in {label}: build "
                    "it with a tensor for each."
                )


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
    differences = {place: list_mismatches(tensors, expected) for place, tensors in candidates.items()}
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
