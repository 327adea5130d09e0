"""Pieces of work that a command or a study is made of: a model to train, an analysis of a checkpoint."""

import math
import time
from collections import defaultdict
from collections.abc import Generator, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import torch

from interpret_robust import analyses
from interpret_robust.analyses.engine import work as streaming
from interpret_robust.analyses.engine.settings import shares_attack
from interpret_robust.core import process_pool, progress, ranks, round_robin
from interpret_robust.core.device import exact, resolve
from interpret_robust.core.errors import Say, UserError
from interpret_robust.core.file_notices import MOST_NAMED, say_unchanged
from interpret_robust.core.folders import Folders
from interpret_robust.core.interruption import NotBegun, Stopped, stop_requests
from interpret_robust.core.parsing import format_count, format_duration
from interpret_robust.datasets import load
from interpret_robust.datasets.catalogue import must_be_fetched
from interpret_robust.models import checkpoint
from interpret_robust.models.card import Reference
from interpret_robust.models.external import find_subject
from interpret_robust.models.variants import find_variant
from interpret_robust.study.evaluators import choose_evaluators, list_candidates, readers_of
from interpret_robust.training.job import Job
from interpret_robust.training.log import NO_LOGS, Logs, name_log
from interpret_robust.training.loop import is_finished, run_steps
from interpret_robust.training.recipe import Recipe

AT_ONCE = 4
"""Models that a GPU trains at once: more of the paper's size than fill one."""


@dataclass(frozen=True)
class TrainTask:
    """One model to train; `source` is the dataset's name or path."""

    source: str
    architecture: str
    variant: str
    seed: int
    recipe: Recipe
    folder: Path
    device: str = "auto"
    limit: int | None = None
    deadline: float = math.inf
    overwrite: bool = False
    logs: Logs = NO_LOGS

    @property
    def name(self) -> str:
        """Return the checkpoint's file name."""
        return f"{self.job().name}.safetensors"

    def job(self) -> Job:
        """Return what is trained."""
        return Job(load(self.source), self.architecture, find_variant(self.variant), self.seed, self.recipe, self.limit)

    def is_done(self) -> bool:
        """Return whether its checkpoint is there. Raises UserError where its name is taken, see `is_finished`."""
        return is_finished(self.job(), self.folder, overwrite=self.overwrite)

    def lacks_log(self) -> bool:
        """Return whether lines are asked for that are not beside the checkpoint."""
        return self.logs.file and not name_log(self.folder / self.name).exists()

    @exact()
    def __call__(self, position: int | None = None) -> str:
        """Train, and say how it went. Raises Stopped without beginning where the deadline has passed."""
        with stop_requests() as stop:
            return round_robin.to_end(self.steps(stop, position))

    def steps(self, stop: Event, position: int | None) -> Generator[None, None, str]:
        """Train a step at a time, until `stop` is set, and return how it went."""
        if ranks.gather_flags(time.monotonic() > self.deadline)[0]:
            raise NotBegun(f"{self.job().name} was not begun")
        path, is_new = yield from run_steps(
            self.job(),
            self.folder,
            source=self.source,
            device=resolve(self.device),
            stop=stop,
            deadline=self.deadline,
            overwrite=self.overwrite,
            position=position,
            logs=self.logs,
        )
        if ranks.find_rank() > 0:
            return path.name
        if not is_new:
            return f"{path.name} is there already"
        last = checkpoint.read(path).about["history"][-1]
        return (
            f"trained {path.name}: {format_count(last['epoch'], 'epoch')} in {format_duration(last['seconds'])}, "
            f"training accuracy {last['accuracy']:.1%} on {self._images_of_accuracy()} images"
        )

    def _images_of_accuracy(self) -> str:
        return "adversarial" if find_variant(self.variant).adversarial else "clean"


