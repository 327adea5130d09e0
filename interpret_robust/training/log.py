"""What a training says while it runs, for programs: lines of JSON in a file, and the same numbers for TensorBoard.

A line of an epoch is that of the checkpoint's history. A line of steps holds means over the steps since the one before
it in the same epoch.
"""

import importlib.util
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from interpret_robust.core.configs import hash_config, replace_infinite
from interpret_robust.core.errors import UserError
from interpret_robust.core.files import replace_file
from interpret_robust.training.job import Job, drop_name

Row = Mapping[str, Any]
"""The numbers of an epoch or of some steps, by name."""

Write = Callable[[Sequence[Row]], None]

ENDING = ".log.jsonl"


@dataclass(frozen=True)
class Logs:
    """Which logs a training keeps.

    Attributes:
        file: whether lines of JSON go to `NAME.log.jsonl` beside the checkpoint.
        steps: every how many steps there is a line, beside that of each epoch; None for epochs alone.
        tensorboard: a folder for TensorBoard, in which each job has a folder of its own.

    Raises UserError for steps without a log, and where TensorBoard's package is missing.
    """

    file: bool = False
    steps: int | None = None
    tensorboard: Path | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and not (self.file or self.tensorboard):
            raise UserError(f"--log-steps {self.steps} needs a log: give --log or --tensorboard FOLDER too.")
        if self.tensorboard and importlib.util.find_spec("tensorboard") is None:
            raise UserError("--tensorboard needs the package tensorboard, which is missing: pip install tensorboard.")


NO_LOGS = Logs()


def identify_job(job: Job) -> str:
    """Return twelve hexadecimal digits that jobs of other numbers do not share."""
    return hash_config(drop_name(job.describe()))[:12]


@contextmanager
def open_logs(
    logs: Logs, checkpoint: Path, job: Job, step: int, history: Iterable[Row], *, overwrite: bool
) -> Iterator[Write]:
    """Yield what writes rows to the logs of the training of `checkpoint`, which has done `step` steps.

    Lines of later steps, which a run wrote that was stopped before it had saved them, are left out; epochs of
    `history` that the file lacks are filled in. Raises UserError where the file is a log of another job.
    """
    with ExitStack() as stack:
        writers: list[Write] = []
        if logs.file:
            writers.append(
                stack.enter_context(_open_lines(name_log(checkpoint), job, step, history, overwrite=overwrite))
            )
        if logs.tensorboard:
            folder = logs.tensorboard / f"{checkpoint.stem}-{identify_job(job)}"
            writers.append(stack.enter_context(_open_events(folder, step, history)))

        def write(rows: Sequence[Row]) -> None:
            for writer in writers:
                writer(rows)

        yield write


def name_log(checkpoint: Path) -> Path:
    """Return where the lines of the training of a checkpoint lie."""
    return checkpoint.with_name(f"{checkpoint.stem}{ENDING}")


@contextmanager
def _open_lines(path: Path, job: Job, step: int, history: Iterable[Row], *, overwrite: bool) -> Iterator[Write]:
    """Yield what adds lines to a file, each of which can be read at once (`tail -F`)."""
    origin = {"model": job.name, "job": identify_job(job)}
    earlier = {} if overwrite and step == 0 else _read(path, origin, overwrite=overwrite)
    rows = {_place(row): _line({**row, **origin}, None) for row in history}
    rows |= {place: line for place, line in earlier.items() if place[0] <= step}
    with replace_file(path) as partial:
        partial.write_text("".join(rows[place] for place in sorted(rows)), encoding="utf-8")
    with path.open("a", encoding="utf-8") as file:

        def write(rows: Sequence[Row]) -> None:
            time = datetime.now(UTC).isoformat(timespec="seconds")
            file.writelines(_line({**row, **origin}, time) for row in rows)
            file.flush()

        yield write


def _line(row: Row, time: str | None) -> str:
    """Return a row as a line of JSON, which knows no NaN."""
    values = {"kind": row["kind"], "step": row["step"], "epoch": row["epoch"], "time": time, **row}
    return json.dumps(replace_infinite(values)) + "\n"


def _place(row: Row) -> tuple[int, bool]:
    """Return where a line stands: by its step, that of the epoch behind that of steps."""
    return row["step"], row["kind"] == "epoch"


def _read(path: Path, origin: Row, *, overwrite: bool) -> dict[tuple[int, bool], str]:
    """Return the whole lines of an earlier run of the same job by their place; nothing where there is no file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        text = "?\n"
    *lines, rest = text.split("\n")  # a killed run may leave half a line
    try:
        rows = [json.loads(line) for line in lines]
        is_ours = all(row["job"] == origin["job"] for row in rows) and _is_begun_line(rest)
        places = [_place(row) for row in rows]
    except (ValueError, TypeError, KeyError):
        is_ours = False
    if is_ours:
        return dict(zip(places, (f"{line}\n" for line in lines), strict=True))
    if overwrite:
        return {}
    raise UserError(f"{path} is the log of another training: move it, or --overwrite to replace it.")


def _is_begun_line(text: str) -> bool:
    """Return whether a log may end with `text`: with nothing, or with as much of a line as a killed run wrote."""
    return any(text.startswith(start[: len(text)]) for start in _STARTS)


_STARTS = tuple(f'{{"kind": "{kind}", "step": ' for kind in ("steps", "epoch"))
"""How lines begin, see `_line`."""


@contextmanager
def _open_events(folder: Path, step: int, history: Iterable[Row]) -> Iterator[Write]:
    """Yield what writes rows for TensorBoard, which forgets what earlier runs wrote of later steps.

    In a folder without events of earlier runs, the epochs of `history` are written first.
    """
    from torch.utils.tensorboard import SummaryWriter

    is_new = not any(folder.glob("events.out.tfevents.*"))
    writer = SummaryWriter(str(folder), purge_step=None if is_new else step + 1)
    try:

        def write(rows: Sequence[Row]) -> None:
            for row in rows:
                for name in [name for name in row if name not in NO_SCALARS]:
                    writer.add_scalar(f"{row['kind']}/{name}", row[name], row["step"])
            writer.flush()

        if is_new:
            write([*history])
        yield write
    finally:
        writer.close()


NO_SCALARS = frozenset({"kind", "step", "epoch", "restarted_from_step"})
"""What a row says of its place; all other entries are numbers that are drawn over its step."""
