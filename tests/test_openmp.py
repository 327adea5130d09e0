"""Threads wait asleep where others compute too, unless the user says otherwise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from interpret_robust.core import openmp


@pytest.fixture(autouse=True)
def silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is set before."""
    for name in openmp.VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", openmp.VARIABLES)
def test_workers_wait_asleep_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    environment = dict(os.environ)
    with openmp.let_workers_wait_asleep():
        assert os.environ == environment | {"OMP_WAIT_POLICY": "PASSIVE"}
    assert os.environ == environment
    monkeypatch.setenv(name, "ACTIVE" if name == "OMP_WAIT_POLICY" else "7")
    environment = dict(os.environ)
    with openmp.let_workers_wait_asleep():
        assert os.environ == environment
    assert os.environ == environment


def test_a_machine_is_busy_if_it_was_and_another_process_still_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loadavg = tmp_path / "loadavg"
    monkeypatch.setattr(openmp, "LOAD", loadavg)
    for load, running, is_busy in (
        (0.0, "4/210", False),
        (0.99, "4/210", False),
        (1.0, "2/210", True),
        (7.5, "9/210", True),
        (7.5, "1/210", False),
        (1.0, "", True),
    ):
        loadavg.write_text(f"{load:.2f} 0.00 9.00 {running} 4242\n")
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0.0, 9.0), raising=False)
        assert openmp.is_machine_busy() is is_busy
    loadavg.unlink()
    assert openmp.is_machine_busy(), "where nothing tells what runs now, the load decides"
    monkeypatch.delattr(os, "getloadavg")
    assert not openmp.is_machine_busy()


@pytest.mark.parametrize(("load", "policy"), [(3.0, "PASSIVE"), (0.1, None)])
def test_the_command_asks_before_torch_is_loaded(load: float, policy: str | None) -> None:
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from interpret_robust.core import openmp\n"
        "openmp.LOAD = Path('nowhere')\n"
        f"os.getloadavg = lambda: ({load}, 0, 0)\n"
        "from interpret_robust import cli\n"
        "assert 'torch' not in sys.modules\n"
        "sys.argv = ['irt', '--version']\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    print(os.environ.get('OMP_WAIT_POLICY'), file=sys.stderr)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stderr.strip() == str(policy)
