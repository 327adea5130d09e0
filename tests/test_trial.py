"""The trial of a model from elsewhere: what is refused, what is doubted, and where a doubt is said again."""

import copy
import math
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from anyone import C, Convolutions, H, K, Levels, Transformer, W, levels, noise, save_tiny, seed_network
from networks import array, pixels
from rank_jobs import stop_after
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

import interpret_robust as ir
from interpret_robust import analyses
from interpret_robust.analyses.engine.work import Work
from interpret_robust.api.model import Model
from interpret_robust.attribution.gradients import _noise_images, compute_map, compute_position_weights
from interpret_robust.attribution.token_maps import compute_token_weights
from interpret_robust.core.device import exact
from interpret_robust.core.errors import UserError
from interpret_robust.core.interruption import Stopped
from interpret_robust.core.random_numbers import make_streams, read_generator_states
from interpret_robust.core.significance import mcnemar
from interpret_robust.datasets import Dataset, Split
from interpret_robust.datasets import load as load_dataset
from interpret_robust.datasets.base import Labels, LazyDataset
from interpret_robust.datasets.batches import Batch
from interpret_robust.datasets.npz import write_npz
from interpret_robust.figures.drawing import compose
from interpret_robust.models.card import Card
from interpret_robust.models.checks import gradients as gradient_checks
from interpret_robust.models.checks.judgment import Judgment
from interpret_robust.models.checks.order import MOSTLY_SAME, _is_moved, draw_more
from interpret_robust.models.classifier import Classifier
from interpret_robust.models.copying import copy_of, unwrap
from interpret_robust.models.external import ExternalModel, bring, choose_trial_image
from interpret_robust.models.layers.choice import choose_layer, choose_reading
from interpret_robust.models.layers.dependence import _stretch, measure_dependence, sample_positions
from interpret_robust.models.layers.hooks import count_beyond
from interpret_robust.models.layers.self_attention import attend, read_tokens
from interpret_robust.models.logits import as_logits, find_logits_part
from interpret_robust.models.losses import cross_entropy, loss_gradient
from interpret_robust.models.preparation import prepare
from interpret_robust.models.preprocess import Preprocess
from interpret_robust.models.wrapper import WrappedModel
from interpret_robust.results import hdf5

PLAIN = Preprocess((0.0,), (1.0,))
DATA = noise()


