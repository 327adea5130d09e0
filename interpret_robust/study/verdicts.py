"""What a study says of each claim of the paper: estimates from per-image columns, and a verdict.

Every estimate is above zero where the claim holds. Where models are compared they have the same training seed and met
the same images under the same settings. Estimates of several training seeds are one, with an interval over seeds and
images; that of a single seed is over images alone, and says nothing of what another seed would give.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np

from interpret_robust.attribution.regions import mean_map
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import UserError
from interpret_robust.core.statistics import (
    Interval,
    area_under,
    bootstrap_mean,
    holm,
    mcnemar,
    over_seeds,
    row_spearman,
)
from interpret_robust.models.variants import has_attention, is_adversarial, is_brought
from interpret_robust.results.attack_outcomes import (
    ball,
    fullest,
    headline_of,
    is_attacked,
    readings,
    right,
    right_in_worst_case,
    targets,
)
from interpret_robust.results.attack_tables import paper_sources
from interpret_robust.results.conditions import conditions
from interpret_robust.results.gradmap_tables import is_read, shared_evaluators
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import ATTENTION, GRADIENT, VIEWS, job, maps_of, order, places, radius, weights_of
from interpret_robust.study.paper import CLAIMS, Claim, Row, row

Verdict = Literal["holds", "does not hold", "cannot tell", "not tested"]
Kind = Literal["main", "control", "further"]
"""What a measure is for: it decides; a claim holds only if it holds too, but it refutes none; it is only shown."""

SIGNIFICANT = 0.05
VIEWED = {"clip": "clipped", "raw": "raw"}
"""The paper's two columns of Table 4."""


@dataclass(frozen=True)
class Measure:
    """One estimate that bears on a claim, above zero where the claim holds.

    Attributes:
        what: what is estimated.
        models: of which variant; or of which two the difference, first minus second.
        split: of which images.
        seeds: of which training seeds.
        each: each seed's own estimate.
        images: each seed's number of images that have a value.
        estimate: the mean over seeds and images with its 95 % interval: by `over_seeds`, or for one seed by bootstrap.
        p_value: of `over_seeds`; for one seed of McNemar's exact test where the values are yes or no, else None.
        levels: the two models' own means.
        reported: the paper's figures of the two models in percent; none where it lacks one.
        percent: whether it is a share, or a difference of shares.
        kind: what it is for.
        files: what it was computed from.
    """

    what: str
    models: tuple[str, ...]
    split: str
    seeds: tuple[int, ...]
    each: tuple[float, ...]
    images: tuple[int, ...]
    estimate: Interval
    p_value: float | None = None
    levels: tuple[float, ...] = ()
    reported: tuple[float, ...] = ()
    percent: bool = False
    kind: Kind = "main"
    files: tuple[str, ...] = field(default=(), compare=False)

    @property
    def sign(self) -> int:
        """1 or -1 where the interval tells the estimate from zero, else 0."""
        return int(self.estimate.low > 0) - int(self.estimate.high < 0)

    @property
    def of(self) -> str:
        """As `at-att minus at`."""
        return " minus ".join(self.models)

    @property
    def count(self) -> str:
        """The number of images of a seed: as `1000`, or `997 to 1000` where it differs."""
        return " to ".join(map(str, dict.fromkeys((min(self.images), max(self.images)))))

    @property
    def where(self) -> str:
        """As `seeds 0, 1, 2; 1000 test images each`."""
        if len(self.seeds) == 1:
            return f"seed {self.seeds[0]}; {self.count} {self.split} images, the interval over these alone"
        return f"seeds {', '.join(map(str, self.seeds))}; {self.count} {self.split} images each"

    @property
    def ours(self) -> str:
        """As `at 52.1 -> at-att 58.5`, in percent where it is of shares; of a single model its name."""
        if not self.levels:
            return self.of
        return _side_by_side(
            self.models, [f"{100 * level:.1f}" if self.percent else f"{level:.3f}" for level in self.levels]
        )

    @property
    def paper(self) -> str:
        """As `at 39.72 -> at-att 41.39 (+1.67)`; empty where the paper has no such figures."""
        return _told(self.models, self.reported)

    def text(self) -> str:
        """As `+6.4 points [+3.5, +9.3]` or `-0.597 [-0.604, -0.590]`."""
        value, low, high = self.estimate
        if self.percent:
            return f"{100 * value:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
        return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"

    def seed_texts(self) -> list[str]:
        """As `seed 0: +6.4 points`."""
        shown = [f"{100 * value:+.1f} points" if self.percent else f"{value:+.3f}" for value in self.each]
        return [f"seed {seed}: {value}" for seed, value in zip(self.seeds, shown, strict=True)]


