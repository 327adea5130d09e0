"""What the page can ask: which images and models there are, and what the models answer under an attack."""

import shlex
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from interpret_robust.attacks.settings import EXAMPLE_RADII, NORM_TEXTS, Norm, resolve_ball
from interpret_robust.core.device import exact
from interpret_robust.core.errors import UserError
from interpret_robust.core.parsing import parse_number
from interpret_robust.core.provenance import read_package_version
from interpret_robust.results.names import NORMS
from interpret_robust.results.remarks import FEW_POSITIONS
from interpret_robust.study.explorer import measure
from interpret_robust.study.explorer.album import Album
from interpret_robust.study.explorer.files import list_stems
from interpret_robust.study.explorer.models import Exhibit, list_names
from interpret_robust.study.explorer.view import MOST_STEPS, View, list_losses, list_radii
from interpret_robust.study.report.embedding import make_data_url

MOST_KEPT = 64
"""Adversarial images that are kept, so that nothing is attacked twice that was just looked at."""

_encode: measure.Encode = partial(make_data_url, kind="PNG", compress_level=1)


class Explorer:
    """Models side by side on the images of an album. It may be asked by several threads; one computes at a time.

    Attributes:
        first: the image that the page begins with.
        norm: in which the page begins; None for that in which the first model was trained.
        seed: of the random starts of attacks.
        source: the data that commands have to name, empty for those of the models.
        weight: the choice of weights of positions that commands have to name, empty for the default.
    """

    def __init__(
        self,
        exhibits: Sequence[Exhibit],
        album: Album,
        seed: int,
        first: str = "0",
        source: str = "",
        weight: str = "",
        norm: Norm | None = None,
    ) -> None:
        self.exhibits, self.album, self.seed = exhibits, album, seed
        self.first, self.source, self.weight = first, source, weight
        self._balls = [resolve_ball(None, None, exhibit.subject.job.get("recipe", {})) for exhibit in exhibits]
        self.norm: Norm = self._balls[0][0] if norm is None else norm
        self._lock = threading.Lock()
        self._adversarial: dict[tuple[int, View], Tensor] = {}

    def setup(self) -> dict[str, Any]:
        """Return what the page needs before it shows anything."""
        album, cards = self.album, [exhibit.card() for exhibit in self.exhibits]
        return {
            "version": read_package_version(),
            "dataset": album.dataset.name,
            "split": album.split_name,
            "shuffled": not album.split.is_in_class_order,
            "classes": album.dataset.class_names,
            "labels": album.split.labels.tolist(),
            "images": len(album.split),
            "source": self.source or self.exhibits[0].subject.source,
            "models": [card | {"name": name} for card, name in zip(cards, list_names(cards), strict=True)],
            "norms": {name: self._norm(name) for name in NORM_TEXTS},
            "norm": self.norm,
            "steps": 20,
            "most_steps": MOST_STEPS,
            "losses": list_losses(),
            "rules": measure.RULES,
            "seed": self.seed,
            "few_positions": FEW_POSITIONS,
            "first": self.first,
            "options": f"--dataset {shlex.quote(self.source)}" if self.source else "",
            "weights": self.weight and shlex.quote(self.weight),
        }

    def _norm(self, name: Norm) -> dict[str, Any]:
        """Return what the page needs of a norm: the radii of its slider, and the one to begin with."""
        training_radii = [eps for norm, eps in self._balls if norm == name]
        places = list_radii(training_radii or [parse_number(EXAMPLE_RADII[name])], name)
        return {"text": NORM_TEXTS[name], "prefix": NORMS[name], "radii": places, "eps": places[len(places) // 2]}

    def image(self, key: str) -> dict[str, Any]:
        """Return an image with its class; of one that was brought, with the class that the first model sees."""
        entry, label = self.album.entry(key), self.album.label(key)
        if label is None:
            with self._lock, exact(), torch.no_grad():
                label = int(self.exhibits[0].network(entry.pixels).argmax(1))
        return {"picture": _encode(measure.make_picture(entry)), "label": label}

    def cells(self, view: View) -> Iterator[dict[str, Any]]:
        """Yield what is known of each model as its attack goes on, all models in turn.

        A message has `model` and `step`, and `cell` where the iterate is looked at, as that of the last step always is,
        which also has `files`.
        """
        turns = [self._messages(place, view) for place in range(len(self.exhibits))]
        while turns:
            for turn in list(turns):
                for message in turn:
                    yield message
                    if "cell" in message:
                        break
                else:
                    turns.remove(turn)

    def deletions(self, view: View, position: int) -> Iterator[dict[str, Any]]:
        """Yield for each model class and probability of the view's class with a position deleted, under the attack.

        Raises UserError for a position that a model does not have.
        """
        for exhibit in self.exhibits:
            if position >= exhibit.positions:
                raise UserError(f"there is no position {position}: {exhibit.words} has {exhibit.positions}, from 0 on.")
        for place, exhibit in enumerate(self.exhibits):
            with self._lock, exact():
                adversarial, positions = self.adversarial(place, view), range(position, position + 1)
                ((prediction, truth),) = measure.measure_deletions(exhibit, adversarial, view.label, positions)
            yield {"model": place, "prediction": prediction, "truth": truth}

    def adversarial(self, place: int, view: View) -> Tensor:
        """Return the adversarial image (1, C, H, W) of a model, which the caller lets nobody else compute."""
        if (place, view) not in self._adversarial:
            for _, iterate in measure.measure_trajectory(
                self.exhibits[place], self.album.entry(view.image), view, self.seed
            ):
                last = iterate
            self._keep(place, view, last)
        return self._adversarial[place, view]

    def files(self, place: int, view: View) -> dict[str, str]:
        """Return by analysis the path of the file that holds a model's numbers under a view, see `list_stems`."""
        return list_stems(self.exhibits[place], self.album, view, self.seed, self.weight)

    def _keep(self, place: int, view: View, adversarial: Tensor) -> None:
        self._adversarial[place, view] = adversarial
        if len(self._adversarial) > MOST_KEPT:
            del self._adversarial[next(iter(self._adversarial))]

    def _messages(self, place: int, view: View) -> Iterator[dict[str, Any]]:
        """Yield the messages of one model. Between two of them others may compute."""
        exhibit, entry = self.exhibits[place], self.album.entry(view.image)
        result = self._adversarial.get((place, view))
        iterates = (
            measure.measure_trajectory(exhibit, entry, view, self.seed)
            if result is None
            else iter([(view.steps, result)])
        )
        while True:
            with self._lock, exact():
                step, iterate = next(iterates, (-1, entry.pixels))
                if step < 0:
                    return
                message: dict[str, Any] = {"model": place, "step": step}
                if measure.is_read(step, view):
                    message["cell"] = measure.measure_cell(exhibit, entry, iterate, view, _encode)
                if step == view.steps:
                    message["files"] = self.files(place, view)
                    self._keep(place, view, iterate)
            yield message
