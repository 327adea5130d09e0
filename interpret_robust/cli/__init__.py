"""The command `irt`: options in, one call, a table out. Torch is imported only inside commands."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial, wraps
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn, get_args

import click

from interpret_robust.core.errors import UserError, unknown
from interpret_robust.core.parsing import number, seconds
from interpret_robust.core.spelling import current
from interpret_robust.results.tables import captioned, render

EXIT_USER_ERROR, EXIT_STOPPED, EXIT_INTERRUPTED = 2, 3, 130


class Parsed(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """An option whose text a function turns into a value, such as 8/255 or 5m."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name, self.parse = name, parse

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """The value of an option's text; what is no text is a value already."""
        if not isinstance(value, str):
            return value
        try:
            return self.parse(value)
        except ValueError:
            self.fail(f"'{value}' is no {self.name}.", parameter, context)


NUMBER, DURATION = Parsed("number", number), Parsed("duration", seconds)
COUNT, SEED = click.IntRange(min=1), click.IntRange(min=0, max=2**63 - 1)
Command = Callable[..., Any]


def options(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def together(command: Command) -> Command:
    """A command that the processes that torchrun started do together. Any other is for the first of them alone."""

    @wraps(command)
    def joined(*arguments: Any, **options: Any) -> Any:
        from interpret_robust.core import ranks

        with ranks.process_group():
            return command(*arguments, **options)

    return joined


root_option = click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="Folder that holds checkpoints/, analyses/ and figures/. [default: here]",
)
device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace what is there under the same name.")
form_option = click.option(
    "--form",
    type=click.Choice(["text", "markdown", "latex", "csv", "json"]),
    default="text",
    show_default=True,
    help="How the tables are written.",
)


def _argument(text: str) -> tuple[str, Any]:
    """NAME=VALUE, the value JSON where it is that, else text. Raises ValueError without a name."""
    import json

    name, separator, value = text.partition("=")
    if not (separator and name.isidentifier()):
        raise ValueError(text)
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


MODEL = "checkpoint, card .json, torchvision:NAME, timm:NAME, robustbench:NAME or package.module:callable"
card_options = options(
    click.option("--weights", metavar="WHICH", help="Its weights: pretrained, random, or a file (safetensors, .pt)."),
    click.option(
        "--model-arg",
        "arguments",
        multiple=True,
        metavar="NAME=VALUE",
        type=Parsed("argument of the form NAME=VALUE", _argument),
        help="Given to what builds the network; repeat for more.",
    ),
    click.option("--normalize", metavar="HOW", help="Pixels it expects: imagenet, cifar10, none or mean,std."),
    click.option("--resize", type=COUNT, metavar="N", help="Resize images to NxN before the network."),
    click.option("--local-layer", metavar="LAYER", help="Layer of its local features (irt model layers)."),
    click.option("--attention-layer", metavar="LAYER", help="Layer that gives attention over their positions."),
    click.option("--label", help="What files and tables call it."),
)
CARD_FIELDS = ("weights", "arguments", "normalize", "resize", "local_layer", "attention_layer", "label")


def _single(_: click.Context, __: click.Parameter, names: tuple[str, ...]) -> str | None:
    """The one model that --model names, None for none. A second one would be dropped without a word."""
    if len(names) > 1:
        raise UserError(f"--model is given {len(names)} times ({', '.join(names)}): ask one model at a time.")
    return names[0] if names else None


