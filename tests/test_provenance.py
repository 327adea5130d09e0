"""Where a result comes from, also where the package is not installed."""

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
