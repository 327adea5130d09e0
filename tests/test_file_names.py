"""Text from outside as part of a path."""

from pathlib import Path

import numpy as np
import pytest
from anyone import C, H, K, W

from interpret_robust.cli import irt
from interpret_robust.core.errors import UserError
from interpret_robust.core.file_names import LONGEST, make_file_part
from interpret_robust.datasets.in_memory import make_dataset
from interpret_robust.models import checkpoint
from interpret_robust.models.card import Card
from interpret_robust.results import hdf5

HOSTILE = [
    "",
    ".",
    "..",
    "../../outside",
    "/etc/outside",
    "a/b",
    "a\\b",
    "a\nb",
    "nul\0",
    "C:x",
    ".hidden",
    "a.",
    "a ",
    "x" * 500,
    "\u00e9" * 150,
    "\udcff/",
    "a\u2028b",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_becomes_one_writable_part_of_a_path(text: str, tmp_path: Path) -> None:
    part = make_file_part(text)
    assert part != text
    assert len(part.encode()) <= LONGEST
    assert make_file_part(part) == part
    (tmp_path / f"{part}.h5").write_text("")
    assert [path.name for path in tmp_path.iterdir()] == [f"{part}.h5"]


@pytest.mark.parametrize("text", ["cifar10-torchvision-resnet18", "best.v2", "two words", "m\u00fcller", "x" * LONGEST])
def test_a_plain_name_stays_as_it_is(text: str) -> None:
    assert make_file_part(text) == text


def test_two_texts_never_share_a_name() -> None:
    texts = {"a/b", "a\\b", "a:b", "a_b", "a\nb", *HOSTILE}
    assert len({make_file_part(text).casefold() for text in texts}) == len(texts)


@pytest.mark.parametrize("label", ["", "  ", "two\nlines", "bell\a", "a\u2028b"])
def test_a_label_that_no_table_can_show_gets_a_sentence(label: str) -> None:
    with pytest.raises(UserError, match=r"--label .*: give a label of printable characters on one line"):
        Card("a:b", label=label)
    with pytest.raises(UserError, match="give a dataset a name of printable characters on one line"):
        make_dataset(np.zeros((1, 2, 3), np.uint8), np.zeros(1, int), label)


def test_commands_write_nothing_outside_the_root_for_a_hostile_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "a" / "b" / "root"
    root.mkdir(parents=True)
    monkeypatch.chdir(root)
    pixels = np.random.default_rng(0).integers(0, 256, (8, H, W, C), dtype=np.uint8)
    labels = np.arange(8) % K
    np.savez("mine.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    words = ["--model", "anyone:Convolutions", "--dataset", "mine.npz", "--label", "../../x/y"]
    irt.main(["analyze", "alignment", *words], standalone_mode=False)
    (answer,) = root.glob("analyses/*")
    result = hdf5.read(answer)
    assert result.config["checkpoint"]["job"]["variant"] == "../../x/y"
    assert result.model_name == "mine-../../x/y", "tables show the label as it is"
    irt.main(["figure", "alignment"], standalone_mode=False)
    irt.main(["export", str(answer)], standalone_mode=False)
    paths = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(paths) == 1 + 1 + 3 + 2
    assert all(path.is_relative_to(root) for path in paths)
    assert {path.parent for path in paths} == {root, root / "analyses", root / "figures"}


@pytest.mark.long
@pytest.mark.parametrize("name", ["two\nlines", "-x", "a:b", ".", "x" * 245])
def test_a_dataset_of_any_file_name_is_trained_on_inside_the_root(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 20, 1), dtype=np.uint8)
    labels = np.arange(8) % K
    with open(f"{name}.npz", "wb") as file:
        np.savez(file, x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    quick = ["--set", "epochs=1", "--set", "batch_size=4", "--set", "attack_steps=1"]
    irt.main(["train", "at", "--dataset", f"./{name}.npz", *quick], standalone_mode=False)
    (checkpoint_path,) = tmp_path.glob("checkpoints/*")
    assert checkpoint.read(checkpoint_path).job["dataset"] == name
    irt.main(["evaluate", str(checkpoint_path)], standalone_mode=False)
    assert {path.parent for path in tmp_path.rglob("*") if path.is_file()} == {
        tmp_path,
        tmp_path / "analyses",
        tmp_path / "checkpoints",
    }
