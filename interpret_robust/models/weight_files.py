"""Weights of a network in a file: safetensors, or a state dict that torch reads with `weights_only`.

Files hold them as people's programs wrap them: below a key, behind a prefix that a wrapper put before each name, beside
a moving average of the same weights, or beside layers that only training used. What fits the network is taken; where
two sets fit, the user chooses.
"""

import re
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from interpret_robust.core.errors import UserError
from interpret_robust.core.plugins import first_words
from interpret_robust.models.card import check_weights

DEEPEST = 4
"""Levels of keys below which weights are looked for."""

COUNTER = "num_batches_tracked"
"""A buffer of batch norm that evaluation does not use, and that some files lack, or hold as an average."""

EXTRA = "_extra_state"
"""What a layer keeps beside its tensors, by `get_extra_state`: its name ends so."""

COMPILER_PREFIX = re.compile(r"(?<![^.])_orig_mod\.")
WRAPPER_PREFIX = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|module)\.")
"""What wrappers of single layers put into names; `module` may also be a layer's own name."""


class WeightSet(NamedTuple):
    """Tensors, and what layers keep beside them, by name as the network has them; the versions of layers by path."""

    tensors: Mapping[str, Any]
    versions: Mapping[str, Any]


def load_weights(
    network: nn.Module, label: str, path: Path, key: str | None = None, *, is_normalized: bool = True
) -> list[str]:
    """Load a file's weights into a network, all of them, and return the names of tensors beside them that it lacks.

    Those are of layers that the network has nothing like, as a loss or a head that only training used; without a `key`
    also those at other keys, as masks or adapters, but not what an optimizer and the like keep.

    Args:
        network: whose names and shapes they must have, behind whatever prefix.
        label: what sentences call it.
        path: of the file.
        key: where in the file they lie, with dots between levels, or the prefix of their names; None for the only place
            that fits.
        is_normalized: whether the user says how pixels are normalized: what the file holds of it does not count then.

    Raises UserError where no set of tensors in the file, or more than one, fits the network; where the file has further
    parts of layers that the network has, or further layers of their kind, as the file of a deeper network; where a mean
    and a deviation of colors lie beside the weights that nobody uses; and where an optimizer was still to change them.

    Example:
        >>> load_weights(network, "torchvision:resnet18", Path("last.ckpt"), "model_ema")
    """
    content, state = _read(path), network.state_dict()
    expected = {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}
    tied_names = _tied_names(network)
    sets = {place: _fill_in(weights, tied_names) for place, weights in _sets(content, expected, COMPILER_PREFIX)}
    if not any(_fits(weights, expected) for weights in sets.values()):
        more_sets = {
            place: _fill_in(weights, tied_names) for place, weights in _sets(content, expected, WRAPPER_PREFIX)
        }
        sets |= {place: weights for place, weights in more_sets.items() if _fits(weights, expected)}
    candidates = {place: weights for place, weights in sets.items() if _fits(weights, expected)}
    if key is not None:
        candidates = {place: weights for place, weights in candidates.items() if place == key.rstrip(".")}
    if not candidates:
        raise _describe_mismatch(
            path, label, {place: weights.tensors for place, weights in sets.items()}, expected, key
        )
    (place, first), *rivals = candidates.items()
    if any(not _are_equal(first.tensors, other.tensors) for _, other in rivals):
        listing = ", ".join(repr(place) if place else "the top" for place in candidates)
        raise UserError(f"{path} holds several weights of {label}, at {listing}: --weights-key chooses one of them.")
    used_paths = {_path(place, name) for place in candidates for name in expected}
    tensors = {_modern_name(path, expected): tensor for path, tensor in _tensors_by_path(content)}
    other_tensors = {path: tensor for path, tensor in tensors.items() if path not in used_paths}
    if not is_normalized and (name := _first(other_tensors, _is_of_colors)):
        raise UserError(
            f"{path} holds weights of {label}, and at '{name}' what looks like the normalization that they were "
            "trained with: --normalize says which one is right."
        )
    if key is None and (average := _first(other_tensors, _is_average)):
        raise UserError(
            f"{path} holds weights of {label}, and at '{average}' what looks like a moving average of them in another "
            f"form: --weights-key '{place}' takes the weights as they are."
        )
    if key is None and _is_between_steps(content):
        raise UserError(
            f"{path} holds weights of {label} as a schedule-free optimizer has them while it trains, which are not "
            f"those to evaluate: call optimizer.eval() before they are saved, or take them as they are, with "
            f"--weights-key '{place}'."
        )
    _check_tied(path, label, first.tensors, tied_names)
    _load(network, state, first)
    leftovers = [_path(place, name) for name in first.tensors if not name.endswith((COUNTER, EXTRA))]
    extras = [path for path, tensor in other_tensors.items() if key is None and _is_of_network(path, tensor)]
    return [path for path in dict.fromkeys([*leftovers, *extras]) if path not in used_paths]


