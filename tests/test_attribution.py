"""Maps against autograd, closed forms of linear networks and slow loops; and what captum must leave alone."""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam, Saliency
from networks import Array, InDouble, Linear, array, pixels, settle
from torch import Tensor, nn

from interpret_robust.attribution import gradients as attribution
from interpret_robust.attribution.gradients import (
    SAMPLES,
    SIGMA,
    SOURCES,
    compute_map,
    compute_position_weights,
    draw_targets,
    resolve_weight,
)
from interpret_robust.core.errors import UserError
from interpret_robust.models import Classifier, build
from interpret_robust.models.attention import AveragePool
from interpret_robust.models.losses import input_gradient, loss_gradient
from interpret_robust.models.variants import Head

N, C, H, W, K = 5, 3, 4, 6, 7
LABELS = torch.tensor([0, 6, 3, 3, 1])
INDICES = range(40, 40 + N)


def images(count: int = N, seed: int = 0) -> Tensor:
    return pixels(count, C, H, W, seed=seed)


def linear() -> Linear:
    return Linear(C * H * W, K).eval()


def closed_form(model: Linear, inputs: Tensor, labels: Tensor) -> Array:
    """W^T (p - e_y): the gradient of the cross-entropy of a linear softmax network, in float64."""
    weight, bias = array(model.layer.weight), array(model.layer.bias)
    gradients = []
    for image, label in zip(array(inputs), labels.tolist(), strict=True):
        logits = weight @ image.ravel() + bias
        p = np.exp(logits - logits.max())
        p /= p.sum()
        p[label] -= 1
        gradients.append((weight.T @ p).reshape(C, H, W))
    return np.stack(gradients)


class Quadratic(nn.Module):
    """Logits of two classes whose difference is a quadratic form of the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.form = nn.Parameter(torch.randn(C * H * W, C * H * W, generator=torch.Generator().manual_seed(1)) / 20)

    def forward(self, inputs: Tensor) -> Tensor:
        flat = inputs.flatten(1)
        value = (flat @ self.form * flat).sum(1)
        return torch.stack([value, -value], 1)


def trained_like(head: Head = "average", architecture: str = "small") -> Classifier:
    """A network with batch norm in eval mode, its statistics settled."""
    model = build(architecture, head, (C, 16, 20), K, seed=3)
    settle(model)
    return model


def large(count: int = N) -> Tensor:
    return pixels(count, C, 16, 20, seed=2)


def test_a_gradient_is_the_closed_form_of_a_linear_network() -> None:
    gradient = compute_map("gradient", linear(), images(), LABELS, INDICES)
    np.testing.assert_allclose(gradient, closed_form(linear(), images(), LABELS), rtol=1e-4, atol=1e-7)
    assert (gradient < 0).any() and (gradient > 0).any()


def test_a_gradient_is_that_of_autograd_image_by_image() -> None:
    model = trained_like()
    gradients = loss_gradient(model, large(), LABELS)
    for image, label, gradient in zip(large(), LABELS, gradients, strict=True):
        variable = image[None].clone().requires_grad_()
        (expected,) = torch.autograd.grad(F.cross_entropy(model(variable), label[None]), variable)
        torch.testing.assert_close(gradient, expected[0], rtol=1e-4, atol=1e-6)


def test_the_gradient_of_any_score() -> None:
    gradient = input_gradient(lambda x: (x**3).sum((1, 2, 3)) / 3 - x[:, 0, 0, 0], images())
    expected = images() ** 2
    expected[:, 0, 0, 0] -= 1
    torch.testing.assert_close(gradient, expected)


def test_a_gradient_is_that_of_captum_with_its_sign() -> None:
    model = trained_like()
    score: Callable[[Tensor], Tensor] = lambda x: F.cross_entropy(model(x), LABELS, reduction="none")  # noqa: E731
    variable = large().requires_grad_()
    expected = Saliency(score).attribute(variable, abs=False)
    torch.testing.assert_close(loss_gradient(model, large(), LABELS), expected, rtol=1e-4, atol=1e-6)
    assert (expected < 0).any()


def test_a_gradient_leaves_the_images_as_they_are() -> None:
    inputs = images()
    with torch.no_grad():
        input_gradient(lambda pixels: pixels.sum((1, 2, 3)), inputs)
    assert not inputs.requires_grad and inputs.grad is None


@pytest.mark.parametrize("source", SOURCES)
def test_a_map_does_not_depend_on_its_batch(source: str) -> None:
    model = trained_like("nonlinear")
    whole = compute_map(source, model, large(), LABELS, INDICES)
    for image in range(N):
        part = slice(image, image + 1)
        alone = compute_map(source, model, large()[part], LABELS[part], INDICES[part])
        torch.testing.assert_close(alone, whole[part], rtol=1e-3, atol=1e-5 * float(whole.abs().max()))
    order = [3, 0, 4, 1, 2]
    permutation = compute_map(source, model, large()[order], LABELS[order], [INDICES[place] for place in order])
    torch.testing.assert_close(permutation, whole[order], rtol=1e-3, atol=1e-5 * float(whole.abs().max()))


def state(model: nn.Module) -> list[Any]:
    """All of a model that a caller could see change."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    modules = list(model.modules())
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules]
    hooks += [len(module._backward_hooks) + len(module._backward_pre_hooks) for module in modules]
    return [
        [(name, tensor.requires_grad, tensor.grad, tensor.detach().numpy().tolist()) for name, tensor in tensors],
        [module.training for module in modules],
        hooks,
        torch.get_rng_state().tolist(),
        repr(np.random.get_state()),
        torch.is_grad_enabled(),
    ]


