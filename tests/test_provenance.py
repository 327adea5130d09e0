"""Where a result comes from, also where the package is not installed."""

from importlib import metadata

import pytest

from interpret_robust.core import provenance


def test_a_package_on_the_path_alone_has_a_version_to_store(monkeypatch: pytest.MonkeyPatch) -> None:
    assert provenance.package_version() == metadata.version("interpret-robust")

    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    assert provenance.package_version() == "not installed"
    assert provenance.code_version()["version"] == "not installed"
