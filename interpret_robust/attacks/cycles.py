"""Iterates of a repeated step, without computing again what repeats.

Against adversarially trained networks the iterate of fixed-step signed PGD often returns, bit for bit, to where it was
one, two or four steps before. If the step is a function of the iterate alone, everything later repeats, so that such an
image needs no more gradients. Measured on `small` networks, 98 to 207 of 300 gradients an image are left; naturally
trained networks gain nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

PERIODS = (1, 2, 4)
"""Lengths of the cycles that are looked for."""
FIRST_CHECK = 8
"""The step from which cycles are looked for: there are none before most images have come to rest."""
GRANULE = 32
"""The number of images that are still computed is a multiple of this: kernels for few images may round otherwise."""
FINE_GRANULE = 16
"""The same for a model whose answers have been seen to be the same, bit for bit, in a batch of so few."""


class Visit(NamedTuple):
    """An iterate (n, ...), and a sum of the bits of each row (n,), by which most that differ are told apart."""

    rows: Tensor
    sums: Tensor

    def select(self, places: Tensor) -> "Visit":
        """Return the visit of some of the images."""
        return Visit(select_rows(self.rows, places), self.sums[places])


def _visit(iterate: Tensor) -> Visit:
    """Return an iterate with its sums: integers, which add up to the same in any order, also where they overflow."""
    bits = iterate.view(torch.int32) if iterate.dtype == torch.float32 else iterate
    return Visit(iterate, bits.sum(tuple(range(1, iterate.ndim)), dtype=torch.int32))


def read_at(
    advance: Callable[..., Tensor],
    start: Tensor,
    constants: Sequence[Tensor],
    steps: Sequence[int],
    *,
    choose_granule: Callable[[], int] | None,
    counts: Tensor | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Yield (step, iterate (N, ...)) for each of `steps`, bit for bit as if no image were ever left out.

    Args:
        advance: gives the next iterate from an iterate and the constants, each image by itself.
        start: iterate 0, (N, ...).
        constants: tensors with a row an image that `advance` takes after the iterate.
        steps: rising, from 0 on.
        choose_granule: gives the number of which the images that are still computed are a multiple, once some repeat;
            None if `advance` is not a function of its arguments alone, the same for any such subset of the images: no
            cycle is looked for then.
        counts: (N,) int64; 1 is added for each step that is computed for an image.

    Example:
        >>> flip = lambda x: -x
        >>> [int(x) for _, x in read_at(flip, torch.ones(1, 1), (), [1, 2, 101], choose_granule=lambda: 1)]
        [-1, 1, -1]
    """
    iterate, active = start, torch.arange(len(start), device=start.device)
    history, granule = [_visit(iterate)], 0
    predictions: dict[int, Tensor] = {}
    if 0 in steps:
        yield 0, iterate
    for step in range(1, max(steps, default=0) + 1):
        if len(active):
            iterate = advance(iterate, *constants)
            if counts is not None:
                counts[active] += 1
        if step in steps:
            yield step, _assemble(iterate, active, predictions.pop(step, None))
        if choose_granule is None or not len(active):
            continue
        visit = _visit(iterate)
        if step >= FIRST_CHECK:
            periods = _periods(visit, history)
            granule = granule or (choose_granule() if bool(periods.any()) else 0)
            keep = choose_rows(periods > 0, granule) if granule else active
            if len(keep) < len(active):
                for later in (reading for reading in steps if reading > step):
                    whole = predictions.setdefault(later, torch.empty_like(start))
                    _predict(whole, later - step, visit, history, active, periods)
                visit, active = visit.select(keep), active[keep]
                constants = [select_rows(constant, keep) for constant in constants]
                history = [earlier.select(keep) for earlier in history]
                iterate = visit.rows
        history = [*history, visit][-max(PERIODS) :]


def _assemble(iterate: Tensor, active: Tensor, prediction: Tensor | None) -> Tensor:
    """Return the iterate of all images: what is known of those left out, and the active ones."""
    if prediction is None:
        return iterate
    prediction[active] = iterate
    return prediction


def _periods(visit: Visit, history: Sequence[Visit]) -> Tensor:
    """Return after how many steps each image's iterate has come back, (n,), 0 where it has not."""
    periods = torch.zeros(len(visit.rows), dtype=torch.int64, device=visit.rows.device)
    for period in PERIODS:
        if period <= len(history):
            earlier = history[-period]
            may_be_back = (earlier.sums == visit.sums) & (periods == 0)
            places = torch.nonzero(may_be_back)[:, 0]
            is_back = (earlier.rows[places] == visit.rows[places]).flatten(1).all(1)
            periods[places[is_back]] = period
    return periods


def choose_rows(is_known: Tensor, granule: int = GRANULE) -> Tensor:
    """Return the places of rows (N,) that are not known, in order, filled up to a multiple of `granule`."""
    order = torch.argsort(is_known.to(torch.int64), stable=True)
    count = int((~is_known).sum())
    places, _ = torch.sort(order[: -(-count // granule) * granule])
    return places


def _predict(
    whole: Tensor, ahead: int, visit: Visit, history: Sequence[Visit], active: Tensor, periods: Tensor
) -> None:
    """Write into `whole` what the iterate of each periodic image is `ahead` steps from now."""
    for period in PERIODS:
        places = torch.nonzero(periods == period)[:, 0]
        phase = ahead % period
        source = visit if phase == 0 else history[phase - period]
        whole[active[places]] = source.rows[places]


def select_rows(tensor: Tensor, places: Tensor) -> Tensor:
    """Return some rows of a tensor, in its own memory format."""
    is_channels_last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    rows = tensor[places]
    return rows.contiguous(memory_format=torch.channels_last) if is_channels_last else rows.contiguous()
