"""What a study says of each claim of the paper: estimates from per-image columns, and a verdict.

Every estimate is above zero where the claim holds. Where two models are compared they have the same training
seed and met the same images under the same settings, and the estimate is the mean of the difference on each
image. Intervals are over images: of what another training seed would give they say nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Literal

import numpy as np

from interpret_robust.drawing import conditions
from interpret_robust.gradmap_tables import is_read, shared_evaluators
from interpret_robust.labels import GRAD_CAM, VIEWS, job, order, places, radius, short_name, weights_of
from interpret_robust.paper import CLAIMS, Claim
from interpret_robust.regions import mean_map
from interpret_robust.results import AnyArray, Result
from interpret_robust.statistics import Interval, area_under, bootstrap_mean, holm, mcnemar, row_spearman
from interpret_robust.variants import VARIANTS

Verdict = Literal["supported", "contradicted", "cannot tell", "not testable here"]

SIGNIFICANT = 0.05
VIEWED = {"clip": "clipped", "raw": "raw"}
"""The paper's two columns of Table 4."""


@dataclass(frozen=True)
class Measure:
    """One estimate that bears on a claim, above zero where the claim holds.

    Attributes:
        what, where: what is estimated, and of which training seed and images.
        estimate: the mean over images and its bootstrap 95 % interval.
        count: number of images in the mean.
        percent: whether it is a difference of shares.
        p_value: of McNemar's exact test, where models are compared by what they have right.
        control: whether it is a control. A claim is supported only if its controls hold too; a control that
            fails contradicts nothing.
        files: what it was computed from.
    """

    what: str
    where: str
    estimate: Interval
    count: int
    percent: bool = False
    p_value: float | None = None
    control: bool = False
    files: tuple[str, ...] = field(default=(), compare=False)

    @property
    def sign(self) -> int:
        """1 or -1 where the interval tells the estimate from zero, else 0."""
        return int(self.estimate.low > 0) - int(self.estimate.high < 0)

    def text(self) -> str:
        """As `+6.4 points [+3.5, +9.3]` or `-0.597 [-0.604, -0.590]`."""
        value, low, high = self.estimate
        if self.percent:
            return f"{100 * value:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
        return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


@dataclass(frozen=True)
class Finding:
    """A claim and what was measured of it.

    `p_value` is the largest of the measures' tests, since all have to agree, corrected by Holm over the claims that
    are tested; None where none is.
    """

    claim: Claim
    measures: tuple[Measure, ...]
    p_value: float | None = None

    @property
    def verdict(self) -> Verdict:
        """`supported` where all measures have the claimed sign, `contradicted` where all but controls the other.

        Both only where the p-value, if there is one, is below SIGNIFICANT.
        """
        if not self.measures:
            return "not testable here"
        if self.p_value is not None and self.p_value >= SIGNIFICANT:
            return "cannot tell"
        if all(measure.sign > 0 for measure in self.measures):
            return "supported"
        if all(measure.sign < 0 for measure in self.measures if not measure.control):
            return "contradicted"
        return "cannot tell"


def judge(results: Sequence[Result]) -> list[Finding]:
    """Every claim, against the files of one dataset, one architecture and one dataset of training."""
    ordered = sorted(results, key=order)
    found = [Finding(claim, tuple(_measured(claim, ordered))) for claim in CLAIMS]
    largest = {
        place: max(tests)
        for place, finding in enumerate(found)
        if (tests := [measure.p_value for measure in finding.measures if measure.p_value is not None])
    }
    for place, p_value in zip(largest, holm(list(largest.values())), strict=True):
        found[place] = replace(found[place], p_value=p_value)
    return found


def _measured(claim: Claim, results: Sequence[Result]) -> list[Measure]:
    """What can be measured of a claim: each once, where several files say the same, and nothing without a value."""
    return list(dict.fromkeys(measure for measure in MEASURED[claim.name](claim, results) if measure.count))


def _of(claim: Claim, results: Sequence[Result], variant: str) -> list[Result]:
    """The files of a claim's analysis of one variant."""
    name = f"{claim.analysis}/"
    return [result for result in results if result.schema.startswith(name) and job(result)["variant"] == variant]


def _pairs(claim: Claim, results: Sequence[Result]) -> Iterator[tuple[Result, Result]]:
    """Files of the two variants of a claim that can be compared image by image."""
    first, second = claim.variants
    for one, other in product(_of(claim, results, first), _of(claim, results, second)):
        if job(one)["seed"] == job(other)["seed"] and conditions(one) == conditions(other):
            yield one, other


def _own_attention(claim: Claim, results: Sequence[Result]) -> list[Result]:
    """The files of a claim's variants where attention, not Grad-CAM, gives the weights."""
    found = [result for variant in claim.variants for result in _of(claim, results, variant)]
    return [result for result in found if weights_of(result) != GRAD_CAM]


def _compared(what: str, pair: tuple[Result, Result], values: tuple[AnyArray, AnyArray]) -> Measure:
    """The mean difference of two models' values (N,) on the same images, tested where these are yes or no."""
    first, second = values
    difference = first.astype(np.float64) - second
    count, answers = int(np.isfinite(difference).sum()), first.dtype == bool
    return Measure(
        f"{what}, {' minus '.join(job(result)['variant'] for result in pair)}",
        _where(pair[0], count),
        bootstrap_mean(difference),
        count,
        percent=answers,
        p_value=mcnemar(first, second).p_value if answers else None,
        files=tuple(result.path.name for result in pair),
    )


