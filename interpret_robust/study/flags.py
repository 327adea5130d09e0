"""Signs that a model hides its gradients, read from files of `robustness` and `masking`: docs/flags.md explains each.

A flag is about one model, on one set of images, in one ball. It measures a share of images, with a 95 % interval, that
is about zero for a model with honest gradients, and is raised where the whole interval lies above its threshold.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from interpret_robust.core.bootstrap import bootstrap_mean
from interpret_robust.core.errors import UserError
from interpret_robust.core.intervals import Interval, rate
from interpret_robust.core.parsing import format_number
from interpret_robust.results import hdf5
from interpret_robust.results.attack_outcomes import (
    Outcomes,
    find_headline,
    find_right,
    find_right_in_worst_case,
    list_readings,
)
from interpret_robust.results.autoattack_tables import are_comparable, compare_with_ours
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import (
    find_norm,
    format_ball,
    format_images,
    format_radii,
    list_distinctions,
    name_of,
    order,
    tell_apart,
)
from interpret_robust.results.tables import Table

READS = {"robustness": "robustness/2", "masking": "masking/1", "autoattack": "autoattack/1"}
"""The analyses that flags are read from, and the schemas that they are read in."""

MOSTLY = 0.9
"""Share of a gradient's entries that are zero from which on it leads nowhere."""


@dataclass(frozen=True)
class Flag:
    """What one flag says of one model.

    Attributes:
        id: its name, and its heading in docs/flags.md.
        share: a share of images and its 95 % interval.
        threshold: what the interval has to lie above.
        description: of which images it is the share, in words.
        conditions: over which images, and in which ball.
    """

    id: str
    share: Interval
    threshold: float
    description: str
    conditions: str

    @property
    def is_raised(self) -> bool:
        """Return whether the measure is above its threshold by more than chance."""
        return self.share.low > self.threshold

    @property
    def is_open(self) -> bool:
        """Return whether the measure is above its threshold, but may be so by chance: more images would tell."""
        return self.share.value > self.threshold >= self.share.low


class _Measurement(NamedTuple):
    """A share of images, and in words which."""

    share: Interval
    description: str


class _Subject(NamedTuple):
    """A model, by its name and id, the images by their checksum, the ball, and the last two in words."""

    name: str
    id: str
    images: str
    norm: str
    eps: float
    conditions: str


@dataclass
class _Evidence:
    """The files about one model, on one set of images, in one ball.

    `transfers` are attacks on other models that this one read: their file, and its place among the targets.
    """

    tables: list[Result] = field(default_factory=list)
    masking: Result | None = None
    autoattack: Result | None = None
    transfers: list[tuple[Result, int]] = field(default_factory=list)

    @property
    def table(self) -> Result | None:
        """Return the file of attacks with the most readings."""
        return max(self.tables, key=lambda table: len(list_readings(table)), default=None)

    def white_box(self) -> Outcomes | None:
        """Return which images (N,) are right on the natural image and under every attack that took this model's
        gradients.
        """
        outcomes = [find_right_in_worst_case(table) for table in self.tables]
        if self.masking is not None:
            outcomes += [_right(self.masking, "natural"), _right(self.masking, "one_step"), _pgd(self.masking, 0)]
        return np.logical_and.reduce(outcomes) if outcomes else None


def _right(masking: Result, name: str) -> Outcomes:
    """Return which images (N,) of a file of `masking` are right under `name`, in all of its draws."""
    predicted, label = masking[f"per_image/prediction_{name}"], masking["per_image/label"]
    return np.asarray((predicted.reshape(len(label), -1) == label[:, None]).all(1))


def _pgd(masking: Result, place: int) -> Outcomes:
    """Return which images (N,) of a file of `masking` are right under PGD in the ball at `place`."""
    return np.asarray(masking["per_image/prediction_pgd"][:, place] == masking["per_image/label"])


def _loss(first: Outcomes, second: Outcomes) -> Interval:
    """Return share right before minus share right after, of outcomes (N,) of the same images."""
    return bootstrap_mean(first.astype(np.float64) - second)


def _gap(attacks: dict[str, Outcomes]) -> _Measurement:
    """Return the difference of two attacks' accuracies, as a share above zero, and which of them breaks fewer
    images.
    """
    (first, of_first), (second, of_second) = attacks.items()
    if of_first.sum() < of_second.sum():
        first, of_first, second, of_second = second, of_second, first, of_first
    return _Measurement(
        _loss(of_first, of_second), f"of images: so many more are right under {first} than under {second}"
    )


_WITHSTANDS = "of images are right under all white-box attacks, and wrong under"