class ChangedLogits(nn.Module):
    """A network of convolutions, and what `change` makes of its logits."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.network, self.change = seed_network(Convolutions), change

    def forward(self, images: Tensor) -> Any:
        return self.change(self.network(images))


def try_network(network: nn.Module, **card: Any) -> ExternalModel:
    return bring(network.eval(), Card("mine:net", label="mine", **card), DATA, "noise")


def doubts_about(network: nn.Module, **card: Any) -> list[str]:
    """What is doubted beside the accuracy, which noise leaves to chance."""
    return [doubt for doubt in try_network(network, **card).doubts if " is right on " not in doubt]


# --- answers


class TwoHeads(nn.Module):
    """Answers with what two networks do, or with what one does beside a head on its first layer."""

    def __init__(self, *, is_auxiliary: bool = False) -> None:
        super().__init__()
        self.first, self.second = seed_network(Convolutions), seed_network(Convolutions, seed=1)
        self.head = seed_network(nn.Linear, 4, K)
        self.is_auxiliary = is_auxiliary

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        second = self.second(images)
        if not self.is_auxiliary:
            return {"main": second, "other": self.first(images)}
        return {"main": second, "other": self.head(self.second.stem(images).mean((2, 3)))}


@pytest.mark.parametrize("is_auxiliary", [False, True])
def test_local_features_are_those_of_the_part_that_has_the_logits(*, is_auxiliary: bool) -> None:
    """Whichever part of the answer comes last."""
    model = try_network(TwoHeads(is_auxiliary=is_auxiliary), logits="main")
    assert [doubt for doubt in model.doubts if " is right on " not in doubt] == []
    assert model.wrapper.local_layer == "second.rectify_again"
    images = pixels(3, C, H, W)
    torch.testing.assert_close(model.wrapper(images), seed_network(Convolutions, seed=1)(images))


def test_a_named_layer_on_which_the_answer_does_not_rest_is_refused() -> None:
    with pytest.raises(UserError, match=r"the answer does not depend on what layer 'first\.body' gives"):
        try_network(TwoHeads(), logits="main", local_layer="first.body")
    model = try_network(TwoHeads(), logits="main", local_layer="second.rectify_again")
    assert [doubt for doubt in model.doubts if " is right on " not in doubt] == []


def test_a_network_that_takes_a_batch_in_parts_has_no_local_features() -> None:
    class Parts(Convolutions):
        def forward(self, images: Tensor) -> Tensor:
            return torch.cat([super(Parts, self).forward(part) for part in torch.split(images, 4)])

    model = try_network(seed_network(Parts))
    assert model.wrapper.local_layer is None
    assert model.wrapper(pixels(9, C, H, W)).shape == (9, K)


def test_sparse_weights_are_refused() -> None:
    network = ChangedLogits(lambda logits: logits)
    network.register_buffer("mask", torch.eye(K).to_sparse())
    with pytest.raises(UserError, match="mine:net keeps 'mask' as a sparse tensor, which has no checksum here"):
        try_network(network)


@pytest.mark.parametrize("count", [2, 3])
def test_a_cross_entropy_without_gradient_on_a_few_images_is_told(count: int) -> None:
    """Of 100 images, so many have logits 200 apart; none of the first eight does."""
    data = levels(10)
    images = data.test.images.copy()
    images[20 : 20 + count, 0, 0, 0] = 255

    class Sure(Levels):
        def forward(self, images: Tensor) -> Tensor:
            factor = 1 + 1e5 * (images[:, 0, 0, 0] == 1).float()
            return super().forward(images) * factor[:, None]

    split = Split(images, data.test.labels)
    doubts = bring(Sure(10), Card("m:n", label="mine"), replace(data, train=split, test=split), "levels").doubts
    sentence = f"mine has a cross-entropy without any gradient on {count} of 100 test images"
    assert [sentence in doubt for doubt in doubts if "cross-entropy without" in doubt] == [True] * (count == 3)


@pytest.mark.parametrize("is_for_tests", [False, True])
def test_labels_that_begin_at_1_are_named_as_such(is_for_tests: bool) -> None:
    data = levels(10)
    split = Split(data.test.images, data.test.labels + 1)
    names = tuple(f"class {label}" for label in range(11))
    with_training = Dataset("levels", split, split, names)
    alone = LazyDataset("levels", {"test": lambda: split}, names)
    with pytest.raises(UserError, match="answers with 10 classes, and labels of levels reach 10, though none is 0"):
        bring(Levels(10), Card("m:n", label="mine"), alone if is_for_tests else with_training, "levels")


def test_a_plain_network_raises_no_doubt() -> None:
    assert doubts_about(ChangedLogits(lambda logits: logits)) == []


@pytest.mark.parametrize(
    ("change", "kind", "layer"),
    [
        (lambda logits: logits.softmax(1), "probabilities", "softmax"),
        (lambda logits: torch.sigmoid(30 * logits), "numbers between 0 and 1", "last activation"),
        (lambda logits: 10 * logits.softmax(1), "probabilities", "softmax"),
        (lambda logits: (30 * logits).softmax(1) - 0.5, "probabilities", "softmax"),
    ],
)
def test_answers_that_are_no_logits_are_doubted(change: Any, kind: str, layer: str) -> None:
    (doubt,) = doubts_about(ChangedLogits(change))
    assert doubt.startswith(f"mine answers with {kind}, not with logits:")
    assert doubt.endswith(f"Return what goes into its {layer}.")


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (ChangedLogits(lambda logits: logits), None),
        (ChangedLogits(lambda logits: logits + 9), None),
        (ChangedLogits(lambda logits: logits.softmax(1)), "answers with probabilities, not with logits"),
        (ChangedLogits(Tensor.bfloat16), "answers with numbers of bfloat16, of 8 bits"),
        (ChangedLogits(lambda logits: logits / logits.std()), "answers an image differently alone and in a batch"),
    ],
)
def test_what_a_network_answers_to_a_single_picture_is_doubted_as_to_several(
    network: nn.Module, sentence: str | None
) -> None:
    doubts = bring(network.eval(), Card("mine:net", label="mine"), single_picture(), "noise").doubts
    assert [f"mine {sentence}" in doubt for doubt in doubts] == [True] * (sentence is not None)


def test_a_network_without_a_gradient_is_refused_by_a_single_picture() -> None:
    class Rounded(ChangedLogits):
        def forward(self, images: Tensor) -> Any:
            return super().forward(images.round())

    network = Rounded(lambda logits: logits).eval()
    with pytest.raises(UserError, match="the gradient of the answer is zero in every pixel of 2 images, though"):
        bring(network, Card("mine:net", label="mine"), single_picture(), "noise")


def single_picture() -> Dataset:
    return replace(DATA, train=DATA.train.first(1), test=DATA.test.first(1))


def test_log_probabilities_are_logits() -> None:
    assert doubts_about(ChangedLogits(lambda logits: logits.log_softmax(1))) == []


def test_large_logits_whose_loss_has_no_gradient_are_doubted() -> None:
    (doubt,) = doubts_about(ChangedLogits(lambda logits: 1e6 * logits))
    assert "cross-entropy without any gradient on 8 of 8 test images" in doubt


def test_a_network_that_draws_random_numbers_is_doubted() -> None:
    (doubt,) = doubts_about(ChangedLogits(lambda logits: F.dropout(logits, 0.5)))
    assert re.match(r"mine answers an image differently each time \(\d of 8 decisions changed\)", doubt)
    assert "--draws 20" in doubt


def test_a_network_whose_answers_depend_on_the_batch_is_doubted() -> None:
    (doubt,) = doubts_about(ChangedLogits(lambda logits: logits - logits.mean(0)))
    assert doubt.startswith("mine answers an image differently alone and in a batch of 64: ")


def test_a_constant_network_is_doubted() -> None:
    (doubt,) = doubts_about(ChangedLogits(lambda logits: 0 * logits + torch.arange(K)))
    assert doubt == "mine answers all of 8 test images alike, as an untrained network may."


def test_a_network_of_one_class_is_doubted() -> None:
    model = bring(seed_network(Convolutions, C, H, W, 1), Card("mine:net", label="mine"), noise(classes=1), "noise")
    sentence = (
        "mine has one class: every image is right, attacked or not, whatever it answers. Give images of two or more."
    )
    assert model.doubts == (sentence,)


class Integers(torch.autograd.Function):
    """A layer whose answer asks for gradients and passes none, as torch's quantized ones."""

    @staticmethod
    def forward(_: Any, numbers: Tensor) -> Tensor:
        return numbers.clone()

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> None:
        return None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda logits: logits.detach(), "no gradient of the answer reaches the pixels"),
        (Integers.apply, "no gradient of the answer reaches the pixels"),
        (lambda logits: (10 * logits).round(), "is zero in every pixel of 8 images, though their answers differ"),
        (lambda logits: logits * torch.nan, "the network answers none of 8 images with numbers"),
    ],
)
def test_a_network_whose_answers_would_mean_nothing_is_refused(change: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        try_network(ChangedLogits(change))


class Rounding(torch.autograd.Function):
    """Pixels in sixteen steps, and the gradient of no rounding."""

    @staticmethod
    def forward(_: Any, images: Tensor) -> Tensor:
        return (15 * images).round() / 15

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return gradient


class ChangedImages(nn.Module):
    def __init__(self, change: Any) -> None:
        super().__init__()
        self.network, self.change = seed_network(Convolutions), change

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(self.change(images))
        return logits


@pytest.mark.parametrize("change", [Rounding.apply, lambda images: 0.9 * images.detach() + 0.1 * images])
def test_gradients_that_are_not_those_of_the_answers_are_doubted(change: Any) -> None:
    (doubt,) = doubts_about(ChangedImages(change))
    assert doubt.startswith("mine has gradients that are not those of its answers: along a random direction the answer")


def reverse_gradients(most: int) -> Any:
    """What is as it was, with a gradient of the other sign in batches of more than so many."""

    class Reversal(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, images: Tensor) -> Tensor:
            return images.clone()

        @staticmethod
        def backward(context: Any, *gradients: Tensor) -> Tensor:
            (gradient,) = gradients
            return gradient if len(gradient) <= most else -gradient

    return Reversal.apply


def detach_later(images: Tensor) -> Tensor:
    return torch.cat([images[:8], images[8:].detach()])


def detach_first_half(images: Tensor) -> Tensor:
    half = len(images) // 2
    return torch.cat([images[:half].detach(), images[half:]])


@pytest.mark.parametrize(
    ("change", "count"),
    [(reverse_gradients(8), 64), (detach_later, 56), (detach_first_half, 32)],
    ids=["reversed", "detached later", "first half detached"],
)
def test_gradients_that_depend_on_the_batch_are_doubted(change: Any, count: int) -> None:
    beginning = f"mine has gradients that depend on the batch: on {count} of 64 copies of one image they are others"
    assert any(doubt.startswith(beginning) for doubt in doubts_about(ChangedImages(change)))


def keep_even_levels(images: Tensor) -> Tensor:
    """Images without a gradient where a pixel lies between the 256 levels of a file."""
    is_between = (255 * images - (255 * images).round()).abs().amax((1, 2, 3), keepdim=True) > 1e-2
    return torch.where(is_between, images.detach(), images)


@pytest.mark.parametrize(
    "change", [keep_even_levels, lambda images: images.detach() + 1e-30 * (images - images.detach())]
)
def test_gradients_that_vanish_beside_the_images_are_doubted(change: Any) -> None:
    """Their length is zero or nearly so, which is not rounding: answers change."""
    (doubt,) = doubts_about(ChangedImages(change))
    assert "gradients that are not those of its answers" in doubt and "by more than 100% of such a change" in doubt


def test_images_without_a_gradient_are_counted_where_answers_change_beside_them() -> None:
    images = torch.from_numpy(DATA.test.images[:8]).permute(0, 3, 1, 2) / 255
    highest = seed_network(Convolutions)(images).topk(2).values
    gaps = (highest[:, 0] - highest[:, 1]).detach()
    limit = float(gaps.sort().values[2:4].mean())

    def detach_close(logits: Tensor) -> Tensor:
        highest = logits.topk(2).values
        return torch.where((highest[:, 0] - highest[:, 1] < limit)[:, None], logits.detach(), logits)

    (doubt,) = doubts_about(ChangedLogits(detach_close))
    assert doubt.startswith("mine has no gradient on 3 of 8 test images, though its answers change beside them")
    flat = [doubt for doubt in doubts_about(ChangedLogits(lambda logits: logits.relu())) if "no gradient on" in doubt]
    assert flat == []


@pytest.mark.parametrize(
    ("left", "sentence"),
    [(0.0, "on 4 of 4 images after 5 steps of PGD"), (0.1, "to the median of the images after 5 steps of PGD")],
    ids=["none", "a tenth"],
)
def test_gradients_are_tried_where_an_attack_goes(left: float, sentence: str) -> None:
    """They are left out of images that lie more than 4/255 from those of the trial."""
    known_images = torch.from_numpy(DATA.test.images[:8]).permute(0, 3, 1, 2) / 255

    def detach_far(images: Tensor) -> Tensor:
        is_far = (images[:, None] - known_images).abs().amax((2, 3, 4)).amin(1) > 4 / 255
        return torch.where(is_far[:, None, None, None], images.detach() + left * (images - images.detach()), images)

    (doubt,) = doubts_about(ChangedImages(detach_far))
    assert sentence in doubt


def test_no_pixel_outside_of_0_to_1_is_asked_in_a_trial() -> None:
    lowest: list[Tensor] = []
    highest: list[Tensor] = []

    def look(images: Tensor) -> Tensor:
        lowest.append(images.detach().min())
        highest.append(images.detach().max())
        return images

    assert doubts_about(ChangedImages(look)) == []
    assert min(lowest) >= 0 and max(highest) <= 1 and max(highest) - min(lowest) > 0.99


class Gate(nn.Module):
    """Two linear answers, of which the second is multiplied by a gate that sees the image: (3 + g . x) (f . x)."""

    def __init__(self, strength: float, part: Any) -> None:
        super().__init__()
        self.answer, self.gate = nn.Linear(C * H * W, K), nn.Linear(C * H * W, 1)
        self.strength, self.part = strength, part

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        gate = self.strength * self.gate(flat)
        logits: Tensor = self.answer(flat) * (3 + self.part(gate))
        return logits


def test_a_gate_that_gradients_leave_out_is_doubted_and_by_how_much() -> None:
    """What is left out is (f . x) times the gate's weights: its length over that of the gradient is known."""
    assert doubts_about(seed_network(Gate, 10, Tensor.clone)) == []
    network = seed_network(Gate, 10, Tensor.detach)
    images = torch.from_numpy(DATA.test.images[:8]).permute(0, 3, 1, 2) / 255
    (doubt,) = doubts_about(network)
    factors = torch.randn(K, generator=torch.Generator().manual_seed(0))
    flat = images.flatten(1)
    value = network.answer(flat) @ factors
    left_out = 10 * value.abs() * network.gate.weight.norm()
    gradient = (3 + 10 * network.gate(flat)[:, 0]).abs() * (factors @ network.answer.weight).norm()
    expected = float((left_out / gradient).detach().median())
    match = re.search(r"otherwise than they say, by (\d+)% of such a change", doubt)
    assert match is not None
    # The median of eight absolute normal numbers lies within 0.3 and 1.3 of their deviation, 0.67 of it on average.
    assert 0.44 * expected < int(match[1]) / 100 < 1.93 * expected


class Loud(Gate):
    """A gate that adds so much to the answers of bright images that float32 rounds all else away."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + 1e9 * (images.mean((1, 2, 3)) > 0.9)[:, None]


def test_an_image_whose_rounding_hides_its_gradient_leaves_the_others_to_be_judged() -> None:
    dark = torch.from_numpy(DATA.test.images[:7]).permute(0, 3, 1, 2) / 255 * 0.8
    images = torch.cat([torch.ones_like(dark[:1]), dark])
    for part, is_right in ((Tensor.clone, True), (Tensor.detach, False)):
        model: Any = seed_network(Loud, 10, part)
        share = gradient_checks._missing_share(model, images, model(images))
        assert (share == 0) == is_right
        assert gradient_checks._missing_share(model, images[:1], model(images[:1])) == 0


class Twofold(Gate):
    """A gate whose answer goes through one layer twice, or through two that have one weight."""

    def __init__(self, strength: float, part: Any, layers: int) -> None:
        super().__init__(strength, part)
        self.first = self.second = nn.Linear(K, K)
        if layers == 2:
            self.second = nn.Linear(K, K)
            self.second.weight = self.first.weight

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.second(self.first(super().forward(images)))
        return logits


@pytest.mark.parametrize("layers", [1, 2])
def test_gradients_are_tried_of_a_network_whose_layers_share_weights(layers: int) -> None:
    assert doubts_about(seed_network(Twofold, 10, Tensor.clone, layers)) == []
    network = seed_network(Twofold, 10, Tensor.detach, layers)
    parameters = dict(network.named_parameters())
    values = {name: tensor.detach().clone() for name, tensor in parameters.items()}
    (doubt,) = doubts_about(network)
    assert "gradients that are not those of its answers" in doubt
    assert dict(network.named_parameters()).keys() == parameters.keys()
    assert network.second.weight is network.first.weight is parameters["first.weight"]
    assert all(torch.equal(tensor, values[name]) for name, tensor in network.named_parameters())


@pytest.mark.parametrize(
    "change",
    [
        lambda images: F.max_pool2d(images, 3, 1, 1),
        lambda images: (images - 0.5).relu() + (0.3 - images).abs(),
        lambda images: images.clamp(0, 1).sort(3).values,
        lambda images: ((images.double() + 0.1).sqrt() - 0.3).to(images.dtype),
    ],
    ids=["max pool", "rectifiers", "order", "double inside"],
)
def test_kinks_and_flat_images_are_no_false_gradients(change: Any) -> None:
    """Of images of one color each maximum is a tie, and each pixel of 0 or 1 lies on a kink."""
    flat = np.zeros((9, H, W, C), np.uint8)
    flat[:, 2:9, 3:12] = np.arange(9)[:, None, None, None] * 31
    labels = np.arange(9) % K
    data = Dataset("flat", *(Split(flat, labels),) * 2, DATA.class_names)
    doubts = bring(ChangedImages(change).eval(), Card("mine:net", label="mine"), data, "flat").doubts
    assert not any("gradients" in doubt for doubt in doubts)


def test_a_network_that_takes_float32_alone_is_asked_about_its_gradients_too() -> None:
    def gate(images: Tensor) -> Tensor:
        assert images.dtype == torch.float32
        return images * (6 * images).sin().mean((1, 2, 3), keepdim=True).detach() * 5 + 0.3 * images

    assert not any("gradients" in doubt for doubt in doubts_about(ChangedImages(lambda images: images.float() * 2)))
    (doubt,) = doubts_about(ChangedImages(lambda images: gate(images) * (images.mean() > -1)))
    assert "gradients that are not those of its answers" in doubt


def test_a_layer_that_some_images_do_not_pass_is_doubted() -> None:
    """Bright images leave early: their answer is of the first layer, and that of others of both."""

    class EarlyExit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(C, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
            self.early, self.late = nn.Linear(8, K), nn.Linear(8, K)

        def forward(self, images: Tensor) -> Tensor:
            local = self.first(images).relu()
            early, late = self.early(local.mean((2, 3))), self.late(self.second(local).relu().mean((2, 3)))
            return torch.where((images.mean((1, 2, 3)) > level)[:, None], early, late)

    split = DATA.test.draw(8)
    means = (split.images / 255).mean((1, 2, 3))
    bright = images_of_trial = choose_trial_image(DATA).mean().item()
    level = max(images_of_trial, float(np.sort(means)[-3:-1].mean()))
    count = int((means > level).sum())
    doubts = [doubt for doubt in doubts_about(seed_network(EarlyExit)) if "does not rest on layer" in doubt]
    assert bright <= level and count > 0 and len(doubts) == 1
    assert all(f"mine: on {count} of 8 test images the answer does not rest on layer 'second'" in d for d in doubts)


def test_an_image_without_a_number_for_an_answer_does_not_seem_to_pass_by_a_layer() -> None:
    """Its gradient is no number either, which is said of it, and is not equal to zero."""

    class Standardizing(Convolutions):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images / images.flatten(1).std(1)[:, None, None, None])

    images = pixels(4, C, H, W)
    images[1] = 0.5
    network = seed_network(Standardizing)
    assert network(images).isfinite().all(1).tolist() == [True, False, True, True]
    assert count_beyond(network, "body", Preprocess((0.0,), (1.0,)), images) == 0


@pytest.mark.parametrize(
    ("change", "is_in_order"),
    [
        (lambda images: images, True),
        (lambda images: images.flip(3), False),
        (lambda images: images.roll(8, 3), False),
        (lambda images: images.transpose(2, 3), False),
    ],
    ids=["plain", "mirrored", "rolled", "transposed"],
)
def test_positions_that_see_far_are_told_from_those_in_another_order(change: Any, is_in_order: bool) -> None:
    """A trained network, whose 8x8 positions see most of the image, behind a forward that moves pixels."""
    trained = ir.load(Path(__file__).parents[1] / "checkpoints" / "cifar10-small-natural-seed0.safetensors").network

    class Changed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = trained

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.body(change(images))
            return logits

    choice = choose_reading(Changed().eval(), PLAIN, pixels(1, 3, 32, 32), "body.backbone")
    assert choice.is_doubtful != is_in_order


def test_a_network_that_crops_its_images_is_doubted() -> None:
    class Crop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.answer = nn.Conv2d(C, 8, 3, padding=1), nn.Linear(8, K)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.answer(self.body(images[:, :, 1:-2, 3:-1]).relu().mean((2, 3)))
            return logits

    doubt, stretch, locality = sorted(doubts_about(seed_network(Crop)), key=lambda doubt: "depends" in doubt)
    assert doubt.startswith("mine does not see the outer pixels of an image (1 above, 2 below, 3 left, 1 right): ")
    # Columns lie a pixel apart, and 18 / 14 of one in a grid over the image: 13 / 2 (1 - 14 / 18) cells.
    assert stretch.startswith("mine: positions at the edge of layer 'body' lie 1.4 cells away")
    assert "of the other cells of the image matter less to a position of layer 'body' than its own" in locality


@pytest.mark.parametrize(
    ("padding", "move", "cells"),
    [
        (1, lambda images: images, None),
        (1, lambda images: F.pad(images, [3, 3, 2, 2]), "3.8"),  # 24 columns over 18 pixels: 23 / 2 (24 / 18 - 1)
        (0, lambda images: images, "0.8"),  # 15 / 2 (1 - 16 / 18)
        (1, lambda images: images.flip(3), "17.0"),  # 17 / 2 (1 + 1)
    ],
)
def test_positions_that_lie_elsewhere_than_a_grid_over_the_image_are_doubted(
    padding: int, move: Any, cells: str | None
) -> None:
    class Grid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.shrink = nn.Conv2d(C, 8, 3, padding=padding), nn.AvgPool2d(1)
            self.answer = nn.Linear(8, K)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.answer(self.body(move(images)).mean((2, 3)))
            return logits

    doubts = [doubt for doubt in doubts_about(seed_network(Grid)) if "at the edge of layer" in doubt]
    assert [re.findall(r"lie ([\d.]+) cells", doubt) for doubt in doubts] == ([[cells]] if cells else [])


@pytest.mark.parametrize("extent", [31, 32])
def test_how_far_apart_positions_are_is_unknown_where_all_see_the_same(extent: int) -> None:
    """As behind a resampling that leaves one row of pixels out: a slope of zero would be no stretch of theirs."""
    size = (torch.arange(32) < extent).float().expand(8, 32)
    assert math.isnan(_stretch(size, torch.arange(8), 8))
    windows = (torch.arange(32) - 4 * torch.arange(8)[:, None]).abs() < 3
    assert abs(_stretch(windows.float(), torch.arange(8), 8) - 1) < 1e-6


class Exits(nn.Module):
    """A network that answers early, at half depth and late; or only by `exit`."""

    def __init__(self, exit_number: int | None = None) -> None:
        super().__init__()
        channels = (C, 8, 6, 5)
        self.blocks = nn.ModuleList(nn.Conv2d(*pair, 3, 1, 1) for pair in pairwise(channels))
        self.answers = nn.ModuleList(nn.Linear(width, K) for width in channels[1:])
        self.exit_number = exit_number

    def forward(self, images: Tensor) -> Any:
        logits = []
        for block, answer in zip(self.blocks, self.answers, strict=True):
            images = block(images).relu()
            logits.append(answer(images.mean((2, 3))))
        return logits if self.exit_number is None else logits[self.exit_number]


@pytest.mark.parametrize("exit_number", [0, 1, 2])
def test_local_features_are_those_of_the_part_that_answers(exit_number: int) -> None:
    layers = [
        bring(seed_network(network), Card("mine:net", logits=part), DATA, "noise").wrapper.local_layer
        for network, part in ((Exits, str(exit_number)), (partial(Exits, exit_number), None))
    ]
    assert layers == [f"blocks.{exit_number}"] * 2


class FewPositions(nn.Module):
    """Few positions, each of which sees a window of `size` pixels, of images that `change` moves."""

    def __init__(self, stride: int, size: int, change: Any) -> None:
        super().__init__()
        self.body = nn.Conv2d(C, 8, size, stride, (size - stride) // 2)
        self.answer, self.change = nn.Linear(8, K), change

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.answer(self.body(self.change(images)).relu().mean((2, 3)))
        return logits


SMALL_GRIDS = [
    ((12, 18), 6, 6),
    ((12, 18), 6, 10),
    ((16, 16), 8, 8),
    ((16, 16), 8, 20),
    ((4, 24), 4, 4),
    ((6, 12), 6, 12),
]
"""Sizes of images, and strides and windows of convolutions that give 2x3, 2x2, 1x6 and 1x2 positions."""


@pytest.mark.long
@pytest.mark.parametrize(("shape", "stride", "size"), SMALL_GRIDS)
@pytest.mark.parametrize(
    ("change", "share"),
    [
        (lambda images, _: images, {}),
        (lambda images, _: 0.5 * images + 0.5 * images.mean((2, 3), keepdim=True), {}),
        (lambda images, _: images.flip(3), {2: "100%", 3: "67%", 6: "100%"}),
        (lambda images, stride: images.roll(stride, 3), {2: "100%", 3: "100%", 6: "100%"}),
    ],
    ids=["as it is", "with its mean", "mirrored", "rolled by a cell"],
)
def test_few_positions_that_lie_in_other_cells_are_doubted(
    shape: tuple[int, int], stride: int, size: int, change: Any, share: dict[int, str]
) -> None:
    """All columns of positions lie elsewhere, but for the middle one of three in a mirrored image."""
    data = noise("few", (C, *shape))
    network = seed_network(FewPositions, stride, size, lambda images: change(images, stride))
    doubts = bring(network, Card("mine:net", label="mine"), data, "few").doubts
    shares = [re.findall(r"(\d+%) of the positions of layer 'body' depend more on", doubt) for doubt in doubts]
    assert [match for match in shares if match] == ([[share[shape[1] // stride]]] if share else [])
    assert share or not any("position" in doubt for doubt in doubts)


@pytest.mark.parametrize(("pool", "layer"), [(6, "body"), (4, "body"), (2, "pool")])
def test_copies_of_positions_are_passed_by_and_doubted_where_they_are_named(pool: int, layer: str) -> None:
    """An adaptive pool makes 36 or 16 positions of four: of 16 that are measured all but four are copies."""

    class AdaptivePool(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.pool = nn.Conv2d(C, 8, 8, 8), nn.AdaptiveAvgPool2d(pool)
            self.answer = nn.Linear(8 * pool**2, K)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.answer(self.pool(self.body(images).relu()).flatten(1))
            return logits

    data = noise("few", (C, 16, 16))
    model = bring(seed_network(AdaptivePool), Card("mine:net", label="mine"), data, "few")
    assert model.wrapper.local_layer == layer and not any("position" in doubt for doubt in model.doubts)
    doubts = bring(seed_network(AdaptivePool), Card("mine:net", label="mine", local_layer="pool"), data, "few").doubts
    shares = [re.findall(r"(\d+%) of the positions of layer 'pool' are copies", doubt) for doubt in doubts]
    assert [match for match in shares if match] == ([["75%"]] if pool > 2 else [])


def test_few_positions_behind_many_layers_are_doubted_where_the_image_was_mirrored_before() -> None:
    """Each position sees all of the image, and the first layer tells where they lie: 1 / 2 (1 + 1) cells away."""

    class Deep(nn.Module):
        def __init__(self, change: Any) -> None:
            super().__init__()
            self.layers = nn.Sequential(*(nn.Conv2d(C if not n else 8, 8, 5, 1 + (n < 3), 2) for n in range(6)))
            self.answer, self.change = nn.Linear(8, K), change

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.answer(self.layers(self.change(images)).mean((2, 3)))
            return logits

    data = noise("few", (C, 16, 16))
    for change, cells in (
        (lambda images: images, None),
        (lambda images: images.flip(2), "1.0"),
        (lambda images: F.pad(images, [8] * 4), "1.5"),  # 4x4 positions over 32 pixels for 16: 3 / 2 (32 / 16 - 1)
    ):
        doubts = bring(seed_network(Deep, change), Card("mine:net", label="mine"), data, "few").doubts
        distances = [re.findall(r"lie ([\d.]+) cells away", doubt) for doubt in doubts if "at the edge" in doubt]
        assert distances == ([[cells]] if cells else []), change


def test_what_a_network_answers_beside_its_logits_does_not_count() -> None:
    """The mean of the pixels passes through no layer."""

    class DictNetwork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = seed_network(Convolutions)

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return {"logits": self.network(images), "brightness": images.mean()}

    assert doubts_about(DictNetwork(), logits="logits") == doubts_about(seed_network(Convolutions)) == []


def test_an_ensemble_says_that_no_layer_sees_all_of_its_answer() -> None:
    class Ensemble(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = seed_network(Convolutions), seed_network(Convolutions, seed=1)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.first(images) + self.second(images)
            return logits

    (doubt,) = doubts_about(Ensemble())
    assert doubt.startswith("mine: no layer with positions sees all that its answer rests on. Local features are those")


def test_random_numbers_that_hardly_ever_count_are_doubted() -> None:
    def rarely(logits: Tensor) -> Tensor:
        return logits.flip(1) if torch.rand(()) < 1e-6 else logits

    (doubt,) = doubts_about(ChangedLogits(rarely))
    assert doubt.startswith("mine draws random numbers, though 8 test images were answered the same each time")


def test_a_batch_of_one_class_is_tried_too() -> None:
    """An expert with room for half of a batch drops the other images that want it."""

    def route(logits: Tensor) -> Tensor:
        expert = logits.argmax(1)
        rank = ((expert[:, None] == expert).tril().sum(1) - 1).float()
        return torch.where((rank >= max(1, 0.9 * len(logits)))[:, None], torch.zeros(()), logits)

    (doubt,) = doubts_about(ChangedLogits(route))
    assert doubt.startswith("mine answers an image differently alone and in a batch of 64: ")


class Tiring(nn.Module):
    """Answers the other way round from a pass on."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.network, self.limit, self.passes = seed_network(Convolutions), limit, 0

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        logits: Tensor = self.network(images)
        return logits if self.passes < self.limit else logits.flip(1)


@pytest.mark.parametrize("limit", [1, 5, 1000], ids=["since loading", "inside", "later"])
def test_answers_that_change_while_they_are_asked_are_told_in_the_file(limit: int) -> None:
    network = Tiring(1000)
    model = Model(bring(network.eval(), Card("mine:net", label="mine"), DATA, "noise"))
    network.passes, network.limit = 0, limit  # the first of them takes the first logits
    answer = ir.analyze("robustness", model, limit=9, pgd=1, cw="none")
    doubts = [doubt for doubt in answer.result.doubts if "after this analysis" in doubt]
    assert len(doubts) == (limit <= 5)
    for doubt in doubts:
        assert doubt.startswith("noise-mine answered 8 images differently after this analysis than when it was loaded")
        assert doubt in " ".join(str(answer).split())


def test_what_a_stopped_run_found_doubtful_is_in_the_file_of_the_run_that_goes_on(tmp_path: Path) -> None:
    network = Tiring(1000)
    work = robustness_work(bring(network.eval(), Card("mine:net", label="mine"), DATA, "noise"), tmp_path)
    network.passes, network.limit = 0, 5
    with pytest.raises(Stopped):
        stop_after(work, 1).run()
    steady = robustness_work(bring(Tiring(1000).eval(), Card("mine:net", label="mine"), DATA, "noise"), tmp_path)
    doubts = [doubt for doubt in hdf5.read(steady.run()).doubts if "after this analysis" in doubt]
    assert [doubt.startswith("noise-mine answered 8 images differently after this analysis") for doubt in doubts] == [1]


class Adaptive(nn.Module):
    """A network that takes its running mean off its logits, and moves it by a share at each call, in eval mode too."""

    mean: Tensor

    def __init__(self, share: float) -> None:
        super().__init__()
        self.network, self.share = seed_network(Convolutions), share
        self.register_buffer("mean", torch.zeros(K))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        with torch.no_grad():
            self.mean.lerp_(logits.mean(0), self.share)
        return logits - self.mean


class Entropic(nn.Module):
    """A network that takes a step of `rate` towards less entropy before it answers, as Tent does."""

    def __init__(self, rate: float, *, thaws: bool = True) -> None:
        super().__init__()
        self.network, self.rate, self.thaws = seed_network(Convolutions), rate, thaws

    def forward(self, images: Tensor) -> Tensor:
        weights: Any = self.network.get_parameter("answer.weight")
        with torch.enable_grad():
            if self.thaws:
                weights.requires_grad_()
            logits = self.network(images.detach())
            entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()
            (gradient,) = torch.autograd.grad(entropy, weights)
        weights.data.sub_(self.rate * gradient)
        answer: Tensor = self.network(images)
        return answer


@pytest.mark.parametrize(
    ("network", "name"),
    [(Adaptive(0.1), "'mean'"), (Entropic(0.1), "'network.answer.weight'")],
    ids=["running mean", "test-time adaptation"],
)
def test_a_network_that_adapts_to_what_it_sees_is_said_to_change_its_own_numbers(network: nn.Module, name: str) -> None:
    doubts = [doubt for doubt in doubts_about(network) if "answers an image differently" in doubt]
    assert len(doubts) == 1 and f"since its forward changes its own numbers ({name})" in doubts[0]
    assert "--batch-size" not in doubts[0] and "generator" not in doubts[0]


def test_a_layer_in_training_mode_is_said_to_depend_on_the_batch_and_to_change_its_numbers() -> None:
    class Training(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.norm = seed_network(Convolutions), nn.BatchNorm1d(K)

        def forward(self, images: Tensor) -> Tensor:
            logits = self.network(images)
            self.norm.train(len(images) > 1)
            answer: Tensor = self.norm(logits)
            return answer

    (doubt,) = doubts_about(Training())
    assert doubt.startswith(
        "mine answers an image differently alone and in a batch of 64, and its forward changes its own numbers "
        "('norm.running_mean' and 2 more): numbers depend on --batch-size, or on what was asked before."
    )


def test_a_network_that_trains_its_frozen_weights_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"mine does not answer where its weights are frozen, .* test-time adaptation"):
        try_network(Entropic(0.1, thaws=False))


@pytest.mark.parametrize("is_noisy", [True, False])
def test_a_network_that_sets_the_seed_is_said_to_answer_by_one_draw(is_noisy: bool) -> None:
    def draw(logits: Tensor) -> Tensor:
        torch.manual_seed(3)
        return logits + (torch.randn(K) if is_noisy else 0)

    doubts = doubts_about(ChangedLogits(draw))
    assert [doubt.startswith("mine sets the seed of its random numbers in each call:") for doubt in doubts] == [True]
    assert "--draws does not change it" in doubts[0] and "test images were answered the same" not in doubts[0]


def test_random_numbers_are_no_change_since_loading() -> None:
    """Half of the passes leave a layer out, as stochastic depth does; two of them are often alike."""

    def drop(logits: Tensor) -> Tensor:
        return logits + (torch.rand(()) < 0.5) * logits.flip(1)

    model = Model(bring(ChangedLogits(drop).eval(), Card("mine:net", label="mine"), levels(K), "levels"))
    for pgd in range(1, 7):
        answer = ir.analyze("robustness", model, limit=9, pgd=pgd, cw="none")
        assert answer.result.doubts == model.subject.doubts
    assert not any("--normalize" in doubt for doubt in model.subject.doubts)


def test_a_network_that_was_changed_since_it_was_loaded_is_not_said_to_count_its_passes() -> None:
    model = Model(bring(seed_network(Convolutions), Card("mine:net", label="mine"), DATA, "noise"))
    with torch.no_grad():
        model.network.get_parameter("backbone.answer.weight").neg_()
    answer = ir.analyze("robustness", model, limit=9, pgd=1, cw="none")
    (doubt,) = [doubt for doubt in answer.result.doubts if "after this analysis" in doubt]
    assert "and before it as after it: it was changed since ('answer.weight'), or" in doubt
    assert doubt.endswith("ir.load(network, data) tries it anew.") and "remember" not in doubt
    network = seed_network(Convolutions)
    with torch.no_grad():
        network.answer.weight.neg_()
        images = torch.from_numpy(DATA.test.images).permute(0, 3, 1, 2) / 255
        expected = network(images).argmax(1)
    assert answer["per_image/prediction_natural"][:, 0].tolist() == expected.tolist()


def test_slow_changes_of_a_networks_own_numbers_are_named_after_an_analysis() -> None:
    model = Model(bring(Adaptive(1e-6), Card("mine:net", label="mine"), DATA, "noise"))
    assert not any("differently" in doubt for doubt in model.doubts)
    answer = ir.analyze("robustness", model, limit=9, pgd=200, cw="none")
    (doubt,) = [doubt for doubt in answer.result.doubts if "after this analysis" in doubt]
    assert "its forward changes its own numbers ('mean'), so that these numbers cannot be repeated" in doubt


def late(logits: Tensor) -> Tensor:
    """An expert with room for 64 images answers the others the other way round."""
    return torch.cat([logits[:64], logits[64:].flip(1)])


def center(logits: Tensor) -> Tensor:
    return logits - 3 * logits.mean(0) if len(logits) > 64 else logits


@pytest.mark.parametrize(
    ("change", "limit", "changes"),
    [(center, 70, 8), (late, 70, 4), (late, 64, 0), (center, 64, 0), (lambda logits: logits, 70, 0)],
)
def test_answers_in_batches_larger_than_those_tried_are_compared_with_few(
    change: Any, limit: int, changes: int
) -> None:
    data = noise(count=70)
    model = Model(bring(ChangedLogits(change).eval(), Card("mine:net", label="mine"), data, "noise"))
    assert not any("in a batch" in doubt for doubt in model.doubts)
    with torch.no_grad():
        images = torch.from_numpy(data.test.images).permute(0, 3, 1, 2) / 255
        reference = seed_network(Convolutions)(images).argmax(1)
        differs = ChangedLogits(change).eval()(images).argmax(1) != reference
    decisions = int(differs[[*range(4), *range(66, 70)]].sum())
    assert (decisions > 0) == (changes > 0) or limit == 64
    for name, options in (("robustness", {"pgd": 1, "cw": "none"}), ("attention-rank", {"steps": 1})):
        answer = ir.analyze(name, model, limit=limit, **options)
        doubts = [doubt for doubt in answer.result.doubts if "in a batch" in doubt]
        assert len(doubts) == (changes > 0)
        for doubt in doubts:
            assert doubt.startswith(
                f"noise-mine answers an image differently in a batch of 70 and in one of 8 ({decisions} of 8 decisions"
            )
            assert doubt in " ".join(str(answer).split())
    assert not model.network._forward_hooks


@pytest.mark.parametrize(("limit", "is_doubted"), [(70, True), (64, False)])
def test_gradients_in_batches_larger_than_those_tried_are_compared_with_few(limit: int, is_doubted: bool) -> None:
    network = ChangedImages(reverse_gradients(64)).eval()
    model = Model(bring(network, Card("mine:net", label="mine"), noise(count=70), "noise"))
    answer = ir.analyze("robustness", model, limit=limit, pgd=2, cw="none")
    doubts = [doubt for doubt in answer.result.doubts if "gradients that depend on the batch" in doubt]
    assert len(doubts) == is_doubted
    for doubt in doubts:
        assert "on 8 of 8 images they are others in a batch of 70 than in one of 8" in doubt


def test_images_that_have_no_gradient_in_an_analysis_alone_are_counted() -> None:
    """Those that are as bright as none of the trial's images, with PGD of two steps of 2/255."""
    data = noise(count=70)
    images = torch.from_numpy(data.test.images).permute(0, 3, 1, 2) / 255
    brightness = images.mean((1, 2, 3))
    limit = float(brightness[:8].max()) + 5 * 2 / 255

    def detach_bright(images: Tensor) -> Tensor:
        is_bright = images.mean((1, 2, 3), keepdim=True) > limit
        return torch.where(is_bright, images.detach(), images)

    data.test.images[60:63] = 255 - data.test.images[60:63] // 4
    model = Model(bring(ChangedImages(detach_bright).eval(), Card("mine:net", label="mine"), data, "noise"))
    assert not any("gradient" in doubt for doubt in model.doubts)
    answer = ir.analyze("robustness", model, pgd=2, cw="none")
    (doubt,) = [doubt for doubt in answer.result.doubts if "gradient" in doubt]
    assert doubt.startswith("noise-mine had no gradient on 3 of 70 images, the last ones of this analysis")


def test_an_evaluator_is_watched_in_large_batches_too() -> None:
    data = noise(count=70)
    networks = {"plain": seed_network(Convolutions, seed=1), "centered": ChangedLogits(center).eval()}
    models = [Model(bring(network, Card("mine:net", label=name), data, "noise")) for name, network in networks.items()]
    answer = ir.analyze("robustness", models[0], evaluators=models[1:], pgd="none", cw="none")
    (doubt,) = [doubt for doubt in answer.result.doubts if "in a batch" in doubt]
    assert doubt.startswith("noise-centered answers an image differently in a batch of 70 and in one of 8 ")


class GradientFollower(nn.Module):
    """A network whose logits are others while gradients, or those of its images, are asked for."""

    def __init__(self, change: Any, *, of_images: bool) -> None:
        super().__init__()
        self.network, self.change, self.of_images = seed_network(Convolutions), change, of_images

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        is_followed = images.requires_grad if self.of_images else torch.is_grad_enabled()
        answer: Tensor = self.change(logits) if is_followed else logits
        return answer


@pytest.mark.parametrize("of_images", [True, False])
@pytest.mark.parametrize(
    ("change", "changes"),
    [(lambda logits: -logits, 8), (lambda logits: 1.5 * logits, 0), (lambda logits: logits, None)],
)
def test_answers_that_are_others_while_gradients_are_asked_for_are_doubted(
    change: Any, changes: int | None, of_images: bool
) -> None:
    doubts = doubts_about(GradientFollower(change, of_images=of_images))
    assert len(doubts) == (changes is not None)
    for doubt in doubts:
        assert doubt.startswith(
            f"mine answers an image differently where its gradient is asked for ({changes} of 8 decisions changed): "
        )


class VmapNetwork(nn.Module):
    """A network that is asked image by image, and so in part, inside of torch.func.vmap."""

    def __init__(self, *, is_whole: bool) -> None:
        super().__init__()
        self.network, self.is_whole = seed_network(Convolutions), is_whole

    def forward(self, images: Tensor) -> Tensor:
        network, over_batch = self.network, torch.func.vmap
        logits: Tensor
        if self.is_whole:
            logits = over_batch(lambda image: network(image[None])[0])(images)
        else:
            local = network.rectify_again(network.body(network.rectify(network.norm(network.stem(images)))))
            logits = over_batch(network.answer)(local.flatten(1))
        return logits


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_network_inside_of_vmap_is_asked_and_has_the_local_features_outside(is_whole: bool) -> None:
    assert doubts_about(VmapNetwork(is_whole=is_whole)) == []
    model, plain = (
        Model(bring(network.eval(), Card("mine:net", label="mine"), DATA, "noise"))
        for network in (VmapNetwork(is_whole=is_whole), seed_network(Convolutions))
    )
    answer, expected = (ir.analyze("robustness", candidate, pgd=2, cw="none") for candidate in (model, plain))
    assert answer.arrays["margin"] == pytest.approx(expected.arrays["margin"], rel=1e-4, abs=1e-6)
    if is_whole:
        assert model.subject.local_shape() == (0, 0, 0)
        with pytest.raises(UserError, match=r"layer 'network.body' runs inside of torch.func.vmap"):
            try_network(VmapNetwork(is_whole=True), local_layer="network.body")
    else:
        assert model.subject.local_shape() == plain.subject.local_shape() == (8, H // 2, W // 2)


@pytest.mark.parametrize("name", ["", "network.answer", "spare"])
def test_tensors_without_numbers_are_refused(name: str) -> None:
    network = ChangedLogits(lambda logits: logits)
    network.spare = nn.Linear(2, 3)
    network.get_submodule(name).to_empty(device="meta")
    count, first = {"": (11, "network.stem.weight"), "network.answer": (2, "network.answer.weight")}.get(
        name, (2, "spare.weight")
    )
    with pytest.raises(UserError) as error:
        try_network(network)
    total = len([*network.parameters(), *network.buffers()])
    assert f"no numbers in {total if name == '' else count} of its {total} tensors" in str(error.value)
    assert f"torch's meta device (first '{first}')" in str(error.value)


class Keeping(nn.Module):
    """A network that keeps something between calls: `key` says of images what they share."""

    def __init__(self, key: Any, *, keeps_graph: bool = True) -> None:
        super().__init__()
        self.network, self.key, self.keeps_graph = seed_network(Convolutions), key, keeps_graph
        self.memory: dict[Any, Tensor] = {}

    def forward(self, images: Tensor) -> Tensor:
        key = self.key(images)
        if key not in self.memory:
            logits = self.network(images)
            self.memory[key] = logits if self.keeps_graph else logits.detach()
        return self.memory[key]


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (Keeping(lambda images: images.shape), "mine: other images are answered exactly as the first ones were"),
        (Keeping(lambda _: 0), "mine: the network answers 64 images with 1 rows of logits: does it return what it"),
        (
            Keeping(lambda images: images.detach().numpy().tobytes()),
            "mine: images that were asked before are answered without a gradient, and new ones with one",
        ),
        (
            Keeping(lambda images: images.detach().numpy().tobytes(), keeps_graph=False),
            "mine: no gradient of the answer reaches the pixels",
        ),
    ],
)
def test_answers_that_are_kept_between_calls_are_refused(network: nn.Module, sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        try_network(network)


def test_an_answer_with_other_rows_than_images_is_refused() -> None:
    network = ChangedLogits(lambda logits: logits if len(logits) < 9 else logits[:8])
    with pytest.raises(UserError, match="the network answers 64 images with 8 rows of logits"):
        try_network(network)


class SelfCalibration(nn.Module):
    """A network whose first call sets what the others use: the mean of its logits, or what no image changes."""

    offset: Any

    def __init__(self, *, is_table: bool, in_buffer: bool) -> None:
        super().__init__()
        self.network, self.is_table = seed_network(Convolutions), is_table
        if in_buffer:
            self.register_buffer("offset", None, persistent=False)
        else:
            self.offset = None

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        if self.offset is None:
            self.offset = torch.linspace(0, 1, K) if self.is_table else logits.detach().mean(0)
        answer: Tensor = logits - self.offset
        return answer


@pytest.mark.parametrize("in_buffer", [True, False])
def test_numbers_that_the_first_image_sets_are_doubted_and_tables_are_not(in_buffer: bool) -> None:
    assert doubts_about(SelfCalibration(is_table=True, in_buffer=in_buffer)) == []
    network = SelfCalibration(is_table=False, in_buffer=in_buffer)
    (doubt,) = doubts_about(network)
    assert doubt.startswith("mine answers otherwise where another image is asked first")
    assert "('offset' of the network)" in doubt
    image = choose_trial_image(DATA)
    with torch.no_grad():
        assert torch.equal(network.offset, network.network(image)[0])  # as the first call left it


def test_what_grows_with_each_call_is_doubted() -> None:
    class GrowingMemory(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.memory = seed_network(Convolutions), list[Tensor]()

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.network(images)
            self.memory.append(logits.detach())
            return logits - torch.cat(self.memory).mean(0)

    (doubt,) = doubts_about(GrowingMemory())
    assert doubt.startswith("mine answers an image differently each time (")
    assert "it remembers earlier images, or has a generator of its own" in doubt and "--draws" not in doubt


def robustness_work(subject: ExternalModel, folder: Path) -> Work:
    """PGD-2 on the test images, four at a time."""
    analysis = analyses.get("robustness")
    return Work(
        analysis,
        subject,
        DATA,
        folder,
        settings=analysis.settings(pgd="2", cw="none"),
        split="test",
        limit=None,
        batch_size=4,
        device=torch.device("cpu"),
    )


def stop_halfway(work: Work) -> None:
    """Run an analysis that fails after its first batch."""
    compute_rows = work.analysis.rows

    def fail_later(model: Classifier, batch: Batch, context: Any) -> Any:
        if batch.indices[0] > 0:
            raise RuntimeError("the machine goes down")
        return compute_rows(model, batch, context)

    work.analysis = replace(work.analysis, rows=fail_later)
    with pytest.raises(RuntimeError, match="goes down"):
        work.run()


def test_a_stopped_run_does_not_go_on_with_a_network_that_answers_otherwise(tmp_path: Path) -> None:
    """Their state dicts are the same, and a number beside it differs."""

    def work(factor: float, folder: Path = tmp_path) -> Work:
        network = ChangedLogits(lambda logits: factor * logits).eval()
        return robustness_work(bring(network, Card("mine:net", label="mine"), DATA, "noise"), folder)

    stop_halfway(work(1))
    for _ in range(2):
        with pytest.raises(UserError, match=r"\.partial is of a network noise-mine of the same weights that answered"):
            work(2).run()
    repeat, fresh = (hdf5.read(work(1, folder).run()) for folder in (tmp_path, tmp_path / "fresh"))
    for name in ("margin", "margin_natural", "prediction"):
        assert (repeat[f"per_image/{name}"] == fresh[f"per_image/{name}"]).all()
    logits = seed_network(Convolutions)(torch.from_numpy(DATA.test.images[:1]).permute(0, 3, 1, 2) / 255)[0]
    assert repeat.run["first_logits"]["noise-mine"] == pytest.approx(logits.tolist(), rel=1e-4)
    assert fresh.run["first_logits"] == repeat.run["first_logits"]


def test_a_file_of_other_gradients_is_not_taken_for_this_network_s(tmp_path: Path) -> None:
    """Their answers are the same, and the gradient of one is reversed."""

    def work(change: Any) -> Work:
        return robustness_work(
            bring(ChangedImages(change).eval(), Card("mine:net", label="mine"), DATA, "noise"), tmp_path
        )

    path = work(reverse_gradients(0)).run()
    with pytest.raises(UserError, match=r"is of a network noise-mine of the same weights that had other gradients"):
        work(Tensor.clone).run()
    assert work(reverse_gradients(0)).run() == path
    maps = hdf5.read(path).run["first_logits"]["noise-mine, gradient"]
    images = (torch.from_numpy(DATA.test.images[:1]).permute(0, 3, 1, 2) / 255).requires_grad_()
    factors = torch.randn(K, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad((seed_network(Convolutions)(images) @ factors).sum(), images)
    assert maps[0] == pytest.approx(float(gradient.norm()), rel=1e-4)
    generator = torch.Generator().manual_seed(0)
    products = torch.randn(4, C * H * W, generator=generator) @ -gradient.flatten()
    assert maps[1:] == pytest.approx(products.tolist(), rel=1e-3)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda logits: logits[:, [0, 2, 1, *range(3, 20)]], "if its classes are read in another order"),
        (lambda logits: logits.roll(1, 1), "100% if its classes are read in another order (0 as 1, 1 as 2, "),
        (lambda logits: logits.flip(1), "100% if its classes are read in another order"),
        (lambda logits: -logits, "100% if the smallest number counts: does it answer with distances?"),
        (lambda logits: logits, ""),
    ],
)
def test_answers_that_are_read_wrongly_are_doubted(change: Any, sentence: str) -> None:
    class Read(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.levels = Levels(20)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = change(self.levels(images))
            return logits

    doubts = bring(Read(), Card("mine:net", label="mine"), levels(), "levels").doubts
    assert [sentence in doubt for doubt in doubts if " is right on " in doubt] == ([True] if sentence else [])


def test_a_number_that_is_not_finite_is_doubted_though_answers_are() -> None:
    """As a variance that overflows in half precision: what batch norm divides by it is zero, and no answer is NaN."""
    layer = nn.BatchNorm2d(C)
    network, card = nn.Sequential(layer, seed_network(Convolutions)), Card("mine:net")
    network.register_buffer("mask", torch.full((2,), -torch.inf))
    assert not [doubt for doubt in prepare(network, card) if "infinite" in doubt]
    assert layer.running_var is not None
    layer.running_var[1] = torch.inf
    assert [doubt for doubt in prepare(network, card) if "'0.running_var' that is NaN or infinite" in doubt]


def test_an_evaluator_with_the_same_classes_in_another_order_is_refused() -> None:
    names = [f"kind {label}" for label in range(20)]
    plain, other = (replace(levels(), class_names=tuple(order)) for order in (names, [*names[1:], names[0]]))
    model, evaluator = (
        Model(bring(Levels(20), Card("mine:net", label=label), data, label))
        for label, data in (("first", plain), ("second", other))
    )
    sentence = (
        r"has its classes in another order than levels has here \('kind 0' is its label 19, and that of the images 0; "
        r"20 of 20 names differ so\): its answers would count for other classes"
    )
    with pytest.raises(UserError, match=sentence):
        ir.analyze("robustness", model, evaluators=[evaluator], limit=20, pgd=1, cw="none")
    with pytest.raises(UserError, match=sentence):
        ir.analyze("robustness", evaluator, plain, limit=20, pgd=1, cw="none")


def test_names_that_two_labels_have_or_that_differ_tell_no_order() -> None:
    names = [f"kind {label}" for label in range(20)]
    plain, other = (
        replace(levels(), class_names=tuple(order)) for order in (["crane", "crane", *names[2:]], ["x", *names[1:]])
    )
    model = Model(bring(Levels(20), Card("mine:net", label="first"), plain, "levels"))
    answer = ir.analyze("robustness", model, other, limit=20, pgd=1, cw="none")
    assert any(
        "was loaded with other names of classes than those of levels (label 0 is" in doubt
        for doubt in answer.result.doubts
    )


@pytest.mark.parametrize("container", ["list", "nested", "known", "buffers"])
def test_weights_that_torch_does_not_know_of_are_doubted(container: str) -> None:
    """No state dict holds what lies in a plain list: a file leaves it as it was built."""

    class Adapted(Convolutions):
        def __init__(self) -> None:
            super().__init__()
            adapter = nn.Linear(K, K)
            self.adapters: Any = {
                "list": [adapter],
                "nested": {"late": (adapter.weight, [adapter])},
                "known": nn.ModuleList([adapter]),
                "buffers": [torch.zeros(K)],
            }[container]

    doubts = [doubt for doubt in doubts_about(seed_network(Adapted)) if "of which torch does not know" in doubt]
    kind = {"list": "list", "nested": "dict"}.get(container)
    sentence = f"mine keeps weights in 'adapters' of the network, a Python {kind} of which torch does not know: they"
    assert [doubt.startswith(sentence) for doubt in doubts] == [True] * (kind is not None)


@pytest.mark.parametrize("count", [0, 15, 60])
def test_an_order_of_many_classes_is_doubted(count: int) -> None:
    """Of 60 classes, of which 100 images are tried, the first so many are read one too high, as 14 as 0."""

    class Read(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.levels = Levels(60)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.levels(images)
            return torch.cat([logits[:, :count].roll(1, 1), logits[:, count:]], 1)

    doubts = [
        doubt for doubt in bring(Read(), Card("m:n", label="mine"), levels(60, 180), "l").doubts if "right" in doubt
    ]
    assert len(doubts) == (count > 0)
    for doubt in doubts:
        assert (
            f"Of {count} classes of which an image was wrong, another image is called the same wrong class in" in doubt
        )
        assert f"{count} and its own in 0 (0 as 1, 1 as 2, " in doubt and f"{count - 1} as 0)" in doubt


def prototypes(random: np.random.Generator, classes: int) -> Iterator[tuple[Labels, Labels]]:
    """Yield what models with wrong prototypes, and preferences for some classes, call two images of each class."""
    for error, preference, spread in [(1, 0, 0.3), (2, 0, 0.3), (4, 0, 0.3), (4, 0, 1), (0, 5, 1), (2, 10, 0.3)] * 50:
        centers = random.normal(size=(classes, 20))
        weights = centers + error * random.normal(size=(classes, 20))
        bias = preference * random.normal(size=classes)
        first, second = (
            ((centers + spread * random.normal(size=centers.shape)) @ weights.T + bias).argmax(1) for _ in range(2)
        )
        yield first, second


def confusions(random: np.random.Generator, classes: int) -> Iterator[tuple[Labels, Labels]]:
    """Yield the same of models that take half of the classes for the other half, each for one, or for few others."""
    for is_few in (False, True) * 150:
        source, target = np.split(random.permutation(classes), 2)
        names = np.arange(classes)
        names[source] = target // 5 * 5 if is_few else target
        is_steady = random.random((2, classes)) < 0.8
        first, second = np.where(is_steady, names, random.integers(0, classes, (2, classes)))
        yield first, second


@pytest.mark.parametrize("models", [prototypes, confusions])
def test_the_order_of_a_bad_model_is_not_doubted(models: Any) -> None:
    """A false alarm in fewer than 1 of 100 models of 60 classes.

    Classes that are right under their own name do not count: many models that confuse classes, as those of the second
    kind, call two images of one class alike.
    """
    truth, alarms, trials = np.arange(60), 0, 0
    for first, second in models(np.random.default_rng(0), len(truth)):
        is_wrong = first != truth
        is_same = _is_moved(first[is_wrong], second[is_wrong], truth[~is_wrong])
        is_right = (second == truth)[is_wrong]
        trials += 1
        alarms += bool(is_same.any() and is_same.mean() > MOSTLY_SAME and mcnemar(is_same, is_right).p_value < 0.01)
    assert trials == 300 and alarms < 3


def test_colors_in_reverse_order_are_doubted() -> None:
    images = np.zeros((60, H, W, C), np.uint8)
    labels = np.arange(60) % 3
    images[np.arange(60), :, :, labels] = 200
    data = Dataset("colors", Split(images, labels), Split(images, labels), ("red", "green", "blue"))

    class Colors(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tap = nn.Identity()

        def forward(self, pixels: Tensor) -> Tensor:
            blue, green, red = self.tap(pixels).mean((2, 3)).unbind(1)
            return 2 * torch.stack([red, green, blue], 1)

    (doubt,) = [
        doubt for doubt in bring(Colors(), Card("mine:net", label="mine"), data, "c").doubts if "right" in doubt
    ]
    assert "right on 33% of 60 test images, and on 100% with the colors in reverse order" in doubt


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda images: 1 - images,
            "mine is right on 50% of 64 test images, and on 100% with bright and dark exchanged",
        ),
        (
            lambda images: images.transpose(2, 3),
            "mine is right on 50% of 64 test images, and on 100% with rows and columns exchanged",
        ),
        (
            lambda images: images.flip(2),
            "mine is right on 50% of 64 test images, and on 100% upside down",
        ),
        (Tensor.clone, None),
    ],
)
def test_images_that_are_inverted_or_turned_are_doubted(change: Any, sentence: str | None) -> None:
    """Two classes: how bright a patch at the top right of a black image is."""
    labels = np.arange(64) % 2
    images = np.zeros((64, 6, 6, C), np.uint8)
    images[:, :2, 4:] = (120 + 80 * labels)[:, None, None, None]
    data = Dataset("patches", Split(images, labels), Split(images, labels), ("gray", "white"))

    class Patch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tap = nn.Identity()

        def forward(self, pixels: Tensor) -> Tensor:
            gray = change(self.tap(pixels))[:, :, :2, 4:].mean((1, 2, 3))
            return -9 * torch.stack([(gray - 120 / 255).abs(), (gray - 200 / 255).abs()], 1)

    model = bring(Patch(), Card("mine:net", label="mine"), data, "p")
    doubts = [doubt for doubt in model.doubts if "right on" in doubt]
    assert [sentence in doubt for doubt in doubts] == [True] if sentence else doubts == []


