"""The paper's attack table: every cell again by slow loops over images, the paper's figures, tests of pairs by hand."""

import csv
import re
import statistics
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
from attack_files import READINGS, Model, name_of, random, write_robustness
from scipy import stats

from interpret_robust.analyses import robustness
from interpret_robust.results.attack_comparison import make_comparisons
from interpret_robust.results.attack_outcomes import choose_fullest, find_right_in_worst_case
from interpret_robust.results.attack_tables import attack_tables, list_numbers, list_paper_sources
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import format_radius
from interpret_robust.results.paper_numbers import read_reported

VARIANTS = ("at-att", "at")
SEEDS = (0, 1, 2)


def copies(variant: str, seed: int) -> list[Model]:
    return [(variant, seed), *((variant, other) for other in SEEDS if other != seed)]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    """Two variants of three seeds, each read by its copies."""
    folder = tmp_path_factory.mktemp("study")
    models = [copies(variant, seed) for variant in VARIANTS for seed in SEEDS]
    return [random(folder, model, place) for place, model in enumerate(models)]


def slowly(files: Sequence[Result], variant: str, row: str) -> list[float]:
    """A model's accuracy in percent for each seed, image by image."""
    accuracies = []
    setting, _, attack = row.partition(" ")
    for seed in SEEDS:
        name = name_of((variant, seed))
        shares = []
        for result in files:
            with h5py.File(result.path) as file:
                targets = file["target"].asstr()[()].tolist()
                columns = {column: file[f"per_image/{column}"][()] for column in file["per_image"]}
            is_own = targets[0] == name
            if name not in targets or is_own == (setting == "black-box"):
                continue
            target, hits = targets.index(name), 0
            for image, label in enumerate(columns["label"]):
                answers = [] if attack in READINGS else [columns["prediction_natural"][image, target]]
                for restart in range(2):
                    for place, reading in enumerate(READINGS):
                        if attack in (reading, "worst case"):
                            answers.append(columns["prediction"][image, restart, place, target])
                hits += all(answer == label for answer in answers)
            shares.append(100 * hits / len(columns["label"]))
        assert len(shares) == (2 if setting == "black-box" else 1)
        accuracies.append(sum(shares) / len(shares))
    return accuracies


ROWS = ["natural", *(f"{box}-box {name}" for box in ("white", "black") for name in (*READINGS, "worst case"))]
ATTACKS = (("pgd", "5"), ("pgd", "20"), ("cw", "30"), ("worst-case", ""))
KEYS = [("natural", "none", "0"), *((f"{box}-box", *attack) for box in ("white", "black") for attack in ATTACKS)]
"""What the rows are called in the table, and in its numbers."""


def test_rows_of_apgd_stand_last_and_the_table_says_what_apgd_t_attacks(tmp_path: Path) -> None:
    result = random(tmp_path, [("at", 0)], 0, readings=("PGD-20", "CW-30", "APGD-CE-100", "APGD-T-100"))
    (table,) = make_comparisons([result])
    rows = {row["accuracy, %"]: row["at"] for row in table}
    attacks = ("PGD-20", "CW-30", "APGD-CE-100", "APGD-T-100", "worst case")
    assert list(rows) == ["natural", *(f"white-box {attack}" for attack in attacks)]
    assert rows["white-box APGD-T-100"].startswith(f"{100 * result['accuracy/adversarial'][3, 0, 0]:.1f} ")
    assert "APGD-T attacks images that are right under all attacks before" in table.note
    # How many gradients it asks for is not known beforehand: there is no "of".
    assert robustness.table_row(result)["gradients an image"] == f"{result['per_image/gradients'].mean():.0f}"
    assert [(row["attack"], row["steps"]) for row in list_numbers([result])][3:5] == [
        ("apgd-ce", "100"),
        ("apgd-t", "100"),
    ]


