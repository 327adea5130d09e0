"""All that decides the numbers of a file, in the form in which the file holds it."""

from collections.abc import Mapping, Sequence
from typing import Any

from interpret_robust.core.configs import hash_config
from interpret_robust.datasets import Dataset
from interpret_robust.datasets.base import Split
from interpret_robust.models.subject import Subject
from interpret_robust.results.columns import Places
from interpret_robust.results.model_entry import list_evaluators

FAIR_DRAW = "from all classes in proportion"
"""How a limit draws from a split that is in the order of its classes, see `Split.draw`."""


def describe_images(dataset: Dataset, split: str, limit: int | None, images: Split) -> dict[str, Any]:
    """Return what a file holds of the `images` that were drawn from a split of a dataset.

    Example:
        >>> split = dataset.split("test")
        >>> describe_images(dataset, "test", 5, split.draw(5))["images"]
        5
    """
    description: dict[str, Any] = {
        "dataset": dataset.name,
        "split": split,
        "images": len(images),
        "sha256": images.sha256,
    }
    if limit is not None and dataset.split(split).is_in_class_order:
        description["drawn"] = FAIR_DRAW
    if images.pictures is not None:
        description["pictures"] = images.pictures
    if not dataset.is_for_training:
        description["reference"] = "test"
    return description


def describe_evaluators(evaluators: Sequence[Subject], *, are_default: bool) -> dict[str, Any]:
    """Return what a file holds of the models that read what another gives, and whether somebody chose them."""
    return {
        "names": [model.name for model in evaluators],
        "sha256": [model.sha256 for model in evaluators],
        "jobs": {model.name: model.job for model in evaluators},
        "given": not are_default,
    }


def describe_axes(dataset: Dataset, subject: Subject, evaluators: Sequence[str]) -> dict[str, Places]:
    """Return the places of the axes that columns of any analysis may have, given the names of the evaluators."""
    channels, height, width = subject.local_shape()
    return {
        "class": dataset.class_names,
        "channel": channels,
        "position": height * width,
        "evaluator": tuple(evaluators),
        **dict(zip(("color", "y", "x"), dataset.image_shape, strict=True)),
    }


def list_readers(config: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Return the name and id of the evaluators in a configuration."""
    return {(model.name, model.id) for model in list_evaluators(config)}


def differ_in_readers(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Return whether two configurations are one but for their evaluators."""
    first_rest, second_rest = (
        hash_config({key: value for key, value in config.items() if key != "evaluators"}) for config in (first, second)
    )
    return first_rest == second_rest and list_readers(first) != list_readers(second)
