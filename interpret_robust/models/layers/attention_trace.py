"""A pass of a network in which what weights of attention are multiplied by is followed."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

PRODUCTS = {"bmm": 0, "mm": 0, "mv": 0, "dot": 0, "baddbmm": 1, "addmm": 1, "addbmm": 1}
"""Steps of torch that multiply and add up, and the number of the left one of their two factors."""

WEIGHING = (*PRODUCTS, "mul", "mul_")
"""Steps of torch by which weights and what they weigh are multiplied."""


class Use(NamedTuple):
    """One product in a pass: weights computed from attention `number` alone, times something computed from images.

    `values` (T, D) are the second factor where the product is a sum weighted by the first, else None.
    """

    number: int
    weights: Tensor
    values: Tensor | None


class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode that follows what is made of attention alone, until it meets something else that images decide."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.uses: list[Use] = []
        self._count = 0
        self._of_attention: dict[int, int] = {}
        self._of_images: set[int] = set()
        self._alive: list[Any] = []  # or another tensor would get their place in memory

    def see(self, images: Tensor) -> None:
        """Mark a tensor as the images."""
        self._of_images.add(_place(images))

    def follow(self, attention: Tensor) -> Tensor:
        """Mark a tensor as the weights of the next attention and return it. No other tensor may share its memory."""
        self._of_images.discard(_place(attention))
        self._of_attention[_place(attention)] = self._count
        self._count += 1
        return attention

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        result = function(*arguments, **(keywords or {}))
        inputs = [value for value in tree_leaves((arguments, keywords)) if isinstance(value, Tensor)]
        weights = [value for value in inputs if _place(value) in self._of_attention]
        is_of_images = any(_place(value) in self._of_images for value in inputs)
        results = [value for value in tree_leaves(result) if isinstance(value, Tensor)]
        name = function.overloadpacket.__name__
        if weights and is_of_images and name in WEIGHING:
            number = self._of_attention[_place(weights[0])]
            self.uses.append(Use(number, weights[0].clone(), _values(name, arguments, weights[0])))
        if is_of_images:
            self._of_images |= {_place(value) for value in results}
        elif weights:
            self._of_attention |= {_place(value): self._of_attention[_place(weights[0])] for value in results}
        self._alive.append(results)
        return result


def _values(name: str, arguments: Any, weights: Tensor) -> Tensor | None:
    """Return what a step adds up by weights, (T, D); None for a step that only multiplies."""
    if name not in PRODUCTS:
        return None
    left, right = arguments[PRODUCTS[name] :][:2]
    values: Tensor = right if left is weights else left
    rows = values.movedim(max(values.ndim - 2, 0) if left is weights else values.ndim - 1, 0)
    return rows.reshape(len(rows), -1).clone()


def _place(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def are_alike(weights: Tensor, expected: Tensor) -> bool:
    """Return whether two sets of weights are equal up to order, a common factor and repetition.

    True also where their numbers do not divide, since only some are compared then.
    """
    shares, expected_shares = _shares(weights), _shares(expected)
    copies, rest = divmod(len(shares), len(expected_shares))
    if rest or copies == 0:
        return True
    tolerance = max(1e-3, 2 * torch.finfo(weights.dtype).eps)
    largest = float(expected_shares.max())
    return torch.allclose(copies * shares[::copies], expected_shares, rtol=tolerance, atol=1e-4 * largest)


def _shares(weights: Tensor) -> Tensor:
    """Return weights as shares of their sum, the smallest first."""
    flat = weights.flatten().double()
    shares: Tensor = (flat / flat.sum()).sort().values
    return shares
