"""One loader for models of any origin.

checkpoints/NAME.safetensors    trained by `irt train`
NAME.json                       a card: a model from elsewhere as it was once declared
torchvision:resnet18            a network of a library, with its weights or with a file's
timm:vit_tiny_patch16_224
hf-hub:timm/resnet18.a1_in1k    one of the Hugging Face Hub that timm reads
robustbench:cifar10/Linf/Engstrom2019Robustness
package.module:callable         whatever gives a torch.nn.Module
"""

import copy
import inspect
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from interpret_robust.core import progress
from interpret_robust.core.device import exact
from interpret_robust.core.errors import UserError
from interpret_robust.core.file_names import file_part
from interpret_robust.core.files import stamp
from interpret_robust.core.plugins import first_words, imported
from interpret_robust.datasets import Dataset, catalogue, load
from interpret_robust.datasets.batches import to_device, to_pixels
from interpret_robust.models import Classifier, checkpoint
from interpret_robust.models.card import Card, Reference
from interpret_robust.models.declared import view
from interpret_robust.models.layers import Choice, Layer, default_layer, layer_of, layers, reading
from interpret_robust.models.libraries import BUILDERS, build, check_call, is_offline
from interpret_robust.models.logits import as_logits, kind, logits_part
from interpret_robust.models.model_names import explain
from interpret_robust.models.preprocess import STATISTICS, Preprocess, statistics
from interpret_robust.models.recomputation import no_recomputation
from interpret_robust.models.self_attention import tokens
from interpret_robust.models.subject import Subject
from interpret_robust.models.trial import Trial, try_out
from interpret_robust.models.weight_files import load_weights
from interpret_robust.models.wrapped import WrappedModel

EPS = 8 / 255
"""The radius of attacks on a model of which no training radius is known."""


def subject(reference: Reference, source: str | None = None) -> Subject:
    """Return the model that is referred to; `source` is the name or path of the data that one from elsewhere is
    brought with.

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
    return _external_model(reference, source, stamp(reference.weights), catalogue.version(source))


@lru_cache(maxsize=8)
def _external_model(card: Card, source: str, *_: object) -> "ExternalModel":
    data = load(source)
    network, remarks = build_network(card, len(data.class_names))
    return read(network, card, data, source, remarks)


@dataclass(frozen=True, eq=False)
class ExternalModel:
    """A model from elsewhere, and the data that it was brought with; see `Subject`.

    Attributes:
        layer: that its local features are taken from, None where it has none.
        remarks: what is doubtful about its weights, before any trial.
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

    @cached_property
    def trial(self) -> Trial:
        """Return how it did on a few images: tried when this, its doubts or the model itself are first asked for.

        Raises UserError where its answers would mean nothing (`models.trial`).
        """
        card, data = self.card, self.data
        label, is_trained = card.label or card.model, card.weights != "random"
        lines = progress.lines(lambda: f"trying {label} on a few images of {data.name}")
        with exact(), lines, _naming_batches(label):
            outcome = try_out(self.wrapper, data, label, str(card.normalize), self.layer, is_trained=is_trained)
        return outcome._replace(doubts=(*self.remarks, *outcome.doubts))

    @property
    def name(self) -> str:
        """Return text such as `cifar10-torchvision-resnet18`: the data first, as in the names of checkpoints; one
        part of a path.
        """
        return file_part(f"{self.job['dataset']}-{self.card.name}")

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
    """Return a network as a model that can be asked about `data`, after a trial on a few of its images.

    Args:
        network, card, data, source: what is asked and how it is read, about what, and where that comes from.
        remarks: what was doubtful when it was built, see `build_network`.

    Raises UserError as `read` and `ExternalModel.trial` do.
    """
    model = read(network, card, data, source, remarks)
    _ = model.trial
    return model


