"""What a file of ours holds, as text, without torch: `irt show`."""

import math
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from interpret_robust.core.configs import flatten, format_lines
from interpret_robust.core.errors import UserError
from interpret_robust.core.parsing import format_count, format_duration, format_number
from interpret_robust.models import checkpoint_file
from interpret_robust.models.training_state import is_state, tell_progress
from interpret_robust.results import hdf5
from interpret_robust.results.export import PICTURE_AXES
from interpret_robust.results.schema import INTERVAL
from interpret_robust.results.tables import measure_terminal, render


def describe(path: Path) -> str:
    """Return contents and origin of a checkpoint (.safetensors) or an analysis (.h5), after checking its checksum.

    Raises UserError for a file that is missing, damaged or of another kind.
    """
    if path.suffix == ".safetensors":
        return _describe_checkpoint(path)
    if path.suffix == ".h5":
        return _describe_analysis(path)
    raise UserError(f"{path} is neither a checkpoint (.safetensors) nor an analysis (.h5): give one of these.")


def _describe_checkpoint(path: Path) -> str:
    content = checkpoint_file.read(path)
    numbers = sum(math.prod(tensor.shape) for tensor in content.tensors.values())
    rows = [_describe_epoch(epoch) for epoch in content.about["history"]]
    return "\n\n".join(
        [
            _fit(f"{path}: {len(content.tensors)} tensors, {numbers} numbers, checksum good"),
            _fit("\n".join(_list_facts(content.about))),
            render(rows) if rows else "no epoch is finished yet",
        ]
    )


def _list_facts(metadata: Mapping[str, Any]) -> Iterator[str]:
    """Yield lines on how a checkpoint was made, or how far the state of a training is."""
    facts = {key: value for key, value in metadata.items() if key not in ("history", "earlier", "line_step")}
    if is_state(metadata):
        facts["step"] = tell_progress(metadata)
    yield format_lines(_tell_time(facts))
    last = {key: metadata.get(key) for key in SESSION}
    for session in metadata.get("earlier", ()):
        notes = {key: value for key, value in session.items() if key != "step"}
        yield f"earlier, to step {session['step']:,}: {_tell_differences(notes, last)}as above"


