"""The audit of the paper's claims as tables: each verdict with what the paper reports, what was measured, over what."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from textwrap import fill
from typing import NamedTuple

from interpret_robust.core.errors import UserError
from interpret_robust.models.variants import is_external
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import order
from interpret_robust.results.tables import Table, add_captions, measure_line, render
from interpret_robust.study import flags
from interpret_robust.study.paper import Claim
from interpret_robust.study.verdicts import EXPLANATION, Finding, Kind, Measure, judge
from interpret_robust.study.verdicts.needs import needs

NOTE = (
    f"{EXPLANATION} The table has the first of the numbers that decide a claim. 'above, open, below zero' counts these "
    "and the controls: those whose whole interval is above zero, those whose interval holds zero, and those whose "
    "whole interval is below. Differences are taken before rounding. With several training seeds, the interval is over "
    "seeds and images (Student's t); with one seed, over images alone."
)
SIGNS = ("below zero", "open", "above zero")


class Audit(NamedTuple):
    """The claims against the models of one dataset, one architecture and one dataset of training.

    Attributes:
        dataset: whose images were looked at.
        architecture: of the models; empty for those from elsewhere.
        subject: as `cifar10, small`, or `cluttered-digits, small, trained on cluttered-digits-planted`.
        findings: every claim.
        flags: for claims on accuracy, what the flags of hidden gradients say of their models, by the claim's name.
    """

    dataset: str
    architecture: str
    subject: str
    findings: list[Finding]
    flags: Mapping[str, str]

    @property
    def bears_on_claims(self) -> bool:
        """Return whether anything was measured of any claim."""
        return any(finding.measures for finding in self.findings)

    def needs(self, claim: Claim) -> str:
        """Return what a claim that is not tested needs."""
        return needs(claim, self.dataset, self.architecture)


def audit_results(results: Sequence[Result]) -> list[Audit]:
    """Return one for each set of models of which something bears on a claim; where nothing does, the first of them.

    Raises UserError for two files that say different things of one model.
    """
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(_subject(result), []).append(result)
    subject_audits = [_audit_subject(subject, group, results) for subject, group in groups.items()]
    return [entry for entry in subject_audits if entry.bears_on_claims] or subject_audits[:1]


def _audit_subject(subject: str, group: Sequence[Result], results: Sequence[Result]) -> Audit:
    """Return the audit of a group of files, beside those among `results` of networks of another width."""
    first = group[0]
    rest = [entry for entry in results if _is_of_other_width(entry, first)]
    findings = judge(group, rest)
    flags_by_claim = _flags(findings, group, rest)
    return Audit(first.config["data"]["dataset"], first.job.get("architecture", ""), subject, findings, flags_by_claim)


def _is_of_other_width(reference: Result, result: Result) -> bool:
    """Return whether two files are of the same images and data of training, but of other architectures of ours."""
    jobs = reference.job, result.job
    return (
        not any(is_external(model_job) for model_job in jobs)
        and jobs[0]["architecture"] != jobs[1]["architecture"]
        and jobs[0]["dataset"] == jobs[1]["dataset"]
        and reference.config["data"]["dataset"] == result.config["data"]["dataset"]
    )


def _subject(result: Result) -> str:
    dataset, training = result.config["data"]["dataset"], result.job
    trained_elsewhere = f", trained on {training['dataset']}" if training["dataset"] != dataset else ""
    kind = "models from elsewhere" if is_external(training) else training["architecture"]
    return f"{dataset}, {kind}{trained_elsewhere}"


def _flags(findings: Sequence[Finding], group: Sequence[Result], rest: Sequence[Result]) -> dict[str, str]:
    """Return what `_count_raised` says of each claim on accuracy that something bears on.

    Measures name a model by its variant; the claim on width, which is about `rest` too, by its architecture as well.
    """
    flags_by_model = flags.collect_flags([*group, *rest])
    by_seed: dict[tuple[str, int], Sequence[flags.Flag]] = {}
    for result in sorted([*group, *rest], key=order):
        variant, architecture = result.job["variant"], result.job.get("architecture")
        if result.model_name in flags_by_model:
            names = [variant] if architecture == group[0].job.get("architecture") else []
            for name in (*names, f"{variant} {architecture}"):
                by_seed[name, result.job["seed"]] = flags_by_model[result.model_name]
    accuracies = [finding for finding in findings if finding.claim.analysis == "robustness" and finding.measures]
    return {finding.claim.name: _count_raised(finding, by_seed) for finding in accuracies}


def _count_raised(finding: Finding, by_seed: Mapping[tuple[str, int], Sequence[flags.Flag]]) -> str:
    """Return text such as `at-att seed 0: many-steps`, or `none of 3`, the number that the files let one look at
    for every model; nothing where they let one look at none.
    """
    compared_models = {
        (model, seed) for measure in finding.measures for model in measure.models for seed in measure.seeds
    }
    concerned_flags = {model: model_flags for model, model_flags in by_seed.items() if model in compared_models}
    raised_ids = {
        model: dict.fromkeys(flag.id for flag in model_flags if flag.is_raised)
        for model, model_flags in concerned_flags.items()
    }
    if not concerned_flags:
        return ""
    phrases = [f"{variant} seed {seed}: {', '.join(ids)}" for (variant, seed), ids in raised_ids.items() if ids]
    fewest = min(len({flag.id for flag in model_flags}) for model_flags in concerned_flags.values())
    return "; ".join(phrases) or (f"none of {fewest}" if fewest else "")


def render_audits(results: Sequence[Result], form: str = "text", *, details: bool = False) -> str:
    """Return the audit in one of `tables.FORMS`; as text with all measures only where `details` are wanted.

    Raises UserError as `audit_results` does, and as text where no file bears on a claim.
    """
    subject_audits = audit_results(results)
    if form == "csv":
        return render([row for entry in subject_audits for row in list_numbers(entry)], form)
    if form == "text":
        if not any(finding.measures for entry in subject_audits for finding in entry.findings):
            files = "this file does" if len(results) == 1 else f"these {len(results)} files do"
            raise UserError(
                f"The paper's claims compare models, and {files} not suffice for any: `irt reproduce audit` makes "
                "all that they need."
            )
        gap, note = ("\n\n", NOTE) if details else ("\n", BRIEF_NOTE)
        return gap.join(["\n\n".join(summarize_audit(entry, details=details) for entry in subject_audits), _fill(note)])
    tables = (
        table for entry in subject_audits for table in (tabulate_verdicts(entry), tabulate_measures(entry)) if table
    )
    return add_captions(tables, form)


def summarize_audit(audit: Audit, *, details: bool = False) -> str:
    """Return the claims with their verdicts: a line for the claim and one for its first measure, with `details` all."""
    firsts = [measure for finding in audit.findings for measure in finding.measures_of("main")[:1]]
    usual = Counter(map(_condition, firsts)).most_common(1)[0][0] if firsts else ""
    title = f"{audit.subject}{usual and f' ({usual}, unless a line names others)'}"
    describe = _details if details else _brief
    blocks = [list(describe(finding, audit.flags.get(finding.claim.name, ""), usual)) for finding in audit.findings]
    return ("\n\n" if details else "\n").join([_fill(title), *("\n".join(map(_fill, lines)) for lines in blocks)])


BRIEF_NOTE = (
    f"{EXPLANATION} Of the numbers that decide a claim, the first is shown; if it alone would give another verdict, "
    "the number that prevents this stands after `but`. `irt audit --details` prints all numbers; see docs/choices.md."
)
ROLES: Mapping[Kind, str] = {"main": "decides", "control": "control", "further": "shown"}


def _fill(line: str) -> str:
    return fill(line, measure_line(), subsequent_indent="    " * line.startswith("  "), break_on_hyphens=False)


def _brief(finding: Finding, raised_flags: str, usual: str) -> Iterator[str]:
    """Yield the verdict on a claim, its first measure, what speaks against that, and flags that are raised."""
    yield f"{finding.wording}: {finding.claim.statement}"
    for measure in finding.measures_of("main")[:1]:
        yield f"  {_estimate(measure, usual)}"
        yield from _objection(finding, measure, usual)
        if finding.missing_models and finding.verdict != "cannot tell" and not finding.claim.superlative:
            yield f"  not measured: {', '.join(finding.missing_models)}"
        if raised_flags and not raised_flags.startswith("none of"):
            yield f"  flags raised: {raised_flags}"


def _objection(finding: Finding, first: Measure, usual: str) -> Iterator[str]:
    """Yield what decides the verdict where the first measure is clear and says otherwise: another, or the p-value."""
    if finding.objection is not None:
        role = "control: " if finding.objection.kind == "control" else ""
        yield f"  but {role}{_estimate(finding.objection, usual)}"
    elif finding.verdict == "cannot tell" and first.sign and finding.gaps and finding.claim.superlative:
        yield f"  but nothing is measured of {' or of '.join(finding.gaps)}"
    elif finding.verdict == "cannot tell" and first.sign and finding.p_value is not None:
        yield f"  but p is {finding.p_value:.2g}, corrected {finding.correction}"


def _details(finding: Finding, raised_flags: str, usual: str) -> Iterator[str]:
    """Yield the verdict on a claim, what the paper reports, each measure and whether it decides, and flags."""
    row = _verdict(finding, raised_flags)
    p_value = f", p {row['p (corrected)']}" if row["p (corrected)"] else ""
    yield f"{finding.wording}: {finding.claim.statement} ({finding.claim.section}{p_value})"
    yield from (f"  {name}: {row[name]}" for name in ("paper", "ours", "flags raised") if row[name])
    for measure in finding.measures:
        yield f"  {ROLES[measure.kind]}, {SIGNS[measure.sign + 1]}: {_estimate(measure, usual)}"


def _estimate(measure: Measure, usual: str) -> str:
    """Return a measure with its interval, and of what it is; seeds and images where they are not the usual ones."""
    condition = _condition(measure)
    rest = "" if condition == usual else f" ({condition})"
    return f"{measure.text()}  {measure.comparison}, {measure.quantity}{rest}"


def _condition(measure: Measure) -> str:
    """Return text such as `seeds 0, 1; 1000 test images`."""
    seeds = f"seed{'s' * (len(measure.seeds) > 1)} {', '.join(map(str, measure.seeds))}"
    return f"{seeds}; {measure.images_text}"


def tabulate_verdicts(audit: Audit) -> Table:
    """Return a row for each claim: its first measure beside the paper's figures, and what became of all that decide."""
    return Table(
        [_verdict(finding, audit.flags.get(finding.claim.name, "")) for finding in audit.findings], audit.subject, NOTE
    )