def _figures(models: tuple[str, ...], row: Row) -> tuple[float, ...]:
    """A row's figures of two models; none where it lacks one."""
    return tuple(row[model] for model in models) if set(models) <= row.keys() else ()


def _told(models: Sequence[str], figures: Sequence[float]) -> str:
    """As `at 39.72 -> at-att 41.39 (+1.67)`; empty for no figures."""
    if not figures:
        return ""
    return f"{_side_by_side(models, [f'{one:.2f}' for one in figures])} ({figures[0] - figures[1]:+.2f})"


def _side_by_side(models: Sequence[str], levels: Sequence[str]) -> str:
    """As `at 52.1 -> at-att 58.5`: what the first model is compared with comes first."""
    return " -> ".join(" ".join(pair) for pair in reversed(list(zip(models, levels, strict=True))))


@dataclass(frozen=True)
class Finding:
    """A claim and what was measured of it.

    `table` is the paper's table that its models stand beside. `p_value` is the largest of the deciding measures'
    tests, since all have to agree, corrected by Holm over the claims of the same section; None where none is tested.
    """

    claim: Claim
    table: str
    measures: tuple[Measure, ...]
    p_value: float | None = None

    @property
    def paper(self) -> str:
        """The paper's headline figures of the first models that it compares; empty where there are none."""
        models, settings = self.claim.models[0], self.claim.settings
        return _told(models, _figures(models, row(self.claim.table or self.table, settings[0]))) if settings else ""

    def of(self, *kinds: Kind) -> tuple[Measure, ...]:
        """The measures of these kinds."""
        return tuple(measure for measure in self.measures if measure.kind in kinds)

    @property
    def verdict(self) -> Verdict:
        """`holds` where all measures that decide and all controls are above zero, `does not hold` where all are below.

        Both only where the p-value, if there is one, is below SIGNIFICANT. Controls have no say in the second. What is
        said to be the best is refuted by one measure below zero, its p-value times the number of these measures.
        """
        main = self.of("main")
        if not main:
            return "not tested"
        if self.claim.superlative and any(_is_below(measure, len(main)) for measure in main):
            return "does not hold"
        if self.p_value is not None and self.p_value >= SIGNIFICANT:
            return "cannot tell"
        if all(measure.sign > 0 for measure in self.of("main", "control")):
            return "holds"
        if all(measure.sign < 0 for measure in main):
            return "does not hold"
        return "cannot tell"


def _is_below(measure: Measure, of: int) -> bool:
    return measure.sign < 0 and (measure.p_value is None or of * measure.p_value < SIGNIFICANT)


def judge(results: Sequence[Result]) -> list[Finding]:
    """Every claim, against the files of one dataset, one architecture and one dataset of training.

    Raises UserError for two files that say different things of one model.
    """
    ordered = sorted(fullest(results), key=order)
    dataset, table = ordered[0].config["data"]["dataset"], _table(ordered[0])
    found = [
        Finding(claim, table, tuple(_measured(claim, ordered)) if claim.is_about(dataset) else ()) for claim in CLAIMS
    ]
    for section in dict.fromkeys(claim.section for claim in CLAIMS):
        family = {
            place: max(tests)
            for place, finding in enumerate(found)
            if finding.claim.section == section
            and (tests := [measure.p_value for measure in finding.of("main") if measure.p_value is not None])
        }
        for place, p_value in zip(family, holm(list(family.values())), strict=True):
            found[place] = replace(found[place], p_value=p_value)
    return found


