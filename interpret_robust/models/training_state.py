"""The state of an unfinished training: what its file is called, how far it is, and files under the name of the other
kind. Without torch.

A finished checkpoint is `NAME.safetensors`, the state of an unfinished training beside it `NAME.state.safetensors`, in
the same format: its `about` holds the step, see `models.checkpoint`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interpret_robust.core.errors import UserError
from interpret_robust.core.folders import ENDING, STATE, has_state_name


def name_state(path: Path) -> Path:
    """Return where the unfinished run of the checkpoint at `path` lies.

    Example:
        >>> name_state(Path("mine.safetensors")).name
        'mine.state.safetensors'
    """
    return path.with_name(f"{path.stem}{STATE}{ENDING}")


def name_finished(state_path: Path) -> Path:
    """Return where the checkpoint lies whose unfinished run is at `state_path`.

    Example:
        >>> name_finished(Path("mine.state.safetensors")).name
        'mine.safetensors'
    """
    return state_path.with_name(f"{state_path.stem.removesuffix(STATE)}{ENDING}")


def is_state(metadata: Mapping[str, Any]) -> bool:
    """Return whether a file is the state of an unfinished training, by what it says of itself."""
    return "step" in metadata


def tell_progress(metadata: Mapping[str, Any]) -> str:
    """Return how far an unfinished training is.

    Example:
        >>> job = {"images": 50000, "recipe": {"epochs": 16, "batch_size": 128}}
        >>> tell_progress({"step": 4626, "job": job})
        '4,626 of 6,240 steps'
    """
    job = metadata["job"]
    total = job["recipe"]["epochs"] * (job["images"] // job["recipe"]["batch_size"])
    return f"{metadata['step']:,} of {total:,} steps"


def explain_misnomer(path: Path, metadata: Mapping[str, Any]) -> str | None:
    """Return the sentence for a file under the name of the other kind; None where it has that of its own."""
    if is_state(metadata) == has_state_name(path):
        return None
    if is_state(metadata):
        return (
            f"{path} is an unfinished training under the name of a finished one: rename it to {name_state(path).name}, "
            "and the same `irt train` goes on with it."
        )
    return (
        f"{path} is a finished checkpoint under the name of an unfinished training: rename it to "
        f"{name_finished(path).name}."
    )


def check_finished(path: Path, metadata: Mapping[str, Any]) -> None:
    """Raise UserError where a file that is to be a finished checkpoint is the state of an unfinished training."""
    if not is_state(metadata):
        return
    raise UserError(
        explain_misnomer(path, metadata)
        or f"{path} is an unfinished training ({tell_progress(metadata)}): run the same `irt train` again to finish it."
    )


def check_state(path: Path, metadata: Mapping[str, Any]) -> None:
    """Raise UserError where a file that is to be the state of an unfinished training is a finished checkpoint."""
    if not is_state(metadata):
        raise UserError(explain_misnomer(path, metadata) or f"{path} is a finished checkpoint: there is nothing to do.")
