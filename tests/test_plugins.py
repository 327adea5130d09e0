"""Analyses, figures and variants of an installed package; objects named by a user; and a sentence where these fail."""

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from anyone import save_tiny
from command import Irt
from networks import pixels

from interpret_robust import analyses, figures
from interpret_robust.analyses.engine import validation
from interpret_robust.core import plugins, process_pool
from interpret_robust.core.errors import UserError
from interpret_robust.core.plugins import import_object, is_reference, list_entry_points
from interpret_robust.datasets import Dataset, Split, catalogue, load
from interpret_robust.datasets.batches import to_device, to_pixels
from interpret_robust.datasets.records import RECORDS, Generator, Record
from interpret_robust.models import architectures, build, checkpoint
from interpret_robust.models.variants import Variant, find_variant, has_attention
from interpret_robust.training.objective import FeatureRegularization
from interpret_robust.training.recipe import PRESETS
from interpret_robust.training.recipe_file import find_recipe

ANALYSIS = '''"""How bright are the images? (a question of ours)

More of it.
"""

from dataclasses import dataclass, field

import numpy as np
import torch

from interpret_robust.results.schema import Column, Schema, interval
from interpret_robust.core.bootstrap import bootstrap_mean
from interpret_robust.analyses.engine.analysis import Analysis
from interpret_robust.analyses.engine.settings import Settings

SCHEMA = Schema(
    name="brightness",
    version=1,
    per_image=(
        Column("per_image/brightness", "f4", "mean of the pixels times a factor"),
        Column("per_image/prediction", "i2", "predicted class"),
    ),
    summary=(interval("mean/brightness", "mean over images"),),
)


@dataclass(frozen=True)
class Brightness(Settings):
    """One factor."""

    factor: float = field(default=1.0, metadata={"help": "What brightness is multiplied by."})


def rows(model, batch, settings):
    with torch.no_grad():
        predicted = model(batch.images).argmax(1)
    found = settings.factor * batch.images.mean((1, 2, 3))
    return {"per_image/brightness": found.numpy(), "per_image/prediction": predicted.numpy()}


def summarize(columns, _):
    return {"mean/brightness": bootstrap_mean(columns["per_image/brightness"])}


def table_row(result):
    return {"brightness": f"{result['mean/brightness'][0]:.4f}"}


ANALYSIS = Analysis(SCHEMA, Brightness, rows, summarize, table_row)
'''

FIGURE = '''"""A dot a model."""

from interpret_robust.figures.style import Drawing, make_figure

READS = "brightness/1"


def draw(results):
    figure = make_figure(2)
    axes = figure.subplots()
    values = [float(result["mean/brightness"][0]) for result in results]
    axes.plot(values, "o")
    return Drawing(figure, "How bright images are.", {"brightness": values})
'''

VARIANTS = '''"""A head that looks at the first channel, and a distance of its own."""

import torch
from torch import nn

from interpret_robust.models.variants import Variant


class First(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, local):
        flat = local.flatten(2)
        attention = flat[:, 0].softmax(1)
        return attention, self.scale * (flat * attention[:, None]).sum(2)


def distance(clean, adversarial):
    return (clean - adversarial).abs().sum(1)


BRIGHT = Variant("bright", adversarial=True, head=First, regularized=True, distance=distance)
OTHER = Variant("another-name", adversarial=False)
'''

NETWORKS = '''"""A backbone of one convolution, and one that is none."""

from torch import nn


class Stripes(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.local_channels = 6
        self.convolution = nn.Conv2d(channels, 6, 3, stride=4, padding=1)

    def forward(self, images):
        return self.convolution(images).relu()


def nothing(channels):
    return nn.Identity()
'''

DATA = '''"""Twelve images of three classes, and what is no data."""

import numpy as np


def arrays():
    numbers = np.random.default_rng(0)
    made = {"class_names": np.array(["ant", "bee", "cow"])}
    for part, count in (("train", 12), ("test", 9)):
        made[f"x_{part}"] = numbers.integers(0, 256, (count, 20, 16, 3), np.uint8)
        made[f"y_{part}"] = np.arange(count) % 3
    return made


def wrong():
    return {**arrays(), "y_train": np.arange(12) % 3 + 1}


def nothing():
    return None
'''

