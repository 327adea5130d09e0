"""The card of a model from elsewhere: where it comes from and how its inputs and layers are read."""

import filecmp
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from interpret_robust.core.errors import UserError, describe, find_nearest, unknown
from interpret_robust.core.file_names import is_printable_label
from interpret_robust.core.files import check_present, replace_file
from interpret_robust.models.checkpoint_file import check_checkpoint, is_safetensors
from interpret_robust.models.model_names import explain
from interpret_robust.models.variants import VARIANTS

FORMAT, FORMAT_VERSION = "interpret-robust-model", 1

LATER_FIELDS = ("weights_key", "logits", "draws")
"""Fields that the first cards did not have."""


@dataclass(frozen=True)
class Card:
    """How a model from elsewhere is found and read. Fields that are None follow where it comes from.

    Attributes:
        model: `torchvision:NAME`, `timm:NAME`, `hf-hub:ORG/NAME`, `robustbench:[DATASET/THREAT/]NAME` or
            `package.module:callable`.
        weights: `pretrained`, as the library offers them; `random`, from seed 0; or a file, safetensors or a state
            dict that torch.load reads with `weights_only`. None: `pretrained` for a library, and what a callable
            gives as it gives it.
        arguments: given to whatever builds the network, by name.
        normalize: a name of `models.normalization.STATISTICS`, such as `imagenet` or `none`, or numbers: `mean,std`, or
            the means of all channels and then their standard deviations. `ir.load` takes lists of them too.
            None: what a library says of the network, else, and for random weights, `none`.
        resize: side that images are resized to before the network, None for as they are.
        local_layer: the layer whose output are the local features. None: see `models.layers.choice.choose_layer`.
        attention_layer: a layer that gives attention over these positions, None for none.
        weights_key: where the weights lie in a file that holds several sets of them, such as `model_ema`.
        logits: the number or name of the part of the network's answer that are the logits. None: the answer itself, or
            its only part that can be.
        draws: how many passes stand for the expectation of a network that draws random numbers. None: one pass.
        label: what files and tables call it. None: made from the others.

    Example:
        >>> card = Card("torchvision:resnet18", weights="random", normalize="imagenet")
        >>> card.name
        'torchvision-resnet18-random'
    """

    model: str
    weights: str | None = None
    arguments: tuple[tuple[str, Any], ...] = ()
    normalize: str | None = None
    resize: int | None = None
    local_layer: str | None = None
    attention_layer: str | None = None
    label: str | None = None
    weights_key: str | None = None
    logits: str | None = None
    draws: int | None = None

    def __post_init__(self) -> None:
        names = {field.name for field in fields(self)} - {"arguments", "label"}
        if problem := _problem({name: getattr(self, name) for name in names} | {"arguments": []}):
            raise UserError(f"a model's {problem}.")
        # Lists become tuples: a card is a key of the models that are kept in memory.
        object.__setattr__(self, "arguments", tuple((name, _hashable(name, value)) for name, value in self.arguments))
        if self.label is not None and not is_printable_label(self.label):
            raise UserError(f"--label {self.label!r}: give a label of printable characters on one line.")
        if self.label in VARIANTS:
            raise UserError(f"--label {self.label} is the name of a variant of the paper: choose another.")
        if self.resize is not None and self.resize < 1:
            raise UserError(f"--resize {self.resize}: images have at least one pixel a side.")
        if self.weights_key is not None and self.weight_file is None:
            raise UserError(f"--weights-key {self.weights_key} chooses among weights in a file: give --weights FILE.")
        if self.draws is not None and self.draws < 2:
            raise UserError(f"--draws {self.draws}: an expectation needs two draws at least.")

    @property
    def name(self) -> str:
        """Return `label`, or a name such as `torchvision-resnet18-random-layer3`."""
        if self.label is not None:
            return self.label
        weights = Path(self.weights).stem if self.weights else None
        arguments = [f"{name}-{value}" for name, value in self.arguments]
        draws = None if self.draws is None else f"draws-{self.draws}"
        layers = [self.local_layer, self.attention_layer]
        parts = [self.model, *arguments, weights, self.weights_key, self.logits, draws, *layers]
        return re.sub(r"[^\w.]+", "-", "-".join(part for part in parts if part))

    @property
    def is_of_timm(self) -> bool:
        """Return whether timm builds it."""
        return self.model.startswith(("timm:", "hf-hub:"))

    @property
    def weight_file(self) -> Path | None:
        """Return the file of its weights, None where they come from elsewhere."""
        return None if self.weights in (None, "pretrained", "random") else Path(self.weights)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return a card that `write` wrote.

        Its file of weights may also lie where the card does, as in a folder of both that was moved. Raises UserError
        for a file that is missing or of another kind, and where two files of other contents could be meant.
        """
        check_present(path, "model card", "`irt model card` makes them")
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            raise UserError(f"{path} is no model card: it is not JSON.") from None
        if not isinstance(entries, dict) or entries.pop("format", None) != FORMAT:
            raise UserError(f"{path} is no model card: `irt model card` makes them.")
        if (version := entries.pop("format_version", None)) != FORMAT_VERSION:
            raise UserError(
                f"{path} is a model card of format {version}, and this irt reads {FORMAT_VERSION}: "
                "`irt model card` writes one anew."
            )
        if problem := _problem(entries):
            raise UserError(f"{path} is no model card that this irt knows: {problem}.")
        card = cls.from_entries(entries)
        return card if card.weight_file is None else replace(card, weights=str(_find_weights(path, card.weight_file)))

    @classmethod
    def from_entries(cls, entries: Mapping[str, Any]) -> Self:
        """Return the card whose `asdict`, perhaps read from JSON, this is."""
        return cls(**{**entries, "arguments": tuple(entries["arguments"])})

    def entries(self) -> dict[str, Any]:
        """Return its fields as JSON has them, without those of later versions that are not set."""
        fields = {**asdict(self), "arguments": [list(pair) for pair in self.arguments]}
        return {name: value for name, value in fields.items() if value is not None or name not in LATER_FIELDS}

    def write(self, path: Path, *, overwrite: bool = False) -> None:
        """Write the card as JSON. Raises UserError where there is a file already, unless it may be replaced."""
        if path.exists() and not overwrite:
            raise UserError(f"{path} is there already: --overwrite replaces it.")
        text = json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION, **self.entries()}, indent=1)
        with replace_file(path) as partial:
            partial.write_text(text + "\n", encoding="utf-8")

    def words(self) -> list[str]:
        """Return the options of a command that give this card."""
        option_values = {
            "--model": self.model,
            "--weights": self.weights,
            "--normalize": self.normalize,
            "--resize": self.resize,
            "--local-layer": self.local_layer,
            "--attention-layer": self.attention_layer,
            "--weights-key": self.weights_key,
            "--logits": self.logits,
            "--draws": self.draws,
            "--label": self.label,
        }
        options = [word for name, value in option_values.items() if value is not None for word in (name, str(value))]
        return options + [word for name, value in self.arguments for word in ("--model-arg", f"{name}={_text(value)}")]


def _find_weights(path: Path, weight_file: Path) -> Path:
    """Return the file of weights that a card at `path` means: by its path from here or from the card, or by its name
    beside the card.

    Raises UserError where these are several files of other contents.
    """
    places = [weight_file, path.parent / weight_file, path.parent / weight_file.name]
    first, *others = [place for place in dict.fromkeys(places) if place.is_file()] or [weight_file]
    for other in others:
        if not first.samefile(other) and not filecmp.cmp(first, other, shallow=False):
            raise UserError(f"{path} may mean {first} or {other}, which differ: move one of them away, or rename it.")
    return first


def _problem_of_names(entries: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the names of a card's fields, or None."""
    names = Card.__dataclass_fields__.keys()
    if unknown_names := [name for name in entries if name not in names]:
        nearest = find_nearest(unknown_names[0], list(names))
        return f"it has no field '{unknown_names[0]}'" + (f", but '{nearest}'" if nearest else "")
    if not {"model", "arguments"} <= entries.keys():
        return f"it holds {', '.join(entries)}, and needs model and arguments"
    return None


