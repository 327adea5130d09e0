"""The command: what it prints, what it skips, and one clear sentence for each kind of nonsense."""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import forked
import h5py
import make_golden
import numpy as np
import oddity
import pytest
from command import Irt

from interpret_robust import analyses, cli, figures
from interpret_robust.analyses.engine import printing
from interpret_robust.cli.groups import SHORTCUTS
from interpret_robust.core import process_pool
from interpret_robust.core.folders import Folders
from interpret_robust.datasets.cluttered_digits import CLASS_NAMES, make_cluttered_digits
from interpret_robust.datasets.npz import write_npz
from interpret_robust.models import checkpoint
from interpret_robust.results import attack_outcomes, hdf5
from interpret_robust.results.tables import FORMS
from interpret_robust.study import plan, reproduction
from interpret_robust.study import tasks as pieces
from interpret_robust.training.recipe import PRESETS
from interpret_robust.training.recipe_file import find_recipe

QUICK = ["--set", "epochs=1", "--set", "batch_size=20"]


def save_digits(path: Path, **changes: np.ndarray | None) -> Path:
    dataset = make_cluttered_digits(60, 10)
    arrays: dict[str, np.ndarray | None] = {
        "x_train": dataset.train.images,
        "y_train": dataset.train.labels,
        "x_test": dataset.test.images,
        "y_test": dataset.test.labels,
    }
    write_npz(path, {key: array for key, array in (arrays | changes).items() if array is not None})
    return path


def save_two_classes(path: Path) -> Path:
    """Fewer pictures on a contact sheet."""
    return save_digits(path, y_train=np.arange(60) % 2, y_test=np.arange(10) % 2)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with two trained models and an analysis of each, made by the command itself."""
    root = tmp_path_factory.mktemp("study")
    data = save_digits(root / "tiny.npz")
    models = [root / f"checkpoints/tiny-small-{variant}-seed0.safetensors" for variant in ("at", "at-att")]
    commands: list[list[object]] = [
        ["train", "at", "--dataset", data, "--recipe", "quick", *QUICK],
        ["train", "at-att", "--dataset", data, "--recipe", "quick", *QUICK],
        ["analyze", "attention-rank", "--steps", "2"],
        *(["evaluate", model] for model in models),
    ]
    for command in commands:
        cli.irt([*map(str, command), "--root", str(root)], standalone_mode=False)
    return root


WITHOUT_TORCH = """
import sys
from pathlib import Path
from interpret_robust import cli

def irt(*arguments):
    cli.irt([*map(str, arguments)], prog_name="irt", standalone_mode=False)
    return sorted({"torch", "scipy.stats", "numpy", "h5py", "matplotlib"} & set(sys.modules))

root = Path(sys.argv[1])

def below(group, words=()):
    yield list(words)
    for name in group.list_commands(None) if hasattr(group, "list_commands") else ():
        yield from below(group.get_command(None, name), (*words, name))

commands = [*below(cli.irt)]
found = [irt(*command, "--help") for command in commands]
assert not any(found), found
for file in sorted(root.rglob("*.safetensors")) + sorted(root.rglob("*.h5")):
    found.append(irt("show", file))

from matplotlib.figure import Figure
from interpret_robust.figures import saving, style
saving._lay_out = lambda figure: figure.set_layout_engine(None)
Figure.savefig = lambda figure, path, **_: path.write_bytes(b"\\x89PNG\\r\\n\\x1a\\n")  # test_golden.py draws them
print(found[len(commands):], irt("figure", "all", "--root", root), file=sys.stderr)
for command in ("checkpoints list", "data list", "recipes", "flags", "figure"):
    assert "torch" not in irt(*command.split(), *(["--root", root] if command in ("checkpoints list", "flags") else []))
print(len(commands), file=sys.stderr)
"""

PLAN = """
import sys
from interpret_robust import cli
cli.irt(["plan", "quick"], standalone_mode=False)
print(sorted({"captum", "matplotlib"} & set(sys.modules)), file=sys.stderr)
"""


@pytest.mark.long
def test_help_show_and_figure_answer_without_torch(study: Path, tmp_path: Path) -> None:
    """All in one fresh process: a module that one command has loaded stays."""
    for folder in ("checkpoints", "analyses"):
        (tmp_path / folder).mkdir()
    shutil.copy(study / "checkpoints/tiny-small-at-seed0.safetensors", tmp_path / "checkpoints")
    files = [make_golden.file_of(analyses.get(name).schema) for name in analyses.list_names()]
    golden = [shutil.copy(file, tmp_path / "analyses") for file in files]
    command = [sys.executable, "-W", "error", "-c", WITHOUT_TORCH, str(tmp_path)]
    process = subprocess.run(command, check=True, capture_output=True, text=True)
    modules = [["h5py", "numpy"]] * (1 + len(golden))
    context = click.Context(cli.irt)
    commands = [
        name
        for name in cli.irt.list_commands(context)
        if not hasattr(cli.irt.get_command(context, name), "list_commands") and name not in SHORTCUTS
    ]
    line, count = process.stderr.splitlines()
    assert line == f"{modules} {['h5py', 'matplotlib', 'numpy']}"
    assert int(count) > len(commands) + len(analyses.list_names())
    panels = [panel for name in analyses.list_names() for panel in figures.list_plots(name)]
    assert len(list((tmp_path / "figures").glob("*.png"))) == len(panels)


@pytest.mark.long
def test_a_plan_loads_no_library_that_only_computing_needs() -> None:
    process = subprocess.run([sys.executable, "-c", PLAN], check=True, capture_output=True, text=True)
    assert process.stderr == "[]\n"


ANSWER = """
import sys
from interpret_robust import cli
cli.irt(sys.argv[1:], standalone_mode=False)
slow = {"captum", "matplotlib", "scipy.optimize", "scipy.stats", "torchvision"}
print(sorted(slow & set(sys.modules)), file=sys.stderr)
"""


@pytest.mark.long
def test_an_answer_loads_no_library_that_it_does_not_need(study: Path, tmp_path: Path) -> None:
    model = study / "checkpoints/tiny-small-at-seed0.safetensors"
    command = f"evaluate {model} --root {tmp_path} --pgd 1 --cw none --limit 3"
    process = subprocess.run(
        [sys.executable, "-c", ANSWER, *command.split()], check=True, capture_output=True, text=True
    )
    assert process.stderr.splitlines()[-1] == "[]"


ERRORS = """
import sys
from interpret_robust import cli
from interpret_robust.core.errors import UserError

