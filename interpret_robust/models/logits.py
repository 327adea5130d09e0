"""What networks answer with, as logits (N, classes) of one precision: tensors in half precision, tuples, one number."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from interpret_robust.core.errors import UserError, type_name


def as_logits(answer: Any, part: str | None, classes: int | None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the logits (N, classes) in what a network answered.

    Args:
        answer: a tensor (N, classes), or (N, classes, 1, 1) of convolutions alone; or a tuple, a list or a mapping that
            `part` picks from.
        part: the number or the name of the part that are the logits, `name.number` of a part of a part; None where
            the answer is a tensor.
        classes: where there are two, one number an image, (N,) or (N, 1), is the logit of the second against the first.
        dtype: of the logits.

    Raises UserError where there is no such part, or it is no tensor of real numbers.

    Example:
        >>> as_logits((torch.zeros(4, 7), None), "0", 7).shape
        torch.Size([4, 7])
    """
    if part is not None:
        parts = _parts(answer)
        if isinstance(answer, Tensor):
            raise UserError(
                f"the network answers with {describe_answer(answer)}, which has no parts: leave --logits {part} out."
            )
        if part not in parts:
            raise UserError(
                f"the network answers with {describe_answer(answer)}, without a part '{part}': {describe_parts(answer)}"
            )
        answer = parts[part]
    if not isinstance(answer, Tensor):
        raise UserError(
            f"the network does not answer with a tensor but with {describe_answer(answer)}: {describe_parts(answer)}"
        )
    if answer.is_complex():
        raise UserError(
            "the network answers with complex numbers: wrap it so that it returns real logits (N, classes)."
        )
    logits: Tensor = answer.to_dense() if answer.layout != torch.strided else answer  # sparse, for one
    if logits.shape[2:] == (1, 1):
        logits = logits.flatten(1)
    if classes == 2 and (logits.ndim == 1 or tuple(logits.shape[1:]) == (1,)):
        logit = logits.reshape(-1, 1).to(dtype)
        return torch.cat([torch.zeros_like(logit), logit], 1)
    return logits.to(dtype, copy=True)  # a network may write its next answer in their place


def select_part(answer: Any, part: str | None) -> Any:
    """Return a part of an answer by its number or name, see `as_logits`, as it is; the answer itself without one.

    Example:
        >>> select_part((1, 2), "1")
        2
    """
    return answer if part is None else _parts(answer).get(part, answer)


def _parts(answer: Any) -> dict[str, Any]:
    """Return what an answer of several parts holds, by name or number."""
    if isinstance(answer, Mapping):
        parts = dict(answer)
    elif isinstance(answer, Sequence) and not isinstance(answer, str):
        parts = dict(enumerate(answer))
        parts |= getattr(answer, "_asdict", dict)()
    else:
        parts = vars(answer) if hasattr(answer, "__dict__") and not isinstance(answer, Tensor) else {}
    flat = {str(name): part for name, part in parts.items()}
    for name, part in tuple(flat.items()):
        if isinstance(part, Mapping | tuple | list):
            flat |= {f"{name}.{inner}": entry for inner, entry in _parts(part).items()}
    return flat


def find_logits_part(answer: Any, classes: int) -> str | None:
    """Return the only part of an answer that can be logits of so many classes; None for a tensor, and where none is or
    several are.
    """
    shape = (classes,)
    candidates = [
        name
        for name, part in _parts(answer).items()
        if isinstance(part, Tensor) and part.is_floating_point() and tuple(part.shape[1:]) in (shape, (*shape, 1, 1))
    ]
    return candidates[0] if len({id(_parts(answer)[name]) for name in candidates}) == 1 else None


def list_tensors(answer: Any) -> list[Tensor]:
    """Return the tensors of numbers that an answer is or holds."""
    parts = [answer] if isinstance(answer, Tensor) else _parts(answer).values()
    return [part for part in parts if isinstance(part, Tensor) and part.is_floating_point()]


def describe_answer(answer: Any) -> str:
    """Return what an answer is, in a few words."""
    return f"a tensor of shape {tuple(answer.shape)}" if isinstance(answer, Tensor) else type_name(answer)


def describe_parts(answer: Any) -> str:
    """Return which parts of an answer could be named, as the end of a sentence."""
    shapes = {name: tuple(part.shape) for name, part in _parts(answer).items() if isinstance(part, Tensor)}
    if not shapes:
        return "wrap it so that it returns logits (N, classes)."
    listing = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    return f"--logits names the part that are the logits; its tensors are {listing}."
