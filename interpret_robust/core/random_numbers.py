"""Random numbers of an analysis: a stream for each image, so that nothing depends on batches, order or resuming."""

from collections.abc import Sequence

import numpy as np


def streams(seed: int, indices: Sequence[int], purpose: int = 0) -> list[np.random.Generator]:
    """Return a generator for each image.

    A function of the seed, the image's index in its dataset and the purpose alone.
    """
    keys = ([seed, index, purpose] for index in indices)
    return [np.random.Generator(np.random.Philox(np.random.SeedSequence(key))) for key in keys]
