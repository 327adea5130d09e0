"""Signs of masking: each column by a slow second way, in balls that grow, on networks whose gradients are known."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import array, pixels
from torch import Tensor, nn

from interpret_robust import figures
from interpret_robust.analyses import masking
from interpret_robust.analyses.engine.work import Work
from interpret_robust.analyses.masking import ANALYSIS, MaskingSettings, rows, summarize
from interpret_robust.attacks.noise import per_image_noise
from interpret_robust.attacks.norms import make_ball
from interpret_robust.attacks.pgd import PGD
from interpret_robust.attacks.settings import Norm, choose_step
from interpret_robust.attacks.square import RandomSearch
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import UserError
from interpret_robust.core.intervals import wilson
from interpret_robust.core.random_numbers import make_streams
from interpret_robust.datasets import Dataset, Split
from interpret_robust.datasets.batches import Batch
from interpret_robust.models import checkpoint
from interpret_robust.results import hdf5
from interpret_robust.results.columns import Columns
from interpret_robust.results.hdf5 import Result

N, SHAPE, CLASSES = 24, (3, 5, 7), 4
EPS = 0.02
SETTINGS = MaskingSettings(EPS, EPS / 4, queries=10)


class Curve(nn.Module):
    """A small smooth network whose logits are of the order of what eps can change."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(SHAPE)), 12), nn.Tanh(), nn.Linear(12, CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers.double()(images.double())
        return logits


def batch(first: int = 0, last: int = N) -> Batch:
    """Images that the network has right but for each fifth."""
    images = pixels(N, *SHAPE)
    labels = Curve()(images).argmax(1)
    labels[::5] = (labels[::5] + 1) % CLASSES
    return Batch(images[first:last], labels[first:last], range(first, last), None)


def columns(model: Any = None, settings: MaskingSettings = SETTINGS, **part: int) -> dict[str, AnyArray]:
    model = model or Curve().eval()
    answers = rows(model, batch(**part), settings)
    return {name.removeprefix("per_image/"): values for name, values in answers.items()}


def predicted(images: Tensor) -> AnyArray:
    answer: AnyArray = Curve()(images).argmax(1).numpy()
    return answer


BALLS: dict[Norm, tuple[float, float]] = {"linf": (EPS, EPS / 4), "l2": (0.12, 0.015), "l1": (0.8, 0.08)}
"""By norm the radius and the length of a step."""


@pytest.mark.long
@pytest.mark.parametrize("norm", BALLS)
def test_each_column_is_that_attack_on_each_image_alone(norm: Norm) -> None:
    eps, step = BALLS[norm]
    settings, ball = MaskingSettings(eps, step, queries=10, norm=norm), make_ball(norm, eps)
    table, whole = columns(settings=settings), batch()
    for index in range(N):
        image, label = whole.images[index : index + 1], whole.labels[index : index + 1]

        def predict_after(attack: PGD, image: Tensor = image, label: Tensor = label, index: int = index) -> int:
            return int(predicted(attack(Curve(), image, label, per_image_noise(0, [index])))[0])

        assert table["label"][index] == label.item()
        assert table["prediction_natural"][index] == predicted(image)[0]
        assert table["prediction_one_step"][index] == predict_after(PGD(eps, eps, 1, random_start=False, norm=norm))
        best = RandomSearch(eps, 10, norm=norm)(Curve(), image, label, make_streams(0, [index], masking.SEARCH))
        assert table["prediction_search"][index] == predicted(best)[0]
        noise = per_image_noise(0, [index], masking.NOISE)
        draws = [ball.start(image, noise, *ball.bounds(image)) for _ in range(masking.DRAWS)]
        assert table["prediction_noise"][index].tolist() == [predicted(draw)[0] for draw in draws]
        answer = predicted(image)[0]
        for place, factor in enumerate(masking.FACTORS):
            if answer == label.item():
                answer = predict_after(PGD(factor * eps, factor * step, 20, norm=norm))
            assert table["prediction_pgd"][index, place] == answer
    right = table["prediction_pgd"] == table["label"][:, None]
    assert (np.diff(right.sum(0)) <= 0).all() and right[:, 0].sum() > right[:, -1].sum()


