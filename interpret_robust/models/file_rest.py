"""What a file of weights holds beside them: averages, parts of other layers, and what training kept."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
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

BYWORDS = re.compile(
    r"(state|dict|param|parameter|buffer|weight)s?|matrix|lr|last|best|train|training|val|valid|test|grad|torch|cuda|"
    r"numpy|python|curve"
)
"""Words that stand beside these."""

OPTIMIZER_NAMES = {"params", "param_groups", "weight_sum"}
"""What the mappings of an optimizer hold, of which one is schedule-free."""

PARTS = {"mask", "masks", "lora", "adapter", "adapters", "prompt", "prompts", "delta", "scale", "scales"}
"""Words of what changes the weights that it lies beside."""


def words_of(name: str) -> set[str]:
    """Return the words of a name, in lower case.

    Example:
        >>> sorted(words_of("state_dict.EMAModel.emaWeights"))
        ['dict', 'ema', 'model', 'state', 'weights']
    """
    return {word.lower() for word in WORD.findall(name)}


def is_average(path: str, tensor: Tensor, own_words: Collection[str] = ()) -> bool:
    """Return whether a tensor is called like a part of a moving average of weights.

    Words that the network's own names have, as one with a layer `ema`, do not count.

    Example:
        >>> is_average("ema.shadow_params.0", torch.zeros(3)), is_average("grad.ema.0", torch.zeros(3), {"ema"})
        (True, False)
    """
    words = words_of(path)
    is_named = not AVERAGES.isdisjoint(words.difference(own_words)) or bool(AVERAGE.search(path))
    return is_named and words.isdisjoint(CURVES) and tensor.numel() > 1


def is_of_training(path: str) -> bool:
    """Return whether what lies at a path is called like what training alone used, such as an optimizer.

    Example:
        >>> is_of_training("optimizer.state.0.exp_avg"), is_of_training("state_dict.scaler.weight")
        (True, False)
    """
    if not words_of(path).isdisjoint({"optimizer", "optimizers"}):
        return True
    outermost = [word for word in words_of(path.split(".", maxsplit=1)[0]) if not BYWORDS.fullmatch(word)]
    return bool(outermost) and all(map(TRAINING.fullmatch, outermost)) and words_of(path).isdisjoint(PARTS)


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
    is_part = "." in path or tensor.ndim > 1 or tensor.dtype == torch.bool or not words_of(path).isdisjoint(PARTS)
    return is_part and not is_of_training(path)


def is_between_steps(content: Any) -> bool:
    """Return whether weights may be those that a schedule-free optimizer takes gradients at, not those to evaluate.

    Example:
        >>> is_between_steps({"optimizer": {"param_groups": [{"train_mode": True, "weight_sum": 3.0}]}})
        True
    """
    return any(
        bool(mapping.get("train_mode", "weight_sum" in mapping))
        for _, mapping in mappings_in(content)
        if not OPTIMIZER_NAMES.isdisjoint(mapping)
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
    for name, item in items_of(content):
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
    for name, item in items_of(content):
        path = join(place, str(name))
        if isinstance(item, Tensor):
            yield path, item
        else:
            yield from tensors_in(item, path, depth + 1)


def items_of(content: Any) -> Iterable[tuple[Any, Any]]:
    """Return names and items of a mapping, places and items of a list, none of anything else.

    Example:
        >>> list(items_of(["a", "b"]))
        [(0, 'a'), (1, 'b')]
    """
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
