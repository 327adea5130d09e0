"""Captum's methods with rules for layers: right by hand, or refused in one sentence."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from anyone import C, H, K, N, W, assert_unchanged, seed_network
from networks import array, pixels
from torch import Tensor, nn

from interpret_robust.attribution import captum_methods, layer_rules
from interpret_robust.attribution.captum_methods import BASELINES, COMPLETE, list_names
from interpret_robust.attribution.gradients import compute_map
from interpret_robust.attribution.layer_rules import OF_CHANGES, OF_RELU
from interpret_robust.core.errors import UserError
from interpret_robust.core.random_numbers import make_streams
from interpret_robust.models.preprocess import Preprocess
from interpret_robust.models.wrapper import WrappedModel

LABELS = torch.tensor([0, 6, 3, 3, 1])
PLAIN = Preprocess((0.0,), (1.0,))
WIDTH = 6


def images() -> Tensor:
    return 0.05 + 0.9 * pixels(N, C, H, W, seed=2)


def maps(name: str, network: nn.Module, part: slice = slice(None), layer: str | None = None) -> Tensor:
    model = WrappedModel(network, PLAIN, layer)
    indices = list(range(40, 40 + N))[part]
    with assert_unchanged(model):
        return compute_map(f"captum:{name}", model, images()[part], LABELS[part], indices)


def losses(network: nn.Module, inputs: Tensor, labels: Tensor = LABELS) -> Tensor:
    with torch.no_grad():
        return F.cross_entropy(network(inputs), labels, reduction="none")


class TwoConvolutions(nn.Module):
    """Logits of two convolutions and what lies behind them."""

    def __init__(self, behind_first: Any, behind_second: Any, scale: float = 30) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(C, WIDTH, 3, 2, 1), nn.Conv2d(WIDTH, WIDTH, 3, 1, 1)
        self.answer = nn.Linear(WIDTH, K)
        self.behind_first, self.behind_second = behind_first, behind_second
        with torch.no_grad():
            self.answer.weight.mul_(scale)

    def forward(self, inputs: Tensor) -> Tensor:
        local = self.behind_second(self.second(self.behind_first(self.first(inputs))))
        logits: Tensor = self.answer(local.mean((2, 3)))
        return logits


def network(behind_first: Any, behind_second: Any, scale: float = 30) -> TwoConvolutions:
    model: TwoConvolutions = seed_network(TwoConvolutions, behind_first, behind_second, scale)
    return model


class Subclass(nn.ReLU):
    pass


class Twice(nn.ReLU):
    def forward(self, inputs: Tensor) -> Tensor:
        return F.relu(F.relu(inputs) - 0.1)


class Custom(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, inputs: Tensor) -> Tensor:
        context.save_for_backward(inputs)
        return inputs.clamp(min=0)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        (inputs,) = context.saved_tensors
        slope: Tensor = gradients[0] * (inputs > 0)
        return slope


def mask_negative(inputs: Tensor) -> Tensor:
    return inputs.masked_fill(inputs < 0, 0)


RELUS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "clamp": lambda x: x.clamp(min=0),
    "clamp_min": lambda x: x.clamp_min(0),
    "maximum": lambda x: torch.maximum(x, torch.zeros(())),
    "threshold": lambda x: F.threshold(x, 0, 0),
    "where": lambda x: torch.where(x > 0, x, 0),
    "mul": lambda x: x * (x > 0),
    "masked_fill": mask_negative,
    "hardtanh": F.relu6,
    "custom": Custom.apply,
}


@pytest.mark.parametrize("function", RELUS)
@pytest.mark.parametrize("name", ["GuidedBackprop", "DeepLift"])
def test_a_relu_that_is_no_layer_is_refused_with_its_place(name: str, function: str) -> None:
    """Beside a layer that is used, so that a method would do half of what it says."""
    sentence = rf"captum's {name} acts on layers that it knows, and the network's own forward takes {function} without"
    if name == "DeepLift" and function == "mul":
        sentence = r"misses .* of a change of the loss"
    with pytest.raises(UserError, match=sentence):
        maps(name, network(nn.ReLU(), RELUS[function]))


@pytest.mark.parametrize("name", [*OF_RELU, *OF_CHANGES])
def test_a_layer_that_is_there_and_does_not_run_does_not_count(name: str) -> None:
    model = network(F.relu, F.relu)
    model.add_module("idle", nn.ReLU())
    with pytest.raises(UserError, match=r"forward takes relu without one: call an? (plain )?nn\.ReLU layer there\."):
        maps(name, model, layer="second")


def test_a_step_in_a_layer_is_refused_by_the_layers_name() -> None:
    with pytest.raises(UserError, match=r"layer 'behind_second\.0' \(GELU\) takes gelu without one: use captum:Integ"):
        maps("DeepLift", network(nn.ReLU(), nn.Sequential(nn.GELU())))


@pytest.mark.parametrize(
    "layer", [nn.SiLU(), nn.Hardswish(), nn.ReLU6(), nn.GroupNorm(2, WIDTH), nn.AdaptiveMaxPool2d(2), Subclass()]
)
def test_deep_lift_is_refused_where_captum_has_no_rule(layer: nn.Module) -> None:
    """It compares exact classes: a subclass of ReLU gave input times gradient."""
    with pytest.raises(UserError, match=rf"layer 'behind_second' \({type(layer).__name__}\) takes \w+ without one"):
        maps("DeepLift", network(nn.ReLU(), layer))


def test_a_product_of_what_depends_on_the_image_is_no_linear_step() -> None:
    with pytest.raises(UserError, match="the network's own forward takes mul without one"):
        maps("DeepLift", network(nn.ReLU(), lambda x: x * x.mean()))


def test_deep_lift_keeps_one_input_a_layer() -> None:
    rectify = nn.ReLU()
    with pytest.raises(UserError, match="layer 'behind_first' runs 2 times in a pass: give each run a layer of its"):
        maps("DeepLift", network(rectify, rectify))


def test_deep_lift_passes_by_layers_with_hooks() -> None:
    model = network(nn.ReLU(), nn.ReLU())
    handle = model.behind_first.register_full_backward_hook(lambda *_: None)
    with pytest.raises(UserError, match="takes relu without one: take away the layer's backward hooks"):
        maps("DeepLift", model)
    expected = maps("GuidedBackprop", model)
    handle.remove()
    assert torch.equal(maps("GuidedBackprop", model), expected)


@pytest.mark.parametrize("name", ["GuidedBackprop", "Deconvolution"])
def test_a_relu_that_runs_twice_is_as_two(name: str) -> None:
    rectify = nn.ReLU()
    torch.testing.assert_close(maps(name, network(rectify, rectify)), maps(name, network(nn.ReLU(), nn.ReLU())))
    torch.testing.assert_close(maps(name, network(Subclass(), Subclass())), maps(name, network(nn.ReLU(), nn.ReLU())))


def test_a_relu_layer_with_two_relus_in_it_is_refused() -> None:
    with pytest.raises(UserError, match=r"treats layer 'behind_second' \(Twice\) as one ReLU, but it has several"):
        maps("GuidedBackprop", network(nn.ReLU(), Twice()))


@pytest.mark.parametrize("bound", [0.1, -1.0])
def test_a_lower_bound_other_than_zero_is_no_relu(bound: float) -> None:
    """As networks that standardize their images have, below their deviation."""
    maps("GuidedBackprop", network(nn.ReLU(), lambda x: x / x.std().clamp(min=bound)))


class Bypass(nn.Module):
    """A ReLU with a path around it, and what lies behind."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.rectify, self.second = nn.Conv2d(C, WIDTH, 1), nn.ReLU(), nn.Linear(WIDTH * H * W, K)

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.first(inputs)
        logits: Tensor = self.second((features + self.rectify(features)).flatten(1))
        return logits


