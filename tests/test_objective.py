"""Eq. 7 against a slow version in numpy, where its gradients flow, and the weight that each variant has."""

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from networks import array, pixels
from torch import Tensor, nn

from interpret_robust.core.errors import UserError
from interpret_robust.models import Classifier, Features, build
from interpret_robust.models.attention import AveragePool
from interpret_robust.models.variants import VARIANTS, Head, find_variant
from interpret_robust.training.objective import FeatureRegularization, compute_objective, measure_feature_distance
from interpret_robust.training.recipe import PRESETS

SHAPE = (3, 16, 20)
LABELS = torch.tensor([3, 1, 4, 1, 5])


def pair() -> tuple[Tensor, Tensor]:
    images = pixels(5, *SHAPE)
    return images, (images + 0.1 * (2 * pixels(5, *SHAPE, seed=1) - 1)).clamp(0, 1)


def slow_objective(model: Classifier, images: Tensor, adversarial: Tensor, weight: float) -> tuple[float, float, float]:
    """Each image by itself: minus the log of its softmax, and the root of the summed squares."""
    cross_entropy, distance = 0.0, 0.0
    clean, vectors = array(model.features(images).pooled), array(model.features(adversarial).pooled)
    matrix, bias = array(model.classifier.weight), array(model.classifier.bias)
    for n, label in enumerate(LABELS.tolist()):
        logits = matrix @ vectors[n] + bias
        cross_entropy += math.log(sum(math.exp(logit - logits[label]) for logit in logits)) / len(LABELS)
        distance += math.sqrt(sum((a - b) ** 2 for a, b in zip(clean[n], vectors[n], strict=True))) / len(LABELS)
    return cross_entropy + weight * distance, cross_entropy, distance


@pytest.mark.parametrize("weight", [0.01, 0.1, 3.0])
@pytest.mark.parametrize("head", ["average", "nonlinear"])
@pytest.mark.parametrize("training", [False, True])
def test_objective_equals_the_slow_one(weight: float, head: Head, training: bool) -> None:
    # In training mode that also shows that batch norm never mixes clean and adversarial images.
    model, (images, adversarial) = build("small", head, SHAPE, 10, seed=0).train(training), pair()
    total, cross_entropy, distance = slow_objective(
        deepcopy(model).double(), images.double(), adversarial.double(), weight
    )
    loss = compute_objective(model, images, adversarial, LABELS, FeatureRegularization(weight))
    assert distance > 0.05
    assert loss.total.item() == pytest.approx(total, rel=1e-5)
    assert loss.cross_entropy.item() == pytest.approx(cross_entropy, rel=1e-5)
    assert loss.distance.item() == pytest.approx(distance, rel=1e-4)
    assert not any(part.requires_grad for part in (loss.cross_entropy, loss.distance, loss.logits))


