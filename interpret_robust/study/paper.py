"""What the paper claims, as data: sentences that can be tested, and the numbers that it gives for them.

Liu & JaJa, Feature prioritization and regularization improve standard accuracy and adversarial robustness (2018).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from interpret_robust.results.attack_outcomes import HEADLINES
from interpret_robust.results.paper_numbers import find_row

TITLE = "Feature prioritization and regularization improve standard accuracy and adversarial robustness"
AUTHORS = "Liu & JaJa, 2018"

Row = Mapping[str, float]
"""A row of a table: percent by variant."""

ON_MNIST = "Section 4.1"


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper that can be tested.

    Attributes:
        name: what this toolkit calls it.
        statement: what is tested of it, in one line.
        quote, where: the paper's own words, and where they stand, the section first.
        analysis: what has to be measured.
        models: what it is about: single variants, or pairs of which the second is what the first is compared with.
        settings: the rows of the paper's tables that it is about, as `paper_numbers.csv` calls them.
        table: the table that has these rows; empty where that depends on the dataset.
        superlative: whether it calls a model the best, which a single better one refutes.
        range: the smallest and the largest weight of the regularizer that it is about; none for other claims.
        widths: whether it compares each model with the same of a network three times as wide.
    """

    name: str
    statement: str
    quote: str
    where: str
    analysis: str
    models: tuple[tuple[str, ...], ...]
    settings: tuple[str, ...] = ()
    table: str = ""
    superlative: bool = False
    range: tuple[float, ...] = ()
    widths: bool = False

    @property
    def section(self) -> str:
        """Return text such as `Section 4.2`: the claims of one section are a family of tests."""
        return self.where.partition(",")[0]

    @property
    def compares(self) -> bool:
        """Return whether it compares models."""
        return len(self.models[0]) > 1

    @property
    def variants(self) -> tuple[str, ...]:
        """Return all variants that it is about."""
        return tuple(dict.fromkeys(variant for models in self.models for variant in models))

    def is_about(self, dataset: str) -> bool:
        """Return whether it can be tested on a dataset.

        The paper tells MNIST, in a section of its own, from all others.
        """
        return (dataset == "mnist") == (self.section == ON_MNIST)


def find_claim_row(table: str, setting: str, reading: str = HEADLINES[0], *, headline: bool = True) -> Row:
    """Return a row of a table; under attack that of a reading, such as `PGD-20`. Empty where the paper has none.

    Table 1 does not tell the number of its steps: it stands beside the reading that is the `headline`.
    """
    if setting not in ("white-box", "black-box"):
        return find_row(table, setting)
    attack, _, steps = reading.lower().rpartition("-")
    return find_row(table, setting, attack, int(steps)) or (find_row(table, setting, attack, None) if headline else {})


WITH_REGULARIZATION = (("at-reg", "at"), ("at-att-reg", "at-att"))
WITH_ATTENTION = (("at-att", "at"), ("at-att-reg", "at-reg"))
ATTENTIVE = (("at-att",), ("at-att-reg",))
FULL_MODEL = (("at-att-reg", "at"),)

CLAIMS = (
    Claim(
        "mnist-regularization",
        "MNIST gains from feature regularization too",
        "a model trained with the proposed feature regularization method is significantly more robust",
        "Section 4.1, Table 1",
        "robustness",
        (("at-reg", "at"),),
        ("white-box", "black-box"),
        "table1",
    ),
    Claim(
        "mnist-lambda-range",
        "on MNIST any lambda from 0.001 to 0.05 helps",
        "roughly any lambda in [0.001, 0.05] works well",
        "Section 4.1",
        "robustness",
        (("at-reg", "at"),),
        range=(0.001, 0.05),
    ),
    Claim(
        "regularization-robustness",
        "feature regularization raises white-box accuracy",
        "the feature regularization method provides a significant improvement on white box robustness",
        "Section 4.2, Table 2",
        "robustness",
        WITH_REGULARIZATION,
        ("white-box",),
    ),
    Claim(
        "regularization-cost",
        "regularization costs natural and black-box accuracy",
        "with a cost of standard accuracy and a slight decline of black box accuracy",
        "Section 4.2, Table 2",
        "robustness",
        tuple((baseline, variant) for variant, baseline in WITH_REGULARIZATION),
        ("natural", "black-box"),
    ),
    Claim(
        "lambda-range",
        "any lambda from 0.01 to 0.1 helps",
        "we find that roughly any lambda in [0.01, 0.1] works well for feature regularization",
        "Section 4.2",
        "robustness",
        WITH_REGULARIZATION,
        range=(0.01, 0.1),
    ),
    Claim(
        "wide-robustness",
        "the wide network is less accurate under white-box attack than the narrow one",
        "the white box accuracy of the 3-times wide models are lower than the narrow models",
        "Section 4.2, Tables 2 and 3",
        "robustness",
        (("at",), ("at-reg",), ("at-att",), ("at-att-reg",)),
        widths=True,
    ),
    Claim(
        "attention-accuracy",
        "attention raises natural accuracy",
        "attention contributes to both standard and adversarial accuracy",
        "Section 4.2, Table 2",
        "robustness",
        WITH_ATTENTION,
        ("natural",),
    ),
    Claim(
        "attention-robustness",
        "attention raises white-box accuracy",
        "attention contributes to both standard and adversarial accuracy",
        "Section 4.2, Table 2",
        "robustness",
        WITH_ATTENTION,
        ("white-box",),
    ),
    Claim(
        "both-robustness",
        "both together are best under white-box attack",
        "feature prioritization and regularization, which significantly outperforms adversarial training",
        "Section 4.2, Table 2 and Section 1",
        "robustness",
        (("at-att-reg", "at"), ("at-att-reg", "at-reg"), ("at-att-reg", "at-att")),
        ("white-box",),
        superlative=True,
    ),
    Claim(
        "nonlinear-attention",
        "nonlinear attention beats linear on natural training",
        "the accuracy is 92.87% for our attention and 91.34% for the linear attention model",
        "Section 4.3",
        "robustness",
        (("natural-att", "natural-linear-att"),),
        ("natural",),
        "section4.3",
    ),
    Claim(
        "robust-features",
        "more attention goes to more robust features",
        "assigns larger weights to more robust features and less weights to non-robust features",
        "Section 4.3, Figure 2",
        "attention-rank",
        ATTENTIVE,
    ),
    Claim(
        "attention-on-object",
        "attention sits on the object",
        "The attention maps focus sharply on the objects in the images",
        "Section 4.3, Figure 3",
        "localization",
        ATTENTIVE,
    ),
    Claim(
        "robust-features-matter",
        "the model depends on its robust features",
        "our model depends on features that are very closely correlated with the robust features",
        "Section 4.4",
        "feature-deletion",
        ATTENTIVE,
    ),
    Claim(
        "gradmap-score",
        "gradient maps of the full model are read more often",
        "the gradient maps from our model express significantly better alignment with the original images",
        "Section 4.4, Table 4",
        "gradmap-score",
        FULL_MODEL,
        ("gradmap-score-clipped-test", "gradmap-score-raw-test"),
        "table4",
    ),
    Claim(
        "alignment",
        "gradient maps of the full model follow edges better",
        "the gradient maps generated from our model align better with the salient data characteristics",
        "Section 4.4, Figure 4",
        "alignment",
        FULL_MODEL,
    ),
    Claim(
        "cleaner-backgrounds",
        "more of the full model's gradient lies on the object",
        "our gradient maps have cleaner backgrounds and the gradients only focus on the objects",
        "Section 4.4, Figure 4",
        "localization",
        FULL_MODEL,
    ),
)
