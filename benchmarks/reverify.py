"""Do stored analyses come out the same, here, from the checkpoints and the data that they name?

    python benchmarks/reverify.py analyses/robustness-cifar10-*.h5 analyses/gradmap-score-cifar10-*.h5 --limit 100

Each file's analysis is repeated for the first images, with the stored settings, checkpoints and evaluators, and its
rows are set against the stored ones; its statistics and examples are computed anew from all stored rows. Answers
(classes) are equal or not; numbers may differ by as much as rounding does, see `column_differences`. All that differs
is named, by column and image, and rounding explains an answer only where its margin, which a few analyses store, is
near zero. Processors round differently: on another one an attack may leave an image in another wrong class, and an
image on a boundary may go the other way.

Statistics are those of today's code: an older file has others where it was changed since, as the changelog says.

What depends on other images is compared only where all images are repeated: maps of gradmap-score and gradient-maps
that are scaled over the set (`clip-set`), the other image that alignment pairs each image with, and how many gradients
an attack takes, by what else is in its batch.

Exit status 1 where a file differs by more than rounding, else 2 where one cannot be verified: it, a checkpoint or the
data is not there, or not what the file names.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from column_differences import Comparison, compare_rows, compare_statistics

from interpret_robust import analyses
from interpret_robust.analyses.engine.work import Work
from interpret_robust.core import progress
from interpret_robust.core.configs import describe_differences
from interpret_robust.core.errors import EXIT_USER_ERROR, UserError
from interpret_robust.core.interruption import Stopped
from interpret_robust.results import hdf5
from interpret_robust.results.columns import Columns
from interpret_robust.results.tables import render
from interpret_robust.study.tasks import AnalysisTask

DIFFERENT = 1
"""Exit status where a file differs by more than rounding."""


@dataclass(frozen=True)
class Outcome:
    """What became of one file: its comparisons, or the sentence that says why there are none."""

    path: Path
    images: int = 0
    rows: tuple[Comparison, ...] = ()
    statistics: tuple[Comparison, ...] = ()
    obstacle: str = ""

    @property
    def status(self) -> int:
        """Return the exit status of this file alone."""
        if self.obstacle:
            return EXIT_USER_ERROR
        return 0 if all(comparison.is_explained for comparison in self.differences()) else DIFFERENT

    def differences(self) -> list[Comparison]:
        """Return the columns with entries that differ, those that rounding explains among them."""
        return [comparison for comparison in (*self.rows, *self.statistics) if comparison.deviations]

    def row(self) -> dict[str, str]:
        """Return its row of the table."""
        if self.obstacle:
            return {"file": self.path.name, "outcome": "not verified"}
        numbers = [comparison for comparison in self.rows if comparison.is_number]
        answers = [comparison for comparison in self.rows if not comparison.is_number]
        largest = max((comparison.largest for comparison in numbers), default=0)
        return {
            "file": self.path.name,
            "outcome": "differs" if self.status else "same",
            "images": str(self.images),
            "answers that differ": _share(answers),
            "numbers apart": _share(numbers),
            "largest difference": f"{largest:.1e}",
            "statistics that differ": _share(self.statistics),
        }

    def sentences(self) -> list[str]:
        """Return what is to be said of it beside its row."""
        return [self.obstacle] if self.obstacle else [f"{self.path.name}: {entry}" for entry in self.differences()]


def _share(comparisons: Sequence[Comparison]) -> str:
    deviations, count = (sum(getattr(entry, name) for entry in comparisons) for name in ("deviations", "count"))
    return f"{deviations:,} of {count:,}"


def verify(path: Path, checkpoints: Path, limit: int) -> Outcome:
    """Repeat one file's analysis for the first `limit` images, and compare rows and statistics.

    Raises UserError where the file cannot be verified, and Stopped on Ctrl-C.
    """
    original = analyses.read(path)
    schema = analyses.get(original.analysis).schema.restrict(original.version)
    with tempfile.TemporaryDirectory() as folder:
        whole, part = (
            make_task(original, checkpoints, Path(folder), images).work()
            for images in (original.count, min(limit, original.count))
        )
        check_config(original, whole)
        if part.split.sha256 != whole.split.first(len(part.split)).sha256:
            raise UserError(
                f"{path} is of a whole split in the order of its classes: --limit {original.count} asks all."
            )
        repetition = hdf5.read(part.run(position=1))
        rows = tuple(compare_rows(original, repetition, schema))
    statistics = tuple(compare_statistics(original, whole.summarize(Columns(original)), schema))
    return Outcome(path, repetition.count, rows, statistics)


def make_task(original: hdf5.Result, checkpoints: Path, folder: Path, limit: int) -> AnalysisTask:
    """Return the analysis that a file names, of its first `limit` images."""
    config = original.config
    evaluators = config.get("evaluators", {"names": [], "given": False})
    return AnalysisTask(
        original.analysis,
        checkpoints / f"{config['checkpoint']['name']}.safetensors",
        folder,
        analyses.get(original.analysis).settings(**config["settings"]),
        "cpu",
        source=original.run.get("source"),
        split=config["data"]["split"],
        limit=limit,
        batch_size=config["batch_size"],
        evaluators=tuple(checkpoints / f"{name}.safetensors" for name in evaluators["names"]),
        default_evaluators=not evaluators["given"],
        recalibrate=original.recalibration,
    )


def check_config(original: hdf5.Result, whole: Work) -> None:
    """Raise UserError where checkpoints, data or settings here are not those that a file names."""

    def select_facts(config: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in config.items() if key not in ("analysis", "device")}

    if difference := describe_differences(select_facts(original.config), select_facts(whole.config)):
        raise UserError(
            f"{original.path} is about something else ({difference}): give the checkpoints and data it names."
        )


def verify_all(paths: Sequence[Path], checkpoints: Path, limit: int) -> Iterator[Outcome]:
    """Yield what became of each file, also of those that cannot be verified; after Ctrl-C no others."""
    for path in progress.count_items(paths, "verify", "files"):
        try:
            yield verify(path, checkpoints, limit)
        except UserError as error:
            yield Outcome(path, obstacle=str(error))
        except Stopped as error:
            yield Outcome(path, obstacle=f"{error}.")
            return


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify each file, print a row for it and what differs, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    parser.add_argument("--limit", type=int, default=100, help="the first images of each file")
    options = parser.parse_args(arguments)
    if options.limit < 1:
        print(f"--limit is {options.limit}: give a number of images from 1 on.", file=sys.stderr)
        return EXIT_USER_ERROR
    outcomes = list(verify_all(options.files, options.checkpoints, options.limit))
    print(render([outcome.row() for outcome in outcomes]))
    for outcome in outcomes:
        for sentence in outcome.sentences():
            print(sentence)
    statuses = {outcome.status for outcome in outcomes}
    return DIFFERENT if DIFFERENT in statuses else max(statuses)


if __name__ == "__main__":
    sys.exit(main())