def _black_box(evidence: _Evidence) -> _Measurement | None:
    white, attacks = evidence.white_box(), {}
    if evidence.masking is not None:
        attacks["random search"] = _right(evidence.masking, "search")
    for result, place in evidence.transfers:
        attacks[f"attacks on {result.model_name}"] = find_right_in_worst_case(result, place)
    if white is None or not attacks:
        return None
    is_broken = white & ~np.logical_and.reduce(list(attacks.values()))
    return _Measurement(rate(is_broken), f"{_WITHSTANDS} {' or '.join(attacks)}")


def _random_noise(evidence: _Evidence) -> _Measurement | None:
    white = evidence.white_box()
    if white is None or evidence.masking is None:
        return None
    is_broken = white & ~_right(evidence.masking, "noise")
    return _Measurement(rate(is_broken), f"{_WITHSTANDS} random noise")


def _many_steps(evidence: _Evidence) -> _Measurement | None:
    table = evidence.table
    if table is None:
        return None
    pgd, settings = _steps(table, "PGD"), table.config["settings"]
    # Fewer steps than cross the ball are not there yet.
    crossing = {steps: name for steps, name in pgd.items() if steps * settings["step_size"] >= 2 * settings["eps"]}
    if len(crossing) < 2:
        return None
    long_attack = crossing.pop(max(crossing))
    short_attack = first if (first := find_headline(table)) in crossing.values() else crossing[min(crossing)]
    return _gap({name: find_right(table, name) for name in (str(short_attack), long_attack)})


def _loss_gap(evidence: _Evidence) -> _Measurement | None:
    table = evidence.table
    if table is None:
        return None
    pgd, cw = (_steps(table, attack) for attack in ("PGD", "CW"))
    if not (pgd and cw):
        return None
    common = pgd.keys() & cw.keys()
    return _gap({name: find_right(table, name) for name in (steps[max(common or steps)] for steps in (pgd, cw))})


def _steps(table: Result, attack: str) -> dict[int, str]:
    """Return the readings of PGD or CW by their number of steps."""
    return {int(name.rpartition("-")[2]): name for name in list_readings(table) if name.startswith(attack)}


def _one_step(evidence: _Evidence) -> _Measurement | None:
    masking = evidence.masking
    if masking is None:
        return None
    multi_step = _pgd(masking, 0)
    single_step = _right(masking, "natural") & _right(masking, "one_step")
    return _Measurement(
        _loss(multi_step, single_step),
        "of images: so many more are right under PGD-20 than after one step of length eps",
    )


def _zero_gradients(evidence: _Evidence) -> _Measurement | None:
    if evidence.masking is None:
        return None
    shares = evidence.masking["per_image/zero_share"] >= MOSTLY
    place = int(shares.sum(0).argmax())
    loss = evidence.masking["loss"][place]
    return _Measurement(
        rate(shares[:, place]), f"of images have a gradient of the {loss} loss with at least {MOSTLY:.0%} zeros"
    )


def _autoattack(evidence: _Evidence) -> _Measurement | None:
    if evidence.autoattack is None or evidence.table is None:
        return None
    comparison = compare_with_ours(evidence.autoattack, evidence.table)
    return _Measurement(
        comparison.difference,
        f"of {comparison.images} images: so many fewer are right under AutoAttack than in our worst case",
    )


def _large_eps(evidence: _Evidence) -> _Measurement | None:
    masking = evidence.masking
    if masking is None or masking.config["settings"]["eps"] == 0:
        return None
    radii = format_radii(masking)
    shares = [rate(_pgd(masking, place)) for place in range(len(radii))]
    none_left = [name for name, share in zip(radii, shares, strict=True) if share.value <= FLAGS["large-eps"].threshold]
    radius_text = f"{none_left[0]} is enough to break nearly all" if none_left else "no radius tried breaks nearly all"
    return _Measurement(shares[-1], f"of images are right under PGD-20 at {radii[-1]}; {radius_text}")


class _Rule(NamedTuple):
    threshold: float
    measure: Callable[[_Evidence], _Measurement | None]


FLAGS = {
    "black-box": _Rule(0.02, _black_box),
    "random-noise": _Rule(0.02, _random_noise),
    "autoattack": _Rule(0.02, _autoattack),
    "zero-gradients": _Rule(0.05, _zero_gradients),
    "loss-gap": _Rule(0.05, _loss_gap),
    "many-steps": _Rule(0.05, _many_steps),
    "one-step": _Rule(0.02, _one_step),
    "large-eps": _Rule(0.02, _large_eps),
}
"""Every flag by its id: the threshold, and what it measures. The reasons for the thresholds stand in docs/flags.md."""


def read(path: Path) -> Result:
    """Open a file that flags can be read from. Raises UserError for any other."""
    schema = str(hdf5.attributes(path).get("schema", "no schema"))
    name = schema.partition("/")[0]
    if name not in READS:
        raise UserError(f"{path} holds {schema}: flags are read from files of {' and '.join(READS)}.")
    return hdf5.read(path, READS[name])


