"""Does a damaged file ever give another answer, a traceback or a hang?

    python benchmarks/mutate.py --mutations 2000 --json mutations.json

Of each kind of file that the product reads, one is written and damaged in seeded ways: bits flipped, blocks zeroed,
filled with noise, swapped, cut out, cut off, repeated or added, metadata changed. Each damaged file is read as a
command reads it, by a process of its own that is given PATIENCE seconds. A reading is "refused" in one sentence, the
"same" answer as before, or it is wrong: "other" numbers, a "traceback", a "hang". Of an unfinished file the answer is
what the finished run holds. A card is a text that people edit, without a checksum: what it then says is "edited".
Exit status 1 where anything was wrong.

Kinds: checkpoint, training (unfinished), analysis, partial (unfinished analysis), card, data.
"""

import argparse
import hashlib
import json
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from interpret_robust import analyses
from interpret_robust.analyses.engine import validation
from interpret_robust.cli import description
from interpret_robust.core import provenance
from interpret_robust.core.device import describe
from interpret_robust.core.errors import UserError
from interpret_robust.core.files import replace_file
from interpret_robust.datasets.npz import read_npz, write_npz
from interpret_robust.models import checkpoint
from interpret_robust.models.card import Card
from interpret_robust.results import hdf5, writer
from interpret_robust.results.schema import PROVENANCE, Schema

ROOT = Path(__file__).parents[1]
CHECKPOINT = ROOT / "checkpoints" / "cifar10-small-natural-seed0.safetensors"
ANALYSIS = ROOT / "tests" / "golden" / "attention-rank-3.h5"

PATIENCE = 20.0
"""Seconds after which a reading is taken to hang; none takes one."""

WRONG = ("other", "traceback", "hang")


def main() -> None:
    """Damage and read, kind by kind, and print how many readings ended how."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=500, help="damaged files of each kind")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the counts and each wrong reading")
    options = parser.parse_args()
    report: dict[str, Any] = {"first_seed": options.first_seed, "kinds": {}}
    report["machine"] = provenance.describe_environment(describe(torch.device("cpu")), 1, 1)
    for kind in options.kinds:
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            counts, wrong = damage_many(KINDS[kind], Path(folder), options.first_seed, options.mutations)
        print(f"{kind}: {dict(counts)} in {time.monotonic() - began:.0f} s", flush=True)
        for seed, outcome, words in wrong:
            print(f"  seed {seed}: {outcome}: {words}", flush=True)
        report["kinds"][kind] = {"outcomes": dict(counts), "wrong": wrong}
    if options.json:
        with replace_file(options.json) as partial:
            partial.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    sys.exit(any(record["wrong"] for record in report["kinds"].values()))


@dataclass(frozen=True)
class Kind:
    """A kind of file: how one is made in a folder, how its answer is read, and how its metadata are changed."""

    make: Callable[[Path], Path]
    answer: Callable[[Path], str]
    edit: Callable[[Path, random.Random], None]
    has_checksum: bool = True


def damage_many(kind: Kind, folder: Path, first: int, count: int) -> tuple[Counter[str], list[tuple[int, str, str]]]:
    """Return how many readings ended how, and of each wrong one its seed, its outcome and what was said."""
    whole = kind.make(folder)
    original = folder / "kept"
    shutil.copyfile(whole, original)
    expected = kind.answer(whole)
    reader = Reader(kind)
    counts: Counter[str] = Counter()
    wrong = []
    for seed in range(first, first + count):
        shutil.copyfile(original, whole)
        damage(whole, kind, random.Random(seed))
        outcome, words = reader.read(whole)
        if outcome == "answer":
            outcome = "same" if words == expected else "other" if kind.has_checksum else "edited"
        counts[outcome] += 1
        if outcome in WRONG:
            wrong.append((seed, outcome, words[-300:]))
    reader.close()
    return counts, wrong


class Reader:
    """A process that reads one file after another, and is replaced when it hangs or dies."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self._start()

    def _start(self) -> None:
        self.pipe, child_pipe = multiprocessing.Pipe()
        self.process = multiprocessing.get_context("fork").Process(target=_serve, args=(child_pipe, self.kind.answer))
        self.process.start()
        child_pipe.close()

    def read(self, path: Path) -> tuple[str, str]:
        """Return what a reading gave, "answer", "refused", "traceback" or "hang", and its words."""
        self.pipe.send(path)
        try:
            if self.pipe.poll(PATIENCE):
                outcome: tuple[str, str] = self.pipe.recv()
                return outcome
            result = ("hang", f"no answer in {PATIENCE:.0f} s")
        except EOFError:
            result = ("traceback", "the process died")
        self.close()
        self._start()
        return result

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()