model_option: Callable[[Command], Command] = click.option(
    "--model", metavar="MODEL", multiple=True, callback=_single, help=f"A model from anywhere: {MODEL}."
)
run_options = options(
    form_option,
    click.option("--dataset", help="Name or .npz path. [default: that of training]"),
    click.option("--split", type=click.Choice(["train", "test"]), default="test", show_default=True),
    click.option("--limit", type=COUNT, help="Only the first N images."),
    click.option("--batch-size", type=COUNT, default=250, show_default=True),
    click.option(
        "--recalibrate",
        type=click.Choice(["none", "clean", "adversarial", "both"]),
        default="none",
        show_default=True,
        help="Training images that batch-norm statistics are measured on first.",
    ),
    device_option,
    overwrite_option,
    root_option,
)
EXAMPLES = {
    "irt": (
        "irt reproduce quick\n"
        "  irt train at-att --dataset cifar10 --arch narrow --recipe paper\n"
        "  irt analyze attention-rank"
    ),
    "train": (
        "irt train                        the embedded study: four variants, natural models, evaluators\n"
        "  irt train at at-att --seed 1     two models of the embedded data\n"
        "  irt train at at-att --seeds 3    six: seeds 0, 1 and 2 of each\n"
        "  irt train at --seed 4 --copies   two: seed 4, and seed 5, whose attacks are its black-box ones\n"
        "  irt train at --dataset cifar10 --arch small --recipe quick --limit 5000\n"
        "  irt train at-reg --dataset cifar10 --arch narrow --recipe paper --time-limit 2h\n"
        "  irt train at --set epochs=4 --set learning_rate=0.05"
    ),
    "reproduce": (
        "irt reproduce quick\n"
        "  irt reproduce cifar10 --time-limit 2h\n"
        "  irt reproduce table2                  small networks, embedded data\n"
        "  irt reproduce table2 --scale paper    CIFAR-10, the paper's network and schedule\n"
        "  irt reproduce audit --seeds 3\n"
        "  irt reproduce quick --only checkpoints/cluttered-digits-small-at-seed0.safetensors"
    ),
}


def with_examples(text: str) -> str:
    """An epilog that click does not re-wrap."""
    return f"\b\nExamples:\n  {text}"


SHORTCUTS = {"evaluate": "robustness", "gradmap-score": "gradmap-score"}
"""Commands that are analyses under a name of their own."""

COMMANDS: dict[str, tuple[str, ...] | list[str]] = {
    "Whole studies": ("reproduce", "plan", "audit", "flags", "report"),
    "One step at a time": ("train", "analyze", "evaluate", "gradmap-score", "figure"),
    "Models and data": ("data", "model", "checkpoints", "verify"),
    "Files": ("show", "validate", "export"),
}
"""The commands as the help lists them."""

TOGETHER = ("train", "analyze", "reproduce", *SHORTCUTS)