def test_every_cell_is_the_mean_and_deviation_over_seeds_of_its_outcomes(study: list[Result]) -> None:
    table, _ = make_comparisons(study)
    assert [row["accuracy, %"] for row in table] == ROWS
    assert list(table[0]) == ["accuracy, %", "at", "at, paper", "at-att", "at-att, paper"]
    cells = {(row["setting"], row["attack"], row["steps"], row["variant"]): row for row in list_numbers(study)}
    assert len(cells) == 2 * len(ROWS)
    for row, key in zip(table, KEYS, strict=True):
        for variant in VARIANTS:
            values = slowly(study, variant, row["accuracy, %"])
            mean, deviation = statistics.mean(values), statistics.stdev(values)
            assert row[variant] == f"{mean:.1f} \u00b1 {deviation:.1f}"
            cell = cells[(*key, variant)]
            assert float(cell["accuracy_percent"]) == pytest.approx(mean, abs=6e-5)
            assert float(cell["deviation"]) == pytest.approx(deviation, abs=6e-5)
            assert (cell["low"], cell["high"], cell["seeds"], cell["images"]) == ("", "", "0 1 2", "23")


def test_a_table_says_over_what(study: list[Result]) -> None:
    assert make_comparisons(study)[0].note == (
        "mean \u00b1 standard deviation over training seeds (seeds 0, 1, 2 of at, at-att); 23 test images, eps 8/255, "
        "step 2/255, 2 restarts; black-box: attacks on the other seeds of the same variant, and the mean over these; "
        "100 gradients for each image and attacked model; 14 were computed on average, since an attack that comes "
        "back to an earlier image repeats itself; the worst case is without APGD, which is stronger (`irt evaluate "
        "--apgd 100`)"
    )
    assert make_comparisons([study[1]])[0].note.startswith("Wilson 95 % interval over images (seed 1 of at-att); ")
    note = make_comparisons([study[0], study[1], study[3]])[0].note
    assert note.startswith(
        "mean \u00b1 standard deviation over training seeds, or Wilson 95 % interval over images where there is "
        "one seed (seed 0 of at; seeds 0, 1 of at-att); "
    )


def test_the_note_says_what_gives_black_box_numbers(tmp_path: Path) -> None:
    (table,) = make_comparisons([random(tmp_path, [("at", 0)], 0)])
    remedy = "which need another seed of each, beside it or in the same command (`irt train --copies` trains it)"
    assert remedy in table.note
    (table,) = make_comparisons([random(tmp_path, [("net", 0)], 0, architecture="any")])
    assert "no black-box accuracy: `--evaluator FILE` has another model classify" in table.note
    read = random(tmp_path, [("net", 0), ("other", 0)], 0, architecture="any", by_matrix=True)
    assert "no black-box" not in make_comparisons([read])[0].note


def test_a_number_of_fewer_seeds_than_its_variant_says_of_which(tmp_path: Path) -> None:
    # Seed 0 alone was read by copies, 1 and 2: these have a black-box accuracy, and it has none.
    read = [random(tmp_path, copies("at", 0), 0), *(random(tmp_path, [("at", seed)], seed) for seed in (1, 2))]
    rows = {row["accuracy, %"]: row["at"] for row in make_comparisons(read)[0]}
    two = [100 * read[0]["accuracy/adversarial"][1, target, 0] for target in (1, 2)]
    text = f"{statistics.mean(two):.1f} \u00b1 {statistics.stdev(two):.1f} (seed 1, 2)"
    assert rows["black-box PGD-20"] == text and "seed" not in rows["white-box PGD-20"] + rows["natural"]
    note = make_comparisons(read)[0].note
    assert note.startswith("mean \u00b1 standard deviation over training seeds (seeds 0, 1, 2 of at)")
    # Of one seed alone there is an interval over images, also where the variant has two.
    pair = [random(tmp_path, [("at", 0), ("at", 1)], 0), random(tmp_path, [("at", 1)], 1)]
    rows = {row["accuracy, %"]: row["at"] for row in make_comparisons(pair)[0]}
    value, low, high = 100 * pair[0]["accuracy/adversarial"][1, 1]
    assert rows["black-box PGD-20"] == f"{value:.1f} [{low:.1f}, {high:.1f}] (seed 1)"
    assert re.fullmatch(r"[\d.]+ \u00b1 [\d.]+", rows["white-box PGD-20"])
    assert (
        ", or Wilson 95 % interval over images where there is one seed (seeds 0, 1 of at)"
        in make_comparisons(pair)[0].note
    )


