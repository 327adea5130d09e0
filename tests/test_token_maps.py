"""Rollout, relevance and heads of transformers against slow second implementations, and networks of known attention."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from anyone import C, Convolutions, K, Transformer, assert_unchanged, save_tiny, seed_network
from command import irt
from networks import Array, array, pixels
from PIL import Image
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from interpret_robust.attribution import token_maps
from interpret_robust.attribution.gradients import check_source, compute_map, compute_position_weights, map_promise
from interpret_robust.attribution.token_maps import compute_token_map, compute_token_weights, is_rule
from interpret_robust.core.errors import UserError
from interpret_robust.datasets import load
from interpret_robust.datasets.batches import to_pixels
from interpret_robust.models import external
from interpret_robust.models.card import Card
from interpret_robust.models.layers.choice import choose_layer
from interpret_robust.models.layers.self_attention import attend, read_tokens, watch_attention
from interpret_robust.models.preprocess import Preprocess
from interpret_robust.models.wrapper import WrappedModel
from interpret_robust.results import hdf5

PLAIN = Preprocess((0.0,), (1.0,))
N = 3
LABELS = torch.tensor([4, 0, 6])


# --- networks, and where their first token of the image and those that the answer reads lie


def timm_vit(**arguments: Any) -> nn.Module:
    library = pytest.importorskip("timm.models.vision_transformer")
    sizes = {"img_size": (12, 18), "patch_size": 6, "embed_dim": 24, "depth": 3, "num_heads": 4, "num_classes": K}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network: nn.Module = library.VisionTransformer(**{**sizes, **arguments})
        _sharpen(network)
    return network


def distilled_vit() -> nn.Module:
    library = pytest.importorskip("timm.models.deit")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network: nn.Module = library.VisionTransformerDistilled(
            img_size=(12, 18), patch_size=6, embed_dim=24, depth=2, num_heads=3, num_classes=K
        )
        _sharpen(network)
    return network


def torchvision_vit() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network: nn.Module = VisionTransformer(12, 4, 2, 3, 24, 32, num_classes=K)
        _sharpen(network)
    return network


def _sharpen(network: nn.Module) -> None:
    """Attention of fresh networks is nearly equal everywhere, and torchvision's answers are zero."""
    with torch.no_grad():
        for weights in network.parameters():
            weights.add_(0.2 * torch.randn(weights.shape))


def own_softmax() -> nn.Module:
    network: nn.Module = seed_network(Transformer, 2)
    return network


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int], int, list[int]]] = {
    "class token": (timm_vit, (2, 3), 1, [0]),
    "mean of tokens": (lambda: timm_vit(global_pool="avg"), (2, 3), 1, [1, 2, 3, 4, 5, 6]),
    "no class token": (lambda: timm_vit(global_pool="avg", class_token=False), (2, 3), 0, [0, 1, 2, 3, 4, 5]),
    "registers": (lambda: timm_vit(reg_tokens=4), (2, 3), 5, [0]),
    "registers alone": (
        lambda: timm_vit(reg_tokens=2, class_token=False, global_pool="avg"), (2, 3), 2, [2, 3, 4, 5, 6, 7],
    ),
    "distilled": (distilled_vit, (2, 3), 2, [0, 1]),
    "torchvision": (torchvision_vit, (3, 3), 1, [0]),
    "own softmax": (own_softmax, (2, 3), 2, [0]),
}  # fmt: skip


def images_of(name: str, count: int = N) -> Tensor:
    return pixels(count, C, 12, 12 if name == "torchvision" else 18, seed=1)


def wrap(network: nn.Module, image: Tensor) -> WrappedModel:
    network.eval().requires_grad_(False)
    choice = choose_layer(network, PLAIN, image)
    assert choice is not None
    return WrappedModel(network, PLAIN, choice.name, first_token=choice.first)


def model_of(name: str) -> WrappedModel:
    return wrap(NETWORKS[name][0](), images_of(name, 1))


every_network = pytest.mark.parametrize("name", NETWORKS)


# --- the slow second implementation