@pytest.mark.parametrize("to", ["first", "last"])
def test_images_that_were_reshaped_where_axes_had_to_be_moved_are_doubted(to: str) -> None:
    """Two colors, of images whose channels came last and are read as first, or the other way round."""
    labels = np.arange(64) % 2
    pixels = np.zeros((64, 6, 6, 3), np.uint8)
    pixels[..., 0], pixels[..., 2] = (200 * (1 - labels))[:, None, None], (200 * labels)[:, None, None]
    last, first = pixels.reshape(64, 3, 6, 6).transpose(0, 2, 3, 1), pixels.transpose(0, 3, 1, 2).reshape(64, 6, 6, 3)
    split = Split(np.ascontiguousarray(first if to == "last" else last), labels)

    class Colors(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tap = nn.Identity()

        def forward(self, images: Tensor) -> Tensor:
            red, _, blue = self.tap(images).mean((2, 3)).unbind(1)
            green = 9 * (images[:, 1] > 0).float().mean((1, 2))  # none in images as they should be
            return torch.stack([red - green, blue], 1)

    model = bring(Colors(), Card("mine:net", label="mine"), Dataset("colors", split, split, ("red", "blue")), "c")
    (doubt,) = [doubt for doubt in model.doubts if "right on" in doubt]
    assert "on 100% with the numbers of an image read in another order of its axes" in doubt


@pytest.mark.parametrize("share", [0.45, 1.0])
def test_a_model_that_is_often_wrong_has_its_order_of_classes_tried(share: float) -> None:
    """Images of ten grays, of which a share has that of its class; the network has its classes in reverse."""
    data = levels(10)
    is_known = np.arange(100) // 10 < 10 * share
    labels = np.where(is_known, data.test.labels, np.random.default_rng(0).integers(0, 10, 100))
    split = Split(data.test.images, labels)

    class Reverse(Levels):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images).flip(1)

    card = Card("mine:net", label="mine")
    doubts = bring(Reverse(10), card, replace(data, train=split, test=split), "levels").doubts
    assert any("if its classes are read in another order (0 as 9, 1 as 8, 2 as 7" in doubt for doubt in doubts)


