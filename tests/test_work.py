"""An analysis over a dataset: its rows, its independence of batches and stops, and what it refuses."""

import hashlib
import math
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import oddity
import pytest
import torch
from oddity import Oddities

from interpret_robust import analyses
from interpret_robust.analyses.engine.naming import name_file
from interpret_robust.analyses.engine.settings import Settings
from interpret_robust.analyses.engine.work import Work
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.configs import as_stored
from interpret_robust.core.errors import UserError
from interpret_robust.core.file_names import LONGEST
from interpret_robust.core.interruption import Stopped
from interpret_robust.datasets import Dataset, Split
from interpret_robust.datasets.batches import Batch
from interpret_robust.datasets.corruptions import CORRUPTIONS
from interpret_robust.models import Classifier, checkpoint
from interpret_robust.results import hdf5

CPU = torch.device("cpu")
BALL = {"eps": 2 / 255, "seed": 5}
ATTACKS: dict[str, dict[str, Any]] = {
    "robustness": {"pgd": "3", "cw": "none"},
    "attention-rank": {"steps": 3},
}
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def checkpoint_path(make_checkpoint: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("trained"), "at-att")


def work(path: Path, dataset: Dataset, folder: Path, name: str = "robustness", **changes: Any) -> Work:
    analysis = analyses.get(name)
    plain: dict[str, Any] = {"split": "train", "limit": None, "batch_size": 16, "device": CPU}
    settings = analysis.settings(**BALL, **ATTACKS[name])
    return Work(analysis, checkpoint.read(path), dataset, folder, **({"settings": settings} | plain | changes))


def columns(path: Path) -> dict[str, AnyArray]:
    schema = analyses.get(hdf5.read(path).analysis).schema
    result = hdf5.read(path, schema.label)
    return {column.path.removeprefix("per_image/"): result[column.path] for column in schema.per_image}


def content(path: Path) -> str:
    hdf5.read(path)
    return str(hdf5.attributes(path)["content_sha256"])


@pytest.mark.long
@pytest.mark.parametrize("name", ["robustness", "attention-rank"])
def test_rows_do_not_depend_on_the_batch_size(
    checkpoint_path: Path, digits: Dataset, tmp_path: Path, name: str
) -> None:
    whole, other, first = (
        columns(work(checkpoint_path, digits, tmp_path / str(size), name, batch_size=size, limit=limit).run())
        for size, limit in ((60, None), (7, None), (9, 25))
    )
    for column, values in whole.items():
        exact = values.dtype.kind == "i"
        for actual in (other[column], first[column]):
            tolerance = 0 if exact else 2e-3 if column.startswith("spearman") else 1e-4
            distances = farthest(actual, values[: len(actual)])
            # An attack steps by the signs of gradients: where a pixel's is zero but for rounding, which goes by the
            # size of the batch, the pixel may go the other way. One in a thousand moves an image's rows by little.
            assert (distances > tolerance).mean() <= ANOTHER_WAY and distances.max() <= 20 * tolerance, column
    assert len(first["label"]) == 25


ANOTHER_WAY = 0.05
"""Share of images whose attack rounding may lead another way; a leak between images would show in all."""


def farthest(actual: AnyArray, expected: AnyArray) -> AnyArray:
    """For each image, the largest difference of its entries; NaN has to stand where NaN stands."""
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected))
    distances: AnyArray = np.abs(np.nan_to_num(actual) - np.nan_to_num(expected)).reshape(len(actual), -1).max(1)
    return distances


def stop_after(count: int, stop: Callable[[], None]) -> Callable[[Classifier, Batch, Any], dict[str, AnyArray]]:
    """The rows of robustness, with `stop` called in the midst of the batch after `after` batches."""
    calls = [0]

    def rows(model: Classifier, batch: Batch, settings: Any) -> dict[str, AnyArray]:
        table: dict[str, AnyArray] = analyses.get("robustness").rows(model, batch, settings)
        if calls[0] == count:
            stop()
        calls[0] += 1
        return table

    return rows


def fail() -> None:
    raise RuntimeError("as a crash would")


