"""How any analysis runs: a model meets a dataset batch by batch, rows go to disk, statistics come last."""

import math
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from interpret_robust.analyses.engine import recalibration
from interpret_robust.analyses.engine.analysis import Analysis
from interpret_robust.analyses.engine.configuration import (
    describe_axes,
    describe_evaluators,
    describe_images,
    differ_in_readers,
    list_readers,
)
from interpret_robust.analyses.engine.first_logits import FIRST_LOGITS, GRADIENT, check_first_logits, read_first_logits
from interpret_robust.analyses.engine.fit import check_masks, check_models, list_doubts
from interpret_robust.analyses.engine.naming import name_file, resolve_limit
from interpret_robust.analyses.engine.nan_answers import list_nan_answers
from interpret_robust.analyses.engine.settings import SourceSettings, shares_attack
from interpret_robust.attacks import cache
from interpret_robust.attribution.gradients import measure_completeness_gap
from interpret_robust.core import device as devices
from interpret_robust.core import progress, provenance, ranks
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.configs import as_stored
from interpret_robust.core.errors import NotFiniteError, UserError
from interpret_robust.core.interruption import Stopped, stop_requests
from interpret_robust.core.locks import Lock
from interpret_robust.datasets import Dataset
from interpret_robust.datasets.batches import Batch, choose_batch_size, make_batch, read_batches, to_numpy
from interpret_robust.models import Classifier, checkpoint
from interpret_robust.models.checks.trial import ANSWER_IMAGES
from interpret_robust.models.checks.watch import watch
from interpret_robust.models.classifier import answers_repeat
from interpret_robust.models.folding import fold
from interpret_robust.models.reinitialize import doubt_about_random
from interpret_robust.models.subject import Subject
from interpret_robust.models.variants import is_external
from interpret_robust.models.wrapper import WrappedModel
from interpret_robust.results import hdf5, writer
from interpret_robust.results.columns import Columns, Places


