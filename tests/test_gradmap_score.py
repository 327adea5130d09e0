"""The gradient-map score: closed forms, a slow second implementation, its comparisons of files, and its picture."""

import itertools
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attack_files import card_of
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from networks import Linear, pixels
from scipy import ndimage, stats
from torch import Tensor, nn

from interpret_robust.analyses import gradmap_score
from interpret_robust.analyses.engine.work import Work
from interpret_robust.analyses.gradmap_score import (
    ANALYSIS,
    CONTROLS,
    PER_IMAGE_RULES,
    REFERENCES,
    SCHEMA,
    SIGNS,
    TARGETS,
    Readers,
    ScoreSettings,
    prepare,
    rows,
    score,
    stack_targets,
    summarize,
)
from interpret_robust.attribution import probe, scale_rules
from interpret_robust.attribution.scale_rules import RULES
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.configs import describe_differences
from interpret_robust.core.errors import UserError
from interpret_robust.datasets import Dataset, Split
from interpret_robust.datasets.batches import Batch
from interpret_robust.figures import drawing, style
from interpret_robust.figures.gradmap_score import PANELS
from interpret_robust.figures.gradmap_score import draw as picture_of
from interpret_robust.models import Classifier, checkpoint
from interpret_robust.models.folding import fold
from interpret_robust.models.losses import loss_gradient
from interpret_robust.results import hdf5 as results
from interpret_robust.results import writer
from interpret_robust.results.columns import Columns
from interpret_robust.results.conditions import list_conditions
from interpret_robust.results.gradmap_tables import format_headline, make_comparisons
from interpret_robust.results.hdf5 import Result

CPU = torch.device("cpu")
COUNT, COLORS, HEIGHT, WIDTH, CLASSES = 13, 3, 6, 8, 7
SEED = 5
LIMIT = 22
Make = Callable[..., Path]


def stream(index: int, purpose: int) -> np.random.Generator:
    """The random numbers of an image: a function of the seed, its index and the purpose."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([SEED, index, purpose])))


class Curves(nn.Module):
    """A backbone whose gradient differs from image to image."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(COLORS, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        return torch.tanh(self.norm(self.convolution(images - 0.5)))


class Flat(nn.Module):
    """A head whose pooled features are all local features."""

    def forward(self, local: Tensor) -> tuple[None, Tensor]:
        return None, local.flatten(1)


def subject(classes: int = CLASSES) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Classifier(Curves(), Flat(), nn.Linear(4 * HEIGHT * WIDTH, classes))
        with torch.no_grad():
            model(pixels(50, COLORS, HEIGHT, WIDTH))
    return model.eval()


def linear(seed: int, classes: int = CLASSES) -> Classifier:
    """Reads what is gray as nothing: its logits are W (v - 1/2)."""
    return cast(Classifier, Linear(COLORS * HEIGHT * WIDTH, classes, seed).eval())


def batch_of(images: Tensor, labels: Sequence[int], start: int = 0) -> Batch:
    return Batch(images, torch.tensor(labels), range(start, start + len(images)), None)


def split_of(count: int, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, HEIGHT, WIDTH, COLORS), np.uint8)
    return Split(images, rng.integers(0, CLASSES, count))


def work_of(model: nn.Module, evaluators: Sequence[nn.Module], size: int = COUNT, **changes: Any) -> Work:
    """What an analysis is given, without files."""
    test = split_of(COUNT, 1)
    whole = torch.tensor(test.images).permute(0, 3, 1, 2) / 255
    starts = range(0, COUNT, size)
    fields = {
        "model": model,
        "network": model,
        "settings": ScoreSettings(seed=SEED),
        "dataset": Dataset("odd", split_of(20, 2), test, tuple("abcdefg")),
        "split": test,
        "config": {"data": {"split": "test"}},
        "device": CPU,
        "evaluators": {f"e{number}": evaluator for number, evaluator in enumerate(evaluators)},
        "batches": lambda: (
            batch_of(whole[place : place + size], test.labels[place : place + size].tolist(), place) for place in starts
        ),
    }
    work = SimpleNamespace(**(fields | changes))
    work.over_batches = lambda measure, _: np.array([measure(batch) for batch in work.batches()])
    work.doubt_random_networks = lambda _: None
    work.reference_images = lambda _: torch.tensor(work.dataset.train.images).permute(0, 3, 1, 2) / 255
    return cast(Work, work)


def analyze(work: Work) -> tuple[dict[str, AnyArray], dict[str, Any]]:
    """The per-image columns and the statistics of a work."""
    readers = prepare(work)
    parts = [rows(work.model, batch, readers) for batch in work.batches()]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    assert columns.keys() == {column.path for column in SCHEMA.per_image}
    return columns, summarize(Columns(columns), work.split)


# Closed forms


def test_two_linear_classes_are_read_always_at_minus_and_never_at_plus() -> None:
    model = linear(3, classes=2)
    images, labels = pixels(9, COLORS, HEIGHT, WIDTH, seed=1), [0, 1, 1, 0, 1, 0, 0, 1, 1]
    batch = batch_of(images, labels)
    work = work_of(model, [model], batches=lambda: [batch])
    readers = Readers(ScoreSettings(), work.evaluators, linear(4, classes=2), gradmap_score._deviations(work), None)
    statistics = summarize(Columns(rows(model, batch, readers)), work.split)
    for target, rule, reference in itertools.product(range(3), ("clip", "clip-set", "max"), range(2)):
        minus, plus = statistics["score/accuracy"][0, target, RULES.index(cast(Any, rule)), :, reference, 0]
        # The random target of two classes is the other one: its map shows it, and never the label.
        shows = TARGETS[target] == "true" or reference == 1
        if TARGETS[target] != "predicted":
            assert (minus, plus) == ((1, 0) if shows else (0, 1))
        elif reference == 1:
            assert (minus, plus) == (1, 0)
    assert statistics["headline/accuracy"][:, :, 0].tolist() == [[1, 0], [1, 0]]
    assert statistics["headline/mean"].tolist() == [[1, 0], [1, 0]]
    assert statistics["runner_up/accuracy"][0, [0, 1, 2], 0].tolist() == [1, 1, 1]


