"""Can a classifier that never saw gradients read the class from a gradient map? (Table 4, with controls)

A map is the gradient of the cross-entropy of a target class with respect to the pixels, with a sign, made an
image by a scale rule. A frozen evaluator classifies that image; the score is how often it answers a reference
class. Sign, rule and evaluator each can turn a comparison round, so that all are in the file.

The headline is the paper's cell: target and reference the true label, rule `clip`, and `max` for its "raw", as the
first evaluator reads it, by default one of the paper's kind where there is one (a natural network of the same
architecture). The paper's words mean `plus`, the gradient itself; it does not say whether the maps were negated. Here
it is `minus`: the direction in which the loss falls, towards the class. The other sign stands beside it.

An evaluator that standardizes each image, as the residual networks do, reads `max` and `min-max` alike by
construction: the two rules only shift and scale a map.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from interpret_robust.analyses.engine.analysis import Analysis
from interpret_robust.analyses.engine.settings import SourceSettings
from interpret_robust.analyses.engine.work import Work
from interpret_robust.attacks.cycles import choose_rows, select_rows
from interpret_robust.attribution import controls as filters
from interpret_robust.attribution import probe
from interpret_robust.attribution.gradients import compute_map, draw_targets
from interpret_robust.attribution.scale_rules import (
    RULES,
    Rule,
    as_image,
    find_degenerate,
    pool_deviations,
    sum_moments,
)
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import UserError
from interpret_robust.core.intervals import rates
from interpret_robust.core.random_numbers import make_streams
from interpret_robust.datasets import Split
from interpret_robust.datasets.batches import Batch, to_numpy
from interpret_robust.models import Classifier
from interpret_robust.models.classifier import answers_repeat, predict_classes
from interpret_robust.models.reinitialize import CALIBRATION_IMAGES, randomize_network
from interpret_robust.results import gradmap_tables
from interpret_robust.results.columns import Columns
from interpret_robust.results.names import PAPER_RULES
from interpret_robust.results.schema import Column, Schema, describe_plot, interval

TARGETS = ("true", "predicted", "random")
REFERENCES = ("label", "target")
SIGNS = {"minus": -1, "plus": 1}
PER_IMAGE_RULES: tuple[Rule, ...] = tuple(rule for rule in RULES if rule in PAPER_RULES.values())
"""The headline's rules, called `clip` and `raw` where people read them."""

SHUFFLE, PHASES = 1, 2
"""The purposes of random numbers."""

CONTROLS = ("random-network", "sobel", "pixel-shuffle", "phase-random", "absolute")

SCHEMA = Schema(
    name="gradmap-score",
    version=1,
    per_image=(
        Column("per_image/label", "i2", "true class"),
        Column("per_image/runner_up", "i2", "the most likely class other than the true one"),
        Column("per_image/target_class", "i2", "class whose cross-entropy is differentiated", ("target",)),
        Column("per_image/degenerate", "u1", "1 where the gradient is zero everywhere", ("target",)),
        Column("per_image/image_prediction", "i2", "evaluator's class of the image itself", ("evaluator",)),
        Column(
            "per_image/evaluator_prediction",
            "i2",
            "evaluator's class of the map",
            ("evaluator", "target", "rule", "sign"),
        ),
        Column(
            "per_image/control_prediction",
            "i2",
            "evaluator's class of a control in the map's place; edges and |g| are brighter than gray at sign minus",
            ("evaluator", "control", "control_rule", "sign"),
        ),
        Column(
            "per_image/probe_prediction", "i2", "the random target, as a probe trained on gradients reads it, or -1"
        ),
    ),
    summary=(
        interval(
            "headline/accuracy",
            "the paper's number: share of maps read as the true class by the first evaluator, Wilson 95 %",
            "control_rule",
            "sign",
        ),
        Column("headline/mean", "f8", "the paper's number, mean over evaluators", ("control_rule", "sign")),
        Column(
            "headline/deviation",
            "f8",
            "standard deviation of the paper's number between evaluators",
            ("control_rule", "sign"),
        ),
        interval(
            "score/accuracy",
            "share of maps in which the evaluator sees the reference class, Wilson interval",
            *("evaluator", "target", "rule", "sign", "reference"),
        ),
        Column(
            "score/chance",
            "f8",
            "share that is expected if maps and images were paired at random",
            ("evaluator", "target", "rule", "sign", "reference"),
        ),
        Column(
            "score/balanced",
            "f8",
            "mean over reference classes of the share of maps read as their class",
            ("evaluator", "target", "rule", "sign", "reference"),
        ),
        Column(
            "score/commonest",
            "f8",
            "share of the evaluator's commonest answer",
            ("evaluator", "target", "rule", "sign"),
        ),
        interval("runner_up/accuracy", "sign plus, target true: share read as the runner-up", "evaluator", "rule"),
        interval(
            "by_outcome/accuracy",
            "the paper's number among images classified wrongly, and rightly, Wilson 95 %",
            "outcome",
            "control_rule",
        ),
        Column("by_outcome/count", "i8", "number of images classified wrongly, and rightly", ("outcome",)),
        interval(
            "controls/accuracy",
            "share of controls read as the true label",
            "evaluator",
            "control",
            "control_rule",
            "sign",
        ),
        interval("anchor/image", "accuracy of the evaluator on the images themselves", "evaluator"),
        interval("anchor/probe", "share of random targets that the probe reads; NaN without a probe"),
        Column("degenerate/count", "i8", "maps that are zero everywhere, shown as gray", ("target",)),
    ),
    groups={"headline": describe_plot("mean", "control_rule:sign", "Gradient-map score, mean over evaluators")},
    labels={
        "target": TARGETS,
        "reference": REFERENCES,
        "sign": tuple(SIGNS),
        "rule": RULES,
        "control": CONTROLS,
        "control_rule": PER_IMAGE_RULES,
        "outcome": ("wrong", "right"),
    },
)


