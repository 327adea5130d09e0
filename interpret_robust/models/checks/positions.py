"""Whether positions of the layer of local features lie where they are drawn, and see all that the answer rests on."""

from collections.abc import Iterator

from torch import Tensor

from interpret_robust.models.layers.choice import Choice
from interpret_robust.models.layers.dependence import LEAST_OF_FEW, count_turned
from interpret_robust.models.layers.hooks import count_beyond, use_part
from interpret_robust.models.wrapper import WrappedModel

MOST_CELLS = 0.6
"""How far a position may lie from its place: a convolution of stride 2 that pads both sides alike moves it by 1/2."""

MANY_SKIPPED = 3
"""Layers behind the one that is taken from which on a sentence says so: one may be a change of shape."""


def list_position_doubts(model: WrappedModel, images: Tensor, layer: Choice, label: str) -> Iterator[str]:
    """Yield what is doubtful about the positions of a layer, on a few images (N, C, H, W), a sentence each.

    Example:
        >>> list(list_position_doubts(wrapper, images, choice, "mine"))
        []
    """
    yield from _check_layer(layer, label)
    yield from _check_frames(model, images, layer, label)
    with use_part(model.backbone, model.part):
        count = count_beyond(model.backbone, layer.name, model.preprocess, images) if layer.sees_all else 0
    if count:
        yield (
            f"{label}: on {count} of {len(images)} test images the answer does not rest on layer '{layer.name}' alone, "
            "as where some images leave a network early: ranks and maps by position are of a part of it. --local-layer "
            "names another."
        )


def _check_frames(model: WrappedModel, images: Tensor, layer: Choice, label: str) -> Iterator[str]:
    """Yield a sentence where positions lie elsewhere on some of images (N, C, H, W), and not on the first of all."""
    if layer.is_doubtful:
        return
    if count := count_turned(lambda images: model.features(images).local, images):
        yield (
            f"{label}: on {count} of {len(images)} test images the positions of layer '{layer.name}' depend on pixels "
            "elsewhere, as where a network turns, mirrors or shifts each image by what it shows: maps and ranks by "
            "position lie elsewhere there. Do that to the images before, and ask of the network behind it."
        )


def _check_layer(layer: Choice, label: str) -> Iterator[str]:
    if not layer.sees_all:
        yield (
            f"{label}: no layer with positions sees all that its answer rests on. Local features are those of layer "
            f"'{layer.name}', on which a part of it rests: ranks and maps by position are of that part. --local-layer "
            "names another."
        )
    if layer.stretch_cells > MOST_CELLS:
        yield (
            f"{label}: positions at the edge of layer '{layer.name}' lie {layer.stretch_cells:.1f} cells away from "
            "where a grid over the whole image has them, since its forward pads or crops the image, or its "
            "convolutions do not pad: maps by position are shifted there. --local-layer names another."
        )
    if layer.skip_count >= MANY_SKIPPED:
        yield (
            f"{label}: local features are those of layer '{layer.name}', since the positions of {layer.skip_count} "
            "layers behind it are not in the order of the image. --local-layer names another."
        )
    if layer.is_copied:
        yield (
            f"{label}: {layer.copy_share:.0%} of the positions of layer '{layer.name}' are copies of others, as an "
            "adaptive pool makes them of fewer: maps and ranks by position count these several times. --local-layer "
            "names another."
        )
    if layer.other_grid is not None:
        rows, columns = layer.other_grid
        yield (
            f"{label}: the tokens of layer '{layer.name}' lie as in a grid of {rows}x{columns}, which has not the "
            "shape of the images, as where patches are not square or the forward merges tokens: maps and ranks by "
            "position lie elsewhere. --local-layer names another."
        )
        return
    if not layer.locality < layer.threshold:
        if layer.is_astray:
            yield (
                f"{label}: {layer.astray_share:.0%} of the positions of layer '{layer.name}' depend more on the pixels "
                "of most other positions than on their own, as where the forward mirrors every second row or merges "
                "tokens: maps and ranks by position lie elsewhere there. --local-layer names another."
            )
        return
    if layer.threshold == LEAST_OF_FEW:
        yield (
            f"{label}: {1 - layer.locality:.0%} of the positions of layer '{layer.name}' depend more on the pixels of "
            "another position than on their own, as where the forward mirrors, turns or shuffles them: maps and ranks "
            "by position lie elsewhere. --local-layer names another."
        )
        return
    yield (
        f"{label}: only {layer.locality:.0%} of the other cells of the image matter less to a position of layer "
        f"'{layer.name}' than its own cell does, where {layer.threshold:.0%} are expected: maps and ranks by position "
        "may lie elsewhere. "
        "--local-layer names another."
    )
