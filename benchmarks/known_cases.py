"""Cases of `speed.py` of ours beside ours: what is not computed again, or in fewer digits."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from interleaved import Case, Contender, Finding, Run
from speed_cases import CPU, OURS, RECIPE, Given

from interpret_robust.analyses import alignment, gradmap_score
from interpret_robust.attacks import cache
from interpret_robust.attribution.gradients import input_gradient
from interpret_robust.core import process_pool
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.folders import Folders
from interpret_robust.core.process_pool import cores
from interpret_robust.datasets import load
from interpret_robust.models import checkpoint
from interpret_robust.models.variants import variant
from interpret_robust.results import hdf5
from interpret_robust.study import report
from interpret_robust.training.job import Job
from interpret_robust.training.recipe_file import recipe_of
from interpret_robust.training.run import Run as TrainingRun

ATTACKED: dict[str, dict[str, str]] = {
    "robustness": {"pgd": "20", "cw": "none"},
    "attention-rank": {},
    "attention-maps": {},
    "feature-deletion": {},
}
"""Analyses that take PGD-20 from the same starts."""


@contextmanager
def _changed(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _equal(what: str) -> Callable[[Mapping[str, Any]], list[Finding]]:
    """A finding for each other contender: whether what it gave is equal to ours."""

    def compare(answers: Mapping[str, Any]) -> list[Finding]:
        ours = answers[OURS]
        return [
            Finding(f"{what} of ours and of '{name}' are equal", other == ours)
            for name, other in answers.items()
            if name != OURS
        ]

    return compare


def attack_once(given: Given) -> list[Case]:
    """Four analyses that take one attack."""

    def run(most_bytes: int) -> Run:
        def ask() -> list[str]:
            cache._readings.clear()
            with _changed(cache, "MOST_BYTES", most_bytes):
                works = [given.work(name, "at-att", **settings) for name, settings in ATTACKED.items()]
                return [str(hdf5.attributes(work.run(overwrite=True))["content_sha256"]) for work in works]

        return ask

    return [
        Case(
            "attack once",
            f"{', '.join(ATTACKED)} of the network `small` of variant `at-att`, {given.images} test images, PGD-20",
            [Contender(OURS, lambda: run(cache.MOST_BYTES)), Contender("each attacks", lambda: run(0))],
            _equal("checksums of the four files"),
            warm_up=False,
        )
    ]


def linearized(given: Given) -> list[Case]:
    """Linearized robustness of all classes."""

    def run(measure: Callable[..., AnyArray]) -> Run:
        work = given.work("alignment")
        batches = list(work.batches())

        def ask() -> AnyArray:
            found = []
            for batch in batches:
                with torch.no_grad():
                    logits = work.model(batch.images)
                found.append(measure(work.model, batch.images, logits))
            return np.concatenate(found)

        return ask

    def by_class(model: Any, images: torch.Tensor, logits: torch.Tensor) -> AnyArray:
        predicted, places = logits.argmax(1), torch.arange(len(logits))
        distances = []
        for rival in range(logits.shape[1]):

            def lead(pixels: torch.Tensor, rival: int = rival) -> torch.Tensor:
                scores: torch.Tensor = model(pixels)
                return scores[places, predicted] - scores[:, rival]

            gap = (logits[places, predicted] - logits[:, rival]).double().numpy()
            slope = input_gradient(lead, images).double().flatten(1).norm(dim=1).numpy()
            distances.append(np.divide(gap, slope, out=np.full(len(gap), np.nan), where=slope > 0))
        nearest: AnyArray = np.fmin.reduce(distances)
        return nearest

    def compare(found: Mapping[str, AnyArray]) -> list[Finding]:
        ours, theirs = found.values()
        apart = float(np.nanmax(np.abs(ours - theirs) / theirs))
        return [Finding(f"distances differ by at most {apart:.1e} of themselves", apart < 5e-7)]

    return [
        Case(
            "linearized robustness",
            f"distance to the nearest linear boundary, network `small` of variant `at`, {given.images} test images",
            [
                Contender(OURS, lambda: run(alignment.linearized_robustness)),
                Contender("a forward pass a class", lambda: run(by_class)),
            ],
            compare,
        )
    ]


def read_maps(given: Given) -> list[Case]:
    """What evaluators see in gradient maps."""

    def run(*, once: bool) -> Run:
        work = given.work("gradmap-score", readers=(given.path("natural", 1), given.path("natural", 2)))
        prepared, batches = gradmap_score.prepare(work), list(work.batches())

        def is_known(_: Any, __: Any) -> bool:
            return once

        def ask() -> list[Any]:
            with _changed(gradmap_score, "answers_repeat", is_known):
                return [gradmap_score.rows(work.model, batch, prepared) for batch in batches]

        return lambda: [rows["per_image/evaluator_prediction"].tolist() for rows in ask()]

    return [
        Case(
            "gradmap-score",
            f"three maps of {given.images} test images, their controls, and what two networks `small` see in them",
            [Contender(OURS, lambda: run(once=True)), Contender("each map read", lambda: run(once=False))],
            _equal("answers"),
        )
    ]


def pictures(given: Given) -> list[Case]:
    """The report of a few analyses."""

    def run(workers: Callable[[], int]) -> Run:
        folders = Folders(given.scratch / "report")
        for analysis, settings in ATTACKED.items():
            work = replace(given, scratch=folders.analyses, images=50).work(analysis, "at-att", **settings)
            work.run()

        def ask() -> bytes:
            shutil.rmtree(folders.figures, ignore_errors=True)
            folders.report.unlink(missing_ok=True)
            with _changed(process_pool, "cores", workers):
                page: Path = report.write(folders, folders.report, lambda _: None)
            return page.read_bytes()

        return ask

    return [
        Case(
            "report",
            "the page of four analyses of one model, with its pictures",
            [
                Contender(OURS, lambda: run(cores)),
                Contender("one by one", lambda: run(lambda: 1)),
            ],
            _equal("pages"),
            has_memory=False,
        )
    ]


def train_rounded(given: Given) -> list[Case]:
    """Training steps whose attacks take gradients in bfloat16."""
    return [_train_rounded(given, architecture) for architecture in ("small", "narrow")]


def _train_rounded(given: Given, architecture: str) -> Case:
    steps = 4
    source = checkpoint.read(given.path("at")).about["source"]

    def run(precision: str) -> Run:
        changes = (*RECIPE, "batch_size=64", f"attack_precision={precision}")
        recipe = recipe_of("quick", "cluttered-digits", changes)
        run = TrainingRun(Job(load(source), architecture, variant("at"), 0, recipe), CPU)

        def advance() -> float:
            run.totals.clear()
            for _ in range(steps):
                run.advance()
            return float(run.totals.sums[0]) / (steps * recipe.batch_size)

        return advance

    def compare(losses: Mapping[str, float]) -> list[Finding]:
        apart = abs(losses[OURS] / losses["float32"] - 1)
        sentence = f"the loss under attack of the first {steps} steps differs by {apart:.1e} of itself"
        return [Finding(sentence, apart < 0.01)]

    return Case(
        f"train {architecture} in bfloat16",
        f"{steps} training steps of `at` from fresh weights, gradients of the attack in bfloat16: network "
        f"`{architecture}`, cluttered digits, batch 64, PGD of 5 steps of 2/255 in eps 8/255, batch norm in eval mode "
        "in the attack",
        [Contender(OURS, lambda: run("bfloat16")), Contender("float32", lambda: run("float32"))],
        compare,
    )


CASES: dict[str, Callable[[Given], list[Case]]] = {
    "attack-once": attack_once,
    "linearized": linearized,
    "read-maps": read_maps,
    "pictures": pictures,
    "train-bfloat16": train_rounded,
}
