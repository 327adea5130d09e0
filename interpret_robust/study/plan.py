"""A study: which models to train, and which questions to ask of which of them.

`quick` is the embedded study of one training seed, `cifar10` the reference study. The others each reproduce one part of
the paper, or audit all of its claims, over training seeds 0, 1, ..., at the paper's scale or at one for two cores.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, NamedTuple

from interpret_robust.core.errors import UserError, unknown
from interpret_robust.models import architectures


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
        AUDITED_TABLE,
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
TWO_SEEDS = ("table5", "cifar10")
"""Studies of each model and an independent copy, which the black-box rows of a table need: a third would take hours."""


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
        "table5": Setup("cifar100-sorted", "small", "cifar-quick", None, FIRST),
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


def find_study(name: str, scale: str = "quick", seeds: int | None = None, architecture: str | None = None) -> Study:
    """Return the study called `quick`, or that of a part of the paper over this many training seeds.

    `architecture` takes the place of that of the scale; the recipe stays.

    By default there are three seeds, one for figures, and two for TWO_SEEDS. Raises UserError for an unknown name, and
    for `quick` at another scale or of other seeds.
    """
    if name not in NAMES:
        raise unknown("study", name, NAMES)
    if name == "quick":
        if scale != "quick" or seeds not in (None, 1) or architecture is not None:
            raise UserError("quick has one seed and one scale: use `irt reproduce audit` for other seeds or scales.")
        return QUICK
    number = seeds or (1 if name.startswith("figure") else 2 if name in TWO_SEEDS else 3)
    setup = SCALES[scale].get(name, SCALES[scale]["rest"])
    if architecture is not None:
        if architecture not in architectures.list_names():
            raise unknown("architecture", architecture, architectures.list_names())
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
