"""What an analysis is: one question, its schema, its settings, the functions that answer it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from interpret_robust.core.arrays import AnyArray
from interpret_robust.datasets.base import Split
from interpret_robust.datasets.batches import Batch
from interpret_robust.models.classifier import Classifier
from interpret_robust.results.columns import Axes, Columns
from interpret_robust.results.schema import Schema

if TYPE_CHECKING:
    from interpret_robust.analyses.engine.work import Work

Readers = Literal["none", "evaluators", "copies"]


def _settings_of(work: "Work") -> Any:
    return work.settings


def _no_axes(_: "Work") -> Axes:
    return {}


def _no_examples(_: Columns, __: Split, ___: Any) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Analysis:
    """One question: its schema, its settings, and the functions that answer it.

    Attributes:
        schema: what its file holds. Axes of per-image columns may be `class`, `position` (of the local
            features, row-major), `channel` (of the local features), `color`, `y` and `x` (of the images),
            `evaluator`, those that the schema labels and those of `axes`.
        settings: a frozen dataclass whose fields become options of the command; field metadata `help`
            explains them. Its `resolve(job)` fills in what depends on the checkpoint.
        rows: the per-image columns of one batch, for a model in eval mode and what `prepare` gave.
        summarize: the statistics, from the per-image columns and the images they belong to. It takes the settings
            after these, where it needs them.
        table_row: the headline numbers of a finished file, as the columns of a printed table. It takes the
            chosen views after the file, where there are views.
        prepare: what `rows` needs beside the model, found once before the first batch and again on resuming;
            the settings where nothing else is needed.
        examples: what is shown of some images, from the per-image columns, the images and the settings that choose.
        axes: places of axes that depend on the model or the data; it may replace those above.
        compare: tables that set finished files side by side; it takes the chosen views after the files.
        views: parts of the answer that `table_row` can be limited to, as flags of the command.
        needs_masks: whether it only makes sense for data with object masks.
        needs_settings: whether `summarize` takes the settings.
        readers: which other models read what this one gives, where none are named: no `none`; `evaluators`, see
            `study.evaluators.choose_evaluators`, of which there must be one; or `copies`, see
            `study.evaluators.find_copies`, if there are any.
        most_readers: how many of them at most, None for all there are.

    Example:
        >>> schema = ir.Schema("mean", 1, (ir.Column("per_image/mean", "f4", "mean pixel"),), ())
        >>> mean = lambda model, batch, settings: {"per_image/mean": batch.images.mean((1, 2, 3)).numpy()}
        >>> ir.Analysis(schema, ir.Settings, mean, lambda columns, split: {}, lambda result: {}).readers
        'none'
    """

    schema: Schema
    settings: type[Any]
    rows: Callable[[Classifier, Batch, Any], dict[str, AnyArray]]
    summarize: Callable[..., dict[str, Any]]
    table_row: Callable[..., dict[str, str]]
    prepare: Callable[["Work"], Any] = _settings_of
    examples: Callable[[Columns, Split, Any], dict[str, Any]] = _no_examples
    axes: Callable[["Work"], Axes] = _no_axes
    compare: Callable[..., Sequence[list[dict[str, str]]]] | None = None
    views: tuple[str, ...] = ()
    needs_masks: bool = False
    needs_settings: bool = False
    readers: Readers = "none"
    most_readers: int | None = None

    def compute_summary(self, columns: Columns, images: Split, settings: Any) -> dict[str, Any]:
        """Return the statistics of per-image columns, and what is shown of some images, by path."""
        choice = (settings,) if self.needs_settings else ()
        return self.summarize(columns, images, *choice) | self.examples(columns, images, settings)
