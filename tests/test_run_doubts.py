"""Doubts of a run that stops are in the file of whoever goes on."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import test_hdf5 as rows_of

from interpret_robust.results import run_doubts, writer
from interpret_robust.results.run_doubts import DOUBTS, ROOM, UNREADABLE_DOUBTS

FIRST, SECOND, THIRD = "mine answers late.", "yours has no gradients.", "mine is größer."


def test_doubts_of_a_stopped_run_and_of_its_parts_are_listed_once(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with rows_of.start(path) as rows:
        assert rows.list_doubts() == []
        rows.append(rows_of.made_rows(0, 4))
        rows.note_doubts([])
        assert rows.list_doubts() == []
        rows.note_doubts([FIRST, SECOND, FIRST])
    with writer.open_part(path, rows_of.SCHEMA, np.array([5, 6]), rows_of.AXES, rows_of.CONFIG) as part:
        part.note_doubts([THIRD])
    with rows_of.start(path) as rows:  # its seal holds, so that it is continued
        assert rows.row_count == 4
        rows.note_doubts([SECOND])
        assert rows.list_doubts() == [FIRST, SECOND, THIRD]
        rows.append(rows_of.made_rows(4, rows_of.COUNT))
        rows.finish(rows_of.summary(rows), {})
    assert rows_of.content(path) == rows_of.content(rows_of.write(tmp_path / "whole.h5"))


@pytest.mark.parametrize("place", [0, 31, 32, 60])
def test_damaged_doubts_are_a_doubt(tmp_path: Path, place: int) -> None:
    with rows_of.start(tmp_path / "x.h5") as rows:
        rows.append(rows_of.made_rows(0, 4))
        rows.note_doubts([FIRST, SECOND])
    with h5py.File(rows_of.partial_of(tmp_path / "x.h5"), "r+") as file:
        file[DOUBTS][place] ^= 1
        assert run_doubts.read(file) == [UNREADABLE_DOUBTS]
        run_doubts.write(file, [THIRD])
        assert run_doubts.read(file) == [UNREADABLE_DOUBTS, THIRD]


def test_more_doubts_than_there_is_room_for_keep_the_first_ones(tmp_path: Path) -> None:
    sentences = [f"{number} {'x' * 500}" for number in range(40)]
    with rows_of.start(tmp_path / "x.h5") as rows:
        rows.note_doubts(sentences)
        kept = rows.list_doubts()
    assert kept == sentences[: len(kept)]
    assert sum(map(len, kept)) > ROOM - 1000


def test_a_partial_file_of_an_older_version_has_no_room_and_takes_none(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        run_doubts.write(file, [FIRST])
        assert run_doubts.read(file) == [] and list(file) == []