class Explicit(nn.Module):
    """What `nn.MultiheadAttention` computes, head by head and query by query."""

    def __init__(self, original: nn.MultiheadAttention) -> None:
        super().__init__()
        self.original, self.softmax = original, nn.Identity()

    def forward(self, sequence: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        weight, bias, heads = self.original.in_proj_weight, self.original.in_proj_bias, self.original.num_heads
        parts = [F.linear(sequence, *projection) for projection in zip(weight.chunk(3), bias.chunk(3), strict=True)]
        queries, keys, values = (part.reshape(*sequence.shape[:2], heads, -1) for part in parts)
        rows = [
            [
                torch.softmax((keys[:, :, head] * queries[:, query, None, head]).sum(2) / queries.shape[3] ** 0.5, 1)
                for query in range(sequence.shape[1])
            ]
            for head in range(heads)
        ]
        attention = self.softmax(torch.stack([torch.stack(row, 1) for row in rows], 1))
        mixture = torch.einsum("nhqk,nkhd->nqhd", attention, values).flatten(2)
        return self.original.out_proj(mixture), None


def reference(model: WrappedModel, images: Tensor, classes: Tensor | None) -> tuple[list[Array], list[Array], Tensor]:
    """Attention of each block, the gradients of the classes' logits, and the logits: by hooks, with nothing fused."""
    network = copy.deepcopy(model.backbone)
    modules: list[Any] = list(network.modules())
    for module in modules:
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
        if isinstance(layer := getattr(module, "self_attention", None), nn.MultiheadAttention):
            module.self_attention = Explicit(layer)
    outputs: list[Tensor] = []
    for path, module in network.named_modules():
        if path.endswith(("attn_drop", "softmax")):
            module.register_forward_hook(lambda _, __, output: outputs.append(output))
    logits = network(images.clone().requires_grad_())
    scores = logits.max(1).values if classes is None else logits[range(len(images)), classes]
    return (
        [array(tensor) for tensor in outputs],
        [array(tensor) for tensor in torch.autograd.grad(scores.sum(), outputs)],
        logits.detach(),
    )


def slow_weights(rule: str, name: str, model: WrappedModel, images: Tensor, classes: Tensor | None = None) -> Array:
    """By products of whole matrices, image by image and head by head."""
    _, (height, width), first, readers = NETWORKS[name]
    blocks, gradients, _ = reference(model, images, classes)
    heads, count = blocks[0].shape[1], blocks[0].shape[2]
    maps = []
    for place in range(len(images)):
        if rule.startswith("head:"):
            block, _, head = rule.removeprefix("head:").partition(".")
            head_numbers = range(heads) if not head else [int(head)]
            whole = sum(blocks[int(block)][place, head] for head in head_numbers) / len(head_numbers)
        else:
            whole = np.eye(count)
            for attention, gradient in zip(blocks, gradients, strict=True):
                if rule == "rollout":
                    mean = sum(attention[place, head] for head in range(heads)) / heads
                    whole = (0.5 * mean + 0.5 * np.eye(count)) @ whole
                else:
                    mean = sum(np.maximum(attention[place, h] * gradient[place, h], 0) for h in range(heads)) / heads
                    whole = whole + mean @ whole
            whole = whole - np.eye(count) if rule == "relevance" else whole
        maps.append(np.mean([whole[reader, first : first + height * width] for reader in readers], 0))
    return np.stack(maps).reshape(-1, height, width)


# --- what is seen of a network


@every_network
def test_attention_is_what_hooks_see_where_nothing_is_fused_and_logits_are_those_of_the_plain_pass(name: str) -> None:
    model, images = model_of(name), images_of(name)
    expected, _, logits = reference(model, images, None)
    with torch.no_grad():
        blocks, answer = attend(model, images)
        torch.testing.assert_close(answer, model(images), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(answer, logits, rtol=1e-4, atol=1e-5)
    assert len(blocks) == len(expected) > 1
    for block, matrix in zip(blocks, expected, strict=True):
        assert block.shape == matrix.shape
        np.testing.assert_allclose(array(block), matrix, rtol=1e-4, atol=1e-6)
        assert matrix.max() > 1.5 / matrix.shape[-1]


@pytest.mark.parametrize("is_fused", [True, False])
def test_attention_is_seen_whether_or_not_timm_fuses_it(is_fused: bool) -> None:
    model, images = model_of("class token"), images_of("class token")
    expected = compute_token_weights("rollout", model, images)
    modules: list[Any] = list(model.modules())
    for module in modules:
        if hasattr(module, "fused_attn"):
            module.fused_attn = is_fused
    torch.testing.assert_close(compute_token_weights("rollout", model, images), expected, rtol=1e-5, atol=1e-7)


@every_network
def test_the_images_tokens_and_those_that_the_answer_is_read_from_are_measured(name: str) -> None:
    _, grid, first, readers = NETWORKS[name]
    layout = read_tokens(model_of(name), images_of(name, 1))
    assert (layout.first, layout.grid) == (first, grid)
    assert layout.readers.nonzero().flatten().tolist() == readers
    np.testing.assert_allclose(array(layout.readers)[readers], 1 / len(readers), rtol=1e-6)


def test_the_class_token_is_read_although_fresh_answers_are_zero() -> None:
    images = images_of("own softmax", 1)
    layout = read_tokens(wrap(seed_network(Transformer, 1, seed=0), images), images)
    network = seed_network(Transformer, 1)
    nn.init.zeros_(network.answer.weight)
    zero = read_tokens(wrap(network, images), images)
    assert torch.equal(zero.readers, layout.readers)
    assert zero.readers.tolist() == [1, 0, 0, 0, 0, 0, 0]


MASKS = {
    "none": {},
    "additive": {"attn_mask": 3 * pixels(2, 3, 4, 5, seed=4) - 1},
    "boolean": {"attn_mask": (pixels(4, 5, seed=5) > 0.3) | torch.eye(4, 5).bool()},
    "a query without keys": {"attn_mask": torch.arange(4)[:, None].expand(4, 5) > 0},
    "causal": {"is_causal": True},
    "scale": {"scale": 1.7},
}


@pytest.mark.parametrize("keywords", MASKS.values(), ids=MASKS)
def test_fused_attention_is_what_torch_computes(keywords: dict[str, Any]) -> None:
    query, key, value = pixels(2, 3, 4, 8, seed=1), pixels(2, 3, 5, 8, seed=2), pixels(2, 3, 5, 7, seed=3)
    expected = F.scaled_dot_product_attention(query, key, value, **keywords)
    with watch_attention() as blocks:
        output = F.scaled_dot_product_attention(query, key, value, **keywords)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(blocks[0].detach() @ value, expected)


def test_grouped_queries_share_keys_and_values() -> None:
    query, key, value = pixels(2, 6, 4, 8, seed=1), pixels(2, 3, 5, 8, seed=2), pixels(2, 3, 5, 7, seed=3)
    expected = F.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    with watch_attention() as blocks:
        output = F.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    torch.testing.assert_close(output, expected)
    assert blocks[0].shape == (2, 6, 4, 5)


@pytest.mark.parametrize("shape", [(2, 5, 12), (5, 12)])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("keywords", [{}, {"average_attn_weights": False}, {"need_weights": False}])
@pytest.mark.parametrize("training", [True, False])
def test_multi_head_attention_gives_what_it_gave(
    shape: tuple[int, ...], first: bool, keywords: dict[str, Any], training: bool
) -> None:
    layer = nn.MultiheadAttention(12, 3, batch_first=first).train(training)
    sequence = pixels(*shape, seed=1)
    mask = pixels(5, 5, seed=2) if first or len(shape) == 2 else None
    expected = layer(sequence, sequence, sequence, attn_mask=mask, **keywords)
    with watch_attention() as blocks:
        result = layer(sequence, sequence, sequence, attn_mask=mask, **keywords)
    torch.testing.assert_close(result[0], expected[0])
    assert len(blocks) == 1 and blocks[0].shape[1] == 3
    if expected[1] is None:
        assert result[1] is None
    else:
        torch.testing.assert_close(result[1], expected[1])


def test_attention_of_torchs_encoder_layers_is_seen_in_eval_mode() -> None:
    """They have a path of their own where no gradient is needed, that runs without any function of attention."""
    layer = nn.TransformerEncoderLayer(12, 3, 16, batch_first=True).eval().requires_grad_(False)
    sequence = pixels(2, 5, 12)
    with torch.no_grad(), watch_attention() as blocks:
        output = layer(sequence)
    torch.testing.assert_close(output, layer(sequence))
    assert [tuple(block.shape) for block in blocks] == [(2, 3, 5, 5)]


@pytest.mark.parametrize("name", ["registers", "torchvision", "own softmax"])
def test_network_images_and_random_state_are_left_as_found(name: str) -> None:
    model, images = model_of(name), images_of(name)
    for grad in (True, False):
        with torch.set_grad_enabled(grad), assert_unchanged(model, images):
            for rule in ("rollout", "relevance", "head:0"):
                compute_token_weights(rule, model, images)
                compute_map(rule, model, images, LABELS, range(N))


def test_fused_attention_is_fused_again_after_an_exception() -> None:
    def fails() -> None:
        with watch_attention() as blocks:
            F.scaled_dot_product_attention(pixels(1, 1, 2, 3), pixels(1, 1, 2, 3), pixels(1, 1, 2, 3))
            assert len(blocks) == 1
            raise RuntimeError("in between")

    with pytest.raises(RuntimeError, match="in between"):
        fails()
    sequence = pixels(1, 1, 2, 3).requires_grad_()
    assert "ScaledDotProduct" in F.scaled_dot_product_attention(sequence, sequence, sequence).grad_fn.name()  # type: ignore[union-attr]


# --- the rules


@every_network
@pytest.mark.parametrize("rule", ["rollout", "relevance", "head:0", "head:1.1"])
def test_weights_are_those_of_whole_matrices(name: str, rule: str) -> None:
    model, images = model_of(name), images_of(name)
    for classes in (None, LABELS):
        expected = slow_weights(rule, name, model, images, classes)
        assert expected.max() > 1.1 * expected.mean() > 0
        actual = compute_token_weights(rule, model, images, classes)
        np.testing.assert_allclose(array(actual), expected, rtol=2e-3, atol=1e-6)
    weights = array(compute_position_weights(model, images, rule))
    expected = slow_weights(rule, name, model, images).reshape(N, -1)
    np.testing.assert_allclose(weights, expected / expected.sum(1, keepdims=True), rtol=2e-3, atol=1e-6)


def test_weights_of_an_image_do_not_depend_on_its_batch_nor_on_how_it_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = model_of("registers"), images_of("registers", 5)
    labels = torch.arange(5)
    whole = {rule: compute_token_weights(rule, model, images, labels) for rule in ("rollout", "relevance", "head:2.0")}
    monkeypatch.setattr(token_maps, "AT_ONCE", 2)
    for rule, expected in whole.items():
        torch.testing.assert_close(compute_token_weights(rule, model, images, labels), expected, rtol=1e-4, atol=1e-7)
        for place in range(5):
            part = slice(place, place + 1)
            alone = compute_token_weights(rule, model, images[part], labels[part])
            torch.testing.assert_close(alone, expected[part], rtol=1e-4, atol=1e-7)


class Pointer(nn.Module):
    """Its class token attends to the token `target` alone, in the second of two blocks; in the first all attend to
    themselves. Class k is told by color k of the token attended to.
    """

    def __init__(self, target: int, side: int = 5) -> None:
        super().__init__()
        self.target, self.side, self.tap = target, side, nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        patches = F.avg_pool2d(images, self.side).flatten(2).transpose(1, 2)
        sequence = torch.cat([torch.zeros_like(patches[:, :1]), patches], 1)
        count = sequence.shape[1]
        own_score, pointing = 200 * torch.eye(count), torch.zeros(count, count)
        pointing[0, 1 + self.target] = 200
        for scores in (own_score, pointing):
            zeros = torch.zeros(len(images), 2, count, 1)
            update = F.scaled_dot_product_attention(zeros, zeros, sequence[:, None].expand(-1, 2, -1, -1), scores)
            sequence = sequence + update.mean(1)
            sequence = torch.cat([sequence[:, :1], self.tap(sequence[:, 1:])], 1) if scores is own_score else sequence
        return sequence[:, 0]


@pytest.mark.parametrize("target", range(6))
def test_of_a_class_token_that_attends_to_one_token_all_weight_is_there(target: int) -> None:
    images = pixels(N, C, 10, 15, seed=1, low=0.1)
    model = WrappedModel(Pointer(target), PLAIN, "tap")
    for rule in ("rollout", "relevance", "head:1", "head:1.0", "head:1.1"):
        weights = array(compute_position_weights(model, images, rule))
        np.testing.assert_allclose(weights, np.tile(np.eye(6)[target], (N, 1)), atol=1e-6)
    # The other half of the class token's row is its own, by the I of the second block.
    rollout = array(compute_token_weights("rollout", model, images)).reshape(N, 6)
    np.testing.assert_allclose(rollout[:, target], 0.5, rtol=1e-6)
    classes = torch.tensor([2, 0, 1])
    relevance = array(compute_token_weights("relevance", model, images, classes)).reshape(N, 6)
    color = array(F.avg_pool2d(images, 5).flatten(2))[range(N), classes, target]
    np.testing.assert_allclose(relevance[:, target], _relevance_of_pointer(color), rtol=1e-4)


def _relevance_of_pointer(color: Array) -> Array:
    """R - I of the class token's row at the target, by hand: two heads share what is added.

    In the first block the target's token attends to itself, A = 1, and the logit rises by half of its color for each
    head's, so that its E is c / 2. In the second the class token attends to the target, whose color is 2 c by then: c.
    The product of both blocks comes on top: R = I + A1, then + A2 (I + A1), of which the entry is A2 + A2 A1.
    """
    return color + color * color / 2


def test_a_map_lies_over_the_pixels_of_its_tokens_and_is_minus_their_weights() -> None:
    images = pixels(N, C, 10, 15, seed=1, low=0.1)
    model, classes = WrappedModel(Pointer(4), PLAIN, "tap"), torch.tensor([2, 0, 1])
    for rule in ("rollout", "relevance", "head:1.1"):
        weights = array(compute_token_weights(rule, model, images, classes))
        actual = array(compute_map(rule, model, images, classes, range(N)))
        assert actual.shape == images.shape
        for color in range(C):  # the middle of each token, and half way between two
            np.testing.assert_allclose(actual[:, color, 2::5, 2::5], -weights, rtol=1e-5, atol=1e-9)
            blend = -(0.6 * weights[:, :, :-1] + 0.4 * weights[:, :, 1:])
            np.testing.assert_allclose(actual[:, color, 2::5, 4:-5:5], blend, rtol=1e-5, atol=1e-9)
        assert map_promise(rule, model, images, classes, range(N)).isnan().all()


def test_maps_of_relevance_are_of_the_labels_and_weights_of_the_predicted_class() -> None:
    model, images = model_of("class token"), images_of("class token")
    predicted = model(images).argmax(1)
    other = (predicted + 1) % K
    torch.testing.assert_close(
        compute_position_weights(model, images, "relevance")
        * compute_token_weights("relevance", model, images).sum((1, 2))[:, None],
        compute_token_weights("relevance", model, images, predicted).flatten(1),
    )
    assert not torch.allclose(
        compute_token_map("relevance", model, images, predicted), compute_token_map("relevance", model, images, other)
    )


# --- what is refused


def test_names_of_rules() -> None:
    for rule in ("rollout", "relevance", "head:0", "head:11.3", "head:3.10"):
        assert is_rule(rule) and check_source(rule) == rule
    for name in ("head", "head:", "head:1.", "head:-1", "head:01", "head:1.2.3", "Rollout", "head:BLOCK", "my:rollout"):
        assert not is_rule(name)
        with pytest.raises(UserError, match=r"unknown source of maps .*known are .*head:BLOCK\.HEAD.* rollout"):
            check_source(name)


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ("head:3", "head:3 names block 3, and this network has 3, numbered from 0."),
        ("head:0.4", "head:0.4 names head 4, and block 0 has 4, numbered from 0."),
    ],
)
def test_blocks_and_heads_that_are_not_there_are_the_users_error(rule: str, sentence: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(sentence)}$"):
        compute_token_weights(rule, model_of("class token"), images_of("class token"))


