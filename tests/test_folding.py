"""Folding: the same answers, features and gradients, from a network without batch norm, and nothing left changed."""

import copy
import itertools

import pytest
import torch
from networks import count_passes
from torch import Tensor, nn

from interpret_robust.attacks.noise import per_image_noise
from interpret_robust.attacks.pgd import PGD
from interpret_robust.models import Classifier, build
from interpret_robust.models.folding import Affine, FoldedUnit, fold
from interpret_robust.models.losses import loss_gradient
from interpret_robust.models.resnet import Unit

HEADS = ("average", "nonlinear", "linear")


def model_of(architecture: str, head: str = "nonlinear") -> Classifier:
    """A model whose batch norms have all kinds of numbers, some scales negative."""
    model = build(architecture, head, (3, 32, 32), 7, seed=1).eval()  # type: ignore[arg-type]
    random = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            nn.init.normal_(module.weight, 0.6, 0.5, generator=random)
            nn.init.normal_(module.bias, 0, 0.3, generator=random)
            nn.init.normal_(module.running_mean, 0, 0.5, generator=random)
            nn.init.uniform_(module.running_var, 0.2, 3, generator=random)
    return model


def images(count: int = 5) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("architecture", ["small", "cnn", "narrow"])
@pytest.mark.parametrize("head", HEADS)
def test_a_folded_model_answers_as_the_model(architecture: str, head: str) -> None:
    model = model_of(architecture, head)
    twin = fold(model)
    features, expected = twin.features(images()), model.features(images())
    for tensor, other in zip(features, expected, strict=True):
        if other is not None:
            torch.testing.assert_close(tensor, other, rtol=1e-4, atol=1e-4 * float(other.detach().abs().max()))
    logits = model(images())
    torch.testing.assert_close(twin(images()), logits, rtol=1e-4, atol=1e-5 * float(logits.detach().abs().max()))


@pytest.mark.parametrize("architecture", ["small", "narrow"])
def test_a_folded_model_has_the_gradients_of_the_model_in_double_precision(architecture: str) -> None:
    # In double precision rounding carries no activation over its kink.
    model, labels = model_of(architecture).double(), torch.tensor([3, 0, 6, 2, 2])
    for loss in ("cross-entropy", "margin"):
        gradients = [_gradient(network, labels, loss) for network in (fold(model), model)]
        torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


def _gradient(model: Classifier, labels: Tensor, loss: str) -> Tensor:
    pixels = images().double().requires_grad_()
    logits = model(pixels)
    true = logits.gather(1, labels[:, None])[:, 0]
    other = logits.scatter(1, labels[:, None], -torch.inf)
    value = other.amax(1) - true if loss == "margin" else logits.logsumexp(1) - true
    (gradient,) = torch.autograd.grad(value.sum(), pixels)
    return gradient


def test_no_batch_norm_is_left_and_no_weight_asks_for_a_gradient() -> None:
    twin = fold(model_of("narrow").train())
    kinds = {type(module) for module in twin.modules()}
    assert nn.BatchNorm2d not in kinds and Affine in kinds
    assert not any(weights.requires_grad for weights in twin.parameters())
    assert not any(module.training for module in twin.modules())
    assert fold(twin) is twin


def test_a_folded_unit_has_the_gradient_that_autograd_finds() -> None:
    """Of a shortcut from either side of the activation, with a stride and more channels after than before."""
    for activate_shortcut, stride, outputs in itertools.product((True, False), (1, 2), (6, 10)):
        unit = Unit(6, outputs, stride, activate_shortcut=activate_shortcut).double().eval()
        unit.norm1.weight.data = torch.tensor([-1.5, 0.3, 0.8, -0.2, 2.0, 1.0]).double()
        twin = FoldedUnit(unit).requires_grad_(False)
        inputs = torch.rand(2, 6, 3, 4, generator=torch.Generator().manual_seed(3)).double().sub_(0.5).requires_grad_()
        assert torch.autograd.gradcheck(twin, inputs, check_undefined_grad=False)


def test_folding_leaves_the_model_as_it_was() -> None:
    model = model_of("small").train()
    originals = copy.deepcopy(model.state_dict())
    twin = fold(model)
    twin(images())
    assert all(torch.equal(values, originals[name]) for name, values in model.state_dict().items())
    assert all(weights.requires_grad and weights.grad is None for weights in model.parameters())
    assert all(module.training for module in model.modules())


def test_what_is_not_folded_follows_the_model_and_what_is_folded_does_not() -> None:
    model = model_of("small")
    twin = fold(model)
    with torch.no_grad():
        model.classifier.bias[:] = 5.0
        first = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
        first.weight.mul_(3)
    assert twin.classifier.bias.tolist() == [5.0] * 7
    assert not torch.allclose(twin.backbone(images()), model.backbone(images()), rtol=0.01)


def test_the_attack_of_a_model_is_that_of_its_folded_twin_and_is_counted() -> None:
    model, labels = model_of("small"), torch.tensor([3, 0, 6, 2, 2])
    attack = PGD(eps=8 / 255, step_size=2 / 255, steps=3)
    with count_passes(model) as passes:
        adversarial = attack(model, images(), labels, per_image_noise(0, range(5)))
    assert passes.gradient == 3
    expected = attack(fold(model), images(), labels, per_image_noise(0, range(5)))
    assert torch.equal(adversarial, expected)


def test_a_step_of_the_attack_goes_along_the_gradient_of_the_unfolded_model() -> None:
    model, labels = model_of("small"), torch.tensor([3, 0, 6, 2, 2])
    pixels = 0.25 + images() / 2
    attack = PGD(eps=8 / 255, step_size=2 / 255, steps=1, random_start=False)
    change = attack(model, pixels, labels, per_image_noise(0, range(5))) - pixels
    gradient = loss_gradient(model, pixels, labels)
    large = gradient.abs() > 1e-3 * gradient.abs().amax((1, 2, 3), keepdim=True)
    assert large.float().mean() > 0.9
    assert ((change * gradient > 0) | ~large).float().mean() > 0.999
