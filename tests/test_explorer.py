"""What the explorer's page asks and gets: the numbers of irt, by a server for nobody else, or in one file."""

import base64
import http.client
import io
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from scipy.stats import rankdata

import interpret_robust as ir
from interpret_robust import cli
from interpret_robust.analyses import attention_maps, attention_rank, feature_deletion, robustness
from interpret_robust.attribution.scale_rules import as_image
from interpret_robust.core.errors import Say, UserError
from interpret_robust.datasets import Dataset, load
from interpret_robust.datasets.batches import make_batch, to_pixels
from interpret_robust.datasets.framing import Framing
from interpret_robust.models.external import find_subject
from interpret_robust.models.folding import fold
from interpret_robust.models.losses import loss_gradient
from interpret_robust.models.subject import Subject
from interpret_robust.study.explorer import assets, measure, models, opening, page_file
from interpret_robust.study.explorer.album import Album
from interpret_robust.study.explorer.explorer import Explorer
from interpret_robust.study.explorer.server import MOST_BYTES, Server
from interpret_robust.study.explorer.view import View, list_radii, parse

CPU = torch.device("cpu")
SEED, IMAGE, EPS, STEPS = 5, 7, 4 / 255, 9
QUERY = {
    "image": str(IMAGE),
    "label": "0",
    "eps": "4/255",
    "steps": str(STEPS),
    "loss": "cross-entropy",
    "norm": "linf",
}