def _mean(what: str, result: Result, values: AnyArray, *, percent: bool = False, control: bool = False) -> Measure:
    """The mean of one model's values (N,); images without a value are left out."""
    count = int(np.isfinite(values).sum())
    what, where = f"{what}, {job(result)['variant']}", _where(result, count)
    return Measure(what, where, bootstrap_mean(values), count, percent, None, control, (result.path.name,))


def _where(result: Result, count: int) -> str:
    """As `seed 0, 1000 test images`."""
    return f"seed {job(result)['seed']}, {count} {result.config['data']['split']} images"


def _attack(result: Result) -> str:
    """As `PGD-20 at eps 8/255`."""
    settings = result.config["settings"]
    return f"PGD-{settings['steps']} at eps {radius(settings['eps'])}"


def _accuracy(claim: Claim, results: Sequence[Result]) -> Iterator[Measure]:
    """On test images, natural where the claim is about these, else adversarial."""
    natural = "natural" in claim.reported
    column = "per_image/prediction_natural" if natural else "per_image/prediction_adversarial"
    for pair in _pairs(claim, results):
        if pair[0].config["data"]["split"] == "test":
            what = "accuracy on natural images" if natural else f"accuracy under {_attack(pair[0])}"
            first, second = (result[column] == result["per_image/label"] for result in pair)
            yield _compared(what, pair, (first, second))


def _robust_features(claim: Claim, results: Sequence[Result]) -> Iterator[Measure]:
    for result in _own_attention(claim, results):
        for what, column in (
            (f"Spearman of attention and robustness to {_attack(result)}", "spearman"),
            ("the same by relative distance", "spearman_relative"),
            ("the same given the feature's norm", "spearman_partial"),
            ("Spearman of attention and robustness to noise", "spearman_noise"),
        ):
            yield _mean(what, result, result[f"per_image/{column}"])
        own, attention = result["per_image/spearman"], result["per_image/attention"]
        prior = np.broadcast_to(mean_map(attention), attention.shape)
        beyond = own - row_spearman(prior, -result["per_image/distance"])
        yield _mean("Spearman minus that of the mean attention map", result, beyond, control=True)


def _robust_features_matter(claim: Claim, results: Sequence[Result]) -> Iterator[Measure]:
    for result in _own_attention(claim, results):
        removed, orders, fill = result["removed"], places(result, "order"), result.config["settings"]["fill"]
        for place, condition in enumerate(places(result, "condition")):
            area = area_under(result["per_image/correct"][:, place], removed)
            lost = area[:, orders.index("random")] - area[:, orders.index("robust")]
            what = (
                f"accuracy of {condition} images lost on average over the number of features removed, the robust "
                f"first, beyond random order ({_attack(result)}, fill {fill})"
            )
            yield _mean(what, result, lost, percent=True)


def _attention_on_object(claim: Claim, results: Sequence[Result]) -> Iterator[Measure]:
    for result in _own_attention(claim, results):
        place = places(result, "map").index("weights")
        share, area, centre = (result[f"per_image/{column}"][:, place] for column in ("share", "area", "centre"))
        yield _mean("attention on the object minus the object's area", result, share - area, percent=True)
        yield _mean("the same minus a centre prior's share", result, share - centre, percent=True, control=True)


def _gradmap_score(claim: Claim, results: Sequence[Result]) -> Iterator[Measure]:
    """The paper's cell at sign minus, by each natural evaluator that read both, clipped and raw."""
    for pair in _pairs(claim, results):
        natural = [name for name in shared_evaluators(pair) if _is_natural(pair[0], name)]
        for evaluator, view in product(natural, VIEWS):
            first, second = (is_read(result, evaluator, view) for result in pair)
            what = f"maps -g ({VIEWED[view]}) that {short_name(pair[0], evaluator)} reads"
            yield _compared(what, pair, (first, second))


def _is_natural(result: Result, evaluator: str) -> bool:
    """Whether an evaluator is of the paper's kind: naturally trained, without attention."""
    of = VARIANTS[result.config["evaluators"]["jobs"][evaluator]["variant"]]
    return not of.adversarial and of.head == "average"


def _alignment(claim: Claim, results: Sequence[Result]) -> Iterator[Measure]:
    for pair in _pairs(claim, results):
        own, shuffled = (
            [result[f"per_image/edge_cosine{of}"].astype(np.float64) for result in pair] for of in ("", "_shuffled")
        )
        yield _compared("cosine of |g| and the image's edges", pair, (own[0], own[1]))
        beyond = (own[0] - shuffled[0], own[1] - shuffled[1])
        yield _compared("the same beyond that with another image's edges", pair, beyond)


def _cleaner_backgrounds(claim: Claim, results: Sequence[Result]) -> Iterator[Measure]:
    for pair in _pairs(claim, results):
        first, second = (result["per_image/share"][:, places(result, "map").index("gradient")] for result in pair)
        yield replace(_compared("share of the gradient's energy on the object", pair, (first, second)), percent=True)


MEASURED: dict[str, Callable[[Claim, Sequence[Result]], Iterator[Measure]]] = {
    "attention-accuracy": _accuracy,
    "attention-robustness": _accuracy,
    "regularization-robustness": _accuracy,
    "both-robustness": _accuracy,
    "robust-features": _robust_features,
    "robust-features-matter": _robust_features_matter,
    "attention-on-object": _attention_on_object,
    "gradmap-score": _gradmap_score,
    "alignment": _alignment,
    "cleaner-backgrounds": _cleaner_backgrounds,
}
