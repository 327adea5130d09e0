"""A look at a dataset: images of each class, and what their masks keep."""

import matplotlib as mpl
import numpy as np

from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.parsing import format_count
from interpret_robust.datasets import Dataset, Split
from interpret_robust.figures.overlays import make_strip, show, strip_axes
from interpret_robust.figures.style import RC, Drawing, make_figure

COLUMNS = 12
MOST_ROWS = 20


def draw(dataset: Dataset, split: str) -> Drawing:
    """Return the first images of each class, a row a class; with masks, every second image shows the object alone."""
    images = dataset.split(split)
    counts = np.bincount(images.labels)
    all_classes = np.flatnonzero(counts)
    classes = all_classes[:MOST_ROWS]
    figure = make_figure(0.5 * len(classes) + 0.3)
    with mpl.rc_context(RC):
        rows = figure.subplots(len(classes), 1, squeeze=False).ravel()
        for axes, label in zip(rows, classes, strict=True):
            pictures = _pictures(images, int(label))
            height, width = pictures.shape[1:3]
            gap = -(-width // 16)
            show(axes, make_strip(pictures, (height, width), gap))
            axes.set_xlim(-0.5, COLUMNS * (width + gap) - 0.5)
            axes.set_anchor("W")  # beside its name, for which the layout leaves room
            name = f"{dataset.class_names[label]} ({counts[label]})"
            axes.set_ylabel(name, rotation=0, ha="right", va="center")
            strip_axes(axes)
    masks = "" if images.masks is None else " Beside each image: the same with everything off the object dimmed."
    rest = len(all_classes) - len(classes)
    remainder = f" {rest} classes more are not drawn." if rest else ""
    count = format_count(len(images), "image")
    caption = (
        f"The first {split} images of each class of {dataset.name} ({count}); in brackets how many images "
        f"a class has.{remainder}{masks}"
    )
    return Drawing(figure, caption)


def _pictures(split: Split, label: int) -> AnyArray:
    """Return pictures (M, height, width, C) of a class, at most `COLUMNS`."""
    indices = np.flatnonzero(split.labels == label)
    if split.masks is None:
        return np.asarray(split.images[indices[:COLUMNS]])
    pairs = []
    for index in indices[: COLUMNS // 2]:
        image, mask = split.images[index], split.masks[index]
        pairs += [image, np.where(mask[..., None], image, image // 5)]
    return np.stack(pairs)