@contextmanager
def assert_unchanged(model: nn.Module, *tensors: Tensor) -> Iterator[None]:
    """Nothing is changed by what is done inside, nor said on stderr."""
    originals = state(model), [(tensor.clone(), tensor.requires_grad, tensor.grad) for tensor in tensors]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    assert state(model) == originals[0]
    for tensor, (values, requires, grad) in zip(tensors, originals[1], strict=True):
        assert torch.equal(tensor, values)
        assert (tensor.requires_grad, tensor.grad) == (requires, grad)


@pytest.mark.parametrize(("is_frozen", "no_grad"), [(False, True), (True, False)])
def test_the_model_the_images_and_the_random_state_are_left_as_found(is_frozen: bool, no_grad: bool) -> None:
    model = trained_like("nonlinear")
    model.head.train()
    model.requires_grad_(not is_frozen)
    inputs, labels = large(), LABELS.clone()
    for source in SOURCES:
        with torch.set_grad_enabled(not no_grad), assert_unchanged(model, inputs, labels):
            gradient = compute_map(source, model, inputs, labels, INDICES)
        assert not gradient.requires_grad
    for weight in ("attention", "grad-cam"):
        with torch.set_grad_enabled(not no_grad), assert_unchanged(model, inputs):
            weights = compute_position_weights(model, inputs, weight)
        assert not weights.requires_grad


def noise_of(index: int, seed: int) -> Iterator[Array]:
    stream = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, index])))
    while True:
        yield stream.standard_normal((C, H, W), dtype=np.float32).astype(np.float64)


@pytest.mark.parametrize("seed", [0, 9])
def test_a_smooth_gradient_is_the_mean_over_noisy_copies(seed: int) -> None:
    maps = compute_map("smooth-gradient", linear(), images(), LABELS, INDICES, seed)
    for image, label, index, gradient in zip(images(), LABELS, INDICES, maps, strict=True):
        noise = noise_of(index, seed)
        copies = [torch.from_numpy(array(image) + SIGMA * next(noise)) for _ in range(SAMPLES)]
        slow = sum(closed_form(linear(), copy[None], label[None])[0] for copy in copies) / SAMPLES
        np.testing.assert_allclose(gradient, slow, rtol=1e-3, atol=1e-6)


