"""Where a result comes from: the code, the libraries, the machine."""

import platform
import shutil
import subprocess
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path

LIBRARIES = ("torch", "torchvision", "captum", "numpy", "scipy", "h5py")
UNKNOWN = "unknown"
OPTIONAL = ("torchattacks",)
"""Of an extra: noted where they are installed."""


def read_package_version() -> str:
    """Return the package's version, or "not installed" where it runs from a folder on Python's path."""
    try:
        return metadata.version("interpret-robust")
    except metadata.PackageNotFoundError:
        return "not installed"


def read_code_version() -> dict[str, str]:
    """Return the package's version, and the git commit (`+` for local changes) of a checkout that it runs in.

    Of an installed package it is the commit that it was built from, if that was a checkout (see `hatch_build.py`).
    """
    folder = Path(__file__).parents[1]
    version, note = {"version": read_package_version()}, folder / "commit"
    if (folder.parent / ".git").exists():
        return version | {"commit": read_commit(folder)}
    return version | {"commit": note.read_text(encoding="ascii")} if note.exists() else version


def describe_environment(device: str, threads: int, processes: int) -> dict[str, str | int]:
    """Return versions of Python and the libraries, the processor, the device, how many processes of `threads` each."""
    import torch

    return {
        "python": platform.python_version(),
        **_versions(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "system": platform.system(),
        "device": device,
        "threads": threads,
        "processes": processes,
    }


@cache
def _versions() -> dict[str, str]:
    """Return the versions of all libraries, of the optional ones those that are installed."""
    versions = {name: metadata.version(name) for name in LIBRARIES}
    for name in OPTIONAL:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


@cache
def read_commit(folder: Path) -> str:
    """Return the commit of a checkout, with `+` for local changes; `unknown` without git.

    It is that of when this process first asks: later changes are not in what runs.
    """
    if shutil.which("git") is None or not (commit := _git(folder, "rev-parse", "HEAD")):
        return UNKNOWN
    return commit + ("+" if _git(folder, "status", "--porcelain") else "")


def _git(folder: Path, *arguments: str) -> str:
    answer = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    return answer.stdout.strip()