def test_a_network_without_attention_is_refused() -> None:
    model = WrappedModel(seed_network(Convolutions), PLAIN, "body")
    for rule in ("rollout", "relevance", "head:0"):
        with pytest.raises(UserError, match="this network has no self-attention that can be seen"):
            compute_position_weights(model, pixels(N, C, 12, 18), rule)
    with pytest.raises(UserError, match="the model has no local features"):
        compute_map("rollout", nn.Identity(), pixels(N, C, 12, 18), LABELS, range(N))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("swin_tiny_patch4_window7_224", {"img_size": 56, "depths": (1, 1), "embed_dim": 12, "num_heads": (2, 2)}),
        ("pvt_v2_b0", {"depths": (1, 1, 1, 1)}),
        ("xcit_nano_12_p8_224", {"img_size": 56, "depth": 1}),
        ("cait_xxs24_224", {"img_size": 56, "depth": 1}),
    ],
)
def test_attention_that_is_not_over_all_tokens_is_refused(name: str, arguments: dict[str, Any]) -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model(name, num_classes=K, **arguments)
    image = pixels(1, C, 56, 56)
    with pytest.raises(UserError, match=r"the attention of this network gives weights of shape \(\d+, \d+, \d+, \d+\)"):
        compute_token_weights("rollout", wrap(network, image), image)


