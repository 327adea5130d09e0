"""What people call the model, the weights and the radius of a file: the same in tables, pictures and reports."""

from collections.abc import Sequence
from typing import Any

from interpret_robust.results import Result
from interpret_robust.variants import paper_order

GRAD_CAM = "Grad-CAM"

VIEWS = {"clip": "clip", "raw": "max"}
"""The paper's two ways of showing a map, and the scale rules that they are here."""


def job(result: Result) -> dict[str, Any]:
    """The training job of the checkpoint that a file analysed."""
    found: dict[str, Any] = result.config["checkpoint"]["job"]
    return found


def radius(eps: float) -> str:
    """A radius as people write it: 8/255, or 0.3."""
    parts = 255 * eps
    return f"{parts:.0f}/255" if abs(parts - round(parts)) < 1e-6 else f"{eps:.3g}"


def label(result: Result) -> str:
    """As `at-att seed 0`, or `at seed 0, Grad-CAM` where Grad-CAM stands for attention."""
    weights = f", {GRAD_CAM}" if weights_of(result) == GRAD_CAM else ""
    return f"{job(result)['variant']} seed {job(result)['seed']}{weights}"


def order(result: Result) -> tuple[int, int]:
    """The key that puts models into the paper's order."""
    return paper_order(job(result)["variant"], job(result)["seed"])


def weights_of(result: Result) -> str:
    """Whose weights of positions a file holds: `attention`, or `Grad-CAM` where that stands in its place."""
    return GRAD_CAM if result.config["settings"].get("weights") == "grad-cam" else "attention"


def by_weights(results: Sequence[Result]) -> dict[str, list[Result]]:
    """The models whose own attention is shown, then those that Grad-CAM stands in for; no empty kind."""
    kinds = {kind: [result for result in results if weights_of(result) == kind] for kind in ("attention", GRAD_CAM)}
    return {kind: models for kind, models in kinds.items() if models}


def places(result: Result, axis: str) -> list[str]:
    """The names of an axis's places."""
    names: list[str] = result[axis].tolist()
    return names


def short_name(result: Result, checkpoint: str) -> str:
    """An evaluator's name without that of the data, on which it was trained too: `small-natural-seed1`."""
    return checkpoint.removeprefix(f"{job(result)['dataset']}-")
