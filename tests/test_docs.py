"""The tutorial, the how-to and the notebook: every block runs as it stands, on small data, in one folder a page."""

import importlib.util
import json
import os
import re
import runpy
import shlex
import sys
import tomllib
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import forked
import pytest

from interpret_robust import cli
from interpret_robust.core import process_pool
from interpret_robust.core.plugins import list_entry_points
from interpret_robust.datasets import catalogue
from interpret_robust.datasets.cluttered_digits import make_cluttered_digits
from interpret_robust.datasets.npz import write_npz
from interpret_robust.models import checkpoint
from interpret_robust.training import recipe

DOCS = Path(__file__).parent.parent / "docs"
BLOCK = re.compile(r'^```(\w*)(?: title="([^"]*)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
LEFT_OUT = "not run in tests: "
REASONS = {"installs packages", "downloads weights", "takes minutes"}
MODULES = ("my_network", "my_networks", "my_answers", "my_weights", "my_package", "train")
"""Modules that the pages have a reader write and that others of theirs import."""


class Block(NamedTuple):
    """A block of code: its language, empty for what a command prints, its title or nothing, and what is in it."""

    language: str
    title: str
    body: str


def all_blocks(page: str) -> list[Block]:
    """The blocks of a page, in their order."""
    return [Block(*match) for match in BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))]


def blocks(page: str) -> list[Block]:
    """The blocks of a page that name a language."""
    return [block for block in all_blocks(page) if block.language]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_blocks: None) -> Iterator[Path]:
    """A dataset of a few images, recipes of one epoch, one process; an empty folder to work in."""
    monkeypatch.setenv("IRT_DATA", str(tmp_path / "data"))
    catalogue._load.cache_clear()
    dataset = make_cluttered_digits(40, 21)  # more test images than the how-to's limit, which is then part of names
    write_npz(catalogue.find_file("cluttered-digits"), catalogue._arrays(dataset))
    for name, preset in recipe.PRESETS.items():
        monkeypatch.setitem(recipe.PRESETS, name, replace(preset, epochs=1, batch_size=20, attack_steps=1))
    monkeypatch.setattr(process_pool, "count_cores", lambda: 1)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.syspath_prepend(work)
    forget()
    yield work
    monkeypatch.undo()
    catalogue._load.cache_clear()
    forget()


def forget() -> None:
    """What was imported of a reader's files, and what was found of installed packages."""
    for name in [name for name in sys.modules if name.partition(".")[0] in MODULES]:
        del sys.modules[name]
    list_entry_points.cache_clear()
    importlib.invalidate_caches()


def follow(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what a page says: write its files, run its commands and its code."""
    for block in blocks(page):
        if block.title.startswith(LEFT_OUT):
            assert set(block.title.removeprefix(LEFT_OUT).split(", ")) <= REASONS, block.title
        elif block.title:
            write(Path(block.title), block.body, monkeypatch)
        elif block.language == "python":
            exec(compile(block.body, page, "exec"), {"__name__": page})
        else:
            assert block.language == "bash", f"{page}: what to do with {block.language}?"
            for line in block.body.splitlines():
                run(line, monkeypatch)


def write(path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader's file. A package is then there as if pip had installed it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    if path.name == "pyproject.toml":
        project = tomllib.loads(text)["project"]
        info = path.parent / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir()
        name = f"Name: {project['name']}\nVersion: {project['version']}\n"
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\n{name}", encoding="utf-8")
        points = [
            f"[{group}]\n" + "".join(f"{point} = {target}\n" for point, target in entries.items())
            for group, entries in project["entry-points"].items()
        ]
        (info / "entry_points.txt").write_text("\n".join(points), encoding="utf-8")
        monkeypatch.syspath_prepend(path.parent.absolute())
        forget()


def run(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of a shell: `python FILE` or `irt ...` in this process, in one of its own where variables are set."""
    words = shlex.split(line)
    variables = [word for word in words if re.match(r"[A-Z_]+=", word)]
    name, *arguments = words[len(variables) :]
    if name == "python":
        runpy.run_path(arguments[0], run_name="__main__")
        return
    assert name == "irt", line
    if variables:
        with monkeypatch.context() as patch:
            for variable in variables:
                patch.setenv(*variable.split("=", 1))
            code, _, err = forked.run(run_in, Path.cwd(), arguments)
        assert code == 0, f"{line}: {err}"
        return
    monkeypatch.setattr(sys, "argv", ["irt", *arguments])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch")  # timm is older than torch
        with pytest.raises(SystemExit) as end:
            cli.main()
    assert not end.value.code, line


def run_in(folder: Path, arguments: list[str]) -> None:
    """`irt ARGUMENTS` in a folder."""
    os.chdir(folder)
    sys.argv = ["irt", *arguments]
    cli.main()


def words(text: str) -> set[str]:
    """The words that commands print, whatever the number of images: no numbers, files and doubts."""
    text = re.sub(r"In doubt: [^?]*\?", "", text)
    return {word for word in re.findall(r"[\w/.-]*[A-Za-z][\w/.-]*", text) if not re.search(r"/|\.png$", word)}


VERDICTS = words("cannot tell less more robust features")
"""Words of a table that depend on its numbers."""


@pytest.mark.long
def test_the_tutorial_and_the_notebook_run(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    follow("tutorial.md", monkeypatch)
    output = "".join(block.body for block in all_blocks("tutorial.md") if not block.language)
    assert words(output) - VERDICTS == words(capsys.readouterr().out) - VERDICTS
    assert (world / "figures/from-python.png").exists()
    assert len(list(world.glob("figures/*.png"))) >= 3
    monkeypatch.setenv("MPLBACKEND", "Agg")
    notebook = json.loads((DOCS / "notebook.ipynb").read_text(encoding="utf-8"))
    names: dict[str, object] = {"__name__": "notebook"}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "notebook.ipynb", "exec"), names)


