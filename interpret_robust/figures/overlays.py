"""Images side by side, and maps laid over them in color."""

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.cells import average_cells

PERCENTILE = 99
CEILING = f"it ends at the {PERCENTILE}th percentile of what is shown, so that larger values look like this one."
"""Where the color scale of maps ends, and how captions say so."""

NEARLY_UNIFORM = " Weights are nearly uniform: their scale begins at the smallest, not at zero."
"""What captions say beside `CEILING` where a color scale begins above zero."""

TINY = 0.005
"""Below this the numbers of a color bar are written as powers of ten."""

FAINTEST = 0.25
"""How opaque a map laid over an image is where it is zero."""


def strip_axes(axes: Axes) -> None:
    """Leave nothing of the axes but the picture in them."""
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def show(axes: Axes, picture: AnyArray) -> None:
    """Draw a picture (height, width, C) uint8, gray for C 1, each pixel as it is."""
    pixels = picture[..., 0] if picture.shape[-1] == 1 else picture
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="none")


def make_strip(pictures: AnyArray, size: tuple[int, int], gap: int | None = None) -> AnyArray:
    """Return pictures of `size` (M, height, width, ...), or maps (M, y, x), in a row, each map drawn to that size.

    A pixel shows the place that it lies in, or several by area. One image is laid out and drawn many times faster
    than M axes. The gaps between, of so many pixels or see `measure_pitch`, are NaN, or white where pictures are bytes.
    """
    width = size[1]
    large = pictures if pictures.shape[1:3] == size else average_cells(pictures, size).astype(pictures.dtype)
    gaps = [(0, 0)] * large.ndim
    gaps[2] = (0, measure_pitch(width) - width if gap is None else gap)
    empty = 255 if pictures.dtype == np.uint8 else np.nan
    return np.concatenate(list(np.pad(large, gaps, constant_values=empty)), axis=1)


def measure_pitch(width: int) -> int:
    """Return the distance from one picture of a strip to the next."""
    return width + width // 2


def draw_attention_bar(figure: Figure | SubFigure, maps: ScalarMappable, axes: Axes, name: str, uniform: float) -> None:
    """Draw the color bar, lying in `axes`, of maps of weights, with a line at the weight that all positions would
    share.
    """
    text = f"{name}\n(line: uniform, {uniform:.2g})"
    thin_ticks(figure.colorbar(maps, cax=axes, orientation="horizontal", label=text, extend="max"))
    axes.axvline(uniform, color="white", linewidth=1)


def overlay(axes: Axes, images: AnyArray, maps: AnyArray, scale: ScalarMappable) -> None:
    """Draw maps (M, y, x) over their images (M, height, width, C) in a row: an image gray, and a map's colors the more
    opaque the further they are from zero, or from where a scale begins that lies above zero.
    """
    size = images.shape[1:3]
    gray = images.mean(3).astype(np.uint8)
    values = make_strip(maps, size)
    low, high = (float(limit or 0) for limit in scale.get_clim())
    strength = np.nan_to_num(np.abs(values - max(0, low)) / max(-low, high - max(0, low)))
    opacity = np.where(np.isfinite(values), FAINTEST + (1 - FAINTEST) * np.minimum(1, strength), 0)
    show(axes, make_strip(gray, size)[..., None])
    axes.imshow(values, cmap=scale.cmap, vmin=low, vmax=high, alpha=opacity, interpolation="nearest")


def make_weight_scale(maps: Sequence[AnyArray]) -> ScalarMappable:
    """Return the colors of weights, from zero; of weights that are nearly uniform from the smallest, so that they
    differ.
    """
    low, high = min(float(np.nanmin(array, initial=np.inf)) for array in maps), find_ceiling(maps)
    return ScalarMappable(Normalize(low if high / 2 < low < high else 0, high), "viridis")


def end_caption(scales: Iterable[ScalarMappable]) -> str:
    """Return what a caption ends with if one of its scales of weights begins above zero."""
    return NEARLY_UNIFORM if any((scale.get_clim()[0] or 0) > 0 for scale in scales) else ""


def thin_ticks(bar: Colorbar) -> None:
    """Write few numbers under a color bar, as powers of ten where they are tiny or long, so that they do not touch."""
    bar.ax.xaxis.set_major_locator(MaxNLocator(3))
    low, high = bar.mappable.get_clim()
    if low > 0 or high < TINY:
        bar.ax.ticklabel_format(axis="x", style="sci", scilimits=(-2, 4), useOffset=False)


def find_ceiling(maps: Sequence[AnyArray]) -> float:
    """Return where a color scale ends: at a percentile of magnitudes, so that one large weight darkens no other.

    Example:
        >>> round(find_ceiling([np.r_[np.linspace(0, 0.1, 999), 0.33]]), 3)
        0.099
    """
    values = np.abs(np.concatenate([np.ravel(array) for array in maps]))
    values = values[np.isfinite(values)]
    if not values.any():  # where nothing moved, nothing has a color
        return 1.0
    return float(np.percentile(values, PERCENTILE)) or float(values.max())