@dataclass(frozen=True)
class AnalysisTask:
    """One analysis of one model; `source` is the dataset's name or path, None for that of training."""

    analysis: str
    checkpoint: Reference
    folder: Path
    settings: Any
    device: str = "auto"
    source: str | None = None
    split: str = "test"
    limit: int | None = None
    batch_size: int | None = None
    overwrite: bool = False
    evaluators: tuple[Reference, ...] = ()
    default_evaluators: bool = True
    recalibrate: str = "none"
    deadline: float = math.inf

    @property
    def name(self) -> str:
        """Return the file's name."""
        return self.work().path.name

    def is_done(self) -> bool:
        """Return whether its file is there. Raises UserError where another configuration's has its name."""
        return self.work().is_done(overwrite=self.overwrite)

    def __call__(self, position: int | None = None) -> str:
        """Run it, and say where the answer is. Raises Stopped at the deadline, with all whole batches kept."""
        work = self.work()
        path = work.run(overwrite=self.overwrite, position=position)
        return f"analyzed {path.name}" if work.is_new else f"{path.name} is there already"

    def work(self) -> streaming.Work:
        """Return the analysis with everything that it needs. Raises UserError where these do not fit."""
        model = find_subject(self.checkpoint, self.source)
        source = self.source or model.source
        return streaming.Work(
            analyses.get(self.analysis),
            model,
            load(source),
            self.folder,
            settings=self.settings,
            split=self.split,
            limit=self.limit,
            batch_size=self.batch_size,
            device=resolve(self.device),
            evaluators=[find_subject(reference, source) for reference in self.evaluators],
            default_evaluators=self.default_evaluators,
            source=source,
            recalibrate=self.recalibrate,
            deadline=self.deadline,
        )


@exact()
def do_all(tasks: Sequence[TrainTask] | Sequence[AnalysisTask], device: str, say: Say) -> None:
    """Do the tasks that are not done yet, side by side on a CPU; on a GPU train several at once, else one by one.

    Several ranks do each task together, one by one. Each outcome is said as it comes. The first error is raised when
    all others have ended; by ranks, which cannot go on without each other, at once.
    """
    todo, finished_tasks = [], []
    is_done_by_task = ranks.run_on_first(lambda: [task.is_done() for task in tasks])
    for task, is_done in zip(tasks, is_done_by_task, strict=True):
        assert isinstance(task, TrainTask | AnalysisTask)
        if is_done:
            finished_tasks.append(task.name)
        else:
            if not task.overwrite and (task.folder / task.name).exists():
                say(f"{task.name} is made anew: more models read it now")
            todo.append(task)
    say_unchanged(finished_tasks, len(tasks), say)
    if any(isinstance(task, TrainTask) and task.lacks_log() for task in tasks if task.name in finished_tasks):
        say("no log is written of models that are trained already: --overwrite trains them again")
    failures: list[Exception] = []
    names_not_begun = []
    for task, outcome in _outcomes(todo, resolve(device)):
        if isinstance(outcome, NotBegun):
            names_not_begun.append(Path(task.name).stem)
        elif isinstance(outcome, Exception):
            failures.append(outcome)
        else:
            progress.clear_bars()
            say(outcome)
    if names_not_begun:
        failures.append(_not_begun(names_not_begun))
    failures.sort(key=lambda failure: isinstance(failure, Stopped))
    for failure in failures[1:]:
        say(str(failure))
    if failures:
        raise failures[0]


def say_extent(tasks: Sequence[AnalysisTask], say: Say) -> None:
    """Say how many models are to be asked, and about how many images, where there are several."""
    todo = [task for task in tasks if not task.is_done()]
    if len(todo) > 1:
        images = sorted({len(task.work().split) for task in todo})
        counts = f"{images[0]:,}" if len(images) == 1 else f"{images[0]:,} to {images[-1]:,}"
        say(f"{len(todo)} models are asked, each about {counts} images: name checkpoints to ask fewer.")


def _not_begun(names: Sequence[str]) -> NotBegun:
    """Return what is raised for tasks that were not begun: one of them by name, several in one sentence."""
    if len(names) == 1:
        return NotBegun(f"{names[0]} was not begun")
    rest = [f"{len(names) - MOST_NAMED} more"] if len(names) > MOST_NAMED else []
    return NotBegun(f"{len(names)} files were not begun ({', '.join([*names[:MOST_NAMED], *rest])})")


def _outcomes(tasks: Sequence[TrainTask | AnalysisTask], device: torch.device) -> Iterator[tuple[Any, str | Exception]]:
    """Yield each task with what it says, or its exception, as they end."""
    trainings = [task for task in tasks if isinstance(task, TrainTask)]
    if ranks.count_ranks() > 1:
        yield from ((task, task(None)) for task in tasks)
    elif trainings and device.type == "cuda":
        yield from round_robin.run(trainings, AT_ONCE, device)
    else:
        workers = 1 if device.type == "cuda" else min(process_pool.count_cores(), len(tasks))
        yield from process_pool.run(tasks, workers, _attack)