def test_names_stand_beside_labels_where_they_say_more() -> None:
    """Of folders named 1 to 10, the second one is 10."""
    names = sorted(str(number) for number in range(1, 11))
    data = replace(levels(10), class_names=tuple(names))

    class Numbers(Levels):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images)[:, [names.index(str(number)) for number in range(1, 11)]]

    doubts = bring(Numbers(10), Card("m:n", label="mine"), data, "levels").doubts
    assert any(
        "another order (1 ('10') as 9, 2 as 1, 3 as 2," in doubt and "sorted as text have '10' before '2'." in doubt
        for doubt in doubts
    ), doubts
    cats = replace(data, class_names=("cat", *names[1:]))
    doubts = bring(Numbers(10), Card("m:n", label="mine"), cats, "levels").doubts
    assert any("(1 ('10') as 9" in doubt and "sorted as text" not in doubt for doubt in doubts)


def test_each_class_of_a_model_that_is_often_wrong_is_named_by_more_images() -> None:
    """Classes are rolled by one, and 60 % of the images known: of a class about 6 among 100 images, 30 among 500."""
    data, random = levels(10, 500), np.random.default_rng(1)
    is_known = random.random(500) < 0.6
    labels = np.where(is_known, data.test.labels, random.integers(0, 10, 500))
    split = Split(data.test.images, labels)

    class Roll(Levels):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images).roll(1, 1)

    doubts = bring(Roll(10), Card("m:n", label="mine"), replace(data, train=split, test=split), "levels").doubts
    moves = ", ".join(f"{label} as {(label + 1) % 10}" for label in range(10))
    assert any(f"if its classes are read in another order ({moves})" in doubt for doubt in doubts), doubts


@pytest.mark.parametrize(
    ("order", "count", "is_told"), [([5, 3], 500, True), ([3, 5], 500, False), ([5, 3], 190, False)]
)
def test_two_exchanged_classes_are_told_by_more_images(order: list[int], count: int, is_told: bool) -> None:
    """Of the first hundred images, six hint at classes 3 and 5 being exchanged; other images have to confirm it."""
    random, data = np.random.default_rng(0), levels(10, count)
    shown = data.test.labels
    is_known = random.random(count) < 0.6
    is_pair = np.isin(shown, [3, 5])
    is_known[:100] = np.where(is_pair[:100], np.arange(100) < 30, is_known[:100])
    labels = np.where(is_known, shown, np.where(is_pair, shown + 1, random.integers(0, 10, count)))

    class Exchanged(Levels):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images)[:, [0, 1, 2, order[0], 4, order[1], *range(6, 10)]]

    exchanged = np.where(is_pair, 8 - shown, shown) if order == [5, 3] else shown
    shares = [(answer[100:] == labels[100:]).mean() for answer in (exchanged, shown)]
    split = Split(data.test.images, labels)
    card = Card("mine:net", label="mine")
    doubts = bring(Exchanged(10), card, replace(data, train=split, test=split), "levels").doubts
    sentence = (
        f"Of 400 others it is right on {shares[0]:.0%}, and on {shares[1]:.0%} if its classes are read in another "
        "order (3 as 5, 5 as 3): give them the order of the data's labels; for pictures, "
    )
    assert any(sentence in doubt for doubt in doubts) == is_told
    assert any("order" in doubt for doubt in doubts) == is_told, doubts


@pytest.mark.parametrize("count", [101, 300, 700])
def test_more_images_of_a_sorted_split_are_others_than_those_that_were_tried(count: int) -> None:
    labels = np.arange(count) * 10 // count
    images = np.arange(count)[:, None, None, None] // np.array([256, 1, 256]) % 256  # each has its number in its colors
    split = Split(images.astype(np.uint8), labels)
    data = Dataset("sorted", split, split, tuple("0123456789"))
    first = data.test.draw(100)
    judgment = Judgment(torch.zeros(100, 3, 1, 1), first.labels, first.labels > 4, 0.1)
    more_images, more_labels = draw_more(SimpleNamespace(preprocess=PLAIN), judgment, data)  # type: ignore[arg-type]
    numbers = (255 * more_images[:, :2, 0, 0]).round().int().numpy() @ [256, 1]
    first_numbers = first.images[:, 0, 0, :2] @ np.array([256, 1])
    assert len(numbers) == len(set(numbers)) == min(400, count - 100) and not set(numbers) & set(first_numbers)
    np.testing.assert_array_equal(labels[numbers], more_labels)
    assert count == 101 or len(set(more_labels)) == 10


