"""A study: which models to train, which analyses to run, which figures to draw, and doing all of it."""

from pathlib import Path

from interpret_robust import analyses, report
from interpret_robust.drawing import Say
from interpret_robust.folders import Folders
from interpret_robust.tasks import AnalysisTask, TrainTask, analysis_tasks, do_all
from interpret_robust.training.recipe import preset

# The subjects of the study have seed 0: the four variants and the natural networks that the paper sets beside
# them. The evaluators that read their gradient maps have other seeds: two natural ones, a natural one of another
# architecture, an adversarially trained one. The longest come first, so that the last to end are short.
MODELS = (
    ("small", "at-att-reg", 0),
    ("small", "at-reg", 0),
    ("small", "at-att", 0),
    ("small", "at", 0),
    ("small", "at", 1),
    ("cnn", "natural", 1),
    ("small", "natural-att", 0),
    ("small", "natural-linear-att", 0),
    ("small", "natural", 0),
    ("small", "natural", 1),
    ("small", "natural", 2),
)


SUBJECTS_SEED = 0
NATURAL_ATTENTION = ("natural-att", "natural-linear-att")
ABOUT_ATTENTION = ("attention-rank", "attention-maps", "localisation")


def quick_tasks(folders: Folders, device: str, overwrite: bool) -> list[TrainTask]:
    """The models of the quick study: the embedded data, small networks, the quick recipe."""
    dataset = "cluttered-digits"
    return [
        TrainTask(
            dataset,
            architecture,
            name,
            seed,
            preset("quick", dataset, architecture=architecture),
            folders.checkpoints,
            device,
            overwrite=overwrite,
        )
        for architecture, name, seed in MODELS
    ]


def is_subject(task: TrainTask, analysis: str) -> bool:
    """Whether the study asks a question of a model: the accuracy of all, the rest of the subjects it concerns."""
    if analysis == "robustness":
        return True
    return task.seed == SUBJECTS_SEED and (task.variant not in NATURAL_ATTENTION or analysis in ABOUT_ATTENTION)


def quick_analyses(folders: Folders, device: str, overwrite: bool) -> list[AnalysisTask]:
    """Every analysis of the models that it is for."""
    trained = quick_tasks(folders, device, overwrite)
    candidates = [folders.checkpoints / task.name for task in trained]
    tasks = []
    for name in analyses.names():
        paths = [folders.checkpoints / task.name for task in trained if is_subject(task, name)]
        settings = analyses.get(name).settings()
        tasks += analysis_tasks(name, paths, folders, settings, candidates, device=device, overwrite=overwrite)
    return tasks


def reproduce_quick(folders: Folders, device: str, overwrite: bool, say: Say) -> list[Path]:
    """Train, analyse, draw and report the quick study; returns the files of its analyses."""
    do_all(quick_tasks(folders, device, overwrite), device, say)
    tasks = quick_analyses(folders, device, overwrite)
    do_all(tasks, device, say)
    files = [task.work().path for task in tasks]
    report.write(folders, folders.report, say)
    return files


STUDIES = {"quick": reproduce_quick}