@dataclass(frozen=True)
class ScoreSettings(SourceSettings):
    """What a map is, seed and extras of the score."""

    seed: int = field(default=0, metadata={"help": "Seed of random targets, of shuffles and of the random network."})
    probe: bool = field(
        default=False, metadata={"help": "Also train a network to classify gradients (a probe), for comparison."}
    )

    def resolve(self, job: Mapping[str, Any]) -> Self:
        """Resolve as settings of any source. Raises UserError also for a probe of other maps than gradients, which
        it learns from.
        """
        if self.probe and self.source != "gradient":
            raise UserError(f"--probe learns to read gradients, and --source is {self.source}: leave one of them out.")
        return super().resolve(job)


@dataclass(frozen=True)
class Readers:
    """What reads the maps, and what they are compared with: all that a batch needs beside its model."""

    settings: ScoreSettings
    evaluators: Mapping[str, Classifier]
    random: Classifier
    deviations: tuple[float, ...]
    probe: Classifier | None


def prepare(work: Work) -> Readers:
    """Return the random network, the deviation of all maps of each target, and the probe where it is asked for."""
    settings: ScoreSettings = work.settings
    if len(work.dataset.class_names) < 2:
        raise UserError(
            f"{work.dataset.name} has one class, and gradmap-score compares the maps of two or more: give a "
            "--dataset that has them."
        )
    images = work.reference_images(CALIBRATION_IMAGES)
    work.doubt_random_networks(images)
    reader = None
    if settings.probe:
        probe_images = work.dataset.test if work.config["data"]["split"] == "train" else work.dataset.train
        reader = probe.train(work.model, probe_images, len(work.dataset.class_names), settings.seed, work.device)
    return Readers(
        settings,
        work.evaluators,
        randomize_network(work.network, images, settings.seed),
        _deviations(work),
        reader,
    )


def rows(model: Classifier, batch: Batch, readers: Readers) -> dict[str, AnyArray]:
    """Return what every evaluator sees in every map and control of one batch."""
    with torch.no_grad():
        logits = model(batch.images)
    targets = stack_targets(logits, batch, readers.settings.seed)
    maps = [_map(model, batch, classes, readers.settings) for classes in targets]
    shown_controls = _views(
        ((signed_map, 0.0) for signed_map in make_controls(batch, maps[0], readers)), PER_IMAGE_RULES
    )
    evaluators, count = list(readers.evaluators.values()), len(batch.images)
    control_shape = (count, len(evaluators), len(CONTROLS), len(PER_IMAGE_RULES), len(SIGNS))
    columns = {
        "label": to_numpy(batch.labels),
        "runner_up": to_numpy(_runner_up(logits, batch.labels)),
        "target_class": to_numpy(targets.T),
        "degenerate": np.stack([to_numpy(find_degenerate(signed_map)) for signed_map in maps], 1),
        "image_prediction": read_by(evaluators, [batch.images])[:, :, 0],
        "evaluator_prediction": _read_maps(evaluators, maps, readers.deviations),
        "control_prediction": read_by(evaluators, shown_controls).reshape(control_shape),
        "probe_prediction": np.full(count, -1),
    }
    if readers.probe is not None:
        columns["probe_prediction"] = read_by([readers.probe], [probe.view(maps[2])])[:, 0, 0]
    return {f"per_image/{name}": values for name, values in columns.items()}


