"""What a process does with memory that it no longer needs: keep it for what comes next, and look for garbage seldom.

An attack frees and takes again the same megabytes in each step. glibc would give them back to the system, which clears
every page before it hands it out again. No number changes by it.
"""

import atexit
import ctypes
import gc
import os
import sys

VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
"""What a user may have set to choose what glibc keeps."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST = 32 * 2**20
"""Bytes of the largest piece of memory that is kept: the most that glibc allows."""


def keep_freed() -> None:
    """Keep freed memory in this process and those that are forked of it, unless the user has chosen.

    It is given back at the end, when libraries read much of their files anew: CUDA's 110 MB.

    Example:
        >>> keep_freed()  # doctest: +SKIP
    """
    if sys.platform == "linux" and not any(name in os.environ for name in VARIABLES):
        library = ctypes.CDLL(None)
        if hasattr(library, "mallopt"):  # glibc's alone
            library.mallopt(M_MMAP_THRESHOLD, LARGEST)
            library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
            atexit.register(library.malloc_trim, 0)


def collect_seldom() -> None:
    """Look for garbage seldom in this process and those that are forked of it, and not at its end.

    Most of what is imported stays, and the system takes back at once what Python would free piece by piece.

    Example:
        >>> collect_seldom()  # doctest: +SKIP
    """
    gc.set_threshold(20_000, 20, 20)
    atexit.register(gc.freeze)
