"""One attack for several analyses: equal files with and without what is kept, and no pass too many."""

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import Linear, count_passes, pixels
from torch import Tensor, nn

import interpret_robust as ir
from interpret_robust import analyses
from interpret_robust.analyses.engine.work import Work
from interpret_robust.attacks import cache
from interpret_robust.attacks.noise import per_image_noise
from interpret_robust.attacks.pgd import PGD
from interpret_robust.core.interruption import Stopped
from interpret_robust.datasets import Dataset
from interpret_robust.models import checkpoint
from interpret_robust.results import hdf5
from interpret_robust.study import tasks

CPU = torch.device("cpu")
STEPS = 9
"""The attack that all share: beyond the first step from which cycles are looked for."""
QUESTIONS: dict[str, dict[str, Any]] = {
    "robustness": {"pgd": f"2,{STEPS}", "cw": "none"},
    "attention-rank": {"steps": STEPS},
    "attention-maps": {"steps": STEPS},
    "feature-deletion": {"steps": STEPS},
}
NO_BYTES = 0
"""Bytes to keep where nothing is shared."""
Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def empty_cache() -> Iterator[None]:
    cache._readings.clear()
    yield
    assert cache._identities == {}


@pytest.fixture(scope="module")
def checkpoint_path(make_checkpoint: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("trained"), "at-att")


def work(path: Path, data: Dataset, folder: Path, name: str, settings: dict[str, Any], **changes: Any) -> Work:
    plain: dict[str, Any] = {"split": "train", "limit": None, "batch_size": 40, "device": CPU}
    complete = analyses.get(name).settings(**({"eps": 4 / 255} | settings))
    return Work(analyses.get(name), checkpoint.read(path), data, folder, settings=complete, **(plain | changes))


def run(work: Work) -> tuple[str, int]:
    """The checksum of an analysis's content, and for how many batches a gradient was taken."""
    with count_passes(work.model) as passes:
        path = work.run()
    return str(hdf5.attributes(path)["content_sha256"]), passes.gradient


