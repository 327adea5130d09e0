"""Weights of a network in a file: safetensors, or a state dict that torch reads with `weights_only`.

Files hold them as people's programs wrap them: below a key, behind a prefix that a wrapper put before each name, beside
a moving average of the same weights. What fits the network is taken; where two sets fit, the user chooses.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from interpret_robust.core.errors import UserError
from interpret_robust.core.plugins import first_words
from interpret_robust.models.card import check_weights

DEEPEST = 4
"""Levels of keys below which weights are looked for."""

COUNTER = "num_batches_tracked"
"""A buffer of batch norm that evaluation does not use, and that some files lack."""


def load_weights(
    network: nn.Module, label: str, path: Path, key: str | None = None, *, is_normalized: bool = True
) -> None:
    """Load a file's weights into a network, all of them.

    Args:
        network: whose names and shapes they must have, behind whatever prefix.
        label: what sentences call it.
        path: of the file.
        key: where in the file they lie, with dots between levels, or the prefix of their names; None for the only place
            that fits.
        is_normalized: whether the user says how pixels are normalized: what the file holds of it does not count then.

    Raises UserError where no set of tensors in the file, or more than one, fits the network, and where a mean and a
    deviation of colors lie beside them that nobody uses.

    Example:
        >>> load_weights(network, "torchvision:resnet18", Path("last.ckpt"), "model_ema")
    """
    content, expected = _read(path), network.state_dict()
    sets = dict(_sets(content, expected))
    candidates = {place: tensors for place, tensors in sets.items() if not _mismatches(tensors, expected)}
    if key is not None:
        candidates = {place: tensors for place, tensors in candidates.items() if place == key.rstrip(".")}
    if not candidates:
        raise _no_fit(path, label, sets, expected, key)
    first, *rivals = candidates.values()
    if any(not _are_equal(first, other) for other in rivals):
        listing = ", ".join(repr(place) if place else "the top" for place in candidates)
        raise UserError(f"{path} holds several weights of {label}, at {listing}: --weights-key chooses one of them.")
    places = (*filter(None, candidates), *expected)
    if not is_normalized and (name := _find_other(content, places, _is_of_colors)):
        raise UserError(
            f"{path} holds weights of {label}, and at '{name}' what looks like the normalization that they were "
            "trained with: --normalize says which one is right."
        )
    if key is None and (average := _find_other(content, places, _is_average)):
        raise UserError(
            f"{path} holds weights of {label}, and at '{average}' what looks like a moving average of them in another "
            f"form: --weights-key '{next(iter(candidates))}' takes the weights as they are."
        )
    counters = {name: tensor for name, tensor in expected.items() if name.endswith(COUNTER) and name not in first}
    network.load_state_dict({name: tensor.to_dense() for name, tensor in first.items()} | counters)


_AVERAGE = re.compile(r"(^|[._])(ema|shadow|averages?|averaged|swa)([._]|$)|ema_|shadow_")
"""What keys of moving averages of weights are called."""

_OF_COLORS = re.compile(r"(^|[._])(mean|std|mu|sigma)$")
"""What tensors of a normalization are called."""


def _is_average(name: str, tensor: Tensor) -> bool:
    return tensor.numel() > 1 and bool(_AVERAGE.search(name))


def _is_of_colors(name: str, tensor: Tensor) -> bool:
    return tensor.numel() in (1, 3) and tensor.is_floating_point() and bool(_OF_COLORS.search(name))


def _find_other(
    content: Any, places: tuple[str, ...], is_like: Callable[[str, Tensor], bool], place: str = ""
) -> str | None:
    """Return where the first tensor lies that is like what is looked for, outside of `places`; None where none does."""
    items = content.items() if isinstance(content, Mapping) else enumerate(content) if isinstance(content, list) else ()
    for name, item in items:
        path = ".".join(filter(None, [place, str(name)]))
        if isinstance(item, Tensor):
            is_used = any(path == parent or path.startswith(f"{parent}.") for parent in places)
            if is_like(path, item) and not is_used:
                return path
        elif inner_path := _find_other(item, places, is_like, path):
            return inner_path
    return None


def _sets(content: Any, expected: Mapping[str, Tensor], place: str = "", depth: int = 0) -> Iterator[Any]:
    """Yield (place, tensors by name) for each place and each prefix below which tensors of the network may lie."""
    if not isinstance(content, Mapping) or depth > DEEPEST:
        return
    tensors = {str(name).replace("_orig_mod.", ""): item for name, item in content.items() if isinstance(item, Tensor)}
    prefixes = _prefixes(tensors, expected)
    for prefix in prefixes:
        longer = tuple(other for other in prefixes if other != prefix and other.startswith(prefix))
        inner = {
            name.removeprefix(prefix): tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix) and not name.startswith(longer)
        }
        yield ".".join(filter(None, [place, prefix.rstrip(".")])), inner
    for name, item in content.items():
        yield from _sets(item, expected, ".".join(filter(None, [place, str(name)])), depth + 1)


def _prefixes(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Return what stands before a name of the network in names of tensors, whole words of it, the shortest first."""
    anchor = next((name for name in expected if not name.endswith(COUNTER)), None)
    if not tensors or anchor is None:
        return []
    ends = [name.removesuffix(anchor) for name in tensors if name.endswith(anchor)]
    prefixes: list[str] = []
    for end in sorted({end for end in ends if end == "" or end.endswith(".")}, key=len):
        # A network may have the anchor's name inside too: ResNet-18 has conv1.weight and layer1.0.conv1.weight.
        if not any(end.startswith(prefix) and end.removeprefix(prefix) + anchor in expected for prefix in prefixes):
            prefixes.append(end)
    return prefixes or [""]


