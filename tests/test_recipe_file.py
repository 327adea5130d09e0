"""Recipes of the user's own: what a file may hold, what is refused, and that a job is its numbers."""

import tomllib
from dataclasses import asdict, replace
from pathlib import Path

import command
import numpy as np
import pytest

import interpret_robust as ir
from interpret_robust.core.errors import UserError
from interpret_robust.models import checkpoint
from interpret_robust.training.recipe import PRESETS, Recipe, change
from interpret_robust.training.recipe_file import find_recipe, format_toml, read


def write(folder: Path, text: str, name: str = "mine.toml") -> Path:
    (path := folder / name).write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_that_is_printed_is_read_to_the_same_numbers(name: str, tmp_path: Path, irt: command.Irt) -> None:
    code, out, err = irt("recipes", name, "--form", "toml")
    assert (code, err) == (0, "")
    assert read(write(tmp_path, out)) == replace(PRESETS[name], name="mine")
    assert tomllib.loads(out).keys() == asdict(PRESETS[name]).keys() - {"name", "ema"}


def test_a_recipe_of_any_numbers_is_printed_to_the_last_bit(tmp_path: Path) -> None:
    odd = change(PRESETS["fast"], {"norm": "l2", "eps": 0.1 + 0.2, "ema": 1 / 3, "weight_decay": 1e-300})
    odd = replace(odd, eps_ramp=1e-05, learning_rate=1e22, attack_step=1.0, flip=False, name="mine")
    assert read(write(tmp_path, format_toml(odd))) == odd


def test_a_file_on_a_base_changes_what_it_names(tmp_path: Path) -> None:
    path = write(tmp_path, 'base = "cifar-quick"\nepochs = 3\neps = "4/255"\nema = 0.9\nlearning_rate = 1\n')
    expected = replace(PRESETS["cifar-quick"], name="mine", epochs=3, eps=4 / 255, ema=0.9, learning_rate=1.0)
    assert read(path) == expected
    assert type(read(path).learning_rate) is float


def test_a_file_without_a_base_has_the_defaults_of_a_recipe(tmp_path: Path) -> None:
    path = write(tmp_path, "epochs = 3\nbatch_size = 7\nlearning_rate = 0.5\n")
    assert read(path) == Recipe("mine", 3, 7, 0.5)


def test_dataset_architecture_and_overrides_go_with_a_file_as_with_a_preset(tmp_path: Path) -> None:
    path = write(tmp_path, 'base = "cifar-quick"\nflip = true\nepochs = 3\n')
    as_preset = find_recipe("cifar-quick", "mnist", architecture="cnn")
    assert as_preset.optimizer == "adam" and not as_preset.flip and as_preset.epochs == 10
    assert find_recipe(path, "mnist", architecture="cnn") == replace(as_preset, name="mine", epochs=3)
    assert find_recipe(path, "mnist", ("flip=true", "epochs=4")).flip
    assert find_recipe(path, "cifar10").flip and find_recipe(path, "cifar10").epochs == 3
    assert find_recipe(None, "mnist") == find_recipe("mnist", "mnist")


def test_steps_keep_their_share_of_a_radius_in_another_norm(tmp_path: Path) -> None:
    path = write(tmp_path, 'base = "quick"\nnorm = "l2"\neps = 0.5\n')
    assert (read(path).eps, read(path).attack_step) == (0.5, 0.3125)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('base = "quick"\nepoch = 3', "unknown recipe field 'epoch': did you mean 'epochs'?"),
        ('bas = "quick"', "unknown recipe field 'bas': did you mean 'base'?"),
        ('name = "mine"\nbase = "quick"', "unknown recipe field 'name'"),
        ('base = "quik"', "unknown base 'quik': did you mean 'quick'?"),
        ("base = 3", "unknown base '3'"),
        ("base = [1]", "unknown base '[1]'"),
        ("epochs = 3", 'batch_size is missing: give it, or a preset to begin with, such as base = "quick".'),
        ('base = "quick"\nepochs = 2.5', "epochs is 2.5: give a whole number, such as 4."),
        ('base = "quick"\nepochs = "4"', 'epochs is "4": give a whole number, such as 4.'),
        ('base = "quick"\nepochs = true', "epochs is true: give a whole number, such as 4."),
        ('base = "quick"\nflip = 1', "flip is 1: give true or false."),
        ('base = "quick"\neps = true', 'eps is true: give a number, or a fraction in quotes, such as 0.5 or "8/255".'),
        ('base = "quick"\neps = "8/"', 'eps is "8/": give a number, or a fraction in quotes'),
        (
            'base = "quick"\neps = 8',
            "eps is 8: it must lie within 0 and 1, in units of pixels in [0, 1] (8/255, not 8).",
        ),
        (
            'base = "quick"\nlearning_rate = inf',
            "learning_rate is inf: numbers of a recipe are finite and not negative.",
        ),
        ('base = "quick"\nlearning_rate = nan', "learning_rate is nan: numbers of a recipe are finite"),
        (
            f'base = "quick"\nlearning_rate = 1{"0" * 400}',
            f"learning_rate is 1{'0' * 400}: give a number, or a fraction",
        ),
        (f'base = "quick"\nepochs = -1{"0" * 400}', f"epochs is -1{'0' * 400}: numbers of a recipe"),
        ('base = "quick"\nmomentum = 1', "momentum is 1: it is less than 1, such as 0.9, or training diverges."),
        ('base = "quick"\nmomentum = 2020-01-01', 'momentum is "2020-01-01": give a number'),
        ('base = "quick"\noptimizer = 1', "optimizer is 1: give one of sgd, adam, in quotes."),
        ('base = "quick"\noptimizer = "adamw"', "unknown optimizer 'adamw': did you mean 'adam'?"),
        ('base = "quick"\nnorm = "l2"', "norm is l2: give a radius in it too, such as eps=0.5."),
        ("epochs = 3\nbatch_size = 7\nlearning_rate = 1\nnorm = 'l2'", "norm is l2: give a radius in it too"),
        ('base = "quick"\n[attack]\neps = 0.1', "unknown recipe field 'attack'"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_name(
    text: str, sentence: str, tmp_path: Path, irt: command.Irt
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: {sentence}")
    code, out, err = irt("train", "at", "--recipe", path, "--root", tmp_path)
    assert (code, out, err) == (2, "", f"irt: {error.value}\n")


def test_a_file_may_begin_with_a_byte_order_mark_and_have_the_lines_of_windows(tmp_path: Path) -> None:
    (path := tmp_path / "mine.toml").write_bytes(b'\xef\xbb\xbfbase = "quick"\r\nepochs = 3\r\n')
    assert read(path) == replace(PRESETS["quick"], name="mine", epochs=3)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"epochs 3", " is no TOML file (Expected '=' after a key in a key/value pair (at line 1, column 8))."),
        (b"\xff", " is no TOML file ("),
        (b"a = 1\na = 2", " is no TOML file ("),
        (None, ": `irt recipes quick --form toml` prints one to begin with."),
    ],
)
def test_what_is_no_file_of_toml_is_told(data: bytes | None, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UserError) as error:
        read(path)
    assert sentence in str(error.value) and str(path) in str(error.value)


