"""Batches from a dataset that lies on the device as uint8, or of pictures decoded for each.

Shuffled, cropped, flipped, then floats.

Everything random is a function of (seed, epoch) or (seed, step), so a run can be taken up at any step.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.process_pool import count_cores
from interpret_robust.datasets.base import Split

SHUFFLE, AUGMENT, ATTACK = range(3)
"""The streams of random numbers of a training run."""


def make_generator(device: torch.device, seed: int, stream: int, count: int) -> torch.Generator:
    """Return a generator on `device` whose state depends on these three numbers alone."""
    state = np.random.SeedSequence([seed, stream, count]).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0] >> np.uint64(1)))


def to_device(split: Split, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return images (N, C, H, W) uint8 in channels-last memory and labels (N,) int64, on `device`."""
    images = torch.from_numpy(split.images[:]).to(device).permute(0, 3, 1, 2)
    return images.contiguous(memory_format=torch.channels_last), torch.from_numpy(split.labels).to(device)


def to_pixels(images: Tensor) -> Tensor:
    """Return uint8 images as float32 pixels in [0, 1]."""
    return images.float().div_(255)


class DecodedPictures:
    """Pictures as a tensor (N, C, H, W) of uint8 would be: `pictures[indices]` decodes these, on a device."""

    def __init__(self, split: Split, device: torch.device) -> None:
        height, width, channels = split.images.shape[1:]
        self.shape = (len(split), channels, height, width)
        self._split, self._device = split, device

    def __getitem__(self, indices: Tensor) -> Tensor:
        return to_device(self._split.take(indices.cpu().numpy()), self._device)[0]


class TrainingBatches:
    """Endless training batches by step number; the short tail of an epoch is dropped.

    Args:
        split: the training images.
        batch_size: images a step, at most the number of images.
        seed: of the order and the augmentation.
        pad: zero pixels added on each side before a random crop back to size; 0 for none.
        flip: mirror half of the images.
        part: which images of each batch are given. What an image looks like does not depend on it: all that is random
            is drawn for the whole batch, and only these images are decoded.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        seed: int,
        device: torch.device,
        *,
        pad: int,
        flip: bool,
        part: slice = slice(None),
    ) -> None:
        images: Any = to_device(split, device)[0] if split.pictures is None else DecodedPictures(split, device)
        self.images, self.labels = images, torch.from_numpy(split.labels).to(device)
        self.batch_size, self.seed, self.device = batch_size, seed, device
        self.pad, self.flip, self.part = pad, flip, part
        self.steps_per_epoch = len(split) // batch_size
        self._order = lru_cache(maxsize=1)(self._draw_order)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return pixels (part, C, H, W) float32 in [0, 1] and labels (part,) of a step."""
        epoch, position = divmod(step, self.steps_per_epoch)
        indices = self._order(epoch)[position * self.batch_size :][: self.batch_size]
        part = indices[self.part]
        images = self.images[part]
        random = make_generator(self.device, self.seed, AUGMENT, step)
        if self.pad:
            images = crop(images, self.pad, draw_shifts(self.batch_size, self.pad, random)[:, self.part])
        if self.flip:
            images = mirror(images, draw_mirroring(self.batch_size, random)[self.part])
        return to_pixels(images).contiguous(memory_format=torch.channels_last), self.labels[part]

    def noise(self, step: int) -> Tensor:
        """Return uniform noise (part, C, H, W) in [-1, 1): where the attack on a step's images begins."""
        random = make_generator(self.device, self.seed, ATTACK, step)
        uniform = torch.rand(self.batch_size, *self.images.shape[1:], generator=random, device=self.device)
        return (2 * uniform - 1)[self.part]

    def _draw_order(self, epoch: int) -> Tensor:
        random = make_generator(self.device, self.seed, SHUFFLE, epoch)
        return torch.randperm(len(self.labels), generator=random, device=self.device)


def draw_shifts(count: int, pad: int, random: torch.Generator) -> Tensor:
    """Return rows and columns (2, count) int64 from 0 to 2 `pad`: where crops of padded images begin."""
    return torch.randint(0, 2 * pad + 1, (2, count), generator=random, device=random.device)