class ShortcutGroup(click.Group):
    """The commands defined here, and the analyses that are called directly."""

    def list_commands(self, context: click.Context) -> list[str]:
        """All of them, in the order of the alphabet."""
        return sorted([*super().list_commands(context), *SHORTCUTS])

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """A command; that of an analysis is made when it is asked for."""
        if name in SHORTCUTS:
            return analysis_command(SHORTCUTS[name], f"irt {name}")
        return super().get_command(context, name)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands in groups, each with its whole first sentence, without importing any analysis."""
        grouped = [name for names in COMMANDS.values() for name in names]
        rest = [name for name in self.list_commands(context) if name not in grouped]
        for title, names in {**COMMANDS, "Further commands": rest}.items():
            if names:
                with formatter.section(title):
                    formatter.write_dl([(name, self._sentence(name)) for name in names])

    def _sentence(self, name: str) -> str:
        from interpret_robust import analyses

        if name in SHORTCUTS:
            return analyses.about(SHORTCUTS[name])
        return self.commands[name].get_short_help_str(limit=500)


@click.group(
    cls=ShortcutGroup, context_settings={"help_option_names": ["-h", "--help"]}, epilog=with_examples(EXAMPLES["irt"])
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error; may stand anywhere on the line.")
@click.version_option(package_name="interpret-robust", message="%(prog)s %(version)s")
@click.pass_context
def irt(context: click.Context, debug: bool) -> None:  # noqa: ARG001
    """Train adversarially robust image classifiers and ask what they look at, and why.

    \b
    irt train    ->  checkpoints/   a model, and how it was made
    irt analyze  ->  analyses/      an answer, and all it rests on
    irt figure   ->  figures/       a picture of the answer
    """
    if _is_later("RANK") and context.invoked_subcommand not in TOGETHER:
        context.exit()


def _is_later(rank: str) -> bool:
    """Whether torchrun started this process and others before it, by RANK of all or LOCAL_RANK of this machine."""
    return os.environ.get("WORLD_SIZE", "1") != "1" and os.environ.get(rank, "0") != "0"


@irt.group()
def data() -> None:
    """List, get and look at datasets."""


@data.command("list", epilog=with_examples("irt data list"))
def data_list() -> None:
    """The datasets by name, and whether their file is here."""
    from interpret_robust.datasets.catalogue import ABOUT, file_of
    from interpret_robust.results.tables import render

    rows = [
        {"name": name, "here": "yes" if file_of(name).exists() else "no", "what": description}
        for name, description in ABOUT.items()
    ]
    click.echo(render(rows))
    click.echo("Any .npz with x_train, y_train, x_test, y_test works too: give its path.")


@data.command("get", epilog=with_examples("irt data get cifar10"))
@click.argument("name")
def data_get(name: str) -> None:
    """Generate or download dataset NAME, check it, and keep it as one .npz."""
    from interpret_robust.datasets import load
    from interpret_robust.datasets.catalogue import file_of

    dataset = load(name)
    channels, height, width = dataset.image_shape
    click.echo(
        f"{name}: {len(dataset.train)} train and {len(dataset.test)} test images of {height}x{width}x{channels}, "
        f"{len(dataset.class_names)} classes, in {file_of(name)}"
    )


@data.command("show", epilog=with_examples("irt data show cluttered-digits --split test"))
@click.argument("name")
@click.option("--split", type=click.Choice(["train", "test"]), default="train", show_default=True)
@root_option
def data_show(name: str, split: str, root: Path) -> None:
    """Draw a contact sheet of dataset NAME, with what the masks keep where there are masks."""
    from interpret_robust.core.file_names import file_part
    from interpret_robust.datasets import load
    from interpret_robust.figures import contact_sheet, style

    dataset = load(name)
    sources = {dataset.name: dataset.split(split).sha256}
    drawing = contact_sheet.draw(dataset, split)
    stem = file_part(f"data-{dataset.name}-{split}")
    paths = style.save(drawing, root / "figures", stem, sources, metadata.version("interpret-robust"))
    click.echo(f"{drawing.caption}\n{paths[0]}")


@irt.command(epilog=with_examples(EXAMPLES["train"]))
@click.argument("variants", nargs=-1)
@click.option("--dataset", default="cluttered-digits", show_default=True, help="Name (irt data list) or .npz path.")
@click.option("--arch", help="small, small-wide3, cnn, narrow or wide3. [default: small]")
@click.option("--recipe", help="quick, cifar-quick, paper, fast, mnist, mnist-quick. [default: by the dataset]")
@click.option("--set", "overrides", multiple=True, metavar="FIELD=VALUE", help="Change one number of the recipe.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="The first, or only, training seed.")
@click.option("--seeds", type=COUNT, default=1, show_default=True, help="How many seeds of each model, from --seed on.")
@click.option("--copies", is_flag=True, help="At least two seeds: black-box attacks come from an independent copy.")
@click.option("--limit", type=COUNT, help="Train on the first N images only.")
@click.option("--time-limit", type=DURATION, help="Save everything and stop after this long (90s, 5m, 2h).")
@device_option
@overwrite_option
@root_option
@together
def train(
    variants: tuple[str, ...],
    dataset: str,
    arch: str | None,
    recipe: str | None,
    overrides: tuple[str, ...],
    seed: int,
    seeds: int,
    copies: bool,
    limit: int | None,
    time_limit: float | None,
    device: str,
    overwrite: bool,
    root: Path,
) -> None:
    """Train VARIANTS: natural, natural-att, natural-linear-att, at, at-reg, at-att, at-att-reg.

    Without VARIANTS, train what the quick study needs: the models that it is about, with --seeds or --copies several
    of each, and those that read their maps. Models that are there with the same recipe are skipped; a stopped run goes
    on where it was when the same command is given again.
    """
    from interpret_robust.core.folders import Folders
    from interpret_robust.models.variants import variant
    from interpret_robust.study import plan as study
    from interpret_robust.study.tasks import TrainTask, do_all
    from interpret_robust.training.recipe import default_preset, preset

    requests = [(arch or "small", variant(name).name, 0) for name in variants] or [
        (arch or architecture, name, offset) for architecture, name, offset in study.QUICK.models
    ]
    copies_of_each = max(seeds, 2 if copies else 1)
    models = [
        (architecture, name, seed + offset + extra)
        for architecture, name, offset in requests
        for extra in range(1 if offset else copies_of_each)
    ]
    deadline = _deadline(time_limit)
    folder = Folders(root).checkpoints
    named = recipe or default_preset(dataset)
    tasks = [
        TrainTask(
            dataset,
            architecture,
            name,
            model_seed,
            preset(named, dataset, overrides, architecture),
            folder,
            device,
            limit,
            deadline,
            overwrite,
        )
        for architecture, name, model_seed in dict.fromkeys(models)
    ]
    do_all(tasks, device, click.echo)


def _deadline(time_limit: float | None) -> float:
    """The value of `time.monotonic()` at which to stop."""
    if time_limit is None:
        return float("inf")
    if os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0":
        raise UserError("torchrun starts again what stops at --time-limit: leave out --max-restarts or --time-limit.")
    return time.monotonic() + time_limit


class AnalyzeGroup(click.Group):
    """A command for each module in analyses/, with an option for each field of its settings."""

    def list_commands(self, context: click.Context) -> list[str]:  # noqa: ARG002
        """The analyses there are."""
        from interpret_robust import analyses

        return analyses.names()

    def get_command(self, context: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        """The command of one analysis."""
        from interpret_robust import analyses

        name = current(name)
        if name not in analyses.names():
            raise unknown("analysis", name, analyses.names())

        return analysis_command(name, f"irt analyze {name}")

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list in the help, without importing any analysis."""
        from interpret_robust import analyses

        with formatter.section("Commands"):
            formatter.write_dl([(name, analyses.about(name)) for name in analyses.names()])