def _load(network: nn.Module, state: Mapping[str, Any], weights: WeightSet) -> None:
    """Load what a file holds into a network whose state dict is `state`; it keeps its own counters where these lack."""
    content: OrderedDict[str, Any] = OrderedDict(state)
    for name, item in weights.tensors.items():
        if name in state and not (name.endswith(COUNTER) and not _is_alike(item, state[name])):
            content[name] = item.to_dense() if isinstance(item, Tensor) else item
    vars(content)["_metadata"] = weights.versions  # where torch looks for them
    network.load_state_dict(content)


def _tied_names(network: nn.Module) -> list[list[str]]:
    """Return the names of each tensor that a network has by several."""
    names = defaultdict(list)
    for name, tensor in network.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor):
            names[id(tensor)].append(name)
    return [group for group in names.values() if len(group) > 1]


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


def _path(place: str, name: str) -> str:
    """Return the name of a tensor with that of the place below which it lies, without what wrappers put into it."""
    return WRAPPER_PREFIX.sub("", ".".join(filter(None, [place, name])))


_AVERAGE = re.compile(r"(^|[._])(ema|shadow|averages?|averaged|avg_params|avg_model|polyak|swa)([._]|$)|ema_|shadow_")
"""What keys of moving averages of weights are called."""

_OF_COLORS = re.compile(r"(^|[._])(mean|std|mu|sigma)$")
"""What tensors of a normalization are called."""


def _is_average(name: str, tensor: Tensor) -> bool:
    return tensor.numel() > 1 and bool(_AVERAGE.search(name))


def _is_of_colors(name: str, tensor: Tensor) -> bool:
    return tensor.numel() in (1, 3) and tensor.is_floating_point() and bool(_OF_COLORS.search(name))


_OF_TRAINING = re.compile(
    r"(^|[._])(optim|(lr_?)?sched|scaler|amp|rng|random|loss|criterion|queue|metric|histor|callback|hyper|args|config|"
    r"loops|ema|train)",
    re.IGNORECASE,
)
"""What keys hold that training alone used; moving averages are told of by `_is_average`."""


def _is_of_network(path: str, tensor: Tensor) -> bool:
    is_inner = "." in path  # a number or a curve at the top is no part of a network
    return is_inner and tensor.numel() > 1 and not path.endswith((COUNTER, EXTRA)) and not _OF_TRAINING.search(path)


def _first(tensors: Mapping[str, Tensor], is_like: Callable[[str, Tensor], bool]) -> str | None:
    """Return the path of the first tensor that is like what is looked for; None where none is."""
    return next((path for path, tensor in tensors.items() if is_like(path, tensor)), None)


