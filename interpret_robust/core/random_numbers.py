"""Random numbers of an analysis: a stream for each image, so that nothing depends on batches, order or resuming.

And those of the process, which a network may draw from.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch


def make_streams(seed: int, indices: Sequence[int], purpose: int = 0) -> list[np.random.Generator]:
    """Return a generator for each image.

    A function of the seed, the image's index in its dataset and the purpose alone.
    """
    keys = ([seed, index, purpose] for index in indices)
    return [np.random.Generator(np.random.Philox(np.random.SeedSequence(key))) for key in keys]


def read_generator_states(device: torch.device) -> tuple[bytes, ...]:
    """Return the states of the generators that a network on `device` may draw from: torch's, NumPy's and Python's.

    Two calls give equal states where nothing was drawn between them.
    """
    _, keys, place, *normal = np.random.get_state()
    states = [torch.get_rng_state().numpy().tobytes(), np.asarray(keys).tobytes(), repr((place, normal)).encode()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device).numpy().tobytes())
    return (*states, repr(random.getstate()).encode())


@contextmanager
def preserve_random_numbers(device: torch.device) -> Iterator[None]:
    """Restore the states of the same generators afterwards."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)


def seed_all(start: int, count: int) -> None:
    """Seed what `preserve_random_numbers` restores by two numbers, each below 2^32, torch on all devices."""
    seed = (start << 32) + count
    torch.manual_seed(seed)
    np.random.seed([start, count])
    random.seed(seed)