@exact()
def read(network: nn.Module, card: Card, data: Dataset, source: str, remarks: Sequence[str] = ()) -> ExternalModel:
    """Return a network as a model that is tried when it is first asked: its name and its files are known before.

    The network is put into eval mode, its weights are frozen, and made float32 where it runs so. Raises UserError where
    it does not take these images or answers with another number of classes, and where a layer is not there, or gives no
    local features.
    """
    network = unwrap(network)
    data = view(data, card, network)
    label = card.label or card.model
    remarks = (*remarks, *_prepare(network, card))
    device = next((weights.device for weights in network.parameters()), torch.device("cpu"))
    preprocess = preprocess_of(card, network, data.image_shape[0]).to(device)
    image = trial_image(data).to(device)
    remarks = tuple(f"{label} {remark}" for remark in (*remarks, *_make_float32(network, preprocess(image))))
    part = _check_fit(network, preprocess, image, card, data)
    with _naming_batches(label):
        layer = _layer(network, preprocess, image, card.local_layer)
    wrapper = WrappedModel(
        network,
        preprocess,
        layer and layer.name,
        card.attention_layer,
        first_token=layer and layer.first,
        part=part,
        classes=len(data.class_names),
        draws=card.draws,
    )
    shape = (0, 0, 0)
    if layer is not None:
        with torch.no_grad():
            channels, height, width = wrapper.features(image).local.shape[1:]
        shape = (channels, height, width)
    # What was left open is filled in, so that a file tells what was done.
    card = replace(card, normalize=card.normalize or _numbers_of(preprocess), logits=part)
    tensors = {name: tensor for name, tensor in network.state_dict().items() if isinstance(tensor, Tensor)}
    job = {
        "dataset": data.name,
        "image_shape": list(data.image_shape),
        "class_names": list(data.class_names),
        "architecture": "any",
        "variant": card.name,
        "seed": None,
        "recipe": {"eps": EPS},
        "card": card.entries(),
        "layers": {"local": wrapper.local_layer, "attention": card.attention_layer}
        | ({} if wrapper.first_token is None else {"first_token": wrapper.first_token}),
    }
    sha256 = checkpoint.tensors_sha256(tensors)
    return ExternalModel(card, wrapper, data, job, source, sha256, shape, layer, remarks)


@contextmanager
def _naming_batches(label: str) -> Iterator[None]:
    """Make an error of a network, which has answered one image, a sentence about several images at once."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{label} answers one image, and not several at once ({first_words(error)}): is its batch size fixed?"
        ) from error


def unwrap(network: nn.Module) -> nn.Module:
    """Return the network inside of what torch.compile and data-parallel training wrap around it."""
    while True:
        if isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
            network = network.module
        elif isinstance(inner := getattr(network, "_orig_mod", None), nn.Module):  # torch.compile
            network = inner
        else:
            return network


def copy_of(network: nn.Module) -> nn.Module:
    """Return a copy of a network, which may be trained on, that shares no tensor with it.

    Tensors that were computed, which old weight normalization, pruning and hooks keep, are copied as numbers: torch
    refuses to copy them otherwise. Raises UserError for a network that holds something that cannot be copied.
    """

    def detach_and_copy(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
        return original(tensor if tensor.is_leaf else tensor.detach(), memo)

    _check_python(unwrap(network), f"a {type(network).__name__}")
    _check_closures(unwrap(network))
    original: Callable[..., Tensor] = Tensor.__deepcopy__
    try:
        with mock.patch.object(Tensor, "__deepcopy__", detach_and_copy):
            return copy.deepcopy(unwrap(network))
    except Exception as error:
        raise UserError(
            f"a {type(network).__name__} cannot be copied ({first_words(error)}): remove its hooks, or save its "
            "state_dict and load it as --model package.module:callable --weights FILE."
        ) from error


def _check_python(network: nn.Module, label: str) -> None:
    """Raise UserError where a network is, or holds, a program of another form than Python's, which takes no hooks."""
    for path, module in network.named_modules():
        place = f", in its layer '{path}'," if path else ""
        form = None
        if isinstance(module, torch.jit.ScriptModule):
            form = "TorchScript"
        elif isinstance(module, torch.fx.GraphModule) and "train" in vars(module):  # torch.export puts its own there
            form = "a program of torch.export"
        if form is not None:
            raise UserError(
                f"{label} is{place} {form}, whose layers cannot be watched: give the network as Python has it."
            )