class _Sample(NamedTuple):
    """What one training seed gives for a measure: `values` (N,) of each of the models on the same images.

    `row` is the paper's row that has their figures.
    """

    what: str
    models: tuple[str, ...]
    seed: int
    sources: tuple[Result, ...]
    values: tuple[AnyArray, ...]
    percent: bool = False
    kind: Kind = "main"
    row: Row = MappingProxyType({})

    @property
    def difference(self) -> AnyArray:
        """The first model's values, minus the second's if there are two."""
        first, *rest = (values.astype(np.float64) for values in self.values)
        return np.asarray(first - rest[0] if rest else first)


def _measured(claim: Claim, results: Sequence[Result]) -> list[Measure]:
    """What can be measured of a claim: once where several files say the same, and nothing without a value."""
    seeds: dict[tuple[str, ...], dict[int, _Sample]] = {}
    for models in claim.models:
        for sample in SAMPLED[claim.name](claim, models, results):
            if np.isfinite(sample.difference).any():
                key = (sample.what, *models, _compared_under(sample.sources[0]))
                known = seeds.setdefault(key, {}).setdefault(sample.seed, sample)
                _check_same(known, sample)
    weights: dict[str, tuple[Any, ...]] = {}
    for (*_, under), of in seeds.items():
        weights[under] = max(weights.get(under, ()), _weight(list(of.values())))
    deciding = max(weights, key=lambda under: weights[under], default="")
    decides: dict[Measure, bool] = {}
    for (*_, under), of in seeds.items():
        measure = _combined([of[seed] for seed in sorted(of)])
        decides[measure] = decides.get(measure, False) or under == deciding
    return [measure if of else replace(measure, kind="further") for measure, of in decides.items()]


def _weight(samples: Sequence[_Sample]) -> tuple[bool, bool, int, int]:
    """Of samples under several conditions those decide that are in the ball of training, of test images, of most."""
    source = samples[0].sources[0]
    settings, trained = source.config["settings"], job(source).get("recipe", {})
    own_ball = settings.get("eps") in (None, trained.get("eps"))
    return own_ball, source.config["data"]["split"] == "test", len(samples[0].difference), len(samples)


def _check_same(known: _Sample, other: _Sample) -> None:
    if not np.array_equal(known.difference, other.difference, equal_nan=True):
        pair = next(pair for pair in zip(known.sources, other.sources, strict=True) if pair[0] is not pair[1])
        raise UserError(f"{pair[0].path} and {pair[1].path} say different things of one model: name one of them.")


def _combined(samples: Sequence[_Sample]) -> Measure:
    """One measure of the samples of several seeds."""
    first, differences = samples[0], [sample.difference for sample in samples]
    defined = [np.isfinite(difference) for difference in differences]
    means = np.array(
        [[values[at].mean() for values in sample.values] for sample, at in zip(samples, defined, strict=True)]
    )
    p_value: float | None = None
    if len(samples) > 1:
        estimate, p_value = over_seeds(differences)
    else:
        estimate = bootstrap_mean(differences[0])
        if len(first.values) == 2 and all(values.dtype == bool for values in first.values):
            p_value = mcnemar(*first.values).p_value
    return Measure(
        first.what,
        first.models,
        first.sources[0].config["data"]["split"],
        tuple(sample.seed for sample in samples),
        tuple(float(difference[at].mean()) for difference, at in zip(differences, defined, strict=True)),
        tuple(int(at.sum()) for at in defined),
        estimate,
        p_value,
        levels=tuple(means.mean(0).tolist()) if means.shape[1] > 1 else (),
        reported=_figures(first.models, first.row),
        percent=first.percent,
        kind=first.kind,
        files=tuple(dict.fromkeys(source.path.name for sample in samples for source in sample.sources)),
    )


