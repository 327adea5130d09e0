"""A study: its models, which of them read the maps of which, and the tables that its files are printed as."""

import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import oddity
import pytest
from oddity import Oddities

from interpret_robust import analyses
from interpret_robust.analyses.engine import printing
from interpret_robust.analyses.robustness import TableSettings, rows
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import UserError
from interpret_robust.core.folders import Folders
from interpret_robust.datasets import Dataset, sources
from interpret_robust.datasets.batches import Batch
from interpret_robust.models import Classifier, checkpoint, external
from interpret_robust.models.card import Reference
from interpret_robust.models.variants import VARIANTS
from interpret_robust.results import attack_outcomes, hdf5
from interpret_robust.study import reproduction, tasks
from interpret_robust.study.evaluators import choose_evaluators, find_copies, list_candidates
from interpret_robust.study.plan import QUICK, find_study
from interpret_robust.study.report import commands
from interpret_robust.study.tasks import AnalysisTask, choose_applicable, make_tasks

NAMES = [f"{architecture} {name} {seed}" for architecture, name, seed in QUICK.models]
"""Models are written as `small at-att 0`."""


@pytest.fixture(autouse=True)
def odd(monkeypatch: pytest.MonkeyPatch) -> None:
    """The analysis `odd` and its images are there."""
    oddity.register(monkeypatch)
    monkeypatch.setattr(tasks, "load", oddity.odd_images)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Path]]:
    """Checkpoints of models, each made once."""
    folder = tmp_path_factory.mktemp("models")

    def make(names: Sequence[str], dataset: str = "odd") -> list[Path]:
        paths = []
        for architecture, name, seed in map(str.split, names):
            path = folder / f"{dataset}-{architecture}-{name}-seed{seed}.safetensors"
            if not path.exists():
                oddity.write_untrained(folder, oddity.odd_images(dataset), architecture, name, int(seed))
            paths.append(path)
        return paths

    return make


def describe(references: Sequence[Reference]) -> list[str]:
    """What `models` was asked for."""
    jobs = [external.find_subject(reference).job for reference in references]
    return [f"{job['architecture']} {job['variant']} {job['seed']}" for job in jobs]


@pytest.mark.parametrize(
    ("subject", "evaluators"),
    [
        ("small at 0", ["small natural 1", "small natural 2", "cnn natural 1"]),
        ("small natural 0", ["small natural 1", "small natural 2", "cnn natural 1"]),
        ("small at 1", ["small natural 0", "small natural 2", "cnn natural 1", "small at 0"]),
        ("small natural 1", ["small natural 0", "small natural 2", "cnn natural 1", "small at 0"]),
        ("small natural 2", ["small natural 0", "small natural 1", "cnn natural 1", "small at 0"]),
        ("cnn natural 1", ["small natural 0"]),
    ],
)
def test_the_study_has_evaluators_for_each_of_its_models(
    models: Callable[..., list[Path]], subject: str, evaluators: list[str]
) -> None:
    candidates = models(NAMES)
    random.Random(0).shuffle(candidates)
    assert describe(choose_evaluators(checkpoint.read(models([subject])[0]), candidates)) == evaluators


def test_every_subject_of_the_study_is_read_by_the_same_models(models: Callable[..., list[Path]]) -> None:
    subjects = [model for model in NAMES if model.endswith(" 0")]
    assert {model.split()[1] for model in subjects} == set(VARIANTS)
    assert len({choose_evaluators(checkpoint.read(path), models(NAMES)) for path in models(subjects)}) == 1


