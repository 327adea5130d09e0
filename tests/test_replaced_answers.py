"""An answer stays that of one file: none of its numbers comes from a file that replaced it, or is lost with it."""

import copy
import gc
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anyone import Convolutions, noise, seed_network

import interpret_robust as ir
from interpret_robust.api.answers import Answer
from interpret_robust.figures.drawing import compose
from interpret_robust.results import hdf5

READERS: dict[str, Callable[[Any], Any]] = {
    "a statistic that was read before": lambda answer: answer["cosine/own"],
    "another statistic": lambda answer: answer["cosine/shuffled"],
    "a column": lambda answer: answer.arrays["cosine"],
    "the first rows": lambda answer: answer.result.first("per_image/cosine", 1),
    "whether there is one": lambda answer: "per_image/cosine" in answer.result,
    "axes": lambda answer: answer.result.axes("cosine/own"),
    "how it was made": lambda answer: answer.result.run,
    "its table": str,
    "a notebook's table": lambda answer: answer._repr_html_(),
    "a picture": lambda answer: answer.figure(),
    "a frame": lambda answer: answer.to_dataframe(),
    "a tree": lambda answer: answer.to_xarray(),
    "itself, kept": lambda answer: answer.save(answer.result.path.with_name("kept.h5")),
}


@pytest.fixture(scope="module")
def model() -> ir.Model:
    return ir.load(seed_network(Convolutions), noise(), label="mine")


@pytest.fixture(scope="module")
def first(model: ir.Model) -> Answer:
    return ir.analyze("alignment", model, limit=3)


@pytest.fixture(scope="module")
def second(model: ir.Model) -> Answer:
    return ir.analyze("alignment", model, limit=4)


@pytest.mark.long
@pytest.mark.parametrize("read", READERS.values(), ids=list(READERS))
def test_nothing_is_read_of_a_file_that_was_replaced(
    read: Callable[[Any], Any], first: Answer, second: Answer, tmp_path: Path
) -> None:
    path = first.save(tmp_path / "mine.h5")
    answer = ir.open(path)
    assert np.array_equal(answer["cosine/own"], first["cosine/own"])
    second.save(path, overwrite=True)
    with pytest.raises(ir.UserError) as error:
        read(answer)
    assert str(error.value) == f"{path} was replaced since it was opened: open it again."
    assert not (tmp_path / "kept.h5").exists()
    assert repr(answer).startswith("<Answer alignment of mine: 3 images, "), "what it says without its file"
    opened = ir.open(path)
    assert opened.arrays["cosine"].tolist() == second.arrays["cosine"].tolist() and read(opened) is not None


def test_an_answer_that_is_saved_over_its_own_file_is_opened_again(first: Answer, tmp_path: Path) -> None:
    answer = ir.open(first.save(tmp_path / "mine.h5"))
    path = answer.save(tmp_path / "mine.h5", overwrite=True)
    with pytest.raises(ir.UserError, match="was replaced since it was opened"):
        answer["cosine/own"]
    assert np.array_equal(ir.open(path)["cosine/own"], first["cosine/own"])


def test_answers_of_which_one_was_replaced_have_no_table(first: Answer, second: Answer, tmp_path: Path) -> None:
    answers = ir.open([first.save(tmp_path / "a.h5"), second.save(tmp_path / "b.h5")])
    first.save(tmp_path / "b.h5", overwrite=True)
    for read in (str, ir.Answers.to_dataframe, ir.Answers.figure, lambda answers: answers[1]["cosine/own"]):
        with pytest.raises(ir.UserError, match=r"b\.h5 was replaced since it was opened"):
            read(answers)
    assert np.array_equal(answers[0]["cosine/own"], first["cosine/own"])


def test_an_answer_whose_file_is_gone_is_one_sentence(first: Answer, tmp_path: Path) -> None:
    path = first.save(tmp_path / "mine.h5")
    answer = ir.open(path)
    path.unlink()
    for read in (lambda: answer.save(tmp_path / "b.h5"), lambda: answer["cosine/own"], answer.to_xarray):
        with pytest.raises(ir.UserError, match=f"^there is no analysis file {re.escape(str(path))}: `irt analyze`"):
            read()


def test_an_answer_in_a_temporary_file_is_pickled_with_its_file(model: ir.Model, tmp_path: Path) -> None:
    answer = ir.analyze("alignment", model, limit=3)
    expected, table, folder = answer.arrays["cosine"], str(answer), answer.result.path.parent
    content = pickle.dumps(ir.Answers([answer]))
    copies = [pickle.loads(content)[0], copy.copy(answer), copy.deepcopy(answer)]
    del answer
    gc.collect()
    assert not folder.exists()
    for place, unpickled in enumerate(copies):
        assert unpickled.is_temporary and unpickled.arrays["cosine"].tolist() == expected.tolist()
        assert str(unpickled) == table
        assert hdf5.read(unpickled.save(tmp_path / f"{place}.h5")).count == 3
    folders = [unpickled.result.path.parent for unpickled in copies]
    assert len(set(folders)) == 3 and all(folder.exists() for folder in folders)
    del copies, unpickled
    gc.collect()
    assert not any(folder.exists() for folder in folders)


def test_an_answer_in_a_kept_file_is_pickled_by_its_path(first: Answer, second: Answer, tmp_path: Path) -> None:
    path = first.save(tmp_path / "mine.h5")
    content = pickle.dumps(ir.open(path))
    assert len(content) < path.stat().st_size
    assert np.array_equal(pickle.loads(content)["cosine/own"], first["cosine/own"])
    second.save(path, overwrite=True)
    with pytest.raises(ir.UserError, match="was replaced since it was opened"):
        pickle.loads(content)["cosine/own"]


def test_an_answer_whose_temporary_file_was_removed_is_not_pickled(model: ir.Model) -> None:
    answer = ir.analyze("alignment", model, limit=3)
    shutil.rmtree(answer.result.path.parent)
    with pytest.raises(ir.UserError, match="there is no analysis file"):
        pickle.dumps(answer)


def test_a_picture_of_a_replaced_file_is_not_drawn(first: Answer, second: Answer, tmp_path: Path) -> None:
    result = hdf5.read(first.save(tmp_path / "mine.h5"))
    second.save(result.path, overwrite=True)
    with pytest.raises(ir.UserError, match="was replaced since it was opened"):
        compose("alignment", [result])