def stack_targets(logits: Tensor, batch: Batch, seed: int) -> Tensor:
    """Return the classes whose loss is differentiated, (target, N).

    The true, the predicted, a random other than the true.
    """
    random = draw_targets(batch.labels, batch.indices, logits.shape[1], seed)
    return torch.stack([batch.labels, logits.argmax(1), random])


def make_controls(batch: Batch, maps: Tensor, readers: Readers) -> Iterator[Tensor]:
    """Yield what stands in the place of the map of the true target, in the order of CONTROLS."""
    seed, indices = readers.settings.seed, batch.indices
    yield _map(readers.random, batch, batch.labels, readers.settings)
    yield -filters.sobel(batch.images)
    yield filters.shuffle_pixels(maps, make_streams(seed, indices, SHUFFLE))
    yield filters.randomize_phases(maps, make_streams(seed, indices, PHASES))
    yield -maps.abs()


def read_by(evaluators: Sequence[Classifier], images: Iterable[Tensor]) -> AnyArray:
    """Return the class that each evaluator sees in each of several batches of images: (N, evaluator, batch)."""
    with torch.no_grad():
        answers = [torch.stack([predict_classes(evaluator(view)) for evaluator in evaluators], 1) for view in images]
    return to_numpy(torch.stack(answers, 2))


def _read_maps(evaluators: Sequence[Classifier], maps: Sequence[Tensor], deviations: Sequence[float]) -> AnyArray:
    """Return the class that each evaluator sees in each map of each target: (N, evaluator, target, rule, sign).

    Where the model is right, the map of the predicted class is that of the true one, and looks the same by each rule of
    a single map: it is not read again, if evaluators answer an image the same in any batch.
    """
    true, predicted, random = zip(maps, deviations, strict=True)
    places = torch.arange(len(maps[0]))
    answers = [_read(evaluators, pair, RULES, places) for pair in (true, random)]
    is_known = (predicted[0] == true[0]).flatten(1).all(1)
    is_exact = is_known.device.type == "cpu" and all(answers_repeat(reader, maps[0][:1]) for reader in evaluators)
    unique_places = choose_rows(is_known) if is_exact else places
    of_predicted = answers[0].copy()
    for number, rule in enumerate(RULES):
        rows_to_read = places if rule == "clip-set" else unique_places
        if len(rows_to_read):
            classes = _read(evaluators, predicted, [rule], rows_to_read)
            of_predicted[rows_to_read.numpy(), :, number] = classes[:, :, 0]
    return np.stack([answers[0], of_predicted, answers[1]], 2)


def _read(
    evaluators: Sequence[Classifier], pair: tuple[Tensor, float], rules: Sequence[Rule], places: Tensor
) -> AnyArray:
    """Return the class that each evaluator sees in some of the maps of a target: (n, evaluator, rule, sign)."""
    is_whole = len(places) == len(pair[0])
    views = (view if is_whole else select_rows(view, places) for view in _views([pair], rules))
    return read_by(evaluators, views).reshape(len(places), len(evaluators), len(rules), len(SIGNS))


class Score(NamedTuple):
    """How often answers (N, ...) are the reference (N,): arrays over what follows the images."""

    accuracy: AnyArray
    chance: AnyArray
    balanced_accuracy: AnyArray


def score(answers: AnyArray, reference: AnyArray) -> Score:
    """Return the accuracy with Wilson's interval (..., 3), what pairing at random would give, and the mean over
    classes.
    """
    right = answers == reference.reshape(-1, *[1] * (answers.ndim - 1))
    classes, position = np.unique(reference, return_inverse=True)
    share = np.bincount(position) / len(position)
    shares = np.stack([(answers == category).mean(0) for category in classes], -1)
    recall = np.stack([right[position == place].mean(0) for place in range(len(classes))], -1)
    return Score(rates(right), shares @ share, recall.mean(-1))