@pytest.mark.parametrize(
    ("subject", "candidates", "evaluators"),
    [
        # the lowest seeds, by number; two of the own architecture, one of another
        ("small at 0", "small natural 10, small natural 3, small natural 9", "small natural 3, small natural 9"),
        ("small at 0", "cnn natural 4, cnn natural 3, small natural 1", "small natural 1, cnn natural 3"),
        # none of the own architecture and seed
        ("small at-att 0", "small at 0, small natural 0, small natural 1", "small natural 1"),
        ("small natural 1", "small at 1, small natural 1, small natural 0", "small natural 0"),
        # another architecture begins elsewhere, whatever its seed
        ("small at 0", "cnn natural 0, cnn at 1", "cnn natural 0"),
        ("cnn at 1", "small natural 1, cnn natural 1, cnn at 0", "small natural 1, cnn at 0"),
        # other variants read nothing
        ("small at 0", "small natural-att 1, small at-reg 1, small natural 1", "small natural 1"),
    ],
)
def test_evaluators_are_of_other_seeds_natural_ones_first(
    models: Callable[..., list[Path]], subject: str, candidates: str, evaluators: str
) -> None:
    choice = choose_evaluators(checkpoint.read(models([subject])[0]), models(candidates.split(", ")))
    assert ", ".join(describe(choice)) == evaluators


def test_evaluators_are_of_the_same_data(models: Callable[..., list[Path]]) -> None:
    (subject, second), foreign = models(["small at 0", "small natural 2"]), models(["small natural 1"], "other")
    assert choose_evaluators(checkpoint.read(subject), [*foreign, second]) == (second,)


@pytest.mark.parametrize("extras", [[], ["small natural 3"], ["small at 4", "small natural-att 4"]])
def test_without_a_natural_model_the_command_that_makes_one_is_told(
    models: Callable[..., list[Path]], extras: list[str]
) -> None:
    (subject,) = models(["small at-att 3"])
    with pytest.raises(UserError) as error:
        choose_evaluators(checkpoint.read(subject), [subject, *models(extras)])
    assert str(error.value) == (
        f"no natural model of another seed exists to classify the gradient maps of {subject}: run "
        "`irt train natural --dataset odd --arch small --seed 4`, or name one by --evaluator."
    )


def test_a_model_from_elsewhere_is_named_by_its_label_and_its_evaluator_trained_on_a_cpu() -> None:
    def sentence(data: str) -> str:
        job: dict[str, Any] = {"card": {}, "variant": "mine", "dataset": data, "seed": None, "architecture": "any"}
        with pytest.raises(UserError) as error:
            choose_evaluators(SimpleNamespace(job=job, location="torchvision:resnet18", source=data), [])
        return str(error.value)

    assert "gradient maps of mine: run `irt train natural --dataset d.npz --recipe quick`, or name" in sentence("d.npz")
    assert "run `irt train natural --dataset cluttered-digits`, or name" in sentence("cluttered-digits")


def test_the_command_that_makes_an_evaluator_can_be_typed_whatever_the_data_are_called(
    models: Callable[..., list[Path]],
) -> None:
    subject = checkpoint.read(*models(["small at-att 3"]))
    subject = replace(subject, about={**subject.about, "source": "a b?size=16&classes=n.json"})
    with pytest.raises(UserError, match=r"`irt train natural --dataset 'a b\?size=16&classes=n\.json' --arch small"):
        choose_evaluators(subject, [])


@pytest.fixture
def folders(models: Callable[..., list[Path]], tmp_path: Path) -> Folders:
    """A working directory with two subjects and three models that can read their maps."""
    paths = models(["small at 0", "small at-att 0", "small natural 1", "small natural 2", "small at 1"])
    (tmp_path / "checkpoints").mkdir()
    for path in paths:
        (tmp_path / "checkpoints" / path.name).symlink_to(path)
    return Folders(tmp_path)


def test_a_task_has_the_evaluators_of_its_subject_or_those_that_are_given(folders: Folders) -> None:
    first, second = (folders.checkpoints / f"odd-small-at-seed{seed}.safetensors" for seed in (0, 1))
    tasks = make_tasks("odd", [first, second], folders, Oddities(), limit=5)
    assert [describe(task.evaluators) for task in tasks] == [
        ["small natural 1", "small natural 2", "small at 1"],
        ["small natural 2", "small at 0"],
    ]
    assert [(task.checkpoint, task.folder, task.limit) for task in tasks] == [
        (first, folders.analyses, 5),
        (second, folders.analyses, 5),
    ]
    empty = Folders(folders.root / "nowhere")
    for place in (folders, empty):
        named_tasks = make_tasks("odd", [first, second], place, Oddities(), evaluators=(second, first))
        assert [task.evaluators for task in named_tasks] == [(second, first)] * 2
    with pytest.raises(UserError, match="no natural model of another seed exists"):
        make_tasks("odd", [first], empty, Oddities())


