"""Random search: the closed form on a linear model, its boxes, its randomness, its squares, a foreign Square attack."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from networks import InDouble, Linear, array, count_passes, pixels, settle
from test_attacks import CPU, EPS, NetworkAndImages
from torch import Tensor, nn

from interpret_robust.attacks.norms import TOLERANCE, make_ball
from interpret_robust.attacks.proposals import make_proposals
from interpret_robust.attacks.settings import Norm
from interpret_robust.attacks.square import RandomSearch
from interpret_robust.core.errors import UserError
from interpret_robust.core.random_numbers import make_streams
from interpret_robust.models import build
from interpret_robust.models.losses import margin_loss

SHAPE = (3, 6, 8)


EACH_NORM = pytest.mark.parametrize(("norm", "eps"), [("linf", EPS), ("l2", 0.8), ("l1", 4.0)])


def search(
    model: nn.Module, images: Tensor, labels: Tensor, queries: int, eps: float = EPS, norm: Norm = "linf"
) -> Tensor:
    return RandomSearch(eps, queries, norm=norm)(model, images, labels, make_streams(0, range(len(images))))


def of_first_class(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.long)


def linear(bias: float) -> Linear:
    """A linear model of three classes, the first ahead of the others by about `bias`."""
    model = Linear(math.prod(SHAPE), classes=3)
    with torch.no_grad():
        model.layer.bias.copy_(-model.layer.weight.sum(1) / 2)
        model.layer.bias[0] += bias
    return model


def test_it_finds_the_optimum_of_a_linear_model() -> None:
    """Of a model with a weight for each color and row and column, the best change is the sign of the weights."""
    model, images = linear(100.0), pixels(5, *SHAPE, low=0.1, high=0.9)
    labels, weight = of_first_class(5), model.layer.weight.detach()
    natural = margin_loss(model(images), labels).detach()
    # The margin loss is the best other logit: for each of these the optimum is known.
    best = torch.stack(
        [model(images)[:, k] - model(images)[:, 0] + EPS * (weight[k] - weight[0]).abs().sum() for k in (1, 2)]
    ).amax(0)
    gains = [(margin_loss(model(search(model, images, labels, n)), labels) - natural).detach() for n in (30, 3000)]
    share = [array(gain / (best - natural)).mean() for gain in gains]
    assert 0.2 < share[0] < share[1]
    assert 0.9 < share[1] <= 1 + 1e-5


class Blind(nn.Module):
    """Less and less sure the lighter an image, it is always right, but has no answer to images lighter than gray."""

    def forward(self, images: Tensor) -> Tensor:
        light = images.flatten(1).mean(1)
        logits = torch.stack([torch.ones_like(light), light], 1)
        return torch.where((light > 0.5)[:, None], logits.new_full((), math.nan), logits)


def test_an_answer_that_is_no_number_is_kept_as_a_success() -> None:
    adversarial = search(Blind(), torch.full((4, *SHAPE), 0.49), of_first_class(4), 300)
    assert Blind()(adversarial).isnan().all()


@pytest.mark.parametrize(("norm", "eps", "bound"), [("l2", 0.2, 0.3), ("l1", 0.08, 0.7)])
def test_it_nears_the_optimum_of_a_linear_model_in_other_norms(norm: Norm, eps: float, bound: float) -> None:
    """The best change gains eps times the dual norm of the weights. Windows of three pixels cannot follow it in L2."""
    model, images = linear(100.0), pixels(5, *SHAPE, low=0.3, high=0.7)
    labels, weight = of_first_class(5), model.layer.weight.detach()
    natural = margin_loss(model(images), labels).detach()
    dual = 2 if norm == "l2" else math.inf
    best = torch.stack(
        [
            model(images)[:, k] - model(images)[:, 0] + eps * torch.linalg.vector_norm(weight[k] - weight[0], dual)
            for k in (1, 2)
        ]
    ).amax(0)
    outcomes = [search(model, images, labels, queries, eps, norm) for queries in (10, 60, 400)]
    share = [array((margin_loss(model(images), labels) - natural) / (best - natural)).mean() for images in outcomes]
    assert share[0] < share[1] < share[2]
    assert bound < share[2] <= 1 + 1e-5


def test_it_stays_in_the_ball_and_among_pixels() -> None:
    model, images = linear(100.0), pixels(9, *SHAPE).round(decimals=1)
    adversarial = search(model, images, of_first_class(9), 40, eps=0.3)
    assert adversarial.dtype == torch.float32
    assert adversarial.min() >= 0 and adversarial.max() <= 1
    change = (adversarial - images).abs()
    assert change.max() <= 0.3 + TOLERANCE
    interior = (adversarial > 0) & (adversarial < 1)
    # always at a corner of the ball
    torch.testing.assert_close(change[interior], torch.full_like(change[interior], 0.3))


@pytest.mark.parametrize(("norm", "eps"), [("l2", 0.8), ("l2", 3.0), ("l1", 4.0), ("l1", 30.0)])
@pytest.mark.parametrize("shape", [SHAPE, (1, 9, 4), (2, 2, 11)])
def test_it_stays_in_the_balls_of_other_norms(norm: Norm, eps: float, shape: tuple[int, ...]) -> None:
    """Of images with pixels at 0 and 1, also where a window is as large as the image."""
    ball, images = make_ball(norm, eps), pixels(7, *shape).round(decimals=1)
    model = Linear(math.prod(shape), classes=3)
    with torch.no_grad():
        model.layer.bias[0] += 1000
    adversarial = search(model, images, of_first_class(7), 60, eps, norm)
    assert adversarial.dtype == torch.float32
    assert adversarial.min() >= 0 and adversarial.max() <= 1
    lengths = ball.length(adversarial - images)
    assert (lengths <= eps + ball.tolerance(math.prod(shape))).all()
    assert (lengths > 0.3 * eps).all()


@EACH_NORM
def test_each_query_is_kept_where_it_lowers_the_margin(norm: Norm, eps: float) -> None:
    model, images, queries = linear(100.0), pixels(1, *SHAPE), 50
    log: list[tuple[float, Tensor]] = []
    with torch.no_grad():
        model.register_forward_hook(
            lambda _, inputs, logits: log.append((margin_loss(logits, of_first_class(1)).item(), inputs[0].clone()))
        )
        adversarial = search(model, images, of_first_class(1), queries, eps, norm)
    assert len(log) == queries
    losses, candidates = zip(*log, strict=True)
    assert torch.equal(adversarial, candidates[int(np.argmax(losses))])
    assert max(losses) > losses[0]


def test_each_proposal_is_one_square_away_from_the_best_so_far_and_the_best_is_kept() -> None:
    model, images, queries = linear(100.0), pixels(1, *SHAPE), 60
    log: list[tuple[float, Tensor]] = []
    with torch.no_grad():
        model.register_forward_hook(
            lambda _, inputs, logits: log.append((margin_loss(logits, of_first_class(1)).item(), inputs[0].clone()))
        )
        adversarial = search(model, images, of_first_class(1), queries)
    assert len(log) == queries
    best_loss, best = log[0]
    rises = 0
    for query, (loss, proposal) in enumerate(log[1:], start=1):
        side = RandomSearch(EPS, queries).side(query, images)
        for places in np.where(array((proposal != best)[0].any(0))):
            assert len(places) == 0 or np.ptp(places) < side
        if loss > best_loss:
            best_loss, best, rises = loss, proposal, rises + 1
    assert rises > 5
    assert torch.equal(adversarial, best)


def test_squares_reach_every_pixel_and_color() -> None:
    images = torch.full((400, *SHAPE), 0.5)
    draws = torch.rand(400, 2 + SHAPE[0], generator=torch.Generator().manual_seed(0))
    change = make_proposals("linf", make_ball("linf", 0.25)).propose(images, images, draws, side=2) - images
    assert array((change != 0).flatten(2).sum(2)).tolist() == [[4.0] * 3] * 400
    often = array((change != 0)[:, 0].double().mean(0))
    assert often.min() > 0 and often[1:-1, 1:-1].std() < 0.03
    assert often[0, 0] < often[0, 3] < often[3, 3]
    signs = {tuple(row.sign().int().tolist()) for row in change.flatten(2).sum(2)}
    assert len(signs) == 8


def test_squares_shrink_by_the_papers_schedule() -> None:
    attack, images = RandomSearch(0.1, 10_000), torch.zeros(1, 3, 32, 32)
    shares = {0: 1, 10: 1, 11: 2, 50: 2, 51: 4, 201: 8, 501: 16, 1001: 32, 2001: 64, 4001: 128, 6001: 256, 8001: 512}
    for query, divisor in shares.items():
        assert attack.side(query, images) == max(1, round(math.sqrt(0.8 / divisor) * 32))
    assert RandomSearch(0.1, 100).side(6, images) == attack.side(600, images)
    assert attack.side(0, torch.zeros(1, 3, 8, 40)) == 8  # no larger than the image


def test_it_takes_no_gradient_and_stops_where_it_has_won() -> None:
    model, images = linear(100.0), pixels(4, *SHAPE)
    with count_passes(model) as passes:
        search(model, images, of_first_class(4), 25)
    assert (passes.gradient, passes.forward) == (0, 25)
    with count_passes(model) as passes:
        search(model, images, of_first_class(4) + 1, 25)
    assert (passes.gradient, passes.forward) == (0, 1)


@EACH_NORM
@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (linear(0.4), SHAPE),
        (InDouble(settle(build("small", "nonlinear", (3, 16, 20), 10, seed=0))), (3, 16, 20)),
    ],
    ids=["linear", "small network in float64"],
)
def test_an_outcome_depends_on_its_image_and_its_stream_alone(
    model: nn.Module, shape: tuple[int, ...], norm: Norm, eps: float
) -> None:
    images = pixels(7, *shape)
    labels = model(images).argmax(1)
    labels[2] = (labels[2] + 1) % 3  # one that is wrong from the start
    attack, order = RandomSearch(eps, 20, norm=norm), [4, 0, 6, 2]
    whole = attack(model, images, labels, make_streams(3, range(7)))
    part = attack(model, images[order], labels[order], make_streams(3, order))
    assert torch.equal(part, whole[order])
    assert not torch.equal(whole, attack(model, images, labels, make_streams(4, range(7))))


def test_modes_and_random_state_are_left_as_found() -> None:
    model, images = build("small", "average", (3, 16, 20), 10, seed=0).train(), pixels(2, 3, 16, 20)
    state, weights = torch.get_rng_state(), {name: value.clone() for name, value in model.state_dict().items()}
    search(model, images, of_first_class(2), 3)
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"eps": 8.0}, "eps is 8: it must lie within 0 and 1"),
        ({"eps": math.nan}, "eps is nan: it must lie within 0 and 1"),
        ({"eps": -1.0, "norm": "l2"}, "eps is -1: it must not be negative"),
        ({"norm": "l3"}, "unknown norm 'l3'"),
        ({"queries": 0}, "there must be a query"),
        ({"p_init": 0.0}, "p_init must lie above 0"),
    ],
)
def test_what_is_out_of_range_is_said(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        RandomSearch(**{"eps": 0.1, "queries": 5, **values})


def test_a_ball_that_holds_all_images_is_said() -> None:
    with pytest.raises(UserError, match="in L2 no two images of 144 numbers"):
        search(linear(0.4), pixels(2, *SHAPE), of_first_class(2), 5, 12.1, "l2")


@pytest.mark.long
@pytest.mark.parametrize(("norm", "theirs_norm", "eps"), [("linf", "Linf", 2 * EPS), ("l2", "L2", 3.0)])
def test_robust_accuracy_agrees_with_torchattacks(
    norm: Norm, theirs_norm: str, eps: float, robust_network: NetworkAndImages
) -> None:
    """The same number of queries, other random numbers: images that only one of the two breaks are a fair coin."""
    torchattacks = pytest.importorskip("torchattacks")
    model, images, labels = robust_network
    assert images.device == CPU
    adversarial = search(model, images, labels, 100, eps, norm)
    with torch.random.fork_rng(devices=[]):
        reference = torchattacks.Square(model, norm=theirs_norm, eps=eps, n_queries=100, loss="margin", seed=0)(
            images, labels
        )
    with torch.no_grad():
        natural, *right = [
            array(model(examples).argmax(1) == labels) > 0 for examples in (images, adversarial, reference)
        ]
    ours_right, theirs_right = (natural & examples for examples in right)
    assert ours_right.mean() < 0.8 * natural.mean()
    assert ours_right.mean() > 0.1
    only_ours, only_theirs = (ours_right & ~theirs_right).sum(), (theirs_right & ~ours_right).sum()
    assert abs(only_ours - only_theirs) <= 3 * math.sqrt(only_ours + only_theirs)
