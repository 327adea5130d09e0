"""Note the git commit in what pip installs, so that answers tell which code gave them."""

import runpy
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CommitHook(BuildHookInterface):
    """Write `interpret_robust/commit`, which `core.provenance` reads; nothing outside of a checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the file to the wheel, or to the source distribution, from which a wheel takes it over."""
        root = Path(self.root)
        if version == "editable" or not (root / ".git").exists():
            return
        provenance = runpy.run_path(str(root / "interpret_robust/core/provenance.py"))  # which imports nothing of ours
        commit = provenance["read_commit"](root)
        if commit != provenance["UNKNOWN"]:
            self._folder = tempfile.TemporaryDirectory()
            path = Path(self._folder.name) / "commit"
            path.write_text(commit, encoding="ascii")
            build_data["force_include"][str(path)] = "interpret_robust/commit"
