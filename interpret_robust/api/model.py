"""A model in a program: loaded or trained, called like any network, asked questions."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from interpret_robust.analyses.engine.settings import check_seed
from interpret_robust.api.arguments import check_images, check_path, check_text, make_plain
from interpret_robust.api.data import Data, name_of, open_dataset
from interpret_robust.api.help import add_options, describe_card_fields, describe_recipe_fields
from interpret_robust.api.wording import as_arguments, use_python_words
from interpret_robust.core.device import exact
from interpret_robust.core.errors import DoubtWarning, UserError, check_truth, describe, unknown
from interpret_robust.core.file_names import resolve
from interpret_robust.core.folders import Folders
from interpret_robust.core.parsing import format_count
from interpret_robust.datasets import Dataset
from interpret_robust.models import card as cards
from interpret_robust.models import external
from interpret_robust.models.building import build_network
from interpret_robust.models.card import Card
from interpret_robust.models.checks.answers import is_same
from interpret_robust.models.checks.gradients import differentiate, differs_in_slope
from interpret_robust.models.classifier import Classifier, Features
from interpret_robust.models.copying import copy_of
from interpret_robust.models.external import ExternalModel
from interpret_robust.models.subject import Subject
from interpret_robust.study.tasks import TrainTask
from interpret_robust.training.log import Logs
from interpret_robust.training.recipe import change
from interpret_robust.training.recipe_file import find_recipe


class Model(nn.Module):
    """A model to ask questions of: `model(images)` gives logits (N, classes) from pixels (N, C, H, W) in [0, 1].

    Attributes:
        subject: where it comes from: a checkpoint of ours, or a model from elsewhere.
        network: the network itself, in eval mode on the CPU.

    Example:
        >>> model = ir.load("checkpoints/cifar10-small-at-att-seed0.safetensors")
        >>> model(torch.rand(5, 3, 32, 32)).shape
        torch.Size([5, 10])
    """

    subject: Subject
    network: Classifier

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.subject = subject
        self.network = subject.model(torch.device("cpu"))
        self._precisions = _precisions(self.network)
        self.eval()

    @property
    def name(self) -> str:
        """Return what files and tables call it."""
        return self.subject.name

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, classes) of images (N, C, H, W), pixels in [0, 1]."""
        logits: Tensor = self.network(images)
        return logits

    @use_python_words()
    def features(self, images: Tensor) -> Features:
        """Return local features (N, C, H, W), attention (N, H*W) or None, and pooled features (N, C) of images."""
        return self.network.features(images)

    @property
    def doubts(self) -> tuple[str, ...]:
        """Return what makes answers about it doubtful, a sentence each: what `load` warns of."""
        return tuple(map(as_arguments, self.subject.doubts))

    @exact()
    def check_unchanged(self) -> None:
        """Raise UserError where the network was changed since it was loaded, and questions would be of another.

        Those of a checkpoint are of its file. A model from elsewhere may be changed, but not replaced, nor be given
        weights in a precision that does not take its images: double precision takes them.
        """
        if isinstance(self.subject, ExternalModel):
            precisions = _precisions(self.network)
            takes_images = precisions in (self._precisions, {torch.float64})
            is_as_loaded = self.network is self.subject.wrapper and takes_images
            remedy = "load yours again, with ir.load(network, data)."
        else:
            original = self.subject.model(torch.device("cpu"))
            is_as_loaded = _have_equal_tensors(self.network, original) and _answer_alike(
                self.network, original, self.subject
            )
            remedy = "ir.load(model, data) gives the network as it is now."
        if not is_as_loaded:
            raise UserError(
                f"the network of {self.name} was changed since it was loaded, and questions are asked of what was "
                f"loaded: {remedy}"
            )

    def summary(self) -> dict[str, str]:
        """Return what it is, in a few words each."""
        job = self.subject.job
        channels, height, width = job["image_shape"]
        features, rows, columns = self.subject.local_shape()
        weights = sum(parameter.numel() for parameter in self.network.parameters())
        classes = format_count(len(job["class_names"]), "class")
        return {
            "name": self.name,
            "variant": job["variant"],
            "dataset": f"{job['dataset']}, {classes}, images {channels}x{height}x{width}",
            "architecture": f"{job['architecture']}, {weights:,} parameters",
            "local features": f"{features}x{rows}x{columns}" if features else "none",
            "seed": str(job["seed"]),
        } | ({"in doubt": " ".join(self.doubts)} if self.doubts else {})

    def __repr__(self) -> str:
        lines = (f"  {key}: {text}" for key, text in self.summary().items() if key != "name")
        return "\n".join([f"<Model {self.name}", *lines]) + ">"

    def _repr_html_(self) -> str:
        from markupsafe import escape

        rows = "".join(
            f"<tr><th>{escape(key)}</th><td>{escape(text)}</td></tr>" for key, text in self.summary().items()
        )
        return f"<table>{rows}</table>"


