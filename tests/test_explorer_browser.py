"""The explorer's page in a browser: the numbers of the server, by keyboard too, and nothing from elsewhere."""

import io
import json
import re
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from browser import CHROMIUM, Page, browser
from click.testing import CliRunner

from interpret_robust import cli
from interpret_robust.attacks.settings import Norm
from interpret_robust.core import process_pool
from interpret_robust.datasets import Dataset
from interpret_robust.datasets.npz import write_npz
from interpret_robust.models.external import find_subject
from interpret_robust.study.explorer import measure, models, opening, page_file
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
    return Explorer(
        [models.exhibit(find_subject(path), path, digits, CPU) for path in paths], Album(digits, "test", CPU), 0
    )


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
        patch.setattr(page_file, "PLACES", (0, 8, 16))
        path = tmp_path_factory.mktemp("baked") / "explore.html"
        page_file.write(explorer, path, 3, lambda _: None)
    return path


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


def wait(window: Page, expression: str) -> None:
    """Wait until an expression is true."""
    end = time.monotonic() + PATIENCE
    while not window.value(expression):
        assert time.monotonic() < end, f"{expression}; {window.value('document.body.innerText')}"
        time.sleep(0.02)


def begin(window: Page, address: str, width: int = 1280, *, dark: bool = False) -> None:
    window.requests.clear()
    window.complaints.clear()
    window.open(address, width, 900, dark=dark)
    wait(window, IS_DRAWN)


IS_DRAWN = "isWhole(view.eps) && byId('cards').getAttribute('aria-busy') === 'false'"
ROWS = "[...document.querySelectorAll('#summary tbody tr')].map((row) => [...row.cells].map((one) => one.textContent))"


NUMBERS = "[...document.querySelectorAll('{}')].map((one) => one.textContent)"


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
            cells.append(measure.measure_cell(exhibit, album.entry(image), adversarial, view, lambda _: ""))
        sees = [
            f"{album.dataset.class_names[cell['prediction']]} {'✓' if cell['prediction'] == label else '✗'} "
            f"{percent(cell['answers'][0][1])}"
            for cell in cells
        ]
        natural_class, attacked_class = (album.dataset.class_names[cell["prediction"]] for cell in cells)
        share = percent(cells[1]["moved"]) + ("" if exhibit.weight == "attention" else " (Grad-CAM)")
        if exhibit.weight != "attention" and natural_class != attacked_class:
            share = f"\u2013 (Grad-CAM of {natural_class}, then {attacked_class})"
        rows.append([exhibit.subject.job["variant"], *sees, share])
    return rows


def rows(window: Page) -> list[list[str]]:
    return [[name, natural, adversarial, shift] for name, natural, adversarial, _, _, shift in window.value(ROWS)]


def slide(window: Page, place: int) -> None:
    eps = "document.getElementById('eps')"
    window.value(f"{eps}.value = {place}; {eps}.dispatchEvent(new Event('input')); 0")
    wait(window, f"view.eps === radii()[{place}] && {IS_DRAWN}")


@pytest.mark.long
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
    for place, answers in enumerate(limits):
        view = View("0", explorer.album.label("0") or 0, 16 / 255, 20, "cross-entropy")
        adversarial = explorer.adversarial(place, view)
        assert answers[16] == (int(explorer.exhibits[place].network(adversarial).argmax()) == view.label)
    foreign = {address for address in window.requests if not address.startswith((server.address, "data:", "about:"))}
    assert foreign == set() and window.complaints == []


