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
        assert set(wait_for_lines(capsys, 1)) == {"at seed 0: 1,200 of 4,000 steps"}
        bar.update(30)
        capsys.readouterr()
        assert wait_for_lines(capsys, 2)[-1] == "at seed 0: 1,230 of 4,000 steps"
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
        assert wait_for_lines(capsys, 2)[-1] == "evaluate: 0 of 5 images, and 1 pass for the next"
        progress.count_pass()
        capsys.readouterr()
        assert wait_for_lines(capsys, 2)[-1] == "evaluate: 0 of 5 images, and 2 passes for the next"
        bar.update(4)
        capsys.readouterr()
        assert wait_for_lines(capsys, 2)[-1] == "evaluate: 4 of 5 images"


def test_a_long_description_leaves_room_for_the_bar() -> None:
    assert progress._shorten(30 * "a" + 30 * "b") == 22 * "a" + "..." + 19 * "b"
    assert progress._shorten(progress.LONGEST * "a") == progress.LONGEST * "a"


@pytest.mark.parametrize(("is_terminal", "written"), [(True, "\r\x1b[J"), (False, "")])
def test_bars_are_cleared_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch, is_terminal: bool, written: str) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return is_terminal

    stream = Stream()
    monkeypatch.setattr(sys, "stderr", stream)
    progress.clear_bars()
    assert stream.getvalue() == written