def test_toml_is_printed_of_one_recipe_and_a_file_beside_presets(tmp_path: Path, irt: command.Irt) -> None:
    sentence = "irt: --form toml prints one recipe: name it, such as `irt recipes quick --form toml`.\n"
    assert irt("recipes", "--form", "toml") == (2, "", sentence)
    path = write(tmp_path, 'base = "quick"\nepochs = 77\n')
    _, out, _ = irt("recipes", path, "quick", "--form", "csv")
    assert f"epochs,77,8,{'passes'}" in out.replace('"', "")


def test_a_radius_of_an_override_is_judged_by_the_norm_of_the_file(tmp_path: Path, irt: command.Irt) -> None:
    path = write(tmp_path, 'base = "quick"\nnorm = "l2"\neps = 0.5\n')
    words = ["train", "at", "--recipe", path, "--root", tmp_path]
    assert (
        irt(*words, "--set", "eps=2", "--set", "epochs=0")[2]
        == "irt: epochs 0, batch size 64: both must be at least 1.\n"
    )
    assert "eps is 2: it must lie within 0 and 1" in irt(*words, "--set", "eps=2", "--set", "norm=linf")[2]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    images, labels = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 1), np.uint8), np.arange(40) % 3
    np.savez(path := tmp_path / "data.npz", x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])
    return path


def test_a_job_is_its_numbers_whatever_the_file_is_called(tmp_path: Path, data: Path, irt: command.Irt) -> None:
    text = 'base = "quick"\nepochs = 1\nbatch_size = 20\n'
    first, second = write(tmp_path, text), write(tmp_path, text, "same.toml")
    words = ["train", "natural", "--dataset", data, "--root", tmp_path]
    code, out, err = irt(*words, "--recipe", first)
    assert code == 0 and out.startswith("trained data-small-natural-seed0.safetensors"), err
    (path,) = (tmp_path / "checkpoints").glob("*.safetensors")
    recipe = checkpoint.read(path).job["recipe"]
    assert (recipe["name"], recipe["epochs"]) == ("mine", 1)
    outcome = (0, "data-small-natural-seed0.safetensors is there already\n", "")
    assert irt(*words, "--recipe", second) == outcome
    assert irt(*words, "--recipe", "quick", "--set", "epochs=1", "--set", "batch_size=20") == outcome
    assert "recipe.name: mine" in irt("show", path)[1]
    assert "mine" in irt("checkpoints", "list", "--root", tmp_path)[1]
    write(tmp_path, text + "momentum = 0.5\n")
    code, out, err = irt(*words, "--recipe", first)
    assert (code, out) == (2, "")
    difference = "recipe.momentum is 0.9, here 0.5"
    assert err.startswith(f"irt: {path} was trained with other settings ({difference}): use another --root")


def test_python_takes_a_file_too(tmp_path: Path, data: Path) -> None:
    first = write(tmp_path, 'base = "quick"\nepochs = 1\nbatch_size = 20\neps = "2/255"\n')
    model = ir.train("natural", str(data), recipe=first, root=tmp_path, log=True, log_steps=1, momentum=0.5)
    recipe = model.subject.job["recipe"]
    assert (recipe["name"], recipe["eps"], recipe["momentum"], recipe["epochs"]) == ("mine", 2 / 255, 0.5, 1)
    assert len((tmp_path / "checkpoints" / f"{model.name}.log.jsonl").read_text(encoding="utf-8").splitlines()) == 3


def test_images_are_padded_by_fewer_pixels_than_a_side_has(tmp_path: Path, data: Path, irt: command.Irt) -> None:
    words = ["train", "natural", "--dataset", data, "--root", tmp_path, "--set", "epochs=1", "--set", "batch_size=20"]
    for pad in (16, 10**8):
        code, _, err = irt(*words, "--set", f"pad={pad}")
        assert (code, err) == (2, f"irt: pad is {pad}, and images are 16x16: {TOO_MUCH}\n")
        assert not list(tmp_path.rglob("*.safetensors"))
    code, out, err = irt(*words, "--set", "pad=15")
    assert code == 0 and out.startswith("trained data-small-natural-seed0.safetensors"), err


TOO_MUCH = "pad must be less than each side, or crops would be empty."
