"""Maps by captum against closed forms and slow loops, method by method, and what they must leave alone."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from anyone import C, Convolutions, H, K, N, W, assert_unchanged, hooks, seed_network
from networks import Array, Linear, array, pixels, settle
from torch import Tensor, nn

from interpret_robust.attribution import captum_methods
from interpret_robust.attribution.captum_methods import BASELINES, OF_ACTIVATIONS, list_names
from interpret_robust.attribution.gradients import check_source, compute_map
from interpret_robust.core.errors import UserError
from interpret_robust.core.random_numbers import make_streams
from interpret_robust.models.losses import loss_gradient
from interpret_robust.models.preprocess import Preprocess
from interpret_robust.models.wrapper import WrappedModel

LABELS = torch.tensor([0, 6, 3, 3, 1])
INDICES = range(40, 40 + N)
PLAIN = Preprocess((0.0,), (1.0,))


def images(count: int = N) -> Tensor:
    return 0.05 + 0.9 * pixels(count, C, H, W, seed=2)


def network(*, inplace: bool = False) -> WrappedModel:
    convolutions: Convolutions = seed_network(Convolutions)
    settle(convolutions)
    with torch.no_grad():
        convolutions.answer.weight.mul_(20)
    for module in (convolutions.rectify, convolutions.rectify_again):
        module.inplace = inplace
    return WrappedModel(convolutions, PLAIN, "body")


def maps(name: str, model: nn.Module, part: Any = slice(None), seed: int = 0) -> Tensor:
    inputs = images()[part]
    indices = np.array(INDICES)[part].tolist()
    return compute_map(f"captum:{name}", model, inputs, LABELS[part], indices, seed)


def losses(model: nn.Module, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return F.cross_entropy(model(inputs), LABELS[: len(inputs)], reduction="none")


def cells(height: int = 1, width: int = 2) -> list[tuple[slice, slice]]:
    """Squares of an eighth of each side: here 1 by 2 pixels."""
    return [
        (slice(row, row + height), slice(column, column + width))
        for row in range(0, H, height)
        for column in range(0, W, width)
    ]


@pytest.fixture
def few_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Squares of half of each side, for what holds of any: methods take as many passes as there are squares."""
    monkeypatch.setattr(captum_methods, "CELLS", 2)


def test_the_methods_are_those_of_captum_that_attribute_to_pixels() -> None:
    assert set(list_names()) == {
        *("Saliency", "InputXGradient", "IntegratedGradients", "GradientShap", "Occlusion", "FeatureAblation"),
        *("DeepLift", "DeepLiftShap", "GuidedBackprop", "Deconvolution", "GuidedGradCam"),
        *("ShapleyValueSampling", "Lime", "KernelShap"),
    }


@pytest.mark.long
@pytest.mark.usefixtures("few_cells")
@pytest.mark.parametrize("name", list_names())
def test_a_map_has_numbers_and_does_not_depend_on_its_batch(name: str) -> None:
    model = network()
    whole = maps(name, model)
    assert whole.shape == (N, C, H, W) and whole.any()
    tolerance = 1e-4 * float(whole.abs().max())
    for image in range(N):
        torch.testing.assert_close(
            maps(name, model, slice(image, image + 1)), whole[image : image + 1], rtol=1e-3, atol=tolerance
        )
    order = [3, 0, 4, 1, 2]
    torch.testing.assert_close(maps(name, model, order), whole[order], rtol=1e-3, atol=tolerance)


@pytest.mark.usefixtures("few_cells")
@pytest.mark.parametrize("name", list_names())
def test_the_model_the_images_and_the_random_state_are_left_as_found(name: str) -> None:
    model, inputs, labels = network(), images(2), LABELS[:2].clone()
    for grad in (False, True):
        with torch.set_grad_enabled(grad), assert_unchanged(model, inputs, labels):
            attribution = compute_map(f"captum:{name}", model, inputs, labels, INDICES[:2])
        assert not attribution.requires_grad


