"""An analysis over a dataset: its rows, its independence of batches and stops, and what it refuses."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from interpret_robust import analyses, results
from interpret_robust.attacks import PGD, AttackSettings, per_image_noise
from interpret_robust.datasets import Dataset, Split
from interpret_robust.errors import UserError
from interpret_robust.interruption import Stopped
from interpret_robust.models import Classifier, Head, build
from interpret_robust.results import AnyArray
from interpret_robust.streaming import Batch, Work, has_attention
from interpret_robust.training import checkpoint

CPU = torch.device("cpu")
SETTINGS = AttackSettings(eps=2 / 255, steps=3, seed=5)
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def trained(make_checkpoint: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("trained"), "at-att")


def work(path: Path, dataset: Dataset, folder: Path, name: str = "robustness", **changes: Any) -> Work:
    plain: dict[str, Any] = {"settings": SETTINGS, "split": "train", "limit": None, "batch_size": 16, "device": CPU}
    return Work(analyses.get(name), checkpoint.read(path), dataset, folder, **(plain | changes))


def columns(path: Path) -> dict[str, AnyArray]:
    schema = analyses.get(results.read(path).schema.partition("/")[0]).schema
    result = results.read(path, schema.label)
    return {column.path.removeprefix("per_image/"): result[column.path] for column in schema.per_image}


def content(path: Path) -> str:
    results.read(path)
    return str(results.attributes(path)["content_sha256"])


def margin(logits: Tensor, labels: Tensor) -> list[float]:
    pairs = zip(logits.tolist(), labels.tolist(), strict=True)
    return [row[label] - max(row[:label] + row[label + 1 :]) for row, label in pairs]


def test_robustness_rows_are_those_of_a_direct_computation(trained: Path, digits: Dataset, tmp_path: Path) -> None:
    path = work(trained, digits, tmp_path).run()
    found, count = columns(path), len(digits.train)
    model = checkpoint.read(trained).model(CPU)
    images = torch.tensor(digits.train.images / 255, dtype=torch.float32).permute(0, 3, 1, 2)
    labels = torch.tensor(digits.train.labels)
    attack = PGD(eps=2 / 255, step_size=0.5 / 255, steps=3)
    adversarial = attack(model, images, labels, per_image_noise(5, range(count)))
    with torch.no_grad():
        natural, attacked = model(images), model(adversarial)
    np.testing.assert_array_equal(found["label"], labels)
    np.testing.assert_array_equal(found["prediction_natural"], natural.argmax(1))
    np.testing.assert_array_equal(found["prediction_adversarial"], attacked.argmax(1))
    np.testing.assert_allclose(found["margin_natural"], margin(natural, labels), atol=1e-4)
    np.testing.assert_allclose(found["margin_adversarial"], margin(attacked, labels), atol=1e-4)
    np.testing.assert_allclose(found["perturbation"], (adversarial - images).abs().flatten(1).max(1)[0], atol=1e-6)

    right = [int((logits.argmax(1) == labels).sum()) for logits in (natural, attacked)]
    assert 5 < right[1] < right[0] - 5
    result = results.read(path)
    assert [result[f"accuracy/{name}"][0] for name in ("natural", "adversarial")] == [n / count for n in right]
    np.testing.assert_array_equal(found["margin_adversarial"] > 0, found["prediction_adversarial"] == found["label"])


@pytest.mark.parametrize("name", ["robustness", "attention-rank"])
def test_rows_do_not_depend_on_the_batch_size(trained: Path, digits: Dataset, tmp_path: Path, name: str) -> None:
    one, other, first = (
        columns(work(trained, digits, tmp_path / str(size), name, batch_size=size, limit=limit).run())
        for size, limit in ((60, None), (7, None), (9, 25))
    )
    for column, values in one.items():
        exact = values.dtype.kind == "i"
        for found in (other[column], first[column]):
            tolerance = 0 if exact else 2e-3 if column.startswith("spearman") else 1e-4
            np.testing.assert_allclose(found, values[: len(found)], rtol=0, atol=tolerance, err_msg=column)
    assert len(first["label"]) == 25


def stopping(after: int, stop: Callable[[], None]) -> Callable[[Classifier, Batch, Any], dict[str, AnyArray]]:
    """The rows of robustness, with `stop` called in the midst of the batch after `after` batches."""
    seen = [0]

    def rows(model: Classifier, batch: Batch, settings: Any) -> dict[str, AnyArray]:
        found: dict[str, AnyArray] = analyses.get("robustness").rows(model, batch, settings)
        if seen[0] == after:
            stop()
        seen[0] += 1
        return found

    return rows


def fail() -> None:
    raise RuntimeError("as a crash would")


@pytest.mark.parametrize(
    ("stop", "error", "kept"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGTERM), Stopped, 32),
        (lambda: os.kill(os.getpid(), signal.SIGINT), Stopped, 32),
        (fail, RuntimeError, 16),
    ],
)
def test_a_stopped_run_goes_on_to_the_same_file(
    trained: Path, digits: Dataset, tmp_path: Path, stop: Callable[[], None], error: type[Exception], kept: int
) -> None:
    whole = work(trained, digits, tmp_path / "whole").run()
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    stopped = work(trained, digits, tmp_path / "stopped")
    stopped.analysis = replace(stopped.analysis, rows=stopping(1, stop))
    with pytest.raises(error, match=f"after {kept} of 60" if error is Stopped else "crash"):
        stopped.run()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert [path.name for path in stopped.path.parent.iterdir()] == [f"{stopped.path.name}.partial"]

    begun: list[int] = []
    resumed = work(trained, digits, tmp_path / "stopped")

    def noting(model: Classifier, batch: Batch, settings: Any) -> dict[str, AnyArray]:
        begun.append(batch.indices.start)
        rows: dict[str, AnyArray] = analyses.get("robustness").rows(model, batch, settings)
        return rows

    resumed.analysis = replace(resumed.analysis, rows=noting)
    assert content(resumed.run()) == content(whole)
    assert begun == list(range(kept, 60, 16))


def test_a_finished_analysis_is_recognised(trained: Path, digits: Dataset, tmp_path: Path) -> None:
    this = work(trained, digits, tmp_path)
    assert not this.is_done(overwrite=False)
    this.run()
    assert work(trained, digits, tmp_path).is_done(overwrite=False)
    assert not work(trained, digits, tmp_path).is_done(overwrite=True)


def retrained(path: Path, folder: Path) -> Path:
    """A checkpoint of the same name and origin with other weights."""
    found = checkpoint.read(path)
    checkpoint.write(folder / path.name, found.about, found.tensors | {"classifier.bias": torch.arange(10.0)})
    return folder / path.name


def test_another_setting_under_the_same_name_is_refused(trained: Path, digits: Dataset, tmp_path: Path) -> None:
    images = digits.train.images.copy()
    images[0, 0, 0, 0] ^= 1
    changed = replace(digits, train=replace(digits.train, images=images))
    other = retrained(trained, tmp_path)
    cases: list[tuple[Work, tuple[str, ...]]] = [
        (work(trained, digits, tmp_path, batch_size=7), ("batch_size", "16", "7")),
        (work(trained, changed, tmp_path), ("data.sha256", digits.train.sha256, changed.train.sha256)),
        (work(other, digits, tmp_path), (checkpoint.read(trained).sha256, checkpoint.read(other).sha256)),
    ]
    stopped = work(trained, digits, tmp_path)
    stopped.analysis = replace(stopped.analysis, rows=stopping(1, fail))
    with pytest.raises(RuntimeError, match="crash"):
        stopped.run()
    attempts: list[Callable[[Work], object]] = [Work.run, lambda this: this.is_done(overwrite=False)]
    for attempt in attempts:
        for this, said in cases:
            with pytest.raises(UserError, match="another configuration") as error:
                attempt(this)
            assert all(part in str(error.value) for part in (str(this.path), "--overwrite", *said))
        work(trained, digits, tmp_path).run()
    assert content(cases[0][0].run(overwrite=True)) != content(work(trained, digits, tmp_path / "other").run())


def test_a_model_without_attention_is_refused_where_it_is_needed(
    make_checkpoint: Make, digits: Dataset, tmp_path: Path
) -> None:
    path = make_checkpoint(tmp_path, "at")
    with pytest.raises(UserError, match=r"has no attention \('at'\): choose an -att variant\.") as error:
        work(path, digits, tmp_path, "attention-rank")
    assert str(path) in str(error.value)


def test_attention_is_seen_in_the_tensors() -> None:
    heads: tuple[Head, ...] = ("average", "nonlinear", "linear")
    for architecture in ("small", "cnn"):
        tensors = [dict(build(architecture, head, (3, 32, 32), 10, seed=0).state_dict()) for head in heads]
        found = [has_attention(checkpoint.Checkpoint(Path(), {}, some, "")) for some in tensors]
        assert found == [False, True, True]


@pytest.mark.parametrize(
    ("shape", "classes", "said"),
    [
        ((28, 28, 3), 10, "[3, 28, 28], 10 classes"),
        ((32, 32, 1), 10, "[1, 32, 32], 10 classes"),
        ((32, 32, 3), 7, "[3, 32, 32], 7 classes"),
    ],
)
def test_a_dataset_that_does_not_fit_the_model_is_refused(
    trained: Path, tmp_path: Path, shape: tuple[int, ...], classes: int, said: str
) -> None:
    split = Split(np.zeros((20, *shape), np.uint8), np.arange(20) % classes)
    strange = Dataset("strange", split, split, tuple(map(str, range(classes))))
    with pytest.raises(UserError, match="does not fit strange") as error:
        work(trained, strange, tmp_path)
    assert all(part in str(error.value) for part in (str(trained), "[3, 32, 32], 10 classes", said))


def test_without_masks_there_is_no_object(trained: Path, digits: Dataset, tmp_path: Path) -> None:
    bare = replace(digits, test=replace(digits.test, masks=None))
    result, row = {}, {}
    for name, dataset in (("with", digits), ("without", bare)):
        path = work(trained, dataset, tmp_path / name, "attention-rank", split="test").run()
        result[name] = columns(path)
        row[name] = analyses.get("attention-rank").table_row(results.read(path))
    for column in ("attention_on_object", "object_area"):
        assert np.isnan(result["without"][column]).all()
        assert np.all((result["with"][column] >= 0) & (result["with"][column] <= 1))
    np.testing.assert_array_equal(result["with"]["attention"], result["without"]["attention"])
    assert row["with"].keys() - row["without"].keys() == {"attention on object"}


def test_the_file_names_all_that_decides_its_numbers(trained: Path, digits: Dataset, tmp_path: Path) -> None:
    path = work(trained, digits, tmp_path, settings=AttackSettings(steps=4, seed=3), split="test", limit=20).run()
    config = results.read(path).config
    assert config["analysis"] == "robustness/1"
    assert config["checkpoint"]["sha256"] == checkpoint.read(trained).sha256
    assert config["checkpoint"]["job"] == checkpoint.read(trained).job
    assert config["data"] == {
        "dataset": "cluttered-digits",
        "split": "test",
        "images": 20,
        "sha256": digits.test.first(20).sha256,
    }
    assert config["settings"] == {"eps": 8 / 255, "step_size": 2 / 255, "steps": 4, "seed": 3}
    assert (config["batch_size"], config["device"]) == (16, "cpu")
    environment = results.provenance(path)["environment"]
    assert torch.__version__.startswith(environment["torch"])
    assert environment["threads"] == torch.get_num_threads()