@pytest.mark.parametrize(
    ("stop", "error", "start"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGTERM), Stopped, 32),
        (lambda: os.kill(os.getpid(), signal.SIGINT), Stopped, 32),
        (fail, RuntimeError, 16),
    ],
)
def test_a_stopped_run_goes_on_to_the_same_file(
    checkpoint_path: Path, digits: Dataset, tmp_path: Path, stop: Callable[[], None], error: type[Exception], start: int
) -> None:
    whole = work(checkpoint_path, digits, tmp_path / "whole").run()
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    job = work(checkpoint_path, digits, tmp_path / "stopped")
    job.analysis = replace(job.analysis, rows=stop_after(1, stop))
    with pytest.raises(error, match=f"before image {start} of 60" if error is Stopped else "crash"):
        job.run()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert [path.name for path in job.path.parent.iterdir()] == [f"{job.path.name}.partial"]

    starts: list[int] = []
    second_job = work(checkpoint_path, digits, tmp_path / "stopped")

    def note(model: Classifier, batch: Batch, settings: Any) -> dict[str, AnyArray]:
        starts.append(batch.indices.start)
        rows: dict[str, AnyArray] = analyses.get("robustness").rows(model, batch, settings)
        return rows

    second_job.analysis = replace(second_job.analysis, rows=note)
    assert content(second_job.run()) == content(whole)
    assert starts == list(range(start, 60, 16))


def test_an_analysis_that_is_late_keeps_its_batches_and_goes_on_to_the_same_file(
    checkpoint_path: Path, digits: Dataset, tmp_path: Path
) -> None:
    whole = work(checkpoint_path, digits, tmp_path / "whole").run()
    late = work(checkpoint_path, digits, tmp_path / "late", deadline=0.0)
    with pytest.raises(Stopped, match="before image 0 of 60"):
        late.run()
    half = work(checkpoint_path, digits, tmp_path / "late", deadline=time.monotonic() + 60)

    def pass_the_deadline() -> None:
        half._deadline = 0.0

    half.analysis = replace(half.analysis, rows=stop_after(1, pass_the_deadline))
    with pytest.raises(Stopped, match="before image 32 of 60"):
        half.run()
    assert content(work(checkpoint_path, digits, tmp_path / "late").run()) == content(whole)


def test_a_finished_analysis_is_recognized(checkpoint_path: Path, digits: Dataset, tmp_path: Path) -> None:
    job = work(checkpoint_path, digits, tmp_path)
    assert not job.is_done(overwrite=False)
    job.run()
    assert work(checkpoint_path, digits, tmp_path).is_done(overwrite=False)
    assert not work(checkpoint_path, digits, tmp_path).is_done(overwrite=True)


def retrain(path: Path, folder: Path) -> Path:
    """A checkpoint of the same name and origin with other weights."""
    snapshot = checkpoint.read(path)
    bias = snapshot.tensors["classifier.bias"]
    checkpoint.write(folder / path.name, snapshot.about, snapshot.tensors | {"classifier.bias": bias + 1})
    return folder / path.name


def test_another_setting_under_the_same_name_is_refused(checkpoint_path: Path, digits: Dataset, tmp_path: Path) -> None:
    images = digits.train.images.copy()
    images[0, 0, 0, 0] ^= 1
    other_digits = replace(digits, train=replace(digits.train, images=images))
    other = retrain(checkpoint_path, tmp_path)
    cases: list[tuple[Work, tuple[str, ...]]] = [
        (work(checkpoint_path, digits, tmp_path, batch_size=7), ("batch_size", "16", "7")),
        (
            work(checkpoint_path, other_digits, tmp_path),
            ("data.sha256", digits.train.sha256, other_digits.train.sha256),
        ),
        (work(other, digits, tmp_path), (checkpoint.read(checkpoint_path).sha256, checkpoint.read(other).sha256)),
    ]
    job = work(checkpoint_path, digits, tmp_path)
    job.analysis = replace(job.analysis, rows=stop_after(1, fail))
    with pytest.raises(RuntimeError, match="crash"):
        job.run()
    attempts: list[Callable[[Work], object]] = [Work.run, lambda task: task.is_done(overwrite=False)]
    for attempt in attempts:
        for task, parts in cases:
            with pytest.raises(UserError, match=r"another configuration|the answer of another model") as error:
                attempt(task)
            assert all(part in str(error.value) for part in (str(task.path), "--overwrite", *parts))
        work(checkpoint_path, digits, tmp_path).run()
    assert content(cases[0][0].run(overwrite=True)) != content(work(checkpoint_path, digits, tmp_path / "other").run())