def test_one_seed_has_wilsons_interval_and_no_deviation(tmp_path: Path) -> None:
    natural = np.arange(20)[:, None] < 15
    right = np.broadcast_to(np.arange(20)[:, None, None, None] < [[[10], [8], [9]]], (20, 1, 3, 1))
    result = write_robustness(tmp_path, [("at", 4)], natural, right)
    (table,) = make_comparisons([result])
    low, high = (100 * bound for bound in stats.binomtest(8, 20).proportion_ci(method="wilson"))
    cells = {row["accuracy, %"]: row["at"] for row in table}
    assert cells["white-box PGD-20"] == f"40.0 [{low:.1f}, {high:.1f}]" == cells["white-box worst case"]
    assert [cell.split()[0] for cell in cells.values()] == ["75.0", "50.0", "40.0", "45.0", "40.0"]
    cell = list_numbers([result])[2]
    assert (cell["attack"], cell["steps"], cell["deviation"], cell["seeds"]) == ("pgd", "20", "", "4")
    assert [float(cell[key]) for key in ("low", "high")] == pytest.approx([low, high], abs=6e-5)


def test_a_black_box_interval_is_the_mean_of_those_over_its_sources(tmp_path: Path) -> None:
    # Copies 1 and 2 were read by seed 0; nothing was read by them, so that only seed 0 has a black-box cell.
    files = [random(tmp_path, [("at", 0)], 0)]
    files += [random(tmp_path, [("at", seed), ("at", 0)], seed) for seed in (1, 2)]
    cell = next(row for row in list_numbers(files) if row["setting"] == "black-box" and row["steps"] == "20")
    sources = [result["accuracy/adversarial"][1, 1] for result in files[1:]]
    expected = 100 * np.mean(sources, axis=0)
    assert [float(cell[key]) for key in ("accuracy_percent", "low", "high")] == pytest.approx(expected, abs=6e-5)
    assert (cell["seeds"], cell["deviation"]) == ("0", "")


def test_what_two_files_of_a_model_share_is_taken_once(study: list[Result], tmp_path: Path) -> None:
    first = study[0]
    natural = first["per_image/prediction_natural"][:, :1] == first["per_image/label"][:, None]
    right = first["per_image/prediction"][:, :, 1:2, :1] == first["per_image/label"][:, None, None, None]
    partial = write_robustness(tmp_path, [("at-att", 0)], natural, right, readings=["PGD-20"])
    for files in ([partial, *study], [*study, partial]):
        assert list_numbers(files) == list_numbers(study)
        assert make_comparisons(files)[0] == make_comparisons(study)[0]
    # A model that was not read at every reading has no worst case beside those that were.
    rows = {row["accuracy, %"]: row for row in make_comparisons([partial, study[3]])[0]}
    assert rows["white-box PGD-20"]["at-att"] and not rows["white-box PGD-5"]["at-att"]
    assert rows["white-box worst case"]["at"] and not rows["white-box worst case"]["at-att"]


def test_other_images_balls_architectures_and_recipes_are_tables_of_their_own(tmp_path: Path) -> None:
    files = [
        random(tmp_path, [("at", 0)], 0),
        random(tmp_path, [("at", 1)], 1, images=24),
        random(tmp_path, [("at", 2)], 2, eps=4 / 255),
        random(tmp_path, [("at", 3)], 3, architecture="narrow"),
        random(tmp_path, [("at", 4)], 4, recipe="paper"),
        random(tmp_path, [("at-att", 5)], 5),
        random(tmp_path, [("at", 6)], 6, readings=["CW-7"]),
    ]
    assert [len(table.files) for table in attack_tables(files)] == [3, 1, 1, 1, 1]
    assert [table.title.partition(";")[0] for table in make_comparisons(files) if "recipe" in table.title] == [
        "cluttered-digits, small, recipe quick",
        "cluttered-digits, small, recipe quick",
        "cluttered-digits, small, recipe quick",
        "cluttered-digits, narrow, recipe quick",
        "cluttered-digits, small, recipe paper",
    ]