def _check_closures(network: nn.Module) -> None:
    """Raise UserError where a copy would go on using the network: functions that hold parts of it are not copied."""
    parts = set(network.modules())
    for path, module in network.named_modules():
        place = f"layer '{path}'" if path else "the network"
        if inspect.isfunction(vars(module).get("forward")):
            raise UserError(
                f"the forward of {place} was replaced by a function, and a copy would still call the original: write "
                "it as a class, or as --model package.module:callable."
            )
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
            cells = getattr(hook, "__closure__", None) or ()
            if any(isinstance(cell.cell_contents, nn.Module) and cell.cell_contents in parts for cell in cells):
                raise UserError(
                    f"a hook of {place} is a function that holds a part of the network, and a copy would still write "
                    "to the original: make it a method, or remove it."
                )


def _prepare(network: nn.Module, card: Card) -> Iterator[str]:
    """Freeze a network in eval mode, and yield what is doubtful about its weights."""
    _check_python(network, card.model)
    tensors = (*network.parameters(), *network.buffers())
    if any(is_lazy(tensor) for tensor in tensors):
        raise UserError(f"{card.model} has layers whose sizes are open until they see an image: call it on one first.")
    network.train(mode=False)  # people override train and eval, and forget to return the network
    for weights in network.parameters():
        weights.requires_grad_(False)  # not at once: an overridden method may give nothing back
    if (
        card.weight_file is not None
        and card.model.startswith("torchvision:")
        and getattr(network, "transform_input", None) is False
    ):
        yield (
            "takes its pixels as they are: torchvision's own weights need --model-arg transform_input=true, which a "
            "file of weights does not hold."
        )


def _make_float32(network: nn.Module, pixels: Tensor) -> Iterator[str]:
    """Make weights of another precision float32, and yield so; but not where the forward takes these alone."""
    tensors = {
        (module, name): tensor
        for module in network.modules()
        for name, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is not None and tensor.is_floating_point() and tensor.dtype != torch.float32
    }
    if not tensors:
        return
    dtypes = {place: tensor.dtype for place, tensor in tensors.items()}
    names = ", ".join(sorted({str(dtype).removeprefix("torch.") for dtype in dtypes.values()}))
    network.float()
    if _runs(network, pixels):
        yield f"has weights in {names}, and is asked in float32."
        return
    for (module, name), dtype in dtypes.items():
        tensor = getattr(module, name)
        tensor.data = tensor.data.to(dtype)
    if _runs(network, pixels):
        yield f"is asked in {names}, the precision of its weights, since its forward does not run with float32."
    else:
        network.float()


def _runs(network: nn.Module, pixels: Tensor) -> bool:
    """Return whether a network answers; a copy of the pixels, in whose place it may compute."""
    try:
        with torch.no_grad(), no_recomputation():
            network(pixels.clone())
    except Exception:
        return False
    return True


def _layer(network: nn.Module, preprocess: Preprocess, image: Tensor, name: str | None) -> Choice | None:
    """Return the layer of local features, the default one or that of a name; None for a network without."""
    if name is None:
        return default_layer(network, preprocess, image)
    layer_of(network, name)
    return reading(network, preprocess, image, name)


