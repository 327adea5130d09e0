"""Doing a study: which files it makes, what each needs, and making them."""

import math
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from interpret_robust import analyses
from interpret_robust.analyses.engine.naming import name_file, resolve_limit
from interpret_robust.core.configs import describe_differences
from interpret_robust.core.errors import Say, UserError, unknown
from interpret_robust.core.file_names import resolve
from interpret_robust.core.folders import Folders
from interpret_robust.core.parsing import format_count
from interpret_robust.datasets import load
from interpret_robust.models import checkpoint_file, training_state
from interpret_robust.results import hdf5
from interpret_robust.results.model_entry import list_evaluators
from interpret_robust.results.writer import name_partial
from interpret_robust.study.evaluators import readers_of
from interpret_robust.study.plan import Model, Question, Study
from interpret_robust.study.tasks import AnalysisTask, TrainTask, do_all, make_tasks
from interpret_robust.training.job import drop_name
from interpret_robust.training.recipe_file import find_recipe


class Step(NamedTuple):
    """A file of a study, and the models that must be there before it can be made; paths are below `Folders`.

    `job` says how a model is to be trained; None for an answer.
    """

    file: Path
    needs: tuple[Path, ...] = ()
    job: Mapping[str, Any] | None = None


class _PlannedModel(NamedTuple):
    """A model of a study, which may still have to be trained."""

    path: Path
    job: Mapping[str, Any]
    source: str

    @property
    def location(self) -> str:
        return str(self.path)


def plan(study: Study) -> list[Step]:
    """Return every model and every answer of a study, in an order in which they can be made."""
    folders = Folders(Path())
    models = _plan_models(study, folders)
    answers = [step for _, steps in _answers(study, models, folders) for step in steps]
    return [*(Step(model.path, job=model.job) for model in models.values()), *answers]


def tell_state(step: Step, root: Path) -> str:
    """Return what a planned file is: `yes` if it is there, `no` if it is not, `damaged` if it cannot be read.

    A model in training is told by its steps, such as `4,626 of 6,240 steps`, and `misnamed` if its file has the name of
    a finished one, or a finished one the name of an unfinished training; it is `another` if it was trained otherwise.
    An answer is `unfinished` while images are missing, `anew` if fewer models have read it than there are, and
    `another` if it is of other models, or others have read it.
    """
    path = root / step.file
    try:
        if not step.needs:
            return _tell_state_of_model(path, step.job)
        return _tell_state_of_answer(path, [root / need for need in step.needs])
    except UserError:
        return "damaged"


def _tell_state_of_model(path: Path, job: Mapping[str, Any] | None) -> str:
    path_there = path if path.exists() else training_state.name_state(path)
    if not path_there.exists():
        return "no"
    metadata = checkpoint_file.read(path_there).about
    if training_state.explain_misnomer(path_there, metadata):
        return "misnamed"
    if training_state.is_state(metadata):
        return training_state.tell_progress(metadata)
    is_another = job is not None and describe_differences(drop_name(metadata["job"]), drop_name(job))
    return "another" if is_another else "yes"


def _tell_state_of_answer(path: Path, models: Sequence[Path]) -> str:
    if not path.exists():
        return "unfinished" if name_partial(path).exists() else "no"
    config = hdf5.read_provenance(path)["config"]
    readers = {reader.stem for reader in models[1:]}
    names = {reader.name for reader in list_evaluators(config)}
    if _has_other_weights(config, models):
        return "another"
    if analyses.get(config["analysis"].partition("/")[0]).readers == "copies" and names != readers:
        return "yes" if readers < names else "anew" if names < readers else "another"
    return "yes" if names == readers else "another"


def _has_other_weights(config: Mapping[str, Any], models: Sequence[Path]) -> bool:
    """Return whether a model that is there has the name, but not the weights, of one that an answer is of.

    A damaged model is not: its own line of the plan says so.
    """
    hashes = {model.name: model.sha256 for model in list_evaluators(config)}
    hashes[config["checkpoint"]["name"]] = config["checkpoint"]["sha256"]
    for model in models:
        if model.stem in hashes and model.exists():
            with suppress(UserError):
                if checkpoint_file.read(model).sha256 != hashes[model.stem]:
                    return True
    return False


NOT_TO_TRAIN = ("yes", "damaged", "misnamed", "another")
"""States of a model of which the first is right, and of which training refuses the others."""


def summarize(study: Study, root: Path, *, overwrite: bool = False) -> str:
    """Return text such as `10 models of cluttered-digits, 4 of them still to train, then 39 answers to 9 questions
    about them`, of what is in a working directory; with `overwrite` all are still to train.
    """
    steps = plan(study)
    models, answers = len(study.models), len(steps) - len(study.models)
    count = sum(overwrite or tell_state(step, root) not in NOT_TO_TRAIN for step in steps[:models])
    rest = f", {f'{count} of them' if count < models else 'all'} still to train" if count else ""
    questions = len({question.analysis for question in study.questions})
    return (
        f"{format_count(models, 'model')} of {study.dataset}{rest}, then {format_count(answers, 'answer')} to "
        f"{format_count(questions, 'question')} about them"
    )