def collect_flags(results: Sequence[Result]) -> dict[str, list[Flag]]:
    """Return the flags that files of READS among `results` let one measure, by the checkpoint's name."""
    flags_by_model: dict[str, list[Flag]] = {}
    readable = [result for result in results if result.schema in READS.values()]
    for subject, evidence in _collect_evidence(readable).items():
        flags = flags_by_model.setdefault(subject.name, [])
        for flag, (threshold, measure) in FLAGS.items():
            if measurement := measure(evidence):
                flags.append(Flag(flag, measurement.share, threshold, measurement.description, subject.conditions))
    return flags_by_model


def summarize_flags(flags_by_model: Mapping[str, Sequence[Flag]]) -> Table:
    """Return a row for each model and its images, what each flag measures; a raised one says so."""
    rows = []
    for name, flags in flags_by_model.items():
        for place in dict.fromkeys(flag.conditions for flag in flags):
            by_id = {flag.id: flag for flag in flags if flag.conditions == place}
            cells = {name: _cell(by_id[name]) if name in by_id else "" for name in FLAGS}
            rows.append({"model": name, **cells, "over": place})
    columns = [column for column in ("model", *FLAGS, "over") if any(row[column] for row in rows)]
    limits = ", ".join(f"{name} {rule.threshold:.0%}" for name, rule in FLAGS.items() if name in columns)
    note = (
        "Shares of images, or differences of two shares, with 95 % intervals. A flag is raised if its whole interval "
        f"lies above its threshold: {limits} (docs/flags.md)."
    )
    return Table([{column: row[column] for column in columns} for row in rows], note=note)


def _cell(flag: Flag) -> str:
    return flag.share.percent() + (" RAISED" if flag.is_raised else " too few images" if flag.is_open else "")


def describe_flags(flags_by_model: Mapping[str, Sequence[Flag]]) -> list[str]:
    """Return a sentence for each flag that is raised, for each of which the images are too few to tell, and for the
    models that were not checked.
    """
    flags = [(name, flag) for name, flags in flags_by_model.items() for flag in flags]
    lines = [
        f"{name}: {flag.id}: {100 * flag.share.value:.1f} % {flag.description}"
        + (f"; that is above {flag.threshold:.0%}, but these are too few images to tell" if flag.is_open else "")
        for name, flag in flags
        if flag.is_raised or flag.is_open
    ]
    if not any(flag.is_raised for _, flag in flags):
        lines.append("no flag is raised")
    if names := [name for name, model_flags in flags_by_model.items() if not model_flags]:
        lines.append(f"not checked: {', '.join(names)} (`irt analyze masking` measures what a check needs)")
    return lines


def list_numbers(flags_by_model: Mapping[str, Sequence[Flag]]) -> list[dict[str, str]]:
    """Return a row for each model and flag, in words and numbers: shares in percent."""
    return [
        {
            "model": name,
            "flag": flag.id,
            "raised": "yes" if flag.is_raised else "no",
            **{place: format_number(100 * value, ".4g") for place, value in flag.share._asdict().items()},
            "threshold": f"{100 * flag.threshold:.4g}",
            "which": flag.description,
            "over": flag.conditions,
        }
        for name, flags in flags_by_model.items()
        for flag in flags
    ]


def _collect_evidence(results: Sequence[Result]) -> dict[_Subject, _Evidence]:
    """Return what there is about each model that has a file of its own. AutoAttack may have met fewer of the images.

    Files of recalibrated models are left out: they are of a control, not of the model.
    """
    results = tell_apart([result for result in results if result.recalibration == "none"])
    texts = list_distinctions(results)
    by_subject: dict[_Subject, _Evidence] = defaultdict(_Evidence)
    attacked_models = set()
    for result in sorted(results, key=lambda result: (order(result), result.path)):
        subject, *readers = _subjects(result, texts)
        attacked_models.add(subject)
        if result.analysis == "masking":
            by_subject[subject].masking = result
            continue
        if result.analysis == "autoattack":
            continue
        by_subject[subject].tables.append(result)
        for place, reader in enumerate(readers, start=1):
            by_subject[reader].transfers.append((result, place))
    for result in sorted(results, key=lambda result: result.count):
        if result.analysis == "autoattack":
            for evidence in by_subject.values():
                if evidence.table and are_comparable(result, evidence.table):
                    evidence.autoattack = result
    return {subject: evidence for subject, evidence in by_subject.items() if subject in attacked_models}


def _subjects(result: Result, texts: Mapping[str, str]) -> list[_Subject]:
    """Return the models that a file says something of, its own first; `texts` tell those of one name apart."""
    data, settings = result.config["data"], result.config["settings"]
    place = f"{format_images(data)} of {data['dataset']} at {format_ball(settings)}"
    return [
        _Subject(name_of(model, texts), model.id, data["sha256"], find_norm(settings), settings["eps"], place)
        for model in (result.model, *result.evaluators)
    ]