def test_an_analysis_that_needs_no_evaluators_looks_for_none(folders: Folders) -> None:
    settings = analyses.get("attention-rank").settings()
    empty = Folders(folders.root / "nowhere")
    subject = folders.checkpoints / "x"
    (task,) = make_tasks("attention-rank", [subject], empty, settings, split="train")
    assert task == AnalysisTask("attention-rank", subject, empty.analyses, settings, split="train")
    assert task.evaluators == ()


# --- copies


def retrain(path: Path, folder: Path, **changes: Any) -> Path:
    """A checkpoint like another, but for its job and a weight."""
    snapshot = checkpoint.read(path)
    job = snapshot.job | changes
    name = f"{job['dataset']}-{job['architecture']}-{job['variant']}-seed{job['seed']}.safetensors"
    bias = snapshot.tensors["classifier.bias"]
    checkpoint.write(folder / name, snapshot.about | {"job": job}, snapshot.tensors | {"classifier.bias": bias + 1})
    return folder / name


def test_copies_differ_in_their_seed_alone(models: Callable[..., list[Path]], tmp_path: Path) -> None:
    source, second, tenth, *rest = models(
        ["small at 0", "small at 2", "small at 10", "small at-att 1", "small natural 1", "cnn at 1"]
    )
    (foreign,) = models(["small at 1"], "other")
    recipe = checkpoint.read(source).job["recipe"] | {"epochs": 9}
    rest += [foreign, retrain(source, tmp_path, seed=1, recipe=recipe)]
    assert find_copies(checkpoint.read(source), [tenth, *rest, source, second]) == (second, tenth)
    assert find_copies(checkpoint.read(second), [tenth, *rest, source, second]) == (source, tenth)
    assert find_copies(checkpoint.read(source), [source, *rest]) == ()
    recipe = checkpoint.read(source).job["recipe"] | {"name": "the same by another name"}
    copy = retrain(source, tmp_path, seed=3, recipe=recipe)
    assert find_copies(checkpoint.read(source), [copy, second]) == (second, copy)
    assert find_copies(checkpoint.read(source), [retrain(source, tmp_path, recipe=recipe)]) == ()


def test_a_matrix_is_read_by_all_other_models_of_the_data(models: Callable[..., list[Path]], tmp_path: Path) -> None:
    source, *rest = models(["small at 0", "small at 1", "cnn natural 0", "small at-att 0"])
    link = tmp_path / "same.safetensors"
    link.symlink_to(source)
    candidates = [link, *rest, source, *models(["small at 3"], "other")]
    assert list_candidates(checkpoint.read(source), candidates) == tuple(rest)


ONE_STEP = TableSettings(pgd="1", cw="none")


def table_task(folders: Folders, **options: Any) -> AnalysisTask:
    subject = folders.checkpoints / "odd-small-at-seed0.safetensors"
    (task,) = make_tasks("robustness", [subject], folders, ONE_STEP, batch_size=5, **options)
    return task


def targets_in(task: AnalysisTask) -> list[str]:
    return attack_outcomes.list_targets(hdf5.read(task.work().path))


def test_the_models_that_read_an_attack_are_copies_or_all_or_those_named(folders: Folders) -> None:
    natural = folders.checkpoints / "odd-small-natural-seed1.safetensors"
    assert describe(table_task(folders).evaluators) == ["small at 1"]
    assert describe(table_task(folders, matrix=True).evaluators) == [
        "small at-att 0",
        "small at 1",
        "small natural 1",
        "small natural 2",
    ]
    assert describe(table_task(folders, evaluators=(natural,)).evaluators) == ["small natural 1"]
    assert table_task(folders, candidates=[natural]).evaluators == ()
    names = {table_task(folders, **options).name for options in ({}, {"matrix": True}, {"evaluators": (natural,)})}
    assert len(names) == 3
    with pytest.raises(UserError, match="give one of the two"):
        table_task(folders, evaluators=(natural,), matrix=True)