def test_a_model_is_not_its_own_evaluator(make_checkpoint: Make, digits: Dataset, tmp_path: Path) -> None:
    snapshot = checkpoint.read(make_checkpoint(tmp_path))
    copy = checkpoint.Checkpoint(tmp_path / "copy.safetensors", snapshot.about, snapshot.tensors, snapshot.sha256)
    with pytest.raises(UserError, match="cannot be its own evaluator: name a model of another seed") as error:
        work(snapshot.path, digits, tmp_path, evaluators=[copy])
    assert str(snapshot.path) in str(error.value)


@pytest.mark.parametrize(
    ("shape", "classes", "sentence"),
    [
        ((28, 28, 3), 10, "[3, 28, 28], 10 classes"),
        ((32, 32, 1), 10, "[1, 32, 32], 10 classes"),
        ((32, 32, 3), 7, "[3, 32, 32], 7 classes"),
    ],
)
def test_a_dataset_that_does_not_fit_the_model_is_refused(
    checkpoint_path: Path, tmp_path: Path, shape: tuple[int, ...], classes: int, sentence: str
) -> None:
    split = Split(np.zeros((20, *shape), np.uint8), np.arange(20) % classes)
    strange = Dataset("strange", split, split, tuple(map(str, range(classes))))
    with pytest.raises(UserError, match="does not fit strange") as error:
        work(checkpoint_path, strange, tmp_path)
    assert all(part in str(error.value) for part in (str(checkpoint_path), "[3, 32, 32], 10 classes", sentence))


def test_the_file_names_all_that_decides_its_numbers(checkpoint_path: Path, digits: Dataset, tmp_path: Path) -> None:
    settings = analyses.get("attention-rank").settings(steps=4, seed=3)
    path = work(checkpoint_path, digits, tmp_path, "attention-rank", settings=settings, split="test", limit=20).run()
    config = hdf5.read(path).config
    assert config["analysis"] == "attention-rank/3"
    assert config["checkpoint"]["sha256"] == checkpoint.read(checkpoint_path).sha256
    assert config["checkpoint"]["job"] == checkpoint.read(checkpoint_path).job
    assert config["data"] == {
        "dataset": "cluttered-digits",
        "split": "test",
        "images": 20,
        "sha256": digits.test.first(20).sha256,
    }
    defaults = {"eps": 8 / 255, "step_size": 2 / 255, "spatial_weight": "attention"}
    assert config["settings"] == as_stored(replace(settings, norm="linf")) | {"steps": 4, "seed": 3} | defaults
    assert (config["batch_size"], config["device"]) == (16, "cpu")
    environment = hdf5.read_provenance(path)["environment"]
    assert torch.__version__.startswith(environment["torch"])
    assert environment["threads"] == torch.get_num_threads()


@pytest.fixture(scope="module")
def odd() -> Dataset:
    return oddity.odd_images()


