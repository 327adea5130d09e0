"""The paper's claims: known answers from known columns, and a verdict that follows from them."""

import subprocess
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from interpret_robust import analyses, claims, paper, results
from interpret_robust.claims import Finding, Measure, judge
from interpret_robust.results import AnyArray, Result
from interpret_robust.schema import Column, Schema
from interpret_robust.statistics import Interval

ABOVE, BELOW, OPEN = Interval(0.2, 0.1, 0.3), Interval(-0.2, -0.3, -0.1), Interval(0.1, -0.1, 0.3)
ATTACK = {"eps": 8 / 255, "steps": 20}
READERS = {
    "my-natural-images-small-at-seed1": "at",
    "tiny-small-natural-seed1": "natural",
    "renamed": "natural",
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
    settings: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    labels: Mapping[str, tuple[str, ...]] | None = None,
    axes: Mapping[str, tuple[str, ...]] | None = None,
    places: Mapping[str, tuple[int, ...]] | None = None,
) -> Result:
    """A file that holds these per-image columns, whose axes after the first are named in `axes`, and no others."""
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
    job = {"dataset": "tiny", "architecture": "small", "variant": variant, "seed": seed}
    config: dict[str, Any] = {
        "checkpoint": {"name": f"tiny-small-{variant}-seed{seed}", "job": job},
        "data": {"dataset": "tiny", "split": "test", "images": count, "sha256": "0"} | dict(data or {}),
        "settings": dict(settings or {}),
    }
    if readers := (labels or {}).get("evaluator"):
        config["evaluators"] = {
            "names": list(readers),
            "sha256": [f"of {reader}" for reader in readers],
            "jobs": {reader: {"variant": READERS[reader]} for reader in readers},
        }
    path = folder / f"{name}-{len(list(folder.iterdir()))}.h5"
    with results.open_rows(path, made, count, {"position": 4, **(places or {})}, config, {}) as rows:
        rows.append({f"per_image/{column}": values for column, values in columns.items()})
        rows.finish({}, {})
    return results.read(path)


def accuracy(folder: Path, variant: str, natural: AnyArray, adversarial: AnyArray, **other: Any) -> Result:
    """A file of `robustness` with these outcomes: the true class is 1."""
    columns = {"prediction_natural": natural, "prediction_adversarial": adversarial}
    made = {name: outcomes.astype("i2") for name, outcomes in columns.items()}
    made["label"] = np.ones(len(natural), "i2")
    return write(folder, "robustness/1", variant, made, **({"settings": ATTACK} | other))


def right(*counts: int) -> AnyArray:
    """Outcomes of 200 images: right on the first, wrong on the next, and so on; wrong on the rest."""
    parts = [np.full(count, place % 2 == 0) for place, count in enumerate(counts)]
    outcomes = np.concatenate(parts)
    return np.concatenate([outcomes, np.zeros(200 - len(outcomes), bool)])


def found(files: list[Result]) -> dict[str, Finding]:
    return {finding.claim.name: finding for finding in judge(files)}


def measure(estimate: Interval, *, control: bool = False, p_value: float | None = None) -> Measure:
    return Measure("a", "b", estimate, 10, p_value=p_value, control=control)


@pytest.mark.parametrize(
    ("measures", "p_value", "verdict"),
    [
        ([], None, "not testable here"),
        ([measure(ABOVE), measure(ABOVE)], None, "supported"),
        ([measure(ABOVE), measure(OPEN)], None, "cannot tell"),
        ([measure(ABOVE), measure(BELOW)], None, "cannot tell"),
        ([measure(BELOW), measure(BELOW)], None, "contradicted"),
        ([measure(BELOW), measure(OPEN)], None, "cannot tell"),
        ([measure(ABOVE), measure(ABOVE, control=True)], None, "supported"),
        ([measure(ABOVE), measure(OPEN, control=True)], None, "cannot tell"),
        ([measure(ABOVE), measure(BELOW, control=True)], None, "cannot tell"),
        ([measure(BELOW), measure(ABOVE, control=True)], None, "contradicted"),
        ([measure(ABOVE)], 0.049, "supported"),
        ([measure(ABOVE)], 0.05, "cannot tell"),
        ([measure(BELOW)], 0.05, "cannot tell"),
        ([measure(Interval(0.1, 0.0, 0.2))], None, "cannot tell"),
    ],
)
def test_a_verdict_follows_from_the_signs(measures: list[Measure], p_value: float | None, verdict: str) -> None:
    assert Finding(paper.CLAIMS[0], tuple(measures), p_value).verdict == verdict


