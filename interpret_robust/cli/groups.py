"""The group `irt`: its commands in sections, and the analyses that are commands of their own."""

from collections.abc import Mapping, Sequence

import click

from interpret_robust import analyses
from interpret_robust.cli.analysis import analysis_command
from interpret_robust.core.errors import unknown

SHORTCUTS = {"evaluate": "robustness", "gradmap-score": "gradmap-score"}
"""Commands that are analyses under a name of their own."""

COMMANDS: Mapping[str, Sequence[str]] = {
    "Whole studies": ("reproduce", "plan", "audit", "flags", "report"),
    "One step at a time": ("train", "recipes", "analyze", "evaluate", "gradmap-score", "figure", "explore", "explain"),
    "Models and data": ("data", "model", "checkpoints", "verify"),
    "Files": ("show", "validate", "export"),
}
"""The commands as the help lists them."""


class ShortcutGroup(click.Group):
    """The commands of this package, and the analyses that are called directly."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Return all of them, in the order of the alphabet."""
        return sorted([*super().list_commands(context), *SHORTCUTS])

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Return a command; that of an analysis is made when it is asked for."""
        if name in SHORTCUTS:
            return analysis_command(SHORTCUTS[name], f"irt {name}")
        return super().get_command(context, name)

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is typed. Raises UserError, with the nearest one, for a name that is none."""
        if args and not args[0].startswith("-") and self.get_command(context, args[0]) is None:
            raise unknown("command", args[0], self.list_commands(context))
        return super().resolve_command(context, args)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the commands in sections, each with its whole first sentence, without importing any analysis."""
        for title, names in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self._sentence(name)) for name in names])

    def _sentence(self, name: str) -> str:
        if name in SHORTCUTS:
            return analyses.about(SHORTCUTS[name])
        return self.commands[name].get_short_help_str(limit=500)