def _verdict(finding: Finding, raised_flags: str) -> dict[str, str]:
    first = next(iter(finding.measures_of("main")), None)
    signs = [measure.sign for measure in finding.measures_of("main", "control")]
    return {
        "section": finding.claim.section.removeprefix("Section "),
        "claim": finding.claim.statement,
        "paper": first.paper if first else finding.paper,
        "measured": first.quantity if first else "",
        "ours": first.our_figures if first else "",
        "first measure [95 %]": first.text() if first else "",
        "seeds; images": _seeds_and_images(first) if first else "",
        "above, open, below zero": ", ".join(str(signs.count(sign)) for sign in (1, 0, -1)) if first else "",
        "p (corrected)": "" if finding.corrected_p is None else f"{finding.corrected_p:.2g}",
        "verdict": finding.wording,
        "flags raised": raised_flags,
    }


def tabulate_measures(audit: Audit) -> Table:
    """Return all that was measured: what decides, the controls, and what is only shown."""
    rows = [
        {
            "claim": finding.claim.statement,
            "measure": measure.quantity,
            "of": measure.comparison,
            "estimate [95 %]": measure.text(),
            "seeds; images": _seeds_and_images(measure),
            "kind": measure.kind,
            "sign": SIGNS[measure.sign + 1],
        }
        for finding in audit.findings
        for measure in finding.measures
    ]
    return Table(rows, f"{audit.subject}: all measures", "A claim holds only if what decides it and its controls do.")


