"""Weights of a network in a file: safetensors, or a state dict that torch reads with `weights_only`."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from interpret_robust.core.errors import UserError
from interpret_robust.core.files import check_readable
from interpret_robust.core.plugins import first_words

WRAPPER_KEYS = ("state_dict", "model_state_dict", "model")
"""Where files of weights keep them, if not at the top."""


def load_weights(network: nn.Module, label: str, path: Path) -> None:
    """Load a file's weights, all of them. Raises UserError where it has others than the network."""
    tensors, expected = _read_weights(path), network.state_dict()
    if tensors and all(name.startswith("module.") for name in tensors):  # saved from within DataParallel
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    mismatches = sorted(
        name
        for name in expected.keys() | tensors.keys()
        if name not in expected or name not in tensors or expected[name].shape != tensors[name].shape
    )
    if mismatches:
        name = mismatches[0]
        raise UserError(
            f"{path} does not hold the weights of {label}: {len(mismatches)} tensors differ, first {name} "
            f"({_shape_in(tensors, name)} in the file, {_shape_in(expected, name)} in the network)."
        )
    network.load_state_dict(tensors)


def _shape_in(tensors: Mapping[str, Tensor], name: str) -> str:
    return f"shape {tuple(tensors[name].shape)}" if name in tensors else "none"


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"there is no file of weights {path}: give one, or --weights pretrained or random.")
    check_readable(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise UserError(f"{path} is damaged or holds no weights ({first_words(error)}).") from None
    except Exception as error:  # torch's unpickler raises what it likes
        raise UserError(
            f"{path} is no state dict that torch reads with weights_only, and nothing else is unpickled: save "
            "model.state_dict(), or better a safetensors file."
        ) from error
    for name in WRAPPER_KEYS:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise UserError(f"{path} holds no state dict: save model.state_dict().")
    return dict(content)
