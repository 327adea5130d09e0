"""The words of the package, of its benchmarks and tests: names that say what they name, and American spelling."""

import ast
from pathlib import Path

import pytest
from words import FUNCTION_WORDS, PACKAGE, VERBS, bindings, british, empty_words, is_empty_word

ROOT = PACKAGE.parent
BENCHMARKS, TESTS = ROOT / "benchmarks", ROOT / "tests"
LIMIT = 0.002
"""Share of bindings, in each of these folders, whose name may be a function word or a participle; captum,
timm and torchattacks: 0.002 too."""
OLD_NAMES = (
    "interpret_robust/core/spelling.py",
    "tests/test_spelling.py",
    "docs/files.md",
    "docs/images/localization.json",
    "docs/speed/audit.json",
)
"""Where old spellings stand: their table and its test, what files say of them, a picture, an older build."""

NO_VERBS = FUNCTION_WORDS - {"do"} | {"a", "an", "the", "see"}
"""What a docstring of a function does not begin with."""

EVERY_BINDING = """
import numpy as found
def told(of, *one, who=1, **given): ...
async def wanted(): ...
class Brought:
    asked: int = 0
    known = lambda seen: seen
for shown, (rows, held) in (): ...
with open("x") as opened: ...
try: ...
except OSError as raised: ...
self.taken = (made := 1)
match x:
    case [kept, *others]: ...
    case {"a": 1, **left_over}: ...
[_ for chosen in ()]
"""
WORDS = (
    "asked brought chosen found given held kept known made of one opened others raised seen shown taken told wanted who"
)


def test_every_kind_of_binding_counts_once_and_reading_a_name_does_not(tmp_path: Path) -> None:
    path = tmp_path / "code.py"
    path.write_text(EVERY_BINDING + "print(found, told, one)\n")
    names = bindings(tmp_path)
    assert sorted(binding.name.lower() for binding in empty_words(names)) == WORDS.split()
    assert {binding.name for binding in names} - {binding.name for binding in empty_words(names)} == {
        "rows",
        "left_over",
    }
    assert [binding.line for binding in empty_words(names) if binding.name in ("found", "Brought", "chosen")] == [
        2,
        5,
        16,
    ]


@pytest.mark.parametrize("folder", [PACKAGE, BENCHMARKS, TESTS], ids=lambda folder: folder.name)
def test_names_that_are_function_words_or_participles_are_few(folder: Path) -> None:
    names = bindings(folder)
    empty = empty_words(names)
    assert len(empty) / len(names) <= LIMIT, f"see: python tests/words.py --list {folder.name}"


PREDICATES = {
    "is",
    "are",
    "has",
    "does",
    "differs",
    "holds",
    "fits",
    "loses",
    "needs",
    "sees",
    "shares",
    "begins",
    "must",
}
"""What a function that answers yes or no begins with, beside a noun before it: `answers_repeat`, `block_holds`."""

CONVERSIONS = {"as", "to", "from"}

OTHERS_THAN_VERBS = {
    "parts of an analysis and of a figure": "rows axes examples table_row",
    "commands": "irt main data data_list data_get data_show checkpoints checkpoints_list model model_layers model_card "
    "figure flags recipes analysis_command options forms_option references models_and_pictures dataset_options",
    "the Python API": "questions samples interval generator_noise per_image_noise attributes about",
    "formulas by their names": "cosine alpha linearized_robustness total_variation gini high_frequency white_noise "
    "total_variation_distance structural_similarity dlr targeted_dlr sobel magnitude cross_entropy margin_loss "
    "loss_gradient input_gradient weighted_sum wilson rate rates bootstrap_mean column_means finite_column_means "
    "ratio_of_means row_spearman bootstrap_spearman row_partial_spearman mcnemar holm area_under page_trend",
    "corruptions, by their authors' names": "shorter_side disk segment defocus scatter streak zoom needles clouds",
    "samplers of claims, by the claims' names": "accuracy robust_features robust_features_matter attention_on_object "
    "gradmap_score alignment cleaner_backgrounds weights_in_range narrow_and_wide",
    "contexts and errors, which are read as `with exact():` and `raise unknown(...)`": "exact process_group "
    "temporary_answer temporary_folder unknown reason_in_brackets type_name",
    "yes or no": "answers_repeat block_holds begins_alike",
    "words of two languages": "american british",
    "else": "checkpoints",
}
"""Public functions that are not called by a verb, and why."""


def test_functions_are_called_by_verbs() -> None:
    exceptions = {name for names in OTHERS_THAN_VERBS.values() for name in names.split()}
    strangers, names = [], set()
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                names.add(node.name)
                is_verb = node.name.split("_")[0] in VERBS | PREDICATES | CONVERSIONS
                if not is_verb and node.name not in exceptions:
                    strangers.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert strangers == [] and exceptions <= names


def test_no_module_of_the_package_is_named_by_a_function_word_or_a_participle() -> None:
    modules = sorted(PACKAGE.rglob("*.py"))
    assert len(modules) > 150
    assert [str(path.relative_to(ROOT)) for path in modules if is_empty_word(path.stem)] == []


def test_british_spellings_are_told_from_american_ones(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(
        "The colour of the center\nanalysed analyses, an analysis: optimise, promise, rise, noise, OPTIMISER"
    )
    assert [(word.line, word.name) for word in british(tmp_path)] == [
        (1, "colour"),
        (2, "analysed"),
        (2, "optimise"),
        (2, "OPTIMISER"),
    ]


def test_spelling_is_american_but_where_old_names_are_listed() -> None:
    exempt = {Path(__file__), Path(__file__).with_name("words.py"), *(ROOT / name for name in OLD_NAMES)}
    places = [ROOT / name for name in ("interpret_robust", "tests", "docs", "benchmarks", "README.md", "CHANGELOG.md")]
    assert [
        f"{word.path.relative_to(ROOT)}:{word.line} {word.name}" for word in british(*places) if word.path not in exempt
    ] == []


def test_docstrings_of_functions_begin_with_a_verb() -> None:
    functions = [
        (path, node)
        for path in sorted([*PACKAGE.rglob("*.py"), *BENCHMARKS.glob("*.py")])
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node)
    ]
    assert len(functions) > 500
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno} {docstring}"
        for path, node in functions
        if (docstring := ast.get_docstring(node) or "").split()[0].strip("`.,:;").lower() in NO_VERBS
    ]
    assert wrong == []
