"""One loader for models of any origin.

checkpoints/NAME.safetensors    trained by `irt train`
NAME.json                       a card: a model from elsewhere as it was once declared
torchvision:resnet18            a network of a library, with its weights or with a file's
timm:vit_tiny_patch16_224
robustbench:cifar10/Linf/Engstrom2019Robustness
package.module:callable         whatever gives a torch.nn.Module
"""

import copy
import difflib
import importlib
import importlib.util
import json
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from scipy.stats import binomtest
from torch import Tensor, nn

from interpret_robust.core.errors import UserError, unknown
from interpret_robust.core.files import replacing
from interpret_robust.core.plugins import first_words, imported
from interpret_robust.core.statistics import mcnemar
from interpret_robust.datasets import Dataset, load
from interpret_robust.datasets.batches import to_device, to_pixels
from interpret_robust.models import Classifier, checkpoint
from interpret_robust.models.subject import Subject
from interpret_robust.models.variants import VARIANTS
from interpret_robust.models.wrapped import STATISTICS, Layer, Preprocess, Wrapped, default_layer, layers, statistics

FORMAT, FORMAT_VERSION = "interpret-robust-model", 1

EPS = 8 / 255
"""The radius of attacks on a model of which no training radius is known."""

LOOKED_AT = 100
"""Images on which a model's normalization is tried out."""

SIGNIFICANT = 0.01

MOST_TOLD = 12
"""Names that a sentence lists."""

NESTED = ("state_dict", "model_state_dict", "model")
"""Where files of weights keep them, if not at the top."""


@dataclass(frozen=True)
class Card:
    """How a model from elsewhere is found and read. Fields that are None follow where it comes from.

    Attributes:
        model: `torchvision:NAME`, `timm:NAME`, `robustbench:[DATASET/THREAT/]NAME` or `package.module:callable`.
        weights: `pretrained`, as the library offers them; `random`, from seed 0; or a file, safetensors or a state
            dict that torch.load reads with `weights_only`. None: `pretrained` for a library, and what a callable
            gives as it gives it.
        arguments: given to whatever builds the network, by name.
        normalize: `imagenet`, `cifar10`, `none`, or numbers `mean,std`. None: what a library says of its weights,
            else `none`.
        resize: side that images are resized to before the network, None for as they are.
        local_layer: the layer whose output are the local features. None: see `models.wrapped.default_layer`.
        attention_layer: a layer that gives attention over these positions, None for none.
        label: what files and tables call it. None: made from the others.
    """

    model: str
    weights: str | None = None
    arguments: tuple[tuple[str, Any], ...] = ()
    normalize: str | None = None
    resize: int | None = None
    local_layer: str | None = None
    attention_layer: str | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        # Lists become tuples: a card is a key of the models that are kept in memory.
        object.__setattr__(self, "arguments", tuple((name, _hashable(value)) for name, value in self.arguments))
        if self.label in VARIANTS:
            raise UserError(f"--label {self.label} is the name of a variant of the paper: choose another.")
        if self.resize is not None and self.resize < 1:
            raise UserError(f"--resize {self.resize}: images have at least one pixel a side.")

    @property
    def name(self) -> str:
        """`label`, or as `torchvision-resnet18-random-layer3`."""
        if self.label is not None:
            return self.label
        weights = Path(self.weights).stem if self.weights else None
        arguments = [f"{name}-{value}" for name, value in self.arguments]
        parts = [self.model, *arguments, weights, self.local_layer, self.attention_layer]
        return re.sub(r"[^\w.]+", "-", "-".join(part for part in parts if part))

    @classmethod
    def read(cls, path: Path) -> Self:
        """A card that `write` wrote. Raises UserError for a file that is missing or of another kind."""
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"there is no model card {path}: `irt model card` makes them.") from None
        except (UnicodeDecodeError, ValueError):
            raise UserError(f"{path} is no model card: it is not JSON.") from None
        if not isinstance(held, dict) or held.pop("format", None) != FORMAT:
            raise UserError(f"{path} is no model card: `irt model card` makes them.")
        if (version := held.pop("format_version", None)) != FORMAT_VERSION:
            raise UserError(f"{path} is a model card of format {version}, and this irt reads {FORMAT_VERSION}.")
        try:
            return cls.of(held)
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{path} is no model card that this irt knows: it holds {', '.join(held)}.") from None

    @classmethod
    def of(cls, held: Mapping[str, Any]) -> Self:
        """The card that `asdict` made this of, also by way of JSON."""
        return cls(**{**held, "arguments": tuple(held["arguments"])})

    def write(self, path: Path, *, overwrite: bool = False) -> None:
        """Write the card as JSON. Raises UserError where there is a file already, unless it may be replaced."""
        if path.exists() and not overwrite:
            raise UserError(f"{path} is there already: --overwrite replaces it.")
        text = json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}, indent=1)
        with replacing(path) as partial:
            partial.write_text(text + "\n", encoding="utf-8")

    def words(self) -> list[str]:
        """The options of a command that give this card."""
        named = {
            "--model": self.model,
            "--weights": self.weights,
            "--normalize": self.normalize,
            "--resize": self.resize,
            "--local-layer": self.local_layer,
            "--attention-layer": self.attention_layer,
            "--label": self.label,
        }
        options = [word for name, value in named.items() if value is not None for word in (name, str(value))]
        return options + [word for name, value in self.arguments for word in ("--model-arg", f"{name}={_text(value)}")]


