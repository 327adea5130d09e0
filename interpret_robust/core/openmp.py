"""How threads of OpenMP wait for each other: awake, which is fast on an idle machine, or asleep, leaving cores free.

OpenMP reads its variables when torch loads it, so that they have to be set before. They change no number.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""What a user may have set to choose how threads wait."""

LOAD = Path("/proc/loadavg")
"""Its fourth field is `threads that run or could/all threads`, see proc_loadavg(5)."""
LOOKS = 5
"""How often it is looked whether another process runs, LOOK_EVERY seconds apart: a single look may miss it."""
LOOK_EVERY = 0.002


def is_machine_busy() -> bool:
    """Return whether other processes took a core or more of the last minute, and one of them still does.

    The load of a minute alone would count the command before this one. On Linux it is looked which processes run now;
    elsewhere the load decides, and where the system does not tell it, False.
    """
    return hasattr(os, "getloadavg") and os.getloadavg()[0] >= 1 and any(_is_another_running() for _ in range(LOOKS))


def _is_another_running() -> bool:
    """Return whether threads other than this one run or wait for a core; True where the system does not say."""
    try:
        running, _ = LOAD.read_text().split()[3].split("/")
    except (OSError, ValueError, IndexError):
        return True
    time.sleep(LOOK_EVERY)
    return int(running) > 1


def wait_asleep() -> None:
    """Let OpenMP's threads wait asleep in this process and those that it starts, unless the user has chosen.

    Two threads that wait awake beside three busy processes took twice the time of one thread, and those that wait
    asleep took no longer; on an idle machine they take a tenth to a quarter longer (docs/speed.md).

    Example:
        >>> wait_asleep()  # doctest: +SKIP
    """
    if not any(name in os.environ for name in VARIABLES):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


@contextmanager
def let_workers_wait_asleep() -> Iterator[None]:
    """Let the threads of processes that are started inside wait asleep, unless the user has chosen."""
    policy = os.environ.get("OMP_WAIT_POLICY")
    wait_asleep()
    try:
        yield
    finally:
        if policy is None:
            os.environ.pop("OMP_WAIT_POLICY", None)
