"""What the help of an analysis knows without importing it."""

import sys

import make_options
import pytest
from click.testing import CliRunner

from interpret_robust import analyses, cli
from interpret_robust.analyses.engine.options import FILE, describe, options_of


def test_the_file_holds_what_the_analyses_take() -> None:
    assert FILE.read_text(encoding="utf-8") == make_options.text(), "run: python tests/make_options.py"
    for name in analyses.own_names():
        assert options_of(name) == describe(analyses.get(name))


def test_each_option_of_an_analysis_stands_in_one_section_of_its_help() -> None:
    text = CliRunner().invoke(cli.irt, ["evaluate", "--help"]).output
    titles = ["Question:", *(f"{title}:" for title in cli.analysis.SECTIONS)]
    places = [text.index(title) for title in titles]
    assert places == sorted(places)
    command = cli.analysis.analysis_command("robustness", "irt evaluate")
    options = [option.opts[-1] for option in command.params if option.opts[-1].startswith("--")]
    assert sorted(options) == sorted(word for word in set(options) if f"\n  {word} " in text or f", {word} " in text)
    assert text.index("--device") > text.index("Output and machine:") > text.index("--weights")
    assert text.index("Question:") < text.index("--pgd") < text.index("Images:")


@pytest.mark.parametrize("words", [["evaluate"], ["gradmap-score"], ["analyze", "attention-rank"], ["train"]])
def test_help_is_the_same_whether_or_not_torch_is_there(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    before = CliRunner().invoke(cli.irt, [*words, "--help"]).output
    for name in list(sys.modules):
        if name.partition(".")[0] == "torch":
            monkeypatch.setitem(sys.modules, name, None)
    assert CliRunner().invoke(cli.irt, [*words, "--help"]).output == before