@irt.group(cls=AnalyzeGroup)
def analyze() -> None:
    """Ask a question of trained models; answers go to analyses/."""


def _settings_options(settings: Any) -> list[Callable[[Command], Command]]:
    kinds: dict[Any, Any] = {int: click.INT, float: NUMBER, float | None: NUMBER, str: click.STRING, bool: click.BOOL}
    return [
        click.option(
            "--" + field.name.replace("_", "-"),
            field.name,
            type=kinds.get(field.type) or click.Choice(get_args(field.type)),
            is_flag=field.type is bool,
            default=field.default,
            show_default=field.type is not bool and field.default is not None,
            help=field.metadata["help"],
        )
        for field in fields(settings)
    ]


def _view_options(views: Sequence[str]) -> list[Callable[[Command], Command]]:
    """A flag for each part of the answer that the table can be limited to."""
    return [click.option(f"--{view}", is_flag=True, help=f"Print the {view} columns only.") for view in views]


def _evaluator_option(subject: str, default: str) -> Callable[[Command], Command]:
    return click.option(
        "--evaluator",
        "evaluators",
        multiple=True,
        type=click.Path(path_type=Path),
        help=f"Checkpoint or card that reads the {subject}; repeat for more. [default: {default}]",
    )


READERS = {
    "none": (),
    "evaluators": (_evaluator_option("maps", "two natural seeds, another architecture, an at"),),
    "copies": (
        _evaluator_option("adversarial images", "the model itself and other seeds of it"),
        click.option("--matrix", is_flag=True, help="All other models of the dataset read them."),
    ),
}
"""The options that say who reads what a model gives."""


MORE_EXAMPLES = {
    "robustness": (
        "--pgd 20 --cw none                 PGD-20 alone, a fifteenth of the time",
        "--matrix --form markdown           every model of a dataset attacks every other",
        "--restarts 5 --limit 200",
    ),
    "masking": ("--limit 200 --queries 5000",),
    "autoattack": ("checkpoints/NAME.safetensors --limit 200 --batch-size 50",),
}


def analysis_command(name: str, command_line: str) -> click.Command:
    """The command of one analysis, with an option for each of its settings; `command_line` is how it is typed."""
    from interpret_robust import analyses

    analysis = analyses.get(name)

    @click.argument("checkpoints", nargs=-1, type=click.Path(path_type=Path))
    @together
    def command(checkpoints: tuple[Path, ...], **given: Any) -> None:
        _analyze(name, checkpoints, given)

    decorators = [
        *_view_options(analysis.views),
        *_settings_options(analysis.settings),
        *READERS[analysis.readers],
        model_option,
        card_options,
    ]
    examples = MORE_EXAMPLES.get(name, ("checkpoints/NAME.safetensors --split train",))
    example = with_examples("\n  ".join([command_line, *(f"{command_line} {arguments}" for arguments in examples)]))
    return click.command(command_line.rsplit(maxsplit=1)[-1], help=analyses.about(name), epilog=example)(
        options(*decorators, run_options)(command)
    )


def say(sentence: str) -> None:
    """Tell how it goes on stderr, where it does not get into a table."""
    click.echo(sentence, err=True)


def _brought(card: dict[str, Any]) -> list[Any]:
    """What --model names together with the options beside it: one model, or none where it was not given."""
    from interpret_robust.models import card as cards

    model, fields_of_card = card["model"], {field: value for field, value in card.items() if field != "model"}
    if model is not None:
        return [cards.reference(model, **fields_of_card)]
    if any(fields_of_card.values()):
        raise UserError("--weights, --normalize and the like say more of a --model: name one.")
    return []


