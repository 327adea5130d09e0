"""Targeted attacks: which classes are aimed at, closed forms, shares from outcomes, the file and its picture."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import Linear, array, pixels

from interpret_robust import figures
from interpret_robust.analyses.engine.work import Work
from interpret_robust.analyses.targeted import ANALYSIS, TargetedSettings, summarize
from interpret_robust.attacks.noise import per_image_noise
from interpret_robust.attacks.pgd import PGD
from interpret_robust.attacks.targets import choose_targets
from interpret_robust.core.errors import UserError
from interpret_robust.core.intervals import rate
from interpret_robust.datasets import Dataset
from interpret_robust.models import checkpoint
from interpret_robust.results import hdf5
from interpret_robust.results.columns import Columns

LABELS = torch.tensor([0, 1, 2, 3, 3, 0])
LOGITS = torch.tensor([
    [-9.0, 1, 0, 2], [0, -9, 3, -1], [5, 4, 0, 1], [1, 2, 3, 4], [1, 1, 2, 9], [9, 0.5, 0.4, 0.3]
])  # fmt: skip


def test_each_rule_aims_where_it_says() -> None:
    def choose(rule: str, seed: int = 0) -> list[int]:
        targets: list[int] = choose_targets(rule, LOGITS, LABELS, seed, range(6)).tolist()
        return targets

    assert choose("least-likely") == [2, 3, 3, 0, 0, 3]
    assert choose("next") == [1, 2, 3, 0, 0, 1]
    assert choose("2") == [2] * 6
    assert choose("random") == choose("random") != choose("random", 1)


def test_random_targets_are_uniform_over_the_others_and_by_image() -> None:
    labels = torch.arange(2000) % 5
    targets = choose_targets("random", torch.zeros(2000, 5), labels, 3, range(2000))
    steps = np.bincount((targets - labels).numpy() % 5, minlength=5)
    assert steps[0] == 0 and (np.abs(steps[1:] / 500 - 1) < 0.15).all()
    part = choose_targets("random", torch.zeros(7, 5), labels[40:47], 3, range(40, 47))
    assert torch.equal(part, targets[40:47])


def test_there_is_no_random_target_among_one_class() -> None:
    with pytest.raises(UserError, match="the model has one class only"):
        choose_targets("random", torch.zeros(3, 1), torch.zeros(3, dtype=torch.long), 0, range(3))


def test_a_linear_model_says_the_target_where_the_ball_reaches_it() -> None:
    """Two classes in L2: the aim's lead grows by eps times the norm of the difference of weights."""
    model, images = Linear(60), pixels(50, 3, 4, 5, seed=1, low=0.4, high=0.6)
    labels = model(images).argmax(1)
    weight, logits = array(model.layer.weight), array(model(images).detach())
    distance = np.abs(logits[:, 0] - logits[:, 1]) / np.linalg.norm(weight[0] - weight[1])
    eps = float(np.median(distance))
    attack = PGD(eps, steps=20, norm="l2", targeted=True, random_start=False)
    predictions = model(attack(model, images, 1 - labels, per_image_noise(0, range(50)))).argmax(1)
    clear = np.abs(distance / eps - 1) > 1e-3
    np.testing.assert_array_equal(array(predictions != labels).astype(bool)[clear], (distance < eps)[clear])


def test_shares_are_of_images_that_are_not_of_the_target_class(digits: Dataset) -> None:
    columns: dict[str, Any] = {
        "label": np.array([0, 1, 2, 3, 3]),
        "aim": np.array([2, 2, 2, 2, 2]),
        "prediction_natural": np.array([0, 2, 2, 1, 3]),
        "prediction": np.array([2, 2, 2, 1, 3]),
    }
    summary = summarize(Columns({f"per_image/{name}": values for name, values in columns.items()}), digits.test)
    assert summary["count/aimed"] == 4
    for (name, place), outcomes in {
        ("share/aimed", 0): [0, 1, 0, 0],
        ("share/aimed", 1): [1, 1, 0, 0],
        ("share/right", 0): [1, 0, 0, 1],
        ("share/right", 1): [0, 0, 0, 1],
    }.items():
        assert tuple(summary[name][place]) == rate(np.array(outcomes))


def test_a_file_holds_what_the_attack_gives_and_is_drawn(
    digits: Dataset, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    subject = checkpoint.read(make_checkpoint(tmp_path, "at"))
    settings = TargetedSettings(eps=0.4, norm="l2", steps=3, targets="next", restarts=2)
    cpu = torch.device("cpu")
    work = Work(
        ANALYSIS, subject, digits, tmp_path, settings=settings, split="train", limit=9, batch_size=4, device=cpu
    )
    result = hdf5.read(work.run())
    complete = replace(settings, step_size=0.05)
    images = torch.from_numpy(digits.train.images[:9] / np.float32(255)).permute(0, 3, 1, 2)
    model = subject.model(cpu)
    aims = torch.from_numpy((digits.train.labels[:9] + 1) % len(digits.class_names))
    attack = PGD(0.4, 0.05, 3, restarts=2, norm="l2", targeted=True)
    assert complete.pgd() == attack
    predicted = model(attack(model, images, aims, per_image_noise(0, range(9)))).argmax(1)
    assert result["per_image/prediction"].tolist() == predicted.tolist()
    assert result["per_image/aim"].tolist() == aims.tolist()
    drawing = figures.get("targeted").draw([result])
    assert "L2 eps 0.4" in drawing.caption and "target: next" in drawing.caption
    assert ANALYSIS.table_row(result)["target"] == "next"


def test_nonsense_gets_a_sentence() -> None:
    with pytest.raises(UserError, match="unknown rule of targets 'nxt': did you mean 'next'"):
        TargetedSettings(targets="nxt").resolve({"recipe": {"eps": 0.1}})
    with pytest.raises(UserError, match="the target is class 4, and the model's are 0 to 3"):
        choose_targets("4", LOGITS, LABELS, 0, range(6))
    with pytest.raises(UserError, match="restarts 0"):
        TargetedSettings(eps=0.1, restarts=0).resolve({})
