"""What the help of an analysis knows without importing it."""

import subprocess
import sys
from collections.abc import Iterator

import click
import make_options
import pytest
from click.testing import CliRunner

from interpret_robust import analyses, cli
from interpret_robust.analyses.engine.options import FILE, describe, read_options
from interpret_robust.cli.analysis import SECTIONS, analysis_command
from interpret_robust.cli.groups import COMMANDS, SHORTCUTS


def test_the_file_holds_what_the_analyses_take() -> None:
    assert FILE.read_text(encoding="utf-8") == make_options.text(), "run: python tests/make_options.py"
    for name in analyses.own_names():
        assert read_options(name) == describe(analyses.get(name))


def test_each_option_of_an_analysis_stands_in_one_section_of_its_help() -> None:
    text = CliRunner().invoke(cli.irt, ["evaluate", "--help"]).output
    titles = ["Question:", *(f"{title}:" for title in SECTIONS)]
    places = [text.index(title) for title in titles]
    assert places == sorted(places)
    command = analysis_command("robustness", "irt evaluate")
    options = [option.opts[-1] for option in command.params if option.opts[-1].startswith("--")]
    assert sorted(options) == sorted(word for word in set(options) if f"\n  {word} " in text or f", {word} " in text)
    assert text.index("--device") > text.index("Output and machine:") > text.index("--weights")
    assert text.index("Question:") < text.index("--pgd") < text.index("Images:")


@pytest.mark.parametrize("words", [["evaluate"], ["gradmap-score"], ["analyze", "attention-rank"], ["train"]])
def test_help_is_the_same_whether_or_not_torch_is_there(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    text = CliRunner().invoke(cli.irt, [*words, "--help"]).output
    for name in list(sys.modules):
        if name.partition(".")[0] == "torch":
            monkeypatch.setitem(sys.modules, name, None)
    assert CliRunner().invoke(cli.irt, [*words, "--help"]).output == text


def parameters(command: click.Command) -> Iterator[click.Parameter]:
    """The options and arguments of a command, and of all below it."""
    yield from command.params
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from parameters(inner)


def test_no_option_takes_nan_for_a_number() -> None:
    """Click's own numbers and ranges do; where an option has a function for its text, this looks at the number."""
    kinds = {parameter.name: parameter.type for parameter in parameters(cli.irt)}
    assert kinds["width"].name == "width from 3 to 40 inches" and kinds["eps"].name == "number"
    assert [name for name, kind in kinds.items() if isinstance(kind, type(click.FLOAT))] == []


def test_the_list_of_commands_says_what_each_command_says_of_itself() -> None:
    context = click.Context(cli.irt)
    for section in COMMANDS.values():
        for name, (module, sentence) in section.items():
            command = cli.irt.get_command(context, name)
            assert command is not None and command.name == name and command.callback is not None
            assert command.callback.__module__ == f"interpret_robust.cli.{module}"
            expected = analyses.about(SHORTCUTS[name]) if name in SHORTCUTS else command.get_short_help_str(limit=500)
            assert sentence == expected


PROGRAM = """
import sys
from interpret_robust import cli
cli.irt(["--help"], standalone_mode=False)
print(sorted(name for name in sys.modules if name.startswith("interpret_robust")), file=sys.stderr)
"""


def test_help_of_irt_imports_no_command() -> None:
    process = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    names = ["", ".cli", ".cli.groups", ".core", ".core.errors", ".core.freed_memory", ".core.openmp", ".core.parsing"]
    assert process.stderr.strip() == str([f"interpret_robust{name}" for name in names])
    assert "Whole studies:" in process.stdout and "Traceback" not in process.stdout
