"""The audit as tables: the paper's figures beside ours, verdicts, controls, flags, and the numbers as CSV."""

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from attack_files import write_autoattack, write_robustness
from click.testing import CliRunner

from interpret_robust import cli
from interpret_robust.core.errors import UserError
from interpret_robust.core.significance import average_seeds
from interpret_robust.results.attack_outcomes import find_right
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import sort_newest_first
from interpret_robust.results.tables import FORMS
from interpret_robust.study import paper
from interpret_robust.study import verdicts as verdicts_package
from interpret_robust.study.audit import (
    audit_results,
    list_numbers,
    render_audits,
    tabulate_measures,
    tabulate_verdicts,
)
from interpret_robust.study.paper import Claim
from interpret_robust.study.verdicts import sampling
from interpret_robust.study.verdicts.sample import Sample, pair_files, sample

READINGS = ("PGD-5", "PGD-20", "CW-30")
SHARES = {"at": (0.5, 0.2), "at-att": (0.8, 0.6)}


def study(folder: Path, seeds: Sequence[int] = (0, 1, 2), dataset: str = "cluttered-digits") -> list[Result]:
    """Files of `at` and `at-att`, each read by its copies; more images are right natural than under attack."""
    rng, files = np.random.default_rng(0), []
    for seed in seeds:
        for variant, (natural, attack) in SHARES.items():
            models = [(variant, seed), *((variant, other) for other in seeds if other != seed)]
            on_natural = rng.random((120, len(models))) < natural
            on_attack = rng.random((120, 1, len(READINGS), len(models))) < attack
            files.append(write_robustness(folder, models, on_natural, on_attack, readings=READINGS, dataset=dataset))
    return files


def natural(files: Sequence[Result], variant: str) -> list[npt.NDArray[np.float64]]:
    results = [result for result in files if result.config["checkpoint"]["job"]["variant"] == variant]
    return [
        (result["per_image/prediction_natural"][:, 0] == result["per_image/label"]).astype(float) for result in results
    ]


def test_a_row_tells_a_claim_with_figures_interval_and_verdict(tmp_path: Path) -> None:
    files = study(tmp_path)
    (audit,) = audit_results(files)
    row = next(row for row in tabulate_verdicts(audit) if row["claim"] == "attention raises natural accuracy")
    first, second = natural(files, "at-att"), natural(files, "at")
    (value, low, high), _ = average_seeds([gain - other for gain, other in zip(first, second, strict=True)])
    assert (row["section"], row["above, open, below zero"]) == ("4.2", "1, 0, 0")
    assert row["paper"] == "at 80.79 -> at-att 82.75 (+1.96)"
    assert row["ours"] == f"at {100 * np.mean(second):.1f} -> at-att {100 * np.mean(first):.1f}"
    assert row["first measure [95 %]"] == f"{100 * value:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
    assert (row["seeds; images"], row["verdict"]) == ("0, 1, 2; 120", "holds, for some models")


def test_every_claim_stands_once_and_one_that_is_not_tested_with_the_papers_figures(tmp_path: Path) -> None:
    (audit,) = audit_results(study(tmp_path, [0]))
    rows = tabulate_verdicts(audit)
    assert [row["claim"] for row in rows] == [claim.statement for claim in paper.CLAIMS]
    mnist = rows[0]
    assert (mnist["paper"], mnist["ours"], mnist["verdict"]) == ("at 92.86 -> at-reg 95.69 (+2.83)", "", "not tested")
    assert [row["above, open, below zero"] for row in rows if row["verdict"] == "not tested"] == [""] * sum(
        not finding.measures for finding in audit.findings
    )


