"""The explorer's page in a browser: the numbers of the server, by keyboard too, and nothing from elsewhere."""

import json
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import click
import pytest
import torch
from browser import CHROMIUM, Page, browser

from interpret_robust import cli
from interpret_robust.attacks.ball import Norm
from interpret_robust.datasets import Dataset
from interpret_robust.study.explorer import baked, measure, models
from interpret_robust.study.explorer.album import Album
from interpret_robust.study.explorer.explorer import Explorer
from interpret_robust.study.explorer.server import Server
from interpret_robust.study.explorer.view import View

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")

CPU = torch.device("cpu")
PATIENCE = 120.0
"""Seconds after which something that a page should show is taken not to come."""


@pytest.fixture(scope="module")
def explorer(
    digits: Dataset, make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Explorer:
    folder = tmp_path_factory.mktemp("explorer")
    paths = [make_checkpoint(folder, variant) for variant in ("at", "at-att")]
    return Explorer([models.exhibit(path, None, digits, CPU) for path in paths], Album(digits, "test", CPU), 0)


@pytest.fixture(scope="module")
def server(explorer: Explorer) -> Iterator[Server]:
    with Server(explorer) as running:
        thread = Thread(target=running.serve_until_interrupted)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def page(explorer: Explorer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images at three radii in one file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baked, "PLACES", (0, 8, 16))
        path = tmp_path_factory.mktemp("baked") / "explore.html"
        baked.write(explorer, path, 3, lambda _: None)
    return path


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


def wait(window: Page, expression: str) -> None:
    """Wait until an expression is true."""
    end = time.monotonic() + PATIENCE
    while not window.value(expression):
        assert time.monotonic() < end, f"{expression}; {window.value('document.body.innerText')}"
        time.sleep(0.02)


def begin(window: Page, address: str, width: int = 1280, *, dark: bool = False) -> None:
    window.asked.clear()
    window.complaints.clear()
    window.open(address, width, 900, dark=dark)
    wait(window, IS_DRAWN)


IS_DRAWN = "isWhole(view.eps) && byId('cards').getAttribute('aria-busy') === 'false'"
ROWS = "[...document.querySelectorAll('#summary tbody tr')].map((row) => [...row.cells].map((one) => one.textContent))"


def percent(share: float) -> str:
    """A share as the page writes it."""
    return f"{100 * share:.{1 if share < 0.0995 else 0}f}\u00a0%"


def expected_rows(explorer: Explorer, image: str, eps: float, steps: int = 20, norm: Norm = "linf") -> list[list[str]]:
    """Names, what models see on the natural and the adversarial image, and how far attention moves."""
    rows, album = [], explorer.album
    label = album.label(image)
    assert label is not None
    for place, exhibit in enumerate(explorer.exhibits):
        cells = []
        for radius in (0.0, eps):
            view = View(image, label, radius, steps, "cross-entropy", norm)
            adversarial = explorer.adversarial(place, view)
            cells.append(measure.cell(exhibit, album.entry(image), adversarial, view, lambda _: ""))
        sees = [
            f"{album.dataset.class_names[cell['prediction']]} {'✓' if cell['prediction'] == label else '✗'} "
            f"{percent(cell['answers'][0][1])}"
            for cell in cells
        ]
        kind = "" if exhibit.weight == "attention" else " (Grad-CAM)"
        rows.append([exhibit.subject.job["variant"], *sees, percent(cells[1]["moved"]) + kind])
    return rows


def rows(window: Page) -> list[list[str]]:
    return [[name, natural, attacked, moved] for name, natural, attacked, _, _, moved in window.value(ROWS)]


def slide(window: Page, place: int) -> None:
    eps = "document.getElementById('eps')"
    window.value(f"{eps}.value = {place}; {eps}.dispatchEvent(new Event('input')); 0")
    wait(window, f"view.eps === radii()[{place}] && {IS_DRAWN}")


def test_a_moved_slider_shows_the_numbers_of_irt_and_asks_nobody_else(
    window: Page, server: Server, explorer: Explorer
) -> None:
    begin(window, server.address)
    assert rows(window) == expected_rows(explorer, "0", 8 / 255)
    slide(window, 3)
    wait(window, "document.querySelector('#cards .sees').textContent.length > 3")
    assert window.value("document.getElementById('eps-text').textContent") == "3/255"
    assert rows(window) == expected_rows(explorer, "0", 3 / 255)
    wait(window, "document.getElementById('doing').textContent === ''")
    assert window.value("radii().every((one) => isWhole(one))")
    limits = window.value("setup.models.map((_, model) => limits(model).known)")
    for place, known in enumerate(limits):
        view = View("0", explorer.album.label("0") or 0, 16 / 255, 20, "cross-entropy")
        adversarial = explorer.adversarial(place, view)
        assert known[16] == (int(explorer.exhibits[place].network(adversarial).argmax()) == view.label)
    elsewhere = {one for one in window.asked if not one.startswith((server.address, "data:", "about:"))}
    assert elsewhere == set() and window.complaints == []


def test_keys_move_image_radius_and_position(window: Page, server: Server, explorer: Explorer) -> None:
    begin(window, f"{server.address}#image=1&eps=2/255&steps=3")
    window.press("ArrowRight", 39)
    wait(window, f"view.image === '2' && {IS_DRAWN}")
    window.press("ArrowUp", 38)
    wait(window, f"view.eps === '3/255' && {IS_DRAWN}")
    wait(window, "document.getElementById('caption').textContent.startsWith('image 2: ')")
    assert rows(window) == expected_rows(explorer, "2", 3 / 255, 3)
    window.value("choose(2, 4, [8, 8])")
    wait(
        window,
        "[...document.querySelectorAll('.at-position')].filter((one) => /deleted/.test(one.textContent)).length === 2",
    )
    label = explorer.album.label("2")
    assert label is not None
    view = View("2", label, 3 / 255, 3, "cross-entropy")
    for place, line in enumerate(
        window.value("[...document.querySelectorAll('.at-position')].map((one) => one.textContent)")
    ):
        adversarial = explorer.adversarial(place, view)
        ((prediction, truth),) = measure.deletions(explorer.exhibits[place], adversarial, label, range(20, 21))
        assert line.endswith(f"→ {percent(truth or 0.0)}")
        assert f" {explorer.album.dataset.class_names[prediction]} " in line
    wait(window, "readAddress().position === view.position")
    address = window.value("location.href")
    assert "position=0.3125%2C0.5625" in address and "image=2" in address and "steps=3" in address
    window.press("Escape", 27)
    wait(window, "view.position === null && !document.querySelector('.at-position')")
    begin(window, address)
    assert window.value("[view.image, view.eps, view.steps, view.position]") == ["2", "3/255", 3, "0.3125,0.5625"]


@pytest.mark.parametrize(("norm", "eps", "next_eps"), [("l2", "0.5", "0.5625"), ("l1", "12", "13.5")])
def test_the_slider_follows_the_norm(
    window: Page, server: Server, explorer: Explorer, norm: Norm, eps: str, next_eps: str
) -> None:
    begin(window, f"{server.address}#image=1&steps=4&eps=2/255")
    window.value(f"byId('norm').value = '{norm}'; byId('norm').dispatchEvent(new Event('change')); 0")
    wait(window, f"view.norm === '{norm}' && view.eps === '{eps}' && {IS_DRAWN}")
    assert rows(window) == expected_rows(explorer, "1", float(eps), 4, norm)
    window.press("ArrowUp", 38)
    wait(window, f"view.eps === '{next_eps}' && {IS_DRAWN}")
    assert rows(window) == expected_rows(explorer, "1", float(next_eps), 4, norm)
    entry, label = explorer.album.entry("1"), explorer.album.label("1") or 0
    adversarial = explorer.adversarial(0, View("1", label, float(next_eps), 4, "cross-entropy", norm))
    shown = window.value("[...adversarialPixels(cellOf(0, view.eps)).data].filter((_, place) => place % 4 < 3)")
    values = torch.tensor(shown).reshape(1, 32, 32, 3).permute(0, 3, 1, 2)
    largest = float((adversarial - entry.pixels).abs().max())
    assert (values / 255 - adversarial).abs().max() <= 0.5 / 255 + largest / 255 + 1e-6
    wait(window, f"readAddress().norm === '{norm}' && readAddress().eps === '{next_eps}'")
    address = window.value("location.href")
    begin(window, server.address)
    assert window.value("[view.norm, view.eps, byId('eps').max]") == ["linf", "8/255", "16"]
    begin(window, address)
    assert window.value("[view.norm, view.eps, view.steps]") == [norm, next_eps, 4]
    words = f"--eps {next_eps} --norm {norm}"
    assert [words in line for line in window.value("byId('commands').textContent").splitlines() if "--eps" in line] == (
        [True] * 4
    )
    assert window.value("byId('norm-text').textContent") == {"l2": "L2", "l1": "L1"}[norm]


def test_a_file_says_in_which_norm_it_was_made(window: Page, explorer: Explorer, tmp_path: Path) -> None:
    path = tmp_path / "explore.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baked, "PLACES", (0, 8))
        baked.write(Explorer(explorer.exhibits, explorer.album, 0, norm="l2"), path, 1, lambda _: None)
    begin(window, path.as_uri())
    assert rows(window) == expected_rows(explorer, "0", 0.5, norm="l2")
    assert window.value("byId('norm-text').textContent") == "L2"
    assert window.value("[byId('norm').disabled, byId('norm').length, byId('norm').value]") == [True, 1, "l2"]


def test_screen_readers_have_a_name_for_all_there_is(window: Page, server: Server) -> None:
    begin(window, server.address)
    nodes = window.do("Accessibility.getFullAXTree")["nodes"]
    roles = ("slider", "combobox", "button", "spinbutton", "image", "table", "status")
    named = {"slider", "combobox", "button", "spinbutton", "image"}
    seen = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
    assert {role for role, _ in seen} >= set(roles)
    assert [role for role, name in seen if role in named and not name.strip()] == []
    pictures = window.value(
        "[...document.querySelectorAll('canvas')].every((one) => one.getAttribute('aria-label').length > 5)"
    )
    assert pictures


def test_the_commands_that_are_named_are_commands(window: Page, server: Server) -> None:
    begin(window, f"{server.address}#image=3&norm=l2&eps=0.125")
    for loss, count in (("cross-entropy", 5), ("margin", 1)):
        window.value(f"byId('loss').value = '{loss}'; byId('loss').dispatchEvent(new Event('change')); 0")
        wait(window, f"view.loss === '{loss}' && {IS_DRAWN}")
        lines = window.value("byId('commands').textContent").splitlines()
        commands = [shlex.split(line) for line in lines if not line.startswith("#")]
        assert len(commands) == count
        for command in commands:
            assert command[0] == "irt" and command[-2:] == ["--limit", "4"]
            words = command[1:]
            group: click.Command = cli.irt
            while isinstance(group, click.Group):
                inner = group.get_command(click.Context(group), words.pop(0))
                assert inner is not None
                group = inner
            parameters = group.make_context("irt", words).params
            assert parameters["limit"] == 4 and parameters.get("eps") in (0.125, None)
            assert "eps" not in parameters or parameters["norm"] == "l2" or parameters["eps"] is None
            assert [path.is_file() for path in parameters["checkpoints"]] == [True, True]


def test_images_are_looked_for_by_class_and_outcome(window: Page, page: Path, explorer: Explorer) -> None:
    begin(window, page.as_uri())
    labels = explorer.album.split.labels[:3].tolist()
    window.value(f"byId('class').value = '{labels[2]}'; byId('class').dispatchEvent(new Event('change')); 0")
    wait(window, f"view.image === '{labels.index(labels[2])}' && {IS_DRAWN}")
    window.value(
        "byId('class').value = byId('outcome').value = ''; byId('class').dispatchEvent(new Event('change')); 0"
    )
    outcomes = [window.value(f"fits(OUTCOMES.natural, {image}, turn.signal)") for image in range(3)]
    for image, fits in enumerate(outcomes):
        entry = explorer.album.entry(str(image))
        right = [int(exhibit.network(entry.pixels).argmax()) == labels[image] for exhibit in explorer.exhibits]
        assert fits == all(right)


def test_a_file_opens_from_disk_and_asks_for_nothing(window: Page, page: Path, explorer: Explorer) -> None:
    begin(window, page.as_uri())
    assert rows(window) == expected_rows(explorer, "0", 8 / 255)
    slide(window, 2)
    wait(window, "document.getElementById('eps-text').textContent === '16/255'")
    assert rows(window) == expected_rows(explorer, "0", 16 / 255)
    assert {one for one in window.asked if not one.startswith(("data:", "about:"))} == {page.as_uri()}
    assert window.complaints == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [320, 400, 1280])
