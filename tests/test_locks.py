"""Two processes and one file: one makes it, the other waits; a process that was killed blocks nobody."""

import multiprocessing
import os
import sys
import threading
from pathlib import Path

import pytest

from interpret_robust.core import locks
from interpret_robust.core.locks import Lock, do_if_free

ADDITIONS = 40


def add(path: Path) -> None:
    """Read a number, and write one more: two at once would lose some of them."""
    for _ in range(ADDITIONS):
        with Lock(path):
            number = int(path.read_text())
            path.write_text(str(number + 1))


def take_and_die(path: Path) -> None:
    assert Lock(path).attempt()
    os._exit(9)


def run(*targets: tuple[object, Path]) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=target, args=(path,)) for target, path in targets]  # type: ignore[arg-type]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)


def test_no_addition_is_lost_between_two_processes(tmp_path: Path) -> None:
    path = tmp_path / "number"
    path.write_text("0")
    run((add, path), (add, path))
    assert int(path.read_text()) == 2 * ADDITIONS
    assert [file.name for file in tmp_path.iterdir()] == ["number"]


def test_a_process_that_died_holds_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "x"
    run((take_and_die, path))
    assert (tmp_path / ".x.lock").exists()
    with Lock(path):
        assert not Lock(path).attempt()
    assert not list(tmp_path.iterdir())


def test_each_file_has_its_own_lock_and_what_is_busy_is_left_alone(tmp_path: Path) -> None:
    names: list[str] = []
    with Lock(tmp_path / "x"):
        do_if_free(tmp_path / "x", lambda: names.append("x"))
        do_if_free(tmp_path / "y", lambda: names.append("y"))
    do_if_free(tmp_path / "x", lambda: names.append("x later"))
    assert names == ["y", "x later"]


def test_who_waits_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(locks, "SILENCE", 0.03)
    first, entry = Lock(tmp_path / "x.h5"), threading.Event()

    def wait() -> None:
        with Lock(tmp_path / "x.h5"):
            entry.set()

    assert first.attempt()
    thread = threading.Thread(target=wait)
    thread.start()
    assert not entry.wait(0.2)
    first.release()
    thread.join(5)
    assert entry.is_set()
    assert capsys.readouterr().err == "x.h5 is being made by another process: waiting for it\n"


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError) as error:
        Lock(tmp_path / "x").attempt()
    assert error.value.filename == str(tmp_path / "x")