def test_a_path_around_a_relu_keeps_its_gradient() -> None:
    """By hand: relu's own path is cut at what is negative, the path around it is not."""
    model: Bypass = seed_network(Bypass)
    first, second = array(model.first.weight)[:, :, 0, 0], array(model.second.weight)
    for image, label, attribution in zip(
        array(images()), LABELS.tolist(), array(maps("GuidedBackprop", model)), strict=True
    ):
        features = np.einsum("wc,chv->whv", first, image) + array(model.first.bias)[:, None, None]
        logits = second @ (features + np.maximum(features, 0)).ravel() + array(model.second.bias)
        shares = np.exp(logits) / np.exp(logits).sum()
        gradient = (second.T @ (shares - np.eye(K)[label])).reshape(features.shape)
        gradient = gradient + np.maximum(gradient, 0) * (features > 0)
        np.testing.assert_allclose(attribution, np.einsum("wc,whv->chv", first, gradient), rtol=1e-3, atol=1e-6)


class Dense(nn.Module):
    def __init__(self, scale: float = 1) -> None:
        super().__init__()
        self.first, self.rectify, self.second = nn.Linear(C * H * W, 20), nn.ReLU(), nn.Linear(20, K)
        with torch.no_grad():
            self.first.bias.uniform_(-0.5, 0.5)
            self.second.weight.mul_(scale)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.second(self.rectify(self.first(inputs.flatten(1))))
        return logits


