"""One picture as a model sees it, natural and under attack: on what its answer rests, for a slide."""

from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.parsing import format_percent
from interpret_robust.figures.overlays import strip_axes
from interpret_robust.figures.style import RC, WIDTH, Drawing, make_figure
from interpret_robust.results.names import LONG_NAMES, OF_PREDICTED_CLASS, format_ball

LIKELIEST = 3
"""Classes whose probabilities are drawn, beside the one that is attacked."""

LINE, LONGEST_LINE = 0.15, 28
"""Inches from one line of text to the next in the list of classes, and letters of a line."""

TITLES, BAR, LEGEND = 0.2, 0.5, 0.25
"""Inches: what is written above the panels, the color bar, and the legend of the bars."""

LONGEST_TITLE = 80
"""Letters of a line above the figure."""

LIST_SHARE = 1.35
"""Width of the list of classes, in widths of a picture."""

EMPHASIS, NEUTRAL = "#D55E00", "0.6"
"""Colors of the class that is attacked and of the others."""

LABEL = {"va": "top", "fontsize": 6.5, "bbox": {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}}
"""Of a class's name in a panel."""

OPACITY = 0.6
"""Of weights that are laid over a picture."""


@dataclass(frozen=True, eq=False)
class Side:
    """What a model makes of an image.

    Attributes:
        image: (H, W, C), pixels in [0, 1].
        probabilities: of the classes, (K,).
        gradient: of the cross-entropy of the attacked class, signed, (H, W, C).
        gradient_image: the same as an image in [0, 1] by the rule `clip`, gray where it is zero.
        weights: of positions, (y, x), that sum to one; NaN where no position supports the class; None for a model
            without positions.
    """

    image: AnyArray
    probabilities: AnyArray
    gradient: AnyArray
    gradient_image: AnyArray
    weights: AnyArray | None

    @property
    def prediction(self) -> int:
        """Return the likeliest class."""
        return int(self.probabilities.argmax())


@dataclass(frozen=True, eq=False)
class Explanation:
    """What a model makes of a picture, and of the same under PGD.

    Attributes:
        picture, model: what people call them.
        class_names: of all classes.
        label: the class that the attack leads away from.
        is_predicted: whether it is the predicted one, since nobody named the true one.
        attack: the attack's settings by name: `eps`, `norm`, `steps`, `seed`.
        weights_kind: whose weights of positions there are, such as `attention`; None for none.
        framing: how the picture was resized and cropped, in words.
        natural, adversarial: see `Side`.
    """

    picture: str
    model: str
    class_names: tuple[str, ...]
    label: int
    is_predicted: bool
    attack: dict[str, Any]
    weights_kind: str | None
    framing: str
    natural: Side
    adversarial: Side

    def row(self) -> dict[str, str]:
        """Return a line of a table about it."""
        return {
            "picture": self.picture,
            "natural": self.class_text(self.natural, self.natural.prediction),
            "under attack": self.class_text(self.adversarial, self.adversarial.prediction),
            "attacked class": self.class_text(self.adversarial, self.label),
        }

    def class_text(self, side: Side, place: int) -> str:
        """Return a class and its probability, such as `cat 12.3 %`."""
        return f"{self.class_names[place]} {format_percent(side.probabilities[place])}"

    @property
    def legend_text(self) -> str:
        """Return which class the attack leads away from, in words for a legend."""
        return f"the {'predicted' if self.is_predicted else 'named'} class, from which the attack leads away"

    @property
    def attack_text(self) -> str:
        """Return the attack in a few words, such as `PGD-10, eps 8/255`."""
        return f"PGD-{self.attack['steps']}, {format_ball(self.attack)}"