def _analyze(name: str, checkpoints: tuple[Path, ...], arguments: dict[str, Any]) -> None:
    """Run one analysis on checkpoints, all that it applies to by default, and print its table."""
    from interpret_robust import analyses
    from interpret_robust.analyses.engine import printing
    from interpret_robust.core import ranks
    from interpret_robust.core.folders import Folders
    from interpret_robust.study.tasks import analysis_tasks, applicable, checkpoints_in, do_all, doubts

    analysis = analyses.get(name)
    folders = Folders(arguments.pop("root"))
    task_options = {
        key: arguments.pop(key) for key in ("split", "limit", "batch_size", "recalibrate", "overwrite", "device")
    }
    task_options["source"] = arguments.pop("dataset")
    task_options["evaluators"] = tuple(dict.fromkeys(arguments.pop("evaluators", ())))
    task_options["matrix"] = arguments.pop("matrix", False)
    form = arguments.pop("form")
    views = [view for view in analysis.views if arguments.pop(view)]
    card = {field: arguments.pop(field) for field in ("model", *CARD_FIELDS)}
    settings = analysis.settings(**arguments)
    subjects = [*dict.fromkeys(checkpoints), *_brought(card)]
    if not subjects:
        subjects = applicable(name, checkpoints_in(folders), task_options, say)
    tasks = analysis_tasks(name, subjects, folders, settings, **task_options)
    for doubt in doubts(tasks):
        say(doubt)
    do_all(tasks, task_options["device"], say)
    if ranks.index() > 0:
        return
    click.echo(printing.text_of([task.work().path for task in tasks], views, form))


@irt.group()
def checkpoints() -> None:
    """Look at the models that are here."""


@checkpoints.command("list", epilog=with_examples("irt checkpoints list\n  irt checkpoints list --form markdown"))
@form_option
@root_option
def checkpoints_list(form: str, root: Path) -> None:
    """The checkpoints in checkpoints/, checked, with their accuracies as far as analyses/ holds them."""
    from interpret_robust.cli import listing
    from interpret_robust.core.folders import Folders

    click.echo(render(listing.rows(Folders(root)), form))


@irt.group()
def model() -> None:
    """Look at a model from elsewhere, and declare it once."""


declared_model = options(
    click.option("--model", required=True, metavar="MODEL", help=f"{MODEL[0].upper()}{MODEL[1:]}."),
    card_options,
    click.option("--dataset", required=True, help="Name (irt data list) or .npz path: which images it is for."),
)


@model.command(
    "layers",
    epilog=with_examples(
        "irt model layers --model torchvision:resnet18 --weights random --dataset cifar10\n"
        "  irt model layers --model my_networks:Net --dataset my-images.npz --all"
    ),
)
@declared_model
@click.option("--all", "everything", is_flag=True, help="Also layers that cannot give local features.")
def model_layers(model: str, dataset: str, everything: bool, **card: Any) -> None:
    """List the layers of a model whose output can serve as local features, and which one is taken by default."""
    from interpret_robust.models import card as cards
    from interpret_robust.models import external

    reference = cards.reference(model, **card)
    click.echo(render(external.layer_rows(reference, dataset, everything=everything)))


@model.command(
    "card",
    epilog=with_examples(
        "irt model card --model timm:resnet50.a1_in1k --dataset my-images.npz -o resnet50.json\n"
        "  irt analyze attention-rank --model resnet50.json --dataset my-images.npz"
    ),
)
@declared_model
@device_option
@overwrite_option
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The card, .json.")
def model_card(model: str, dataset: str, device: str, overwrite: bool, output: Path, **card: Any) -> None:
    """Try a model out on a few images, and write down how it is to be read: a card, which --model then takes."""
    from interpret_robust.core.device import resolve
    from interpret_robust.datasets import load
    from interpret_robust.models import card as cards
    from interpret_robust.models import external, trial

    if output.suffix != ".json":
        raise UserError(f"{output}: a card's name ends in .json.")
    subject = external.subject(cards.reference(model, **card), dataset)
    if not isinstance(subject, external.Brought):
        raise UserError(f"{model} is a checkpoint of `irt train`, which needs no card.")
    outcome = trial.try_out(subject, load(dataset), resolve(device))
    subject.card.write(output, overwrite=overwrite)
    if outcome.doubt:
        say(outcome.doubt)
    click.echo(f"{output}: right on {outcome.accuracy:.0%} of the first {outcome.images} test images of {dataset}")