@pytest.mark.parametrize("scale", [1, 30])
def test_deep_lift_of_two_layers_by_hand(scale: float) -> None:
    """Rescale: through a ReLU goes the slope of its change; through the loss the mean of the classes' shares."""
    model: Dense = seed_network(Dense, scale)
    first, second = array(model.first.weight), array(model.second.weight)
    for image, label, signed_map in zip(array(images()), LABELS.tolist(), array(maps("DeepLift", model)), strict=True):
        start = array(model.first.bias)
        end = first @ image.ravel() + start
        gain = (np.maximum(end, 0) - np.maximum(start, 0)) / (end - start)
        logits_start, logits_end = (
            second @ np.maximum(inputs, 0) + array(model.second.bias) for inputs in (start, end)
        )
        times = (np.arange(20_000) + 0.5) / 20_000
        way = np.exp((points := logits_start + times[:, None] * (logits_end - logits_start)) - points.max(1)[:, None])
        slope = (way / way.sum(1, keepdims=True)).mean(0) - np.eye(K)[label]
        by_hand = (first.T @ (gain * (second.T @ slope))) * image.ravel()
        np.testing.assert_allclose(signed_map.ravel(), by_hand, rtol=1e-2, atol=1e-4 * np.abs(by_hand).max())


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: network(nn.ReLU(), nn.ReLU()),
    "in place": lambda: network(nn.ReLU(inplace=True), nn.ReLU(inplace=True)),
    "logits x 300": lambda: network(nn.ReLU(), nn.ReLU(), 300),
    "leaky": lambda: network(nn.LeakyReLU(0.1), nn.ELU()),
    "pool": lambda: network(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), nn.ReLU()),
    "chain": lambda: network(nn.Sequential(nn.ReLU(), nn.Tanh()), nn.Sequential(nn.Softplus(), nn.Sigmoid()), 10),
    "around": lambda: seed_network(Bypass),
    "softmax": lambda: network(nn.ReLU(), nn.Softmax(1)),
    "softmax of rows": lambda: network(nn.Sequential(nn.ReLU(), nn.Softmax(2)), nn.ReLU()),
}


@pytest.mark.long
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("name", OF_CHANGES)
def test_deep_lift_sums_to_the_change_of_the_loss(name: str, kind: str) -> None:
    model = NETWORKS[kind]()
    change = losses(model, images())
    if name == "DeepLift":
        change = change - losses(model, torch.zeros(N, C, H, W))
    else:
        for place, stream in enumerate(make_streams(0, range(40, 40 + N))):
            stream.integers(2**31)
            noise = torch.from_numpy(stream.random((BASELINES, C, H, W), dtype=np.float32))
            change[place] -= losses(model, noise, LABELS[place].expand(BASELINES)).mean()
    assert change.abs().max() > 1e-3
    torch.testing.assert_close(maps(name, model).sum((1, 2, 3)), change, rtol=1e-3, atol=1e-5)


def test_pools_side_by_side_are_accepted_however_their_sizes_are_written() -> None:
    for pool in (nn.MaxPool2d(2, 2), nn.MaxPool2d((2, 2), 2), nn.MaxPool2d(2, (2, 3)), nn.MaxPool1d((2,), 2)):
        assert not layer_rules._overlaps(pool)
    for other in (nn.MaxPool2d((2, 3), 2), nn.MaxPool2d(3, (2, 3)), nn.MaxPool3d((1, 1, 2), 1)):
        assert layer_rules._overlaps(other)


def test_overlapping_pools_are_refused() -> None:
    for pool in (nn.MaxPool2d(3, 2, 1), nn.MaxPool2d((2, 3), (2, 2))):
        with pytest.raises(UserError, match=r"the windows of layer 'behind_first\.1' overlap: use captum:Integrated"):
            maps("DeepLift", network(nn.Sequential(nn.ReLU(), pool), nn.ReLU()))


@pytest.mark.long
@pytest.mark.parametrize("name", list_names())
def test_a_map_does_not_depend_on_its_batch_with_a_softmax_inside(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captum_methods, "CELLS", 2)  # methods take as many passes as there are squares
    model = network(nn.ReLU(), nn.Softmax(1), 100)
    whole = maps(name, model, layer="second")
    tolerance = 2e-6 + 1e-4 * float(whole.abs().max())  # differences of losses have the rounding of a loss
    assert whole.abs().max() > 10 * tolerance
    for place in range(N):
        alone = maps(name, model, slice(place, place + 1), layer="second")
        torch.testing.assert_close(alone, whole[place : place + 1], rtol=1e-3, atol=tolerance)


class LastChannels(nn.Module):
    """Local features (N, H, W, C) behind `body`."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.rectify = nn.Conv2d(C, 4, 3, 2, 1), nn.ReLU()
        self.body, self.answer = nn.Linear(4, 8), nn.Linear(8, K)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.answer(
            self.body(self.rectify(self.first(inputs)).permute(0, 2, 3, 1)).square().mean((1, 2))
        )
        return logits


def test_guided_grad_cam_is_refused_where_channels_come_last() -> None:
    model: LastChannels = seed_network(LastChannels)
    with pytest.raises(UserError, match=r"second axis for its channels, and .* gives \(1, 6, 9, 8\) of one image"):
        maps("GuidedGradCam", model, layer="body")
    assert maps("GuidedGradCam", model, layer="first").any()


def test_complete_methods_are_methods() -> None:
    assert set(COMPLETE) <= set(list_names())