def _have_equal_tensors(network: nn.Module, original: nn.Module) -> bool:
    tensors, original_tensors = network.state_dict(), original.state_dict()
    return tensors.keys() == original_tensors.keys() and all(
        tensor.dtype == original_tensors[name].dtype and torch.equal(tensor.cpu(), original_tensors[name])
        for name, tensor in tensors.items()
    )


def _precisions(network: nn.Module) -> set[torch.dtype]:
    tensors = (*network.parameters(), *network.buffers())
    return {tensor.dtype for tensor in tensors if tensor.is_floating_point()}


def _answer_alike(network: Classifier, original: Classifier, subject: Subject) -> bool:
    """Return whether two networks give an image of noise one answer, and the answer one gradient."""
    device = next(network.parameters()).device
    image = torch.rand(1, *subject.job["image_shape"], generator=torch.Generator().manual_seed(0))
    answer, expected = differentiate(network, image.to(device)), differentiate(original, image)
    if answer.slope is None or expected.slope is None:
        return answer.slope is expected.slope
    is_other_slope = differs_in_slope(answer.slope.cpu(), expected.slope).any()
    return is_same(answer.logits.detach().cpu(), expected.logits.detach()) and not bool(is_other_slope)


@add_options(describe_card_fields())
@use_python_words()
def load(model: str | Path | nn.Module, data: Data | None = None, **card: Any) -> Model:
    """Return a model to ask questions of.

    Args:
        model: what `--model` takes: a checkpoint, `timm:NAME`, `torchvision:NAME`, `robustbench:NAME` or
            `package.module:callable`; or a network itself, of which a copy is kept: it may be trained on. The name of a
            checkpoint in checkpoints/ of the working folder stands for its path. A model that was loaded is given
            back, or, with other `data` or fields of `card`, loaded anew with these.
        data: which images it is for; a checkpoint of `irt train` knows its own.
        card: fields of `models.card.Card` that say how it is read, such as `weights`, `normalize` and `local_layer`;
            they are listed below.

    Warns of what is doubtful about a model from elsewhere (`Model.doubts`). Raises UserError as the commands do.

    Example:
        >>> model = ir.load("checkpoints/cifar10-small-at-seed0.safetensors")
    """
    model_to_ask = _load(model, data, card)
    for doubt in model_to_ask.doubts:
        warnings.warn(doubt, DoubtWarning, stacklevel=3)
    return model_to_ask


@exact()
def _load(model: str | Path | nn.Module, data: Data | None, card: dict[str, Any]) -> Model:
    card = {name: _as_entry(name, value) for name, value in card.items()}
    if "arguments" in card:
        card["arguments"] = _as_pairs(card["arguments"])
    if isinstance(model, Model) and data is None and not card:
        model.check_unchanged()
        return model
    if isinstance(model, Model) and isinstance(model.subject, ExternalModel):
        return _load_anew(model, model.subject, data, card)
    if isinstance(model, nn.Module):
        kind = type(model)
        reference = cards.parse_reference(f"{kind.__module__}:{kind.__qualname__}", **{"label": kind.__name__, **card})
        assert isinstance(reference, Card)
        if reference.weights is not None or reference.arguments:
            raise UserError("a network object has its weights already: load them where you build it.")
        dataset = open_dataset(data)
        return Model(external.bring(copy_of(model), reference, dataset, dataset.name))
    if not isinstance(model, str | Path):
        raise UserError(f"model is of type {type(model).__name__}{_remedy(model)}")
    reference = cards.parse_reference(_find_name(check_path("model", model)), **card)
    if isinstance(reference, Path) and reference.suffix != ".json" and data is not None:
        raise UserError(
            f"{model} is a checkpoint of `irt train`, which knows its images: give others to ir.analyze(name, model, "
            "data)."
        )
    if isinstance(data, Dataset) and isinstance(reference, Card):
        network, remarks = build_network(reference, data.class_names)
        return Model(external.bring(network, reference, data, data.name, remarks))
    source = None if data is None or isinstance(data, Dataset) else name_of(data)
    return Model(external.find_subject(reference, source, is_shared=False))


def _find_name(text: str) -> str:
    """Return what names a model: the path of a checkpoint here for its name, also a short one; else the text itself."""
    if not text or ":" in text:
        return text
    return str(resolve(text, Folders(Path()).list_models(), "model"))


def _load_anew(model: Model, subject: ExternalModel, data: Data | None, card: dict[str, Any]) -> Model:
    """Return the network of a model from elsewhere, as it is now, read as before but for other data or other fields."""
    model.check_unchanged()
    own_card = {name: value for name, value in subject.card.entries().items() if name not in ORIGIN}
    named_card = own_card | {"label": subject.card.name} | card
    return _load(subject.wrapper.backbone, subject.data if data is None else data, named_card)


