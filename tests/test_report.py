"""The page of a study: it holds the numbers of the files, asks nothing of the network, and works in a browser."""

import base64
import html
import io
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import oddity
import pytest
import torch
from attack_files import card_of
from browser import CHROMIUM, Page, browser
from click.testing import CliRunner
from PIL import Image

from interpret_robust import analyses, cli, figures
from interpret_robust.analyses.engine import printing
from interpret_robust.analyses.engine.work import Work
from interpret_robust.attribution.scale_rules import as_image
from interpret_robust.core import process_pool
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import UserError
from interpret_robust.core.folders import Folders
from interpret_robust.core.intervals import Interval
from interpret_robust.datasets import Dataset
from interpret_robust.datasets.npz import write_npz
from interpret_robust.figures import drawing
from interpret_robust.models import checkpoint
from interpret_robust.results import hdf5, writer
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.schema import Column, Schema
from interpret_robust.results.tables import drop_prefix, fold
from interpret_robust.study import paper, report
from interpret_robust.study.audit import audit_results
from interpret_robust.study.report import commands, overview
from interpret_robust.study.report import page as report_page
from interpret_robust.study.report.page import MOST_CHARACTERS, _keep_whole, _mark_code, render
from interpret_robust.study.tasks import AnalysisTask
from interpret_robust.study.verdicts import EXPLANATION, Finding, Verdict
from interpret_robust.training import recipe_file
from interpret_robust.training.recipe_file import find_recipe

VARIANTS = ("at", "at-att")
IMAGES = 40
SETTINGS: dict[str, dict[str, Any]] = {
    "robustness": {"eps": 2 / 255, "pgd": "1,2", "cw": "none"},
    "attention-rank": {"eps": 2 / 255, "steps": 1},
}


def analyze(path: Path, dataset: Dataset, folder: Path, name: str, **changes: Any) -> Path:
    settings = analyses.get(name).settings(**SETTINGS.get(name, {}))
    plain: dict[str, Any] = {"split": "test", "limit": None, "batch_size": 250, "settings": settings} | changes
    return Work(analyses.get(name), checkpoint.read(path), dataset, folder, device=torch.device("cpu"), **plain).run()


@pytest.fixture(scope="module", autouse=True)
def one_picture() -> Iterator[None]:
    """Other pictures take seconds to draw, and have tests of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "list_names", lambda: ["robustness"])
        yield


@pytest.fixture(scope="module", autouse=True)
def users_pictures_here(quick_pictures: Callable[[pytest.MonkeyPatch], None]) -> Iterator[None]:
    """Pictures of the page are measured, and drawn by workers too, which know nothing of tests."""
    with pytest.MonkeyPatch.context() as patch:
        quick_pictures(patch)
        yield


@pytest.fixture(scope="module")
def folders(digits: Dataset, make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """A study of two models and three analyses, with its report."""
    study = Folders(tmp_path_factory.mktemp("study"))
    study.checkpoints.mkdir()
    for path in [make_checkpoint(study.checkpoints, variant) for variant in VARIANTS]:
        for name in ("robustness", "attention-rank", "gradient-maps"):
            analyze(path, digits, study.analyses, name)
    report.write(study, study.report, lambda _: None)
    return study


@pytest.fixture(scope="module")
def answers(folders: Folders) -> dict[str, list[Result]]:
    """The files of each analysis, `at` first."""
    files = [hdf5.read(path) for path in sorted(folders.analyses.glob("*.h5"))]
    groups: dict[str, list[Result]] = {}
    for result in sorted(files, key=lambda file: "at-att" in file.path.name):
        groups.setdefault(result.analysis, []).append(result)
    return groups


@pytest.fixture(scope="module")
def page(folders: Folders) -> str:
    return folders.report.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def script_data(page: str) -> dict[str, Any]:
    """What the gallery's script is told."""
    match = re.search(r'<script type="application/json" id="told">(.*?)</script>', page, re.DOTALL)
    assert match is not None
    data: dict[str, Any] = json.loads(match[1])
    return data