def test_the_deviation_of_a_linear_network_is_that_of_its_closed_form() -> None:
    model = linear(3)
    work = work_of(model, [], size=4)
    weight = cast(Any, model).layer.weight.detach().double().numpy()
    images = work.split.images.transpose(0, 3, 1, 2).reshape(COUNT, -1) / 255
    logits = (images - 0.5) @ weight.T
    odds = np.exp(logits - logits.max(1, keepdims=True))
    chances = odds / odds.sum(1, keepdims=True)
    for classes, deviation in zip(targets_of(work, logits), gradmap_score._deviations(work), strict=True):
        gradients = (chances - np.eye(CLASSES)[classes]) @ weight
        assert deviation == pytest.approx(gradients.std(), rel=1e-5)


def targets_of(work: Work, logits: AnyArray) -> AnyArray:
    """The target classes (target, N), from their definition."""
    labels = work.split.labels
    steps = [stream(index, 3).integers(1, CLASSES) for index in range(COUNT)]
    return np.stack([labels, logits.argmax(1), (labels + steps) % CLASSES])


# A slow second implementation, an image at a time


def gradient(model: nn.Module, image: Tensor, target: int) -> AnyArray:
    variable = image[None].clone().requires_grad_()
    (result,) = torch.autograd.grad(F.cross_entropy(model(variable), torch.tensor([target])), variable)
    return result[0].double().numpy()


def view_of(values: AnyArray, rule: str, deviation: float) -> AnyArray:
    bound = {"clip": 3 * values.std(), "clip-set": 3 * deviation, "max": np.abs(values).max()}
    if rule == "min-max":
        low, high = values.min(), values.max()
        return np.asarray((values - low) / (high - low))
    return np.asarray(0.5 + np.clip(values / bound[rule], -1, 1) / 2)


def answer(model: nn.Module, image: AnyArray) -> int:
    with torch.no_grad():
        return int(model(torch.tensor(image, dtype=torch.float32)[None]).argmax())


def edges(plane: AnyArray) -> AnyArray:
    strengths: AnyArray = np.hypot(*(ndimage.sobel(plane, axis, mode="nearest") for axis in (0, 1)))
    return strengths


def control(name: str, attribution: AnyArray, at_random: AnyArray, image: Tensor, index: int) -> AnyArray:
    match name:
        case "random-network":
            return at_random
        case "sobel":
            return -np.stack([edges(plane) for plane in image.double().numpy()])
        case "pixel-shuffle":
            order = stream(index, 1).permutation(HEIGHT * WIDTH)
            return attribution.reshape(COLORS, -1)[:, order].reshape(attribution.shape)
        case "phase-random":
            noise = stream(index, 2).standard_normal((HEIGHT, WIDTH), dtype=np.float32)
            turn = np.exp(1j * np.angle(np.fft.fft2(noise.astype(np.float64))))
            turn[0, 0] = 1
            scramble: AnyArray = np.fft.ifft2(np.fft.fft2(attribution) * turn).real
            return scramble
        case _:
            return -np.abs(attribution)


Outcome = tuple[Work, dict[str, AnyArray], dict[str, Any]]


@pytest.fixture(scope="module")
def whole() -> Outcome:
    """Five evaluators, one of which is the subject itself, read 13 images in batches of four."""
    model = subject()
    work = work_of(model, [linear(1), linear(2), model, linear(3), linear(4)], size=4)
    return work, *analyze(work)


def test_every_answer_is_that_of_a_slow_computation(whole: Outcome) -> None:
    work, columns, _ = whole
    images, labels = torch.cat([batch.images for batch in work.batches()]), work.split.labels
    with torch.no_grad():
        logits = work.model(images).double().numpy()
    targets = targets_of(work, logits)
    maps = [[gradient(work.model, *pair) for pair in zip(images, classes, strict=True)] for classes in targets.tolist()]
    deviations = [float(np.std(np.stack(row))) for row in maps]
    random_network = prepare(work).random
    for place, index in itertools.product(range(3), range(COUNT)):
        assert columns["per_image/target_class"][index, place] == targets[place, index]
    for index, label in enumerate(labels.tolist()):
        assert columns["per_image/label"][index] == label
        rest = [kind for kind in np.argsort(-logits[index]).tolist() if kind != label]
        assert columns["per_image/runner_up"][index] == rest[0]
        assert columns["per_image/probe_prediction"][index] == -1
        stand_ins = {
            name: control(name, maps[0][index], gradient(random_network, images[index], label), images[index], index)
            for name in CONTROLS
        }
        for number, evaluator in enumerate(work.evaluators.values()):
            assert columns["per_image/image_prediction"][index, number] == answer(evaluator, images[index].numpy())
            for (t, target), (r, rule), (s, sign) in itertools.product(
                enumerate(TARGETS), enumerate(("clip", "clip-set", "max", "min-max")), enumerate((-1, 1))
            ):
                expected = answer(evaluator, view_of(sign * maps[t][index], rule, deviations[t]))
                reading = columns["per_image/evaluator_prediction"][index, number, t, r, s]
                assert reading == expected, (index, number, target, rule, sign)
            for (c, name), (r, rule), (s, sign) in itertools.product(
                enumerate(CONTROLS), enumerate(("clip", "max")), enumerate((-1, 1))
            ):
                expected = answer(evaluator, view_of(sign * stand_ins[name], rule, 0))
                reading = columns["per_image/control_prediction"][index, number, c, r, s]
                assert reading == expected, (index, number, name, rule, sign)
    # What was compared is not the same everywhere.
    answers = columns["per_image/evaluator_prediction"]
    for axis in range(1, 5):
        assert (answers != np.roll(answers, 1, axis)).any()
    assert not columns["per_image/degenerate"].any()


