"""What files have in common that are set side by side."""

from typing import Any

from interpret_robust.models.traits import list_traits
from interpret_robust.results import hdf5
from interpret_robust.results.attack_outcomes import is_attacked


def list_conditions(result: hdf5.Result, *, with_architecture: bool = True) -> dict[str, Any]:
    """Return what files set side by side have in common: data, settings, what their models were built for, and, unless
    it is left out, their architecture.
    """
    shared_job = {key: result.job[key] for key in ("dataset", *(["architecture"] if with_architecture else []))}
    shared_job |= {"grid": result.config["local_grid"]} if "position" in result else {}
    settings = {key: value for key, value in result.config["settings"].items() if key not in FREE}
    # Whoever else reads an attack, what the model itself makes of it is the same.
    readers = [] if is_attacked(result) else result.evaluators
    is_given = result.config.get("evaluators", {}).get("given")
    cards = {
        reader.name: {"weights": reader.sha256[:7], **parts} for reader in readers if (parts := list_traits(reader.job))
    }
    return {
        "trained": shared_job,
        "data": result.config["data"],
        "settings": settings,
        "evaluators": [reader.name for reader in readers] if is_given and readers else "default",
        "recalibration": result.recalibration,
        **({"cards of evaluators": cards} if cards else {}),
    }


FREE = ("spatial_weight",)
"""Settings that the models of one picture need not share: their labels tell them apart."""
