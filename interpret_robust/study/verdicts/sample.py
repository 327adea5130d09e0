"""What one training seed gives for a measure, and which files may be compared for it."""

import json
from collections.abc import Iterator, Sequence
from itertools import product
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from interpret_robust.core.arrays import AnyArray
from interpret_robust.results import names
from interpret_robust.results.attack_outcomes import is_attacked, read_ball
from interpret_robust.results.conditions import list_conditions
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import ATTENTION, GRADIENT, find_maps, find_weights
from interpret_robust.study.paper import Claim, Row
from interpret_robust.study.verdicts.measure import Kind


class Sample(NamedTuple):
    """What one training seed gives for a measure: `values` (N,) of each of the models on the same images.

    `row` is the paper's row that has their figures; `conditions` are conditions that weigh against each other;
    `setting` is that of the claim's settings that it is of.
    """

    quantity: str
    models: tuple[str, ...]
    seed: int
    sources: tuple[Result, ...]
    values: tuple[AnyArray, ...]
    percent: bool = False
    kind: Kind = "main"
    row: Row = MappingProxyType({})
    conditions: str = ""
    setting: str = ""

    @property
    def difference(self) -> AnyArray:
        """Return the first model's values, minus the second's if there are two."""
        first, *rest = (values.astype(np.float64) for values in self.values)
        return np.asarray(first - rest[0] if rest else first)


def pair_files(claim: Claim, models: tuple[str, ...], results: Sequence[Result]) -> Iterator[tuple[Result, ...]]:
    """Yield files of a claim's analysis, one of each model, of one training seed and comparable image by image.

    The paper's claims are about gradients: files of other maps do not bear on them.
    """
    analysis = [result for result in results if result.analysis == claim.analysis and find_maps(result) == GRADIENT]
    for files in product(*([entry for entry in analysis if entry.job["variant"] == model] for model in models)):
        if all(entry.job["seed"] == files[0].job["seed"] for entry in files) and all(
            describe_conditions(entry) == describe_conditions(files[0]) for entry in files
        ):
            yield files


def describe_conditions(result: Result, free: Sequence[str] = (), free_of_recipe: Sequence[str] = ()) -> str:
    """Return what models have in common that are compared: training but for the variant and the recipe's name, images,
    settings but for readings.

    `free` are other entries of the job, or `recalibration`, in which they may differ, `free_of_recipe` those of its
    recipe.
    """
    training = {key: value for key, value in result.job.items() if key not in ("variant", "seed", *free)}
    recipe = training.get("recipe", {})
    training["recipe"] = {key: value for key, value in recipe.items() if key not in ("name", *free_of_recipe)}
    settings = {"settings": read_ball(result)} if is_attacked(result) else {}
    common = {**list_conditions(result), **settings, "trained": training}
    if "recalibration" in free:
        del common["recalibration"]
        common["settings"] = {key: value for key, value in common["settings"].items() if key != "recalibration"}
    return json.dumps(common)


def own_attention(claim: Claim, models: tuple[str, ...], results: Sequence[Result]) -> Iterator[Result]:
    """Return a model's files where its own attention gives the weights."""
    return (result for (result,) in pair_files(claim, models, results) if find_weights(result) == ATTENTION)


def sample(quantity: str, files: Sequence[Result], values: Sequence[AnyArray], **other: Any) -> Sample:
    """Return what files of one training seed give, one of each model.

    What decides of models as they were trained is a control where their batch norm was recalibrated.
    """
    models = tuple(result.job["variant"] for result in files)
    plain = {"models": models, "conditions": describe_conditions(files[0], ("recalibration",))} | other
    if (images := files[0].recalibration) != "none":
        quantity += f", batch norm recalibrated ({images} images)"
        plain["kind"] = "control" if plain.get("kind", "main") == "main" else plain["kind"]
    return Sample(quantity, seed=files[0].job["seed"], sources=tuple(files), values=tuple(values), **plain)


def average_rates(outcomes: Sequence[AnyArray]) -> AnyArray:
    """Return the mean (N,) of several outcomes (N,); a single one stays what it is."""
    return outcomes[0] if len(outcomes) == 1 else np.mean(outcomes, axis=0)


def label_reading(reading: str, result: Result) -> str:
    """Return text such as `PGD-20 at eps 8/255`."""
    return f"{reading} at {names.format_ball(result.config['settings'])}"


def attack(result: Result) -> str:
    """Return the attack of a file, as `PGD-20 at eps 8/255`."""
    return label_reading(f"PGD-{result.config['settings']['steps']}", result)