def test_an_answer_of_other_weights_or_evaluators_is_another(
    folders: Folders, models: Callable[..., list[Path]]
) -> None:
    subject, copy, evaluator, other = (
        folders.checkpoints / f"odd-small-{name}.safetensors"
        for name in ("at-seed0", "at-seed1", "natural-seed1", "natural-seed2")
    )
    table = table_task(folders)
    table()
    (scores,) = make_tasks("odd", [subject], folders, Oddities(), limit=5, evaluators=(evaluator,))
    scores()

    table_file, scores_file = (task.work().path.relative_to(folders.root) for task in (table, scores))

    def tell_state(file: Path, *needs: Path) -> str:
        step = reproduction.Step(file, tuple(need.relative_to(folders.root) for need in needs))
        return reproduction.tell_state(step, folders.root)

    assert tell_state(table_file, subject, copy) == tell_state(scores_file, subject, evaluator) == "yes"
    assert tell_state(scores_file, subject, other) == tell_state(scores_file, subject, evaluator, other) == "another"
    for path, expected_states in (
        (subject, ("another", "another")),
        (copy, ("another", "yes")),
        (evaluator, ("yes", "another")),
    ):
        original = path.readlink()
        path.unlink()
        assert (tell_state(table_file, subject, copy), tell_state(scores_file, subject, evaluator)) == ("yes", "yes")
        path.symlink_to(models(["small at-att 0"])[0])
        states = tell_state(table_file, subject, copy), tell_state(scores_file, subject, evaluator)
        assert states == expected_states
        path.unlink()
        path.write_bytes(original.read_bytes()[:500])
        assert (tell_state(table_file, subject, copy), tell_state(scores_file, subject, evaluator)) == ("yes", "yes")
        path.unlink()
        path.symlink_to(original)


def test_attacks_need_no_copies(folders: Folders, models: Callable[..., list[Path]]) -> None:
    empty = Folders(folders.root / "nowhere")
    (task,) = make_tasks("robustness", models(["small at 0"]), empty, ONE_STEP)
    task()
    assert targets_in(task) == ["odd-small-at-seed0"]


def test_models_named_together_are_copies_wherever_they_lie(
    folders: Folders, models: Callable[..., list[Path]], tmp_path: Path
) -> None:
    subjects = models(["small at 0", "small at 1", "small at-att 0"])
    tasks = make_tasks("robustness", subjects, Folders(folders.root / "nowhere"), ONE_STEP)
    assert [describe(task.evaluators) for task in tasks] == [["small at 1"], ["small at 0"], []]
    namesake = tmp_path / "odd-small-at-seed1.safetensors"
    namesake.symlink_to(subjects[0])
    tasks = make_tasks("robustness", [subjects[0], namesake], folders, ONE_STEP)
    assert tasks[0].evaluators == (folders.checkpoints / "odd-small-at-seed1.safetensors",)


