"""What a file of weights holds beside them: averages, parts of other layers, and what training kept."""

import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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
AVERAGE = re.compile(r"(^|[._])(avg_params?|avg_model|params?_avg)([._]|$)")
"""What keys of moving averages of weights are called; `avg` alone is of pools and of optimizers."""

MOMENT = re.compile(r"exp_avg(_sq)?|max_exp_avg_sq|momentum_buffer|step")
"""What optimizers keep of each weight."""


def split_words(name: str) -> set[str]:
    """Return the words of a name, in lower case.

    Example:
        >>> sorted(split_words("state_dict.EMAModel.emaWeights"))
        ['dict', 'ema', 'model', 'state', 'weights']
    """
    return {word.lower() for word in WORD.findall(name)}


CURVES = split_words(
    "loss losses grad grads acc accuracy history precision recall confidence time metric metrics report score scores"
)
"""Words of averages that are not of weights."""

PROGRESS = CURVES | split_words(
    "epoch epochs step steps iter iteration lr best top hist curve seed rng train val valid test confusion count "
    "counts idx index indices perm labels error n"
)
"""Words of numbers and curves that training writes down."""

TRAINING = re.compile(
    r"(optim|sched|scaler|metric|histor|callback|hyperparam|loss|config)[a-z]*|hyper|hparams|opt|sgd|adamw?|momentum|"
    r"amp|rng|random|criterion|queue|hist|args|loops|confusion"
)
"""Words of the outermost keys of what training alone used."""

BYWORDS = re.compile(
    r"(state|dict|param|parameter|buffer|weight)s?|matrix|lr|last|best|train|training|val|valid|test|grad|torch|cuda|"
    r"numpy|python|curve"
)
"""Words that may stand beside those of TRAINING in the name of a key."""

OPTIMIZER_NAMES = {"params", "param_groups", "weight_sum"}
"""What the mappings of an optimizer hold, of which one is schedule-free."""

PARTS = {"mask", "masks", "lora", "adapter", "adapters", "prompt", "prompts", "delta", "scale", "scales"}
"""Words of what changes the weights that it lies beside."""


def is_average(path: str, tensor: Tensor, own_words: Collection[str] = ()) -> bool:
    """Return whether a tensor is called like a part of a moving average of weights.

    Words that the network's own names have, as one with a layer `ema`, do not count.

    Example:
        >>> is_average("ema.shadow_params.0", torch.zeros(3)), is_average("grad.ema.0", torch.zeros(3), {"ema"})
        (True, False)
    """
    words = split_words(path)
    is_named = not AVERAGES.isdisjoint(words.difference(own_words)) or bool(AVERAGE.search(path))
    is_moment = MOMENT.fullmatch(path.rpartition(".")[2]) is not None
    return is_named and not is_moment and words.isdisjoint(CURVES) and tensor.numel() > 1


def is_of_training(path: str) -> bool:
    """Return whether what lies at a path is called like what training alone used, such as an optimizer.

    Example:
        >>> is_of_training("optimizer.state.0.exp_avg"), is_of_training("state_dict.scaler.weight")
        (True, False)
    """
    if not split_words(path).isdisjoint({"optimizer", "optimizers"}):
        return True
    outermost = [word for word in split_words(path.split(".", maxsplit=1)[0]) if not BYWORDS.fullmatch(word)]
    return bool(outermost) and all(map(TRAINING.fullmatch, outermost)) and split_words(path).isdisjoint(PARTS)


def is_of_other_layer(path: str, tensor: Tensor, shapes: Mapping[str, torch.Size]) -> bool:
    """Return whether a tensor at another key than the weights looks like a part of a network.

    Shapes are those of the network by name: what is called and shaped so is a part wherever it lies. Numbers and curves
    at the top that are called so are none.

    Example:
        >>> is_of_other_layer("lora.A", torch.zeros(7, 2), {})
        True
    """
    words = split_words(path)
    if path.endswith((COUNTER, EXTRA)) or (tensor.numel() <= 1 and words.isdisjoint(PARTS)):
        return False
    parts = path.split(".")
    ends = (".".join(parts[start:]) for start in range(1, len(parts)))
    if any(end in shapes and shapes[end] == tensor.shape for end in ends):
        return True
    is_curve = "." not in path and tensor.ndim <= 1 and tensor.dtype != torch.bool and not words.isdisjoint(PROGRESS)
    return not is_curve and not is_of_training(path)