@pytest.mark.parametrize(
    ("size", "resize", "sentence"),
    [
        (16, None, "is right on 50% of 64 test images, and with --resize 16 on 100%"),
        (4, None, "is right on 50% of 64 test images, and with --resize 4 on 100%"),
        (32, None, "is right on 50% of 64 test images, and with --resize 32 on 100% of 16 of them"),
        (8, 16, "is right on 50% of 64 test images, and with --resize 8 on 100%"),
        (8, None, None),
        (16, 16, None),
    ],
)
def test_images_of_another_size_than_those_of_the_training_are_doubted(
    size: int, resize: int | None, sentence: str | None
) -> None:
    """A network that tells bright images from dark ones where they have the size of its training."""
    labels = np.arange(64) % 2
    images = np.broadcast_to((200 * labels)[:, None, None, None], (64, 8, 8, C)).astype(np.uint8)
    data = Dataset("grays", Split(images, labels), Split(images, labels), ("dark", "bright"))

    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tap = nn.Identity()

        def forward(self, pixels: Tensor) -> Tensor:
            gray = 9 * self.tap(pixels).mean((1, 2, 3)) - 4
            return torch.stack([-gray, gray if pixels.shape[2] == size else -1 - gray.abs()], 1)

    doubts = bring(Picky(), Card("mine:net", label="mine", resize=resize), data, "s").doubts
    sizes = [doubt for doubt in doubts if "--resize" in doubt]
    assert sizes == ([f"mine {sentence}: give --resize as the network was trained."] if sentence else [])


@pytest.mark.parametrize(("offset", "is_read"), [(0, False), (5, False), (5, True)])
def test_batch_norms_whose_statistics_do_not_fit_what_enters_them_are_doubted(offset: int, is_read: bool) -> None:
    """Two grays on either side of the mean that a batch norm keeps, unless all of what enters it lies higher.

    A network that reads the statistics itself has no others.
    """
    labels = np.arange(64) % 2
    images = np.broadcast_to((120 + 80 * labels)[:, None, None, None], (64, 6, 6, C)).astype(np.uint8)
    data = Dataset("grays", Split(images, labels), Split(images, labels), ("dark", "bright"))

    class Grays(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(C)
            self.norm.running_mean.fill_(160 / 255)  # type: ignore[union-attr]
            self.norm.running_var.fill_((40 / 255) ** 2)  # type: ignore[union-attr]

        def forward(self, pixels: Tensor) -> Tensor:
            norm = self.norm
            assert not is_read or norm.running_mean is not None
            gray = norm(pixels + offset).mean((1, 2, 3))
            return torch.stack([-gray, gray], 1)

    model = bring(Grays(), Card("mine:net", label="mine"), data, "g")
    doubts = [doubt for doubt in model.doubts if "where its batch norms" in doubt]
    sentence = "mine is right on 50% of 64 test images, and on 100% where its batch norms use the mean and variance of"
    assert [sentence in doubt for doubt in doubts] == [True] * (offset > 0 and not is_read)
    (mean, variance, _) = model.wrapper.backbone.buffers()
    assert (mean * 255).tolist() == pytest.approx([160] * C), "statistics are as they were"
    assert (variance * 255**2).tolist() == pytest.approx([1600] * C)


def test_logits_inside_of_a_part_are_named_with_a_dot() -> None:
    answer = {"heads": {"cls": torch.ones(4, K)}, "loss": None}
    assert find_logits_part(answer, K) == "heads.cls"
    assert torch.equal(as_logits(answer, "heads.cls", K), torch.ones(4, K))
    assert find_logits_part({"embedding": torch.zeros(4, K), **answer}, K) is None  # two that could be


def test_a_loss_without_gradient_on_a_few_images_is_doubted() -> None:
    (doubt,) = doubts_about(ChangedLogits(lambda logits: torch.where(logits[:, :1] > 0, 1e6, 1) * logits))
    assert re.search(r"cross-entropy without any gradient on [1-7] of 8 test images", doubt)


@pytest.mark.parametrize("change", [torch.tanh, lambda images: images**3, lambda images: 100 * images])
def test_gradients_of_any_smooth_step_are_not_doubted(change: Any) -> None:
    assert doubts_about(ChangedImages(change)) == []


def test_a_trial_leaves_random_numbers_and_weights_as_they_were() -> None:
    network = seed_network(Convolutions)
    state, weights = torch.get_rng_state(), copy.deepcopy(network.state_dict())
    try_network(network)
    torch.testing.assert_close(network.state_dict(), weights, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "change",
    [
        lambda logits: logits - logits.amax(1, keepdim=True),
        lambda logits: logits + 1e3,
        lambda logits: torch.cat([logits[:, 1:], torch.full((len(logits), 1), -torch.inf)], 1),
        lambda logits: torch.cat([logits[:, 1:], torch.full((len(logits), 1), -1e9)], 1),
        lambda logits: 0.01 * logits + 0.5,
        lambda logits: 10 * torch.tanh(logits),
        lambda logits: logits - logits.mean(1, keepdim=True),
        lambda logits: 30 * (logits - logits.mean(1, keepdim=True)),
    ],
    ids=["less the largest", "shifted", "one left out", "one far below", "small", "bounded", "centered", "large"],
)
def test_logits_of_any_size_and_place_are_not_doubted(change: Any) -> None:
    assert doubts_about(ChangedLogits(change)) == []


@pytest.mark.parametrize(
    ("change", "count"),
    [(lambda logits: logits.clamp(max=0.0), 8), (lambda logits: logits + 1e8, 8), (lambda logits: logits + 1e6, 5)],
    ids=["clamped", "shifted far", "shifted"],
)
def test_logits_that_tie_are_doubted(change: Any, count: int) -> None:
    images = torch.from_numpy(DATA.test.images[:8]).permute(0, 3, 1, 2) / 255
    logits = change(seed_network(Convolutions)(images).detach()).sort().values
    assert int((logits[:, -1] == logits[:, -2]).sum()) == count
    (doubt,) = doubts_about(ChangedLogits(change))
    assert doubt.startswith(
        f"mine gives its highest logit to several classes on {count} of 8 test images, and the first"
    )


@pytest.mark.parametrize("change", [lambda z: F.dropout(z, 0.5), lambda z: z - z.mean(0)], ids=["random", "batch"])
def test_a_class_far_below_the_others_hides_nothing(change: Any) -> None:
    doubts = doubts_about(ChangedLogits(lambda z: torch.cat([change(z[:, 1:]), torch.full((len(z), 1), -1e9)], 1)))
    assert len(doubts) == 1 and "answers an image differently" in doubts[0]


def test_what_depends_on_a_batch_larger_than_a_few_images_is_doubted() -> None:
    (doubt,) = doubts_about(ChangedLogits(lambda logits: torch.cat([logits[:16], 0 * logits[16:]])))
    assert doubt.startswith("mine answers an image differently alone and in a batch of 64")


def test_randomness_that_comes_seldom_is_doubted() -> None:
    """A row in fifty is dropped: of 128 answers in a batch and again, none is only in a case of thirteen."""

    def drop(logits: Tensor) -> Tensor:
        return logits * (torch.rand(len(logits), 1) > 0.02)

    assert any("answers an image differently each time" in doubt for doubt in doubts_about(ChangedLogits(drop)))


def test_a_random_network_is_not_blamed_for_its_normalization() -> None:
    data = levels()

    class Flickering(Levels):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * torch.randn(len(images), 1).sign()

    doubts = bring(Flickering(20), Card("mine:net", label="mine", normalize="none"), data, "levels").doubts
    assert not any("--normalize" in doubt for doubt in doubts)


class Rivals(nn.Module):
    """Five classes, of which one is near and grows with the red of an image, and three are far and shrink with it.

    The class is told by the blue, of whose small changes nothing depends.
    """

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor, self.identity = factor, nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        red, blue = self.identity(images)[:, 0].mean((1, 2)) - 0.5, images[:, 2].mean((1, 2)).detach()
        logits = torch.stack([0 * red, red - 0.3, *(-red - 0.5,) * 3], dim=1)
        order = (torch.arange(5) - (5 * blue).long()[:, None]) % 5
        return self.factor * logits.gather(1, order)


def rivals() -> Dataset:
    """Return images of five classes, as `Rivals` tells apart, with a red near 0.5."""
    labels = np.arange(100) % 5
    images = np.full((100, 12, 18, 3), 128, np.uint8)
    images[..., 0] += np.arange(100, dtype=np.uint8)[:, None, None] % 9
    images[..., 2] = np.round(255 * (labels + 0.5) / 5)[:, None, None]
    split = Split(images, labels)
    return Dataset("rivals", split, split, tuple("abcde"))


@pytest.mark.parametrize(("factor", "is_doubted"), [(1e-3, True), (1, True), (30, False)])
def test_logits_by_which_the_cross_entropy_leads_elsewhere_than_the_margin_are_doubted(
    factor: float, is_doubted: bool
) -> None:
    """With small logits all wrong classes count alike: three far ones shrink where the near one grows.

    The cross-entropy makes the image less red then, and the margin as much redder: minus all of the way.
    """
    doubts = bring(Rivals(factor), Card("mine:net", label="mine"), rivals(), "rivals").doubts
    sentence = (
        "mine is attacked less well by PGD on the cross-entropy than by PGD on the margin (CW): 5 steps of the first "
        "change the margin of 64 images by -100% of what the second does (the median image; -100% at the lower "
        "quartile)."
    )
    assert [doubt.startswith(sentence) for doubt in doubts if "distinct" not in doubt] == [True] * is_doubted


def test_a_few_images_that_are_attacked_less_well_by_the_cross_entropy_are_no_doubt() -> None:
    """The first 12 images are misled as above, and of the 52 behind them none: they are a little brighter."""

    class Fickle(Rivals):
        def forward(self, images: Tensor) -> Tensor:
            is_first = images[:, 1].mean((1, 2)) < 0.51
            return super().forward(images) * torch.where(is_first, 1.0, 30.0)[:, None]

    data = rivals()
    data.test.images[12:, ..., 1] += 8
    assert not any("than by PGD" in doubt for doubt in bring(Fickle(1), Card("mine:net"), data, "r").doubts)


def test_logits_that_are_infinite_are_left_out_where_losses_are_compared() -> None:
    """Of all images but those of the first class, a far class never counts; these others are attacked as ever."""

    class Cut(Rivals):
        def forward(self, images: Tensor) -> Tensor:
            logits = super().forward(images)
            return torch.where(logits < -12, -torch.inf, logits)

    assert not any(
        "than by PGD on the margin" in doubt for doubt in bring(Cut(30), Card("mine:net"), rivals(), "r").doubts
    )


def test_small_logits_whose_classes_lie_on_a_line_are_attacked_as_well_by_the_cross_entropy() -> None:
    """One number decides, and both losses lead it away from its class."""

    class Small(Levels):
        def forward(self, images: Tensor) -> Tensor:
            return 1e-3 * super().forward(images)

    assert bring(Small(20), Card("mine:net", label="mine"), levels(), "levels").doubts == ()


def test_few_images_tell_nothing_of_guessing() -> None:
    split = DATA.test.first(1)
    data = Dataset("one", DATA.train, Split(split.images, split.labels), DATA.class_names)
    assert bring(seed_network(Convolutions), Card("mine:net"), data, "one").doubts == ()


def test_a_network_that_gives_the_most_frequent_class_guesses() -> None:
    labels = np.where(np.arange(90) % 15 == 0, 1, 0)
    images = np.random.default_rng(0).integers(0, 256, (90, H, W, C), dtype=np.uint8)
    data = Dataset("uneven", *(Split(images, labels),) * 2, DATA.class_names)
    network = ChangedLogits(lambda logits: logits + 5 * F.one_hot(torch.zeros(len(logits), dtype=torch.long), K))
    (doubt,) = bring(network, Card("mine:net", label="mine"), data, "uneven").doubts
    assert doubt.startswith(
        "mine is right on 93% of 90 test images, hardly more than always naming the most frequent class (93%)"
    )


# --- networks that are bound to something


class Forgetful(Convolutions):
    """Its train gives nothing back, as many that keep batch norm fixed."""

    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        super().train(mode)


def test_networks_as_people_have_them_are_taken() -> None:
    images = pixels(2, C, H, W)
    expected = seed_network(Convolutions)(images)
    network = Forgetful()
    network.load_state_dict(seed_network(Convolutions).state_dict())
    torch.testing.assert_close(tried_as_it_is(network).wrapper(images), expected)

    class View(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.answer = nn.Linear(C * H * W, K)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.answer(images.view(len(images), -1))
            return logits

    assert tried_as_it_is(View()).wrapper(images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)).shape == (2, K)


class Averaged(Convolutions):
    """It swaps in an average of its weights when it is to be evaluated, by the method that people call."""

    def eval(self) -> Any:
        with torch.no_grad():
            self.answer.weight.copy_(2 * torch.eye(K, len(self.answer.weight[0])))
        return super().eval()


def test_a_network_is_put_into_eval_mode_by_the_method_that_people_call() -> None:
    images, network = pixels(2, C, H, W), Averaged()
    wrapper = tried_as_it_is(copy.deepcopy(network)).wrapper
    torch.testing.assert_close(wrapper(images), network.eval()(images))


def test_layers_that_were_in_training_mode_on_purpose_are_said() -> None:
    network = nn.Sequential(seed_network(Convolutions), nn.Dropout()).eval()
    assert doubts_about(copy.deepcopy(network)) == []
    network[1].train()
    (doubt,) = [
        doubt for doubt in bring(network, Card("mine:net", label="mine"), DATA, "noise").doubts if "mode" in doubt
    ]
    assert doubt.startswith("mine was given in eval mode but for '1', in training mode")


def test_layers_without_a_mode_may_be_in_training_mode() -> None:
    """As a head that was replaced behind `eval`."""
    network = seed_network(Convolutions)
    network.answer = copy.deepcopy(network.answer).train()
    network.rectify, network.extra = nn.ReLU().train(), nn.Sequential(nn.Identity()).train()
    doubts = bring(network, Card("mine:net", label="mine"), DATA, "noise").doubts
    assert not any("mode" in doubt for doubt in doubts)
    network.norm.train()
    doubts = bring(network, Card("mine:net", label="mine"), DATA, "noise").doubts
    assert any("eval mode but for 'norm', in training mode" in doubt for doubt in doubts)


class Adapted(Convolutions):
    """Its adapter counts while its weight is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.adapter = nn.Linear(C * H * W, K)

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits + self.adapter(images.flatten(1)) if self.adapter.weight.requires_grad else logits


def test_an_answer_that_depends_on_frozen_weights_is_doubted() -> None:
    (doubt,) = doubts_about(seed_network(Adapted))
    assert doubt.startswith("mine answers otherwise where its weights are frozen")
    assert doubts_about(seed_network(Adapted).requires_grad_(False)) == []  # the user's choice


def tried_as_it_is(network: Any) -> ExternalModel:
    return bring(network, Card("mine:net", label="mine"), DATA, "noise")


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (nn.Sequential(nn.Flatten(), nn.LazyLinear(K)), "has layers whose sizes are open until they see an image"),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, K, device="meta")),
            "has no numbers in 2 of its 2 tensors",
        ),
        (ChangedLogits(lambda logits: logits.reshape(1, K)), "answers one image, and not several at once"),
        (ChangedLogits(lambda logits: logits.reshape(16, K)), "takes 16 images at once, and not one"),
    ],
)
def test_networks_that_cannot_be_asked_are_one_sentence(network: nn.Module, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        tried_as_it_is(network)


@pytest.mark.filterwarnings("ignore:.*jit.*")
@pytest.mark.parametrize("is_inside", [False, True])
@pytest.mark.parametrize(
    ("form", "name"),
    [
        (torch.jit.script, "TorchScript"),
        (lambda network: torch.jit.trace(network, pixels(1, C, H, W)), "TorchScript"),  # type: ignore[no-untyped-call]
        (lambda network: torch.export.export(network, (pixels(1, C, H, W),)).module(), "a program of torch.export"),
    ],
    ids=["script", "trace", "export"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_programs_of_another_form_are_one_sentence_in_python_and_in_the_command(
    form: Any, name: str, *, is_inside: bool
) -> None:
    program = form(nn.Sequential(nn.Conv2d(C, 4, 3), nn.Flatten(), nn.Linear(4 * 10 * 16, K)).eval())
    network = nn.Sequential(nn.Identity(), program) if is_inside else program
    place = ", in its layer '1'," if is_inside else ""
    sentence = rf"is{place} {name}, whose layers cannot be watched: give the network as Python has it\."
    with pytest.raises(UserError, match=f"mine:net {sentence}"):
        bring(network, Card("mine:net"), DATA, "noise")
    with pytest.raises(UserError, match=f"a {type(network).__name__} {sentence}"):
        copy_of(network)


def test_functions_that_hold_a_part_of_the_network_are_not_copied() -> None:
    network = seed_network(Convolutions)
    forward = network.forward
    network.forward = lambda images: forward(images) + 1
    with pytest.raises(UserError, match="the forward of the network was replaced by a function"):
        copy_of(network)
    network = seed_network(Convolutions)
    network.body.register_forward_hook(lambda _, __, output: setattr(network, "kept", output))
    with pytest.raises(UserError, match="a hook of layer 'body' is a function that holds a part of the network"):
        copy_of(network)
    network = seed_network(Convolutions)
    network.body.ask = lambda images: network(images) + 1
    with pytest.raises(UserError, match="'ask' of layer 'body' is a function that holds a part of the network"):
        copy_of(network)
    network = seed_network(Convolutions)
    network.steps = {"first": [lambda images: network.body(images) + 1]}
    with pytest.raises(UserError, match="'steps' of the network is a function that holds a part of the network"):
        copy_of(network)


def test_a_hook_that_fills_what_the_network_reads_is_not_copied() -> None:
    """A copy of the dict would stay as it is, while the hook fills the other."""
    network = seed_network(Convolutions)
    store: dict[str, Tensor] = {}
    network.store = store
    network.body.register_forward_hook(lambda _, __, output: store.update(output=output))
    with pytest.raises(UserError, match="a hook of layer 'body' is a function that holds a part of the network"):
        copy_of(network)
    del network.store
    copy_of(network)


def test_a_network_is_loaded_in_inference_mode_too() -> None:
    with torch.inference_mode():
        model = ir.load(seed_network(Convolutions), DATA, label="mine")
    assert ir.analyze("alignment", model, limit=2).result.count == 2


# --- the expectation over draws


class RandomMask(nn.Module):
    """A network whose logits lose random entries, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.network = seed_network(Convolutions)

    def forward(self, images: Tensor) -> Tensor:
        return F.dropout(self.network(images), 0.3)


def test_draws_give_the_logarithm_of_mean_probabilities() -> None:
    model, images = WrappedModel(RandomMask(), PLAIN, "network.body", draws=4), pixels(3, C, H, W)
    first, second = model(images), model(images)
    slow = []
    for seed in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            slow.append(np.log(np.mean([array(model.backbone(images).softmax(1)) for _ in range(4)], axis=0)))
    np.testing.assert_allclose(array(first), slow[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(array(second), slow[1], rtol=1e-4, atol=1e-5)


def test_each_draw_sees_the_pixels_of_a_network_that_works_in_place() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = seed_network(Convolutions)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.network(images.add_(1))
            return logits

    model, images = WrappedModel(InPlace(), PLAIN, draws=3), pixels(2, C, H, W)
    torch.testing.assert_close(model(images), seed_network(Convolutions)(images + 1).log_softmax(1))


def test_draws_leave_random_numbers_as_they_were_and_reach_features() -> None:
    model, images = WrappedModel(RandomMask(), PLAIN, "network.body", draws=3), pixels(2, C, H, W)
    state = torch.get_rng_state()
    features = model.features(images)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(features.local, WrappedModel(RandomMask(), PLAIN, "network.body").features(images).local)
    assert features.pooled.exp().sum(1).tolist() == pytest.approx([1.0, 1.0])


class NoisyNetwork(nn.Module):
    """A network that draws from each of the generators that libraries draw from."""

    def __init__(self) -> None:
        super().__init__()
        self.network = seed_network(Convolutions)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits * torch.rand(K) + 0.1 * np.random.rand() + 0.1 * random.random()


def test_loading_leaves_the_random_numbers_of_the_program_as_they_were() -> None:
    states = read_generator_states(torch.device("cpu"))
    ir.load(NoisyNetwork(), DATA, label="mine")
    assert read_generator_states(torch.device("cpu")) == states


def test_draws_do_not_depend_on_what_was_asked_before(tmp_path: Path) -> None:
    """An answer comes out the same if it is asked for again, and if it is stopped in between and goes on."""
    subject = bring(NoisyNetwork().eval(), Card("mine:net", label="mine", draws=3), DATA, "noise")
    states = read_generator_states(torch.device("cpu"))
    whole = hdf5.read(robustness_work(subject, tmp_path / "whole").run())
    stop_halfway(robustness_work(subject, tmp_path / "parts"))
    continued_answer = hdf5.read(robustness_work(subject, tmp_path / "parts").run())
    assert np.ptp(whole["per_image/margin"]) > 0
    for name in ("margin", "margin_natural", "prediction", "perturbation"):
        np.testing.assert_array_equal(continued_answer[f"per_image/{name}"], whole[f"per_image/{name}"])
    assert read_generator_states(torch.device("cpu")) == states


@pytest.mark.long
def test_more_draws_of_a_random_network_are_steadier_and_said() -> None:
    (doubt,) = doubts_about(RandomMask(), draws=50)
    assert doubt.startswith("mine draws random numbers: answers are the expectation over 50 draws of them")
    (doubt,) = doubts_about(seed_network(Convolutions), draws=2)
    assert doubt == "mine answers the same each time: --draws 2 changes nothing."


def test_an_expectation_of_one_draw_is_refused() -> None:
    with pytest.raises(UserError, match="--draws 1: an expectation needs two draws at least"):
        Card("mine:net", draws=1)


# --- the form of answers


class Answer:
    """What some libraries answer with."""

    def __init__(self, logits: Tensor) -> None:
        self.logits, self.states = logits, logits[:, :2]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda logits: (logits, None), "0"),
        (lambda logits: [logits[:, :3], logits], "1"),
        (lambda logits: {"features": logits[:, :2], "logits": logits}, "logits"),
        (Answer, "logits"),
    ],
)
def test_the_only_part_that_can_be_logits_is_taken_and_kept_in_the_card(change: Any, part: str) -> None:
    model, images = try_network(ChangedLogits(change)), pixels(2, C, H, W)
    assert model.card.logits == part
    torch.testing.assert_close(model.wrapper(images), seed_network(Convolutions)(images))


