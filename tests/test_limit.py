"""What `benchmarks/limit.py` counts, against closed forms."""

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from interpret_robust.models import build

CPU = torch.device("cpu")
FORWARD = 2 * 68_862_592
"""FLOPs of the narrow network for an image of 32x32x3, by hand: the stem, three stages of ten convolutions (the first
of the second and of the third at half of the inputs), the classifier; 68.86 M multiply-adds."""

CLASSIFIER = 2 * 64 * 10
STEM = 2 * 9 * 3 * 16 * 32 * 32
"""FLOPs of its first convolution, of which a training pass takes no gradient with respect to the images."""


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module("limit")


def test_the_closed_form_of_the_narrow_network() -> None:
    stages = ((16, 16, 32), (16, 32, 16), (32, 64, 8))
    convolutions = [9 * inputs * outputs * side**2 for inputs, outputs, side in stages]
    convolutions += [9 * 9 * outputs**2 * side**2 for _, outputs, side in stages]
    assert STEM + 2 * sum(convolutions) + CLASSIFIER == FORWARD


def works(limit: Any, **changes: Any) -> list[Any]:
    plain = {"arch": "narrow", "variant": "at", "recipe": "quick", "batch": 3, "steps": 2, "repeats": 1}
    return list(limit.make_works(argparse.Namespace(**(plain | changes)), CPU))


@pytest.mark.long
@pytest.mark.parametrize(("variant", "passes"), [("natural", 1), ("at", 1), ("at-reg", 2)])
@pytest.mark.parametrize("recipe", ["quick", "paper"])
def test_a_training_step_has_the_flops_of_its_passes(limit: Any, variant: str, passes: int, recipe: str) -> None:
    """A gradient of the attack is two forward passes, a pass of training three, whatever batch norm does.

    The pass of the clean image ends at the pooled features.
    """
    steps = 0 if variant == "natural" else 2
    training, gradient = works(limit, variant=variant, recipe=recipe)
    of_training = passes * (3 * FORWARD - STEM) - (passes - 1) * 3 * CLASSIFIER
    assert training.count().flops == 3 * (2 * steps * FORWARD + of_training)
    assert gradient.count().flops == 3 * 2 * FORWARD


def test_attention_adds_little(limit: Any) -> None:
    flops = {variant: works(limit, variant=variant)[1].count().flops for variant in ("at", "at-att")}
    assert 1 < flops["at-att"] / flops["at"] < 1.05


X, Y = torch.zeros(2, 3, 5, 7), torch.zeros(4, 3, 3, 3)
IMAGES, WEIGHTS, MAPS = (4 * count for count in (X.numel(), Y.numel(), 2 * 4 * 5 * 7))


def convolve(*, images: bool, weights: bool) -> Callable[[], object]:
    def run_once() -> None:
        maps = torch.conv2d(X.detach().requires_grad_(images), Y.detach().requires_grad_(weights), padding=1)
        torch.autograd.backward(maps, torch.zeros_like(maps))

    return run_once


@pytest.mark.parametrize(
    ("convolution", "byte_count"),
    [
        (lambda: X + 1, 2 * IMAGES),
        (lambda: X.clone().add_(X), 5 * IMAGES),
        (lambda: X[0, :2].reshape(-1).view(7, 10), 0),
        (lambda: torch.empty(9, 9), 0),
        (lambda: torch.zeros_like(X).copy_(X).zero_(), 4 * IMAGES),
        (lambda: torch.zeros(()).expand(9, 9).clone(), 4 + 4 + 4 * 81),
        (lambda: torch._foreach_mul_([X.clone(), X.clone()], 2.0), 8 * IMAGES),
    ],
)
def test_bytes_are_those_that_are_read_and_written(
    limit: Any, convolution: Callable[[], object], byte_count: int
) -> None:
    with limit.Counts() as counts:
        convolution()
    assert (counts.flops, counts.unfused_bytes, counts.least_bytes) == (0, byte_count, 0)


@pytest.mark.parametrize(("images", "weights"), [(True, False), (False, True), (True, True)])
def test_a_gradient_of_a_convolution_reads_what_it_needs(limit: Any, images: bool, weights: bool) -> None:
    with limit.Counts() as counts:
        convolve(images=images, weights=weights)()
    forward = IMAGES + WEIGHTS + MAPS
    backward = MAPS + (images + weights) * (IMAGES + WEIGHTS)  # each reads the other's operand and writes its own
    assert counts.least_bytes == forward + backward
    assert counts.unfused_bytes == counts.least_bytes + MAPS  # the zeros
    assert counts.flops == (1 + images + weights) * 2 * 2 * 9 * 3 * 4 * 5 * 7


def test_what_is_achieved_is_counted_over_time(limit: Any) -> None:
    counts = limit.Counts()
    counts.flops, counts.unfused_bytes, counts.least_bytes = 600, 60, 30
    compute, memory = limit.Ceiling("a", 100.0, 90.0), limit.Ceiling("b", 20.0, 10.0)
    comparisons = limit.compare(counts, 3, 12.0, compute, memory)
    assert [comparison[1:] for comparison in comparisons] == [(200, 50, 100), (20, 5, 20), (10, 2.5, 20)]
    assert comparisons[0].row()["achieved / limit"] == "50.0%"


def test_counting_changes_no_number(limit: Any) -> None:
    model, images = build("small", "average", (3, 32, 32), 10, seed=0).eval(), torch.rand(2, 3, 32, 32)

    def logits() -> Tensor:
        with torch.no_grad():
            answer: Tensor = model(images)
        return answer

    plain = logits()
    with limit.Counts():
        assert torch.equal(logits(), plain)
