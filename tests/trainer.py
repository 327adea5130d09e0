"""Training in one call: the package trains a step at a time, so that several models share a device."""

from pathlib import Path
from typing import Any

from interpret_robust.core import device as devices
from interpret_robust.core.interruption import stop_requests
from interpret_robust.core.round_robin import to_end
from interpret_robust.training.job import Job
from interpret_robust.training.loop import run_steps


@devices.exact()
def train(job: Job, folder: Path, **options: Any) -> Path:
    """Train a job to its end, with the options of `training`, and return the path of its checkpoint."""
    with stop_requests() as stop:
        return to_end(run_steps(job, folder, stop=stop, **options))[0]
