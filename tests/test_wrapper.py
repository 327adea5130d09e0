"""Anyone's network as a classifier of ours: its layers, its local features, and that nothing of it is changed."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from anyone import C, Convolutions, GatedNetwork, H, K, N, Transformer, W, assert_unchanged, hooks, seed_network
from captum.attr import LayerGradCam
from networks import Array, array, pixels, settle
from PIL import Image
from torch import Tensor, nn

from interpret_robust.attribution.gradients import compute_position_weights
from interpret_robust.core.errors import UserError
from interpret_robust.models.folding import fold
from interpret_robust.models.layers.choice import choose_layer
from interpret_robust.models.layers.listing import list_layers
from interpret_robust.models.layers.maps import as_map
from interpret_robust.models.normalization import parse_statistics
from interpret_robust.models.preprocess import Preprocess
from interpret_robust.models.wrapper import WrappedModel, as_weights

MEAN, DEVIATION = (0.1, 0.4, 0.7), (0.5, 0.2, 0.3)
PLAIN = Preprocess((0.0,), (1.0,))


def images(count: int = N, seed: int = 0) -> Tensor:
    return pixels(count, C, H, W, seed=seed)


def convolutions() -> Convolutions:
    network: Convolutions = seed_network(Convolutions)
    settle(network)
    return network


def wrap(layer: str | None = "body", attention: str | None = None) -> WrappedModel:
    return WrappedModel(convolutions(), Preprocess(MEAN, DEVIATION), layer, attention)


def normalize(pictures: Tensor) -> Tensor:
    return (pictures - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None]


# --- pixels


def test_pixels_are_normalized_channel_by_channel() -> None:
    actual = array(Preprocess(MEAN, DEVIATION)(images()))
    for channel in range(C):
        expected = (array(images())[:, channel] - MEAN[channel]) / DEVIATION[channel]
        np.testing.assert_allclose(actual[:, channel], expected, rtol=1e-5, atol=1e-6)


def test_one_mean_is_for_all_channels_and_none_changes_nothing() -> None:
    torch.testing.assert_close(Preprocess((0.5,), (0.25,))(images()), 4 * images() - 2)
    assert torch.equal(PLAIN(images()), images())


@pytest.mark.parametrize("size", [7, 40])
def test_images_are_resized_as_pillow_does_before_they_are_normalized(size: int) -> None:
    actual = array(Preprocess(MEAN, DEVIATION, size)(images(2)))
    assert actual.shape == (2, C, size, size)
    for image, output in zip(images(2), actual, strict=True):
        for channel in range(C):
            picture = Image.fromarray(image[channel].numpy()).resize((size, size), Image.Resampling.BILINEAR)
            expected = (np.asarray(picture, np.float64) - MEAN[channel]) / DEVIATION[channel]
            np.testing.assert_allclose(output[channel], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "channels", "expected"),
    [
        ("none", 3, ((0.0,), (1.0,))),
        ("imagenet", 3, ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))),
        ("cifar10", 3, ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))),
        ("0.5,0.25", 1, ((0.5,), (0.25,))),
        ("0.5,0.25", 3, ((0.5,), (0.25,))),
        ("0.1, 0.4,0.7,.5,2e-1,0.3", 3, (MEAN, DEVIATION)),
    ],
)
def test_statistics_are_named_or_are_numbers(text: str, channels: int, expected: tuple[Any, Any]) -> None:
    assert parse_statistics(text, channels) == expected


@pytest.mark.parametrize(
    ("text", "channels", "sentence"),
    [
        ("imagnet", 3, r"unknown normalization 'imagnet': did you mean 'imagenet'\? known are"),
        ("", 3, "unknown normalization ''"),
        ("0.5,x", 3, "mean,std such as 0.5,0.25"),
        ("0.5", 3, r"--normalize 0\.5: give a mean and a positive standard deviation, such as 0\.5,0\.25"),
        ("0.5,0", 3, "a positive standard deviation"),
        ("0.5,-1", 1, "a positive standard deviation"),
        ("imagenet", 1, "--normalize imagenet is for images of 3 channels, and these have 1"),
        ("imagenet", 1, r": give 2 numbers \(a mean and a standard deviation\)\.$"),
        ("0,0,1,1", 3, "--normalize 0,0,1,1 has 4 numbers, and these images have 3 channels: give 2 numbers"),
        ("0,0,1,1", 3, r"deviation\), or 6 \(3 means, then 3 standard deviations\)\.$"),
        ("0,0,0,1,1,1", 1, "--normalize 0,0,0,1,1,1 has 6 numbers, and these images have 1 channel: give 2 numbers"),
        ("nan,1", 1, "--normalize nan,1"),
        ("0.5,nan", 1, "--normalize 0.5,nan"),
        ("0.5,inf", 1, "--normalize 0.5,inf"),
    ],
)
def test_other_statistics_are_the_users_error(text: str, channels: int, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        parse_statistics(text, channels)


# --- local features in an output


def grid(channels: int = 5, height: int = 4, width: int = 6) -> Tensor:
    return pixels(2, channels, height, width, seed=3)


def tokens_of(local: Tensor) -> Tensor:
    """Row by row, position by position."""
    count, channels, height, width = local.shape
    tokens = torch.empty(count, height * width, channels)
    for row in range(height):
        for column in range(width):
            tokens[:, row * width + column] = local[:, :, row, column]
    return tokens


def test_channels_may_come_before_or_after_the_positions() -> None:
    for order in ((0, 1, 2, 3), (0, 2, 3, 1)):
        feature_map = as_map(grid().permute(order), H / W)
        assert feature_map is not None
        assert torch.equal(feature_map.local, grid())
        assert torch.equal(feature_map.put_back(2 * grid()), 2 * grid().permute(order))


@pytest.mark.parametrize(("height", "width"), [(4, 6), (6, 4), (3, 3), (2, 10)])
@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize("is_told", [True, False])
def test_tokens_lie_row_by_row_after_those_of_no_position(height: int, width: int, prefix: int, is_told: bool) -> None:
    local, prefix_tokens = grid(5, height, width), pixels(2, prefix, 5, seed=4)
    output = torch.cat([prefix_tokens, tokens_of(local)], 1)
    feature_map = as_map(output, height / width, prefix if is_told else None)
    assert feature_map is not None
    assert torch.equal(feature_map.local, local)
    assert torch.equal(feature_map.put_back(local), output)
    result = feature_map.put_back(local + 1)
    assert torch.equal(result[:, :prefix], prefix_tokens)
    assert torch.equal(result[:, prefix:], tokens_of(local + 1))


@pytest.mark.parametrize(
    "output",
    [
        (grid(),),
        {"local": grid()},
        None,
        grid().long(),
        grid()[:, 0, 0],
        pixels(2, 5, 9, 3),
        pixels(2, 5, 3, 9),
        grid()[None],
        pixels(2, 0, 5),
    ],
)
def test_what_has_no_grid_of_the_images_shape_has_no_local_features(output: Any) -> None:
    assert as_map(output, H / W) is None


def test_tokens_that_do_not_fill_the_told_grid_are_no_local_features() -> None:
    assert as_map(pixels(2, 25, 5), H / W, 1) is not None
    assert as_map(pixels(2, 25, 5), H / W, 2) is None
    assert as_map(pixels(2, 25, 5), H / W, 30) is None


@pytest.mark.parametrize(("height", "width"), [(3, 5), (4, 7), (6, 9), (7, 10)])
def test_a_stride_may_cut_off_a_position(height: int, width: int) -> None:
    feature_map = as_map(grid(33, height, width), H / W)
    assert feature_map is not None and feature_map.local.shape == (2, 33, height, width)


# --- a network that is wrapped


def test_logits_are_those_of_the_network_after_normalization() -> None:
    with torch.no_grad():
        expected = convolutions()(normalize(images()))
        torch.testing.assert_close(wrap()(images()), expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(wrap(None)(images()), expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(wrap().features(images()).pooled, expected, rtol=1e-5, atol=1e-6)


def test_pooled_features_go_through_the_classifier_as_logits() -> None:
    model = wrap()
    with torch.no_grad():
        assert torch.equal(model.classifier(model.features(images()).pooled), model(images()))


def test_a_wrapped_network_is_frozen_and_in_eval_mode_and_folding_leaves_it() -> None:
    network = convolutions().train()
    model = WrappedModel(network, PLAIN, "body")
    assert not any(module.training for module in model.modules())
    assert not any(weights.requires_grad for weights in model.parameters())
    assert fold(model) is model


def test_local_features_are_what_the_layer_gives_before_the_next_works_in_place() -> None:
    network = convolutions()
    with torch.no_grad():
        activations = torch.relu(network.norm(network.stem(normalize(images()))))
        expected = F.conv2d(activations, network.body.weight, network.body.bias, padding=1)
    features = wrap().features(images())
    assert features.local.shape == (N, 8, 6, 9) and features.attention is None
    assert (features.local < 0).any()
    torch.testing.assert_close(features.local, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", ["stem", "norm", "rectify", "body", "rectify_again"])
def test_the_rest_of_a_network_answers_to_its_own_local_features_as_the_network_does(layer: str) -> None:
    model = wrap(layer)
    with torch.no_grad():
        assert torch.equal(model.rest(images(), model.features(images()).local), model(images()))


def test_the_rest_of_a_network_answers_to_other_local_features_as_a_slow_loop_does() -> None:
    network, local = convolutions(), pixels(N, 8, 6, 9, seed=5) - 0.5
    weight, bias = array(network.answer.weight).reshape(K, 8, 6, 9), array(network.answer.bias)
    actual = array(wrap().rest(images(), local))
    for logits, local_map in zip(actual, array(local), strict=True):
        slow = [bias[k] + sum((weight[k, c] * np.maximum(local_map[c], 0)).sum() for c in range(8)) for k in range(K)]
        np.testing.assert_allclose(logits, slow, rtol=1e-4, atol=1e-5)


def test_the_gradient_of_logits_with_respect_to_local_features_is_the_closed_form() -> None:
    network, local = convolutions(), (pixels(N, 8, 6, 9, seed=5) - 0.5).requires_grad_()
    (gradient,) = torch.autograd.grad(wrap().rest(images(), local)[:, 3].sum(), local)
    expected = network.answer.weight[3].reshape(8, 6, 9) * (local > 0)
    assert gradient.any()
    torch.testing.assert_close(gradient, expected.detach())


def test_the_gradient_with_respect_to_pixels_goes_through_a_watched_layer() -> None:
    point = images().requires_grad_()
    (expected,) = torch.autograd.grad(convolutions()(normalize(point))[:, 3].sum(), point)
    (gradient,) = torch.autograd.grad(wrap().features(point).pooled[:, 3].sum(), point)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)
    assert gradient.any()


@pytest.mark.parametrize("prefix", [1, 2])
@pytest.mark.parametrize("says", [True, False])
def test_other_tokens_take_the_place_of_the_images_and_the_first_stay(prefix: int, says: bool) -> None:
    def transformer() -> Transformer:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            return Transformer(prefix, says=says).eval()

    network, model, local = transformer(), WrappedModel(transformer(), PLAIN, "low"), pixels(N, 10, 2, 3, seed=5)
    with torch.no_grad():
        first = network.first.expand(N, -1, -1)
        output = network.low(torch.cat([first, tokens_of(network.patches(images()))], 1))
        features = model.features(images())
        torch.testing.assert_close(tokens_of(features.local), output[:, prefix:])
        assert torch.equal(model.rest(images(), features.local), model(images()))
        expected = network.classify(torch.cat([output[:, :prefix], tokens_of(local)], 1))
        torch.testing.assert_close(model.rest(images(), local), expected, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(expected, model(images()), atol=1e-2)


class ChannelsLast(nn.Module):
    """Its layer gives (N, H, W, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.answer = nn.Conv2d(C, 8, 3, 2, 1), nn.LayerNorm(8), nn.Linear(8, K)

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.answer(self.norm(self.stem(pictures).permute(0, 2, 3, 1)).square().mean((1, 2)))
        return logits


def test_other_local_features_are_put_where_channels_come_last() -> None:
    model, local = WrappedModel(seed_network(ChannelsLast), PLAIN, "norm"), pixels(N, 8, 6, 9, seed=5)
    with torch.no_grad():
        assert model.features(images()).local.shape == (N, 8, 6, 9)
        assert torch.equal(model.rest(images(), model.features(images()).local), model(images()))
        expected = seed_network(ChannelsLast).answer(local.square().mean((2, 3)))
        torch.testing.assert_close(model.rest(images(), local), expected)


def test_what_is_found_of_an_image_does_not_depend_on_its_batch() -> None:
    model, local = wrap(), pixels(N, 8, 6, 9, seed=5) - 0.5
    whole, logits = model.features(images()), model.rest(images(), local)
    for place in range(N):
        part = slice(place, place + 1)
        alone = model.features(images()[part])
        torch.testing.assert_close(alone.local, whole.local[part], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(alone.pooled, whole.pooled[part], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model.rest(images()[part], local[part]), logits[part], rtol=1e-4, atol=1e-5)


def test_the_network_the_images_and_the_random_state_are_left_as_found() -> None:
    model, point, local = WrappedModel(seed_network(GatedNetwork), PLAIN, "body", "gate"), images(), pixels(N, 8, 6, 9)
    for grad in (True, False):
        with torch.set_grad_enabled(grad), assert_unchanged(model, point, local):
            model.features(point)
            model.rest(point, local)
            list_layers(model.backbone, PLAIN, point[:1])
            choose_layer(model.backbone, PLAIN, point[:1])


class BrokenHead(Convolutions):
    def classify(self, activations: Tensor) -> Tensor:
        raise RuntimeError("out of order")


def test_hooks_are_removed_after_an_exception() -> None:
    for network, error in ((seed_network(BrokenHead), RuntimeError), (convolutions(), UserError)):
        model = WrappedModel(network, PLAIN, "body" if error is RuntimeError else "answer", "rectify")
        with pytest.raises(error):
            model.features(images())
        with pytest.raises(error):
            model.rest(images(), pixels(N, 8, 6, 9))
        assert hooks(model) == 0
    bad_network = seed_network(BrokenHead)
    for look in (list_layers, choose_layer):
        with pytest.raises(RuntimeError, match="out of order"):
            look(bad_network, PLAIN, images(1))
        assert hooks(bad_network) == 0


def test_a_layer_without_positions_is_the_users_error() -> None:
    with pytest.raises(UserError, match=r"layer 'answer' gives a tensor of shape \(5, 7\), and local features are"):
        wrap("answer").features(images())


def test_a_layer_that_is_not_there_is_the_users_error_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown layer 'bodi': did you mean 'body'\? the top layers are stem, norm"):
        wrap("bodi")
    with pytest.raises(UserError, match="unknown layer 'zzz': the top layers are stem, norm, rectify"):
        wrap("body", "zzz")


def test_a_network_without_a_local_layer_answers_and_has_no_features() -> None:
    model = wrap(None)
    with pytest.raises(UserError, match=r"name one by --local-layer\."):
        model.features(images())
    with pytest.raises(UserError, match=r"name one by --local-layer\."):
        model.rest(images(), pixels(N, 8, 6, 9))


class Twice(nn.Module):
    """One convolution that runs twice, and one that never does."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(C, 8, 3, 2, 1)
        self.common, self.idle = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.answer = nn.Linear(8, K)

    def forward(self, pictures: Tensor) -> Tensor:
        local = self.stem(pictures)
        for _ in range(2):
            local = torch.relu(self.common(local))
        logits: Tensor = self.answer(local.mean((2, 3)))
        return logits


def test_a_layer_that_does_not_run_once_is_the_users_error() -> None:
    with pytest.raises(UserError, match="layer 'common' runs 2 times in a pass: name one that runs once"):
        WrappedModel(seed_network(Twice), PLAIN, "common").features(images())
    with pytest.raises(UserError, match="layer 'idle' runs 0 times in a pass"):
        WrappedModel(seed_network(Twice), PLAIN, "idle").features(images())


def test_grad_cam_of_a_wrapped_network_is_that_of_captum() -> None:
    model, network = wrap(), convolutions()
    with torch.no_grad():
        predicted = model(images()).argmax(1)
    for module in (network.rectify, network.rectify_again):
        module.inplace = False  # captum's hook would see what was made of the layer's output
    cam = LayerGradCam(network, network.body).attribute(normalize(images()), target=predicted, relu_attributions=True)
    expected = cam.detach().flatten(1)
    actual = compute_position_weights(model, images(), "grad-cam")
    assert len(set(predicted.tolist())) > 1
    assert 0.05 < (expected == 0).float().mean() < 0.95
    torch.testing.assert_close(actual, expected / expected.sum(1, keepdim=True), rtol=1e-3, atol=1e-5)


def test_grad_cam_of_tokens_is_a_slow_loop() -> None:
    network = seed_network(Transformer)
    actual = compute_position_weights(WrappedModel(copy.deepcopy(network), PLAIN, "low"), images(), "grad-cam")
    network.requires_grad_(False)
    for image, row in zip(images(), actual, strict=True):
        tokens = torch.cat([network.first, network.patches(image[None]).flatten(2).transpose(1, 2)], 1)
        tokens = network.low(tokens).requires_grad_()
        logits = network.classify(tokens)[0]
        (gradient,) = torch.autograd.grad(logits.max(), tokens)
        local, slope = array(tokens)[0, 1:], array(gradient)[0, 1:]
        slow = np.maximum((local * slope.mean(0)).sum(1), 0)
        np.testing.assert_allclose(array(row), slow / slow.sum() if slow.any() else np.nan, rtol=1e-3, atol=1e-5)


# --- attention


SHAPE = (N, 2, 3)


def weights(*shape: int) -> Tensor:
    return 0.1 + pixels(*shape, seed=6)


@pytest.mark.parametrize("shape", [(N, 6), (N, 1, 6), (N, 2, 3), (N, 1, 2, 3)])
def test_weights_of_positions_sum_to_one_in_any_shape(shape: tuple[int, ...]) -> None:
    actual = as_weights(weights(*shape), SHAPE, "gate")
    flat = array(weights(*shape)).reshape(N, 6)
    np.testing.assert_allclose(actual, flat / flat.sum(1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("prefix", [1, 3])
def test_weights_of_a_transformer_are_those_of_its_first_token_for_the_image(prefix: int) -> None:
    attention = weights(N, 4, 6 + prefix, 6 + prefix)
    actual = as_weights(attention, SHAPE, "softmax")
    for image in range(N):
        slow = np.array(
            [np.mean([attention[image, head, 0, prefix + place] for head in range(4)]) for place in range(6)]
        )
        np.testing.assert_allclose(actual[image], slow / slow.sum(), rtol=1e-5)


def test_an_image_of_no_weight_has_none() -> None:
    attention = weights(N, 6)
    attention[2] = 0
    assert as_weights(attention, SHAPE, "gate").isnan().all(1).tolist() == [False, False, True, False, False]


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (weights(N, 7), r"'gate' gives a tensor of shape \(5, 7\), and 5 images with 2x3 positions need weights of"),
        (weights(N, 3, 2), r"shape \(5, 6\) or \(5, 2, 3\)"),
        (weights(4, 6), r"a tensor of shape \(4, 6\)"),
        (weights(N, 4, 6, 6), r"a tensor of shape \(5, 4, 6, 6\)"),
        (weights(4, 4, 7, 7), r"a tensor of shape \(4, 4, 7, 7\)"),
        ((weights(N, 6),), "'gate' gives a tuple, and weights of positions are a tensor"),
        (None, "'gate' gives a NoneType"),
        (weights(N, 6) - 0.5, "'gate' gives weights that are negative or not finite"),
        (weights(N, 6).log().log(), "negative or not finite"),
        (weights(N, 6) * torch.inf, "negative or not finite"),
    ],
)
def test_other_weights_are_the_users_error(output: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        as_weights(output, SHAPE, "gate")


def test_the_attention_of_a_layer_is_a_models_own() -> None:
    network = seed_network(GatedNetwork)
    model = WrappedModel(seed_network(GatedNetwork), PLAIN, "body", "gate")
    with torch.no_grad():
        gate = array(torch.sigmoid(network.score(network.body(images())))).reshape(N, -1)
    expected = gate / gate.sum(1, keepdims=True)
    np.testing.assert_allclose(array(model.features(images()).attention), expected, rtol=1e-5)
    np.testing.assert_allclose(compute_position_weights(model, images(), "attention"), expected, rtol=1e-5)
    assert hooks(model) == 0


def test_the_attention_of_a_transformer_is_that_of_its_class_token() -> None:
    model, network = WrappedModel(seed_network(Transformer), PLAIN, "low", "low.softmax"), seed_network(Transformer)
    tokens = torch.cat([network.first.expand(N, -1, -1), tokens_of(network.patches(images()))], 1)
    query, key, _ = (array(part) for part in network.low.qkv(tokens).chunk(3, 2))
    actual: Array = array(model.features(images()).attention)
    for image in range(N):
        slow = np.zeros(6)
        for head in (slice(0, 5), slice(5, 10)):
            scores = np.exp(3 * key[image][:, head] @ query[image, 0, head])
            slow += (scores / scores.sum())[1:] / 2
        np.testing.assert_allclose(actual[image], slow / slow.sum(), rtol=1e-4, atol=1e-6)


def test_an_attention_layer_that_does_not_run_is_the_users_error() -> None:
    with pytest.raises(UserError, match="layer 'idle' runs 0 times"):
        WrappedModel(seed_network(Twice), PLAIN, "stem", "idle").features(images())


class InPlaceGate(GatedNetwork):
    def forward(self, pictures: Tensor) -> Tensor:
        local = self.body(pictures)
        gate = self.gate(self.score(local))
        gate[:, :, 0] = 0
        logits: Tensor = self.answer((gate * local).mean((2, 3)))
        return logits


def test_attention_is_what_its_layer_gives_before_it_is_changed_in_place() -> None:
    with torch.no_grad():
        attention, expected = (
            WrappedModel(seed_network(kind), PLAIN, "body", "gate").features(images()).attention
            for kind in (InPlaceGate, GatedNetwork)
        )
    assert attention is not None and expected is not None
    torch.testing.assert_close(attention, expected)


# --- which layer


def layer_taken(network: nn.Module, preprocess: Preprocess, image: Tensor) -> str | None:
    choice = choose_layer(network, preprocess, image)
    return None if choice is None else choice.name


def test_layers_are_told_in_their_order_with_their_shapes() -> None:
    candidates = list_layers(convolutions(), PLAIN, images(1))
    assert [(layer.name, layer.kind, layer.shape, layer.runs, layer.matters) for layer in candidates] == [
        ("stem", "Conv2d", (4, 6, 9), 1, True),
        ("norm", "BatchNorm2d", (4, 6, 9), 1, True),
        ("rectify", "ReLU", (4, 6, 9), 1, True),
        ("body", "Conv2d", (8, 6, 9), 1, True),
        ("rectify_again", "ReLU", (8, 6, 9), 1, True),
        ("answer", "Linear", None, 1, False),
    ]
    assert [layer.name for layer in candidates if layer.is_local] == [
        "stem",
        "norm",
        "rectify",
        "body",
        "rectify_again",
    ]


def test_a_layer_that_runs_twice_or_never_cannot_be_taken() -> None:
    by_name = {layer.name: layer for layer in list_layers(seed_network(Twice), PLAIN, images(1))}
    assert list(by_name) == ["stem", "common", "answer"]
    assert (by_name["common"].runs, by_name["common"].is_local) == (2, False)
    assert layer_taken(seed_network(Twice), PLAIN, images(1)) == "stem"


def test_by_default_the_last_layer_is_taken_that_all_passes_through() -> None:
    assert layer_taken(convolutions(), PLAIN, images(1)) == "rectify_again"


def test_local_features_are_taken_before_a_gate_and_not_the_gate() -> None:
    candidates = list_layers(seed_network(GatedNetwork), PLAIN, images(1))
    assert [layer.name for layer in candidates if layer.is_local] == ["body", "score", "gate"]
    assert layer_taken(seed_network(GatedNetwork), PLAIN, images(1)) == "body"


class Residual(nn.Module):
    """A residual block; with `bare` its sum is no layer."""

    def __init__(self, bare: bool) -> None:
        super().__init__()
        self.bare = bare
        self.stem = nn.Conv2d(C, 8, 3, 2, 1)
        self.branch = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
        self.sum, self.answer = nn.Identity(), nn.Linear(8, K)

    def forward(self, pictures: Tensor) -> Tensor:
        local = self.stem(pictures)
        total = local + self.branch(local)
        logits: Tensor = self.answer((total if self.bare else self.sum(total)).mean((2, 3)))
        return logits


@pytest.mark.parametrize(("bare", "layer"), [(False, "sum"), (True, "stem")])
def test_a_branch_beside_a_shortcut_is_not_taken(bare: bool, layer: str) -> None:
    assert layer_taken(seed_network(Residual, bare), PLAIN, images(1)) == layer


@pytest.mark.parametrize("zero", [False, True])
def test_the_last_tokens_are_taken_that_the_class_token_still_reads(zero: bool) -> None:
    """The tokens of the last block have no effect; a fresh transformer's answer is zero whatever they are."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = Transformer(zero=zero).eval()
    by_name = {layer.name: layer for layer in list_layers(network, PLAIN, images(1))}
    assert by_name["high"].shape == (10, 2, 3) and not by_name["high"].matters
    assert by_name["low"].matters
    assert layer_taken(network, PLAIN, images(1)) == "low"


def test_a_network_without_positions_has_no_default_layer() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, K)).eval()
    assert choose_layer(network, PLAIN, images(1)) is None
    assert [layer.is_local for layer in list_layers(network, PLAIN, images(1))] == [False, False]


class InPlace(nn.Module):
    """It standardizes its images itself, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.answer = nn.Conv2d(C, 8, 3, 2, 1), nn.Linear(8, K)

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.answer(self.body(pictures.sub_(0.5)).mean((2, 3)))
        return logits


def test_a_network_may_work_in_place_on_its_images() -> None:
    point, original = images(1), images(1)
    assert layer_taken(seed_network(InPlace), PLAIN, point) == "body"
    model = WrappedModel(seed_network(InPlace), PLAIN, "body")
    torch.testing.assert_close(model.rest(point, model.features(point).local), model(point))
    assert torch.equal(point, original)
