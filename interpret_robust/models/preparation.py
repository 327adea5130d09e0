"""Whether a network from elsewhere runs: frozen, in float32, on the images of a dataset, with logits in its answer."""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from interpret_robust.core.errors import UserError
from interpret_robust.core.parsing import format_count
from interpret_robust.core.plugins import quote_error
from interpret_robust.core.random_numbers import seed_all
from interpret_robust.datasets import Dataset
from interpret_robust.models.card import Card
from interpret_robust.models.checks.answers import is_same
from interpret_robust.models.copying import check_python
from interpret_robust.models.logits import as_logits, describe_answer, find_logits_part
from interpret_robust.models.preprocess import Preprocess
from interpret_robust.models.recomputation import disable_recomputation

WITH_MODE = (
    *(nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase, nn.RReLU, nn.RNNBase),
    *(nn.MultiheadAttention, nn.Transformer, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer),
    *(nn.FractionalMaxPool2d, nn.FractionalMaxPool3d),
)
"""Layers of torch.nn that compute something else in training mode, or draw random numbers in it."""


def _is_same(layer: nn.Module) -> bool:
    """Return whether a layer does the same in training mode: one of torch.nn without a mode, or weight norm."""
    is_of_torch = type(layer).__module__.startswith(("torch.nn.modules.", "torch.nn.utils.parametriz"))
    return is_of_torch and not isinstance(layer, WITH_MODE)


def prepare(network: nn.Module, card: Card) -> Iterator[str]:
    """Put a network into eval mode, and yield what is doubtful about its weights."""
    check_python(network, card.model)
    tensors = (*network.parameters(), *network.buffers())
    if any(is_lazy(tensor) for tensor in tensors):
        raise UserError(f"{card.model} has layers whose sizes are open until they see an image: call it on one first.")
    _check_numbers(network, card)
    if name := _not_finite(network):
        yield f"has a number in '{name}' that is NaN or infinite, as weights cast to half precision may have."
    layers = [path for path, layer in network.named_modules() if path and layer.training and not _is_same(layer)]
    if layers and not network.training:
        listing = f"'{layers[0]}'" + (f" and {len(layers) - 1} more" if len(layers) > 1 else "")
        yield (
            f"was given in eval mode but for {listing}, in training mode, which is put into eval mode too. If its "
            "randomness is meant to stay, let its forward draw it in eval mode, and ask with --draws 20."
        )
    for name, container in islice(_unknown_weights(network), 1):
        whence = "as they were built" if card.weight_file is None else f"not from {card.weight_file.name}"
        yield (
            f"keeps weights in {name}, a Python {container} of which torch does not know: they are {whence}, in no "
            "state dict and in no checksum. Let it be an nn.ModuleList, nn.ModuleDict or nn.ParameterList."
        )
    network.eval()  # people override train and eval, to merge or to swap weights, and forget to call the other's
    network.train(mode=False)
    if (
        card.weight_file is not None
        and card.model.startswith("torchvision:")
        and getattr(network, "transform_input", None) is False
    ):
        yield (
            "takes its pixels as they are: torchvision's own weights need --model-arg transform_input=true, which a "
            "file of weights does not hold."
        )


def _not_finite(network: nn.Module) -> str | None:
    """Return the name of a weight, or of a statistic of a layer, that is not a finite number; None where all are.

    Other tensors may hold infinities on purpose, as masks of attention do.
    """
    tensors = [
        *network.named_parameters(),
        *((name, buffer) for name, buffer in network.named_buffers() if "running_" in name),
    ]
    # Floats of 8 bits have no isfinite of their own.
    return next((name for name, tensor in tensors if not bool(tensor.float().isfinite().all())), None)