def crop(images: Tensor, pad: int, shifts: Tensor) -> Tensor:
    """Pad each side by `pad` zeros and cut each image (N, C, H, W) back to size at its own place of (2, N)."""
    count, _, height, width = images.shape
    canvas = F.pad(images, (pad, pad, pad, pad))
    rows = shifts[0, :, None] + torch.arange(height, device=images.device)
    columns = shifts[1, :, None] + torch.arange(width, device=images.device)
    image = torch.arange(count, device=images.device)[:, None, None]
    return canvas.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def draw_mirroring(count: int, random: torch.Generator) -> Tensor:
    """Return for each image whether it is mirrored (count,), with probability one half."""
    return torch.rand(count, generator=random, device=random.device) < 0.5


def mirror(images: Tensor, is_mirrored: Tensor) -> Tensor:
    """Mirror those images of (N, C, H, W) left to right for which (N,) says so."""
    return torch.where(is_mirrored[:, None, None, None], images.flip(3), images)


@dataclass(frozen=True)
class Batch:
    """Images (N, C, H, W) as pixels in [0, 1], labels (N,), indices in the split, masks (N, H, W) or None."""

    images: Tensor
    labels: Tensor
    indices: range
    masks: AnyArray | None


AHEAD = 2
"""Batches of pictures that are decoded while one is used; with one, threads would idle until its last is decoded."""


def read_batches(split: Split, places: Iterable[range], device: torch.device) -> Iterator[Batch]:
    """Yield the images of a split at each of some places, on `device`; pictures are decoded ahead, by a thread a core.

    Raises UserError for a damaged picture when its batch is asked for.
    """
    if split.pictures is None:
        yield from (_move_batch(split, indices, device) for indices in places)
        return
    pool, pending = ThreadPoolExecutor(count_cores()), deque[Callable[[], Batch]]()
    try:
        for indices in places:
            pending.append(_begin_batch(split, indices, device, pool))
            if len(pending) > AHEAD:
                yield pending.popleft()()
        while pending:
            yield pending.popleft()()
    finally:
        pool.shutdown(cancel_futures=True)


def make_batch(split: Split, indices: range, device: torch.device) -> Batch:
    """Return the images of a split at `indices`, on `device`."""
    (batch,) = read_batches(split, [indices], device)
    return batch


def _move_batch(split: Split, indices: range, device: torch.device) -> Batch:
    part = split.take(slice(indices.start, indices.stop))
    images, labels = to_device(part, device)
    return Batch(to_pixels(images), labels, indices, part.masks)


def _begin_batch(split: Split, indices: range, device: torch.device, pool: Executor) -> Callable[[], Batch]:
    """Begin to decode pictures, and their masks, in threads; return what waits for the batch.

    For the CPU these threads also do what `to_pixels` does.
    """
    are_bytes = device.type != "cpu"
    # NumPy asks for large pages of memory, which torch does not.
    images = np.empty((len(indices), *split.images.shape[1:]), np.uint8 if are_bytes else np.float32)
    masks = None if split.masks is None else np.empty((len(indices), *split.masks.shape[1:]), np.bool_)
    part: Any = split.take(slice(indices.start, indices.stop))

    def fill(row: int, image: AnyArray) -> None:
        if are_bytes:
            images[row] = image
        else:
            np.divide(image, np.float32(255), out=images[row])

    waits = [part.images.decode(pool, fill)]
    if masks is not None:
        waits.append(part.masks.decode(pool, masks.__setitem__))

    def finish() -> Batch:
        for wait in waits:
            list(wait)
        pixels, labels = to_device(Split(images, part.labels), device)
        return Batch(to_pixels(pixels) if are_bytes else pixels, labels, indices, masks)

    return finish


BATCH_SIZE, BATCH_PIXELS = 250, 2**20
"""The most images, and the most pixels of one color, that are computed at once unless a user says otherwise."""


def choose_batch_size(height: int, width: int) -> int:
    """Return how many images of this size are computed at once where nobody says: fewer of large ones, for memory.

    Example:
        >>> choose_batch_size(32, 32), choose_batch_size(224, 224)
        (250, 20)
    """
    return max(1, min(BATCH_SIZE, BATCH_PIXELS // (height * width)))


def list_batch_places(split: Split, size: int | None = None) -> Iterator[range]:
    """Yield the places of the images of each batch of `size`, by default of `choose_batch_size`."""
    size = size or choose_batch_size(*split.images.shape[1:3])
    return (range(first, min(first + size, len(split))) for first in range(0, len(split), size))


def to_numpy(tensor: Tensor) -> AnyArray:
    """Return a tensor's values on the host."""
    values: AnyArray = np.asarray(tensor.detach().cpu())
    return values