def _problem(entries: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the names or types of a card's fields, as JSON gives them, or None."""
    if problem := _problem_of_names(entries):
        return problem
    for name, value in entries.items():
        text = json.dumps(value, default=repr)
        if name == "arguments":
            pairs = value if isinstance(value, list) else [None]
            if not all(isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs):
                return f"arguments is {text} where a list of [name, value] is needed"
        elif name in ("resize", "draws"):
            if value is not None and type(value) is not int:
                return f"{name} is {text} where a whole number or null is needed"
        elif not isinstance(value, str) and (value is not None or name == "model"):
            return f"{name} is {text} where text{'' if name == 'model' else ' or null'} is needed"
        elif isinstance(value, str) and not value.isprintable():
            return f"{name} is {text}, which has control characters"
    return None


def _text(value: Any) -> str:
    """Return a value as `--model-arg` reads it: text as it is, unless that would be read as something else."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError:
            return value
    return json.dumps(value)


def _hashable(name: str, value: Any) -> Any:
    """Return a value of JSON with tuples for its lists.

    Raises UserError for an object, also inside a list, and for what only a program can hold, such as a class.
    """
    if isinstance(value, list | tuple):
        return tuple(_hashable(name, item) for item in value)
    if isinstance(value, dict):
        raise UserError(
            f"--model-arg {name}={json.dumps(value, default=str)} is an object: give a number, text or list."
        )
    if value is not None and not isinstance(value, str | int | float):
        raise UserError(
            f"--model-arg {name}={describe(value)} is no number, text or list, which a file can hold: build the "
            "network with it in Python and give ir.load the network."
        )
    return value


Reference = Path | Card
"""What names a model: the path of a checkpoint or of a card, or a card."""


def parse_reference(text: str, **options: Any) -> Reference:
    """Return what `--model` names, with the other options of a card, of which those that are None were not given.

    Raises UserError where options are given beside a checkpoint, which knows them.
    """
    names = [name for name in Card.__dataclass_fields__ if name != "model"]
    for name in options:
        if name not in names:
            raise unknown("field of a model", name, names)
    extra = {name: value for name, value in options.items() if value not in (None, ())}
    if text.endswith(".safetensors"):
        if extra:
            raise UserError(
                f"{text} is a checkpoint of `irt train`, which needs no {', '.join(sorted(extra))}: weights of another "
                f"network are given as --model NETWORK --weights {text}."
            )
        return Path(text)
    if text.endswith(".json"):
        return replace(Card.read(Path(text)), **extra)
    return Card(text, **extra)


def check_files(reference: Reference) -> None:
    """Raise UserError where a reference names no model, before the seconds that loading torch takes.

    That is where a checkpoint or a card, or the file of a card's weights, is missing, and for a file of another kind.
    """
    if isinstance(reference, Path) and reference.suffix != ".json":
        if reference.suffix != ".safetensors" and not is_safetensors(reference):
            raise UserError(explain(str(reference)))
        check_checkpoint(reference)
        return
    card = Card.read(reference) if isinstance(reference, Path) else reference
    if ":" not in card.model:
        raise UserError(explain(card.model))
    if card.weight_file is not None:
        check_weights(card.weight_file)


def check_weights(path: Path) -> None:
    """Raise UserError where there is no file of weights at `path` that may be read."""
    check_present(path, "file of weights", "give one, or --weights pretrained or random")
