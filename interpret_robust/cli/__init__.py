"""The command `irt`: options in, one call, a table out. Torch is imported only inside commands.

`groups` lists the commands and where each is; `options` holds what they share; each other module is a group of
commands, imported when one of them is typed. `irt analyze NAME` computes what `analyses/NAME.py` says; `irt evaluate`
is `irt analyze robustness` under a name of its own.
"""

import os
import sys
from typing import NoReturn

import click

from interpret_robust.cli.groups import SHORTCUTS, ShortcutGroup
from interpret_robust.core import freed_memory, openmp
from interpret_robust.core.errors import EXIT_INTERRUPTED, EXIT_STOPPED, EXIT_USER_ERROR, UserError, escape_line_breaks

EXAMPLES = (
    "\b\nExamples:\n"
    "  irt reproduce quick\n"
    "  irt train at-att --dataset cifar10 --arch narrow --recipe paper\n"
    "  irt analyze attention-rank"
)
ON_ALL_RANKS = ("train", "analyze", "reproduce", *SHORTCUTS)
"""The commands that all processes that torchrun started run together."""


@click.group(cls=ShortcutGroup, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXAMPLES)
@click.option("--debug", is_flag=True, help="Show the traceback of an error; works anywhere on the line.")
@click.version_option(package_name="interpret-robust", message="%(prog)s %(version)s")
@click.pass_context
def irt(context: click.Context, debug: bool) -> None:  # noqa: ARG001
    """Train adversarially robust image classifiers and ask what they look at, and why.

    \b
    irt train    ->  checkpoints/   a model, and how it was made
    irt analyze  ->  analyses/      an answer, with its data and settings
    irt figure   ->  figures/       a picture of the answer
    """
    if _is_later("RANK") and context.invoked_subcommand not in ON_ALL_RANKS:
        context.exit()


def _is_later(rank: str) -> bool:
    """Return whether torchrun started this process and others before it, by RANK of all or LOCAL_RANK of this
    machine.
    """
    return os.environ.get("WORLD_SIZE", "1") != "1" and os.environ.get(rank, "0") != "0"


def main() -> NoReturn:
    """Run `irt`; a mistake of the user's ends in one sentence on stderr and exit status 2."""
    freed_memory.keep_freed()
    freed_memory.collect_seldom()
    if openmp.is_machine_busy():
        openmp.wait_asleep()
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


def _is_interruption(error: BaseException | None) -> bool:
    """Return whether Ctrl-C is behind an error: Python or a library may have made another one of it."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _recipe_field(error: click.NoSuchOption) -> str | None:
    """Return the field of a recipe that an unknown option of `irt train` is called like, or None."""
    if error.ctx is None or error.ctx.command.name != "train":
        return None
    from interpret_robust.training.recipe import list_meanings

    name = error.option_name.lstrip("-").replace("-", "_")
    return name if name in list_meanings() else None


def _explain(error: Exception) -> tuple[str | None, int]:
    """Return the sentence and the exit status for an error; no sentence for one that is a fault of ours."""
    from concurrent.futures.process import BrokenProcessPool

    from interpret_robust.core.interruption import Stopped

    remedy = "the same command continues from there."
    sentence, code = None, EXIT_USER_ERROR
    match error:
        case Stopped():
            sentence, code = f"{error}; everything is saved, {remedy}", EXIT_STOPPED
        case _ if isinstance(error, click.Abort) or _is_interruption(error):
            sentence, code = f"interrupted; what is finished is kept, {remedy}", EXIT_INTERRUPTED
        case click.exceptions.NoArgsIsHelpError():
            sentence = f"a command is missing.\n\n{error.format_message()}"
        case click.NoSuchOption() if field := _recipe_field(error):
            sentence = f"No such option '{error.option_name}': give --set {field}=VALUE, a field of the recipe."
        case click.ClickException():
            sentence = " ".join(error.format_message().split())
        case UserError():
            sentence = escape_line_breaks(str(error))
        case BrokenProcessPool():
            sentence = f"a worker process was killed, perhaps for lack of memory; what is finished is kept, {remedy}"
        case OSError():
            location = f"{error.filename}: " if error.filename else ""
            reason = error.strerror or str(error).split("\n")[0]
            sentence = f"{location}{reason}; no finished work is lost."
    return sentence, code