@pytest.mark.parametrize("norm", BALLS)
def test_rows_do_not_depend_on_the_batch(norm: Norm) -> None:
    settings = MaskingSettings(*BALLS[norm], queries=10, norm=norm)
    whole, *parts = [columns(settings=settings, **part) for part in ({}, {"first": 0, "last": 7}, {"first": 7})]
    for name, values in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values, err_msg=name)


def test_zeros_of_the_gradients_are_counted() -> None:
    class Half(Curve):
        """The gradient stops at all but the first row of pixels, and for bright images everywhere."""

        def forward(self, images: Tensor) -> Tensor:
            row, rest = images[:, :, :1], images[:, :, 1:]
            bright = images[:, :1, :1, :1] > 0.5
            return super().forward(torch.cat([torch.where(bright, row.detach(), row), rest.detach()], dim=2))

    table, images = columns(Half().eval()), batch().images
    bright = array(images[:, 0, 0, 0]) > 0.5
    assert 0 < bright.sum() < N
    np.testing.assert_allclose(table["zero_share"][:, 0], np.where(bright, 1, 1 - 1 / SHAPE[1]), rtol=1e-6)
    np.testing.assert_array_equal(table["zero_share"][:, 0], table["zero_share"][:, 1])
    assert columns()["zero_share"].max() == 0


def test_a_loss_that_saturates_is_told_from_one_that_does_not() -> None:
    class Plateau(Curve):
        def forward(self, images: Tensor) -> Tensor:
            return (1e6 * super().forward(images)).float()

    zero, right = columns(Plateau().eval())["zero_share"], np.arange(N) % 5 != 0
    np.testing.assert_array_equal(zero[:, 0] == 1, right)  # the cross-entropy of a misclassified image is steep
    assert zero[:, 1].max() == 0