class OneWeight(nn.Module):
    """Local features weight * pixels, one position and channel each: pooled is weight * mean."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([3.0, -4.0]))

    def forward(self, images: Tensor) -> Tensor:
        return self.weight[None, :, None, None] * images


def test_the_distances_gradient_flows_through_the_clean_and_the_adversarial_pass() -> None:
    model, (images, adversarial) = Classifier(OneWeight(), AveragePool(), nn.Linear(2, 6)), pair()
    images, adversarial = images[:, :1], adversarial[:, :1]

    def gradient(weight: float) -> Tensor:
        total = compute_objective(model, images, adversarial, LABELS, FeatureRegularization(weight)).total
        (slope,) = torch.autograd.grad(total, model.backbone.get_parameter("weight"))
        return slope

    # mean ||w x - w x'|| = ||w|| mean |x - x'| has the gradient w / ||w|| mean |x - x'|; with either pass held
    # fixed, w would be multiplied by x or x' instead of their difference.
    gap = array((images.mean((1, 2, 3)) - adversarial.mean((1, 2, 3))).abs().mean()).item()
    expected = np.array([0.6, -0.8]) * gap * 1000
    np.testing.assert_allclose(array(gradient(1000.0) - gradient(0.0)), expected, rtol=1e-3)


class Recorder(Classifier):
    """A classifier that keeps the images it is shown."""

    def features(self, images: Tensor) -> Features:
        self.inputs = [*getattr(self, "inputs", []), images]
        return super().features(images)


@pytest.mark.parametrize(("weight", "passes"), [(0.0, 1), (0.1, 2)])
def test_the_clean_image_is_only_seen_where_it_has_weight(weight: float, passes: int) -> None:
    model, (images, adversarial) = Recorder(OneWeight(), AveragePool(), nn.Linear(2, 6)), pair()
    images, adversarial = images[:, :1], adversarial[:, :1]
    loss = compute_objective(model, images, adversarial, LABELS, FeatureRegularization(weight))
    assert len(model.inputs) == passes
    assert sum(view is images for view in model.inputs) == passes - 1
    assert (loss.distance.item() > 0) == (weight > 0)


def test_cross_entropy_and_logits_are_of_the_adversarial_image_alone() -> None:
    model, (images, adversarial) = build("small", "average", SHAPE, 10, seed=0).eval(), pair()
    expected = model(adversarial)
    for clean in (images, pixels(5, *SHAPE, seed=9)):
        loss = compute_objective(model, clean, adversarial, LABELS, FeatureRegularization(0.1))
        torch.testing.assert_close(loss.logits, expected)
        assert loss.cross_entropy.item() == pytest.approx(nn.functional.cross_entropy(expected, LABELS).item())
    assert (
        compute_objective(model, images, images, LABELS, FeatureRegularization(0.1)).cross_entropy.item()
        != loss.cross_entropy.item()
    )


def test_at_distance_zero_the_gradient_is_zero_and_not_nan() -> None:
    features = pixels(4, 6).requires_grad_()
    (gradient,) = torch.autograd.grad(measure_feature_distance(features, features.detach().clone()).sum(), features)
    assert gradient.count_nonzero() == 0 and bool(gradient.isfinite().all())
    model, (images, _) = build("small", "nonlinear", SHAPE, 10, seed=0).train(), pair()
    parameters = list(model.parameters())
    with_weight, without_weight = (
        torch.autograd.grad(
            compute_objective(model, images, images.clone(), LABELS, FeatureRegularization(weight)).total, parameters
        )
        for weight in (0.1, 0.0)
    )
    for actual, expected in zip(with_weight, without_weight, strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(
    ("preset", "name", "weight"),
    [
        ("paper", "at-reg", 0.1),
        ("paper", "at-att-reg", 0.01),
        ("quick", "at-reg", 0.1),
        ("quick", "at-att-reg", 0.01),
        ("fast", "at-reg", 0.1),
        ("fast", "at-att-reg", 0.01),
        ("mnist", "at-reg", 0.01),
        ("mnist", "at-att-reg", 0.01),
        *((preset, name, 0.0) for preset in PRESETS for name in VARIANTS if not name.endswith("-reg")),
    ],
)
def test_feature_weights_are_the_papers(preset: str, name: str, weight: float) -> None:
    assert PRESETS[preset].feature_weight(find_variant(name)) == weight


@pytest.mark.parametrize(
    ("name", "adversarial", "head", "has_penalty"),
    [
        ("natural", False, "average", False),
        ("natural-att", False, "nonlinear", False),
        ("natural-linear-att", False, "linear", False),
        ("at", True, "average", False),
        ("at-reg", True, "average", True),
        ("at-att", True, "nonlinear", False),
        ("at-att-reg", True, "nonlinear", True),
    ],
)
def test_variants_are_the_papers(name: str, adversarial: bool, head: str, has_penalty: bool) -> None:
    choice = find_variant(name)
    assert (choice.name, choice.adversarial, choice.head, choice.regularized) == (name, adversarial, head, has_penalty)


def test_an_unknown_variant_is_told_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown variant 'at-at': did you mean 'at-att'"):
        find_variant("at-at")