@pytest.mark.long
@pytest.mark.parametrize("batch_size", [30, 8])
def test_four_analyses_are_equal_and_one_attack(
    checkpoint_path: Path, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    def ask(folder: Path) -> tuple[list[str], list[int]]:
        works = [
            work(checkpoint_path, digits, folder, name, settings, batch_size=batch_size, limit=30)
            for name, settings in QUESTIONS.items()
        ]
        checksums, passes = zip(*map(run, works), strict=True)
        return list(checksums), list(passes)

    outcomes, passes = ask(tmp_path / "shared")
    monkeypatch.setattr(cache, "MOST_BYTES", NO_BYTES)
    cache._readings.clear()
    anew, passes_anew = ask(tmp_path / "anew")
    steps = STEPS * -(-30 // batch_size)
    assert outcomes == anew
    assert (passes, passes_anew) == ([steps, 0, 0, 0], [steps] * 4)


def test_gradients_of_a_table_count_also_where_another_analysis_took_them(
    checkpoint_path: Path, digits: Dataset, tmp_path: Path
) -> None:
    alone = work(checkpoint_path, digits, tmp_path / "alone", "robustness", {"pgd": str(STEPS), "cw": "none"})
    expected, passes = run(alone)
    cache._readings.clear()
    run(work(checkpoint_path, digits, tmp_path, "attention-rank", QUESTIONS["attention-rank"]))
    last = work(checkpoint_path, digits, tmp_path, "robustness", {"pgd": str(STEPS), "cw": "none"})
    assert run(last) == (expected, 0) and passes == 2 * STEPS
    np.testing.assert_array_equal(hdf5.read(last.path)["per_image/gradients"], [STEPS] * 60)


def test_the_beginning_of_a_batch_is_read_where_it_is_long_enough(
    checkpoint_path: Path, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(work(checkpoint_path, digits, tmp_path, "robustness", QUESTIONS["robustness"], batch_size=60))
    beginnings = {
        limit: work(checkpoint_path, digits, tmp_path / "shared", "attention-rank", {"steps": STEPS}, limit=limit)
        for limit in (40, 31)
    }
    outcomes = {limit: run(beginning) for limit, beginning in beginnings.items()}
    assert {limit: passes for limit, (_, passes) in outcomes.items()} == {40: 0, 31: STEPS}
    monkeypatch.setattr(cache, "MOST_BYTES", NO_BYTES)
    cache._readings.clear()
    anew = work(checkpoint_path, digits, tmp_path / "anew", "attention-rank", {"steps": STEPS}, limit=40)
    assert run(anew) == (outcomes[40][0], STEPS)


def test_a_resumed_run_reads_what_was_kept_and_ends_in_the_same_file(
    checkpoint_path: Path, digits: Dataset, tmp_path: Path
) -> None:
    expected, _ = run(work(checkpoint_path, digits, tmp_path / "whole", "attention-rank", {"steps": STEPS}))
    first_run = work(checkpoint_path, digits, tmp_path / "stopped", "attention-rank", {"steps": STEPS})

    def rows(*arguments: Any) -> Any:
        first_run._deadline = 0.0
        return analyses.get("attention-rank").rows(*arguments)

    first_run._deadline = time.monotonic() + 600
    first_run.analysis = replace(first_run.analysis, rows=rows)
    with pytest.raises(Stopped, match="before image 40 of 60"):
        run(first_run)
    second_run = work(checkpoint_path, digits, tmp_path / "stopped", "attention-rank", {"steps": STEPS})
    assert run(second_run) == (expected, 0)


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({"seed": 1}, {}),
        ({"eps": 5 / 255}, {}),
        ({"step_size": 2 / 255}, {}),
        ({"steps": STEPS - 1}, {}),
        ({}, {"split": "test"}),
        ({}, {"recalibrate": "clean"}),
    ],
)
def test_another_attack_is_not_read(
    checkpoint_path: Path, digits: Dataset, tmp_path: Path, settings: dict[str, Any], changes: dict[str, Any]
) -> None:
    run(work(checkpoint_path, digits, tmp_path, "robustness", QUESTIONS["robustness"], limit=20))
    other = work(checkpoint_path, digits, tmp_path, "attention-rank", {"steps": STEPS} | settings, limit=20, **changes)
    assert run(other)[1] >= 8


def test_an_attack_towards_a_class_is_not_that_away_from_it() -> None:
    model, images = Linear(60), pixels(3, 3, 4, 5, low=0.4, high=0.6)
    labels = torch.zeros(3, dtype=torch.int64)
    attacks = [PGD(0.05, steps=2, random_start=False, targeted=targeted) for targeted in (False, True)]
    with cache.share_attacks(model, "identity"):
        changes = [
            iterate - images
            for attack in attacks
            for _, iterate in attack.iterates(model, images, labels, per_image_noise(0, range(3)), [2])
        ]
    torch.testing.assert_close(changes[1], -changes[0])
    assert changes[0].abs().min() > 0.02


def test_only_the_last_model_s_iterates_are_kept_and_never_too_many(
    make_checkpoint: Make, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = 4 * 3 * 32 * 32
    monkeypatch.setattr(cache, "MOST_BYTES", 70 * image)
    owners_by_seed = []
    for seed in (0, 1):
        run(work(make_checkpoint(tmp_path, seed=seed), digits, tmp_path, "robustness", QUESTIONS["robustness"]))
        assert {reading.iterate.dtype for reading in cache._readings.values()} == {torch.float32}
        owners_by_seed.append({place[0] for place in cache._readings})
        # The first batch of 40 fits once, at its first step; the second one of 20 as well.
        assert sorted(reading.iterate.nbytes // image for reading in cache._readings.values()) == [20, 40]
    assert [len(owners) for owners in owners_by_seed] == [1, 1] and owners_by_seed[0] != owners_by_seed[1]


class Shift(nn.Module):
    """A linear network that counts the batches whose gradients are asked for; its shift is in no state."""

    def __init__(self, shift: float = 0.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.layer, self.shift, self.dropout, self.passes = nn.Linear(12, 4), shift, dropout, 0
        with torch.no_grad():
            self.layer.weight.copy_(torch.linspace(-1, 1, 48).sin().reshape(4, 12))

    def forward(self, images: Tensor) -> Tensor:
        self.passes += images.requires_grad
        scores = self.layer(images.flatten(1)) + self.shift * images.flatten(1).square().sum(1, keepdim=True).sin()
        return nn.functional.dropout(torch.as_tensor(scores), self.dropout)


def network_in(model: ir.Model) -> Shift:
    network = model.network.backbone
    assert isinstance(network, Shift)
    return network


FIRST_IMAGE, LAST_BATCH = 1, 2
"""Gradients beside those of an attack, of a network that does not draw: of the first image, which the file keeps where
answers repeat; and of the last batch whose gradient was taken, and of its ends.
"""


def passes_of(model: ir.Model) -> int:
    return network_in(model).passes


def load_model(network: nn.Module, **card: Any) -> ir.Model:
    images = np.random.default_rng(0).random((40, 3, 2, 2), np.float32)
    with torch.no_grad():
        labels = network.eval()(torch.from_numpy(images)).argmax(1).numpy()
    return ir.load(network, ir.make_dataset(images, labels), normalize="none", **card)


@pytest.mark.filterwarnings("ignore::interpret_robust.core.errors.DoubtWarning")
@pytest.mark.parametrize(
    ("dropout", "card", "steps", "checks"),
    [(0.0, {}, 0, FIRST_IMAGE), (0.5, {}, 3, LAST_BATCH), (0.5, {"draws": 2}, 6, 0)],
)
def test_a_network_in_a_program_is_attacked_once_unless_it_is_random(
    dropout: float, card: dict[str, Any], steps: int, checks: int
) -> None:
    model = load_model(Shift(dropout=dropout), **card)
    answers = []
    for _ in range(2):
        passes_before = passes_of(model)
        answers.append(ir.analyze("robustness", model, pgd=3, cw=None))
        passes = passes_of(model) - passes_before
    assert passes == steps + checks
    assert dropout or answers[0].arrays["margin"].tolist() == answers[1].arrays["margin"].tolist()


@pytest.mark.filterwarnings("ignore::interpret_robust.core.errors.DoubtWarning")
def test_weights_that_change_and_another_network_of_the_same_weights_are_attacked_anew() -> None:
    model = load_model(Shift())
    assert model.doubts == ()
    ir.analyze("robustness", model, pgd=3, cw=None)
    other = load_model(Shift(shift=2.0))
    passes_before = passes_of(other)
    ir.analyze("robustness", other, pgd=3, cw=None)
    assert passes_of(other) - passes_before == 3 + FIRST_IMAGE + LAST_BATCH
    with torch.no_grad():
        network_in(other).layer.weight.neg_()
    ir.analyze("robustness", other, pgd=3, cw=None)
    assert passes_of(other) - passes_before == 2 * (3 + FIRST_IMAGE + LAST_BATCH)


def test_a_network_whose_gradients_changed_is_attacked_anew() -> None:
    """Its weights and its answers are as before."""
    model = load_model(Shift())
    ir.analyze("robustness", model, pgd=3, cw=None)

    def negate(_: nn.Module, gradients: Any, __: Any) -> Any:
        return tuple(-each for each in gradients)

    network_in(model).layer.register_full_backward_hook(negate)
    passes_before = passes_of(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ir.analyze("robustness", model, pgd=3, cw=None)
    assert passes_of(model) - passes_before >= 3 + FIRST_IMAGE


def test_attacks_outside_an_analysis_are_not_kept(checkpoint_path: Path, digits: Dataset) -> None:
    model = checkpoint.read(checkpoint_path).model(CPU)
    images = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    PGD(0.1, steps=2)(model, images, torch.zeros(5, dtype=torch.int64), per_image_noise(0, range(5)))
    assert cache._readings == {}


def test_what_is_read_is_a_copy() -> None:
    model, inputs = nn.Identity(), (torch.rand(3, 2, 4, 5), torch.rand(3, 2, 4, 5), torch.arange(3))

    def compute(counts: Tensor | None) -> Iterator[tuple[int, Tensor]]:
        assert counts is not None
        counts += 7
        yield 1, inputs[1].clone()

    counts = torch.zeros(3, dtype=torch.int64)
    with cache.share_attacks(model, "identity"):
        for number in range(3):
            ((step, iterate),) = cache.read(model, "attack", inputs, [1], compute, counts, is_exact=False)
            assert step == 1 and torch.equal(iterate, inputs[1])
            assert counts.tolist() == [7 * (number + 1)] * 3
            iterate.zero_()


def test_tasks_of_one_attack_on_one_model_are_one_group(checkpoint_path: Path, tmp_path: Path) -> None:
    def task(name: str, **settings: Any) -> tasks.AnalysisTask:
        return tasks.AnalysisTask(name, checkpoint_path, tmp_path, analyses.get(name).settings(**settings))

    groups = {tasks._attack(task(name, **settings)) for name, settings in QUESTIONS.items()}
    assert len(groups) == 1
    rest = [task("attention-rank", seed=1), task("masking"), task("alignment"), task("gradient-maps")]
    rest += [replace(task("attention-rank"), checkpoint=tmp_path / "other"), replace(rest[0], split="train")]
    assert len({tasks._attack(other) for other in rest} | groups) == 7