POINTS = """[interpret_robust.architectures]
stripes = bright_of_tests.networks:Stripes
no-backbone = bright_of_tests.networks:nothing
small = bright_of_tests.networks:nothing

[interpret_robust.datasets]
farm = bright_of_tests.data:arrays
wrong-labels = bright_of_tests.data:wrong
no-arrays = bright_of_tests.data:nothing
cifar10 = bright_of_tests.data:nothing

[interpret_robust.analyses]
brightness = bright_of_tests.question
robustness = bright_of_tests.question

[interpret_robust.figures]
brightness = bright_of_tests.picture

[interpret_robust.variants]
bright = bright_of_tests.variants:BRIGHT
misnamed = bright_of_tests.variants:OTHER
no-variant = bright_of_tests.variants:distance
no-name = bright_of_tests.variants:GONE
no-module = bright_of_tests.gone:BRIGHT
no-package = gone_of_tests.variants:BRIGHT
at = bright_of_tests.variants:OTHER
"""


def install(folder: Path, points: str = POINTS) -> Path:
    """A package in a folder with the metadata that pip would write."""
    package, metadata = folder / "bright_of_tests", folder / "bright_of_tests-1.0.dist-info"
    for directory in (package, metadata):
        directory.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "question.py").write_text(ANALYSIS)
    (package / "picture.py").write_text(FIGURE)
    (package / "variants.py").write_text(VARIANTS)
    (package / "networks.py").write_text(NETWORKS)
    (package / "data.py").write_text(DATA)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: bright-of-tests\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(points)
    return folder


def forget() -> None:
    """What was found of installed packages, and what was imported of this one."""
    list_entry_points.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] in ("bright_of_tests", "gone_of_tests")]:
        del sys.modules[name]
    importlib.invalidate_caches()


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("packages"))


