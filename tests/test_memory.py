"""Freed memory is kept, unless the user says otherwise; no garbage is looked for at the end."""

import os
import subprocess
import sys

import pytest

from interpret_robust.core import freed_memory

PROGRAM = """
import ctypes, resource, sys
from interpret_robust.core import freed_memory
if "keep" in sys.argv:
    freed_memory.keep_freed()
c = ctypes.CDLL(None)
c.malloc.restype, c.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
c.memset.argtypes = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
def resident() -> int:
    return int(open("/proc/self/statm").read().split()[1])
pieces = [c.malloc(4 * 2**20) for _ in range(16)]
for piece in pieces:
    c.memset(piece, 1, 4 * 2**20)
taken = resident()
for piece in reversed(pieces):
    c.free(piece)
print((taken - resident()) * resource.getpagesize() / 2**26)
"""


def share_given_back(*arguments: str, **variables: str) -> float:
    """Return the share of 64 MiB, taken in 16 pieces, that the system has again when all are free."""
    environment = {name: value for name, value in os.environ.items() if name not in freed_memory.VARIABLES} | variables
    command = [sys.executable, "-c", PROGRAM, *arguments]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(process.stdout)


IS_GLIBC = hasattr(os, "confstr") and "glibc" in (os.confstr("CS_GNU_LIBC_VERSION") or "")


@pytest.mark.skipif(not IS_GLIBC, reason="only glibc is told")
def test_freed_memory_is_kept_unless_the_user_says_otherwise() -> None:
    assert share_given_back() == pytest.approx(1, abs=0.02)
    assert share_given_back("keep") == pytest.approx(0, abs=0.02)
    assert share_given_back("keep", MALLOC_TRIM_THRESHOLD_="131072") == pytest.approx(1, abs=0.02)


GARBAGE = """
import gc
from interpret_robust.core import freed_memory
freed_memory.collect_seldom()
class Node:
    def __del__(self):
        print("freed")
node = Node()
node.itself = node
del node
print(gc.get_threshold())
"""


def test_garbage_is_left_to_the_system_at_the_end() -> None:
    process = subprocess.run([sys.executable, "-c", GARBAGE], capture_output=True, text=True, check=True)
    assert process.stdout == "(20000, 20, 20)\n"
