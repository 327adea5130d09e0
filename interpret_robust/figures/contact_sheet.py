"""A look at a dataset: images of each class, and what their masks keep."""

import matplotlib as mpl
import numpy as np

from interpret_robust.core.parsing import format_count
from interpret_robust.datasets import Dataset, Split
from interpret_robust.figures.style import RC, Drawing, bare, new_figure

COLUMNS = 12
MOST_ROWS = 20


def draw(dataset: Dataset, split: str) -> Drawing:
    """Return the first images of each class, a row a class; with masks, every second image shows the object alone."""
    images = dataset.split(split)
    counts = np.bincount(images.labels)
    all_classes = np.flatnonzero(counts)
    classes = all_classes[:MOST_ROWS]
    figure = new_figure(0.5 * len(classes) + 0.3)
    with mpl.rc_context(RC):
        grid = figure.subplots(len(classes), COLUMNS, squeeze=False)
        for row, label in enumerate(classes):
            for axes, picture in zip(grid[row], _pictures(images, int(label)), strict=False):
                axes.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="none")
            name = f"{dataset.class_names[label]} ({counts[label]})"
            grid[row, 0].set_ylabel(name, rotation=0, ha="right", va="center")
        for axes in grid.flat:
            bare(axes)
    masks = "" if images.masks is None else " Beside each image: the same with everything off the object dimmed."
    rest = len(all_classes) - len(classes)
    remainder = f" {rest} classes more are not drawn." if rest else ""
    count = format_count(len(images), "image")
    caption = (
        f"The first {split} images of each class of {dataset.name} ({count}); in brackets how many images "
        f"a class has.{remainder}{masks}"
    )
    return Drawing(figure, caption)


def _pictures(split: Split, label: int) -> list[np.ndarray]:
    indices = np.flatnonzero(split.labels == label)
    if split.masks is None:
        return list(split.images[indices[:COLUMNS]])
    pairs = []
    for index in indices[: COLUMNS // 2]:
        image, mask = split.images[index], split.masks[index]
        pairs += [image, np.where(mask[..., None], image, image // 5)]
    return pairs
