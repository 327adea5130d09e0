"""Build the network of a card, with its weights, and say which pixels it expects."""

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import torch
from torch import nn

from interpret_robust.core.errors import UserError, type_name
from interpret_robust.core.parsing import format_count
from interpret_robust.core.plugins import import_object, quote_error
from interpret_robust.models.card import Card
from interpret_robust.models.copying import copy_of, unwrap
from interpret_robust.models.libraries import BUILDERS, build, check_call, is_offline
from interpret_robust.models.model_names import explain
from interpret_robust.models.normalization import STATISTICS, Statistics, parse_statistics
from interpret_robust.models.preprocess import Preprocess
from interpret_robust.models.weights.classes import list_order_doubts
from interpret_robust.models.weights.files import Rest, count_rows, load_weights


def build_network(card: Card, class_names: Sequence[str]) -> tuple[nn.Module, list[str]]:
    """Return the network of a card, and what is doubtful about its file of weights: sentences that begin with a verb.

    It is for as many classes as `class_names` where it is a library's that can be built for any number. Raises
    UserError where a name is unknown, a library is not installed, or weights cannot be had or do not fit.
    """
    network = _build(card, len(class_names))
    path = card.weight_file
    if path is None:
        return network, []
    normalization = _library_normalization(card, network) if card.normalize is None else None
    loose_tensors = {} if _is_of_library(card) else _unsaved_tensors(network)
    rest = load_weights(unwrap(network), card.model, path, card.weights_key, normalization)
    return network, [
        *_doubt_about_rest(rest, path),
        *list_order_doubts(rest.class_lists, class_names, path.name),
        *_doubt_about_unsaved(loose_tensors, card),
    ]


def count_classes(card: Card) -> int | None:
    """Return for how many classes a library's network has to be built to have its file of weights, if the file tells.

    Raises UserError as `build_network` does.

    Example:
        >>> count_classes(Card("torchvision:resnet18", weights="mine.pt"))
        10
    """
    path = card.weight_file
    if path is None or not _is_of_library(card):
        return None
    return count_rows(_build(card, USUAL_CLASSES), path, card.weights_key, USUAL_CLASSES)


USUAL_CLASSES = 1000
"""Of a library's network that is built without its weights where nobody says how many there are: those of ImageNet."""


def _is_of_library(card: Card) -> bool:
    return card.model.partition(":")[0] in BUILDERS


def _build(card: Card, classes: int) -> nn.Module:
    """Return the network of a card without its file of weights, for a number of classes if it is a library's."""
    origin, colon, name = card.model.partition(":")
    if not colon:
        raise UserError(explain(card.model))
    pretrained = card.weights in (None, "pretrained")
    if not _is_of_library(card):
        import_object(card.model)  # before the seed, of which its module may use some
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")  # what a library says of its own networks, and prints while it downloads
        torch.default_generator.manual_seed(0)
        try:
            if _is_of_library(card):
                network = build(origin, name, classes, dict(card.arguments), pretrained=pretrained)
            else:
                check_call(card.model, dict(card.arguments))
                network = _call(card)
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            if is_offline(error):
                raise UserError(
                    f"the weights of {card.model} have to be downloaded, and their server cannot be reached from here: "
                    "give a file (--weights FILE) or --weights random, or run this once where there is a network."
                ) from error
            raise UserError(
                f"{card.model} cannot be built ({quote_error(error)}): --model-arg NAME=VALUE gives it an argument."
            ) from error
    return network


def _doubt_about_rest(rest: Rest, path: Path) -> Iterator[str]:
    """Yield what is doubtful about weights beside which a file has others, or lacks something."""
    if rest.extras:
        count = f"{len(rest.extras)} tensors, first " if len(rest.extras) > 1 else ""
        yield (
            f"has all its weights from {path.name}, which also holds {count}'{rest.extras[0]}', of layers that the "
            "network lacks: if more than training used them, answers are those of another network."
        )
    if rest.gaps:
        yield (
            f"has all its weights from {path.name}, which lacks '{rest.gaps[0]}', what a layer keeps beside its "
            "tensors: that is as it was built. A file of torch.save holds it."
        )


def _unsaved_tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors of floats, by name, that layers keep and that are in no state dict."""
    state_ids = {id(tensor) for tensor in network.state_dict(keep_vars=True).values()}
    return {
        f"{path}.{name}".lstrip("."): tensor
        for path, layer in network.named_modules()
        for name, tensor in (*vars(layer).items(), *layer.named_buffers(recurse=False))
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and id(tensor) not in state_ids
    }


def _doubt_about_unsaved(loose_tensors: dict[str, torch.Tensor], card: Card) -> Iterator[str]:
    """Yield a sentence where a network that is built with another seed has other tensors that no file holds."""
    if not any(tensor.numel() > 1 for tensor in loose_tensors.values()):
        return
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        torch.default_generator.manual_seed(1)
        other = _unsaved_tensors(_call(card))
    for name, tensor in loose_tensors.items():
        if name in other and not torch.equal(tensor, other[name]):
            yield (
                f"draws '{name}' when it is built, and no file of weights holds it: it is not that of the training. "
                "Let it be a persistent buffer."
            )
            return


def _call(card: Card) -> nn.Module:
    """Return what a user's callable gives."""
    target = import_object(card.model)
    if card.weights == "pretrained":
        raise UserError(f"{card.model} has no pretrained weights to choose: give a file, or leave --weights out.")
    network = copy_of(target) if isinstance(target, nn.Module) else target
    if callable(network) and not isinstance(network, nn.Module):
        network = network(**dict(card.arguments))
    if not isinstance(network, nn.Module):
        raise UserError(
            f"{card.model} gives {type_name(network)}, and a model is a torch.nn.Module: name a "
            "class or function that gives one."
        )
    return network


def make_preprocess(card: Card, network: nn.Module, channels: int) -> Preprocess:
    """Return what a card, or else the library that a network is from, says of the pixels that it expects.

    Raises UserError where that is for images of other channels.
    """
    if card.normalize is not None:
        return Preprocess(*parse_statistics(card.normalize, channels), card.resize)
    mean, deviation = _library_normalization(card, network)
    if len(mean) not in (1, channels) and card.weight_file is not None:
        mean, deviation = STATISTICS["none"]  # a file's weights may be for images of other channels than the library's
    if len(mean) not in (1, channels):
        raise UserError(
            f"{card.model} takes images of {format_count(len(mean), 'channel')}, and these have {channels}: give a "
            "--dataset of such images, or --normalize mean,std."
        )
    return Preprocess(mean, deviation, card.resize)


def _library_normalization(card: Card, network: nn.Module) -> Statistics:
    """Return the mean and deviation of pixels that the library of a network gives it, where its weights are trained."""
    if card.weights == "random":
        return STATISTICS["none"]
    config = getattr(network, "pretrained_cfg", None)  # timm's
    if card.model.startswith("torchvision:"):
        return STATISTICS["imagenet"]
    if isinstance(config, dict) and "mean" in config and "std" in config:
        return tuple(config["mean"]), tuple(config["std"])
    return STATISTICS["none"]
