"""What people call the model, the weights and the radius of a file: the same in tables, pictures and reports."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from interpret_robust.core.parsing import format_count
from interpret_robust.models.traits import list_traits
from interpret_robust.models.variants import is_adversarial, is_external, order_as_paper
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.model_entry import ModelEntry

GRADIENT = "gradient"
ATTENTION, GRAD_CAM = "attention", "Grad-CAM"
WEIGHTS = {"grad-cam": GRAD_CAM, "feature-norm": "feature norm"}
"""What people call the weights that a setting names."""

LONG_NAMES = {
    GRAD_CAM: "Grad-CAM of the predicted class",
    "rollout": "attention rollout",
    "relevance": "transformer relevance of the predicted class",
}

OF_PREDICTED_CLASS = (GRAD_CAM, "relevance")
"""Weights that are of the predicted class, so that they are of another one where an attack changes it."""

PAPER_RULES = {"clip": "clip", "raw": "max"}
"""The paper's two ways of showing a map, and the scale rules that they are here."""


def format_radius(eps: float) -> str:
    """Return a radius as people write it: 8/255, or 0.3."""
    if eps == round(eps, 1):
        return f"{eps:g}"
    parts = 255 * eps
    return f"{parts:.0f}/255" if abs(parts - round(parts)) < 1e-6 else f"{eps:.3g}"


NORMS = {"linf": "", "l2": "L2 ", "l1": "L1 "}
"""What stands before a radius in each norm: nothing in that of most files."""


def find_norm(settings: Mapping[str, Any]) -> str:
    """Return the norm of the ball that settings or a recipe name: those from before there were several are `linf`."""
    name: str = settings.get("norm", "linf")
    return name


def format_ball(settings: Mapping[str, Any]) -> str:
    """Return the ball that settings or a recipe name, such as `eps 8/255` or `L2 eps 0.5`.

    Example:
        >>> format_ball({"eps": 8 / 255}), format_ball({"eps": 0.5, "norm": "l2"})
        ('eps 8/255', 'L2 eps 0.5')
    """
    name = find_norm(settings)
    return f"{NORMS[name]}eps {format_length(settings['eps'], name)}"


def format_radii(result: Result) -> list[str]:
    """Return the radii of a file whose balls grow by its `factor`, such as `8/255`, `16/255`, or `L2 0.5`, `L2 1`.

    In l-infinity none is above 1, which holds all images.
    """
    settings = result.config["settings"]
    name = find_norm(settings)
    radii = [settings["eps"] * int(factor) for factor in result["factor"]]
    return [f"{NORMS[name]}{format_length(min(1.0, value) if name == 'linf' else value, name)}" for value in radii]


def format_length(value: float, norm_name: str) -> str:
    """Return a length in a norm as people write it: in 255ths in l-infinity alone."""
    return format_radius(value) if norm_name == "linf" else f"{value:.3g}"


def attack(result: Result) -> str:
    """Return the attack that a file's numbers rest on, such as `PGD-20, eps 8/255, step 2/255`; nothing without one."""
    settings = result.config["settings"]
    if "reading" in result and not len(result["reading"]):
        return ""  # a table of natural accuracy alone
    steps = [f"PGD-{settings['steps']}"] if "steps" in settings else []
    balls = [format_ball(settings)] if settings.get("eps") is not None else []
    step = settings.get("step_size")
    restarts = settings.get("restarts", 1)
    return ", ".join(
        [
            *steps,
            *balls,
            *([f"step {format_length(step, find_norm(settings))}"] if step is not None else []),
            *([f"{restarts} restarts"] if restarts > 1 else []),
        ]
    )


def format_images(data: Mapping[str, Any]) -> str:
    """Return how many images a file is of, such as `1000 test images`."""
    return format_count(data["images"], f"{data['split']} image")


def format_subject(*results: Result) -> str:
    """Return text such as `cifar10, small, 1000 test images`: whose images, which networks, and how many images.

    The name of a network from elsewhere is left out.
    """
    data = results[0].data
    return ", ".join([data["dataset"], *list_architectures(results), format_images(data)])


def list_architectures(results: Sequence[Result]) -> list[str]:
    """Return the architectures of models of ours, in order, each once."""
    return list(dict.fromkeys(result.job["architecture"] for result in results if not is_external(result.job)))


def label(result: Result) -> str:
    """Return text such as `at-att seed 0`, or `at seed 0, Grad-CAM` where Grad-CAM stands for attention.

    A model without a seed is called by its name, and by what tells it from others of that name.

    A model that was trained in another norm than l-infinity says so, and so does one whose batch norm was
    recalibrated: `at seed 0, trained in L2`, `at seed 0, recalibrated (clean)`.
    """
    weights = "" if (source := find_weights(result)) == ATTENTION else f", {source}"
    seed = "" if result.job["seed"] is None else f" seed {result.job['seed']}"
    anew = "" if result.recalibration == "none" else f", recalibrated ({result.recalibration})"
    return f"{name_variant(result)}{seed}{_training_norm(result)}{weights}{anew}"