def _text(value: Any) -> str:
    """A value as `--model-arg` reads it: text as it is, unless that would be read as something else."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError:
            return value
    return json.dumps(value)


def _hashable(value: Any) -> Any:
    """A value of JSON with tuples for its lists."""
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


Reference = Path | Card
"""What names a model: the path of a checkpoint or of a card, or a card."""


def reference(text: str, **options: Any) -> Reference:
    """What `--model` names, with the other options of a card, of which those that are None were not given.

    Raises UserError where options are given beside a checkpoint, which knows them.
    """
    known = [name for name in Card.__dataclass_fields__ if name != "model"]
    for name in options:
        if name not in known:
            raise unknown("field of a model", name, known)
    given = {name: value for name, value in options.items() if value not in (None, ())}
    if text.endswith(".safetensors"):
        if given:
            raise UserError(
                f"{text} is a checkpoint of `irt train`, which needs no {', '.join(sorted(given))}: weights of another "
                f"network are given as --model NETWORK --weights {text}."
            )
        return Path(text)
    if text.endswith(".json"):
        return replace(Card.read(Path(text)), **given)
    return Card(text, **given)


def subject(of: Reference, source: str | None = None) -> Subject:
    """The model that is referred to; `source` is the name or path of the data that one from elsewhere is brought with.

    Raises UserError where it cannot be had, and for a model from elsewhere without data or that does not fit them.
    """
    if isinstance(of, Path):
        if of.suffix != ".json":
            return checkpoint.read(of)
        of = Card.read(of)
    if source is None:
        raise UserError(f"{of.model} does not say which images it is for: give --dataset NAME, or the path of an .npz.")
    return _brought(of, source)


@lru_cache(maxsize=8)
def _brought(card: Card, source: str) -> "Brought":
    data = load(source)
    return bring(network_of(card, len(data.class_names)), card, data, source)


@dataclass(frozen=True, eq=False)
class Brought:
    """A model from elsewhere, and the data that it was brought with; see `Subject`."""

    card: Card
    wrapped: Wrapped
    data: Dataset
    job: Mapping[str, Any]
    source: str
    sha256: str
    shape: tuple[int, int, int] = field(default=(0, 0, 0))

    @property
    def name(self) -> str:
        """As `cifar10-torchvision-resnet18`: the data first, as in the names of checkpoints."""
        return f"{self.job['dataset']}-{self.card.name}"

    @property
    def told(self) -> str:
        """As it was asked for."""
        return self.card.model

    def local_shape(self) -> tuple[int, int, int]:
        """See `Subject`."""
        return self.shape

    def model(self, device: torch.device) -> Classifier:
        """See `Subject`."""
        return self.wrapped.to(device)


def bring(network: nn.Module, card: Card, data: Dataset, source: str) -> Brought:
    """A network as a model that can be asked about `data`; it is put into eval mode and its weights are frozen.

    Raises UserError where it does not take these images or answers with another number of classes, where a layer is
    not there, or gives no local features.
    """
    network.eval().requires_grad_(False)
    device = next((weights.device for weights in network.parameters()), torch.device("cpu"))
    preprocess = preprocess_of(card, network, data.image_shape[0]).to(device)
    image = _trial_image(data).to(device)
    _check_fit(network, preprocess, image, card, data)
    local_layer = card.local_layer or default_layer(network, preprocess, image)
    wrapped = Wrapped(network, preprocess, local_layer, card.attention_layer)
    shape = (0, 0, 0)
    if local_layer is not None:
        with torch.no_grad():
            channels, height, width = wrapped.features(image).local.shape[1:]
        shape = (channels, height, width)
    # What was left open is filled in, so that a file tells what was done.
    card = replace(card, normalize=card.normalize or _numbers_of(preprocess))
    tensors = {name: tensor for name, tensor in network.state_dict().items() if isinstance(tensor, Tensor)}
    job = {
        "dataset": data.name,
        "image_shape": list(data.image_shape),
        "class_names": list(data.class_names),
        "architecture": "any",
        "variant": card.name,
        "seed": None,
        "recipe": {"eps": EPS},
        "card": {**asdict(card), "arguments": [list(pair) for pair in card.arguments]},
        "layers": {"local": local_layer, "attention": card.attention_layer},
    }
    return Brought(card, wrapped, data, job, source, checkpoint.tensors_sha256(tensors), shape)


def network_of(card: Card, classes: int) -> nn.Module:
    """The network of a card, for `classes` classes where it is a library's that can be built for any number.

    Raises UserError where a name is unknown, a library is not installed, or weights cannot be had or do not fit.
    """
    origin, colon, name = card.model.partition(":")
    if not colon:
        raise UserError(
            f"'{card.model}' is no model: give the .safetensors of a checkpoint, the .json of a card, "
            f"{', '.join(f'{known}:NAME' for known in BUILDERS)} or package.module:callable."
        )
    pretrained = card.weights in (None, "pretrained")
    if origin not in BUILDERS:
        imported(card.model)  # before the seed, of which its module may use some
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a library says of its own networks
        torch.default_generator.manual_seed(0)
        try:
            if origin in BUILDERS:
                network = BUILDERS[origin](name, pretrained, classes, dict(card.arguments))
            else:
                network = _called(card)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{card.model} cannot be built ({first_words(error)}).") from error
    if card.weights not in (None, "pretrained", "random"):
        _load_weights(network, card.model, Path(card.weights))
    return network


def _called(card: Card) -> nn.Module:
    """What a user's callable gives."""
    found = imported(card.model)
    network = copy.deepcopy(found) if isinstance(found, nn.Module) else found(**dict(card.arguments))
    if card.weights == "pretrained":
        raise UserError(f"{card.model} has no pretrained weights to choose: give a file, or leave --weights out.")
    if not isinstance(network, nn.Module):
        raise UserError(f"{card.model} gives a {type(network).__name__}, and a model is a torch.nn.Module.")
    return network


