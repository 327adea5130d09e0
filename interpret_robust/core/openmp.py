"""How threads of OpenMP wait for each other: awake, which is fast on an idle machine, or asleep, leaving cores free.

OpenMP reads its variables when torch loads it, so that they have to be set before. They change no number.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""What a user may have set to choose how threads wait."""


def is_machine_busy() -> bool:
    """Return whether other processes took a core or more of the last minute; False where the system does not say."""
    return hasattr(os, "getloadavg") and os.getloadavg()[0] >= 1


def wait_asleep() -> None:
    """Let OpenMP's threads wait asleep in this process and those that it starts, unless the user has chosen.

    Two threads that wait awake beside three busy processes took twice the time of one thread, and those that wait
    asleep took no longer; on an idle machine they take a tenth longer (docs/speed.md).

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