def name_variant(result: Result) -> str:
    """Return the variant of a file's model; of one from elsewhere its name, told apart from others beside it."""
    return ", ".join(filter(None, [result.job["variant"], result.distinction]))


def _training_norm(result: Result) -> str:
    """Return the norm of adversarial training where it is not that of most models."""
    train_job = result.job
    name = find_norm(train_job.get("recipe", {})) if is_adversarial(train_job) else "linf"
    return "" if name == "linf" else f", trained in {NORMS[name].strip()}"


def order(result: Result) -> tuple[int, str, int]:
    """Return the key that puts models into the paper's order, and those of a variant into that of their names."""
    place, _, seed = order_as_paper(result.job["variant"], result.job["seed"])
    return place, name_variant(result), seed


def tell_apart(results: Sequence[Result]) -> list[Result]:
    """Return files, those of different models of one name with what tells these apart; one that has it keeps it.

    Example:
        >>> files = [Path(f"{folder}/robustness-cifar10-mine-test.h5") for folder in ("a", "b")]  # doctest: +SKIP
        >>> [label(result) for result in tell_apart([read(file) for file in files])]  # doctest: +SKIP
        ['mine, normalize imagenet', 'mine, normalize none']
    """
    texts = list_distinctions(results)
    return [
        replace(result, distinction=texts[result.model_id]) if result.model_id in texts else result
        for result in results
    ]


def list_distinctions(results: Sequence[Result]) -> dict[str, str]:
    """Return by its id how each model from elsewhere differs from others of its name: that of a file, or a reader."""
    groups: dict[str, dict[str, dict[str, str]]] = {}
    for model in (model for result in results for model in (result.model, *result.evaluators)):
        if parts := list_traits(model.job):
            groups.setdefault(model.name, {})[model.id] = {"weights": model.sha256[:7], **parts}
    texts = {
        identity: ", ".join(f"{name} {value}" for name, value in parts.items() if _differs(name, group.values()))
        for group in groups.values()
        if len(group) > 1
        for identity, parts in group.items()
    }
    return texts | {result.model_id: result.distinction for result in results if result.distinction}


def _differs(name: str, parts_of_models: Iterable[Mapping[str, str]]) -> bool:
    return len({parts.get(name) for parts in parts_of_models}) > 1


def find_maps(result: Result) -> str:
    """Return what the maps of a file are: `gradient`, or what stands in its place."""
    source: str = result.config["settings"].get("source", GRADIENT)
    return source


def find_weights(result: Result) -> str:
    """Return whose weights of positions a file holds: `attention`, or what stands in its place, such as `Grad-CAM`."""
    source: str = result.config["settings"].get("spatial_weight", ATTENTION)
    return WEIGHTS.get(source, source)


def group_by_weights(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Return the models whose own attention is shown, then those that Grad-CAM stands in for, then others.

    No empty kind.
    """
    kinds: dict[str, list[Result]] = {kind: [] for kind in (ATTENTION, GRAD_CAM)}
    for result in results:
        kinds.setdefault(find_weights(result), []).append(result)
    return {kind: models for kind, models in kinds.items() if models}


def name_of(model: ModelEntry, texts: Mapping[str, str]) -> str:
    """Return a model's name in files and what tells it from others of that name, of what `list_distinctions` found."""
    return f"{model.name} ({texts[model.id]})" if model.id in texts else model.name


def list_places(result: Result, axis: str) -> list[str]:
    """Return the names of an axis's places."""
    names: list[str] = result[axis].tolist()
    return names


def shorten_name(result: Result, checkpoint: str) -> str:
    """Return an evaluator's name without that of the data, on which it was trained too: `small-natural-seed1`."""
    return checkpoint.removeprefix(f"{result.job['dataset']}-")


def sort_newest_first(results: Sequence[Result]) -> list[Result]:
    """Return files as the report and the audit have them: by dataset, the last asked about first, then by model.

    Of a dataset, the newest file counts, so that a user's own stands before the files that came with the toolkit.
    """
    newest: dict[str, str] = {}
    for result in results:
        dataset = result.data["dataset"]
        newest[dataset] = max(newest.get(dataset, ""), str(result.attributes["created_utc"]))
    by_model = sorted(results, key=order)
    return sorted(by_model, key=lambda result: newest[result.data["dataset"]], reverse=True)