def summarize(columns: Columns, _: Split) -> dict[str, Any]:
    """Return the whole table, the controls, and the headline."""
    label, target = columns["per_image/label"], columns["per_image/target_class"]
    answers = columns["per_image/evaluator_prediction"]
    by_target = [
        [score(answers[:, :, place], reference) for reference in (label, target[:, place])]
        for place in range(len(TARGETS))
    ]
    # The axes of each: evaluator, target, rule, sign, reference, and those of the number itself.
    accuracy, chance, balanced_accuracy = (
        np.stack([np.stack([part[number] for part in pair], 3) for pair in by_target], 1) for number in range(3)
    )
    runner_up = columns["per_image/runner_up"]
    per_image_rules = [RULES.index(rule) for rule in PER_IMAGE_RULES]
    headline = answers[:, :, 0, per_image_rules] == label[:, None, None, None]
    right = target[:, 1] == label
    probe_prediction = columns["per_image/probe_prediction"]
    means = headline.mean(0)
    return {
        "headline/accuracy": rates(headline[:, 0]),
        "headline/mean": means.mean(0),
        "headline/deviation": means.std(0, ddof=1) if len(means) > 1 else np.full(means.shape[1:], np.nan),
        "score/accuracy": accuracy,
        "score/chance": chance,
        "score/balanced": balanced_accuracy,
        "score/commonest": _commonest(answers),
        "runner_up/accuracy": rates(answers[:, :, 0, :, 1] == runner_up[:, None, None]),
        "by_outcome/accuracy": np.stack([rates(headline[right == outcome, 0, :, 0]) for outcome in (False, True)]),
        "by_outcome/count": [int((~right).sum()), int(right.sum())],
        "controls/accuracy": score(columns["per_image/control_prediction"], label).accuracy,
        "anchor/image": score(columns["per_image/image_prediction"], label).accuracy,
        "anchor/probe": rates(probe_prediction == target[:, 2])
        if (probe_prediction >= 0).all()
        else np.full(3, np.nan),
        "degenerate/count": columns["per_image/degenerate"].sum(0, dtype=np.int64),
    }


def _map(model: Classifier, batch: Batch, classes: Tensor, settings: ScoreSettings) -> Tensor:
    return compute_map(settings.source, model, batch.images, classes, batch.indices, settings.seed)


def _views(maps: Iterable[tuple[Tensor, float]], rules: Sequence[Rule]) -> Iterator[Tensor]:
    """Yield every map, given with the deviation of its set, as an image: the sign runs fastest, then the rule."""
    for signed_map, deviation in maps:
        for rule in rules:
            for sign in SIGNS.values():
                yield as_image(sign * signed_map, rule, deviation)


def _deviations(work: Work) -> tuple[float, ...]:
    """Return the standard deviation of the entries of all maps, for each target."""

    def measure(batch: Batch) -> list[float]:
        with torch.no_grad():
            logits = work.model(batch.images)
        targets = stack_targets(logits, batch, work.settings.seed)
        return [number for target in targets for number in sum_moments(_map(work.model, batch, target, work.settings))]

    of_batches = work.over_batches(measure, 3 * len(TARGETS)).reshape(-1, len(TARGETS), 3)
    return tuple(pool_deviations(of_batches[:, place]) for place in range(len(TARGETS)))


def _runner_up(logits: Tensor, labels: Tensor) -> Tensor:
    runner_up: Tensor = logits.scatter(1, labels[:, None], -torch.inf).argmax(1)
    return runner_up


def _commonest(answers: AnyArray) -> AnyArray:
    shares = [(answers == category).mean(0) for category in np.unique(answers)]
    commonest: AnyArray = np.max(shares, axis=0)
    return commonest


ANALYSIS = Analysis(
    SCHEMA,
    ScoreSettings,
    rows,
    summarize,
    gradmap_tables.format_headline,
    prepare=prepare,
    compare=gradmap_tables.make_comparisons,
    views=tuple(PAPER_RULES),
    readers="evaluators",
)
