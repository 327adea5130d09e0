"""Where a working directory keeps what the three commands write."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Folders:
    """The three folders of a working directory, and its page."""

    root: Path

    @property
    def checkpoints(self) -> Path:
        """Return trained models."""
        return self.root / "checkpoints"

    @property
    def analyses(self) -> Path:
        """Return answers."""
        return self.root / "analyses"

    @property
    def figures(self) -> Path:
        """Return pictures."""
        return self.root / "figures"

    @property
    def report(self) -> Path:
        """Return all of it on one page."""
        return self.root / "report.html"
