"""The group `irt`: its commands in sections, and the analyses that are commands of their own."""

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import cast

import click

from interpret_robust.core.errors import unknown

SHORTCUTS = {"evaluate": "robustness", "gradmap-score": "gradmap-score"}
"""Commands that are analyses under a name of their own."""

COMMANDS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "Whole studies": {
        "reproduce": (
            "study",
            "Run the study NAME: quick, cifar10, table1 to table6, section4.3, figure2 to figure4, or audit.",
        ),
        "plan": ("study", "List the files of study NAME, what each of them needs, and whether it is there."),
        "audit": (
            "study",
            "Judge each claim of the paper from analysis FILES (default: all) over all their training seeds.",
        ),
        "flags": (
            "study",
            "Look for signs that models hide their gradients, in FILES of robustness and masking (default: all).",
        ),
        "report": (
            "pictures",
            "Make one HTML page of all analyses, with verdicts on claims, tables, pictures, a gallery and provenance.",
        ),
    },
    "One step at a time": {
        "train": ("training", "Train VARIANTS, the models that the paper compares."),
        "recipes": (
            "training",
            "List RECIPES of training (default: all): the fields, their values, and what they mean.",
        ),
        "analyze": ("analysis", "Ask a question about trained models; answers are written to analyses/."),
        "evaluate": (
            "analysis",
            "How accurate is a model on natural images and under attack, white-box and transferred? "
            "(Tables 1 to 3, 5 and 6)",
        ),
        "gradmap-score": (
            "analysis",
            "Can a classifier that never saw gradients read the class from a gradient map? (Table 4, with controls)",
        ),
        "figure": ("pictures", "Draw figure NAME, or all, from analysis FILES; models are not needed."),
        "explore": ("explore", "Compare models on one image, on a page in the browser, while the attack on it grows."),
        "explain": (
            "explain",
            "Draw what a model predicts for a picture and which pixels matter, with and without an attack.",
        ),
    },
    "Models and data": {
        "data": ("data", "List, download and look at datasets."),
        "model": ("models", "Look at a model from elsewhere, and store how to use it."),
        "checkpoints": ("models", "Look at the trained models; `irt checkpoints` alone lists them."),
        "verify": (
            "files",
            "Check adversarial images from any program, and measure the accuracy of CHECKPOINT or --model on them.",
        ),
    },
    "Files": {
        "show": (
            "files",
            "Show what a checkpoint or an analysis file holds and how it was made, and verify its checksum.",
        ),
        "validate": ("files", "Check that analysis FILES are complete and that every dataset is as their schema says."),
        "export": ("files", "Write the numbers of each image and the statistics of analysis FILES as tables."),
    },
}
"""The commands as the help lists them, each with its module in `cli` and the first sentence of its own help.

A module is imported when its command is typed, so that `irt --help` is there at once.
"""

LONGEST_SENTENCE = 1000
"""Characters of a first sentence that help shows: all."""

_COMMANDS = {name: entry for section in COMMANDS.values() for name, entry in section.items()}


class SentenceGroup(click.Group):
    """A group whose help lists each command with its whole first sentence, where click cuts it to one line."""

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of the help."""
        sentences = [
            (name, command.get_short_help_str(limit=LONGEST_SENTENCE))
            for name in self.list_commands(context)
            if (command := self.get_command(context, name)) and not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(sentences)


class ShortcutGroup(click.Group):
    """The commands of this package, and the analyses that are called directly."""

    def list_commands(self, context: click.Context) -> list[str]:  # noqa: ARG002
        """Return all of them, in the order of the alphabet."""
        return sorted(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        """Return a command, whose module is imported now; that of an analysis is made now."""
        if name not in _COMMANDS:
            return None
        module = _module(_COMMANDS[name][0])
        if name in SHORTCUTS:
            return cast(click.Command, module.analysis_command(SHORTCUTS[name], f"irt {name}"))
        return cast(click.Command, getattr(module, name))

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is typed. Raises UserError, with the nearest one, for a name that is none."""
        if args and not args[0].startswith("-") and args[0] not in _COMMANDS:
            raise unknown("command", args[0], self.list_commands(context))
        return super().resolve_command(context, args)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the commands in sections, each with its whole first sentence, without importing any of them."""
        for title, section in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name, sentence) for name, (_, sentence) in section.items()])


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{__package__}.{name}")