@pytest.fixture(scope="module")
def odd_models(odd: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[checkpoint.Checkpoint]:
    """A subject and two evaluators of other architectures."""
    folder = tmp_path_factory.mktemp("odd")
    choices = (("small", "at-att", 0), ("small", "natural", 1), ("cnn", "natural", 2))
    return [checkpoint.read(oddity.write_untrained(folder, odd, *model)) for model in choices]


def odd_work(models: list[checkpoint.Checkpoint], dataset: Dataset, folder: Path, **changes: Any) -> Work:
    subject, *evaluators = models
    plain: dict[str, Any] = {"settings": Oddities(), "split": "test", "limit": None, "batch_size": 5, "device": CPU}
    return Work(oddity.ANALYSIS, subject, dataset, folder, **(plain | {"evaluators": evaluators} | changes))


def test_axes_have_the_lengths_and_names_of_model_data_and_evaluators(
    odd: Dataset, odd_models: list[checkpoint.Checkpoint], tmp_path: Path
) -> None:
    path = odd_work(odd_models, odd, tmp_path).run()
    subject, *evaluators = [snapshot.model(CPU) for snapshot in odd_models]
    images = torch.tensor(odd.test.images).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        local = subject.features(images).local
        read = np.stack([model(images).argmax(1) for model in evaluators], 1)
        logits = subject(images)
    result = hdf5.read(path)
    np.testing.assert_array_equal(result["per_image/pixel"], odd.test.images)
    np.testing.assert_allclose(result["per_image/planes"], odd.test.images.transpose(0, 3, 1, 2) / 255, atol=1e-6)
    np.testing.assert_allclose(result["per_image/local"], local.reshape(23, 64, 20), atol=1e-5)
    np.testing.assert_allclose(result["per_image/logit"], logits, atol=1e-4)
    np.testing.assert_array_equal(result["per_image/read"], read)
    np.testing.assert_allclose(result["test/read"], (read == odd.test.labels[:, None]).mean(0))
    assert result["test/highest"] == pytest.approx(float(logits.max()), abs=1e-4)
    np.testing.assert_allclose(result["per_image/above"], odd.test.labels - odd.test.labels.mean(), atol=1e-6)
    axis_names = {"class": odd.class_names, "evaluator": tuple(model.path.stem for model in odd_models[1:])}
    lengths = {"sample": 23, "y": 16, "x": 20, "color": 3, "channel": 64, "position": 20}
    with h5py.File(path) as file:
        assert {axis: tuple(file[axis].asstr()[...]) for axis in axis_names} == axis_names
        assert {axis: file[axis][...].tolist() for axis in lengths} == {
            axis: list(range(length)) for axis, length in lengths.items()
        }


def test_examples_are_chosen_by_the_settings_and_axes_may_depend_on_the_work(
    odd: Dataset, odd_models: list[checkpoint.Checkpoint], tmp_path: Path
) -> None:
    path = odd_work(odd_models, odd, tmp_path, settings=Oddities(count=4)).run()
    result, images = hdf5.read(path), odd.test.images.astype(float)
    np.testing.assert_array_equal(result["examples/index"], [3, 2, 1, 0])
    np.testing.assert_array_equal(result["examples/logit"], result["per_image/logit"][[3, 2, 1, 0]])
    thirds = (slice(0, 6), slice(6, 11), slice(11, 16))
    brightness = [[images[index, third].mean() for third in thirds] for index in (3, 2, 1, 0)]
    np.testing.assert_allclose(result["examples/brightness"], brightness)
    with h5py.File(path) as file:
        assert file["third"].asstr()[...].tolist() == ["from 0", "from 6", "from 11"]
        assert file["example"][...].tolist() == [0, 1, 2, 3]


def test_what_rows_need_is_prepared_once_before_the_first_row_and_again_on_resuming(
    odd: Dataset, odd_models: list[checkpoint.Checkpoint], tmp_path: Path
) -> None:
    whole = odd_work(odd_models, odd, tmp_path / "whole").run()
    calls: list[str] = []

    def prepare(job: Work) -> Any:
        calls.append("prepare")
        return oddity.prepare(job)

    def rows(model: Classifier, batch: Batch, context: Any) -> dict[str, AnyArray]:
        if calls.count("prepare") == 1 and batch.indices.start == 15:
            fail()
        calls.append(f"rows {batch.indices.start}")
        return oddity.rows(model, batch, context)

    for count in (15, 23):
        job = odd_work(odd_models, odd, tmp_path / "stopped")
        job.analysis = replace(oddity.ANALYSIS, prepare=prepare, rows=rows)
        if count == 15:
            with pytest.raises(RuntimeError, match="crash"):
                job.run()
    assert content(job.run()) == content(whole)
    assert calls == ["prepare", "rows 0", "rows 5", "rows 10", "prepare", "rows 15", "rows 20"]


def test_without_preparation_rows_get_the_resolved_settings(
    checkpoint_path: Path, digits: Dataset, tmp_path: Path
) -> None:
    job = work(checkpoint_path, digits, tmp_path, "attention-rank", settings=analyses.get("attention-rank").settings())
    assert job.analysis.prepare(job) is job.settings
    assert (job.settings.eps, job.settings.step_size) == (8 / 255, 2 / 255)


@pytest.mark.parametrize(("start", "sizes"), [(0, [5, 5, 5, 5, 3]), (15, [5, 3]), (7, [5, 5, 5, 1]), (23, [])])
def test_batches_are_the_images_from_a_start_on(
    odd: Dataset, odd_models: list[checkpoint.Checkpoint], tmp_path: Path, start: int, sizes: list[int]
) -> None:
    job = odd_work(odd_models, replace(odd, test=replace(odd.test, masks=odd.test.images[..., 0] > 99)), tmp_path)
    batches = list(job.batches(range(start, 23, 5)))
    assert [len(batch.images) for batch in batches] == sizes
    assert [index for batch in batches for index in batch.indices] == list(range(start, 23))
    for batch in batches:
        indices = list(batch.indices)
        np.testing.assert_allclose(batch.images, odd.test.images[indices].transpose(0, 3, 1, 2) / 255, atol=1e-7)
        np.testing.assert_array_equal(batch.labels, odd.test.labels[indices])
        assert batch.masks is not None
        np.testing.assert_array_equal(batch.masks, odd.test.images[indices, ..., 0] > 99)


def test_evaluators_and_their_order_are_part_of_the_configuration(
    odd: Dataset, odd_models: list[checkpoint.Checkpoint], tmp_path: Path
) -> None:
    subject, first, second = odd_models
    result = hdf5.read(odd_work(odd_models, odd, tmp_path).run())
    names = [first.path.stem, second.path.stem]
    record = result.config["evaluators"]
    assert (record["names"], record["sha256"]) == (names, [first.sha256, second.sha256])
    assert record["jobs"] == {first.path.stem: first.job, second.path.stem: second.job}
    assert odd_work(odd_models, odd, tmp_path).is_done(overwrite=False)
    for evaluators, sentence in (([second, first], "evaluators.names"), ([first], "evaluators.names")):
        with pytest.raises(UserError, match="another configuration") as error:
            odd_work([subject, *evaluators], odd, tmp_path).is_done(overwrite=False)
        assert sentence in str(error.value)
    path = retrain(first.path, tmp_path)
    with pytest.raises(UserError, match=r"another configuration \(evaluators\.sha256 is"):
        odd_work([subject, checkpoint.read(path), second], odd, tmp_path).is_done(overwrite=False)
    assert "evaluators" not in odd_work([subject], odd, tmp_path).config


def test_evaluators_that_are_not_the_default_ones_are_in_the_file_name(
    odd: Dataset, odd_models: list[checkpoint.Checkpoint], tmp_path: Path
) -> None:
    subject, first, second = odd_models
    plain = odd_work(odd_models, odd, tmp_path).path.name
    names = [
        odd_work([subject, *evaluators], odd, tmp_path, default_evaluators=False).path.name
        for evaluators in ([first, second], [second, first], [first])
    ]
    assert plain == "odd-odd-small-at-att-seed0-test.h5"
    assert len({plain, *names}) == 4
    assert all(re.fullmatch(r"odd-odd-small-at-att-seed0-test-by[0-9a-f]{6}\.h5", name) for name in names)


def test_evaluators_of_one_name_are_refused(
    odd: Dataset, odd_models: list[checkpoint.Checkpoint], tmp_path: Path
) -> None:
    subject, first, second = odd_models
    other = checkpoint.read(retrain(first.path, tmp_path))
    with pytest.raises(UserError, match="two evaluators have one name") as error:
        odd_work([subject, first, second, other], odd, tmp_path)
    assert first.path.stem in str(error.value)


def test_an_evaluator_that_does_not_fit_is_refused(
    odd: Dataset, odd_models: list[checkpoint.Checkpoint], checkpoint_path: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="does not fit odd") as error:
        odd_work([*odd_models, checkpoint.read(checkpoint_path)], odd, tmp_path)
    assert str(checkpoint_path) in str(error.value)


def test_data_without_masks_are_refused_where_masks_are_needed(
    checkpoint_path: Path, digits: Dataset, tmp_path: Path
) -> None:
    analysis = replace(analyses.get("robustness"), needs_masks=True)
    snapshot = checkpoint.read(checkpoint_path)
    plain: dict[str, Any] = {"settings": analysis.settings(), "limit": None, "batch_size": 16, "device": CPU}
    bare = replace(digits, test=replace(digits.test, masks=None))
    assert next(Work(analysis, snapshot, bare, tmp_path, split="train", **plain).batches()).masks is not None
    assert next(work(checkpoint_path, bare, tmp_path, split="test").batches()).masks is None
    with pytest.raises(UserError) as error:
        Work(analysis, snapshot, bare, tmp_path, split="test", **plain)
    assert str(error.value) == (
        "cluttered-digits has no object masks, which robustness needs: a .npz has them as mask_train and mask_test."
    )


def short_path(settings: Settings, limit: int | None = None, other: str = "", model: str = "m-seed0") -> str:
    return name_file(Path("nowhere"), oddity.ANALYSIS, model, {}, "test", settings, limit, other).name


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "odd-m-seed0-test.h5"),
        ({"count": 12}, "odd-m-seed0-test-count12.h5"),
        ({"count": -1}, "odd-m-seed0-test-count-1.h5"),
        ({"scale": -0.25}, "odd-m-seed0-test-scale-0.25.h5"),
        ({"scale": 8 / 255}, "odd-m-seed0-test-scale0.03137.h5"),
        ({"scale": 0.0313}, "odd-m-seed0-test-scale0.0313.h5"),
        ({"scale": 0.03137}, "odd-m-seed0-test-scale0.031370.h5"),
        ({"scale": 0.031372}, "odd-m-seed0-test-scale0.031372.h5"),
        ({"scale": 2 / 255}, "odd-m-seed0-test-scale0.007843.h5"),
        ({"scale": 0.25}, "odd-m-seed0-test-scale0.25.h5"),
        ({"scale": 0.1 + 0.2}, "odd-m-seed0-test-scale0.30000000000000004.h5"),
        ({"scale": 1234567.5}, "odd-m-seed0-test-scale1234567.5.h5"),
        ({"scale": 1e-7}, "odd-m-seed0-test-scale1e-07.h5"),
        ({"most": 2.0}, "odd-m-seed0-test-most2.h5"),
        ({"deep": True}, "odd-m-seed0-test-deep1.h5"),
        ({"left_side": "closed"}, "odd-m-seed0-test-leftsideclosed.h5"),
        ({"pick": "indices:0,7,42"}, "odd-m-seed0-test-pickindices_0_7_42.h5"),
        ({"pick": "../../etc passwd*?\0\n"}, "odd-m-seed0-test-pick.._.._etc_passwd_.h5"),
        ({"count": 4, "deep": True, "left_side": "closed"}, "odd-m-seed0-test-count4-deep1-leftsideclosed.h5"),
    ],
)
def test_what_differs_from_the_default_is_in_the_file_name(settings: dict[str, Any], name: str) -> None:
    assert short_path(Oddities(**settings)) == name


