"""The networks: parameter counts, a slow second implementation in numpy, invariances, initialization."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import Array, array, pixels, settle
from torch import Tensor, nn

from interpret_robust.core.errors import UserError
from interpret_robust.models import Classifier, build
from interpret_robust.models.attention import LinearAttention, NonlinearAttention
from interpret_robust.models.resnet import PerImageStandardization, ResNet, Unit
from interpret_robust.models.variants import Head

RGB, GRAY = (3, 32, 24), (1, 28, 28)


def make_model(architecture: str, head: Head = "average", shape: tuple[int, int, int] = RGB) -> Classifier:
    """A float64 model with ten classes in eval mode and random batch norm statistics."""
    model = build(architecture, head, shape, 10, seed=3)
    settle(model)
    return model.double()


# --- counts and shapes


@pytest.mark.parametrize(
    ("architecture", "head", "shape", "count"),
    [
        ("narrow", "average", (3, 32, 32), 464_154),
        # g: 64*64*9 + 64; hidden layer on [l; g]: 64*128 + 64; score: 64 + 1
        ("narrow", "nonlinear", (3, 32, 32), 464_154 + 36_928 + 8_256 + 65),
        ("narrow", "linear", (3, 32, 32), 464_154 + 64),
        ("small", "average", (3, 32, 32), 75_290),
        # stem, three stages, last norm, classifier
        ("wide3", "average", (3, 32, 32), 432 + 194_432 + 789_792 + 3_155_520 + 384 + 1_930),
        # two convolutions, 1,024 units on 64 features of 7x7 positions, classifier
        ("cnn", "average", GRAY, (25 * 32 + 32) + (25 * 32 * 64 + 64) + (64 * 49 * 1024 + 1024) + (1024 * 10 + 10)),
    ],
)
def test_parameter_counts(architecture: str, head: Head, shape: tuple[int, int, int], count: int) -> None:
    model = build(architecture, head, shape, 10, seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize(
    ("architecture", "shape", "local"),
    [
        ("small", RGB, (64, 8, 6)),
        ("small", GRAY, (64, 7, 7)),
        ("narrow", RGB, (64, 8, 6)),
        ("narrow", (3, 32, 32), (64, 8, 8)),
        ("wide3", (1, 16, 20), (192, 4, 5)),
        ("cnn", RGB, (64, 8, 6)),
        ("cnn", GRAY, (64, 7, 7)),
    ],
)
@pytest.mark.parametrize("head", ["average", "nonlinear", "linear"])
def test_features_have_their_documented_shapes_and_add_up(
    architecture: str, shape: tuple[int, int, int], local: tuple[int, int, int], head: Head
) -> None:
    model, images = make_model(architecture, head, shape), pixels(2, *shape).double()
    features = model.features(images)
    assert features.local.shape == (2, *local)
    torch.testing.assert_close(model.classifier(features.pooled), model(images))
    if features.attention is None:
        assert head == "average"
        return
    assert features.attention.shape == (2, local[1] * local[2])
    assert bool((features.attention > 0).all())
    torch.testing.assert_close(features.attention.sum(1), torch.ones(2).double())
    products = features.local * features.attention.reshape(2, 1, *local[1:])
    torch.testing.assert_close(features.pooled, products.sum((2, 3)))


# --- the slow second implementation


def slow_standardization(image: Array) -> Array:
    """tf.image.per_image_standardization, on the 0 to 255 pixels that it is defined for."""
    bytes_ = image * 255
    deviation = max(float(bytes_.std()), 1 / math.sqrt(bytes_.size))
    return np.asarray((bytes_ - bytes_.mean()) / deviation)


def slow_convolution(x: Array, layer: nn.Conv2d) -> Array:
    weight, stride, pad = array(layer.weight), layer.stride[0], int(layer.padding[0])
    size = weight.shape[2]
    canvas = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    height, width = ((side + 2 * pad - size) // stride + 1 for side in x.shape[2:])
    out = np.zeros((len(x), len(weight), height, width))
    for i, j in itertools.product(range(height), range(width)):
        window = canvas[:, :, i * stride : i * stride + size, j * stride : j * stride + size]
        out[:, :, i, j] = np.tensordot(window, weight, ([1, 2, 3], [1, 2, 3]))
    return out if layer.bias is None else out + array(layer.bias)[:, None, None]


def slow_pool(x: Array, *, largest: bool) -> Array:
    """2x2 pooling; an odd last row or column is dropped."""
    height, width = x.shape[2] // 2, x.shape[3] // 2
    out = np.zeros((*x.shape[:2], height, width))
    for i, j in itertools.product(range(height), range(width)):
        window = x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        out[:, :, i, j] = window.max((2, 3)) if largest else window.mean((2, 3))
    return out


def slow_norm(x: Array, norm: nn.BatchNorm2d) -> Array:
    """Batch norm with running statistics and epsilon 0.001, then leaky ReLU of slope 0.1."""
    mean, variance, scale, shift = (
        array(tensor)[:, None, None] for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    standard = (x - mean) / np.sqrt(variance + 0.001) * scale + shift
    return np.where(standard > 0, standard, 0.1 * standard)


def slow_unit(x: Array, unit: Unit, stride: int, *, activate: bool) -> Array:
    activation = slow_norm(x, unit.norm1)
    residual = slow_convolution(slow_norm(slow_convolution(activation, unit.conv1), unit.norm2), unit.conv2)
    shortcut = activation if activate else x
    if stride == 2:
        shortcut = slow_pool(shortcut, largest=False)
    out = residual.copy()
    first = (residual.shape[1] - x.shape[1]) // 2
    out[:, first : first + x.shape[1]] += shortcut  # the channels on either side have no shortcut
    return out


def slow_nonlinear_attention(local: Array, head: NonlinearAttention) -> tuple[Array, Array]:
    """Eqs. 3 to 5, one position after the other, with one matrix on the concatenation [l; g]."""
    from_local, from_global = array(head.from_local.weight)[:, :, 0, 0], array(head.from_global.weight)
    matrix, bias = np.concatenate([from_local, from_global], 1), array(head.from_local.bias)
    vector, constant = array(head.score.weight)[0, :, 0, 0], array(head.score.bias)[0]
    convolution = head.global_feature[1]
    assert isinstance(convolution, nn.Conv2d)
    g = slow_convolution(slow_pool(local, largest=True), convolution).max((2, 3))
    count, channels, height, width = local.shape
    attention, sums = np.zeros((count, height * width)), np.zeros((count, channels))
    for n in range(count):
        for i, j in itertools.product(range(height), range(width)):
            units = np.maximum(0, matrix @ np.concatenate([local[n, :, i, j], g[n]]) + bias)
            attention[n, i * width + j] = math.exp(vector @ units + constant)
        attention[n] /= attention[n].sum()
        for i, j in itertools.product(range(height), range(width)):
            sums[n] += attention[n, i * width + j] * local[n, :, i, j]
    return attention, sums


def slow_linear_attention(local: Array, head: LinearAttention, g: Array) -> tuple[Array, Array]:
    """The published form, <u, l + g>, for any global feature g (N, C)."""
    u = array(head.score.weight)[0, :, 0, 0]
    count, channels, height, width = local.shape
    attention, sums = np.zeros((count, height * width)), np.zeros((count, channels))
    for n in range(count):
        for i, j in itertools.product(range(height), range(width)):
            attention[n, i * width + j] = math.exp(u @ (local[n, :, i, j] + g[n]))
        attention[n] /= attention[n].sum()
        for i, j in itertools.product(range(height), range(width)):
            sums[n] += attention[n, i * width + j] * local[n, :, i, j]
    return attention, sums


def test_standardization_is_the_challenges_formula_also_below_its_floor() -> None:
    images = pixels(4, 3, 8, 6).double()
    images[1] = 0.5 + 1e-2 * images[1]
    images[2] = 0.5 + 1e-5 * images[2]  # its deviation lies below 1/(255 sqrt(144)) = 3.3e-4
    images[3] = 0.25
    expected = np.stack([slow_standardization(image) for image in array(images)])
    assert expected[1].std() == pytest.approx(1) and expected[2].std() < 0.1
    np.testing.assert_allclose(array(PerImageStandardization()(images)), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(4, 4, 1), (4, 10, 1), (4, 10, 2)])
@pytest.mark.parametrize("activate", [True, False])
def test_unit_equals_the_slow_one(inputs: int, outputs: int, stride: int, activate: bool) -> None:
    unit = Unit(inputs, outputs, stride, activate_shortcut=activate)
    settle(unit).double()
    x = pixels(2, inputs, 6, 8, low=-2, high=2).double()
    expected = slow_unit(array(x), unit, stride, activate=activate)
    np.testing.assert_allclose(array(unit(x)), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("height", "width"), [(4, 6), (7, 5)])
def test_nonlinear_attention_equals_the_loop_over_concatenations(height: int, width: int) -> None:
    torch.manual_seed(0)
    head, local = NonlinearAttention(3, units=9).double(), pixels(2, 3, height, width, low=-2, high=2).double()
    attention, vector = head(local)
    slow_attention, slow_pooled = slow_nonlinear_attention(array(local), head)
    assert slow_attention.std() > 1e-3  # not the uniform weights, which any order of positions has
    np.testing.assert_allclose(array(attention), slow_attention, rtol=1e-9)
    np.testing.assert_allclose(array(vector), slow_pooled, rtol=1e-9)


def test_linear_attention_equals_the_published_form_whatever_the_global_feature_is() -> None:
    torch.manual_seed(0)
    head, local = LinearAttention(3).double(), pixels(2, 3, 4, 6, low=-2, high=2).double()
    attention, vector = head(local)
    for seed in range(3):
        g = array(pixels(2, 3, seed=seed, low=-3, high=3))
        slow_attention, slow_pooled = slow_linear_attention(array(local), head, g)
        np.testing.assert_allclose(array(attention), slow_attention, rtol=1e-9)
        np.testing.assert_allclose(array(vector), slow_pooled, rtol=1e-9)


@pytest.mark.parametrize(
    ("architecture", "units", "strides"), [("small", 1, (1, 2, 1)), ("narrow", 5, (1, 2, 2)), ("wide3", 5, (1, 2, 2))]
)
def test_resnet_equals_the_slow_one(architecture: str, units: int, strides: tuple[int, int, int]) -> None:
    model, images = make_model(architecture, shape=(3, 16, 20)), pixels(2, 3, 16, 20).double()
    backbone = model.backbone
    assert isinstance(backbone, ResNet)
    x = np.stack([slow_standardization(image) for image in array(images)])
    x = slow_convolution(x, backbone.stem)
    assert len(backbone.units) == 3 * units
    for index, unit in enumerate(backbone.units):
        assert isinstance(unit, Unit)
        x = slow_unit(x, unit, strides[index // units] if index % units == 0 else 1, activate=index == 0)
    vector = slow_norm(x, backbone.norm).mean((2, 3))
    expected = vector @ array(model.classifier.weight).T + array(model.classifier.bias)
    np.testing.assert_allclose(array(model(images)), expected, rtol=1e-8)


def test_cnn_equals_the_slow_one() -> None:
    model, images = make_model("cnn", shape=(3, 16, 20)), pixels(2, 3, 16, 20).double()
    x = array(images)
    for name in ("conv1", "conv2"):
        x = slow_pool(np.maximum(0, slow_convolution(x, model.backbone.get_submodule(name))), largest=True)  # type: ignore[arg-type]
    for layer in (model.head.dense, model.classifier):
        assert isinstance(layer, nn.Linear)
        x = x.reshape(2, -1) @ array(layer.weight).T + array(layer.bias)
        x = np.maximum(0, x) if layer is model.head.dense else x
    np.testing.assert_allclose(array(model(images)), x, rtol=1e-8)


# --- invariances, and what follows from them


@pytest.mark.parametrize("architecture", ["small", "narrow"])
@pytest.mark.parametrize("head", ["average", "nonlinear", "linear"])
def test_resnet_does_not_see_an_images_scale_and_shift(architecture: str, head: Head) -> None:
    model, images = make_model(architecture, head), pixels(2, *RGB).double()
    for scale, shift in ((0.5, 0.0), (1.0, 0.3), (0.25, 0.125), (3.0, -1.0)):
        torch.testing.assert_close(model(scale * images + shift), model(images), rtol=1e-9, atol=1e-9)


def gradient_of(model: nn.Module, images: Tensor) -> Tensor:
    images = images.clone().requires_grad_()
    labels = torch.arange(len(images)) % 10
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(images), labels, reduction="sum"), images)
    return gradient


@pytest.mark.parametrize("constant", [0.0, 0.5, 1.0])
def test_image_minus_a_constant_is_orthogonal_to_the_gradient_by_euler(constant: float) -> None:
    images = pixels(3, *RGB).double()
    for architecture in ("small", "cnn"):
        gradient = gradient_of(make_model(architecture), images).flatten(1)
        product = (gradient * (images - constant).flatten(1)).sum(1)
        cosine = (product / gradient.norm(dim=1) / (images - constant).flatten(1).norm(dim=1)).abs()
        if architecture == "small":
            assert cosine.max() < 1e-12
        else:  # the network without standardization has no such law
            assert cosine.min() > 1e-5


@pytest.mark.parametrize("architecture", ["small", "narrow", "cnn"])
@pytest.mark.parametrize("head", ["average", "nonlinear", "linear"])
def test_blank_images_have_finite_gradients(architecture: str, head: Head) -> None:
    model = build(architecture, head, RGB, 10, seed=0)
    images = torch.stack([torch.full(RGB, value) for value in (0.0, 1 / 3, 1.0)] + [pixels(*RGB)])
    for training in (False, True):
        model.train(training)
        assert bool(gradient_of(model, images).isfinite().all())
        model.zero_grad()
        model(images).sum().backward()
        assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


# --- how they are made


@pytest.mark.parametrize("architecture", ["small", "cnn"])
def test_weights_depend_on_the_seed_alone(architecture: str) -> None:
    def weights(seed: int) -> dict[str, Tensor]:
        return dict(build(architecture, "nonlinear", RGB, 10, seed=seed).named_parameters())

    torch.manual_seed(1)
    first = weights(5)
    torch.manual_seed(2)
    repeat, other = weights(5), weights(6)
    for name, tensor in first.items():
        assert torch.equal(tensor, repeat[name])
        if tensor.ndim > 1:
            assert (tensor != other[name]).double().mean().item() > 0.99, name


def test_building_leaves_the_global_random_state_alone() -> None:
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()
    build("small", "nonlinear", RGB, 10, seed=5)
    assert torch.equal(torch.get_rng_state(), torch_before)
    np.testing.assert_equal(np.random.get_state(), numpy_before)


@pytest.mark.parametrize(
    ("architecture", "shape", "sentence"),
    [
        (
            "narow",
            RGB,
            "unknown architecture 'narow': did you mean 'narrow'? known are cnn, narrow, small, small-wide3, wide3.",
        ),
        ("resnet", RGB, "unknown architecture 'resnet': known are cnn, narrow, small, small-wide3, wide3."),
        ("small", (3, 12, 32), "images are 12x32: sides must be multiples of 4 and at least 16."),
        ("narrow", (3, 32, 8), "images are 32x8: sides must be multiples of 4 and at least 16."),
        ("cnn", (1, 28, 30), "images are 28x30: sides must be multiples of 4 and at least 16."),
    ],
)
def test_what_cannot_be_built_is_said(architecture: str, shape: tuple[int, int, int], sentence: str) -> None:
    with pytest.raises(UserError) as error:
        build(architecture, "average", shape, 10, seed=0)
    assert str(error.value) == sentence


@pytest.mark.parametrize("architecture", ["small", "narrow", "wide3"])
def test_resnet_is_initialized_as_the_challenge_is(architecture: str) -> None:
    model = build(architecture, "average", (3, 32, 32), 10, seed=0)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.bias is None
            count, expected = layer.weight.numel(), math.sqrt(2 / (9 * layer.out_channels))
            # five standard errors of a normal sample's deviation and mean: fan-in would be 40 % and more away
            assert layer.weight.std().item() == pytest.approx(expected, rel=5 / math.sqrt(2 * count))
            assert abs(layer.weight.mean().item()) < 5 * expected / math.sqrt(count)
    weight, bound = model.classifier.weight, math.sqrt(3 / model.classifier.in_features)
    assert 0.98 * bound < weight.abs().max().item() <= bound
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
    assert model.classifier.bias.count_nonzero() == 0


@pytest.mark.parametrize("head", ["average", "nonlinear"])
def test_cnn_is_initialized_as_the_challenge_is(head: Head) -> None:
    for name, parameter in build("cnn", head, GRAY, 10, seed=0).named_parameters():
        if parameter.ndim == 1:
            assert bool((parameter == torch.tensor(0.1)).all()), name
        else:
            assert parameter.abs().max().item() <= 0.2, name
            # a normal cut at two deviations keeps 0.8796 of its deviation
            tolerance = 5 / math.sqrt(2 * parameter.numel())
            assert parameter.std().item() == pytest.approx(0.1 * 0.8796, rel=tolerance), name


@pytest.mark.parametrize("architecture", ["small", "narrow", "wide3"])
def test_only_the_first_unit_activates_its_shortcut(architecture: str) -> None:
    units = [unit for unit in build(architecture, "average", RGB, 10, seed=0).modules() if isinstance(unit, Unit)]
    assert [unit.activate_shortcut for unit in units] == [True] + [False] * (len(units) - 1)


def test_batch_norm_keeps_nine_tenths_of_its_statistics_at_each_pass() -> None:
    model = build("small", "nonlinear", RGB, 10, seed=0).train()
    backbone, images = model.backbone, pixels(4, *RGB)
    assert isinstance(backbone, ResNet) and isinstance(backbone.units[0], Unit)
    model(images)
    x = array(backbone.stem(backbone.standardize(images)))
    norm = backbone.units[0].norm1
    np.testing.assert_allclose(array(norm.running_mean), 0.1 * x.mean((0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(array(norm.running_var), 0.9 + 0.1 * x.var((0, 2, 3), ddof=0), rtol=1e-3)
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert [(norm.eps, norm.momentum) for norm in norms] == [(1e-3, 0.1)] * 7