@pytest.mark.parametrize("change", [lambda logits: (logits[..., None, None], -logits)])
def test_logits_of_convolutions_alone_are_a_part_that_can_be_named(change: Any) -> None:
    network, images = ChangedLogits(change), pixels(2, C, H, W)
    with pytest.raises(UserError, match=r"its tensors are 0 \(1, 7, 1, 1\), 1 \(1, 7\)"):
        try_network(network)
    torch.testing.assert_close(try_network(network, logits="0").wrapper(images), seed_network(Convolutions)(images))


def test_of_two_parts_that_can_be_logits_one_is_named() -> None:
    network, images = ChangedLogits(lambda logits: (logits, -logits)), pixels(2, C, H, W)
    with pytest.raises(UserError, match=r"--logits names the part that are the logits; its tensors are 0 \(1, 7\), 1"):
        try_network(network)
    torch.testing.assert_close(try_network(network, logits="1").wrapper(images), -seed_network(Convolutions)(images))
    with pytest.raises(UserError, match="without a part '2'"):
        try_network(network, logits="2")


@pytest.mark.parametrize(
    "change",
    [lambda logits: logits[:, :, None, None], lambda logits: logits.to_sparse()],
    ids=["convolutions", "sparse"],
)
def test_logits_of_another_form_are_read(change: Any) -> None:
    model, images = try_network(ChangedLogits(change)), pixels(2, C, H, W)
    torch.testing.assert_close(model.wrapper(images), seed_network(Convolutions)(images))