def test_no_two_numbers_share_a_file_name() -> None:
    """Radii in quarters of 1/255, what they are called, and the floats next to both."""
    radii = [quarter / 1020 for quarter in range(1, 1021)]
    values = {*radii, *(float(f"{radius:.4g}") for radius in radii), 0.0313, 8.0, 1e-5, 12345.0, 12345.5}
    values |= {math.nextafter(value, bound) for value in tuple(values) for bound in (0, 2)}
    default = Oddities().scale
    names = {short_path(Oddities(scale=value)) for value in values - {default}}
    assert len(names) == len(values - {default}) > 3 * 1020
    assert all(f"-scale{radius:.4g}.h5" in short_path(Oddities(scale=radius)) for radius in radii if radius != default)


def test_data_and_number_of_images_are_in_the_file_name() -> None:
    assert short_path(Oddities(count=4), 100, "svhn") == "odd-m-seed0-on-svhn-test-count4-first100.h5"


def test_a_limit_that_the_split_does_not_reach_is_none(
    odd: Dataset, odd_models: list[checkpoint.Checkpoint], tmp_path: Path
) -> None:
    size = len(odd.test)
    whole, equal, longer, shorter = (
        odd_work(odd_models, odd, tmp_path, limit=limit) for limit in (None, size, size + 1, size - 1)
    )
    assert whole.path == equal.path == longer.path != shorter.path
    whole.run()
    assert equal.is_done(overwrite=False) and longer.is_done(overwrite=False) and not shorter.is_done(overwrite=False)
    assert whole.origin == equal.origin == longer.origin
    assert (whole.origin["limit"], shorter.origin["limit"]) == (None, size - 1)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("a" * 40, "a" * 40),
        ("a" * 41, f"{'a' * 24}_{digest('a' * 41)}"),
        ("fog,snow,frost", "fog_snow_frost"),
        (",".join(CORRUPTIONS), f"gaussian_noise_and_14_more_{digest(','.join(CORRUPTIONS))}"),
        (
            "indices:1111,2222,3333,4444,5555,6666,7777",
            f"indices_1111_and_6_more_{digest('indices:1111,2222,3333,4444,5555,6666,7777')}",
        ),
    ],
)
def test_a_long_setting_is_its_first_item_a_count_and_a_digest(value: str, name: str) -> None:
    assert short_path(Oddities(pick=value), 100) == f"odd-m-seed0-test-pick{name}-first100.h5"


