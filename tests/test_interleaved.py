"""`benchmarks/interleaved.py`: who runs when, and the ratio of medians."""

import importlib
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module("interleaved")


def test_contenders_take_turns_and_the_first_answers_are_kept(benchmark: Any) -> None:
    order: list[str] = []

    def run(name: str) -> int:
        order.append(name)
        return len(order)

    timing = benchmark.interleave({name: lambda name=name: run(name) for name in "ab"}, 2)
    assert "".join(order) == "ababab"
    assert timing.answers == {"a": 1, "b": 2}
    assert {name: len(seconds) for name, seconds in timing.seconds.items()} == {"a": 2, "b": 2}


def test_without_a_warm_up_every_round_counts(benchmark: Any) -> None:
    timing = benchmark.interleave({"a": lambda: None}, 3, warm_up=False)
    assert len(timing.seconds["a"]) == 3


def test_times_as_fast_is_theirs_over_ours(benchmark: Any) -> None:
    assert benchmark.times_as_fast([1.0, 1.0, 1.0], [3.0, 3.0, 3.0]) == (3.0, 3.0, 3.0)
    # Rounds are drawn as pairs: a slow minute that hits both alike leaves the ratio as it is.
    assert benchmark.times_as_fast([1.0, 2.0, 4.0], [2.0, 4.0, 8.0]) == (2.0, 2.0, 2.0)
    value, low, high = benchmark.times_as_fast([1.0, 1.0, 1.0], [2.0, 3.0, 4.0])
    assert (value, low, high) == (3.0, 2.0, 4.0)


def test_a_library_that_is_not_there_leaves_its_contender_out(benchmark: Any) -> None:
    def absent() -> Any:
        raise ImportError("No module named 'quantus'")

    contenders = [benchmark.Contender("ours", lambda: lambda: 7), benchmark.Contender("quantus", absent)]
    preparation = benchmark.prepare(contenders)
    assert list(preparation.runs) == ["ours"]
    assert preparation.reasons == {"quantus": "No module named 'quantus'"}
