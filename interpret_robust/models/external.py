"""One loader for models of any origin.

checkpoints/NAME.safetensors    trained by `irt train`
NAME.json                       a card: a model from elsewhere as it was once declared
torchvision:resnet18            a network of a library, with its weights or with a file's
timm:vit_tiny_patch16_224
hf-hub:timm/resnet18.a1_in1k    one of the Hugging Face Hub that timm reads
robustbench:cifar10/Linf/Engstrom2019Robustness
package.module:callable         whatever gives a torch.nn.Module
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from interpret_robust.core import progress
from interpret_robust.core.device import exact
from interpret_robust.core.errors import UserError
from interpret_robust.core.file_names import make_file_part
from interpret_robust.core.files import stamp
from interpret_robust.core.random_numbers import preserve_random_numbers
from interpret_robust.datasets import Dataset, catalogue, load
from interpret_robust.datasets.batches import to_device, to_pixels
from interpret_robust.models import Classifier, checkpoint
from interpret_robust.models.building import build_network, make_preprocess
from interpret_robust.models.card import Card, Reference
from interpret_robust.models.checks.attention import read_attention
from interpret_robust.models.checks.memory import Memory
from interpret_robust.models.checks.trial import Trial, try_out
from interpret_robust.models.copying import unwrap_layers
from interpret_robust.models.failure import explain_failure
from interpret_robust.models.layers.choice import Choice, choose_layer, choose_reading
from interpret_robust.models.layers.hooks import find_layer, use_part
from interpret_robust.models.layers.listing import list_layers
from interpret_robust.models.library_settings import view
from interpret_robust.models.logits import as_logits
from interpret_robust.models.model_names import explain
from interpret_robust.models.preparation import freeze, locate_logits, make_float32, prepare
from interpret_robust.models.preprocess import Preprocess
from interpret_robust.models.subject import Subject
from interpret_robust.models.weights.classes import list_class_names, list_order_doubts
from interpret_robust.models.wrapper import WrappedModel


def find_subject(reference: Reference, source: str | None = None, *, is_shared: bool = True) -> Subject:
    """Return the model that is referred to; `source` is the name or path of the data that one from elsewhere is
    brought with.

    One from elsewhere is built once and shared by all that ask for it, unless `is_shared` is false: a program may
    change what it got, or the code that builds it.

    Raises UserError where it cannot be had, and for a model from elsewhere without data or that does not fit them.
    """
    if isinstance(reference, Path):
        if reference.suffix != ".json":
            return checkpoint.read(reference)
        reference = Card.read(reference)
    if ":" not in reference.model:
        raise UserError(explain(reference.model))
    if source is None:
        raise UserError(
            f"{reference.model} does not say which images it is for: give --dataset NAME, or the path of its files."
        )
    if not is_shared:
        return _build(reference, source)
    return _shared_model(reference, source, stamp(reference.weights), catalogue.stamp_dataset(source))


@lru_cache(maxsize=8)
def _shared_model(card: Card, source: str, *_: object) -> "ExternalModel":
    return _build(card, source)


def _build(card: Card, source: str) -> "ExternalModel":
    data = load(source)
    network, remarks = build_network(card, data.class_names)
    return read(network, card, data, source, remarks)


@dataclass(frozen=True, eq=False)
class ExternalModel:
    """A model from elsewhere, and the data that it was brought with; see `Subject`.

    Attributes:
        layer: that its local features are taken from, None where it has none.
        remarks: what is doubtful about its weights, before any trial.
        memory: what the network kept before it was first called.
    """

    card: Card
    wrapper: WrappedModel
    data: Dataset
    job: Mapping[str, Any]
    source: str
    sha256: str
    shape: tuple[int, int, int]
    layer: Choice | None
    remarks: tuple[str, ...]
    memory: Memory

    @cached_property
    def trial(self) -> Trial:
        """Return how it did on a few images: tried when this, its doubts or the model itself are first asked for.

        Raises UserError where its answers would mean nothing (`models.checks.trial`).
        """
        card, data = self.card, self.data
        label, is_trained = card.label or card.model, card.weights != "random"
        counter = progress.pass_counter(f"trying {label} on a few images of {data.name}")
        read_images = partial(_read_first_pixels, data, self.wrapper.preprocess.mean.device)
        with exact(), counter, explain_failure(label, self.wrapper, read_images):
            outcome = try_out(
                self.wrapper,
                data,
                label,
                "none" if card.normalize == AS_IT_IS else str(card.normalize),
                self.layer,
                memory=self.memory,
                is_trained=is_trained,
                weight_file=card.weight_file,
            )
        return outcome._replace(doubts=(*self.remarks, *outcome.doubts))

    @property
    def name(self) -> str:
        """Return text such as `cifar10-torchvision-resnet18`: the data first, as in the names of checkpoints; one
        part of a path.
        """
        return make_file_part(f"{self.job['dataset']}-{self.card.name}")

    @property
    def location(self) -> str:
        """Return the words with which it was asked for."""
        return self.card.model

    @property
    def doubts(self) -> tuple[str, ...]:
        """Return what the trial found doubtful, see `Subject`."""
        return self.trial.doubts

    def local_shape(self) -> tuple[int, int, int]:
        """Return its local shape, see `Subject`."""
        return self.shape

    def model(self, device: torch.device) -> Classifier:
        """Return the model, see `Subject`. Raises UserError as `trial` does."""
        _ = self.trial
        return self.wrapper.to(device)

    def view(self, dataset: Dataset) -> Dataset:
        """Return images as it takes them, see `Subject`."""
        return view(dataset, self.card, self.wrapper.backbone)


def bring(network: nn.Module, card: Card, data: Dataset, source: str, remarks: Sequence[str] = ()) -> ExternalModel:
    """Return what `read` does, after its trial. Raises UserError as both do."""
    model = read(network, card, data, source, remarks)
    _ = model.trial
    return model


@exact()
def read(network: nn.Module, card: Card, data: Dataset, source: str, remarks: Sequence[str] = ()) -> ExternalModel:
    """Return a network as a model that is tried when it is first asked: its name and its files are known before.

    The network is put into eval mode, its weights are frozen, and made float32 where it runs so. Raises UserError where
    it does not take these images or answers with another number of classes, and where a layer is not there, or gives no
    local features.

    Args:
        network, card, data, source: what is asked and how it is read, about what, and where that comes from.
        remarks: what was doubtful when it was built, see `build_network`.
    """
    network = unwrap_layers(network)
    data = view(data, card, network)
    label = card.label or card.model
    sentences = [*remarks, *prepare(network, card)]
    sentences += list_order_doubts(list_class_names(network), data.class_names, "the network")
    device = next((weights.device for weights in network.parameters()), torch.device("cpu"))
    preprocess = make_preprocess(card, network, data.image_shape[0]).to(device)
    image = choose_trial_image(data).to(device)
    with preserve_random_numbers(device):
        sentences += make_float32(network, preprocess(image))
        memory = Memory(network)
        part = locate_logits(network, preprocess, image, card, data)

        def ask(images: Tensor) -> Tensor:
            return as_logits(network(preprocess(images)), part, len(data.class_names))

        with explain_failure(label, ask, partial(_read_first_pixels, data, device)):
            sentences += freeze(network, lambda: ask(image), label)
            with use_part(network, part):
                layer = _layer(network, preprocess, image, card.local_layer)
        wrapper = WrappedModel(
            network,
            preprocess,
            layer and layer.name,
            card.attention_layer,
            first_token=layer and layer.first,
            is_last=layer is not None and layer.is_last,
            part=part,
            classes=len(data.class_names),
            draws=card.draws,
        )
        with explain_failure(label, ask, partial(_read_first_pixels, data, device)):
            shape = (0, 0, 0) if layer is None else _read_shape(wrapper, image)
    # What was left open is filled in, so that a file tells what was done.
    card = replace(card, normalize=card.normalize or _numbers_of(preprocess), logits=part)
    tensors = {name: tensor for name, tensor in network.state_dict().items() if isinstance(tensor, Tensor)}
    sha256 = checkpoint.hash_tensors(tensors)
    remarks = tuple(f"{label} {sentence}" for sentence in sentences)
    return ExternalModel(card, wrapper, data, _job(card, data, wrapper), source, sha256, shape, layer, remarks, memory)


@torch.no_grad()
def _read_shape(wrapper: WrappedModel, image: Tensor) -> tuple[int, int, int]:
    """Return channels, height, width of the local features of an image; attention, where there is any, is read too."""
    channels, height, width = wrapper.features(image).local.shape[1:]
    wrapper.features(image.repeat(2, 1, 1, 1))  # which some layers see folded into one
    if wrapper.attention_layer is not None:
        read_attention(wrapper, image)
    return channels, height, width


def _job(card: Card, data: Dataset, wrapper: WrappedModel) -> dict[str, Any]:
    """Return what files hold of the model in the place of a training."""
    return {
        "dataset": data.name,
        "image_shape": list(data.image_shape),
        "class_names": list(data.class_names),
        "architecture": "any",
        "variant": card.name,
        "seed": None,
        "card": card.entries(),
        "layers": {"local": wrapper.local_layer, "attention": card.attention_layer}
        | ({} if wrapper.first_token is None else {"first_token": wrapper.first_token})
        | ({"channels": "last"} if wrapper.is_last else {}),
    }


def _layer(network: nn.Module, preprocess: Preprocess, image: Tensor, name: str | None) -> Choice | None:
    """Return the layer of local features, the default one or that of a name; None for a network without."""
    if name is None:
        return choose_layer(network, preprocess, image)
    find_layer(network, name)
    runs = [layer for layer in list_layers(network, preprocess, image) if layer.name == name and layer.runs == 1]
    if any(layer.shape is not None and not layer.matters for layer in runs):
        raise UserError(
            f"the answer does not depend on what layer '{name}' gives: --local-layer names another, of those that "
            "`irt model layers` lists."
        )
    return choose_reading(network, preprocess, image, name)


AS_IT_IS = "0,1"
"""The numbers of a normalization that changes nothing."""


def _numbers_of(preprocess: Preprocess) -> str:
    mean, deviation = (tensor.flatten().double() for tensor in (preprocess.mean, preprocess.deviation))
    return ",".join(f"{number:.6g}" for number in (*mean.tolist(), *deviation.tolist()))


def choose_trial_image(data: Dataset) -> Tensor:
    """Return the image of most contrast of the first few to train on: on a blank one nothing may depend on anything."""
    images = _read_first_pixels(data, torch.device("cpu"))
    return images[images.flatten(1).std(1).argmax()][None]


def _read_first_pixels(data: Dataset, device: torch.device) -> Tensor:
    """Return the first images to train on, 16 at most."""
    return to_pixels(to_device(data.reference.first(16), device)[0])
