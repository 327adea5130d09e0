"""The commands that made the files of a study, told from their configurations and the origin of their images."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

from interpret_robust import analyses
from interpret_robust.datasets.batches import choose_batch_size
from interpret_robust.models.card import Card
from interpret_robust.models.variants import is_external
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import find_norm, order
from interpret_robust.training.recipe import PRESETS, choose_default_preset
from interpret_robust.training.recipe_file import find_recipe

CONTINUATION = " \\\n    "
"""What goes on with a command in the next line."""


def list_commands(results: Sequence[Result]) -> list[str]:
    """Return what to type, in order, to make the files of a study anew; each command stands once.

    The models that are trained are those analyzed, then those that only read what others give.
    """
    in_paper_order = sorted(results, key=order)
    models = [_models(result) for result in in_paper_order]
    subjects, readers = [group[:1] for group in models], [group[1:] for group in models]
    words_of_training = [
        shlex.join(["irt", "train", *_training(model_job, source)])
        for model_job, source in chain(*subjects, *readers)
        if not is_external(model_job)
    ]
    cards = [
        shlex.join(
            [
                "irt",
                "model",
                "card",
                *_words(model_job),
                "--dataset",
                result.run["source"],
                "-o",
                _file("", model_job),
            ]
        )
        for result in in_paper_order
        for model_job in _option_words(result).values()
        if is_external(model_job)
    ]
    return [*dict.fromkeys(words_of_training), *dict.fromkeys(cards), *_questions(in_paper_order), "irt report"]


def _questions(results: Sequence[Result]) -> list[str]:
    """Return the commands that ask the questions, each of all models at once that were asked alike."""
    subjects: dict[tuple[str, str], dict[str, None]] = {}
    for result in results:
        start = shlex.join(["irt", "analyze", _name(result)])
        end = "".join(f" {shlex.quote(word)}" for word in _options(result)) + _readers(result)
        subjects.setdefault((start, end), {})[shlex.join(_subject(result))] = None
    return [f"{start} {CONTINUATION.join(models)}{end}" for (start, end), models in sorted(subjects.items())]


def compose_command(result: Result) -> str:
    """Return what to type to make one file anew."""
    return shlex.join(["irt", "analyze", _name(result), *_subject(result), *_options(result)])


def _subject(result: Result) -> list[str]:
    """Return what a command calls the model of a file."""
    return _words(result.job) or [_file(result.model.name, result.job)]


def list_changes(result: Result) -> dict[str, Any]:
    """Return the settings of a file that are not the default for its checkpoint."""
    default = asdict(analyses.get(_name(result)).settings().resolve(result.job))
    settings = result.config["settings"]
    if find_norm(settings) != default.get("norm", "linf"):
        default.pop("eps")  # the same number is another radius
    return {name: value for name, value in settings.items() if name not in default or value != default[name]}


def _name(result: Result) -> str:
    return result.analysis


def _file(name: str, model_job: Mapping[str, Any]) -> str:
    """Return where a model is expected: its checkpoint, or the card of one from elsewhere."""
    return f"{model_job['variant']}.json" if is_external(model_job) else f"checkpoints/{name}.safetensors"


def _words(model_job: Mapping[str, Any]) -> list[str]:
    """Return the options that find a model from elsewhere; none for a checkpoint."""
    return Card.from_entries(model_job["card"]).words() if is_external(model_job) else []


def _models(result: Result) -> list[tuple[dict[str, Any], str]]:
    """Return the jobs of a file's model and of its evaluators, each with the name or path of its data."""
    evaluators = result.config.get("evaluators", {"names": [], "jobs": {}})
    jobs = [result.job, *(evaluators["jobs"][name] for name in evaluators["names"])]
    return list(zip(jobs, result.run["trained_on"], strict=True))


def _batch_size(result: Result) -> int | None:
    """Return how many images were computed at once; None where that follows from their size."""
    size: int = result.config["batch_size"]
    return size if size != choose_batch_size(*result.job["image_shape"][1:]) else None


def _options(result: Result) -> list[str]:
    config, origin = result.config, result.run
    options = {
        "dataset": origin["source"] if is_external(result.job) or origin["source"] != origin["trained_on"][0] else None,
        "split": config["data"]["split"] if config["data"]["split"] != "test" else None,
        "limit": origin["limit"],
        "batch-size": _batch_size(result),
        "recalibrate": images if (images := result.recalibration) != "none" else None,
    } | {name.replace("_", "-"): value for name, value in list_changes(result).items()}
    options_by_name = {
        f"--{name}": value for name, value in options.items() if value is not None and value is not False
    }
    words = [
        word for name, value in options_by_name.items() for word in ([name] if value is True else [name, str(value)])
    ]
    return words + [
        word for name, model_job in _option_words(result).items() for word in ("--evaluator", _file(name, model_job))
    ]


def _option_words(result: Result) -> dict[str, dict[str, Any]]:
    """Return the evaluators that were named in the command, and how they were made."""
    evaluators = result.config.get("evaluators", {"given": False})
    return {name: evaluators["jobs"][name] for name in evaluators["names"]} if evaluators["given"] else {}


def _readers(result: Result) -> str:
    """Return a remark that names the models which were chosen to read what a file's model gives.

    Copies are all there are.
    """
    names = result.config.get("evaluators", {}).get("names", [])
    needs_choice = analyses.get(_name(result)).readers == "evaluators" and not _option_words(result)
    return f"  # read by {', '.join(names)}" if names and needs_choice else ""


def _training(words_of_training: dict[str, Any], source: str) -> list[str]:
    """Return the arguments of `irt train`, with the numbers in which a recipe differs from its preset.

    A recipe of the user's own, whose file may be gone, is told by its differences from the preset of the dataset. The
    limit always stands: a file does not say how many images its dataset has.
    """
    recipe, architecture = words_of_training["recipe"], words_of_training["architecture"]
    name = recipe["name"] if recipe["name"] in PRESETS else choose_default_preset(source)
    options = {
        "--dataset": source,
        "--arch": architecture,
        "--recipe": name,
        "--seed": str(words_of_training["seed"]),
        "--limit": str(words_of_training["images"]),
    }
    words = [words_of_training["variant"], *(word for option in options.items() for word in option)]
    default = asdict(find_recipe(name, source, architecture=architecture)) | {"name": recipe["name"]}
    if find_norm(recipe) != default["norm"]:
        del default["eps"], default["attack_step"]  # the same numbers are other lengths
    changes = [f"{field}={str(value).lower()}" for field, value in recipe.items() if value != default.get(field)]
    return words + [word for change in changes for word in ("--set", change)]
