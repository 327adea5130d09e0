"""Options that several commands share, and how their texts become values."""

import os
import time
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import click

from interpret_robust.core.errors import UserError
from interpret_robust.core.file_names import resolve
from interpret_robust.core.folders import Folders
from interpret_robust.core.parsing import parse_duration, parse_number
from interpret_robust.models.model_names import FORMS
from interpret_robust.results import tables


class TextOption(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """An option whose text a function turns into a value, such as 8/255 or 5m.

    A function that raises ValueError needs an example of what is right.
    """

    def __init__(self, name: str, parse: Callable[[str], Any], example: str = "") -> None:
        self.name, self.parse, self.example = name, parse, example

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """Return the value of an option's text; what is no text is a value already."""
        if not isinstance(value, str):
            return value
        try:
            return self.parse(value)
        except ValueError:
            self.fail(f"'{value}' is no {self.name}: give one such as {self.example}.", parameter, context)


NUMBER, DURATION = (
    TextOption("number", parse_number, "0.03 or 8/255"),
    TextOption("duration", parse_duration, "90s, 5m or 2h"),
)


SPLIT = click.Choice(["train", "test", "val"])
"""A part of a dataset: `val` is there in pictures alone, where they have a test split too."""

COUNT, SEED = click.IntRange(min=1), click.IntRange(min=0, max=2**63 - 1)


def _folders() -> Folders:
    """Return the folders below the root of the command that is typed; of here, where it has none."""
    context = click.get_current_context(silent=True)
    return Folders(context.params.get("root", Path()) if context else Path())


def _model_file(text: str) -> Path:
    """Return the path of a checkpoint or a card, of a checkpoint also by a name as `irt checkpoints` prints it.

    Raises UserError where there is none, before torch is loaded.
    """
    from interpret_robust.models.card import check_files

    path = resolve(text, _folders().list_models(), "checkpoint")
    check_files(path)
    return path


def _result_file(text: str) -> Path:
    """Return the path of a file that is read, of an analysis also by a name as `irt plan` prints it."""
    return resolve(text, _folders().list_analyses())


def _own_file(text: str) -> Path:
    """Return the path of a checkpoint or an analysis, also by a name as `irt checkpoints` or `irt plan` prints it."""
    return resolve(text, [*_folders().list_models(), *_folders().list_analyses()])


def _output_file(text: str) -> Path:
    """Return the path of a file to write. Raises UserError where its folder is not there: perhaps it is misspelled."""
    path = Path(text)
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file in it.")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent} to write {path.name} in: make it, or correct the name.")
    return path


def _dataset(text: str) -> str:
    """Return the name or path of a dataset. Raises UserError where there is none, before torch is loaded."""
    from interpret_robust.datasets.catalogue import check_name

    check_name(text)
    return text


MODEL_FILE, DATASET = TextOption("file", _model_file), TextOption("dataset", _dataset)


INPUT_FILE = click.Path(path_type=Path, readable=False)
"""A file that is read: what is wrong with it is said where it is opened."""

MODEL_ENDINGS = (".safetensors", ".json")
"""Of files that are models, a checkpoint or a card, where a command takes pictures too."""

OUTPUT_FILE = TextOption("file", _output_file)
"""A file to write, in a folder that is there: looked at before anything is computed."""

RESULT_FILE, OWN_FILE = TextOption("file", _result_file), TextOption("file", _own_file)
"""An answer, and an answer or a checkpoint."""

Command = Callable[..., Any]


def options(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return several options as one decorator."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def run_on_all_ranks(command: Command) -> Command:
    """Return a command that all processes that torchrun started run together. Others run on the first of them alone."""

    @wraps(command)
    def run(*arguments: Any, **options: Any) -> Any:
        from interpret_robust.core import ranks

        with ranks.process_group():
            return command(*arguments, **options)

    return run


def _check_root(_: click.Context, __: click.Parameter, root: Path) -> Path:
    """Return a root that is there or can be made. Raises UserError, before torch is loaded, where it lies nowhere."""
    if not root.is_dir() and not root.parent.is_dir():
        raise UserError(f"there is no folder {root.parent} to make {root.name} in: make it, or correct --root.")
    return root


root_option = click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    callback=_check_root,
    default=Path(),
    is_eager=True,  # names are short for those of files below it
    help="Folder that holds checkpoints/, analyses/ and figures/. [default: here]",
)