ORIGIN = ("model", "weights", "weights_key", "arguments")
"""Fields of a card that a network itself needs no more."""


def _remedy(model: object) -> str:
    """Return the end of the sentence for what is no network, and no name of one."""
    if isinstance(model, Mapping):
        return ", and a state dict has no network: load it into the network that it is of, and give that."
    if isinstance(model, type) or callable(model):
        return f": give the network that it makes, {getattr(model, '__name__', 'network')}(...)."
    return ": give a network, the path of a checkpoint, or a name such as 'torchvision:resnet18'."


def _as_entry(name: str, value: Any) -> Any:
    """Return a value as a card holds it: as text paths, the number of a part of the answer, and what normalizes."""
    value = make_plain(value)
    if name == "normalize" and isinstance(value, list | tuple):
        return _as_numbers(value)
    is_text = isinstance(value, Path) or (name == "logits" and type(value) is int)
    return str(value) if is_text else value


def _as_numbers(value: Sequence[Any]) -> str | Sequence[Any]:
    """Return numbers, or means and deviations, as a command takes them; anything else as it is."""
    items = [item.tolist() if isinstance(item, Tensor | np.ndarray) else item for item in value]
    numbers = [number for item in items for number in (item if isinstance(item, list | tuple) else [item])]
    is_of_numbers = all(isinstance(number, int | float) for number in numbers)
    return ",".join(map(str, numbers)) if numbers and is_of_numbers else value


def _as_pairs(arguments: Any) -> tuple[tuple[str, Any], ...]:
    """Return the arguments of a builder as a card holds them. Raises UserError for what is no dict by names."""
    try:
        by_name = dict(arguments)
    except (TypeError, ValueError):
        by_name = {None: arguments}
    if not all(isinstance(name, str) for name in by_name):
        raise UserError(f"arguments are {describe(arguments)}: give a dict by name, such as {{'num_classes': 10}}.")
    return tuple((name, make_plain(value)) for name, value in by_name.items())


@add_options(describe_recipe_fields("cluttered-digits"))
@use_python_words()
def train(
    variant: str,
    dataset: str | Path = "cluttered-digits",
    *,
    seed: int = 0,
    architecture: str = "small",
    recipe: str | Path | None = None,
    limit: int | None = None,
    root: str | Path = ".",
    device: str = "auto",
    overwrite: bool = False,
    log: bool = False,
    log_steps: int | None = None,
    tensorboard: str | Path | None = None,
    **changes: Any,
) -> Model:
    """Train a model, or take the one that is there, and return it: its checkpoint is in checkpoints/ below `root`.

    Args:
        variant: `at`, `at-reg`, `at-att`, `at-att-reg`, `natural`, `natural-att` or `natural-linear-att`.
        dataset: name, or path of an `.npz` or of pictures.
        seed: of weights, order, augmentation and attacks, from 0 on.
        architecture: `small`, `small-wide3`, `cnn`, `narrow` or `wide3`.
        recipe: name of a preset, or path of a recipe of yours, FILE.toml; by default the dataset's preset.
        limit: train on so many images only: the first, or a fair draw, see `Split.draw`.
        root: folder that holds checkpoints/.
        device: `cpu`, `cuda`, or `auto`.
        overwrite: replace a checkpoint that is there.
        log: write lines of JSON beside the checkpoint while it trains, `NAME.log.jsonl`.
        log_steps: every how many steps there is a line, beside that of each epoch.
        tensorboard: folder to write the same numbers to, for TensorBoard.
        changes: fields of the recipe, such as `epochs=4`, or `norm="l2", eps=0.5`; they are listed below.

    Raises UserError as the command does.

    Example:
        >>> model = ir.train("at", epochs=1, limit=640)  # doctest: +SKIP
    """
    dataset = str(dataset) if isinstance(dataset, Path) else dataset
    texts = (("variant", variant, "at"), ("dataset", dataset, "cifar10"), ("architecture", architecture, "small"))
    for name, text, example in texts:
        check_text(name, text, example)
    check_path("dataset", dataset)
    check_truth("overwrite", overwrite)
    check_truth("log", log)
    root = Path(check_path("root", root))
    limit, seed = make_plain(limit), make_plain(seed)
    check_images("limit", limit, "all")
    check_seed(seed)
    base = find_recipe(recipe, dataset, architecture=architecture)
    names = {field.name for field in fields(base)} - {"name"}
    for name in changes:
        if name not in names:
            raise unknown("recipe field", name, names)
    folder = Folders(root).checkpoints
    task = TrainTask(
        dataset,
        architecture,
        variant,
        seed,
        change(base, {name: make_plain(value) for name, value in changes.items()}),
        folder,
        device,
        limit,
        overwrite=overwrite,
        logs=Logs(log, log_steps, None if tensorboard is None else Path(tensorboard)),
    )
    if not task.is_done():
        task()
    return load(folder / task.name)
