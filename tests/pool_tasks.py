"""Work for workers, to be imported where torch is not to be loaded: this takes far longer than what is tested."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import tqdm

import interpret_robust
from interpret_robust.core.errors import UserError
from interpret_robust.core.interruption import Stopped, stop_requests

STAND_IN = "def set_num_threads(number): pass\n"
"""A module `torch` with all that a worker does with it before it works."""


@dataclass(frozen=True)
class Answer:
    """Says its word with its line, its process and the threads of torch there; or fails, for some words."""

    word: str

    def __call__(self, position: int | None) -> str:
        import torch

        if self.word == "mistake":
            raise UserError("a mistake of the user's.")
        if self.word == "stop":
            raise Stopped("stopped by a signal")
        if self.word == "fault":
            raise OSError(28, "No space left on device", "somewhere")
        return f"{self.word} {position} {os.getpid()} {torch.get_num_threads()}"


@dataclass(frozen=True)
class Sleep:
    """Writes its process id into `folder` and sleeps far longer than any test."""

    folder: Path

    def __call__(self, position: int | None) -> str:
        (self.folder / str(os.getpid())).touch()
        time.sleep(60)
        return "awake"


@dataclass(frozen=True)
class Surroundings:
    """Says the process that has begun its worker, and the variables that it finds there."""

    number: int

    def __call__(self, position: int | None) -> str:
        return f"{os.getppid()} {os.environ['IRT_TEST']} {os.environ.get('OMP_WAIT_POLICY')}"


@dataclass(frozen=True)
class Origin:
    """Says where its worker has found the packages, and what its environment says of where to look."""

    number: int

    def __call__(self, position: int | None) -> str:
        import torch

        return f"{interpret_robust.__file__} {torch.__file__} {tqdm.__file__} {variables()}"


def variables() -> list[str | None]:
    return [os.environ.get(name) for name in ("PYTHONPATH", "PYTHONSAFEPATH")]


@dataclass(frozen=True)
class Wait:
    """Writes its own name into `folder` and waits until it is asked to stop, as training does."""

    folder: Path
    name: str

    def __call__(self, position: int | None) -> str:
        with stop_requests() as stop:
            (self.folder / self.name).touch()
            stop.wait(60)
        raise Stopped("asked to")


@dataclass(frozen=True)
class Load:
    """Writes its own name into `folder`, loads a model for two seconds, and waits until it is asked to stop."""

    folder: Path
    name: str

    def __call__(self, position: int | None) -> str:
        (self.folder / self.name).touch()
        time.sleep(2)
        with stop_requests() as stop:
            stop.wait(60)
        raise Stopped("asked to")