def test_a_smooth_gradient_of_a_quadratic_score_is_its_gradient_at_the_mean_copy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The gradient of a quadratic score is linear, so that its mean is that at the mean of the copies."""

    def label_logit(logits: Tensor, labels: Tensor) -> Tensor:
        return logits.gather(1, labels[:, None])[:, 0]

    monkeypatch.setattr(attribution, "loss_gradient", partial(loss_gradient, loss=label_logit))
    model, labels = Quadratic(), LABELS % 2
    maps = compute_map("smooth-gradient", model, images(), labels, INDICES)
    form = array(model.form)
    for image, label, index, smooth in zip(images(), labels, INDICES, maps, strict=True):
        noise = noise_of(index, 0)
        mean = array(image) + SIGMA * np.mean([next(noise) for _ in range(SAMPLES)], axis=0)
        gradient = (1 - 2 * int(label)) * (form + form.T) @ mean.ravel()
        np.testing.assert_allclose(smooth, gradient.reshape(C, H, W), rtol=1e-4, atol=1e-5)


def test_without_noise_a_smooth_gradient_is_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attribution, "SIGMA", 0.0)
    smooth, plain = (compute_map(source, linear(), images(), LABELS, INDICES) for source in SOURCES[1::-1])
    torch.testing.assert_close(smooth, plain)


def start_of(index: int, seed: int) -> Array:
    stream = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, index])))
    return stream.random((C, H, W), dtype=np.float32).astype(np.float64)


@pytest.mark.parametrize("seed", [0, 9])
def test_an_integrated_gradient_is_a_slow_gauss_legendre_sum(seed: int) -> None:
    nodes, parts = np.polynomial.legendre.leggauss(SAMPLES)
    maps = compute_map("integrated-gradients", linear(), images(), LABELS, INDICES, seed)
    for image, label, index, integral in zip(images(), LABELS, INDICES, maps, strict=True):
        start = start_of(index, seed)
        way = array(image) - start
        slow = np.zeros((C, H, W))
        for node, part in zip(nodes, parts, strict=True):
            point = torch.from_numpy(start + (node + 1) / 2 * way)
            slow += part / 2 * closed_form(linear(), point[None], label[None])[0]
        np.testing.assert_allclose(integral, slow * way, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("model", [linear(), Quadratic()])
def test_an_integrated_gradient_sums_to_the_difference_of_the_losses(model: nn.Module) -> None:
    labels = LABELS % 2
    maps = array(compute_map("integrated-gradients", InDouble(copy.deepcopy(model)), images(), labels, INDICES))
    start = torch.from_numpy(np.stack([start_of(index, 0) for index in INDICES])).float()
    with torch.no_grad():
        losses = F.cross_entropy(model(images()), labels, reduction="none")
        losses -= F.cross_entropy(model(start), labels, reduction="none")
    assert losses.abs().min() > 0.01
    np.testing.assert_allclose(maps.sum((1, 2, 3)), losses, rtol=1e-3, atol=1e-5)


def test_a_network_that_standardizes_its_images_has_complete_integrated_gradients() -> None:
    """From black, where such a network's answer jumps, the maps would sum to zero instead."""
    model = trained_like()
    maps = compute_map("integrated-gradients", model, large(), LABELS, INDICES)
    streams = [np.random.Generator(np.random.Philox(np.random.SeedSequence([0, index]))) for index in INDICES]
    start = torch.from_numpy(np.stack([stream.random((C, 16, 20), dtype=np.float32) for stream in streams]))
    with torch.no_grad():
        losses = F.cross_entropy(model(large()), LABELS, reduction="none")
        losses -= F.cross_entropy(model(start), LABELS, reduction="none")
    error = maps.sum((1, 2, 3)) - losses
    assert error.abs().sum() < 0.1 * losses.abs().sum()


@pytest.mark.parametrize("source", SOURCES)
def test_a_diverged_model_is_the_users_error(source: str) -> None:
    model = linear()
    with torch.no_grad():
        model.layer.weight[2, 3] = torch.nan
    with pytest.raises(UserError, match="answers or their gradients are not finite numbers"):
        compute_map(source, model, images(), LABELS, INDICES)


@pytest.mark.parametrize("rule", ["attention", "grad-cam"])
def test_weights_of_a_diverged_model_are_the_users_error(rule: str) -> None:
    model = trained_like("nonlinear")
    with torch.no_grad():
        model.classifier.weight.fill_(torch.nan)
        if rule == "attention":
            model.head.get_parameter("score.weight").fill_(torch.nan)
    with pytest.raises(UserError, match="not finite numbers"):
        compute_position_weights(model, large(), rule)


def test_random_targets_are_every_class_but_the_true_one() -> None:
    labels = torch.arange(6000) % K
    targets = draw_targets(labels, range(6000), K, seed=4)
    counts = torch.zeros(K, K)
    for label, target in zip(labels, targets, strict=True):
        counts[label, target] += 1
    expected = 6000 / K / (K - 1)
    assert (counts.diagonal() == 0).all()
    rest = counts[~torch.eye(K, dtype=torch.bool)]
    assert ((rest - expected).abs() < 5 * expected**0.5).all()


def test_random_targets_are_a_function_of_seed_and_index() -> None:
    labels = torch.zeros(50, dtype=torch.long)
    targets = draw_targets(labels, range(100, 150), K, seed=4)
    assert torch.equal(targets[20:30], draw_targets(labels[:10], range(120, 130), K, seed=4))
    assert not torch.equal(targets, draw_targets(labels, range(100, 150), K, seed=5))
    assert not torch.equal(targets, draw_targets(labels, range(101, 151), K, seed=4))
    assert torch.equal(draw_targets(torch.tensor([0, 1, 1, 0]), range(4), 2, seed=0), torch.tensor([1, 0, 0, 1]))