def test_a_file_that_more_copies_have_read_will_do_and_one_that_fewer_have_is_replaced(
    folders: Folders, models: Callable[..., list[Path]]
) -> None:
    first = table_task(folders)
    first()
    other = folders.checkpoints / "odd-small-at-seed2.safetensors"
    other.symlink_to(models(["small at 2"])[0])
    larger = table_task(folders)
    assert larger.name == first.name

    def state(seeds: Sequence[int] = (0, 1, 2)) -> str:
        needs = (Path(f"odd-small-at-seed{seed}.safetensors") for seed in seeds)
        return reproduction.tell_state(
            reproduction.Step(first.work().path.relative_to(folders.root), (*needs,)), folders.root
        )

    assert (state(), state((0, 1)), state((0, 2)), state((0, 2, 3))) == ("anew", "yes", "another", "another")
    assert first.is_done() and not larger.is_done()
    assert targets_in(first) == [f"odd-small-at-seed{seed}" for seed in (0, 1)]
    larger()
    assert targets_in(first) == [f"odd-small-at-seed{seed}" for seed in (0, 1, 2)]
    assert larger.is_done() and first.is_done() and state() == "yes"
    whole = first.work().path.read_bytes()
    first.work().path.write_bytes(whole[: len(whole) // 2])
    assert state() == "damaged"
    first.work().path.write_bytes(whole)
    other.unlink()
    assert table_task(folders).is_done()
    assert not table_task(folders, overwrite=True).is_done()
    assert targets_in(first) == [f"odd-small-at-seed{seed}" for seed in (0, 1, 2)]


def test_a_planned_model_is_told_by_what_its_file_holds(
    folders: Folders, models: Callable[..., list[Path]], tmp_path: Path
) -> None:
    step = reproduction.Step(Path("mine.safetensors"))
    path, state = tmp_path / step.file, tmp_path / "mine.state.safetensors"
    (source,) = models(["small at 2"])
    whole = checkpoint.read(source)
    recipe = whole.job["recipe"] | {"epochs": 16, "batch_size": whole.job["images"] // 2}
    checkpoint.write(state, whole.about | {"step": 21, "job": whole.job | {"recipe": recipe}}, whole.tensors)
    assert reproduction.tell_state(step, tmp_path) == "21 of 32 steps"
    state.rename(path)
    assert reproduction.tell_state(step, tmp_path) == "misnamed"
    path.unlink()
    assert reproduction.tell_state(step, tmp_path) == "no"
    data = source.read_bytes()
    state.write_bytes(data)
    assert reproduction.tell_state(step, tmp_path) == "misnamed"
    path.write_bytes(data)
    assert reproduction.tell_state(step, tmp_path) == "yes"
    assert reproduction.tell_state(step._replace(job=whole.job), tmp_path) == "yes"
    assert reproduction.tell_state(step._replace(job=whole.job | {"recipe": recipe}), tmp_path) == "another"
    path.write_bytes(data[:10_000])
    assert reproduction.tell_state(step, tmp_path) == "damaged"

    answer = reproduction.Step(Path("answer.h5"), (step.file,))
    assert reproduction.tell_state(answer, tmp_path) == "no"
    (tmp_path / "answer.h5.partial").touch()
    assert reproduction.tell_state(answer, tmp_path) == "unfinished"


def test_other_copies_or_settings_are_never_replaced_unasked(folders: Folders) -> None:
    first = table_task(folders)
    first()
    with pytest.raises(UserError, match="batch_size is 5, here 6"):
        replace(first, batch_size=6).is_done()
    copy = folders.checkpoints / "odd-small-at-seed1.safetensors"
    source = copy.resolve()
    copy.unlink()
    retrain(source, folders.checkpoints)
    with pytest.raises(UserError, match=r"another configuration \(evaluators\.sha256 is"):
        table_task(folders).is_done()
    assert not table_task(folders, overwrite=True).is_done()


@pytest.mark.parametrize("change", ["one more", "one less", "another"])
def test_a_stopped_run_that_other_copies_read_is_begun_anew(
    folders: Folders, models: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    (newcomer,) = models(["small at 2"])
    copy = folders.checkpoints / "odd-small-at-seed1.safetensors"
    starts: list[int] = []

    def stop_early(model: Classifier, batch: Batch, context: Any) -> dict[str, AnyArray]:
        starts.append(batch.indices.start)
        if len(starts) == 3:
            raise RuntimeError("as a crash would")
        return rows(model, batch, context)

    analysis = replace(analyses.get("robustness"), rows=stop_early)
    monkeypatch.setattr(analyses, "get", lambda name: analysis)
    with pytest.raises(RuntimeError, match="crash"):
        table_task(folders)()
    if change != "one more":
        copy.unlink()
    if change != "one less":
        (folders.checkpoints / newcomer.name).symlink_to(newcomer)
    task = table_task(folders)
    task()
    assert starts == [0, 5, 10, 0, 5, 10, 15, 20]
    assert targets_in(task) == [
        "odd-small-at-seed0",
        *(external.find_subject(reference).name for reference in task.evaluators),
    ]
    assert [path.name for path in folders.analyses.iterdir()] == [task.name]


def test_the_commands_of_a_report_make_tables_with_copies_and_matrices_anew(folders: Folders) -> None:
    subjects = [folders.checkpoints / f"odd-small-at-seed{seed}.safetensors" for seed in (0, 1)]
    tasks = make_tasks("robustness", subjects, folders, ONE_STEP, batch_size=5)
    for task in tasks:
        task()
    command = "irt analyze robustness"
    options = "--batch-size 5 --cw none --pgd 1"
    results = [hdf5.read(folders.analyses / task.name) for task in tasks]
    lines = commands.list_commands(results)
    paths = [f"checkpoints/{subject.name}" for subject in subjects]
    question = f"{command} {commands.CONTINUATION.join(paths)}"
    assert [line.split(" --")[0] for line in lines] == ["irt train at", "irt train at", question, "irt report"]
    assert lines[2] == f"{question} {options}"
    assert commands.compose_command(results[0]) == f"{command} checkpoints/{subjects[0].name} {options}"

    matrix = table_task(folders, matrix=True)
    matrix()
    words = commands.compose_command(hdf5.read(folders.analyses / matrix.name)).split()
    evaluators = tuple(folders.root / name for option, name in pairwise(words) if option == "--evaluator")
    assert len(evaluators) == 4
    repeat = table_task(folders, evaluators=evaluators)
    assert repeat.name == matrix.name and repeat.is_done()


def test_a_damaged_file_is_replaced_when_asked_and_otherwise_said(folders: Folders) -> None:
    task = table_task(folders)
    path = task.work().path
    path.parent.mkdir()
    path.write_bytes(b"no HDF5")
    with pytest.raises(UserError, match="is damaged or no HDF5 file"):
        task.is_done()
    repeat = replace(task, overwrite=True)
    assert not repeat.is_done()
    repeat()
    assert targets_in(task) == ["odd-small-at-seed0", "odd-small-at-seed1"]


# --- tasks and tables


def test_a_task_writes_its_file_and_knows_it_again(folders: Folders) -> None:
    subject = folders.checkpoints / "odd-small-at-seed0.safetensors"
    (task,) = make_tasks("odd", [subject], folders, Oddities(left_side="closed"), limit=6)
    assert not task.is_done()
    assert task() == "analyzed odd-odd-small-at-seed0-test-leftsideclosed-first6.h5" == f"analyzed {task.name}"
    assert task.is_done()
    result = hdf5.read(folders.analyses / task.name)
    assert result.config["evaluators"]["names"] == [
        external.find_subject(reference).name for reference in task.evaluators
    ]
    assert result["per_image/read"].shape == (6, 3)


def test_what_an_analysis_cannot_be_run_on_is_left_out_and_that_is_said(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, messages = folders.all_models(), list[str]()
    assert len(paths) == 5 and choose_applicable("odd", paths, {}, messages.append) == paths and not messages
    single = [path for path in paths if "natural" in path.stem][:1]
    with pytest.raises(UserError, match="is left out: no natural model of another seed exists"):
        choose_applicable("odd", single, {}, messages.append)
    options = {"evaluators": (paths[0],)}
    assert choose_applicable("odd", paths, options, messages.append) == paths[1:]
    assert messages == [f"{paths[0].name} is left out: it is the evaluator."]

    analysis = replace(oddity.ANALYSIS, needs_masks=True, readers="none")
    monkeypatch.setattr(analyses, "get", lambda name: analysis)
    with pytest.raises(UserError, match=f"{paths[0].name} is left out, and 4 more models: odd has no object masks"):
        choose_applicable("odd", paths, {}, messages.append)

    def only_there(name: str) -> Dataset:
        split = oddity.odd_images().test
        masks = np.ones(split.images.shape[:3], bool) if name == "there" else None
        return replace(oddity.odd_images(), train=replace(split, masks=masks), test=replace(split, masks=masks))

    monkeypatch.setattr(tasks, "load", only_there)
    assert choose_applicable("odd", paths, {"source": "there"}, messages.append) == paths


@pytest.fixture
def files(folders: Folders) -> list[Path]:
    """The files of at-att and of at, in this order."""
    subjects = [folders.checkpoints / f"odd-small-{name}-seed0.safetensors" for name in ("at-att", "at")]
    tasks = make_tasks("odd", subjects, folders, Oddities(), limit=4)
    for task in tasks:
        task()
    return [folders.analyses / task.name for task in tasks]


def test_a_table_has_a_row_a_model_in_the_papers_order_then_comparisons(files: list[Path]) -> None:
    lines = printing.render_answers(files).splitlines()
    assert lines[0].split() == ["model", "rightly", "highest"]
    attentive, plain = (hdf5.read(path) for path in files)
    for line, name, result in zip(lines[2:4], ("at", "at-att"), (plain, attentive), strict=True):
        cells = [f"{name}-seed0", str(result["test/read"].tolist()), f"{result['test/highest']:.3f}"]
        assert re.split("  +", line) == cells
    assert plain["test/highest"] != attentive["test/highest"]
    assert lines[4:] == [
        "Full names of models begin with odd-small-",
        "",
        "files all",
        "---------",
        "        2",
    ]


@pytest.mark.parametrize("views", [["rightly"], ["highest"], ["rightly", "highest"], ["highest", "rightly"]])
def test_views_limit_a_table_to_their_columns(files: list[Path], views: list[str]) -> None:
    lines = printing.render_answers(files, views).splitlines()
    assert lines[0].split() == ["model", *views]
    assert re.split("  +", lines[6].rstrip()) == [f"files {view}" for view in views]


def test_one_file_is_compared_with_nothing(files: list[Path]) -> None:
    assert len(printing.render_answers(files[:1]).splitlines()) == 3


def test_the_study_has_the_recipe_of_each_architecture(tmp_path: Path) -> None:
    tasks = reproduction.train_tasks(QUICK, Folders(tmp_path), "cpu")
    assert [(task.architecture, task.variant, task.seed) for task in tasks] == list(QUICK.models)
    assert {(task.architecture, task.recipe.optimizer, task.recipe.learning_rate) for task in tasks} == {
        ("small", "sgd", 0.1),
        ("cnn", "adam", 0.002),
    }
    assert {(task.source, task.deadline, task.limit) for task in tasks} == {("cluttered-digits", math.inf, None)}


def test_models_whose_images_are_not_here_are_left_out_and_nothing_is_fetched(
    make_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = make_checkpoint(tmp_path, "at", 0)
    snapshot = checkpoint.read(local)
    foreign, second = (tmp_path / f"cifar10-small-at-seed{seed}.safetensors" for seed in (0, 1))
    for path in (foreign, second):
        checkpoint.write(path, snapshot.about | {"source": "cifar10"}, snapshot.tensors)
    monkeypatch.setattr(sources, "fetch", lambda *_: pytest.fail("fetched"))
    messages: list[str] = []
    assert choose_applicable("attention-rank", [foreign, local], {}, messages.append) == [local]
    remedy = "its images are not here: `irt data get cifar10`."
    assert messages == [f"{foreign.name} is left out: {remedy}"]
    assert choose_applicable("attention-rank", [foreign, second, local], {}, messages.append) == [local]
    assert messages[1:] == [f"{foreign.name} is left out, and 1 more model: {remedy}"]


def test_a_study_says_first_how_much_there_is_to_do(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    assert reproduction.summarize(find_study("quick"), tmp_path) == (
        "10 models of cluttered-digits, all still to train, then 39 answers to 9 questions about them"
    )
    study = find_study("figure2")
    text = "2 models of cluttered-digits{}, then 4 answers to 1 question about them"
    for rest, step in zip(
        (", all still to train", ", 1 of them still to train", ""), reproduction.plan(study)[:3], strict=True
    ):
        assert reproduction.summarize(study, tmp_path) == text.format(rest)
        path = tmp_path / step.file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(make_checkpoint(tmp_path / path.stem).read_bytes())