def _tell_differences(facts: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
    """Return text such as `code.commit: 4560aa5, else ` of what is not as in the reference; nothing if all is."""
    flat_reference = flatten(reference)
    notes = dict.fromkeys(flat_reference, "not noted") | flatten(facts)
    listing = format_lines({key: value for key, value in notes.items() if value != flat_reference.get(key)})
    return f"{listing.replace(chr(10), ', ')}, else " if listing else ""


SESSION = ("code", "environment", "precision")
"""What a checkpoint says of the session in which it was finished; `earlier` says it of those before."""


def _describe_epoch(numbers: Mapping[str, Any]) -> dict[str, str]:
    return {key: value if key == "time" else _short(value) for key, value in _tell_time(numbers).items()}


def _tell_time(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts, their seconds as a time in words."""
    return dict(("time", format_duration(value)) if key == "seconds" else (key, value) for key, value in facts.items())


def _describe_analysis(path: Path) -> str:
    result = hdf5.read(path)
    rows = [{"dataset": name, "type": kind, "meaning": meaning} for name, kind, meaning in hdf5.list_datasets(path)]
    names = [row["dataset"] for row in rows if "/" in row["dataset"] and not row["type"].startswith("text")]
    provenance = hdf5.read_provenance(path)
    numbers = [row for name in names if not name.startswith("per_image/") for row in _statistic(result, name)]
    return "\n\n".join(
        [
            _fit(f"{path}: {result.schema}, {format_count(result.count, 'image')}, checksum good"),
            _fit("\n".join(_list_origin(provenance))),
            render(rows),
            render(numbers),
        ]
    )


def _list_origin(provenance: Mapping[str, Any]) -> Iterator[str]:
    """Yield lines on how an answer was made; of an evaluator trained as the model was, what is not the same."""
    config = dict(provenance["config"])
    evaluators, job = dict(config.pop("evaluators", {})), config["checkpoint"]["job"]
    jobs = evaluators.pop("jobs", {})
    yield format_lines({"config": config | {"evaluators": evaluators}})
    for name, job_of_evaluator in jobs.items():
        place = f"config.evaluators.jobs.{name}"
        if flatten(job_of_evaluator).keys() == flatten(job).keys():
            yield f"{place}: {_tell_differences(job_of_evaluator, job)}as config.checkpoint.job"
        else:
            yield format_lines({place: job_of_evaluator})
    rest = {key: value for key, value in provenance.items() if key != "config"}
    yield format_lines({**rest, "run": _tell_time(provenance["run"])})


def describe_image(path: Path, row: int) -> str:
    """Return what an analysis says of one image: what each column means, and under it its numbers with their places
    along further axes, or, where there are more than MOST_VALUES, all behind each other. Classes come first.

    Pictures are left out. Raises UserError for a file that is no analysis, and for a row that it does not have.
    """
    if path.suffix != ".h5":
        raise UserError(f"{path} is no analysis (.h5), and holds no numbers of single images.")
    result = hdf5.read(path)
    if row >= result.count:
        raise UserError(f"there is no image {row} in {path}: it has {result.count}, from 0 on.")
    columns = [(name, meaning) for name, _, meaning in hdf5.list_datasets(path) if name.startswith(PER_IMAGE)]
    lines = [f"{path}: {result.schema}, image {row} of {result.count}, checksum good"]
    for name, meaning in sorted(columns, key=lambda column: (column[0] != LABEL, not _holds_classes(column[0]))):
        if not set(result.axes(name)) & set(PICTURE_AXES):
            lines += [f"{name.removeprefix(PER_IMAGE)}: {meaning}", *_values(result, name, row)]
    return "\n".join(map(_fit, lines))


def _holds_classes(name: str) -> bool:
    """Return whether a column holds classes."""
    return "prediction" in name or name.removeprefix(PER_IMAGE) in CLASSES


def _values(result: hdf5.Result, name: str, row: int) -> Iterator[str]:
    """Yield what a column says of an image, a line a value, or one for all."""
    axes, values = result.axes(name)[1:], result.first(name, row + 1)[row]
    if _holds_classes(name):
        texts, gap = [_class_text(result, place) for place in np.ravel(values).tolist()], "; "
    else:
        texts, gap = list(map(str, np.ravel(values))), " "
    if not axes:
        yield f"  {texts[0]}"
    elif len(texts) > MOST_VALUES:
        yield f"  by {', '.join(axes)}: {gap.join(texts)}"
    else:
        places = [[_place_text(axis, place) for place in result[axis]] for axis in axes]
        yield from (f"  {', '.join(words)}: {text}" for words, text in zip(product(*places), texts, strict=True))


def _place_text(axis: str, place: Any) -> str:
    """Return a place along an axis: by its name, or by its number, such as `restart 0`."""
    return str(place) if isinstance(place, str) else f"{axis} {place}"


def _class_text(result: hdf5.Result, place: int) -> str:
    """Return a class by name and number, such as `ship (8)`."""
    names = result.job["class_names"]
    return f"{names[place]} ({place})" if 0 <= place < len(names) else f"no class ({place})"


def _fit(text: str) -> str:
    """Return lines broken where they are wider than the terminal: between words, in one that is wider by itself."""
    width = measure_terminal()
    return "\n".join(fill(line, width, subsequent_indent="    ", break_on_hyphens=False) for line in text.split("\n"))


PER_IMAGE = "per_image/"
LABEL = f"{PER_IMAGE}label"
CLASSES = ("label", "target", "target_class", "runner_up", "aim")
"""Columns of classes whose names do not say `prediction`."""

MOST_VALUES = 24
"""Intervals of one statistic that are shown; one of more of them is a curve or a matrix, for a table or a figure."""


def _statistic(result: hdf5.Result, name: str) -> Iterator[dict[str, str]]:
    """Yield a row for a number, or for each interval with its place by the names of its axes; nothing for a curve."""
    *axes, last = result.axes(name) or ("of",)
    places = [result[axis] for axis in axes]
    if last != "of" or any(names.dtype.kind not in "OU" for names in places):
        return
    values = result[name]
    if values.size > MOST_VALUES * len(INTERVAL):
        return
    for place in np.ndindex(*map(len, places)):
        names = [str(axis[index]) for axis, index in zip(places, place, strict=True)]
        numbers = map(_short, np.atleast_1d(values[place]))
        yield {
            "statistic": f"{name}[{', '.join(names)}]" if names else name,
            **dict(zip(INTERVAL, numbers, strict=False)),
        }


def _short(number: Any) -> str:
    return str(number) if isinstance(number, int | np.integer) else format_number(number, ".4g")