def test_each_list_of_an_analysis_gives_a_short_name_of_its_own() -> None:
    """Every setting that is text, given as lists that differ in their last item alone."""
    job = {"recipe": {"eps": 8 / 255, "norm": "linf"}, "attention": None}
    lists = {
        ("corruptions", "corruptions"): [",".join([*CORRUPTIONS][:count]) for count in (14, 13, 2)],
        ("robustness", "pgd"): [",".join(map(str, range(1, count))) for count in (30, 40, 4)],
        ("robustness", "cw"): [",".join(map(str, range(1, count))) for count in (30, 40, 4)],
        ("gradient-maps", "select"): [f"indices:{','.join(map(str, range(10000, last)))}" for last in (10009, 10010)],
    }
    for (analysis, setting), values in lists.items():
        entry = analyses.get(analysis)
        settings = [entry.settings(**{setting: value}) for value in values]
        names = [name_file(Path("nowhere"), entry, "m-seed0", job, "test", choice, 200).name for choice in settings]
        assert len({*names}) == len(names) and max(map(len, names)) < 100, names
        assert all(name.endswith("-first200.h5") for name in names)


def test_a_file_with_a_long_list_in_its_name_is_still_read(tmp_path: Path) -> None:
    settings, longest = Oddities(pick="indices:" + ",".join(map(str, range(30)))), "_".join(map(str, range(30)))
    new = name_file(tmp_path, oddity.ANALYSIS, "m", {}, "test", settings, 7)
    assert new.name == f"odd-m-test-pickindices_0_and_29_more_{digest(settings.pick)}-first7.h5"
    old = tmp_path / f"odd-m-test-pickindices_{longest}-first7.h5"
    old.touch()
    assert name_file(tmp_path, oddity.ANALYSIS, "m", {}, "test", settings, 7) == old
    new.touch()
    assert name_file(tmp_path, oddity.ANALYSIS, "m", {}, "test", settings, 7) == new