def test_local_features_of_another_grid_are_refused() -> None:
    network = timm_vit(img_size=24, patch_size=6)
    image = pixels(1, C, 24, 24)
    network.coarse = coarse = nn.AvgPool2d(2)
    model = WrappedModel(network, PLAIN, "patch_embed.proj")
    assert compute_token_weights("rollout", model, image).shape == (1, 4, 4)

    def forward(images: Tensor) -> Any:
        coarse(images[:, :, ::6, ::6])
        return type(network).forward(network, images)

    network.forward = forward
    with pytest.raises(UserError, match=r"attention is over 17 tokens, of which 1 come before .* have 4 positions"):
        compute_token_weights("rollout", WrappedModel(network, PLAIN, "coarse"), image)


def test_a_network_that_draws_random_numbers_is_refused() -> None:
    model = model_of("class token")
    model.draws = 2
    with pytest.raises(UserError, match="attends differently in each pass: leave --draws out"):
        compute_token_weights("rollout", model, images_of("class token"))


# --- through the command

DEPTH: dict[str, Any] = {
    "weights": "random", "label": "vit", "arguments": (("img_size", 32), ("patch_size", 8), ("depth", 2)),
}  # fmt: skip
VIT = ["--model", "timm:vit_tiny_patch16_224", "--weights", "random", "--label", "vit"]
VIT += [word for size in ("img_size=32", "patch_size=8", "depth=2") for word in ("--model-arg", size)]