def test_all_measures_stand_in_a_table_of_their_own(tmp_path: Path) -> None:
    (audit,) = audit_results(study(tmp_path))
    rows = [row for row in tabulate_measures(audit) if row["claim"] == "attention raises white-box accuracy"]
    assert [(row["measure"], row["of"], row["kind"], row["sign"]) for row in rows] == [
        (f"accuracy, {attack}", "at-att minus at", kind, "above zero")
        for attack, kind in (
            ("PGD-20 at eps 8/255", "main"),
            ("PGD-5 at eps 8/255", "further"),
            ("CW-30 at eps 8/255", "further"),
            ("each image's worst of CW-30, PGD-20, PGD-5", "main"),
        )
    ]
    row = next(row for row in tabulate_verdicts(audit) if row["claim"] == "attention raises white-box accuracy")
    assert row["above, open, below zero"] == "2, 0, 0"
    assert row["first measure [95 %]"] == rows[0]["estimate [95 %]"]
    assert len(tabulate_measures(audit)) == sum(len(finding.measures) for finding in audit.findings)


def test_flags_stand_beside_claims_on_accuracy(tmp_path: Path) -> None:
    (audit,) = audit_results(study(tmp_path))
    assert set(audit.flags) == {finding.claim.name for finding in audit.findings if finding.measures}
    # What is right by chance under one attack is wrong under another: copies break many images that are left.
    assert audit.flags["attention-accuracy"] == "; ".join(f"at-att seed {seed}: black-box" for seed in range(3))
    honest = [
        write_robustness(
            tmp_path, [(variant, 0)], np.ones((50, 1), bool), np.arange(50)[:, None, None, None] < [[[20]] * 3]
        )
        for variant in SHARES
    ]
    (other,) = audit_results(honest)
    assert other.flags["attention-accuracy"] == "none of 1"