@irt.command(epilog=with_examples("irt figure all\n  irt figure robustness analyses/robustness-*.h5"))
@click.argument("name")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@root_option
def figure(name: str, files: tuple[Path, ...], root: Path) -> None:
    """Draw figure NAME, or all, from analysis FILES; models are not needed.

    Without FILES, all of that name are drawn: a picture for each set that shares images and settings.
    """
    from interpret_robust import figures
    from interpret_robust.core.folders import Folders
    from interpret_robust.figures import drawing

    folders = Folders(root)
    name = current(name)
    if name != "all" and name not in figures.names():
        raise unknown("figure", name, [*figures.names(), "all"])
    if name == "all" and files:
        raise UserError("irt figure all draws every analysis in its folder: give no files.")
    if files:
        pictures = [drawing.draw(name, files, folders.figures, click.echo)]
    else:
        pictures = drawing.draw_folder(figures.names() if name == "all" else [name], folders, click.echo)
    click.echo("\n".join(map(str, pictures)))


@irt.command(epilog=with_examples("irt report\n  irt report --root study -o study.html"))
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="The page. [default: report.html in root]"
)
@root_option
def report(output: Path | None, root: Path) -> None:
    """Make one HTML page of all analyses: claims with verdicts, tables, pictures, a gallery, provenance.

    It holds everything it shows: it opens anywhere, without a network.
    """
    from interpret_robust.core.folders import Folders
    from interpret_robust.study import report as reports

    folders = Folders(root)
    click.echo(reports.write(folders, output or folders.report, click.echo))


@irt.command(epilog=with_examples("irt audit\n  irt audit analyses/robustness-*-test.h5 --form markdown"))
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@form_option
@root_option
def audit(files: tuple[Path, ...], form: str, root: Path) -> None:
    """Judge each claim of the paper by FILES of analyses, by default all there are, over all their training seeds.

    A claim holds, does not hold, or the files cannot tell; beside it stand the paper's figures, what was measured with
    its interval, and the controls. docs/choices.md says how verdicts are reached.
    """
    from interpret_robust import analyses
    from interpret_robust.core.folders import Folders
    from interpret_robust.study import audit as audits

    folder = Folders(root).analyses
    paths = dict.fromkeys(files or sorted(folder.glob("*.h5")))
    if not paths:
        raise UserError(f"there are no analyses in {folder}: `irt reproduce audit` makes all that the claims need.")
    click.echo(audits.text_of([analyses.read(path) for path in paths], form))


@irt.command(epilog=with_examples("irt flags\n  irt flags analyses/masking-*-seed0-test.h5"))
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@form_option
@root_option
def flags(files: tuple[Path, ...], form: str, root: Path) -> None:
    """Look for signs that models hide their gradients, in FILES of robustness and masking, by default all there are.

    docs/flags.md says of each flag what it measures, what it can mean, and what to do next.
    """
    from interpret_robust.core.folders import Folders
    from interpret_robust.study import flags as rules

    folder = Folders(root).analyses
    paths = files or [path for name in rules.READS for path in sorted(folder.glob(f"{name}-*.h5"))]
    if not paths:
        raise UserError(
            f"there are no files of {' or '.join(rules.READS)} in {folder}: `irt analyze masking` makes some."
        )
    results = [rules.read(path) for path in paths]
    if form in ("csv", "json"):
        click.echo(render(rules.numbers(results), form))
        return
    rows = rules.numbers(results)
    if not rows:
        click.echo("nothing was looked at: these files bear on no flag")
        return
    sentences = [
        f"{row['model']}: {row['flag']}: {float(row['value']):.1f} % {row['which']}"
        for row in rows
        if row["raised"] == "yes"
    ]
    click.echo(captioned(rules.summary(results), form))
    click.echo("\n".join(sentences) or "none raised")


@irt.command(epilog=with_examples("irt show analyses/attention-rank-cluttered-digits-small-at-att-seed0-test.h5"))
@click.argument("file", type=click.Path(path_type=Path))
def show(file: Path) -> None:
    """What a checkpoint or an analysis file holds and where it comes from, checked against its checksum."""
    from interpret_robust.cli import description

    click.echo(description.describe(file))


