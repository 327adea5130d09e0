"""Copy a network that somebody else goes on using, and refuse those that cannot be watched or copied."""

import copy
import inspect
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from interpret_robust.core.errors import UserError, type_name
from interpret_robust.core.plugins import quote_error

DEEPEST = 3
"""Containers in containers that functions are looked for in."""


def unwrap(network: nn.Module) -> nn.Module:
    """Return the network inside of what torch.compile and data-parallel training wrap around it."""
    while True:
        if isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
            network = network.module
        elif isinstance(inner := getattr(network, "_orig_mod", None), nn.Module):  # torch.compile
            network = inner
        else:
            return network


def unwrap_layers(network: nn.Module) -> nn.Module:
    """Return a network, of which layers that are wrapped as `unwrap` knows have been replaced by what is inside.

    Example:
        >>> unwrap_layers(nn.Sequential(nn.DataParallel(nn.Identity())))
        Sequential(
          (0): Identity()
        )
    """
    network = unwrap(network)
    for module in network.modules():
        for name, layer in module._modules.items():
            if layer is not None and (inner := unwrap(layer)) is not layer:
                module._modules[name] = inner
    return network


def copy_of(network: nn.Module) -> nn.Module:
    """Return a copy of a network, which may be trained on, that shares no tensor with it.

    Tensors that were computed, which old weight normalization, pruning and hooks keep, are copied as numbers: torch
    refuses to copy them otherwise. Raises UserError for a network that holds something that cannot be copied.
    """

    def detach_and_copy(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
        return original(tensor if tensor.is_leaf else tensor.detach(), memo)

    check_python(unwrap(network), type_name(network))
    _check_closures(unwrap(network))
    original: Callable[..., Tensor] = Tensor.__deepcopy__
    copies: dict[int, Any] = {}
    try:
        with mock.patch.object(Tensor, "__deepcopy__", detach_and_copy):
            for module in reversed(list(network.modules())):
                if (inner := unwrap(module)) is not module:
                    copies[id(module)] = copy.deepcopy(inner, copies)
            return copy.deepcopy(unwrap(network), copies)
    except Exception as error:
        raise UserError(
            f"{type_name(network)} cannot be copied ({quote_error(error)}): remove its hooks, or save its "
            "state_dict and load it as --model package.module:callable --weights FILE."
        ) from error


def check_python(network: nn.Module, label: str) -> None:
    """Raise UserError where a network is, or holds, a program of another form than Python's, which takes no hooks."""
    for path, module in network.named_modules():
        place = f", in its layer '{path}'," if path else ""
        form = None
        if isinstance(module, torch.jit.ScriptModule):
            form = "TorchScript"
        elif isinstance(module, torch.fx.GraphModule) and "train" in vars(module):  # torch.export puts its own there
            form = "a program of torch.export"
        if form is not None:
            raise UserError(
                f"{label} is{place} {form}, whose layers cannot be watched: give the network as Python has it."
            )


def _check_closures(network: nn.Module) -> None:
    """Raise UserError where a copy would go on using the network: functions that hold parts of it are not copied.

    Parts are its layers, and what these put things into, as a dict that a hook fills.
    """
    parts = {id(module) for module in network.modules()}
    parts |= {
        id(value)
        for module in network.modules()
        for name, value in vars(module).items()
        if isinstance(value, dict | list | set) and name not in vars(nn.Module())
    }
    for path, module in network.named_modules():
        if unwrap(module) is not module:
            continue
        place = f"layer '{path}'" if path else "the network"
        if inspect.isfunction(vars(module).get("forward")):
            raise UserError(
                f"the forward of {place} was replaced by a function, and a copy would still call the original: write "
                "it as a class, or as --model package.module:callable."
            )
        for name, value in vars(module).items():
            if name not in vars(nn.Module()) and _holds_any(value, parts):
                raise UserError(
                    f"'{name}' of {place} is a function that holds a part of the network, and a copy would still call "
                    "the original: make it a method."
                )
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
            if _holds_any(hook, parts):
                raise UserError(
                    f"a hook of {place} is a function that holds a part of the network, and a copy would still write "
                    "to the original: make it a method, or remove it."
                )


def _holds_any(value: Any, parts: Collection[int], depth: int = 0) -> bool:
    """Return whether this is, or holds, a function defined where a variable, which it uses, is one of these objects."""
    if isinstance(value, dict | list | tuple):
        items = value.values() if isinstance(value, dict) else value
        return depth < DEEPEST and any(_holds_any(item, parts, depth + 1) for item in items)
    for cell in getattr(value, "__closure__", None) or ():
        with suppress(ValueError):  # of a variable that has no value yet
            if id(cell.cell_contents) in parts:
                return True
    return False
