"""Recipes: the schedules at known shares, the published numbers, and overrides as people type them."""

import math
from dataclasses import asdict
from typing import Any

import pytest

from interpret_robust.attacks.pgd import PGD
from interpret_robust.core.errors import UserError
from interpret_robust.core.parsing import parse_number
from interpret_robust.training.recipe import PRESETS, Recipe, change, choose_default_preset
from interpret_robust.training.recipe_file import find_recipe


def recipe(**values: Any) -> Recipe:
    return Recipe("mine", **({"epochs": 10, "batch_size": 50, "learning_rate": 0.2} | values))


@pytest.mark.parametrize(
    ("values", "rates"),
    [
        ({"warm_up": 0.25}, {0: 0, 0.125: 0.1, 0.25: 0.2, 0.625: 0.1, 0.8125: 0.05, 1: 0}),
        ({"warm_up": 0.4}, {0.1: 0.05, 0.4: 0.2, 0.7: 0.1, 1: 0}),
        ({"warm_up": 0.0}, {0: 0.2, 0.5: 0.1, 1: 0}),
        ({"schedule": "steps"}, {0: 0.2, 0.499: 0.2, 0.5: 0.02, 0.749: 0.02, 0.75: 0.002, 1: 0.002}),
        ({"schedule": "constant"}, {0: 0.2, 0.5: 0.2, 1: 0.2}),
    ],
)
def test_learning_rate_at_known_shares(values: dict[str, Any], rates: dict[float, float]) -> None:
    candidate = recipe(**values)
    assert [candidate.rate(share) for share in rates] == pytest.approx(list(rates.values()), abs=1e-12)


@pytest.mark.parametrize("field", ["optimizer", "schedule"])
def test_a_truth_is_no_name_of_a_choice(field: str) -> None:
    with pytest.raises(UserError, match=f"unknown {field} 'True'.* known are "):
        recipe(**{field: True})


@pytest.mark.parametrize("warm_up", [0.0, 0.1, 0.25, 0.4, 0.9])
def test_one_cycle_peaks_once_at_the_learning_rate(warm_up: float) -> None:
    candidate = recipe(warm_up=warm_up)
    rates = [candidate.rate(step / 1000) for step in range(1001)]
    peak = rates.index(max(rates))
    assert peak == pytest.approx(1000 * warm_up) and rates[peak] == pytest.approx(0.2) and rates[-1] == 0
    assert rates[:peak] == sorted(rates[:peak]) and rates[peak:] == sorted(rates[peak:], reverse=True)


@pytest.mark.parametrize(
    ("ramp", "share", "growth"),
    [(0.4, 0.0, 0), (0.4, 0.1, 0.25), (0.4, 0.4, 1), (0.4, 0.9, 1), (1.0, 0.5, 0.5), (0.0, 0.0, 1), (0.0, 0.5, 1)],
)
def test_eps_and_step_grow_together_over_the_ramp(ramp: float, share: float, growth: float) -> None:
    attack = recipe(eps_ramp=ramp, eps=0.3, attack_step=0.01, attack_steps=7).attack(share)
    assert (attack.eps, attack.step_size) == pytest.approx((0.3 * growth, 0.01 * growth))
    assert (attack.steps, attack.restarts, attack.random_start, attack.loss) == (7, 1, True, "cross-entropy")


@pytest.mark.parametrize(
    ("name", "attack"),
    [
        ("quick", PGD(8 / 255, 5 / 255, 2)),
        ("paper", PGD(8 / 255, 2 / 255, 5, batch_norm="train")),
        ("fast", PGD(8 / 255, 2 / 255, 7, batch_norm="train")),
        ("mnist", PGD(0.3, 0.01, 40)),
    ],
)
def test_presets_attack_as_published(name: str, attack: PGD) -> None:
    assert PRESETS[name].attack(1.0) == attack


CHALLENGE = {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.1, "batch_size": 128, "weight_decay": 2e-4}


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        # 80,000 steps of 128 are 204.8 epochs; pad 2 a side, crop, flip; last weights
        ("paper", CHALLENGE | {"epochs": 205, "schedule": "steps", "pad": 2, "flip": True, "ema": None, "eps_ramp": 0}),
        ("fast", {"epochs": 40, "batch_size": 128, "schedule": "one-cycle", "warm_up": 0.4, "learning_rate": 0.2}),
        ("fast", {"momentum": 0.9, "weight_decay": 5e-4, "pad": 4, "flip": True}),
        # 100,000 steps of 50
        ("mnist", {"optimizer": "adam", "learning_rate": 1e-4, "batch_size": 50, "epochs": 83, "schedule": "constant"}),
        ("mnist", {"weight_decay": 0, "pad": 0, "flip": False, "weight_reg": 0.01, "weight_att_reg": 0.01}),
        # the prototype on cluttered digits
        ("quick", {"learning_rate": 0.1, "schedule": "one-cycle", "eps_ramp": 0.4, "flip": False}),
    ],
)
def test_presets_have_the_published_numbers(name: str, numbers: dict[str, Any]) -> None:
    actual = asdict(PRESETS[name])
    assert {field: actual[field] for field in numbers} == numbers