def test_a_file_name_is_never_too_long(odd: Dataset, odd_models: list[checkpoint.Checkpoint], tmp_path: Path) -> None:
    longest = short_path(Oddities(), model="m" * (LONGEST - len("odd--test")))
    assert longest == f"odd-{'m' * 191}-test.h5"
    names = {short_path(Oddities(), model="m" * count + end) for count in (191, 192, 5000) for end in "ab"}
    names |= {short_path(Oddities(pick="p" * 500), model="m" * 500 + end) for end in "ab"}
    assert len(names) == 8
    assert {len(name) for name in names} == {LONGEST + len(".h5")}
    assert all(name.startswith("odd-mmm") for name in names)
    options = {"settings": Oddities(pick="p" * 5000)}
    job = odd_work(odd_models, odd, tmp_path, **options)
    assert content(job.run()) == content(job.path)
    assert odd_work(odd_models, odd, tmp_path, **options).is_done(overwrite=False)


@pytest.mark.parametrize(("name", "choice"), [("feature-deletion", "fill"), ("gradient-maps", "target")])
def test_a_choice_that_there_is_not_is_refused_from_python_too(checkpoint_path: Path, name: str, choice: str) -> None:
    settings = analyses.get(name).settings(**{choice: "nothing"})
    with pytest.raises(UserError, match=f"unknown {choice} 'nothing': known are "):
        settings.resolve(checkpoint.read(checkpoint_path).job)