def test_statistics_by_hand() -> None:
    label = np.array([0, 1, 2, 3, 0])
    right = {  # yes or no for each of five images
        "natural": [1, 1, 1, 1, 0],
        "one_step": [1, 1, 0, 1, 1],
        "search": [1, 0, 1, 1, 0],
    }
    repeats = {"noise": [[1, 1, 1, 1, 1], [1, 1, 0, 1, 0]], "pgd": [[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]}
    data: dict[str, Any] = {f"prediction_{name}": np.where(flags, label, 9) for name, flags in right.items()}
    data |= {f"prediction_{name}": np.where(np.array(flags).T, label[:, None], 9) for name, flags in repeats.items()}
    data |= {"label": label, "zero_share": np.array([[1, 0], [1, 0.5], [0.5, 0], [0, 0], [0, 0]], np.float32)}
    source = Columns({f"per_image/{name}": np.asarray(values) for name, values in data.items()})
    summary = summarize(source, Split(np.zeros((5, 1, 1, 3), np.uint8), label))
    counts = {
        "accuracy/natural": 4,
        "accuracy/noise_worst": 3,
        "accuracy/one_step": 3,
        "accuracy/search": 3,
    }
    for name, count in counts.items():
        np.testing.assert_allclose(summary[name], wilson(count, 5))
    np.testing.assert_allclose(summary["accuracy/noise"], [wilson(5, 5), wilson(3, 5)])
    np.testing.assert_allclose(summary["accuracy/pgd"], [wilson(3, 5), wilson(1, 5)])
    np.testing.assert_allclose(summary["zero/all"], [wilson(2, 5), wilson(0, 5)])
    np.testing.assert_allclose(summary["zero/entries"], [0.5, 0.1])


@pytest.mark.parametrize(
    ("eps", "factors", "largest"), [(8 / 255, (1, 2, 4, 8), 64 / 255), (0.3, (1, 2, 4), 1), (1.0, (1,), 1)]
)
def test_balls_grow_until_one_covers_all_images(eps: float, factors: tuple[int, ...], largest: float) -> None:
    settings = MaskingSettings().resolve({"recipe": {"eps": eps}})
    assert settings.factors(100) == factors
    last = settings.pgd(factors[-1])
    assert last.eps == pytest.approx(largest)
    assert last.step_size == pytest.approx(factors[-1] * eps / 4)
    assert settings.pgd(1) == PGD(eps, eps / 4, 20)


@pytest.mark.parametrize(
    ("norm", "eps", "factors"),
    [("l2", 1.25, (1, 2, 4, 8)), ("l2", 1.3, (1, 2, 4)), ("l1", 30.0, (1, 2)), ("l1", 90, (1,))],
)
def test_in_other_norms_no_ball_covers_all_images(norm: Norm, eps: float, factors: tuple[int, ...]) -> None:
    """Of a hundred numbers two images are 10 apart in L2 and 100 in L1 at most."""
    settings = MaskingSettings().resolve({"recipe": {"eps": eps, "norm": norm}})
    assert settings.factors(100) == factors
    assert settings.pgd(factors[-1]) == PGD(factors[-1] * eps, factors[-1] * choose_step(eps, norm), 20, norm=norm)


def test_a_search_without_queries_is_refused() -> None:
    with pytest.raises(UserError, match="queries 0: both must be above zero"):
        MaskingSettings(queries=0).resolve({"recipe": {"eps": 0.1}})


@pytest.fixture(scope="module")
def masking_result(
    digits: Dataset, make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Result:
    """The file of a small model, of 20 images."""
    folder = tmp_path_factory.mktemp("masking")
    work = Work(
        ANALYSIS,
        checkpoint.read(make_checkpoint(folder, "at")),
        digits,
        folder,
        settings=replace(SETTINGS, eps=None, step_size=None),
        split="train",
        limit=20,
        batch_size=8,
        device=torch.device("cpu"),
    )
    return hdf5.read(work.run(), "masking/1")


def test_tables_and_pictures_name_the_norm(digits: Dataset, masking_result: Result, tmp_path: Path) -> None:
    name = masking_result.config["checkpoint"]["name"]
    work = Work(
        ANALYSIS,
        checkpoint.read(masking_result.path.parent / f"{name}.safetensors"),
        digits,
        tmp_path,
        settings=MaskingSettings(0.5, queries=3, norm="l2"),
        split="train",
        limit=6,
        device=torch.device("cpu"),
    )
    result = hdf5.read(work.run(), "masking/1")
    assert "l2" in result.path.name
    assert "PGD-20 at L2 4" in ANALYSIS.table_row(result)
    drawing = figures.get("masking").draw([result])
    assert "Right, at L2 eps 0.5: natural images" in drawing.caption
    (numbers,) = drawing.numbers.values()
    assert numbers["radii"] == ["L2 0.5", "L2 1", "L2 2", "L2 4"]
    left, right = drawing.figure.axes
    assert left.get_xlabel() == "L2 radius of PGD-20"
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["0", "0.5", "1", "2", "4"]
    assert right.get_xlabel() == "accuracy at L2 0.5, %"


def test_the_table_and_the_picture_show_the_files_numbers(masking_result: Result) -> None:
    row = ANALYSIS.table_row(masking_result)
    assert list(row) == [
        *("natural", "noise", "one step", "PGD-20", "search, 10 queries", "PGD-20 at 64/255"),
        *("no gradient (cross-entropy, margin)", "images"),
    ]
    assert row["natural"].startswith(f"{100 * masking_result['accuracy/natural'][0]:.1f} % [")
    assert row["PGD-20 at 64/255"].startswith(f"{100 * masking_result['accuracy/pgd'][3, 0]:.1f} % [")
    assert row["images"] == "20"
    drawing = figures.get("masking").draw([masking_result])
    (numbers,) = drawing.numbers.values()
    assert numbers["pgd"] == masking_result["accuracy/pgd"].tolist()
    assert numbers["radii"] == ["8/255", "16/255", "32/255", "64/255"]
    left, right = drawing.figure.axes
    np.testing.assert_allclose(
        np.asarray(left.lines[0].get_ydata(), float),
        100 * np.append(masking_result["accuracy/natural"][0], masking_result["accuracy/pgd"][:, 0]),
    )
    positions = [float(np.asarray(mark.lines[0].get_xdata())[0]) for mark in right.containers]
    of_marks = [masking_result[f"accuracy/{name}"][0] for name in ("natural", "noise_worst", "search", "one_step")]
    np.testing.assert_allclose(positions, [100 * value for value in (*of_marks, masking_result["accuracy/pgd"][0, 0])])
    assert "on 20 train images of cluttered-digits" in drawing.caption
    assert "random search of 10 queries" in drawing.caption