def test_maps_of_the_predicted_class_are_read_once_where_it_is_the_true_one(
    checkpoints: list[checkpoint.Checkpoint], digits: Dataset
) -> None:
    model, *evaluators = [fold(origin.model(CPU)) for origin in checkpoints]
    images = torch.from_numpy(digits.train.images).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        predicted = model(images).argmax(1)
    labels = predicted.clone()
    labels[[3, 40, 41]] = (labels[[3, 40, 41]] + 1) % 10
    maps = [loss_gradient(model, images, classes) for classes in (labels, predicted, (labels + 3) % 10)]
    deviations = [float(part.std()) for part in (maps[0][:20], maps[1], maps[2])]
    read = [0]
    hook = evaluators[0].register_forward_pre_hook(lambda _, inputs: read.__setitem__(0, read[0] + len(inputs[0])))
    answers = gradmap_score._read_maps(evaluators, maps, deviations)
    hook.remove()
    views = gradmap_score._views(zip(maps, deviations, strict=True), RULES)
    whole = gradmap_score.read_by(evaluators, views).reshape(answers.shape)
    np.testing.assert_array_equal(answers, whole)
    # Of 24 views of 60 images, six are of the 32 that hold the three wrong ones; an image each tells of random numbers.
    assert read == [18 * 60 + 6 * 32 + 1]
    clip_set = answers[:, :, :2, RULES.index("clip-set")]
    assert (clip_set[:, :, 0] != clip_set[:, :, 1]).any()


def wilson(share: float, count: int) -> list[float]:
    z = stats.norm.ppf(0.975)
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return [share, middle - half, middle + half]


def share(values: Sequence[bool]) -> float:
    return sum(values) / len(values)


def random_columns(count: int, evaluators: int) -> dict[str, AnyArray]:
    """Columns as they could be, of classes that are not equally frequent."""
    rng = np.random.default_rng(8)
    shapes = {"target": 3, "evaluator": evaluators, "rule": 4, "sign": 2, "control": 5, "control_rule": 2}
    columns = {
        column.path: rng.binomial(CLASSES - 2, 0.4, (count, *(shapes[axis] for axis in column.axes)))
        for column in SCHEMA.per_image
    }
    columns["per_image/degenerate"] = rng.integers(0, 2, (count, 3), np.uint8)
    columns["per_image/target_class"][:, 0] = columns["per_image/label"]
    return columns


def test_every_statistic_is_that_of_a_slow_computation() -> None:
    count, evaluators = 29, 5
    columns = random_columns(count, evaluators)
    statistics = summarize(Columns(columns), split_of(count, 0))
    label, targets, answers, controls, image, probe_answers = (
        columns[f"per_image/{name}"].tolist()
        for name in (
            *("label", "target_class", "evaluator_prediction"),
            *("control_prediction", "image_prediction", "probe_prediction"),
        )
    )
    images = range(count)
    for e, t, r, s in itertools.product(range(evaluators), range(3), range(4), range(2)):
        read = [answers[i][e][t][r][s] for i in images]
        assert statistics["score/commonest"][e, t, r, s] == pytest.approx(Counter(read).most_common(1)[0][1] / count)
        for n, reference in enumerate((label, [targets[i][t] for i in images])):
            cell = e, t, r, s, n
            accuracy = share([answer == other for answer, other in zip(read, reference, strict=True)])
            np.testing.assert_allclose(statistics["score/accuracy"][cell], wilson(accuracy, count), atol=1e-12)
            chance = share([answer == other for answer in read for other in reference])
            assert statistics["score/chance"][cell] == pytest.approx(chance)
            recalls = [
                share([read[i] == reference[i] for i in images if reference[i] == kind]) for kind in set(reference)
            ]
            assert statistics["score/balanced"][cell] == pytest.approx(share(cast(Any, recalls)))
    for place, rule in enumerate(("clip", "max")):
        r = RULES.index(cast(Any, rule))
        for s in range(2):
            cells = [share([answers[i][e][0][r][s] == label[i] for i in images]) for e in range(evaluators)]
            np.testing.assert_allclose(statistics["headline/accuracy"][place, s], wilson(cells[0], count), atol=1e-12)
            assert statistics["headline/mean"][place, s] == pytest.approx(np.mean(cells))
            assert statistics["headline/deviation"][place, s] == pytest.approx(np.std(cells, ddof=1))
            assert statistics["headline/accuracy"][place, s, 0] == statistics["score/accuracy"][0, 0, r, s, 0, 0]
        for outcome, right in enumerate((False, True)):
            members = [i for i in images if (targets[i][1] == label[i]) == right]
            right_share = share([answers[i][0][0][r][0] == label[i] for i in members])
            np.testing.assert_allclose(
                statistics["by_outcome/accuracy"][outcome, place], wilson(right_share, len(members))
            )
            assert statistics["by_outcome/count"][outcome] == len(members)
    for e in range(evaluators):
        for r in range(4):
            runner_up = columns["per_image/runner_up"]
            right_share = share([answers[i][e][0][r][1] == runner_up[i] for i in images])
            np.testing.assert_allclose(statistics["runner_up/accuracy"][e, r], wilson(right_share, count), atol=1e-12)
        for c, r, s in itertools.product(range(5), range(2), range(2)):
            right_share = share([controls[i][e][c][r][s] == label[i] for i in images])
            np.testing.assert_allclose(
                statistics["controls/accuracy"][e, c, r, s], wilson(right_share, count), atol=1e-12
            )
        right_share = share([image[i][e] == label[i] for i in images])
        np.testing.assert_allclose(statistics["anchor/image"][e], wilson(right_share, count), atol=1e-12)
    right_share = share([probe_answers[i] == targets[i][2] for i in images])
    np.testing.assert_allclose(statistics["anchor/probe"], wilson(right_share, count), atol=1e-12)
    assert statistics["degenerate/count"].tolist() == columns["per_image/degenerate"].astype(int).sum(0).tolist()
    assert statistics.keys() == {column.path for column in SCHEMA.summary}


def test_chance_is_the_mean_accuracy_over_all_pairings() -> None:
    answers, reference = np.array([2, 0, 2, 1, 2]), np.array([2, 1, 2, 2, 0])
    accuracies = [(answers == reference[list(order)]).mean() for order in itertools.permutations(range(5))]
    assert score(answers, reference).chance == pytest.approx(np.mean(accuracies))
    assert score(answers, reference).chance == pytest.approx((3 * 3 + 1 + 1) / 25)


