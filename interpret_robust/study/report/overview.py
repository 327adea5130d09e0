"""The first screen of a report: which pictures matter most, and what of its numbers can be trusted."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, get_args

from interpret_robust.core.parsing import format_count
from interpret_robust.models.variants import is_external
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import label
from interpret_robust.study import flags
from interpret_robust.study.verdicts import Finding, Verdict

PICTURES = ("robustness", "attention-rank", "gradmap-score", "masking", "gradient-maps", "alignment")
"""Analyses in the order in which their pictures are worth a first look: the paper's three findings, then the rest."""

MOST_PICTURES = 3

PLURAL = (("does not hold", "do not hold"), ("holds", "hold"))
"""Words of a verdict on one claim, and on several."""

PAPER_NETWORKS = ("narrow", "wide3")
SEEDS_WANTED = 3

MOST_NAMES = 3
"""Models that a remark names one by one."""


class Pill(NamedTuple):
    """Claims of one verdict, in one wording, and how many they are."""

    verdict: Verdict
    text: str
    findings: list[Finding]


def make_pills(findings: Sequence[Finding]) -> list[Pill]:
    """Return the findings by their wording, in the order of verdicts."""
    in_order = sorted(findings, key=lambda finding: get_args(Verdict).index(finding.verdict))
    groups: dict[str, list[Finding]] = {}
    for finding in in_order:
        groups.setdefault(finding.wording, []).append(finding)
    return [Pill(group[0].verdict, _count(wording, len(group)), group) for wording, group in groups.items()]


def _count(wording: str, count: int) -> str:
    """Return text such as `1 holds in this seed` or `4 hold in this seed`."""
    for of_one, of_several in PLURAL if count > 1 else ():
        wording = wording.replace(of_one, of_several)
    return f"{count} {wording}"


class Remark(NamedTuple):
    """A sentence on what the numbers rest on, and whether it speaks for them."""

    text: str
    is_good: bool


def choose_pictures(pictures: Mapping[str, Collection[Path]], results: Sequence[Result]) -> list[Path]:
    """Return a picture of each of the first analyses that have one: that of the most models, then of the most images,
    then of the fewest settings, by its name.

    Pictures of the dataset with which `results` begin come before all others.
    """
    first, by_name = results[0].data["dataset"], {result.path.name: result for result in results}

    def is_of_another(path: Path) -> bool:
        return all(result.data["dataset"] != first for result in sources_of(path))

    def sources_of(path: Path) -> list[Result]:
        inputs = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["inputs"]
        return [by_name[name] for name in inputs]

    def place(path: Path) -> tuple[bool, int, int, int]:
        sources = sources_of(path)
        models = {result.model_id for result in sources}
        return is_of_another(path), -len(models), -min(result.data["images"] for result in sources), len(path.stem)

    best = [min(pictures[name], key=place) for name in PICTURES if pictures.get(name)]
    return sorted(best, key=is_of_another)[:MOST_PICTURES]


def list_remarks(results: Sequence[Result]) -> list[Remark]:
    """Return what a reader should know before trusting the numbers, in sentences."""
    return [
        *_remark_on_doubts(results),
        *_remark_on_seeds(results),
        *_remark_on_flags(results),
        *_remark_on_networks(results),
    ]


def _remark_on_seeds(results: Sequence[Result]) -> Iterator[Remark]:
    """Say on how many training seeds the intervals rest."""
    seeds: dict[tuple[str, str, str], dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for result in results:
        job = result.job
        if job["seed"] is not None:
            seeds[job["dataset"], job["architecture"], job["variant"]][result.analysis].add(job["seed"])
    if not seeds:
        return
    alone = sorted(group for group, by_analysis in seeds.items() if len(set().union(*by_analysis.values())) == 1)
    if alone:
        kinds = {kind: [group[2] for group in alone if group[:2] == kind] for kind in (group[:2] for group in alone)}
        names = "; ".join(f"{', '.join(variants)} ({', '.join(kind)})" for kind, variants in kinds.items())
        yield Remark(
            f"Trained with only one seed: {names}. Their intervals are over images, and do not say what another seed "
            "would give.",
            is_good=False,
        )
    rest = [by_analysis for group, by_analysis in seeds.items() if group not in alone]
    asked_once = sorted({name for by_analysis in rest for name, of_one in by_analysis.items() if len(of_one) == 1})
    if asked_once:
        yield Remark(
            f"Of some models only one seed was asked in {', '.join(asked_once)}: those intervals are over images.",
            is_good=False,
        )
    if not alone and not asked_once:
        fewest = min(len(of_one) for by_analysis in rest for of_one in by_analysis.values())
        advice = "" if fewest >= SEEDS_WANTED else "; with two, they miss the truth in up to 13 % of studies"
        text = f"Every variant has {fewest} or more seeds: intervals are over seeds and images{advice}."
        yield Remark(text, is_good=fewest >= SEEDS_WANTED)


def _remark_on_flags(results: Sequence[Result]) -> Iterator[Remark]:
    """Say which models show signs of hidden gradients, which would make an attack look weaker than it is."""
    model_flags = flags.collect_flags(results)
    looked_at = sum(map(len, model_flags.values()))
    ids = {model: [flag.id for flag in model_checks if flag.is_raised] for model, model_checks in model_flags.items()}
    phrases = [f"{model} ({', '.join(dict.fromkeys(names))})" for model, names in ids.items() if names]
    if phrases:
        yield Remark(f"Signs of hidden gradients: {'; '.join(phrases)}. docs/flags.md explains each.", is_good=False)
    elif looked_at:
        models = format_count(sum(map(bool, model_flags.values())), "model")
        yield Remark(f"No sign of hidden gradients: {format_count(looked_at, 'check')} of {models}.", is_good=True)
        unknown = [model for model, model_checks in model_flags.items() if not model_checks]
        if unknown:
            names = (
                f"{len(unknown)} models, {unknown[0]} among them" if len(unknown) > MOST_NAMES else ", ".join(unknown)
            )
            yield Remark(f"Not checked for hidden gradients: {names}.", is_good=False)
    else:
        yield Remark(
            "These files do not show whether models hide their gradients: run `irt evaluate` with all its attacks, and "
            "`irt analyze masking`.",
            is_good=False,
        )


def _remark_on_networks(results: Sequence[Result]) -> Iterator[Remark]:
    """Say which networks are not the paper's."""
    architectures = sorted(
        {
            training["architecture"]
            for training in (result.job for result in results)
            if not is_external(training) and training["architecture"] not in PAPER_NETWORKS
        }
    )
    if architectures:
        yield Remark(
            f"The paper's network is `narrow`. Models of {' and '.join(f'`{name}`' for name in architectures)} are "
            "others: compare only the signs of their differences with the paper, not accuracies.",
            is_good=False,
        )


def _remark_on_doubts(results: Sequence[Result]) -> Iterator[Remark]:
    """Repeat what was doubtful about a model, or about one that reads its maps, when it was loaded."""
    for text in dict.fromkeys(_with_model(result, doubt) for result in results for doubt in result.doubts):
        yield Remark(f"In doubt: {text}", is_good=False)


def _with_model(result: Result, doubt: str) -> str:
    """Return a doubt behind the name of its model, unless it begins with that, or with that of an evaluator."""
    evaluators = result.config.get("evaluators", {"jobs": {}})["jobs"]
    names = [name for evaluator, model_job in evaluators.items() for name in (evaluator, model_job["variant"])]
    return doubt if doubt.startswith((label(result), *names)) else f"{label(result)}: {doubt}"