@pytest.fixture(scope="module")
def paths(make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("explorer") / "checkpoints"
    folder.mkdir()
    return [make_checkpoint(folder, variant) for variant in ("at", "at-att")]


@pytest.fixture(scope="module")
def explorer(paths: list[Path], digits: Dataset) -> Explorer:
    exhibits = [models.exhibit(find_subject(path), path, digits, CPU) for path in paths]
    return Explorer(exhibits, Album(digits, "test", CPU), SEED, str(IMAGE))


@pytest.fixture(scope="module")
def server(explorer: Explorer) -> Iterator[Server]:
    with Server(explorer) as running:
        thread = threading.Thread(target=running.serve_until_interrupted)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def query(digits: Dataset) -> dict[str, str]:
    return QUERY | {"label": str(digits.test.labels[IMAGE])}


def ask(
    server: Server, path: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Status, headers and body of an answer; `path` comes after the token unless it begins with a slash."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
    try:
        target = path if path.startswith("/") else f"/{server.token}/{path}"
        connection.request(method, target, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def messages(server: Server, name: str, fields: dict[str, str]) -> list[dict[str, Any]]:
    status, _, body = ask(server, f"{name}?{urlencode(fields)}")
    assert status == 200, body
    return [json.loads(line) for line in body.splitlines()]


def last_cells(server: Server, fields: dict[str, str]) -> list[dict[str, Any]]:
    by_model = {message["model"]: message["cell"] for message in messages(server, "cells", fields) if "cell" in message}
    return [by_model[place] for place in sorted(by_model)]


def pixels(address: str) -> "np.ndarray[Any, Any]":
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


def test_numbers_are_those_of_the_analyses(
    server: Server, paths: list[Path], digits: Dataset, query: dict[str, str]
) -> None:
    batch = make_batch(digits.test, range(IMAGE, IMAGE + 1), CPU)
    attack: dict[str, Any] = {"eps": EPS, "steps": STEPS, "seed": SEED}
    for path, cell in zip(paths, last_cells(server, query), strict=True):
        model = ir.load(path)
        network, job = fold(model.network), dict(model.subject.job)
        rank = attention_rank.rows(network, batch, attention_rank.RankSettings(**attack).resolve(job))
        maps = attention_maps.rows(network, batch, attention_maps.MapsSettings(**attack).resolve(job))
        assert cell["prediction"] == rank["per_image/prediction_adversarial"][0]
        assert cell["attention"] == rank["per_image/attention_adversarial"][0].tolist()
        assert cell["ranks"] == (rankdata(rank["per_image/distance"][0]) - 1).tolist()
        assert cell["spearman"] == rank["per_image/spearman"][0]
        assert cell["moved"] == maps["per_image/distance"][0] > 0
        adversarial = ir.PGD(eps=EPS, steps=STEPS)(
            model.network, batch.images, batch.labels, ir.per_image_noise(SEED, [IMAGE])
        )
        probabilities = network(adversarial).softmax(1)[0]
        assert cell["truth"] == float(probabilities[batch.labels[0]])
        assert cell["answers"][0] == [cell["prediction"], float(probabilities.max())]
        change = 0.5 + 0.5 * (adversarial - batch.images) / EPS
        expected = {"perturbation": change} | {
            rule: as_image(loss_gradient(network, adversarial, batch.labels), rule, 0.0) for rule in measure.RULES
        }
        pictures = {"perturbation": cell["perturbation"], **cell["gradient"]}
        assert pictures.keys() == expected.keys()
        for name, values in expected.items():
            assert np.abs(pixels(pictures[name]) / 255 - values[0].permute(1, 2, 0).numpy()).max() <= 0.5 / 255 + 1e-6


def test_the_margin_is_attacked_from_where_evaluate_begins(
    server: Server, paths: list[Path], digits: Dataset, query: dict[str, str]
) -> None:
    batch = make_batch(digits.test, range(IMAGE, IMAGE + 1), CPU)
    cells = last_cells(server, query | {"loss": "margin"})
    for path, cell in zip(paths, cells, strict=True):
        model = ir.load(path)
        table = robustness.TableSettings(eps=EPS, pgd="none", cw=str(STEPS), seed=SEED).resolve(dict(model.subject.job))
        rows = robustness.rows(fold(model.network), batch, robustness.Context(table, {}))
        assert cell["prediction"] == rows["per_image/prediction"][0, 0, 0, 0]
        gap = np.log(cell["truth"]) - np.log(max(share for place, share in cell["answers"] if place != batch.labels[0]))
        assert gap == pytest.approx(rows["per_image/margin"][0, 0, 0, 0], abs=1e-4)


@pytest.mark.parametrize(("norm", "eps"), [("l2", "0.5"), ("l1", "4.5")])
def test_other_norms_have_the_numbers_of_evaluate_too(
    norm: Any, eps: str, server: Server, paths: list[Path], digits: Dataset, query: dict[str, str]
) -> None:
    batch, radius = make_batch(digits.test, range(IMAGE, IMAGE + 1), CPU), float(eps)
    size = {"l2": 2, "l1": 1}[norm]
    for loss, pgd, cw in (("cross-entropy", str(STEPS), "none"), ("margin", "none", str(STEPS))):
        cells = last_cells(server, query | {"norm": norm, "eps": eps, "loss": loss})
        for path, cell in zip(paths, cells, strict=True):
            model = ir.load(path)
            table = robustness.TableSettings(eps=radius, norm=norm, pgd=pgd, cw=cw, seed=SEED)
            context = robustness.Context(table.resolve(dict(model.subject.job)), {})
            row = robustness.rows(fold(model.network), batch, context)
            assert cell["prediction"] == row["per_image/prediction"][0, 0, 0, 0]
            rivals = [share for place, share in cell["answers"] if place != batch.labels[0]]
            gap = np.log(cell["truth"]) - np.log(max(rivals))
            assert gap == pytest.approx(row["per_image/margin"][0, 0, 0, 0], abs=1e-4)
            change = cell["change"] * (pixels(cell["perturbation"]) / 127.5 - 1)
            length = np.linalg.norm(change.ravel(), size)
            assert 0.9 * radius < length < radius + cell["change"] / 255 * change.size ** (1 / size)
            assert cell["change"] == pytest.approx(np.abs(change).max(), rel=1e-2)


def test_a_whole_analysis_of_many_images_finds_the_same(
    server: Server, paths: list[Path], digits: Dataset, query: dict[str, str]
) -> None:
    answer = ir.analyze(
        "attention-maps", ir.load(paths[1]), data=digits, limit=IMAGE + 1, eps=EPS, steps=STEPS, seed=SEED
    )
    cell = last_cells(server, query)[1]
    assert cell["moved"] == pytest.approx(float(answer["per_image/distance"][IMAGE]), rel=1e-3)


def test_without_a_radius_the_image_is_itself(server: Server, explorer: Explorer, query: dict[str, str]) -> None:
    entry = explorer.album.entry(str(IMAGE))
    for exhibit, cell in zip(explorer.exhibits, last_cells(server, query | {"eps": "0"}), strict=True):
        probabilities = exhibit.network(entry.pixels).softmax(1)[0]
        assert cell["truth"] == float(probabilities[int(query["label"])])
        assert (cell["ranks"], cell["spearman"], cell["moved"]) == (None, None, 0.0)
        assert set(pixels(cell["perturbation"]).ravel()) == {128}


def test_models_take_turns_and_the_first_picture_comes_after_three_steps(explorer: Explorer) -> None:
    view = View("11", 3, EPS, 10, "cross-entropy")
    steps = [(message["model"], message["step"], "cell" in message) for message in explorer.cells(view)]
    turns = [(0, range(4)), (1, range(4)), (0, range(4, 9)), (1, range(4, 9)), (0, range(9, 11)), (1, range(9, 11))]
    assert steps == [(model, step, step in (3, 8, 10)) for model, part in turns for step in part]
    repetition = [(message["model"], message["step"]) for message in explorer.cells(view)]
    assert repetition == [(0, 10), (1, 10)]  # nothing is attacked twice


def test_who_has_gone_is_not_computed_for(
    server: Server, explorer: Explorer, query: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    end = threading.Event()
    cells = explorer.cells

    def count_cells(view: View) -> Iterator[dict[str, Any]]:
        try:
            for message in cells(view):
                steps.append(message["step"])
                yield message
        finally:
            end.set()

    monkeypatch.setattr(explorer, "cells", count_cells)
    with socket.create_connection(("127.0.0.1", server.server_address[1])) as connection:
        words = urlencode(query | {"steps": "200"})
        connection.sendall(f"GET /{server.token}/cells?{words} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
    assert end.wait(10)
    assert len(steps) < 2 * 201


def test_a_deleted_position_is_that_of_feature_deletion(
    server: Server, explorer: Explorer, digits: Dataset, query: dict[str, str]
) -> None:
    position, view = 20, parse(query, 10)
    answers = messages(server, "deletions", query | {"position": str(position)})
    train = to_pixels(torch.from_numpy(digits.train.images)).permute(0, 3, 1, 2)
    for place, (exhibit, answer) in enumerate(zip(explorer.exhibits, answers, strict=True)):
        network, adversarial = exhibit.network, explorer.adversarial(place, view)
        with torch.no_grad():
            mean = network.features(train).local.mean((0, 2, 3))
            local = network.features(adversarial).local.clone()
            local[0, :, position // 8, position % 8] = mean
            logits = network.rest(adversarial, local)
        assert answer["prediction"] == int(logits.argmax())
        assert answer["truth"] == pytest.approx(float(logits.softmax(1)[0, view.label]), abs=1e-5)
        deletions = measure.measure_deletions(exhibit, adversarial, view.label, range(64))
        assert deletions[position][0] == answer["prediction"]
        assert len({truth for _, truth in deletions}) > 10


def test_removal_in_order_is_removal_of_positions(explorer: Explorer) -> None:
    network, images = explorer.exhibits[1].network, explorer.album.entry("3").pixels
    with torch.no_grad():
        local = network.features(images).local
        mask = torch.zeros(1, 64, dtype=torch.bool)
        mask[0, [2, 40]] = True
        logits = feature_deletion.compute_logits_without(network, images, local, mask, torch.zeros(local.shape[1]))
        local[0, :, 0, 2] = local[0, :, 5, 0] = 0
        assert torch.equal(logits, network.rest(images, local))


REFUSALS = {
    "cells": "'image' is missing",
    "cells?image=0&label=0&eps=x&steps=3&loss=margin&norm=linf": "eps is 'x'",
    "cells?image=0&label=0&eps=2&steps=3&loss=margin&norm=linf": "eps is 2",
    "cells?image=0&label=0&eps=nan&steps=3&loss=margin&norm=linf": "eps is nan",
    "cells?image=0&label=0&eps=1/255&steps=0&loss=margin&norm=linf": "steps are 0",
    "cells?image=0&label=0&eps=1/255&steps=999999&loss=margin&norm=linf": "steps are 999999",
    "cells?image=0&label=10&eps=1/255&steps=3&loss=margin&norm=linf": "label is 10",
    "cells?image=0&label=-1&eps=1/255&steps=3&loss=margin&norm=linf": "label is '-1'",
    "cells?image=0&label=0&eps=1/255&steps=3&loss=other&norm=linf": "unknown loss 'other'",
    "cells?image=0&label=0&eps=1&steps=3&loss=margin&norm=l3": "unknown norm 'l3'",
    "cells?image=0&label=0&eps=60&steps=3&loss=margin&norm=l2": "eps is 60",
    "cells?image=40&label=0&eps=1/255&steps=3&loss=margin&norm=linf": "there is no image '40'",
    "image?image=..%2F..%2Fetc%2Fpasswd": "there is no image '../../etc/passwd'",
    "image?image=mine-0": "there is no image 'mine-0'",
    "deletions?image=0&label=0&eps=0&steps=3&loss=margin&norm=linf&position=64": "there is no position 64",
    "deletions?image=0&label=0&eps=0&steps=3&loss=margin&norm=linf&position=x": "position is 'x'",
}


@pytest.mark.parametrize("path", REFUSALS)
def test_a_bad_request_is_answered_by_a_sentence(server: Server, path: str) -> None:
    status, _, body = ask(server, path)
    assert status == 400
    assert json.loads(body)["error"].startswith(REFUSALS[path])


def test_only_who_has_the_address_may_ask(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1" and len(server.token) >= 32
    address = f"127.0.0.1:{server.server_address[1]}"
    for path in ("/", "/setup", "/x/setup", f"/{server.token[:-1]}/setup", "/%2e%2e/setup", f"/{server.token}x/"):
        assert ask(server, path)[0] == 403, path
    for host in (
        "example.org",
        f"example.org:{server.server_address[1]}",
        "127.0.0.1.example.org",
        "",
        "[::",
        "0.0.0.0",
    ):
        assert ask(server, "setup", Host=host)[0] == 403, host
    for host in (address, "localhost", f"LOCALHOST:{server.server_address[1]}"):
        assert ask(server, "setup", Host=host)[0] == 200, host
    assert ask(server, "setup", Origin="http://example.org")[0] == 403
    assert ask(server, "image", "POST", b"x", Origin="null")[0] == 403
    assert ask(server, "setup", Origin=f"http://{address}")[0] == 200
    assert ask(server, "setup", "DELETE")[0] == 501


@pytest.mark.parametrize("name", ["page.py", "../page.js", "..%2fserver.py", "/etc/passwd", "page.html", "favicon.ico"])
def test_no_path_reaches_the_file_system(server: Server, name: str) -> None:
    status, _, body = ask(server, f"/{server.token}/{name}")
    assert (status, json.loads(body)) == (404, {"error": "there is nothing of this name here."})


def test_the_page_allows_nothing_from_elsewhere(server: Server) -> None:
    kinds = {"": "text/html", "page.css": "text/css", "page.js": "text/javascript", "setup": "application/json"}
    for name, kind in kinds.items():
        status, headers, body = ask(server, name)
        policy = headers["Content-Security-Policy"]
        assert (status, headers["Content-Type"]) == (200, f"{kind}; charset=utf-8")
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ") and "unsafe" not in policy
        assert headers["Referrer-Policy"] == "no-referrer" and headers["Cache-Control"] == "no-store"
        assert b"http:" not in body and b"https:" not in body


def png(values: "np.ndarray[Any, Any]") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_picture_of_ones_own_is_attacked_as_any_other(server: Server, explorer: Explorer, digits: Dataset) -> None:
    status, _, body = ask(server, "image", "POST", png(digits.test.images[IMAGE]))
    key = json.loads(body)["image"]
    assert status == 200 and torch.equal(
        explorer.album.entry(key).pixels, explorer.album.entry(str(IMAGE)).pixels.contiguous()
    )
    description = json.loads(ask(server, f"image?image={key}")[2])
    assert description["label"] == int(explorer.exhibits[0].network(explorer.album.entry(key).pixels).argmax())
    assert (pixels(description["picture"]) == digits.test.images[IMAGE]).all()
    large = np.zeros((50, 90, 4), np.uint8)
    large[..., 3], large[:, 20:70, 0] = 255, 200
    status, _, body = ask(server, "image", "POST", png(large))
    assert status == 200
    middle = explorer.album.entry(json.loads(body)["image"]).pixels
    assert middle.shape == (1, 3, 32, 32) and middle[0, :, 16, 16].tolist() == pytest.approx([200 / 255, 0, 0])


def test_what_is_no_picture_is_refused(server: Server) -> None:
    for body, words in ((b"<svg/>", "this is no picture"), (b"", "this is no picture")):
        status, _, answer = ask(server, "image", "POST", body)
        assert status == 400 and json.loads(answer)["error"].startswith(words)
    cut = png(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))[:900]
    assert ask(server, "image", "POST", cut)[0] == 400
    status, _, answer = ask(server, "image", "POST", None, **{"Content-Length": str(MOST_BYTES + 1)})
    assert status == 413 and "at most 10,000,000" in json.loads(answer)["error"]
    assert ask(server, "image", "POST", None, **{"Content-Length": "-1"})[0] == 411
    assert ask(server, "cells", "POST", b"x")[0] == 404


def test_many_pictures_do_not_fill_the_memory(
    explorer: Explorer, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    album = Album(digits, "test", CPU)
    monkeypatch.setattr("interpret_robust.study.explorer.album.MOST_UPLOADS", 2)
    keys = [album.add(png(digits.test.images[place])) for place in range(3)]
    assert torch.equal(album.entry(keys[2]).pixels, album.entry("2").pixels.contiguous())
    with pytest.raises(UserError, match="there is no image 'mine-0'"):
        album.entry(keys[0])
    monkeypatch.setattr("interpret_robust.study.explorer.album.MOST_PIXELS", 100)
    with pytest.raises(UserError, match="more than 100 pixels"):
        album.add(png(digits.test.images[0]))


def test_the_slider_has_the_radius_of_training_in_its_middle() -> None:
    assert list_radii([8 / 255, 0.0], "linf") == ["0", *(f"{place}/255" for place in range(1, 17))]
    assert list_radii([0.3], "linf")[8] == "0.3" and list_radii([0.3], "linf")[-1] == "0.6"
    assert list_radii([0.8], "linf")[-1] == "1" and list_radii([4 / 255], "linf")[1:3] == ["0.5/255", "1/255"]
    assert list_radii([1.0, 0.5], "l2") == ["0", *(f"{place / 8:.4g}" for place in range(1, 17))]


def test_each_norm_has_the_radii_of_training_in_it(
    explorer: Explorer, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (exhibit.subject.job for exhibit in explorer.exhibits)

    def sliders() -> tuple[str, dict[str, tuple[str, str]]]:
        setup = Explorer(explorer.exhibits, explorer.album, SEED).setup()
        return setup["norm"], {name: (norm["eps"], norm["radii"][-1]) for name, norm in setup["norms"].items()}

    monkeypatch.setitem(first, "recipe", {"eps": 0.8, "norm": "l2"})
    monkeypatch.setitem(second, "recipe", {"eps": 6 / 255})
    assert sliders() == ("l2", {"linf": ("6/255", "12/255"), "l2": ("0.8", "1.6"), "l1": ("12", "24")})
    monkeypatch.setitem(first, "recipe", {"eps": 6.0, "norm": "l1"})
    assert sliders() == ("l1", {"linf": ("6/255", "12/255"), "l2": ("0.5", "1"), "l1": ("6", "12")})


class AnswersNaN(torch.nn.Module):
    """Answers every image with what is not a number."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :10] * torch.nan


def test_the_image_itself_stands_for_what_an_attack_made_nan(explorer: Explorer) -> None:
    entry, view = explorer.album.entry("3"), View("3", 0, EPS, 4, "cross-entropy")
    exhibit: Any = SimpleNamespace(network=AnswersNaN())
    iterates = dict(measure.measure_trajectory(exhibit, entry, view, SEED))
    assert iterates[3].isnan().any()
    assert torch.equal(iterates[4], entry.pixels)


def test_the_page_of_the_documentation_has_the_code_of_today() -> None:
    def code(text: str) -> tuple[str, str]:
        head, start, rest = text.partition('<script id="baked" type="application/json">')
        assert start
        return head, rest.partition("</script>")[2]

    documentation = Path(__file__).parents[1] / "docs" / "explore-cifar10.html"
    assert code(documentation.read_text(encoding="utf-8")) == code(assets.embed_all({}))


def test_other_weights_than_attention_are_shown_and_commands_name_them(
    paths: list[Path], digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "load", lambda _: digits)
    explorer = opening.open_explorer(paths, [], None, "test", SEED, "cpu", str(IMAGE), "feature-norm")
    setup = explorer.setup()
    assert setup["weights"] == "feature-norm"
    assert [model["weights"] for model in setup["models"]] == ["feature norm", "feature norm"]
    entry, view = explorer.album.entry(str(IMAGE)), parse(QUERY, len(digits.class_names))
    for exhibit in explorer.exhibits:
        with torch.no_grad():
            norm = torch.linalg.vector_norm(exhibit.network.features(entry.pixels).local, dim=1).flatten()
        cell = measure.measure_cell(exhibit, entry, entry.pixels, view, lambda _: "")
        assert cell["attention"] == pytest.approx((norm / norm.sum()).tolist(), rel=1e-4)
    with pytest.raises(UserError, match="unknown spatial weight 'norm'"):
        opening.open_explorer(paths, [], None, "test", SEED, "cpu", str(IMAGE), "norm")


def test_each_model_is_read_once(paths: list[Path], digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Path] = []

    def read(path: Path, source: str | None) -> Subject:
        reads.append(path)
        return find_subject(path, source)

    monkeypatch.setattr(opening, "load", lambda _: digits)
    monkeypatch.setattr(opening, "find_subject", read)
    explorer = opening.open_explorer(paths, [], None, "test", SEED, "cpu")
    assert reads == paths == [Path(exhibit.words) for exhibit in explorer.exhibits]


def test_names_tell_models_apart() -> None:
    assert models.list_names([{"name": "at seed 0"}, {"name": "at-att seed 1"}]) == ["at", "at-att"]
    assert models.list_names([{"name": "at seed 0"}, {"name": "at seed 1"}]) == ["at seed 0", "at seed 1"]
    assert models.list_names([{"name": "at seed 0"}, {"name": "at seed 0"}]) == ["at seed 0 (1)", "at seed 0 (2)"]


def test_one_seed_of_each_variant_is_shown_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    def subject(path: Path) -> SimpleNamespace:
        source, architecture, variant, seed = path.name.split()
        return SimpleNamespace(source=source, job={"architecture": architecture, "variant": variant, "seed": int(seed)})

    monkeypatch.setattr(models, "find_subject", subject)
    names = ("a small at-att 1", "a small at 2", "a small at-att 0", "a narrow at 0", "b small at 0")
    paths = [Path(name) for name in names]
    assert models.choose_models(paths, None) == [paths[1], paths[2]]
    assert models.choose_models(paths, "a") == [paths[1], paths[2]]
    assert models.choose_models(paths, "b") == [paths[4]]
    assert models.choose_models(paths, "c") == []


@pytest.fixture(scope="module")
def page(explorer: Explorer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of two images at three radii, which begins with the second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_file, "PLACES", (0, 4, 16))
        path = tmp_path_factory.mktemp("baked") / "explore.html"
        page_file.write(Explorer(explorer.exhibits, explorer.album, SEED, "1"), path, 2, lambda _: None)
    return path


def content_of(page: Path) -> Any:
    text = page.read_text(encoding="utf-8")
    return json.loads(text.partition('type="application/json">')[2].partition("</script>")[0])


def test_a_file_holds_what_the_server_says(page: Path, explorer: Explorer) -> None:
    content = content_of(page)
    setup = content["setup"]
    assert setup["first"] == "1"
    assert list(setup["norms"]) == ["linf"]
    radius_texts = setup["norms"]["linf"]["radii"]
    assert radius_texts == [explorer.setup()["norms"]["linf"]["radii"][place] for place in (0, 4, 16)]
    assert setup["labels"] == explorer.album.split.labels[:2].tolist() and list(content["images"]) == ["0", "1"]
    for key, by_radius in content["cells"].items():
        view = View(key, setup["labels"][int(key)], 4 / 255, 20, "cross-entropy")
        for place, cell in enumerate(by_radius[radius_texts[1]]):
            exhibit, entry = explorer.exhibits[place], explorer.album.entry(key)
            adversarial = explorer.adversarial(place, view)
            whole = measure.measure_cell(exhibit, entry, adversarial, view, lambda _: "")
            assert cell["attention"] == pytest.approx(whole["attention"], rel=5e-3)
            assert (cell["prediction"], cell["ranks"]) == (whole["prediction"], whole["ranks"])
            for name in ("truth", "moved", "spearman"):
                assert cell[name] == pytest.approx(whole[name], abs=1e-6)
            deletions = measure.measure_deletions(exhibit, adversarial, view.label, range(64))
            assert cell["without"][0] == [prediction for prediction, _ in deletions]
            assert cell["without"][1] == pytest.approx([truth for _, truth in deletions], abs=5.1e-3)


def test_a_file_asks_for_nothing_and_replaces_no_other(page: Path, explorer: Explorer, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "default-src 'none'; img-src data:; script-src 'sha256-" in text and "unsafe" not in text
    assert "http:" not in text and "https:" not in text and 'src="page' not in text and 'href="page' not in text
    assert assets.is_page(page)
    own_page = tmp_path / "mine.html"
    own_page.write_text("mine")
    for images, words in ((1, "was not written by irt explore"), (41, "the test split has 40")):
        with pytest.raises(UserError, match=words):
            page_file.write(explorer, own_page, images, lambda _: None)
    assert own_page.read_text() == "mine"
    with pytest.raises(UserError, match=rf"--images {IMAGE} leaves out image {IMAGE}, .* give --images {IMAGE + 1} or"):
        page_file.write(explorer, tmp_path / "new.html", IMAGE, lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.html"]


def test_text_of_a_dataset_cannot_end_its_script() -> None:
    text = assets.embed_all({"classes": ["</script><script>alert(1)</script>"]})
    assert text.count("</script>") == 2


def test_the_command_writes_a_page_and_says_what_is_wrong(
    paths: list[Path], digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_file, "PLACES", (0, 8))
    monkeypatch.setattr("interpret_robust.study.explorer.opening.load", lambda _: digits)
    output = tmp_path / "page.html"
    words = [*map(str, paths), "01", "--save", str(output), "--images", "2", "--device", "cpu"]
    answer = CliRunner().invoke(cli.irt, ["explore", *words], catch_exceptions=False)
    assert answer.exit_code == 0 and answer.output.startswith(f"{output}: 2 models, 2 radii in l-infinity, 2 images, ")
    assert assets.is_page(output) and content_of(output)["setup"]["first"] == "1"
    for wrong, sentence in (
        (["a.png", "b.png"], "a.png and b.png are two images"),
        ([str(paths[0]), "gone.png"], "there is no picture gone.png"),
        ([str(paths[0]), "40"], "there is no image '40'"),
        ([str(paths[0]), "20", "--save", str(output)], "--images 20 leaves out image 20, .* give --images 21 or more"),
        ([str(paths[0]), "a.png", "--save", str(output)], "--save writes images of the split, not a.png: give the"),
        (["gone.safetensors"], "there is no checkpoint gone.safetensors"),
        (["--root", str(tmp_path / "none")], "there is no folder .*none: give as --root"),
        (["--root", str(tmp_path)], "there are no checkpoints"),
    ):
        with pytest.raises(UserError, match=sentence):
            CliRunner().invoke(cli.irt, ["explore", *wrong], catch_exceptions=False)


NET_WITH_FRAME = """
from torch import nn

class Net(nn.Sequential):
    pretrained_cfg = {
        "input_size": (3, 24, 20), "crop_pct": 0.8, "crop_mode": "squash", "interpolation": "bicubic"
    }

    def __init__(self):
        super().__init__(nn.Conv2d(3, 5, 5, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2))
"""


@pytest.mark.parametrize(
    ("size", "framing"), [(None, Framing((30, 25), (24, 20), "bicubic")), (18, Framing.square(18))]
)
def test_pictures_of_several_sizes_are_framed_as_the_analyses_frame_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int | None, framing: Framing
) -> None:
    pytest.importorskip("timm")
    generator = np.random.default_rng(0)
    for place, (height, width) in enumerate(((31, 47), (40, 29), (33, 64), (50, 41))):
        path = tmp_path / "fruit" / "ab"[place % 2] / f"{place}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (height, width, 3), np.uint8)).save(path)
    (tmp_path / "fruit" / "a" / "8.jpg").write_bytes(b"damaged")
    (tmp_path / "framed_by_tests.py").write_text(NET_WITH_FRAME)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setattr(page_file, "PLACES", (8,))
    explorers, write = list[Explorer](), page_file.write

    def keep_and_write(explorer: Explorer, path: Path, images: int, say: Say) -> None:
        explorers.append(explorer)
        write(explorer, path, images, say)

    monkeypatch.setattr(page_file, "write", keep_and_write)
    words = ["--model", "framed_by_tests:Net", "--dataset", "fruit", "--skip-damaged", "--device", "cpu"]
    words += [] if size is None else ["--size", str(size)]
    page = ["--save", "page.html", "--images", "2"]
    try:
        CliRunner().invoke(cli.irt, ["explore", *words, *page], catch_exceptions=False)
    finally:
        sys.modules.pop("framed_by_tests")
    split = load("fruit?damaged=skip").frame(framing).test
    assert assets.is_page(tmp_path / "page.html") and len(explorers[0].album.split) == len(split) == 4
    for place in range(4):
        pixels = make_batch(split, range(place, place + 1), CPU).images
        assert torch.equal(explorers[0].album.entry(str(place)).pixels, pixels)


def test_views_are_told_apart_by_all_that_is_asked(query: dict[str, str]) -> None:
    expected = {"image": str(IMAGE), "label": int(query["label"]), "eps": EPS, "steps": STEPS}
    assert asdict(parse(query, 10)) == expected | {"loss": "cross-entropy", "norm": "linf"}
    assert len({parse(query | {"steps": str(steps)}, 10) for steps in (1, 2, 1)}) == 2
