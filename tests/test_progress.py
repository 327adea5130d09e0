"""Progress without a terminal: a plain line of what takes long, and none of what is short."""

import io
import sys
import threading
import time

import pytest

from interpret_robust.core import progress


def wait_for_lines(capture: pytest.CaptureFixture[str], count: int) -> list[str]:
    """Return the lines that come within ten seconds, once there are so many."""
    text, deadline = "", time.monotonic() + 10
    while text.count("\n") < count and time.monotonic() < deadline:
        time.sleep(0.005)
        text += capture.readouterr().err
    return text.splitlines()


def test_long_work_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "FIRST_LINE", 0.01)
    monkeypatch.setattr(progress, "LINE_EVERY", 0.02)
    with progress.open_bar("at seed 0", 4000, "steps", initial=1200) as bar:
        assert bar.disable, "stderr is no terminal"
        assert set(wait_for_lines(capsys, 1)) == {"at seed 0: 1,200 of 4,000 steps, begun 0 s ago"}
        bar.update(30)
        capsys.readouterr()
        assert wait_for_lines(capsys, 2)[-1].startswith("at seed 0: 1,230 of 4,000 steps, about ")
    capsys.readouterr()
    time.sleep(0.05)
    assert capsys.readouterr().err == "", "nothing is written of what is over"


def test_short_work_writes_nothing_and_leaves_no_thread(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "FIRST_LINE", 5.0)
    count = threading.active_count()
    assert list(progress.count_items([3, 1, 2], "numbers", "items")) == [3, 1, 2]
    with pytest.raises(ValueError, match="broken"), progress.write_lines(lambda: "working"):
        raise ValueError("broken")
    assert threading.active_count() == count and capsys.readouterr().err == ""


def test_a_bar_tells_the_passes_since_its_last_unit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "FIRST_LINE", 0.01)
    monkeypatch.setattr(progress, "LINE_EVERY", 0.02)
    progress.count_pass()
    with progress.open_bar("evaluate", 5, "images") as bar:
        progress.count_pass()
        with progress.pass_counter("trying net") as counter:
            for _ in range(1234):
                progress.count_pass()
            assert counter.n == 1234
            assert "trying net: 1,234 passes" in wait_for_lines(capsys, 8)
        capsys.readouterr()
        assert wait_for_lines(capsys, 2)[-1] == "evaluate: 0 of 5 images, begun 0 s ago, and 1 pass for the next"
        progress.count_pass()
        capsys.readouterr()
        assert wait_for_lines(capsys, 2)[-1] == "evaluate: 0 of 5 images, begun 0 s ago, and 2 passes for the next"
        bar.update(5)
        capsys.readouterr()
        assert wait_for_lines(capsys, 2)[-1] == "evaluate: 5 of 5 images"


def test_a_line_estimates_the_time_left_from_the_units_that_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    bar = progress.open_bar("at", 744, "steps", initial=144)
    clock = 170.0
    assert bar._line() == "at: 144 of 744 steps, begun 3 min ago", "nothing is done yet that tells the time left"
    bar.update(150)
    clock = 230.0
    assert bar._line() == "at: 294 of 744 steps, about 8 min left", "450 steps at 150 in 170 s, 60 s of which are over"
    bar.update(440)
    clock = 231.0
    assert bar._line() == "at: 734 of 744 steps, about 3 s left", "10 steps at 590 in 230 s, 1 s of which is over"
    clock = 900.0
    assert bar._line() == "at: 734 of 744 steps", "the last steps take longer than those before"
    counter = progress.pass_counter("trying net")
    clock = 965.0
    assert counter._line() == "trying net: 0 passes, begun 65 s ago"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("width", "description", "end"),
    [
        (60, "small at-...seed 1", ""),
        (80, "small at-att-reg seed 1", ", loss=4.702"),
        (100, "small at-att-reg seed 1", ", loss=4.702, accuracy=1.4%"),
        (120, "small at-att-reg seed 1", ", loss=4.702, accuracy=1.4%, 1.12 s each"),
    ],
)
def test_a_bar_shows_the_time_left_and_what_else_has_room(
    monkeypatch: pytest.MonkeyPatch, width: int, description: str, end: str
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    bar = progress.open_bar("small at-att-reg seed 1", 6240, "steps")
    bar.set_postfix({"loss": "4.702", "accuracy": "1.4%"}, refresh=False)
    bar.dynamic_ncols, bar._time = lambda _: (width, 24), lambda: bar.start_t + 58
    bar.n, bar._ema_dn, bar._ema_dt = 52, lambda: 1.0, lambda: 1.12
    start, drawing, rest = str(bar).split("|")
    assert (start, rest) == (f"{description}:   1%", f" 52/6240 [00:58<1:55:30{end}]")
    assert len(str(bar)) == width and len(drawing) >= progress.BAR_WIDTH


def test_a_bar_without_an_end_tells_its_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    counter = progress.pass_counter("trying {net}")
    counter.dynamic_ncols, counter._time = lambda _: (80, 24), lambda: counter.start_t + 4
    counter.n = 10
    assert str(counter) == "trying {net}: 10 passes [00:04, 2.50 passes/s]"


def test_a_long_description_leaves_room_for_the_bar() -> None:
    assert progress._shorten(30 * "a" + 30 * "b") == 22 * "a" + "..." + 19 * "b"
    assert progress._shorten(30 * "a" + 30 * "b", 13) == 6 * "a" + "..." + 4 * "b"
    assert progress._shorten(progress.LONGEST * "a") == progress.LONGEST * "a"


@pytest.mark.parametrize(("is_terminal", "written"), [(True, "\r\x1b[J"), (False, "")])
def test_bars_are_cleared_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch, is_terminal: bool, written: str) -> None:
    stream = Terminal() if is_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    progress.clear_bars()
    assert stream.getvalue() == written