@pytest.fixture
def plugin_folder(packages: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package is there for a test, and gone after it."""
    monkeypatch.syspath_prepend(packages)
    monkeypatch.setenv("PYTHONPATH", str(packages))
    forget()
    yield packages
    monkeypatch.undo()
    forget()


PROGRAM = """
import sys
from interpret_robust import cli
cli.irt(["analyze", "--help"], prog_name="irt", standalone_mode=False)
print(sorted({"torch", "numpy", "bright_of_tests.question", "bright_of_tests.picture"} & set(sys.modules)))
"""


def test_help_lists_an_installed_analysis_without_importing_it(packages: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(packages)}
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    process = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    (line,) = [line for line in process.stdout.splitlines() if "brightness" in line]
    assert line.split() == ["brightness", "How", "bright", "are", "the", "images?", "(a", "question", "of", "ours)"]
    assert process.stdout.splitlines()[-1] == "[]"


@pytest.mark.usefixtures("plugin_folder")
def test_installed_names_come_after_ours_and_do_not_replace_them() -> None:
    assert analyses.list_names()[-1] == "brightness" and analyses.list_names().count("robustness") == 1
    assert analyses.get("robustness").schema.name == "robustness"
    assert analyses.about("robustness") != analyses.about("brightness")
    assert figures.list_names()[-1] == "brightness"
    assert find_variant("at").adversarial and find_variant("at").head == "average"


def test_without_the_package_nothing_of_it_is_known() -> None:
    assert "brightness" not in [*analyses.list_names(), *figures.list_names()]
    with pytest.raises(UserError, match="unknown variant 'bright'"):
        find_variant("bright")


def test_an_installed_analysis_runs_is_drawn_and_reported(
    plugin_folder: Path, make_checkpoint: Callable[..., Path], tmp_path: Path, irt: Irt
) -> None:
    data = save_tiny(tmp_path / "tiny.npz")
    path = make_checkpoint(tmp_path, "at")
    options = ["--dataset", data, "--root", tmp_path]
    code, out, _ = irt("analyze", "brightness", "--help")
    assert code == 0 and "What brightness is multiplied by." in out
    code, out, err = irt("analyze", "brightness", path, "--factor", "3", *options)
    assert code == 0, err
    images = load(str(data)).test.images / 255
    assert f"{3 * images.mean():.4f}" in out
    (result,) = tmp_path.glob("analyses/brightness-*.h5")
    with h5py.File(result) as file:
        np.testing.assert_allclose(file["per_image/brightness"][:], 3 * images.mean((1, 2, 3)), rtol=1e-5)
    assert validation.list_problems(result) == []
    code, out, err = irt("figure", "all", "--root", tmp_path)
    assert code == 0, err
    assert len(list((tmp_path / "figures").glob("brightness-*.png"))) == 1
    code, _, err = irt("report", "--root", tmp_path)
    assert code == 0, err
    assert "brightness" in (tmp_path / "report.html").read_text()
    assert irt("show", result)[0] == 0


@pytest.mark.long
def test_an_installed_variant_is_trained_and_asked_with_its_attention(
    plugin_folder: Path, tmp_path: Path, irt: Irt
) -> None:
    data = save_tiny(tmp_path / "tiny.npz")
    recipe = ["--recipe", "quick", "--set", "epochs=1", "--set", "batch_size=10"]
    code, _, err = irt("train", "bright", "--dataset", data, *recipe, "--root", tmp_path)
    assert code == 0, err
    path = tmp_path / "checkpoints/tiny-small-bright-seed0.safetensors"
    snapshot = checkpoint.read(path)
    assert snapshot.job["variant"] == "bright" and has_attention(snapshot.job)
    model = snapshot.model(torch.device("cpu"))
    assert not torch.equal(model.head.get_parameter("scale"), torch.ones(64)), "the head is trained"
    code, out, err = irt("analyze", "attention-rank", path, "--steps", "1", "--limit", "4", "--root", tmp_path)
    assert code == 0, err
    assert "bright" in out
    (file_of,) = tmp_path.glob("analyses/attention-rank-*.h5")
    images, _ = to_device(load(str(data)).test.first(4), torch.device("cpu"))
    with torch.no_grad():
        expected = model.backbone(to_pixels(images)).flatten(2)[:, 0].softmax(1)
    with h5py.File(file_of) as file:
        np.testing.assert_allclose(file["per_image/attention"][:], expected, rtol=1e-3, atol=1e-5)
    assert irt("figure", "attention-rank", "--root", tmp_path)[0] == 0


@pytest.mark.long
@pytest.mark.usefixtures("plugin_folder")
def test_an_installed_architecture_is_trained_on_an_installed_dataset_and_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, irt: Irt
) -> None:
    monkeypatch.setattr(process_pool, "count_cores", lambda: 2)  # workers that train and ask know the package too
    recipe = ["--recipe", "quick", "--set", "epochs=1", "--set", "batch_size=6"]
    words = ["--dataset", "farm", "--arch", "stripes", *recipe, "--root", tmp_path]
    code, _, err = irt("train", "at-att", "at-reg", *words)
    assert code == 0, err
    snapshot = checkpoint.read(tmp_path / "checkpoints/farm-stripes-at-att-seed0.safetensors")
    assert (snapshot.job["dataset"], snapshot.job["architecture"]) == ("farm", "stripes")
    assert snapshot.job["class_names"] == ["ant", "bee", "cow"] and snapshot.local_shape() == (6, 5, 4)
    model: Any = snapshot.model(torch.device("cpu"))
    images = to_pixels(to_device(load("farm").test, torch.device("cpu"))[0])
    with torch.no_grad():
        local = model.backbone.convolution(images).relu()
        torch.testing.assert_close(model.features(images).local, local)
        right = (model(images).argmax(1).numpy() == load("farm").test.labels).mean()
    code, out, err = irt("evaluate", "--pgd", "2", "--cw", "none", "--root", tmp_path, "--form", "json")
    assert code == 0, err
    (row,) = [row for row in json.loads(out)[0]["rows"] if row["model"] == "farm-stripes-at-att-seed0"]
    assert row["natural"]["value"] == round(100 * right, 1) and row["images"] == 9
    code, out, _ = irt("data", "list")
    assert re.search(r"\nfarm +yes +from an installed package", out)


@pytest.mark.usefixtures("plugin_folder")
def test_installed_architectures_and_datasets_do_not_replace_ours() -> None:
    assert (
        architectures.list_names()[-2:] == ("stripes", "no-backbone") and architectures.list_names().count("small") == 1
    )
    assert build("small", "average", (3, 32, 32), 10, seed=0).backbone.local_channels == 64
    assert catalogue.list_names()[-3:] == ("farm", "wrong-labels", "no-arrays") and not catalogue.is_installed(
        "cifar10"
    )


def halves(seed: int) -> Dataset:
    """Noise of 16 x 20 pixels whose left half is brighter in class 0, the right one in class 1; without masks."""
    random = np.random.default_rng(seed)

    def split(count: int) -> Split:
        labels = np.arange(count) % 2
        images = random.integers(0, 100, (count, 16, 20, 3), np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[:, 10 * label : 10 * label + 10] += 100
        return Split(images, labels)

    return Dataset("halves", split(30), split(10), ("left", "right"))


def test_a_record_is_all_that_a_new_dataset_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, irt: Irt) -> None:
    """As CONTRIBUTING says: its name, line, classes, file, recipe and augmentation come from the record alone."""
    monkeypatch.setenv("IRT_DATA", str(tmp_path / "data"))
    halves_record = Record(
        "which half is bright", ("left", "right"), Generator(3, halves), recipe="mnist-quick", can_flip=False
    )
    monkeypatch.setitem(RECORDS, "halves", halves_record)
    assert re.search(r"\nhalves +no +which half is bright\n", irt("data", "list")[1])
    assert "did you mean 'halves'?" in irt("data", "get", "halvs")[2]
    code, out, err = irt("data", "get", "halves")
    path = tmp_path / "data/halves-v3-seed0.npz"
    assert (code, err) == (0, "")
    assert out == f"halves: 30 train and 10 test images of 16x20x3, 2 classes, in {path}\n"
    np.testing.assert_array_equal(np.load(path)["x_test"], halves(0).test.images)
    words = ["--dataset", "halves", "--arch", "small", "--set", "epochs=1", "--set", "batch_size=10"]
    code, _, err = irt("train", "natural", *words, "--root", tmp_path)
    assert code == 0, err
    job = checkpoint.read(tmp_path / "checkpoints/halves-small-natural-seed0.safetensors").job
    assert (job["dataset"], job["class_names"]) == ("halves", ["left", "right"])
    assert (job["recipe"]["name"], job["recipe"]["flip"]) == ("mnist-quick", False)
    assert PRESETS["paper"].flip and PRESETS["paper"].pad == 2
    whole = replace(halves_record, can_crop=False)
    monkeypatch.setitem(RECORDS, "halves", whole)
    assert (find_recipe("paper", "halves").flip, find_recipe("paper", "halves").pad) == (False, 0)
    monkeypatch.setitem(RECORDS, "halves", replace(whole, can_flip=True))
    assert (find_recipe("paper", "halves").flip, find_recipe("paper", "halves").pad) == (True, 0)


@pytest.mark.usefixtures("plugin_folder")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--arch", "no-backbone"],
            "the entry point 'no-backbone' of interpret_robust.architectures gives no backbone",
        ),
        (["--arch", "stripe"], "unknown architecture 'stripe': did you mean 'stripes'?"),
        (["--dataset", "no-arrays"], "the entry point 'no-arrays' of interpret_robust.datasets gives no arrays"),
        (["--dataset", "wrong-labels"], "wrong-labels: y_train has 3 labels from 1 to 3"),
        (["--dataset", "frm"], "unknown dataset 'frm': did you mean 'farm'?"),
    ],
)
def test_a_wrong_entry_point_of_a_network_or_of_data_is_told(
    words: list[str], sentence: str, tmp_path: Path, irt: Irt
) -> None:
    code, _, err = irt("train", "natural", "--dataset", "farm", "--set", "batch_size=6", *words, "--root", tmp_path)
    assert code == 2 and sentence in err
    assert err.startswith("irt: ") and err.count("\n") == 1


@pytest.mark.usefixtures("plugin_folder")
def test_an_installed_variant_has_its_own_distance() -> None:
    bright = find_variant("bright")
    assert isinstance(bright, Variant) and bright.distance is not None
    clean, adversarial = pixels(5, 8), pixels(5, 8, seed=1)
    term = FeatureRegularization(0.5, bright.distance)(clean, adversarial)
    torch.testing.assert_close(term, 0.5 * (clean - adversarial).abs().sum(1).mean())


@pytest.mark.usefixtures("plugin_folder")
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("misnamed", "the entry point 'misnamed' of interpret_robust.variants is no Variant of that name"),
        ("no-variant", "the entry point 'no-variant' of interpret_robust.variants is no Variant of that name"),
        ("no-name", "the entry point 'no-name' of interpret_robust.variants"),
        ("no-module", "the entry point 'no-module' of interpret_robust.variants"),
        ("no-package", "the entry point 'no-package' of interpret_robust.variants"),
        ("brigt", "unknown variant 'brigt': did you mean 'bright'"),
    ],
)
def test_a_wrong_entry_point_of_a_variant_is_told(name: str, sentence: str, tmp_path: Path, irt: Irt) -> None:
    data = save_tiny(tmp_path / "tiny.npz")
    code, _, err = irt("train", name, "--dataset", data, "--root", tmp_path)
    assert code == 2 and sentence in err
    assert err.startswith("irt: ") and err.count("\n") == 1


WRONG = {
    "no-module": "bright_of_tests.gone",
    "no-package": "gone_of_tests.question",
    "no-analysis": "bright_of_tests.variants",
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("kind", ["analyses", "figures"])
def test_a_wrong_entry_point_of_an_analysis_or_figure_is_told(
    kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, irt: Irt
) -> None:
    points = f"[interpret_robust.{kind}]\n{name} = {WRONG[name]}\n"
    monkeypatch.syspath_prepend(install(tmp_path / "wrong", points))
    forget()
    try:
        command = ["analyze", name, "--help"] if kind == "analyses" else ["figure", name, tmp_path / "a.h5"]
        code, _, err = irt(*command)
        assert code == 2
        assert f"entry point '{name}' of interpret_robust.{kind}" in err
        assert err.startswith("irt: ") and err.count("\n") == 1
    finally:
        monkeypatch.undo()
        forget()


@pytest.mark.parametrize("name", ["no-module", "no-package"])
def test_a_broken_package_does_not_take_the_list_of_analyses_away(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, irt: Irt
) -> None:
    monkeypatch.syspath_prepend(install(tmp_path, f"[interpret_robust.analyses]\n{name} = {WRONG[name]}\n"))
    forget()
    try:
        code, out, err = irt("analyze", "--help")
        assert code == 0 and "attention-rank" in out, err
    finally:
        monkeypatch.undo()
        forget()


# --- objects by their name


@pytest.mark.parametrize("text", ["a:b", "a.b_c:d", "a.b:c.d", "_a:_b"])
def test_a_module_and_a_name_are_a_reference(text: str) -> None:
    assert is_reference(text)


@pytest.mark.parametrize(
    "text", ["", "a", "a.b", ":b", "a:", "a b:c", "a.:b", "a:b:c", "a-b:c", "a/b:c", "a:1", "a:b()"]
)
def test_other_texts_are_no_reference(text: str) -> None:
    assert not is_reference(text)
    with pytest.raises(UserError, match=r"names nothing that can be imported: give package\.module:name"):
        import_object(text)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory whose modules can be imported; afterwards they are forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    importlib.invalidate_caches()
    yield tmp_path
    for name in ("here_of_tests", "broken_of_tests", "deep_of_tests", "deep_of_tests.inner"):
        sys.modules.pop(name, None)


def test_an_object_is_found_in_the_working_directory(folder: Path) -> None:
    (folder / "here_of_tests.py").write_text("class Outer:\n    value = 7\nNONE = None\n")
    assert import_object("here_of_tests:Outer.value") == 7
    assert import_object("here_of_tests:NONE") is None
    (folder / "deep_of_tests").mkdir()
    (folder / "deep_of_tests/__init__.py").write_text("")
    (folder / "deep_of_tests/inner.py").write_text("value = 8\n")
    assert import_object("deep_of_tests.inner:value") == 8
    assert import_object("interpret_robust.core.plugins:import_object") is import_object
    assert sys.path.count(str(folder)) == 1


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("gone_of_tests:name", "gone_of_tests:name: module 'gone_of_tests' cannot be imported"),
        ("here_of_tests.more:name", "module 'here_of_tests.more' cannot be imported"),
        ("broken_of_tests:name", r"module 'broken_of_tests' cannot be imported \(out of order\)"),
        ("here_of_tests:gone", "here_of_tests:gone: here_of_tests has no 'gone'"),
        ("here_of_tests:value.gone", "here_of_tests has no 'gone'"),
    ],
)
def test_an_object_that_is_not_there_is_the_users_error(reference: str, sentence: str, folder: Path) -> None:
    (folder / "here_of_tests.py").write_text("value = 7\n")
    (folder / "broken_of_tests.py").write_text("raise RuntimeError('out of order')\n")
    with pytest.raises(UserError, match=sentence) as error:
        import_object(reference)
    assert "\n" not in str(error.value)


def test_an_error_of_several_lines_is_told_in_one(folder: Path) -> None:
    (folder / "broken_of_tests.py").write_text("raise RuntimeError('out of order.\\nat all')\n")
    with pytest.raises(UserError, match="out of order") as error:
        import_object("broken_of_tests:name")
    assert "\n" not in str(error.value)


def test_a_module_that_ends_the_program_is_the_users_error(folder: Path) -> None:
    """A script without a guard calls sys.exit when it is imported."""
    (folder / "broken_of_tests.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(UserError, match="broken_of_tests"):
        import_object("broken_of_tests:name")


def test_every_group_is_told_in_the_docstring() -> None:
    for group in ("analyses", "figures", "variants"):
        assert f"interpret_robust.{group}" in (plugins.__doc__ or "")
