"""How long does the explorer's page take to follow its slider?

    python benchmarks/explorer_latency.py checkpoints/cifar10-small-*-seed0.safetensors --page docs/explore-cifar10.html

As it is computed: a view is asked for over HTTP, as the page asks, at a radius and an image that were not asked for
before, and the time is taken to the first cell of every model (three steps) and to the last cell (all steps). With
--page FILE, which `irt explore --save` wrote, and Chromium: the slider is moved in the browser four times a second, and
the time is taken until everything is drawn. `load` says whether others computed too.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np
from machine import describe_machine

MOVE = """(async () => {
  const times = [];
  const cards = byId("cards");
  for (let place = 0; place < %d; place += 1) {
    if (place %% 7 === 6) await find(1);
    await new Promise((next) => setTimeout(next, 250));
    const eps = radii()[(radii().indexOf(view.eps) + 1) %% radii().length];
    const began = performance.now();
    move({ eps });
    while (cards.getAttribute("aria-busy") !== "false") await new Promise((next) => setTimeout(next, 0));
    times.push(performance.now() - began);
  }
  return times;
})()"""


def move_on_server(paths: list[Path], moves: int, steps: int) -> Iterator[tuple[float, float]]:
    """Yield seconds to the first cells of all models, and to all of the last, for each move."""
    from interpret_robust.study.explorer import opening
    from interpret_robust.study.explorer.server import Server

    explorer = opening.open_explorer(paths, [], None, "test", 0, "cpu")
    radii = explorer.setup()["norms"][explorer.norm]["radii"][1:]
    with Server(explorer) as server:
        Thread(target=server.serve_until_interrupted, daemon=True).start()
        for move in range(-3, moves):  # the first ones warm up
            image = move + 3
            view = {
                "image": image,
                "label": explorer.album.label(str(image)),
                "eps": radii[move % len(radii)],
                "steps": steps,
                "loss": "cross-entropy",
                "norm": explorer.norm,
            }
            times: dict[int, list[float]] = {}
            began = time.perf_counter()
            for line in urlopen(f"{server.address}cells?{urlencode(view)}"):
                message = json.loads(line)
                if "cell" in message:
                    times.setdefault(message["model"], []).append(time.perf_counter() - began)
            assert len(times) == len(paths)
            if move >= 0:
                yield max(of_model[0] for of_model in times.values()), max(of_model[-1] for of_model in times.values())
        server.shutdown()


def move_in_file(page: Path, moves: int) -> list[float]:
    """Return the seconds of each move of the slider, in a browser, of a page in one file."""
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from browser import browser

    with tempfile.TemporaryDirectory() as folder, browser(Path(folder)) as window:
        window.open(page.resolve().as_uri())
        times: list[float] = window.value(MOVE % moves)
    return [milliseconds / 1000 for milliseconds in times]


def describe(name: str, seconds: list[float]) -> str:
    """Return a row of a table in Markdown."""
    median, tail = (f"{1000 * np.percentile(seconds, share):.0f} ms" for share in (50, 95))
    return f"| {name} | {median} | {tail} | {len(seconds)} |"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--moves", type=int, default=60)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--page", type=Path, help="a page in one file, to be moved in Chromium")
    arguments = parser.parse_args()
    machine = describe_machine()
    times = list(move_on_server(arguments.checkpoints, arguments.moves, arguments.steps))
    rows = [
        describe(f"server, first picture of {len(arguments.checkpoints)} models", [first for first, _ in times]),
        describe(f"server, all of PGD-{arguments.steps}", [last for _, last in times]),
    ]
    if arguments.page:
        rows.append(describe("one file, in a browser", move_in_file(arguments.page, arguments.moves)))
    print("\n".join(["| | p50 | p95 | moves |", "|---|---|---|---|", *rows]))
    print(json.dumps(machine | {"load after": describe_machine()["load"]}))


if __name__ == "__main__":
    main()
