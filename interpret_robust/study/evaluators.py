"""Which models read what another gives."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from interpret_robust.core.errors import UserError
from interpret_robust.models import checkpoint
from interpret_robust.models.external import find_subject
from interpret_robust.models.subject import Subject
from interpret_robust.models.variants import is_external
from interpret_robust.training.job import drop_name
from interpret_robust.training.recipe import choose_default_preset


def read_job(path: Path) -> Mapping[str, Any]:
    """Return how a checkpoint was made."""
    return checkpoint.read(path).job


JobOf = Callable[[Path], Mapping[str, Any]]


class Candidate(Protocol):
    """A model as far as it decides who reads what it gives: it may have still to be trained. See `Subject`."""

    @property
    def job(self) -> Mapping[str, Any]: ...  # noqa: D102

    @property
    def location(self) -> str: ...  # noqa: D102

    @property
    def source(self) -> str: ...  # noqa: D102


def _training_options(job: Mapping[str, Any]) -> str:
    """Return the options that train another seed of a model's architecture; of one from elsewhere, any network soon."""
    if is_external(job):
        return " --recipe quick" if choose_default_preset(job["dataset"]) == "paper" else ""
    return f" --arch {job['architecture']} --seed {job['seed'] + 1}"


def choose_evaluators(subject: Candidate, candidates: Sequence[Path], job_of: JobOf = read_job) -> tuple[Path, ...]:
    """Return which of the candidates read the gradient maps of the model `subject`, the paper's kind first.

    Two natural networks of its architecture, one natural of another architecture, one adversarially trained:
    all on its data, the lowest seeds. None of its architecture has its seed: they would have begun at the same
    weights. A model from elsewhere is read by three natural networks of any architecture. Raises UserError where there
    is no natural one.
    """
    job = subject.job
    same_data = sorted(
        (
            (candidate_job["seed"], path, candidate_job)
            for path in candidates
            if (candidate_job := job_of(path))["dataset"] == job["dataset"]
        ),
        key=lambda item: item[:2],
    )

    def first(count: int, variant_name: str, *, same_architecture: bool) -> list[Path]:
        matches = [
            path
            for seed, path, item in same_data
            if item["variant"] == variant_name
            and (item["architecture"] == job["architecture"]) == same_architecture
            and (seed != job["seed"] or not same_architecture)
        ]
        return matches[:count]

    if is_external(job):
        natural = first(3, "natural", same_architecture=False)
    else:
        natural = first(2, "natural", same_architecture=True) + first(1, "natural", same_architecture=False)
    if not natural:
        name = job["variant"] if is_external(job) else subject.location
        raise UserError(
            f"no natural model of another seed exists to classify the gradient maps of {name}: run "
            f"`irt train natural --dataset {shlex.quote(subject.source)}{_training_options(job)}`, or name one by "
            "--evaluator."
        )
    return tuple(natural + first(1, "at", same_architecture=not is_external(job)))


def find_copies(source: Candidate, candidates: Sequence[Path], job_of: JobOf = read_job) -> tuple[Path, ...]:
    """Return the candidates that were trained as `source` was, from other seeds, lowest first: no cards, and none of
    one from elsewhere.

    They read its attacks.
    """
    if is_external(source.job):
        return ()
    jobs = ((path, job_of(path)) for path in candidates if path.suffix != ".json")
    copies = sorted(
        (job["seed"], path) for path, job in jobs if job["seed"] != source.job["seed"] and _is_alike(job, source.job)
    )
    return tuple(path for _, path in copies)


def _is_alike(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Return whether two trainings differ in their seeds at most, and in what their recipes are called."""
    return drop_name({**first, "seed": None}) == drop_name({**second, "seed": None})


def list_candidates(subject: Subject, candidates: Sequence[Path], source: str | None = None) -> tuple[Path, ...]:
    """Return all candidates but `subject` that are of its dataset; `source` is what cards among them are brought with,
    None for the data of `subject`.
    """
    models = ((path, find_subject(path, source or subject.source)) for path in candidates)
    return tuple(
        path
        for path, candidate in models
        if candidate.job["dataset"] == subject.job["dataset"] and candidate.sha256 != subject.sha256
    )


readers_of: Mapping[str, Callable[..., tuple[Path, ...]]] = {"evaluators": choose_evaluators, "copies": find_copies}
"""By `Analysis.readers`: who they are, among candidates."""
