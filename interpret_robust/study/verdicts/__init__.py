"""What a study says of each claim of the paper: estimates from per-image columns, and a verdict.

Every estimate is above zero where the claim holds. Where models are compared they have the same training seed and met
the same images under the same settings. Estimates of several training seeds are one, with an interval over seeds and
images; that of a single seed is over images alone, and says nothing of what another seed would give.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from interpret_robust.core.parsing import format_count
from interpret_robust.core.significance import holm
from interpret_robust.results.attack_outcomes import choose_fullest
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import order
from interpret_robust.study.paper import CLAIMS, Claim, find_claim_row
from interpret_robust.study.verdicts.accuracy import find_table
from interpret_robust.study.verdicts.measure import Kind as Kind
from interpret_robust.study.verdicts.measure import Measure as Measure
from interpret_robust.study.verdicts.measure import format_pair, list_figures
from interpret_robust.study.verdicts.sampling import list_measures

Verdict = Literal["holds", "does not hold", "cannot tell", "not tested"]
SIGNIFICANT = 0.05

EXPLANATION = (
    "A number is above zero if it speaks for its claim. A claim holds if all numbers that decide it, and all controls, "
    "are above zero with their whole 95 % intervals. It does not hold if all numbers that decide it are below zero "
    "with their whole intervals. Otherwise the files cannot tell. If there are tests, the largest p also has to be "
    "below 0.05, corrected by Holm's method for the claims of the same section that these files test. Fewer files may "
    "test fewer claims, so p depends on which files are given. A claim that something is the best holds only if all "
    "comparisons are measured; one number below zero is enough against it, with a p below 0.05 after it is multiplied "
    "by how many numbers decide. The paper's figures are for its own data and networks."
)
"""How a verdict is reached, in the words of the audit and of the report."""


@dataclass(frozen=True)
class Finding:
    """A claim and what was measured of it.

    `table` is the paper's table that its models stand beside. `p_value` is the largest of the deciding measures'
    tests, since all have to agree, corrected by Holm over the `family`, the claims of the same section that are tested;
    None where none is tested.
    """

    claim: Claim
    table: str
    measures: tuple[Measure, ...]
    p_value: float | None = None
    family: int = 0

    @property
    def paper(self) -> str:
        """Return the paper's headline figures of the first models that it compares; empty where there are none."""
        models, settings = self.claim.models[0], self.claim.settings
        if not settings:
            return ""
        return format_pair(models, list_figures(models, find_claim_row(self.claim.table or self.table, settings[0])))

    def measures_of(self, *kinds: Kind) -> tuple[Measure, ...]:
        """Return the measures of these kinds."""
        return tuple(measure for measure in self.measures if measure.kind in kinds)

    @property
    def verdict(self) -> Verdict:
        """`holds` where all measures that decide and all controls are above zero, `does not hold` where all are below.

        Both only where the p-value, if there is one, is below SIGNIFICANT. Controls have no say in the second. What is
        said to be the best is refuted by one measure below zero, its p-value times the number of these measures, and
        holds only where it was compared with all others.
        """
        main = self.measures_of("main")
        if not main:
            return "not tested"
        if self._refuting:
            return "does not hold"
        is_uncertain = self.p_value is not None and self.p_value >= SIGNIFICANT
        if is_uncertain or (self.claim.superlative and self.gaps):
            return "cannot tell"
        if all(measure.sign > 0 for measure in self.measures_of("main", "control")):
            return "holds"
        if all(measure.sign < 0 for measure in main):
            return "does not hold"
        return "cannot tell"

    @property
    def missing_models(self) -> tuple[str, ...]:
        """Return the models, or the comparisons such as `at-att-reg minus at-reg`, of which no number decides."""
        variants = [{name.partition(" ")[0] for name in measure.models} for measure in self.measures_of("main")]
        return tuple(" minus ".join(models) for models in self.claim.models if set(models) not in variants)

    @property
    def missing_accuracies(self) -> tuple[str, ...]:
        """Return what no number decides of models that others are there of, such as `black-box accuracy`, or
        `black-box accuracy of at-att minus at-att-reg` where it is there of other models.
        """
        main = self.measures_of("main")
        models = list(dict.fromkeys(measure.models for measure in main))
        pairs = {(measure.models, measure.setting) for measure in main}
        gaps = {setting: [pair for pair in models if (pair, setting) not in pairs] for setting in self.claim.settings}
        return tuple(
            f"{setting} accuracy" + (f" of {' or '.join(map(' minus '.join, rest))}" if len(rest) < len(models) else "")
            for setting, rest in gaps.items()
            if rest
        )

    @property
    def gaps(self) -> tuple[str, ...]:
        """Return of what no number decides: models, comparisons, and accuracies in a setting."""
        return (*self.missing_models, *self.missing_accuracies)

    @property
    def corrected_p(self) -> float | None:
        """Return the p-value behind the verdict: `p_value`, or where one number refutes the best, that number's own
        times how many decide.
        """
        if not self._refuting:
            return self.p_value
        count = len(self.measures_of("main"))
        return min((count * measure.p_value for measure in self._refuting if measure.p_value is not None), default=None)

    @property
    def _refuting(self) -> list[Measure]:
        """Return the deciding measures of which each alone refutes what is said to be the best."""
        main = self.measures_of("main")
        return [measure for measure in main if self.claim.superlative and _is_below(measure, len(main))]

    @property
    def objection(self) -> Measure | None:
        """Return the measure that decides where the first is clear and suggests another verdict; else None.

        It is None too where only the p-value is too large.
        """
        main, controls = self.measures_of("main"), self.measures_of("control")
        if self._refuting and main[0].sign >= 0:
            return self._refuting[0]
        if self.verdict == "cannot tell" and main[0].sign:
            must_agree = (*main, *controls) if main[0].sign > 0 else main
            return next((measure for measure in must_agree if measure.sign != main[0].sign), None)
        return None

    @property
    def decisive_measure(self) -> Measure | None:
        """Return the measure to show beside the verdict: its objection, or the first that decides."""
        return self.objection or next(iter(self.measures_of("main")), None)

    @property
    def basis(self) -> str:
        """Return on what it rests, such as `rests on 1 number; p 0.04: corrected (Holm) over claims of Section 4.1`.

        Where several numbers have tests, the largest p stands there; the text is empty for what is not tested.
        """
        main = self.measures_of("main")
        if not main:
            return ""
        if self._refuting:
            return f"rests on 1 of {len(main)} numbers: one is enough against the best"
        text = f"rests on {format_count(len(main), 'number')}"
        if self.gaps:
            text += f", none of {' or of '.join(self.gaps)}"
        if self.p_value is None:
            return text
        largest = "the largest of theirs, " if len(main) > 1 else ""
        return f"{text}; p {self.p_value:.2g}: {largest}corrected (Holm) {self.correction}"

    @property
    def correction(self) -> str:
        """Return over what the p-value is corrected, such as `over 3 tested claims of Section 4.2`."""
        return f"over {format_count(self.family, 'tested claim')} of {self.claim.section}"

    @property
    def wording(self) -> str:
        """Return the verdict as people read it, such as `holds in this seed` or `holds, for some models`.

        What one seed shows can be the seed's own: another one may say the opposite. Nor do some of the models that a
        claim is about speak for the others.
        """
        if self.verdict not in ("holds", "does not hold"):
            return self.verdict
        seeds = [measure.seeds for measure in self.measures_of("main")]
        text: str = self.verdict
        if len({seed for of_measure in seeds for seed in of_measure}) == 1:
            text += " in this seed"
        elif min(map(len, seeds)) == 1:
            text += ", partly from one seed alone"
        if self.claim.superlative:
            return text
        if self.missing_models:
            text += ", for some models"
        if self.missing_accuracies:
            text += f", {' and '.join(self.missing_accuracies)} not measured"
        return text


