"""Cases of `speed.py` that compare ours with ours: what need not be computed again, or needs fewer digits."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from interleaved import Case, Contender, Finding, Run
from speed_cases import CPU, OUR_NAME, RECIPE, Context

from interpret_robust.analyses import alignment, gradmap_score
from interpret_robust.attacks import cache
from interpret_robust.core import process_pool
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.folders import Folders
from interpret_robust.core.process_pool import count_cores
from interpret_robust.datasets import load
from interpret_robust.models import checkpoint
from interpret_robust.models.losses import input_gradient
from interpret_robust.models.variants import find_variant
from interpret_robust.results import hdf5
from interpret_robust.study import report
from interpret_robust.training.job import Job
from interpret_robust.training.recipe_file import find_recipe
from interpret_robust.training.run import Run as TrainingRun

SETTINGS: dict[str, dict[str, Any]] = {
    "robustness": {"pgd": "20", "cw": "none"},
    "attention-rank": {},
    "attention-maps": {},
    "feature-deletion": {},
}
"""Analyses that take PGD-20 from the same starts."""


@contextmanager
def _replace_attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


def _require_equal(quantity: str) -> Callable[[Mapping[str, Any]], list[Finding]]:
    """Return a function that makes a finding for each other contender: whether its answer is equal to ours."""

    def compare(answers: Mapping[str, Any]) -> list[Finding]:
        our_answer = answers[OUR_NAME]
        return [
            Finding(f"{quantity} of ours and of '{name}' are equal", answer == our_answer)
            for name, answer in answers.items()
            if name != OUR_NAME
        ]

    return compare


def compare_shared_attack(context: Context) -> list[Case]:
    """Compare four analyses that share one attack with four that attack each."""

    def run(most_bytes: int) -> Run:
        def ask() -> list[str]:
            cache._readings.clear()
            with _replace_attribute(cache, "MOST_BYTES", most_bytes):
                works = [context.work(name, "at-att", **settings) for name, settings in SETTINGS.items()]
                return [str(hdf5.attributes(work.run(overwrite=True))["content_sha256"]) for work in works]

        return ask

    return [
        Case(
            "attack once",
            f"{', '.join(SETTINGS)} of the network `small` of variant `at-att`, {context.images} test images, PGD-20",
            [Contender(OUR_NAME, lambda: run(cache.MOST_BYTES)), Contender("each attacks", lambda: run(0))],
            _require_equal("checksums of the four files"),
            warm_up=False,
        )
    ]


def compare_linearized(context: Context) -> list[Case]:
    """Compare two ways to compute linearized robustness for all classes."""

    def run(measure: Callable[..., AnyArray]) -> Run:
        work = context.work("alignment")
        batches = list(work.batches())

        def ask() -> AnyArray:
            distances = []
            for batch in batches:
                with torch.no_grad():
                    logits = work.model(batch.images)
                distances.append(measure(work.model, batch.images, logits))
            return np.concatenate(distances)

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

    def compare(answers: Mapping[str, AnyArray]) -> list[Finding]:
        our_distances, class_distances = answers.values()
        difference = float(np.nanmax(np.abs(our_distances - class_distances) / class_distances))
        return [Finding(f"distances differ by at most {difference:.1e} of themselves", difference < 5e-7)]

    return [
        Case(
            "linearized robustness",
            f"distance to the nearest linear boundary, network `small` of variant `at`, {context.images} test images",
            [
                Contender(OUR_NAME, lambda: run(alignment.linearized_robustness)),
                Contender("a forward pass a class", lambda: run(by_class)),
            ],
            compare,
        )
    ]


def compare_map_readings(context: Context) -> list[Case]:
    """Compare ways to let evaluators read gradient maps."""

    def run(*, is_shared: bool) -> Run:
        work = context.work("gradmap-score", readers=(context.path("natural", 1), context.path("natural", 2)))
        preparation, batches = gradmap_score.prepare(work), list(work.batches())

        def is_known(_: Any, __: Any) -> bool:
            return is_shared

        def ask() -> list[Any]:
            with _replace_attribute(gradmap_score, "answers_repeat", is_known):
                return [gradmap_score.rows(work.model, batch, preparation) for batch in batches]

        return lambda: [rows["per_image/evaluator_prediction"].tolist() for rows in ask()]

    return [
        Case(
            "gradmap-score",
            f"three maps of {context.images} test images, their controls, and what two networks `small` see in them",
            [
                Contender(OUR_NAME, lambda: run(is_shared=True)),
                Contender("each map read", lambda: run(is_shared=False)),
            ],
            _require_equal("answers"),
        )
    ]


def compare_report(context: Context) -> list[Case]:
    """Compare ways to draw the report of a few analyses."""

    def run(workers: Callable[[], int]) -> Run:
        folders = Folders(context.scratch / "report")
        for analysis, settings in SETTINGS.items():
            work = replace(context, scratch=folders.analyses, images=50).work(analysis, "at-att", **settings)
            work.run()

        def ask() -> bytes:
            shutil.rmtree(folders.figures, ignore_errors=True)
            folders.report.unlink(missing_ok=True)
            with _replace_attribute(process_pool, "cores", workers):
                page: Path = report.write(folders, folders.report, lambda _: None)
            return page.read_bytes()

        return ask

    return [
        Case(
            "report",
            "the page of four analyses of one model, with its pictures",
            [
                Contender(OUR_NAME, lambda: run(count_cores)),
                Contender("one by one", lambda: run(lambda: 1)),
            ],
            _require_equal("pages"),
            has_memory=False,
        )
    ]


def compare_bfloat16(context: Context) -> list[Case]:
    """Compare training steps whose attacks take gradients in bfloat16 with those in float32."""
    return [_compare_bfloat16(context, architecture) for architecture in ("small", "narrow")]


def _compare_bfloat16(context: Context, architecture: str) -> Case:
    steps = 4
    source = checkpoint.read(context.path("at")).about["source"]

    def run(precision: str) -> Run:
        changes = (*RECIPE, "batch_size=64", f"attack_precision={precision}")
        recipe = find_recipe("quick", "cluttered-digits", changes)
        run = TrainingRun(Job(load(source), architecture, find_variant("at"), 0, recipe), CPU)

        def advance() -> float:
            run.totals.clear()
            for _ in range(steps):
                run.advance()
            return float(run.totals.sums[0]) / (steps * recipe.batch_size)

        return advance

    def compare(losses: Mapping[str, float]) -> list[Finding]:
        difference = abs(losses[OUR_NAME] / losses["float32"] - 1)
        sentence = f"the loss under attack of the first {steps} steps differs by {difference:.1e} of itself"
        return [Finding(sentence, difference < 0.01)]

    return Case(
        f"train {architecture} in bfloat16",
        f"{steps} training steps of `at` from fresh weights, gradients of the attack in bfloat16: network "
        f"`{architecture}`, cluttered digits, batch 64, PGD of 5 steps of 2/255 in eps 8/255, batch norm in eval mode "
        "in the attack",
        [Contender(OUR_NAME, lambda: run("bfloat16")), Contender("float32", lambda: run("float32"))],
        compare,
    )


CASES: dict[str, Callable[[Context], list[Case]]] = {
    "attack-once": compare_shared_attack,
    "linearized": compare_linearized,
    "read-maps": compare_map_readings,
    "pictures": compare_report,
    "train-bfloat16": compare_bfloat16,
}
