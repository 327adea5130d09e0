"""One self-contained HTML page of a study: claims with verdicts, tables, pictures, a gallery, provenance.

The page is made from analyses/*.h5 and the pictures drawn from them. It holds everything it shows, asks nothing of
the network, and equal inputs give equal bytes.
"""

import hashlib
import importlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

from interpret_robust import analyses, figures
from interpret_robust.core import process_pool, progress
from interpret_robust.core.errors import Say, UserError
from interpret_robust.core.files import remove_leftovers, replace_file
from interpret_robust.core.folders import Folders
from interpret_robust.core.locks import Lock
from interpret_robust.figures import drawing, saving
from interpret_robust.results import hdf5, names
from interpret_robust.results.hdf5 import Result
from interpret_robust.study.explorer import assets
from interpret_robust.study.report.embedding import PictureData, embed_file

_FIRST_LINE = "<!doctype html><!-- irt report {stamp} -->"
_STAMP = re.compile(re.escape(_FIRST_LINE).replace(r"\{stamp\}", "([0-9a-f]{64})"))


def write(folders: Folders, page: Path, say: Say) -> Path:
    """Write the report of a working directory to `page`, unless it is there already; returns `page`.

    A report of other files is replaced. Raises UserError where there are no analyses, where one of them cannot be
    read, and where `page` is something other than a report.
    """
    files = folders.list_analyses()
    if not files:
        raise UserError(f"there are no analyses in {folders.analyses}: `irt analyze` makes them.")
    _stamp_of(page)  # says so where it is no report, before files are read
    results = names.sort_newest_first(list(map(hdf5.read, progress.count_items(files, "reading", "files"))))
    explorer = assets.USUAL_NAME if assets.is_page(page.with_name(assets.USUAL_NAME)) else None
    stamp = _stamp(results, explorer)
    if _stamp_of(page) != stamp:
        with Lock(page):
            stamp_before = _stamp_of(page)
            if stamp_before != stamp:
                with _pictures(folders) as folder:
                    pictures = _draw(results, folder, say)
                    from interpret_robust.study.report.page import render

                    text = render(results, pictures, explorer)
                remove_leftovers(page)
                with replace_file(page) as partial:
                    partial.write_text(f"{_FIRST_LINE.format(stamp=stamp)}\n{text}", encoding="utf-8")
                say(f"{'rewrote' if stamp_before else 'wrote'} {page.name}")
                return page
    say(f"{page.name} is there already")
    return page


@contextmanager
def _pictures(folders: Folders) -> Iterator[Path]:
    """Yield the folder to draw into: that of the working directory, or a temporary one where it may not be written."""
    folder = folders.figures if folders.figures.exists() else folders.root
    if os.access(folder, os.W_OK):
        yield folders.figures
        return
    with TemporaryDirectory() as temporary:
        yield Path(temporary)


@dataclass(frozen=True)
class _Pictures:
    """The pictures of an analysis, to be drawn by any process."""

    figure: str
    files: tuple[Path, ...]
    folder: Path

    def __call__(self, position: int | None) -> str:  # noqa: ARG002 - as of any task
        """Draw them; return what was said, and each as it stands in the page by its path, as JSON."""
        messages: list[str] = []
        paths = drawing.draw_all(self.figure, self.files, self.folder, messages.append, with_pdf=False)
        return json.dumps([messages, {str(path): embed_file(path) for path in paths}])


FILES_A_WORKER = 8
"""Answers that are drawn in about the time that another process takes to start where it is not forked."""


def _draw(results: list[Result], folder: Path, say: Say) -> dict[str, dict[Path, PictureData]]:
    """Return the pictures of each analysis that has one, drawn side by side while all else is loaded."""
    tasks = [
        _Pictures(name, tuple(result.path for result in results if result.schema in labels), folder)
        for name, labels in ((name, hdf5.list_labels(figures.get(name).READS)) for name in figures.list_names())
    ]
    pictures: dict[str, dict[Path, PictureData]] = {task.figure: {} for task in tasks}
    to_draw = [task for task in tasks if task.files]
    worth_starting = len(to_draw) if process_pool.is_forked() else 1 + len(results) // FILES_A_WORKER
    workers = min(process_pool.count_cores(), len(to_draw), worth_starting)
    with progress.open_bar("report", len(to_draw), "figures") as counter:
        for task, outcome in process_pool.run(to_draw, workers, meanwhile=partial(_load, results)):
            if isinstance(outcome, Exception):
                raise outcome
            assert isinstance(task, _Pictures)
            messages, data_by_path = json.loads(outcome)
            pictures[task.figure] = {Path(path): picture for path, picture in data_by_path.items()}
            for message in messages:
                say(message)
            counter.update()
    return pictures


def _load(results: list[Result]) -> None:
    """Load torch and all that the page needs. Raises UserError for files that are not known here."""
    for result in results:
        analyses.check(result)
    importlib.import_module("interpret_robust.study.report.page")


def _stamp(results: list[Result], explorer: str | None) -> str:
    """Return the SHA-256 of all that decides the page: the content of its files, the version that makes it, and whether
    a page of `irt explore` lies beside it.
    """
    made_from = {"version": metadata.version("interpret-robust"), "files": saving.list_inputs(results)}
    made_from |= {"explorer": explorer} if explorer else {}
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def _stamp_of(page: Path) -> str | None:
    """Return the stamp of a report, None where there is none. Raises UserError for a file that is no report."""
    if not page.exists():
        return None
    with open(page, encoding="utf-8", errors="replace") as file:
        match = _STAMP.match(file.readline(200))
    if match is None:
        raise UserError(f"{page} was not written by irt and is not replaced: name another file with -o.")
    return match[1]
