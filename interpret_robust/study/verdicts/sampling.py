"""Which function samples which claim: by its name, else by its analysis."""

from collections.abc import Callable, Iterator, Sequence

from interpret_robust.results.hdf5 import Result
from interpret_robust.study.paper import Claim
from interpret_robust.study.verdicts import accuracy, maps, ranges
from interpret_robust.study.verdicts.combination import combine
from interpret_robust.study.verdicts.measure import Measure
from interpret_robust.study.verdicts.sample import Sample

Sampler = Callable[[Claim, tuple[str, ...], Sequence[Result]], Iterator[Sample]]

BY_ANALYSIS: dict[str, Sampler] = {
    "robustness": accuracy.accuracy,
    "attention-rank": maps.robust_features,
    "feature-deletion": maps.robust_features_matter,
    "gradmap-score": maps.gradmap_score,
    "alignment": maps.alignment,
}
BY_CLAIM: dict[str, Sampler] = {
    "attention-on-object": maps.attention_on_object,
    "cleaner-backgrounds": maps.cleaner_backgrounds,
    "lambda-range": ranges.weights_in_range,
    "mnist-lambda-range": ranges.weights_in_range,
    "wide-robustness": ranges.narrow_and_wide,
}


def find_sampler(claim: Claim) -> Sampler:
    """Return the function that samples a claim."""
    return BY_CLAIM.get(claim.name) or BY_ANALYSIS[claim.analysis]


def list_measures(claim: Claim, results: Sequence[Result]) -> tuple[Measure, ...]:
    """Return what files say of a claim."""
    return tuple(combine(sample for models in claim.models for sample in find_sampler(claim)(claim, models, results)))
