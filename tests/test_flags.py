"""Flags: each raised where it should be and not elsewhere, on made-up outcomes, and on networks that hide gradients."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attack_files import write_autoattack, write_robustness
from click.testing import CliRunner
from test_attacks import NetworkAndImages
from torch import Tensor, nn

from interpret_robust import analyses
from interpret_robust.analyses import masking
from interpret_robust.analyses.engine.work import Work
from interpret_robust.analyses.masking import MaskingSettings
from interpret_robust.analyses.robustness import TableSettings
from interpret_robust.cli import irt
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.bootstrap import bootstrap_mean
from interpret_robust.core.errors import UserError
from interpret_robust.core.intervals import Interval, wilson
from interpret_robust.datasets import Split
from interpret_robust.datasets.cluttered_digits import make_cluttered_digits
from interpret_robust.models import checkpoint
from interpret_robust.models.variants import find_variant
from interpret_robust.results import hdf5, writer
from interpret_robust.results.hdf5 import Result
from interpret_robust.study import flags
from interpret_robust.study.flags import FLAGS, Flag
from interpret_robust.training.job import Job
from interpret_robust.training.recipe import Recipe

DOCS = Path(__file__).parents[1] / "docs" / "flags.md"
N = 200
SUBJECT, COPY = ("at", 0), ("at", 1)
NAME, COPY_NAME = "cluttered-digits-small-at-seed0", "cluttered-digits-small-at-seed1"
READINGS = ("PGD-5", "PGD-20", "PGD-100", "CW-30", "CW-100")


def first(count: int) -> AnyArray:
    """The first of N images."""
    return np.arange(N) < count


def table(folder: Path, *, model: Any = SUBJECT, copy: Any = None, copy_right: int = N, **right: int) -> Result:
    """An attack table: so many of the first images right by reading (PGD_20=...), 150 of them where nothing is said."""
    of_readings = np.stack([first(right.get(name.replace("-", "_"), 150)) for name in READINGS], axis=1)
    models = [model, copy] if copy else [model]
    answers = np.stack(
        [of_readings, *([np.tile(first(copy_right)[:, None], (1, len(READINGS)))] if copy else [])], axis=2
    )
    natural = np.ones((N, len(models)), bool)
    return write_robustness(folder, models, natural, answers[:, None], readings=READINGS)


def write_masking(
    folder: Path, changes: dict[str, AnyArray] | None = None, *, eps: float = 8 / 255, sha256: str = "", **ball: str
) -> Result:
    """A file of `masking` of an honest model but for the `changes`: which images are right, or shares of zeros."""
    config: dict[str, Any] = {
        "checkpoint": {
            "name": NAME,
            "sha256": sha256 or f"hash of {NAME}",
            "job": {"dataset": "cluttered-digits", "architecture": "small", "variant": "at", "seed": 0},
        },
        "data": {"dataset": "cluttered-digits", "split": "test", "images": N, "sha256": "0"},
        "settings": {"eps": eps, "queries": 10, "seed": 0, "step_size": eps / 4, **ball},
    }
    label = np.arange(N) % 10
    honest: dict[str, AnyArray] = {
        "natural": first(190),
        "noise": np.tile(first(189)[:, None], (1, 2)),
        "one_step": first(155),
        "search": first(170),
        "pgd": np.stack([first(count) for count in (150, 60, 2, 0)], axis=1),
        "zero_share": np.zeros((N, 2), np.float32),
    }
    outcomes = honest | (changes or {})
    columns: dict[str, AnyArray] = {
        "per_image/label": label,
        "per_image/zero_share": outcomes.pop("zero_share").astype(np.float32),
    }
    for name, right in outcomes.items():
        true = label.reshape(-1, *[1] * (right.ndim - 1))
        columns[f"per_image/prediction_{name}"] = np.where(right, true, 10).astype(np.int16)
    path = folder / f"masking-{NAME}-{len(list(folder.iterdir()))}.h5"
    with writer.open_rows(path, masking.SCHEMA, N, {"draw": 2, "factor": (1, 2, 4, 8)}, config, {}) as rows:
        rows.append(columns)
        rows.finish(masking.summarize(rows.columns(), Split(np.zeros((N, 2, 2, 1), np.uint8), label)), {})
    return hdf5.read(path)


def flag(identity: str, *files: Result) -> Flag:
    (match,) = [candidate for candidate in flags.collect_flags(files)[NAME] if candidate.id == identity]
    return match


def raised_flags(*files: Result) -> set[str]:
    return {sign.id for sign in flags.collect_flags(files)[NAME] if sign.is_raised}


# --- on made-up outcomes


def test_an_honest_model_raises_none_and_all_are_measured(tmp_path: Path) -> None:
    files = [table(tmp_path), write_masking(tmp_path)]
    assert raised_flags(*files) == set()
    assert [sign.id for sign in flags.collect_flags(files)[NAME]] == [name for name in FLAGS if name != "autoattack"]


@pytest.mark.parametrize(
    ("identity", "changes", "share"),
    [
        ("black-box", {"search": first(135)}, wilson(15, N)),
        ("random-noise", {"noise": np.stack([first(190), first(138)], axis=1)}, wilson(12, N)),
        ("zero-gradients", {"zero_share": 0.95 * np.stack([first(3), first(30)], axis=1)}, wilson(30, N)),
        ("one-step", {"one_step": first(137)}, bootstrap_mean((first(150) & ~first(137)).astype(float))),
        ("large-eps", {"pgd": np.stack([first(150), first(90), first(30), first(20)], axis=1)}, wilson(20, N)),
    ],
)
def test_one_sign_in_masking_raises_one_flag(
    identity: str, changes: dict[str, AnyArray], share: Interval, tmp_path: Path
) -> None:
    # One step is an attack of the white box too: what it breaks leaves fewer for others.
    file = write_masking(tmp_path, changes)
    assert raised_flags(file) == {identity}
    assert flag(identity, file).share == share


@pytest.mark.parametrize(
    ("identity", "right", "words"),
    [
        ("loss-gap", {"PGD_100": 150, "CW_100": 120}, "under PGD-100 than under CW-100"),
        ("loss-gap", {"PGD_20": 120, "PGD_100": 120}, "under CW-100 than under PGD-100"),
        ("many-steps", {"PGD_20": 180}, "under PGD-20 than under PGD-100"),
        ("many-steps", {"PGD_20": 120}, "under PGD-100 than under PGD-20"),
    ],
)
def test_one_sign_in_the_table_raises_one_flag(
    identity: str, right: dict[str, int], words: str, tmp_path: Path
) -> None:
    file = table(tmp_path, **right)
    assert raised_flags(file) == {identity}
    gap = bootstrap_mean((np.arange(N) < 30).astype(float)).value
    assert flag(identity, file).share.value == pytest.approx(gap)
    assert words in flag(identity, file).description


def test_attacks_on_a_copy_are_black_box(tmp_path: Path) -> None:
    own_table, honest = table(tmp_path), table(tmp_path, model=COPY, copy=SUBJECT, copy_right=170)
    assert raised_flags(own_table, honest) == set()
    strong = table(tmp_path, model=COPY, copy=SUBJECT, copy_right=130)
    assert raised_flags(own_table, strong) == {"black-box"}
    assert flag("black-box", own_table, strong).share == wilson(20, N)
    assert f"wrong under attacks on {COPY_NAME}" in flag("black-box", own_table, strong).description
    # An image that both break counts once.
    worst = flag("black-box", own_table, strong, write_masking(tmp_path, {"search": first(140)}))
    assert worst.share == wilson(20, N)
    assert f"random search or attacks on {COPY_NAME}" in worst.description
    # Nothing is said of a model that has no file of its own.
    assert flags.collect_flags([strong]).keys() == {COPY_NAME}


def test_what_any_white_box_attack_breaks_is_not_held_against_the_model(tmp_path: Path) -> None:
    file = write_masking(tmp_path, {"search": first(120)})
    assert raised_flags(file) == {"black-box"}
    assert raised_flags(file, table(tmp_path, CW_30=121)) == set()


def of_readings(folder: Path, **counts: int) -> Result:
    """An attack table of these readings (PGD_20=...) alone, so many of the first images right under each."""
    right = np.stack([first(count) for count in counts.values()], axis=1)
    names = [name.replace("_", "-") for name in counts]
    return write_robustness(folder, [SUBJECT], np.ones((N, 1), bool), right[:, None, :, None], readings=names)


def test_all_files_of_a_models_attacks_are_white_box(tmp_path: Path) -> None:
    pair = [write_masking(tmp_path, {"search": first(120)}), table(tmp_path)]
    assert raised_flags(*pair) == {"black-box"} and flag("black-box", *pair).share == wilson(30, N)
    for other in (of_readings(tmp_path, CW_50=121), of_readings(tmp_path, **dict.fromkeys(("PGD_7", "CW_7"), 121))):
        for files in ([*pair, other], [other, *pair]):
            assert raised_flags(*files) == set() and flag("black-box", *files).share == wilson(1, N)


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        ({"PGD_5": 160, "PGD_20": 140, "PGD_40": 130, "PGD_100": 100}, "PGD-20", "PGD-100"),
        ({"PGD_5": 160, "PGD_40": 130, "PGD_100": 100}, "PGD-40", "PGD-100"),
        # Steps of a quarter of the radius cross the ball in eight.
        ({"PGD_7": 160, "PGD_8": 150, "PGD_100": 100}, "PGD-8", "PGD-100"),
        ({"PGD_8": 160, "PGD_20": 140}, "PGD-8", "PGD-20"),
        ({"PGD_5": 160, "PGD_10": 150, "PGD_30": 140, "PGD_40": 130}, "PGD-10", "PGD-40"),
        ({"PGD_7": 160, "PGD_20": 140}, "", ""),
        ({"CW_5": 9, "PGD_20": 140, "PGD_100": 100}, "PGD-20", "PGD-100"),
        ({"PGD_20": 140, "CW_100": 100}, "", ""),
    ],
)
def test_few_steps_are_the_headlines_or_the_fewest(counts: dict[str, int], low: str, high: str, tmp_path: Path) -> None:
    file = of_readings(tmp_path, **counts)
    if not low:
        assert "many-steps" not in [sign.id for sign in flags.collect_flags([file])[NAME]]
        return
    gap = counts[low.replace("-", "_")] - counts[high.replace("-", "_")]
    share = flag("many-steps", file)
    assert share.share.value == pytest.approx(gap / N)
    assert f"more are right under {low} than under {high}" in share.description


def test_autoattack_on_some_of_the_images_is_set_against_our_worst_case_on_these(tmp_path: Path) -> None:
    own_table = table(tmp_path)
    stronger = write_autoattack(tmp_path, SUBJECT, np.arange(160) < 130)
    for files in ([own_table, stronger], [stronger, own_table]):
        assert raised_flags(*files) == {"autoattack"}
        sign = flag("autoattack", *files)
        assert sign.share == bootstrap_mean(((np.arange(160) >= 130) & (np.arange(160) < 150)).astype(float))
        assert sign.share.value == pytest.approx(20 / 160) and sign.description.startswith("of 160 images")
    for honest in (
        write_autoattack(tmp_path, SUBJECT, np.arange(160) < 149),
        write_autoattack(tmp_path, SUBJECT, np.ones(160, bool)),
    ):
        assert raised_flags(own_table, honest) == set() and flag("autoattack", own_table, honest).share.value < 0.02
    for other in (
        write_autoattack(tmp_path, SUBJECT, np.arange(160) < 130, eps=4 / 255),
        write_autoattack(tmp_path, SUBJECT, np.arange(160) < 130, norm="l2"),
        write_autoattack(tmp_path, COPY, np.arange(160) < 130),
        write_autoattack(tmp_path, SUBJECT, np.arange(N + 1) < 130),
    ):
        assert "autoattack" not in [sign.id for sign in flags.collect_flags([own_table, other])[NAME]]
    # Of AutoAttack alone nothing follows, nor beside what is no attack of ours.
    assert flags.collect_flags([stronger]) == {}
    assert "autoattack" not in [sign.id for sign in flags.collect_flags([write_masking(tmp_path), stronger])[NAME]]


def test_files_of_other_images_balls_or_weights_are_not_mixed(tmp_path: Path) -> None:
    own_table = table(tmp_path)
    assert raised_flags(own_table, write_masking(tmp_path, {"search": first(120)})) == {"black-box"}
    for other in ({"eps": 4 / 255}, {"sha256": "another"}, {"norm": "l2"}):
        # The table cannot say anything of what random search breaks in another ball, or of another network.
        other_file = write_masking(tmp_path, {"search": first(120), "one_step": first(120)}, **other)
        assert raised_flags(own_table, other_file) == {"one-step"}
    assert "at eps 8/255" in flag("many-steps", own_table).conditions


def test_a_flag_names_the_norm(tmp_path: Path) -> None:
    sign = flag("large-eps", write_masking(tmp_path, eps=0.5, norm="l2"))
    assert sign.conditions == "200 test images of cluttered-digits at L2 eps 0.5"
    assert "right under PGD-20 at L2 4; L2 2 is enough" in sign.description


def test_the_interval_decides_not_the_value(tmp_path: Path) -> None:
    sign = flag(
        "large-eps", write_masking(tmp_path, {"pgd": np.stack([first(150), first(60), first(9), first(7)], axis=1)})
    )
    assert sign.share.value > sign.threshold > sign.share.low
    assert not sign.is_raised


def test_large_eps_says_where_nearly_none_is_left(tmp_path: Path) -> None:
    assert "PGD-20 at 64/255; 32/255 is enough" in flag("large-eps", write_masking(tmp_path)).description
    never = write_masking(tmp_path, {"pgd": np.tile(first(150)[:, None], (1, 4))})
    assert "no radius tried" in flag("large-eps", never).description


def test_every_flag_has_its_paragraph_and_its_threshold_in_the_docs() -> None:
    text = DOCS.read_text(encoding="utf-8")
    headings = [line.removeprefix("## ").strip("`") for line in text.splitlines() if line.startswith("## `")]
    assert headings == list(FLAGS)
    for identity, (threshold, _) in FLAGS.items():
        paragraph = text.partition(f"## `{identity}`")[2].partition("\n## ")[0]
        assert f"Threshold: {threshold:.0%}" in paragraph


# --- the command


def test_the_command_prints_a_row_for_each_model_and_what_is_raised(tmp_path: Path) -> None:
    folder = tmp_path / "analyses"
    folder.mkdir()
    write_masking(folder, {"search": first(135)})
    outcome = CliRunner().invoke(irt, ["flags", "--root", str(tmp_path)])
    assert outcome.exit_code == 0, outcome.output
    head, _, row, *lines, sentence = outcome.output.splitlines()
    assert head.split() == ["model", "black-box", "random-noise", "zero-gradients", "one-step", "large-eps", "over"]
    assert row.startswith(f"{NAME}  {wilson(15, N).percent()} RAISED  0.0 % [")
    assert row.count("RAISED") == 1
    note = " ".join(lines)
    assert "black-box 2%" in note and "many-steps" not in note
    description = flag("black-box", *map(flags.read, folder.iterdir())).description
    assert sentence == f"{NAME}: black-box: {100 * 15 / N:.4g} % {description}"


def test_a_share_above_its_limit_by_chance_alone_is_too_few_images_to_tell(tmp_path: Path) -> None:
    folder = tmp_path / "analyses"
    folder.mkdir()
    write_masking(folder, {"search": first(145)})
    assert wilson(5, N).value > FLAGS["black-box"].threshold > wilson(5, N).low
    lines = CliRunner().invoke(irt, ["flags", "--root", str(tmp_path)]).output.splitlines()
    assert f"{wilson(5, N).percent()} too few images" in lines[2]
    assert lines[-2].startswith(f"{NAME}: black-box: {100 * 5 / N:.1f} % of images are right under")
    assert lines[-2].endswith("; that is above 2%, but these are too few images to tell")
    assert lines[-1] == "no flag is raised"


def test_models_that_were_not_checked_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "analyses"
    folder.mkdir()
    write_masking(folder, {"search": first(145)})
    model_flags = flags.collect_flags(list(map(flags.read, folder.iterdir())))
    assert not any("not checked" in line for line in flags.describe_flags(model_flags))
    lines = flags.describe_flags({**model_flags, "first": [], "second": []})
    assert lines[-1] == "not checked: first, second (`irt analyze masking` measures what a check needs)"
    assert lines[-2] == "no flag is raised"


def test_csv_has_a_row_for_each_flag_in_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "analyses"
    folder.mkdir()
    write_masking(folder, {"search": first(135)})
    outcome = CliRunner().invoke(irt, ["flags", "--root", str(tmp_path), "--form", "csv"])
    assert outcome.exit_code == 0, outcome.output
    lines = outcome.output.splitlines()
    assert lines[0] == "model,flag,raised,value,low,high,threshold,which,over"
    assert lines[1].startswith(f"{NAME},black-box,yes,{','.join(f'{100 * bound:.4g}' for bound in wilson(15, N))},2,")
    assert len(lines) == 6


def test_files_of_another_analysis_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="flags are read from files of robustness and masking"):
        flags.read(Path(__file__).parent / "golden" / "localization-2.h5")
    with pytest.raises(UserError, match="run its analysis again"):
        flags.read(older(tmp_path))
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="irt analyze masking"):
        irt.main(["flags", "--root", str(tmp_path / "none")], standalone_mode=False)


def older(folder: Path) -> Path:
    """A file of an older robustness."""
    path = folder / "robustness-1.h5"
    schema = replace(masking.SCHEMA, name="robustness", version=1)
    result = write_masking(folder)
    with writer.open_rows(path, schema, 1, {"draw": 2, "factor": (1, 2, 4, 8)}, result.config, {}) as rows:
        columns = {column.path: result[column.path][:1] for column in schema.per_image}
        rows.append(columns)
        rows.finish({column.path: result[column.path] for column in schema.summary}, {})
    return path


# --- on networks


class Quantizer(nn.Module):
    """Input rounded to 32 levels: no gradient passes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model((images * 31).round() / 31)
        return logits