def _alike(claim: Claim, models: tuple[str, ...], results: Sequence[Result]) -> Iterator[tuple[Result, ...]]:
    """Files of a claim's analysis, one of each model, of one training seed and comparable image by image.

    The paper's claims are about gradients: files of other maps do not bear on them.
    """
    analysis = [
        result for result in results if result.schema.startswith(f"{claim.analysis}/") and maps_of(result) == GRADIENT
    ]
    for files in product(*([one for one in analysis if job(one)["variant"] == model] for model in models)):
        if all(job(one)["seed"] == job(files[0])["seed"] for one in files) and all(
            _compared_under(one) == _compared_under(files[0]) for one in files
        ):
            yield files


def _compared_under(result: Result) -> str:
    """What models have in common that are compared: training but for the variant, images, settings but for readings."""
    trained = {key: value for key, value in job(result).items() if key not in ("variant", "seed")}
    settings = {"settings": ball(result)} if is_attacked(result) else {}
    return json.dumps({**conditions(result), **settings, "trained": trained})


def _own_attention(claim: Claim, models: tuple[str, ...], results: Sequence[Result]) -> Iterator[Result]:
    """A model's files where its own attention gives the weights."""
    return (result for (result,) in _alike(claim, models, results) if weights_of(result) == ATTENTION)


def _sample(what: str, files: Sequence[Result], values: Sequence[AnyArray], **other: Any) -> _Sample:
    """What files of one training seed give, one of each model."""
    models = tuple(job(result)["variant"] for result in files)
    return _Sample(what, models, job(files[0])["seed"], tuple(files), tuple(values), **other)


def _averaged(outcomes: Sequence[AnyArray]) -> AnyArray:
    """The mean (N,) of several outcomes (N,); a single one stays what it is."""
    return outcomes[0] if len(outcomes) == 1 else np.mean(outcomes, axis=0)


def _attack(result: Result) -> str:
    return _named(f"PGD-{result.config['settings']['steps']}", result)


def _accuracy(claim: Claim, models: tuple[str, ...], results: Sequence[Result]) -> Iterator[_Sample]:
    """Accuracies on test images, in each setting that the claim is about."""
    tested = [result for result in results if result.config["data"]["split"] == "test"]
    for setting in claim.settings:
        yield from _ACCURACIES[setting](claim, models, tested)


def _natural(claim: Claim, models: tuple[str, ...], results: Sequence[Result]) -> Iterator[_Sample]:
    for pair in _alike(claim, models, results):
        values = [right(result, None) for result in pair]
        yield _sample("natural accuracy", pair, values, percent=True, row=_row(claim, pair[0], "natural"))


def _white_box(claim: Claim, models: tuple[str, ...], results: Sequence[Result]) -> Iterator[_Sample]:
    """The headline's reading and every image's worst case decide; the other readings are shown."""
    for pair in _alike(claim, models, results):
        shared = _by_weight(pair)
        for reading, kind in shared:
            values = [right(result, reading) for result in pair]
            found = _row(claim, pair[0], "white-box", reading, headline=kind == "main")
            yield _sample(f"accuracy, {_named(reading, pair[0])}", pair, values, percent=True, kind=kind, row=found)
        if len(shared) > 1:
            over = sorted(reading for reading, _ in shared)
            values = [right_in_worst_case(result, subset=over) for result in pair]
            yield _sample(f"accuracy, each image's worst of {', '.join(over)}", pair, values, percent=True)


class _Transfer(NamedTuple):
    """What copies of one seed answered to attacks on models of another, `sources`: which images (N,) are right."""

    sources: tuple[Result, ...]
    right: tuple[AnyArray, ...]
    kind: Kind


