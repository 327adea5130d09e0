"""The analysis of corrupted images: answers one by one, made-up outcomes, and what is printed and drawn."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anyone import C, Convolutions, H, K, N, W, seed_network
from make_golden import file_of
from networks import array, pixels, settle

from interpret_robust import analyses, figures
from interpret_robust.analyses.corruptions import ANALYSIS, CorruptionSettings, compare, group_means, rows, summarize
from interpret_robust.analyses.engine.work import Work
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.bootstrap import bootstrap_mean, ratio_of_means
from interpret_robust.core.errors import UserError
from interpret_robust.core.intervals import wilson
from interpret_robust.datasets import Dataset
from interpret_robust.datasets.batches import Batch
from interpret_robust.datasets.cifar_c import GROUPS
from interpret_robust.datasets.corruptions import CORRUPTIONS, corrupt_images
from interpret_robust.models import checkpoint
from interpret_robust.models.preprocess import Preprocess
from interpret_robust.models.wrapper import WrappedModel
from interpret_robust.results import hdf5
from interpret_robust.results.columns import Columns
from interpret_robust.results.hdf5 import Result

CPU = torch.device("cpu")
LABELS = torch.tensor([0, 6, 3, 3, 1])
START = 40
CHOICE = CorruptionSettings("contrast, fog,gaussian_noise", "5,2", seed=3).resolve({})
NAMES = ("gaussian_noise", "fog", "contrast")


def model() -> WrappedModel:
    network: Convolutions = seed_network(Convolutions)
    settle(network)
    with torch.no_grad():
        network.answer.bias.sub_(network(pixels(N, C, H, W, seed=2)).mean(0))  # so that answers differ
    return WrappedModel(network, Preprocess((0.0,), (1.0,)), "body")


def batch(part: slice = slice(0, N)) -> Batch:
    images = pixels(N, C, H, W, seed=2)
    return Batch(images[part], LABELS[part], range(START + part.start, START + part.stop), None)


def test_settings_name_each_corruption_once_and_in_order() -> None:
    assert CHOICE.names() == NAMES and CHOICE.strengths() == (2, 5)
    assert CorruptionSettings().resolve({}).names() == tuple(CORRUPTIONS)
    assert CorruptionSettings("fog,noise").resolve({}).names() == (*GROUPS["noise"], "fog")
    assert CorruptionSettings(",".join(GROUPS)).resolve({}) == CorruptionSettings().resolve({})


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"corruptions": "fogg"}, "unknown corruption 'fogg': did you mean 'fog'"),
        ({"corruptions": ""}, "unknown corruption ''"),
        ({"severities": "1,6"}, "the severities are '1,6', and must be numbers from 1 to 5, such as 1,3,5."),
        ({"severities": "two"}, "the severities are 'two'"),
        ({"seed": -1}, "seed is -1: it must not be negative"),
    ],
)
def test_nonsense_gets_a_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        CorruptionSettings(**settings).resolve({})


def test_rows_are_the_answers_to_each_corrupted_image_alone() -> None:
    network, whole = model(), batch()
    columns = rows(network, whole, CHOICE)
    images = np.moveaxis(array(whole.images).astype(np.float32), 1, 3)
    for image in range(N):
        natural = network(whole.images[image : image + 1]).argmax(1)
        assert columns["per_image/prediction_natural"][image] == natural
        for name in NAMES:
            for place, severity in enumerate((2, 5)):
                pixels = corrupt_images(images[image : image + 1], name, severity, 3, [START + image])
                expected = int(network(torch.from_numpy(np.moveaxis(pixels, 3, 1))).argmax(1))
                assert columns["per_image/prediction"][image, NAMES.index(name), place] == expected
    answers = columns["per_image/prediction"]
    assert answers.shape == (N, 3, 2) and len(np.unique(answers)) > 2
    right = (answers == array(LABELS)[:, None, None]).mean(2)
    np.testing.assert_array_equal(columns["per_image/right"][:, [0, 2, 3, 4]], np.c_[right, right.mean(1)])
    assert np.isnan(columns["per_image/right"][:, 1]).all()


def test_rows_do_not_depend_on_the_batch_and_leave_the_model_as_it_was() -> None:
    network = model()
    whole = rows(network, batch(), CHOICE)
    parts = [rows(network, batch(part), CHOICE) for part in (slice(0, 2), slice(2, N))]
    for name, values in whole.items():
        np.testing.assert_array_equal(values, np.concatenate([part[name] for part in parts]))
    assert not network.training and torch.is_grad_enabled()


def made_up(names: Sequence[str], count: int = 40, seed: int = 0) -> dict[str, AnyArray]:
    """Columns of random answers, about half of them right."""
    stream = np.random.default_rng(seed)
    label = stream.integers(0, K, count)
    right = stream.random((count, len(names), 2)) < 0.5
    prediction = np.where(right, label[:, None, None], (label[:, None, None] + 1) % K)
    natural = np.where(stream.random(count) < 0.8, label, (label + 1) % K)
    columns = {
        "label": label,
        "prediction_natural": natural,
        "prediction": prediction,
        "right": group_means(right.mean(2), names),
    }
    return {f"per_image/{name}": values for name, values in columns.items()}


def test_group_means_are_over_the_members_that_there_are() -> None:
    values = np.arange(12.0).reshape(3, 4)
    means = group_means(values, ("gaussian_noise", "impulse_noise", "zoom_blur", "pixelate"))
    np.testing.assert_array_equal(means[:, 0], [0.5, 4.5, 8.5])
    np.testing.assert_array_equal(means[:, 1], values[:, 2])
    assert np.isnan(means[:, 2]).all()
    np.testing.assert_array_equal(means[:, 3], values[:, 3])
    np.testing.assert_array_equal(means[:, 4], values.mean(1))


def test_statistics_are_those_of_the_outcomes(digits: Dataset) -> None:
    columns = made_up(NAMES)
    statistics = summarize(Columns(columns), digits.test)
    label = columns["per_image/label"]
    natural = columns["per_image/prediction_natural"] == label
    assert tuple(statistics["accuracy/natural"]) == wilson(int(natural.sum()), 40)
    for place in range(3):
        shares = []
        for severity in range(2):
            right = columns["per_image/prediction"][:, place, severity] == label
            assert tuple(statistics["accuracy/corrupted"][place, severity]) == wilson(int(right.sum()), 40)
            shares.append(right)
        share = np.mean(shares, axis=0)
        group = (0, 2, 3)[place]  # each stands alone in its group
        for name, values in (
            ("accuracy/by_corruption", share),
            ("accuracy/by_group", share),
            ("accuracy/loss_by_group", natural - share),
        ):
            row = statistics[name][place if name == "accuracy/by_corruption" else group]
            assert tuple(row) == pytest.approx(bootstrap_mean(values))
    right_share = (columns["per_image/prediction"] == label[:, None, None]).mean((1, 2))
    assert tuple(statistics["accuracy/by_group"][4]) == pytest.approx(bootstrap_mean(right_share), abs=1e-7)
    assert tuple(statistics["error/mean"]) == pytest.approx(bootstrap_mean(1 - right_share), abs=1e-7)
    assert (
        np.isnan(statistics["accuracy/by_group"][1]).all() and np.isnan(statistics["accuracy/loss_by_group"][1]).all()
    )


@pytest.fixture(scope="module")
def answers(
    digits: Dataset, make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Result]:
    """Of two models, and of one of them under another seed."""
    folder = tmp_path_factory.mktemp("answers")

    def ask(variant: str, *, seed: int = 3, batch_size: int = 4) -> Result:
        settings = CorruptionSettings("contrast,fog,gaussian_noise", "2,5", seed=seed)
        subject = checkpoint.read(make_checkpoint(folder, variant))
        work = Work(
            ANALYSIS,
            subject,
            digits,
            folder,
            settings=settings,
            split="train",
            limit=9,
            batch_size=batch_size,
            device=CPU,
        )
        return hdf5.read(work.run())

    return {"natural": ask("natural"), "at": ask("at", batch_size=9), "other seed": ask("at", seed=4)}


def test_a_file_holds_what_the_model_says_whatever_the_batch(
    answers: dict[str, Result], digits: Dataset, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    images = digits.train.images[:9] / np.float32(255)
    for variant in ("natural", "at"):
        network, result = checkpoint.read(make_checkpoint(tmp_path, variant)).model(CPU), answers[variant]
        for place, name in enumerate(NAMES):
            pixels = torch.from_numpy(corrupt_images(images, name, 5, 3, range(9))).permute(0, 3, 1, 2)
            assert result["per_image/prediction"][:, place, 1].tolist() == network(pixels).argmax(1).tolist()
            expected = np.rint(255 * corrupt_images(images, name, 5, 3, range(9))[0])
            np.testing.assert_array_equal(result["examples/corrupted"][place], expected)
        np.testing.assert_array_equal(result["examples/natural"], digits.train.images[0])
        assert result["corruption"].tolist() == list(NAMES) and result["severity"].tolist() == [2, 5]


def test_tables_hold_accuracies_by_group_and_by_corruption(answers: dict[str, Result]) -> None:
    result = answers["at"]
    row = ANALYSIS.table_row(result)
    assert list(row) == ["natural", "noise", "weather", "digital", "all", "mean error", "images"]
    value = 100 * result["accuracy/by_group"][2][0]
    assert row["weather"].startswith(f"{value:.1f} % [") and row["images"] == "9"
    (table,) = compare([result])
    assert [cells["corruption"] for cells in table] == list(NAMES)
    assert table[1]["small-at-seed0"].startswith(f"{100 * result['accuracy/by_corruption'][1][0]:.1f} % [")


def test_models_are_compared_with_the_first_on_the_same_corrupted_images(answers: dict[str, Result]) -> None:
    first, second = answers["natural"], answers["at"]
    accuracies, comparison, costs = compare([first, answers["other seed"], second])
    assert list(accuracies[0]) == ["corruption", "small-natural-seed0", "small-at-seed0"]
    assert [cells["model"] for cells in comparison] == [second.config["checkpoint"]["name"]]
    assert first.config["checkpoint"]["name"] in comparison.title
    right = [
        (result["per_image/prediction"] == result["per_image/label"][:, None, None]).mean(2)
        for result in (first, second)
    ]
    cells = comparison[0]
    assert cells["relative mCE"] == ratio_of_means(1 - right[1], 1 - right[0]).percent()
    assert cells["digital"] == bootstrap_mean(right[1][:, 2] - right[0][:, 2]).points()
    assert "blur" not in cells
    natural = [result["per_image/prediction_natural"] == result["per_image/label"] for result in (first, second)]
    assert cells["natural"] == bootstrap_mean(natural[1] * 1.0 - natural[0]).points()
    losses = [whole[:, None] - share for whole, share in zip(natural, right, strict=True)]
    for place, name in enumerate(NAMES):
        expected = bootstrap_mean(losses[1][:, place] - losses[0][:, place]).points()
        assert costs[place] == {"corruption": name, "small-at-seed0": expected}
    tables, _ = compare([first, first])[1:]
    assert tables[0]["relative mCE"].startswith("100.0 %") and tables[0]["all"] == "+0.0 points [+0.0, +0.0]"


def test_curves_drawn_are_those_stored(answers: dict[str, Result]) -> None:
    results = [answers["natural"], answers["at"]]
    drawing = figures.get("corruptions").draw(results)
    panels = {axes.get_title(): axes for axes in drawing.figure.axes if axes.get_visible()}
    assert list(panels) == ["gaussian noise", "fog", "contrast"]
    for place, axes in enumerate(panels.values()):
        for result, line in zip(results, axes.lines, strict=True):
            np.testing.assert_array_equal(line.get_xdata(), [0, 2, 5])
            shares = np.vstack([result["accuracy/natural"], result["accuracy/corrupted"][place]])
            np.testing.assert_array_equal(line.get_ydata(), 100 * shares[:, 0])
    assert "9 train images" in drawing.caption and "not those of CIFAR-10-C" in drawing.caption
    assert drawing.numbers["at seed 0"]["error/mean"] == answers["at"]["error/mean"].tolist()


def test_examples_drawn_are_those_stored(answers: dict[str, Result]) -> None:
    drawing = figures.list_plots("corruptions", "examples")["examples"]([answers["at"]])
    axes = [axes for axes in drawing.figure.axes if axes.images]
    assert [panel.get_title() for panel in axes] == ["natural", "gaussian noise", "fog", "contrast"]
    pictures = [answers["at"]["examples/natural"], *answers["at"]["examples/corrupted"]]
    for panel, picture in zip(axes, pictures, strict=True):
        np.testing.assert_array_equal(np.asarray(panel.images[0].get_array()), picture)
    assert "severity 5" in drawing.caption


def test_all_corruptions_are_in_the_golden_file() -> None:
    result = analyses.read(file_of(ANALYSIS.schema))
    assert result["corruption"].tolist() == list(CORRUPTIONS)
    assert result["per_image/prediction"].shape == (8, 15, 5)
