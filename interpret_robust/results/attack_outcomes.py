"""What a file of attacks says of an image: which reading, by which target, was answered rightly."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import places

Outcomes = npt.NDArray[np.bool_]

HEADLINES = ("PGD-20", "PGD-40")
"""The readings that stand for the attack where there is room for one only: the second is the paper's on MNIST."""


def is_attacked(result: Result) -> bool:
    """Return whether a file is one of attacks."""
    return result.analysis == "robustness"


def ball(result: Result) -> dict[str, Any]:
    """Return the settings of an attack but for where it is read, and what its model was recalibrated on."""
    settings = {name: value for name, value in result.config["settings"].items() if name not in ("pgd", "cw", "apgd")}
    return settings | {"recalibration": result.recalibration}


def readings(result: Result) -> list[str]:
    """Return text such as `PGD-5`, `CW-30`, `APGD-CE-100`."""
    return places(result, "reading")


def gradients_asked(result: Result) -> int:
    """Return how many gradients of an image PGD, CW and APGD-CE ask for; those taken are `per_image/gradients`.

    Each trajectory is walked once, to its last reading, from each restart. Fewer are taken where an iterate is known to
    repeat an earlier one.
    """
    longest: dict[str, int] = {}
    for reading in readings(result):
        name, _, steps = reading.rpartition("-")
        if name != "APGD-T":  # it attacks only what the others have left
            longest[name] = max(longest.get(name, 0), int(steps))
    return int(result.config["settings"]["restarts"]) * sum(longest.values())


def headline(result: Result) -> str | None:
    """Return the reading that stands for all of a file, see `headline_of`."""
    return headline_of(readings(result))


def headline_of(names: Sequence[str]) -> str | None:
    """Return the first of HEADLINES that is among these readings, else the last of PGD, else the last."""
    headlines = [name for name in HEADLINES if name in names]
    pgd = [name for name in names if name.startswith("PGD")]
    candidates = [*names, *pgd, *headlines[::-1]]
    return candidates[-1] if candidates else None


def targets(result: Result) -> list[str]:
    """Return the checkpoints that classified the source's adversarial images, the source itself first."""
    return places(result, "target")


def right(result: Result, reading: str | None, target: int = 0) -> Outcomes:
    """Return which images (N,) a target has right at every restart of a reading; natural ones for None."""
    label = result["per_image/label"]
    if reading is None:
        return np.asarray(result["per_image/prediction_natural"][:, target] == label)
    answers = result["per_image/prediction"][:, :, readings(result).index(reading), target]
    return np.asarray((answers == label[:, None]).all(1))


def right_in_worst_case(result: Result, target: int = 0, subset: Sequence[str] | None = None) -> Outcomes:
    """Return which images (N,) a target has right on the natural image and on all restarts of readings, by default
    of all.
    """
    outcomes = [right(result, reading, target) for reading in (readings(result) if subset is None else subset)]
    return np.asarray(np.logical_and.reduce([right(result, None, target), *outcomes]))


def fullest(results: Sequence[Result]) -> list[Result]:
    """Return all files but those of attacks that another reads further.

    Of the same model and images, in the same ball.
    """
    sets_by_attack: dict[str, list[set[str]]] = {}
    for result in results:
        if is_attacked(result):
            sets_by_attack.setdefault(_attack_columns(result), []).append(set(readings(result)))
    return [
        result
        for result in results
        if not (
            is_attacked(result)
            and any(set(readings(result)) < superset for superset in sets_by_attack[_attack_columns(result)])
        )
    ]


def _attack_columns(result: Result) -> str:
    return json.dumps([result.model_id, result.config["data"], ball(result)], sort_keys=True)


def most_read(results: Sequence[Result]) -> list[Result]:
    """Return all files, but of those of the same attack on the same model only the one that most models have read."""
    by_readers = sorted(results, key=lambda entry: len(entry.evaluators))
    paths = {
        f"{_attack_columns(entry)} {readings(entry)}" if is_attacked(entry) else str(entry.path): entry.path
        for entry in by_readers
    }
    return [result for result in results if result.path in paths.values()]