@pytest.mark.parametrize(
    ("dataset", "architecture", "table", "phrase"),
    [
        ("cifar10", "narrow", "table2", "; the paper's numbers: Table 2"),
        ("cifar10", "wide3", "table3", "; the paper's numbers: Table 3"),
        ("cifar100", "narrow", "table5", "; the paper's numbers: Table 5"),
        (
            "cifar100-sorted",
            "small",
            "table5",
            "; the paper's numbers (Table 5) are of other models: its narrow network on cifar100",
        ),
        ("svhn", "narrow", "table6", "; the paper's numbers: Table 6"),
        (
            "cifar10",
            "small",
            "table2",
            "; the paper's numbers (Table 2) are of other models: its narrow network on cifar10",
        ),
        ("svhn", "small", "table6", "; the paper's numbers (Table 6) are of other models: its narrow network on svhn"),
        (
            "cluttered-digits",
            "small-wide3",
            "table3",
            "; the paper's numbers (Table 3) are of other models: its wide3 network on ",
        ),
        (
            "cluttered-digits-planted",
            "small",
            "table2",
            "; the paper's numbers (Table 2) are of other models: its narrow network on ",
        ),
    ],
)
def test_the_papers_figures_stand_beside_ours(
    tmp_path: Path, dataset: str, architecture: str, table: str, phrase: str
) -> None:
    files = [
        random(tmp_path, [("at-reg", seed), ("at-reg", 1 - seed)], seed, dataset=dataset, architecture=architecture)
        for seed in (0, 1)
    ]
    (comparison,) = make_comparisons(files)
    assert phrase in comparison.title
    paper = {
        (cell.setting, cell.attack, str(cell.steps)): cell.accuracy
        for cell in read_reported()
        if (cell.table, cell.variant) == (table, "at-reg")
    }
    assert len(paper) == 13
    assert [row["at-reg, paper"] for row in comparison] == [f"{paper[key]:.2f}" if key in paper else "" for key in KEYS]
    for row in list_numbers(files):
        key = (row["setting"], row["attack"], row["steps"])
        if key in paper:
            assert (row["table"], float(row["paper_percent"])) == (table, paper[key])
        else:
            assert (row["attack"], row["table"], row["paper_percent"]) == ("worst-case", "", "")


@pytest.mark.parametrize(
    ("eps", "text"),
    [(8 / 255, "8/255"), (0.3, "0.3"), (0.6, "0.6"), (0.2, "0.2"), (0, "0"), (1.0, "1"), (0.25, "0.25")],
)
def test_a_radius_is_written_as_people_write_it(eps: float, text: str) -> None:
    assert format_radius(eps) == text


@pytest.mark.parametrize(
    ("steps", "reading"),
    [
        ((20, 40, 100), "PGD-20"),
        ((5, 40, 100), "PGD-40"),
        ((40, 100), "PGD-40"),
        ((20, 100), "PGD-20"),
        ((5, 100), "PGD-100"),
    ],
)
def test_table_1_does_not_tell_its_steps(tmp_path: Path, steps: Sequence[int], reading: str) -> None:
    readings = [f"PGD-{count}" for count in steps]
    files = [
        random(tmp_path, [("at", seed), ("at", 1 - seed)], seed, dataset="mnist", readings=readings, eps=0.3)
        for seed in (0, 1)
    ]
    (table,) = make_comparisons(files)
    paper = {row["accuracy, %"]: row["at, paper"] for row in table if row["at, paper"]}
    assert paper == {"natural": "98.72", f"white-box {reading}": "92.86", f"black-box {reading}": "95.97"}
    assert "the paper's numbers (Table 1) are of other models: its cnn network on mnist" in table.title
    assert "eps 0.3, step 0.075" in table.note
    assert table.note.endswith("the paper does not say how many steps its PGD has")


