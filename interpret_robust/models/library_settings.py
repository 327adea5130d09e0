"""What a library says of the pictures that a network of it takes: how they are resized and cropped, its classes."""

import warnings
from collections.abc import Mapping
from typing import Any

from torch import nn

from interpret_robust.core.errors import UserError
from interpret_robust.core.file_names import is_printable_label
from interpret_robust.datasets.base import Dataset
from interpret_robust.datasets.class_names import Outputs, renumber
from interpret_robust.datasets.framing import Framing
from interpret_robust.models.card import Card


def view(data: Dataset, card: Card, network: nn.Module) -> Dataset:
    """Return data as a network takes them: pictures framed, and classes numbered, as its library says.

    What the data's own `size` says of pictures stands; arrays stay as they are.
    """
    data = data.frame(find_framing(card, network))
    outputs = list_outputs(card, network)
    return data if outputs is None else renumber(data, outputs) or data


def find_framing(card: Card, network: nn.Module) -> Framing | None:
    """Return how pictures are resized and cropped for a network: by timm's data configuration or torchvision's weights.

    None for any other network.
    """
    if card.model.startswith("torchvision:"):
        return _read_torchvision(_torchvision_weights(card))
    config = getattr(network, "pretrained_cfg", None)
    return _read_timm(config, network) if isinstance(config, dict) and "input_size" in config else None


def _torchvision_weights(card: Card) -> Any:
    """Return torchvision's default weights of a network, which are not loaded, or None."""
    from torchvision import models

    try:
        return models.get_model_weights(card.model.partition(":")[2]).DEFAULT
    except (ValueError, AttributeError):
        return None


def _read_torchvision(weights: Any) -> Framing | None:
    transform: Any = None if weights is None else weights.transforms()
    if not hasattr(transform, "crop_size"):
        return None
    crop, mode = list(transform.crop_size), transform.interpolation
    return Framing(tuple(transform.resize_size), (crop[0], crop[-1]), mode.value)


def _read_timm(config: dict[str, Any], network: nn.Module) -> Framing:
    """Return what timm's `transforms_imagenet_eval` does. Raises UserError for a crop of another kind."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from timm.data import resolve_data_config
        from timm.data.transforms import str_to_interp_mode

    options = resolve_data_config({}, pretrained_cfg=config, model=network)
    crop = getattr(getattr(network, "patch_embed", None), "img_size", None) or options["input_size"][1:]
    height, width = (int(side) for side in crop)
    resize = tuple(int(side / options["crop_pct"]) for side in (height, width))
    if options["crop_mode"] not in ("center", "squash") or (options["crop_mode"] == "center" and height != width):
        raise UserError(
            f"timm crops pictures for this network by '{options['crop_mode']}' to {height}x{width}, which is not read "
            "here: --size N resizes the shorter side and crops the center."
        )
    mode = str_to_interp_mode(options["interpolation"]).value
    return Framing(resize if options["crop_mode"] == "squash" else resize[:1], (height, width), mode)


def list_outputs(card: Card, network: nn.Module) -> Outputs | None:
    """Return the names of a pretrained network's outputs, where its library tells them; None elsewhere.

    Those of ImageNet have their synsets too, where timm is installed, which lists them.
    """
    if card.weights not in (None, "pretrained"):
        return None
    if card.model.startswith("torchvision:"):
        weights = _torchvision_weights(card)
        names = None if weights is None else weights.meta.get("categories")
        return names and _add_synsets([[name] for name in names])
    if card.is_of_timm:
        return _read_timm_classes(getattr(network, "pretrained_cfg", None) or {}, getattr(network, "num_classes", None))
    return None


def _read_timm_classes(config: Mapping[str, Any], classes: int | None) -> Outputs | None:
    """Return the names that a configuration of timm gives; without any, those of ImageNet for its number of classes."""
    names, words = config.get("label_names"), config.get("label_descriptions") or {}
    if isinstance(names, list | tuple) and len(names) == classes and all(map(is_printable_label, map(str, names))):
        return [[str(name), *(word.strip() for word in str(words.get(name, name)).split(","))] for name in names]
    return _add_synsets([[] for _ in range(IMAGENET_CLASSES)]) if classes == IMAGENET_CLASSES else None


IMAGENET_CLASSES = 1000


def _add_synsets(names: list[list[str]]) -> Outputs:
    """Return names with the synsets and the words that timm lists for the classes of ImageNet, if they are these."""
    if len(names) != IMAGENET_CLASSES:
        return names
    try:
        from timm.data import ImageNetInfo
    except ImportError:
        return names
    info = ImageNetInfo("imagenet-1k")
    return [
        [*words_of_output, synset, *(word.strip() for word in words.split(","))]
        for words_of_output, synset, words in zip(names, info.label_names(), info.label_descriptions(), strict=True)
    ]