def test_the_papers_rate_falls_at_the_challenges_steps() -> None:
    # [[0, 0.1], [40000, 0.01], [60000, 0.001]] of 80,000
    steps = {39_000: 0.1, 41_000: 0.01, 59_000: 0.01, 61_000: 0.001, 79_999: 0.001}
    assert [PRESETS["paper"].rate(step / 80_000) for step in steps] == pytest.approx(list(steps.values()))


@pytest.mark.parametrize(
    ("dataset", "flip"),
    [
        ("cifar10", True),
        ("cifar100", True),
        ("cifar100-sorted", True),
        ("mine.npz", True),
        ("svhn", False),
        ("mnist", False),
        ("cluttered-digits", False),
        ("cluttered-digits-planted", False),
    ],
)
def test_digits_are_never_mirrored_unless_asked(dataset: str, flip: bool) -> None:
    assert find_recipe("paper", dataset).flip is flip
    assert find_recipe("paper", dataset, ("flip=true",)).flip is True
    assert find_recipe("paper", dataset, ("flip=false",)).flip is False


def test_images_with_a_planted_pattern_are_not_cropped() -> None:
    assert find_recipe("quick", "cluttered-digits-planted").pad == 0
    assert find_recipe("quick", "cluttered-digits-planted", ("pad=2",)).pad == 2
    assert find_recipe("quick", "cluttered-digits").pad == 2


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("cluttered-digits", "quick"),
        ("cluttered-digits-planted", "quick"),
        ("mnist", "mnist"),
        ("cifar10", "paper"),
        ("cifar100", "paper"),
        ("svhn", "paper"),
        ("mine.npz", "paper"),
    ],
)
def test_every_dataset_has_its_default_preset(dataset: str, name: str) -> None:
    assert choose_default_preset(dataset) == name


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("epochs=3", 3),
        ("batch_size=256", 256),
        ("learning_rate=0.05", 0.05),
        ("learning_rate=5e-2", 0.05),
        ("eps=4/255", 4 / 255),
        ("eps=0", 0.0),
        ("attack_step=1.5/255", 1.5 / 255),
        ("attack_steps=10", 10),
        ("attack_batch_norm=train", "train"),
        ("optimizer=adam", "adam"),
        ("schedule=steps", "steps"),
        ("ema=0.995", 0.995),
        ("ema=995/1000", 0.995),
        ("flip=true", True),
        ("weight_att_reg=0.02", 0.02),
        ("pad=4", 4),
    ],
)
def test_an_override_changes_its_field_and_no_other(override: str, value: object) -> None:
    field = override.partition("=")[0]
    actual, original = asdict(find_recipe("quick", "cifar10", (override,))), asdict(find_recipe("quick", "cifar10"))
    assert actual[field] == value and type(actual[field]) is type(value)
    assert actual | {field: original[field]} == original


@pytest.mark.parametrize("dataset", ["cluttered-digits", "cifar10"])
def test_the_quick_recipe_of_the_network_without_batch_norm(dataset: str) -> None:
    assert find_recipe("quick", dataset) == PRESETS["quick"]
    for name in ("quick", "cifar-quick"):
        adam = asdict(PRESETS[name]) | {"optimizer": "adam", "learning_rate": 2e-3, "epochs": 10}
        of_cnn = asdict(find_recipe(name, dataset, architecture="cnn"))
        assert of_cnn == adam | {"flip": PRESETS[name].flip and dataset == "cifar10"}
    adam = asdict(PRESETS["quick"]) | {"optimizer": "adam", "learning_rate": 2e-3, "epochs": 10}
    recipe = find_recipe("quick", dataset, ("optimizer=sgd", "learning_rate=0.05", "pad=3", "epochs=2"), "cnn")
    assert asdict(recipe) == adam | {"optimizer": "sgd", "learning_rate": 0.05, "pad": 3, "epochs": 2}


@pytest.mark.parametrize("architecture", ["small", "cnn", "narrow", "wide3"])
def test_only_the_quick_recipes_go_by_the_architecture(architecture: str) -> None:
    names = [name for name in PRESETS if name not in ("quick", "cifar-quick") or architecture != "cnn"]
    for name in names:
        assert find_recipe(name, "cifar10", architecture=architecture) == PRESETS[name]