def draw(explanation: Explanation) -> Drawing:
    """Return two rows, natural and adversarial: the image, its gradient map, its weights laid over it, its classes.

    Weights that are of the predicted class have its name in their corner.
    """
    height, width = explanation.natural.image.shape[:2]
    kind = explanation.weights_kind
    titles = ["image", "gradient of the loss", *([kind] if kind else []), "classes"]
    columns = [1.0] * (len(titles) - 1) + [LIST_SHARE]
    row = max(WIDTH / sum(columns) * min(height / width, 2.0), LINE * _lines(explanation))
    sides = {"natural": explanation.natural, explanation.attack_text: explanation.adversarial}
    weights = [side.weights for side in sides.values() if side.weights is not None]
    scale = Normalize(0, max((float(np.nan_to_num(values).max()) for values in weights), default=0.0) or 1.0)
    heading = wrap(f"{explanation.picture} as {explanation.model} sees it", LONGEST_TITLE)
    figure = make_figure(2 * row + TITLES + LINE * len(heading) + LEGEND + (BAR if weights else 0.0))
    with mpl.rc_context(RC):
        grid = figure.subplots(2, len(columns), width_ratios=columns)
        for axes, title in zip(grid[0], titles, strict=True):
            axes.set_title(title)
        for panels, (name, side) in zip(grid, sides.items(), strict=True):
            panels[0].set_ylabel(name)
            _draw_side(panels, explanation, side, scale)
        if weights:
            label = f"{kind} (uniform: {1 / weights[0].size:.2g})"
            bar = figure.colorbar(ScalarMappable(scale, "viridis"), ax=grid, location="bottom", label=label, shrink=0.3)
            bar.ax.xaxis.set_major_locator(MaxNLocator(3))
        figure.suptitle("\n".join(heading))
        colors = {explanation.legend_text: EMPHASIS, "other classes": NEUTRAL}
        handles = [Patch(color=color, label=text) for text, color in colors.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return Drawing(figure, _caption(explanation), _numbers(explanation))


def _draw_side(panels: AnyArray, explanation: Explanation, side: Side, scale: Normalize) -> None:
    for axes in panels:
        strip_axes(axes)
    _show(panels[0], side.image)
    _show(panels[1], side.gradient_image)
    if side.weights is not None:
        _draw_weights(panels[2], side.image, side.weights, scale)
        if explanation.weights_kind in OF_PREDICTED_CLASS:
            text = "\n".join(wrap(f"of {explanation.class_names[side.prediction]}", LONGEST_LINE))
            panels[2].text(0.02, 0.98, text, **LABEL, transform=panels[2].transAxes)
    _draw_classes(panels[-1], explanation, side)


def _show(axes: Axes, image: AnyArray) -> None:
    axes.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def _draw_weights(axes: Axes, image: AnyArray, weights: AnyArray, scale: Normalize) -> None:
    """Draw weights over the image in gray, each over the part of it that its position stands for."""
    height, width = image.shape[:2]
    _show(axes, image.mean(2))
    if np.isnan(weights).any():
        axes.text(width / 2, height / 2, "no position\nsupports the class", ha="center", va="center", color=EMPHASIS)
        return
    edges = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes.imshow(weights, cmap="viridis", norm=scale, alpha=OPACITY, extent=edges, interpolation="nearest")


def _shown_classes(explanation: Explanation, side: Side) -> list[int]:
    """Return the likeliest classes, and the attacked one behind them where it is none of them."""
    likeliest: list[int] = np.argsort(-side.probabilities, kind="stable")[:LIKELIEST].tolist()
    return likeliest if explanation.label in likeliest else [*likeliest, explanation.label]


def _class_text(explanation: Explanation, side: Side, place: int) -> list[str]:
    """Return the lines of a class's name, which is never cut, and its probability."""
    text = explanation.class_text(side, place).replace(" %", "\N{NO-BREAK SPACE}%")
    return wrap(text, LONGEST_LINE)


def _lines(explanation: Explanation) -> int:
    """Return how many lines the longer list of classes has, with a line for each bar."""
    return max(
        sum(1 + len(_class_text(explanation, side, place)) for place in _shown_classes(explanation, side))
        for side in (explanation.natural, explanation.adversarial)
    )


def _draw_classes(axes: Axes, explanation: Explanation, side: Side) -> None:
    """Draw the probability of each class as a bar, its name above it."""
    top = 0
    for place in _shown_classes(explanation, side):
        color = EMPHASIS if place == explanation.label else NEUTRAL
        lines = _class_text(explanation, side, place)
        axes.text(0, top + len(lines), "\n".join(lines), fontsize=6.5, va="bottom", linespacing=1.1)
        top += len(lines) + 1
        axes.barh(top - 0.7, 1, height=0.5, color="0.94")
        axes.barh(top - 0.7, side.probabilities[place], height=0.5, color=color)
    axes.set(xlim=(0, 1), ylim=(_lines(explanation), 0))


def _caption(explanation: Explanation) -> str:
    name = explanation.class_names[explanation.label]
    origin = "the predicted class, since the true one was not named" if explanation.is_predicted else "the named class"
    kind = explanation.weights_kind
    weights = (
        "The model has no features at several positions, so that no weights are shown."
        if kind is None
        else f"Colors laid over the image are {LONG_NAMES.get(kind, kind)}, weights of positions that sum to one, on "
        f"one scale for both images{_other_class(explanation)}."
    )
    return (
        f"{explanation.picture} as {explanation.model} sees it ({explanation.framing}): above as it is, below under "
        f"{explanation.attack_text} with seed {explanation.attack['seed']}. The attack leads away from '{name}', "
        f"{origin}. Maps show the gradient of the cross-entropy of this class with respect to pixels, clipped to 3 "
        f"standard deviations of each map; gray is zero. {weights} Bars are the probabilities of the {LIKELIEST} "
        "likeliest classes, and of the attacked one in orange."
    )


def _other_class(explanation: Explanation) -> str:
    """Return a clause on weights that are of another class under attack; empty where they are not."""
    above, below = explanation.natural.prediction, explanation.adversarial.prediction
    if explanation.weights_kind not in OF_PREDICTED_CLASS or above == below:
        return ""
    names = explanation.class_names
    return f"; above they are of '{names[above]}', below of '{names[below]}', and are not to be compared"


def _numbers(explanation: Explanation) -> dict[str, Any]:
    def describe_side(side: Side) -> dict[str, Any]:
        return {
            "prediction": explanation.class_names[side.prediction],
            "probabilities": {
                explanation.class_names[place]: float(side.probabilities[place])
                for place in _shown_classes(explanation, side)
            },
            "largest_gradient": float(np.abs(side.gradient).max()),
            "weights": None if side.weights is None else side.weights.tolist(),
        }

    return {
        "attacked_class": explanation.class_names[explanation.label],
        "attack": explanation.attack,
        "natural": describe_side(explanation.natural),
        "adversarial": describe_side(explanation.adversarial),
    }
