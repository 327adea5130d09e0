"""A model from elsewhere with pictures of which no class is known: its classes are those of its answers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from interpret_robust.core.device import exact
from interpret_robust.core.errors import UserError
from interpret_robust.datasets import Dataset, Split
from interpret_robust.datasets.base import LazyDataset, number_classes
from interpret_robust.datasets.class_names import name_outputs, read
from interpret_robust.datasets.framing import Framing
from interpret_robust.datasets.picture_files import Files
from interpret_robust.datasets.pictures import PictureArray
from interpret_robust.models.building import USUAL_CLASSES, build_network, count_classes, make_preprocess
from interpret_robust.models.card import Card
from interpret_robust.models.copying import unwrap
from interpret_robust.models.external import ExternalModel, bring, choose_trial_image
from interpret_robust.models.library_settings import find_framing, list_outputs
from interpret_robust.models.logits import list_tensors


@exact()
def bring_with_pictures(
    card: Card, paths: Sequence[Path], size: int | None = None, classes: Path | None = None
) -> ExternalModel:
    """Return the model of a card as one that can be asked about pictures.

    Its classes are those of a file (`datasets.class_names.read`), or those that its library names, or numbers: as many
    as its file of weights has.
    Pictures are resized and cropped to a square of `size`, or as its library says. The trial sees the first picture.
    Raises UserError as `models.external.bring` does, and for pictures of several sizes without any of these.
    """
    names = None if classes is None else name_outputs(read(classes))
    network, remarks = build_network(card, names or number_classes(count_classes(card) or USUAL_CLASSES))
    network = unwrap(network)
    framing = Framing.square(size) if size is not None else find_framing(card, network)
    images = PictureArray(
        Files.list(Path(), [str(path) for path in paths]), np.arange(len(paths)), "the pictures", framing
    )
    _ = images.size  # says where pictures have several
    if names is None and (outputs := list_outputs(card, network)):
        names = name_outputs(outputs)
    if names is None:
        names = number_classes(_count_classes(card, network, _dataset(images, number_classes(1))))
    return bring(network, card, _dataset(images, names), "the pictures", remarks)


def _dataset(images: PictureArray, class_names: tuple[str, ...]) -> Dataset:
    """Return the first picture as a dataset. A label says nothing where all are the same, and is needed."""
    first: Any = images.take(slice(1))
    split = Split(first, np.zeros(1, np.int64))
    return LazyDataset("pictures", {"test": lambda: split}, class_names)


def _count_classes(card: Card, network: nn.Module, data: Dataset) -> int:
    """Return with how many classes a network answers a picture. Raises UserError where its answer does not tell."""
    network.train(mode=False)
    try:
        with torch.no_grad():
            answer = network(make_preprocess(card, network, data.image_shape[0])(choose_trial_image(data)))
    except UserError:
        raise
    except Exception:
        return USUAL_CLASSES  # `bring` says what is wrong
    counts = {tensor.shape[1] for tensor in list_tensors(answer) if tensor.ndim == 2}
    if len(counts) != 1:
        raise UserError(f"{card.model} does not tell how many classes it has: --classes FILE names them, JSON or CSV.")
    return max(2, *counts)
