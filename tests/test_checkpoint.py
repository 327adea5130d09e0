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
ABOUT: dict[str, Any] = {
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
    path, written = tmp_path / "deep" / "x.safetensors", tensors()
    checkpoint.write(path, ABOUT, written)
    found = checkpoint.read(path)
    assert found.about == ABOUT
    assert found.job == ABOUT["job"]
    assert found.tensors.keys() == written.keys()
    for name, tensor in written.items():
        back = found.tensors[name]
        assert (back.dtype, back.shape, bits(back)) == (tensor.dtype, tensor.shape, bits(tensor)), name


def test_the_checksum_is_of_the_tensors_alone(tmp_path: Path) -> None:
    def sha256(about: dict[str, Any], **changes: Tensor) -> str:
        checkpoint.write(tmp_path / "x.safetensors", about, tensors() | changes)
        return checkpoint.read(tmp_path / "x.safetensors").sha256

    first = sha256(ABOUT)
    assert sha256(ABOUT | {"history": []}) == first
    assert sha256(ABOUT, counts=torch.arange(3) - 2**40 + 1) != first
    assert sha256(ABOUT, half=tensors()["half"].view(torch.float16)) != first


def test_a_loaded_model_gives_the_same_logits(
    tmp_path: Path, digits: Dataset, make_checkpoint: Callable[..., Path]
) -> None:
    images = to_pixels(to_device(digits.train, CPU)[0])
    path = make_checkpoint(tmp_path, "at-att")
    original = build("small", "nonlinear", digits.image_shape, 10, seed=9)
    original.load_state_dict(checkpoint.read(path).tensors)
    original.to(memory_format=torch.channels_last).eval()
    loaded = checkpoint.read(path).model(CPU)
    assert not any(module.training for module in loaded.modules())
    with torch.no_grad():
        assert torch.equal(loaded(images), original(images))
        assert (loaded(images).argmax(1).numpy() == digits.train.labels).mean() > 0.5


def truncated(path: Path) -> None:
    checkpoint.write(path, ABOUT, tensors())
    path.write_bytes(path.read_bytes()[:-10])


def flipped(path: Path) -> None:
    checkpoint.write(path, ABOUT, tensors())
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def newer(path: Path) -> None:
    checkpoint.write(path, ABOUT, tensors())
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file({"x": torch.zeros(1)}, path, metadata | {"format_version": "3"})


def of(head: str, architecture: str) -> Callable[[Path], None]:
    return lambda path: checkpoint.write(path, ABOUT, small(head, architecture))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, ("there is no checkpoint FILE", "irt train")),
        (lambda path: path.mkdir(), ("there is no checkpoint FILE",)),
        (lambda path: path.touch(), ("damaged or no safetensors file",)),
        (lambda path: path.write_text("epoch,accuracy\n" * 9), ("damaged or no safetensors file",)),
        (truncated, ("damaged or no safetensors file", "train again")),
        (flipped, ("differ from their checksum", "train again")),
        (lambda path: save_file({"x": torch.zeros(2)}, path), ("not one that `irt train` wrote",)),
        (newer, ("checkpoint format 3", "reads up to 2", "update interpret-robust")),
        (of("nonlinear", "narrow"), ("'small'", "tensors differ")),
        (of("average", "small"), ("'small'", "tensors differ", "first head.")),
    ],
)
def test_each_kind_of_bad_file_gets_its_sentence(
    tmp_path: Path, make: Callable[[Path], object], said: tuple[str, ...]
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
    for part in said:
        assert part in rest


@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("failure", [RuntimeError("no"), KeyboardInterrupt()])
def test_a_write_that_is_cut_short_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, existing: bool
) -> None:
    path = tmp_path / "x.safetensors"
    if existing:
        checkpoint.write(path, ABOUT, tensors())
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def fail(partial: Path, _: Path) -> None:
        assert partial.stat().st_size > 100
        raise failure

    monkeypatch.setattr(files, "put_in_place", fail)
    with pytest.raises(type(failure)):
        checkpoint.write(path, ABOUT | {"history": []}, tensors())
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_file_that_cannot_grow_leaves_the_old_one(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "x.safetensors"
    checkpoint.write(path, ABOUT, tensors())
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            checkpoint.write(path, ABOUT | {"history": []}, tensors())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_any_safetensors_reader_finds_the_origin(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "x.safetensors", ABOUT, tensors())
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == "interpret-robust-checkpoint"
    assert json.loads(metadata["about"]) == ABOUT
