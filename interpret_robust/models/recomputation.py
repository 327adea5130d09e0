"""Gradient checkpointing inside of anyone's network, which hooks and gradients of pixels do not get along with."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from torch.utils import checkpoint as library


class _Direct:
    """What stands in for the reentrant kind: the function is called, and its activations are kept."""

    @staticmethod
    def apply(function: Callable[..., Any], _: bool, *arguments: Any) -> Any:
        return function(*arguments)


class _NotReentrant:
    """What stands in for the reentrant kind: the other kind, which saves the same memory."""

    @staticmethod
    def apply(function: Callable[..., Any], preserves_random_state: bool, *arguments: Any) -> Any:
        return library.checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=preserves_random_state)


def _keep(*_: Any, **__: Any) -> Iterator[None]:
    yield


@contextmanager
def disable_recomputation() -> Iterator[None]:
    """Keep activations of networks that run inside, where `torch.utils.checkpoint` would compute them anew.

    Anew is after a hook has been removed, so that the gradient would be of another network, and the reentrant kind
    refuses gradients with respect to pixels alone. The price is the memory that checkpointing saves.

    Example:
        >>> with disable_recomputation():
        ...     logits = network(images)
    """
    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(library, "CheckpointFunction", _Direct))
        for name in _GENERATORS:
            patches.enter_context(mock.patch.object(library, name, _keep))
        yield


@contextmanager
def avoid_reentrant_recomputation() -> Iterator[None]:
    """Let networks be asked for gradients with respect to pixels alone, which reentrant checkpointing refuses.

    Activations are computed anew all the same, by the kind of checkpointing that allows it.

    Example:
        >>> with avoid_reentrant_recomputation():
        ...     (gradient,) = torch.autograd.grad(network(images).sum(), images)
    """
    with mock.patch.object(library, "CheckpointFunction", _NotReentrant):
        yield


_GENERATORS = [name for name in vars(library) if name.startswith("_checkpoint_without_reentrant_generator")]
"""What the other kind enters before a function is called, by the names of this version of torch and older ones."""