def test_natural_models_stand_beside_sections_4_3_and_4_4(tmp_path: Path) -> None:
    natural = np.ones((9, 1), bool)
    files = [
        write_robustness(tmp_path, [(variant, 0)], natural, np.ones((9, 1, 0, 1), bool), readings=())
        for variant in ("natural-att", "natural", "natural-linear-att")
    ]
    (table,) = make_comparisons(files)
    (row,) = table
    assert list(row) == [
        "accuracy, %",
        *(f"{name}{end}" for name in ("natural", "natural-linear-att", "natural-att") for end in ("", ", paper")),
    ]
    assert [row[key] for key in row if key.endswith("paper")] == ["88.79", "91.34", "92.87"]
    assert "the paper's numbers (Section 4.3, Section 4.4) are of other models" in table.title
    assert {entry["table"] for entry in list_numbers(files)} == {"section4.3", "section4.4"}


def test_the_papers_attacks_do_not_stand_beside_those_in_another_norm(tmp_path: Path) -> None:
    files = [random(tmp_path, [("at", 0)], 0, eps=0.5, norm="l2")]
    (table, *_) = make_comparisons(files)
    assert {row["accuracy, %"]: row["at, paper"] for row in table if row["at, paper"]} == {"natural": "80.79"}
    assert {row["paper_percent"] for row in list_numbers(files) if row["attack"] not in ("none", "")} == {""}


def test_a_dataset_of_the_users_has_no_figures_of_the_papers(tmp_path: Path) -> None:
    assert list_paper_sources("mine", "narrow") == ()
    files = [random(tmp_path, [("at", 0)], 0, dataset="mine")]
    (table,) = make_comparisons(files)
    assert table.title == "mine, small, recipe quick"
    assert list(table[0]) == ["accuracy, %", "at"]
    assert {(row["table"], row["paper_percent"]) for row in list_numbers(files)} == {("", "")}


def test_the_columns_are_those_of_the_papers_numbers(study: list[Result]) -> None:
    with (Path(__file__).parents[1] / "interpret_robust/results/paper_numbers.csv").open() as file:
        heads = next(csv.reader(file))
    columns = list(list_numbers(study)[0])
    assert set(heads) <= set(columns)
    assert [head for head in columns if head in heads] == heads


def test_a_matrix_shows_who_reads_whom_where_others_than_copies_do(tmp_path: Path, study: list[Result]) -> None:
    assert not any("made on the row's model" in table.title for table in make_comparisons(study))
    models: list[Model] = [("natural", 1), ("at", 0), ("at-att", 0)]
    files = [
        random(tmp_path, [model, *(other for other in models if other != model)], place)
        for place, model in enumerate(models)
    ]
    _, matrix, _ = make_comparisons(files)
    names = [name_of(model).removeprefix("cluttered-digits-") for model in models]
    assert [row["PGD-20 of"] for row in matrix] == names
    assert list(matrix[0]) == ["PGD-20 of", *names]
    reach = 0.0
    for row, source, result in zip(matrix, models, files, strict=True):
        targets = [source, *(other for other in models if other != source)]
        label = result["per_image/label"]
        for name, model in zip(names, models, strict=True):
            answers = result["per_image/prediction"][:, :, 1, targets.index(model)]
            hits = sum(all(answer == label[image]) for image, answer in enumerate(answers))
            assert row[name] == f"{100 * hits / 23:.1f}"
            low, high = stats.binomtest(hits, 23).proportion_ci(method="wilson")
            reach = max(reach, hits / 23 - low, high - hits / 23)
    assert matrix.note == f"23 images; Wilson 95 % intervals reach at most {100 * reach:.1f} points to either side"


def test_a_matrix_has_only_models_that_others_read_and_who_reads_these(tmp_path: Path, study: list[Result]) -> None:
    read = random(tmp_path, [("natural", 0), ("natural", 1)], 7)
    tables = make_comparisons([*study, read])
    (matrix,) = (table for table in tables if "made on the row's model" in table.title)
    (row,) = matrix
    own_accuracy, other = (f"{100 * value:.1f}" for value in read["accuracy/adversarial"][1, :, 0])
    assert row == {
        "PGD-20 of": "small-natural-seed0",
        "small-natural-seed0": own_accuracy,
        "small-natural-seed1": other,
    }
    reach = max(abs(100 * (end - value)) for value, *ends in read["accuracy/adversarial"][1] for end in ends)
    assert f"at most {reach:.1f} points" in matrix.note


