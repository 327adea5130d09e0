"""What a file of attacks says of an image: which reading, by which target, was answered rightly."""

import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from interpret_robust.labels import places
from interpret_robust.results import AnyArray, Result

Outcomes = npt.NDArray[np.bool_]

HEADLINE = "PGD-20"
"""The reading that stands for the attack where there is room for one only."""


def readings(result: Result) -> list[str]:
    """As `PGD-5`, `CW-30`."""
    return places(result, "reading")


def headline(result: Result) -> str | None:
    """The reading that stands for all: PGD-20 where it was read, else the last of PGD, else the last there is."""
    found = readings(result)
    if HEADLINE in found:
        return HEADLINE
    pgd = [name for name in found if name.startswith("PGD")]
    last = pgd or found
    return last[-1] if last else None


def targets(result: Result) -> list[str]:
    """The checkpoints that classified the source's adversarial images, the source itself first."""
    return places(result, "target")


def right(result: Result, reading: str | None, target: int = 0) -> Outcomes:
    """Which images (N,) a target has right at every restart of a reading; natural ones for None."""
    label = result["per_image/label"]
    if reading is None:
        return np.asarray(result["per_image/prediction_natural"][:, target] == label)
    answers = result["per_image/prediction"][:, :, readings(result).index(reading), target]
    return np.asarray((answers == label[:, None]).all(1))


def right_in_worst_case(result: Result, target: int = 0, over: Sequence[str] | None = None) -> Outcomes:
    """Which images (N,) a target has right on the natural image and on all restarts of readings, by default of all."""
    found = [right(result, reading, target) for reading in (readings(result) if over is None else over)]
    return np.asarray(np.logical_and.reduce([right(result, None, target), *found]))


def smallest_margin(result: Result, reading: str, target: int = 0) -> AnyArray:
    """The smallest margin (N,) over the restarts of a reading: below zero where the image is misclassified."""
    margins: AnyArray = result["per_image/margin"][:, :, readings(result).index(reading), target].min(1)
    return margins


def fullest(results: Sequence[Result]) -> list[Result]:
    """All files but those of attacks that another reads further: of the same model and images, in the same ball."""
    read: dict[str, list[set[str]]] = {}
    for result in results:
        if result.schema.startswith("robustness/"):
            read.setdefault(_attacked(result), []).append(set(readings(result)))
    return [
        result
        for result in results
        if not (
            result.schema.startswith("robustness/")
            and any(set(readings(result)) < other for other in read[_attacked(result)])
        )
    ]


def _attacked(result: Result) -> str:
    ball = {name: value for name, value in result.config["settings"].items() if name not in ("pgd", "cw")}
    return json.dumps([result.config["checkpoint"]["sha256"], result.config["data"], ball], sort_keys=True)
