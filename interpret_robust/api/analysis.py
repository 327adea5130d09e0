"""Questions asked of models in a program, and answers opened from files."""

import shutil
from collections.abc import Sequence
from dataclasses import Field, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any, overload

from torch import nn

from interpret_robust import analyses
from interpret_robust.analyses.engine.work import Work
from interpret_robust.api.answers import Answer, Answers, temporary_answer, temporary_folder
from interpret_robust.api.arguments import check_images, check_members, check_path, make_plain
from interpret_robust.api.data import Data, open_dataset
from interpret_robust.api.help import add_options, describe_settings
from interpret_robust.api.model import Model
from interpret_robust.api.wording import use_python_words
from interpret_robust.core import device as devices
from interpret_robust.core.errors import UserError, check_truth, describe, type_name, unknown
from interpret_robust.core.file_names import resolve
from interpret_robust.core.folders import Folders
from interpret_robust.core.plugins import import_object
from interpret_robust.core.spelling import translate_name
from interpret_robust.datasets import Dataset
from interpret_robust.datasets import load as load_dataset
from interpret_robust.models import external
from interpret_robust.models.subject import Subject


@overload
def analyze(name: str, model: Model, data: Data | None = None, **options: Any) -> Answer: ...


@overload
def analyze(name: str, model: Sequence[Model], data: Data | None = None, **options: Any) -> Answers: ...


@add_options(describe_settings())
@use_python_words()
def analyze(name: str, model: Model | Sequence[Model], data: Data | None = None, **options: Any) -> Answer | Answers:
    """Ask a question of a model, or of several.

    Args:
        name: of the analysis, such as `attention-rank`; `ir.questions()` lists them.
        model: from `load`; a list of models gives `Answers`, in its order.
        data: other images than those it was loaded for.
        options: `split` ("test") and `limit` (None: all) say which images; `batch_size` images at a
            time (None: 250, fewer of images over 64x64); `evaluators`, models that read what these give, where the
            question needs any; `recalibrate` ("none", "clean", "adversarial" or "both"), the training images that
            batch-norm statistics are measured on first; `device` ("auto"); and the settings of the analysis by name,
            such as `steps=10`, which are listed below.

    The answer lies in a temporary file. `answer.save("analyses")` keeps it in that folder, under the name that
    `irt analyze` gives it; `answer.save("mine.h5")` keeps it under a name of yours; `Answers.save` keeps several.
    Raises UserError as the commands do; for a setting that the analysis does not have, it names the nearest one.

    Example:
        >>> data = ir.make_dataset(np.zeros((4, 3, 8, 8)), [0, 1, 0, 1])
        >>> model = ir.load(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2)), data)
        >>> ir.analyze("robustness", model, pgd=2, cw="none").arrays["margin_natural"].shape
        (4, 1)
    """
    if not isinstance(name, str):
        raise UserError(f"{describe(name)} is no analysis: give its name first, such as 'attention-rank'.")
    if isinstance(model, Model):
        return ask(name, model, data, **options)
    if isinstance(model, str | Path | nn.Module):
        raise refuse_model(model)
    models = check_members(model, Model, "model to ask", "what ir.load returns")
    return Answers([ask(name, each_model, data, **options) for each_model in models])


def refuse_model(value: Any) -> UserError:
    """Return the error for what stands where a model of `load` is needed."""
    if isinstance(value, str | Path):
        return UserError(f"{value} is the name of a model: give ir.load({str(value)!r}).")
    if isinstance(value, nn.Module):
        return UserError(
            f"{type_name(value)} is a network: give ir.load(network, data), which tries it on a few images first."
        )
    return UserError(f"{describe(value)} is no model: give what ir.load returns.")


def ask(
    name: str,
    model: Model,
    data: Data | None = None,
    *,
    evaluators: Sequence[Model] = (),
    split: str = "test",
    limit: int | None = None,
    batch_size: int | None = None,
    recalibrate: str = "none",
    device: str = "auto",
    **settings: Any,
) -> Answer:
    """Ask a question of one model.

    Args:
        name: of the analysis.
        model: from `load`.
        data: other images than those it was loaded for.
        evaluators: models that read what this one gives, where the question needs any.
        split, limit: which images: those of `train`, `test` or `val`; all, or so many, see `Split.draw`.
        batch_size: images at a time; None for as many as fit images of that size.
        recalibrate: `clean`, `adversarial` or `both`: training images that batch-norm statistics are measured on
            first; `none` leaves the model as it is.
        device: `cpu`, `cuda`, or `auto`.
        settings: options of the analysis by name, such as `steps=10`.

    Raises UserError as the commands do.

    Example:
        >>> data = ir.make_dataset(np.zeros((4, 3, 8, 8)), [0, 1, 0, 1])
        >>> model = ir.load(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2)), data)
        >>> ask("robustness", model, limit=3, pgd=2, cw="none").result.count
        3
    """
    limit, batch_size = make_plain(limit), make_plain(batch_size)
    check_images("limit", limit, "all")
    check_images("batch_size", batch_size, "250, fewer of images over 64x64")
    _check_evaluators(evaluators)
    name = translate_name(name)
    if name not in analyses.list_names():
        raise unknown("analysis", name, analyses.list_names())
    analysis = analyses.get(name)
    settings = _checked_settings(name, analysis.settings, settings)
    if analysis.readers == "evaluators" and not evaluators:
        raise UserError(f"{name} needs other models that classify the maps of {model.name}: give evaluators.")
    for asked_model in (model, *evaluators):
        asked_model.check_unchanged()
    folder = temporary_folder()
    try:
        work = Work(
            analysis,
            model.subject,
            open_dataset(data) if data is not None else _own_dataset(model.subject),
            folder,
            settings=analysis.settings(**settings),
            split=split,
            limit=limit,
            batch_size=batch_size,
            device=devices.resolve(device),
            evaluators=[evaluator.subject for evaluator in evaluators],
            default_evaluators=False,
            recalibrate=recalibrate,
        )
        return temporary_answer(work.run())
    except BaseException:
        shutil.rmtree(folder)
        raise


