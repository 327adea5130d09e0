"""How the samples of several seeds and conditions become measures, and which of these decide."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from interpret_robust.core.bootstrap import bootstrap_mean
from interpret_robust.core.errors import UserError
from interpret_robust.core.significance import average_seeds, mcnemar
from interpret_robust.results.hdf5 import Result
from interpret_robust.study.verdicts.measure import Measure, list_figures
from interpret_robust.study.verdicts.sample import Sample


def combine(samples: Iterable[Sample]) -> list[Measure]:
    """Return measures of a claim's samples: once where several files say the same, and nothing without a value."""
    seeds: dict[tuple[str, ...], dict[int, Sample]] = {}
    sources: dict[tuple[str, str, int], Result] = {}
    for sample in samples:
        _check_images(sample, sources)
        if np.isfinite(sample.difference).any():
            key = (sample.quantity, *sample.models, sample.conditions)
            earlier = seeds.setdefault(key, {}).setdefault(sample.seed, sample)
            _check_same(earlier, sample)
    weights: dict[str, tuple[Any, ...]] = {}
    for (*_, condition), decisive in seeds.items():
        weights[condition] = max(weights.get(condition, ()), _weight(list(decisive.values())))
    main = max(weights, key=lambda condition: weights[condition], default="")
    decides: dict[Measure, bool] = {}
    for (*_, condition), decisive in seeds.items():
        measure = _combine([decisive[seed] for seed in sorted(decisive)])
        decides[measure] = decides.get(measure, False) or condition == main
    return [measure if decisive else replace(measure, kind="further") for measure, decisive in decides.items()]


def _weight(samples: Sequence[Sample]) -> tuple[bool, bool, int, int]:
    """Return how much conditions weigh: those decide that are in the ball of training, of test images, of most."""
    source = samples[0].sources[0]
    settings, recipe = source.config["settings"], source.job.get("recipe", {})
    own_ball = settings.get("eps") is None or all(
        settings.get(name, default) == recipe.get(name, default) for name, default in (("eps", None), ("norm", "linf"))
    )
    return own_ball, source.config["data"]["split"] == "test", len(samples[0].difference), len(samples)


def _check_same(first: Sample, second: Sample) -> None:
    if not np.array_equal(first.difference, second.difference, equal_nan=True):
        pair = next(pair for pair in zip(first.sources, second.sources, strict=True) if pair[0] is not pair[1])
        raise UserError(f"{pair[0].path} and {pair[1].path} have different numbers for one model: name one of them.")


def _check_images(sample: Sample, sources: dict[tuple[str, str, int], Result]) -> None:
    """Keep the first source of each dataset, split and number of images.

    Raises UserError for as many others of that name; files of different numbers of images are not told apart.
    """
    for source in sample.sources:
        earlier = sources.setdefault((source.data["dataset"], source.data["split"], source.data["images"]), source)
        if source.data["sha256"] != earlier.data["sha256"]:
            raise UserError(
                f"{earlier.path} and {source.path} are of different images, which have one name, "
                f"{source.data['dataset']}: name the files of one of them."
            )


def _combine(samples: Sequence[Sample]) -> Measure:
    """Return one measure of the samples of several seeds."""
    first, differences = samples[0], [sample.difference for sample in samples]
    finite = [np.isfinite(difference) for difference in differences]
    means = np.array(
        [[values[mask].mean() for values in sample.values] for sample, mask in zip(samples, finite, strict=True)]
    )
    p_value: float | None = None
    if len(samples) > 1:
        estimate, p_value = average_seeds(differences)
    else:
        estimate = bootstrap_mean(differences[0])
        if len(first.values) == 2 and all(values.dtype == bool for values in first.values):
            p_value = mcnemar(*first.values).p_value
    return Measure(
        first.quantity,
        first.models,
        first.sources[0].config["data"]["split"],
        tuple(sample.seed for sample in samples),
        tuple(float(difference[mask].mean()) for difference, mask in zip(differences, finite, strict=True)),
        tuple(int(mask.sum()) for mask in finite),
        estimate,
        p_value,
        levels=tuple(means.mean(0).tolist()) if means.shape[1] > 1 else (),
        paper_figures=list_figures(first.models, first.row),
        percent=first.percent,
        kind=first.kind,
        setting=first.setting,
        files=tuple(dict.fromkeys(source.path.name for sample in samples for source in sample.sources)),
    )
