"""The paper's claims: known answers from known columns, and a verdict that follows from them."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from interpret_robust import analyses
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import UserError
from interpret_robust.core.statistics import Interval, over_seeds
from interpret_robust.models.variants import VARIANTS
from interpret_robust.results import hdf5, writer
from interpret_robust.results.attack_outcomes import fullest
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import job
from interpret_robust.results.schema import Column, Schema
from interpret_robust.study import paper
from interpret_robust.study.verdicts import Finding, Kind, Measure, judge, sampling

ABOVE, BELOW, OPEN = Interval(0.2, 0.1, 0.3), Interval(-0.2, -0.3, -0.1), Interval(0.1, -0.1, 0.3)
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


def write(
    folder: Path,
    schema: str,
    variant: str,
    columns: Mapping[str, AnyArray],
    *,
    seed: int = 0,
    copies: Mapping[str, int] | None = None,
    given: bool = False,
    recipe: str = "quick",
    settings: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    labels: Mapping[str, tuple[str, ...]] | None = None,
    axes: Mapping[str, tuple[str, ...]] | None = None,
    places: Mapping[str, tuple[int, ...] | int] | None = None,
    trained: Mapping[str, Any] | None = None,
    recalibrated: str | None = None,
) -> Result:
    """A file that holds these per-image columns, whose axes after the first are named in `axes`, and no others.

    Evaluators that were `given` are others than the default ones. `trained` changes the job of training.
    """
    name, version = schema.split("/")
    made = Schema(
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
    job = {"dataset": "tiny", "architecture": "small", "variant": variant, "seed": seed, "recipe": {"name": recipe}}
    job |= trained or {}
    config: dict[str, Any] = {
        "checkpoint": {"name": (name_of := f"tiny-small-{variant}-seed{seed}"), "sha256": name_of, "job": job},
        "data": {"dataset": "tiny", "split": "test", "images": count, "sha256": "0"} | dict(data or {}),
        "settings": dict(settings or {}),
        "local_grid": [2, 2],
    }
    if recalibrated:
        config["recalibration"] = {"images": recalibrated}
    if readers := (labels or {}).get("evaluator"):
        config["evaluators"] = {
            "names": list(readers),
            "sha256": [f"of {reader}" for reader in readers],
            "jobs": {reader: {"variant": READERS[reader], "architecture": reader.split("-")[0]} for reader in readers},
        }
    if copies:
        config["evaluators"] = {
            "names": list(copies),
            "given": given,
            "jobs": {name: {**job, "seed": of} for name, of in copies.items()},
        }
    path = folder / f"{name}-{len(list(folder.iterdir()))}.h5"
    with writer.open_rows(path, made, count, {"position": 4, **(places or {})}, config, {}) as rows:
        rows.append({f"per_image/{column}": values for column, values in columns.items()})
        rows.finish({}, {})
    return hdf5.read(path)


def table(folder: Path, variant: str, natural: AnyArray, readings: Mapping[str, AnyArray], **other: Any) -> Result:
    """A file of `robustness` with these outcomes, of the source (N,) or of all targets (N, target), for class 1.

    A file's `copies` are the targets after the source, by their name, with their seed.
    """
    targets = ("source", *other.get("copies", {}))
    answers = np.stack([np.reshape(of, (len(natural), -1)) for of in readings.values()], 1)
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


def found(files: list[Result]) -> dict[str, Finding]:
    return {finding.claim.name: finding for finding in judge(files)}


def measure(estimate: Interval, kind: Kind = "main", p: float | None = None) -> Measure:
    return Measure("a", ("b",), "test", (0,), (estimate.value,), (10,), estimate, p, kind=kind)


@pytest.mark.parametrize(
    ("measures", "p_value", "verdict"),
    [
        ([], None, "not tested"),
        ([measure(ABOVE), measure(ABOVE)], None, "holds"),
        ([measure(ABOVE), measure(OPEN)], None, "cannot tell"),
        ([measure(ABOVE), measure(BELOW)], None, "cannot tell"),
        ([measure(BELOW), measure(BELOW)], None, "does not hold"),
        ([measure(BELOW), measure(OPEN)], None, "cannot tell"),
        ([measure(ABOVE), measure(ABOVE, "control")], None, "holds"),
        ([measure(ABOVE), measure(OPEN, "control")], None, "cannot tell"),
        ([measure(ABOVE), measure(BELOW, "control")], None, "cannot tell"),
        ([measure(BELOW), measure(ABOVE, "control")], None, "does not hold"),
        ([measure(ABOVE), measure(BELOW, "further")], None, "holds"),
        ([measure(BELOW), measure(ABOVE, "further")], None, "does not hold"),
        ([measure(ABOVE)], 0.049, "holds"),
        ([measure(ABOVE)], 0.05, "cannot tell"),
        ([measure(BELOW)], 0.05, "cannot tell"),
        ([measure(Interval(0.1, 0.0, 0.2))], None, "cannot tell"),
    ],
)
def test_a_verdict_follows_from_the_signs(measures: list[Measure], p_value: float | None, verdict: str) -> None:
    assert Finding(paper.CLAIMS[0], "table2", tuple(measures), p_value).verdict == verdict


@pytest.mark.parametrize(
    ("measures", "p_value", "verdict"),
    [
        ([measure(ABOVE, p=0.001), measure(BELOW, p=0.024)], 1.0, "does not hold"),
        ([measure(ABOVE, p=0.001), measure(BELOW, p=0.025)], 0.03, "cannot tell"),
        ([measure(BELOW, p=0.016), measure(ABOVE, p=0.001), measure(OPEN, p=0.2)], 0.4, "does not hold"),
        ([measure(BELOW, p=0.017), measure(ABOVE, p=0.001), measure(OPEN, p=0.2)], 0.4, "cannot tell"),
        ([measure(ABOVE), measure(BELOW)], None, "does not hold"),
        ([measure(ABOVE), measure(OPEN)], None, "cannot tell"),
        ([measure(ABOVE), measure(OPEN, p=0.001)], None, "cannot tell"),
        # Only what decides refutes, and only that is counted.
        ([measure(ABOVE, p=0.01), measure(BELOW, "control", p=0.001)], 0.01, "cannot tell"),
        ([measure(ABOVE, p=0.01), measure(BELOW, "further", p=0.001)], 0.01, "holds"),
        ([measure(BELOW, p=0.04), measure(ABOVE, "control", p=0.04)], 0.5, "does not hold"),
        ([measure(ABOVE, p=0.01), measure(ABOVE, p=0.01)], 0.02, "holds"),
        ([measure(ABOVE, p=0.01), measure(ABOVE, p=0.01)], 0.06, "cannot tell"),
        ([], None, "not tested"),
    ],
)
def test_one_better_model_refutes_the_best(measures: list[Measure], p_value: float | None, verdict: str) -> None:
    (best,) = (claim for claim in paper.CLAIMS if claim.superlative)
    assert best.name == "both-robustness"
    assert Finding(best, "table2", tuple(measures), p_value).verdict == verdict


@pytest.mark.parametrize(
    ("measures", "p_value", "basis", "place"),
    [
        ([], None, "", None),
        ([measure(ABOVE)], None, "rests on 1 number", 0),
        ([measure(ABOVE), measure(OPEN, "control"), measure(BELOW, "further")], None, "rests on 1 number", 1),
        ([measure(BELOW)], 0.0444, "rests on 1 number; p 0.044: corrected (Holm) over the claims of {}", 0),
        (
            [measure(ABOVE), measure(BELOW)],
            0.0444,
            "rests on 2 numbers; p 0.044: the largest of theirs, corrected (Holm) over the claims of {}",
            1,
        ),
    ],
)
def test_a_verdict_says_on_what_it_rests(
    measures: list[Measure], p_value: float | None, basis: str, place: int | None
) -> None:
    finding = Finding(paper.CLAIMS[0], "table2", tuple(measures), p_value)
    assert finding.basis == basis.format(paper.CLAIMS[0].section)
    assert finding.deciding is (None if place is None else measures[place])


def test_one_number_is_a_basis_against_the_best() -> None:
    (best,) = (claim for claim in paper.CLAIMS if claim.superlative)
    finding = Finding(best, "table2", (measure(ABOVE, p=0.001), measure(BELOW, p=0.02)), 1.0)
    assert finding.basis == "rests on 1 of 2 numbers: one is enough against the best"
    assert finding.deciding is finding.measures[1]


def test_accuracies_are_compared_image_by_image(tmp_path: Path) -> None:
    # at-att alone is right on 60 images, at alone on 20: 40 of 200 more. Under attack it is 10 against 30.
    attacks = {"at": (right(0, 60, 20), right(0, 10, 30)), "at-att": (right(60), right(10))}
    files = [
        table(tmp_path, variant, of_natural, {"PGD-20": of_attacked, "CW-30": right(200)})
        for variant, (of_natural, of_attacked) in attacks.items()
    ]
    judged = found(files)
    natural, attacked = judged["attention-accuracy"], judged["attention-robustness"]
    (one,), (other, _, worst) = natural.measures, attacked.measures
    assert (one.quantity, one.comparison) == ("natural accuracy", "at-att minus at")
    assert one.condition == "seed 0; 200 test images, the interval over these alone"
    assert other.quantity == "accuracy, PGD-20 at eps 8/255"
    assert worst.quantity == "accuracy, each image's worst of CW-30, PGD-20"
    assert one.estimate.value == pytest.approx(0.2) and other.estimate.value == pytest.approx(-0.1)
    assert one.levels == pytest.approx((0.3, 0.1)) and one.our_figures == "at 10.0 -> at-att 30.0"
    assert (one.paper, other.paper) == ("at 80.79 -> at-att 82.75 (+1.96)", "at 39.72 -> at-att 41.39 (+1.67)")
    # A mean of 200 differences of -1, 0 and 1.
    deviation = np.sqrt((60 + 20) / 200 - 0.2**2) / np.sqrt(200)
    assert one.estimate.low == pytest.approx(0.2 - 1.96 * deviation, abs=0.01)
    assert one.estimate.high == pytest.approx(0.2 + 1.96 * deviation, abs=0.01)
    assert one.p_value == pytest.approx(stats.binomtest(60, 80).pvalue)
    assert other.p_value == pytest.approx(stats.binomtest(10, 40).pvalue)
    assert natural.p_value == pytest.approx(2 * stats.binomtest(60, 80).pvalue)
    # The worst case is right where both are: at on 20 of the images 60 to 80 in natural, and 10 to 40 under attack.
    assert worst.estimate.value == pytest.approx(0.05) and worst.levels == (0.05, 0.0)
    assert attacked.verdict == "cannot tell" and natural.verdict == "holds"
    assert one.text() == f"+20.0 points [{100 * one.estimate.low:+.1f}, {100 * one.estimate.high:+.1f}]"
    assert set(one.files) == {result.path.name for result in files}
    others = [finding for name, finding in judged.items() if not name.startswith("attention-")]
    assert {finding.verdict for finding in others} == {"not tested"} and len(others) == 13


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
        assert found([base, other])["attention-robustness"].verdict == "not tested"
    trained = [
        accuracy(tmp_path, variant, right(60), right(20), data={"split": "train"}) for variant in ("at", "at-att")
    ]
    assert found(trained)["attention-accuracy"].verdict == "not tested"


def test_models_of_two_recipes_are_compared_within_each(tmp_path: Path) -> None:
    files = [
        accuracy(tmp_path, variant, right(of), right(of), recipe=recipe)
        for recipe, counts in (("quick", (20, 60)), ("paper", (50, 130)))
        for variant, of in zip(("at", "at-att"), counts, strict=True)
    ]
    measures = found(files)["attention-accuracy"].measures
    assert sorted(one.estimate.value for one in measures) == pytest.approx([0.2, 0.4])
    assert {one.quantity for one in measures} == {"natural accuracy"} and {one.seeds for one in measures} == {(0,)}


@pytest.mark.parametrize("given", [(False, True), (True, True)])
def test_whoever_else_reads_attacks_their_own_models_are_compared(tmp_path: Path, given: tuple[bool, bool]) -> None:
    files = [
        table(
            tmp_path,
            variant,
            right(of),
            {"PGD-20": right(of)[:, None].repeat(2, 1)},
            copies={f"{variant} of another seed": 1},
            given=of_others,
        )
        for variant, of, of_others in zip(("at", "at-att"), (20, 60), given, strict=True)
    ]
    judged = found(files)
    assert judged["attention-accuracy"].measures[0].estimate.value == pytest.approx(0.2)
    assert judged["attention-robustness"].measures[0].estimate.value == pytest.approx(0.2)


def test_seeds_are_combined(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    outcomes = rng.random((3, 2, 200)) < np.array([0.3, 0.6])[:, None]
    files = [
        accuracy(tmp_path, variant, outcomes[seed, place], outcomes[seed, place], seed=seed)
        for seed in (2, 0, 1)
        for place, variant in enumerate(("at", "at-att"))
    ]
    (one,) = found(files)["attention-accuracy"].measures
    differences = outcomes[:, 1].astype(float) - outcomes[:, 0]
    assert one.seeds == (0, 1, 2) and one.values == pytest.approx(differences.mean(1))
    assert (one.estimate, one.p_value) == over_seeds(list(differences))
    assert one.levels == pytest.approx(outcomes.mean((0, 2))[::-1])
    assert one.condition == "seeds 0, 1, 2; 200 test images each"
    assert one.seed_texts() == [f"seed {seed}: {100 * value:+.1f} points" for seed, value in enumerate(one.values)]
    assert len(one.files) == 6


def test_seeds_that_disagree_cannot_tell(tmp_path: Path) -> None:
    files = [
        accuracy(tmp_path, variant, right(of), right(of), seed=seed)
        for seed, variant, of in ((0, "at", 20), (0, "at-reg", 60), (1, "at", 50), (1, "at-reg", 51))
    ]
    assert found(files[:2])["regularization-robustness"].verdict == "holds"
    both = found(files)["regularization-robustness"]
    assert both.measures[0].values == pytest.approx((0.2, 0.005)) and both.verdict == "cannot tell"


def test_every_pair_of_a_claim_has_to_agree(tmp_path: Path) -> None:
    outcomes = {"at": right(20), "at-reg": right(60), "at-att": right(30), "at-att-reg": right(90)}
    files = [accuracy(tmp_path, variant, of, of) for variant, of in outcomes.items()]
    judged = found(files)
    assert {name: finding.verdict for name, finding in judged.items() if finding.measures} == {
        "regularization-robustness": "holds",
        "regularization-cost": "does not hold",
        "attention-accuracy": "holds",
        "attention-robustness": "holds",
        "both-robustness": "holds",
    }
    assert [one.comparison for one in judged["both-robustness"].measures] == [
        f"at-att-reg minus {other}" for other in ("at", "at-reg", "at-att")
    ]
    assert judged["regularization-cost"].measures[0].estimate.value == pytest.approx(-0.2)
    # A better rival refutes the best, if its p-value times the three rivals is small: 2 * 0.5**6 is not, of 8 it is.
    for count, verdict in ((89, "cannot tell"), (96, "cannot tell"), (98, "does not hold"), (180, "does not hold")):
        better = [*files[:2], accuracy(tmp_path, "at-att", right(count), right(count)), files[3]]
        against = found(better)["both-robustness"]
        assert against.measures[2].sign == (0 if count == 89 else -1) and against.verdict == verdict


def test_all_readings_are_shown_and_two_decide(tmp_path: Path) -> None:
    readings = ("PGD-5", "PGD-20", "CW-30")
    right_on = {"at": (90, 60, 55), "at-att": (100, 80, 50)}
    files = [
        table(tmp_path, variant, right(100), {name: right(of) for name, of in zip(readings, counts, strict=True)})
        for variant, counts in right_on.items()
    ]
    measures = found(files)["attention-robustness"].measures
    assert [(one.quantity, str(one.kind)) for one in measures] == [
        ("accuracy, PGD-20 at eps 8/255", "main"),
        ("accuracy, PGD-5 at eps 8/255", "further"),
        ("accuracy, CW-30 at eps 8/255", "further"),
        ("accuracy, each image's worst of CW-30, PGD-20, PGD-5", "main"),
    ]
    assert [one.estimate.value for one in measures] == pytest.approx([0.1, 0.05, -0.025, -0.025])
    assert [one.paper_figures for one in measures] == [(41.39, 39.72), (51.2, 49.89), (40.6, 40.27), ()]


def test_models_that_were_read_at_different_steps_are_compared_at_those_they_share(tmp_path: Path) -> None:
    few, many = TABLE | {"pgd": "20", "cw": "none"}, TABLE | {"pgd": "5,20", "cw": "30"}
    all_of_at = {"PGD-5": right(90), "PGD-20": right(60), "CW-30": right(10)}
    files = [
        table(tmp_path, "at", right(100), all_of_at, settings=many),
        table(tmp_path, "at", right(100), {"PGD-20": right(60)}, settings=few),
        table(tmp_path, "at-att", right(100), {"PGD-20": right(80)}, settings=few),
    ]
    measures = found(files)["attention-robustness"].measures
    # A worst case needs more than the one reading that they share.
    (one,) = measures
    assert (one.quantity, one.kind) == ("accuracy, PGD-20 at eps 8/255", "main")
    assert one.estimate.value == pytest.approx(0.1)
    assert set(one.files) == {files[0].path.name, files[2].path.name}


def test_apgd_is_in_the_worst_case_that_decides(tmp_path: Path) -> None:
    settings = TABLE | {"apgd": "100"}
    readings = {"at": (60, 50, 40), "at-att": (80, 75, 30)}
    files = [
        table(
            tmp_path,
            variant,
            right(100),
            {name: right(of) for name, of in zip(("PGD-20", "APGD-CE-100", "APGD-T-100"), counts, strict=True)},
            settings=settings,
        )
        for variant, counts in readings.items()
    ]
    # The same models' files without APGD are of less, and do not decide.
    files += [
        table(tmp_path, variant, right(100), {"PGD-20": right(counts[0])}) for variant, counts in readings.items()
    ]
    *_, worst = found(fullest(files))["attention-robustness"].measures
    assert worst.quantity == "accuracy, each image's worst of APGD-CE-100, APGD-T-100, PGD-20" and worst.kind == "main"
    assert worst.estimate.value == pytest.approx(-0.05)


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

    def measured(files: list[Result]) -> dict[str, tuple[float, str]]:
        finding = found(files)["attention-robustness"]
        assert len({one.quantity for one in finding.measures}) == len(finding.measures)
        return {
            one.quantity.removeprefix("accuracy, ").removesuffix(" at eps 8/255"): (
                round(one.estimate.value, 6),
                one.kind,
            )
            for one in finding.measures
        }

    apart = measured(files(("20", "none"), ("none", "30")))
    assert apart["PGD-20"] == (0.1, "main") and apart["CW-30"][0] == -0.025 and len(apart) == 2
    assert measured(files(("5,20", "none"), ("20,100", "none"))) == {
        "PGD-20": (0.1, "main"),
        "PGD-5": (0.05, "further"),
        "PGD-100": (0.125, "further"),
        "each image's worst of PGD-20, PGD-5": (0.1, "main"),
        "each image's worst of PGD-100, PGD-20": (0.125, "main"),
    }


def names_of(pgd: str, cw: str) -> list[str]:
    """As `PGD-5`, `CW-30`."""
    return [f"{attack}-{step}" for attack, of in (("PGD", pgd), ("CW", cw)) for step in of.split(",") if step != "none"]


Answers = dict[tuple[str, int], dict[int, AnyArray]]
"""Which images are right (N,), by variant and the seed that the attack is made on, then by the seed that reads it."""


def transferred(folder: Path, seeds: Sequence[int] = (0, 1, 2)) -> tuple[list[Result], Answers]:
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
        of: dict[str, list[bool]] = {"at": [], "at-reg": []}
        for source in sources:
            for reader in readers:
                if source != reader and seed in (source, reader):
                    for variant, right_on in of.items():
                        right_on.append(answers[variant, source][reader][image])
        values.append(float(np.mean(of["at"]) - np.mean(of["at-reg"])))
    return values


@pytest.mark.parametrize("turn", [1, -1])
def test_the_headline_is_one_of_what_both_models_were_read_at(tmp_path: Path, turn: int) -> None:
    files = [
        table(tmp_path, variant, right(100), {name: right(of) for name in names_of(pgd, "none")})
        for (variant, of), pgd in zip((("at", 60), ("at-att", 80)), ("5,10", "5,10,20")[::turn], strict=True)
    ]
    finding = found(files)["attention-robustness"]
    assert [(one.quantity.removeprefix("accuracy, "), one.kind) for one in finding.measures] == [
        ("PGD-10 at eps 8/255", "main"),
        ("PGD-5 at eps 8/255", "further"),
        ("each image's worst of PGD-10, PGD-5", "main"),
    ]
    assert finding.verdict == "holds"


def test_black_box_accuracy_is_averaged_by_the_attacked_seed_and_by_the_attacking_one(tmp_path: Path) -> None:
    files, answers = transferred(tmp_path)
    finding = found(files)["regularization-cost"]
    _, attacked, attacking = finding.measures
    what = "accuracy, PGD-20 at eps 8/255 on copies"
    assert (attacked.quantity, attacking.quantity) == (f"{what}, by attacked seed", f"{what}, by attacking seed")
    everyone = range(3)
    for one, of in (
        (attacked, [slowly(answers, seed, everyone, [seed]) for seed in everyone]),
        (attacking, [slowly(answers, seed, [seed], everyone) for seed in everyone]),
    ):
        assert (one.kind, one.comparison, one.seeds, one.images) == ("main", "at minus at-reg", (0, 1, 2), (200,) * 3)
        assert one.values == pytest.approx([np.mean(values) for values in of])
        (value, low, high), p_value = over_seeds([np.array(values) for values in of])
        assert tuple(one.estimate) == pytest.approx((value, low, high)) and one.p_value == pytest.approx(p_value)
        assert one.paper_figures == (56.6, 56.4)
        levels = [
            np.mean([values for source in everyone for values in answers[variant, source].values()])
            for variant in ("at", "at-reg")
        ]
        assert one.levels == pytest.approx(levels)
        assert set(one.files) == {result.path.name for result in files}
    assert attacked.estimate.value == pytest.approx(attacking.estimate.value) and attacked.values != attacking.values
    assert finding.p_value == max(one.p_value for one in finding.measures if one.p_value is not None)


def test_one_attacking_seed_is_one_seed_however_many_read_it(tmp_path: Path) -> None:
    files, answers = transferred(tmp_path)
    own = [result for result in files if job(result)["seed"] == 1]
    _, attacked, attacking = found(own)["regularization-cost"].measures
    of = [slowly(answers, seed, [1], [seed]) for seed in (0, 2)]
    assert attacked.seeds == (0, 2) and attacked.values == pytest.approx([np.mean(values) for values in of])
    assert (attacked.estimate, attacked.p_value) == over_seeds([np.array(values) for values in of])
    assert attacking.seeds == (1,) and attacking.values == pytest.approx([np.mean(of)])
    assert attacking.p_value is None  # averages over two copies are no answers of yes or no
    # One copy alone gives answers of yes or no: 70 against 50 of 200.
    alone = [
        table(tmp_path, variant, right(100), {"PGD-20": right(of)[:, None].repeat(2, 1)}, seed=1, copies={"copy": 0})
        for variant, of in (("at", 70), ("at-reg", 50))
    ]
    *_, attacked, attacking = found(alone)["regularization-cost"].measures
    assert (attacked.seeds, attacking.seeds) == ((0,), (1,))
    assert attacked.p_value == attacking.p_value == pytest.approx(2 * 0.5**20)
    assert attacked.estimate == attacking.estimate and attacked.estimate.value == pytest.approx(0.1)


def test_a_seed_that_has_two_files_counts_once_among_those_that_attack(tmp_path: Path) -> None:
    files, answers = transferred(tmp_path)
    # Seed 0 has two files, as where more models read the second: what both say is one attack.
    again = [result for result in transferred(tmp_path)[0] if job(result)["seed"] == 0]
    once, twice = (found(of)["regularization-cost"].measures for of in (files, [*files, *again]))
    assert [one.values for one in twice] == [pytest.approx(one.values) for one in once]
    assert twice[1].values[2] == pytest.approx(np.mean(slowly(answers, 2, range(3), [2])))
    apart = [
        table(tmp_path, variant, right(9), {reading: right(of)[:, None].repeat(2, 1)}, copies={"copy": 1})
        for reading, counts in (("PGD-20", (70, 50)), ("CW-30", (30, 20)))
        for variant, of in zip(("at", "at-reg"), counts, strict=True)
    ]
    _, *measures = found(apart)["regularization-cost"].measures
    assert [(one.quantity, round(one.estimate.value, 6)) for one in measures] == [
        (f"accuracy, {reading} at eps 8/255 on copies, by {by} seed", value)
        for reading, value in (("PGD-20", 0.1), ("CW-30", 0.05))
        for by in ("attacked", "attacking")
    ]


def test_both_groupings_of_black_box_accuracy_decide(tmp_path: Path) -> None:
    # Of the same numbers for attacks on seeds 0, 1 and 2, whoever reads them, those who read have averages.
    files = []
    for variant, counts in (("at", (120, 100, 110)), ("at-reg", (50, 95, 60))):
        for seed, of in enumerate(counts):
            copies = {f"copy of seed {other}": other for other in range(3) if other != seed}
            readings = {"PGD-20": right(of)[:, None].repeat(3, 1)}
            files.append(table(tmp_path, variant, right(199), readings, seed=seed, copies=copies))
    _, attacked, attacking = found(files)["regularization-cost"].measures
    assert attacking.values == pytest.approx((0.35, 0.025, 0.25))
    assert attacked.values == pytest.approx((0.1375, 0.3, 0.1875))
    spread = [one.estimate.high - one.estimate.low for one in (attacked, attacking)]
    assert spread[0] < 0.6 * spread[1] and (attacked.sign, attacking.sign) == (1, 0)


def test_mnist_has_a_claim_of_its_own(tmp_path: Path) -> None:
    data = {"dataset": "mnist"}
    files = [
        accuracy(tmp_path, variant, right(of), right(of), data=data) for variant, of in (("at", 20), ("at-reg", 60))
    ]
    judged = {finding.claim.name: finding for finding in judge(files)}
    assert [name for name, finding in judged.items() if finding.measures] == ["mnist-regularization"]
    first = judged["mnist-regularization"].measures[0]
    assert (first.paper_figures, first.sign) == ((95.69, 92.86), 1)
    assert judged["mnist-regularization"].paper == "at 92.86 -> at-reg 95.69 (+2.83)"


@pytest.mark.parametrize(("dataset", "paper_says"), [("cifar100", (20.82, 19.65)), ("svhn", (48.22, 47.02))])
def test_the_paper_is_cited_for_the_dataset_at_hand(
    tmp_path: Path, dataset: str, paper_says: tuple[float, ...]
) -> None:
    files = [accuracy(tmp_path, variant, right(9), right(9), data={"dataset": dataset}) for variant in ("at", "at-att")]
    judged = {finding.claim.name: finding for finding in judge(files)}
    assert judged["attention-robustness"].measures[0].paper_figures == paper_says


def test_nonlinear_attention_is_compared_with_linear(tmp_path: Path) -> None:
    made = {"natural-att": right(120), "natural-linear-att": right(100)}
    judged = found([accuracy(tmp_path, variant, of, right(1)) for variant, of in made.items()])
    (one,) = judged["nonlinear-attention"].measures
    assert one.estimate.value == pytest.approx(0.1) and one.paper_figures == (92.87, 91.34)
    assert judged["nonlinear-attention"].verdict == "holds"


def test_natural_accuracy_under_two_attacks_is_one_measure(tmp_path: Path) -> None:
    files = [
        accuracy(tmp_path, variant, right(of), right(of), settings=TABLE | {"eps": eps})
        for variant, of in (("at", 20), ("at-att", 60))
        for eps in (8 / 255, 0.3)
    ]
    judged = found(files)
    (natural,) = judged["attention-accuracy"].measures
    assert natural.kind == "main" and judged["attention-accuracy"].verdict == "holds"
    assert [one.quantity for one in judged["attention-robustness"].measures if "worst" not in one.quantity] == [
        "accuracy, PGD-20 at eps 8/255",
        "accuracy, PGD-20 at eps 0.3",
    ]


def test_the_same_file_twice_counts_once_and_another_of_one_name_is_an_error(tmp_path: Path) -> None:
    files = [accuracy(tmp_path, "at", right(20), right(20)), accuracy(tmp_path, "at-att", right(60), right(60))]
    again = accuracy(tmp_path, "at-att", right(60), right(60))
    assert found([*files, again]) == found(files)
    other = accuracy(tmp_path, "at-att", right(61), right(60))
    with pytest.raises(UserError, match=r"robustness-1\.h5 and .*robustness-3\.h5 have different numbers for one"):
        found([*files, other])


def rank(folder: Path, spearman: float, *, own: bool, weights: str = "attention", variant: str = "at-att") -> Result:
    """A file of `attention-rank` with this mean correlation in all columns.

    The mean attention map is (1, 2, 3, 4) / 10. Distances follow it, in the opposite order for half of the images
    if attention does too (`own`), so that a mean map correlates with robustness as -1 and 1, or always as -1.
    """
    turn = np.arange(40) % 2 == 1 if own else np.zeros(40, bool)
    rising, around = np.array([1.0, 2, 3, 4]), np.array([4.0, 1, 0, 0])
    distance = np.where(turn[:, None], rising[::-1], rising)
    scatter = spearman + 0.01 * np.sin(np.arange(40))
    columns = {
        "attention": (np.where(turn[:, None], 2 * rising - around, around) / 10).astype("f4"),
        "distance": distance.astype("f4"),
    }
    for name in ("spearman", "spearman_relative", "spearman_partial", "spearman_noise"):
        columns[name] = scatter.astype("f4")
    axes = {"attention": ("position",), "distance": ("position",)}
    return write(folder, "attention-rank/3", variant, columns, settings=ATTACK | {"spatial_weight": weights}, axes=axes)


def test_attention_goes_to_robust_features_if_all_correlations_say_so(tmp_path: Path) -> None:
    result = rank(tmp_path, 0.5, own=True)
    finding = found([result])["robust-features"]
    attention, distance = result["per_image/attention"], result["per_image/distance"]
    mean_map = attention.mean(0)
    np.testing.assert_allclose(mean_map, [0.1, 0.2, 0.3, 0.4], atol=1e-6)
    beyond = [
        own - stats.spearmanr(mean_map, -row).statistic
        for own, row in zip(result["per_image/spearman"], distance, strict=True)
    ]
    assert [one.kind for one in finding.measures] == ["main"] + ["control"] * 4
    assert finding.measures[4].estimate.value == pytest.approx(np.mean(beyond))
    assert finding.measures[0].estimate.value == pytest.approx(result["per_image/spearman"].mean())
    assert finding.measures[0].quantity == "Spearman of attention and robustness to PGD-20 at eps 8/255"
    assert finding.measures[0].comparison == finding.measures[0].our_figures == "at-att"
    assert finding.measures[0].text().startswith("+0.50")
    assert finding.verdict == "holds" and finding.p_value is None


def test_a_correlation_no_larger_than_that_of_a_mean_map_is_no_support(tmp_path: Path) -> None:
    # The mean map is (0.4, 0.1, 0, 0) and distances rise: Spearman with robustness 0.95.
    assert found([rank(tmp_path, 0.5, own=False)])["robust-features"].verdict == "cannot tell"
    against = found([rank(tmp_path, -0.5, own=True)])["robust-features"]
    assert against.verdict == "does not hold"


def test_grad_cam_is_not_the_attention_of_a_claim(tmp_path: Path) -> None:
    files = [rank(tmp_path, 0.5, own=True, weights="grad-cam"), rank(tmp_path, 0.5, own=True, variant="at")]
    assert found(files)["robust-features"].verdict == "not tested"


def localized(folder: Path, variant: str, weights: AnyArray, gradient: AnyArray, of: str = "attention") -> Result:
    both = np.stack([gradient, weights], 1).astype("f4")
    flat = np.ones_like(both)
    columns = {"share": both, "area": 0.25 * flat, "center": 0.5 * flat}
    axes = dict.fromkeys(columns, ("map",))
    places = {"map": ("gradient", "weights")}
    return write(folder, "localization/2", variant, columns, settings={"spatial_weight": of}, labels=places, axes=axes)


def test_attention_and_gradients_on_the_object(tmp_path: Path) -> None:
    wave = 0.1 * np.sin(np.arange(50))
    undefined = np.where(np.arange(50) < 10, np.nan, 0.4 + wave)
    files = [
        localized(tmp_path, "at-att-reg", 0.75 + wave, 0.6 + wave),
        localized(tmp_path, "at", 0.9 + wave, undefined, of="grad-cam"),
    ]
    judged = found(files)
    attention, gradient = judged["attention-on-object"], judged["cleaner-backgrounds"]
    area, center = attention.measures
    assert area.estimate.value == pytest.approx(0.5 + wave.mean(), abs=1e-6)
    assert center.estimate.value == pytest.approx(0.25 + wave.mean(), abs=1e-6) and center.kind == "control"
    (difference,) = gradient.measures
    assert difference.estimate.value == pytest.approx(0.2, abs=1e-6) and difference.percent
    assert difference.images == (40,) and difference.condition.startswith("seed 0; 40 test images")
    assert difference.levels == pytest.approx((0.6 + wave[10:].mean(), 0.4 + wave[10:].mean()), abs=1e-6)
    assert attention.verdict == gradient.verdict == "holds"
    without = localized(tmp_path, "at-att", np.full(50, np.nan), 0.6 + wave)
    assert found([without])["attention-on-object"].verdict == "not tested"


def test_what_is_lost_without_robust_features_is_beyond_what_random_ones_cost(tmp_path: Path) -> None:
    removed, orders = (0, 1, 3, 4), ("random", "attended", "robust")
    correct = np.random.default_rng(0).random((30, 2, 3, 4)) < 0.5
    labels = {"condition": ("clean", "adversarial"), "order": orders}
    axes = {"correct": ("condition", "order", "removed")}
    columns = {"correct": correct.astype("u1")}

    def measured(variant: str, columns: Mapping[str, AnyArray], fill: str = "mean", steps: int = 20) -> Result:
        settings = ATTACK | {"spatial_weight": "attention", "fill": fill, "steps": steps}
        of: dict[str, Any] = {"settings": settings, "places": {"removed": removed}}
        return write(tmp_path, "feature-deletion/1", variant, columns, labels=labels, axes=axes, **of)

    finding = found([measured("at-att", columns)])["robust-features-matter"]
    for place, measure in enumerate(finding.measures):
        lost = []
        for curves in correct[:, place].astype(float):
            areas = [
                sum((b - a) / 4 * (curve[i] + curve[i + 1]) / 2 for i, (a, b) in enumerate(pairwise(removed)))
                for curve in curves
            ]
            lost.append(areas[orders.index("random")] - areas[orders.index("robust")])
        assert measure.estimate.value == pytest.approx(np.mean(lost)) and measure.percent
        assert labels["condition"][place] in measure.quantity
    assert finding.measures[0].quantity == (
        "clean accuracy lost by deleting robust features first, minus random order (PGD-20 at eps 8/255, fill mean)"
    )
    assert len(finding.measures) == 2
    several = [measured("at-att", columns, *of) for of in (("mean", 20), ("zero", 20), ("mean", 100))]
    assert len({measure.quantity for measure in found(several)["robust-features-matter"].measures}) == 6
    fragile = correct.copy()
    fragile[:, :, orders.index("random")], fragile[:, :, orders.index("robust")] = False, True
    assert found([measured("at-att-reg", {"correct": fragile.astype("u1")})])["robust-features-matter"].verdict == (
        "does not hold"
    )


def test_edges_count_beyond_those_of_another_image(tmp_path: Path) -> None:
    wave = 0.1 * np.sin(np.arange(60))
    made = {"at": (0.3 + wave, 0.1 + wave), "at-att-reg": (0.5 + wave, 0.25 + wave)}
    files = [
        write(
            tmp_path,
            "alignment/2",
            variant,
            {"edge_cosine": own.astype("f4"), "edge_cosine_shuffled": other.astype("f4")},
        )
        for variant, (own, other) in made.items()
    ]
    estimates = [one.estimate.value for one in found(files)["alignment"].measures]
    assert estimates == pytest.approx([0.2, 0.05], abs=1e-6)


def scored(folder: Path, variant: str, answers: AnyArray, readers: tuple[str, ...]) -> Result:
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
    files = [scored(tmp_path, "at-att-reg", first, names), scored(tmp_path, "at", second[:, ::-1], names[::-1])]
    finding = found(files)["gradmap-score"]
    measures = {one.quantity: one for one in finding.measures}
    assert len(measures) == 4 and measures.keys() == {
        f"maps -g ({called}) read by natural networks ({architecture})"
        for called in ("clipped", "raw")
        for architecture in ("tiny", "renamed")
    }
    for rule, called, reported in ((0, "clipped", (30.32, 26.78)), (2, "raw", (31.59, 28.72))):
        for readers, architecture in (((1,), "tiny"), ((2, 3), "renamed")):
            one = measures[f"maps -g ({called}) read by natural networks ({architecture})"]
            pair = [[np.mean([row[reader, 0, rule, 0] for reader in readers]) for row in of] for of in (first, second)]
            assert one.estimate.value == pytest.approx(np.mean(pair[0]) - np.mean(pair[1]))
            assert one.paper_figures == reported
            only = [sum(a > b for a, b in zip(*order, strict=True)) for order in (pair, pair[::-1])]
            expected = stats.binomtest(only[0], sum(only)).pvalue if len(readers) == 1 else None
            assert one.p_value == (expected and pytest.approx(expected))
    assert finding.p_value == max(one.p_value for one in finding.measures if one.p_value is not None)
    assert finding.verdict == "holds"
    weaker = first.copy()
    weaker[:, 1, 0, 2, 0] = second[:, 1, 0, 2, 0]
    mixed = found([scored(tmp_path, "at-att-reg", weaker, names), files[1]])["gradmap-score"]
    assert mixed.verdict == "cannot tell" and mixed.p_value == 1


def test_p_values_are_corrected_over_the_claims_of_a_section(tmp_path: Path) -> None:
    outcomes = {"at": 20, "at-att": 60, "at-reg": 45, "natural-att": 90, "natural-linear-att": 80}
    files = [
        table(tmp_path, variant, right(20), {"PGD-20": right(of), "CW-30": right(of)})
        for variant, of in outcomes.items()
    ]
    files[3:] = [accuracy(tmp_path, variant, right(outcomes[variant]), right(0)) for variant in list(outcomes)[3:]]
    judged = found(files)
    # Worst cases are equal: all are right where at is right under attack and the natural image is too.
    tested = {name: finding.p_value for name, finding in judged.items() if finding.p_value is not None}
    assert tested == {
        "regularization-robustness": 1.0,
        "regularization-cost": 1.0,
        "attention-accuracy": 1.0,
        "attention-robustness": 1.0,
        "nonlinear-attention": pytest.approx(2 * 0.5**10),
    }
    stronger = [accuracy(tmp_path, variant, right(of), right(of)) for variant, of in list(outcomes.items())[:3]]
    raw = {"regularization": 2 * 0.5**25, "attention": 2 * 0.5**40}
    assert {name: finding.p_value for name, finding in found(stronger).items() if finding.p_value is not None} == {
        "regularization-robustness": pytest.approx(2 * raw["regularization"]),
        "regularization-cost": pytest.approx(2 * raw["regularization"]),
        "attention-accuracy": pytest.approx(4 * raw["attention"]),
        "attention-robustness": pytest.approx(4 * raw["attention"]),
    }


def test_every_claim_can_be_measured_and_is_of_an_analysis_that_exists() -> None:
    assert sampling.BY_CLAIM.keys() <= {claim.name for claim in paper.CLAIMS}
    assert {claim.analysis for claim in paper.CLAIMS} <= set(analyses.names())
    for claim in paper.CLAIMS:
        assert callable(sampling.sampler(claim))
        assert set(claim.variants) <= set(VARIANTS) and len({len(models) for models in claim.models}) == 1
        for setting in claim.settings:
            assert set(claim.variants) <= set(paper.row(claim.table or "table2", setting))


def test_claims_need_no_torch() -> None:
    script = "import sys, interpret_robust.study.verdicts; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_a_recalibrated_pair_is_a_control_that_can_keep_a_claim_from_holding(tmp_path: Path) -> None:
    """The gain of 20 points as trained is one of 5 with `at` and `at-reg` recalibrated alike, or one of -5."""
    trained = [accuracy(tmp_path, "at", right(100), right(40)), accuracy(tmp_path, "at-reg", right(100), right(80))]
    base = accuracy(tmp_path, "at", right(100), right(50), recalibrated="adversarial")
    for gained, verdict in ((60, "holds"), (40, "cannot tell")):
        other = accuracy(tmp_path, "at-reg", right(100), right(gained), recalibrated="adversarial")
        finding = found([*trained, base, other])["regularization-robustness"]
        (main,), (control,) = finding.measures_of("main"), finding.measures_of("control")
        assert main.estimate.value == pytest.approx(0.2)
        assert control.quantity == "accuracy, PGD-20 at eps 8/255, batch norm recalibrated (adversarial images)"
        assert control.estimate.value == pytest.approx((gained - 50) / 200)
        assert finding.verdict == verdict and finding.measures_of("further") == ()


def test_a_recalibrated_model_is_not_compared_with_one_that_is_not(tmp_path: Path) -> None:
    mixed = [
        accuracy(tmp_path, "at", right(100), right(40)),
        accuracy(tmp_path, "at-reg", right(100), right(80), recalibrated="clean"),
        accuracy(tmp_path, "at-reg", right(100), right(90), recalibrated="adversarial"),
    ]
    assert all(finding.measures == () for finding in judge(mixed))


def weighted(folder: Path, variant: str, attacked: int, weight: float) -> Result:
    recipe = {"name": "quick", "weight_reg": weight, "weight_att_reg": 0.01}
    return accuracy(folder, variant, right(100), right(attacked), trained={"recipe": recipe})


def test_a_range_of_lambda_is_decided_by_models_at_both_of_its_ends(tmp_path: Path) -> None:
    """`at` sees no lambda: one model of it stands beside all. What lies outside of the range is only shown."""
    at, low = weighted(tmp_path, "at", 40, 0.1), weighted(tmp_path, "at-reg", 60, 0.01)
    alone = found([at, low])["lambda-range"]
    assert alone.verdict == "not tested" and [one.kind for one in alone.measures] == ["further"]
    high, beyond = weighted(tmp_path, "at-reg", 70, 0.1), weighted(tmp_path, "at-reg", 10, 10.0)
    finding = found([at, low, high, beyond])["lambda-range"]
    gains = {one.quantity.rpartition(" ")[2]: one.estimate.value for one in finding.measures}
    kinds = {one.quantity.rpartition(" ")[2]: one.kind for one in finding.measures}
    assert gains == pytest.approx({"0.01": 0.1, "0.1": 0.15, "10": -0.15})
    assert kinds == {"0.01": "main", "0.1": "main", "10": "further"}
    assert finding.verdict == "holds"
    middle = weighted(tmp_path, "at-reg", 40, 0.05)
    assert found([at, low, high, middle])["lambda-range"].verdict == "cannot tell"


def test_the_wide_network_is_compared_with_the_narrow_one_variant_by_variant(tmp_path: Path) -> None:
    narrow = [accuracy(tmp_path, variant, right(100), right(60)) for variant in ("at", "at-att")]
    wide = [
        accuracy(tmp_path, variant, right(100), right(count), trained={"architecture": "small-wide3"})
        for variant, count in (("at", 40), ("at-att", 20), ("at-reg", 10))
    ]
    (finding,) = (one for one in judge(narrow, wide) if one.claim.name == "wide-robustness")
    first, second = finding.measures
    assert (first.comparison, second.comparison) == (
        "at small minus at small-wide3",
        "at-att small minus at-att small-wide3",
    )
    assert first.estimate.value == pytest.approx(0.1) and second.estimate.value == pytest.approx(0.2)
    assert first.paper == "at small-wide3 38.19 -> at small 39.72 (+1.53)"
    assert finding.verdict == "holds"
    (alone,) = (one for one in judge(narrow) if one.claim.name == "wide-robustness")
    assert alone.verdict == "not tested"