def open_root(root: Path) -> Folders:
    """Return the folders of a command that reads. Raises UserError where there is no root."""
    if not root.is_dir():
        raise UserError(f"there is no folder {root}: give as --root the one that holds checkpoints/ and analyses/.")
    return Folders(root)


def make_root(root: Path) -> Folders:
    """Return the folders of a command that writes; a root that is not there is made, and the user told."""
    if not root.is_dir():
        root.mkdir(exist_ok=True)
        say(f"made the folder {root}")
    return Folders(root)


device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")


spatial_weight_option = click.option(
    "--spatial-weight",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="Weights over the picture: attention, grad-cam, feature-norm, or for a transformer rollout, relevance, "
    "head:BLOCK.HEAD, head:BLOCK or head:last (the last attention, such as a pool's).",
)


overwrite_option = click.option("--overwrite", is_flag=True, help="Replace files of the same name.")


def forms_option(forms: Sequence[str], meaning: str) -> Callable[[Command], Command]:
    """Return --form, one of several forms of what is printed."""
    return click.option("--form", type=click.Choice(forms), default="text", show_default=True, help=meaning)


form_option = forms_option(tables.FORMS, "How the tables are written.")


def _argument(text: str) -> tuple[str, Any]:
    """Return the name and the value of NAME=VALUE, the value JSON where it is that, else text.

    Raises ValueError without a name.
    """
    import json

    name, separator, value = text.partition("=")
    if not (separator and name.isidentifier()):
        raise ValueError(text)
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


card_options = options(
    click.option("--weights", metavar="WHICH", help="Its weights: pretrained, random, or a file (safetensors, .pt)."),
    click.option("--weights-key", metavar="KEY", help="Which weights of a file that holds several sets."),
    click.option(
        "--model-arg",
        "arguments",
        multiple=True,
        metavar="NAME=VALUE",
        type=TextOption("argument of the form NAME=VALUE", _argument, "num_classes=10"),
        help="An argument of the function that builds the network; repeat for more.",
    ),
    click.option(
        "--normalize",
        metavar="HOW",
        help="Normalization: imagenet, inception (0.5), clip, a dataset's such as cifar10, bytes, none, or numbers: "
        "mean,std or three means, then three stds (0.49,0.48,0.45,0.25,0.24,0.26).",
    ),
    click.option("--resize", type=COUNT, metavar="N", help="Resize images to NxN before the network."),
    click.option(
        "--logits", metavar="PART", help="Number or name of the output that has the logits, if there are several."
    ),
    click.option(
        "--draws",
        type=COUNT,
        metavar="N",
        help="For a network that draws random numbers: its expectation over N draws.",
    ),
    click.option("--local-layer", metavar="LAYER", help="Layer that gives the local features (see irt model layers)."),
    click.option("--attention-layer", metavar="LAYER", help="Layer that gives the attention over positions."),
    click.option("--label", help="Its name in files and tables."),
)


CARD_FIELDS = (
    "weights",
    "weights_key",
    "arguments",
    "normalize",
    "resize",
    "logits",
    "draws",
    "local_layer",
    "attention_layer",
    "label",
)


def _single(_: click.Context, __: click.Parameter, names: tuple[str, ...]) -> str | None:
    """Return the model that --model names, a checkpoint by its path, None for none.

    Raises UserError for two: one would be dropped.
    """
    if len(names) > 1:
        raise UserError(f"--model is given {len(names)} times ({', '.join(names)}): give one model at a time.")
    if names and ":" not in names[0]:
        return str(resolve(names[0], _folders().list_models(), "model"))
    return names[0] if names else None


model_option: Callable[[Command], Command] = click.option(
    "--model", metavar="MODEL", multiple=True, callback=_single, help=f"A model from anywhere: {FORMS}."
)