def _plan_models(study: Study, folders: Folders) -> dict[Model, _PlannedModel]:
    tasks = train_tasks(study, folders)
    return {
        model: _PlannedModel(folders.checkpoints / task.name, task.job().describe(), study.dataset)
        for model, task in zip(study.models, tasks, strict=True)
    }


def _answers(
    study: Study, models: Mapping[Model, _PlannedModel], folders: Folders
) -> Iterator[tuple[Question, list[Step]]]:
    """Yield each question's files. What needs object masks is asked only where there are any."""
    data, jobs = load(study.dataset), {model.path: model.job for model in models.values()}
    for question in study.questions:
        analysis = analyses.get(question.analysis)
        if analysis.needs_masks and data.test.masks is None:
            continue
        settings, limit = question.settings_for(analysis), resolve_limit(question.limit, data.split(question.split))
        steps = []
        for model in (models[key] for key in question.models):
            path = name_file(folders.analyses, analysis, model.path.stem, model.job, question.split, settings, limit)
            choose = readers_of.get(analysis.readers)
            readers = choose(model, tuple(jobs), jobs.__getitem__) if choose else ()
            needs = (model.path, *readers[: analysis.most_readers])
            steps.append(Step(path, needs))
        yield question, steps


def train_tasks(
    study: Study, folders: Folders, device: str = "auto", deadline: float = math.inf, *, overwrite: bool = False
) -> list[TrainTask]:
    """Return the models of a study, each with the recipe for its architecture."""
    return [
        TrainTask(
            study.dataset,
            architecture,
            variant,
            seed,
            find_recipe(study.recipe, study.dataset, architecture=architecture),
            folders.checkpoints,
            device,
            study.images,
            deadline,
            overwrite=overwrite,
        )
        for architecture, variant, seed in study.models
    ]


def list_question_tasks(
    study: Study,
    folders: Folders,
    names_only: Container[str] | None = None,
    **common: Any,
) -> list[tuple[Question, list[AnalysisTask]]]:
    """Return every question, asked of every model that it is for; what a model gives is read by others of the study
    only.

    `names_only` are the files that are wanted, None for all; `common` is what their tasks have in common.
    """
    pairs = []
    for question, steps in _answers(study, _plan_models(study, folders), folders):
        chosen_steps = [step for step in steps if names_only is None or step.file.name in names_only]
        tasks = [task for step in chosen_steps for task in _tasks(question, step, folders, **common)]
        if tasks:
            pairs.append((question, tasks))
    return pairs


def _tasks(question: Question, step: Step, folders: Folders, **common: Any) -> list[AnalysisTask]:
    settings = question.settings_for(analyses.get(question.analysis))
    subject, *readers = step.needs
    common |= {"split": question.split, "limit": question.limit}
    return make_tasks(question.analysis, [subject], folders, settings, readers, **common)


def reproduce(
    study: Study,
    folders: Folders,
    device: str,
    say: Say,
    deadline: float = math.inf,
    *,
    overwrite: bool = False,
    names_only: Collection[str] | None = None,
) -> list[tuple[Question, list[Path]]]:
    """Train and ask; return the files of the answers to each question.

    Args:
        study: the study.
        folders: where its files go.
        device: auto, cpu or cuda.
        say: called with a sentence whenever something is done.
        deadline: a value of `time.monotonic()`.
        overwrite: make everything anew.
        names_only: names of files, see `plan`, or what is short for one of them (`resolve`), that are to be made,
            from those that they need; None for all.

    Raises Stopped where the deadline passes, with everything saved, and to be continued; and UserError for a file that
    is not of the study, or that needs one that is not there.
    """
    if names_only:
        names_only = _choose_files(names_only, plan(study), folders)
    trainings = train_tasks(study, folders, device, deadline, overwrite=overwrite)
    do_all([task for task in trainings if names_only is None or task.name in names_only], device, say)
    pairs = list_question_tasks(study, folders, names_only, device=device, deadline=deadline, overwrite=overwrite)
    do_all([task for _, tasks in pairs for task in tasks], device, say)
    return [(question, [task.work().path for task in tasks]) for question, tasks in pairs]


def _choose_files(names: Collection[str], steps: Sequence[Step], folders: Folders) -> set[str]:
    """Return the whole names of files of a study. Raises UserError as `reproduce` does."""
    steps_by_name = {step.file.name: step for step in steps}
    files = [step.file for step in steps]
    chosen_names = {resolve(name, files, "file of this study").name for name in names}
    for name in chosen_names:
        if name not in steps_by_name:
            raise unknown("file of this study", name, steps_by_name)
        for need in steps_by_name[name].needs:
            if need.name not in chosen_names and not (folders.root / need).exists():
                raise UserError(f"{name} needs {need}, which is not there: `--only {need.name}` trains it.")
    return chosen_names