def is_progress(path: str, tensor: Any) -> bool:
    """Return whether a tensor is one number that tells how far training was.

    Example:
        >>> is_progress("best_acc", torch.tensor(0.9)), is_progress("gain", torch.tensor(0.9))
        (True, False)
    """
    words = split_words(path.rpartition(".")[2])
    is_number = isinstance(tensor, Tensor) and tensor.numel() == 1
    return is_number and (not tensor.is_floating_point() or not words.isdisjoint(PROGRESS))


def find_mappings_of_parts(content: Any) -> Iterator[str]:
    """Yield the paths of mappings without tensors that are called like parts, as scales in plain numbers.

    Example:
        >>> list(find_mappings_of_parts({"model": {}, "scales": {"fc.weight": 0.01}, "lora_rank": 4}))
        ['scales']
    """
    for path, mapping in list_mappings(content):
        is_called_so = not split_words(path.rpartition(".")[2]).isdisjoint(PARTS | {"pruned", "pruning"})
        if is_called_so and mapping and not is_of_training(path) and next(find_tensors(mapping), None) is None:
            yield path


def find_copies(tensors: Mapping[str, Tensor], parameters: Sequence[torch.Size]) -> Iterator[str]:
    """Yield the paths of lists of tensors, and of vectors, that have the sizes of a network's parameters, in order.

    Example:
        >>> list(find_copies({"best.0": torch.ones(3), "best.1": torch.ones(2), "slow": torch.ones(5)}, [(3,), (2,)]))
        ['best.0', 'slow']
    """
    shapes_by_place: dict[str, list[tuple[int, ...]]] = defaultdict(list)
    for path, tensor in tensors.items():
        place, _, name = path.rpartition(".")
        if name.isdigit() and not tensor.is_nested:
            shapes_by_place[place].append(tuple(tensor.shape))
    sizes = [tuple(shape) for shape in parameters]
    if len(sizes) < 2:
        return
    count = sum(map(math.prod, sizes))
    yield from (join(place, "0") for place, shapes in shapes_by_place.items() if shapes == sizes)
    yield from (path for path, tensor in tensors.items() if not tensor.is_nested and tensor.shape == (count,))


def is_between_steps(content: Any) -> bool:
    """Return whether weights may be those that a schedule-free optimizer takes gradients at, not those to evaluate.

    Example:
        >>> is_between_steps({"optimizer": {"param_groups": [{"train_mode": True, "weight_sum": 3.0}]}})
        True
    """
    return any(
        _is_true(mapping.get("train_mode", "weight_sum" in mapping))
        for _, mapping in list_mappings(content)
        if not OPTIMIZER_NAMES.isdisjoint(mapping)
    )


def _is_true(item: Any) -> bool:
    return isinstance(item, bool | Tensor) and bool(item)


def list_mappings(content: Any, place: str = "", depth: int = 0) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Yield the path of each mapping in mappings and lists, and the mapping, those outside first.

    Example:
        >>> [path for path, _ in list_mappings([{"model": {}}])]
        ['0', '0.model']
    """
    if depth > DEEPEST:
        return
    if isinstance(content, Mapping):
        yield place, content
    for name, item in list_items(content):
        if isinstance(item, Mapping | list | tuple):
            yield from list_mappings(item, join(place, str(name)), depth + 1)


def find_tensors(content: Any, place: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Yield the path of each tensor in mappings and lists, and the tensor.

    Example:
        >>> [path for path, _ in find_tensors({"ema": [torch.zeros(3)]})]
        ['ema.0']
    """
    if depth > DEEPEST:
        return
    for name, item in list_items(content):
        path = join(place, str(name))
        if isinstance(item, Tensor):
            yield path, item
        else:
            yield from find_tensors(item, path, depth + 1)


def list_items(content: Any) -> Iterable[tuple[Any, Any]]:
    """Return names and items of a mapping, places and items of a list, none of anything else.

    Example:
        >>> list(list_items(["a", "b"]))
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
