"""The commands that made the files of a study, told from the configurations in them."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from interpret_robust import analyses
from interpret_robust.figures.style import job, order
from interpret_robust.results import Result
from interpret_robust.streaming import BATCH_SIZE
from interpret_robust.training.recipe import PRESETS, preset


def all_of(opened: Sequence[Result]) -> list[str]:
    """What to type, in order, to make the files of a study anew; each command stands once."""
    ordered = sorted(opened, key=order)
    trained = [shlex.join(["irt", "train", *_training(job(result))]) for result in ordered]
    analysed = [
        shlex.join(["irt", "analyze", _name(result), *_options(result)]) + _readers(result) for result in ordered
    ]
    return [*dict.fromkeys(trained), *sorted(set(analysed)), "irt report"]


def of(result: Result) -> str:
    """What to type to make one file anew."""
    checkpoint = f"checkpoints/{result.config['checkpoint']['name']}.safetensors"
    return shlex.join(["irt", "analyze", _name(result), checkpoint, *_options(result)])


def changed(result: Result) -> dict[str, Any]:
    """The settings of a file that are not the default for its checkpoint."""
    default = asdict(analyses.get(_name(result)).settings().resolved(job(result)))
    return {name: value for name, value in result.config["settings"].items() if value != default.get(name)}


def _name(result: Result) -> str:
    return result.schema.partition("/")[0]


def _options(result: Result) -> list[str]:
    data, limit = result.config["data"], re.search(r"-first(\d+)$", result.path.stem)
    options = {
        "dataset": data["dataset"] if data["dataset"] != job(result)["dataset"] else None,
        "split": data["split"] if data["split"] != "test" else None,
        "limit": limit and limit[1],
        "batch-size": result.config["batch_size"] if result.config["batch_size"] != BATCH_SIZE else None,
    } | {name.replace("_", "-"): value for name, value in changed(result).items()}
    given = {f"--{name}": value for name, value in options.items() if value is not None and value is not False}
    return [word for name, value in given.items() for word in ([name] if value is True else [name, str(value)])]


def _readers(result: Result) -> str:
    """A remark that names the models which read what a file's model gives."""
    names = result.config.get("evaluators", {}).get("names", [])
    return f"  # read by {', '.join(names)}" if names else ""


def _training(trained: dict[str, Any]) -> list[str]:
    """The arguments of `irt train`, with the numbers in which a recipe differs from its preset."""
    recipe, dataset, architecture = trained["recipe"], trained["dataset"], trained["architecture"]
    options = {"--dataset": dataset, "--arch": architecture, "--recipe": recipe["name"], "--seed": str(trained["seed"])}
    words = [trained["variant"], *(word for option in options.items() for word in option)]
    if recipe["name"] in PRESETS:
        default = asdict(preset(recipe["name"], dataset, architecture=architecture))
        changes = [f"{name}={value}" for name, value in recipe.items() if value != default.get(name)]
        words += [word for change in changes for word in ("--set", change)]
    return words
