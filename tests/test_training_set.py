"""Which models one `irt train` asks for, and what is said before a long one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from interpret_robust.core import progress
from interpret_robust.core.errors import UserError
from interpret_robust.study import plan
from interpret_robust.study.plan import Model
from interpret_robust.study.tasks import TrainTask
from interpret_robust.study.training_set import doubt, list_tasks, plan_models
from interpret_robust.training.log import NO_LOGS
from interpret_robust.training.recipe import PRESETS


def test_variants_times_seeds_each_once() -> None:
    assert plan_models(["at", "at", "natural"], "cnn", 3, 2) == [
        Model("cnn", "at", 3),
        Model("cnn", "at", 4),
        Model("cnn", "natural", 3),
        Model("cnn", "natural", 4),
    ]
    with pytest.raises(UserError, match="did you mean 'at'"):
        plan_models(["AT"], None, 0, 1)


def test_without_variants_the_models_of_the_quick_study_and_copies_of_its_subjects() -> None:
    assert plan_models([], None, 0, 1) == list(plan.QUICK.models)
    copies = plan_models([], None, 5, 2)
    subjects = [model for model in plan.QUICK.models if model.seed == 0]
    readers = len(plan.QUICK.models) - len(subjects)
    assert len(copies) == 2 * len(subjects) + readers - 1  # the second natural network is an evaluator too
    assert {model.seed for model in copies if model.variant == "at"} == {5, 6}


def tasks(folder: Path, images: int, recipe: str) -> list[TrainTask]:
    pixels = np.zeros((images, 16, 16, 1), np.uint8)
    labels = np.arange(images) % 2
    np.savez(folder / f"mine{images}.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    return list_tasks(
        ["at"],
        str(folder / f"mine{images}.npz"),
        None,
        lambda _: replace(PRESETS[recipe], batch_size=10, epochs=100),
        first_seed=0,
        seeds=1,
        folder=folder,
        device="cpu",
        limit=None,
        deadline=0.0,
        overwrite=False,
        logs=NO_LOGS,
    )


def test_a_recipe_for_gpus_is_told_to_who_has_none(tmp_path: Path) -> None:
    sentence = doubt(tasks(tmp_path, 250, "paper"))
    assert sentence is not None and sentence.startswith("at takes 2,500 steps by the recipe paper, which is for a GPU")
    assert doubt(tasks(tmp_path, 250, "quick")) is None
    assert doubt(tasks(tmp_path, 150, "paper")) is None


def test_each_gives_every_item_once() -> None:
    assert list(progress.count_items([3, 1, 2], "numbers", "items")) == [3, 1, 2]