def _check_evaluators(evaluators: Any) -> None:
    """Raise UserError for what is no list of models that `load` returned."""
    if not isinstance(evaluators, Sequence) or isinstance(evaluators, str):
        raise UserError(f"evaluators are {describe(evaluators)}: give a list of what ir.load returns.")
    for place, evaluator in enumerate(evaluators):
        if not isinstance(evaluator, Model):
            raise UserError(f"evaluators[{place}]: {refuse_model(evaluator)}")


OPTIONS = ("batch_size", "device", "evaluators", "limit", "recalibrate", "split")
"""The options of every analysis."""


def _checked_settings(name: str, kind: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings as an analysis takes them: `pgd=5` is `pgd="5"`, and None is "none" where a text is needed.

    Raises UserError for one that there is not, or of another type.
    """
    by_name = {field.name: field for field in fields(kind)}
    values = {}
    for setting, value in zip(settings, map(make_plain, settings.values()), strict=True):
        if setting not in by_name:
            raise unknown(f"option of {name}", setting, [*by_name, *OPTIONS])
        expected = by_name[setting].type
        if expected in (int, float, float | None) and not _is_number(value, expected):
            raise UserError(
                f"{setting} is {describe(value)}: {name} takes a {'whole ' * (expected is int)}number there."
            )
        if expected is bool:
            check_truth(setting, value)
        values[setting] = _as_text(name, by_name[setting], value) if expected is str else value
    return values


def _as_text(name: str, setting: Field[Any], value: Any) -> str:
    """Return a setting that is text: `pgd=[5, 20]` is `pgd="5,20"`, None is "none", and a function is where it lies.

    Raises UserError for anything else, and for a function that no module holds.
    """
    if value is None or (isinstance(value, str | int) and not isinstance(value, bool)):
        return "none" if value is None else str(value)
    reference = f"{getattr(value, '__module__', '')}:{getattr(value, '__qualname__', '<')}"
    if callable(value) and "<" not in reference and import_object(reference) is value:
        return reference
    is_of_numbers = setting.default == "none" or not str(setting.default).strip("0123456789,")
    if (
        is_of_numbers
        and isinstance(value, list | tuple)
        and value
        and all(type(make_plain(item)) is int for item in value)
    ):
        return ",".join(str(item) for item in value)
    right = f"text there, such as {setting.default!r}{', or whole numbers' * is_of_numbers}"
    if "function" in setting.metadata.get("help", ""):
        right = "text there, or a function that a module holds under its own name"
    raise UserError(f"{setting.name} is {describe(value)}: {name} takes {right}.")


def _is_number(value: Any, expected: Any) -> bool:
    if value is None:
        return bool(expected == float | None)
    kinds = Integral if expected is int else Real
    return isinstance(value, kinds) and not isinstance(value, bool)


@overload
def open(path: str | Path) -> Answer: ...


@overload
def open(path: list[str | Path] | list[Path] | list[str]) -> Answers: ...


@use_python_words()
def open(path: str | Path | list[str | Path] | list[Path] | list[str]) -> Answer | Answers:
    """Return the answer in a file of `irt analyze` or of `Answer.save`: the same object as `analyze` gives.

    The name of a file in analyses/ of the working folder stands for its path. Several files of one analysis give
    `Answers`. Raises UserError for a file that is missing, damaged, or of an unknown
    analysis, for an empty list, and for what is no path.

    Example:
        >>> ir.open("analyses/attention-rank-cifar10-small-at-att-seed0-test-first1000.h5").model
        'at-att seed 0'
    """
    if isinstance(path, str | Path):
        return _read(path)
    files = check_members(path, str | Path, "path", "that of an analysis file")
    return Answers([_read(file) for file in files])


def _read(path: str | Path) -> Answer:
    return Answer(analyses.read(resolve(check_path("path", path), Folders(Path()).list_analyses())))


def questions() -> dict[str, str]:
    """Return the names of the analyses, each with one sentence about it.

    Example:
        >>> ir.questions()["masking"]
        'Does a model hide its gradients, so that attacks that follow them fail? (signs of gradient masking)'
    """
    return {name: analyses.about(name) for name in analyses.list_names()}


def _own_dataset(subject: Subject) -> Dataset:
    """Return the images that a model was loaded for."""
    return subject.data if isinstance(subject, external.ExternalModel) else load_dataset(subject.source)