def _torchvision(name: str, pretrained: bool, classes: int, arguments: dict[str, Any]) -> nn.Module:
    from torchvision import models

    _check_known(name, models.list_models(module=models), "torchvision model")
    found: nn.Module = models.get_model(
        name, weights="DEFAULT" if pretrained else None, **({} if pretrained else {"num_classes": classes}), **arguments
    )
    return found


def _timm(name: str, pretrained: bool, classes: int, arguments: dict[str, Any]) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it still uses
            import timm
    except ImportError:
        raise _missing("timm") from None
    _check_known(name.partition(".")[0], timm.list_models(), "timm model")
    numbered = {} if pretrained else {"num_classes": classes}
    found: nn.Module = timm.create_model(name, pretrained=pretrained, **numbered, **arguments)
    return found


def _robustbench(name: str, pretrained: bool, _: int, arguments: dict[str, Any]) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own libraries' old age
            _name_autoattack()
            from robustbench.model_zoo import model_dicts
            from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel
            from robustbench.utils import load_model
    except ImportError:
        raise _missing("robustbench") from None
    *where, name = name.split("/")
    if len(where) not in (0, 2):
        raise UserError(f"robustbench:{'/'.join([*where, name])}: give NAME, or DATASET/THREAT/NAME.")
    dataset, threat = where or ("cifar10", "Linf")
    _check_known(dataset, [one.value for one in BenchmarkDataset], "RobustBench dataset")
    _check_known(threat, [one.value for one in ThreatModel], "RobustBench threat model")
    known = model_dicts[BenchmarkDataset(dataset)][ThreatModel(threat)]
    _check_known(name, known, "RobustBench model")
    if pretrained:
        loaded: nn.Module = load_model(name, dataset=dataset, threat_model=threat, **arguments)
        return loaded
    built: nn.Module = known[name]["model"]()
    return built


