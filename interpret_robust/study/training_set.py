"""The models that one `irt train` asks for: variants times seeds, or what the quick study needs."""

from collections.abc import Callable, Sequence
from pathlib import Path

from interpret_robust.core.device import resolve
from interpret_robust.datasets import load
from interpret_robust.models.variants import find_variant
from interpret_robust.study import plan
from interpret_robust.study.plan import Model
from interpret_robust.study.tasks import TrainTask
from interpret_robust.training.log import Logs
from interpret_robust.training.recipe import Recipe


def plan_models(variants: Sequence[str], architecture: str | None, first_seed: int, seeds: int) -> list[Model]:
    """Return the models to train: `seeds` of each variant from `first_seed` on, in the order of the variants.

    Without variants they are those of the quick study, `seeds` of each of its subjects and one of each evaluator.
    Raises UserError for an unknown variant.

    Example:
        >>> plan_models(["at"], None, first_seed=4, seeds=2)
        [Model(architecture='small', variant='at', seed=4), Model(architecture='small', variant='at', seed=5)]
    """
    requests = [Model("small", find_variant(name).name, 0) for name in variants] or plan.QUICK.models
    models = [
        Model(architecture or model.architecture, model.variant, first_seed + model.seed + copy)
        for model in requests
        for copy in range(1 if model.seed else seeds)  # the evaluators of the quick study have other seeds than 0
    ]
    return list(dict.fromkeys(models))


def doubt(tasks: Sequence[TrainTask]) -> str | None:
    """Return a sentence where a model that is still to be trained would take a CPU days, else None.

    Raises UserError where another job's checkpoint has its name.
    """
    for task in tasks:
        if task.recipe.name in FOR_GPUS and resolve(task.device).type == "cpu" and not task.is_done():
            images = len(load(task.source).train.first(task.limit))
            steps = task.recipe.epochs * (images // task.recipe.batch_size)
            if steps > FEW_STEPS:
                return (
                    f"{task.variant} takes {steps:,} steps by the recipe {task.recipe.name}, which is for a GPU: on "
                    "this CPU --recipe cifar-quick, or --recipe quick, is done in minutes to hours; Ctrl-C stops, and "
                    "the same command goes on."
                )
    return None


FOR_GPUS = ("paper", "fast", "mnist")
"""Recipes of the literature."""

FEW_STEPS = 2_000
"""Steps that a CPU takes within minutes."""


def list_tasks(
    variants: Sequence[str],
    dataset: str,
    architecture: str | None,
    recipe_for: Callable[[str], Recipe],
    *,
    first_seed: int,
    seeds: int,
    folder: Path,
    device: str,
    limit: int | None,
    deadline: float,
    overwrite: bool,
    logs: Logs,
) -> list[TrainTask]:
    """Return a task for each model of `plan_models`, by the recipe that `recipe_for` gives for its architecture.

    Raises UserError for an unknown variant.
    """
    return [
        TrainTask(
            dataset,
            *model,
            recipe_for(model.architecture),
            folder,
            device,
            limit,
            deadline,
            overwrite,
            logs,
        )
        for model in plan_models(variants, architecture, first_seed, seeds)
    ]