def test_overrides_add_up_and_the_last_one_counts() -> None:
    actual = find_recipe("quick", "cifar10", ("epochs=3", "pad=1", "epochs=4"))
    assert (actual.epochs, actual.pad, actual.name) == (4, 1, "quick")
    # two that would each be refused alone may stand together
    assert find_recipe("mnist", "mnist", ("eps=1/2", "attack_step=1/4")).attack(1) == PGD(0.5, 0.25, 40)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("epoch=3", "unknown recipe field 'epoch': did you mean 'epochs'? known are attack_batch_norm,"),
        ("learning_rate", "'learning_rate' sets nothing: give a field and its value"),
        ("learning_rate=-1", "learning_rate is -1: numbers of a recipe are finite and not negative"),
        ("attack_step=nan", "attack_step is nan: numbers of a recipe are finite"),
        ("pad=-3", "pad is -3: numbers of a recipe"),
        ("attack_batch_norm=trian", "unknown attack_batch_norm 'trian': did you mean 'train'?"),
        ("learning-rate=0.1", "unknown recipe field 'learning-rate': did you mean 'learning_rate'?"),
        ("name=mine", "unknown recipe field 'name'"),
        ("=3", "unknown recipe field ''"),
        ("epochs=many", "epochs=many: 'many' is no value for epochs: give a whole number, such as 4."),
        ("epochs=1.5", "epochs=1.5: '1.5' is no value for epochs: give a whole number"),
        ("epochs=0", "epochs 0, batch size 64: both must be at least 1."),
        ("batch_size=-1", "batch_size is -1: numbers of a recipe are finite and not negative."),
        ("eps=8/0", "eps=8/0: '8/0' is no value for eps: give a number or a fraction, such as 0.5 or 8/255."),
        ("eps=", "eps=: '' is no value for eps: give a number"),
        ("eps=8", "eps is 8: it must lie within 0 and 1, in units of pixels in [0, 1] (8/255, not 8)."),
        ("attack_step=-1/255", "attack_step is -0.00392157: numbers of a recipe"),
        ("attack_steps=-1", "attack_steps is -1: numbers of a recipe"),
        ("eps_ramp=1.5", "eps_ramp 1.5, warm_up 0.25: shares of training lie in 0 to 1."),
        ("warm_up=1", "shares of training lie in 0 to 1."),
        ("warm_up=nan", "warm_up is nan: numbers of a recipe"),
        ("ema=1", "ema is 1: a decay per step lies between 0 and 1, such as 0.995."),
        ("ema=0", "ema is 0: a decay per step lies between 0 and 1"),
        ("ema=yes", "ema=yes: 'yes' is no value for ema: give a number"),
        ("flip=1", "flip=1: flip is true or false."),
        ("flip=True", "flip=True: flip is true or false."),
        ("optimizer=adamw", "unknown optimizer 'adamw': did you mean 'adam'? known are adam, sgd."),
        ("schedule=step", "unknown schedule 'step': did you mean 'steps'? known are constant, one-cycle, steps."),
    ],
)
def test_a_bad_override_is_told_what_would_be_right(override: str, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        find_recipe("quick", "cluttered-digits", (override,))
    assert sentence in str(error.value)


def test_an_unknown_preset_is_told_the_nearest() -> None:
    with pytest.raises(UserError) as error:
        find_recipe("papper", "cifar10")
    assert str(error.value) == (
        "unknown recipe 'papper': did you mean 'paper'? known are cifar-quick, fast, mnist, mnist-quick, paper, quick."
    )


@pytest.mark.parametrize(("text", "value"), [("8/255", 8 / 255), ("0.5", 0.5), ("1e-3/2", 5e-4), ("-3", -3), ("7", 7)])
def test_numbers_are_written_as_people_do(text: str, value: float) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize("text", ["", "/", "8/", "/255", "1/2/3", "1/0", "eight"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_number(text)


def test_no_preset_has_an_attack_or_rate_out_of_range_at_any_time() -> None:
    for candidate in PRESETS.values():
        for step in range(101):
            assert 0 <= candidate.attack(step / 100).eps <= candidate.eps
            assert -math.ulp(1) < candidate.rate(step / 100) <= candidate.learning_rate * (1 + 1e-12)


def test_a_radius_is_judged_in_its_own_norm_and_changes_together() -> None:
    assert find_recipe("quick", "cluttered-digits", ("norm=l2", "eps=2")).eps == 2
    assert find_recipe("quick", "cluttered-digits", ("eps=12", "norm=l1")).eps == 12
    for overrides in (("eps=2",), ("norm=linf", "eps=2")):
        with pytest.raises(UserError, match="eps is 2: it must lie within 0 and 1"):
            find_recipe("quick", "cluttered-digits", overrides)
    with pytest.raises(UserError, match="epochs 0"):
        find_recipe("quick", "cluttered-digits", ("epochs=0",))


def test_without_a_radius_the_steps_of_another_norm_have_to_be_given() -> None:
    zero_recipe = change(PRESETS["quick"], {"eps": 0.0})
    with pytest.raises(UserError, match="norm is l2, and eps of the recipe is 0: give attack_step too"):
        change(zero_recipe, {"norm": "l2", "eps": 0.5})
    l2_recipe = change(zero_recipe, {"norm": "l2", "eps": 0.5, "attack_step": 0.1})
    assert (l2_recipe.norm, l2_recipe.eps, l2_recipe.attack_step) == ("l2", 0.5, 0.1)
