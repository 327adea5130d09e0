"""What a file of attacks says of an image: which reading, by which target, was answered rightly."""

import json
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import list_places

Outcomes = npt.NDArray[np.bool_]

HEADLINES = ("PGD-20", "PGD-40")
"""The readings that stand for the attack where there is room for one only: the second is the paper's on MNIST."""


def is_attacked(result: Result) -> bool:
    """Return whether a file is one of attacks."""
    return result.analysis == "robustness"


def read_ball(result: Result) -> dict[str, Any]:
    """Return the settings of an attack but for where it is read, and what its model was recalibrated on."""
    settings = {name: value for name, value in result.config["settings"].items() if name not in ("pgd", "cw", "apgd")}
    return settings | {"recalibration": result.recalibration}


def list_readings(result: Result) -> list[str]:
    """Return text such as `PGD-5`, `CW-30`, `APGD-CE-100`."""
    return list_places(result, "reading")


def count_gradients(result: Result) -> int:
    """Return how many gradients of an image PGD, CW and APGD-CE ask for; those taken are `per_image/gradients`.

    Each trajectory is walked once, to its last reading, from each restart. Fewer are taken where an iterate is known to
    repeat an earlier one.
    """
    longest: dict[str, int] = {}
    for reading in list_readings(result):
        name, _, steps = reading.rpartition("-")
        if name != "APGD-T":  # it attacks only what the others have left
            longest[name] = max(longest.get(name, 0), int(steps))
    return int(result.config["settings"]["restarts"]) * sum(longest.values())


def find_headline(result: Result) -> str | None:
    """Return the reading that stands for all of a file, see `choose_headline`."""
    return choose_headline(list_readings(result))


def choose_headline(names: Sequence[str]) -> str | None:
    """Return the first of HEADLINES that is among these readings, else the last of PGD, else the last."""
    headlines = [name for name in HEADLINES if name in names]
    pgd = [name for name in names if name.startswith("PGD")]
    candidates = [*names, *pgd, *headlines[::-1]]
    return candidates[-1] if candidates else None


def list_targets(result: Result) -> list[str]:
    """Return the checkpoints that classified the source's adversarial images, the source itself first."""
    return list_places(result, "target")


def find_right(result: Result, reading: str | None, target: int = 0) -> Outcomes:
    """Return which images (N,) a target has right at every restart of a reading; natural ones for None."""
    label = result["per_image/label"]
    if reading is None:
        return np.asarray(result["per_image/prediction_natural"][:, target] == label)
    answers = result["per_image/prediction"][:, :, list_readings(result).index(reading), target]
    return np.asarray((answers == label[:, None]).all(1))


def find_right_in_worst_case(result: Result, target: int = 0, subset: Sequence[str] | None = None) -> Outcomes:
    """Return which images (N,) a target has right on the natural image and on all restarts of readings, by default
    of all.
    """
    outcomes = [
        find_right(result, reading, target) for reading in (list_readings(result) if subset is None else subset)
    ]
    return np.asarray(np.logical_and.reduce([find_right(result, None, target), *outcomes]))


def choose_fullest(results: Sequence[Result], *, with_copies: bool = True) -> list[Result]:
    """Return all files but those of attacks of which another, on the same model and images in the same ball, has all
    and more.

    That is each reading by each target; only by the model itself without `with_copies`.
    """
    attacks = [_attack_columns(result) if is_attacked(result) else "" for result in results]
    cells = [_cells(result, with_copies=with_copies) if is_attacked(result) else set() for result in results]
    by_attack = list(zip(attacks, cells, strict=True))
    return [
        result
        for result, attack, part in zip(results, attacks, cells, strict=True)
        if not any(attack == other and part < whole for other, whole in by_attack)
    ]


def _cells(result: Result, *, with_copies: bool) -> set[tuple[str, str]]:
    """Return each reading of a file with each target that answered it."""
    targets = list_targets(result) if with_copies else list_targets(result)[:1]
    return set(product(list_readings(result), targets))


def _attack_columns(result: Result) -> str:
    return json.dumps([result.model_id, result.config["data"], read_ball(result)], sort_keys=True)


def choose_most_read(results: Sequence[Result]) -> list[Result]:
    """Return all files, but of those of the same attack on the same model only the one that most models have read."""
    by_readers = sorted(results, key=lambda entry: len(entry.evaluators))
    paths = {
        f"{_attack_columns(entry)} {list_readings(entry)}" if is_attacked(entry) else str(entry.path): entry.path
        for entry in by_readers
    }
    return [result for result in results if result.path in paths.values()]