def _black_box(claim: Claim, models: tuple[str, ...], results: Sequence[Result]) -> Iterator[_Sample]:
    """As `_white_box`, without a worst case: on what was made on a model's copies.

    An attack has a seed that it is made on and one that reads it. Both differ from training to training, so that the
    seeds of either kind, averaged over the other, have to agree. What several files say of two seeds counts once.
    """
    groups: dict[tuple[str, str, str, int], dict[tuple[int, int], _Transfer]] = {}
    for sources in _alike(claim, models, results):
        copies, made_on = [_copies(source) for source in sources], job(sources[0])["seed"]
        for (reading, kind), read_by in product(_by_weight(sources), sorted(set.intersection(*map(set, copies)))):
            answers = [right(source, reading, of[read_by]) for source, of in zip(sources, copies, strict=True)]
            for by, seed in (("attacked", read_by), ("attacking", made_on)):
                group = groups.setdefault((_compared_under(sources[0]), reading, by, seed), {})
                group.setdefault((made_on, read_by), _Transfer(sources, tuple(answers), kind))
    for (_, reading, by, seed), transfers in groups.items():
        yield _transferred(claim, reading, by, seed, list(transfers.values()))


def _transferred(claim: Claim, reading: str, by: str, seed: int, transfers: Sequence[_Transfer]) -> _Sample:
    first, kind = transfers[0].sources, transfers[0].kind
    values = [_averaged(of) for of in zip(*(one.right for one in transfers), strict=True)]
    what = f"accuracy, {_named(reading, first[0])} on copies, by {by} seed"
    there = _row(claim, first[0], "black-box", reading, headline=kind == "main")
    made = _sample(what, first, values, percent=True, kind=kind, row=there)
    return made._replace(seed=seed, sources=tuple(source for one in transfers for source in one.sources))


def _by_weight(results: Sequence[Result]) -> list[tuple[str, Kind]]:
    """The readings that files share and what they are for, the headline's first."""
    shared = [one for one in readings(results[0]) if all(one in readings(result) for result in results)]
    first = headline_of(shared)
    ordered = sorted(shared, key=lambda one: one != first)
    return [(reading, "main" if reading == first else "further") for reading in ordered]


def _named(reading: str, result: Result) -> str:
    """As `PGD-20 at eps 8/255`."""
    return f"{reading} at eps {radius(result.config['settings']['eps'])}"


def _copies(source: Result) -> dict[int, int]:
    """Where a model's copies stand among the targets of its attacks, by training seed."""
    jobs: Mapping[str, Mapping[str, object]] = source.config.get("evaluators", {}).get("jobs", {})
    own = {**job(source), "seed": None}
    return {
        int(str(jobs[name]["seed"])): place
        for place, name in enumerate(targets(source))
        if name in jobs and {**jobs[name], "seed": None} == own
    }


def _row(claim: Claim, result: Result, *of: str, headline: bool = True) -> Row:
    """The paper's row of a setting, and under attack of a reading, that a file's model stands beside."""
    return row(claim.table or _table(result), *of, headline=headline)


def _table(result: Result) -> str:
    """The paper's table of accuracies that a file's model stands beside: Table 2 where none is of its dataset."""
    sources = paper_sources(result.config["data"]["dataset"], job(result)["architecture"])
    return next(iter(sources), "table2")


_ACCURACIES = {"natural": _natural, "white-box": _white_box, "black-box": _black_box}


def _robust_features(claim: Claim, models: tuple[str, ...], results: Sequence[Result]) -> Iterator[_Sample]:
    for result in _own_attention(claim, models, results):
        measured: tuple[tuple[str, str, Kind], ...] = (
            (f"Spearman of attention and robustness to {_attack(result)}", "spearman", "main"),
            ("the same by relative distance", "spearman_relative", "control"),
            ("the same given the feature's norm", "spearman_partial", "control"),
            ("Spearman of attention and robustness to noise", "spearman_noise", "control"),
        )
        for what, column, kind in measured:
            yield _sample(what, [result], [result[f"per_image/{column}"]], kind=kind)
        own, attention = result["per_image/spearman"], result["per_image/attention"]
        prior = np.broadcast_to(mean_map(attention), attention.shape)
        beyond = own - row_spearman(prior, -result["per_image/distance"])
        yield _sample("Spearman minus that of the mean attention map", [result], [beyond], kind="control")