def build_network(card: Card, classes: int) -> tuple[nn.Module, list[str]]:
    """Return the network of a card, and what is doubtful about its file of weights: sentences that begin with a verb.

    It is for `classes` classes where it is a library's that can be built for any number. Raises UserError where a name
    is unknown, a library is not installed, or weights cannot be had or do not fit.
    """
    origin, colon, name = card.model.partition(":")
    if not colon:
        raise UserError(explain(card.model))
    pretrained = card.weights in (None, "pretrained")
    if origin not in BUILDERS:
        imported(card.model)  # before the seed, of which its module may use some
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")  # what a library says of its own networks, and prints while it downloads
        torch.default_generator.manual_seed(0)
        try:
            if origin in BUILDERS:
                network = build(origin, name, classes, dict(card.arguments), pretrained=pretrained)
            else:
                check_call(card.model, dict(card.arguments))
                network = _call(card)
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            if is_offline(error):
                raise UserError(
                    f"the weights of {card.model} have to be downloaded, and their server cannot be reached from here: "
                    "give a file (--weights FILE) or --weights random, or run this once where there is a network."
                ) from error
            raise UserError(
                f"{card.model} cannot be built ({first_words(error)}): --model-arg NAME=VALUE gives it an argument."
            ) from error
    path = card.weight_file
    if path is None:
        return network, []
    unused = load_weights(network, card.model, path, card.weights_key, is_normalized=card.normalize is not None)
    if not unused:
        return network, []
    listing = f"'{unused[0]}'" if len(unused) == 1 else f"{len(unused)} tensors, first '{unused[0]}'"
    return network, [
        f"has all its weights from {path.name}, which also holds {listing}, of layers that the network lacks: if more "
        "than training used them, answers are those of another network."
    ]


def _call(card: Card) -> nn.Module:
    """Return what a user's callable gives."""
    target = imported(card.model)
    network = copy_of(target) if isinstance(target, nn.Module) else target(**dict(card.arguments))
    if card.weights == "pretrained":
        raise UserError(f"{card.model} has no pretrained weights to choose: give a file, or leave --weights out.")
    if not isinstance(network, nn.Module):
        raise UserError(
            f"{card.model} gives a {type(network).__name__}, and a model is a torch.nn.Module: name a "
            "class or function that gives one."
        )
    return network


def preprocess_of(card: Card, network: nn.Module, channels: int) -> Preprocess:
    """Return what a card, or else the library that a network is from, says of the pixels that it expects.

    Raises UserError where that is for images of other channels.
    """
    if card.normalize is not None:
        return Preprocess(*statistics(card.normalize, channels), card.resize)
    mean, deviation = STATISTICS["none"]
    if card.weights != "random":
        config = getattr(network, "pretrained_cfg", None)  # timm's
        if card.model.startswith("torchvision:"):
            mean, deviation = STATISTICS["imagenet"]
        elif isinstance(config, dict) and "mean" in config and "std" in config:
            mean, deviation = tuple(config["mean"]), tuple(config["std"])
    if len(mean) not in (1, channels) and card.weight_file is not None:
        mean, deviation = STATISTICS["none"]  # a file's weights may be for images of other channels than the library's
    if len(mean) not in (1, channels):
        raise UserError(
            f"{card.model} takes images of {len(mean)} channels, and these have {channels}: give a --dataset of such "
            "images, or --normalize mean,std."
        )
    return Preprocess(mean, deviation, card.resize)


def _numbers_of(preprocess: Preprocess) -> str:
    mean, deviation = (tensor.flatten().double() for tensor in (preprocess.mean, preprocess.deviation))
    return ",".join(f"{number:.6g}" for number in (*mean.tolist(), *deviation.tolist()))


def trial_image(data: Dataset) -> Tensor:
    """Return the image of most contrast of the first few to train on: on a blank one nothing may depend on anything."""
    images = to_pixels(to_device(data.reference.first(16), torch.device("cpu"))[0])
    return images[images.flatten(1).std(1).argmax()][None]