def pixels(source: str) -> AnyArray:
    """A picture in a data URI."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).convert("RGB"))


def tiles(page: str, selector: str, height: int, width: int) -> AnyArray:
    """The tiles (N, height, width, 3) of a sheet, as the page places them."""
    match = re.search(re.escape(selector) + r" \{ background-image: url\((data:[^)]*)\)", page)
    assert match is not None
    sheet = pixels(match[1])
    assert sheet.shape == (4 * height, 12 * width, 3)
    return np.array(
        [sheet[height * (image // 12) :, width * (image % 12) :][:height, :width] for image in range(IMAGES)]
    )


@pytest.mark.long
def test_the_page_holds_all_that_it_shows(page: str, folders: Folders, tmp_path: Path) -> None:
    sources = re.findall(r'(?:src|href)="([^"]*)"', page) + re.findall(r"url\(([^)]*)\)", page)
    assert all(source.startswith(("data:image/", "#")) for source in sources)
    names = {source.removeprefix("#") for source in sources if source.startswith("#")}
    assert names <= set(re.findall(r' id="([^"]*)"', page)) and {"overview", "claims", "gallery"} <= names
    assert "default-src 'none'" in page
    page_pictures = [pixels(source) for source in re.findall(r'<img src="([^"]*)"', page)]
    figure_pictures = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folders.figures.glob("*.png"))]
    assert len(figure_pictures) == 1
    files = sorted(folders.analyses.glob("robustness-*.h5"))
    drawing.draw_to(tmp_path / "small.png", "robustness", files, folders, width=3.3)  # of the first screen
    figure_pictures.append(np.asarray(Image.open(tmp_path / "small.png").convert("RGB")))
    assert len(page_pictures) == len(figure_pictures)
    for picture in figure_pictures:
        assert any(picture.shape == image.shape and (picture == image).all() for image in page_pictures)
    for caption in folders.figures.glob("*.json"):
        assert html.escape(json.loads(caption.read_text())["caption"], quote=False) in page.replace("&#39;", "'")


def test_tables_are_those_that_are_printed(page: str, answers: dict[str, list[Result]]) -> None:
    for name, files in answers.items():
        section = page.partition(f'<section id="{name}">')[2].partition("</section>")[0]
        cells = [html.unescape(cell) for cell in re.findall(r"<t[hd](?: [^>]*)?>(.*?)</t[hd]>", section)]
        table = drop_prefix(printing.make_tables(files)[0])
        columns = list(dict.fromkeys(key for row in table for key in row))
        parts = fold([columns, *([row.get(column, "") for column in columns] for row in table)], MOST_CHARACTERS)
        expected = [cell for part in parts for line in part for cell in line]
        assert cells[: len(expected)] == expected and set(columns) <= set(cells)


def test_claims_stand_with_estimate_and_verdict(page: str, answers: dict[str, list[Result]]) -> None:
    section = html.unescape(page.partition('<section id="claims">')[2].partition("</section>")[0])
    verdicts = re.findall(r'<td><span class="verdict [\w-]*">([\w ,]*)</span>', section)
    verdict_by_name = dict(zip((claim.name for claim in paper.CLAIMS), verdicts, strict=True))
    for name in ("mnist-regularization", "regularization-robustness", "nonlinear-attention", "alignment"):
        assert verdict_by_name[name] == "not tested"
    assert verdict_by_name["attention-accuracy"] != "not tested" != verdict_by_name["attention-robustness"]
    first, second = (
        (result["per_image/prediction_natural"][:, 0] == result["per_image/label"]).mean()
        for result in answers["robustness"]
    )
    assert f"{100 * (second - first):+.1f} points".replace("-", "\u2212") in section
    name = '<span class="name">at-att</span>'  # which is not broken at its hyphen
    assert f"paper: at 80.79 \u2192 {name} 82.75 (+1.96)" in section
    assert f"natural accuracy, at {100 * first:.1f} \u2192 {name} {100 * second:.1f}" in section
    assert f"seed 0; {IMAGES} test images, the interval is over images alone" in section
    assert ">rests on 1 number" in section and re.search(r" \(Holm\) over \d tested claims? of Section 4\.", section)
    glance = html.unescape(page.partition('<section id="overview">')[2].partition("</section>")[0])
    assert f"<small>{100 * (second - first):+.1f} points".replace("-", "\u2212") in glance
    assert "The paper says this of MNIST." in section and "flags raised" not in section  # PGD-2 alone shows no flag
    assert (
        "Needs <code>irt analyze alignment</code> of at-att-reg and at, with one seed and on the same images" in section
    )
    assert "of the architecture small-wide3 too" in section and EXPLANATION in section
    rows = section.split("<tr id=")[1:]
    assert all("Needs <code>" in row or "The paper says" in row for row in rows if ">not tested<" in row)
    assert all("Needs <code>" not in row for row in rows if ">not tested<" not in row)


def test_the_gallery_shows_what_the_files_hold(
    page: str, script_data: dict[str, Any], answers: dict[str, list[Result]], digits: Dataset
) -> None:
    assert script_data["labels"] == digits.test.labels.tolist() and script_data["classes"] == list(digits.class_names)
    assert [model["name"] for model in script_data["models"]] == ["at seed 0", "at-att seed 0"]
    assert [model["weights"] for model in script_data["models"]] == ["Grad-CAM", "attention"]
    np.testing.assert_array_equal(tiles(page, ".tile.image", 32, 32), digits.test.images)
    for place, model in enumerate(script_data["models"]):
        robust, rank, maps = (answers[name][place] for name in ("robustness", "attention-rank", "gradient-maps"))
        assert model["clean"] == robust["per_image/prediction_natural"][:, 0].tolist()
        assert model["adversarial"] == robust["per_image/prediction"][:, 0, 1, 0].tolist()
        scores = dict(zip(script_data["scores"], model["scores"], strict=True))
        assert scores["margin under attack"] == pytest.approx(robust["per_image/margin"][:, 0, 1, 0], abs=1e-4)
        assert scores["Spearman (Figure 2)"] == pytest.approx(rank["per_image/spearman"], abs=1e-4)
        assert scores["gradient on the object"] is None
        views = as_image(torch.from_numpy(maps["per_image/map"].astype("f4")), "clip", 0.0)
        tile_pixels = tiles(page, f".model-{place} .tile.gradient", 32, 32) / 255
        assert np.abs(tile_pixels - views.permute(0, 2, 3, 1).numpy()).mean() < 0.04
        attention = tiles(page, f".model-{place} .tile.attention", 8, 8).reshape(IMAGES, 64, 3)
        weights = rank["per_image/attention"]
        assert model["largest"] == f"{weights.max():.2g}" and model["uniform"] == "0.016"
        brightness = attention.astype(int).sum(2)
        assert (np.take_along_axis(brightness, weights.argmax(1)[:, None], 1)[:, 0] == brightness.max(1)).all()
        np.testing.assert_array_equal(attention[weights == weights.max()], [[253, 231, 36]])


def test_an_image_without_a_score_has_none_and_without_weights_is_gray(
    folders: Folders, tmp_path: Path, answers: dict[str, list[Result]]
) -> None:
    from interpret_robust.study.report import gallery

    values = np.full(IMAGES, 0.5, "f4")
    values[3] = np.nan
    weights = np.full((IMAGES, 4), 0.25, "f4")
    weights[5] = np.nan
    schema = Schema(
        "attention-rank",
        2,
        (
            Column("per_image/spearman", "f4", "made"),
            Column("per_image/effective_positions", "f4", "made"),
            Column("per_image/attention", "f4", "made", ("position",)),
        ),
        (),
    )
    maps = answers["gradient-maps"][0]
    config = maps.config | {"local_grid": [2, 2], "settings": answers["attention-rank"][0].config["settings"]}
    with writer.open_rows(tmp_path / "made.h5", schema, IMAGES, {"position": 4}, config, {}) as rows:
        columns = {"spearman": values, "effective_positions": values, "attention": weights}
        rows.append({f"per_image/{name}": column for name, column in columns.items()})
        rows.finish({}, {})
    album = gallery.make_gallery([maps, hdf5.read(tmp_path / "made.h5")])
    assert album is not None
    (model,) = album["told"]["models"]
    scores = dict(zip(album["told"]["scores"], model["scores"], strict=True))
    assert scores["Spearman (Figure 2)"] == [None if image == 3 else 0.5 for image in range(IMAGES)]
    assert (model["adversarial"], model["largest"]) == (None, "0.25")
    sheet = pixels(album["sheets"][0]["attention"])
    assert (sheet[:2, 10:12] == sheet[0, 10]).all() and len({*sheet[0, 10].tolist()}) == 1
    assert sheet[0, 0].tolist() == [253, 231, 36]


def test_files_of_more_images_join_the_gallery_and_the_newest_dataset_is_first(
    answers: dict[str, list[Result]],
) -> None:
    from interpret_robust.results.names import sort_newest_first
    from interpret_robust.study.report import gallery

    maps, robust = answers["gradient-maps"][1], answers["robustness"][1]
    larger = replace(robust, config=robust.config | {"data": robust.data | {"images": 10**4, "sha256": "of more"}})
    of_training = replace(larger, config=larger.config | {"data": larger.data | {"split": "train"}})
    galleries = [gallery.make_gallery([maps, other]) for other in (robust, larger, of_training)]
    adversarial = [album["told"]["models"][0]["adversarial"] for album in galleries if album is not None]
    assert adversarial == [robust["per_image/prediction"][:, 0, 1, 0].tolist()] * 2 + [None]

    older = replace(maps, config=maps.config | {"data": maps.data | {"dataset": "older"}})
    older.__dict__["attributes"] = maps.attributes | {"created_utc": "2001-01-01T00:00:00"}
    assert sort_newest_first([older, maps, robust]) == [maps, robust, older]
    album = gallery.make_gallery(sort_newest_first([older, maps]))
    assert album is not None and album["of"]["dataset"] == maps.data["dataset"]


def test_the_gallery_joins_no_answers_of_the_same_weights_behind_another_normalization(
    answers: dict[str, list[Result]],
) -> None:
    from interpret_robust.study.report import gallery

    def put_behind(normalize: str, result: Result) -> Result:
        entries = result.config["checkpoint"]
        job = entries["job"] | card_of(normalize) | {"variant": "mine", "seed": None}
        return replace(result, config=result.config | {"checkpoint": entries | {"job": job}})

    maps, robust, rank = (answers[name][1] for name in ("gradient-maps", "robustness", "attention-rank"))
    imagenet_results = [put_behind("imagenet", maps), put_behind("0.485,0.456,0.406,0.229,0.224,0.225", robust)]
    album = gallery.make_gallery([*imagenet_results, put_behind("none", rank)])
    assert album is not None
    (model,) = album["told"]["models"]
    assert model["name"] == "mine, normalize imagenet"
    assert model["adversarial"] == robust["per_image/prediction"][:, 0, 1, 0].tolist()
    assert model["weights"] is None and [*album["sheets"][0]] == ["gradient"]
    other = [put_behind("none", maps), put_behind("none", rank)]
    album = gallery.make_gallery([*imagenet_results, *other])
    assert album is not None
    names = ["mine, normalize imagenet", "mine, normalize none"]
    assert [model["name"] for model in album["told"]["models"]] == names
    assert [model["adversarial"] is None for model in album["told"]["models"]] == [False, True]
    assert [model["weights"] is None for model in album["told"]["models"]] == [True, False]
    content = render([*imagenet_results, *other], {})
    assert "from elsewhere: mine, normalize imagenet, mine, normalize none" in content and "2 models" in content


def test_remarks_say_what_the_numbers_rest_on(answers: dict[str, list[Result]]) -> None:
    from interpret_robust.study.report.overview import list_remarks

    sentences = [remark.text for remark in list_remarks(answers["robustness"])]
    assert sentences[0].startswith("Trained with only one seed: at, at-att (cluttered-digits, small). Their intervals")
    assert sentences[1].startswith("These files do not show whether models hide their gradients")
    assert "Models of `small` are others" in sentences[2] and len(sentences) == 3
    first, second = (replace(answers["robustness"][0]) for _ in range(2))
    entry = first.config["checkpoint"]
    second.__dict__["config"] = first.config | {"checkpoint": entry | {"job": first.job | {"seed": 5}}}
    assert list_remarks([first, second])[0].text.startswith("Every variant has 2 or more seeds")
    other = replace(answers["attention-rank"][0])
    assert other.job == first.job
    sentence = "Of some models only one seed was asked in attention-rank: those intervals are over images."
    assert list_remarks([first, second, other])[0].text == sentence
    doubtful = replace(answers["robustness"][0])
    doubtful.__dict__["run"] = doubtful.run | {"doubts": ["it is odd."]}
    assert list_remarks([doubtful])[0].text == "In doubt: at seed 0: it is odd."
    doubtful.__dict__["config"] = doubtful.config | {
        "evaluators": {"names": ["digits-mine"], "sha256": ["0"], "jobs": {"digits-mine": {"variant": "mine"}}}
    }
    for evaluator in ("mine", "digits-mine"):
        doubtful.__dict__["run"] = doubtful.run | {"doubts": [f"{evaluator} is odd."]}
        assert list_remarks([doubtful])[0].text == f"In doubt: {evaluator} is odd."


def test_names_of_variants_are_explained_once(page: str) -> None:
    text = re.sub(r'<span class="name">([^<]*)</span>', r"\1", page)
    assert text.count("at: adversarial training; at-att: adversarial training with attention.") == 1


def test_names_are_not_broken_at_their_hyphens_unless_they_are_long() -> None:
    assert str(_keep_whole("at-att 3 <b>, at-a-card-of-thirty-characters -1")) == (
        '<span class="name">at-att</span> 3 &lt;b&gt;, at-a-card-of-thirty-characters -1'
    )


def test_what_stands_in_backticks_is_code_and_all_else_is_text() -> None:
    assert str(_mark_code("run `irt analyze <x>` & `irt report`; a ` alone")) == (
        "run <code>irt analyze &lt;x&gt;</code> &amp; <code>irt report</code>; a ` alone"
    )


def test_pills_say_what_claims_say(page: str, answers: dict[str, list[Result]]) -> None:
    """Of one seed no more than `in this seed`, in the singular and in the plural."""
    (audit,) = audit_results([result for results in answers.values() for result in results])
    pills = overview.make_pills(audit.findings)
    assert [finding.claim for pill in pills for finding in pill.findings] == [
        finding.claim for verdict in get_args(Verdict) for finding in audit.findings if finding.verdict == verdict
    ]
    assert all(f'">{pill.text}</span>' in page and pill.text.startswith(f"{len(pill.findings)} ") for pill in pills)
    (attention_finding,) = (finding for finding in audit.findings if finding.claim.name == "attention-accuracy")

    def make_finding(value: float) -> Finding:
        estimate = Interval(value, value - 0.1, value + 0.1)
        measures = tuple(replace(measure, estimate=estimate) for measure in attention_finding.measures)
        return Finding(attention_finding.claim, "table2", measures)

    assert [
        overview.make_pills([make_finding(value)] * count)[0].text for value in (0.2, -0.2) for count in (1, 2)
    ] == [
        *("1 holds in this seed, for some models", "2 hold in this seed, for some models"),
        *("1 does not hold in this seed, for some models", "2 do not hold in this seed, for some models"),
    ]


def test_the_first_pictures_are_of_the_newest_dataset_and_compare_most_models_of_most_images(
    answers: dict[str, list[Result]], tmp_path: Path
) -> None:
    newest, second = answers["robustness"]
    rank = answers["attention-rank"][0]

    def change(name: str, result: Result, **changes: Any) -> Result:
        return replace(result, path=Path(f"{name}.h5"), config=result.config | {"data": result.data | changes})

    older = change("older", newest, dataset="older")
    alone = change("alone", newest)
    small_results = [change("few", newest, images=3), change("few-too", second, images=3)]
    results = [newest, second, rank, alone, *small_results, older]

    def picture(name: str, *sources: Result) -> Path:
        path = tmp_path / f"{name}.png"
        path.with_suffix(".json").write_text(json.dumps({"inputs": {source.path.name: "" for source in sources}}))
        return path

    pictures = {
        "robustness": [picture("r", older), picture("r-norm", newest), picture("r-l2", newest)],
        "attention-rank": [picture("a", older)],
        "gradmap-score": [],
        "masking": [picture("m", older)],
        "gradient-maps": [picture("maps", older, newest)],
    }
    stems = [path.stem for path in overview.choose_pictures(pictures, results)]
    assert stems == ["r-l2", "maps", "a"]
    assert [path.stem for path in overview.choose_pictures(pictures, results[::-1])] == ["r", "a", "m"]
    pictures["robustness"] += [picture("one", alone), picture("few", *small_results)]
    assert overview.choose_pictures(pictures, results)[0].stem == "few"
    pictures["robustness"].append(picture("r-long-name", newest, second))
    assert overview.choose_pictures(pictures, results)[0].stem == "r-long-name"


def test_gray_images_and_other_sizes_have_sheets() -> None:
    from interpret_robust.study.report.gallery import _sheet

    for count, height, width, channels in ((1, 3, 5, 1), (13, 4, 2, 3), (24, 2, 3, 1)):
        images = np.random.default_rng(0).integers(0, 256, (count, height, width, channels), np.uint8)
        sheet = np.asarray(_sheet(images))
        assert sheet.shape[:2] == (-(-count // 12) * height, 12 * width)
        for image, tile in enumerate(images):
            y, x = height * (image // 12), width * (image % 12)
            np.testing.assert_array_equal(sheet[y : y + height, x : x + width], tile if channels == 3 else tile[..., 0])


def test_every_file_stands_with_its_origin(page: str, answers: dict[str, list[Result]]) -> None:
    section = html.unescape(page.partition('<section id="provenance">')[2])
    for result in (result for files in answers.values() for result in files):
        entry = section.partition(f"<summary>{result.path.name}</summary>")[2].partition("</details>")[0]
        attributes, record = hdf5.attributes(result.path), hdf5.read_provenance(result.path)
        for value in (
            result.schema,
            attributes["content_sha256"],
            attributes["config_sha256"],
            attributes["created_utc"],
            record["environment"]["torch"],
            record["config"]["checkpoint"]["sha256"],
            commands.compose_command(result),
        ):
            assert value in entry


def test_a_folded_line_says_how_much_was_studied(page: str, answers: dict[str, list[Result]]) -> None:
    header = html.unescape(page.partition("<header>")[2].partition("</header>")[0])
    files = [result for group in answers.values() for result in group]
    (date,) = {result.attributes["created_utc"][:10] for result in files}
    assert f"<summary>2 models, {IMAGES} images, {len(files)} files of {date}</summary>" in header
    assert f"<dt>Images</dt><dd>cluttered-digits, test split: {IMAGES}</dd>" in header
    first, *rest = files
    config = first.config | {"data": first.data | {"images": 1200}, "checkpoint": {"name": "another"}}
    attributes = {"created_utc": "2001-02-03T04"}
    larger: Any = SimpleNamespace(config=config, data=config["data"], attributes=attributes, model_id="another")
    assert (
        report_page._extent([larger, *rest]) == f"3 models, {IMAGES} to 1,200 images, 6 files of 2001-02-03 to {date}"
    )


@pytest.fixture
def made_by(tmp_path: Path) -> Callable[..., Result]:
    """Write an empty file with the configuration of another, but for some changes, and with its origin."""

    def make(result: Result, origin: Mapping[str, Any] | None = None, **changes: Any) -> Result:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.h5"
        run = hdf5.read_provenance(result.path)["run"] | dict(origin or {})
        name, version = result.schema.split("/")
        with writer.open_rows(path, Schema(name, int(version), (), ()), 1, {}, result.config | changes, {}) as rows:
            rows.finish({}, run)
        return hdf5.read(path)

    return make


def default_settings(result: Result) -> dict[str, Any]:
    settings = analyses.get(result.analysis).settings().resolve(result.config["checkpoint"]["job"])
    return dict(vars(settings))


def trained_by(result: Result, **changes: Any) -> dict[str, Any]:
    """The checkpoint of a configuration, its job changed."""
    entry: dict[str, Any] = result.config["checkpoint"]
    recipe = vars(find_recipe("quick", "cluttered-digits"))
    return entry | {"job": entry["job"] | {"recipe": recipe} | changes}


def test_commands_name_what_is_not_the_default(
    answers: dict[str, list[Result]], made_by: Callable[..., Result]
) -> None:
    base = answers["robustness"][1]
    default, data = default_settings(base), base.config["data"]
    command = f"irt analyze robustness checkpoints/{base.config['checkpoint']['name']}.safetensors"
    assert commands.compose_command(made_by(base, settings=default)) == command
    options = {"--eps", str(2 / 255), "--pgd", "1,2", "--cw", "none"}
    options |= {"--step-size", str(base.config["settings"]["step_size"])}
    assert set(commands.compose_command(base).removeprefix(command).split()) <= options
    assert "--cw none" in commands.compose_command(base) and "--pgd 1,2" in commands.compose_command(base)
    other, origin = data | {"split": "train", "dataset": "digits"}, {"source": "my data/digits.npz", "limit": 30}
    other_result = made_by(base, origin, settings=default | {"seed": 7}, data=other, batch_size=5)
    assert commands.compose_command(other_result) == (
        f"{command} --dataset 'my data/digits.npz' --split train --limit 30 --batch-size 5 --seed 7"
    )


def test_a_recalibrated_model_is_asked_as_such(
    answers: dict[str, list[Result]], made_by: Callable[..., Result]
) -> None:
    base = answers["attention-rank"][0]
    result = made_by(base, recalibration={"images": "clean"})
    command = commands.compose_command(result)
    assert command.replace(" --recalibrate clean", "") == commands.compose_command(base) != command
    conditions = report_page._conditions(base)
    assert report_page._conditions(result) == f"{conditions}, batch norm recalibrated on clean images"
    assert result.model_name == f"{base.model_name} (recalibrated on clean images)"


def test_zero_is_an_option_too(answers: dict[str, list[Result]], made_by: Callable[..., Result]) -> None:
    settings = answers["attention-rank"][0].config["settings"]
    result = made_by(answers["attention-rank"][0], settings=settings | {"steps": 0})
    assert "--steps 0" in commands.compose_command(result)


def test_models_are_trained_on_as_many_images_of_the_same_file(
    answers: dict[str, list[Result]], made_by: Callable[..., Result]
) -> None:
    base = answers["robustness"][1]
    recipe = vars(find_recipe("quick", "cluttered-digits")) | {"epochs": 3, "flip": True}
    checkpoint, source_name = trained_by(base, recipe=recipe, images=5000), "my data/cluttered-digits.npz"
    origin = {"source": source_name, "trained_on": [source_name]}
    result = made_by(base, origin, checkpoint=checkpoint, settings=default_settings(base))
    assert commands.list_commands([result] * 2) == [
        "irt train at-att --dataset 'my data/cluttered-digits.npz' --arch small --recipe quick --seed 0 --limit 5000 "
        "--set epochs=3 --set flip=true",
        f"irt analyze robustness checkpoints/{base.model_name}.safetensors",
        "irt report",
    ]


def test_a_command_names_all_models_that_were_asked_alike(
    answers: dict[str, list[Result]], made_by: Callable[..., Result]
) -> None:
    first, second = answers["attention-rank"]
    longer = made_by(second, settings=second.config["settings"] | {"steps": 77})
    *_, command, other_command, _ = commands.list_commands([second, longer, first])
    start, end = "irt analyze attention-rank", commands.compose_command(first).partition(".safetensors")[2]
    names = [f"checkpoints/{result.model_name}.safetensors" for result in (first, second)]
    assert command == f"{start} {names[0]} \\\n    {names[1]}{end}"
    process = subprocess.run(["sh", "-c", f"printf '%s\n' {command}"], capture_output=True, text=True, check=True)
    assert process.stdout.split("\n") == [*start.split(), *names, *end.split(), ""]
    assert other_command == commands.compose_command(longer) and "--steps 77" in other_command


def test_commands_are_taken_by_irt(answers: dict[str, list[Result]], made_by: Callable[..., Result]) -> None:
    """A recipe that is told is the recipe that is parsed."""
    recipe = replace(find_recipe("fast", "cifar10"), flip=False, ema=0.995, schedule="steps", eps=4 / 255)
    base = answers["robustness"][0]
    words = commands.list_commands([made_by(base, checkpoint=trained_by(base, recipe=vars(recipe)))])[0].split()
    overrides = tuple(value for name, value in pairwise(words) if name == "--set")
    assert len(overrides) > 2 and find_recipe("fast", "cluttered-digits", overrides) == recipe


def test_a_recipe_of_the_users_own_is_told_without_its_file(
    answers: dict[str, list[Result]], made_by: Callable[..., Result], tmp_path: Path
) -> None:
    (path := tmp_path / "mine.toml").write_text(
        'base = "fast"\nnorm = "l2"\neps = 0.5\nattack_step = "5/255"\nema = 0.9'
    )
    recipe, base = recipe_file.read(path), answers["robustness"][0]
    words = commands.list_commands([made_by(base, checkpoint=trained_by(base, recipe=vars(recipe)))])[0].split()
    overrides = tuple(value for name, value in pairwise(words) if name == "--set")
    name = words[words.index("--recipe") + 1]
    assert name == "quick" and replace(find_recipe(name, "cluttered-digits", overrides), name="mine") == recipe


def test_evaluators_are_trained_and_named_where_they_were_given(
    answers: dict[str, list[Result]], digits: Dataset, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    subject, *readers = [
        checkpoint.read(make_checkpoint(tmp_path, name, seed)) for name, seed in (("at", 0), ("natural", 1), ("at", 1))
    ]

    def make_result(*, is_custom: bool) -> Result:
        folder = tmp_path / str(is_custom)
        work = Work(
            oddity.ANALYSIS,
            subject,
            digits,
            folder,
            settings=oddity.ANALYSIS.settings(),
            split="test",
            limit=7,
            batch_size=250,
            device=torch.device("cpu"),
            evaluators=readers,
            default_evaluators=not is_custom,
            source="d.npz",
        )
        return hdf5.read(work.run())

    default, custom = make_result(is_custom=False), make_result(is_custom=True)
    evaluators = default.config["evaluators"]
    assert evaluators["jobs"] == {reader.path.stem: reader.job for reader in readers} and evaluators["given"] is False
    assert custom.config["evaluators"] == evaluators | {"given": True}
    run = hdf5.read_provenance(custom.path)["run"]
    assert (run["source"], run["limit"], run["trained_on"]) == ("d.npz", 7, [digits.name] * 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analyses, "get", lambda _: oddity.ANALYSIS)
        lines, reader_options = commands.list_commands([default, custom]), commands.compose_command(custom).split()
    trainings = [line.split() for line in lines if line.startswith("irt train")]
    assert [(line[2], line[line.index("--seed") + 1]) for line in trainings] == [
        ("at", "0"),
        ("natural", "1"),
        ("at", "1"),
    ]
    names = [reader.path.stem for reader in readers]
    options = [word for name in names for word in ("--evaluator", f"checkpoints/{name}.safetensors")]
    assert reader_options[-4:] == options
    questions = [line for line in lines if line.startswith("irt analyze")]
    assert [line.endswith(f"# read by {', '.join(names)}") for line in questions] == [True, False]
    assert questions[1].split()[-4:] == options and "--evaluator" not in questions[0]


@pytest.mark.parametrize("is_elsewhere", [True, False])
def test_a_task_says_where_its_images_are_from(
    digits: Dataset, make_checkpoint: Callable[..., Path], tmp_path: Path, is_elsewhere: bool
) -> None:
    training_data, other_data = (tmp_path / name / "digits.npz" for name in ("mine", "theirs"))
    for path in (training_data, other_data):
        path.parent.mkdir()
        splits = {part: digits.split(part) for part in ("train", "test")}
        images = {f"x_{part}": split.images for part, split in splits.items()}
        write_npz(path, images | {f"y_{part}": split.labels for part, split in splits.items()})
    snapshot = checkpoint.read(make_checkpoint(tmp_path))
    checkpoint.write(snapshot.path, snapshot.about | {"source": str(training_data)}, snapshot.tensors)
    settings = analyses.get("gradient-maps").settings()
    source = str(other_data) if is_elsewhere else None
    task = AnalysisTask("gradient-maps", snapshot.path, tmp_path, settings, source=source, limit=3, batch_size=3)
    result = hdf5.read(task.work().run())
    option = f" --dataset {other_data}" if is_elsewhere else ""
    name = f"checkpoints/{snapshot.path.name}"
    assert commands.compose_command(result) == f"irt analyze gradient-maps {name}{option} --limit 3 --batch-size 3"
    training = commands.list_commands([result])[0]
    assert f" --dataset {training_data} " in training and f" --limit {len(digits.train)} --set " in training


def test_claims_are_judged_apart_where_models_were_trained_on_other_data(
    answers: dict[str, list[Result]], made_by: Callable[..., Result]
) -> None:
    copies = [
        replace(result, config=result.config | {"checkpoint": trained_by(result, dataset="cluttered-digits-planted")})
        for result in answers["robustness"]
    ]
    section = (
        render(answers["robustness"] + copies, {}).partition('<section id="claims">')[2].partition("</section>")[0]
    )
    headings = re.findall(r"<h3>(.*?)</h3>", section)
    heading = "cluttered-digits, small"
    assert headings == [heading, f"{heading}, trained on cluttered-digits-planted"]
    assert section.count("natural accuracy, at ") == 2


def test_a_report_is_written_again_only_from_other_files(folders: Folders, tmp_path: Path) -> None:
    messages: list[str] = []
    copy = Folders(tmp_path)
    copy.analyses.mkdir()
    files = sorted(folders.analyses.glob("robustness-*.h5"))
    (copy.analyses / files[0].name).write_bytes(files[0].read_bytes())
    first = report.write(copy, copy.report, messages.append).read_bytes()
    report.write(copy, copy.report, messages.append)
    other = report.write(copy, tmp_path / "other.html", messages.append)
    assert copy.report.read_bytes() == other.read_bytes() == first
    (copy.analyses / files[1].name).write_bytes(files[1].read_bytes())
    report.write(copy, copy.report, messages.append)
    assert copy.report.read_bytes() != first
    assert [line for line in messages if line.endswith(("html", "already")) and "png" not in line] == [
        "wrote report.html",
        "report.html is there already",
        "wrote other.html",
        "rewrote report.html",
    ]
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.long
def test_pictures_drawn_side_by_side_are_those_drawn_one_by_one(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "list_names", lambda: ["attention-rank", "robustness"])
    outputs = []
    for workers in (1, 2):
        copy, messages = Folders(tmp_path / str(workers)), list[str]()
        shutil.copytree(folders.analyses, copy.analyses)
        monkeypatch.setattr(process_pool, "count_cores", lambda workers=workers: workers)
        page = report.write(copy, copy.report, messages.append)
        files = {path.name: path.read_bytes() for path in copy.figures.iterdir() if path.suffix != ".lock"}
        outputs.append((page.read_bytes(), files, sorted(messages)))
    assert outputs[0] == outputs[1]
    assert [line.partition("-")[0] for line in outputs[0][2]] == [
        *["drew attention"] * 4,
        "drew robustness",
        "wrote report.html",
    ]


def test_what_is_no_report_stays(folders: Folders, tmp_path: Path) -> None:
    for content in (b"", b"<!doctype html><p>mine", b"\xff\x00\n", b"<!doctype html><!-- irt report 12 -->"):
        document = tmp_path / "mine.html"
        document.write_bytes(content)
        with pytest.raises(UserError, match=r"mine\.html was not written by irt"):
            report.write(folders, document, lambda _: None)
        assert document.read_bytes() == content


def test_files_that_cannot_be_reported_are_named(folders: Folders, tmp_path: Path) -> None:
    bare = Folders(tmp_path)
    with pytest.raises(UserError, match=r"there are no analyses in .*analyses"):
        report.write(bare, bare.report, lambda _: None)
    config = hdf5.read(next(folders.analyses.glob("robustness-*.h5"))).config
    bare.analyses.mkdir()
    for name, version, sentence in (
        ("astrology", 1, r"holds astrology/1, which this irt does not know"),
        ("robustness", 0, r"has robustness/0 and this irt reads robustness/\d: run its analysis again"),
    ):
        path = bare.analyses / "made.h5"
        with writer.open_rows(path, Schema(name, version, (), ()), 1, {}, config, {}) as rows:
            rows.finish({}, {})
        with pytest.raises(UserError, match=sentence) as error:
            report.write(bare, bare.report, lambda _: None)
        assert str(path) in str(error.value)
    assert not bare.report.exists()


def test_the_command_writes_where_it_is_told(folders: Folders, tmp_path: Path) -> None:
    other_page = tmp_path / "a" / "page.html"
    for arguments, path in (([], folders.report), (["-o", str(other_page)], other_page)):
        outcome = CliRunner().invoke(
            cli.irt, ["report", "--root", str(folders.root), *arguments], catch_exceptions=False
        )
        assert outcome.output.splitlines()[-1] == str(path)
    assert other_page.read_bytes() == folders.report.read_bytes()


def test_names_from_files_cannot_become_markup(answers: dict[str, list[Result]]) -> None:
    hostile = "</script><script>alert(1)</script>"
    files = []
    for result in answers["robustness"] + answers["gradient-maps"]:
        job = result.config["checkpoint"]["job"] | {"class_names": [hostile] * 10, "dataset": hostile}
        config = result.config | {"checkpoint": result.config["checkpoint"] | {"job": job, "name": hostile}}
        files.append(replace(result, config=config | {"data": config["data"] | {"dataset": hostile}}))
    text = render(files, {})
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text
    assert text.count("<script") == 3


def test_a_study_without_gradient_maps_says_what_the_gallery_needs(answers: dict[str, list[Result]]) -> None:
    text = render(answers["robustness"], {})
    assert "Images come with <code>irt analyze gradient-maps</code>" in text
    assert text.count("<script") == 1 and "told" not in text


needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


def cards(window: Page) -> list[int]:
    """The images that are shown, in order."""
    captions = window.value("[...document.querySelectorAll('#cards li > p')].map((one) => one.textContent)")
    return [int(caption.partition(":")[0]) for caption in captions]


def choose(window: Page, **values: str) -> None:
    for name, value in values.items():
        control = f"document.getElementById('controls').elements['{name}']"
        window.value(f"{control}.value = '{value}'; {control}.dispatchEvent(new Event('change', {{bubbles: true}}))")


@needs_browser
def test_the_page_opens_from_a_file_and_asks_for_nothing(window: Page, folders: Folders) -> None:
    window.requests.clear()
    window.complaints.clear()
    window.open(folders.report.as_uri())
    choose(window, model="1")
    assert {address for address in window.requests if not address.startswith("data:")} == {folders.report.as_uri()}
    assert window.complaints == []
    pictures = "[...document.querySelectorAll('img')].map((one) => one.complete && one.naturalWidth > 0)"
    assert window.value(pictures) == [True, True]  # in the section, and on the first screen


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_the_page_fits_a_phone_and_is_light_or_dark(window: Page, folders: Folders, width: int, dark: bool) -> None:
    window.open(folders.report.as_uri(), width, 800, dark=dark)
    assert window.value("document.documentElement.scrollWidth") == width
    red, green, blue = map(int, re.findall(r"\d+", window.value("getComputedStyle(document.body).backgroundColor")))
    assert (red + green + blue < 150) == dark


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_pictures_lie_on_white_in_the_light_and_on_calm_cards_in_the_dark(
    window: Page, folders: Folders, dark: bool, tmp_path: Path
) -> None:
    for place, selector in (("#picture-{}", ".paper"), ("#overview", ".thumbnail img")):
        (name,) = (path.stem for path in folders.figures.glob("*.png"))
        window.open(folders.report.as_uri() + place.format(name), 1280, 900, dark=dark)
        box = "document.querySelector('{0}').scrollIntoView(), document.querySelector('{0}').getBoundingClientRect()"
        x, y = window.value(f"((box) => [box.x, box.y])(({box.format(selector)}))")
        window.picture(tmp_path / "seen.png")
        screenshot = np.asarray(Image.open(tmp_path / "seen.png").convert("RGB"))
        red, green, blue = (int(value) for value in screenshot[int(y) + 4, int(x) + 20])
        assert red == green == blue
        assert 180 < red < 230 if dark else red == 255


@needs_browser
@pytest.mark.parametrize("width", [400, 1280])
def test_a_press_enlarges_pictures_and_images_and_escape_goes_back(window: Page, folders: Folders, width: int) -> None:
    window.open(folders.report.as_uri(), width, 900)
    small, natural = window.value(
        "(() => { const one = document.querySelector('.thumbnail img'); return [one.width, one.naturalWidth]; })()"
    )
    assert natural == pytest.approx(200 * 3.3, abs=1) and 8 * small / (72 * 3.3) > 9  # pixels of its letters
    is_open, place = "document.getElementById('large').open", "document.activeElement"
    content = "document.getElementById('large-content')"
    window.value("document.querySelector('.thumbnail').focus()")
    window.press("Enter", 13)
    assert window.value(is_open) and window.value("location.hash") == ""
    picture = window.value(f"(({content}).querySelector('img').width)")
    assert picture > small and picture >= 890
    assert window.value(f"{content}.textContent").startswith(
        "cluttered-digits, small, 40 test images, attacks at eps 2/255."
    )
    window.press("Escape", 27)
    assert not window.value(is_open) and window.value(f"{place}.className") == "thumbnail"
    window.press("Enter", 13)
    window.value(f"{content}.querySelector('a').click()")
    assert not window.value(is_open) and window.value("location.hash").startswith("#picture-robustness")
    window.value("document.querySelector('.paper').focus()")
    window.press(" ", 32)
    assert window.value(f"{is_open} && {content}.querySelector('a') === null")
    window.value("document.getElementById('large').click()")
    assert not window.value(is_open)

    window.open(f"{folders.report.as_uri()}#gallery?model=1", width, 900)
    window.value("document.querySelectorAll('button.tiles')[14].focus()")
    assert window.value(f"{place}.getAttribute('aria-label')") == "Enlarge image 14"
    card = window.value(f"{place}.querySelector('.attention').getBoundingClientRect().width")
    window.press(" ", 32)
    tile = window.value(f"{content}.querySelector('.attention').getBoundingClientRect().width")
    assert window.value(is_open) and card > 75 and tile > 2 * card
    styles = [f"getComputedStyle({root}.querySelector('.attention'))" for root in ("document", content)]
    assert window.value(f"{styles[0]}.backgroundImage === {styles[1]}.backgroundImage")
    assert window.value(f"{content}.querySelector('p').textContent").startswith("14: ")
    window.press("Escape", 27)
    assert not window.value(is_open) and window.value(f"{place}.getAttribute('aria-label')") == "Enlarge image 14"


@needs_browser
def test_the_contents_of_a_phone_fade_where_there_is_more_and_follow_the_section_that_is_read(
    window: Page, folders: Folders
) -> None:
    contents = "document.getElementById('contents')"
    current_link = f"{contents}.querySelector('[aria-current]')"
    fades = f"[{contents}.classList.contains('before'), {contents}.classList.contains('after')]"
    window.open(folders.report.as_uri(), 320, 800)
    assert window.value(fades) == [False, True]
    for name, expected in (("attention-rank", [True, True]), ("provenance", [True, False]), ("overview", None)):
        window.open(f"{folders.report.as_uri()}#{name}", 320, 800)
        end = time.monotonic() + 20
        while window.value(f"{current_link}?.hash") != f"#{name}" or expected not in (None, window.value(fades)):
            assert time.monotonic() < end, (window.value(f"{current_link}?.hash"), window.value(fades))
        left, right = window.value(f"((box) => [box.left, box.right])({current_link}.getBoundingClientRect())")
        assert 0 <= left < right <= 320


@needs_browser
@pytest.mark.parametrize("width", [400, 1280])
def test_the_first_screens_say_what_was_found_and_the_rest_unfolds(window: Page, folders: Folders, width: int) -> None:
    address = folders.report.as_uri()
    window.open(address, width, 900)
    assert window.value("document.documentElement.scrollHeight") < 6 * 900
    is_open = "[...document.querySelectorAll('main > section > details')].map((each) => each.open)"
    assert not any(window.value(is_open))
    window.open(f"{address}#0-attention-accuracy", width, 900)
    assert window.value(is_open)[0] and sum(window.value(is_open)) == 1
    window.value("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    wider = "[...document.querySelectorAll('table')].filter((one) => one.scrollWidth > one.parentElement.clientWidth)"
    assert window.value(f"{wider}.length") == 0
    assert window.value("document.documentElement.scrollWidth") == width


@needs_browser
def test_the_gallery_sorts_and_filters(window: Page, folders: Folders, script_data: dict[str, Any]) -> None:
    window.open(folders.report.as_uri())
    model, labels = script_data["models"][1], script_data["labels"]
    choose(window, model="1")
    assert cards(window) == list(range(24))
    window.value("document.getElementById('more').click()")
    assert cards(window) == list(range(IMAGES)) and window.value("document.getElementById('more').hidden")
    margin = model["scores"][script_data["scores"].index("margin under attack")]
    choose(window, score=str(script_data["scores"].index("margin under attack")))
    assert cards(window) == sorted(range(IMAGES), key=lambda image: margin[image])[:24]
    choose(window, order="1")
    assert cards(window) == sorted(range(IMAGES), key=lambda image: -margin[image])[:24]
    choose(window, score="", order="0")
    expected = {
        "0": [image for image in range(IMAGES) if model["clean"][image] == labels[image]],
        "1": [image for image in range(IMAGES) if model["clean"][image] != labels[image]],
        "2": [
            image for image in range(IMAGES) if model["clean"][image] == labels[image] == model["adversarial"][image]
        ],
        "3": [
            image for image in range(IMAGES) if model["clean"][image] == labels[image] != model["adversarial"][image]
        ],
    }
    assert sorted(expected["0"] + expected["1"]) == list(range(IMAGES))
    for outcome, images in expected.items():
        choose(window, outcome=outcome)
        assert cards(window) == images[:24]
        assert window.value("document.getElementById('shown').textContent") == f"{len(images)} of {IMAGES} images"
    choose(window, outcome="", **{"class": "4"})
    assert cards(window) == [image for image in range(IMAGES) if labels[image] == 4]
    address = window.value("location.href")
    window.open(address)
    assert cards(window) == [image for image in range(IMAGES) if labels[image] == 4]
    assert window.value("document.getElementById('controls').elements.model.value") == "1"


@needs_browser
def test_a_score_that_a_model_lacks_cannot_be_chosen(
    window: Page, folders: Folders, script_data: dict[str, Any]
) -> None:
    window.open(f"{folders.report.as_uri()}#gallery?score={script_data['scores'].index('gradient on the object')}")
    options = window.value("[...document.getElementById('controls').elements.score.options].map((one) => one.disabled)")
    assert options == [False, *(values is None for values in script_data["models"][0]["scores"])]
    assert window.value("document.getElementById('controls').elements.score.value") == ""
    assert cards(window) == list(range(24))


@needs_browser
def test_the_gallery_is_for_keyboards_and_screen_readers(window: Page, folders: Folders) -> None:
    window.open(f"{folders.report.as_uri()}#gallery")
    query = "[...document.querySelectorAll('select')].map((one) => one.labels[0]?.firstChild.textContent.trim())"
    assert window.value(query) == ["Model", "Class", "Outcome", "Sort by", "Order"]
    window.value("document.getElementById('controls').elements.model.focus()")
    window.press("ArrowDown", 40)
    assert window.value("document.getElementById('cards').className") == "model-1"
    window.press("Tab", 9)
    assert window.value("document.activeElement.name") == "class"
    tile = "document.querySelector('#cards .attention')"
    assert window.value(f"[{tile}.getAttribute('role'), {tile}.getAttribute('aria-label')]") == ["img", "attention 0"]
    assert window.value("[...document.querySelectorAll('img')].every((one) => one.alt.length > 10)")


@needs_browser
def test_tiles_show_their_own_image(window: Page, folders: Folders, digits: Dataset, tmp_path: Path) -> None:
    window.open(f"{folders.report.as_uri()}#gallery")
    box = window.value(
        "(() => { const one = document.querySelectorAll('#cards .image')[14]; one.scrollIntoView();"
        "const box = one.getBoundingClientRect(); return [box.x, box.y, box.width, box.height]; })()"
    )
    window.picture(tmp_path / "seen.png")
    x, y, width, height = box
    screenshot = np.asarray(Image.open(tmp_path / "seen.png").convert("RGB"))
    centers = (np.arange(32) + 0.5) / 32
    tile = screenshot[np.ix_((y + height * centers).astype(int), (x + width * centers).astype(int))]
    assert np.abs(tile.astype(int) - digits.test.images[14]).mean() < 2


def test_a_page_of_the_explorer_beside_it_is_linked(folders: Folders, tmp_path: Path) -> None:
    page, explorer = tmp_path / "report.html", tmp_path / "explore.html"
    link = '<a href="explore.html">'
    for content, has_link in (("mine", False), ("<!doctype html><!-- irt explore -->\n", True)):
        explorer.write_text(content)
        report.write(folders, page, lambda _: None)
        assert (link in page.read_text(encoding="utf-8")) == has_link
    explorer.unlink()
    report.write(folders, page, lambda _: None)
    assert page.read_bytes() == folders.report.read_bytes()


def test_a_report_of_a_folder_that_may_not_be_written_lies_elsewhere_and_is_the_same(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = Folders(tmp_path / "bare")
    shutil.copytree(folders.analyses, bare.analyses)
    monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).is_relative_to(bare.root))
    page = report.write(bare, tmp_path / "elsewhere.html", lambda _: None)
    assert page.read_bytes() == folders.report.read_bytes()
    assert [path.name for path in bare.root.iterdir()] == ["analyses"]


@pytest.mark.long
def test_models_that_were_not_checked_for_hidden_gradients_are_not_counted_as_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checks: dict[str, list[SimpleNamespace]] = {"a": [SimpleNamespace(id="x", is_raised=False)] * 3, "b": []}
    monkeypatch.setattr("interpret_robust.study.flags.collect_flags", lambda results: checks)
    assert list(overview._remark_on_flags([])) == [
        ("No sign of hidden gradients: 3 checks of 1 model.", True),
        ("Not checked for hidden gradients: b.", False),
    ]
    checks |= {name: [] for name in "cde"}
    *_, remark = overview._remark_on_flags([])
    assert remark.text == "Not checked for hidden gradients: 4 models, b among them."
