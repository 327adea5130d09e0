"""A study: which models to train, which analyses to run, which figures to draw, and doing all of it."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interpret_robust import analyses, results, side_by_side, streaming
from interpret_robust.datasets import load
from interpret_robust.device import cores, resolve
from interpret_robust.drawing import draw
from interpret_robust.errors import UserError
from interpret_robust.figures import style
from interpret_robust.interruption import Stopped
from interpret_robust.training import checkpoint
from interpret_robust.training.job import Job
from interpret_robust.training.loop import finished, train
from interpret_robust.training.recipe import Recipe, preset
from interpret_robust.variants import variant

Say = Callable[[str], None]


@dataclass(frozen=True)
class Folders:
    """The three folders of a working directory."""

    root: Path

    @property
    def checkpoints(self) -> Path:
        """Trained models."""
        return self.root / "checkpoints"

    @property
    def analyses(self) -> Path:
        """Answers."""
        return self.root / "analyses"

    @property
    def figures(self) -> Path:
        """Pictures."""
        return self.root / "figures"


# The four variants, and the natural models that the gradient-map score reads maps with: two seeds of the
# base network and both attentions. The longest come first, so that the last to end are short.
MODELS = (
    ("at-att-reg", 0),
    ("at-reg", 0),
    ("at-att", 0),
    ("at", 0),
    ("natural-att", 0),
    ("natural-linear-att", 0),
    ("natural", 0),
    ("natural", 1),
)


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

    @property
    def name(self) -> str:
        """The checkpoint's file name."""
        return f"{self.job().name}.safetensors"

    def job(self) -> Job:
        """What is trained."""
        return Job(load(self.source), self.architecture, variant(self.variant), self.seed, self.recipe, self.limit)

    def is_done(self) -> bool:
        """Whether its checkpoint is there. Raises UserError where another job's has its name."""
        return finished(self.job(), self.folder, overwrite=self.overwrite)

    def __call__(self, position: int | None = None) -> str:
        """Train, and say how it went. Raises Stopped without beginning where the deadline has passed."""
        if time.monotonic() > self.deadline:
            raise Stopped(f"{self.job().name} was not begun")
        path = train(
            self.job(),
            self.folder,
            source=self.source,
            device=resolve(self.device),
            deadline=self.deadline,
            overwrite=self.overwrite,
            position=position,
        )
        last = checkpoint.read(path).about["history"][-1]
        return (
            f"trained {path.name}: {last['epoch']} epochs in {last['seconds']:.0f} s, "
            f"accuracy on the images it trained on {last['accuracy']:.1%}"
        )


@dataclass(frozen=True)
class AnalysisTask:
    """One analysis of one checkpoint; `source` is the dataset's name or path, None for that of training."""

    analysis: str
    checkpoint: Path
    folder: Path
    settings: Any
    device: str = "auto"
    source: str | None = None
    split: str = "test"
    limit: int | None = None
    batch_size: int = streaming.BATCH_SIZE
    overwrite: bool = False

    @property
    def name(self) -> str:
        """The file's name."""
        return self.work().path.name

    def is_done(self) -> bool:
        """Whether its file is there. Raises UserError where another configuration's has its name."""
        return self.work().is_done(overwrite=self.overwrite)

    def __call__(self, position: int | None = None) -> str:
        """Run it, and say where the answer is."""
        return f"analysed {self.work().run(overwrite=self.overwrite, position=position).name}"

    def work(self) -> streaming.Work:
        """The analysis with everything that it needs. Raises UserError where these do not fit."""
        found = checkpoint.read(self.checkpoint)
        return streaming.Work(
            analyses.get(self.analysis),
            found,
            load(self.source or found.about["source"]),
            self.folder,
            settings=self.settings,
            split=self.split,
            limit=self.limit,
            batch_size=self.batch_size,
            device=resolve(self.device),
        )


def do_all(tasks: Sequence[TrainTask] | Sequence[AnalysisTask], device: str, say: Say) -> None:
    """Do the tasks that are not done yet, side by side on a CPU, one after the other on a GPU.

    Each outcome is said as it comes. The first error is raised when all others have ended.
    """
    todo = []
    for task in tasks:
        if task.is_done():
            say(f"{task.name} is there already")
        else:
            todo.append(task)
    workers = 1 if resolve(device).type == "cuda" else min(cores(), len(todo))
    failures = []
    for _, outcome in side_by_side.run(todo, workers):
        if isinstance(outcome, Exception):
            failures.append(outcome)
        else:
            say(outcome)
    failures.sort(key=lambda failure: isinstance(failure, Stopped))
    for failure in failures[1:]:
        say(str(failure))
    if failures:
        raise failures[0]


def checkpoints(folders: Folders) -> list[Path]:
    """The finished checkpoints of a working directory, by name. Raises UserError where there are none."""
    found = sorted(path for path in folders.checkpoints.glob("*.safetensors") if not path.stem.endswith(".state"))
    if not found:
        raise UserError(f"there are no checkpoints in {folders.checkpoints}: `irt train` makes them.")
    return found


def applicable(analysis: str, paths: Sequence[Path]) -> list[Path]:
    """Those checkpoints that an analysis can be run on. Raises UserError where there are none."""
    if not analyses.get(analysis).needs_attention:
        return list(paths)
    found = [path for path in paths if streaming.has_attention(checkpoint.read(path))]
    if not found:
        raise UserError(f"{analysis} needs a model with attention, such as the variant at-att.")
    return found


def table_rows(files: Sequence[Path]) -> list[dict[str, str]]:
    """A row a file, in the paper's order: the model, then the headline numbers of its analysis."""
    rows = []
    for result in sorted(map(results.read, files), key=style.order):
        analysis = analyses.get(result.schema.partition("/")[0])
        rows.append({"model": result.config["checkpoint"]["name"], **analysis.table_row(result)})
    return rows


def quick_tasks(folders: Folders, device: str, overwrite: bool) -> list[TrainTask]:
    """The models of the quick study: the embedded data, the small network, one recipe."""
    dataset = "cluttered-digits"
    recipe = preset("quick", dataset)
    return [
        TrainTask(dataset, "small", name, seed, recipe, folders.checkpoints, device, overwrite=overwrite)
        for name, seed in MODELS
    ]


def reproduce_quick(folders: Folders, device: str, overwrite: bool, say: Say) -> list[Path]:
    """Train, evaluate, analyse and draw the quick study; returns every file it stands for, tables aside."""
    training = quick_tasks(folders, device, overwrite)
    do_all(training, device, say)
    trained = [folders.checkpoints / task.name for task in training]
    files, pictures = [], []
    for name in ("robustness", "attention-rank"):
        tasks = [
            AnalysisTask(name, path, folders.analyses, analyses.get(name).settings(), device, overwrite=overwrite)
            for path in applicable(name, trained)
        ]
        do_all(tasks, device, say)
        of_this = [task.work().path for task in tasks]
        files += of_this
        pictures.append(draw(name, of_this, folders.figures, say))
    return [*trained, *files, *pictures]


STUDIES = {"quick": reproduce_quick}
