"""What the paper reports and claims, as data.

Liu & JaJa, Feature prioritization and regularization improve standard accuracy and adversarial robustness (2018).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

TITLE = "Feature prioritization and regularization improve standard accuracy and adversarial robustness"
AUTHORS = "Liu & JaJa, 2018"

# Percent on CIFAR-10, the narrow network, images of the test set.
TABLE_2 = {
    "natural": {"at": 80.79, "at-reg": 79.52, "at-att": 82.75, "at-att-reg": 81.21},
    "PGD-20": {"at": 39.72, "at-reg": 44.25, "at-att": 41.39, "at-att-reg": 44.58},
}
TABLE_4 = {
    "with clipping": {"at": 26.78, "at-att-reg": 30.32},
    "without clipping": {"at": 28.72, "at-att-reg": 31.59},
}


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper that can be tested.

    Attributes:
        name: what this toolkit calls it.
        statement: what is tested of it, in one line.
        quote, where: the paper's own words, and where they stand.
        analysis: what has to be measured.
        variants: the models it is about; where it compares, the second is what the first is compared with.
        compares: whether it compares.
        reported: the paper's numbers in percent, a row of a table at a time, by variant.
    """

    name: str
    statement: str
    quote: str
    where: str
    analysis: str
    variants: tuple[str, ...]
    compares: bool = True
    reported: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


CLAIMS = (
    Claim(
        "attention-accuracy",
        "With attention, an adversarially trained model is more accurate on natural images.",
        "attention contributes to both standard and adversarial accuracy",
        "Section 4.2, Table 2",
        "robustness",
        ("at-att", "at"),
        reported={"natural": TABLE_2["natural"]},
    ),
    Claim(
        "attention-robustness",
        "With attention, it is more accurate under a white-box attack.",
        "attention contributes to both standard and adversarial accuracy",
        "Section 4.2, Table 2",
        "robustness",
        ("at-att", "at"),
        reported={"PGD-20": TABLE_2["PGD-20"]},
    ),
    Claim(
        "regularization-robustness",
        "With the regularizer, it is more accurate under a white-box attack.",
        "the feature regularization method provides a significant improvement on white box robustness",
        "Section 4.2, Table 2",
        "robustness",
        ("at-reg", "at"),
        reported={"PGD-20": TABLE_2["PGD-20"]},
    ),
    Claim(
        "both-robustness",
        "With both, it is more accurate under a white-box attack.",
        "all of the three proposed models have better adversarial robustness over the baseline model",
        "Section 4.2, Table 2",
        "robustness",
        ("at-att-reg", "at"),
        reported={"PGD-20": TABLE_2["PGD-20"]},
    ),
    Claim(
        "robust-features",
        "Over the positions of an image, attention grows with the robustness of the local feature.",
        "assigns larger weights to more robust features and less weights to non-robust features",
        "Section 4.3, Figure 2",
        "attention-rank",
        ("at-att", "at-att-reg"),
        compares=False,
    ),
    Claim(
        "robust-features-matter",
        "Without its more robust local features a model loses more than without as many at random.",
        "our model depends on features that are very closely correlated with the robust features",
        "Section 4.4",
        "feature-deletion",
        ("at-att", "at-att-reg"),
        compares=False,
    ),
    Claim(
        "attention-on-object",
        "More attention lies on the object than the object's area would give.",
        "The attention maps focus sharply on the objects in the images",
        "Section 4.3, Figure 3",
        "localisation",
        ("at-att", "at-att-reg"),
        compares=False,
    ),
    Claim(
        "gradmap-score",
        "Natural networks classify the gradient maps of at-att-reg more accurately than those of at.",
        "the gradient maps from our model express significantly better alignment with the original images",
        "Section 4.4, Table 4",
        "gradmap-score",
        ("at-att-reg", "at"),
        reported=TABLE_4,
    ),
    Claim(
        "alignment",
        "Gradient maps of at-att-reg follow the edges of the image more closely than those of at.",
        "the gradient maps generated from our model align better with the salient data characteristics",
        "Section 4.4, Figure 4",
        "alignment",
        ("at-att-reg", "at"),
    ),
    Claim(
        "cleaner-backgrounds",
        "More of the gradient of at-att-reg lies on the object.",
        "our gradient maps have cleaner backgrounds and the gradients only focus on the objects",
        "Section 4.4, Figure 4",
        "localisation",
        ("at-att-reg", "at"),
    ),
)
