"""Studies of parts of the paper: what they train, what they ask, and that they can be asked."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from interpret_robust import analyses
from interpret_robust.core.errors import UserError
from interpret_robust.core.folders import Folders
from interpret_robust.datasets import Dataset, Split
from interpret_robust.datasets.records import RECORDS
from interpret_robust.models.architectures import ARCHITECTURES
from interpret_robust.models.variants import VARIANTS
from interpret_robust.results.paper_numbers import read_reported
from interpret_robust.study.plan import EXPLANATION_IMAGES, PARTS, SCALES, Model, Study, find_study
from interpret_robust.study.reproduction import list_question_tasks
from interpret_robust.training.recipe import PRESETS

CASES = [(name, scale) for scale in SCALES for name in PARTS]


def variants(models: Sequence[Model]) -> set[str]:
    return {model.variant for model in models}


@pytest.mark.parametrize(("name", "scale"), [*CASES, ("quick", "quick")])
def test_what_is_asked_is_trained_and_what_is_trained_is_known(name: str, scale: str) -> None:
    part = find_study(name, scale)
    assert len(set(part.models)) == len(part.models)
    assert part.dataset in RECORDS and part.recipe in PRESETS
    for architecture, variant, seed in part.models:
        assert architecture in ARCHITECTURES and variant in VARIANTS and seed >= 0
    for question in part.questions:
        assert question.models and set(question.models) <= set(part.models)
        settings = analyses.get(question.analysis).settings(**question.settings)
        for model in question.models:
            settings.resolve({"recipe": {"eps": 8 / 255}, "variant": model.variant})


@pytest.mark.parametrize("table", ["table1", "table2", "table3", "table5", "table6"])
def test_tables_have_the_paper_s_data_network_and_variants_and_a_copy_of_each(table: str) -> None:
    part = find_study(table, "paper")
    cells = [cell for cell in read_reported() if cell.table == table]
    assert {part.dataset} == {cell.dataset for cell in cells}
    assert {model.architecture for model in part.models} == {cell.architecture for cell in cells}
    assert variants(part.models) == {cell.variant for cell in cells}
    (question,) = part.questions
    for model in question.models:
        assert [other for other in question.models if other._replace(seed=model.seed) == model and other != model]
    read = question.settings.get("pgd", "5,20,100,200"), question.settings.get("cw", "30,100")
    steps = {(cell.attack, cell.steps) for cell in cells if cell.attack != "none"}
    if table == "table1":
        assert read == ("40,100", "none") and steps == {("pgd", None)}
    else:
        assert steps == {("pgd", 5), ("pgd", 20), ("pgd", 100), ("pgd", 200), ("cw", 30), ("cw", 100)}
        assert read == ("5,20,100,200", "30,100")


@pytest.mark.parametrize("scale", list(SCALES))
@pytest.mark.parametrize(("name", "seeds"), [("table4", 1), ("table4", 2), ("audit", 3), ("audit", 5)])
def test_whichever_seed_a_map_is_of_others_read_it(name: str, scale: str, seeds: int) -> None:
    part = find_study(name, scale, seeds)
    read = {model for question in part.questions if question.analysis == "gradmap-score" for model in question.models}
    assert {model.seed for model in read} == set(range(seeds))
    for model in read:
        siblings = [
            other for other in part.models if other.architecture == model.architecture and other.seed != model.seed
        ]
        assert len([other for other in siblings if other.variant == "natural"]) >= 2
        assert "at" in variants(siblings)
    assert "cnn" in {model.architecture for model in part.models if model.variant == "natural"}


def test_a_part_is_of_as_many_seeds_as_asked() -> None:
    def seeds(part: Study) -> int:
        return len({model.seed for question in part.questions for model in question.models})

    assert [seeds(find_study(name)) for name in ("table2", "table5", "cifar10", "audit", "figure2")] == [3, 2, 2, 3, 1]
    assert [seeds(find_study("table2", seeds=number)) for number in (1, 2, 5)] == [1, 2, 5]


def test_the_audit_at_quick_scale_finds_the_models_of_the_quick_study_and_asks_of_more_images() -> None:
    quick, audit = find_study("quick"), find_study("audit")
    assert (quick.dataset, quick.recipe, quick.images) == (audit.dataset, audit.recipe, audit.images)
    assert set(quick.models) <= set(audit.models)
    common = {"attention-rank", "feature-deletion", "localization", "gradmap-score", "alignment"}
    questions = {question.analysis: question for question in quick.questions}
    for question in audit.questions:
        if question.analysis in common:
            twin = questions[question.analysis]
            assert (question.settings, question.split) == (twin.settings, twin.split)
            assert (question.limit, twin.limit) == (None, EXPLANATION_IMAGES)
    assert common <= {question.analysis for question in audit.questions}


@pytest.mark.parametrize(("name", "scale"), [("quick", "quick"), ("audit", "quick"), ("audit", "paper")])
def test_what_needs_masks_is_not_asked_of_data_without(
    name: str, scale: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = find_study(name, scale)
    # Whom other models read has to be trained first.
    alone = [question for question in whole.questions if analyses.get(question.analysis).readers == "none"]
    part = replace(whole, questions=tuple(alone))
    sources = []

    def names_asked(masks: npt.NDArray[np.bool_] | None) -> list[str]:
        split = Split(np.zeros((5, 32, 32, 3), np.uint8), np.arange(5), masks)

        def load(source: str) -> Dataset:
            sources.append(source)
            return Dataset(source, split, split, tuple("abcde"))

        for module in ("study.reproduction", "study.tasks"):
            monkeypatch.setattr(f"interpret_robust.{module}.load", load)
        pairs = list_question_tasks(part, Folders(tmp_path), device="cpu")
        for question, tasks in pairs:
            assert [task.analysis for task in tasks] == [question.analysis] * len(question.models)
        return [question.analysis for question, _ in pairs]

    all_names = [question.analysis for question in alone]
    assert "localization" in all_names and names_asked(np.zeros((5, 32, 32), np.bool_)) == all_names
    assert names_asked(None) == [analysis for analysis in all_names if analysis != "localization"] != []
    assert set(sources) == {part.dataset}


def test_the_reference_study_has_a_copy_of_each_model_and_ships_what_is_small() -> None:
    part = find_study("cifar10")
    assert (part.dataset, part.recipe, part.images) == ("cifar10", "cifar-quick", None)
    assert {model.seed for model in part.models if model.variant.startswith("at")} == {0, 1}
    assert {model.architecture for model in part.models} == {"small"}  # a cnn has 17 MB
    assert sum(model.variant == "natural" for model in part.models) == 3
    limits = {(question.analysis, question.split): question.limit for question in part.questions}
    assert limits["gradient-maps", "train"] == limits["gradient-maps", "test"] == 100
    assert {limit for (name, _), limit in limits.items() if name != "gradient-maps"} == {1000}
    full = find_study("cifar10", "paper")
    assert (full.recipe, {model.architecture for model in full.models}) == ("fast", {"narrow", "small"})


def test_quick_scale_and_paper_scale_differ_but_ask_the_same() -> None:
    for name in PARTS:
        quick, paper = find_study(name, "quick"), find_study(name, "paper")
        questions = [
            [
                (question.analysis, question.settings, question.split, [model[1:] for model in question.models])
                for question in part.questions
            ]
            for part in (quick, paper)
        ]
        assert questions[0] == questions[1]
        assert quick.recipe != paper.recipe


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("table9",), "unknown study 'table9': did you mean 'table"),
        (("quick", "paper"), "quick has one seed and one scale: use `irt reproduce audit` for other seeds or"),
        (("quick", "quick", 3), "quick has one seed and one scale"),
    ],
)
def test_a_study_that_there_is_not_is_told(arguments: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(UserError) as error:
        find_study(*arguments)  # type: ignore[arg-type]
    assert str(error.value).startswith(sentence)


def test_a_study_can_be_of_another_architecture() -> None:
    small, narrow = find_study("cifar10"), find_study("cifar10", architecture="narrow")
    assert {model.architecture for model in narrow.models} == {"narrow"}
    assert [model._replace(architecture="small") for model in narrow.models] == list(small.models)
    assert (narrow.recipe, narrow.dataset) == (small.recipe, small.dataset)
    with pytest.raises(UserError, match="unknown architecture 'narow': did you mean 'narrow'"):
        find_study("cifar10", architecture="narow")