def _check_fit(network: nn.Module, preprocess: Preprocess, image: Tensor, card: Card, data: Dataset) -> str | None:
    """Return which part of a network's answer are the logits, None for the answer itself.

    Raises UserError where the network does not take the images, or answers with something else.
    """
    channels, height, width = data.image_shape
    try:
        with torch.no_grad(), no_recomputation():
            answer = network(preprocess(image))
    except Exception as error:
        if match := re.search(rf"to have (\d+) channels, but got {channels} channels", str(error)):
            raise UserError(
                f"{card.model} takes images of {match[1]} channels, and those of {data.name} have {channels}: "
                "give a --dataset of such images."
            ) from error
        if re.search(r"Half|BFloat16|Double|dtype", str(error)):
            raise UserError(
                f"{card.model} does not run with pixels and weights in float32 ({first_words(error)}): its forward "
                "casts to another precision. Take the cast out, or give it weights of that precision."
            ) from error
        images_resized = "" if card.resize is None else f" resized to {card.resize}"
        raise UserError(
            f"{card.model} does not take the images of {data.name}, {channels}x{height}x{width}{images_resized} "
            f"({first_words(error)}); if that is about their size, --resize N gives it another"
            f"{_other_size(card, network)}."
        ) from error
    classes = len(data.class_names)
    part = card.logits if card.logits is not None else logits_part(answer, classes)
    try:
        logits = as_logits(answer, part, classes)
    except UserError as error:
        raise UserError(f"{card.model}: {error}") from error
    if logits.ndim != 2 or len(logits) != len(image):
        raise UserError(
            f"{card.model} does not answer with logits (N, classes) but with {kind(logits)}: "
            "--logits names the part of its answer that they are."
        )
    if logits.shape[1] != classes:
        raise UserError(
            f"{card.model} answers with {logits.shape[1]} classes, and {data.name} has {classes}: give images of its "
            "classes, or --classes FILE, the names of all its classes in their order, with those of the images among "
            "them."
        )
    return part


def _other_size(card: Card, network: nn.Module) -> str:
    """Return the option with which timm builds a network of patches for another size of images; nothing for others."""
    if card.is_of_timm and getattr(getattr(network, "patch_embed", None), "img_size", None) is not None:
        return ", and --model-arg img_size=N builds it for that of the images"
    return ""


def layer_rows(reference: Reference, source: str, *, with_all: bool = False) -> list[dict[str, str]]:
    """Return a model's layers for `irt model layers`: those that can give local features, or all of them."""
    model = subject(reference, source)
    if not isinstance(model, ExternalModel):
        raise UserError(f"{model.location} is a checkpoint of `irt train`: its local features are those of the paper.")
    candidates = layers(model.wrapper.backbone, model.wrapper.preprocess, trial_image(model.data))
    default_layer = model.wrapper.local_layer
    return [
        {
            "layer": layer.name,
            "kind": layer.kind,
            "channels": str(layer.shape[0]) if layer.shape else "",
            "positions": f"{layer.shape[1]}x{layer.shape[2]}" if layer.shape else "",
            "": _remark(layer, is_taken=layer.name == default_layer),
        }
        for layer in candidates
        if with_all or layer.is_local
    ]


def attention_words(reference: Reference, source: str) -> str | None:
    """Return what `irt model layers` says of a transformer's self-attention, None of a network that has none."""
    model = subject(reference, source)
    if not isinstance(model, ExternalModel) or model.wrapper.local_layer is None:
        return None
    try:
        places = tokens(model.wrapper, trial_image(model.data))
    except UserError:
        return None
    (height, width), heads = places.grid, places.heads
    counts = " or ".join(map(str, dict.fromkeys(heads)))
    return (
        f"self-attention in {len(heads)} blocks of {counts} heads over {height}x{width} tokens of the image: "
        "--spatial-weight and --source take rollout, relevance and head:BLOCK.HEAD, numbered from 0"
    )


def _remark(layer: Layer, *, is_taken: bool) -> str:
    if is_taken:
        return "taken"
    if layer.runs > 1:
        return f"runs {layer.runs} times"
    return "" if layer.is_local or layer.shape is None else "one position" if layer.matters else "without effect"
