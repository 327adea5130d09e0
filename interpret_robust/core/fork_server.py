"""What the server that workers are forked of imports first: how signals end it, and what it does with memory.

While it loads libraries a signal ends it at once, without a traceback. Once it has workers, a signal to the whole group
must not: workers tell by its pipes that they have ended. Their parent ends them, and the server goes away with the
parent: Linux sends it a signal then.
"""

import ctypes
import os
import signal
import sys

from interpret_robust.core import freed_memory

PR_SET_PDEATHSIG = 1


def end_with_parent(number: signal.Signals) -> None:
    """Send this process a signal when its parent ends, on Linux alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


def _end_without_workers(*_: object) -> None:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        os._exit(1)


def _listen() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until libraries are loaded: then `multiprocessing` ignores it
    signal.signal(signal.SIGTERM, _end_without_workers)
    end_with_parent(signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))


if any("multiprocessing.forkserver" in argument for argument in sys.orig_argv):  # no other process is to be changed
    _listen()
    freed_memory.keep_freed()
    freed_memory.collect_seldom()