def test_accuracies_are_compared_image_by_image(tmp_path: Path) -> None:
    # at-att alone is right on 60 images, at alone on 20: 40 of 200 more. Under attack it is 10 against 30.
    files = [
        accuracy(tmp_path, "at", right(0, 60, 20), right(0, 10, 30)),
        accuracy(tmp_path, "at-att", right(60), right(10)),
    ]
    judged = found(files)
    natural, attacked = judged["attention-accuracy"], judged["attention-robustness"]
    (one,), (other,) = natural.measures, attacked.measures
    assert (one.what, one.where) == ("accuracy on natural images, at-att minus at", "seed 0, 200 test images")
    assert other.what == "accuracy under PGD-20 at eps 8/255, at-att minus at"
    assert one.estimate.value == pytest.approx(0.2) and other.estimate.value == pytest.approx(-0.1)
    # A mean of 200 differences of -1, 0 and 1.
    deviation = np.sqrt((60 + 20) / 200 - 0.2**2) / np.sqrt(200)
    assert one.estimate.low == pytest.approx(0.2 - 1.96 * deviation, abs=0.01)
    assert one.estimate.high == pytest.approx(0.2 + 1.96 * deviation, abs=0.01)
    assert one.p_value == pytest.approx(stats.binomtest(60, 80).pvalue)
    assert other.p_value == pytest.approx(stats.binomtest(10, 40).pvalue)
    assert natural.p_value == pytest.approx(2 * stats.binomtest(60, 80).pvalue)
    assert attacked.p_value == pytest.approx(stats.binomtest(10, 40).pvalue)
    assert (natural.verdict, attacked.verdict) == ("supported", "contradicted")
    assert one.text() == f"+20.0 points [{100 * one.estimate.low:+.1f}, {100 * one.estimate.high:+.1f}]"
    assert set(one.files) == {result.path.name for result in files}
    others = [finding for name, finding in judged.items() if not name.startswith("attention-")]
    assert {finding.verdict for finding in others} == {"not testable here"} and len(others) == 7


def test_only_models_of_one_seed_on_the_same_images_are_compared(tmp_path: Path) -> None:
    base = accuracy(tmp_path, "at", right(0, 60, 20), right(20))
    for different in (
        {"seed": 1},
        {"data": {"sha256": "1"}},
        {"data": {"split": "train"}},
        {"settings": ATTACK | {"steps": 100}},
    ):
        other = accuracy(tmp_path, "at-att", right(60), right(10), **different)
        assert found([base, other])["attention-robustness"].verdict == "not testable here"
    trained = [
        accuracy(tmp_path, variant, right(60), right(20), data={"split": "train"}) for variant in ("at", "at-att")
    ]
    assert found(trained)["attention-accuracy"].verdict == "not testable here"


def test_every_seed_has_to_agree(tmp_path: Path) -> None:
    files = [
        accuracy(tmp_path, variant, right(of), right(of), seed=seed)
        for seed, variant, of in ((0, "at", 20), (0, "at-reg", 60), (1, "at", 50), (1, "at-reg", 51))
    ]
    assert found(files[:2])["regularization-robustness"].verdict == "supported"
    both = found(files)["regularization-robustness"]
    assert [one.where[:6] for one in both.measures] == ["seed 0", "seed 1"]
    assert both.p_value == 1 and both.verdict == "cannot tell"


