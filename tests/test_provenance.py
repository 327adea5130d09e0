"""Where a result comes from, also where the package is not installed."""

import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from interpret_robust.core import provenance


def test_a_package_on_the_path_alone_has_a_version_to_store(monkeypatch: pytest.MonkeyPatch) -> None:
    assert provenance.read_package_version() == metadata.version("interpret-robust")

    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    assert provenance.read_package_version() == "not installed"
    assert provenance.read_code_version()["version"] == "not installed"


@pytest.mark.parametrize(("note", "expected"), [("0a1b2c+", {"commit": "0a1b2c+"}), (None, {})])
def test_an_installed_package_tells_the_commit_that_it_was_built_from(
    note: str | None, expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "site-packages" / "interpret_robust" / "core" / "provenance.py"
    module.parent.mkdir(parents=True)
    if note:
        (module.parents[1] / "commit").write_text(note)
    monkeypatch.setattr(provenance, "__file__", str(module))
    assert provenance.read_code_version() == {"version": metadata.version("interpret-robust")} | expected


def test_a_commit_is_that_of_git_with_a_mark_for_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    for name in ("clean", "changed"):
        folder = tmp_path / name
        folder.mkdir()
        git("init", "--quiet")
        git("commit", "--quiet", "--allow-empty", "--message", "first")
        if name == "changed":
            (folder / "new.txt").touch()
        assert provenance.read_commit(folder) == git("rev-parse", "HEAD") + "+" * (name == "changed")
    assert provenance.read_commit(tmp_path) == "unknown"
    provenance.read_commit.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert provenance.read_commit(tmp_path / "changed") == "unknown"
    provenance.read_commit.cache_clear()