@pytest.mark.usefixtures("few_cells")
@pytest.mark.parametrize("name", list_names())
def test_a_map_is_a_function_of_its_seed(name: str) -> None:
    model, first_image = network(), slice(0, 1)
    first = maps(name, model, first_image, 3)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(99)
        assert torch.equal(maps(name, model, first_image, 3), first)
    is_random = name in ("GradientShap", "DeepLiftShap", "ShapleyValueSampling", "Lime", "KernelShap")
    assert torch.equal(maps(name, model, first_image, 4), first) != is_random


def test_saliency_is_our_gradient() -> None:
    model = network()
    expected = loss_gradient(model, images(), LABELS)
    assert (expected < 0).any()
    torch.testing.assert_close(maps("Saliency", model), expected, rtol=1e-4, atol=1e-6)


def test_input_times_gradient_is_that() -> None:
    model = network()
    expected = images() * loss_gradient(model, images(), LABELS)
    torch.testing.assert_close(maps("InputXGradient", model), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["Occlusion", "FeatureAblation"])
def test_squares_made_black_change_the_loss_as_in_a_slow_loop(name: str) -> None:
    model = network()
    whole, slow = losses(model, images()), torch.zeros(N, C, H, W)
    for rows, columns in cells():
        black = images()
        black[:, :, rows, columns] = 0
        slow[:, :, rows, columns] = (whole - losses(model, black))[:, None, None, None]
    assert slow.any()
    torch.testing.assert_close(maps(name, model), slow, rtol=1e-3, atol=1e-5)


@pytest.mark.usefixtures("few_cells")
def test_shapley_values_of_the_squares_sum_to_the_difference_of_the_losses() -> None:
    model = network()
    attributions = maps("ShapleyValueSampling", model)
    by_square = [attributions[:, :, rows, columns].flatten(1) for rows, columns in cells(H // 2, W // 2)]
    for square in by_square:
        assert torch.equal(square.amax(1), square.amin(1)), "a square has one value in all its colors"
    differences = losses(model, images()) - losses(model, torch.zeros(N, C, H, W))
    assert differences.abs().min() > 0.01
    torch.testing.assert_close(sum(square[:, 0] for square in by_square), differences, rtol=1e-3, atol=1e-4)


def test_integrated_gradients_sum_to_the_difference_of_the_losses() -> None:
    model = network()
    differences = losses(model, images()) - losses(model, torch.zeros(N, C, H, W))
    torch.testing.assert_close(maps("IntegratedGradients", model).sum((1, 2, 3)), differences, rtol=0.05, atol=0.01)


class ReLUThenLinear(nn.Module):
    """Linear where images are positive, as they are here: `weight @ pixels + bias`."""

    def __init__(self) -> None:
        super().__init__()
        self.rectify, self.linear = nn.ReLU(), Linear(C * H * W, K)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.rectify(inputs))
        return logits


def of_label(logits: Tensor, labels: Tensor) -> Tensor:
    """A loss that is linear in the logits."""
    return logits.gather(1, labels[:, None])[:, 0]


def slopes(model: ReLUThenLinear) -> Tensor:
    return model.linear.layer.weight[LABELS].detach().reshape(N, C, H, W)


@pytest.mark.parametrize("name", ["InputXGradient", "IntegratedGradients", "DeepLift", "FeatureAblation"])
def test_contributions_to_a_linear_score_are_weight_times_pixel(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captum_methods, "cross_entropy", of_label)
    model = ReLUThenLinear().eval()
    expected = slopes(model) * images()
    if name == "FeatureAblation":
        for rows, columns in cells():
            expected[:, :, rows, columns] = expected[:, :, rows, columns].sum((1, 2, 3), keepdim=True)
    torch.testing.assert_close(maps(name, model), expected, rtol=1e-3, atol=1e-4)


def test_deep_lift_shap_compares_with_noise_that_is_the_images_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captum_methods, "cross_entropy", of_label)
    model = ReLUThenLinear().eval()
    baselines = []
    for stream in make_streams(5, INDICES):
        stream.integers(2**31)  # what follows is the seed of global random numbers, drawn first
        baselines.append(torch.from_numpy(stream.random((BASELINES, C, H, W), dtype=np.float32)).mean(0))
    expected = slopes(model) * (images() - torch.stack(baselines))
    torch.testing.assert_close(maps("DeepLiftShap", model, seed=5), expected, rtol=1e-3, atol=1e-4)


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.rectify, self.second = nn.Linear(C * H * W, 20), nn.ReLU(), nn.Linear(20, K)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.second(self.rectify(self.first(inputs.flatten(1))))
        return logits


