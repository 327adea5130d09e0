"""Which device computes, and how exactly."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch

from interpret_robust.core import ranks
from interpret_robust.core.errors import UserError, unknown

DEVICES = ("auto", "cpu", "cuda")

T = TypeVar("T")


def resolve(name: str | torch.device) -> torch.device:
    """Return the device for `auto`, `cpu` or `cuda`; `exact` says how it computes.

    Raises UserError where CUDA is asked for and there is none.
    """
    name = str(name)  # a program may give torch's own
    if name.startswith("cuda:"):
        raise UserError(
            f"device '{name}' is no choice: --device cuda takes the first GPU that is visible, and "
            f"CUDA_VISIBLE_DEVICES={name.removeprefix('cuda:')} before the command chooses which."
        )
    if name not in DEVICES:
        raise unknown("device", name, DEVICES)
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device 'cuda' was asked for and torch sees no CUDA device: use --device cpu or auto.")
    return ranks.find_gpu() if name != "cpu" and torch.cuda.is_available() else torch.device("cpu")


@contextmanager
def exact() -> Iterator[None]:
    """Compute in full float32, deterministically and with gradients, whatever the process does otherwise.

    Inside neither TF32, bfloat16 nor autocast shorten numbers, new tensors are float32 and on the CPU unless their
    device is named, and gradients are recorded. All settings are afterwards as they were before, also after an
    exception; those of the whole process when the last thread has left.

    Example:
        >>> with exact():
        ...     logits = model(images)
    """
    with ExitStack() as settings:
        settings.enter_context(torch.inference_mode(mode=False))
        settings.enter_context(torch.enable_grad())
        if torch.get_default_device().type != "cpu":  # it makes each call slower
            settings.enter_context(torch.device("cpu"))
        for kind in ("cpu", "cuda"):
            settings.enter_context(torch.autocast(kind, enabled=False))
        settings.enter_context(_exact_settings.hold())
        yield


class _ExactSettings:
    """Settings of the process that are exact as long as some thread is inside."""

    def __init__(self) -> None:
        self._lock, self._count = threading.Lock(), 0
        self._restore: Callable[[], None] = lambda: None

    @contextmanager
    def hold(self) -> Iterator[None]:
        with self._lock:
            if self._count == 0:
                self._restore = _save_settings()
            self._count += 1
        try:
            _set_exact()
            yield
        finally:
            with self._lock:
                self._count -= 1
                if self._count == 0:
                    self._restore()


_exact_settings = _ExactSettings()


def _set_exact() -> None:
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False  # the old names too: a network may read them
    for backend in _precision_backends():
        backend.fp32_precision = "ieee"
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.set_default_dtype(torch.float32)


def _save_settings() -> Callable[[], None]:
    """Return what gives the process the settings back that it has now."""
    precisions = [(backend, backend.fp32_precision) for backend in _precision_backends()]
    matmul, convolutions = _read(torch.get_float32_matmul_precision), _read(lambda: torch.backends.cudnn.allow_tf32)
    deterministic, benchmark = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    dtype = torch.get_default_dtype()

    def restore() -> None:
        torch.set_default_dtype(dtype)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = deterministic, benchmark
        if matmul is not None:
            torch.set_float32_matmul_precision(matmul)
        if convolutions is not None:
            torch.backends.cudnn.allow_tf32 = convolutions
        for backend, _ in precisions:  # what is inherited from the general one is read as if it were set
            backend.fp32_precision = "none"
        for backend, precision in precisions:
            if backend.fp32_precision != precision:
                backend.fp32_precision = precision

    return restore


def _read(old_setting: Callable[[], T]) -> T | None:
    """Return a setting by its old name, None where new ones contradict it, so that torch raises."""
    try:
        return old_setting()
    except RuntimeError:
        return None


def _precision_backends() -> list[Any]:
    """Return what has a precision of float32 of its own, the general before the special."""
    backends: Any = torch.backends
    cudnn, mkldnn = backends.cudnn, backends.mkldnn
    by_library = [backends, backends.cuda.matmul, cudnn, cudnn.conv, cudnn.rnn]
    return [*by_library, mkldnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn]


def wait_for(device: torch.device) -> None:
    """Return when the device has done all that its current stream was given, of which a clock knows nothing before."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def describe(device: torch.device) -> str:
    """Return the device's name as a person knows it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


@contextmanager
def preserve_threads() -> Iterator[None]:
    """Restore the number of threads afterwards, whatever is set inside."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