def _name_autoattack() -> None:
    """Make AutoAttack known by the name that robustbench imports: the package that it depends on has another."""
    if importlib.util.find_spec("autoattack") is None:
        sys.modules["autoattack"] = importlib.import_module("pyautoattack")
        sys.modules["autoattack.state"] = importlib.import_module("pyautoattack.state")


BUILDERS: dict[str, Callable[[str, bool, int, dict[str, Any]], nn.Module]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "robustbench": _robustbench,
}
"""Libraries of networks: each is given a name, whether with its own weights, the number of classes, and arguments."""


def _missing(library: str) -> UserError:
    return UserError(f"{library}:NAME needs {library}, which is missing: pip install 'interpret-robust[{library}]'.")


def _check_known(name: str, known: Iterable[str], what: str) -> None:
    """Raise UserError for a name that is not known; of many names only the nearest are told."""
    known = list(known)
    if name in known:
        return
    near = known if len(known) <= MOST_TOLD else difflib.get_close_matches(name, known, n=MOST_TOLD, cutoff=0.5)
    raise unknown(what, name, near) if near else UserError(f"unknown {what} '{name}': none has a name like that.")


def _load_weights(network: nn.Module, told: str, path: Path) -> None:
    """Load a file's weights, all of them. Raises UserError where it has others than the network."""
    found, expected = _read_weights(path), network.state_dict()
    if found and all(name.startswith("module.") for name in found):  # saved from within DataParallel
        found = {name.removeprefix("module."): tensor for name, tensor in found.items()}
    differing = sorted(
        name
        for name in expected.keys() | found.keys()
        if name not in expected or name not in found or expected[name].shape != found[name].shape
    )
    if differing:
        name = differing[0]
        raise UserError(
            f"{path} does not hold the weights of {told}: {len(differing)} tensors differ, first {name} "
            f"({_shape_in(found, name)} in the file, {_shape_in(expected, name)} in the network)."
        )
    network.load_state_dict(found)


def _shape_in(tensors: Mapping[str, Tensor], name: str) -> str:
    return f"shape {tuple(tensors[name].shape)}" if name in tensors else "none"


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"there is no file of weights {path}: give one, or --weights pretrained or random.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        held = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise UserError(f"{path} is damaged or holds no weights ({first_words(error)}).") from None
    except Exception as error:  # torch's unpickler raises what it likes
        raise UserError(
            f"{path} is no state dict that torch reads with weights_only, and nothing else is unpickled: save "
            "model.state_dict(), or better a safetensors file."
        ) from error
    for name in NESTED:
        if isinstance(held, dict) and isinstance(held.get(name), dict):
            held = held[name]
    if not isinstance(held, dict) or not all(isinstance(tensor, Tensor) for tensor in held.values()):
        raise UserError(f"{path} holds no state dict: save model.state_dict().")
    return dict(held)


def preprocess_of(card: Card, network: nn.Module, channels: int) -> Preprocess:
    """What a card, or else the library that a network is from, says of the pixels that it expects.

    Raises UserError where that is for images of other channels.
    """
    if card.normalize is not None:
        return Preprocess(*statistics(card.normalize, channels), card.resize)
    mean, deviation = STATISTICS["none"]
    if card.weights in (None, "pretrained"):
        told = getattr(network, "pretrained_cfg", None)  # timm's
        if card.model.startswith("torchvision:"):
            mean, deviation = STATISTICS["imagenet"]
        elif isinstance(told, dict) and "mean" in told and "std" in told:
            mean, deviation = tuple(told["mean"]), tuple(told["std"])
    if len(mean) not in (1, channels):
        raise UserError(f"{card.model} takes images of {len(mean)} channels, and these have {channels}.")
    return Preprocess(mean, deviation, card.resize)


def _numbers_of(preprocess: Preprocess) -> str:
    mean, deviation = (tensor.flatten().double() for tensor in (preprocess.mean, preprocess.deviation))
    return ",".join(f"{number:.6g}" for number in (*mean.tolist(), *deviation.tolist()))


def _trial_image(data: Dataset) -> Tensor:
    """The first training image: where random weights meet a blank one, nothing may depend on anything."""
    images, _ = to_device(data.train.first(1), torch.device("cpu"))
    return to_pixels(images)