def references(card: dict[str, Any]) -> list[Any]:
    """Return what --model names together with the options beside it: one model, or none where it was not given."""
    from interpret_robust.models import card as cards

    model, card_fields = card["model"], {field: value for field, value in card.items() if field != "model"}
    if model is not None:
        reference = cards.parse_reference(model, **card_fields)
        cards.check_files(reference)
        return [reference]
    if any(card_fields.values()):
        raise UserError("--weights, --normalize and similar options describe a --model: name one.")
    return []


def models_and_pictures(subjects: Sequence[Path], card: dict[str, Any]) -> tuple[list[Any], list[Path]]:
    """Return the models that are named, a checkpoint that is named twice once, and what is named beside them: pictures.

    Raises UserError, before torch is loaded, for a model that is not there.
    """
    from interpret_robust.models.card import check_files

    checkpoints = [path for path in dict.fromkeys(subjects) if path.suffix in MODEL_ENDINGS]
    for path in checkpoints:
        check_files(path)
    return [*checkpoints, *references(card)], [path for path in subjects if path.suffix not in MODEL_ENDINGS]


DATA_HELP = "Name, .npz, or pictures: a folder, .csv, .parquet, .tar."


def dataset_options(**settings: Any) -> Callable[[Command], Command]:
    """Return --dataset with what else says how pictures are read, all of it one text to the command.

    `settings` are `required` and `default`, as click takes them.
    """
    ending = "" if settings else " [default: that of training]"
    return options(
        click.option("--dataset", type=DATASET, metavar="TEXT", help=f"{DATA_HELP}{ending}", **settings),
        picture_options,
    )


def _merge_into_dataset(command: Command) -> Command:
    """Return a command whose --size, --skip-damaged and --classes become words of its dataset."""

    @wraps(command)
    def run(
        *arguments: Any, dataset: str | None, size: int | None, skip_damaged: bool, classes: str | None, **rest: Any
    ) -> Any:
        from interpret_robust.datasets.reference import merge

        return command(*arguments, dataset=merge(dataset, size, skips_damaged=skip_damaged, classes=classes), **rest)

    return run


size_option = click.option(
    "--size",
    type=click.IntRange(1, 4096),
    metavar="N",
    help="Resize the shorter side of pictures, then crop to NxN.",
)
classes_option = click.option(
    "--classes", metavar="FILE", help="JSON or CSV: the class of each of the model's outputs, in order."
)
time_limit_option = click.option(
    "--time-limit", type=DURATION, help="Save everything and stop after this long (90s, 5m, 2h)."
)


picture_options = options(
    size_option,
    click.option("--skip-damaged", is_flag=True, help="Skip damaged pictures, and count them."),
    classes_option,
    _merge_into_dataset,
)


run_options = options(
    form_option,
    dataset_options(),
    click.option("--split", type=SPLIT, default="test", show_default=True, help="Which images."),
    click.option("--limit", type=COUNT, help="Use N images: the first, or if sorted by class, some of each class."),
    click.option(
        "--batch-size",
        type=COUNT,
        help="Images in a batch. [default: 250, fewer if larger than 64x64]",
    ),
    click.option(
        "--recalibrate",
        type=click.Choice(["none", "clean", "adversarial", "both"]),
        default="none",
        show_default=True,
        help="Measure batch-norm statistics anew on training images: clean, attacked or both.",
    ),
    device_option,
    overwrite_option,
    root_option,
)


def add_examples(text: str) -> str:
    """Return an epilog of examples that click does not wrap anew."""
    return f"\b\nExamples:\n  {text}"


def compute_deadline(time_limit: float | None) -> float:
    """Return the value of `time.monotonic()` at which to stop. Raises UserError where torchrun would start again."""
    if time_limit is None:
        return float("inf")
    if os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0":
        raise UserError(
            "torchrun would restart a run that stops at --time-limit: leave out --max-restarts or --time-limit."
        )
    return time.monotonic() + time_limit


def say(sentence: str) -> None:
    """Write a sentence to stderr, where it does not get into a table."""
    click.echo(sentence, err=True)


def warn(doubt: str) -> None:
    """Write what makes answers doubtful to stderr."""
    say(f"warning: {doubt}")