def _attack(task: TrainTask | AnalysisTask) -> Hashable:
    """Return what analyses that take one attack have in common (see `attacks.cache`); any other task stands alone."""
    if isinstance(task, TrainTask) or not shares_attack(task.settings):
        return id(task)
    ball = (task.settings.norm, task.settings.eps, task.settings.step_size, task.settings.seed)
    return (task.checkpoint, task.source, task.split, task.batch_size, task.recalibrate, *ball)


def choose_applicable(analysis: str, paths: Sequence[Path], options: Mapping[str, Any], say: Say) -> list[Path]:
    """Return those checkpoints of a working directory that an analysis can be run on; why others cannot is said.

    `options` is what their tasks have in common. Raises UserError where there are none.
    """
    paths_by_obstacle: dict[str | None, list[Path]] = defaultdict(list)
    for path in paths:
        paths_by_obstacle[_obstacle(analysis, path, paths, options)].append(path)
    fitting_paths = paths_by_obstacle.pop(None, [])
    sentences = [_leave_out(left_paths, obstacle) for obstacle, left_paths in paths_by_obstacle.items()]
    if not fitting_paths:
        raise UserError(sentences[0])
    for sentence in sentences:
        say(sentence)
    return fitting_paths


def _leave_out(paths: Sequence[Path], obstacle: str | None) -> str:
    """Return a sentence for models that one obstacle keeps from an analysis."""
    rest = f", and {format_count(len(paths) - 1, 'more model')}" if len(paths) > 1 else ""
    return f"{paths[0].name} is left out{rest}: {obstacle}"


def _obstacle(name: str, path: Path, candidates: Sequence[Path], options: Mapping[str, Any]) -> str | None:
    analysis, stored_checkpoint = analyses.get(name), checkpoint.read(path)
    if not options.get("source") and must_be_fetched(stored_checkpoint.source):
        return f"its images are not here: `irt data get {stored_checkpoint.source}`."
    dataset = load(options.get("source") or stored_checkpoint.source)
    if analysis.needs_masks and dataset.test.masks is None:
        return f"{dataset.name} has no object masks."
    if evaluators := options.get("evaluators"):
        return (
            "it is the evaluator."
            if path.resolve() in [path_of_reader.resolve() for path_of_reader in evaluators]
            else None
        )
    if analysis.readers != "evaluators":
        return None
    try:
        choose_evaluators(stored_checkpoint, candidates)
    except UserError as error:
        return str(error)
    return None


def make_tasks(
    name: str,
    subjects: Sequence[Reference],
    folders: Folders,
    settings: Any,
    candidates: Sequence[Path] | None = None,
    *,
    evaluators: tuple[Reference, ...] = (),
    matrix: bool = False,
    **options: Any,
) -> list[AnalysisTask]:
    """Return a task for each subject.

    What it gives is read by the `evaluators` given, or by those that suit the analysis among `candidates`, by
    default all of the folder of checkpoints, and subjects from elsewhere too where copies read; with `matrix` by all
    others of the same dataset. Raises UserError for evaluators and matrix.
    """
    if evaluators and matrix:
        raise UserError("--evaluator names some evaluators and --matrix takes all models: give one of the two.")
    analysis = analyses.get(name)
    if analysis.readers == "none":
        return [AnalysisTask(name, reference, folders.analyses, settings, **options) for reference in subjects]
    if candidates is None:
        candidates = () if evaluators else folders.list_models()
        if analysis.readers == "copies" and not evaluators:
            candidates = _add_subjects(candidates, subjects)
    choose = partial(list_candidates, source=options.get("source")) if matrix else readers_of[analysis.readers]
    readers_by_subject = [
        evaluators or choose(find_subject(reference, options.get("source")), candidates) for reference in subjects
    ]
    options["default_evaluators"] = not (evaluators or matrix)
    return [
        AnalysisTask(
            name, reference, folders.analyses, settings, evaluators=readers[: analysis.most_readers], **options
        )
        for reference, readers in zip(subjects, readers_by_subject, strict=True)
    ]


def _add_subjects(candidates: Sequence[Path], subjects: Sequence[Reference]) -> tuple[Path, ...]:
    """Return the candidates, and the files among subjects that have another name than each of them."""
    paths = [subject for subject in subjects if isinstance(subject, Path)]
    return tuple({path.name: path for path in (*paths, *candidates)}.values())


def list_doubts(tasks: Sequence[AnalysisTask]) -> list[str]:
    """Return what is doubtful about the models that have still to be asked, or that read what others give."""
    return list(dict.fromkeys(doubt for task in tasks if not task.is_done() for doubt in task.work().doubts))