def right_at(*right: int) -> np.ndarray:
    return np.isin(np.arange(30), right)[:, None]


def test_pairs_of_one_seed_are_tested_image_by_image_and_corrected_by_holm(tmp_path: Path) -> None:
    names = ["PGD-7", "CW-7"]

    def file(variant: str, seed: int, natural: np.ndarray, pgd: np.ndarray) -> Result:
        # CW breaks what PGD does, so that the worst case is that of PGD and the natural image.
        return write_robustness(
            tmp_path, [(variant, seed)], natural, pgd[:, None, None].repeat(len(names), 2), readings=names
        )

    ten, twelve, fifteen = right_at(*range(10)), right_at(*range(12)), right_at(*range(5, 20))
    files = [
        file("at-att", 0, fifteen, twelve),
        file("at", 0, ten, ten),
        file("at", 1, twelve, ten),
        file("natural", 0, twelve, ten),
        file("at-reg", 1, twelve, fifteen),
    ]
    table = make_comparisons(files)[-1]
    # Natural: 0 to 4 against 10 to 19. Under attack 10 and 11 more; worst case: 0 to 4 against 10 and 11.
    p = {
        ("at : at-att seed 0", "natural"): (5, 10, stats.binomtest(5, 15).pvalue),
        ("at : at-att seed 0", "PGD-7"): (0, 2, 0.5),
        ("at : at-att seed 0", "worst case"): (5, 2, stats.binomtest(2, 7).pvalue),
        ("at : at-reg seed 1", "natural"): (0, 0, 1.0),
        ("at : at-reg seed 1", "PGD-7"): (5, 10, stats.binomtest(5, 15).pvalue),
        ("at : at-reg seed 1", "worst case"): (5, 2, stats.binomtest(2, 7).pvalue),
    }
    assert sorted(test[2] for test in p.values()) == pytest.approx([0.3018, 0.3018, 0.4531, 0.4531, 0.5, 1], abs=1e-4)
    # The smallest times six is above one already.
    cells = {(row["only one is right"], condition): row[condition] for row in table for condition in list(row)[1:]}
    assert cells == {key: f"{count} : {other}, p {value:.2g} (1)" for key, (count, other, value) in p.items()}
    assert table.note == (
        "images that only the first or only the second has right, of 30; McNemar's exact p (by Holm for 6 tests)"
    )
    # Of one reading there is no worst case: two tests a pair are left.
    names = ["PGD-7"]
    single = make_comparisons([file("at-att", 0, fifteen, twelve), file("at", 0, ten, ten)])[-1]
    assert single.note.endswith("(by Holm for 2 tests)")
    assert list(single) == [
        {
            "only one is right": "at : at-att seed 0",
            "natural": f"5 : 10, p {stats.binomtest(5, 15).pvalue:.2g} (0.6)",
            "PGD-7": "0 : 2, p 0.5 (0.6)",
        }
    ]


def test_holm_multiplies_the_smallest_by_their_number_and_never_falls(study: list[Result]) -> None:
    table = make_comparisons(study)[-1]
    assert [row["only one is right"] for row in table] == [f"at : at-att seed {seed}" for seed in SEEDS]
    by_seed = {seed: [next(file for file in study if name_of((name, seed)) in file.path.name) for name in VARIANTS]
               for seed in SEEDS}  # fmt: skip
    values = {}
    for seed, (attentive, plain) in by_seed.items():
        outcomes = [find_right_in_worst_case(plain), find_right_in_worst_case(attentive)]
        values[seed] = [int((left & ~other).sum()) for left, other in (outcomes, outcomes[::-1])]
    cells = [re.findall(r"(\d+) : (\d+), p ([\d.e-]+) \(([\d.e-]+)\)", cell)[0] for row in table
             for cell in list(row.values())[1:]]  # fmt: skip
    assert [list(map(int, row[:2])) for row in cells[2::3]] == list(values.values())
    pairs = sorted((stats.binomtest(int(a), int(a) + int(b)).pvalue, float(p), float(holm)) for a, b, p, holm in cells)
    highest = 0.0
    for place, (exact, p, holm) in enumerate(pairs):
        highest = max(highest, min(1, (9 - place) * exact))
        assert p == pytest.approx(exact, rel=0.05)
        assert holm == pytest.approx(highest, rel=0.05)