def test_complex_logits_are_refused() -> None:
    with pytest.raises(UserError, match=r"mine:net: the network answers with complex numbers: .* returns real logits"):
        try_network(ChangedLogits(lambda logits: torch.complex(logits, 3 * logits.flip(1))))


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_one_number_is_the_logit_of_the_second_of_two_classes(shape: tuple[int, ...]) -> None:
    logit, labels = torch.tensor([-2.0, 0.5, 3.0, 0.0]), torch.tensor([1, 1, 0, 1])
    logits = as_logits(logit.reshape(shape), None, 2)
    torch.testing.assert_close(logits.softmax(1)[:, 1], torch.sigmoid(logit))
    expected = F.binary_cross_entropy_with_logits(logit, labels.float(), reduction="none")
    torch.testing.assert_close(F.cross_entropy(logits, labels, reduction="none"), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_weights_of_any_precision_are_asked_in_float32_and_said(dtype: torch.dtype) -> None:
    model, images = try_network(seed_network(Convolutions).to(dtype)), pixels(2, C, H, W)
    assert f"mine has weights in {str(dtype).removeprefix('torch.')}, and is run in float32." in model.doubts
    expected = seed_network(Convolutions).to(dtype).float()(images)
    torch.testing.assert_close(model.wrapper(images), expected)


def test_answers_in_half_precision_are_made_float32() -> None:
    images = pixels(2, C, H, W)
    answer = try_network(ChangedLogits(lambda logits: logits.bfloat16())).wrapper(images)
    assert answer.dtype == torch.float32
    torch.testing.assert_close(answer, seed_network(Convolutions)(images).bfloat16().float())


class InHalf(Transformer):
    """A transformer whose forward casts to the precision `dtype`, by autocast or by itself."""

    def __init__(self, dtype: torch.dtype, by_autocast: bool) -> None:
        super().__init__(prefix=1, says=True)
        self.dtype, self.by_autocast = dtype, by_autocast

    def forward(self, images: Tensor) -> Tensor:
        if self.by_autocast:
            with torch.autocast("cpu", self.dtype):
                return super().forward(images)
        return super().forward(images.to(self.dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("by_autocast", [True, False])
def test_a_transformer_that_casts_to_half_precision_inside_is_asked_and_doubted(
    dtype: torch.dtype, by_autocast: bool
) -> None:
    """Its answers, attacks and maps are those of a plain loop, and everything that comes out of it is float32."""
    network = seed_network(InHalf, dtype, by_autocast)
    if not by_autocast:
        network = network.to(dtype)
    images, labels, name = pixels(4, C, H, W), torch.arange(4), str(dtype).removeprefix("torch.")
    model = try_network(network)
    assert any(f"answers with numbers of {name}, of " in doubt for doubt in model.doubts)
    message = f"mine is run in {name}, the precision of its weights, since its forward does not run with float32."
    assert (message in model.doubts) == (not by_autocast)
    assert torch.equal(model.wrapper(images), network(images).float())
    assert torch.equal(loss_gradient(model.wrapper, images, labels), gradient_by_hand(network, images, labels))
    adversarial = ir.PGD(8 / 255, 2 / 255, 3, random_start=False)(model.wrapper, images, labels)
    expected = images
    for _ in range(3):
        step = expected + 2 / 255 * gradient_by_hand(network, expected, labels).sign()
        expected = torch.minimum(torch.maximum(step, images - 8 / 255), images + 8 / 255).clamp(0, 1)
    torch.testing.assert_close(adversarial, expected, rtol=0, atol=1e-6)
    local = model.wrapper.features(images).local
    assert local.dtype == torch.float32 and local.shape == (4, 10, 2, 3)
    for rule in ("rollout", "relevance", "head:1.0"):
        weights = compute_token_weights(rule, model.wrapper, images)
        assert weights.dtype == torch.float32 and bool((weights >= 0).all())
    with torch.no_grad():
        blocks = attend(model.wrapper, images)[0]
    torch.testing.assert_close(
        compute_token_weights("head:0.1", model.wrapper, images).flatten(1),
        read_tokens(model.wrapper, images[:1]).readers[:1] * blocks[0][:, 1, 0, 1:].float(),
    )


def gradient_by_hand(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    leaf = images.clone().requires_grad_()
    loss = F.cross_entropy(network(leaf).float(), labels, reduction="sum")
    return torch.autograd.grad(loss, leaf)[0]


def test_whole_numbers_are_no_half_precision() -> None:
    assert doubts_about(ChangedLogits(lambda logits: (100 * logits).round() + 100 * (logits - logits.detach()))) == []


def test_a_forward_in_double_precision_is_asked_so_and_its_gradients_are_judged() -> None:
    class Double(Convolutions):
        gate = 0.0

        def forward(self, images: Tensor) -> Tensor:
            logits = super().forward(images.double())
            return logits + self.gate * logits.detach()

    network = seed_network(Double).double()
    model, images = try_network(network), pixels(4, C, H, W)
    message = "mine is run in float64, the precision of its weights, since its forward does not run with float32."
    assert [doubt for doubt in model.doubts if " is right on " not in doubt] == [message]
    assert torch.equal(model.wrapper(images), network(images).float())
    other_network = seed_network(Double).double()
    other_network.gate = 1.0
    assert any("gradients that are not those of its answers" in doubt for doubt in try_network(other_network).doubts)


def test_a_cast_that_the_weights_do_not_share_is_named() -> None:
    with pytest.raises(
        UserError, match=r"does not run with pixels and weights in float32 .* casts to another precision"
    ):
        try_network(seed_network(InHalf, torch.bfloat16, False))


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_network_that_recomputes_activations_is_attacked_as_without(reentrant: bool) -> None:
    class Recomputation(Convolutions):
        def forward(self, images: Tensor) -> Tensor:
            def inner(images: Tensor) -> Tensor:
                counts.append(len(images))
                logits: Tensor = recompute(super(Recomputation, self).forward, images, use_reentrant=reentrant)
                return logits

            logits: Tensor = recompute(inner, images, use_reentrant=reentrant)
            return logits

    counts: list[int] = []
    images, labels = pixels(3, C, H, W), torch.arange(3)
    attack = ir.PGD(8 / 255, 2 / 255, 3)
    expected = attack(seed_network(Convolutions), images, labels)
    torch.testing.assert_close(attack(try_network(seed_network(Recomputation)).wrapper, images, labels), expected)
    counts.clear()
    torch.testing.assert_close(attack(seed_network(Recomputation), images, labels), expected)
    assert counts == [3] * 6, "a program's own network saves memory here too: each of three steps runs it twice"


def test_pixels_that_torchvisions_own_weights_need_otherwise_are_doubted(tmp_path: Path) -> None:
    class InputTransform(Convolutions):
        transform_input = False

    network = seed_network(InputTransform)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    for weights, count in ((str(tmp_path / "weights.pt"), 1), ("random", 0)):
        card = Card("torchvision:googlenet", label="mine", weights=weights, normalize="none")
        doubts = bring(network, card, DATA, "noise").doubts
        assert sum("need --model-arg transform_input=true" in doubt for doubt in doubts) == count


# --- copies


class Keeper:
    """A hook that keeps what a layer gave."""

    def __init__(self) -> None:
        self.memory: list[Tensor] = []

    def __call__(self, _: nn.Module, __: Any, output: Tensor) -> None:
        self.memory.append(output)


def with_weight_norm() -> Any:
    network = seed_network(Convolutions)
    torch.nn.utils.weight_norm(network.answer)
    return network


def with_pruning() -> Any:
    import torch.nn.utils.prune

    network = seed_network(Convolutions)
    torch.nn.utils.prune.l1_unstructured(network.answer, "weight", amount=0.5)  # type: ignore[no-untyped-call]
    return network


def with_a_keeper() -> Any:
    network = seed_network(Convolutions)
    network.body.register_forward_hook(Keeper())
    network(pixels(1, C, H, W))
    return network


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("build", [with_weight_norm, with_pruning, with_a_keeper])
def test_networks_that_torch_does_not_copy_are_copied(build: Any) -> None:
    network, images = build(), pixels(2, C, H, W)
    replica = copy_of(network).eval()
    torch.testing.assert_close(replica(images), network(images))
    addresses = {tensor.data_ptr() for tensor in network.parameters()} & {
        parameter.data_ptr() for parameter in replica.parameters()
    }
    assert not addresses


@pytest.mark.parametrize(
    "wrap", [torch.compile, nn.DataParallel, lambda network: torch.compile(nn.DataParallel(network))]
)
def test_what_wraps_a_network_is_taken_off(wrap: Any) -> None:
    network = seed_network(Convolutions)
    assert unwrap(wrap(network)) is network


@pytest.mark.parametrize(
    "wrap", [partial(torch.compile, backend="eager"), nn.DataParallel], ids=["compiled", "parallel"]
)
@pytest.mark.parametrize("name", ["stem", "body"])
def test_what_wraps_a_layer_is_taken_off_in_the_copy(name: str, wrap: Any) -> None:
    network, images = seed_network(Convolutions), pixels(2, C, H, W)
    layer = getattr(network, name)
    setattr(network, name, wrap(layer))
    wrapped_layer = getattr(network, name)
    model = ir.load(network, DATA, label="mine")
    assert model.network.local_layer == try_network(seed_network(Convolutions)).wrapper.local_layer
    torch.testing.assert_close(model(images), seed_network(Convolutions)(images))
    assert getattr(network, name) is wrapped_layer and unwrap(wrapped_layer) is layer
    assert not {tensor.data_ptr() for tensor in network.parameters()} & {
        weight.data_ptr() for weight in model.parameters()
    }


def test_a_network_that_cannot_be_copied_is_a_sentence() -> None:
    network = seed_network(Convolutions)
    network.lock = __import__("threading").Lock()
    with pytest.raises(UserError, match="a Convolutions cannot be copied"):
        copy_of(network)


# --- where positions lie


class Registers(Transformer):
    """Tokens in the order: the class token, the image's, and registers; nothing says how many there are of each."""

    def __init__(self, count: int) -> None:
        super().__init__(1)
        self.registers = nn.Parameter(torch.randn(1, count, 10))

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        parts = [part.expand(len(images), -1, -1) for part in (self.first, self.registers)]
        return self.classify(self.low(torch.cat([parts[0], tokens, parts[1]], 1)))


@pytest.mark.parametrize("count", [0, 2, 4])
def test_tokens_after_those_of_the_image_are_not_taken_for_them(count: int) -> None:
    network, images = seed_network(Registers, count), pixels(3, C, H, W)
    model = try_network(network, local_layer="low").wrapper
    output = network.low(
        torch.cat(
            [
                network.first.expand(3, -1, -1),
                network.patches(images).flatten(2).transpose(1, 2),
                network.registers.expand(3, -1, -1),
            ],
            1,
        )
    )
    features = model.features(images)
    torch.testing.assert_close(features.local.flatten(2).transpose(1, 2), output[:, 1:7])
    torch.testing.assert_close(model.rest(images, features.local), model(images))


def test_the_grid_is_that_of_the_resized_image() -> None:
    """Images of 12 x 18 pixels are 18 x 18 to the network, and its tokens a grid of 3 x 3."""
    network, images = seed_network(Registers, 4), pixels(2, C, H, W)
    model = try_network(network, local_layer="low", resize=18).wrapper
    assert model.first_token == 1 and model.features(images).local.shape == (2, 10, 3, 3)
    outputs: list[Tensor] = []
    network.low.register_forward_hook(lambda _, __, output: outputs.append(output))
    local = model.features(images).local
    torch.testing.assert_close(local.flatten(2).transpose(1, 2), outputs[0][:, 1:10])


class Inner(Transformer):
    """It says that it has a class token, which its first block does not see, as CaiT's do."""

    def __init__(self) -> None:
        super().__init__(1, says=True)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.low(self.patches(images).flatten(2).transpose(1, 2))
        return self.classify(torch.cat([self.first.expand(len(images), -1, -1), tokens], 1))


def test_a_block_without_the_class_token_that_the_network_has_is_read_whole() -> None:
    network, images = seed_network(Inner), pixels(2, C, H, W)
    choice = choose_reading(network, PLAIN, images[:1], "low")
    assert choice.first is None and not choice.is_doubtful
    output = network.low(network.patches(images).flatten(2).transpose(1, 2))
    local = WrappedModel(network, PLAIN, "low").features(images).local
    torch.testing.assert_close(local.flatten(2).transpose(1, 2), output)


class Flat(nn.Module):
    """Its last layer gives channels times positions, which looks like tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.flat = nn.Sequential(nn.Conv2d(C, 24, 3, 2, 1), nn.ReLU()), nn.Flatten(2)
        self.answer = nn.Linear(24, K)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.answer(self.flat(self.body(images)).mean(2))
        return logits


class Square(nn.Module):
    """Its layer `cube` gives as many channels as rows and columns, which come last or first."""

    def __init__(self, *, is_last: bool, side: int = 4, patch: int = 4) -> None:
        super().__init__()
        self.patches = nn.Sequential(nn.Conv2d(C, side, patch, patch), nn.ReLU())
        self.cube = nn.Identity()
        self.answer, self.is_last = nn.Linear(side * side * side, K), is_last

    def forward(self, images: Tensor) -> Tensor:
        local = self.patches(images)
        logits: Tensor = self.answer(self.cube(local.permute(0, 2, 3, 1) if self.is_last else local).flatten(1))
        return logits


@pytest.mark.parametrize("side", [2, 4, 8, 16])
@pytest.mark.parametrize("is_last", [False, True])
def test_channels_are_told_from_as_many_rows_and_columns(side: int, *, is_last: bool) -> None:
    network, data = seed_network(lambda: Square(is_last=is_last, side=side)), noise(shape=(C, 4 * side, 4 * side))
    model = bring(network, Card("mine:net", label="mine", local_layer="cube"), data, "noise")
    assert [doubt for doubt in model.doubts if " is right on " not in doubt] == []
    assert model.job["layers"].get("channels") == ("last" if is_last else None)
    images = pixels(3, C, 4 * side, 4 * side)
    wrapper = model.model(torch.device("cpu"))
    local = network.patches(images)
    torch.testing.assert_close(wrapper.features(images).local, local)
    torch.testing.assert_close(wrapper.rest(images, local), wrapper(images))
    local = local.detach().requires_grad_()
    logits = network.answer((local.permute(0, 2, 3, 1) if is_last else local).flatten(1))
    (gradient,) = torch.autograd.grad(logits.amax(1).sum(), local)
    grad_cam = (gradient.mean((2, 3), keepdim=True) * local).sum(1).clamp_min(0).flatten(1)
    expected = grad_cam / grad_cam.sum(1, keepdim=True)
    torch.testing.assert_close(compute_position_weights(wrapper, images, "grad-cam"), expected, equal_nan=True)
    if is_last:
        with pytest.raises(UserError, match="second axis for its channels"):
            compute_map("captum:GuidedGradCam", wrapper, images, torch.tensor([2, 0, 5]), range(3))


@pytest.mark.long
@pytest.mark.parametrize("side", [8, 14, 16])
@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("change", [lambda x: x.flip(3), lambda x: x.flip(2), lambda x: x.transpose(2, 3)])
def test_a_cube_of_a_mirrored_image_is_not_read_the_other_way(change: Any, side: int, *, is_last: bool) -> None:
    """Its positions lie elsewhere in either order of its axes."""

    class MirroredSquare(Square):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(change(images))

    data = noise(shape=(C, 2 * side, 2 * side))
    network = seed_network(lambda: MirroredSquare(is_last=is_last, side=side, patch=2))
    doubts = bring(network, Card("mine:net", label="mine", local_layer="cube"), data, "noise").doubts
    assert any("maps and ranks by position may lie elsewhere" in doubt for doubt in doubts)


@pytest.mark.parametrize("side", range(5, 33))
def test_the_sample_of_positions_is_on_no_line_of_symmetry(side: int) -> None:
    grid = torch.arange(side * side).reshape(side, side)
    places = sample_positions(side, side)
    assert 13 <= len(places) <= 16 and len(set(places.tolist())) == len(places)
    for other in (grid.T, grid.flip(0), grid.flip(1), grid.rot90(1), grid.rot90(2), grid.rot90(3), grid.T.rot90(2)):
        assert int((other.flatten()[places] == places).sum()) <= 4


class Canonical(nn.Module):
    """A network that turns each image by what it shows: the brighter half of an image comes first."""

    def __init__(self, axis: int, *, is_wide: bool) -> None:
        super().__init__()
        self.axis = axis
        self.body = nn.Conv2d(C, 8, 7 if is_wide else 2, stride=2, padding=3 if is_wide else 0)
        self.wide = nn.Conv2d(8, 8, 3, padding=1) if is_wide else nn.Identity()
        self.answer = nn.Linear(8 * (H // 2) * (W // 2), K)

    def forward(self, images: Tensor) -> Tensor:
        first, second = (half.mean((1, 2, 3), keepdim=True) for half in images.tensor_split(2, self.axis))
        turned = torch.where(first < second, images.flip(self.axis), images) if self.axis else images
        logits: Tensor = self.answer(self.wide(self.body(turned).relu()).flatten(1))
        return logits


@pytest.mark.parametrize("is_wide", [True, False])
@pytest.mark.parametrize("axis", [0, 2, 3])
def test_a_network_that_turns_each_image_by_what_it_shows_is_doubted(axis: int, *, is_wide: bool) -> None:
    images = torch.from_numpy(DATA.test.images[:8]).permute(0, 3, 1, 2) / 255
    if axis:
        first, second = (half.mean((1, 2, 3)) for half in images.tensor_split(2, axis))
        count = int((first < second).sum())
        assert 0 < count < 8
    doubts = [
        doubt for doubt in doubts_about(seed_network(lambda: Canonical(axis, is_wide=is_wide))) if "turns" in doubt
    ]
    assert len(doubts) == (axis > 0)
    for doubt in doubts:
        assert doubt.startswith(f"mine: on {count} of 8 test images the positions of layer '")


class Dynamic(nn.Module):
    """Each image has a filter of its own: images are folded into channels, one group each."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.filters = nn.Conv2d(C, 4, 3, padding=1), nn.Linear(4, 4 * 4 * 9)
        self.rectify, self.answer = nn.ReLU(), nn.Linear(4, K)

    def forward(self, images: Tensor) -> Tensor:
        local, count = self.body(images), len(images)
        filters = self.filters(local.mean((2, 3))).reshape(count * 4, 4, 3, 3)
        folded = F.conv2d(local.reshape(1, count * 4, H, W), filters, padding=1, groups=count)
        logits: Tensor = self.answer(self.rectify(folded).reshape(count, 4, H, W).mean((2, 3)))
        return logits


def test_a_layer_that_sees_images_folded_into_channels_has_no_local_features() -> None:
    """The layer before is taken, by which the answer of a batch is that of each image alone."""
    model = Model(bring(seed_network(Dynamic), Card("mine:net", label="mine"), DATA, "noise"))
    assert model.network.local_layer == "body" and model.subject.local_shape() == (4, H, W)
    answer = ir.analyze("attention-rank", model, limit=5, steps=1)
    images = torch.from_numpy(DATA.test.images[:5]).permute(0, 3, 1, 2) / 255
    network = seed_network(Dynamic)
    local = network.body(images)
    local.retain_grad()
    filters = network.filters(local.mean((2, 3))).reshape(20, 4, 3, 3)
    folded = F.conv2d(local.reshape(1, 20, H, W), filters, padding=1, groups=5).relu().reshape(5, 4, H, W)
    network.answer(folded.mean((2, 3))).amax(1).sum().backward()
    assert local.grad is not None
    grad_cam = (local.grad.mean((2, 3), keepdim=True) * local).sum(1).clamp_min(0).flatten(1).detach()
    expected = grad_cam / grad_cam.sum(1, keepdim=True)
    np.testing.assert_allclose(answer["per_image/attention"], expected, rtol=1e-4, atol=1e-7)
    with pytest.raises(
        UserError, match=r"layer 'rectify' gives a tensor of shape \(1, 8, 12, 18\), and local features"
    ):
        try_network(seed_network(Dynamic), local_layer="rectify")


class OfGradients(nn.Module):
    """A network that answers by the gradient of an energy, which it takes in its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.after = nn.Conv2d(C, 8, 3, padding=1), nn.Conv2d(C, 8, 3, padding=1)
        self.answer = nn.Linear(8, K)

    def forward(self, images: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = images if images.requires_grad else images.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.body(leaf).tanh().square().sum(), leaf, create_graph=True)
        logits: Tensor = self.answer(self.after(gradient).relu().mean((2, 3)))
        return logits


def test_a_network_that_differentiates_in_its_forward_is_asked() -> None:
    model = Model(bring(seed_network(OfGradients), Card("mine:net", label="mine"), DATA, "noise"))
    assert model.network.local_layer == "after"
    assert [doubt for doubt in model.doubts if " is right on " not in doubt] == []
    images = pixels(3, C, H, W)
    expected = seed_network(OfGradients)(images).detach()
    torch.testing.assert_close(model.network.features(images).pooled.detach(), expected)
    labels = torch.arange(3)
    torch.testing.assert_close(
        loss_gradient(model.network, images, labels), gradient_by_hand(seed_network(OfGradients), images, labels)
    )


def test_an_order_that_neither_reading_explains_is_doubted() -> None:
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    data = noise(shape=(C, 32, 32))

    class ShuffledSquare(Square):
        def forward(self, images: Tensor) -> Tensor:
            local = self.patches(images).flatten(2)[:, :, order].reshape(-1, 8, 8, 8)
            logits: Tensor = self.answer(self.cube(local).flatten(1))
            return logits

    network = seed_network(lambda: ShuffledSquare(is_last=False, side=8))
    doubts = bring(network, Card("mine:net", label="mine", local_layer="cube"), data, "noise").doubts
    assert any("where 75% are expected: maps and ranks by position may lie elsewhere" in doubt for doubt in doubts)


class Tokens(nn.Module):
    """Tokens of patches in an order of rows and columns, and a layer `mixed` in which each sees a little of all."""

    def __init__(self, patch: tuple[int, int], order: Tensor, *, merges: bool = False) -> None:
        super().__init__()
        self.patches, self.mixed, self.answer = nn.Conv2d(C, 16, patch, patch), nn.LayerNorm(16), nn.Linear(16, K)
        self.order, self.merges = order, merges

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)[:, self.order]
        if self.merges:
            tokens = tokens[:, ::2] + tokens[:, 1::2]
        logits: Tensor = self.answer(self.mixed(tokens + 0.05 * tokens.mean(1, keepdim=True)).mean(1))
        return logits


SNAKE = torch.cat([row.flip(0) if number % 2 else row for number, row in enumerate(torch.arange(64).view(8, 8))])


@pytest.mark.parametrize(
    ("network", "share", "grid"),
    [
        (partial(Tokens, (4, 4), torch.arange(64)), 0.0, None),
        (partial(Tokens, (4, 4), SNAKE), 0.5, None),
        (partial(Tokens, (4, 4), torch.arange(64), merges=True), None, (8, 4)),
        (partial(Tokens, (8, 4), torch.arange(32)), None, (4, 8)),
        (partial(Tokens, (4, 8), torch.arange(32)), None, (8, 4)),
    ],
    ids=["rows", "snake", "merged", "high", "wide"],
)
def test_tokens_of_which_a_part_lies_elsewhere_are_doubted(
    network: Any, share: float | None, grid: tuple[int, int] | None
) -> None:
    choice = choose_reading(seed_network(network), PLAIN, pixels(1, C, 32, 32), "mixed")
    assert choice.is_doubtful == (share != 0) and choice.other_grid == grid
    assert share is None or choice.astray_share == pytest.approx(share, abs=0.15)
    card = Card("mine:net", label="mine", local_layer="mixed")
    doubts = bring(seed_network(network), card, noise(shape=(C, 32, 32)), "noise").doubts
    sentence = "more on the pixels of most other positions" if grid is None else f"grid of {grid[0]}x{grid[1]}, which"
    is_low = choice.locality < choice.threshold and grid is None
    assert any(sentence in doubt for doubt in doubts) == (share != 0 and not is_low)


def test_a_layer_that_some_images_do_not_reach_has_no_local_features() -> None:
    """Bright and dark images go through networks of their own: what all of them pass comes before."""

    class Routes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(C, C, 3, padding=1)
            self.bright, self.dark = Convolutions(), Convolutions()

        def forward(self, images: Tensor) -> Tensor:
            local, is_bright = self.first(images), images.mean((1, 2, 3)) > 0.5
            logits = images.new_zeros(len(images), K)
            for part, network in ((is_bright, self.bright), (~is_bright, self.dark)):
                if part.any():
                    logits[part] = network(local[part])
            return logits

    network, images = seed_network(Routes).eval(), pixels(9, C, H, W)
    model = try_network(network)
    assert model.wrapper.local_layer == "first"
    torch.testing.assert_close(model.wrapper(images), network(images))


def test_a_layer_that_a_few_images_do_not_reach_is_named_where_they_come() -> None:
    """White images leave early, and none of the trial is: positions are asked of a batch with one, and of it alone."""

    class Exit(Convolutions):
        def forward(self, images: Tensor) -> Tensor:
            logits, is_white = images.mean((2, 3)) @ torch.ones(C, K), images.mean((1, 2, 3)) == 1
            if not is_white.all():
                logits[~is_white] = super().forward(images[~is_white])
            return logits

    model, images = try_network(seed_network(Exit)).wrapper, pixels(3, C, H, W)
    images[1] = 1
    sentence = rf"gives a tensor of shape \(2, 8, {H // 2}, {W // 2}\), and local features of 3 images have a row for"
    with pytest.raises(UserError, match=sentence):
        model.features(images)
    with pytest.raises(UserError, match="runs 0 times in a pass, as where all images leave the network early"):
        model.features(images[1:2])


def test_a_slope_without_end_is_no_way_around_a_layer() -> None:
    """The root of a black pixel has an infinite slope; the answer rests on the layer behind it alone."""
    images = pixels(8, C, H, W)
    images[:3, 0, 0, 0] = 0

    class Root(Convolutions):
        def forward(self, pixels: Tensor) -> Tensor:
            return super().forward(pixels.sqrt().square())

    assert count_beyond(seed_network(Root), "body", PLAIN, images) == 0


def test_channels_are_not_taken_for_positions() -> None:
    network, image = seed_network(Flat), pixels(1, C, H, W)
    choice = choose_layer(network, PLAIN, image)
    assert choice is not None and choice.name == "body"
    assert choose_reading(network, PLAIN, image, "flat").is_doubtful
    (doubt,) = doubts_about(network, local_layer="flat")
    assert "of the other cells of the image matter less to a position of layer 'flat' than its own" in doubt


def test_a_position_of_patches_depends_on_its_own_alone() -> None:
    network = seed_network(Transformer)
    output = torch.zeros(1, 7, 10)  # of its shape: the class token's and six of the image
    image = pixels(1, C, H, W)
    right, shifted = (measure_dependence(network, PLAIN, image, "low", output, first) for first in (1, 0))
    assert right is not None and right.locality() == 1.0
    assert shifted is not None and shifted.locality() < 0.75


# --- attention layers


class Pooled(nn.Module):
    """Local features summed by a softmax of scores, whose positions come in the order of `arrange`."""

    def __init__(self, arrange: Any, change: Any) -> None:
        super().__init__()
        self.body, self.score = nn.Conv2d(C, 8, 3, padding=1), nn.Conv2d(8, 1, 1)
        self.softmax, self.changed, self.answer = nn.Softmax(1), nn.Identity(), nn.Linear(8, K)
        self.arrange, self.change = arrange, change

    def forward(self, images: Tensor) -> Tensor:
        local = self.body(images)
        weights = self.softmax(self.arrange(4 * self.score(local)).flatten(1))
        weights = self.changed(self.change(weights, self.score(local)))
        logits: Tensor = self.answer((self.arrange(local).flatten(2) * weights[:, None]).sum(2))
        return logits


def same(weights: Tensor, _: Tensor) -> Tensor:
    return weights


def sharpen(weights: Tensor, _: Tensor) -> Tensor:
    largest = (weights - 1 / (H * W)).relu()
    return largest / largest.sum(1, keepdim=True)


def subtract(weights: Tensor, scores: Tensor) -> Tensor:
    return weights - 0.5 * (-scores).flatten(1).softmax(1)


@pytest.mark.parametrize(
    ("arrange", "change", "sentence"),
    [
        (Tensor.clone, same, None),
        (Tensor.clone, lambda weights, _: 3 * weights, None),
        (lambda local: local.transpose(2, 3), same, "such as column by column"),
        (lambda local: local.flip(3), same, "matter less to what a position of attention layer 'softmax' weighs than"),
        (lambda local: local.roll(9, 3), same, "may be in another order than those of layer 'body'"),
        (Tensor.clone, sharpen, "the numbers that attention layer 'softmax' gives weigh nothing as they are"),
        (Tensor.clone, subtract, "the numbers that attention layer 'softmax' gives weigh nothing as they are"),
        (Tensor.clone, lambda weights, _: torch.full_like(weights, 0.01), "or not used"),
    ],
)
def test_an_attention_layer_is_tried(arrange: Any, change: Any, sentence: str | None) -> None:
    network = seed_network(Pooled, arrange, change)
    doubts = doubts_about(network, local_layer="body", attention_layer="softmax")
    doubts = [doubt for doubt in doubts if "attention layer" in doubt]
    assert [str(sentence) in doubt for doubt in doubts] == [True] * (sentence is not None)
    if change is sharpen:
        model = try_network(network, local_layer="body", attention_layer="changed")
        assert not any("attention layer" in doubt for doubt in model.doubts)


class Ordered(nn.Module):
    """A tiny transformer over 4x6 patches, with a class token and `registers` in an order, that may mix its heads."""

    def __init__(self, order: str, *, mixes: bool = False, registers: int = 0) -> None:
        super().__init__()
        self.patches, self.answer = nn.Conv2d(C, 10, 3, stride=3), nn.Linear(10, K)
        self.token, self.registers = nn.Parameter(torch.randn(1, 1, 10)), nn.Parameter(torch.randn(1, registers, 10))
        self.qkv, self.softmax, self.mix = nn.Linear(10, 30), nn.Softmax(-1), nn.Conv2d(2, 2, 1)
        self.order, self.mixes = order, mixes

    def forward(self, images: Tensor) -> Tensor:
        count, parts = len(images), {"i": self.patches(images).flatten(2).transpose(1, 2)}
        parts |= {"c": self.token.expand(count, -1, -1), "r": self.registers.expand(count, -1, -1)}
        tokens = torch.cat([parts[name] for name in self.order], 1)
        query, key, value = self.qkv(tokens).reshape(count, tokens.shape[1], 3, 2, 5).permute(2, 0, 3, 1, 4)
        attention = self.softmax(2 * query @ key.transpose(2, 3))
        mixture = ((self.mix(attention) if self.mixes else attention) @ value).transpose(1, 2).reshape(tokens.shape)
        place = sum(parts[name].shape[1] for name in self.order.partition("c")[0])
        logits: Tensor = self.answer(mixture[:, place])
        return logits


@pytest.mark.parametrize("order", ["ci", "ic", "cir", "irc", "cri", "rci"])
def test_the_attention_of_a_class_token_at_any_place_is_taken(order: str) -> None:
    network = seed_network(lambda: Ordered(order, registers=3))
    outputs: list[Tensor] = []
    handle = network.softmax.register_forward_hook(lambda _, __, output: outputs.append(output))
    images = pixels(3, C, H, W)
    network(images)
    handle.remove()
    sizes = {"c": 1, "r": 3, "i": 24}
    place, first = (sum(sizes[name] for name in order.partition(kind)[0]) for kind in "ci")
    expected = outputs[0][:, :, place, first : first + 24].mean(1)
    model = try_network(network, local_layer="patches", attention_layer="softmax")
    assert not any("attention layer" in doubt for doubt in model.doubts)
    attention = model.wrapper.features(images).attention
    assert attention is not None
    torch.testing.assert_close(attention, expected / expected.sum(1, keepdim=True))


def test_positions_may_not_depend_on_pixels_that_are_clamped() -> None:
    """All but a corner of the images is white, where the network has no gradient; nothing is moved."""

    class Clamp(Convolutions):
        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = super().forward(images.clamp(0.0, 0.9))
            return logits

    images = DATA.test.images.copy()
    images[:, 4:] = images[:, :, 4:] = 255
    split = Split(images, DATA.test.labels)
    model = bring(
        seed_network(Clamp).eval(), Card("mine:net", label="mine"), replace(DATA, train=split, test=split), "n"
    )
    assert not any("own pixels" in doubt or "positions" in doubt for doubt in model.doubts)


def test_heads_that_are_mixed_behind_the_softmax_are_doubted() -> None:
    doubts = doubts_about(
        seed_network(lambda: Ordered("ci", mixes=True)), local_layer="patches", attention_layer="softmax"
    )
    assert ["as by talking heads" in doubt for doubt in doubts if "attention layer" in doubt] == [True]


# --- process settings


def settings() -> tuple[Any, ...]:
    backends: Any = torch.backends
    return (
        backends.fp32_precision,
        backends.cuda.matmul.fp32_precision,
        backends.cudnn.conv.fp32_precision,
        backends.mkldnn.matmul.fp32_precision,
        backends.cudnn.allow_tf32,  # raises where settings old and new contradict each other
        backends.cudnn.benchmark,
        backends.cudnn.deterministic,
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.get_float32_matmul_precision(),
    )


@pytest.fixture
def unusual() -> Any:
    """Settings of a program that is fast and not exact, and whose new tensors lie on another device."""
    originals = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark, torch.get_default_dtype()
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.benchmark = True
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    yield settings()
    torch.set_default_device(None)  # any device, the CPU too, slows down each function of torch from then on
    torch.set_float32_matmul_precision(originals[0])
    torch.backends.cudnn.benchmark = originals[1]
    torch.set_default_dtype(originals[2])


def test_arithmetic_is_exact_inside_and_settings_are_as_they_were_after(unusual: tuple[Any, ...]) -> None:
    def fail() -> None:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), exact():
            backends: Any = torch.backends
            assert {backends.cuda.matmul.fp32_precision, backends.mkldnn.matmul.fp32_precision} == {"ieee"}
            assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()
            assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == (False, False)
            product = torch.ones(2, 2) @ torch.ones(2, 2)
            assert (product.dtype, product.device.type) == (torch.float32, "cpu")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert settings() == unusual


@pytest.mark.parametrize("name", ["cuda.matmul", "cudnn.conv", ""])
def test_new_settings_of_tf32_alone_are_taken(name: str) -> None:
    """Torch raises where an old name is read that contradicts a new one."""
    backend: Any = torch.backends
    for part in filter(None, name.split(".")):
        backend = getattr(backend, part)
    setting = backend.fp32_precision
    backend.fp32_precision = "tf32"
    try:
        with exact():
            assert backend.fp32_precision == "ieee"
        assert backend.fp32_precision == "tf32"
    finally:
        backend.fp32_precision = setting


def test_a_general_precision_is_restored_beside_special_ones() -> None:
    """In torch 2.14.1 what sets mkldnn's sets the general one, and what is inherited is read as if it were set."""
    backends: Any = torch.backends
    special = [backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv]
    inheriting = [backends.cudnn, backends.cudnn.rnn, backends.mkldnn.rnn]
    original = backends.fp32_precision
    try:
        for backend in special:
            backend.fp32_precision = "ieee"
        for precision in ("tf32", "ieee"):
            backends.fp32_precision = precision
            with exact():
                assert {backend.fp32_precision for backend in (backends, *special, *inheriting)} == {"ieee"}
            assert [backend.fp32_precision for backend in (backends, *special)] == [precision, *["ieee"] * 4]
            assert {backend.fp32_precision for backend in inheriting} == {precision}
    finally:
        for backend in special:
            backend.fp32_precision = "none"
        backends.fp32_precision = original


def test_threads_that_overlap_compute_exactly_and_the_last_restores() -> None:
    """One that leaves while the other computes must not take its settings away, nor leave its own behind."""
    backends: Any = torch.backends
    original = backends.cuda.matmul.fp32_precision
    backends.cuda.matmul.fp32_precision = "tf32"
    is_inside, may_leave = Event(), Event()

    def compute() -> None:
        with exact():
            is_inside.set()
            may_leave.wait(30)

    try:
        thread = Thread(target=compute)
        thread.start()
        assert is_inside.wait(30)
        with exact():
            may_leave.set()
            thread.join()
            assert backends.cuda.matmul.fp32_precision == "ieee"
        assert backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        backends.cuda.matmul.fp32_precision = original


def test_a_question_leaves_settings_as_they_were_and_does_not_depend_on_them(unusual: tuple[Any, ...]) -> None:
    with torch.device("cpu"):
        network = seed_network(Convolutions).float()
    plain_model = ir.load(network, DATA, label="mine")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        cosine = ir.analyze("alignment", plain_model, limit=4)["per_image/cosine"]
    assert settings() == unusual
    torch.set_default_dtype(torch.float32)
    torch.set_default_device("cpu")
    torch.set_float32_matmul_precision("highest")
    np.testing.assert_array_equal(ir.analyze("alignment", plain_model, limit=4)["per_image/cosine"], cosine)


# --- where doubts are said


def test_a_doubt_is_warned_of_and_kept_beside_every_number() -> None:
    with pytest.warns(ir.DoubtWarning, match="mine answers with probabilities") as warning:
        model = ir.load(ChangedLogits(lambda logits: logits.softmax(1)), DATA, label="mine")
    assert warning[0].filename == __file__
    assert "in doubt: mine answers with probabilities" in repr(model)
    answer = ir.analyze("robustness", model, limit=3, pgd=1, cw=None)
    assert answer.result.doubts == model.doubts
    assert "In doubt: mine answers with probabilities" in " ".join(str(answer).split())
    drawing = compose("robustness", [answer.result])
    assert "In doubt: mine answers with probabilities" in drawing.caption
    assert "In doubt: the caption, in the .json beside this, says why." in [
        text.get_text() for text in drawing.figure.texts
    ]


# --- answers that are no numbers


class Standardization(nn.Module):
    """It divides by the deviation of an image, which is zero for images of one color."""

    def __init__(self) -> None:
        super().__init__()
        self.network = seed_network(Convolutions)

    def forward(self, images: Tensor) -> Tensor:
        middle = images - images.mean((1, 2, 3), keepdim=True)
        logits: Tensor = self.network(middle / images.flatten(1).std(1)[:, None, None, None])
        return logits


def with_gray(places: tuple[int, ...]) -> Dataset:
    images, labels = DATA.test.images.copy(), np.zeros_like(DATA.test.labels)
    images[list(places)] = 128
    split = Split(images, labels)
    return Dataset("gray", DATA.train, split, DATA.class_names)


def test_an_answer_that_is_no_number_is_never_right_and_its_images_are_named() -> None:
    data = with_gray((2, 5))
    model = ir.load(Standardization(), data, label="mine")
    answer = ir.analyze("robustness", model, pgd=2, cw=None, batch_size=4)
    assert answer["per_image/prediction_natural"][[2, 5], 0].tolist() == [-1, -1]
    right = (answer["per_image/prediction_natural"][:, 0] == 0).mean()
    assert np.asarray(answer.result["accuracy/natural"])[0, 0] == pytest.approx(right)
    (doubt,) = [doubt for doubt in answer.result.doubts if "logits" in doubt and "counted from 0: 2, 5" in doubt]
    assert doubt.endswith("on 2 images (counted from 0: 2, 5). Such an answer is never right.")


class Root(nn.Module):
    """Its answers have no gradient where an image has one color."""

    def __init__(self) -> None:
        super().__init__()
        self.network = seed_network(Convolutions)

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        spread = (flat - flat[:, :1]).square().sum(1, keepdim=True).sqrt()
        logits: Tensor = self.network(images) + spread
        return logits


@pytest.mark.parametrize("question", ["gradient-maps", "map-quality"])
def test_a_gradient_that_is_no_number_names_the_image_in_its_split(question: str) -> None:
    model = ir.load(Root(), with_gray((5,)), label="mine")
    with pytest.raises(UserError, match=r"answers or their gradients are not finite numbers on 1 image \(.* 5\)"):
        ir.analyze(question, model, batch_size=4)


def test_training_images_without_answers_are_named_as_such() -> None:
    images = DATA.train.images.copy()
    images[5] = 128
    data = Dataset("gray", Split(images, DATA.train.labels), DATA.test, DATA.class_names)
    model = ir.load(Standardization(), data, label="mine")
    with pytest.raises(
        UserError, match=r"Standardization: .* finite numbers on 1 training image \(counted from 0: 5\)"
    ):
        ir.analyze("feature-deletion", model, batch_size=4)


def test_images_without_answers_are_not_blamed_for_large_logits() -> None:
    (doubt,) = doubts_about(ChangedLogits(lambda z: torch.where(torch.arange(len(z))[:, None] % 8 < 5, torch.nan, z)))
    assert doubt == "mine answers 5 of 8 test images with logits that are not finite numbers."


# --- a limit


def split_of(labels: list[int]) -> Split:
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None, None].repeat(3, 3)
    return Split(images, np.array(labels), images[..., 0] > 3)


def test_a_split_in_the_order_of_its_classes_is_drawn_in_proportion() -> None:
    split = split_of([0] * 40 + [1] * 20 + [2] * 20)
    assert split.is_in_class_order
    sample = split.draw(8)
    assert sample.labels.tolist() == [0, 1, 2, 0, 0, 1, 2, 0]
    assert sample.images[:, 0, 0, 0].tolist() == [0, 40, 60, 1, 2, 41, 61, 3]
    assert sample.masks is not None and sample.masks[:, 0, 0].tolist() == [
        False,
        True,
        True,
        False,
        False,
        True,
        True,
        False,
    ]
    for limit in range(1, 79):
        labels = split.draw(limit).labels
        assert (labels == split.draw(limit + 1).labels[:limit]).all()
        np.testing.assert_allclose(np.bincount(labels, minlength=3), limit * np.array([0.5, 0.25, 0.25]), atol=1)
    np.testing.assert_array_equal(split.draw(80).labels, split.labels)
    assert split.draw(None) is split


@pytest.mark.parametrize(
    "labels", [[0, 1, 2] * 20, [0] * 50, list(np.random.default_rng(0).integers(0, 3, 200)), [1], [0, 0, 1, 1]]
)
def test_of_any_other_split_the_first_images_are_taken(labels: list[int]) -> None:
    split = split_of(labels)
    assert not split.is_in_class_order
    np.testing.assert_array_equal(split.draw(2).images, split.images[:2])


def test_a_file_says_how_its_images_were_drawn() -> None:
    order = np.argsort(np.tile(np.arange(K), 9), kind="stable")
    images = np.random.default_rng(0).integers(0, 256, (9 * K, H, W, C), dtype=np.uint8)
    split = Split(images, np.tile(np.arange(K), 9)[order])
    model = ir.load(seed_network(Convolutions), Dataset("sorted", split, split, DATA.class_names), label="mine")
    answer = ir.analyze("alignment", model, limit=K)
    assert answer["per_image/label"].tolist() == list(range(K))
    assert "The 7 images are drawn from all classes in proportion" in " ".join(str(answer).split())
    assert "drawn" not in ir.analyze("alignment", model).result.data


# --- files that were written anew, and images that are black


def test_a_file_that_was_written_anew_is_read_again(tmp_path: Path) -> None:
    path, weights = tmp_path / "x.npz", tmp_path / "w.pt"
    images = np.random.default_rng(0).integers(0, 256, (7, H, W, C), np.uint8)
    locations = str(path), f"{__name__}:Convolutions"
    answers = []
    for shift in (0, 1):
        labels = (np.arange(7) + shift) % 7
        write_npz(path, {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels})
        torch.save(seed_network(Convolutions, seed=shift).state_dict(), weights)
        assert load_dataset(locations[0]).test.labels[0] == shift
        model = ir.load(locations[1], locations[0], weights=str(weights), normalize="none")
        answers.append(model(torch.ones(1, C, H, W)))
        torch.testing.assert_close(answers[-1], seed_network(Convolutions, seed=shift)(torch.ones(1, C, H, W)))
    assert not torch.equal(*answers)


def test_images_that_were_divided_by_255_twice_are_refused(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 2, (4, H, W, C), np.uint8)
    with pytest.raises(UserError, match="the brightest pixel is 1 of 255, as where images were divided by 255 before"):
        ir.make_dataset(images / np.float32(255), [0, 1, 0, 1])
    write_npz(
        tmp_path / "x.npz",
        {f"{key}_{part}": values for part in ("train", "test") for key, values in (("x", images), ("y", np.arange(4)))},
    )
    with pytest.raises(UserError, match=r"x.npz: the brightest pixel of x_train is 1 of 255"):
        load_dataset(str(tmp_path / "x.npz"))


# --- completeness


@pytest.mark.parametrize("name", ["gradient-maps", "localization"])
def test_maps_say_by_how_much_they_miss_what_they_promise(name: str, tmp_path: Path) -> None:
    path = save_tiny(tmp_path / "tiny.npz")
    model = ir.load(seed_network(Convolutions, 3, 32, 32, 10), str(path), label="mine")
    answer = ir.analyze(name, model, limit=3, source="integrated-gradients")
    images, labels = (load_dataset(str(path)).test.first(3).images, load_dataset(str(path)).test.first(3).labels)
    pixels_in = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    target = torch.from_numpy(labels)
    maps = compute_map("integrated-gradients", model.network, pixels_in, target, range(3))
    with torch.no_grad():
        starts = _noise_images(pixels_in, make_streams(0, range(3)))
        change = cross_entropy(model(pixels_in), target) - cross_entropy(model(starts), target)
    gap = float((maps.sum((1, 2, 3)) - change).abs().sum() / change.abs().sum())
    assert 0 < gap < 0.1
    assert answer.result.run["completeness_gap"] == pytest.approx(gap, rel=1e-3)
    assert f"(completeness) by {gap:.2%}" in " ".join(str(answer).split())
    assert "completeness_gap" not in ir.analyze(name, model, limit=3).result.run
