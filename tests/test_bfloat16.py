"""Attacks in training whose gradients come from a copy in bfloat16: as strong, and nothing else is rounded."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from trainer import train

from interpret_robust.attacks.noise import per_image_noise
from interpret_robust.attacks.pgd import PGD
from interpret_robust.core.configs import as_stored
from interpret_robust.core.errors import UserError
from interpret_robust.datasets import Dataset
from interpret_robust.datasets.batches import to_device, to_pixels
from interpret_robust.models import Classifier, build, checkpoint
from interpret_robust.models.bfloat16 import copy_in_bfloat16
from interpret_robust.models.folding import fold
from interpret_robust.models.losses import loss_gradient, margin_loss
from interpret_robust.models.shared_norm import share_batch_norm
from interpret_robust.models.variants import Head, find_variant
from interpret_robust.training.job import Job
from interpret_robust.training.recipe import Recipe
from interpret_robust.training.recipe_file import find_recipe
from interpret_robust.training.run import Run

CPU = torch.device("cpu")
CHECKPOINTS = Path(__file__).resolve().parents[1] / "checkpoints"
RECIPE = Recipe("test", epochs=1, batch_size=20, learning_rate=0.05, attack_steps=2, attack_precision="bfloat16")


def job(digits: Dataset, recipe: Recipe = RECIPE, name: str = "at-att-reg") -> Job:
    return Job(digits, "small", find_variant(name), 3, recipe)


def pixels(digits: Dataset) -> Tensor:
    images, _ = to_device(digits.test, CPU)
    return to_pixels(images)


@pytest.mark.long
@pytest.mark.parametrize("name", ["at", "at-att-reg"])
def test_signs_of_gradients_agree_and_the_attack_is_as_strong(digits: Dataset, name: str) -> None:
    """Measured on 250 images: 98.3 % of all signs of either network, and not an outcome apart."""
    model = checkpoint.read(CHECKPOINTS / f"cifar10-small-{name}-seed0.safetensors").model(CPU)
    half, images = copy_in_bfloat16(fold(model)), pixels(digits)
    labels = model(images).argmax(1)  # of digits, which it has never seen: what it takes them for
    gradient, exact = (loss_gradient(network, images, labels) for network in (half, model))
    assert gradient.dtype == torch.float32
    assert float((gradient.sign() == exact.sign()).float().mean()) > 0.975
    attack, losses, is_right = PGD(8 / 255, 2 / 255, 5), [], []
    for network in (half, model):
        adversarial = attack(network, images, labels, per_image_noise(0, range(len(images))))
        assert adversarial.dtype == torch.float32
        with torch.no_grad():
            logits = model(adversarial)
        losses.append(float(F.cross_entropy(logits, labels)))
        is_right.append(logits.argmax(1) == labels)
    assert int((is_right[0] != is_right[1]).sum()) <= 1
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)


@pytest.mark.parametrize(("architecture", "head"), [("small", "linear"), ("narrow", "nonlinear"), ("cnn", "average")])
def test_a_copy_in_bfloat16_points_along_the_gradient_of_any_network(architecture: str, head: Head) -> None:
    model = build(architecture, head, (3, 16, 20), 7, seed=1).eval()
    images, labels = torch.rand(5, 3, 16, 20, generator=torch.Generator().manual_seed(0)), torch.arange(5)
    weights_before = copy.deepcopy(model.state_dict())
    half = copy_in_bfloat16(fold(model))
    assert {weights.dtype for weights in half.parameters()} == {torch.bfloat16}
    assert half(images).dtype == torch.bfloat16 and not half.answers_alone and fold(half) is half
    gradient, exact = (loss_gradient(network, images, labels, margin_loss).flatten(1) for network in (half, model))
    assert float(F.cosine_similarity(gradient, exact).min()) > 0.95
    assert all(torch.equal(values, weights_before[name]) for name, values in model.state_dict().items())
    assert all(weights.requires_grad and weights.dtype == torch.float32 for weights in model.parameters())


def test_images_are_standardized_before_they_are_rounded() -> None:
    """Images of a thousandth of the range are far below what bfloat16 tells apart near a half."""
    model = build("small", "average", (3, 16, 20), 7, seed=1).eval()
    images = torch.rand(4, 3, 16, 20, generator=torch.Generator().manual_seed(0))
    faint = 0.5 + 1e-3 * images
    assert float(faint.bfloat16().min()) == float(faint.bfloat16().max())
    with torch.no_grad():
        half: Classifier = copy_in_bfloat16(fold(model))
        torch.testing.assert_close(half(faint).float(), model(images), rtol=0.05, atol=0.02)


def test_in_train_mode_the_copy_updates_the_running_statistics_of_the_model() -> None:
    model = build("small", "nonlinear", (3, 16, 20), 7, seed=1).train()
    expected = copy.deepcopy(model)
    images = torch.rand(6, 3, 16, 20, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        copy_in_bfloat16(model)(images)
        expected(images)
    for name, values in expected.named_buffers():
        torch.testing.assert_close(model.get_buffer(name), values, rtol=0.02, atol=0.01)
    assert model.get_buffer("backbone.norm.num_batches_tracked") == 1
    assert model.get_buffer("backbone.norm.running_mean").dtype == torch.float32


def test_several_processes_share_the_batch_norm_of_a_copy(tmp_path: Path) -> None:
    """As a group of one they see the statistics, and take the gradients, of one process without a group."""
    alone = build("small", "average", (3, 16, 20), 7, seed=1).train()
    parallel = copy.deepcopy(alone)
    images, labels = torch.rand(6, 3, 16, 20, generator=torch.Generator().manual_seed(0)), torch.arange(6)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        share_batch_norm(parallel)
        gradient = loss_gradient(copy_in_bfloat16(parallel), images, labels)
    finally:
        dist.destroy_process_group()
    expected = loss_gradient(copy_in_bfloat16(alone), images, labels)
    assert float(F.cosine_similarity(gradient.flatten(1), expected.flatten(1)).min()) > 0.99
    for name, values in alone.named_buffers():
        torch.testing.assert_close(parallel.get_buffer(name), values)


def test_nothing_but_the_attack_is_rounded(digits: Dataset) -> None:
    """Without a radius the attack finds nothing, and the weights are those of float32 to the last bit."""
    recipe = replace(RECIPE, eps=0.0)
    runs = [Run(job(digits, replace(recipe, attack_precision=kind)), CPU) for kind in ("float32", "bfloat16")]
    for run in runs:
        run.advance()
    exact, half = (run.model.state_dict() for run in runs)
    assert all(torch.equal(values, exact[name]) for name, values in half.items())
    assert {values.dtype for values in half.values()} == {torch.float32, torch.int64}


def test_the_gradients_are_of_the_weights_of_each_step(digits: Dataset) -> None:
    run = Run(job(digits), CPU)
    first = run._attack_target().classifier.weight.clone()
    run.advance()
    weights = run._attack_target().classifier.weight
    assert weights.dtype == torch.bfloat16 and not torch.equal(weights, first)
    assert torch.equal(weights, run.model.classifier.weight.detach().bfloat16())
    assert (
        Run(job(digits, replace(RECIPE, attack_precision="float32")), CPU)
        ._attack_target()
        .classifier.weight.requires_grad
    )


def test_the_card_says_how_gradients_were_rounded(tmp_path: Path, digits: Dataset) -> None:
    header = checkpoint.read(train(job(digits, name="at"), tmp_path, source="x", device=CPU)).about
    assert header["precision"] == "float32, gradients of attacks bfloat16"
    assert header["job"]["recipe"]["attack_precision"] == "bfloat16"
    natural = checkpoint.read(train(job(digits, name="natural"), tmp_path, source="x", device=CPU)).about
    assert natural["precision"] == "float32"


def test_a_recipe_in_float32_is_described_as_before_there_was_a_choice() -> None:
    assert "attack_precision" not in as_stored(replace(RECIPE, attack_precision="float32"))
    recipe = find_recipe("quick", "cluttered-digits", ("attack_precision=bfloat16",))
    assert as_stored(recipe) == as_stored(find_recipe("quick", "cluttered-digits")) | {"attack_precision": "bfloat16"}
    with pytest.raises(UserError, match=r"unknown attack_precision 'half'"):
        find_recipe("quick", "cluttered-digits", ("attack_precision=half",))