def test_keys_move_image_radius_and_position(window: Page, server: Server, explorer: Explorer) -> None:
    begin(window, f"{server.address}#image=1&eps=2/255&steps=3")
    window.press("ArrowRight", 39)
    wait(window, f"view.image === '2' && {IS_DRAWN}")
    window.press("ArrowUp", 38)
    wait(window, f"view.eps === '3/255' && {IS_DRAWN}")
    wait(window, "document.getElementById('caption').textContent.startsWith('image 3 of 40 (index 2): ')")
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
        ((prediction, truth),) = measure.measure_deletions(explorer.exhibits[place], adversarial, label, range(20, 21))
        assert line.endswith(f"→ {percent(truth or 0.0)}")
        assert f" {explorer.album.dataset.class_names[prediction]} " in line
    wait(window, "readAddress().position === view.position")
    address = window.value("location.href")
    assert "position=0.3125%2C0.5625" in address and "image=2" in address and "steps=3" in address
    window.press("Escape", 27)
    wait(window, "view.position === null && !document.querySelector('.at-position')")
    begin(window, address)
    assert window.value("[view.image, view.eps, view.steps, view.position]") == ["2", "3/255", 3, "0.3125,0.5625"]


@pytest.mark.long
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
    pixels = window.value("[...adversarialPixels(cellOf(0, view.eps)).data].filter((_, place) => place % 4 < 3)")
    values = torch.tensor(pixels).reshape(1, 32, 32, 3).permute(0, 3, 1, 2)
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
        [True] * 3
    )
    assert window.value("byId('norm-text').textContent") == {"l2": "L2", "l1": "L1"}[norm]


def test_a_file_says_in_which_norm_it_was_made(window: Page, explorer: Explorer, tmp_path: Path) -> None:
    path = tmp_path / "explore.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_file, "PLACES", (0, 8))
        page_file.write(Explorer(explorer.exhibits, explorer.album, 0, norm="l2"), path, 1, lambda _: None)
    begin(window, path.as_uri())
    assert rows(window) == expected_rows(explorer, "0", 0.5, norm="l2")
    assert window.value("byId('norm-text').textContent") == "L2"
    sentence = (
        "This page holds one attack: L2, PGD-20, cross-entropy, seed 0; gradient scale clip. "
        "For others run irt explore."
    )
    assert window.value("byId('fixed').innerText") == sentence
    usable = "[...document.querySelectorAll('select, input, button')].filter((one) => one.checkVisibility())"
    assert window.value(f"{usable}.map((one) => one.id)") == [
        *("eps", "previous", "next", "random", "class", "outcome", "sign", "link", "save")
    ]
    assert "not computed yet" not in window.value("document.body.innerText")
    assert window.value(f"[{NUMBERS.format('#ticks span')}, byId('unit').textContent]") == [["0", "0.5"], ""]


def test_screen_readers_have_a_name_for_all_there_is(window: Page, server: Server) -> None:
    begin(window, server.address)
    nodes = window.send("Accessibility.getFullAXTree")["nodes"]
    roles = ("slider", "combobox", "button", "spinbutton", "image", "table", "status")
    roles_with_names = {"slider", "combobox", "button", "spinbutton", "image"}
    entries = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
    assert {role for role, _ in entries} >= set(roles)
    assert [role for role, name in entries if role in roles_with_names and not name.strip()] == []
    pictures = window.value(
        "[...document.querySelectorAll('canvas')].every((one) => one.getAttribute('aria-label').length > 5)"
    )
    assert pictures