def test_balanced_accuracy_counts_every_class_alike() -> None:
    # Six images of class 0, five of them read; one of class 4, read; two of class 9, one read.
    reference = np.array([0, 0, 0, 0, 0, 0, 4, 9, 9])
    answers = np.array([0, 0, 0, 0, 0, 9, 4, 9, 0])
    result = score(answers, reference)
    assert result.accuracy[0] == pytest.approx(7 / 9)
    assert result.balanced_accuracy == pytest.approx((5 / 6 + 1 + 1 / 2) / 3)


@pytest.mark.parametrize(("right", "counts"), [(True, [0, 29]), (False, [29, 0])])
def test_an_outcome_that_no_image_has_is_no_number(right: bool, counts: list[int]) -> None:
    columns = random_columns(29, 2)
    label = columns["per_image/label"]
    columns["per_image/target_class"][:, 1] = label if right else label + 1
    statistics = summarize(Columns(columns), split_of(29, 0))
    assert statistics["by_outcome/count"] == counts
    headline = statistics["headline/accuracy"][:, 0]
    np.testing.assert_array_equal(statistics["by_outcome/accuracy"][int(right)], headline)
    assert np.isnan(statistics["by_outcome/accuracy"][int(not right)]).all()


def test_one_evaluator_has_no_deviation() -> None:
    statistics = summarize(Columns(random_columns(29, 1)), split_of(29, 0))
    assert np.isnan(statistics["headline/deviation"]).all()
    np.testing.assert_array_equal(statistics["headline/mean"], statistics["headline/accuracy"][..., 0])


# Random targets, clip-set, degenerate maps, the probe


def test_random_targets_are_all_other_classes_alike_and_a_function_of_seed_and_index() -> None:
    model, count = linear(1), 700
    images = pixels(1, COLORS, HEIGHT, WIDTH).expand(count, -1, -1, -1)
    labels = [index % CLASSES for index in range(count)]

    def targets(seed: int, first: int, last: int) -> list[int]:
        batch = batch_of(images[first:last], labels[first:last], first)
        classes = stack_targets(model(batch.images), batch, seed)
        assert classes[0].tolist() == labels[first:last]
        assert set(classes[1].tolist()) == {int(model(images[:1]).argmax())}
        random_classes: list[int] = classes[2].tolist()
        return random_classes

    expected = targets(0, 0, count)
    assert targets(0, 0, 90) + targets(0, 90, 91) + targets(0, 91, count) == expected
    steps = Counter((target - label) % CLASSES for target, label in zip(expected, labels, strict=True))
    assert steps.keys() == set(range(1, CLASSES))
    assert stats.chisquare(list(steps.values())).pvalue > 0.01
    assert share([first == other for first, other in zip(expected, targets(1, 0, count), strict=True)]) < 0.3


@pytest.mark.parametrize("size", [1, 4, COUNT])
def test_the_deviation_of_a_set_is_that_of_all_entries_of_all_its_maps(whole: Outcome, size: int) -> None:
    model = whole[0].model
    work = work_of(model, [], size=size)
    with torch.no_grad():
        logits = model(torch.cat([batch.images for batch in work.batches()])).numpy()
    images = torch.cat([batch.images for batch in work.batches()])
    for classes, deviation in zip(targets_of(work, logits).tolist(), gradmap_score._deviations(work), strict=True):
        maps = np.stack([gradient(model, *pair) for pair in zip(images, classes, strict=True)])
        assert deviation == pytest.approx(np.std(maps), rel=1e-6)
    assert len(set(gradmap_score._deviations(work))) == 3


def test_a_map_that_is_zero_everywhere_is_counted_and_gray(whole: Outcome) -> None:
    model = linear(1)
    batch = batch_of(pixels(4, COLORS, HEIGHT, WIDTH, seed=2), [0, 1, 2, 3])
    with torch.no_grad():
        cast(Any, model).layer.weight.mul_(1e6)
        cast(Any, model).layer.bias.mul_(1e6)
        sure = model(batch.images).argmax(1).tolist()
    batch = batch_of(batch.images, [sure[0], sure[1], (sure[2] + 1) % CLASSES, sure[3]])
    evaluators = [whole[0].model, linear(2), linear(3)]
    for number, evaluator in enumerate(evaluators[1:]):  # which else may see any class in gray
        cast(Any, evaluator).layer.bias.data[4 + number] += 0.1
    work = work_of(model, evaluators, batches=lambda: [batch])
    readers = Readers(ScoreSettings(), work.evaluators, subject(), gradmap_score._deviations(work), None)
    columns = rows(model, batch, readers)
    assert columns["per_image/degenerate"].T.tolist() == [[1, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]]
    gray = [answer(evaluator, np.full((COLORS, HEIGHT, WIDTH), 0.5)) for evaluator in evaluators]
    for number, expected in enumerate(gray):
        answers = columns["per_image/evaluator_prediction"][:, number]
        assert (answers[[0, 1, 3], 0] == expected).all()
        assert (answers[:, 1] == expected).all()
        scrambles = columns["per_image/control_prediction"][:, number, 2:]
        assert (scrambles[[0, 1, 3]] == expected).all()
    statistics = summarize(Columns(columns), work.split)
    assert statistics["degenerate/count"].tolist() == [3, 4, 0]


def test_without_a_probe_there_is_no_number(whole: Outcome) -> None:
    _, columns, statistics = whole
    assert (columns["per_image/probe_prediction"] == -1).all()
    assert np.isnan(statistics["anchor/probe"]).all()


def test_a_network_without_numbers_is_refused() -> None:
    model = subject()
    with torch.no_grad():
        model.classifier.weight[2, 3] = torch.nan
    with pytest.raises(UserError, match="not finite numbers"):
        prepare(work_of(model, [linear(1)]))


# The random network