def test_models_without_a_rival_are_not_paired(tmp_path: Path, study: list[Result]) -> None:
    assert len(make_comparisons(study[:3])) == 1
    natural = [random(tmp_path, [(variant, 0)], 0) for variant in ("natural", "natural-att")]
    assert len(make_comparisons(natural)) == 1


EXTERNAL: Model = ("mine", None)


def test_one_file_of_weights_behind_two_normalizations_is_two_models(tmp_path: Path) -> None:
    files = [
        random(tmp_path, [EXTERNAL, ("other", None)], place, architecture="any", normalize=name, by_matrix=True)
        for place, name in enumerate(("imagenet", "none"))
    ]
    assert files[0].model.sha256 == files[1].model.sha256 and files[0].model_id != files[1].model_id
    (table,) = attack_tables(files)
    assert list(table.members) == ["mine, normalize imagenet", "mine, normalize none"]
    assert {str(row) for row in table.cells if row.setting == "black-box"} == set()
    for result, name in zip(files, table.members, strict=True):
        label = result["per_image/label"]
        natural = result["per_image/prediction_natural"][:, 0] == label
        pgd = (result["per_image/prediction"][:, :, 1, 0] == label[:, None]).all(1)
        cells = {str(row): cells[name] for row, cells in table.cells.items()}
        assert cells["natural"].accuracy == pytest.approx(100 * natural.mean())
        assert cells["white-box PGD-20"].accuracy == pytest.approx(100 * pgd.mean())
        worst = 100 * find_right_in_worst_case(result).mean()
        assert cells["white-box worst case"].accuracy == pytest.approx(worst)
    _, matrix = make_comparisons(files)
    heads = [row["PGD-20 of"] for row in matrix]
    assert heads == [f"any-mine-seedNone (normalize {name})" for name in ("imagenet", "none")]
    for result, head, row in zip(files, heads, matrix, strict=True):
        right = (result["per_image/prediction"][:, :, 1] == result["per_image/label"][:, None, None]).all(1).mean(0)
        assert row == {"PGD-20 of": head, **dict.fromkeys(heads, ""), "any-other-seedNone": f"{100 * right[1]:.1f}"} | {
            head: f"{100 * right[0]:.1f}"
        }


def test_a_reader_behind_another_normalization_is_another_column(tmp_path: Path) -> None:
    models: list[Model] = [("other", None), EXTERNAL]
    files = [
        random(tmp_path, models, 0, architecture="any", by_matrix=True, normalize_readers="none"),
        random(tmp_path, models[::-1], 1, architecture="any", by_matrix=True, normalize="clip"),
    ]
    _, matrix = make_comparisons(files)
    clip, plain = (f"any-mine-seedNone (normalize {name})" for name in ("clip", "none"))
    assert [row["PGD-20 of"] for row in matrix] == [clip, "any-other-seedNone"]
    assert [bool(row[plain]) for row in matrix] == [False, True] and [bool(row[clip]) for row in matrix] == [
        True,
        False,
    ]


def test_a_normalization_by_its_name_and_by_its_numbers_is_one_model(tmp_path: Path) -> None:
    numbers_of_it = "0.485,0.456,0.406,0.229,0.224,0.225"
    part, whole = (
        random(tmp_path, [EXTERNAL], 0, architecture="any", normalize=name, readings=readings)
        for name, readings in (("imagenet", READINGS[:2]), (numbers_of_it, READINGS))
    )
    assert part.model_id == whole.model_id and choose_fullest([part, whole]) == [whole]
    (table,) = attack_tables([part, whole])
    assert list(table.members) == ["mine"]
    other = random(tmp_path, [EXTERNAL], 0, architecture="any", normalize="none")
    assert choose_fullest([part, other]) == [part, other]