@irt.command(epilog=with_examples("irt validate analyses/*.h5"))
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
def validate(files: tuple[Path, ...]) -> None:
    """Check that analysis FILES are whole and hold what their analysis says they hold, dataset by dataset."""
    from interpret_robust.analyses.engine import validation
    from interpret_robust.results import hdf5

    bad = False
    for path in files:
        problems = validation.problems(path)
        bad |= bool(problems)
        for problem in problems:
            click.echo(f"irt: {problem}", err=True)
        if not problems:
            attributes = hdf5.attributes(path)
            click.echo(f"{path}: {attributes['schema']}, {attributes['n_done']} images, good")
    if bad:
        sys.exit(EXIT_USER_ERROR)


@irt.command(
    epilog=with_examples(
        "irt verify theirs.npy checkpoints/NAME.safetensors\n"
        "  irt verify theirs.h5 checkpoints/NAME.safetensors --key adversarial --eps 8/255"
    )
)
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--eps", type=NUMBER, help="Radius, such as 8/255. [default: that of training]")
@click.option("--key", help="The HDF5 dataset of images, where there are several.")
@click.option("--dataset", help="Name or .npz path. [default: that of training]")
@click.option("--split", type=click.Choice(["train", "test"]), default="test", show_default=True)
@device_option
def verify(
    file: Path, checkpoint: Path, eps: float | None, key: str | None, dataset: str | None, split: str, device: str
) -> None:
    """Check adversarial images of anyone's, an HDF5 or .npy FILE, and how accurate CHECKPOINT is on them.

    They are uint8, or floats in [0, 1]; (N, C, H, W) or (N, H, W, C); the first N of the split in its order, or in
    HDF5 those of an integer dataset `index` beside them.
    """
    from interpret_robust.attacks import verify as verification
    from interpret_robust.core.device import resolve
    from interpret_robust.datasets import load
    from interpret_robust.models import checkpoint as checkpoints
    from interpret_robust.results.tables import render

    stored = checkpoints.read(checkpoint)
    data = load(dataset or stored.about["source"])
    good = verification.verify(file, stored, data, split, eps=eps, key=key, device=resolve(device))
    click.echo(render([{"model": checkpoint.stem, **good.cells()}]))
    click.echo(f"{file}: sha256 {good.sha256}, good against the {split} split of {data.name}")


@irt.command(epilog=with_examples("irt export analyses/robustness-*-seed0-test.h5 --csv -o tables"))
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--csv", "form", flag_value="csv", default="csv", help="Comma-separated values: the only form so far.")
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), help="Folder. [default: the file's]")
@overwrite_option
def export(files: tuple[Path, ...], form: str, output: Path | None, overwrite: bool) -> None:  # noqa: ARG001
    """Write the images and the statistics of analysis FILES as tables."""
    from interpret_robust.results.export import to_csv

    for path in files:
        paths = to_csv(path, output or path.parent, overwrite=overwrite)
        click.echo(f"{paths.images}\n{paths.statistics}")
        if paths.left_out:
            click.echo(f"left out, being pictures: {', '.join(paths.left_out)} (read them with h5py or xarray)")


study_options = options(
    click.argument("name"),
    click.option(
        "--scale",
        type=click.Choice(["quick", "paper"]),
        default="quick",
        show_default=True,
        help="Small networks and data for a laptop, or the paper's own for a GPU.",
    ),
    click.option("--seeds", type=COUNT, help="Training seeds. [default: 3; of quick and of figures 1, of cifar10 2]"),
    click.option("--arch", help="Another architecture than that of the scale, such as narrow."),
)


@irt.command(epilog=with_examples("irt plan quick\n  irt plan audit --seeds 5 --form csv"))
@study_options
@form_option
@root_option
def plan(name: str, scale: str, seeds: int | None, arch: str | None, form: str, root: Path) -> None:
    """List the files of study NAME, what each of them needs, and whether it is there.

    An engine that runs workflows can make each by itself: irt reproduce NAME --only FILE. workflow/ has one.
    """
    from interpret_robust.datasets.catalogue import must_be_fetched
    from interpret_robust.study import plan as study

    planned = study.study(name, scale, seeds, arch)
    if must_be_fetched(planned.dataset):
        raise UserError(
            f"the images of {planned.dataset} are not here, and decide the names of files: "
            f"`irt data get {planned.dataset}` fetches them."
        )
    rows = [
        {
            "file": str(step.file),
            "here": "yes" if (root / step.file).exists() else "no",
            "needs": " ".join(need.stem for need in step.needs) if form == "csv" else _count(step.needs),
        }
        for step in study.plan(planned)
    ]
    click.echo(render(rows, form))


