"""Where a working directory keeps what the three commands write."""

from dataclasses import dataclass
from pathlib import Path

from interpret_robust.core.errors import UserError
from interpret_robust.core.files import list_files

STATE, ENDING = ".state", ".safetensors"
"""What the name of the state of an unfinished training ends with, and what the name of every checkpoint ends with."""


def has_state_name(path: Path) -> bool:
    """Return whether a file has the name of the state of an unfinished training."""
    return path.stem.endswith(STATE)


@dataclass(frozen=True)
class Folders:
    """The three folders of a working directory, and its page."""

    root: Path

    @property
    def checkpoints(self) -> Path:
        """Return the folder of trained models."""
        return self.root / "checkpoints"

    @property
    def analyses(self) -> Path:
        """Return the folder of answers."""
        return self.root / "analyses"

    @property
    def figures(self) -> Path:
        """Return the folder of pictures."""
        return self.root / "figures"

    def list_models(self) -> list[Path]:
        """Return the finished checkpoints, by name; none where nothing was trained yet."""
        return [path for path in list_files(self.checkpoints, f"*{ENDING}") if not has_state_name(path)]

    def list_states(self) -> list[Path]:
        """Return the states of unfinished trainings, by name."""
        return list_files(self.checkpoints, f"*{STATE}{ENDING}")

    def all_models(self) -> list[Path]:
        """Return the finished checkpoints, by name. Raises UserError where there are none."""
        if paths := self.list_models():
            return paths
        if states := self.list_states():
            phrase = f" and {len(states) - 1} more are" if len(states) > 1 else " is"
            raise UserError(
                f"there are no finished checkpoints in {self.checkpoints}: {states[0].name}{phrase} unfinished, and "
                "the same `irt train` goes on."
            )
        raise UserError(f"there are no checkpoints in {self.checkpoints}: `irt train` makes them.")

    def list_analyses(self, name: str = "") -> list[Path]:
        """Return the finished answers, by name; those of one analysis where its `name` is given.

        Raises UserError where permissions do not allow to list them.
        """
        return list_files(self.analyses, f"{name}-*.h5" if name else "*.h5")

    @property
    def report(self) -> Path:
        """Return the path of the page that shows all of it."""
        return self.root / "report.html"
