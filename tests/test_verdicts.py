"""The paper's claims: known answers from known columns, and a verdict that follows from them."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from interpret_robust import analyses
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.bootstrap import FEWEST_IMAGES
from interpret_robust.core.errors import UserError
from interpret_robust.core.intervals import Interval
from interpret_robust.core.significance import average_seeds
from interpret_robust.models.variants import VARIANTS
from interpret_robust.results import hdf5, writer
from interpret_robust.results.attack_outcomes import choose_fullest
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.schema import Column, Schema
from interpret_robust.study import paper
from interpret_robust.study.verdicts import Finding, Kind, Measure, judge, sampling

RISE, FALL, OPEN = Interval(0.2, 0.1, 0.3), Interval(-0.2, -0.3, -0.1), Interval(0.1, -0.1, 0.3)
ATTACK = {"eps": 8 / 255, "steps": 20}
TABLE = {"eps": 8 / 255, "pgd": "20", "cw": "none"}
READERS = {
    "my-natural-images-small-at-seed1": "at",
    "tiny-small-natural-seed1": "natural",
    "renamed": "natural",
    "renamed-too": "natural",
    "tiny-small-natural-att-natural-seed1": "natural-att",
}
"""Evaluators and their variants, which their names do not tell."""


RECIPES = {
    "quick": {"name": "quick", "epochs": 4},
    "paper": {"name": "paper", "epochs": 200},
    "mine": {"name": "mine", "epochs": 4},
}


def write(
    folder: Path,
    schema: str,
    variant: str,
    columns: Mapping[str, AnyArray],
    *,
    seed: int = 0,
    copies: Mapping[str, int] | None = None,
    is_given: bool = False,
    recipe: str = "quick",
    settings: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    labels: Mapping[str, tuple[str, ...]] | None = None,
    axes: Mapping[str, tuple[str, ...]] | None = None,
    places: Mapping[str, tuple[int, ...] | int] | None = None,
    job_changes: Mapping[str, Any] | None = None,
    recalibration: str | None = None,
) -> Result:
    """A file that holds these per-image columns, whose axes after the first are named in `axes`, and no others.

    With `is_given` the evaluators are others than the default ones. `job_changes` changes the job of training.
    """
    name, version = schema.split("/")
    file_schema = Schema(
        name,
        int(version),
        tuple(
            Column(f"per_image/{column}", values.dtype.str[1:], "made", (axes or {}).get(column, ()))
            for column, values in columns.items()
        ),
        (),
        labels=labels or {},
    )
    count = len(next(iter(columns.values())))
    job = {"dataset": "tiny", "architecture": "small", "variant": variant, "seed": seed, "recipe": RECIPES[recipe]}
    job |= job_changes or {}
    config: dict[str, Any] = {
        "checkpoint": {"name": (name_of := f"tiny-small-{variant}-seed{seed}"), "sha256": name_of, "job": job},
        "data": {"dataset": "tiny", "split": "test", "images": count, "sha256": "0"} | dict(data or {}),
        "settings": dict(settings or {}),
        "local_grid": [2, 2],
    }
    if recalibration:
        config["recalibration"] = {"images": recalibration}
    if readers := (labels or {}).get("evaluator"):
        config["evaluators"] = {
            "names": list(readers),
            "sha256": [f"of {reader}" for reader in readers],
            "jobs": {reader: {"variant": READERS[reader], "architecture": reader.split("-")[0]} for reader in readers},
        }
    if copies:
        config["evaluators"] = {
            "names": list(copies),
            "given": is_given,
            "jobs": {name: {**job, "seed": copy_seed} for name, copy_seed in copies.items()},
        }
    path = folder / f"{name}-{len(list(folder.iterdir()))}.h5"
    with writer.open_rows(path, file_schema, count, {"position": 4, **(places or {})}, config, {}) as rows:
        rows.append({f"per_image/{column}": values for column, values in columns.items()})
        rows.finish({}, {})
    return hdf5.read(path)


def table(folder: Path, variant: str, natural: AnyArray, readings: Mapping[str, AnyArray], **other: Any) -> Result:
    """A file of `robustness` with these outcomes, of the source (N,) or of all targets (N, target), for class 1.

    A file's `copies` are the targets after the source, by their name, with their seed.
    """
    targets = ("source", *other.get("copies", {}))
    answers = np.stack([np.reshape(values, (len(natural), -1)) for values in readings.values()], 1)
    columns = {
        "label": np.ones(len(natural), "i2"),
        "prediction_natural": np.reshape(natural, (len(natural), -1)).repeat(len(targets), 1).astype("i2"),
        "prediction": answers[:, None].astype("i2"),
    }
    axes = {"prediction_natural": ("target",), "prediction": ("restart", "reading", "target")}
    places: Any = {"reading": tuple(readings), "target": targets, "restart": 1}
    return write(folder, "robustness/2", variant, columns, axes=axes, places=places, **({"settings": TABLE} | other))


def accuracy(folder: Path, variant: str, natural: AnyArray, adversarial: AnyArray, **other: Any) -> Result:
    """A file of `robustness` with one reading, and no target but the source."""
    return table(folder, variant, natural, {"PGD-20": adversarial}, **other)


def right(*counts: int) -> AnyArray:
    """Outcomes of 200 images: right on the first, wrong on the next, and so on; wrong on the rest."""
    parts = [np.full(count, place % 2 == 0) for place, count in enumerate(counts)]
    outcomes = np.concatenate(parts)
    return np.concatenate([outcomes, np.zeros(200 - len(outcomes), bool)])


def judge_files(files: list[Result]) -> dict[str, Finding]:
    return {finding.claim.name: finding for finding in judge(files)}


def measure(estimate: Interval, kind: Kind = "main", p: float | None = None) -> Measure:
    return Measure(
        "a",
        paper.CLAIMS[0].models[0],
        "test",
        (0,),
        (estimate.value,),
        (FEWEST_IMAGES,),
        estimate,
        p,
        kind=kind,
        setting="white-box",
    )


@pytest.mark.parametrize(
    ("measures", "p_value", "verdict"),
    [
        ([], None, "not tested"),
        ([measure(RISE), measure(RISE)], None, "holds"),
        ([measure(RISE), measure(OPEN)], None, "cannot tell"),
        ([measure(RISE), measure(FALL)], None, "cannot tell"),
        ([measure(FALL), measure(FALL)], None, "does not hold"),
        ([measure(FALL), measure(OPEN)], None, "cannot tell"),
        ([measure(RISE), measure(RISE, "control")], None, "holds"),
        ([measure(RISE), measure(OPEN, "control")], None, "cannot tell"),
        ([measure(RISE), measure(FALL, "control")], None, "cannot tell"),
        ([measure(FALL), measure(RISE, "control")], None, "does not hold"),
        ([measure(RISE), measure(FALL, "further")], None, "holds"),
        ([measure(FALL), measure(RISE, "further")], None, "does not hold"),
        ([measure(RISE)], 0.049, "holds"),
        ([measure(RISE)], 0.05, "cannot tell"),
        ([measure(FALL)], 0.05, "cannot tell"),
        ([measure(Interval(0.1, 0.0, 0.2))], None, "cannot tell"),
    ],
)
def test_a_verdict_follows_from_the_signs(measures: list[Measure], p_value: float | None, verdict: str) -> None:
    assert Finding(paper.CLAIMS[0], "table2", tuple(measures), p_value).verdict == verdict


@pytest.mark.parametrize(
    ("measures", "p_value", "verdict"),
    [
        ([measure(RISE, p=0.001), measure(FALL, p=0.024)], 1.0, "does not hold"),
        ([measure(RISE, p=0.001), measure(FALL, p=0.025)], 0.03, "cannot tell"),
        ([measure(FALL, p=0.016), measure(RISE, p=0.001), measure(OPEN, p=0.2)], 0.4, "does not hold"),
        ([measure(FALL, p=0.017), measure(RISE, p=0.001), measure(OPEN, p=0.2)], 0.4, "cannot tell"),
        ([measure(RISE), measure(FALL)], None, "does not hold"),
        # None is enough alone, and all are below.
        ([measure(FALL, p=0.02), measure(FALL, p=0.03), measure(FALL, p=0.04)], 0.04, "does not hold"),
        ([measure(RISE), measure(OPEN)], None, "cannot tell"),
        ([measure(RISE), measure(OPEN, p=0.001)], None, "cannot tell"),
        # Only what decides refutes, and only that is counted.
        ([measure(RISE, p=0.01), measure(FALL, "control", p=0.001)], 0.01, "cannot tell"),
        ([*[measure(RISE, p=0.01)] * 3, measure(FALL, "further", p=0.001)], 0.01, "holds"),
        ([measure(FALL, p=0.04), measure(RISE, "control", p=0.04)], 0.5, "does not hold"),
        ([measure(RISE, p=0.01)] * 3, 0.02, "holds"),
        ([measure(RISE, p=0.01)] * 3, 0.06, "cannot tell"),
        ([measure(RISE, p=0.01)] * 2, 0.02, "cannot tell"),  # the third is not compared
        ([], None, "not tested"),
    ],
)
def test_one_better_model_refutes_the_best(measures: list[Measure], p_value: float | None, verdict: str) -> None:
    (best,) = (claim for claim in paper.CLAIMS if claim.superlative)
    assert best.name == "both-robustness"
    of_pairs = [replace(entry, models=best.models[place % 3]) for place, entry in enumerate(measures)]
    finding = Finding(best, "table2", tuple(of_pairs), p_value)
    assert finding.verdict == verdict
    count = sum(entry.kind == "main" for entry in measures)
    tests = [entry.p_value for entry in measures if entry.kind == "main" and entry.estimate == FALL]
    alone = [count * test for test in tests if test is not None and count * test < 0.05]
    assert finding.corrected_p == (min(alone) if alone else p_value)
    assert finding.basis.startswith(f"rests on 1 of {count} numbers") == bool(alone or None in tests)


@pytest.mark.parametrize(
    ("measures", "p_value", "basis", "place"),
    [
        ([], None, "", None),
        ([measure(RISE)], None, "rests on 1 number", 0),
        ([measure(RISE), measure(OPEN, "control"), measure(FALL, "further")], None, "rests on 1 number", 1),
        ([measure(FALL)], 0.0444, "rests on 1 number; p 0.044: corrected (Holm) over 3 tested claims of {}", 0),
        (
            [measure(RISE), measure(FALL)],
            0.0444,
            "rests on 2 numbers; p 0.044: the largest of theirs, corrected (Holm) over 3 tested claims of {}",
            1,
        ),
    ],
)
def test_a_verdict_says_on_what_it_rests(
    measures: list[Measure], p_value: float | None, basis: str, place: int | None
) -> None:
    claim = replace(paper.CLAIMS[0], settings=("white-box",))
    finding = Finding(claim, "table2", tuple(measures), p_value, family=3)
    assert finding.basis == basis.format(paper.CLAIMS[0].section)
    assert finding.decisive_measure is (None if place is None else measures[place])


@pytest.mark.parametrize(
    ("models", "seeds", "wording", "rest"),
    [
        ([("at-reg", "at"), ("at-att-reg", "at-att")], [(0, 1), (0, 1)], "holds", ""),
        ([("at-reg", "at"), ("at-att-reg", "at-att")], [(2,), (2,)], "holds in this seed", ""),
        ([("at-reg", "at"), ("at-att-reg", "at-att")], [(0,), (2,)], "holds, partly from one seed alone", ""),
        ([("at-reg", "at"), ("at-att-reg", "at-att")], [(0, 1), (0,)], "holds, partly from one seed alone", ""),
        ([("at-reg", "at")], [(0, 1)], "holds, for some models", ", none of at-att-reg minus at-att"),
        ([("at-att-reg", "at-att")], [(0,)], "holds in this seed, for some models", ", none of at-reg minus at"),
    ],
)
def test_a_verdict_says_what_was_not_measured(
    models: list[tuple[str, ...]], seeds: list[tuple[int, ...]], wording: str, rest: str
) -> None:
    (claim,) = (claim for claim in paper.CLAIMS if claim.name == "regularization-robustness")
    measures = [replace(measure(RISE), models=pair, seeds=of_pair) for pair, of_pair in zip(models, seeds, strict=True)]
    finding = Finding(claim, "table2", tuple(measures))
    assert finding.wording == wording
    assert finding.basis == f"rests on {len(models)} number{'s' if len(models) > 1 else ''}{rest}"


@pytest.mark.parametrize(
    ("settings", "wording", "rest"),
    [
        (("natural", "black-box"), "holds in this seed", ""),
        (("natural",), "holds in this seed, black-box accuracy not measured", ", none of black-box accuracy"),
        (("black-box",), "holds in this seed, natural accuracy not measured", ", none of natural accuracy"),
    ],
)
def test_a_verdict_says_which_accuracy_was_not_measured(settings: tuple[str, ...], wording: str, rest: str) -> None:
    (claim,) = (claim for claim in paper.CLAIMS if claim.name == "regularization-cost")
    assert claim.settings == ("natural", "black-box")
    measures = [replace(measure(RISE), models=models, setting=name) for models in claim.models for name in settings]
    finding = Finding(claim, "table2", tuple(measures))
    assert (finding.verdict, finding.wording) == ("holds", wording)
    assert finding.basis.partition("numbers")[2] == rest


def test_an_accuracy_that_is_measured_of_some_models_is_missing_of_the_others() -> None:
    (claim,) = (claim for claim in paper.CLAIMS if claim.name == "regularization-cost")
    places = [(claim.models[0], "natural"), (claim.models[0], "black-box"), (claim.models[1], "natural")]
    measures = tuple(replace(measure(RISE), models=models, setting=name) for models, name in places)
    gap = f"black-box accuracy of {' minus '.join(claim.models[1])}"
    assert Finding(claim, "table2", measures).wording == f"holds in this seed, {gap} not measured"
    assert Finding(claim, "table2", measures).gaps == (gap,)


def test_widths_are_measured_of_their_variants() -> None:
    (claim,) = (claim for claim in paper.CLAIMS if claim.widths)
    finding = Finding(claim, "table2", (replace(measure(RISE), models=("at-reg small", "at-reg small-wide3")),))
    assert finding.missing_models == ("at", "at-att", "at-att-reg")


def test_one_number_is_a_basis_against_the_best() -> None:
    (best,) = (claim for claim in paper.CLAIMS if claim.superlative)
    finding = Finding(best, "table2", (measure(RISE, p=0.001), measure(FALL, p=0.02)), 1.0)
    assert finding.basis == "rests on 1 of 2 numbers: one is enough against the best"
    assert finding.decisive_measure is finding.measures[1]


def test_accuracies_are_compared_image_by_image(tmp_path: Path) -> None:
    # at-att alone is right on 60 images, at alone on 20: 40 of 200 more. Under attack it is 10 against 30.
    attacks = {"at": (right(0, 60, 20), right(0, 10, 30)), "at-att": (right(60), right(10))}
    files = [
        table(tmp_path, variant, of_natural, {"PGD-20": of_attacked, "CW-30": right(200)})
        for variant, (of_natural, of_attacked) in attacks.items()
    ]
    findings = judge_files(files)
    natural, robustness = findings["attention-accuracy"], findings["attention-robustness"]
    (first,), (other, _, worst) = natural.measures, robustness.measures
    assert (first.quantity, first.comparison) == ("natural accuracy", "at-att minus at")
    assert first.condition == "seed 0; 200 test images, the interval is over images alone"
    assert other.quantity == "accuracy, PGD-20 at eps 8/255"
    assert worst.quantity == "accuracy, each image's worst of CW-30, PGD-20"
    assert first.estimate.value == pytest.approx(0.2) and other.estimate.value == pytest.approx(-0.1)
    assert first.levels == pytest.approx((0.3, 0.1)) and first.our_figures == "at 10.0 -> at-att 30.0"
    assert (first.paper, other.paper) == ("at 80.79 -> at-att 82.75 (+1.96)", "at 39.72 -> at-att 41.39 (+1.67)")
    # A mean of 200 differences of -1, 0 and 1.
    deviation = np.sqrt((60 + 20) / 200 - 0.2**2) / np.sqrt(200)
    assert first.estimate.low == pytest.approx(0.2 - 1.96 * deviation, abs=0.01)
    assert first.estimate.high == pytest.approx(0.2 + 1.96 * deviation, abs=0.01)
    assert first.p_value == pytest.approx(stats.binomtest(60, 80).pvalue)
    assert other.p_value == pytest.approx(stats.binomtest(10, 40).pvalue)
    assert natural.p_value == pytest.approx(2 * stats.binomtest(60, 80).pvalue)
    # The worst case is right where both are: at on 20 of the images 60 to 80 in natural, and 10 to 40 under attack.
    assert worst.estimate.value == pytest.approx(0.05) and worst.levels == (0.05, 0.0)
    assert robustness.verdict == "cannot tell" and natural.verdict == "holds"
    assert first.text() == f"+20.0 points [{100 * first.estimate.low:+.1f}, {100 * first.estimate.high:+.1f}]"
    assert set(first.files) == {result.path.name for result in files}
    rest = [finding for name, finding in findings.items() if not name.startswith("attention-")]
    assert {finding.verdict for finding in rest} == {"not tested"} and len(rest) == 13


@pytest.mark.parametrize(("images", "seeds", "sign"), [(19, (0,), 0), (20, (0,), 1), (19, (0, 1), 0), (20, (0, 1), 1)])
def test_few_images_decide_nothing(images: int, seeds: tuple[int, ...], sign: int) -> None:
    rise = replace(measure(RISE), images=(images,) * len(seeds), seeds=seeds)
    assert rise.sign == sign and ("too few to tell" in rise.condition) == (sign == 0)


def test_one_image_answers_no_claim(tmp_path: Path) -> None:
    """Its difference is as large as can be, and there is no interval."""
    files = [table(tmp_path, "at", right(0)[:1], {"PGD-20": right(0)[:1]})]
    files.append(table(tmp_path, "at-att", right(1)[:1], {"PGD-20": right(0)[:1]}))
    natural = judge_files(files)["attention-accuracy"]
    (measure,) = natural.measures
    assert measure.levels == (1.0, 0.0) and measure.text() == "+100.0 points"
    assert measure.condition == "seed 0; 1 test image, too few to tell"
    assert (measure.sign, natural.verdict, natural.decisive_measure) == (0, "cannot tell", measure)


def test_only_models_of_one_seed_on_the_same_images_are_compared(tmp_path: Path) -> None:
    base = accuracy(tmp_path, "at", right(0, 60, 20), right(20))
    for different in (
        {"seed": 1},
        {"data": {"sha256": "1"}},
        {"data": {"split": "train"}},
        {"settings": TABLE | {"eps": 4 / 255}},
        {"recipe": "paper"},
    ):
        other = accuracy(tmp_path, "at-att", right(60), right(10), **different)
        assert judge_files([base, other])["attention-robustness"].verdict == "not tested"
    results = [
        accuracy(tmp_path, variant, right(60), right(20), data={"split": "train"}) for variant in ("at", "at-att")
    ]
    assert judge_files(results)["attention-accuracy"].verdict == "not tested"


def test_a_recipe_of_the_same_numbers_under_another_name_is_the_same(tmp_path: Path) -> None:
    files = [accuracy(tmp_path, "at", right(0, 60), right(20)), accuracy(tmp_path, "at-att", right(60), right(10))]
    namesake = accuracy(tmp_path, "at-att", right(60), right(10), recipe="mine")
    expected, measure = (
        judge_files([files[0], other])["attention-accuracy"].measures for other in (files[1], namesake)
    )
    assert [entry.estimate for entry in measure] == [entry.estimate for entry in expected] != []


def test_models_of_two_recipes_are_compared_within_each(tmp_path: Path) -> None:
    files = [
        accuracy(tmp_path, variant, right(count), right(count), recipe=recipe)
        for recipe, counts in (("quick", (20, 60)), ("paper", (50, 130)))
        for variant, count in zip(("at", "at-att"), counts, strict=True)
    ]
    measures = judge_files(files)["attention-accuracy"].measures
    assert sorted(measure.estimate.value for measure in measures) == pytest.approx([0.2, 0.4])
    assert {measure.quantity for measure in measures} == {"natural accuracy"} and {
        measure.seeds for measure in measures
    } == {(0,)}


@pytest.mark.parametrize("are_given", [(False, True), (True, True)])
def test_whoever_else_reads_attacks_their_own_models_are_compared(tmp_path: Path, are_given: tuple[bool, bool]) -> None:
    files = [
        table(
            tmp_path,
            variant,
            right(count),
            {"PGD-20": right(count)[:, None].repeat(2, 1)},
            copies={f"{variant} of another seed": 1},
            is_given=of_others,
        )
        for variant, count, of_others in zip(("at", "at-att"), (20, 60), are_given, strict=True)
    ]
    findings = judge_files(files)
    assert findings["attention-accuracy"].measures[0].estimate.value == pytest.approx(0.2)
    assert findings["attention-robustness"].measures[0].estimate.value == pytest.approx(0.2)


def test_seeds_are_combined(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    outcomes = rng.random((3, 2, 200)) < np.array([0.3, 0.6])[:, None]
    files = [
        accuracy(tmp_path, variant, outcomes[seed, place], outcomes[seed, place], seed=seed)
        for seed in (2, 0, 1)
        for place, variant in enumerate(("at", "at-att"))
    ]
    (measure,) = judge_files(files)["attention-accuracy"].measures
    differences = outcomes[:, 1].astype(float) - outcomes[:, 0]
    assert measure.seeds == (0, 1, 2) and measure.values == pytest.approx(differences.mean(1))
    assert (measure.estimate, measure.p_value) == average_seeds(list(differences))
    assert measure.levels == pytest.approx(outcomes.mean((0, 2))[::-1])
    assert measure.condition == "seeds 0, 1, 2; 200 test images each"
    assert measure.seed_texts() == [
        f"seed {seed}: {100 * value:+.1f} points" for seed, value in enumerate(measure.values)
    ]
    assert len(measure.files) == 6


def test_seeds_that_disagree_cannot_tell(tmp_path: Path) -> None:
    files = [
        accuracy(tmp_path, variant, right(count), right(count), seed=seed)
        for seed, variant, count in ((0, "at", 20), (0, "at-reg", 60), (1, "at", 50), (1, "at-reg", 51))
    ]
    assert judge_files(files[:2])["regularization-robustness"].verdict == "holds"
    finding = judge_files(files)["regularization-robustness"]
    assert finding.measures[0].values == pytest.approx((0.2, 0.005)) and finding.verdict == "cannot tell"


def test_every_pair_of_a_claim_has_to_agree(tmp_path: Path) -> None:
    outcomes = {"at": right(20), "at-reg": right(60), "at-att": right(30), "at-att-reg": right(90)}
    files = [accuracy(tmp_path, variant, answers, answers) for variant, answers in outcomes.items()]
    findings = judge_files(files)
    assert {name: finding.verdict for name, finding in findings.items() if finding.measures} == {
        "regularization-robustness": "holds",
        "regularization-cost": "does not hold",
        "attention-accuracy": "holds",
        "attention-robustness": "holds",
        "both-robustness": "holds",
    }
    assert [measure.comparison for measure in findings["both-robustness"].measures] == [
        f"at-att-reg minus {other}" for other in ("at", "at-reg", "at-att")
    ]
    assert findings["regularization-cost"].measures[0].estimate.value == pytest.approx(-0.2)
    # A better rival refutes the best, if its p-value times the three rivals is small: 2 * 0.5**6 is not, of 8 it is.
    for count, verdict in ((89, "cannot tell"), (96, "cannot tell"), (98, "does not hold"), (180, "does not hold")):
        better = [*files[:2], accuracy(tmp_path, "at-att", right(count), right(count)), files[3]]
        counter_finding = judge_files(better)["both-robustness"]
        assert counter_finding.measures[2].sign == (0 if count == 89 else -1) and counter_finding.verdict == verdict


def test_all_readings_are_shown_and_two_decide(tmp_path: Path) -> None:
    readings = ("PGD-5", "PGD-20", "CW-30")
    right_on = {"at": (90, 60, 55), "at-att": (100, 80, 50)}
    files = [
        table(tmp_path, variant, right(100), {name: right(count) for name, count in zip(readings, counts, strict=True)})
        for variant, counts in right_on.items()
    ]
    measures = judge_files(files)["attention-robustness"].measures
    assert [(measure.quantity, str(measure.kind)) for measure in measures] == [
        ("accuracy, PGD-20 at eps 8/255", "main"),
        ("accuracy, PGD-5 at eps 8/255", "further"),
        ("accuracy, CW-30 at eps 8/255", "further"),
        ("accuracy, each image's worst of CW-30, PGD-20, PGD-5", "main"),
    ]
    assert [measure.estimate.value for measure in measures] == pytest.approx([0.1, 0.05, -0.025, -0.025])
    assert [measure.paper_figures for measure in measures] == [(41.39, 39.72), (51.2, 49.89), (40.6, 40.27), ()]


def test_models_that_were_read_at_different_steps_are_compared_at_those_they_share(tmp_path: Path) -> None:
    short_settings, long_settings = TABLE | {"pgd": "20", "cw": "none"}, TABLE | {"pgd": "5,20", "cw": "30"}
    all_of_at = {"PGD-5": right(90), "PGD-20": right(60), "CW-30": right(10)}
    files = [
        table(tmp_path, "at", right(100), all_of_at, settings=long_settings),
        table(tmp_path, "at", right(100), {"PGD-20": right(60)}, settings=short_settings),
        table(tmp_path, "at-att", right(100), {"PGD-20": right(80)}, settings=short_settings),
    ]
    measures = judge_files(files)["attention-robustness"].measures
    # A worst case needs more than the one reading that they share.
    (measure,) = measures
    assert (measure.quantity, measure.kind) == ("accuracy, PGD-20 at eps 8/255", "main")
    assert measure.estimate.value == pytest.approx(0.1)
    assert set(measure.files) == {files[0].path.name, files[2].path.name}


def test_apgd_is_in_the_worst_case_that_decides(tmp_path: Path) -> None:
    settings = TABLE | {"apgd": "100"}
    readings = {"at": (60, 50, 40), "at-att": (80, 75, 30)}
    files = [
        table(
            tmp_path,
            variant,
            right(100),
            {name: right(count) for name, count in zip(("PGD-20", "APGD-CE-100", "APGD-T-100"), counts, strict=True)},
            settings=settings,
        )
        for variant, counts in readings.items()
    ]
    # The same models' files without APGD are of less, and do not decide.
    files += [
        table(tmp_path, variant, right(100), {"PGD-20": right(counts[0])}) for variant, counts in readings.items()
    ]
    *_, worst = judge_files(choose_fullest(files))["attention-robustness"].measures
    assert worst.quantity == "accuracy, each image's worst of APGD-CE-100, APGD-T-100, PGD-20" and worst.kind == "main"
    assert worst.estimate.value == pytest.approx(-0.05)


def test_a_file_with_apgd_does_not_take_away_what_another_says_of_copies(tmp_path: Path) -> None:
    """Half of the transfers are in each of two files of one attack, of which one is read further."""
    files = []
    for place, variant in enumerate(("at", "at-reg")):
        answers = np.stack([right(60 - 10 * place), right(80 - 20 * place)], 1)
        files += [
            table(tmp_path, variant, right(100), {"PGD-20": answers}, copies={f"copy-of-{variant}": 1}),
            table(
                tmp_path,
                variant,
                right(100),
                {"PGD-20": answers[:, 0], "APGD-CE-100": right(40)},
                settings=TABLE | {"apgd": "100"},
            ),
        ]
    assert choose_fullest(files) == files
    assert choose_fullest(files, with_copies=False) == files[1::2]
    cost = judge_files(files)["regularization-cost"]
    (transfer,) = {entry.estimate.value for entry in cost.measures if entry.setting == "black-box"}
    assert transfer == pytest.approx(0.1) and cost.missing_accuracies == ()
    without_copies = judge_files(files[1::2])["regularization-cost"]
    assert without_copies.missing_accuracies == ("black-box accuracy",)
    worst = [
        entry.quantity
        for entry in judge_files(files)["regularization-robustness"].measures
        if "worst" in entry.quantity
    ]
    assert worst == ["accuracy, each image's worst of APGD-CE-100, PGD-20"]


def test_images_of_one_name_that_are_others_are_not_weighed_against_each_other(tmp_path: Path) -> None:
    files = [
        accuracy(tmp_path, variant, right(100 + gain), right(50), data={"sha256": sha256})
        for sha256, gain in (("0", 10), ("1", 20))
        for variant in ("at", "at-att")
    ]
    assert judge_files(files[:2])["attention-accuracy"].measures
    with pytest.raises(UserError, match="are of different images, which have one name, tiny: name the files of one of"):
        judge_files(files)


def test_files_of_a_model_that_were_read_elsewhere_add_up(tmp_path: Path) -> None:
    right_on = {"PGD-5": (90, 100), "PGD-20": (60, 80), "PGD-100": (50, 75), "CW-30": (55, 50)}

    def files(*settings: tuple[str, str]) -> list[Result]:
        return [
            table(
                tmp_path,
                variant,
                right(100),
                {name: right(right_on[name][place]) for name in names_of(pgd, cw)},
                settings=TABLE | {"pgd": pgd, "cw": cw},
            )
            for pgd, cw in settings
            for place, variant in enumerate(("at", "at-att"))
        ]

    def measure_files(files: list[Result]) -> dict[str, tuple[float, str]]:
        finding = judge_files(files)["attention-robustness"]
        assert len({measure.quantity for measure in finding.measures}) == len(finding.measures)
        return {
            measure.quantity.removeprefix("accuracy, ").removesuffix(" at eps 8/255"): (
                round(measure.estimate.value, 6),
                measure.kind,
            )
            for measure in finding.measures
        }

    split_files = measure_files(files(("20", "none"), ("none", "30")))
    assert split_files["PGD-20"] == (0.1, "main") and split_files["CW-30"][0] == -0.025 and len(split_files) == 2
    assert measure_files(files(("5,20", "none"), ("20,100", "none"))) == {
        "PGD-20": (0.1, "main"),
        "PGD-5": (0.05, "further"),
        "PGD-100": (0.125, "further"),
        "each image's worst of PGD-20, PGD-5": (0.1, "main"),
        "each image's worst of PGD-100, PGD-20": (0.125, "main"),
    }


def test_the_worst_case_of_several_seeds_is_of_the_attacks_that_all_of_them_have(tmp_path: Path) -> None:
    """As where a study is asked anew with more attacks, and is half done."""
    outcomes = {("at", 0): 60, ("at-att", 0): 80, ("at", 1): 50, ("at-att", 1): 60}
    files = [
        table(
            tmp_path,
            variant,
            right(100),
            {name: right(count) for name in names_of("5,20", "none")} | ({"APGD-CE-100": right(10)} if seed else {}),
            seed=seed,
        )
        for (variant, seed), count in outcomes.items()
    ]
    measures = {measure.quantity: measure for measure in judge_files(files)["attention-robustness"].measures}
    worst = [measure for quantity, measure in measures.items() if "worst" in quantity]
    assert [measure.quantity for measure in worst] == ["accuracy, each image's worst of PGD-20, PGD-5"]
    assert worst[0].seeds == (0, 1) and worst[0].estimate.value == pytest.approx((20 + 10) / 2 / 200)
    assert measures["accuracy, APGD-CE-100 at eps 8/255"].seeds == (1,)


def names_of(pgd: str, cw: str) -> list[str]:
    """As `PGD-5`, `CW-30`."""
    return [
        f"{attack}-{step}"
        for attack, steps in (("PGD", pgd), ("CW", cw))
        for step in steps.split(",")
        if step != "none"
    ]


Answers = dict[tuple[str, int], dict[int, AnyArray]]
"""Which images are right (N,), by variant and the seed that the attack is made on, then by the seed that reads it."""


def write_transfer(folder: Path, seeds: Sequence[int] = (0, 1, 2)) -> tuple[list[Result], Answers]:
    """Files of `at` and `at-reg`, each read by its copies, and what the copies answered."""
    rng = np.random.default_rng(0)
    answers: Answers = {}
    files = []
    for variant in ("at", "at-reg"):
        for seed in seeds:
            copies = {f"copy of seed {other}": other for other in seeds if other != seed}
            outcomes = rng.random((200, len(seeds))) < 0.5
            answers[variant, seed] = dict(zip(copies.values(), outcomes.T[1:], strict=True))
            files.append(table(folder, variant, right(100), {"PGD-20": outcomes}, seed=seed, copies=copies))
    return files, answers


def slowly(answers: Answers, seed: int, sources: Sequence[int], readers: Sequence[int]) -> list[float]:
    """Image by image, `at` minus `at-reg` over all attacks on `sources` that `readers` read, whose one is `seed`."""
    values = []
    for image in range(200):
        outcomes: dict[str, list[bool]] = {"at": [], "at-reg": []}
        for source in sources:
            for reader in readers:
                if source != reader and seed in (source, reader):
                    for variant, right_on in outcomes.items():
                        right_on.append(answers[variant, source][reader][image])
        values.append(float(np.mean(outcomes["at"]) - np.mean(outcomes["at-reg"])))
    return values


@pytest.mark.parametrize("turn", [1, -1])
def test_the_headline_is_one_of_what_both_models_were_read_at(tmp_path: Path, turn: int) -> None:
    files = [
        table(tmp_path, variant, right(100), {name: right(count) for name in names_of(pgd, "none")})
        for (variant, count), pgd in zip((("at", 60), ("at-att", 80)), ("5,10", "5,10,20")[::turn], strict=True)
    ]
    finding = judge_files(files)["attention-robustness"]
    assert [(measure.quantity.removeprefix("accuracy, "), measure.kind) for measure in finding.measures] == [
        ("PGD-10 at eps 8/255", "main"),
        ("PGD-5 at eps 8/255", "further"),
        ("each image's worst of PGD-10, PGD-5", "main"),
    ]
    assert finding.verdict == "holds"


def test_black_box_accuracy_is_averaged_by_the_attacked_seed_and_by_the_attacking_one(tmp_path: Path) -> None:
    files, answers = write_transfer(tmp_path)
    finding = judge_files(files)["regularization-cost"]
    _, by_attacked, by_attacking = finding.measures
    quantity = "accuracy, PGD-20 at eps 8/255 on copies"
    assert (by_attacked.quantity, by_attacking.quantity) == (
        f"{quantity}, by attacked seed",
        f"{quantity}, by attacking seed",
    )
    everyone = range(3)
    for measure, rows in (
        (by_attacked, [slowly(answers, seed, everyone, [seed]) for seed in everyone]),
        (by_attacking, [slowly(answers, seed, [seed], everyone) for seed in everyone]),
    ):
        assert (measure.kind, measure.comparison, measure.seeds, measure.images) == (
            "main",
            "at minus at-reg",
            (0, 1, 2),
            (200,) * 3,
        )
        assert measure.values == pytest.approx([np.mean(values) for values in rows])
        (value, low, high), p_value = average_seeds([np.array(values) for values in rows])
        assert tuple(measure.estimate) == pytest.approx((value, low, high)) and measure.p_value == pytest.approx(
            p_value
        )
        assert measure.paper_figures == (56.6, 56.4)
        levels = [
            np.mean([values for source in everyone for values in answers[variant, source].values()])
            for variant in ("at", "at-reg")
        ]
        assert measure.levels == pytest.approx(levels)
        assert set(measure.files) == {result.path.name for result in files}
    assert (
        by_attacked.estimate.value == pytest.approx(by_attacking.estimate.value)
        and by_attacked.values != by_attacking.values
    )
    assert finding.p_value == max(measure.p_value for measure in finding.measures if measure.p_value is not None)


def test_one_attacking_seed_is_one_seed_however_many_read_it(tmp_path: Path) -> None:
    files, answers = write_transfer(tmp_path)
    results = [result for result in files if result.job["seed"] == 1]
    _, by_attacked, by_attacking = judge_files(results)["regularization-cost"].measures
    rows = [slowly(answers, seed, [1], [seed]) for seed in (0, 2)]
    assert by_attacked.seeds == (0, 2) and by_attacked.values == pytest.approx([np.mean(values) for values in rows])
    assert (by_attacked.estimate, by_attacked.p_value) == average_seeds([np.array(values) for values in rows])
    assert by_attacking.seeds == (1,) and by_attacking.values == pytest.approx([np.mean(rows)])
    assert by_attacking.p_value is None  # averages over two copies are no answers of yes or no
    # One copy alone gives answers of yes or no: 70 against 50 of 200.
    alone = [
        table(tmp_path, variant, right(100), {"PGD-20": right(count)[:, None].repeat(2, 1)}, seed=1, copies={"copy": 0})
        for variant, count in (("at", 70), ("at-reg", 50))
    ]
    _, by_attacked = judge_files(alone)["regularization-cost"].measures
    assert by_attacked.seeds == (0,) and by_attacked.p_value == pytest.approx(2 * 0.5**20)
    assert by_attacked.estimate.value == pytest.approx(0.1)


def test_two_seeds_that_attack_each_other_are_counted_once(tmp_path: Path) -> None:
    files, answers = write_transfer(tmp_path, (0, 1))
    _, measure = judge_files(files)["regularization-cost"].measures
    assert measure.quantity == "accuracy, PGD-20 at eps 8/255 on copies, by attacked seed" and measure.seeds == (0, 1)
    rows = [slowly(answers, seed, [1 - seed], [seed]) for seed in (0, 1)]
    assert (measure.estimate, measure.p_value) == average_seeds([np.array(values) for values in rows])


def test_a_seed_that_has_two_files_counts_once_among_those_that_attack(tmp_path: Path) -> None:
    files, answers = write_transfer(tmp_path)
    # Seed 0 has two files, as where more models read the second: what both say is one attack.
    copies = [result for result in write_transfer(tmp_path)[0] if result.job["seed"] == 0]
    single, twice = (judge_files(results)["regularization-cost"].measures for results in (files, [*files, *copies]))
    assert [measure.values for measure in twice] == [pytest.approx(measure.values) for measure in single]
    assert twice[1].values[2] == pytest.approx(np.mean(slowly(answers, 2, range(3), [2])))
    split_files = [
        table(tmp_path, variant, right(9), {reading: right(count)[:, None].repeat(2, 1)}, copies={"copy": 1})
        for reading, counts in (("PGD-20", (70, 50)), ("CW-30", (30, 20)))
        for variant, count in zip(("at", "at-reg"), counts, strict=True)
    ]
    _, *measures = judge_files(split_files)["regularization-cost"].measures
    assert [(measure.quantity, round(measure.estimate.value, 6)) for measure in measures] == [
        (f"accuracy, {reading} at eps 8/255 on copies, by attacked seed", value)
        for reading, value in (("PGD-20", 0.1), ("CW-30", 0.05))
    ]


def test_both_groupings_of_black_box_accuracy_decide(tmp_path: Path) -> None:
    # Of the same numbers for attacks on seeds 0, 1 and 2, whoever reads them, those who read have averages.
    files = []
    for variant, counts in (("at", (120, 100, 110)), ("at-reg", (50, 95, 60))):
        for seed, count in enumerate(counts):
            copies = {f"copy of seed {other}": other for other in range(3) if other != seed}
            readings = {"PGD-20": right(count)[:, None].repeat(3, 1)}
            files.append(table(tmp_path, variant, right(199), readings, seed=seed, copies=copies))
    _, by_attacked, by_attacking = judge_files(files)["regularization-cost"].measures
    assert by_attacking.values == pytest.approx((0.35, 0.025, 0.25))
    assert by_attacked.values == pytest.approx((0.1375, 0.3, 0.1875))
    spread = [measure.estimate.high - measure.estimate.low for measure in (by_attacked, by_attacking)]
    assert spread[0] < 0.6 * spread[1] and (by_attacked.sign, by_attacking.sign) == (1, 0)


def test_mnist_has_a_claim_of_its_own(tmp_path: Path) -> None:
    data = {"dataset": "mnist"}
    files = [
        accuracy(tmp_path, variant, right(count), right(count), data=data)
        for variant, count in (("at", 20), ("at-reg", 60))
    ]
    findings = {finding.claim.name: finding for finding in judge(files)}
    assert [name for name, finding in findings.items() if finding.measures] == ["mnist-regularization"]
    first = findings["mnist-regularization"].measures[0]
    assert (first.paper_figures, first.sign) == ((95.69, 92.86), 1)
    assert findings["mnist-regularization"].paper == "at 92.86 -> at-reg 95.69 (+2.83)"


@pytest.mark.parametrize(("dataset", "paper_says"), [("cifar100", (20.82, 19.65)), ("svhn", (48.22, 47.02))])
def test_the_paper_is_cited_for_the_dataset_at_hand(
    tmp_path: Path, dataset: str, paper_says: tuple[float, ...]
) -> None:
    files = [accuracy(tmp_path, variant, right(9), right(9), data={"dataset": dataset}) for variant in ("at", "at-att")]
    findings = {finding.claim.name: finding for finding in judge(files)}
    assert findings["attention-robustness"].measures[0].paper_figures == paper_says


def test_nonlinear_attention_is_compared_with_linear(tmp_path: Path) -> None:
    answers = {"natural-att": right(120), "natural-linear-att": right(100)}
    findings = judge_files([accuracy(tmp_path, variant, answer, right(1)) for variant, answer in answers.items()])
    (measure,) = findings["nonlinear-attention"].measures
    assert measure.estimate.value == pytest.approx(0.1) and measure.paper_figures == (92.87, 91.34)
    assert findings["nonlinear-attention"].verdict == "holds"


def test_natural_accuracy_under_two_attacks_is_one_measure(tmp_path: Path) -> None:
    files = [
        accuracy(tmp_path, variant, right(count), right(count), settings=TABLE | {"eps": eps})
        for variant, count in (("at", 20), ("at-att", 60))
        for eps in (8 / 255, 0.3)
    ]
    findings = judge_files(files)
    (natural,) = findings["attention-accuracy"].measures
    assert natural.kind == "main" and findings["attention-accuracy"].verdict == "holds"
    assert [
        measure.quantity for measure in findings["attention-robustness"].measures if "worst" not in measure.quantity
    ] == [
        "accuracy, PGD-20 at eps 8/255",
        "accuracy, PGD-20 at eps 0.3",
    ]


def test_the_same_file_twice_counts_once_and_another_of_one_name_is_an_error(tmp_path: Path) -> None:
    files = [accuracy(tmp_path, "at", right(20), right(20)), accuracy(tmp_path, "at-att", right(60), right(60))]
    copy = accuracy(tmp_path, "at-att", right(60), right(60))
    assert judge_files([*files, copy]) == judge_files(files)
    other = accuracy(tmp_path, "at-att", right(61), right(60))
    with pytest.raises(UserError, match=r"robustness-1\.h5 and .*robustness-3\.h5 have different numbers for one"):
        judge_files([*files, other])


def rank(folder: Path, spearman: float, *, is_own: bool, weights: str = "attention", variant: str = "at-att") -> Result:
    """A file of `attention-rank` with this mean correlation in all columns.

    The mean attention map is (1, 2, 3, 4) / 10. Distances follow it, in the opposite order for half of the images
    if attention does too (`own`), so that a mean map correlates with robustness as -1 and 1, or always as -1.
    """
    turn = np.arange(40) % 2 == 1 if is_own else np.zeros(40, bool)
    rising, falling = np.array([1.0, 2, 3, 4]), np.array([4.0, 1, 0, 0])
    distance = np.where(turn[:, None], rising[::-1], rising)
    scatter = spearman + 0.01 * np.sin(np.arange(40))
    columns = {
        "attention": (np.where(turn[:, None], 2 * rising - falling, falling) / 10).astype("f4"),
        "distance": distance.astype("f4"),
    }
    for name in ("spearman", "spearman_relative", "spearman_partial", "spearman_noise"):
        columns[name] = scatter.astype("f4")
    axes = {"attention": ("position",), "distance": ("position",)}
    return write(folder, "attention-rank/3", variant, columns, settings=ATTACK | {"spatial_weight": weights}, axes=axes)


def test_attention_goes_to_robust_features_if_all_correlations_say_so(tmp_path: Path) -> None:
    result = rank(tmp_path, 0.5, is_own=True)
    finding = judge_files([result])["robust-features"]
    attention, distance = result["per_image/attention"], result["per_image/distance"]
    mean_map = attention.mean(0)
    np.testing.assert_allclose(mean_map, [0.1, 0.2, 0.3, 0.4], atol=1e-6)
    excess = [
        correlation - stats.spearmanr(mean_map, -row).statistic
        for correlation, row in zip(result["per_image/spearman"], distance, strict=True)
    ]
    assert [measure.kind for measure in finding.measures] == ["main"] + ["control"] * 4
    assert finding.measures[4].estimate.value == pytest.approx(np.mean(excess))
    assert finding.measures[0].estimate.value == pytest.approx(result["per_image/spearman"].mean())
    assert finding.measures[0].quantity == "Spearman of attention and robustness to PGD-20 at eps 8/255"
    assert finding.measures[0].comparison == finding.measures[0].our_figures == "at-att"
    assert finding.measures[0].text().startswith("+0.50")
    assert finding.verdict == "holds" and finding.p_value is None


def test_a_correlation_no_larger_than_that_of_a_mean_map_is_no_support(tmp_path: Path) -> None:
    # The mean map is (0.4, 0.1, 0, 0) and distances rise: Spearman with robustness 0.95.
    assert judge_files([rank(tmp_path, 0.5, is_own=False)])["robust-features"].verdict == "cannot tell"
    finding = judge_files([rank(tmp_path, -0.5, is_own=True)])["robust-features"]
    assert finding.verdict == "does not hold"


def test_grad_cam_is_not_the_attention_of_a_claim(tmp_path: Path) -> None:
    files = [rank(tmp_path, 0.5, is_own=True, weights="grad-cam"), rank(tmp_path, 0.5, is_own=True, variant="at")]
    assert judge_files(files)["robust-features"].verdict == "not tested"


def write_localization(
    folder: Path, variant: str, weights: AnyArray, gradient: AnyArray, source: str = "attention"
) -> Result:
    pair = np.stack([gradient, weights], 1).astype("f4")
    flat = np.ones_like(pair)
    columns = {"share": pair, "area": 0.25 * flat, "center": 0.5 * flat}
    axes = dict.fromkeys(columns, ("map",))
    places = {"map": ("gradient", "weights")}
    return write(
        folder, "localization/2", variant, columns, settings={"spatial_weight": source}, labels=places, axes=axes
    )


def test_attention_and_gradients_on_the_object(tmp_path: Path) -> None:
    wave = 0.1 * np.sin(np.arange(50))
    gaps = np.where(np.arange(50) < 10, np.nan, 0.4 + wave)
    files = [
        write_localization(tmp_path, "at-att-reg", 0.75 + wave, 0.6 + wave),
        write_localization(tmp_path, "at", 0.9 + wave, gaps, source="grad-cam"),
    ]
    findings = judge_files(files)
    attention, gradient = findings["attention-on-object"], findings["cleaner-backgrounds"]
    area, center = attention.measures
    assert area.estimate.value == pytest.approx(0.5 + wave.mean(), abs=1e-6)
    assert center.estimate.value == pytest.approx(0.25 + wave.mean(), abs=1e-6) and center.kind == "control"
    (difference,) = gradient.measures
    assert difference.estimate.value == pytest.approx(0.2, abs=1e-6) and difference.percent
    assert difference.images == (40,) and difference.condition.startswith("seed 0; 40 test images")
    assert difference.levels == pytest.approx((0.6 + wave[10:].mean(), 0.4 + wave[10:].mean()), abs=1e-6)
    assert attention.verdict == gradient.verdict == "holds"
    blank = write_localization(tmp_path, "at-att", np.full(50, np.nan), 0.6 + wave)
    assert judge_files([blank])["attention-on-object"].verdict == "not tested"


def test_what_is_lost_without_robust_features_is_beyond_what_random_ones_cost(tmp_path: Path) -> None:
    counts, orders = (0, 1, 3, 4), ("random", "attended", "robust")
    correct = np.random.default_rng(0).random((30, 2, 3, 4)) < 0.5
    labels = {"condition": ("clean", "adversarial"), "order": orders}
    axes = {"correct": ("condition", "order", "removed")}
    columns = {"correct": correct.astype("u1")}

    def write_deletion(variant: str, columns: Mapping[str, AnyArray], fill: str = "mean", steps: int = 20) -> Result:
        settings = ATTACK | {"spatial_weight": "attention", "fill": fill, "steps": steps}
        options: dict[str, Any] = {"settings": settings, "places": {"removed": counts}}
        return write(tmp_path, "feature-deletion/1", variant, columns, labels=labels, axes=axes, **options)

    finding = judge_files([write_deletion("at-att", columns)])["robust-features-matter"]
    for place, measure in enumerate(finding.measures):
        losses = []
        for curves in correct[:, place].astype(float):
            areas = [
                sum((b - a) / 4 * (curve[i] + curve[i + 1]) / 2 for i, (a, b) in enumerate(pairwise(counts)))
                for curve in curves
            ]
            losses.append(areas[orders.index("random")] - areas[orders.index("robust")])
        assert measure.estimate.value == pytest.approx(np.mean(losses)) and measure.percent
        assert labels["condition"][place] in measure.quantity
    assert finding.measures[0].quantity == (
        "clean accuracy lost by deleting robust features first, minus random order (PGD-20 at eps 8/255, fill mean)"
    )
    assert len(finding.measures) == 2
    results = [write_deletion("at-att", columns, *options) for options in (("mean", 20), ("zero", 20), ("mean", 100))]
    assert len({measure.quantity for measure in judge_files(results)["robust-features-matter"].measures}) == 6
    fragile = correct.copy()
    fragile[:, :, orders.index("random")], fragile[:, :, orders.index("robust")] = False, True
    assert judge_files([write_deletion("at-att-reg", {"correct": fragile.astype("u1")})])[
        "robust-features-matter"
    ].verdict == ("does not hold")


def test_edges_count_beyond_those_of_another_image(tmp_path: Path) -> None:
    wave = 0.1 * np.sin(np.arange(60))
    maps = {"at": (0.3 + wave, 0.1 + wave), "at-att-reg": (0.5 + wave, 0.25 + wave)}
    files = [
        write(
            tmp_path,
            "alignment/2",
            variant,
            {"edge_cosine": cosine.astype("f4"), "edge_cosine_shuffled": other.astype("f4")},
        )
        for variant, (cosine, other) in maps.items()
    ]
    estimates = [measure.estimate.value for measure in judge_files(files)["alignment"].measures]
    assert estimates == pytest.approx([0.2, 0.05], abs=1e-6)


def write_scores(folder: Path, variant: str, answers: AnyArray, readers: tuple[str, ...]) -> Result:
    """A file of `gradmap-score` with these answers (N, evaluator, target, rule, sign); the true class is 1."""
    labels = {
        "target": ("true", "random"),
        "rule": ("clip", "clip-set", "max"),
        "sign": ("minus", "plus"),
        "evaluator": readers,
    }
    columns = {"label": np.ones(len(answers), "i2"), "evaluator_prediction": answers.astype("i2")}
    axes = {"evaluator_prediction": ("evaluator", "target", "rule", "sign")}
    return write(folder, "gradmap-score/1", variant, columns, labels=labels, axes=axes)


def test_gradient_maps_are_read_by_natural_evaluators_of_each_architecture(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = tuple(READERS)
    first, second = (rng.random((300, 5, 2, 3, 2)) < share for share in (0.6, 0.3))
    first[:, [0, 4]] = False  # evaluators trained adversarially or with attention have no say
    # The second file names its evaluators in another order.
    files = [
        write_scores(tmp_path, "at-att-reg", first, names),
        write_scores(tmp_path, "at", second[:, ::-1], names[::-1]),
    ]
    finding = judge_files(files)["gradmap-score"]
    measures = {measure.quantity: measure for measure in finding.measures}
    assert len(measures) == 4 and measures.keys() == {
        f"maps -g ({rule_name}) read by natural networks ({architecture})"
        for rule_name in ("clipped", "raw")
        for architecture in ("tiny", "renamed")
    }
    for rule, rule_name, figures in ((0, "clipped", (30.32, 26.78)), (2, "raw", (31.59, 28.72))):
        for readers, architecture in (((1,), "tiny"), ((2, 3), "renamed")):
            measure = measures[f"maps -g ({rule_name}) read by natural networks ({architecture})"]
            pair = [
                [np.mean([row[reader, 0, rule, 0] for reader in readers]) for row in rows] for rows in (first, second)
            ]
            assert measure.estimate.value == pytest.approx(np.mean(pair[0]) - np.mean(pair[1]))
            assert measure.paper_figures == figures
            wins = [sum(a > b for a, b in zip(*order, strict=True)) for order in (pair, pair[::-1])]
            expected = stats.binomtest(wins[0], sum(wins)).pvalue if len(readers) == 1 else None
            assert measure.p_value == (expected and pytest.approx(expected))
    assert finding.p_value == max(measure.p_value for measure in finding.measures if measure.p_value is not None)
    assert finding.verdict == "holds"
    weaker = first.copy()
    weaker[:, 1, 0, 2, 0] = second[:, 1, 0, 2, 0]
    mixed_finding = judge_files([write_scores(tmp_path, "at-att-reg", weaker, names), files[1]])["gradmap-score"]
    assert mixed_finding.verdict == "cannot tell" and mixed_finding.p_value == 1


def test_p_values_are_corrected_over_the_claims_of_a_section(tmp_path: Path) -> None:
    outcomes = {"at": 20, "at-att": 60, "at-reg": 45, "natural-att": 90, "natural-linear-att": 80}
    files = [
        table(tmp_path, variant, right(20), {"PGD-20": right(count), "CW-30": right(count)})
        for variant, count in outcomes.items()
    ]
    files[3:] = [accuracy(tmp_path, variant, right(outcomes[variant]), right(0)) for variant in list(outcomes)[3:]]
    findings = judge_files(files)
    # Worst cases are equal: all are right where at is right under attack and the natural image is too.
    p_values = {name: finding.p_value for name, finding in findings.items() if finding.p_value is not None}
    assert p_values == {
        "regularization-robustness": 1.0,
        "regularization-cost": 1.0,
        "attention-accuracy": 1.0,
        "attention-robustness": 1.0,
        "nonlinear-attention": pytest.approx(2 * 0.5**10),
    }
    stronger = [
        accuracy(tmp_path, variant, right(count), right(count)) for variant, count in list(outcomes.items())[:3]
    ]
    raw = {"regularization": 2 * 0.5**25, "attention": 2 * 0.5**40}
    assert {
        name: finding.p_value for name, finding in judge_files(stronger).items() if finding.p_value is not None
    } == {
        "regularization-robustness": pytest.approx(2 * raw["regularization"]),
        "regularization-cost": pytest.approx(2 * raw["regularization"]),
        "attention-accuracy": pytest.approx(4 * raw["attention"]),
        "attention-robustness": pytest.approx(4 * raw["attention"]),
    }


def test_every_claim_can_be_measured_and_is_of_an_analysis_that_exists() -> None:
    assert sampling.BY_CLAIM.keys() <= {claim.name for claim in paper.CLAIMS}
    assert {claim.analysis for claim in paper.CLAIMS} <= set(analyses.list_names())
    for claim in paper.CLAIMS:
        assert callable(sampling.find_sampler(claim))
        assert set(claim.variants) <= set(VARIANTS) and len({len(models) for models in claim.models}) == 1
        for setting in claim.settings:
            assert set(claim.variants) <= set(paper.find_claim_row(claim.table or "table2", setting))


def test_claims_need_no_torch() -> None:
    script = "import sys, interpret_robust.study.verdicts; print('torch' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert process.stdout == "False\n"


def test_a_recalibrated_pair_is_a_control_that_can_keep_a_claim_from_holding(tmp_path: Path) -> None:
    """The gain of 20 points as trained is one of 5 with `at` and `at-reg` recalibrated alike, or one of -5."""
    pair = [accuracy(tmp_path, "at", right(100), right(40)), accuracy(tmp_path, "at-reg", right(100), right(80))]
    base = accuracy(tmp_path, "at", right(100), right(50), recalibration="adversarial")
    for count, verdict in ((60, "holds"), (40, "cannot tell")):
        other = accuracy(tmp_path, "at-reg", right(100), right(count), recalibration="adversarial")
        finding = judge_files([*pair, base, other])["regularization-robustness"]
        (main,), (control,) = finding.measures_of("main"), finding.measures_of("control")
        assert main.estimate.value == pytest.approx(0.2)
        assert control.quantity == "accuracy, PGD-20 at eps 8/255, batch norm recalibrated (adversarial images)"
        assert control.estimate.value == pytest.approx((count - 50) / 200)
        assert finding.verdict == verdict and finding.measures_of("further") == ()


def test_a_recalibrated_model_is_not_compared_with_one_that_is_not(tmp_path: Path) -> None:
    results = [
        accuracy(tmp_path, "at", right(100), right(40)),
        accuracy(tmp_path, "at-reg", right(100), right(80), recalibration="clean"),
        accuracy(tmp_path, "at-reg", right(100), right(90), recalibration="adversarial"),
    ]
    assert all(finding.measures == () for finding in judge(results))


def write_lambda(folder: Path, variant: str, count: int, weight: float) -> Result:
    recipe = {"name": "quick", "weight_reg": weight, "weight_att_reg": 0.01}
    return accuracy(folder, variant, right(100), right(count), job_changes={"recipe": recipe})


def test_a_range_of_lambda_is_decided_by_models_at_both_of_its_ends(tmp_path: Path) -> None:
    """`at` sees no lambda: one model of it stands beside all. What lies outside of the range is only shown."""
    base, low = write_lambda(tmp_path, "at", 40, 0.1), write_lambda(tmp_path, "at-reg", 60, 0.01)
    alone = judge_files([base, low])["lambda-range"]
    assert alone.verdict == "not tested" and [measure.kind for measure in alone.measures] == ["further"]
    high, extreme = write_lambda(tmp_path, "at-reg", 70, 0.1), write_lambda(tmp_path, "at-reg", 10, 10.0)
    finding = judge_files([base, low, high, extreme])["lambda-range"]
    gains = {measure.quantity.rpartition(" ")[2]: measure.estimate.value for measure in finding.measures}
    kinds = {measure.quantity.rpartition(" ")[2]: measure.kind for measure in finding.measures}
    assert gains == pytest.approx({"0.01": 0.1, "0.1": 0.15, "10": -0.15})
    assert kinds == {"0.01": "main", "0.1": "main", "10": "further"}
    assert finding.verdict == "holds"
    middle = write_lambda(tmp_path, "at-reg", 40, 0.05)
    assert judge_files([base, low, high, middle])["lambda-range"].verdict == "cannot tell"


def test_the_wide_network_is_compared_with_the_narrow_one_variant_by_variant(tmp_path: Path) -> None:
    narrow = [accuracy(tmp_path, variant, right(100), right(60)) for variant in ("at", "at-att")]
    wide = [
        accuracy(tmp_path, variant, right(100), right(count), job_changes={"architecture": "small-wide3"})
        for variant, count in (("at", 40), ("at-att", 20), ("at-reg", 10))
    ]
    (finding,) = (candidate for candidate in judge(narrow, wide) if candidate.claim.name == "wide-robustness")
    first, second = finding.measures
    assert (first.comparison, second.comparison) == (
        "at small minus at small-wide3",
        "at-att small minus at-att small-wide3",
    )
    assert first.estimate.value == pytest.approx(0.1) and second.estimate.value == pytest.approx(0.2)
    assert first.paper == "at small-wide3 38.19 -> at small 39.72 (+1.53)"
    assert finding.verdict == "holds"
    (alone,) = (candidate for candidate in judge(narrow) if candidate.claim.name == "wide-robustness")
    assert alone.verdict == "not tested"
