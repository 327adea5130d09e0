"""Whether what a network was asked first changes what it answers later: what it keeps between calls."""

import copy
import operator
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from interpret_robust.core.random_numbers import preserve_random_numbers
from interpret_robust.models.checks.answers import is_same
from interpret_robust.models.classifier import Classifier

_OF_TORCH = vars(nn.Module()).keys() - {"_buffers"}
"""What torch itself keeps in a module. Buffers may be a network's caches."""

State = dict[nn.Module, dict[str, Any]]


class Memory:
    """What a network keeps beside its weights, as it was before a call.

    Tables of positions and the like that a network makes in its first call are no harm: they are what any first call
    makes. An attribute that a call changed is therefore set back, another image is asked first, and answers are
    compared. What a network keeps elsewhere, or changes in place, is not seen.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network, self._earlier_state = network, _copies(_state(network))

    def doubt(self, model: Classifier, images: Tensor) -> str | None:
        """Return a sentence where the answers to images (N, C, H, W) depend on what was asked first, else None.

        None also of a model whose answers differ each time. `model` is what asks the network. Sentences begin with a
        verb, to be read behind the model's name.
        """
        state = _state(self._network)
        names = _changed_names(self._network, self._earlier_state, state)
        if not names:
            return None
        with torch.no_grad(), preserve_random_numbers(images.device):
            answers, repeated_answers = model(images), model(images)
            if not is_same(answers, repeated_answers):
                return None
            try:
                _put(_copies(self._earlier_state))
                with suppress(Exception):  # one that needs what was there tells nothing
                    model(1 - images[-1:])
                    if not is_same(answers, model(images)):
                        return (
                            f"answers otherwise where another image is asked first, since it keeps numbers of earlier "
                            f"calls ({names[0]}): numbers depend on the order of questions. Set these where it is "
                            "built, or compute them anew in each call."
                        )
            finally:
                _put(state)
        return None


def _state(network: nn.Module) -> State:
    return {
        module: {name: value for name, value in vars(module).items() if name not in _OF_TORCH}
        for module in network.modules()
    }


def _copies(state: State) -> State:
    """Return a state with containers of its own, in which a call may put something."""
    return {module: {name: _copy(value) for name, value in values.items()} for module, values in state.items()}


def _copy(value: Any) -> Any:
    return copy.copy(value) if isinstance(value, dict | list | set | deque) else value


def _put(state: State) -> None:
    """Make a network keep just this."""
    for module, values in state.items():
        attributes = vars(module)
        for name in [name for name in attributes if name not in _OF_TORCH and name not in values]:
            del attributes[name]
        attributes.update(values)


def _changed_names(network: nn.Module, earlier: State, latest: State) -> list[str]:
    """Return what a network keeps otherwise than before, such as `'cache' of layer 'norm'`."""
    paths = {module: path for path, module in network.named_modules()}
    return [
        f"'{name}' of " + (f"layer '{paths[module]}'" if paths[module] else "the network")
        for module, values in latest.items()
        for name in _differences(earlier.get(module, {}), values)
    ]


def _differences(earlier: Mapping[str, Any], latest: Mapping[str, Any]) -> list[str]:
    """Return the names of attributes, and of buffers, that are others now."""
    names = []
    for name in earlier.keys() | latest.keys():
        first, second = earlier.get(name), latest.get(name)
        if name == "_buffers" and isinstance(first, dict) and isinstance(second, dict):
            names += _differences(first, second)
        elif not _is_kept(first, second):
            names.append(name)
    return sorted(names)


def _is_kept(first: Any, second: Any) -> bool:
    if isinstance(first, int | float | str | tuple) and type(first) is type(second):
        return first is second or (not isinstance(first, tuple) and bool(first == second))
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(first[key] is second[key] for key in first)
    if isinstance(first, list | deque) and isinstance(second, list | deque):
        return len(first) == len(second) and all(map(operator.is_, first, second))
    return first is second or (isinstance(first, set) and first == second)