def _serve(pipe: Any, answer: Callable[[Path], str]) -> None:
    while True:
        path = pipe.recv()
        try:
            pipe.send(("answer", answer(path)))
        except UserError as error:
            is_sentence = str(error).endswith(".") and "\n" not in str(error)
            pipe.send(("refused" if is_sentence else "traceback", str(error)))
        except Exception as error:
            pipe.send(("traceback", f"{type(error).__name__}: {error}"))


def damage(path: Path, kind: Kind, dice: random.Random) -> None:
    """Damage a file in one of the ways of the module's docstring."""
    if dice.random() < 0.2:
        kind.edit(path, dice)
    else:
        damage_bytes(path, dice)


def damage_bytes(path: Path, dice: random.Random) -> None:
    """Damage a file without knowing what it holds."""
    data = bytearray(path.read_bytes())
    place, length = dice.randrange(len(data)), dice.randrange(1, min(600, len(data) // 8))
    if dice.random() < 0.5:  # headers are short, and most of what can go wrong lies in them
        place = dice.randrange(min(len(data), 4096))
    other = dice.randrange(len(data))
    match dice.randrange(8):
        case 0:
            for _ in range(dice.randrange(1, 9)):
                data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        case 1:
            data[place] ^= 1 << dice.randrange(8)
        case 2:
            data[place : place + length] = bytes(len(data[place : place + length]))
        case 3:
            data[place : place + length] = dice.randbytes(len(data[place : place + length]))
        case 4:
            length = min(length, len(data) - place, len(data) - other)
            data[place : place + length], data[other : other + length] = (
                data[other : other + length],
                data[place : place + length],
            )
        case 5:
            del data[place : place + length]
        case 6:
            del data[other:]
        case 7:
            data += dice.randbytes(length) if dice.random() < 0.5 else data[place : place + length]
    path.write_bytes(data)


VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    3.5,
    10**30,
    "",
    "x",
    "../x",
    [],
    [1],
    {},
    {"a": 1},
    [[None]],
    float("nan"),
)
"""What a value of a JSON text is replaced by."""


def edit_json(value: Any, dice: random.Random) -> Any:
    """Return a JSON value with one of the values in it replaced, removed or added."""
    if isinstance(value, dict) and value and dice.random() < 0.9:
        name = dice.choice(sorted(value))
        if dice.random() < 0.15:
            return {other: inner for other, inner in value.items() if other != name}
        if dice.random() < 0.1:
            return value | {"more": dice.choice(VALUES)}
        return value | {name: edit_json(value[name], dice)}
    if isinstance(value, list) and value and dice.random() < 0.7:
        place = dice.randrange(len(value))
        return [*value[:place], edit_json(value[place], dice), *value[place + 1 :]]
    return dice.choice(VALUES)


def digest_parts(*parts: Any) -> str:
    """Return the SHA-256 over arrays and texts."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray) and part.dtype != object:
            digest.update(f"{part.dtype} {part.shape}".encode() + np.ascontiguousarray(part).tobytes())
        else:
            digest.update(str(part).encode())
    return digest.hexdigest()


def make_checkpoint(folder: Path) -> Path:
    """Write a checkpoint of CIFAR-10."""
    return Path(shutil.copyfile(CHECKPOINT, folder / CHECKPOINT.name))


def read_checkpoint(path: Path) -> str:
    """Return what a checkpoint says and holds."""
    return digest_checkpoint(path, checkpoint.read(path))


def read_training(path: Path) -> str:
    """Return what the state of an unfinished run says and holds."""
    return digest_checkpoint(path, checkpoint.parse_state(path, path.read_bytes()))


def digest_checkpoint(path: Path, subject: checkpoint.Checkpoint) -> str:
    """Return what a checkpoint, or the state of a run, says and holds."""
    return digest_parts(description.describe(path), json.dumps(subject.about, sort_keys=True), subject.sha256)


def edit_checkpoint(path: Path, dice: random.Random) -> None:
    """Change the JSON header of a safetensors file, or a text in its metadata."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    if dice.random() < 0.5:
        metadata = json.loads(header["__metadata__"]["about"])
        header["__metadata__"]["about"] = json.dumps(edit_json(metadata, dice))
    else:
        header = edit_json(header, dice)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def make_training(folder: Path) -> Path:
    """Write the state of an unfinished run: a checkpoint's tensors as such a file names them."""
    subject = checkpoint.read(CHECKPOINT)
    path = folder / f"{CHECKPOINT.stem}.state.safetensors"
    metadata = subject.about | {"step": 3, "seconds": 1.0, "earlier": []}
    checkpoint.write(path, metadata, {f"model.{name}": tensor for name, tensor in subject.tensors.items()})
    return path


def read_analysis(path: Path) -> str:
    """Return what a finished analysis holds and says of itself."""
    result = hdf5.read(path, find_schema().label)
    problems = validation.list_problems(path)
    if problems:
        raise UserError(problems[0])
    values = [result[name] for name, _, _ in hdf5.list_datasets(path)]
    return digest_parts(description.describe(path), *values, json.dumps(result.config, sort_keys=True))


def edit_analysis(path: Path, dice: random.Random) -> None:
    """Change an attribute of the root, a text of the origin, or a value, as a program that knows HDF5 would."""
    with h5py.File(path, "r+") as file:
        match dice.randrange(3):
            case 0:
                item = file if dice.random() < 0.5 else file[dice.choice(sorted(file))]
                name = dice.choice(sorted(set(item.attrs) - {"created_utc", "long_name"}) or ["more"])
                item.attrs[name] = dice.choice([1, -1, 2.5, "x", "", [1, 2], ["a", "b"], True, b"\xff"])
            case 1:
                group = file[PROVENANCE]
                name = dice.choice(sorted(group))
                text = json.dumps(edit_json(json.loads(group[name].asstr()[()]), dice))
                del group[name]
                group[name] = text
            case 2:
                columns = [column.path for column in find_schema().per_image]
                dataset = file[dice.choice(columns)]
                rows = dataset[...]
                rows[dice.randrange(len(rows))] += 1
                dataset[...] = rows


def find_schema() -> Schema:
    """Return the schema of the analysis that is damaged."""
    result: Schema = analyses.get("attention-rank").schema
    return result


BATCH = 2
"""Rows a batch of the unfinished analysis."""


def open_partial(path: Path) -> writer.Rows:
    """Open the unfinished analysis whose finished file would be `path`."""
    whole = hdf5.read(ANALYSIS)
    axes = {
        axis: len(whole[axis])
        for column in find_schema().per_image
        for axis in column.axes
        if find_schema().names(axis) is None
    }
    return writer.open_rows(path, find_schema(), whole.count, axes, whole.config, {"python": "3"})


def fill(rows: writer.Rows, stop: int) -> None:
    """Append rows of the finished analysis, batch by batch, up to `stop`."""
    whole = hdf5.read(ANALYSIS)
    for start in range(rows.row_count, stop, BATCH):
        rows.append({c.path: whole[c.path][start : min(start + BATCH, stop)] for c in find_schema().per_image})


def make_partial(folder: Path) -> Path:
    """Write an unfinished analysis, three quarters done."""
    with open_partial(folder / "partial.h5") as rows:
        fill(rows, 6)
    return folder / "partial.h5.partial"


def resume(path: Path) -> str:
    """Return the content of the finished file that an unfinished one ends in."""
    whole, copy = hdf5.read(ANALYSIS), path.with_name("copy.h5")
    copy.unlink(missing_ok=True)
    shutil.copyfile(path, copy.with_name("copy.h5.partial"))
    with open_partial(copy) as rows:
        fill(rows, whole.count)
        rows.finish({column.path: whole[column.path] for column in find_schema().summary}, {})
    environment = hdf5.read_provenance(copy)["environment"]
    return digest_parts(hdf5.attributes(copy)["content_sha256"], json.dumps(environment, sort_keys=True))


def make_analysis(folder: Path) -> Path:
    """Write a finished analysis, as this version does."""
    resume(make_partial(folder))
    return folder / "copy.h5"


def make_card(folder: Path) -> Path:
    """Write a model card."""
    path = folder / "card.json"
    Card(model="torchvision:resnet18", arguments=(("num_classes", 10),), local_layer="layer3", resize=64).write(path)
    return path


def read_card(path: Path) -> str:
    """Return what a card says, as a command line."""
    return " ".join(Card.read(path).words())


def edit_card(path: Path, dice: random.Random) -> None:
    """Change a value of a card by a value of another type; it is to be refused or to say what it says."""
    entries = json.loads(path.read_text())
    name = dice.choice(sorted(entries))
    path.write_text(json.dumps(entries | {name: dice.choice([[], {}, [None], {"a": 1}, [[1]], True, 2.5])}))


def make_data(folder: Path) -> Path:
    """Write a data set of our own with class names, text beside it and masks of the object."""
    numbers = np.random.default_rng(0)
    arrays: dict[str, Any] = {"class_names": np.array(["ant", "bee", "cow"])}
    for part, count in (("train", 12), ("test", 9)):
        arrays[f"x_{part}"] = numbers.integers(0, 256, (count, 8, 6, 3), np.uint8)
        arrays[f"y_{part}"] = np.arange(count) % 3
        arrays[f"mask_{part}"] = numbers.integers(0, 2, (count, 8, 6), np.uint8)
    write_npz(folder / "data.npz", arrays)
    return folder / "data.npz"


def read_data(path: Path) -> str:
    """Return what a data set holds."""
    train, test, names = read_npz(path)
    splits = (test,) if train is None else (train, test)
    arrays = [array for split in splits for array in (split.images, split.labels, split.masks)]
    return digest_parts(*arrays, names)


def edit_data(path: Path, dice: random.Random) -> None:
    """Do to a data set what a careless program does: lose an array's rows, or give it another type or shape."""
    with np.load(path) as archive:
        arrays = dict(archive)
    name = dice.choice(sorted(set(arrays) - {"class_names"}))
    array = arrays[name]
    arrays[name] = dice.choice([array[:-1], array.astype("f8") + 0.5, array[None], array[:0]])
    write_npz(path, arrays)


KINDS: Mapping[str, Kind] = {
    "checkpoint": Kind(make_checkpoint, read_checkpoint, edit_checkpoint),
    "training": Kind(make_training, read_training, edit_checkpoint),
    "analysis": Kind(make_analysis, read_analysis, edit_analysis),
    "partial": Kind(make_partial, resume, edit_analysis),
    "card": Kind(make_card, read_card, edit_card, has_checksum=False),
    "data": Kind(make_data, read_data, edit_data),
}

if __name__ == "__main__":
    main()