def _is_below(measure: Measure, count: int) -> bool:
    return measure.sign < 0 and (measure.p_value is None or count * measure.p_value < SIGNIFICANT)


def _measures(claim: Claim, dataset: str, results: Sequence[Result]) -> tuple[Measure, ...]:
    return list_measures(claim, results) if claim.is_about(dataset) else ()


def judge(results: Sequence[Result], rest: Sequence[Result] = ()) -> list[Finding]:
    """Return every claim, against the files of one dataset, one architecture and one dataset of training.

    `rest` are of other architectures: claims that compare these rest on them too.

    Raises UserError for two files that say different things of one model.
    """
    in_paper_order = sorted(choose_fullest(results), key=order)
    dataset, table = in_paper_order[0].config["data"]["dataset"], find_table(in_paper_order[0])
    all_widths = sorted(choose_fullest([*results, *rest]), key=order)
    findings = [
        Finding(claim, table, _measures(claim, dataset, all_widths if claim.widths else in_paper_order))
        for claim in CLAIMS
    ]
    for section in dict.fromkeys(claim.section for claim in CLAIMS):
        family = {
            place: max(tests)
            for place, finding in enumerate(findings)
            if finding.claim.section == section
            and (tests := [measure.p_value for measure in finding.measures_of("main") if measure.p_value is not None])
        }
        for place, p_value in zip(family, holm(list(family.values())), strict=True):
            findings[place] = replace(findings[place], p_value=p_value, family=len(family))
    return findings