@pytest.fixture(scope="module")
def own_server(
    digits: Dataset, make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Two models on images in a file, which commands can read."""
    folder = tmp_path_factory.mktemp("own")
    arrays: dict[str, Any] = {}
    for part, split in (("train", digits.train), ("test", digits.test)):
        arrays |= {f"x_{part}": split.images[:], f"y_{part}": split.labels}
    write_npz(folder / "mine.npz", arrays)
    paths = [make_checkpoint(folder, variant) for variant in ("at", "at-att")]
    with Server(opening.open_explorer(paths, [], str(folder / "mine.npz"), "test", 0, "cpu")) as running:
        thread = Thread(target=running.serve_until_interrupted)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def run_lines(window: Page) -> list[str]:
    """Return what the lines that the page names print, each by itself, where an analysis takes one image at a time.

    The page does so too. In a batch of another size, some processors round otherwise, and PGD makes more of it.
    """
    outputs = []
    for line in window.value("byId('commands').textContent").splitlines():
        program, *words = shlex.split(line, comments=True) or [""]
        if program == "irt":
            words += ["--batch-size", "1"] if words[0] in {"analyze", "evaluate"} else []
            outcome = CliRunner().invoke(cli.irt, words, catch_exceptions=False)
            assert outcome.exit_code == 0, outcome.output
            outputs.append(outcome.stdout)
        elif program:
            assert (program, words[0]) == ("python", "-c")
            with redirect_stdout(io.StringIO()) as text:
                exec(compile(words[1], "page", "exec"), {})
            outputs.append(text.getvalue())
    return outputs


def numbers_of(text: str) -> dict[str, dict[str, str]]:
    """What `irt show --image` prints of each column, by its name: values by their places."""
    columns: dict[str, dict[str, str]] = {}
    for line in text.splitlines()[1:]:
        if line.startswith("  "):
            place, _, value = line.strip().rpartition(": ")
            columns[list(columns)[-1]][place] = value
        else:
            columns[line.partition(":")[0]] = {}
    return columns


def class_text(place: int) -> str:
    return f"{['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine'][place]} ({place})"


@pytest.mark.long
@pytest.mark.parametrize(
    ("address", "loss"), [("norm=linf&eps=4/255", "cross-entropy"), ("norm=l2&eps=0.125", "margin")]
)
def test_the_lines_that_are_named_print_the_numbers_of_the_page(
    window: Page,
    own_server: Server,
    address: str,
    loss: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin(window, f"{own_server.address}#image=3&{address}")
    window.value(f"byId('loss').value = '{loss}'; byId('loss').dispatchEvent(new Event('change')); 0")
    wait(window, f"view.loss === '{loss}' && {IS_DRAWN}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100000")
    monkeypatch.setattr(process_pool, "count_cores", lambda: 1)
    outputs = run_lines(window)
    columns = [numbers_of(text) for text in outputs if "checksum good" in text]
    is_margin, models_shown = loss == "margin", 2
    assert len(columns) == models_shown * (1 if is_margin else 3)
    table = rows(window)
    cells = window.value("setup.models.map((_, model) => [cellOf(model, '0'), cellOf(model, view.eps)])")
    for place, ((_, natural, adversarial, shift), (clean, cell)) in enumerate(zip(table, cells, strict=True)):
        predictions, reading = columns[place], "CW-20" if is_margin else "PGD-20"
        name = f"cluttered-digits-small-{('at', 'at-att')[place]}-seed0"
        assert predictions["prediction_natural"][name] == class_text(clean["prediction"])
        assert predictions["prediction"][f"restart 0, {reading}, {name}"] == class_text(cell["prediction"])
        assert adversarial.startswith(f"class {cell['prediction']} ")
        tensors = re.findall(r"tensor\(\[(.*?)\]", outputs[place - models_shown], re.DOTALL)
        assert len(tensors) == 2
        for answer, text, probabilities in zip((clean, cell), (natural, adversarial), tensors, strict=True):
            assert text.endswith(percent(float(probabilities.split(",")[answer["prediction"]])))
        if is_margin:
            continue
        ranks, maps = columns[models_shown + place], columns[2 * models_shown + place]
        assert float(ranks["spearman"][""]) == pytest.approx(cell["spearman"], abs=1e-4)
        assert percent(cell["moved"]) == percent(float(maps["distance"][""]))
        assert shift.startswith(("\u2013 (Grad-CAM of ", percent(cell["moved"])))
        attention = [float(weight) for weight in ranks["attention_adversarial"]["by position"].split()]
        assert attention == pytest.approx(cell["attention"], abs=1e-5)
        distance = [float(length) for length in ranks["distance"]["by position"].split()]
        assert distance.index(min(distance)) == cell["ranks"].index(0)


@pytest.mark.long
def test_a_reader_who_knows_nothing_is_told_what_names_and_numbers_mean(window: Page, page: Path) -> None:
    begin(window, f"{page.as_uri()}#eps=8/255")
    text = window.value("document.body.innerText")
    assert "at: adversarial training; at-att: adversarial training with attention." in text
    assert "At eps 8/255 no value of a pixel, from 0 to 255, changes by more than 8." in text
    assert (
        "The percentage behind a class is the probability" in text and "as in the paper's Figure 2; below zero" in text
    )


def test_a_file_names_lines_too(window: Page, page: Path, explorer: Explorer) -> None:
    begin(window, f"{page.as_uri()}#image=2&eps=8/255")
    lines = window.value("byId('commands').textContent").splitlines()
    view = View("2", 0, 8 / 255, 20, "cross-entropy", explorer.norm)
    files = [name for place in range(2) for name in explorer.files(place, view).values()]
    assert len(files) == 6 and {f"irt show {name}-first3.h5 --image 2" for name in files} == {
        line for line in lines if line.startswith("irt show")
    }


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


def right(explorer: Explorer, image: int, eps: float) -> list[bool]:
    """Which models are right, as the models themselves say."""
    label = explorer.album.label(str(image))
    assert label is not None
    view = View(str(image), label, eps, 20, "cross-entropy")
    adversarial = [explorer.adversarial(place, view) for place in range(len(explorer.exhibits))]
    answers = [exhibit.network(pixels) for exhibit, pixels in zip(explorer.exhibits, adversarial, strict=True)]
    return [int(answer.argmax()) == label for answer in answers]


def test_filters_say_how_many_images_fit(window: Page, page: Path, explorer: Explorer) -> None:
    begin(window, page.as_uri())
    labels = explorer.album.split.labels[:3].tolist()
    options = window.value("[...byId('class').options].slice(1).map((one) => [one.textContent, one.disabled])")
    names = explorer.album.dataset.class_names
    assert options == [[f"{name} ({labels.count(place)})", place not in labels] for place, name in enumerate(names)]
    pairs = [(right(explorer, image, 0.0), right(explorer, image, 8 / 255)) for image in range(3)]
    counts = {
        "natural": sum(all(natural) for natural, _ in pairs),
        "mistaken": sum(not all(natural) for natural, _ in pairs),
        "split": sum(any(answers) and not all(answers) for _, answers in pairs),
        "withstood": sum(all(answers) for _, answers in pairs),
        "broken": sum(any(natural) and not any(answers) for natural, answers in pairs),
    }
    entries = window.value("[...byId('outcome').options].slice(1).map((one) => [one.value, one.text, one.disabled])")
    assert {name: int(text.rpartition("(")[2][:-1]) for name, text, _ in entries} == counts
    assert {name for name, _, is_off in entries if is_off} == {name for name, count in counts.items() if not count}


def test_a_filter_that_nothing_fits_says_so_beside_itself(window: Page, page: Path, explorer: Explorer) -> None:
    begin(window, page.as_uri())
    absent = next(place for place in range(10) if place not in explorer.album.split.labels[:3])
    heights = (
        "[...document.querySelectorAll('#cards, #filters, #summary')].map((one) => one.getBoundingClientRect().top)"
    )
    tops = window.value(heights)
    window.value(f"view.class = '{absent}'; find(1)")
    assert window.value("byId('none').textContent") == "None of 3 images fits."
    assert window.value("byId('error').hidden") and window.value(heights) == tops


def test_cells_and_slider_have_numbers_and_a_click_on_a_cell_chooses_it(
    window: Page, page: Path, server: Server, explorer: Explorer
) -> None:
    begin(window, page.as_uri())
    assert window.value(NUMBERS.format("#ticks span")) == ["0", "8", "16"]
    assert window.value(NUMBERS.format("#summary .strip i")) == 2 * ["0", "8", "16"]
    assert window.value("[byId('unit').innerText, byId('strip-unit').innerText]") == ["/255", " in /255"]
    window.value("document.querySelectorAll('#summary .strip i')[2].click(); 0")
    wait(window, f"view.eps === '16/255' && {IS_DRAWN}")
    assert rows(window) == expected_rows(explorer, "0", 16 / 255)
    begin(window, f"{server.address}#image=1&norm=l1&eps=12&steps=2")
    numbers = [text for text in window.value(NUMBERS.format("#ticks span")) if text]
    assert numbers == ["0", "6", "12", "18", "24"]
    middle = (
        "(({ left, width }) => left + width / 2)(document.querySelectorAll('#ticks span')[8].getBoundingClientRect())"
    )
    thumb = "(({ left, width }) => left + width / 2)(byId('eps').getBoundingClientRect())"
    assert abs(window.value(middle) - window.value(thumb)) < 1.0


def test_without_an_attack_the_table_shows_none(window: Page, page: Path, explorer: Explorer) -> None:
    begin(window, page.as_uri())
    assert window.value("byId('basis').textContent") == (
        "For this one image and one attack: l-infinity, PGD-20, cross-entropy, seed 0. "
        "At eps 8/255 no value of a pixel, from 0 to 255, changes by more than 8."
    )
    slide(window, 0)
    natural = [row[:2] for row in expected_rows(explorer, "0", 8 / 255)]
    assert rows(window) == [[*row, "no attack", "\u2013"] for row in natural]
    counts = "[...byId('outcome').options].filter((one) => one.disabled).map((one) => [one.value, one.text.slice(-3)])"
    assert [[name, "(0)"] for name in ("split", "withstood", "broken")] == [
        pair for pair in window.value(counts) if pair[0] not in ("natural", "mistaken")
    ]
    captions = window.value(NUMBERS.format("#cards figcaption"))
    assert [text.split(",")[0].split(" ")[0] for text in captions] == 2 * ["natural", "gradient"]


def test_ranks_count_from_one(window: Page, page: Path) -> None:
    begin(window, page.as_uri())
    ranks = window.value("setup.models.map((_, model) => cellOf(model, view.eps).ranks)")
    first, last = (ranks[0].index(extreme(ranks[0])) for extreme in (min, max))
    for place, number in ((first, min(ranks[0])), (last, max(ranks[0]))):
        window.value(f"choose({place // 8}, {place % 8}, [8, 8])")
        wait(window, "document.querySelectorAll('.at-position').length === 2")
        wait(window, f"document.querySelector('.at-position').textContent.includes('rank {number:g} of 0 to 63;')")


VERDICT = """(() => {{
  const wrong = (view.label + 1) % 10;
  for (const [model, shares] of {shares}.entries()) {{
    for (const [place, truth] of shares.entries()) {{
      const answers = [[view.label, truth], [wrong, 1 - truth]];
      const prediction = truth > 0.5 ? view.label : wrong;
      Object.assign(cellOf(model, radii()[place]), {{ prediction, truth, answers }});
    }}
  }}
  showVerdict();
  return [byId('headline').textContent, document.querySelectorAll('#summary .best').length];
}})()"""


@pytest.mark.parametrize(
    ("shares", "words", "stars"),
    [
        (
            [[0.9, 0.51, 0.2], [0.9, 0.48, 0.2]],
            'Most robust here: "at", right up to eps 8/255. First to fail: "at-att"',
            1,
        ),
        (
            [[0.9, 0.51, 0.2], [0.9, 0.49, 0.2]],
            'Too close to call: "at", right up to eps 8/255, where "at-att" failed',
            0,
        ),
        (
            [[0.9, 0.51, 0.51], [0.9, 0.49, 0.49]],
            'Most robust here: "at", right up to eps 16/255. First to fail: "at-att"',
            1,
        ),
        ([[0.9, 0.6, 0.2], [0.9, 0.9, 0.2]], '"at" and "at-att": right up to eps 8/255, none further than another.', 0),
        ([[0.9, 0.2, 0.2], [0.4, 0.2, 0.2]], 'No model withstands eps 8/255. Right without an attack: "at".', 0),
    ],
)
def test_a_near_tie_is_no_verdict(window: Page, page: Path, shares: list[list[float]], words: str, stars: int) -> None:
    begin(window, page.as_uri())
    headline, count = window.value(VERDICT.format(shares=json.dumps(shares)))
    assert headline.startswith(words) and count == stars
    is_close = words.startswith("Too close")
    assert window.value("!byId('close').hidden") == is_close
    assert window.value("byId('headline').title") == (window.value("byId('close').textContent") if is_close else "")
    assert window.value("byId('close').textContent").startswith("Too close to call: the model that fails last leads by")
    whole = window.value("[...document.querySelectorAll('#headline .name')].map((one) => one.textContent)")
    assert set(whole) == set(re.findall("at-att", headline))


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ([0.2, 0.2, 0.2], '"at" is wrong without an attack: this nine is seen as something else.'),
        ([0.9, 0.2, 0.2], '"at": right without an attack, wrong at eps 8/255.'),
        ([0.9, 0.9, 0.2], '"at": right up to eps 8/255.'),
    ],
)
def test_the_headline_of_a_single_model_is_of_one(window: Page, page: Path, shares: list[float], words: str) -> None:
    begin(window, page.as_uri())
    window.value("setup.models.length = 1")
    headline, stars = window.value(VERDICT.format(shares=json.dumps([shares])))
    assert (headline[: len(words)], stars) == (words, 0)


def test_doubts_stand_beside_the_model_and_under_its_row_with_commands_as_code(window: Page, page: Path) -> None:
    begin(window, page.as_uri())
    window.value("setup.models[0].doubts = ['it is odd: see `irt flags`.']; showVerdict()")
    first, second = window.value("[...document.querySelectorAll('#summary tbody th')].map((one) => one.innerHTML)")
    assert '<small title="it is odd: see `irt flags`."> in doubt</small>' in first and "doubt" not in second
    window.value("write(byId('doubts'), `In doubt, ${setup.models[0].name}: ${setup.models[0].doubts[0]}`)")
    assert window.value("byId('doubts').innerHTML") == "In doubt, at: it is odd: see <code>irt flags</code>."
    assert window.value("byId('summary').nextElementSibling.id") == "doubts"


def test_a_correlation_of_few_positions_says_so(window: Page, page: Path) -> None:
    begin(window, page.as_uri())
    cell = "cellOf(1, view.eps).ranks.slice(0, 4)"
    tiles = "tiles({...setup.models[1], grid: [2, 2]}, {attention: [1, 0, 0, 0]}, {...cellOf(1, view.eps), ranks: %s})"
    captions = f"[...{tiles}.querySelectorAll('figcaption')].at(-1).textContent"
    assert window.value(captions % cell).endswith(" of only 4 positions")
    assert "of only" not in window.value("document.body.innerText")


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ([("grad-cam", -0.5), ("attention", -0.25)], "does not hold in at-att (Spearman \u22120.25)."),
        (
            [("attention", 0.5), ("attention", -0.25)],
            "holds in at (Spearman 0.50), and does not hold in at-att (Spearman \u22120.25).",
        ),
        ([("attention", 0.5), ("attention", 0.25)], "holds in at (Spearman 0.50) and at-att (Spearman 0.25)."),
        ([("grad-cam", 0.5), ("grad-cam", 0.5)], ""),
    ],
)
def test_the_page_says_whether_the_claim_on_attention_holds(
    window: Page, page: Path, models: list[tuple[str, float]], words: str
) -> None:
    begin(window, page.as_uri())
    window.value(
        f"{json.dumps(models)}.forEach(([weights, spearman], place) => {{ setup.models[place].weights = weights;"
        " cellOf(place, view.eps).spearman = spearman; }); showVerdict()"
    )
    beginning = "The paper claims that more attention goes to more robust features. On this image, at eps 8/255, that "
    assert window.value("byId('claim').textContent") == (words and beginning + words)
    slide(window, 0)
    assert window.value("byId('claim').textContent") == ""


def test_a_star_is_explained_where_one_is_shown(window: Page, page: Path) -> None:
    begin(window, page.as_uri())
    for shares, stars in (([[0.9, 0.2, 0.2], [0.9, 0.9, 0.9]], 1), ([[0.9, 0.9, 0.2], [0.9, 0.9, 0.2]], 0)):
        assert window.value(VERDICT.format(shares=json.dumps(shares)))[1] == stars
        assert window.value("byId('star').checkVisibility()") == bool(stars)


@pytest.mark.long
@pytest.mark.parametrize("width", [1280, 1265, 1000, 850, 400])
def test_the_page_of_five_models_does_not_scroll_sideways(window: Page, width: int) -> None:
    """1265 is a window of 1280 beside a scroll bar."""
    begin(window, (Path(__file__).parents[1] / "docs/explore-cifar10.html").as_uri(), width)
    for place in range(7):
        slide(window, place)
        assert window.value("document.documentElement.scrollWidth") <= width


def test_grad_cam_is_compared_where_the_class_stays_and_attention_alone_is_named(window: Page, page: Path) -> None:
    begin(window, page.as_uri())
    share = window.value("percent(cellOf(1, view.eps).moved)")
    motion = window.value("motion()")
    note = "In its place stands Grad-CAM of the predicted class where a model has no attention:"
    assert window.value("byId('class-note').textContent").startswith(note)
    assert motion == f" Attention moved at eps 8/255, of the models that have it: {share} in at-att."
    words = "movedCell({weights: '%s'}, {prediction: 1}, {prediction: %d, moved: 0.28}).textContent"
    of_two = "\u2013 (Grad-CAM of one, then two)"
    assert window.value(words % ("Grad-CAM", 1)) == "28\u00a0% (Grad-CAM)"
    assert window.value(words % ("Grad-CAM", 2)) == of_two
    assert window.value(words % ("feature norm", 2)) == "28\u00a0% (feature norm)"
    assert window.value(words % ("attention", 2)) == "28\u00a0%"


def test_a_phone_shows_image_and_arrows_above_the_headline(window: Page, page: Path) -> None:
    begin(window, page.as_uri(), 400)
    boxes = window.value(
        "['photo', 'next', 'headline', 'summary', 'filters'].map((id) => byId(id).getBoundingClientRect())"
        ".map(({ top, bottom, width }) => [top, bottom, width])"
    )
    (_, photo, width), (_, arrow, _), (headline, end, _), (table, _, _), (filters, _, _) = boxes
    assert width <= 100 and max(photo, arrow) <= headline and end <= table < filters


def test_a_file_opens_from_disk_and_asks_for_nothing(window: Page, page: Path, explorer: Explorer) -> None:
    begin(window, page.as_uri())
    assert rows(window) == expected_rows(explorer, "0", 8 / 255)
    slide(window, 2)
    wait(window, "document.getElementById('eps-text').textContent === '16/255'")
    assert rows(window) == expected_rows(explorer, "0", 16 / 255)
    assert {address for address in window.requests if not address.startswith(("data:", "about:"))} == {page.as_uri()}
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


@pytest.mark.long
def test_a_view_is_saved_as_a_picture(window: Page, page: Path) -> None:
    begin(window, page.as_uri())
    download: Any = window.value(
        "(async () => { let link;"
        "HTMLAnchorElement.prototype.click = function () { link = [this.download, this.href]; };"
        "await saveView(); const picture = new Image(); picture.src = link[1]; await picture.decode();"
        "return [link[0], picture.naturalWidth, picture.naturalHeight]; })()"
    )
    assert download[0] == "explore-cluttered-digits-0-eps8-255.png" and download[1] >= 900 and download[2] >= 600
