"""README: its commands run as they stand, on small data, and its two first commands are what CI runs."""

import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from interpret_robust import cli, study
from interpret_robust.datasets import catalogue, sources
from interpret_robust.datasets.cluttered_digits import cluttered_digits
from interpret_robust.datasets.npz import Arrays, write_npz
from interpret_robust.training import recipe

REPOSITORY = Path(__file__).parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]


def small(name: str, path: Path) -> None:
    """The dataset `name` as a few images at `path`."""
    made = cluttered_digits(40, 10)
    arrays: Arrays = {"x_train": made.train.images, "x_test": made.test.images}
    arrays |= {"y_train": made.train.labels.astype("u1"), "y_test": made.test.labels.astype("u1")}
    if name.startswith("cluttered") and made.train.masks is not None and made.test.masks is not None:
        arrays |= {"mask_train": made.train.masks, "mask_test": made.test.masks}
    write_npz(path, arrays)


@pytest.fixture
def small_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Datasets of a few images, recipes of one epoch, one process; an empty folder to work in."""
    monkeypatch.setenv("IRT_DATA", str(tmp_path / "data"))
    catalogue.load.cache_clear()
    for name in ("cluttered-digits", "cifar10"):
        small(name, catalogue.file_of(name))
    monkeypatch.setitem(sources.SOURCES, "cifar10", replace(sources.SOURCES["cifar10"], sums={}))
    for name, preset in recipe.PRESETS.items():
        monkeypatch.setitem(recipe.PRESETS, name, replace(preset, epochs=1, batch_size=20, attack_steps=1))
    monkeypatch.setattr(study, "cores", lambda: 1)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def test_every_command_runs_in_order(
    small_world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line.rpartition("&& .venv/bin/")[2] for line in COMMANDS]
    ran = [line for line in lines if line.startswith("irt ")]
    assert len(ran) == len(COMMANDS) - 1
    for line in ran:
        monkeypatch.setattr(sys, "argv", shlex.split(line))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code, f"{line}: {capsys.readouterr()}"
    written = {path.suffix for path in small_world.rglob("*") if path.is_file()}
    assert written == {".safetensors", ".h5", ".png", ".pdf", ".json"}
    catalogue.load.cache_clear()


def test_reproducing_twice_does_nothing_the_second_time(
    small_world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["irt", "reproduce", "quick"])
        with pytest.raises(SystemExit):
            cli.main()
        said.append(capsys.readouterr().out)
        stamps = {path: path.stat().st_mtime_ns for path in small_world.rglob("*") if path.is_file()}
    first, second = said
    assert not re.search(r"^(trained|analysed|drew|redrew) ", second, re.MULTILINE)
    assert first[first.index("\nrobustness\n") :] == second[second.index("\nrobustness\n") :]
    named = {small_world / line for line in second[second.index("\nfiles\n") :].split()[1:]}
    assert named <= set(stamps)
    assert len(named) == len(study.MODELS) + len(study.MODELS) + 4 + 2
    catalogue.load.cache_clear()


def test_ci_runs_the_second_command_as_it_stands() -> None:
    assert COMMANDS[0].endswith("irt reproduce quick")
    assert COMMANDS[1].endswith("pytest")
    assert COMMANDS[1] in (REPOSITORY / ".ci/run").read_text(encoding="utf-8").splitlines()


def test_linked_files_are_there() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://") or (REPOSITORY / target).is_file(), target
