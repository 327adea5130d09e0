"""Iterates of a repeated step, without computing again what repeats.

Against adversarially trained networks the iterate of fixed-step signed PGD often returns, bit for bit, to where it was
one, two or four steps before. If the step is a function of the iterate alone, everything later repeats, so that such an
image needs no more gradients. Measured on `small` networks, 98 to 207 of 300 gradients an image are left; naturally
trained networks gain nothing.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

PERIODS = (1, 2, 4)
"""Lengths of the cycles that are looked for."""
FIRST_CHECK = 8
"""The step from which cycles are looked for: there are none before most images have come to rest."""
GRANULE = 32
"""The number of images that are still computed is a multiple of this: kernels for few images may round otherwise."""


def read_at(
    advance: Callable[..., Tensor],
    start: Tensor,
    constants: Sequence[Tensor],
    steps: Sequence[int],
    *,
    look_for_cycles: bool,
    counts: Tensor | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Yield (step, iterate (N, ...)) for each of `steps`, bit for bit as if no image were ever left out.

    Args:
        advance: gives the next iterate from an iterate and the constants, each image by itself.
        start: iterate 0, (N, ...).
        constants: tensors with a row an image that `advance` takes after the iterate.
        steps: rising, from 0 on.
        look_for_cycles: whether `advance` is a function of its arguments alone, the same for any subset of the images.
        counts: (N,) int64; 1 is added for each step that is computed for an image.

    Example:
        >>> flip = lambda x: -x
        >>> [int(x) for _, x in read_at(flip, torch.ones(1, 1), (), [1, 2, 101], look_for_cycles=True)]
        [-1, 1, -1]
    """
    iterate, active = start, torch.arange(len(start), device=start.device)
    history = [iterate]
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
        if look_for_cycles and step >= FIRST_CHECK and len(active):
            periods = _periods(iterate, history)
            keep = rows_to_compute(periods > 0)
            if len(keep) < len(active):
                for later in (reading for reading in steps if reading > step):
                    whole = predictions.setdefault(later, torch.empty_like(start))
                    _predict(whole, later - step, iterate, history, active, periods)
                iterate, active = select_rows(iterate, keep), active[keep]
                constants = [select_rows(constant, keep) for constant in constants]
                history = [select_rows(earlier, keep) for earlier in history]
        history = [*history, iterate][-max(PERIODS) :]


def _assemble(iterate: Tensor, active: Tensor, prediction: Tensor | None) -> Tensor:
    """Return the iterate of all images: what is known of those left out, and the active ones."""
    if prediction is None:
        return iterate
    prediction[active] = iterate
    return prediction


def _periods(iterate: Tensor, history: Sequence[Tensor]) -> Tensor:
    """Return after how many steps each image's iterate has come back, (n,), 0 where it has not."""
    periods = torch.zeros(len(iterate), dtype=torch.int64, device=iterate.device)
    sums = _sums(iterate)
    for period in PERIODS:
        if period <= len(history):
            earlier = history[-period]
            may_be_back = (_sums(earlier) == sums) & (periods == 0)
            places = torch.nonzero(may_be_back)[:, 0]
            is_back = (earlier[places] == iterate[places]).flatten(1).all(1)
            periods[places[is_back]] = period
    return periods


def _sums(rows: Tensor) -> Tensor:
    """Return the sum of each row (n, ...): a tenth of the time of a comparison, and rarely equal by chance."""
    return rows.sum(tuple(range(1, rows.ndim)))


def rows_to_compute(is_known: Tensor) -> Tensor:
    """Return the places of rows (N,) that are not known, in order, filled up to a multiple of GRANULE."""
    order = torch.argsort(is_known.to(torch.int64), stable=True)
    count = int((~is_known).sum())
    places, _ = torch.sort(order[: -(-count // GRANULE) * GRANULE])
    return places


def _predict(
    whole: Tensor, ahead: int, iterate: Tensor, history: Sequence[Tensor], active: Tensor, periods: Tensor
) -> None:
    """Write into `whole` what the iterate of each periodic image is `ahead` steps from now."""
    for period in PERIODS:
        places = torch.nonzero(periods == period)[:, 0]
        phase = ahead % period
        source = iterate if phase == 0 else history[phase - period]
        whole[active[places]] = source[places]


def select_rows(tensor: Tensor, places: Tensor) -> Tensor:
    """Return some rows of a tensor, in its own memory format."""
    is_channels_last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    rows = tensor[places]
    return rows.contiguous(memory_format=torch.channels_last) if is_channels_last else rows.contiguous()