def _count(needs: Sequence[Path]) -> str:
    """The one that is needed, or how many."""
    return needs[0].stem if len(needs) == 1 else f"{len(needs)} models" if needs else ""


@irt.command(epilog=with_examples(EXAMPLES["reproduce"]))
@study_options
@click.option("--time-limit", type=DURATION, help="Save everything and stop after this long (90s, 5m, 2h).")
@click.option("--only", multiple=True, metavar="FILE", help="Make only this file of it (irt plan); repeat for more.")
@form_option
@device_option
@overwrite_option
@root_option
@together
def reproduce(
    name: str,
    scale: str,
    seeds: int | None,
    arch: str | None,
    time_limit: float | None,
    only: tuple[str, ...],
    form: str,
    device: str,
    overwrite: bool,
    root: Path,
) -> None:
    """Do all of NAME: quick, cifar10, table1 to table6, section4.3, figure2 to figure4, or audit.

    quick is the whole embedded study of one training seed, cifar10 the reference study on CIFAR-10, the next are parts
    of the paper, audit is every claim of the paper over several seeds. Models are trained, analyzed and drawn; what is
    there already is not done again, so that a study that was stopped goes on, also on another machine.
    """
    from interpret_robust import analyses
    from interpret_robust.analyses.engine import printing
    from interpret_robust.core import ranks
    from interpret_robust.core.folders import Folders
    from interpret_robust.figures import drawing
    from interpret_robust.study import audit
    from interpret_robust.study import plan as study
    from interpret_robust.study import report as reports

    folders, say = Folders(root), partial(click.echo, err=True)
    tell = partial(click.echo, err=form != "text")
    deadline = _deadline(time_limit)
    names = {Path(file).name for file in only} or None
    plan_of_study = study.study(name, scale, seeds, arch)
    answers = study.reproduce(plan_of_study, folders, device, say, deadline, overwrite=overwrite, only=names)
    if ranks.index() > 0 or only:
        return
    for question, files in answers:
        tell(f"\n{question.analysis}, {question.images}")
        click.echo(printing.text_of(files, form=form))
        drawing.draw_all(question.analysis, files, folders.figures, say)
    if name in study.REPORTED:
        tell("\nclaims of the paper")
        for subject_audit in audit.audits([analyses.read(path) for _, files in answers for path in files]):
            click.echo(captioned(audit.verdicts(subject_audit), form))
        tell(f"\nall of it on one page: {reports.write(folders, folders.report, say)}")
    tell(f"models in {folders.checkpoints}, answers in {folders.analyses}, pictures in {folders.figures}")


def main() -> NoReturn:
    """Run `irt`; a mistake of the user's ends in one sentence on stderr and exit status 2."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        code = irt.main(arguments, prog_name="irt", standalone_mode=False)
    except Exception as error:
        if debug:
            raise
        sentence, code = _explain(error)
        if sentence is None:
            raise
        if not (isinstance(error, UserError) and _is_later("LOCAL_RANK")):
            # What one process of a node finds wrong, all of them do.
            click.echo(f"irt: {sentence}", err=True)
    sys.exit(code or 0)


def _explain(error: Exception) -> tuple[str | None, int]:
    """The sentence and the exit status for an error; no sentence for one that is a fault of ours."""
    from concurrent.futures.process import BrokenProcessPool

    from interpret_robust.core.interruption import Stopped

    remedy = "the same command goes on from there."
    sentence, code = None, EXIT_USER_ERROR
    match error:
        case Stopped():
            sentence, code = f"{error}; everything is saved, {remedy}", EXIT_STOPPED
        case click.Abort():
            sentence, code = f"interrupted; what is finished is kept, {remedy}", EXIT_INTERRUPTED
        case click.exceptions.NoArgsIsHelpError():
            sentence = f"a command is missing.\n\n{error.format_message()}"
        case click.ClickException():
            sentence = " ".join(error.format_message().split())
        case UserError():
            sentence = str(error)
        case BrokenProcessPool():
            sentence = f"a worker process was killed, perhaps for lack of memory; what is finished is kept, {remedy}"
        case OSError():
            location = f"{error.filename}: " if error.filename else ""
            reason = error.strerror or str(error).split("\n")[0]
            sentence = f"{location}{reason}; nothing that was finished is lost."
    return sentence, code


if __name__ == "__main__":
    main()