@pytest.mark.long
@pytest.mark.parametrize(
    ("question", "option", "rule", "extras"),
    [
        ("attention-rank", "spatial-weight", "rollout", ["--steps", "2"]),
        ("localization", "source", "relevance", ["--spatial-weight", "head:1.2"]),
        ("map-quality", "source", "head:1", ["--samples", "2"]),
    ],
)
def test_a_transformer_is_asked_by_its_attention(
    question: str,
    option: str,
    rule: str,
    extras: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("timm")
    data = str(save_tiny(tmp_path / "tiny.npz"))
    words = ["analyze", question, *VIT, "--dataset", data, f"--{option}", rule, *extras, "--limit", "3"]
    status, out, err = irt(capsys, monkeypatch, *words, "--root", tmp_path)
    assert status == 0, err
    (path,) = tmp_path.glob("analyses/*.h5")
    result = hdf5.read(path)
    assert result.config["settings"][option.replace("-", "_")] == rule
    assert rule in out or question != "attention-rank"
    if question == "attention-rank":
        pixels_of_test = to_pixels(torch.from_numpy(load(data).test.images[:3])).permute(0, 3, 1, 2)
        model = external.find_subject(Card("timm:vit_tiny_patch16_224", **DEPTH), data).model(torch.device("cpu"))
        assert isinstance(model, WrappedModel)
        expected = _rollout_of_class_token(reference(model, pixels_of_test, None)[0])
        np.testing.assert_allclose(result["per_image/attention"], expected, rtol=1e-3)
        assert (result["per_image/distance"] > 0).all()
        assert np.isfinite(result["per_image/spearman"]).all()


def test_a_picture_is_explained_by_a_head_and_layers_are_listed_with_the_number_of_heads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("timm")
    image = pixels(32, 32, 3, seed=5)
    Image.fromarray((255 * image).round().byte().numpy()).save(tmp_path / "noise.png")
    data = str(save_tiny(tmp_path / "tiny.npz"))
    words = [
        "explain",
        tmp_path / "noise.png",
        *VIT,
        "--dataset",
        data,
        "--eps",
        "0",
        "--steps",
        "1",
        "--root",
        tmp_path,
    ]
    status, out, err = irt(capsys, monkeypatch, *words, "--spatial-weight", "head:1.2")
    assert status == 0, err
    drawing = json.loads(Path(out.splitlines()[-1]).with_suffix(".json").read_text())
    model = external.find_subject(Card("timm:vit_tiny_patch16_224", **DEPTH), data).model(torch.device("cpu"))
    assert isinstance(model, WrappedModel)
    picture = ((255 * image).round() / 255).permute(2, 0, 1)[None]
    attention = reference(model, picture, None)[0][1][0, 2, 0, 1:].reshape(4, 4)
    np.testing.assert_allclose(drawing["numbers"]["natural"]["weights"], attention / attention.sum(), rtol=2e-3)
    assert "head:1.2" in json.dumps(drawing)
    status, _, err = irt(capsys, monkeypatch, *words, "--spatial-weight", "rollout")
    assert status == 2 and "exists already" in err

    status, out, err = irt(capsys, monkeypatch, "model", "layers", *VIT, "--dataset", data)
    assert (status, err) == (0, "")
    assert out.splitlines()[-1].startswith(
        "self-attention in 2 blocks of 3 heads over 4x4 tokens of the image: --spatial"
    )
    words = ["--model", "torchvision:resnet18", "--weights", "random", "--dataset", data]
    status, out, _ = irt(capsys, monkeypatch, "model", "layers", *words)
    assert status == 0 and "attention" not in out


@pytest.mark.long
def test_a_head_of_the_last_block_is_another_one_from_the_stage_of_its_block_on(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    make_checkpoint: Callable[..., Path],
) -> None:
    pytest.importorskip("timm")
    data, reader = save_tiny(tmp_path / "tiny.npz"), make_checkpoint(tmp_path, "natural", 1)
    words = [*VIT[:-1], "depth=4", "--dataset", data, "--evaluator", reader, "--limit", "3", "--root", tmp_path]
    for question, *rule in (
        ("randomization", "--spatial-weight", "head:3.1"),
        ("gradmap-score", "--source", "rollout"),
    ):
        status, _, err = irt(capsys, monkeypatch, "analyze", question, *words, *rule)
        assert status == 0, err
    (path,) = tmp_path.glob("analyses/randomization*.h5")
    result = hdf5.read(path)
    weights = dict(zip(map(str, result["stage"]), result["per_image/weights"].T, strict=True))
    upper_stages = list(weights)[: list(weights).index("blocks.3")]
    assert upper_stages == ["trained", "head", "norm"]
    for name, correlations in weights.items():
        assert (np.isclose(correlations, 1, atol=1e-5) == (name in upper_stages)).all(), name


def _rollout_of_class_token(blocks: list[Array]) -> Array:
    whole = np.eye(blocks[0].shape[-1])
    for attention in blocks:
        whole = (attention.mean(1) + np.eye(attention.shape[-1])) / 2 @ whole
    weights: Array = whole[:, 0, 1:] / whole[:, 0, 1:].sum(1, keepdims=True)
    return weights


# --- pools by attention


def leave_first_out(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0][:, 1:],)