def test_the_page_fits_a_phone_and_is_light_or_dark(window: Page, page: Path, width: int, dark: bool) -> None:
    begin(window, page.as_uri(), width, dark=dark)
    window.value("choose(2, 2, [8, 8])")
    assert window.value("document.documentElement.scrollWidth") == width
    parts = "[...document.querySelectorAll('figcaption, h2, td, th, label, button')]"
    wide = f"{parts}.filter((one) => one.clientWidth && one.scrollWidth > one.clientWidth + 1)"
    assert window.value(f"{wide}.map((one) => one.textContent)") == []
    color = json.loads(f"[{window.value('getComputedStyle(document.body).backgroundColor')[4:-1]}]")
    assert (sum(color) < 150) == dark


def test_a_view_is_saved_as_a_picture(window: Page, page: Path) -> None:
    begin(window, page.as_uri())
    saved: Any = window.value(
        "(async () => { let link;"
        "HTMLAnchorElement.prototype.click = function () { link = [this.download, this.href]; };"
        "await saveView(); const picture = new Image(); picture.src = link[1]; await picture.decode();"
        "return [link[0], picture.naturalWidth, picture.naturalHeight]; })()"
    )
    assert saved[0] == "explore-cluttered-digits-0-eps8-255.png" and saved[1] >= 900 and saved[2] >= 600
