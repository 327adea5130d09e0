"""A model on disk: bits, origin, and one sentence for each kind of bad file."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from interpret_robust.core import files
from interpret_robust.core.errors import UserError
from interpret_robust.datasets import Dataset
from interpret_robust.datasets.batches import to_device, to_pixels
from interpret_robust.models import build, checkpoint

CPU = torch.device("cpu")
HEADER: dict[str, Any] = {
    "job": {
        "dataset": "digits",
        "image_shape": [3, 32, 32],
        "class_names": ["null", "één", "two"],
        "architecture": "small",
        "variant": "at-att",
        "seed": 7,
        "recipe": {"eps": 8 / 255, "ema": None, "flip": False},
    },
    "history": [{"epoch": 1, "accuracy": 0.1, "eps": 1e-30}],
}


def tensors() -> dict[str, Tensor]:
    """Of every kind: no axis, none in memory order, empty, and numbers that are no numbers."""
    random = torch.Generator().manual_seed(0)
    return {
        "weight": torch.randn((2, 3, 4, 5), generator=random).to(memory_format=torch.channels_last),
        "half": torch.randn(7, generator=random).to(torch.bfloat16),
        "steps": torch.tensor(2**62 + 1),
        "counts": torch.arange(3) - 2**40,
        "flags": torch.tensor([True, False]),
        "odd": torch.tensor([float("nan"), float("inf"), -0.0]),
        "none": torch.empty(0, 3),
    }


def bits(tensor: Tensor) -> bytes:
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).tolist())


def small(head: str = "nonlinear", architecture: str = "small") -> dict[str, Tensor]:
    return dict(build(architecture, head, (3, 32, 32), 3, seed=0).state_dict())  # type: ignore[arg-type]


def test_tensors_and_their_origin_come_back_to_the_bit(tmp_path: Path) -> None:
    path, originals = tmp_path / "deep" / "x.safetensors", tensors()
    checkpoint.write(path, HEADER, originals)
    stored_checkpoint = checkpoint.read(path)
    assert stored_checkpoint.about == HEADER
    assert stored_checkpoint.job == HEADER["job"]
    assert stored_checkpoint.tensors.keys() == originals.keys()
    for name, tensor in originals.items():
        copy = stored_checkpoint.tensors[name]
        assert (copy.dtype, copy.shape, bits(copy)) == (tensor.dtype, tensor.shape, bits(tensor)), name


@pytest.mark.parametrize(("accuracy", "variant", "count"), [(0.1, "at", 1), (0.11, "natural", 1), (0.3, "at", 0)])
def test_a_training_that_taught_nothing_is_doubted(tmp_path: Path, accuracy: float, variant: str, count: int) -> None:
    """By the exact binomial test, 11 % of 300 images is no more than guessing one of ten classes."""
    job = HEADER["job"] | {"variant": variant, "architecture": "small", "images": 300, "class_names": [*"abcdefghij"]}
    path = tmp_path / "x.safetensors"
    checkpoint.write(path, HEADER | {"job": job, "metrics": {"training_accuracy": accuracy}}, tensors())
    doubts = checkpoint.read(path).doubts
    assert len(doubts) == count
    for doubt in doubts:
        attack = " under attack" if variant == "at" else ""
        assert doubt.startswith(f"x had {accuracy:.0%} of its 300 training images right{attack} in its last epoch, no")


def test_the_checksum_is_of_the_tensors_alone(tmp_path: Path) -> None:
    def sha256(header: dict[str, Any], **changes: Tensor) -> str:
        checkpoint.write(tmp_path / "x.safetensors", header, tensors() | changes)
        return checkpoint.read(tmp_path / "x.safetensors").sha256

    first = sha256(HEADER)
    assert sha256(HEADER | {"history": []}) == first
    assert sha256(HEADER, counts=torch.arange(3) - 2**40 + 1) != first
    assert sha256(HEADER, half=tensors()["half"].view(torch.float16)) != first


def test_a_loaded_model_gives_the_same_logits(
    tmp_path: Path, digits: Dataset, make_checkpoint: Callable[..., Path]
) -> None:
    images = to_pixels(to_device(digits.train, CPU)[0])
    path = make_checkpoint(tmp_path, "at-att")
    original = build("small", "nonlinear", digits.image_shape, 10, seed=9)
    original.load_state_dict(checkpoint.read(path).tensors)
    original.to(memory_format=torch.channels_last).eval()
    model = checkpoint.read(path).model(CPU)
    assert not any(module.training for module in model.modules())
    with torch.no_grad():
        assert torch.equal(model(images), original(images))
        assert (model(images).argmax(1).numpy() == digits.train.labels).mean() > 0.5


def write_truncated(path: Path) -> None:
    checkpoint.write(path, HEADER, tensors())
    path.write_bytes(path.read_bytes()[:-10])


def write_flipped(path: Path) -> None:
    checkpoint.write(path, HEADER, tensors())
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def newer(path: Path) -> None:
    checkpoint.write(path, HEADER, tensors())
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file({"x": torch.zeros(1)}, path, metadata | {"format_version": "3"})


def writer_of(head: str, architecture: str) -> Callable[[Path], None]:
    return lambda path: checkpoint.write(path, HEADER, small(head, architecture))


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda path: None, ("there is no checkpoint FILE", "irt train")),
        (lambda path: path.mkdir(), ("there is no checkpoint FILE",)),
        (lambda path: path.touch(), ("damaged or no safetensors file",)),
        (lambda path: path.write_text("epoch,accuracy\n" * 9), ("damaged or no safetensors file",)),
        (write_truncated, ("damaged or no safetensors file", "train again")),
        (write_flipped, ("differ from their checksum", "train again")),
        (lambda path: save_file({"x": torch.zeros(2)}, path), ("not one that `irt train` wrote",)),
        (newer, ("checkpoint format 3", "reads up to 2", "update interpret-robust")),
        (writer_of("nonlinear", "narrow"), ("'small'", "tensors differ")),
        (writer_of("average", "small"), ("'small'", "tensors differ", "first head.")),
    ],
)
def test_each_kind_of_bad_file_gets_its_sentence(
    tmp_path: Path, make: Callable[[Path], object], parts: tuple[str, ...]
) -> None:
    path = tmp_path / "x.safetensors"
    make(path)
    with pytest.raises(UserError) as error:
        checkpoint.read(path).model(CPU)
    text = str(error.value)
    assert str(path) in text
    rest = text.replace(str(path), "FILE")
    assert re.fullmatch(r"[^\n]*[a-z\d]\.", rest)
    assert ". " not in rest
    for part in parts:
        assert part in rest


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("failure", [RuntimeError("no"), KeyboardInterrupt()])
def test_a_write_that_is_cut_short_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, is_there: bool
) -> None:
    path = tmp_path / "x.safetensors"
    if is_there:
        checkpoint.write(path, HEADER, tensors())
    contents = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def fail(partial: Path, _: Path) -> None:
        assert partial.stat().st_size > 100
        raise failure

    monkeypatch.setattr(files, "put_in_place", fail)
    with pytest.raises(type(failure)):
        checkpoint.write(path, HEADER | {"history": []}, tensors())
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == contents


def test_a_file_that_cannot_grow_leaves_the_old_one(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "x.safetensors"
    checkpoint.write(path, HEADER, tensors())
    content, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            checkpoint.write(path, HEADER | {"history": []}, tensors())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == content


def test_any_safetensors_reader_finds_the_origin(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "x.safetensors", HEADER, tensors())
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == "interpret-robust-checkpoint"
    assert json.loads(metadata["about"]) == HEADER