def attention_pooled(*, reads_first: bool = True, **arguments: Any) -> nn.Module:
    network: Any = timm_vit(global_pool="map", **arguments)
    network.attn_pool.q.weight.data.mul_(20)
    if not reads_first:  # as later versions of timm do
        network.attn_pool.register_forward_pre_hook(leave_first_out)
    return network  # type: ignore[no-any-return]


POOL_CASES: dict[str, tuple[dict[str, Any], int]] = {
    "tokens of the image alone": ({"class_token": False}, 0),
    "a class token that the pool reads": ({}, 1),
    "a class token that the pool leaves out": ({"reads_first": False}, 1),
    "registers": ({"class_token": False, "reg_tokens": 2}, 2),
}


def pool_weights(model: WrappedModel, images: Tensor) -> Tensor:
    """Return softmax(q k / sqrt(d)) (N, heads, T) of timm's pool, from what it sees, by its weights."""
    pool: Any = model.backbone.attn_pool
    inputs: list[Tensor] = []
    handle = pool.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    model(images)
    handle.remove()
    width = pool.head_dim * pool.num_heads
    keys = F.linear(inputs[0], pool.kv.weight[:width], pool.kv.bias[:width])
    query = pool.q(pool.latent)[0, 0]
    parts = [slice(head * pool.head_dim, (head + 1) * pool.head_dim) for head in range(pool.num_heads)]
    scores = [(keys[:, :, part] * query[part]).sum(2) / pool.head_dim**0.5 for part in parts]
    return torch.stack(scores, 1).softmax(2)


@pytest.mark.parametrize(("arguments", "first"), POOL_CASES.values(), ids=POOL_CASES)
def test_the_last_head_of_a_network_with_an_attention_pool_is_the_pool(arguments: dict[str, Any], first: int) -> None:
    images = images_of("class token")
    model = wrap(attention_pooled(**arguments), images[:1])
    places = read_tokens(model, images[:1])
    assert (places.first, places.grid, places.token_count) == (first, (2, 3), first + 6)
    assert places.readers.tolist() == [1] and places.heads == (4, 4, 4, 4)
    expected = array(pool_weights(model, images))[:, :, -6:]
    assert expected.max() > 1.5 / 6
    for rule, of_rule in (
        ("head:last", expected.mean(1)),
        ("head:3", expected.mean(1)),
        ("head:last.2", expected[:, 2]),
    ):
        actual = array(compute_token_weights(rule, model, images)).reshape(N, 6)
        np.testing.assert_allclose(actual, of_rule, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("arguments", "first"), POOL_CASES.values(), ids=POOL_CASES)
def test_rules_behind_an_attention_pool_are_its_weights_times_whole_matrices(
    arguments: dict[str, Any], first: int
) -> None:
    images, count = images_of("class token"), first + 6
    model = wrap(attention_pooled(**arguments), images[:1])
    pixels_of = images.clone().requires_grad_()
    with watch_attention() as blocks:
        logits = model(pixels_of)
    gradients = torch.autograd.grad(logits[range(N), LABELS].sum(), blocks)
    for place in range(N):
        rollout, relevance = np.eye(count), np.eye(count)
        for weights, gradient in zip(blocks[:-1], gradients[:-1], strict=True):
            attention, by_class = array(weights[place].detach()), array(gradient[place])
            rollout = (attention.mean(0) + np.eye(count)) / 2 @ rollout
            relevance = relevance + np.maximum(attention * by_class, 0).mean(0) @ relevance
        pool, by_class = array(blocks[-1][place, :, 0].detach()), array(gradients[-1][place, :, 0])
        shares, start = np.zeros(count), np.zeros(count)
        shares[count - pool.shape[1] :] = pool.mean(0)
        start[count - pool.shape[1] :] = np.maximum(pool * by_class, 0).mean(0)
        for rule, expected in (
            ("rollout", shares @ rollout),
            ("relevance", start @ relevance),
            ("head:1.2", shares @ array(blocks[1][place, 2].detach())),
        ):
            actual = array(compute_token_weights(rule, model, images, LABELS))[place].flatten()
            np.testing.assert_allclose(actual, expected[first:], rtol=1e-3, atol=1e-6)


class ConvolutionsAndPool(nn.Module):
    """Convolutions, and a pool of timm's in which every token goes through the answering layer before one is taken."""

    def __init__(self, kind: str, **arguments: Any) -> None:
        super().__init__()
        library = pytest.importorskip("timm.layers.attention_pool2d")
        self.convolutions = nn.Conv2d(C, 16, 5, stride=5)
        self.pool = getattr(library, kind)(16, out_features=K, num_heads=2, **arguments)

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.pool(self.convolutions(images).relu())
        return answer

    def first_row(self, images: Tensor) -> Tensor:
        """Return the weights (N, heads, 1 + positions) by which the mean token, or the class token, attends."""
        pool: Any = self.pool
        patches = self.convolutions(images).relu().flatten(2).transpose(1, 2)
        first = patches.mean(1, keepdim=True) if pool.cls_token is None else pool.cls_token.expand(len(patches), 1, -1)
        together = torch.cat([first, patches], 1)
        is_absolute = isinstance(pool.pos_embed, nn.Parameter)
        if is_absolute:
            together = together + pool.pos_embed
        query, key, _ = F.linear(together, pool.qkv.weight, pool.qkv.bias).chunk(3, 2)
        rows = []
        for part in (slice(0, 8), slice(8, 16)):
            keys = key[:, :, part]
            if not is_absolute:  # pairs of numbers of a token are turned by its place, the first token is not
                sines, cosines = pool.pos_embed.get_embed((3, 2))
                even, odd = keys[:, 1:, ::2], keys[:, 1:, 1::2]
                rotation = torch.stack(
                    [
                        even * cosines[:, ::2] - odd * sines[:, ::2],
                        odd * cosines[:, 1::2] + even * sines[:, 1::2],
                    ],
                    -1,
                ).flatten(2)
                keys = torch.cat([keys[:, :1], rotation], 1)
            rows.append(((keys * query[:, :1, part]).sum(2) / 8**0.5).softmax(1))
        return torch.stack(rows, 1)


