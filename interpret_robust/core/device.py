"""Which device computes, and how exactly."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from interpret_robust.core import ranks
from interpret_robust.core.errors import UserError, unknown

DEVICES = ("auto", "cpu", "cuda")


def resolve(name: str) -> torch.device:
    """Return the device for `auto`, `cpu` or `cuda`; arithmetic there is full float32 and deterministic.

    Raises UserError where CUDA is asked for and there is none.
    """
    if name not in DEVICES:
        raise unknown("device", name, DEVICES)
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device 'cuda' was asked for and torch sees no CUDA device: use --device cpu or auto.")
    device = ranks.gpu() if name != "cpu" and torch.cuda.is_available() else torch.device("cpu")
    torch.backends.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    return device


def describe(device: torch.device) -> str:
    """Return the device's name as a person knows it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def cores() -> int:
    """Return processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def preserve_threads() -> Iterator[None]:
    """Restore the number of threads afterwards, whatever is set inside."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