def test_natural_accuracy_under_two_attacks_is_one_measure(tmp_path: Path) -> None:
    files = [
        accuracy(tmp_path, variant, right(of), right(of), settings=ATTACK | {"steps": steps})
        for variant, of in (("at", 20), ("at-att", 60))
        for steps in (20, 100)
    ]
    judged = found(files)
    assert len(judged["attention-accuracy"].measures) == 1
    assert [one.what[:22] for one in judged["attention-robustness"].measures] == [
        "accuracy under PGD-20 ",
        "accuracy under PGD-100",
    ]


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
    return write(folder, "attention-rank/2", variant, columns, settings=ATTACK | {"weights": weights}, axes=axes)


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
    assert [one.control for one in finding.measures] == [False] * 4 + [True]
    assert finding.measures[4].estimate.value == pytest.approx(np.mean(beyond))
    assert finding.measures[0].estimate.value == pytest.approx(result["per_image/spearman"].mean())
    assert finding.measures[0].what == "Spearman of attention and robustness to PGD-20 at eps 8/255, at-att"
    assert finding.measures[0].text().startswith("+0.50")
    assert finding.verdict == "supported" and finding.p_value is None


def test_a_correlation_no_larger_than_that_of_a_mean_map_is_no_support(tmp_path: Path) -> None:
    # The mean map is (0.4, 0.1, 0, 0) and distances rise: Spearman with robustness 0.95.
    assert found([rank(tmp_path, 0.5, own=False)])["robust-features"].verdict == "cannot tell"
    against = found([rank(tmp_path, -0.5, own=True)])["robust-features"]
    assert against.verdict == "contradicted"


def test_grad_cam_is_not_the_attention_of_a_claim(tmp_path: Path) -> None:
    files = [rank(tmp_path, 0.5, own=True, weights="grad-cam"), rank(tmp_path, 0.5, own=True, variant="at")]
    assert found(files)["robust-features"].verdict == "not testable here"


def localised(folder: Path, variant: str, weights: AnyArray, gradient: AnyArray, of: str = "attention") -> Result:
    both = np.stack([gradient, weights], 1).astype("f4")
    flat = np.ones_like(both)
    columns = {"share": both, "area": 0.25 * flat, "centre": 0.5 * flat}
    axes = dict.fromkeys(columns, ("map",))
    places = {"map": ("gradient", "weights")}
    return write(folder, "localisation/1", variant, columns, settings={"weights": of}, labels=places, axes=axes)


def test_attention_and_gradients_on_the_object(tmp_path: Path) -> None:
    wave = 0.1 * np.sin(np.arange(50))
    undefined = np.where(np.arange(50) < 10, np.nan, 0.4 + wave)
    files = [
        localised(tmp_path, "at-att-reg", 0.75 + wave, 0.6 + wave),
        localised(tmp_path, "at", 0.9 + wave, undefined, of="grad-cam"),
    ]
    judged = found(files)
    attention, gradient = judged["attention-on-object"], judged["cleaner-backgrounds"]
    area, centre = attention.measures
    assert area.estimate.value == pytest.approx(0.5 + wave.mean(), abs=1e-6)
    assert centre.estimate.value == pytest.approx(0.25 + wave.mean(), abs=1e-6) and centre.control
    (difference,) = gradient.measures
    assert difference.estimate.value == pytest.approx(0.2, abs=1e-6) and difference.percent
    assert (difference.count, difference.where) == (40, "seed 0, 40 test images")
    assert attention.verdict == gradient.verdict == "supported"
    without = localised(tmp_path, "at-att", np.full(50, np.nan), 0.6 + wave)
    assert found([without])["attention-on-object"].verdict == "not testable here"


def test_what_is_lost_without_robust_features_is_beyond_what_random_ones_cost(tmp_path: Path) -> None:
    removed, orders = (0, 1, 3, 4), ("random", "attended", "robust")
    correct = np.random.default_rng(0).random((30, 2, 3, 4)) < 0.5
    labels = {"condition": ("clean", "adversarial"), "order": orders}
    axes = {"correct": ("condition", "order", "removed")}
    columns = {"correct": correct.astype("u1")}

    def measured(variant: str, columns: Mapping[str, AnyArray], fill: str = "mean", steps: int = 20) -> Result:
        settings = ATTACK | {"weights": "attention", "fill": fill, "steps": steps}
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
        assert labels["condition"][place] in measure.what
    assert finding.measures[0].what == (
        "accuracy of clean images lost on average over the number of features removed, the robust first, beyond "
        "random order (PGD-20 at eps 8/255, fill mean), at-att"
    )
    assert len(finding.measures) == 2
    several = [measured("at-att", columns, *of) for of in (("mean", 20), ("zero", 20), ("mean", 100))]
    assert len({measure.what for measure in found(several)["robust-features-matter"].measures}) == 6
    fragile = correct.copy()
    fragile[:, :, orders.index("random")], fragile[:, :, orders.index("robust")] = False, True
    assert found([measured("at-att-reg", {"correct": fragile.astype("u1")})])["robust-features-matter"].verdict == (
        "contradicted"
    )