def _check_fit(network: nn.Module, preprocess: Preprocess, image: Tensor, card: Card, data: Dataset) -> None:
    channels, height, width = data.image_shape
    try:
        with torch.no_grad():
            logits = network(preprocess(image))
    except Exception as error:
        if wanted := re.search(rf"to have (\d+) channels, but got {channels} channels", str(error)):
            raise UserError(
                f"{card.model} takes images of {wanted[1]} channels, and those of {data.name} have {channels}."
            ) from error
        resized = "" if card.resize is None else f" resized to {card.resize}"
        raise UserError(
            f"{card.model} does not take the images of {data.name}, {channels}x{height}x{width}{resized} "
            f"({first_words(error)}): --resize N gives it another size."
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise UserError(f"{card.model} does not answer with logits (N, classes) but with {_kind(logits)}.")
    if logits.shape[1] != len(data.class_names):
        raise UserError(
            f"{card.model} answers with {logits.shape[1]} classes, and {data.name} has {len(data.class_names)}."
        )


def _kind(answer: Any) -> str:
    return f"a tensor of shape {tuple(answer.shape)}" if isinstance(answer, Tensor) else f"a {type(answer).__name__}"


class Tried(NamedTuple):
    """Clean accuracy of a model on a few images under its normalization, and what is wrong with it, or None."""

    accuracy: float
    images: int
    doubt: str | None


def try_out(brought: Brought, data: Dataset, device: torch.device) -> Tried:
    """Look at a few test images: under the normalization that was declared, and under the others that are known.

    In doubt is a model that is right on more images under another one (McNemar's exact test at SIGNIFICANT), and one
    that cannot be told from guessing (an exact binomial test).
    """
    few = data.test.first(LOOKED_AT)
    pixels, labels = to_device(few, device)
    images, own = to_pixels(pixels), brought.wrapped.preprocess

    def right(preprocess: Preprocess) -> Any:
        with torch.no_grad():
            batches = zip(torch.split(images, 25), torch.split(labels, 25), strict=True)
            network = brought.wrapped.to(device).backbone
            return torch.cat([network(preprocess(some)).argmax(1) == of for some, of in batches]).cpu().numpy()

    declared, channels = right(own), data.image_shape[0]
    others = {
        name: right(Preprocess(mean, deviation, own.size).to(device))
        for name, (mean, deviation) in STATISTICS.items()
        if len(mean) in (1, channels)
    }
    accuracy = float(declared.mean())
    better = max(others, key=lambda name: float(others[name].mean()))
    gain = mcnemar(others[better], declared)
    doubt = None
    if others[better].mean() > accuracy and gain.p_value < SIGNIFICANT:
        doubt = (
            f"{brought.told} is right on {accuracy:.0%} of the first {len(few)} test images with "
            f"--normalize {brought.card.normalize}, and on {others[better].mean():.0%} with --normalize {better}."
        )
    elif binomtest(int(declared.sum()), len(few), 1 / len(data.class_names), "greater").pvalue > SIGNIFICANT:
        doubt = (
            f"{brought.told} is right on {accuracy:.0%} of the first {len(few)} test images, hardly more than guessing "
            f"({1 / len(data.class_names):.0%}): are its normalization and the order of its classes right?"
        )
    return Tried(accuracy, len(few), doubt)


def layer_rows(of: Reference, source: str, *, everything: bool = False) -> list[dict[str, str]]:
    """A model's layers for `irt model layers`: those that can give local features, or all of them."""
    found = subject(of, source)
    if not isinstance(found, Brought):
        raise UserError(f"{found.told} is a checkpoint of `irt train`: its local features are those of the paper.")
    listed = layers(found.wrapped.backbone, found.wrapped.preprocess, _trial_image(found.data))
    taken = found.wrapped.local_layer
    return [
        {
            "layer": layer.name,
            "kind": layer.kind,
            "channels": str(layer.shape[0]) if layer.shape else "",
            "positions": f"{layer.shape[1]}x{layer.shape[2]}" if layer.shape else "",
            "": _remark(layer, is_taken=layer.name == taken),
        }
        for layer in listed
        if everything or layer.is_local
    ]


def _remark(layer: Layer, *, is_taken: bool) -> str:
    if is_taken:
        return "taken"
    if layer.runs > 1:
        return f"runs {layer.runs} times"
    return "" if layer.is_local or layer.shape is None else "one position" if layer.matters else "without effect"
