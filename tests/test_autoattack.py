"""AutoAttack through the library: closed forms, its cost, what it leaves as it was; and our check of its result."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from attack_files import write_autoattack, write_robustness
from networks import Linear, count_passes, pixels
from scipy import stats
from torch import Tensor

from interpret_robust import analyses, figures
from interpret_robust.analyses.autoattack import ANALYSIS, AutoAttack, AutoAttackSettings, prepare
from interpret_robust.analyses.engine import printing
from interpret_robust.analyses.engine.work import Work
from interpret_robust.attacks.norms import TOLERANCE, make_ball
from interpret_robust.attacks.settings import Norm
from interpret_robust.core.errors import UserError
from interpret_robust.datasets import Dataset
from interpret_robust.models import checkpoint
from interpret_robust.results import hdf5
from interpret_robust.results.autoattack_tables import (
    are_comparable,
    compare_with_ours,
    find_ours,
    find_right_under_autoattack,
)
from interpret_robust.results.hdf5 import Result

torchattacks = pytest.importorskip("torchattacks")

SHAPE = (3, 4, 5)
SHAPES: dict[Norm, tuple[int, int, int]] = {"linf": SHAPE, "l2": (2, 10, 9)}  # what Square takes in L2
JOB = {"recipe": {"eps": 8 / 255}}
STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")


def radii(model: Linear, images: Tensor, norm: Norm = "linf") -> tuple[Tensor, Tensor]:
    """A linear model's classes (N,), and the smallest change (N,) that moves each image out of its class.

    The nearest of the planes between the class and another: the difference of logits over the dual norm of that of
    weights, while no pixel meets 0 or 1.
    """
    weight, logits = model.layer.weight.detach(), model(images).detach()
    label = logits.argmax(1)
    gaps = logits.gather(1, label[:, None]) - logits
    norms = torch.linalg.vector_norm(weight[label][:, None] - weight[None], 1 if norm == "linf" else 2, dim=2)
    distance = torch.where(norms > 0, gaps / norms, torch.inf)
    return label, distance.amin(1)


def attack(
    eps: float, classes: int, attacks: str = ",".join(STANDARD), seed: int = 0, norm: Norm = "linf"
) -> AutoAttack:
    return AutoAttack(torchattacks, AutoAttackSettings(eps, attacks, seed, norm).resolve(JOB), classes)


@pytest.mark.long
@pytest.mark.parametrize(
    ("norm", "classes", "attacks"),
    [("linf", 4, STANDARD), ("linf", 12, STANDARD), ("l2", 4, STANDARD[:3])],  # Square in L2 takes too long here
)
def test_of_a_linear_model_just_the_images_break_that_have_a_plane_in_the_ball(
    norm: Norm, classes: int, attacks: Sequence[str]
) -> None:
    shape = SHAPES[norm]
    model, images = Linear(math.prod(shape), classes), pixels(60, *shape, seed=1, low=0.3, high=0.7)
    label, distance = radii(model, images, norm)
    eps = float(distance.median())
    clear = ((distance / eps - 1).abs() > 0.05).nonzero()[:, 0]
    images, label, distance = images[clear], label[clear], distance[clear]
    breaks = distance < eps
    assert 10 < breaks.sum() < len(breaks) - 10
    *_, last = images_after = attack(eps, classes, ",".join(attacks), norm=norm)(model, images, label, 0)
    assert torch.equal(model(last).argmax(1) != label, breaks)
    change = make_ball(norm, eps).length(last - images)
    assert (change[~breaks] == 0).all()
    assert (change[breaks] > distance[breaks] - 1e-5).all()
    assert change.max() <= eps + TOLERANCE
    for first, second in zip([images, *images_after], images_after, strict=False):
        was_right = model(first).argmax(1) == label
        assert torch.equal(first[~was_right], second[~was_right])


@pytest.mark.long
@pytest.mark.parametrize(("classes", "aims"), [(4, 3), (13, 9)])
def test_it_takes_what_the_standard_version_takes(classes: int, aims: int) -> None:
    """Of images that hold out: 100 iterations for each loss and aim, and 5000 queries."""
    model, images = Linear(60, classes), pixels(2, *SHAPE, seed=1, low=0.3, high=0.7)
    label, _ = radii(model, images)
    counts = {}
    for name in STANDARD:
        with count_passes(model) as passes:
            attack(1e-4, classes, name)(model, images, label, 0)
        counts[name] = passes
    assert counts["apgd-ce"].gradient == 101
    assert counts["apgd-t"].gradient == 101 * aims
    assert counts["fab-t"].gradient == 100 * aims
    assert counts["square"].gradient == 0
    assert 5000 <= counts["square"].forward < 5010


def test_the_same_batch_gives_the_same_images_and_nothing_else_is_touched() -> None:
    model, images = (
        Linear(60, 5),
        pixels(9, *SHAPE, seed=1, low=0.3, high=0.7).contiguous(memory_format=torch.channels_last),
    )
    label, distance = radii(model, images)
    eps = 6 * float(distance.max())
    model.eval()
    model.layer.train()
    torch.manual_seed(3)
    state, originals = torch.random.get_rng_state(), images.clone()
    first = attack(eps, 5, "square")(model, images, label, 250)[-1]
    assert (model(first).argmax(1) != label).all()
    assert (model.training, model.layer.training) == (False, True)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(images, originals)
    assert torch.equal(first, attack(eps, 5, "square")(model, images, label, 250)[-1])
    assert not torch.equal(first, attack(eps, 5, "square")(model, images, label, 500)[-1])
    assert not torch.equal(first, attack(eps, 5, "square", seed=1)(model, images, label, 250)[-1])


@pytest.mark.parametrize("name", STANDARD)
def test_each_attack_is_told_the_norm(name: str) -> None:
    """Each alone breaks images in the L2 ball, by a change that is shorter in L2 than that in l-infinity."""
    shape, eps = SHAPES["l2"], 0.8
    model, images = Linear(math.prod(shape), 4), pixels(12, *shape, seed=1, low=0.3, high=0.7)
    label, distance = radii(model, images, "l2")
    (last,) = attack(eps, 4, name, norm="l2")(model, images, label, 0)
    wrong = model(last).argmax(1) != label
    assert wrong.any() and (distance[wrong] < eps).all()
    (in_linf,) = attack(eps, 4, name)(model, images, label, 0)
    length, longer = (make_ball("l2", eps).length(adversarial - images)[wrong] for adversarial in (last, in_linf))
    assert length.max() <= eps + 1e-6
    assert (longer > 1.05 * length).all()


def test_settings_follow_the_training() -> None:
    settings = AutoAttackSettings().resolve(JOB)
    assert (settings.eps, settings.norm, settings.names()) == (8 / 255, "linf", STANDARD)
    in_l2 = AutoAttackSettings().resolve({"recipe": {"eps": 0.5, "norm": "l2"}})
    assert (in_l2.eps, in_l2.norm) == (0.5, "l2")
    assert AutoAttackSettings(0.1).resolve({"recipe": {"eps": 0.5, "norm": "l2"}}).norm == "linf"
    assert AutoAttackSettings(0.1, " square, fab-t,square").resolve(JOB).names() == ("square", "fab-t")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"eps": 8.0}, "eps is 8: it must lie within 0 and 1"),
        ({"eps": 12.0, "norm": "l1"}, "norm is l1: AutoAttack is run by torchattacks"),
        ({"norm": "l2"}, "norm is l2 and the radius of the model's training is in linf: give another with it"),
        ({"seed": -1}, "seed is -1: it must not be negative"),
        ({"attacks": "apgd-ce,sqare"}, "unknown attack 'sqare': did you mean 'square'?"),
        ({"attacks": ""}, "unknown attack ''"),
    ],
)
def test_nonsense_gets_a_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as error:
        AutoAttackSettings(**settings).resolve(JOB)
    assert sentence in str(error.value)


def work_on(classes: int, attacks: str = ",".join(STANDARD), shape: tuple[int, int, int] = SHAPE, **ball: Any) -> Work:
    """As much of a piece of work as `prepare` looks at."""
    settings = AutoAttackSettings(attacks=attacks, **ball).resolve(JOB)
    dataset = SimpleNamespace(name="few", class_names=tuple(range(classes)), image_shape=shape)
    return cast(Work, SimpleNamespace(dataset=dataset, settings=settings))


def test_without_the_library_the_command_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert prepare(work_on(4)).classes == 4
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    with pytest.raises(UserError) as error:
        prepare(work_on(4))
    assert str(error.value).endswith("`pip install 'interpret-robust[autoattack]'`.")


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 14, 14), (3, 16, 40)])
def test_images_on_which_square_fails_in_l2_are_refused(shape: tuple[int, int, int]) -> None:
    state = torch.random.get_rng_state()
    with pytest.raises(UserError, match=f"does not work on images of {shape[1]}x{shape[2]} pixels: use --attacks"):
        prepare(work_on(4, shape=shape, eps=0.5, norm="l2"))
    prepare(work_on(4, "apgd-ce,apgd-t,fab-t", shape, eps=0.5, norm="l2"))
    prepare(work_on(4, shape=shape))
    prepare(work_on(4, shape=(3, 32, 32), eps=0.5, norm="l2"))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_ball_that_holds_all_images_is_refused() -> None:
    with pytest.raises(UserError, match="in L2 no two images of 192 numbers"):
        prepare(work_on(4, shape=(3, 8, 8), eps=14.0, norm="l2"))


def test_three_classes_are_too_few_for_one_of_the_attacks() -> None:
    with pytest.raises(UserError, match="apgd-t needs four classes and few has 3: use --attacks apgd-ce,fab-t,square"):
        prepare(work_on(3))
    rest = "apgd-ce,fab-t,square"
    assert prepare(work_on(3, rest)).settings.attacks == rest
    model, images = Linear(60, 3), pixels(6, *SHAPE, seed=1, low=0.3, high=0.7)
    label, distance = radii(model, images)
    eps = 1.2 * float(distance.max())
    assert (model(attack(eps, 3, rest)(model, images, label, 0)[-1]).argmax(1) != label).all()


def fake(
    name: str,
    right: list[int],
    *,
    eps: float = 0.1,
    sha256: str = "m",
    split: str = "test",
    recalibration: str = "none",
    images: str = "one",
    **ball: str,
) -> Result:
    """A file of images of class 0, answered 0 where `right` and else 1; of the attack table under two attacks."""
    answers = 1 - np.array(right)
    prediction = answers[:, None] if name == "autoattack" else np.stack([answers, 0 * answers], 1)[:, None, :, None]
    columns = {"label": 0 * answers, "prediction": prediction, "prediction_natural": 0 * answers[:, None]}
    config = {
        "checkpoint": {"sha256": sha256, "name": "model"},
        "settings": {"eps": eps, **ball},
        "data": {"dataset": "data", "split": split, "sha256": images},
    }

    class Fake(dict[str, Any]):
        pass

    result: Any = Fake({f"per_image/{column}": values for column, values in columns.items()})
    result["reading"] = np.array(["PGD-20", "CW-30"])
    result.config, result.count, result.path, result.model_id = config, len(right), Path(f"{name}.h5"), sha256
    result.recalibration = recalibration
    return cast(Result, result)


AUTOATTACK = [1, 1, 0, 0, 0, 0, 0, 0, 1, 0]
ATTACK_TABLE = [1, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1]
"""The last three images only we have looked at."""


def test_images_that_only_one_of_the_two_breaks_are_counted() -> None:
    pair = compare_with_ours(fake("autoattack", AUTOATTACK), fake("robustness", ATTACK_TABLE))
    assert (pair.images, pair.only_autoattack, pair.only_ours) == (10, 6, 1)
    assert (pair.autoattack.value, pair.our_accuracy.value) == (0.3, 0.8)
    assert pair.difference.value == pytest.approx(0.5)
    assert 0 <= pair.difference.low < 0.5 < pair.difference.high < 1
    assert pair.p_value == pytest.approx(2 * stats.binom.cdf(1, 7, 0.5))
    assert pair.p_value > 0.05
    large = compare_with_ours(fake("autoattack", 3 * AUTOATTACK), fake("robustness", 3 * ATTACK_TABLE[:10]))
    assert (large.images, large.only_autoattack, large.only_ours) == (30, 18, 3)
    assert large.p_value == pytest.approx(2 * stats.binom.cdf(3, 21, 0.5)) and large.p_value < 0.05
    low, high = (100 * bound for bound in large.difference[1:])
    assert large.cells() == {
        "AutoAttack": large.autoattack.percent(),
        "our worst case": large.our_accuracy.percent(),
        "only AutoAttack breaks": "18",
        "only ours breaks": "3",
        "ours minus AutoAttack": f"+50.0 points [{low:+.1f}, {high:+.1f}]",
        "McNemar p": f"{large.p_value:.2g}",
        "images": "30",
    }
    other = compare_with_ours(fake("autoattack", 3 * ATTACK_TABLE[:10]), fake("robustness", 3 * AUTOATTACK))
    assert (other.only_autoattack, other.only_ours) == (3, 18)
    assert other.difference.value == pytest.approx(-0.5) and other.difference.high < 0 < large.difference.low
    assert other.p_value == pytest.approx(large.p_value)


@pytest.mark.parametrize(
    "table",
    [
        fake("robustness", ATTACK_TABLE, eps=0.2),
        fake("robustness", ATTACK_TABLE, norm="l2"),
        fake("robustness", ATTACK_TABLE, sha256="n"),
        fake("robustness", ATTACK_TABLE, split="train"),
        fake("robustness", ATTACK_TABLE, recalibration="clean"),
        fake("robustness", ATTACK_TABLE[:9]),
    ],
)
def test_what_cannot_be_compared_is_not(table: Result) -> None:
    library = fake("autoattack", AUTOATTACK)
    assert are_comparable(library, fake("robustness", ATTACK_TABLE))
    assert are_comparable(fake("autoattack", AUTOATTACK, norm="l2"), fake("robustness", ATTACK_TABLE, norm="l2"))
    assert not are_comparable(fake("autoattack", AUTOATTACK, norm="l2"), fake("robustness", ATTACK_TABLE))
    assert not are_comparable(library, table)
    other_images = fake("robustness", ATTACK_TABLE[:10], images="other")
    assert are_comparable(library, fake("robustness", ATTACK_TABLE[:10])) and not are_comparable(library, other_images)
    with pytest.raises(UserError, match="are not of the same model, images and ball"):
        compare_with_ours(library, table)


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path], digits: Dataset
) -> Callable[..., Result]:
    """Analyses of a model that knows its images by heart, all in one folder."""
    root = tmp_path_factory.mktemp("files")
    model = checkpoint.read(make_checkpoint(root, "at"))

    def run(name: str, limit: int, batch_size: int = 10, **changes: Any) -> Result:
        analysis = analyses.get(name)
        settings = replace(analysis.settings(), **changes)
        options: dict[str, Any] = {
            "split": "train",
            "limit": limit,
            "batch_size": batch_size,
            "device": torch.device("cpu"),
        }
        work = Work(analysis, model, digits, root, settings=settings, **options)
        return hdf5.read(work.path if work.is_done(overwrite=False) else work.run())

    return run


@pytest.mark.long
def test_the_file_says_of_each_image_what_the_library_does(folder: Callable[..., Result], digits: Dataset) -> None:
    result = folder("autoattack", 16, attacks="apgd-ce", eps=2 / 255)
    assert result.config["settings"] == {"eps": 2 / 255, "attacks": "apgd-ce", "seed": 0}
    model = checkpoint.read(result.path.parent / f"{result.config['checkpoint']['name']}.safetensors").model(
        torch.device("cpu")
    )
    wrong = 0
    for first, last in ((0, 10), (10, 16)):
        images = torch.from_numpy(digits.train.images[first:last] / np.float32(255)).permute(0, 3, 1, 2)
        labels = torch.from_numpy(digits.train.labels[first:last])
        seed = int(np.random.SeedSequence([0, first]).generate_state(1)[0])
        apgd = torchattacks.APGD(model, eps=2 / 255, steps=100, seed=seed)
        with torch.random.fork_rng([]):
            adversarial = apgd(images, labels).detach()
        answers = model(adversarial).argmax(1)
        np.testing.assert_array_equal(result["per_image/prediction"][first:last, 0], answers)
        change = (adversarial - images).flatten(1).abs().amax(1)
        np.testing.assert_allclose(result["per_image/perturbation"][first:last], change, atol=1e-6)
        wrong += int((answers != labels).sum())
    assert 0 < wrong < 16
    assert result["accuracy/after"][0, 0] == 1 - wrong / 16
    assert ANALYSIS.table_row(result).keys() == {"natural", "after apgd-ce", "images"}


@pytest.mark.long
def test_in_l2_it_is_set_beside_our_worst_case_in_l2(folder: Callable[..., Result]) -> None:
    """Of a trained network: each breaks one image at most that the other does not."""
    ball: dict[str, Any] = {"eps": 0.25, "norm": "l2"}
    library = folder("autoattack", 12, attacks="apgd-ce", **ball)
    assert library.config["settings"] == {"attacks": "apgd-ce", "seed": 0, **ball}
    length, right = library["per_image/perturbation"], find_right_under_autoattack(library)
    assert 0 < right.sum() < 12
    assert length.max() <= 0.25 + 1e-5 and (length[~right] > 0.2).all() and (length[right] == 0).all()
    folder("robustness", 12, eps=0.25, pgd="2", cw="none")  # in l-infinity
    assert find_ours(library) is None
    table = folder("robustness", 12, pgd="20", cw="20", **ball)
    best = find_ours(library)
    assert best is not None and best.path == table.path
    pair = compare_with_ours(library, table)
    assert pair.only_autoattack <= 1 and pair.only_ours <= 1
    ((_, (row,)),) = [printing.make_tables([library])]
    assert row["only ours breaks"] == str(pair.only_ours)
    drawing = figures.get("autoattack").draw([library])
    assert "AutoAttack at L2 eps 0.25" in drawing.caption


def test_the_most_attacks_stand_beside_it_whoever_reads_them(tmp_path: Path) -> None:
    library = write_autoattack(tmp_path, ("at", 0), np.arange(12) < 5)
    assert find_ours(library) is None

    def write_table(restarts: int, readings: Sequence[str], targets: int) -> Result:
        shape = (20, restarts, len(readings), targets)
        models = [("at", seed) for seed in range(targets)]
        return write_robustness(tmp_path, models, np.ones((20, targets), bool), np.ones(shape, bool), readings=readings)

    best, two = write_table(1, ["PGD-20"], 5), ["PGD-20", "CW-30"]
    for restarts, readings, targets, is_best in (
        (1, two, 1, True),
        (3, two, 2, True),
        (1, ["PGD-5", "PGD-20", "CW-5", "CW-30"], 4, False),
        (2, two, 9, False),
    ):
        table = write_table(restarts, readings, targets)
        best = table if is_best else best
        strongest = find_ours(library)
        assert strongest is not None and strongest.path == best.path


def test_the_table_sets_it_beside_the_strongest_attack_table_of_its_folder(folder: Callable[..., Result]) -> None:
    library = folder("autoattack", 16, attacks="apgd-ce", eps=2 / 255)
    assert find_ours(library) is None
    assert len(printing.make_tables([library])) == 1
    folder("robustness", 12, eps=2 / 255, pgd="4", cw="6")  # too few images
    folder("robustness", 16, pgd="3", cw="4")  # another radius
    folder("robustness", 16, eps=2 / 255, pgd="2", cw="none")
    best = folder("robustness", 20, eps=2 / 255, pgd="2", cw="3")
    strongest = find_ours(library)
    assert strongest is not None and strongest.path == best.path
    ((_, (row,)),) = [printing.make_tables([library])]
    assert row["images"] == "16"
    right = (best["per_image/prediction"][:16, :, :, 0] == best["per_image/label"][:16, None, None]).all((1, 2))
    right &= best["per_image/prediction_natural"][:16, 0] == best["per_image/label"][:16]
    is_right = library["per_image/prediction"][:, -1] == library["per_image/label"]
    assert row["only AutoAttack breaks"] == str((right & ~is_right).sum())
    assert row["only ours breaks"] == str((is_right & ~right).sum())


def test_another_normalization_is_another_model(tmp_path: Path) -> None:
    model, right = ("mine", None), np.arange(20) < 15
    library = write_autoattack(tmp_path, model, np.arange(20) < 10, normalize="none")
    answers = np.tile(right[:, None, None, None], (1, 1, 3, 1))
    wrong, equal_file = (
        write_robustness(tmp_path, [model], right[:, None], answers, architecture="any", normalize=name)
        for name in ("imagenet", "0,0,0,1,1,1")
    )
    assert not are_comparable(library, wrong) and are_comparable(library, equal_file)
    strongest = find_ours(library)
    assert strongest is not None and strongest.path == equal_file.path