def test_flags_of_both_widths_stand_beside_the_claim_on_width(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = []
    for architecture, seed in product(("narrow", "wide3"), (0, 1)):
        models = [("at", seed), ("at", 1 - seed)]
        outcomes = rng.random((120, 2)) < 0.8, rng.random((120, 1, len(READINGS), 2)) < 0.6
        files.append(write_robustness(tmp_path, models, *outcomes, architecture=architecture))
    audit, *_ = audit_results(files)
    raised_flags = [f"at {width} seed {seed}: black-box" for seed, width in product((0, 1), ("narrow", "wide3"))]
    assert audit.flags["wide-robustness"] == "; ".join(raised_flags)


def test_models_whose_attacks_others_than_copies_read_pair_up(tmp_path: Path) -> None:
    models = [("at", 0), ("at-att", 0)]
    right = {"at": np.arange(50) < 10, "at-att": np.arange(50) < 30}
    files = [
        write_robustness(
            tmp_path,
            [model, other],
            np.ones((50, 2), bool),
            np.tile(right[model[0]][:, None, None, None], (1, 1, 3, 2)),
            by_matrix=True,
        )
        for model, other in (models, models[::-1])
    ]
    (audit,) = audit_results(files)
    row = next(row for row in tabulate_verdicts(audit) if row["claim"] == "attention raises white-box accuracy")
    assert (row["ours"], row["verdict"]) == ("at 20.0 -> at-att 60.0", "holds in this seed, for some models")


def test_a_model_of_which_only_autoattack_tells_has_no_flags(tmp_path: Path) -> None:
    files = study(tmp_path, [0])
    alone = write_autoattack(tmp_path, ("at-reg", 0), np.arange(120) < 9)
    assert [audit.flags for audit in audit_results([*files, alone])] == [audit.flags for audit in audit_results(files)]
    assert audit_results([alone])[0].flags == {}


def test_csv_is_numbers_a_measure_a_row(tmp_path: Path) -> None:
    files = study(tmp_path)
    (audit,) = audit_results(files)
    rows = list(csv.DictReader(io.StringIO(render_audits(files, "csv"))))
    assert [dict(row) for row in rows] == list_numbers(audit)
    assert len(rows) == sum(len(finding.measures) or 1 for finding in audit.findings)
    row = next(row for row in rows if row["claim"] == "attention-accuracy")
    differences = [first - other for first, other in zip(natural(files, "at-att"), natural(files, "at"), strict=True)]
    interval, p_value = average_seeds(differences)
    values = [float(row[name]) for name in ("estimate", "low", "high")]
    assert values == pytest.approx(100 * np.array(interval), rel=1e-5)
    assert float(row["p_value"]) == pytest.approx(p_value, rel=1e-5) and float(row["p_holm"]) >= float(row["p_value"])
    assert float(row["ours_first"]) - float(row["ours_second"]) == pytest.approx(values[0], rel=1e-4)
    assert (row["paper_first"], row["paper_second"], row["models"]) == ("82.75", "80.79", "at-att minus at")
    assert (row["seeds"], row["images"], row["unit"], row["kind"]) == ("0 1 2", "120 120 120", "percent", "main")
    assert set(row["files"].split()) == {result.path.name for result in files}
    alignment_row = next(row for row in rows if row["claim"] == "alignment")
    assert (alignment_row["verdict"], alignment_row["estimate"], alignment_row["files"]) == ("not tested", "", "")


def test_models_of_other_data_are_audited_apart(tmp_path: Path) -> None:
    files = [*study(tmp_path, [0]), *study(tmp_path, [0], "svhn")]
    first, second = audit_results(files)
    assert (first.subject, second.subject) == ("cluttered-digits, small", "svhn, small")
    details = render_audits(files, details=True)
    assert "at 92.94 -> at-att 93.37 (+0.43)" in details and "at 80.79 -> at-att 82.75 (+1.96)" in details
    alone = write_robustness(
        tmp_path, [("natural", 0)], np.ones((5, 1), bool), np.ones((5, 1, 3, 1), bool), dataset="cifar100"
    )
    assert [audit.subject for audit in audit_results([alone, *files])] == ["cluttered-digits, small", "svhn, small"]
    assert [audit.subject for audit in audit_results([alone])] == ["cifar100, small"]


def test_what_was_asked_last_is_audited_first(tmp_path: Path) -> None:
    files = [*study(tmp_path, [0]), *study(tmp_path, [0], "svhn")]
    for result in files:
        year = 2001 if result.data["dataset"] == "cluttered-digits" else 2002
        result.__dict__["attributes"] = result.attributes | {"created_utc": f"{year}-01-01T00:00:00"}
    assert [audit.subject for audit in audit_results(sort_newest_first(files))] == [
        "svhn, small",
        "cluttered-digits, small",
    ]


@pytest.mark.long
@pytest.mark.parametrize("form", FORMS)
def test_the_command_prints_every_form(tmp_path: Path, form: str) -> None:
    (tmp_path / "analyses").mkdir()
    files = study(tmp_path / "analyses", [0, 1])
    outcome = CliRunner().invoke(cli.irt, ["audit", "--root", str(tmp_path), "--form", form], catch_exceptions=False)
    assert (
        outcome.output == f"{render_audits(sort_newest_first(sorted(files, key=lambda result: result.path)), form)}\n"
    )
    if form == "text":
        with pytest.raises(UserError, match=r"compare models, and this file does not suffice for any: `irt reproduce"):
            CliRunner().invoke(cli.irt, ["audit", str(files[0].path)], catch_exceptions=False)
        return
    outcome = CliRunner().invoke(cli.irt, ["audit", str(files[0].path), "--form", form], catch_exceptions=False)
    assert "not tested" in outcome.output and "cannot tell" not in outcome.output.replace("the files cannot tell", "")


def test_as_text_a_claim_is_a_line_and_its_number_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    files = study(tmp_path)
    (audit,) = audit_results(files)
    lines, details = render_audits(files).splitlines(), render_audits(files, details=True).splitlines()
    assert max(map(len, [*lines, *details])) <= 80 and len(lines) < 50
    assert lines[0] == "cluttered-digits, small (seeds 0, 1, 2; 120 test images, unless a line names"
    row = next(row for row in tabulate_verdicts(audit) if row["claim"] == "attention raises natural accuracy")
    place = lines.index("holds, for some models: attention raises natural accuracy")
    assert lines[place + 1] == f"  {row['first measure [95 %]']}  at-att minus at, natural accuracy"
    assert lines[place + 2] == "  not measured: at-att-reg minus at-reg"
    assert lines[place + 3].startswith("  flags raised: at-att seed 0: black-box")
    count = sum(line.startswith(("  decides, ", "  control, ", "  shown, ")) for line in details)
    assert count == sum(len(finding.measures) for finding in audit.findings)


def test_as_text_the_number_that_decides_stands_below_one_that_says_otherwise(tmp_path: Path) -> None:
    """The pair at and at-att gains under attack in every seed; at-reg and at-att-reg lose, and decide."""
    rng, accuracies = np.random.default_rng(0), {"at": 0.2, "at-att": 0.6, "at-reg": 0.6, "at-att-reg": 0.2}
    files = []
    for seed, (name, share) in product(range(2), accuracies.items()):
        outcomes = np.broadcast_to(rng.random((400, 1, 1, 1)) < share, (400, 1, len(READINGS), 1))
        files.append(write_robustness(tmp_path, [(name, seed)], np.ones((400, 1), bool), outcomes, readings=READINGS))
    (audit,) = audit_results(files)
    lines = render_audits(files).splitlines()
    attention = next(finding for finding in audit.findings if finding.claim.name == "attention-robustness")
    first = attention.measures[0]
    objection = next(measure for measure in attention.measures_of("main") if measure.sign < 0)
    assert attention.verdict == "cannot tell" and first.sign > 0 and attention.objection is objection
    place = lines.index("cannot tell: attention raises white-box accuracy")
    assert lines[place + 1].startswith(f"  {first.text()}  at-att minus at,")
    assert lines[place + 2].startswith(f"  but {objection.text()}  at-att-reg minus at-reg,")


def test_the_explanation_stands_once_below_all_networks_and_tells_what_was_not_measured(tmp_path: Path) -> None:
    """Without copies, nothing is known of black-box accuracy."""
    files = [
        write_robustness(
            tmp_path,
            [(name, 0)],
            np.arange(400)[:, None] < count,
            np.zeros((400, 1, len(READINGS), 1), bool),
            architecture=architecture,
        )
        for architecture in ("small", "cnn")
        for name, count in (("at", 300), ("at-reg", 200))
    ]
    for details in (False, True):
        text = render_audits(files, details=details)
        assert text.count("A number is above zero if it speaks for its claim.") == 1
        assert text.index("A number is above zero") > text.index("cluttered-digits, cnn (")
    verdict = "holds in this seed, for some models, black-box accuracy not measured: regularization costs"
    assert " ".join(render_audits(files).split()).count(verdict) == 2
    rows = [row for audit in audit_results(files) for row in list_numbers(audit)]
    assert {row["not_measured"] for row in rows if row["claim"] == "regularization-cost"} == {
        "at-att minus at-att-reg, black-box accuracy"
    }


def test_a_p_value_alone_that_decides_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, sentence = study(tmp_path), "but p is {:.2g}, corrected over 2 tested claims of Section 4.2"
    monkeypatch.setattr(verdicts_package, "SIGNIFICANT", 0.0)
    (audit,) = audit_results(files)
    gain = next(finding for finding in audit.findings if finding.claim.name == "attention-accuracy")
    assert gain.verdict == "cannot tell" and gain.objection is None and gain.p_value is not None
    assert sentence.format(gain.p_value) in " ".join(render_audits(files).split())


def test_the_best_is_refuted_by_the_number_that_is_shown(tmp_path: Path) -> None:
    accuracies = {"at": 100, "at-att": 300, "at-reg": 100, "at-att-reg": 200}
    files = [
        write_robustness(
            tmp_path,
            [(name, 0)],
            np.ones((400, 1), bool),
            np.broadcast_to(np.arange(400)[:, None, None, None] < count, (400, 1, len(READINGS), 1)),
            readings=READINGS,
        )
        for name, count in accuracies.items()
    ]
    lines = render_audits(files).splitlines()
    place = lines.index("does not hold in this seed: both together are best under white-box attack")
    assert lines[place + 1].startswith("  +25.0 points") and "at-att-reg minus at," in lines[place + 1]
    assert lines[place + 2].startswith("  but -25.0 points") and "at-att-reg minus at-att," in lines[place + 2]


def test_a_claim_that_is_not_tested_says_what_it_needs(tmp_path: Path) -> None:
    (audit,) = audit_results(study(tmp_path, [0]))
    reasons = {claim.name: audit.needs(claim) for claim in paper.CLAIMS}
    assert reasons["mnist-regularization"] == "The paper says this of MNIST."
    assert "of the architecture small-wide3 too" in reasons["wide-robustness"]
    assert "`irt reproduce table3 --scale quick`" in reasons["wide-robustness"]
    assert " --root FOLDER` (of at-att-reg weight_att_reg), a folder for each lambda" in reasons["lambda-range"]
    assert "lambda 0.01 and with 0.1: `irt train at-reg --set weight_reg=0.01" in reasons["lambda-range"]
    assert reasons["alignment"].startswith("Needs `irt analyze alignment` of at-att-reg and at, with one seed")
    audit_of_cifar10 = audit._replace(dataset="cifar10", architecture="small-wide3")
    assert "the architecture small too" in audit_of_cifar10.needs(WIDE)
    assert "`irt train at --arch small --dataset cifar10`" in audit_of_cifar10.needs(WIDE)
    assert "architecture narrow and wide3 too" in audit._replace(architecture="").needs(WIDE)
    assert "`irt reproduce table3 --scale paper`" in audit._replace(dataset="cifar10", architecture="narrow").needs(
        WIDE
    )


WIDE = next(claim for claim in paper.CLAIMS if claim.widths)


def test_a_folder_without_analyses_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there are no analyses in .*analyses: `irt reproduce audit` makes"):
        CliRunner().invoke(cli.irt, ["audit", "--root", str(tmp_path)], catch_exceptions=False)


OF_ATTENTION = Claim(
    "natural-attention",
    "attention raises natural accuracy once more",
    "in words of its own",
    "Section 9, Table 2",
    "robustness",
    (("at-att", "at"),),
    ("natural",),
)
OF_ONE_MODEL = Claim("above-half", "at-att is right on most images", "most", "Section 9", "robustness", (("at-att",),))


def above_half(claim: Claim, models: tuple[str, ...], results: Sequence[Result]) -> Iterator[Sample]:
    """Whether a model is right on an image, minus one half."""
    for files in pair_files(claim, models, results):
        yield sample("natural accuracy minus one half", files, [find_right(files[0], None) - 0.5])


def test_a_claim_takes_an_entry_and_where_its_measure_is_new_a_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What CONTRIBUTING says: the rest of the audit, its corrections, tables and CSV follow."""
    files = study(tmp_path)
    lines = render_audits(files, "csv").splitlines()
    monkeypatch.setattr(verdicts_package, "CLAIMS", (*paper.CLAIMS, OF_ATTENTION, OF_ONE_MODEL))
    monkeypatch.setitem(sampling.BY_CLAIM, "above-half", above_half)
    (audit,) = audit_results(files)
    first, second = tabulate_verdicts(audit)[-2:]
    old = next(row for row in tabulate_verdicts(audit) if row["claim"] == "attention raises natural accuracy")
    assert [first[column] for column in ("paper", "ours", "first measure [95 %]")] == [
        old[column] for column in ("paper", "ours", "first measure [95 %]")
    ]
    assert (first["verdict"], old["verdict"]) == ("holds", "holds, for some models")
    (value, low, high), p_value = average_seeds([outcome - 0.5 for outcome in natural(files, "at-att")])
    assert second["first measure [95 %]"] == f"{value:+.2f} [{low:+.2f}, {high:+.2f}]" and low > 0
    assert (second["section"], second["verdict"], second["paper"]) == ("9", "holds", "")
    (alone,) = (finding.p_value for finding in audit.findings if finding.claim is OF_ONE_MODEL)
    (other,) = (finding.measures[0].p_value for finding in audit.findings if finding.claim is OF_ATTENTION)
    assert p_value is not None and other is not None
    assert alone == (2 * p_value if p_value <= other else max(p_value, 2 * other)), "Holm over two claims of a section"
    assert render_audits(files, "csv").splitlines()[: len(lines)] == lines, "the other claims are as they were"
    assert "at-att is right on most images" in render_audits(files)