@pytest.mark.parametrize("name", ["GuidedBackprop", "Deconvolution"])
def test_only_positive_gradients_go_back_through_a_relu(name: str) -> None:
    """Springenberg et al. 2015: also where the unit is off, for deconvolution."""
    model: TwoLayers = seed_network(TwoLayers)
    first, second, bias = array(model.first.weight), array(model.second.weight), array(model.first.bias)
    attributions: Array = array(maps(name, model))
    for image, label, attribution in zip(array(images()), LABELS.tolist(), attributions, strict=True):
        units = first @ image.ravel() + bias
        scores = np.exp(second @ np.maximum(units, 0) + array(model.second.bias))
        gradient = np.maximum(second.T @ (scores / scores.sum() - np.eye(K)[label]), 0)
        if name == "GuidedBackprop":
            gradient = gradient * (units > 0)
        np.testing.assert_allclose(attribution, (first.T @ gradient).reshape(C, H, W), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", OF_ACTIVATIONS)
def test_methods_of_activations_are_refused_where_there_are_none(name: str) -> None:
    model = Linear(C * H * W, K).eval()
    with pytest.raises(UserError, match=f"captum's {name} changes what ReLU layers do, and this network has none"):
        maps(name, model)


@pytest.mark.parametrize("name", OF_ACTIVATIONS)
def test_methods_of_activations_go_through_relus_that_work_in_place(name: str) -> None:
    """Those of nearly all networks of torchvision do."""
    torch.testing.assert_close(maps(name, network(inplace=True)), maps(name, network()))


def test_grad_cam_needs_local_features() -> None:
    with pytest.raises(UserError, match=r"the model has no local features\."):
        maps("GuidedGradCam", ReLUThenLinear().eval())


class Faulty(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rectify = nn.ReLU()

    def forward(self, inputs: Tensor) -> Tensor:
        self.rectify(inputs)
        raise RuntimeError("out of order.\nat all")


@pytest.mark.parametrize("name", list_names())
def test_a_method_that_fails_is_told_in_one_sentence_and_leaves_no_hooks(name: str) -> None:
    model = WrappedModel(Faulty().eval(), PLAIN, "rectify")
    with (
        assert_unchanged(model),
        pytest.raises(UserError, match=rf"captum's {name} fails in this network \(out of order\)\."),
    ):
        maps(name, model)
    assert hooks(model) == 0


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("captum:Salience", r"unknown attribution of captum 'Salience': did you mean 'Saliency'\? known are"),
        ("captum:", "unknown attribution of captum ''"),
        ("captum:LRP", "unknown attribution of captum 'LRP'"),
        ("captum:LayerGradCam", "unknown attribution of captum 'LayerGradCam'"),
        ("Saliency", "unknown source of maps 'Saliency'.*captum:NAME"),
        ("gradent", r"unknown source of maps 'gradent': did you mean 'gradient'\?"),
    ],
)
def test_an_unknown_method_is_the_users_error(source: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        check_source(source)


def test_known_methods_are_sources() -> None:
    for name in list_names():
        assert check_source(f"captum:{name}") == f"captum:{name}"