def _robust_features_matter(claim: Claim, models: tuple[str, ...], results: Sequence[Result]) -> Iterator[_Sample]:
    """What is lost on average over the number of features removed."""
    for result in _own_attention(claim, models, results):
        removed, orders, fill = result["removed"], places(result, "order"), result.config["settings"]["fill"]
        for place, condition in enumerate(places(result, "condition")):
            area = area_under(result["per_image/correct"][:, place], removed)
            lost = area[:, orders.index("random")] - area[:, orders.index("robust")]
            told = f"{_attack(result)}, fill {fill}"
            what = f"{condition} accuracy lost, robust features first beyond random order ({told})"
            yield _sample(what, [result], [lost], percent=True)


def _attention_on_object(claim: Claim, models: tuple[str, ...], results: Sequence[Result]) -> Iterator[_Sample]:
    for result in _own_attention(claim, models, results):
        place = places(result, "map").index("weights")
        share = result["per_image/share"][:, place]
        area, centre = share - result["per_image/area"][:, place], share - result["per_image/centre"][:, place]
        yield _sample("attention on the object minus the object's area", [result], [area], percent=True)
        yield _sample("the same minus a centre prior's share", [result], [centre], percent=True, kind="control")


def _gradmap_score(claim: Claim, models: tuple[str, ...], results: Sequence[Result]) -> Iterator[_Sample]:
    """The paper's cell at sign minus, clipped and raw, by the natural evaluators of each architecture that read both.

    Those of one architecture are averaged: which seeds they have depends on the seed of the model that they read.
    """
    for pair in _alike(claim, models, results):
        for (architecture, evaluators), view in product(_natural_evaluators(pair).items(), VIEWS):
            values = [_averaged([is_read(result, one, view) for one in evaluators]) for result in pair]
            setting = f"gradmap-score-{VIEWED[view]}-{pair[0].config['data']['split']}"
            what = f"maps -g ({VIEWED[view]}) read by natural networks ({architecture})"
            yield _sample(what, pair, values, percent=True, row=_row(claim, pair[0], setting))


def _natural_evaluators(pair: Sequence[Result]) -> dict[str, list[str]]:
    """Evaluators of the paper's kind, naturally trained without attention, that read both files, by architecture."""
    found: dict[str, list[str]] = {}
    for name in shared_evaluators(pair):
        reader = pair[0].config["evaluators"]["jobs"][name]
        if not (is_brought(reader) or is_adversarial(reader) or has_attention(reader)):
            found.setdefault(reader["architecture"], []).append(name)
    return found


def _alignment(claim: Claim, models: tuple[str, ...], results: Sequence[Result]) -> Iterator[_Sample]:
    for pair in _alike(claim, models, results):
        own = [result["per_image/edge_cosine"].astype(np.float64) for result in pair]
        beyond = [values - result["per_image/edge_cosine_shuffled"] for values, result in zip(own, pair, strict=True)]
        yield _sample("cosine of |g| and the image's edges", pair, own)
        yield _sample("the same beyond that with another image's edges", pair, beyond)


def _cleaner_backgrounds(claim: Claim, models: tuple[str, ...], results: Sequence[Result]) -> Iterator[_Sample]:
    for pair in _alike(claim, models, results):
        values = [result["per_image/share"][:, places(result, "map").index("gradient")] for result in pair]
        yield _sample("share of the gradient's energy on the object", pair, values, percent=True)


SAMPLED: dict[str, Callable[[Claim, tuple[str, ...], Sequence[Result]], Iterator[_Sample]]] = {
    "mnist-regularization": _accuracy,
    "regularization-robustness": _accuracy,
    "regularization-cost": _accuracy,
    "attention-accuracy": _accuracy,
    "attention-robustness": _accuracy,
    "both-robustness": _accuracy,
    "nonlinear-attention": _accuracy,
    "robust-features": _robust_features,
    "attention-on-object": _attention_on_object,
    "robust-features-matter": _robust_features_matter,
    "gradmap-score": _gradmap_score,
    "alignment": _alignment,
    "cleaner-backgrounds": _cleaner_backgrounds,
}
