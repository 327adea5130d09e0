"""A study: which models to train, which questions to ask of which of them, and doing all of it.

`quick` is the embedded study of one training seed, `cifar10` the reference study. The others each reproduce one part of
the paper, or audit all of its claims, over training seeds 0, 1, ..., at the paper's scale or at one for two cores.
"""

import math
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from interpret_robust import analyses
from interpret_robust.analyses.engine.naming import effective_limit, file_path
from interpret_robust.core.errors import Say, UserError, unknown
from interpret_robust.core.file_names import resolve
from interpret_robust.core.folders import Folders
from interpret_robust.datasets import load
from interpret_robust.models import architectures
from interpret_robust.study.evaluators import readers_of
from interpret_robust.study.tasks import AnalysisTask, TrainTask, analysis_tasks, do_all
from interpret_robust.training.recipe import preset


class Model(NamedTuple):
    """One model of a study."""

    architecture: str
    variant: str
    seed: int


@dataclass(frozen=True)
class Question:
    """An analysis, and the models of a study that it is asked of; `settings` are those that are not the default.

    `limit` is how many images of the split are looked at, None for all.
    """

    analysis: str
    models: tuple[Model, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    split: str = "test"
    limit: int | None = None

    def settings_for(self, analysis: Any) -> Any:
        """Return the settings for the analysis."""
        return replace(analysis.settings(), **self.settings)

    @property
    def images(self) -> str:
        """Return text such as `test images`, or `first 400 test images`."""
        return f"{self.split} images" if self.limit is None else f"first {self.limit} {self.split} images"


@dataclass(frozen=True)
class Study:
    """Models of one dataset, trained by one recipe on its first `images` or all, and the questions asked of them."""

    dataset: str
    recipe: str
    models: tuple[Model, ...]
    questions: tuple[Question, ...]
    images: int | None = None


ADVERSARIAL = ("at-att-reg", "at-reg", "at-att", "at")
"""The longest to train come first, so that the last to end are short."""
NATURAL = ("natural-att", "natural-linear-att", "natural")
WITH_ATTENTION = ("at-att-reg", "at-att")
OF_TABLE_4 = ("at-att-reg", "at")

HEADLINE_ONLY = {"pgd": "20", "cw": "none"}
"""For the attack of the quick study: the whole table takes fifteen times as long."""
EXPLANATION_IMAGES = 400
"""Test images of which the quick study asks what a model looks at. It attacks all, more than twice as many."""

# The subjects of the quick study have seed 0: the four variants and the natural networks that the paper sets beside
# them. The evaluators that read their gradient maps have other seeds: a natural network of another architecture, which
# is as long to train as an adversarial one, and two natural ones.
SUBJECTS = tuple(Model("small", variant, 0) for variant in (*ADVERSARIAL, *NATURAL))
READERS = (Model("cnn", "natural", 1), Model("small", "natural", 1), Model("small", "natural", 2))

_EXPLAINED_MODELS = tuple(model for model in SUBJECTS if model.variant in (*ADVERSARIAL, "natural"))
_OF_TABLE_4 = tuple(model for model in SUBJECTS if model.variant in (*OF_TABLE_4, "natural"))

QUICK = Study(
    "cluttered-digits",
    "quick",
    (*SUBJECTS[:4], *READERS, *SUBJECTS[4:]),
    (
        Question("robustness", SUBJECTS, HEADLINE_ONLY),
        *(
            Question(name, _EXPLAINED_MODELS, limit=EXPLANATION_IMAGES)
            for name in ("attention-rank", "attention-maps", "localization", "feature-deletion")
        ),
        *(
            Question(name, _OF_TABLE_4, limit=EXPLANATION_IMAGES)
            for name in ("gradient-maps", "gradmap-score", "alignment", "randomization")
        ),
    ),
)


class Ask(NamedTuple):
    """A question of a part of the paper: of which variants, on which splits, and of how many images at most."""

    analysis: str
    variants: tuple[str, ...]
    settings: Mapping[str, Any] = {}
    splits: tuple[str, ...] = ("test",)
    images: int | None = None


BOTH_SPLITS = ("train", "test")
KEPT_MAPS = 100
"""Images of which the reference study keeps gradient maps, so that its files can be shipped."""
TABLE = Ask("robustness", ADVERSARIAL)
AUDITED_TABLE = Ask("robustness", ADVERSARIAL, {"apgd": "100"})
"""With APGD in the worst case, which finds more than PGD and CW do."""
TABLE_1 = Ask("robustness", ("at-reg", "at"), {"pgd": "40,100", "cw": "none", "step_size": 0.01})
SECTION_4_3 = Ask("robustness", NATURAL, HEADLINE_ONLY)

PARTS = {
    "table1": (TABLE_1,),
    "table2": (TABLE,),
    "table3": (TABLE,),
    "table4": (Ask("gradmap-score", OF_TABLE_4, splits=BOTH_SPLITS),),
    "table5": (TABLE,),
    "table6": (TABLE,),
    "section4.3": (SECTION_4_3,),
    "figure2": (Ask("attention-rank", WITH_ATTENTION, splits=BOTH_SPLITS),),
    "figure3": (Ask("attention-maps", WITH_ATTENTION, splits=BOTH_SPLITS),),
    "figure4": (Ask("gradient-maps", OF_TABLE_4, splits=BOTH_SPLITS),),
    "audit": (
        AUDITED_TABLE,
        SECTION_4_3,
        Ask("masking", ADVERSARIAL),
        Ask("attention-rank", WITH_ATTENTION),
        Ask("feature-deletion", WITH_ATTENTION),
        Ask("localization", (*WITH_ATTENTION, "at")),
        Ask("gradmap-score", OF_TABLE_4),
        Ask("alignment", OF_TABLE_4),
    ),
    "cifar10": (
        TABLE,
        SECTION_4_3,
        Ask("masking", ADVERSARIAL),
        Ask("attention-rank", WITH_ATTENTION, splits=BOTH_SPLITS),
        Ask("attention-maps", WITH_ATTENTION, splits=BOTH_SPLITS),
        Ask("feature-deletion", WITH_ATTENTION),
        Ask("gradient-maps", OF_TABLE_4, splits=BOTH_SPLITS, images=KEPT_MAPS),
        Ask("gradmap-score", OF_TABLE_4, splits=BOTH_SPLITS),
        Ask("alignment", OF_TABLE_4),
        Ask("randomization", OF_TABLE_4),
    ),
}
"""What is asked for each part of the paper, for the audit of all its claims, and for the reference study."""

WITH_REPORT = ("quick", "audit", "cifar10")
"""Studies that end in the verdicts on the paper's claims and in a page."""


class Setup(NamedTuple):
    """What a part is reproduced with: how many images are learned from, and looked at in each split; None for all.

    `reader` is the architecture of a natural network that reads gradient maps beside those of the subjects' own; None
    for no such reader.
    """

    dataset: str
    architecture: str
    recipe: str
    images: int | None = None
    looked_at: Mapping[str, int | None] = {"train": None, "test": None}
    reader: str | None = "cnn"


FIRST = {"train": 1_000, "test": 1_000}
SCALES = {
    "quick": {
        "table1": Setup("mnist", "cnn", "mnist-quick", None, FIRST),
        "table3": Setup("cluttered-digits", "small-wide3", "quick", None, {"train": None, "test": 250}),
        "table5": Setup("cifar100", "small", "quick", 5_000, FIRST),
        "table6": Setup("svhn", "small", "quick", 5_000, FIRST),
        "cifar10": Setup("cifar10", "small", "cifar-quick", None, FIRST, None),  # a cnn is 17 MB to ship
        "rest": Setup("cluttered-digits", "small", "quick", None, {"train": 1_000, "test": None}),
    },
    "paper": {
        "table1": Setup("mnist", "cnn", "mnist"),
        "table3": Setup("cifar10", "wide3", "paper"),
        "table5": Setup("cifar100", "narrow", "paper"),
        "table6": Setup("svhn", "narrow", "paper"),
        "cifar10": Setup("cifar10", "narrow", "fast", reader="small"),
        "rest": Setup("cifar10", "narrow", "paper"),
    },
}


def study(name: str, scale: str = "quick", seeds: int | None = None, architecture: str | None = None) -> Study:
    """Return the study called `quick`, or that of a part of the paper over this many training seeds.

    `architecture` takes the place of that of the scale; the recipe stays.

    By default there are three seeds, one for figures, and two for the reference study `cifar10`: each model and an
    independent copy, which the black-box rows of a table need. Raises UserError for an unknown name, and for `quick` at
    another scale or of other seeds.
    """
    if name not in NAMES:
        raise unknown("study", name, NAMES)
    if name == "quick":
        if scale != "quick" or seeds not in (None, 1) or architecture is not None:
            raise UserError("quick is the embedded study of one seed: `audit` is that of several, at either scale.")
        return QUICK
    number = seeds or (1 if name.startswith("figure") else 2 if name == "cifar10" else 3)
    setup = SCALES[scale].get(name, SCALES[scale]["rest"])
    if architecture is not None:
        if architecture not in architectures.names():
            raise unknown("architecture", architecture, architectures.names())
        setup = setup._replace(architecture=architecture)
    questions = tuple(
        Question(ask.analysis, _models(setup.architecture, ask.variants, number), ask.settings, split, limit)
        for ask in PARTS[name]
        for split in ask.splits
        for limit in (ask.images or setup.looked_at[split],)
    )
    is_read = any(question.analysis == "gradmap-score" for question in questions)
    readers = _readers(setup.architecture, setup.reader, number) if is_read else ()
    models = dict.fromkeys((*(model for question in questions for model in question.models), *readers))
    return Study(setup.dataset, setup.recipe, tuple(models), questions, setup.images)


NAMES = ("quick", *PARTS)


def _models(architecture: str, variants: Iterable[str], seeds: int) -> tuple[Model, ...]:
    return tuple(Model(architecture, variant, seed) for seed, variant in product(range(seeds), variants))


def _readers(architecture: str, reader: str | None, seeds: int) -> tuple[Model, ...]:
    """Return evaluators of the maps of these seeds: whichever it is, two natural ones and an `at` of other seeds
    are there.

    Beside them stands one of another architecture, where there is to be any.
    """
    natural, adversarial = (
        _models(architecture, ("natural",), max(seeds, 3)),
        _models(architecture, ("at",), max(seeds, 2)),
    )
    return (*natural, *([Model(reader, "natural", 1)] if reader else []), *adversarial)


class Step(NamedTuple):
    """A file of a study, and the models that must be there before it can be made; paths are below `Folders`."""

    file: Path
    needs: tuple[Path, ...] = ()


class _PlannedModel(NamedTuple):
    """A model of a study, which may still have to be trained."""

    path: Path
    job: Mapping[str, Any]
    source: str

    @property
    def location(self) -> str:
        return str(self.path)


def plan(study: Study, folders: Folders = Folders(Path())) -> list[Step]:  # noqa: B008 - it does not change
    """Return every model and every answer of a study, in an order in which they can be made."""
    models = _plan_models(study, folders)
    answers = [step for _, steps in _answers(study, models, folders) for step in steps]
    return [*(Step(model.path) for model in models.values()), *answers]


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
        settings, limit = question.settings_for(analysis), effective_limit(question.limit, data.split(question.split))
        steps = []
        for model in (models[key] for key in question.models):
            path = file_path(folders.analyses, analysis, model.path.stem, model.job, question.split, settings, limit)
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
            preset(study.recipe, study.dataset, architecture=architecture),
            folders.checkpoints,
            device,
            study.images,
            deadline,
            overwrite=overwrite,
        )
        for architecture, variant, seed in study.models
    ]


def question_tasks(
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
    return analysis_tasks(question.analysis, [subject], folders, settings, readers, **common)


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
        files = {step.file.name: step.file for step in plan(study)}
        names_only = {resolve(name, files.values(), "file of this study").name for name in names_only}
        for name in names_only - files.keys():
            raise unknown("file of this study", name, files)
    trainings = train_tasks(study, folders, device, deadline, overwrite=overwrite)
    do_all([task for task in trainings if names_only is None or task.name in names_only], device, say)
    pairs = question_tasks(study, folders, names_only, device=device, deadline=deadline, overwrite=overwrite)
    do_all([task for _, tasks in pairs for task in tasks], device, say)
    return [(question, [task.work().path for task in tasks]) for question, tasks in pairs]
