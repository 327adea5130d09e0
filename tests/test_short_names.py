"""What people type for a model: names as tables print them, and what is none, each with a sentence."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from interpret_robust import cli
from interpret_robust.core.errors import UserError
from interpret_robust.core.file_names import resolve
from interpret_robust.models.card import check_files
from interpret_robust.models.model_names import explain

STEMS = ("cifar10-small-at-seed0", "cifar10-small-at-att-seed0", "cifar10-small-natural-seed1")
PATHS = [Path("checkpoints") / f"{stem}.safetensors" for stem in STEMS]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("at-seed0", 0),
        ("at-att-seed0", 1),
        ("att-seed0", 1),
        ("natural-seed1.safetensors", 2),
        ("cifar10-small-natural", 2),
        ("cifar10-small-at-seed0", 0),
    ],
)
def test_a_short_name_is_one_file(text: str, place: int) -> None:
    assert resolve(text, PATHS) == PATHS[place]


def test_a_name_as_printed_is_that_file_though_others_end_alike() -> None:
    paths = [Path(f"cifar10-small-at-{name}.safetensors") for name in ("seed0", "att-seed0")]
    assert resolve("seed0", paths) == paths[0]


def test_a_short_name_of_several_lists_them_and_a_misspelled_one_the_nearest() -> None:
    with pytest.raises(UserError, match=f"'seed0' is short for 2 files: give more of the name, {STEMS[0]}, {STEMS[1]}"):
        resolve("seed0", PATHS)
    with pytest.raises(UserError, match="there is no checkpoint at-sed0: did you mean checkpoints/cifar10-small-at-s"):
        resolve("at-sed0", PATHS, "checkpoint")
    assert resolve("torch", PATHS) == Path("torch") and resolve("a.h5", []) == Path("a.h5")


def test_commands_take_the_names_below_their_root(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for path in PATHS:
        (tmp_path / path).touch()
    with pytest.raises(UserError, match="'seed0' is short for 2 files"):
        CliRunner().invoke(cli.irt, ["evaluate", "seed0", "--root", str(tmp_path)], catch_exceptions=False)
    words = ["evaluate", "--model", "seed0", "--root", str(tmp_path)]
    with pytest.raises(UserError, match="'seed0' is short for 2 files"):
        CliRunner().invoke(cli.irt, words, catch_exceptions=False)


def test_a_file_that_is_not_there_may_be_another(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.json").touch()
    assert explain("mine.jsn") == "there is no model mine.jsn: did you mean the file mine.json?"
    assert explain("nothing.like.it").startswith("there is no model nothing.like.it: a class or function in a module")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("cat.PNG", "cat.PNG is a picture: name a model here, and give images with their labels as --dataset"),
        ("nets.py", "nets.py is Python code: name the class or function in it that makes the network, --model nets:N"),
        ("w.pth", "w.pth holds weights without the network that they are of: name it too, --model package.module:call"),
        (".", ". is a folder: name one file in it"),
        ("mine.npz", "mine.npz is a dataset: give it as --dataset mine.npz"),
        ("a.h5", "a.h5 is an answer of `irt analyze`"),
        ("ResNet", "there is no model ResNet: a class or function of yours is package.module:ResNet"),
        ("my.nets.Net", "has a colon before its name, my.nets:Net."),
        ("any thing", "there is no model any thing: give a checkpoint, a card .json"),
    ],
)
def test_what_is_no_model_is_told_what_it_is(text: str, sentence: str) -> None:
    assert sentence in explain(text)
    with pytest.raises(UserError) as error:
        check_files(Path(text))
    assert str(error.value) == explain(text)


@pytest.mark.long
def test_a_root_is_made_in_a_folder_that_is_there_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from interpret_robust.cli import irt
    from interpret_robust.cli.options import make_root, open_root

    with pytest.raises(UserError, match=r"there is no folder .*new: give as --root"):
        open_root(tmp_path / "new")
    with pytest.raises(UserError, match=r"there is no folder .*new to make below in"):
        irt.main(["train", "at", "--root", str(tmp_path / "new" / "below")], standalone_mode=False)
    for words in (["explore", "--save"], ["figure", "robustness", "-o"], ["explain", "a.png", "-o"]):
        with pytest.raises(UserError, match=r"there is no folder .*new to write a\.png in: make it"):
            irt.main([*words, str(tmp_path / "new" / "a.png")], standalone_mode=False)
    assert not (tmp_path / "new").exists()
    irt.main(["plan", "quick", "--root", str(tmp_path / "new")], standalone_mode=False)  # before `reproduce` makes it
    assert " no " in capsys.readouterr().out and not (tmp_path / "new").exists()
    assert make_root(tmp_path / "new").root.is_dir() and open_root(tmp_path / "new").root == tmp_path / "new"
