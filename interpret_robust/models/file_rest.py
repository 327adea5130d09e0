"""What a file of weights holds beside them: averages, normalization, parts of other layers, and what training kept."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

COUNTER = "num_batches_tracked"
"""A buffer of batch norm that evaluation does not use, and that some files lack, or hold as an average."""

EXTRA = "_extra_state"
"""What a layer keeps beside its tensors, by `get_extra_state`: its name ends so."""

DEEPEST = 8
"""Levels of keys below which anything is looked for: a file may hold itself."""

WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
AVERAGES = {"ema", "shadow", "average", "averages", "averaged", "polyak", "swa"}
AVERAGE = re.compile(r"(^|[._])(avg_params|avg_model)([._]|$)")
"""What keys of moving averages of weights are called; `avg` alone is of pools and of optimizers."""

CURVES = {"loss", "losses", "grad", "grads", "acc", "accuracy", "history"}
"""Words of averages that are not of weights."""

TRAINING = re.compile(
    r"(optim|sched|scaler|metric|histor|callback|hyper|loss|config)[a-z]*|opt|sgd|adamw?|momentum|amp|rng|random|criterion|"
    r"queue|hist|args|loops|confusion"
)
"""Words of the outermost keys of what training alone used."""


MEANS, DEVIATIONS = {"mean", "means", "mu"}, {"std", "stds", "sigma"}
"""Words of the normalization of colors."""


def words_of(name: str) -> set[str]:
    """Return the words of a name, in lower case.

    Example:
        >>> sorted(words_of("state_dict.EMAModel.emaWeights"))
        ['dict', 'ema', 'model', 'state', 'weights']
    """
    return {word.lower() for word in WORD.findall(name)}


def is_average(path: str, tensor: Tensor) -> bool:
    """Return whether a tensor is called like a part of a moving average of weights.

    Example:
        >>> is_average("ema.shadow_params.0", torch.zeros(3))
        True
    """
    words = words_of(path)
    is_named = not AVERAGES.isdisjoint(words) or bool(AVERAGE.search(path))
    return is_named and words.isdisjoint(CURVES) and tensor.numel() > 1


def is_of_training(path: str) -> bool:
    """Return whether what lies at a path is called like what training alone used, such as an optimizer.

    Example:
        >>> is_of_training("optimizer.state.0.exp_avg"), is_of_training("state_dict.scaler.weight")
        (True, False)
    """
    outermost = words_of(path.split(".", maxsplit=1)[0])
    return any(map(TRAINING.fullmatch, outermost)) or not words_of(path).isdisjoint({"optimizer", "optimizers"})


def is_of_other_layer(path: str, tensor: Tensor, shapes: Mapping[str, torch.Size]) -> bool:
    """Return whether a tensor at another key than the weights looks like a part of a network.

    Shapes are those of the network by name: what is called and shaped so is a part wherever it lies. Numbers and curves
    at the top are none.

    Example:
        >>> is_of_other_layer("lora.A", torch.zeros(7, 2), {})
        True
    """
    if tensor.numel() <= 1 or path.endswith((COUNTER, EXTRA)):
        return False
    parts = path.split(".")
    ends = (".".join(parts[start:]) for start in range(1, len(parts)))
    if any(end in shapes and shapes[end] == tensor.shape for end in ends):
        return True
    return ("." in path or tensor.ndim > 1) and not is_of_training(path)


def is_of_colors(path: str, tensor: Tensor) -> bool:
    """Return whether a tensor is called like the mean of colors or their deviation, and has a number or three.

    Example:
        >>> is_of_colors("normalizer.mean", torch.ones(3)), is_of_colors("bn.running_mean", torch.ones(3))
        (True, False)
    """
    words = words_of(path.rpartition(".")[2])
    is_named = (
        not words.isdisjoint(MEANS | DEVIATIONS - {"sigma"}) and "running" not in words and not is_of_training(path)
    )
    return is_named and tensor.numel() in (1, 3) and tensor.is_floating_point()


def find_listed_colors(content: Any) -> str | None:
    """Return the path of a mean of colors in numbers, beside which a deviation lies, or of both; None where none is.

    Example:
        >>> find_listed_colors({"args": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}})
        'args.mean'
    """
    for path, mapping in mappings_in(content):
        names = [str(name) for name, item in mapping.items() if _is_of_numbers(item)]
        means, deviations = (
            [name for name in names if not words_of(name).isdisjoint(words)] for words in (MEANS, DEVIATIONS)
        )
        pairs = [str(name) for name, item in mapping.items() if "normaliz" in str(name).lower() and _is_pair(item)]
        is_plain = {"mean", "std"} <= {name.lower() for name in names}
        has_list = any(isinstance(mapping.get(name), list | tuple) for name in (*means, *deviations))
        if pairs or (means and deviations and (is_plain or has_list)):
            return join(path, (pairs or means)[0])
    return None


def _is_of_numbers(item: Any) -> bool:
    """Return whether this is a number, or a list of one or three."""
    numbers = item if isinstance(item, list | tuple) else [item]
    return len(numbers) in (1, 3) and all(type(number) in (int, float) for number in numbers)


def _is_pair(item: Any) -> bool:
    return isinstance(item, list | tuple) and len(item) == 2 and all(map(_is_of_numbers, item))


def is_between_steps(content: Any) -> bool:
    """Return whether weights may be those that a schedule-free optimizer takes gradients at, not those to evaluate.

    Example:
        >>> is_between_steps({"optimizer": {"param_groups": [{"train_mode": True, "weight_sum": 3.0}]}})
        True
    """
    return any(
        "weight_sum" in mapping and mapping.get("train_mode") is not False for _, mapping in mappings_in(content)
    )


def mappings_in(content: Any, place: str = "", depth: int = 0) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Yield the path of each mapping in mappings and lists, and the mapping, those outside first.

    Example:
        >>> [path for path, _ in mappings_in([{"model": {}}])]
        ['0', '0.model']
    """
    if depth > DEEPEST:
        return
    if isinstance(content, Mapping):
        yield place, content
    for name, item in _items(content):
        if isinstance(item, Mapping | list | tuple):
            yield from mappings_in(item, join(place, str(name)), depth + 1)


def tensors_in(content: Any, place: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Yield the path of each tensor in mappings and lists, and the tensor.

    Example:
        >>> [path for path, _ in tensors_in({"ema": [torch.zeros(3)]})]
        ['ema.0']
    """
    if depth > DEEPEST:
        return
    for name, item in _items(content):
        path = join(place, str(name))
        if isinstance(item, Tensor):
            yield path, item
        else:
            yield from tensors_in(item, path, depth + 1)


def _items(content: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(content, Mapping):
        return content.items()
    return enumerate(content) if isinstance(content, list | tuple) else ()


def join(place: str, name: str) -> str:
    """Return the path of a name below a place, of which either may be empty.

    Example:
        >>> join("", "model"), join("model", "stem.weight")
        ('model', 'model.stem.weight')
    """
    return ".".join(filter(None, [place, name]))


def find_first(tensors: Mapping[str, Tensor], is_like: Callable[[str, Tensor], bool]) -> str | None:
    """Return the path of the first tensor that is like what is looked for; None where none is.

    Example:
        >>> find_first({"ema.weight": torch.zeros(3)}, is_average)
        'ema.weight'
    """
    return next((path for path, tensor in tensors.items() if is_like(path, tensor)), None)