class LargeLogits(Quantizer):
    """Logits so large that the softmax is 1 and 0, and the cross-entropy flat."""

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = 1e4 * self.model(images)
        return logits


@pytest.fixture(scope="module")
def path(robust_network: NetworkAndImages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of an adversarially trained network."""
    model, data = robust_network[0], make_cluttered_digits(600, 200)
    job = Job(data, "small", find_variant("at"), 0, Recipe("test", epochs=1, batch_size=30, learning_rate=0.1))
    header = {"job": job.describe(), "source": data.name, "code": {"version": "0"}, "history": [], "metrics": {}}
    path = tmp_path_factory.mktemp("flags") / f"{job.name}.safetensors"
    checkpoint.write(path, header, dict(model.state_dict()))
    return path


def files_of(path: Path, wrap: Callable[[Any], Any], folder: Path) -> list[Result]:
    """Both analyses of a wrapped network, over 100 images."""
    results = []
    settings = {"masking": MaskingSettings(queries=100), "robustness": TableSettings(pgd="5,20,40", cw="20")}
    for name, choice in settings.items():
        plain: dict[str, Any] = {"settings": choice, "split": "test", "limit": 100, "batch_size": 100}
        work = Work(
            analyses.get(name),
            checkpoint.read(path),
            make_cluttered_digits(600, 200),
            folder,
            device=torch.device("cpu"),
            **plain,
        )
        work.model = wrap(work.model)
        results.append(hdf5.read(work.run()))
    return results


@pytest.mark.long
@pytest.mark.parametrize(
    ("wrap", "expected"),
    [
        (lambda model: model, set()),
        (Quantizer, {"black-box", "zero-gradients", "large-eps"}),
        (LargeLogits, {"zero-gradients", "loss-gap", "large-eps"}),
    ],
    ids=["honest", "quantized", "saturated"],
)
def test_a_network_that_hides_its_gradients_is_flagged_and_an_honest_one_is_not(
    wrap: Callable[[Any], Any], expected: set[str], path: Path, tmp_path: Path
) -> None:
    files = files_of(path, wrap, tmp_path)
    (signs,) = flags.collect_flags(files).values()
    assert {sign.id for sign in signs if sign.is_raised} == expected, signs


def test_files_of_one_name_behind_other_normalizations_are_not_mixed(tmp_path: Path) -> None:
    model = ("mine", None)
    right = np.stack([first(150)] * len(READINGS), axis=1)[:, None, :, None]
    natural = np.ones((N, 1), bool)
    tables = {
        name: write_robustness(tmp_path, [model], natural, right, readings=READINGS, architecture="any", normalize=name)
        for name in ("imagenet", "none")
    }
    autoattack = write_autoattack(tmp_path, model, first(50), normalize="none")
    signs = flags.collect_flags([*tables.values(), autoattack])
    name = "cluttered-digits-any-mine-seedNone"
    assert list(signs) == [f"{name} (normalize imagenet)", f"{name} (normalize none)"]
    assert [[sign.id for sign in row if sign.is_raised] for row in signs.values()] == [[], ["autoattack"]]
