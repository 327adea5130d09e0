"""Is AutoAttack ever stronger than our own worst case? The two on the same images of the same model."""

import glob
from typing import NamedTuple

from interpret_robust.core.bootstrap import bootstrap_mean
from interpret_robust.core.errors import UserError
from interpret_robust.core.intervals import Interval, rate
from interpret_robust.core.significance import mcnemar
from interpret_robust.results import hdf5
from interpret_robust.results.attack_outcomes import Outcomes, find_right_in_worst_case
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import find_norm

READS = "robustness/2"


class Comparison(NamedTuple):
    """Outcomes of AutoAttack and of our worst case on the same images.

    Attributes:
        images: how many there are.
        autoattack, our_accuracy: the share that is right under each, with Wilson's interval.
        only_autoattack, only_ours: images that only one of the two breaks.
        difference: our accuracy minus AutoAttack's, with its 95 % bootstrap interval: above zero where AutoAttack
            is the stronger.
        p_value: McNemar's, that the two are equally strong.
    """

    images: int
    autoattack: Interval
    our_accuracy: Interval
    only_autoattack: int
    only_ours: int
    difference: Interval
    p_value: float

    def cells(self) -> dict[str, str]:
        """Return the comparison as cells of a table."""
        return {
            "AutoAttack": self.autoattack.percent(),
            "our worst case": self.our_accuracy.percent(),
            "only AutoAttack breaks": str(self.only_autoattack),
            "only ours breaks": str(self.only_ours),
            "ours minus AutoAttack": self.difference.points(),
            "McNemar p": f"{self.p_value:.2g}",
            "images": str(self.images),
        }


def find_right_under_autoattack(autoattack: Result) -> Outcomes:
    """Return which images (N,) are right after all attacks of a file of AutoAttack."""
    right: Outcomes = autoattack["per_image/prediction"][:, -1] == autoattack["per_image/label"]
    return right


def compare_with_ours(autoattack: Result, robustness: Result) -> Comparison:
    """Return AutoAttack against the worst case of the attack table of the same model.

    The table's file may hold more images of the split. Raises UserError where `are_comparable` says no.
    """
    if not are_comparable(autoattack, robustness):
        raise UserError(
            f"{autoattack.path} and {robustness.path} are not of the same model, images and ball: "
            "evaluate both on the same images and in the same ball."
        )
    their_outcomes = find_right_under_autoattack(autoattack)
    worst_case = find_right_in_worst_case(robustness)[: len(their_outcomes)]
    pair = mcnemar(worst_case, their_outcomes)
    difference = bootstrap_mean(worst_case.astype(float) - their_outcomes)
    return Comparison(
        len(their_outcomes),
        rate(their_outcomes),
        rate(worst_case),
        pair.only_first,
        pair.only_second,
        difference,
        pair.p_value,
    )


def are_comparable(autoattack: Result, robustness: Result) -> bool:
    """Return whether the two are of the same model, ball and split, and the second holds all images of the first."""
    our_config, their_config = robustness.config, autoattack.config
    return bool(
        robustness.model_id == autoattack.model_id
        and robustness.recalibration == autoattack.recalibration
        and our_config["settings"]["eps"] == their_config["settings"]["eps"]
        and find_norm(our_config["settings"]) == find_norm(their_config["settings"])
        and all(our_config["data"][key] == their_config["data"][key] for key in ("dataset", "split"))
        and robustness.count >= autoattack.count
        and (robustness.count > autoattack.count or our_config["data"]["sha256"] == their_config["data"]["sha256"])
        and (robustness["per_image/label"][: autoattack.count] == autoattack["per_image/label"]).all()
    )


def find_ours(autoattack: Result) -> Result | None:
    """Return the attack table that stands comparison, in the same folder.

    The one of most attacks where there are several.
    """
    name = f"robustness-{glob.escape(autoattack.model.name)}-*.h5"
    neighbors = [hdf5.read(path) for path in sorted(autoattack.path.parent.glob(name))]
    matches = [result for result in neighbors if result.schema == READS and are_comparable(autoattack, result)]
    return max(matches, key=lambda result: result["per_image/perturbation"][0].size, default=None)