POOLS: dict[str, tuple[dict[str, Any], tuple[int, int]]] = {
    "AttentionPool2d": ({"feat_size": (3, 3)}, (3, 3)),  # its weights of places fit squares alone
    "RotAttentionPool2d": ({"ref_feat_size": (3, 2)}, (3, 2)),
}


@pytest.mark.parametrize("has_fresh_answer", [False, True], ids=["random answer", "answer of zero"])
@pytest.mark.parametrize("class_token", [False, True], ids=["mean token", "class token"])
@pytest.mark.parametrize("kind", POOLS)
def test_a_pool_that_answers_for_each_token_and_takes_the_first_is_read_in_the_first_row(
    kind: str, class_token: bool, has_fresh_answer: bool
) -> None:
    size, (height, width) = POOLS[kind]
    images, count = pixels(N, C, 5 * height, 5 * width, seed=4), height * width
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network: Any = ConvolutionsAndPool(kind, class_token=class_token, **size).eval()
        _sharpen(network)
    if has_fresh_answer:
        nn.init.zeros_(network.pool.proj.weight)
    model = WrappedModel(network, PLAIN, "convolutions")
    with torch.no_grad():
        places = read_tokens(model, images[:1])
    assert places.readers.tolist() == [1, *[0] * count] and (places.first, places.grid) == (1, (height, width))
    row = array(network.first_row(images).detach())[:, :, 1:]
    assert abs(row - 1 / (1 + count)).max() > 0.02
    for rule, expected in (("head:last", row.mean(1)), ("head:0.1", row[:, 1]), ("rollout", row.mean(1) / 2)):
        actual = array(compute_token_weights(rule, model, images)).reshape(N, count)
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


class ColorPool(nn.Module):
    """A pool by attention over the colors of patches, whose weights are known: in a patch of brightness b, b over their
    sum. With `mean` the mean of the patches stands before them and asks; else a query of its own does.
    """

    def __init__(self, *, mean: bool, side: int = 5) -> None:
        super().__init__()
        self.mean, self.side, self.tap = mean, side, nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        patches = self.tap(F.avg_pool2d(images, self.side)).flatten(2).transpose(1, 2)
        if self.mean:
            patches = torch.cat([patches.mean(1, keepdim=True), patches], 1)
        scores = patches.sum(2, keepdim=True).log().transpose(1, 2)  # (N, 1, T)
        if self.mean:
            scores = scores.expand(-1, patches.shape[1], -1)
        zeros = torch.zeros(*scores.shape[:2], C)
        return F.scaled_dot_product_attention(
            zeros[:, None], torch.zeros_like(patches)[:, None], patches[:, None], scores[:, None]
        )[:, 0, 0]


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("rule", ["head:last", "rollout", "head:0.0"])
def test_an_attention_pool_of_a_convolutional_network_gives_its_closed_form(mean: bool, rule: str) -> None:
    images = pixels(N, C, 10, 15, seed=1, low=0.1)
    model = WrappedModel(ColorPool(mean=mean), PLAIN, "tap")
    brightness = array(F.avg_pool2d(images, 5).sum(1).flatten(1))
    expected = brightness / brightness.sum(1, keepdims=True)
    np.testing.assert_allclose(array(compute_position_weights(model, images, rule)), expected, rtol=1e-5)


# --- softmaxes that are no attention over tokens, or not all that weighs them


class Mixer(nn.Module):
    """Tokens of 4x4 patches of 4 pixels, 16 channels wide, mixed twice in some way; their mean is classified."""

    def __init__(self, mix: Callable[["Mixer", Tensor, nn.Linear], Tensor], *, pools: bool = False) -> None:
        super().__init__()
        self.patches, self.mix, self.pools = nn.Conv2d(C, 16, 4, stride=4), mix, pools
        self.projections: Any = nn.ModuleList(nn.Linear(16, 48) for _ in range(2))
        self.heads, self.score, self.route = nn.Linear(2, 2), nn.Linear(16, 1), nn.Linear(16, 3)
        self.experts = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
        self.answer = nn.Linear(16, K)

    def forward(self, images: Tensor) -> Tensor:
        sequence = self.patches(images).flatten(2).transpose(1, 2)
        for projection in self.projections:
            sequence = sequence + self.mix(self, sequence, projection)
        pooled = self.share(sequence).transpose(1, 2) @ sequence if self.pools else sequence.mean(1, keepdim=True)
        logits: Tensor = self.answer(pooled[:, 0])
        return logits

    def share(self, sequence: Tensor) -> Tensor:
        return torch.softmax(9 * self.score(sequence), dim=1)