class Work:
    """An analysis of one model over one split, ready to run.

    Args:
        analysis, subject, dataset: the question, the model that is asked, and the data.
        folder: where the file is to lie.
        settings: of the analysis, an object of its class.
        split, limit: `train`, `test` or `val`, and how many of its images, None for all.
        batch_size: images a batch; by default as many as fit images of that size.
        device: where the model is asked.
        evaluators: the models that read what the model gives, and `default_evaluators` whether nobody chose them.
        source: how the dataset was typed; by default its name.
        recalibrate: the kind of training images that batch-norm statistics are measured on first, or `none`.
        deadline: a value of `time.monotonic()` at which it stops.

    Attributes:
        dataset, split: all data, and the images that are analyzed.
        settings: resolved for the model.
        is_new: whether `run` has written the file; another process may have done so before.
        origin: how the data are typed: `source`, a name or a path; `limit`, None for all of the split; and
            `trained_on`, the sources of the model and of the evaluators, None of those from elsewhere.

    Raises UserError for a model and a dataset that do not fit, for data without masks where the analysis needs
    them, and for evaluators of one name or that are the model itself.
    """

    def __init__(
        self,
        analysis: Analysis,
        subject: Subject,
        dataset: Dataset,
        folder: Path,
        *,
        settings: Any,
        split: str,
        limit: int | None,
        batch_size: int | None = None,
        device: torch.device,
        evaluators: Sequence[Subject] = (),
        default_evaluators: bool = True,
        source: str | None = None,
        recalibrate: str = "none",
        deadline: float = math.inf,
    ) -> None:
        dataset = subject.view(dataset)
        check_models(subject, evaluators, dataset)
        names = tuple(model.name for model in evaluators)
        self.analysis, self.device, self.dataset = analysis, device, dataset
        self.batch_size = choose_batch_size(*dataset.image_shape[1:]) if batch_size is None else batch_size
        self._subject, self._evaluators, self._stop = subject, evaluators, threading.Event()
        self._deadline, self._late_doubts = deadline, list[str]()
        self.is_new = False
        limit = resolve_limit(limit, dataset.split(split))
        self.recalibrate = recalibration.check_kind(recalibrate)
        self.split = dataset.split(split).draw(limit)
        if analysis.needs_masks:
            check_masks(analysis.schema.name, dataset.name, self.split)
        self.settings: Any = settings.resolve(subject.job)
        other_dataset = dataset.name if dataset.name != subject.job["dataset"] else ""
        readers = () if default_evaluators else names
        self.path = name_file(
            folder, analysis, subject.name, subject.job, split, settings, limit, other_dataset, readers, recalibrate
        )
        self.config: dict[str, Any] = {
            "analysis": analysis.schema.label,
            "checkpoint": {"name": subject.name, "sha256": subject.sha256, "job": subject.job},
            "data": describe_images(dataset, split, limit, self.split),
            "settings": as_stored(self.settings),
            "local_grid": list(subject.local_shape()[1:]),
            "batch_size": self.batch_size,
            "device": device.type,
        }
        if recalibrate != "none":
            self.config["recalibration"] = recalibration.describe_recalibration(recalibrate, dataset.train, subject.job)
        if evaluators:
            self.config["evaluators"] = describe_evaluators(evaluators, are_default=default_evaluators)
        self.origin: dict[str, Any] = {
            "source": source or dataset.name,
            "limit": limit,
            "trained_on": [None if is_external(model.job) else model.source for model in (subject, *evaluators)],
        }
        self.axes: Mapping[str, Places] = describe_axes(dataset, subject, names)
        self.axes = {**self.axes, **analysis.axes(self)}

    @cached_property
    def doubts(self) -> list[str]:
        """Return what makes the answer doubtful, for which models from elsewhere are tried."""
        return list(dict.fromkeys(list_doubts((self._subject, *self._evaluators), self.dataset)))

    @cached_property
    def network(self) -> Classifier:
        """Return the model with all its layers, in eval mode on `device`, recalibrated where that is asked for."""
        return self._network(self._subject)

    def _network(self, subject: Subject) -> Classifier:
        if self.recalibrate == "none":
            return subject.model(self.device)
        return recalibration.recalibrate_network(subject, self.device, self.recalibrate, self.dataset.train)

    @cached_property
    def model(self) -> Classifier:
        """Return `network`, folded: what answers, and what is attacked."""
        return fold(self.network)

    def _identity(self) -> Hashable | None:
        """Return all that decides the model's answers, for an analysis whose attack others take too.

        None for other analyses, and for a model that may answer an image differently each time.
        """
        if not shares_attack(self.settings):
            return None
        network, job = self.network, self._subject.job
        sha256 = checkpoint.hash_tensors(dict(network.state_dict()))
        if isinstance(network, WrappedModel):
            # Its weights do not tell what it computes: it is equal to itself alone, as long as it answers alike.
            if network.draws or self._subject.doubts:
                return None
            numbers = self._logits_of_run.get(FIRST_LOGITS, {})
            answer = [numbers.get(name) for name in (self._subject.name, self._subject.name + GRADIENT)]
            return network, sha256, self.device.type, str(answer)
        image = torch.zeros(1, *self.dataset.image_shape, device=self.device)
        kind = job["architecture"], job["variant"], sha256, self.device.type
        return kind if answers_repeat(self.model, image) else None

    @cached_property
    def evaluators(self) -> dict[str, Classifier]:
        """Return the models that read what this one gives, folded, by name.

        Those of attacks recalibrated as the model is.
        """
        is_alike = self.analysis.readers == "copies"

        def network(reader: Subject) -> Classifier:
            return self._network(reader) if is_alike else reader.model(self.device)

        return {reader.name: fold(network(reader)) for reader in self._evaluators}

    def doubt_random_networks(self, images: torch.Tensor) -> None:
        """Keep a sentence in the file where networks with random weights share numbers with the model."""
        if doubt := doubt_about_random(self.network, images[:1]):
            self._late_doubts.append(f"{self._subject.name} {doubt}")

    def reference_images(self, count: int) -> torch.Tensor:
        """Return `count` images (N, C, H, W) of all classes for statistics of a network, see `Dataset.reference`."""
        split = self.dataset.reference.draw(count)
        return make_batch(split, range(len(split)), self.device).images

    def over_batches(self, measure: Callable[[Batch], Sequence[float]], numbers: int) -> AnyArray:
        """Return the `numbers` that `measure` gives of each batch, in order: (batches, numbers) in float64.

        A first pass over all images, shared by all ranks. Raises Stopped as `run` does.
        """
        firsts = np.arange(0, len(self.split), self.batch_size)
        totals = torch.zeros(len(firsts), numbers, dtype=torch.float64)

        with self._together():
            for batch in self.batches(firsts[ranks.find_rank() :: ranks.count_ranks()]):
                self._restart_draws(batch.indices.start)
                with self.name_images(batch):
                    numbers_of_batch = measure(batch)
                totals[batch.indices.start // self.batch_size] = torch.tensor(numbers_of_batch, dtype=torch.float64)
        return to_numpy(ranks.sum_over_ranks(totals))

    def batches(self, firsts: Iterable[int] | None = None) -> Iterator[Batch]:
        """Yield the batches that begin at these images, by default all; pictures are decoded ahead.

        Raises Stopped on a signal or when it is late.
        """
        places = [*(range(0, len(self.split), self.batch_size) if firsts is None else firsts)]
        ends = (min(first + self.batch_size, len(self.split)) for first in places)
        batches = read_batches(self.split, map(range, places, ends), self.device)
        for first in places:
            if self._stop.is_set() or time.monotonic() > self._deadline:
                raise Stopped(f"{self.path.stem} stopped before image {first} of {len(self.split)}")
            yield next(batches)

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Stop on all ranks what is stopped on one."""
        stop_error = None
        try:
            yield
        except Stopped as error:
            stop_error = error
        if ranks.gather_flags(stop_error is not None)[0]:
            raise stop_error or Stopped(f"{self.path.stem} stopped")

    def is_done(self, *, overwrite: bool) -> bool:
        """Return whether its file is there. Raises UserError where another configuration's has its name.

        Copies come one by one: a file that more of them have read will do, and one that fewer have read is replaced.
        """
        config = self.config
        if self.path.exists() and not overwrite:
            stored_config = hdf5.read_provenance(self.path)["config"]
            if self._has_other_copies(stored_config):
                if list_readers(stored_config) < list_readers(config):
                    return False
                if list_readers(stored_config) > list_readers(config):
                    config = stored_config
        is_finished = writer.is_finished(self.path, self.analysis.schema, config, overwrite=overwrite)
        if is_finished:
            self._check_logits(self.path, hdf5.read_provenance(self.path).get("run", {}))
        return is_finished

    @cached_property
    def _logits_of_run(self) -> dict[str, dict[str, list[float]]]:
        """Return what models from elsewhere answer to the first image, as a file's run has it; nothing of ours."""
        logits = read_first_logits((self._subject, *self._evaluators), self.split)
        return {FIRST_LOGITS: logits} if logits else {}

    def _check_logits(self, path: Path, run: Mapping[str, Any]) -> None:
        """Raise UserError where a model answers otherwise than when it made, or began, the file at `path`."""
        if FIRST_LOGITS in run:
            check_first_logits(path, run[FIRST_LOGITS], self._logits_of_run.get(FIRST_LOGITS, {}))

    def _has_other_copies(self, stored_config: Mapping[str, Any]) -> bool:
        """Return whether a file's configuration is this one but for the copies, which come and go in a study."""
        return self.analysis.readers == "copies" and differ_in_readers(stored_config, self.config)

    @devices.exact()
    def run(self, *, overwrite: bool = False, position: int | None = None) -> Path:
        """Write the file, going on after the last whole batches of a stopped run.

        Several ranks share the batches, each of which is the same whoever computes it. A stopped run that other copies
        read is begun anew. Raises Stopped on SIGINT or SIGTERM and at the deadline, with all
        whole batches kept.
        """
        began = time.monotonic()
        with ExitStack() as files:
            rows = None
            lock = Lock(self.path)
            files.callback(lock.release)
            for _ in ranks.wait_for_turn(lock, lambda: time.monotonic() > self._deadline):
                pass

            def begin() -> list[int] | None:
                nonlocal rows
                if self.is_done(overwrite=overwrite):
                    return None
                rows = files.enter_context(self._open(overwrite=overwrite))
                self._check_logits(rows.partial, rows.run)
                return [int(image) for image in rows.missing_images()]

            missing_images = ranks.run_on_first(begin)
            if missing_images is None:
                return self.path
            self._stream(rows, np.array(missing_images, np.int64), position)
            if rows is not None:
                self._finish(rows, began)
            ranks.wait()
            self.is_new = True
        return self.path

    def _open(self, *, overwrite: bool) -> writer.Rows:
        environment = provenance.describe_environment(
            devices.describe(self.device), torch.get_num_threads(), ranks.count_ranks()
        )
        return writer.open_rows(
            self.path,
            self.analysis.schema,
            len(self.split),
            self.axes,
            self.config,
            environment,
            run=self._logits_of_run,
            overwrite=overwrite,
            is_outdated=self._has_other_copies,
        )

    def _stream(self, rows: writer.Rows | None, missing_images: AnyArray, position: int | None) -> None:
        """Compute the missing rows, or this rank's share of them."""
        total, firsts = len(self.split), missing_images[missing_images % self.batch_size == 0]
        own_firsts = firsts[ranks.find_rank() :: ranks.count_ranks()]
        bar = progress.open_bar(self.path.stem, total, "images", initial=total - len(missing_images), position=position)
        with (
            stop_requests() as self._stop,
            bar,
            self._together(),
            cache.share_attacks(self.model, self._identity()),
            self._sink(rows, missing_images, own_firsts) as sink,
            self._watch(sink),
        ):
            self._restart_draws(len(self.split))
            context = self.analysis.prepare(self)
            for batch in self.batches(own_firsts):
                self._restart_draws(batch.indices.start)
                with self.name_images(batch):
                    rows_of_batch = self.analysis.rows(self.model, batch, context)
                sink.append(rows_of_batch)
                bar.update(len(batch.indices) * ranks.count_ranks())

    def _restart_draws(self, first: int) -> None:
        """Let the next draws of networks with `--draws` depend on a batch's first image alone."""
        for model in (self.model, *self.evaluators.values()):
            if isinstance(model, WrappedModel):
                model.restart_draws(first)

    @contextmanager
    def _watch(self, sink: writer.Rows | None) -> Iterator[None]:
        """Watch the models from elsewhere inside, and note beside the rows what became doubtful, also where it stops.

        Models of ours keep no state.
        """
        models = [(self._subject.name, self.model), *self.evaluators.items()]
        with ExitStack() as watches:
            pairs = [
                (name, model.follow_answers(), watches.enter_context(watch(model)))
                for name, model in models
                if isinstance(model, WrappedModel)
            ]
            stop_error = None
            try:
                yield
            except Stopped as error:
                stop_error = error
            for name, finish, doubts in pairs:
                self._late_doubts += [f"{name} {doubt}" for doubt in (finish(), *doubts()) if doubt]
            if sink is not None:
                sink.note_doubts(self._late_doubts)
            if stop_error is not None:
                raise stop_error

    @contextmanager
    def name_images(self, batch: Batch, noun: str = "image") -> Iterator[None]:
        """Make an error about numbers of a batch one that names the model, and the images as their split counts them.

        `noun` is what one of them is called.
        """
        try:
            yield
        except NotFiniteError as error:
            images = [batch.indices[place] for place in error.places]
            raise UserError(f"{self._subject.location}: {NotFiniteError(error.quantity, images, noun)}") from error

    def _sink(
        self, rows: writer.Rows | None, missing_images: AnyArray, own_firsts: AnyArray
    ) -> AbstractContextManager[Any]:
        """Return where this rank's rows go: to the file where they only have to follow those there, else to a part."""
        if (
            ranks.count_ranks() == 1
            and rows is not None
            and np.array_equal(missing_images, np.arange(rows.row_count, len(self.split)))
        ):
            return nullcontext(rows)
        places = missing_images[np.isin(missing_images - missing_images % self.batch_size, own_firsts)]
        if len(places) == 0:
            return nullcontext()
        return writer.open_part(self.path, self.analysis.schema, places, self.axes, self.config)

    def summarize(self, columns: Columns) -> dict[str, Any]:
        """Return the statistics of the per-image columns of all its images, and what is shown of some, by path."""
        return self.analysis.compute_summary(columns, self.split, self.settings)

    def _finish(self, rows: writer.Rows, began: float) -> None:
        earlier_doubts = rows.list_doubts()
        rows.join()
        columns = rows.columns()
        summary = self.summarize(columns)
        models = [model.name for model in (self._subject, *self._evaluators)]
        nan_answers = list_nan_answers(self.analysis.schema, columns, models, len(self.split))
        doubts = list(dict.fromkeys([*self.doubts, *earlier_doubts, *self._late_doubts, *nan_answers]))
        seconds = round(time.monotonic() - began, 1)
        run = provenance.read_code_version() | self.origin | self._gap() | {"doubts": doubts, "seconds": seconds}
        rows.finish(summary, run | self._logits_of_run)

    def _gap(self) -> dict[str, float]:
        """Return by how much maps of the first images miss what they promise to sum to, where they promise it.

        An analysis that measures this of all images has a column of it.
        """
        has_column = "completeness/gap" in {column.path for column in self.analysis.schema.summary}
        if has_column or not isinstance(self.settings, SourceSettings):
            return {}
        batch = self._first_images()
        self._restart_draws(0)
        seed = getattr(self.settings, "seed", 0)
        gap = measure_completeness_gap(
            self.settings.source, self.model, batch.images, batch.labels, batch.indices, seed
        )
        return {} if math.isnan(gap) else {"completeness_gap": gap}

    def _first_images(self) -> Batch:
        return make_batch(self.split, range(min(ANSWER_IMAGES, len(self.split))), self.device)
