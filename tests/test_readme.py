"""README and `docs/commands.md`: commands and code run as they stand, on small data; CI runs the two first commands."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import command
import pytest

from interpret_robust.core import process_pool
from interpret_robust.datasets import catalogue
from interpret_robust.datasets.cluttered_digits import make_cluttered_digits
from interpret_robust.datasets.npz import Arrays, write_npz
from interpret_robust.datasets.records import RECORDS
from interpret_robust.datasets.sources import Source
from interpret_robust.models import external
from interpret_robust.study import plan
from interpret_robust.training import recipe

REPOSITORY = Path(__file__).parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
EXAMPLES = (REPOSITORY / "docs/commands.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README + EXAMPLES, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]


def small(name: str, path: Path) -> None:
    """The dataset `name` as a few images at `path`: of 16 x 16 pixels, but 32 x 32 where patterns have their place."""
    is_planted = name.endswith("planted")
    digits = make_cluttered_digits(40, 10, with_patterns=is_planted)
    middle = slice(None) if is_planted else slice(8, 24)
    arrays: Arrays = {}
    for part, split in (("train", digits.train), ("test", digits.test)):
        arrays |= {f"x_{part}": split.images[:, middle, middle], f"y_{part}": split.labels.astype("u1")}
        if name.startswith("cluttered") and split.masks is not None:
            arrays |= {f"mask_{part}": split.masks[:, middle, middle]}
    write_npz(path, arrays)


# Of each question two subjects at least, and a model of each architecture to read their maps.
MODELS = (
    *(plan.Model("small", variant, 0) for variant in ("at-att-reg", "at-att", "at")),
    *(plan.Model(architecture, "natural", 1) for architecture in ("cnn", "small")),
)
SMALL_STUDY = replace(
    plan.QUICK,
    models=MODELS,
    questions=tuple(
        replace(question, models=tuple(model for model in question.models if model in MODELS))
        for question in plan.QUICK.questions
    ),
)


@pytest.fixture
def small_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_blocks: None) -> Iterator[Path]:
    """Few models, datasets of a few images, recipes of one epoch, one process; an empty folder to work in."""
    monkeypatch.setenv("IRT_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(plan, "QUICK", SMALL_STUDY)
    catalogue._load.cache_clear()
    for name in ("cluttered-digits", "cluttered-digits-planted", "cifar10"):
        small(name, catalogue.find_file(name))
    cifar10 = RECORDS["cifar10"]
    assert isinstance(cifar10.origin, Source)
    monkeypatch.setitem(RECORDS, "cifar10", replace(cifar10, origin=replace(cifar10.origin, sums={})))
    monkeypatch.setitem(recipe.QUICK_CNN, "epochs", 1)
    for name, preset in recipe.PRESETS.items():
        monkeypatch.setitem(recipe.PRESETS, name, replace(preset, epochs=1, batch_size=20, attack_steps=1))
    monkeypatch.setattr(process_pool, "count_cores", lambda: 1)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    external._shared_model.cache_clear()
    yield work
    catalogue._load.cache_clear()
    external._shared_model.cache_clear()


@pytest.mark.long
def test_every_command_runs_and_the_study_is_done_once(
    small_world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def irt(line: str) -> str:
        code, out, err = command.irt(capsys, monkeypatch, *shlex.split(line)[1:])
        assert code == 0, f"{line}: {out}{err}"
        return out

    def stamps() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in small_world.rglob("*") if path.is_file()}

    lines = [line.rpartition("&& .venv/bin/")[2] for line in COMMANDS]
    ran = [line for line in lines if line.startswith("irt ")]
    left = [line.split()[0] for line in lines if line not in ran]
    assert left == ["pytest", "torchrun", "snakemake"] and ran[0] == "irt reproduce quick"
    first, first_stamps = irt(ran[0]), stamps()
    second = irt(ran[0])
    assert stamps() == first_stamps
    assert first == second
    for question in SMALL_STUDY.questions:
        name, count = question.analysis, len(question.models)
        assert count >= 2
        assert len(list(small_world.glob(f"analyses/{name}-*.h5"))) == count
        assert list(small_world.glob(f"figures/{name}-*.png"))
        assert re.search(rf"\n{name}, {question.images}\nmodel ", second)
    for line in ran[1:]:
        irt(line)
    for code in PYTHON:
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert {path.suffix for path in stamps()} == {".safetensors", ".h5", ".png", ".pdf", ".json", ".html", ".csv"}


def test_ci_runs_the_second_command_as_it_stands() -> None:
    assert COMMANDS[0].endswith("irt reproduce quick")
    assert COMMANDS[1].endswith("pytest")
    assert COMMANDS[1] in (REPOSITORY / ".ci/run").read_text(encoding="utf-8").splitlines()


def test_linked_files_are_there() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://") or (REPOSITORY / target.partition("#")[0]).is_file(), target