def split_heads(sequence: Tensor, projection: nn.Linear) -> tuple[Tensor, Tensor]:
    """Return the attention (N, 2, T, T), and values (N, 2, T, 8)."""
    query, key, value = (part.unflatten(2, (2, 8)).transpose(1, 2) for part in projection(sequence).chunk(3, 2))
    return (4 * query @ key.transpose(2, 3)).softmax(-1), value


def over_tokens(_: Mixer, sequence: Tensor, projection: nn.Linear) -> Tensor:
    attention, value = split_heads(sequence, projection)
    mixture: Tensor = (attention @ value).transpose(1, 2).flatten(2)
    return mixture


def over_channels(_: Mixer, sequence: Tensor, projection: nn.Linear) -> Tensor:
    query, key, value = projection(sequence).chunk(3, 2)
    mixture: Tensor = value @ (query.transpose(1, 2) @ key).softmax(-1).transpose(1, 2)
    return mixture


def over_features(_: Mixer, sequence: Tensor, projection: nn.Linear) -> Tensor:
    query, key, value = projection(sequence).chunk(3, 2)
    mixture: Tensor = query.softmax(-1) @ (key.softmax(-2).transpose(1, 2) @ value)
    return mixture


def by_mixed_heads(network: Mixer, sequence: Tensor, projection: nn.Linear) -> Tensor:
    attention, value = split_heads(sequence, projection)
    mixed = network.heads(attention.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    mixture: Tensor = (mixed @ value).transpose(1, 2).flatten(2)
    return mixture


def by_experts(network: Mixer, sequence: Tensor, projection: nn.Linear) -> Tensor:
    sequence = over_tokens(network, sequence, projection)
    gates = network.route(sequence).softmax(-1)
    return sum((gates[..., n : n + 1] * e(sequence) for n, e in enumerate(network.experts)), torch.zeros(()))


def mixer(mix: Any, **options: Any) -> WrappedModel:
    return WrappedModel(seed_network(lambda: Mixer(mix, **options)).eval().requires_grad_(False), PLAIN, "patches")


@pytest.mark.parametrize("rule", ["rollout", "relevance", "head:last", "head:0.0"])
@pytest.mark.parametrize(
    ("mix", "sentence"),
    [
        (over_channels, r"by weights of shape \(1, 16, 16\), does not lie at the 4x4 positions of the local features"),
        (over_features, r"by weights of shape \(1, 16, 16\), does not lie at the 4x4 positions of the local features"),
        (by_mixed_heads, "the weights of attention block 0 of this network weigh nothing as they are"),
    ],
)
def test_softmaxes_that_do_not_weigh_tokens_as_they_are_are_refused(rule: str, mix: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        compute_token_weights(rule, mixer(mix), pixels(N, C, 16, 16))


def attention_by_hand(network: Any, images: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return the mean attention (N, T, T) of both steps, and the last sequence (N, T, 16)."""
    sequence, means = network.patches(images).flatten(2).transpose(1, 2), []
    for projection in network.projections:
        means.append(split_heads(sequence, projection)[0].mean(1))
        sequence = sequence + network.mix(network, sequence, projection)
    return means, sequence


@pytest.mark.parametrize(("mix", "pools"), [(over_tokens, False), (by_experts, False), (over_tokens, True)])
def test_a_router_is_no_block_and_a_pool_by_shares_of_tokens_is_the_last(mix: Any, pools: bool) -> None:
    model, images = mixer(mix, pools=pools), pixels(N, C, 16, 16)
    (low, high), sequence = attention_by_hand(model.backbone, images)
    network: Any = model.backbone
    share = network.share(sequence).transpose(1, 2) if pools else torch.full((N, 1, 16), 1 / 16)
    assert not pools or share.max() > 2 / 16
    half = torch.eye(16) / 2
    assert read_tokens(model, images[:1]).heads == ((2, 2, 1) if pools else (2, 2))
    for rule, expected in (
        ("rollout", share @ (half + high / 2) @ (half + low / 2)),
        ("head:1", share @ high),
        ("head:0", share @ low),
        ("head:last", share if pools else share @ high),
    ):
        torch.testing.assert_close(compute_token_weights(rule, model, images).flatten(1), expected[:, 0], msg=rule)


class Denoised(nn.Module):
    """A convolution to 8x8, a non-local block of softmax there, and a convolution to a coarser grid."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.low, self.query, self.tap = nn.Conv2d(C, 8, 3, 2, 1), nn.Conv2d(8, 8, 1), nn.Identity()
        self.high, self.answer = nn.Conv2d(8, 8, stride, stride), nn.Linear(8, K)

    def attention(self, local: Tensor) -> Tensor:
        weights: Tensor = (self.query(local).flatten(2).transpose(1, 2) @ local.flatten(2)).softmax(-1)
        return weights

    def forward(self, images: Tensor) -> Tensor:
        local = self.low(images)
        mixed = local.flatten(2) @ self.attention(local).transpose(1, 2)
        logits: Tensor = self.answer(self.high(self.tap(local + mixed.view_as(local))).relu().mean((2, 3)))
        return logits


@pytest.mark.parametrize("stride", [2, 4])
def test_positions_of_a_coarser_grid_are_not_taken_for_the_last_tokens(stride: int) -> None:
    network: Any = seed_network(lambda: Denoised(stride)).eval().requires_grad_(False)
    images = pixels(N, C, 16, 16)
    for rule in ("rollout", "relevance", "head:last"):
        with pytest.raises(UserError, match=r"\(1, 64, 64\), does not lie at the .* a layer of the same grid"):
            compute_token_weights(rule, WrappedModel(network, PLAIN, "high"), images)
    actual = compute_token_weights("head:last", WrappedModel(network, PLAIN, "tap"), images)
    torch.testing.assert_close(actual.flatten(1), network.attention(network.low(images)).mean(1))
