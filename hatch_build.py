"""Note the git commit in what pip installs, so that answers tell which code gave them."""

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CommitHook(BuildHookInterface):
    """Write `interpret_robust/commit`, which `core.provenance` reads; nothing outside of a checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the file to the wheel, or to the source distribution, from which a wheel takes it over."""
        if version == "editable" or not (Path(self.root) / ".git").exists():
            return
        if commit := self._git("rev-parse", "HEAD"):
            self._folder = tempfile.TemporaryDirectory()
            path = Path(self._folder.name) / "commit"
            path.write_text(commit + ("+" if self._git("status", "--porcelain") else ""), encoding="ascii")
            build_data["force_include"][str(path)] = "interpret_robust/commit"

    def _git(self, *arguments: str) -> str:
        if shutil.which("git") is None:
            return ""
        answer = subprocess.run(["git", "-C", self.root, *arguments], capture_output=True, text=True, check=False)
        return answer.stdout.strip()
