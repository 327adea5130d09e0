"""Claims on accuracy: natural, white-box and black-box, image by image."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import NamedTuple

from interpret_robust.core.arrays import AnyArray
from interpret_robust.results.attack_outcomes import (
    choose_fullest,
    choose_headline,
    find_right,
    find_right_in_worst_case,
    list_readings,
    list_targets,
)
from interpret_robust.results.attack_tables import list_paper_sources
from interpret_robust.results.hdf5 import Result
from interpret_robust.study.paper import Claim, Row, find_claim_row
from interpret_robust.study.verdicts.measure import Kind
from interpret_robust.study.verdicts.sample import (
    Sample,
    average_rates,
    describe_conditions,
    label_reading,
    pair_files,
    sample,
)


def accuracy(claim: Claim, models: tuple[str, ...], results: Sequence[Result]) -> Iterator[Sample]:
    """Yield accuracies on test images, in each setting that the claim is about."""
    test_results = [result for result in results if result.config["data"]["split"] == "test"]
    for setting in claim.settings:
        yield from _ACCURACIES[setting](claim, models, test_results)


def _natural(claim: Claim, models: tuple[str, ...], results: Sequence[Result]) -> Iterator[Sample]:
    for pair in pair_files(claim, models, results):
        values = [find_right(result, None) for result in pair]
        table_row = find_paper_row(claim, pair[0], "natural")
        yield sample("natural accuracy", pair, values, percent=True, row=table_row, setting="natural")


def _white_box(claim: Claim, models: tuple[str, ...], results: Sequence[Result]) -> Iterator[Sample]:
    """Yield the headline's reading and every image's worst case decide; the other readings are shown.

    The worst case is of the attacks that files of every seed have, so that seeds are averaged over the same attacks.
    """
    setting = "white-box"
    pairs = list(pair_files(claim, models, choose_fullest(results, with_copies=False)))
    for pair in pairs:
        common = group_by_weight(pair)
        for reading, kind in common:
            values = [find_right(result, reading) for result in pair]
            table_row = find_paper_row(claim, pair[0], setting, reading, headline=kind == "main")
            quantity = f"accuracy, {label_reading(reading, pair[0])}"
            yield sample(quantity, pair, values, percent=True, kind=kind, row=table_row, setting=setting)
        names = sorted(_list_readings_of_all_seeds(pair, pairs))
        if len(names) > 1:
            values = [find_right_in_worst_case(result, subset=names) for result in pair]
            quantity = f"accuracy, each image's worst of {', '.join(names)}"
            yield sample(quantity, pair, values, percent=True, setting=setting)


def _list_readings_of_all_seeds(pair: tuple[Result, ...], pairs: Sequence[tuple[Result, ...]]) -> set[str]:
    """Return the readings that the files of a pair share and that pairs of each other seed, in its conditions, have."""
    readings_by_seed: dict[int, set[str]] = {}
    for other in pairs:
        if describe_conditions(other[0]) == describe_conditions(pair[0]):
            seed = other[0].job["seed"]
            readings_by_seed.setdefault(seed, set()).update(reading for reading, _ in group_by_weight(other))
    return {reading for reading, _ in group_by_weight(pair)}.intersection(*readings_by_seed.values())


class _Transfer(NamedTuple):
    """What copies of one seed answered to attacks on models of another, `sources`: which images (N,) are right."""

    sources: tuple[Result, ...]
    right: tuple[AnyArray, ...]
    kind: Kind


def _black_box(claim: Claim, models: tuple[str, ...], results: Sequence[Result]) -> Iterator[Sample]:
    """Yield the accuracy on what was made on a model's copies, without a worst case.

    An attack has a seed that it is made on and one that reads it. Both differ from training to training, so that the
    seeds of either kind, averaged over the other, have to agree. What several files say of two seeds counts once. With
    two seeds both kinds are the same transfers, and one of them is yielded.
    """
    groups: dict[tuple[str, str], dict[tuple[int, int], _Transfer]] = {}
    for sources in pair_files(claim, models, results):
        copies, made_on = [_copies(source) for source in sources], sources[0].job["seed"]
        for (reading, kind), read_by in product(group_by_weight(sources), sorted(set.intersection(*map(set, copies)))):
            answers = [
                find_right(source, reading, copy_places[read_by])
                for source, copy_places in zip(sources, copies, strict=True)
            ]
            group = groups.setdefault((describe_conditions(sources[0]), reading), {})
            group.setdefault((made_on, read_by), _Transfer(sources, tuple(answers), kind))
    for (_, reading), transfers in groups.items():
        roles = {role: _group_by_seed(transfers, place) for place, role in ((1, "attacked"), (0, "attacking"))}
        if sorted(roles["attacked"].values()) == sorted(roles["attacking"].values()):
            del roles["attacking"]
        for role, pairs_by_seed in roles.items():
            for seed, pairs in pairs_by_seed.items():
                yield _transfers(claim, reading, role, seed, [transfers[pair] for pair in pairs])


def _group_by_seed(pairs: Iterable[tuple[int, int]], place: int) -> dict[int, list[tuple[int, int]]]:
    """Return pairs of an attacking and an attacked seed by the one at `place`."""
    groups: dict[int, list[tuple[int, int]]] = {}
    for pair in pairs:
        groups.setdefault(pair[place], []).append(pair)
    return groups


def _transfers(claim: Claim, reading: str, role: str, seed: int, transfers: Sequence[_Transfer]) -> Sample:
    first, kind = transfers[0].sources, transfers[0].kind
    values = [average_rates(outcomes) for outcomes in zip(*(transfer.right for transfer in transfers), strict=True)]
    quantity = f"accuracy, {label_reading(reading, first[0])} on copies, by {role} seed"
    table_row = find_paper_row(claim, first[0], "black-box", reading, headline=kind == "main")
    transfer_sample = sample(quantity, first, values, percent=True, kind=kind, row=table_row, setting="black-box")
    return transfer_sample._replace(
        seed=seed, sources=tuple(source for transfer in transfers for source in transfer.sources)
    )


def group_by_weight(results: Sequence[Result]) -> list[tuple[str, Kind]]:
    """Return the readings that files share and what they are for, the headline's first."""
    common = [item for item in list_readings(results[0]) if all(item in list_readings(result) for result in results)]
    first = choose_headline(common)
    in_order = sorted(common, key=lambda item: item != first)
    return [(reading, "main" if reading == first else "further") for reading in in_order]


def _copies(source: Result) -> dict[int, int]:
    """Return where a model's copies stand among the targets of its attacks, by training seed."""
    jobs: Mapping[str, Mapping[str, object]] = source.config.get("evaluators", {}).get("jobs", {})
    job_of_any_seed = {**source.job, "seed": None}
    return {
        int(str(jobs[name]["seed"])): place
        for place, name in enumerate(list_targets(source))
        if name in jobs and {**jobs[name], "seed": None} == job_of_any_seed
    }


def find_paper_row(claim: Claim, result: Result, *words: str, headline: bool = True) -> Row:
    """Return the paper's row of a setting, and under attack of a reading, that a file's model stands beside."""
    return find_claim_row(claim.table or find_table(result), *words, headline=headline)


def find_table(result: Result) -> str:
    """Return the paper's table of accuracies that a file's model stands beside.

    Table 2 where none is of its dataset.
    """
    sources = list_paper_sources(result.config["data"]["dataset"], result.job["architecture"])
    return next(iter(sources), "table2")


_ACCURACIES = {"natural": _natural, "white-box": _white_box, "black-box": _black_box}