@pytest.mark.long
def test_the_how_to_runs(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("timm", "h5netcdf", "pandas"):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    follow("how-to.md", monkeypatch)
    assert list(world.glob("figures/confidence-*.png"))
    assert list(world.glob("checkpoints/*-at-max-seed0.safetensors"))


@pytest.mark.long
def test_the_page_about_pictures_runs(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    follow("pictures.md", monkeypatch)
    assert list(world.glob("figures/data-photos-test.png")) and list(world.glob("figures/localization-*.png"))
    assert list(world.glob("checkpoints/photos-32-small-natural-seed0.safetensors"))


def test_the_page_about_recipes_runs(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    follow("recipes.md", monkeypatch)
    (path,) = world.glob("checkpoints/*-at-seed0.safetensors")
    recipe_in_file = checkpoint.read(path).job["recipe"]
    assert (recipe_in_file["name"], recipe_in_file["epochs"], recipe_in_file["eps"], recipe_in_file["ema"]) == (
        "mine",
        2,
        4 / 255,
        0.995,
    )


def test_few_blocks_are_left_out() -> None:
    examples = [block for page in ("tutorial.md", "how-to.md") for block in blocks(page)]
    left_out = [block for block in examples if block.title.startswith(LEFT_OUT)]
    assert len(left_out) <= 5 < len(examples) / 5
    assert all(block.language == "bash" for block in left_out)


QUESTIONS = sorted(path.stem for path in (DOCS / "questions").glob("*.md") if path.stem != "index")


def test_every_question_has_a_page_and_all_pages_are_alike() -> None:
    from interpret_robust import analyses

    assert sorted(analyses.ORDER) == QUESTIONS
    headings = ["What is measured", "How to read it", "Controls", "A pitfall", "The call"]
    for name in QUESTIONS:
        text = (DOCS / f"questions/{name}.md").read_text(encoding="utf-8")
        assert re.findall(r"^## (.*)$", text, re.MULTILINE) == headings
        assert [block.language for block in blocks(f"questions/{name}.md")] == ["bash", "python"]
        assert text.startswith(f"# {name}: ") and len(re.findall(r"!\[.+\]\(\.\./images/.+\.png\)", text)) == 1


@pytest.mark.long
def test_the_call_of_every_question_runs(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    follow("questions/index.md", monkeypatch)
    for name in QUESTIONS:
        follow(f"questions/{name}.md", monkeypatch)
    questions = {path.name.partition("-cluttered")[0] for path in world.glob("analyses/*.h5")}
    assert questions == set(QUESTIONS) - {"autoattack"}


@pytest.mark.parametrize("page", sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")))
def test_what_a_page_links_to_is_there(page: str) -> None:
    for target in re.findall(r"\]\((?!https://)([^)#]+)[^)]*\)", (DOCS / page).read_text(encoding="utf-8")):
        assert ((DOCS / page).parent / target).exists(), target


def anchors(page: Path) -> set[str]:
    """The headings of a page as the site's links name them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip()) for heading in plain}


@pytest.mark.parametrize("page", ["../README.md", *sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))])
def test_the_sections_that_a_page_links_to_are_there(page: str) -> None:
    for target, section in re.findall(r"\]\((?!https://)([^)#]*)#([^)]+)\)", (DOCS / page).read_text(encoding="utf-8")):
        assert section in anchors((DOCS / page).parent / target if target else DOCS / page), f"{target}#{section}"