for line in sys.argv[1:]:
    try:
        cli.irt(line.split(), prog_name="irt", standalone_mode=False)
    except UserError as error:
        print(error)
print("torch" in sys.modules)
"""
NO_CHECKPOINT, NO_CARD = "there is no checkpoint gone.safetensors: ", "there is no model card gone.json: "
NO_WEIGHTS, NO_DATA = "there is no file of weights gone.pt: ", "there is no dataset file gone.npz: "
MISSING_FILES = {
    "evaluate gone.safetensors": NO_CHECKPOINT,
    "analyze attention-rank gone.safetensors": NO_CHECKPOINT,
    "gradmap-score gone.json": NO_CARD,
    "gradmap-score {model} --evaluator gone.safetensors": NO_CHECKPOINT,
    "evaluate --model gone.json": NO_CARD,
    "evaluate --model torchvision:resnet18 --weights gone.pt --dataset cifar10": NO_WEIGHTS,
    "evaluate {model} --dataset gone.npz": NO_DATA,
    "evaluate {model} --dataset cifra10": "unknown dataset 'cifra10': did you mean 'cifar10'?",
    "evaluate --root gone": "there is no folder gone: give as --root the one that holds checkpoints/ and analyses/.",
    "model layers --model gone.safetensors --dataset cifar10": NO_CHECKPOINT,
    "model card --model my:Net --weights gone.pt --dataset cifar10 -o a.json": NO_WEIGHTS,
    "model layers --model gone.json --dataset gone.npz": NO_DATA,
    "verify gone.npy {model}": "there is no file gone.npy: ",
    "verify gone.npy gone.safetensors": NO_CHECKPOINT,
    "train at --dataset gone.npz": NO_DATA,
    "checkpoints list --root gone": "there is no folder gone: ",
    "checkpoints list --root {root}/checkpoints": "there are no checkpoints in ",
    "report --root gone": "there is no folder gone: ",
    "train at --set optimizer=x": "unknown optimizer 'x': known are adam, sgd.",
    "train at --root gone/below": "there is no folder gone to make below in: make it, or correct --root.",
    "report --root {root} -o {model}": "{model} was not written by irt",
    "train UNKNOWN": "unknown variant 'UNKNOWN': known are at, ",
    "train at AT-REG": "unknown variant 'AT-REG': did you mean 'at-reg'?",
    "train at --recipe quik": "unknown recipe 'quik': did you mean 'quick'?",
    "train at --set epoch=3": "unknown recipe field 'epoch': did you mean 'epochs'?",
    "train at --set epochs=many": "epochs=many: 'many' is no value for epochs: give a whole number, such as 4.",
}


def test_what_is_missing_or_unknown_is_named_before_torch_is_loaded(study: Path) -> None:
    """All in one fresh process: a module that one command has loaded stays."""
    model = study / "checkpoints/tiny-small-at-seed0.safetensors"
    places = {"model": model, "root": study}
    command = [sys.executable, "-c", ERRORS, *(line.format(**places) for line in MISSING_FILES)]
    *sentences, has_torch = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert has_torch == "False"
    for sentence, (line, beginning) in zip(sentences, MISSING_FILES.items(), strict=True):
        assert sentence.startswith(beginning.format(**places)), line


def test_the_study_is_there(study: Path) -> None:
    names = {path.name for folder in ("checkpoints", "analyses") for path in (study / folder).iterdir()}
    assert names == {
        "tiny-small-at-seed0.safetensors",
        "tiny-small-at-att-seed0.safetensors",
        "attention-rank-tiny-small-at-seed0-test-steps2.h5",
        "attention-rank-tiny-small-at-att-seed0-test-steps2.h5",
        "robustness-tiny-small-at-seed0-test.h5",
        "robustness-tiny-small-at-att-seed0-test.h5",
    }


def test_a_second_run_does_nothing(irt: Irt, study: Path) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in study.rglob("*.*") if path.suffix != ".npz"}
    location = ["--root", study]
    for arguments in (
        ["train", "at", "at-att", "--dataset", study / "tiny.npz", "--recipe", "quick", *QUICK],
        ["analyze", "attention-rank", "--steps", "2"],
        ["evaluate"],
    ):
        code, out, err = irt(*arguments, *location)
        assert code == 0
        assert "there already" in (out if arguments[0] == "train" else err)
        assert "trained" not in out + err
        assert "analyzed" not in out + err
    assert stamps == {path: path.stat().st_mtime_ns for path in study.rglob("*.*") if path.suffix != ".npz"}


def test_evaluate_prints_what_the_file_holds_in_the_papers_order(irt: Irt, study: Path) -> None:
    _, out, _ = irt("evaluate", "--root", study)
    rows = [line for line in out.splitlines() if line.startswith("at-")][:2]
    assert [row.split()[0] for row in rows] == ["at-seed0", "at-att-seed0"]
    with h5py.File(study / "analyses/robustness-tiny-small-at-seed0-test.h5") as file:
        rows_of = file["per_image"]
        right = (rows_of["prediction"][:, 0, 1, 0] == rows_of["label"][...]).mean()
    cells = dict(zip(re.split("  +", out.splitlines()[0]), re.split("  +", rows[0]), strict=True))
    assert cells["PGD-20"].startswith(f"{100 * right:.1f} % [")
    assert (cells["images"], cells["gradients an image"]) == ("10", "300")


def test_naming_a_checkpoint_twice_or_a_default_changes_nothing(irt: Irt, study: Path) -> None:
    model = study / "checkpoints/tiny-small-at-seed0.safetensors"
    code, out, err = irt("evaluate", model, model, "--eps", "8/255", "--root", study)
    assert (code, err) == (0, "robustness-tiny-small-at-seed0-test.h5 is there already\n")
    assert len([line for line in out.splitlines() if line.startswith("tiny-small-at-seed0 ")]) == 1


@pytest.mark.long
@pytest.mark.parametrize("command", ["evaluate", "analyze attention-rank --steps 2"])
def test_tables_come_in_each_form_with_nothing_else_on_stdout(irt: Irt, study: Path, command: str) -> None:
    pattern = {"evaluate": "robustness-*", "analyze attention-rank --steps 2": "attention-rank-*"}[command]
    files = sorted((study / "analyses").glob(pattern))
    for form in FORMS:
        code, out, err = irt(*command.split(), "--form", form, "--root", study)
        assert (code, err.count("is there already")) == (0, 2)
        assert out == printing.render_answers(files, form=form) + "\n"
    code, out, _ = irt(*command.split(), "--root", study)
    assert out == printing.render_answers(files) + "\n"


def test_a_statistic_that_was_changed_on_disk_is_never_printed(irt: Irt, study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "copy")
    with h5py.File(tmp_path / "copy/analyses/robustness-tiny-small-at-seed0-test.h5", "r+") as file:
        file["accuracy/natural"][0] = 0.987
    code, out, err = irt("evaluate", "--root", tmp_path / "copy")
    assert code == 2
    assert "98.7" not in out
    assert "is damaged (its content differs from its checksum)" in err


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> None:
    """The analysis `odd` is there, and all is done in this process."""
    oddity.register(monkeypatch)
    monkeypatch.setattr(process_pool, "count_cores", lambda: 1)


def columns_of(out: str) -> list[str]:
    """The heads of the first table that was printed."""
    lines = out.splitlines()
    return lines[next(i for i, line in enumerate(lines) if line.startswith("---")) - 1].split()


@pytest.mark.usefixtures("odd")
def test_views_are_flags_that_limit_what_is_printed_not_what_is_stored(irt: Irt, study: Path, tmp_path: Path) -> None:
    subject, reader = (study / f"checkpoints/tiny-small-{name}-seed0.safetensors" for name in ("at-att", "at"))
    command = ["analyze", "odd", subject, "--evaluator", reader, "--evaluator", reader, "--root", tmp_path]
    files = set()
    for views, columns in (
        ([], ["model", "rightly", "highest"]),
        (["--highest"], ["model", "highest"]),
        (["--rightly"], ["model", "rightly"]),
        (["--highest", "--rightly"], ["model", "rightly", "highest"]),
    ):
        code, out, err = irt(*command, *views)
        assert (code, err.replace("\r", "").count("irt:")) == (0, 0)
        assert columns_of(out) == columns
        (path,) = (tmp_path / "analyses").iterdir()
        files.add((path.name, path.read_bytes()))
    assert [name for name, _ in files] == ["odd-tiny-small-at-att-seed0-test-by4726a8.h5"]
    result = hdf5.read(path)
    assert result.config["evaluators"]["names"] == [reader.stem]
    assert f"{result['test/highest']:.3f}" in out


@pytest.mark.usefixtures("odd")
def test_settings_of_each_kind_are_options(irt: Irt, study: Path, tmp_path: Path) -> None:
    subject, reader = (study / f"checkpoints/tiny-small-{name}-seed0.safetensors" for name in ("at-att", "at"))
    command = ["analyze", "odd", subject, "--evaluator", reader, "--root", tmp_path]
    options = "--count 2 --scale 1/8 --most -3 --pick indices:0,7 --deep --left-side closed"
    assert irt(*command, *options.split())[0] == 0
    (path,) = (tmp_path / "analyses").iterdir()
    assert path.name == (
        "odd-tiny-small-at-att-seed0-test-count2-scale0.125-most-3-pickindices_0_7-deep1-leftsideclosed-by4726a8.h5"
    )
    settings = {"count": 2, "scale": 0.125, "most": -3.0, "pick": "indices:0,7", "deep": True, "left_side": "closed"}
    assert hdf5.read(path).config["settings"] == settings
    code, _, err = irt(*command, "--left-side", "ajar")
    assert code == 2
    assert err == "irt: Invalid value for '--left-side': 'ajar' is not one of 'open', 'closed'.\n"
    code, _, err = irt(*command[:3], "--root", study)
    assert (code, "no natural model of another seed exists" in err) == (2, True)


@pytest.mark.usefixtures("odd")
def test_help_tells_what_each_setting_may_be_and_is(irt: Irt) -> None:
    _, out, _ = irt("analyze", "odd", "--help")
    text = " ".join(out.split())
    for phrase in (
        "What is odd?",
        "--rightly Print only the rightly columns.",
        "--highest Print only the highest columns.",
        "--count INTEGER How many examples. [default: 0]",
        "--scale NUMBER A scale. [default: 0.5]",
        "--most NUMBER A bound. --pick",
        "--pick TEXT A rule. [default: all]",
        "--deep Whether deep. --left-side",
        "--left-side [open|closed] A side. [default: open]",
        "--evaluator PATH",
        "irt analyze odd checkpoints/NAME.safetensors --split train",
    ):
        assert phrase in text
    _, out, _ = irt("analyze", "attention-rank", "--help")
    assert "--evaluator" not in out


def test_a_file_name_that_would_be_too_long_is_shortened(irt: Irt, study: Path, tmp_path: Path) -> None:
    model = study / "checkpoints/tiny-small-at-seed0.safetensors"
    long = shutil.copy(model, tmp_path / f"{'m' * 240}.safetensors")
    for phrase in ("analyzed robustness-mmm", "is there already"):
        code, _, err = irt("evaluate", long, "--pgd", "2", "--cw", "none", "--root", tmp_path)
        assert (code, phrase in err) == (0, True)
    assert irt("figure", "robustness", "--root", tmp_path)[0] == 0


@pytest.fixture
def train_tasks(monkeypatch: pytest.MonkeyPatch) -> list[pieces.TrainTask]:
    """What `irt train` would train."""
    tasks: list[pieces.TrainTask] = []
    monkeypatch.setattr(pieces, "do_all", lambda batch, device, say: tasks.extend(batch))
    return tasks


def models_of(tasks: list[pieces.TrainTask]) -> list[tuple[str, str, int]]:
    return [(task.architecture, task.variant, task.seed) for task in tasks]


def test_train_alone_trains_the_models_of_the_study_each_with_its_recipe(
    irt: Irt,
    train_tasks: list[pieces.TrainTask],
    tmp_path: Path,
) -> None:
    assert irt("train", "--root", tmp_path)[0] == 0
    assert train_tasks == reproduction.train_tasks(plan.QUICK, Folders(tmp_path))
    assert models_of(train_tasks) == list(plan.QUICK.models)
    for task in train_tasks:
        assert task.recipe == find_recipe("quick", "cluttered-digits", (), task.architecture)
    assert {task.architecture for task in train_tasks if task.recipe != PRESETS["quick"]} == {"cnn"}


def test_options_of_train_hold_for_all_models_of_the_study(
    irt: Irt,
    train_tasks: list[pieces.TrainTask],
    tmp_path: Path,
) -> None:
    options = "--seed 3 --arch narrow --set learning_rate=0.05 --limit 99 --dataset cluttered-digits-planted"
    irt("train", *options.split(), "--root", tmp_path)
    expected = dict.fromkeys(("narrow", name, seed + 3) for _, name, seed in plan.QUICK.models)
    assert models_of(train_tasks) == list(expected)
    assert {(task.recipe.learning_rate, task.limit, task.source) for task in train_tasks} == {
        (0.05, 99, "cluttered-digits-planted")
    }


def test_an_override_wins_over_the_recipe_of_an_architecture(
    irt: Irt,
    train_tasks: list[pieces.TrainTask],
    tmp_path: Path,
) -> None:
    options = "natural at natural --arch cnn --seed 2 --set optimizer=sgd --set epochs=2"
    irt("train", *options.split(), "--root", tmp_path)
    assert models_of(train_tasks) == [("cnn", "natural", 2), ("cnn", "at", 2)]
    for task in train_tasks:
        assert (task.recipe.optimizer, task.recipe.epochs, task.recipe.learning_rate) == ("sgd", 2, 2e-3)


@pytest.mark.parametrize(
    ("options", "seeds"),
    [
        ("", [0]),
        ("--seeds 3", [0, 1, 2]),
        ("--seeds 3 --seed 4", [4, 5, 6]),
        ("--copies", [0, 1]),
        ("--copies --seed 7", [7, 8]),
        ("--copies --seeds 3", [0, 1, 2]),
    ],
)
def test_several_seeds_of_each_variant_are_trained(
    irt: Irt,
    train_tasks: list[pieces.TrainTask],
    tmp_path: Path,
    options: str,
    seeds: list[int],
) -> None:
    irt("train", "at", "at-att", "--set", "epochs=2", *options.split(), "--root", tmp_path)
    assert models_of(train_tasks) == [("small", name, seed) for name in ("at", "at-att") for seed in seeds]
    assert {task.recipe for task in train_tasks} == {find_recipe("quick", "cluttered-digits", ("epochs=2",))}


def test_several_seeds_of_the_study_are_of_the_models_it_is_about(
    irt: Irt,
    train_tasks: list[pieces.TrainTask],
    tmp_path: Path,
) -> None:
    irt("train", "--seeds", 4, "--root", tmp_path)
    subjects = {(architecture, name) for architecture, name, seed in plan.QUICK.models if seed == 0}
    expected = {(*subject, seed) for subject in subjects for seed in range(4)} | {("cnn", "natural", 1)}
    assert len(train_tasks) == len(expected) == 29
    assert set(models_of(train_tasks)) == expected


@pytest.mark.parametrize("options", [["--seeds", "0"], ["--seeds", "-1"], ["--seeds", "two"]])
def test_no_seed_is_not_trained(irt: Irt, tmp_path: Path, options: list[str]) -> None:
    code, _, err = irt("train", "at", *options, "--root", tmp_path)
    assert code == 2
    assert err.startswith("irt: Invalid value for '--seeds'")
    assert not list(tmp_path.iterdir())


def test_a_copy_is_trained_and_reads_the_attacks_of_the_first(irt: Irt, study: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(study, root)
    training = ["train", "at", "--dataset", study / "tiny.npz", "--recipe", "quick", *QUICK, "--copies", "--root", root]
    code, out, _ = irt(*training)
    assert code == 0
    assert "tiny-small-at-seed0.safetensors is there already" in out
    assert "trained tiny-small-at-seed1.safetensors" in out
    models = [root / f"checkpoints/tiny-small-at-seed{seed}.safetensors" for seed in (0, 1)]
    jobs = [checkpoint.read(model).job for model in models]
    assert jobs[1] == jobs[0] | {"seed": 1}
    code, out, _ = irt(*training)
    assert (code, out.count("is there already"), "trained" in out) == (0, 2, False)

    evaluating = ["evaluate", *models, "--pgd", "2", "--cw", "none", "--root", root]
    assert irt(*evaluating)[0] == 0
    for first, second in ((0, 1), (1, 0)):
        (path,) = (root / "analyses").glob(f"robustness-tiny-small-at-seed{first}-test-pgd2-cwnone.h5")
        assert attack_outcomes.list_targets(hdf5.read(path)) == [models[first].stem, models[second].stem]


def test_the_models_that_read_an_attack_are_named_on_the_command_line(irt: Irt, study: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(study / "checkpoints", root / "checkpoints")
    first, second = (root / f"checkpoints/tiny-small-{variant}-seed0.safetensors" for variant in ("at", "at-att"))
    options = ["--pgd", "2", "--cw", "none", "--root", root]
    code, _, err = irt("evaluate", "--evaluator", second, *options)
    assert (code, f"{second.name} is left out: it is the evaluator." in err) == (0, True)
    (path,) = (root / "analyses").iterdir()
    assert attack_outcomes.list_targets(hdf5.read(path)) == [first.stem, second.stem]
    assert irt("evaluate", "--matrix", *options)[0] == 0
    targets = [attack_outcomes.list_targets(hdf5.read(path)) for path in (root / "analyses").iterdir()]
    assert sorted(targets) == [[second.stem, first.stem], [first.stem, second.stem]]
    code, _, err = irt("evaluate", "--matrix", "--evaluator", second, *options)
    assert code == 2
    sentence = "irt: --evaluator names some evaluators and --matrix takes all models: give one of the two."
    assert err.splitlines()[-1] == sentence


def test_figures_come_from_the_files_alone(irt: Irt, study: Path, tmp_path: Path) -> None:
    shutil.copytree(study / "analyses", tmp_path / "analyses")
    for name, stem in (
        ("robustness", "robustness-tiny-small-test"),
        ("attention-rank", "attention-rank-tiny-small-test-steps2"),
    ):
        code, out, _ = irt("figure", name, "--root", tmp_path)
        assert (code, out.splitlines()[0]) == (0, f"drew {stem}.png")
        assert {path.suffix for path in (tmp_path / "figures").glob(f"{stem}.*")} == {".png", ".pdf", ".json"}
        _, out, _ = irt("figure", name, "--root", tmp_path)
        count = len(list((tmp_path / "figures").glob(f"{stem}*.png")))
        line = (
            f"{count} of {count} pictures are there already, such as {stem}.png"
            if count > 3
            else f"{stem}.png is there already"
        )
        assert line in out.splitlines() and "drew" not in out


@pytest.mark.long
def test_a_picture_shows_one_set_of_images_under_one_setting(irt: Irt, study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "copy")
    location = ["--root", tmp_path / "copy"]
    irt("evaluate", study / "checkpoints/tiny-small-at-seed0.safetensors", "--limit", 2, *location)
    code, out, _ = irt("figure", "robustness", *location)
    assert code == 0
    lines = ["drew robustness-tiny-small-test-first2.png", "drew robustness-tiny-small-test.png"]
    assert sorted(out.splitlines()[:2]) == lines
    files = sorted((tmp_path / "copy/analyses").glob("robustness-*"))
    code, out, _ = irt("figure", "robustness", *files, *location)
    assert code == 0 and sorted(out.splitlines()[-2:]) == [
        str(tmp_path / f"copy/figures/{line.removeprefix('drew ')}") for line in lines
    ]
    one_picture = tmp_path / "one.png"
    code, _, err = irt("figure", "robustness", *files, "-o", one_picture, *location)
    assert code == 2 and not one_picture.exists()
    assert "cannot share a picture: data.images is" in err


def test_show_gives_each_interval_as_the_file_has_it(irt: Irt, study: Path) -> None:
    path = study / "analyses/attention-rank-tiny-small-at-att-seed0-test-steps2.h5"
    _, out, _ = irt("show", path)
    lines = [line.split() for line in out.split("\n\n")[-1].splitlines()]
    assert lines[0] == ["statistic", "value", "low", "high"]
    numbers = {name: values for name, *values in lines[2:]}
    for name in ("test/spearman", "curve/uniform"):
        assert [float(number) for number in numbers[name]] == pytest.approx(
            np.atleast_1d(hdf5.read(path)[name]), rel=5e-4
        )


def test_show_names_the_statistics_and_where_they_come_from(irt: Irt, study: Path) -> None:
    _, out, _ = irt("show", study / "analyses/attention-rank-tiny-small-at-att-seed0-test-steps2.h5")
    for phrase in (
        f"{analyses.get('attention-rank').schema.label}, 10 images, checksum good",
        "config.settings.steps: 2",
        "test/spearman",
        "curve/rank",
    ):
        assert phrase in out
    _, out, _ = irt("show", study / "checkpoints/tiny-small-at-seed0.safetensors")
    assert "75290" in out or "numbers, checksum good" in out
    assert "job.recipe.learning_rate: 0.1" in out


def test_data_show_draws_a_sheet(irt: Irt, tmp_path: Path) -> None:
    data = save_two_classes(tmp_path / "tiny.npz")
    code, out, _ = irt("data", "show", data, "--root", tmp_path)
    assert code == 0
    assert "tiny (60 images)" in out
    assert (tmp_path / "figures/data-tiny-train.png").stat().st_size > 1000


def test_checkpoints_alone_lists_them(irt: Irt, monkeypatch: pytest.MonkeyPatch, study: Path) -> None:
    monkeypatch.chdir(study)
    assert irt("checkpoints") == irt("checkpoints", "list")


@pytest.mark.parametrize("command", ["get", "show"])
def test_an_empty_name_of_a_dataset_is_told(irt: Irt, command: str) -> None:
    code, _, err = irt("data", command, "")
    assert code == 2 and err.startswith("irt: the name of the dataset is empty: give one of cluttered-digits, ")


def test_images_whose_classes_have_other_names_are_doubted_beside_the_answer(
    irt: Irt,
    make_checkpoint: Callable[..., Path],
    tmp_path: Path,
) -> None:
    names = np.array(["zero", "uno", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
    model, other = make_checkpoint(tmp_path, "at"), save_digits(tmp_path / "other.npz", class_names=names)
    words = ["evaluate", model, "--limit", "5", "--pgd", "1", "--cw", "none", "--root", tmp_path, "--dataset"]
    doubt = "than those of other (label 1 is 'one' and 'uno'): its answers count as they stand if"
    for is_first in (True, False):
        code, out, err = irt(*words, other)
        assert code == 0 and "natural" in out
        assert doubt in " ".join(out.split()) and (doubt in err) == is_first
    same_names = save_digits(tmp_path / "same.npz", class_names=np.array(CLASS_NAMES))
    for path in (save_digits(tmp_path / "numbered.npz"), same_names):
        code, _, err = irt(*words, path)
        assert code == 0 and "classes" not in err


def test_a_time_limit_stops_with_everything_saved_and_status_3(irt: Irt, study: Path, tmp_path: Path) -> None:
    arguments = ["train", "at", "--dataset", study / "tiny.npz", "--recipe", "quick", *QUICK, "--root", tmp_path]
    code, _, err = irt(*arguments, "--time-limit", "0s")
    assert code == 3
    assert "tiny-small-at-seed0 was not begun; everything is saved" in err
    variants = [*arguments[:1], "natural", "at-reg", *arguments[1:], "--seeds", "2", "--time-limit", "0s"]
    code, _, err = irt(*variants)
    (line,) = [line for line in err.splitlines() if "not begun" in line]
    assert code == 3 and re.match(r"irt: \d files were not begun \(tiny-small-\S+, .*\); everything is saved", line)
    assert irt(*arguments, "--time-limit", "0.5s")[0] in (0, 3)
    assert irt(*arguments)[0] == 0
    checkpoint_path, whole = (root / "checkpoints/tiny-small-at-seed0.safetensors" for root in (tmp_path, study))
    # Tensors are last in the file; the header differs in its clock.
    assert checkpoint_path.read_bytes()[-300_000:] == whole.read_bytes()[-300_000:]


NONSENSE = [
    ("train att", "unknown variant 'att': did you mean 'at'?"),
    ("train at --epochs 2", "No such option '--epochs': give --set epochs=VALUE, a field of the recipe."),
    ("train at --batch-size 7", "No such option '--batch-size': give --set batch_size=VALUE"),
    ("evaluate --epochs 2", "No such option '--epochs'"),
    ("train at --arch smal", "unknown architecture 'smal': did you mean 'small'?"),
    ("train at --dataset cifar11", "unknown dataset 'cifar11': did you mean 'cifar10'?"),
    ("train at --recipe quik", "unknown recipe 'quik': did you mean 'quick'?"),
    ("train at --set eps=8", "eps is 8: it must lie within 0 and 1"),
    ("train at --set epoch=3", "unknown recipe field 'epoch': did you mean 'epochs'?"),
    ("train at --set epochs=many", "'many' is no value for epochs"),
    ("train at --limit 0", "0 is not in the range"),
    ("train at --time-limit soon", "'soon' is no duration: give one such as 90s, 5m or 2h"),
    (
        "train natural --dataset {tiny} --recipe quick --set batch_size=61",
        "60 training images are fewer than one batch",
    ),
    ("train at --dataset nothing.npz", "nothing.npz"),
    ("evaluate --eps 8", "eps is 8: it must lie within 0 and 1"),
    ("evaluate --eps x", "'x' is no number: give one such as 0.03 or 8/255"),
    ("evaluate --pgd -1", "pgd: '-1' is no list of steps: give numbers from 1 on"),
    ("evaluate nothing.safetensors", "there is no checkpoint nothing.safetensors"),
    ("evaluate {damaged}", "damaged.safetensors is damaged"),
    ("evaluate {changed}", "changed.safetensors is damaged (its tensors differ from their checksum)"),
    ("evaluate {edited}", "edited.safetensors is damaged (its metadata differ from their checksum)"),
    ("evaluate {swapped}", "swapped.safetensors does not hold the network 'narrow'"),
    ("evaluate --dataset {gray}", "which does not fit gray"),
    ("analyze attention-rnk", "unknown analysis 'attention-rnk': did you mean 'attention-rank'?"),
    ("analyze attention-rank {at} --spatial-weight attention", "'at' has no attention: use --spatial-weight grad-cam."),
    (
        "analyze attention-rank {at} --spatial-weight atention",
        "unknown spatial weight 'atention': did you mean 'attention'?",
    ),
    ("figure robustnes", "unknown figure 'robustnes': did you mean 'robustness'?"),
    ("figure robustness {broken}", "broken.h5 is damaged or no HDF5 file"),
    ("figure robustness {foreign}", "foreign.h5 is an HDF5 file, but not one that"),
    ("figure robustness {rank}", f"holds {analyses.get('attention-rank').schema.label}, and robustness is needed here"),
    ("show {flipped}", "flipped.h5 is damaged"),
    ("figure attention-rank {flipped}", "flipped.h5 is damaged (its content differs from its checksum)"),
    ("analyze attention-rank --seed -1", "seed is -1: it must not be negative"),
    ("analyze attention-rank --seed 9223372036854775808", "seed is 9223372036854775808: it must be below 2^63"),
    ("analyze attention-rank --step-size 1e30", "step size is 1e+30: it must lie within 0 and 1"),
    ("evaluate --pgd=", "pgd: '' is no list of steps: give numbers from 1 on, such as 5,20, or none"),
    ("flags {bare}", "bare.h5 holds no schema: flags are read from files of"),
    ("train at --seed 18446744073709551616", "is not in the range"),
    ("show {tiny}", "tiny.npz is neither a checkpoint (.safetensors) nor an analysis (.h5)"),
    ("reproduce table9", "unknown study 'table9': did you mean 'table6'?"),
    ("train at --root {tiny}/below", "tiny.npz"),
    ("trian", "unknown command 'trian': did you mean 'train'?"),
    ("data get {wrong_type}", "wrong_type.npz: x_train has dtype float64"),
    ("data get {wrong_shape}", "wrong_shape.npz: x_train has shape"),
    ("data get {wrong_labels}", "wrong_labels.npz: y_train has label 4000 in row 59"),
]


@pytest.fixture(scope="module")
def bad_files(study: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files that are each wrong in one way, by what is wrong with them."""
    folder = tmp_path_factory.mktemp("bad")
    good = study / "checkpoints/tiny-small-at-seed0.safetensors"
    rank = study / "analyses/attention-rank-tiny-small-at-att-seed0-test-steps2.h5"
    content = good.read_bytes()
    (folder / "damaged.safetensors").write_bytes(content[: len(content) // 2])
    (folder / "changed.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    original = checkpoint.read(good)
    narrow = original.about | {"job": original.job | {"architecture": "narrow"}}
    checkpoint.write(folder / "swapped.safetensors", narrow, original.tensors)
    (folder / "edited.safetensors").write_bytes(content.replace(b"0.03137", b"0.09137", 1))
    (folder / "broken.h5").write_bytes(rank.read_bytes()[:5000])
    with h5py.File(folder / "foreign.h5", "w") as file:
        file["x"] = 1
    shutil.copy(rank, folder / "flipped.h5")
    with h5py.File(folder / "flipped.h5", "r+") as file:
        file["curve/attention_mean"][3] += 1e-3
    shutil.copy(rank, folder / "bare.h5")
    with h5py.File(folder / "bare.h5", "r+") as file:
        del file.attrs["schema"]
    x = make_cluttered_digits(60, 20).train.images
    save_digits(folder / "wrong_type.npz", x_train=x / 255)
    save_digits(folder / "wrong_shape.npz", x_train=x[..., :2])
    save_digits(folder / "wrong_labels.npz", y_train=np.arange(60) // 59 * 4000)
    save_digits(folder / "gray.npz", x_train=x[..., 0], x_test=x[:10, ..., 0])
    paths = {path.stem: path for path in folder.iterdir()}
    return paths | {"tiny": study / "tiny.npz", "root": study, "rank": rank, "at": good}


@pytest.mark.parametrize(("line", "sentence"), NONSENSE, ids=[line for line, _ in NONSENSE])
def test_nonsense_gets_one_sentence_and_status_2(
    irt: Irt,
    study: Path,
    bad_files: dict[str, Path],
    line: str,
    sentence: str,
) -> None:
    files = sorted(path for path in study.rglob("*") if path.is_file())
    arguments = [word.format(**bad_files) for word in line.split()]
    if arguments[0] not in ("data", "show", "trian") and "--root" not in arguments:
        arguments += ["--root", str(study)]
    code, out, err = irt(*arguments)
    assert code == 2
    assert sentence in err
    assert err.startswith("irt: ")
    assert err.count("\n") == 1
    assert "Traceback" not in out + err
    assert files == sorted(path for path in study.rglob("*") if path.is_file())


@pytest.mark.skipif("CUDA_VISIBLE_DEVICES" in os.environ, reason="a CUDA device may be there")
def test_cuda_where_there_is_none_is_told(irt: Irt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, _, err = irt("train", "at", "--device", "cuda", "--root", tmp_path)
    assert (code, "torch sees no CUDA device" in err) == (2, True)


SENTENCE = "interrupted; what is finished is kept, the same command continues from there."


@pytest.mark.parametrize("is_hidden", [False, True])
def test_ctrl_c_is_told_whatever_a_library_makes_of_it(
    irt: Irt, monkeypatch: pytest.MonkeyPatch, *, is_hidden: bool
) -> None:
    """Python makes a RuntimeError of what happens while the attributes of a class take their names."""

    def interrupt() -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            if is_hidden:
                raise RuntimeError("Error calling __set_name__") from error
            raise

    monkeypatch.setattr("interpret_robust.cli.groups._module", lambda _: interrupt())
    code, out, err = irt("recipes")
    assert (code, out, err.strip()) == (130, "", f"irt: {SENTENCE}")


def test_ctrl_c_while_the_commands_are_loaded_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(cli.__file__).parents[2]}"}
    command = [sys.executable, "-m", "interpret_robust", "recipes"]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout, process.stderr) == (130, "", "irt: interrupted.\n")


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["irt", "train", "att", "--debug"])
    with pytest.raises(Exception, match="unknown variant 'att'"):
        cli.main()


@pytest.mark.parametrize(
    "arguments",
    [
        "train at --dataset {tiny} --recipe quick --set batch_size=20",
        "evaluate {root}/checkpoints/tiny-small-at-seed0.safetensors",
    ],
)
def test_a_folder_that_may_not_be_written_is_named(
    irt: Irt, monkeypatch: pytest.MonkeyPatch, study: Path, tmp_path: Path, arguments: str
) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    if os.geteuid() == 0:  # root may write everywhere
        monkeypatch.setattr(Path, "mkdir", refuse)
    words = arguments.format(tiny=study / "tiny.npz", root=study).split()
    code, _, err = irt(*words, "--root", folder)
    assert code == 2
    assert re.search(r"irt: .*locked.*: Permission denied", err)


def run_where_files_stay_small(size: int, words: list[str]) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    sys.argv = ["irt", *words]
    cli.main()


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "room"),
    [
        ("train at --dataset {tiny} --recipe quick --set epochs=1 --set batch_size=20", 100_000),
        ("evaluate {root}/checkpoints/tiny-small-at-seed0.safetensors", 3_000),
        ("figure robustness {root}/analyses/robustness-tiny-small-at-seed0-test.h5", 3_000),
        ("data show {tiny}", 3_000),
    ],
)
def test_a_full_disk_leaves_nothing_half_written(study: Path, tmp_path: Path, arguments: str, room: int) -> None:
    """A limit on the size of files stands in for a disk that fills up while a file is written."""
    words = arguments.format(tiny=study / "tiny.npz", root=study).split()
    code, _, err = forked.run(run_where_files_stay_small, room, [*words, "--root", str(tmp_path)])
    assert code == 2, err
    (line,) = [line for line in err.splitlines() if not line.startswith("warning: tiny-small-at-seed0 had 2% of")]
    assert line.startswith("irt: ")
    assert "File too large" in line
    left = [path for path in tmp_path.rglob("*") if path.is_file() and not path.name.endswith(".h5.partial")]
    assert left == []


