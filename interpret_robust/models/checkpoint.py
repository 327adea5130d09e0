"""A model on disk: a safetensors file whose metadata says how it was made.

The metadata holds one JSON text, `about`, with the job (dataset and its hash, architecture, variant,
seed, recipe), the history of every epoch, the final metrics, the code and the environment, and the
SHA-256 of the tensors. An unfinished run lies beside it as `NAME.state.safetensors`, in the same format,
with the optimizer's state, the weight average and the step: every random number of a run is a function
of (seed, step), so the step is the state of the generators.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load, save
from torch import Tensor

from interpret_robust.core.device import exact
from interpret_robust.core.errors import UserError
from interpret_robust.core.files import replace_file
from interpret_robust.core.spelling import translate_tensor_name
from interpret_robust.datasets.base import Dataset
from interpret_robust.datasets.class_names import renumber
from interpret_robust.models import Classifier, build, checkpoint_file, training_state
from interpret_robust.models.architectures import ARCHITECTURES
from interpret_robust.models.checks.judgment import is_above_chance
from interpret_robust.models.checks.trial import ANSWER_IMAGES, list_answer_doubts
from interpret_robust.models.variants import VARIANTS, Head, find_variant

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: `about` as in the module's docstring, and the tensors by name."""

    path: Path
    about: dict[str, Any]
    tensors: Tensors
    sha256: str

    @property
    def name(self) -> str:
        """Return the name of its file, without the ending."""
        return self.path.stem

    @property
    def location(self) -> str:
        """Return what a sentence for the user calls it."""
        return str(self.path)

    @property
    def source(self) -> str:
        """Return the name or path of the data it was trained on."""
        source: str = self.about["source"]
        return source

    @cached_property
    def doubts(self) -> tuple[str, ...]:
        """Return what is doubtful: a training that taught nothing, and what a network from elsewhere answers to noise.

        Those of installed architectures and variants are tried, not ours. Raises UserError where answers mean nothing,
        see `models.checks.trial`.
        """
        return (*self._doubts_about_training(), *self._doubts_about_network())

    def _doubts_about_training(self) -> Iterator[str]:
        accuracy, images = self.about.get("metrics", {}).get("training_accuracy"), self.job["images"]
        chance = 1 / len(self.job["class_names"])
        if accuracy is not None and not is_above_chance(round(accuracy * images), images, chance):
            attack = " under attack" if find_variant(self.job["variant"]).adversarial else ""
            yield (
                f"{self.name} had {accuracy:.0%} of its {images} training images right{attack} in its last epoch, no "
                f"more than guessing ({chance:.0%}): train it longer before asking what it looks at."
            )

    def _doubts_about_network(self) -> tuple[str, ...]:
        if self.job["architecture"] in ARCHITECTURES and self.job["variant"] in VARIANTS:
            return ()
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(ANSWER_IMAGES, *self.job["image_shape"], generator=generator)
        with torch.random.fork_rng([]), exact():
            return tuple(list_answer_doubts(self.model(torch.device("cpu")), images, self.name))

    @property
    def job(self) -> dict[str, Any]:
        """Return dataset, architecture, variant, seed and recipe."""
        job: dict[str, Any] = self.about["job"]
        return job

    def local_shape(self) -> tuple[int, int, int]:
        """Return channels, height and width of local features.

        Raises UserError where the tensors are of another network.
        """
        outline = _outline(*self._network())
        _check_names(self.path, self.job["architecture"], outline.shapes, self.tensors)
        return outline.local_shape

    def model(self, device: torch.device) -> Classifier:
        """Return the model on `device`, in eval mode. Raises UserError as `local_shape` does."""
        self.local_shape()
        model = build(*self._network(), seed=0)
        model.load_state_dict(self.tensors)
        return model.to(device).to(memory_format=torch.channels_last).eval()

    def view(self, dataset: Dataset) -> Dataset:
        """Return images with labels by the names of the classes that it was trained on, see `Subject`."""
        names = self.job["class_names"]
        if any(name == f"class {label}" for label, name in enumerate(dataset.class_names)):
            return dataset  # numbers are no names
        return renumber(dataset, [[name] for name in names]) or dataset

    def _network(self) -> tuple[str, Head, tuple[int, int, int], int]:
        """Return what `build` needs to know."""
        job = self.job
        channels, height, width = job["image_shape"]
        return (
            job["architecture"],
            find_variant(job["variant"]).head,
            (channels, height, width),
            len(job["class_names"]),
        )


class Outline(NamedTuple):
    """A network without its numbers: the shape of each tensor, and that of the local features."""

    shapes: dict[str, torch.Size]
    local_shape: tuple[int, int, int]


@lru_cache(maxsize=32)
def _outline(architecture: str, head: Head, image_shape: tuple[int, int, int], classes: int) -> Outline:
    network = build(architecture, head, image_shape, classes, seed=0).eval()
    with torch.no_grad():
        channels, height, width = network.features(torch.zeros(1, *image_shape)).local.shape[1:]
    return Outline({name: tensor.shape for name, tensor in network.state_dict().items()}, (channels, height, width))


def write(path: Path, about: dict[str, Any], tensors: Tensors) -> None:
    """Write atomically; what was at `path` stays whole until the new file is."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {
        "format": checkpoint_file.FORMAT,
        "format_version": str(checkpoint_file.FORMAT_VERSION),
        "about": (text := json.dumps(about)),
        "about_sha256": checkpoint_file.hash_text(text),
        "tensors_sha256": hash_tensors(plain),
    }
    with replace_file(path) as partial:
        partial.write_bytes(save(plain, metadata))


def read(path: Path) -> Checkpoint:
    """Read a finished checkpoint and verify it.

    Raises UserError for a missing, damaged or foreign file, and for an unfinished training, saying which.
    """
    file = checkpoint_file.read(path)
    training_state.check_finished(path, file.about)
    return Checkpoint(path, file.about, load(file.data), file.sha256)


def parse_state(path: Path, data: bytes) -> Checkpoint:
    """Read and verify the state of an unfinished training, from the bytes of the file at `path`.

    Raises UserError for a damaged or foreign file, and for a finished checkpoint, saying which.
    """
    file = checkpoint_file.parse(path, data)
    training_state.check_state(path, file.about)
    tensors = {translate_tensor_name(name): tensor for name, tensor in load(file.data).items()}
    return Checkpoint(path, file.about, tensors, file.sha256)


def hash_tensors(tensors: Tensors) -> str:
    """Return the SHA-256 over the name, type, shape and bytes of each tensor, in the order of names."""
    return checkpoint_file.hash_raw({name: _raw(tensor.detach().cpu()) for name, tensor in tensors.items()})


def _raw(tensor: Tensor) -> checkpoint_file.Raw:
    data = tensor.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()
    return checkpoint_file.Raw(str(tensor.dtype), tuple(tensor.shape), data)


def _check_names(path: Path, architecture: str, expected: dict[str, torch.Size], names: Tensors) -> None:
    mismatches = sorted(
        name
        for name in expected.keys() | names.keys()
        if name not in expected or name not in names or expected[name] != names[name].shape
    )
    if mismatches:
        raise UserError(
            f"{path} does not hold the network '{architecture}' that it names: {len(mismatches)} tensors differ, "
            f"first {mismatches[0]}."
        )
