"""Files that appear whole or not at all."""

import glob
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from interpret_robust.core.errors import UserError


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield `PATH.PID.partial` to write to; on leaving, put it in place of `path` in one step.

    After an exception the partial file is removed and `path` is as it was.
    """
    # Two commands may make the same file, such as the embedded data, at the same time.
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        put_in_place(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def stamp(path: Path | str | None) -> tuple[int, ...] | None:
    """Return numbers that are others after a file was written anew, None where there is none.

    Example:
        >>> stamp(Path("missing.npz"))
    """
    if not path:  # an empty path would be the working folder
        return None
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def stamp_tree(path: Path) -> tuple[tuple[int, ...] | None, ...]:
    """Return the stamps of a file, or of a folder and all folders in it: others when files came, went or were renamed.

    Example:
        >>> stamp_tree(Path("missing"))
        (None,)
    """
    return (stamp(path), *(stamp(Path(folder)) for folder, _, _ in sorted(os.walk(path))))


def remove_leftovers(*paths: Path) -> None:
    """Remove what killed processes left half-written of these files, see `replace_file`.

    The caller holds the lock under which they are made, see `core.locks`.

    Example:
        >>> remove_leftovers(Path("figures/robustness.png"), Path("figures/robustness.pdf"))
    """
    for path in paths:
        for partial in path.parent.glob(f"{glob.escape(path.name)}.*.partial"):
            if partial.name.removeprefix(f"{path.name}.").removesuffix(".partial").isdigit():
                partial.unlink(missing_ok=True)


def put_in_place(partial: Path, path: Path) -> None:
    """Flush `partial` to the disk and rename it to `path`, replacing what is there."""
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_readable(path: Path) -> None:
    """Raise UserError where a file is there and its permissions do not allow to read it.

    Example:
        >>> check_readable(Path("checkpoints/mine.safetensors"))
    """
    try:
        with open(path, "rb"):
            pass
    except PermissionError:
        raise UserError(f"{path} may not be read: its permissions do not allow it.") from None
    except OSError:
        return


def list_files(folder: Path, pattern: str) -> list[Path]:
    """Return the paths in a folder whose names match a pattern, by name; none where there is no folder.

    Raises UserError where the folder's permissions do not allow to list it.

    Example:
        >>> list_files(Path("no folder"), "robustness-*.h5")
        []
    """
    try:
        os.scandir(folder).close()  # glob passes over a folder that may not be read
    except PermissionError:
        raise UserError(f"{folder} may not be read: its permissions do not allow it.") from None
    except OSError:
        return []
    return sorted(folder.glob(pattern))


def check_present(path: Path, kind: str, remedy: str) -> None:
    """Raise UserError where there is no file at `path`, or its permissions do not allow to read it.

    The sentence names the file of the folder whose name is nearest, if there is any.

    Example:
        >>> check_present(Path("mine.safetensors"), "checkpoint", "`irt train` makes them")
        Traceback (most recent call last):
        interpret_robust.core.errors.UserError: there is no checkpoint mine.safetensors: `irt train` makes them.
    """
    if not path.is_file():
        raise UserError(f"there is no {kind} {path}: {_hint(path)}{remedy}.")
    check_readable(path)


def _hint(path: Path) -> str:
    """Return the question whether another file of the folder was meant; nothing where no name is near."""
    import difflib  # which most commands do not need

    names = [entry.name for entry in path.parent.glob(f"*{glob.escape(path.suffix)}") if entry.is_file()]
    nearest = difflib.get_close_matches(path.name, names, n=1, cutoff=0.8)
    return f"did you mean {path.with_name(nearest[0])}? " if nearest else ""


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