def test_the_random_network_shares_no_weight_and_is_calibrated_on_training_images() -> None:
    model = subject()
    work = work_of(model, [linear(1)])
    random_network = prepare(work).random
    parameters = dict(model.named_parameters())
    for name, weights in random_network.named_parameters():
        if "norm" not in name:
            assert not torch.isclose(weights, parameters[name]).any()
    train = torch.tensor(work.dataset.train.images).permute(0, 3, 1, 2) / 255
    backbone = cast(Curves, random_network.backbone)
    with torch.no_grad():
        outputs = backbone.norm(backbone.convolution(train - 0.5))
    np.testing.assert_allclose(outputs.mean((0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(outputs.std((0, 2, 3)), 1, atol=2e-2)
    assert not random_network.training
    repetition, other = (
        prepare(work_of(model, [], settings=ScoreSettings(seed=seed))).random.classifier.weight for seed in (SEED, 1)
    )
    assert torch.equal(repetition, random_network.classifier.weight)
    assert not torch.isclose(other, repetition).any()


# Files


@pytest.fixture(scope="module")
def checkpoints(make_checkpoint: Make, tmp_path_factory: pytest.TempPathFactory) -> list[checkpoint.Checkpoint]:
    """A subject and an evaluator."""
    folder = tmp_path_factory.mktemp("trained")
    models = (("at-att", 0), ("natural", 1))
    return [checkpoint.read(make_checkpoint(folder, *model)) for model in models]


def file_work(models: Sequence[checkpoint.Checkpoint], dataset: Dataset, folder: Path, **changes: Any) -> Work:
    plain: dict[str, Any] = {
        "settings": ScoreSettings(seed=SEED),
        "split": "test",
        "limit": LIMIT,
        "batch_size": 8,
        "device": CPU,
    }
    return Work(ANALYSIS, models[0], dataset, folder, evaluators=models[1:], **(plain | changes))


@pytest.fixture(scope="module")
def stored_result(
    checkpoints: list[checkpoint.Checkpoint], digits: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Result:
    return results.read(file_work(checkpoints, digits, tmp_path_factory.mktemp("written")).run())


def content(result: Result) -> str:
    return str(results.attributes(result.path)["content_sha256"])


def test_the_stored_statistics_are_those_of_the_stored_rows(stored_result: Result, digits: Dataset) -> None:
    columns = Columns({column.path: stored_result[column.path] for column in SCHEMA.per_image})
    for path, values in summarize(columns, digits.test.first(LIMIT)).items():
        np.testing.assert_array_equal(stored_result[path], values, err_msg=path)
    assert len(np.unique(stored_result["per_image/evaluator_prediction"])) > 3
    axes = {
        "evaluator": list(stored_result.config["evaluators"]["names"]),
        "target": list(TARGETS),
        "sign": list(SIGNS),
    }
    axes |= {"rule": list(RULES), "reference": list(REFERENCES), "control": list(CONTROLS)}
    assert {axis: stored_result[axis].tolist() for axis in axes} == axes


@pytest.mark.parametrize(("size", "limit"), [(LIMIT, LIMIT), (5, 11)])
def test_answers_do_not_depend_on_the_batch_size(
    checkpoints: list[checkpoint.Checkpoint],
    stored_result: Result,
    digits: Dataset,
    tmp_path: Path,
    size: int,
    limit: int,
) -> None:
    result = results.read(file_work(checkpoints, digits, tmp_path, batch_size=size, limit=limit).run())
    for column in SCHEMA.per_image:
        values, expected = result[column.path], stored_result[column.path][:limit]
        if limit < LIMIT and "evaluator_prediction" in column.path:  # of fewer images, the deviation is another
            values, expected = (np.delete(answers, RULES.index("clip-set"), 3) for answers in (values, expected))
        np.testing.assert_array_equal(values, expected, err_msg=column.path)


def test_a_stopped_run_goes_on_to_the_same_file(
    checkpoints: list[checkpoint.Checkpoint], stored_result: Result, digits: Dataset, tmp_path: Path
) -> None:
    work, starts = file_work(checkpoints, digits, tmp_path), list[int]()

    def fail_once(model: Classifier, batch: Batch, readers: Readers) -> dict[str, AnyArray]:
        if batch.indices.start == 16 and not starts:
            starts.append(16)
            raise RuntimeError("as a crash would")
        return rows(model, batch, readers)

    work.analysis = replace(ANALYSIS, rows=fail_once)
    with pytest.raises(RuntimeError, match="crash"):
        work.run()
    with pytest.raises(UserError, match=r"another configuration \(evaluators"):
        file_work(checkpoints[:-1], digits, tmp_path).run()
    assert content(results.read(file_work(checkpoints, digits, tmp_path).run())) == content(stored_result)


def test_models_and_random_state_are_left_as_found(
    checkpoints: list[checkpoint.Checkpoint], digits: Dataset, tmp_path: Path
) -> None:
    work = file_work(checkpoints, digits, tmp_path, settings=ScoreSettings(probe=True))
    models = [work.model, *work.evaluators.values()]
    weights = [{name: tensor.clone() for name, tensor in model.state_dict().items()} for model in models]
    asking = [[weight.requires_grad for weight in model.parameters()] for model in models]
    states = torch.get_rng_state(), random.getstate(), str(np.random.get_state(legacy=False))
    result = results.read(work.run())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), str(np.random.get_state(legacy=False))) == states[1:]
    for model, originals in zip(models, weights, strict=True):
        assert all(torch.equal(originals[name], tensor) for name, tensor in model.state_dict().items())
        assert not any(module.training or module._forward_hooks for module in model.modules())
        assert all(weight.grad is None for weight in model.parameters())
    assert [[weight.requires_grad for weight in model.parameters()] for model in models] == asking
    predictions, target = result["per_image/probe_prediction"], result["per_image/target_class"][:, 2]
    assert predictions.min() >= 0
    assert result["anchor/probe"].tolist() == pytest.approx(wilson((predictions == target).mean(), LIMIT))


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_probe_learns_from_the_other_split(
    checkpoints: list[checkpoint.Checkpoint],
    digits: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    split: str,
) -> None:
    arguments: list[Any] = []

    def train(model: Classifier, other: Split, classes: int, seed: int, _: torch.device) -> Classifier:
        arguments.extend([model, other, classes, seed])
        return cast(Classifier, Linear(math.prod(digits.image_shape), 10, seed=9).eval())

    monkeypatch.setattr(probe, "train", train)
    work = file_work(checkpoints, digits, tmp_path, split=split, settings=ScoreSettings(seed=3, probe=True))
    readers = prepare(work)
    assert arguments == [work.model, digits.test if split == "train" else digits.train, 10, 3]
    batch = next(work.batches())
    targets = stack_targets(work.model(batch.images), batch, 3)
    assert readers.probe is not None
    with torch.no_grad():
        answers = [
            readers.probe(scale_rules.as_image(-loss_gradient(work.model, batch.images, classes), "clip", 0)).argmax(1)
            for classes in targets
        ]
    np.testing.assert_array_equal(rows(work.model, batch, readers)["per_image/probe_prediction"], answers[2])
    assert not torch.equal(answers[2], answers[1])


# Files made by hand

IMAGES = 20
READERS = ("toy-small-natural-seed1", "toy-small-natural-seed2", "toy-cnn-natural-seed1")
Right = Mapping[str, tuple[str, str]]
"""By evaluator, which images it reads rightly from -g by `clip`, and which by `max`: letters from a to t."""


def file_of(
    folder: Path,
    variant: str,
    seed: int,
    right: Right,
    *,
    data: str = "toy",
    split: str = "test",
    weights: Mapping[str, str] = {},
    jobs: Mapping[str, Any] = {},
) -> Result:
    """A finished file whose headline answers are given; all others are drawn at random."""
    random_numbers = np.random.default_rng([seed, len(variant), ord(variant[-1])])
    names = list(right)
    shapes = {"target": 3, "evaluator": len(names), "rule": 4, "sign": 2, "control": 5, "control_rule": 2}
    columns: dict[str, AnyArray] = {
        column.path: random_numbers.integers(0, 4, (IMAGES, *(shapes[axis] for axis in column.axes)), np.int16)
        for column in SCHEMA.per_image
    }
    label = np.arange(IMAGES) % 4
    columns["per_image/label"] = label
    for number, letters in enumerate(right.values()):
        for rule, hits in zip(("clip", "max"), letters, strict=True):
            wrong = np.array([chr(ord("a") + index) not in hits for index in range(IMAGES)])
            place = RULES.index(cast(Any, rule))
            columns["per_image/evaluator_prediction"][:, number, 0, place, 0] = (label + wrong) % 4
    job = {"dataset": data, "architecture": "small", "variant": variant, "seed": seed, "class_names": list("wxyz")}
    name = f"{data}-small-{variant}-seed{seed}"
    config = {
        "checkpoint": {"name": name, "sha256": name, "job": job},
        "data": {"dataset": data, "split": split, "images": IMAGES, "sha256": f"{data} {split}"},
        "settings": {"source": "gradient", "seed": 0, "probe": False},
        "local_grid": [4, 4],
        "evaluators": {
            "names": names,
            "sha256": [weights.get(reader, f"weights of {reader}") for reader in names],
            "jobs": dict(jobs),
        },
    }
    path = folder / f"gradmap-score-{name}-{split}.h5"
    with writer.open_rows(path, SCHEMA, IMAGES, {"evaluator": tuple(names)}, config, {}) as file:
        file.append(columns)
        file.finish(summarize(Columns(columns), split_of(IMAGES, 0)), {})
    return results.read(path)


def exact(first: int, second: int) -> float:
    """McNemar's exact two-sided p-value."""
    tosses = first + second
    tails = sum(math.comb(tosses, count) for count in range(min(first, second) + 1))
    return min(1.0, 2 * tails / float(2**tosses))


def compare(results: Sequence[Result], *views: str) -> list[list[dict[str, str]]]:
    """The tables that come after that of the controls."""
    return make_comparisons(results, *views)[1:]


THREE: dict[str, Right] = {
    "at": {READERS[0]: ("abcdefghijklm", "ab"), READERS[1]: ("abc", "t"), READERS[2]: ("a", "")},
    "at-reg": {READERS[0]: ("mn", "abcde"), READERS[1]: ("b", "st"), READERS[2]: ("b", "")},
    "at-att": {READERS[0]: ("bcdefghijklm", "abcdef"), READERS[1]: ("abcd", "a"), READERS[2]: ("abcd", "")},
}


def test_pairs_are_compared_by_exact_mcnemar_tests_corrected_by_holm(tmp_path: Path) -> None:
    files = [file_of(tmp_path, variant, 0, right) for variant, right in THREE.items()]
    (table,) = compare(files)
    # By `clip` the first evaluator has only a to l against n, only a against none, only n against b to l.
    expected = [
        ("clip", "at against at-reg", 12, 1, 2),
        ("clip", "at against at-att", 1, 0, 1),
        ("clip", "at-reg against at-att", 1, 11, 3),
        ("raw", "at against at-reg", 0, 3, 2),
        ("raw", "at against at-att", 0, 4, 1),
        ("raw", "at-reg against at-att", 0, 1, 1),
    ]
    p_values = sorted((exact(first, second), place) for place, (_, _, first, second, _) in enumerate(expected))
    corrections, highest = {}, 0.0
    for step, (p_value, place) in enumerate(p_values):
        highest = corrections[place] = max(highest, min(1.0, (6 - step) * p_value))
    assert table == [
        {
            "rule": rule,
            "pair": f"{pair} seed 0",
            "read by": "small-natural-seed1",
            "only the first read": str(first),
            "only the second": str(second),
            "p (McNemar, Holm)": f"{corrections[place]:.2g}",
            "same sign": f"in {agreements} of 3 evaluators",
        }
        for place, (rule, pair, first, second, agreements) in enumerate(expected)
    ]
    assert compare(files, "raw")[0][0]["p (McNemar, Holm)"] == f"{min(1, 2 * exact(0, 3)):.2g}"
    assert [row["rule"] for row in compare(files, "raw")[0]] == ["raw"] * 3


class Overwrite:
    """A file, one column of which has other values."""

    def __init__(self, result: Result, path: str, values: AnyArray) -> None:
        self._result, self._path, self._values = result, path, values

    def __getattr__(self, name: str) -> Any:
        return getattr(self._result, name)

    def __getitem__(self, path: str) -> AnyArray:
        return self._values if path == self._path else self._result[path]


@pytest.mark.parametrize(("count", "cell"), [(14, "70% as x"), (13, None), (20, "100% as x")])
def test_a_table_says_where_an_evaluator_gives_most_maps_one_class(
    count: int, cell: str | None, tmp_path: Path
) -> None:
    """Of 20 maps; answers that are no class count among all."""
    result = file_of(tmp_path, "at", 0, THREE["at"])
    assert "read alike" not in format_headline(result)
    path, place = "per_image/evaluator_prediction", RULES.index("clip")
    answers = result[path].copy()
    answers[:, 0, 0, place, 0] = [1] * count + [-1] * (IMAGES - count)
    assert IMAGES == 20
    row = format_headline(cast(Result, Overwrite(result, path, answers)))
    assert row.get("read alike") == cell


def test_evaluators_are_those_that_read_both_with_the_same_weights(tmp_path: Path) -> None:
    right, other = THREE["at"], THREE["at-reg"]
    subset = {name: other[name] for name in (READERS[2], READERS[1])} | {"toy-small-at-seed1": ("", "")}
    first, second = file_of(tmp_path, "at", 0, right), file_of(tmp_path, "at-reg", 0, subset)
    (row,), *rest = compare([first, second], "clip")
    assert not rest
    assert (row["read by"], row["only the first read"], row["only the second"]) == ("small-natural-seed2", "2", "0")
    assert row["same sign"] == "in 1 of 2 evaluators"
    retraining = file_of(tmp_path / "retrained", "at-reg", 0, subset, weights={READERS[1]: "of another training"})
    (row,), *_ = compare([first, retraining], "clip")
    assert (row["read by"], row["same sign"]) == ("cnn-natural-seed1", "in 0 of 1 evaluator")
    pair = [
        file_of(tmp_path / name, variant, 0, THREE[variant], jobs={READERS[0]: card_of(name)})
        for variant, name in (("at", "imagenet"), ("at-reg", "none"))
    ]
    (row,), *_ = compare(pair, "clip")
    assert (row["read by"], row["same sign"]) == ("small-natural-seed2", "in 1 of 2 evaluators")
    difference = describe_differences(*map(list_conditions, pair))
    assert difference == f"cards of evaluators.{READERS[0]}.normalize is imagenet, here none"
    assert describe_differences(*map(list_conditions, (first, retraining))) == ""
    strangers = file_of(tmp_path / "strangers", "at-reg", 0, {"toy-small-at-seed1": ("", "")})
    assert compare([first, strangers]) == []


def test_only_adversarially_trained_variants_of_one_seed_and_the_same_images_are_paired(tmp_path: Path) -> None:
    first = file_of(tmp_path, "at", 0, THREE["at"])
    for variant, seed, data, split in (
        ("natural", 0, "toy", "test"),
        ("at-reg", 1, "toy", "test"),
        ("at-reg", 0, "other", "test"),
        ("at-reg", 0, "toy", "train"),
    ):
        assert compare([first, file_of(tmp_path, variant, seed, THREE["at-reg"], data=data, split=split)]) == []


def test_seeds_are_set_side_by_side_by_the_evaluators_that_read_all(tmp_path: Path) -> None:
    natural = {
        seed: file_of(tmp_path, "natural", seed, right)
        for seed, right in (
            (0, {READERS[0]: ("abcd", "a"), READERS[2]: ("ab", "")}),
            (1, {"toy-small-natural-seed0": ("a", "a"), READERS[2]: ("abcdef", "a"), READERS[0]: ("ab", "ab")}),
            (2, {READERS[2]: ("abcdefgh", "abc"), READERS[0]: ("", "a")}),
        )
    }
    alone = file_of(tmp_path, "natural-att", 0, {READERS[0]: ("a", "a")})
    on_other_data = file_of(tmp_path, "natural", 3, {READERS[0]: ("a", "a")}, data="other")
    (table,) = compare([natural[0], natural[1], on_other_data, natural[2], alone])
    seeds, readers = "small natural, seeds 0, 1, 2", "small-natural-seed1, cnn-natural-seed1"
    means = {"clip": [6 / 40, 8 / 40, 8 / 40], "raw": [1 / 40, 3 / 40, 4 / 40]}
    assert table == [
        {
            "rule": rule,
            "training seeds": seeds,
            "mean": f"{100 * np.mean(shares):.1f} %",
            "deviation": f"{100 * math.sqrt(sum((value - np.mean(shares)) ** 2 for value in shares) / 2):.1f} %",
            "read by": readers,
        }
        for rule, shares in means.items()
    ]
    assert compare([alone]) == []
    assert [row["rule"] for row in compare(list(natural.values()), "raw")[0]] == ["raw"]
    stranger = file_of(tmp_path / "stranger", "natural", 4, {"toy-small-at-seed1": ("", "")})
    assert compare([natural[0], stranger]) == []


def test_the_first_table_shows_the_headline(tmp_path: Path) -> None:
    result = file_of(tmp_path, "at", 0, THREE["at"])
    row = format_headline(result)
    label = result["per_image/label"]
    value, low, high = wilson(13 / 20, IMAGES)
    assert row["clip -g"] == f"65.0 % [{100 * low:.1f}, {100 * high:.1f}]"
    assert value == 0.65
    assert row["raw -g"].startswith("10.0 % [")
    plus = (result["per_image/evaluator_prediction"][:, 0, 0, RULES.index("max"), 1] == label).mean()
    assert row["raw +g"].startswith(f"{100 * plus:.1f} % [")
    spread = np.std([13 / 20, 3 / 20, 1 / 20], ddof=1)
    assert row["clip -g, 3 evaluators"] == f"{100 * 17 / 60:.1f} \u00b1 {100 * spread:.1f} %"
    assert row["read by"] == "small-natural-seed1"
    assert (row["gray maps"], row["images"]) == (str(result["per_image/degenerate"][:, 0].sum()), "20")
    for view in ("clip", "raw"):
        other = {"clip": "raw", "raw": "clip"}[view]
        assert format_headline(result, view) == {key: value for key, value in row.items() if not key.startswith(other)}
    assert ANALYSIS.views == ("clip", "raw")
    alone = file_of(tmp_path / "alone", "at", 0, {READERS[0]: THREE["at"][READERS[0]]})
    assert format_headline(alone).keys() == {key for key in row if "evaluators" not in key}


def test_the_second_table_shows_the_controls(stored_result: Result, tmp_path: Path) -> None:
    files = [file_of(tmp_path, "at", 0, THREE["at"]), file_of(tmp_path, "natural", 1, THREE["at-att"])]
    table, *_ = make_comparisons(files)
    assert [(row["rule"], row["instead of the map of"]) for row in table] == [
        (rule, model) for rule in ("clip", "raw") for model in ("at seed 0", "natural seed 1")
    ]
    for row, (rule, result) in zip(table, itertools.product((0, 1), files), strict=True):
        label = result["per_image/label"]
        for number, name in enumerate(CONTROLS):
            right = result["per_image/control_prediction"][:, 0, number, rule, 0] == label
            assert row[name] == f"{100 * right.mean():.1f} %"
        image = (result["per_image/image_prediction"][:, 0] == label).mean()
        assert row["the image"] == f"{100 * image:.1f} %"
        assert row["random target, by a probe"].startswith(f"{100 * result['anchor/probe'][0]:.1f} % [")
    assert make_comparisons(files, "raw")[0] == table[2:]
    assert "random target, by a probe" not in make_comparisons([stored_result])[0][0]


# The picture


@pytest.fixture(scope="module")
def two_results(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    """Two models that were not read by the same evaluators."""
    folder = tmp_path_factory.mktemp("drawn")
    other = {name: THREE["at-att"][name] for name in (READERS[2], READERS[1])} | {"toy-small-at-seed1": ("abc", "a")}
    return [file_of(folder, "at", 0, THREE["at"]), file_of(folder, "at-att", 0, other)]


def marks(axes: Axes, *, is_filled: bool) -> list[tuple[float, float]]:
    return [
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]))  # type: ignore[index, arg-type]
        for line in axes.lines
        if line.get_marker() not in ("None", "") and (line.get_markerfacecolor() != "white") == is_filled
    ]


