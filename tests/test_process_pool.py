"""Work side by side: every outcome comes back, workers have one thread, and none outlives its parent."""

import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import tqdm
from pool_tasks import STAND_IN, Answer, Surroundings

import interpret_robust
from interpret_robust.core import process_pool
from interpret_robust.core.errors import UserError
from interpret_robust.core.interruption import NotBegun, Stopped
from interpret_robust.core.process_pool import Outcome

PATIENCE = 8.0
ALONE = (
    "pool_tasks as t; from interpret_robust.core import process_pool; "
    "process_pool.is_forked = lambda: False; "
    "process_pool.SERVER_MODULES = ('interpret_robust.core.fork_server', 'torch')"
)
"""The tasks and the pool in a process of its own, whose server of workers loads no more than these here need."""
FORKED = "pool_tasks as t; from interpret_robust.core import process_pool"
"""The same, whose workers are forked of itself."""
BEGINNINGS = [ALONE, pytest.param(FORKED, marks=pytest.mark.skipif("sys.platform != 'linux'", reason="Linux alone"))]

each_beginning = pytest.mark.parametrize("modules", BEGINNINGS, ids=["server", "fork"])


@pytest.fixture
def without_torch(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of processes that find a stand-in for torch, which would take seconds to load."""
    folder = tmp_path_factory.mktemp("stand-in")
    (folder / "torch.py").write_text(STAND_IN)
    return os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{Path(process_pool.__file__).parents[2]}"}


@pytest.mark.parametrize("workers", [1, 2])
def test_answers_and_exceptions_come_back_with_their_tasks(monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    tasks = [Answer(word) for word in ("one", "mistake", "fault", "two")]
    outcomes: dict[object, Outcome] = {outcome[0]: outcome for outcome in process_pool.run(tasks, workers)}
    assert outcomes.keys() == set(tasks)
    answers = [outcomes[task][1] for task in tasks]
    assert isinstance(answers[1], UserError) and str(answers[1]) == "a mistake of the user's."
    assert isinstance(answers[2], OSError) and (answers[2].errno, answers[2].filename) == (28, "somewhere")
    for word, answer in (("one", answers[0]), ("two", answers[3])):
        assert isinstance(answer, str)
        echo, position, process, threads = answer.split()
        assert echo == word
        if workers == 1:
            assert (position, process) == ("None", str(os.getpid()))
        else:
            assert (position in ("0", "1"), process != str(os.getpid()), threads) == (True, True, "1")


@pytest.mark.skipif("forkserver" not in multiprocessing.get_all_start_methods(), reason="workers are begun one by one")
def test_workers_come_of_one_server_and_have_the_environment_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    servers = set()
    for value in ("first", "second"):
        monkeypatch.setenv("IRT_TEST", value)
        for _, answer in process_pool.run([Surroundings(0), Surroundings(1)], 2):
            server, *variables = str(answer).split()
            assert variables == [value, "None"]
            servers.add(int(server))
    assert len(servers) == 1 and os.getpid() not in servers


FORKS = """
import os, sys
from interpret_robust.core import process_pool

class Parent:
    def __call__(self, position):
        return f"{os.getppid() == here} {position in (0, 1)} {'torch' in sys.modules}"

def load():
    sys.modules["torch"] = None
    print("loaded")

here = os.getpid()
for _, answer in process_pool.run([Parent(), Parent()], 2, meanwhile=load):
    print(answer)
"""


@pytest.mark.skipif("sys.platform != 'linux'", reason="Linux alone")
def test_a_process_without_torch_is_forked_itself_and_loads_more_meanwhile() -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(process_pool.__file__).parents[2])}
    command = [sys.executable, "-c", FORKS]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert process.stdout.splitlines() == ["loaded", "True True False", "True True False"]


def test_what_is_done_meanwhile_comes_before_the_first_task_of_this_process() -> None:
    order: list[str] = []
    outcomes = process_pool.run([Answer("one")], 1, meanwhile=lambda: order.append("meanwhile"))
    order += [str(answer).partition(" ")[0] for _, answer in outcomes]
    assert order == ["meanwhile", "one"]


def test_workers_import_what_their_parent_does_whatever_the_current_folder_holds(
    without_torch: dict[str, str], tmp_path: Path
) -> None:
    folder, script = tmp_path / "current", tmp_path / "elsewhere" / "script.py"
    for name in ("interpret_robust", "torch", "tqdm", "signal"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("decoy = True\n")
    script.parent.mkdir()
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nimport {ALONE}\n"
        "if __name__ == '__main__':\n"
        "    here = t.Origin(0)(None)\n"
        "    print([here, *(answer for _, answer in process_pool.run([t.Origin(1), t.Origin(2)], 2))])\n"
        "    print(here == t.Origin(0)(None))\n"
    )
    environment = {name: value for name, value in without_torch.items() if name != "PYTHONSAFEPATH"}
    command = [sys.executable, str(script)]
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    stand_in = Path(environment["PYTHONPATH"].partition(os.pathsep)[0], "torch.py")
    answers, is_restored = process.stdout.splitlines()
    expected = f"{interpret_robust.__file__} {stand_in} {tqdm.__file__} {[environment['PYTHONPATH'], None]}"
    assert (answers, is_restored) == (repr([expected] * 3), "True")


def test_one_worker_works_in_order_and_only_when_asked() -> None:
    outcomes = process_pool.run([Answer("one"), Answer("two")], 1)
    assert str(next(outcomes)[1]).startswith("one ")
    assert str(next(outcomes)[1]).startswith("two ")
    assert list(process_pool.run([], 2)) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_tasks_of_a_group_are_done_in_order_by_one_worker(workers: int) -> None:
    tasks = [Answer(word) for word in ("a1", "b1", "mistake", "b2", "a2")]
    groups = {"a1": "a", "a2": "a", "mistake": "a"}
    outcomes = list(process_pool.run(tasks, workers, lambda task: groups.get(task.word, "b")))
    by_group = {
        name: [(task, answer) for task, answer in outcomes if groups.get(task.word, "b") == name]  # type: ignore[attr-defined]
        for name in "ab"
    }
    assert [[task for task, _ in pairs] for pairs in by_group.values()] == [
        [tasks[0], tasks[2], tasks[4]],
        [tasks[1], tasks[3]],
    ]
    assert [type(answer) for _, answer in by_group["a"]] == [str, UserError, str]
    for pairs in by_group.values():
        assert len({str(answer).split()[2] for _, answer in pairs if isinstance(answer, str)}) == 1


def test_one_worker_begins_nothing_after_it_was_stopped() -> None:
    outcomes = [outcome for _, outcome in process_pool.run([Answer("a"), Answer("stop"), Answer("b")], workers=1)]
    assert [type(outcome) for outcome in outcomes] == [str, Stopped, NotBegun]


@pytest.mark.long
@each_beginning
def test_workers_end_when_their_parent_is_killed(tmp_path: Path, modules: str) -> None:
    """Their end shows as the end of the output, which they inherit: none holds it any more."""
    script = (
        f"import sys, {modules}\n"
        "list(process_pool.run([t.Sleep(t.Path(sys.argv[1])), t.Sleep(t.Path(sys.argv[1]))], 2))"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    workers: list[Path] = []
    try:
        while len(workers) < 2:
            assert parent.poll() is None
            time.sleep(0.02)
            workers = list(tmp_path.iterdir())
        parent.kill()
        parent.communicate(timeout=PATIENCE)
        workers.clear()
    finally:
        parent.kill()
        for worker in workers:
            os.kill(int(worker.name), signal.SIGKILL)


@contextmanager
def run_group(script: str, folder: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run Python in a process group of its own, from when two of its workers have written into `folder`."""
    command = [sys.executable, "-c", script, str(folder)]
    parent = subprocess.Popen(
        command, cwd=Path(__file__).parent, env=environment, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        while len(list(folder.iterdir())) < 2:
            assert parent.poll() is None
            time.sleep(0.02)
        yield parent
    finally:
        os.killpg(parent.pid, signal.SIGKILL) if parent.poll() is None else None


@each_beginning
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_that_come_twice_and_to_everybody_end_it_too(
    without_torch: dict[str, str], tmp_path: Path, number: int, modules: str
) -> None:
    script = (
        f"import signal, sys, {modules}\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background\n"
        "list(process_pool.run([t.Wait(t.Path(sys.argv[1]), str(n)) for n in range(6)], 2))"
    )
    with run_group(script, tmp_path, without_torch) as parent:
        for _ in range(3):
            os.killpg(parent.pid, number)
            time.sleep(0.05)
        parent.wait(timeout=PATIENCE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]


@pytest.mark.long
@each_beginning
@pytest.mark.parametrize(("number", "is_group"), [(signal.SIGTERM, False), (signal.SIGINT, True)])
def test_work_that_was_not_listening_yet_stops_once_it_does(
    without_torch: dict[str, str], tmp_path: Path, number: int, modules: str, *, is_group: bool
) -> None:
    script = (
        f"import signal, sys, {modules}\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "list(process_pool.run([t.Load(t.Path(sys.argv[1]), str(n)) for n in range(2)], 2))"
    )
    with run_group(script, tmp_path, without_torch) as parent:
        (os.killpg if is_group else os.kill)(parent.pid, number)
        assert parent.wait(timeout=PATIENCE)


def test_no_process_but_the_server_is_changed_by_what_it_imports() -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    importlib.reload(importlib.import_module("interpret_robust.core.fork_server"))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.skipif("forkserver" not in multiprocessing.get_all_start_methods(), reason="workers are begun one by one")
@pytest.mark.parametrize(
    ("number", "is_group"),
    [
        (signal.SIGTERM, True),
        (signal.SIGINT, True),
        pytest.param(signal.SIGTERM, False, marks=pytest.mark.skipif("sys.platform != 'linux'", reason="no signal")),
    ],
)
def test_a_signal_while_the_server_loads_its_libraries_ends_all_without_a_traceback(
    tmp_path: Path, number: int, *, is_group: bool
) -> None:
    """The end of the last process shows as the end of stderr, which all of them inherit."""
    (tmp_path / "library.py").write_text(
        f"import pathlib, time\npathlib.Path({str(tmp_path / 'begun')!r}).touch()\ntime.sleep(60)\n"
    )
    script = (
        "import signal, sys, pool_tasks as t\nfrom interpret_robust.core import process_pool\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.path.append({str(tmp_path)!r})\n"
        "process_pool.is_forked = lambda: False\n"
        "process_pool.SERVER_MODULES = ('interpret_robust.core.fork_server', 'library')\n"
        "try:\n    list(process_pool.run([t.Answer('a'), t.Answer('b')], 2))\n"
        "except KeyboardInterrupt:\n    print('interrupted', file=sys.stderr)\n"
    )
    command, folder = [sys.executable, "-c", script], Path(__file__).parent
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, start_new_session=True) as parent:
        try:
            while not (tmp_path / "begun").exists():
                assert parent.poll() is None
                time.sleep(0.02)
            (os.killpg if is_group else os.kill)(parent.pid, number)
            assert parent.communicate(timeout=PATIENCE)[1] == "interrupted\n"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(parent.pid, signal.SIGKILL)
    assert parent.returncode == 0


@each_beginning
def test_a_second_interrupt_ends_work_that_goes_on(without_torch: dict[str, str], tmp_path: Path, modules: str) -> None:
    script = (
        f"import signal, sys, {modules}\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "try:\n    list(process_pool.run([t.Sleep(t.Path(sys.argv[1])), t.Sleep(t.Path(sys.argv[1]))], 2))\n"
        "except KeyboardInterrupt:\n    sys.exit(130)\n"
    )
    with run_group(script, tmp_path, without_torch) as parent:
        os.killpg(parent.pid, signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            parent.wait(timeout=1)
        os.killpg(parent.pid, signal.SIGINT)
        assert parent.wait(timeout=PATIENCE) == 130
    for path in tmp_path.iterdir():
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.name), 0)


@each_beginning
def test_tasks_that_wait_in_line_are_not_begun_once_the_parent_is_asked_to_stop(
    without_torch: dict[str, str], tmp_path: Path, modules: str
) -> None:
    script = (
        f"import sys, {modules}\nlist(process_pool.run([t.Wait(t.Path(sys.argv[1]), str(n)) for n in range(6)], 2))"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    parent = subprocess.Popen(command, cwd=Path(__file__).parent, env=without_torch, stderr=subprocess.DEVNULL)
    try:
        while len(list(tmp_path.iterdir())) < 2:
            assert parent.poll() is None
            time.sleep(0.02)
        parent.terminate()
        assert parent.wait(timeout=PATIENCE)
    finally:
        parent.kill()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