def _unknown_weights(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield places and kinds of containers that hold weights which the network does not have by name."""
    weights = set(network.parameters())
    for path, module in network.named_modules():
        for name, value in vars(module).items():
            if name in vars(nn.Module()) or not isinstance(value, list | tuple | dict):
                continue
            if not weights.issuperset(_weights_in(value)):
                place = f"layer '{path}'" if path else "the network"
                yield f"'{name}' of {place}", type(value).__name__


def _weights_in(container: Any) -> Iterator[nn.Parameter]:
    for item in container.values() if isinstance(container, dict) else container:
        if isinstance(item, nn.Module):
            yield from item.parameters()
        elif isinstance(item, nn.Parameter):
            yield item
        elif isinstance(item, list | tuple | dict):
            yield from _weights_in(item)


@torch.no_grad()
def freeze(network: nn.Module, ask: Callable[[], Tensor], label: str) -> Iterator[str]:
    """Freeze the weights of a network, and yield whether the logits (N, classes) that `ask` gives change by it.

    Each answer draws the same random numbers. Raises UserError, in which `label` is its name, for a network that trains
    them in its forward.
    """

    def ask_seeded() -> Tensor:
        seed_all(0, 0)
        return ask()

    with disable_recomputation():
        first, second = ask_seeded(), ask_seeded()
        for weights in network.parameters():
            weights.requires_grad_(False)  # not at once: an overridden method may give nothing back
        try:
            third = ask_seeded()
        except Exception as error:
            raise UserError(
                f"{label} does not answer where its weights are frozen, as they are here ({quote_error(error)}): does "
                "its forward train them, as test-time adaptation does? Give the network without that step, or as that "
                "step left it."
            ) from error
    if is_same(first, second) and not is_same(first, third):
        yield (
            "answers otherwise where its weights are frozen, as they are here: these numbers are of the frozen "
            "network. Does its forward ask for requires_grad of a weight?"
        )


def _check_numbers(network: nn.Module, card: Card) -> None:
    """Raise UserError where tensors have a shape alone, or are sparse."""
    tensors = [*network.named_parameters(), *network.named_buffers()]
    if sparse := [name for name, tensor in tensors if tensor.layout != torch.strided]:
        raise UserError(
            f"{card.model} keeps '{sparse[0]}' as a sparse tensor, which has no checksum here: keep it dense, as "
            "to_dense() gives it, and let forward make it sparse."
        )
    if empty := [name for name, tensor in tensors if tensor.is_meta]:
        raise UserError(
            f"{card.model} has no numbers in {len(empty)} of its {len(tensors)} tensors, which are on torch's meta "
            f"device (first '{empty[0]}'): fill them where it is built, and keep layers that only lend their shape "
            "outside of the network's modules."
        )


def make_float32(network: nn.Module, pixels: Tensor) -> Iterator[str]:
    """Convert weights to float32 and yield a sentence about it; keep their precision if the forward takes no other."""
    tensors = {
        (module, name): tensor
        for module in network.modules()
        for name, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is not None and tensor.is_floating_point() and tensor.dtype != torch.float32
    }
    if not tensors:
        return
    dtypes = {place: tensor.dtype for place, tensor in tensors.items()}
    names = ", ".join(sorted({str(dtype).removeprefix("torch.") for dtype in dtypes.values()}))
    network.float()
    if _runs(network, pixels):
        yield f"has weights in {names}, and is run in float32."
        return
    for (module, name), dtype in dtypes.items():
        tensor = getattr(module, name)
        tensor.data = tensor.data.to(dtype)
    if _runs(network, pixels):
        yield f"is run in {names}, the precision of its weights, since its forward does not run with float32."
    else:
        network.float()


def _runs(network: nn.Module, pixels: Tensor) -> bool:
    """Return whether a network answers; a copy of the pixels, in whose place it may compute."""
    try:
        with torch.no_grad(), disable_recomputation():
            network(pixels.clone())
    except Exception:
        return False
    return True


COUNTS = (2, 4, 8, 16, 32, 64, 128)
"""Numbers of images for which networks are made that take no other."""


@torch.no_grad()
def _working_count(network: nn.Module, image: Tensor) -> int | None:
    """Return how many copies of an image (1, C, H, W) a network takes at once that does not take one of them."""
    for count in COUNTS:
        with suppress(Exception):
            network(image.repeat(count, 1, 1, 1))
            return count
    return None


def locate_logits(network: nn.Module, preprocess: Preprocess, image: Tensor, card: Card, data: Dataset) -> str | None:
    """Return which part of a network's answer are the logits, None for the answer itself.

    Raises UserError where the network does not take the images, or answers with something else.
    """
    channels, height, width = data.image_shape
    try:
        with torch.no_grad(), disable_recomputation():
            answer = network(preprocess(image))
    except Exception as error:
        if match := re.search(rf"to have (\d+) channels, but got {channels} channels", str(error)):
            raise UserError(
                f"{card.model} takes images of {format_count(int(match[1]), 'channel')}, and those of {data.name} have "
                f"{channels}: give a --dataset of such images (pictures on disk have three, a .npz of gray ones one), "
                "or let forward change them."
            ) from error
        if re.search(r"Half|BFloat16|Double|dtype", str(error)):
            raise UserError(
                f"{card.model} does not run with pixels and weights in float32 ({quote_error(error)}): its forward "
                "casts to another precision. Take the cast out, or give it weights of that precision."
            ) from error
        if count := _working_count(network, preprocess(image)):
            raise UserError(
                f"{card.model} takes {count} images at once, and not one ({quote_error(error)}): is its batch size "
                "fixed? Let it take any number of images, since each is also asked alone here."
            ) from error
        images_resized = "" if card.resize is None else f" resized to {card.resize}"
        raise UserError(
            f"{card.model} does not take the images of {data.name}, {channels}x{height}x{width}{images_resized} "
            f"({quote_error(error)}); if that is about their size, --resize N gives it another"
            f"{_suggest_size(card, network)}."
        ) from error
    classes = len(data.class_names)
    part = card.logits if card.logits is not None else find_logits_part(answer, classes)
    try:
        logits = as_logits(answer, part, classes)
    except UserError as error:
        raise UserError(f"{card.model}: {error}") from error
    if logits.ndim != 2 or len(logits) != len(image):
        remedy = "--logits names the part of its answer that they are"
        if part is None:
            remedy = f"let its forward return shape (1, {classes}) for one image"
        raise UserError(
            f"{card.model} does not answer with logits (N, classes) but with {describe_answer(logits)}: {remedy}."
        )
    if logits.shape[1] != classes:
        first_label = min(int(data.split(name).labels.min()) for name in data.split_names)
        if logits.shape[1] == classes - 1 and first_label > 0:
            raise UserError(
                f"{card.model} answers with {logits.shape[1]} classes, and labels of {data.name} reach "
                f"{classes - 1}, though none is 0: do they begin at 1? Count them from 0 in the data."
            )
        raise UserError(
            f"{card.model} answers with {logits.shape[1]} classes, and {data.name} has {classes}: give images of its "
            "classes, or --classes FILE, the names of all its classes in their order, with those of the images among "
            "them; for arrays that is class_names of ir.make_dataset."
        )
    return part


def _suggest_size(card: Card, network: nn.Module) -> str:
    """Return the option with which timm builds a network of patches for another size of images; nothing for others."""
    if card.is_of_timm and getattr(getattr(network, "patch_embed", None), "img_size", None) is not None:
        return ", and --model-arg img_size=N builds it for that of the images"
    return ""