def _seeds_and_images(measure: Measure) -> str:
    """Return text such as `0, 1, 2; 1000`."""
    return f"{', '.join(map(str, measure.seeds))}; {measure.count}"


def list_numbers(audit: Audit) -> list[dict[str, str]]:
    """Return a row for each measure, and for each claim that has none; shares and their differences in percent."""
    rows = []
    for finding in audit.findings:
        claim = finding.claim
        whole = {
            "subject": audit.subject,
            "claim": claim.name,
            "section": claim.section.removeprefix("Section "),
            "verdict": finding.verdict,
            "not_measured": ", ".join(finding.gaps) if finding.measures else "",
            "p_holm": _number(finding.corrected_p),
        }
        rows += [{**whole, **_numbers(measure)} for measure in finding.measures] or [whole]
    columns = (
        "subject,claim,section,measure,models,kind,unit,paper_first,paper_second,ours_first,ours_second,estimate,low,high,"
        "p_value,p_holm,seeds,images,verdict,not_measured,files"
    )
    return [{name: row.get(name, "") for name in columns.split(",")} for row in rows]


def _numbers(measure: Measure) -> dict[str, str]:
    scale = 100 if measure.percent else 1
    pairs = {"paper": measure.paper_figures, "ours": [scale * level for level in measure.levels]}
    figures = {
        f"{owner}_{place}": _number(value)
        for owner, pair in pairs.items()
        for place, value in zip(("first", "second"), pair, strict=False)
    }
    return {
        "measure": measure.quantity,
        "models": measure.comparison,
        "kind": measure.kind,
        "unit": "percent" if measure.percent else "",
        **figures,
        "estimate": _number(scale * measure.estimate.value),
        "low": _number(scale * measure.estimate.low),
        "high": _number(scale * measure.estimate.high),
        "p_value": _number(measure.p_value),
        "seeds": " ".join(map(str, measure.seeds)),
        "images": " ".join(map(str, measure.images)),
        "files": " ".join(measure.files),
    }


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.6g}"