class Average(nn.Module):
    """Weights over positions are those of the mean of the first channel: a known attention."""

    def forward(self, local: Tensor) -> tuple[Tensor, Tensor]:
        attention = local[:, 0].flatten(1) / local[:, 0].sum((1, 2))[:, None]
        return attention, local.mean((2, 3))


def pooled_images(head: nn.Module) -> Classifier:
    """A linear classifier of the mean color of an image, whose local features are its pixels."""
    torch.manual_seed(0)
    return Classifier(nn.Identity(), head, nn.Linear(C, K)).eval()


def test_attention_is_the_heads() -> None:
    weights = compute_position_weights(pooled_images(Average()), images(), "attention")
    expected = images()[:, 0].flatten(1) / images()[:, 0].sum((1, 2))[:, None]
    torch.testing.assert_close(weights, expected)


def test_grad_cam_of_an_average_pooling_head_is_the_class_activation_map() -> None:
    """Selvaraju et al. 2017, section 3.1: Grad-CAM is then CAM, the class's weights times the channels."""
    model = pooled_images(AveragePool())
    inputs = images() - 0.5
    with torch.no_grad():
        predicted = model(inputs).argmax(1)
        cam = torch.einsum("nc,nchw->nhw", model.classifier.weight[predicted], inputs).clamp_min(0).flatten(1)
    weights = compute_position_weights(model, inputs, "grad-cam")
    assert len(set(predicted.tolist())) > 1
    assert 0.1 < (cam == 0).float().mean() < 0.9
    torch.testing.assert_close(weights, cam / cam.sum(1, keepdim=True))


@pytest.mark.parametrize(("head", "architecture"), [("average", "small"), ("nonlinear", "small"), ("average", "cnn")])
def test_grad_cam_is_a_slow_loop(head: Head, architecture: str) -> None:
    model = trained_like(head, architecture)
    weights = compute_position_weights(model, large(), "grad-cam")
    for image, row in zip(large(), weights, strict=True):
        local = model.backbone(image[None]).detach().requires_grad_()
        logits = model.classifier(model.head(local)[1])[0]
        logits[logits.argmax()].backward()
        assert local.grad is not None
        activation, gradient = array(local)[0], array(local.grad)[0]
        slow = np.maximum(sum(g.mean() * a for a, g in zip(activation, gradient, strict=True)), 0).ravel()
        np.testing.assert_allclose(row, slow / slow.sum(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("head", "architecture"), [("average", "small"), ("nonlinear", "small"), ("average", "cnn")])
def test_grad_cam_is_that_of_captum(head: Head, architecture: str) -> None:
    model = trained_like(head, architecture)
    with torch.no_grad():
        predicted = model(large()).argmax(1)
    cam = LayerGradCam(model, model.backbone).attribute(large(), target=predicted, relu_attributions=True)
    expected = cam.detach().flatten(1)
    torch.testing.assert_close(
        compute_position_weights(model, large(), "grad-cam"),
        expected / expected.sum(1, keepdim=True),
        rtol=1e-4,
        atol=1e-6,
    )


def test_an_image_without_support_for_its_class_has_no_grad_cam() -> None:
    model = pooled_images(AveragePool())
    with torch.no_grad():
        model.classifier.weight.copy_(-torch.arange(1.0, K + 1)[:, None].expand(K, C))
        model.classifier.bias.zero_()
    inputs = images()
    inputs[2] *= -1  # only here a position's weighted sum of channels is positive
    weights = compute_position_weights(model, inputs, "grad-cam")
    assert weights.isnan().all(1).tolist() == [True, True, False, True, True]
    assert float(weights[2].sum()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("choice", "variant", "weight"),
    [
        ("auto", "at", "grad-cam"),
        ("auto", "at-att", "attention"),
        ("auto", "natural-linear-att", "attention"),
        ("grad-cam", "at-att", "grad-cam"),
        ("grad-cam", "natural", "grad-cam"),
        ("attention", "at-att-reg", "attention"),
    ],
)
def test_weights_follow_the_choice_and_the_variant(choice: str, variant: str, weight: str) -> None:
    assert resolve_weight(choice, {"variant": variant}) == weight


def test_attention_of_a_model_without_is_the_users_error() -> None:
    with pytest.raises(UserError, match=r"'at-reg' has no attention: use --spatial-weight grad-cam\."):
        resolve_weight("attention", {"variant": "at-reg"})
