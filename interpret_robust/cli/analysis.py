"""`irt analyze NAME`: a question asked of models.

`irt evaluate` is `irt analyze robustness` under a shorter name: what it does is in `analyses/robustness.py`.
"""

import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click

from interpret_robust import analyses
from interpret_robust.analyses.engine.options import Setting, read_options
from interpret_robust.cli.options import (
    CARD_FIELDS,
    MODEL_FILE,
    NUMBER,
    Command,
    add_examples,
    card_options,
    make_root,
    model_option,
    open_root,
    options,
    references,
    run_on_all_ranks,
    run_options,
    say,
    warn,
)
from interpret_robust.core.errors import unknown
from interpret_robust.core.folders import Folders
from interpret_robust.core.spelling import translate_name


class AnalyzeGroup(click.Group):
    """A command for each module in analyses/, with an option for each field of its settings."""

    def list_commands(self, context: click.Context) -> list[str]:  # noqa: ARG002
        """Return the analyses there are."""
        return analyses.list_names()

    def get_command(self, context: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        """Return the command of one analysis."""
        name = translate_name(name)
        if name not in analyses.list_names():
            raise unknown("analysis", name, analyses.list_names())
        return analysis_command(name, f"irt analyze {name}")

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of the help without importing any analysis."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, analyses.about(name)) for name in analyses.list_names()])


@click.group(cls=AnalyzeGroup)
def analyze() -> None:
    """Ask a question about trained models; answers are written to analyses/."""


SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Images": ("dataset", "size", "skip_damaged", "classes", "split", "limit", "recalibrate"),
    "Other models": ("evaluators", "matrix"),
    "A model from elsewhere": ("model", *CARD_FIELDS),
    "Output and machine": ("form", "root", "overwrite", "batch_size", "device", "help"),
}
"""The options that all analyses take, by the sections of the help; the others are of the question itself."""

QUESTION = "Question"


class AnalysisCommand(click.Command):
    """A command whose help lists its many options in sections."""

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options section by section, those of the question first."""
        section_of = {name: title for title, names in SECTIONS.items() for name in names}
        sections: dict[str, list[tuple[str, str]]] = {title: [] for title in (QUESTION, *SECTIONS)}
        for parameter in self.get_params(context):
            record = parameter.get_help_record(context)
            if record and isinstance(parameter, click.Option):
                name = "help" if "--help" in parameter.opts else parameter.name
                sections[section_of.get(name or "", QUESTION)].append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def _setting_option(setting: Setting) -> Callable[[Command], Command]:
    kinds: Mapping[str, Any] = {"int": click.INT, "number": NUMBER, "text": click.STRING, "flag": click.BOOL}
    is_flag = setting.kind == "flag"
    return click.option(
        "--" + setting.name.replace("_", "-"),
        setting.name,
        type=kinds.get(setting.kind) or click.Choice(setting.choices),
        is_flag=is_flag,
        default=setting.default,
        show_default=not is_flag and setting.default is not None,
        help=setting.help,
    )


def _view_option(view: str) -> Callable[[Command], Command]:
    """Return the flag of a part of the answer that the table can be limited to."""
    return click.option(f"--{view}", is_flag=True, help=f"Print only the {view} columns.")


def _evaluator_option(subject: str, default: str) -> Callable[[Command], Command]:
    return click.option(
        "--evaluator",
        "evaluators",
        multiple=True,
        type=MODEL_FILE,
        metavar="PATH",
        help=f"Checkpoint or card that classifies the {subject}; repeat for more. [default: {default}]",
    )


READERS: Mapping[str, tuple[Callable[[Command], Command], ...]] = {
    "none": (),
    "evaluators": (_evaluator_option("maps", "two natural seeds, another architecture, one of at"),),
    "copies": (
        _evaluator_option("adversarial images", "the model itself and its other seeds"),
        click.option("--matrix", is_flag=True, help="Every other model of the dataset classifies them."),
    ),
}
"""The options that say who reads what a model gives."""

MORE_EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "robustness": (
        "--pgd 20 --cw none   only PGD-20, which is faster",
        "--matrix             every model attacks every other",
        "--restarts 5 --limit 200",
    ),
    "masking": ("--limit 200 --queries 5000",),
    "autoattack": ("NAME --limit 200 --batch-size 50",),
}


def analysis_command(name: str, command_line: str) -> click.Command:
    """Return the command of one analysis, with an option for each of its settings; it is typed as `command_line`.

    Raises UserError for an analysis of an installed package that cannot be loaded.
    """
    entry = read_options(name)

    @click.argument("checkpoints", nargs=-1, type=MODEL_FILE)
    def command(checkpoints: tuple[Path, ...], root: Path, **arguments: Any) -> None:
        card = {field: arguments.pop(field) for field in ("model", *CARD_FIELDS)}
        subjects = [*dict.fromkeys(checkpoints), *references(card)]
        folders = make_root(root) if subjects else open_root(root)
        candidates = [] if subjects else folders.all_models()
        _analyze(name, subjects, candidates, folders, arguments)  # only here is torch loaded

    decorators = [
        *map(_view_option, entry.views),
        *map(_setting_option, entry.settings),
        *READERS[entry.readers],
        model_option,
        card_options,
    ]
    examples = MORE_EXAMPLES.get(name, ("checkpoints/NAME.safetensors --split train",))
    example = add_examples("\n  ".join([command_line, *(f"{command_line} {arguments}" for arguments in examples)]))
    whole_name = f"irt analyze {name}"
    note = "\n\nWithout CHECKPOINTS, all models in checkpoints/ that it applies to are asked."
    note += "" if command_line == whole_name else f"\n\nThis is `{whole_name}` under a shorter name."
    return click.command(
        command_line.rsplit(maxsplit=1)[-1], cls=AnalysisCommand, help=analyses.about(name) + note, epilog=example
    )(options(*decorators, run_options)(command))


@run_on_all_ranks
def _analyze(
    name: str, subjects: list[Any], candidates: list[Path], folders: Folders, arguments: dict[str, Any]
) -> None:
    """Run one analysis on its subjects, or on those candidates that it applies to, and print its table."""
    from interpret_robust.analyses.engine import printing
    from interpret_robust.core import ranks
    from interpret_robust.study.tasks import choose_applicable, do_all, list_doubts, make_tasks, say_extent

    analysis = analyses.get(name)
    task_options = {
        key: arguments.pop(key) for key in ("split", "limit", "batch_size", "recalibrate", "overwrite", "device")
    }
    task_options["source"] = arguments.pop("dataset")
    task_options["evaluators"] = tuple(dict.fromkeys(arguments.pop("evaluators", ())))
    task_options["matrix"] = arguments.pop("matrix", False)
    form = arguments.pop("form")
    views = [view for view in analysis.views if arguments.pop(view)]
    settings = analysis.settings(**arguments)
    with redirect_stdout(sys.stderr):  # what a network prints must not get into a table
        if candidates:
            subjects = choose_applicable(name, candidates, task_options, say)
        tasks = make_tasks(name, subjects, folders, settings, **task_options)
        for doubt in list_doubts(tasks):
            warn(doubt)
        if candidates:
            say_extent(tasks, say)
        do_all(tasks, task_options["device"], say)
    if ranks.find_rank() > 0:
        return
    click.echo(printing.render_answers([task.work().path for task in tasks], views, form))