def _tensors_by_path(content: Any, place: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the path of each tensor in mappings and lists, and the tensor; and lists of few numbers, as of colors."""
    for name, item in _items(content):
        path = _path(place, str(name))
        if isinstance(item, Tensor):
            yield path, item
        elif _is_few_numbers(item):
            yield path, torch.tensor(item)
        else:
            yield from _tensors_by_path(item, path)


def _items(content: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(content, Mapping):
        return content.items()
    return enumerate(content) if isinstance(content, list | tuple) else ()


def _is_few_numbers(item: Any) -> bool:
    is_list = isinstance(item, list | tuple) and len(item) in (1, 3)
    return is_list and all(isinstance(number, float) for number in item)


def _is_between_steps(content: Any) -> bool:
    """Return whether weights are those that a schedule-free optimizer takes gradients at, which are not its answer."""
    if isinstance(content, Mapping) and content.get("train_mode") is True and "weight_sum" in content:
        return True
    return any(_is_between_steps(item) for _, item in _items(content))


def _sets(
    content: Any, expected: Mapping[str, Tensor], wrapper: re.Pattern[str], place: str = "", depth: int = 0
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
    items = {str(name): item for name, item in content.items() if isinstance(item, Tensor) or str(name).endswith(EXTRA)}
    plain_items = {_modern_name(wrapper.sub("", name), expected): item for name, item in items.items()}
    tensors = plain_items if len(plain_items) == len(items) else items
    versions = {wrapper.sub("", f"{path}."): version for path, version in _versions(content).items()}
    for prefix in _prefixes(tensors, expected):
        weights = WeightSet(
            _cut_prefix(prefix, tensors),
            {path.rstrip("."): item for path, item in _cut_prefix(prefix, versions).items()},
        )
        yield ".".join(filter(None, [place, prefix.rstrip(".")])), weights
    for name, item in content.items():
        yield from _sets(item, expected, wrapper, ".".join(filter(None, [place, str(name)])), depth + 1)


_WEIGHT_NORM = re.compile(r"((?:.*\.)?)(\w+)_([gv])")


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
    for end in sorted({end for end in ends if end == "" or end.endswith(".")}, key=len):
        # A network may have the anchor's name inside too: ResNet-18 has conv1.weight and layer1.0.conv1.weight.
        if not any(end.startswith(prefix) and end.removeprefix(prefix) + anchor in expected for prefix in prefixes):
            prefixes.append(end)
    return prefixes or [""]


def _fits(weights: WeightSet, expected: Mapping[str, Tensor]) -> bool:
    return not _mismatches(weights.tensors, expected)


def _mismatches(tensors: Mapping[str, Any], expected: Mapping[str, Tensor]) -> list[str]:
    """Return the names that differ in shape, that only the network has, and that only the file has of layers like its.

    Like its are those that have its name up to numbers: the file may be that of a deeper network.
    """
    kinds = {_kind(name) for name in expected}
    return sorted(
        name
        for name in expected.keys() | {name for name in tensors if _kind(name) in {*kinds, None}}
        if not name.endswith((COUNTER, EXTRA))
        and (name not in expected or name not in tensors or not _is_alike(tensors[name], expected[name]))
    )


def _kind(name: str) -> str | None:
    """Return the name of the outermost layer of a tensor without its numbers; None for a tensor of no layer."""
    layer, dot, _ = name.partition(".")
    return re.sub(r"\d+", "", layer) if dot else None


def _is_alike(tensor: Tensor, expected: Tensor) -> bool:
    """Return whether two tensors have one shape and one kind of numbers: integers lack their scale.

    A tensor of the device `meta` has a shape without numbers; a layer of torch that is lazy takes any shape.
    """
    if is_lazy(tensor) or is_lazy(expected):
        return not is_lazy(tensor)
    is_same_kind = tensor.is_floating_point() == expected.is_floating_point()
    return tensor.shape == expected.shape and is_same_kind and not tensor.is_meta


def _are_equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    names = [name for name in first if name in second and not name.endswith((COUNTER, EXTRA))]
    return all(torch.equal(first[name], second[name]) for name in names)


def _describe_mismatch(
    path: Path, label: str, sets: Mapping[str, Mapping[str, Tensor]], expected: Mapping[str, Tensor], key: str | None
) -> UserError:
    """Return the sentence that says where the set of tensors that comes nearest differs."""
    if not sets:
        return UserError(f"{path} holds no state dict: save model.state_dict().")
    if key is not None and key.rstrip(".") not in sets:
        places = ", ".join(repr(place) for place in sets if place) or "none"
        return UserError(f"{path} holds no weights of {label} at --weights-key {key}; places that do: {places}.")
    candidates = sets if key is None else {key: sets[key.rstrip(".")]}
    differences = {place: _mismatches(tensors, expected) for place, tensors in candidates.items()}
    place = min(differences, key=lambda place: (len(expected.keys() & differences[place]), len(differences[place])))
    tensors, mismatches = candidates[place], differences[place]
    name = mismatches[0]
    place_text = f" at '{place}'" if place else ""
    return UserError(
        f"{path} does not hold the weights of {label}: {len(mismatches)} tensors{place_text} differ, first {name} "
        f"({_shape_in(tensors, name)} in the file, {_shape_in(expected, name)} in the network)."
    )


def _shape_in(tensors: Mapping[str, Tensor], name: str) -> str:
    if name not in tensors:
        return "none"
    tensor = tensors[name]
    if is_lazy(tensor):
        return "a shape left open"
    dtype = str(tensor.dtype).removeprefix("torch.")
    kind = " without numbers" if tensor.is_meta else "" if tensor.is_floating_point() else f" of {dtype}"
    return f"shape {tuple(tensor.shape)}{kind}"


def read_tensors(path: Path, *, mmap: bool = False) -> Any:
    """Return what `torch.save` wrote: tensors, numbers, texts and what contains them, on the CPU; nothing is unpickled.

    Raises whatever torch raises for another file, without its warnings.

    Example:
        >>> read_tensors(Path("weights.pt"))["classifier.bias"].shape
        torch.Size([10])
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def _read(path: Path) -> Any:
    """Return what a file holds. Raises UserError for a file that is missing, damaged, or of another kind."""
    check_weights(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return read_tensors(path)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise UserError(
            f"{path} is damaged or holds no weights ({first_words(error)}): save model.state_dict() anew."
        ) from None
    except Exception as error:  # torch's unpickler raises what it likes
        raise UserError(
            f"{path} is no state dict that torch reads with weights_only, and nothing else is unpickled: save "
            "model.state_dict(), or better a safetensors file."
        ) from error