def test_what_ends_the_process_and_what_would_be_written_twice_is_refused(
    irt: Irt, study: Path, tmp_path: Path
) -> None:
    code, out, err = irt("model", "layers", "--model", "sys:exit", "--dataset", study / "tiny.npz")
    assert (code, out) == (2, "") and err.startswith("irt: sys:exit cannot be built") and err.count("\n") == 1
    file = next((study / "analyses").glob("*.h5"))
    code, out, err = irt("export", file, file, "-o", tmp_path)
    assert (code, out) == (2, "") and "two files would be written to" in err and not list(tmp_path.iterdir())


def test_a_line_break_in_a_path_does_not_break_the_sentence(irt: Irt, tmp_path: Path) -> None:
    for command in ("show", "validate", "evaluate", "figure robustness", "plan"):
        code, _, err = irt(*command.split(), f"{tmp_path}/a\nb.h5")
        assert code == 2 and err.count("\n") == 1 and err.startswith("irt: ") and "a\\nb.h5" in err


def test_a_figure_replaces_no_picture_of_ones_own(irt: Irt, study: Path, tmp_path: Path) -> None:
    words = ("figure", "attention-rank", *sorted(study.glob("analyses/attention-rank-*.h5")), "--root", tmp_path)
    assert irt(*words)[0] == 0
    picture = min(tmp_path.glob("figures/*.png"), key=lambda path: len(path.name))
    picture.with_suffix(".json").unlink()
    picture.write_text("mine")
    code, _, err = irt(*words)
    assert code == 2 and "was not drawn by irt" in err and picture.read_text() == "mine"


def test_a_contact_sheet_replaces_no_picture_of_ones_own(irt: Irt, tmp_path: Path) -> None:
    words = ("data", "show", save_two_classes(tmp_path / "tiny.npz"), "--root", tmp_path)
    picture = tmp_path / "figures" / "data-tiny-train.png"
    picture.parent.mkdir()
    picture.write_text("mine")
    code, _, err = irt(*words)
    assert code == 2 and "was not drawn by irt" in err and picture.read_text() == "mine"
    picture.unlink()
    assert irt(*words)[0] == 0
    stamp = picture.stat().st_mtime_ns
    _, out, _ = irt(*words)
    assert "is there already" in out and picture.stat().st_mtime_ns == stamp