def test_edges_count_beyond_those_of_another_image(tmp_path: Path) -> None:
    wave = 0.1 * np.sin(np.arange(60))
    made = {"at": (0.3 + wave, 0.1 + wave), "at-att-reg": (0.5 + wave, 0.25 + wave)}
    files = [
        write(
            tmp_path,
            "alignment/1",
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


def test_gradient_maps_are_read_by_every_natural_evaluator(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = tuple(READERS)
    first, second = (rng.random((300, 4, 2, 3, 2)) < share for share in (0.6, 0.3))
    first[:, [0, 3]] = False  # evaluators trained adversarially or with attention have no say
    # The second file names its evaluators in another order.
    files = [scored(tmp_path, "at-att-reg", first, names), scored(tmp_path, "at", second[:, ::-1], names[::-1])]
    finding = found(files)["gradmap-score"]
    expected: dict[str, Any] = {}
    for reader, natural in ((1, "small-natural-seed1"), (2, "renamed")):
        for rule, called in ((0, "clipped"), (2, "raw")):
            pair = [[bool(row[reader, 0, rule, 0]) for row in answers] for answers in (first, second)]
            gain = np.mean([a - b for a, b in zip(*pair, strict=True)])
            only = [sum(a > b for a, b in zip(*order, strict=True)) for order in (pair, pair[::-1])]
            expected[f"maps -g ({called}) that {natural} reads, at-att-reg minus at"] = (
                pytest.approx(gain),
                pytest.approx(stats.binomtest(only[0], sum(only)).pvalue),
            )
    assert {one.what: (one.estimate.value, one.p_value) for one in finding.measures} == expected
    assert finding.p_value == max(one.p_value for one in finding.measures if one.p_value is not None)
    assert finding.verdict == "supported"
    weaker = first.copy()
    weaker[:, 2, 0, 2, 0] = second[:, 2, 0, 2, 0]
    mixed = found([scored(tmp_path, "at-att-reg", weaker, names), files[1]])["gradmap-score"]
    assert mixed.verdict == "cannot tell" and mixed.p_value == 1


def test_p_values_are_corrected_over_claims_not_over_measures(tmp_path: Path) -> None:
    outcomes = {"at": 20, "at-att": 60, "at-reg": 45, "at-att-reg": 38}
    files = [accuracy(tmp_path, variant, right(20), right(of)) for variant, of in outcomes.items()]
    judged = found(files)
    names = ("attention-accuracy", "attention-robustness", "regularization-robustness", "both-robustness")
    raw = [judged[name].measures[0].p_value for name in names]
    assert raw == [1.0, *(pytest.approx(2 * 0.5**more) for more in (40, 25, 18))]
    assert [judged[name].p_value for name in names] == [
        1.0,
        pytest.approx(4 * 2 * 0.5**40),
        pytest.approx(3 * 2 * 0.5**25),
        pytest.approx(2 * 2 * 0.5**18),
    ]


def test_every_claim_can_be_measured_and_is_of_an_analysis_that_exists() -> None:
    assert list(claims.MEASURED) == [claim.name for claim in paper.CLAIMS]
    assert {claim.analysis for claim in paper.CLAIMS} <= set(analyses.names())
    for claim in paper.CLAIMS:
        assert len(claim.variants) == 2
        assert all(set(claim.variants) <= set(row) for row in claim.reported.values())


def test_claims_need_no_torch() -> None:
    script = "import sys, interpret_robust.claims; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"