def test_every_mark_is_where_its_number_is(two_results: list[Result]) -> None:
    figure = picture_of(two_results).figure
    names = ["small-natural-seed1", "small-natural-seed2", "cnn-natural-seed1", "small-at-seed1"]
    controls = ["random network", "edges of the image", "pixels shuffled", "phases random", "absolute value"]
    for axes, (rule, title) in zip(figure.axes, PANELS.items(), strict=True):
        assert axes.get_title() == title
        heights = {}
        for text, height in zip(figure.axes[0].get_yticklabels(), figure.axes[0].get_yticks(), strict=True):
            heights[text.get_text()] = float(height)
        assert list(heights) == [*names, *controls]
        assert list(heights.values()) == sorted(heights.values())
        expected: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
        for row, result in enumerate(two_results):
            place, lift = RULES.index(cast(Any, rule)), row - 0.5
            for number, name in enumerate(result["evaluator"].tolist()):
                for sign, cells in ((0, True), (1, False)):
                    value = result["score/accuracy"][number, 0, place, sign, 0, 0]
                    expected[cells].append((100 * value, heights[name.removeprefix("toy-")] + lift))
            for number, name in enumerate(controls):
                for sign, cells in ((0, True), (1, False)):
                    value = result["controls/accuracy"][0, number, PER_IMAGE_RULES.index(cast(Any, rule)), sign, 0]
                    expected[cells].append((100 * value, heights[name] + lift))
        for is_filled, points in expected.items():
            np.testing.assert_allclose(sorted(marks(axes, is_filled=is_filled)), sorted(points))
        bars = [tuple(segment[:, 0]) for part in axes.collections for segment in part.get_segments()]  # type: ignore[attr-defined]
        intervals = [
            tuple(100 * result["score/accuracy"][number, 0, place, 0, 0, 1:])
            for result in two_results
            for number in range(3)
        ]
        assert all(any(np.allclose(interval, bar) for bar in bars) for interval in intervals)
        assert [float(line.get_xdata()[0]) for line in axes.lines if line.get_linestyle() == "--"] == [25]  # type: ignore[index, arg-type]
    low, high = figure.axes[0].get_ylim()
    assert all(
        high < place < low for is_filled in (True, False) for _, place in marks(figure.axes[0], is_filled=is_filled)
    )
    shapes = {style.choose_marker(result) for result in two_results}
    colors = {to_hex(str(line.get_color())) for line in figure.axes[0].lines if line.get_marker() in shapes}
    assert colors == {style.choose_color(variant).lower() for variant in ("at", "at-att")}


def test_the_caption_holds_the_numbers_and_names_rules_and_readers(two_results: list[Result], tmp_path: Path) -> None:
    lines: list[str] = []
    (picture,) = drawing.draw("gradmap-score", [result.path for result in two_results], tmp_path, lines.append)
    caption = json.loads(picture.with_suffix(".json").read_text())
    assert list(caption["numbers"]) == ["at seed 0", "at-att seed 0"]
    for result, numbers in zip(two_results, caption["numbers"].values(), strict=True):
        for path in ("score/accuracy", "controls/accuracy", "headline/accuracy", "headline/mean", "anchor/image"):
            np.testing.assert_allclose(numbers[path], result[path])
        assert numbers["evaluator"] == result["evaluator"].tolist()
    text = caption["caption"]
    anchors = {
        name: accuracy
        for result in two_results
        for name, accuracy in zip(result["evaluator"], result["anchor/image"][:, 0], strict=True)
    }
    for name, accuracy in anchors.items():
        assert f"{name.removeprefix('toy-')} {100 * accuracy:.0f} %" in text
    for part in ("20 test", "first evaluator (small-natural-seed1, cnn-natural-seed1)", "one in 4", "Wilson 95 %"):
        assert part in text
