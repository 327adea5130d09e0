"""Iterates of attacks that several analyses of one model ask for in one process: computed once, then read again.

An iterate is kept under all that decides it: the model (its weights' SHA-256, what kind of network it is, the kind of
device), the ball, the step size, the loss, the batch-norm mode, the number of the step, and of each image the SHA-256
of its pixels, its label and its start, which holds the seed. Nothing is written to disk, and no answer needs it: what
is not here is computed, with the same bits.
"""

import hashlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from interpret_robust.attacks.cycles import GRANULE

MOST_BYTES = 256 * 2**20
"""Of the iterates that a process keeps, float32 on the CPU. They are of one model; what no longer fits is not kept."""


class _Reading(NamedTuple):
    """An iterate (N, C, H, W), the SHA-256 of each row's inputs, and how many gradients each row has cost (N,)."""

    rows: tuple[bytes, ...]
    iterate: Tensor
    counts: Tensor


_identities: dict[nn.Module, Hashable] = {}
_readings: dict[tuple[Hashable, ...], _Reading] = {}


@contextmanager
def share_attacks(model: nn.Module, identity: Hashable | None) -> Iterator[None]:
    """Share attacks on `model` with models of equal identity while this is entered; None shares nothing.

    What is kept of models of another identity is dropped.
    """
    if identity is None:
        yield
        return
    for place in [place for place in _readings if place[0] != identity]:
        _readings.pop(place, None)
    _identities[model] = identity
    try:
        yield
    finally:
        _identities.pop(model, None)


def read(
    model: nn.Module,
    attack: Hashable,
    inputs: tuple[Tensor, Tensor, Tensor],
    steps: Sequence[int],
    compute: Callable[[Tensor | None], Iterator[tuple[int, Tensor]]],
    counts: Tensor | None,
    *,
    is_exact: bool,
) -> Iterator[tuple[int, Tensor]]:
    """Yield (step, iterate (N, C, H, W)) for each of `steps`, as `compute` does for counts like `counts`.

    Args:
        model: nothing is kept of one that is not entered in `share_attacks`.
        attack: all that decides an iterate beside the model and the inputs.
        inputs: images (N, C, H, W), starts of their shape, labels (N,).
        steps: rising.
        compute: gives the same, and adds to counts (N,) how many gradients each row has cost.
        counts: (N,) int64, or None; the same is added to them where nothing has to be computed.
        is_exact: whether a row does not depend, bit for bit, on the rest of a batch of at least GRANULE.
    """
    if model not in _identities or len(inputs[0]) == 0:
        yield from compute(counts)
        return
    rows = _digests(*inputs)
    places = [(_identities[model], attack, rows[0], step) for step in steps]
    candidates = [_readings[place] for place in places if place in _readings]
    readings = [reading for reading in candidates if _serves(reading, rows, counts, is_exact=is_exact)]
    device, own_counts = inputs[0].device, torch.zeros(len(rows), dtype=torch.int64, device=inputs[0].device)
    if len(readings) == len(steps):
        for step, reading in zip(steps, readings, strict=True):
            own_counts = reading.counts.to(device)
            yield step, reading.iterate[: len(rows)].to(device, copy=True)
    else:
        for (step, iterate), place in zip(compute(own_counts), places, strict=True):
            _keep(place, _Reading(rows, iterate.detach().to("cpu", copy=True), own_counts.to("cpu", copy=True)))
            yield step, iterate
    if counts is not None:
        counts += own_counts


def _digests(images: Tensor, starts: Tensor, labels: Tensor) -> tuple[bytes, ...]:
    """Return the SHA-256 of all that is known of each row."""
    arrays = [tensor.detach().cpu().numpy() for tensor in (images, starts, labels)]
    return tuple(
        hashlib.sha256(b"".join(row.tobytes() for row in parts)).digest() for parts in zip(*arrays, strict=True)
    )


def _serves(reading: _Reading, rows: tuple[bytes, ...], counts: Tensor | None, *, is_exact: bool) -> bool:
    """Return whether a reading holds these rows: the same batch, or, where that is the same bit for bit, its beginning.

    Counts go by the whole batch.
    """
    if reading.rows == rows:
        return True
    is_beginning = reading.rows[: len(rows)] == rows
    return is_exact and counts is None and is_beginning and len(rows) >= GRANULE


def _keep(place: tuple[Hashable, ...], reading: _Reading) -> None:
    """Keep a reading where it fits, unless one of more rows is there."""
    reading_so_far = _readings.get(place)
    if reading_so_far is not None and len(reading_so_far.rows) >= len(reading.rows):
        return
    sizes = (other.iterate.nbytes for key, other in list(_readings.items()) if key != place)
    if sum(sizes) + reading.iterate.nbytes <= MOST_BYTES:
        _readings[place] = reading
