"""One process at a time makes a file; others wait for it.

The lock of `NAME` lies on `.NAME.lock` beside it. The system frees it when its process ends, however that happens, so
a lock file that a killed process left blocks nobody. Where the file system knows no locks, there are none.
"""

import errno
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from interpret_robust.core.progress import say

PAUSE = 0.02
"""Seconds between two attempts."""

SILENCE = 1.0
"""Seconds of waiting after which it is said what is waited for."""

_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)

if sys.platform == "win32":
    import msvcrt

    _TAKEN_ERRORS: tuple[int, ...] = (errno.EACCES, errno.EDEADLOCK)

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    _TAKEN_ERRORS = (errno.EAGAIN, errno.EACCES)

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Lock:
    """The right to make the file at `path`, held by one process at a time. As a context it waits for its turn.

    Raises OSError where the folder of `path` cannot be written.

    Example:
        with Lock(page):
            write(page)
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.with_name(f".{path.name}.lock")
        self._descriptor: int | None = None
        self._waits_since: float | None = None

    def attempt(self) -> bool:
        """Return whether the lock is held now; pause for a moment where another process holds it."""
        descriptor = self._open()
        try:
            is_free = _try_lock(descriptor) and self._is_current(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        if is_free:
            self._descriptor = descriptor
            return True
        os.close(descriptor)
        self._wait()
        return False

    def release(self) -> None:
        """Free the lock and remove its file, if it is held."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        if sys.platform != "win32":  # there a file that is open cannot be removed
            self._file.unlink(missing_ok=True)
        os.close(descriptor)

    def _open(self) -> int:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        try:
            return os.open(self._file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None

    def _is_current(self, descriptor: int) -> bool:
        """Return whether the file behind a descriptor is still that of the lock.

        Its last holder may have removed it.
        """
        try:
            return os.path.samestat(os.fstat(descriptor), self._file.stat())
        except FileNotFoundError:
            return False

    def _wait(self) -> None:
        time_now = time.monotonic()
        if self._waits_since is None:
            self._waits_since = time_now
        elif time_now - self._waits_since > SILENCE:
            say(f"{self.path.name} is being made by another process: waiting for it")
            self._waits_since = float("inf")
        time.sleep(PAUSE)

    def __enter__(self) -> Self:
        while not self.attempt():
            pass
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def do_if_free(path: Path, action: Callable[[], None]) -> None:
    """Do something to what belongs to `path`, unless another process is making it or the folder is read-only."""
    lock = Lock(path)
    try:
        if not lock.attempt():
            return
    except OSError:
        return
    try:
        action()
    finally:
        lock.release()


def _try_lock(descriptor: int) -> bool:
    try:
        _lock(descriptor)
    except OSError as error:
        if error.errno in _TAKEN_ERRORS:
            return False
        if error.errno not in _NO_LOCKS:
            raise
    return True
