"""Iterates that repeat are not computed again, and every reading is bit for bit the same."""

from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from interpret_robust.attacks import cycles
from interpret_robust.attacks.cycles import FINE_GRANULE, GRANULE, read_at
from interpret_robust.attacks.noise import per_image_noise
from interpret_robust.attacks.pgd import PGD, choose_granule
from interpret_robust.models import build
from interpret_robust.models.classifier import answers_repeat
from interpret_robust.models.folding import fold
from interpret_robust.models.losses import loss_gradient, margin_loss
from interpret_robust.models.variants import find_variant

STEPS = (0, 3, 9, 20, 47)


def turn(position: Tensor, period: Tensor, entry: Tensor) -> Tensor:
    """A walk up to `entry` and then round a cycle of `period` places, one number a row."""
    successor = position + 1
    return torch.where(successor >= entry + period, entry, successor)


def walks(count: int, periods: Sequence[int], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    period = torch.tensor([periods[place % len(periods)] for place in range(count)])[:, None].expand(-1, 2)
    entry = torch.randint(0, 15, (count, 1), generator=random).expand(-1, 2)
    return torch.zeros(count, 2, dtype=torch.int64), period, entry


@pytest.mark.parametrize("count", [1, 5, GRANULE + 1, 4 * GRANULE + 7])
@pytest.mark.parametrize("periods", [(1,), (2, 4), (1, 2, 4, 3, 60)])
@pytest.mark.parametrize("granule", [GRANULE, FINE_GRANULE, 1])
def test_readings_equal_those_of_a_plain_loop(count: int, periods: tuple[int, ...], granule: int) -> None:
    start, period, entry = walks(count, periods)
    plain = [start]
    for _ in range(STEPS[-1]):
        plain.append(turn(plain[-1], period, entry))
    readings = list(read_at(turn, start, (period, entry), STEPS, choose_granule=lambda: granule))
    assert [step for step, _ in readings] == list(STEPS)
    for step, iterate in readings:
        assert torch.equal(iterate, plain[step])


def test_images_that_repeat_take_no_more_steps() -> None:
    count = 3 * GRANULE
    start, period, entry = walks(count, (2,))
    period, counts = period.clone(), torch.zeros(count, dtype=torch.int64)
    period[:GRANULE] = 100
    calls: Counter[int] = Counter()

    def advance(position: Tensor, period: Tensor, entry: Tensor) -> Tensor:
        calls[len(position)] += 1
        return turn(position, period, entry)

    list(read_at(advance, start, (period, entry), [60], choose_granule=lambda: GRANULE, counts=counts))
    assert counts[:GRANULE].tolist() == [60] * GRANULE
    # Every other image has gone round once by the step after its entry plus its period.
    assert int(counts[GRANULE:].max()) <= 15 + 2 + cycles.FIRST_CHECK
    assert set(calls) == {3 * GRANULE, 2 * GRANULE, GRANULE} or set(calls) == {3 * GRANULE, GRANULE}
    assert sum(size * times for size, times in calls.items()) == int(counts.sum())


def test_without_looking_every_step_is_taken() -> None:
    start, period, entry = walks(40, (1,))
    counts = torch.zeros(40, dtype=torch.int64)
    list(read_at(turn, start, (period, entry), [30], choose_granule=None, counts=counts))
    assert counts.tolist() == [30] * 40


def test_an_attack_reads_the_same_bits_with_and_without() -> None:
    images = torch.rand(70, 3, 20, 16, generator=torch.Generator().manual_seed(0))
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(70) % 5
    model = fold(build("small", find_variant("at-att").head, (3, 20, 16), 5, seed=0).eval())
    attack, readings, counts = PGD(0.01, 0.01, 40), {}, torch.zeros(70, dtype=torch.int64)
    for look in (True, False):
        model.answers_alone = look
        count = counts if look else None
        noise = per_image_noise(0, range(70))
        readings[look] = list(attack.iterates(model, images, labels, noise, [5, 17, 40], count))
    for (step, iterate), (other_step, other) in zip(*readings.values(), strict=True):
        assert step == other_step
        assert torch.equal(iterate, other)
    assert int(counts.min()) < 40, "no image of this model repeats: the test shows nothing"


class RoundsFew(torch.nn.Module):
    """A model that rounds as kernels for few images may."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, images: Tensor) -> Tensor:
        logits = images.flatten(1)[:, :2].square()
        return logits + logits * 2**-20 if len(images) < self.count else logits


@pytest.mark.parametrize(("count", "granule"), [(FINE_GRANULE, FINE_GRANULE), (FINE_GRANULE + 1, GRANULE)])
def test_few_images_are_computed_where_they_give_the_same_bits(count: int, granule: int) -> None:
    images, labels = (
        torch.rand(GRANULE + 9, 3, 5, 4, generator=torch.Generator().manual_seed(0)),
        torch.zeros(41).long(),
    )
    assert choose_granule(RoundsFew(count), images, labels, "cross-entropy") == granule
    assert choose_granule(RoundsFew(count), images[:GRANULE], labels[:GRANULE], "cross-entropy") == GRANULE


@pytest.mark.parametrize("head", ["at", "at-att"])
def test_gradients_in_batches_of_the_granule_are_those_of_the_whole(head: str) -> None:
    """On this processor: sizes between the two that were compared round as these."""
    random = torch.Generator().manual_seed(0)
    images = torch.rand(4 * GRANULE, 3, 20, 16, generator=random).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(4 * GRANULE) % 5
    model = fold(build("small", find_variant(head).head, (3, 20, 16), 5, seed=0).eval())
    whole = loss_gradient(model, images, labels, margin_loss)
    granule = choose_granule(model, images, labels, "margin")
    for count in range(granule, 4 * GRANULE, granule):
        assert torch.equal(loss_gradient(model, images[:count], labels[:count], margin_loss), whole[:count])


class Dropping(torch.nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return torch.nn.functional.dropout(features, 0.1)


def test_a_network_that_draws_random_numbers_is_never_taken_to_repeat() -> None:
    model = build("small", find_variant("at").head, (3, 20, 16), 5, seed=0).eval()
    image = torch.rand(1, 3, 20, 16)
    assert answers_repeat(model, image)
    state = torch.get_rng_state()
    model.classifier = torch.nn.Sequential(Dropping(), model.classifier)
    assert not answers_repeat(model, image)
    assert torch.equal(state, torch.get_rng_state())
    assert not answers_repeat(torch.nn.Flatten(), image)