def _mismatches(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Return the names that only one of them has, or that differ in shape."""
    return sorted(
        name
        for name in expected.keys() | tensors.keys()
        if not (name.endswith(COUNTER) and name not in tensors)
        and (name not in expected or name not in tensors or not _is_alike(tensors[name], expected[name]))
    )


def _is_alike(tensor: Tensor, expected: Tensor) -> bool:
    """Return whether two tensors have one shape and one kind of numbers: integers lack their scale."""
    return tensor.shape == expected.shape and tensor.is_floating_point() == expected.is_floating_point()


def _are_equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first if name in second)


def _no_fit(
    path: Path, label: str, sets: Mapping[str, Mapping[str, Tensor]], expected: Mapping[str, Tensor], key: str | None
) -> UserError:
    """Return the sentence that says where the set of tensors that comes nearest differs."""
    if not sets:
        return UserError(f"{path} holds no state dict: save model.state_dict().")
    if key is not None and key.rstrip(".") not in sets:
        places = ", ".join(repr(place) for place in sets if place) or "none"
        return UserError(f"{path} holds no weights of {label} at --weights-key {key}; places that do: {places}.")
    candidates = sets if key is None else {key: sets[key.rstrip(".")]}
    place, tensors = min(candidates.items(), key=lambda item: len(_mismatches(item[1], expected)))
    mismatches = _mismatches(tensors, expected)
    name = mismatches[0]
    place_text = f" at '{place}'" if place else ""
    return UserError(
        f"{path} does not hold the weights of {label}: {len(mismatches)} tensors{place_text} differ, first {name} "
        f"({_shape_in(tensors, name)} in the file, {_shape_in(expected, name)} in the network)."
    )


def _shape_in(tensors: Mapping[str, Tensor], name: str) -> str:
    if name not in tensors:
        return "none"
    dtype = str(tensors[name].dtype).removeprefix("torch.")
    return f"shape {tuple(tensors[name].shape)}" + ("" if tensors[name].is_floating_point() else f" of {dtype}")


def _read(path: Path) -> Any:
    """Return what a file holds. Raises UserError for a file that is missing, damaged, or of another kind."""
    check_weights(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise UserError(
            f"{path} is damaged or holds no weights ({first_words(error)}): save model.state_dict() anew."
        ) from None
    except Exception as error:  # torch's unpickler raises what it likes
        raise UserError(
            f"{path} is no state dict that torch reads with weights_only, and nothing else is unpickled: save "
            "model.state_dict(), or better a safetensors file."
        ) from error
