"""Several processes that do one job together, as torchrun starts them; a process that it did not start is alone.

    torchrun --nproc-per-node 2 -m interpret_robust train at

Each process is a rank. Rank 0 alone writes files, prints, and decides what depends on files or on the clock; the
others follow. Alone, all of this costs nothing.
"""

import gc
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from datetime import timedelta
from typing import Any
from uuid import uuid4

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]

from interpret_robust.core.errors import UserError
from interpret_robust.core.interruption import Stopped
from interpret_robust.core.locks import Lock

PATIENCE = timedelta(hours=6)
"""How long a rank waits for another that is at work. One that has died is noticed at once."""


POLL = 0.02
"""Seconds between two looks for another rank while they meet."""


class FromFirst(UserError):
    """What went wrong on rank 0, as every other rank hears of it."""


@contextmanager
def process_group() -> Iterator[None]:
    """Yield the processes that torchrun started, as one group, of which only rank 0 has anything to say.

    Raises UserError on a rank whose peers have gone.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    # NCCL refuses two ranks on one GPU.
    on_gpus = torch.cuda.is_available() and local <= torch.cuda.device_count()
    try:
        store, rank, world = next(rendezvous("env://", timeout=PATIENCE))
        backend, store = "cpu:gloo,cuda:nccl" if on_gpus else "gloo", _new_place(store, rank, world)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=PATIENCE)
        with _quiet() if find_rank() else nullcontext():
            yield
        gc.collect()  # what DDP has left in cycles aborts the process if it outlives the group
        dist.destroy_process_group()  # not after an error, of which the others may not know: it would wait for them
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise UserError(
            f"rank {os.environ['RANK']} has lost the other processes of its job; everything that was saved is kept."
        ) from error


def _new_place(store: Any, rank: int, world: int) -> Any:
    """Return a part of torchrun's store that is new each time the workers start.

    The store outlives workers, and holds the addresses of those that have died: a quick worker would call these. So
    rank 0 calls under a new name, each other rank answers under its own, and hears the first one's only when that
    has read it. Restart counts will not do for a name: they differ between nodes.
    """
    name, call = uuid4().hex, "irt/call"
    if rank == 0:
        store.set(call, name)
        for answer in [_answer(store, follower, name) for follower in range(1, world)]:
            store.set(f"irt/{answer}", name)
        return PrefixStore(name, store)
    while not store.check([f"irt/{name}"]):
        if store.check([call]):
            store.set(f"irt/answer/{rank}", f"{store.get(call).decode()} {name}")
        time.sleep(POLL)
    return PrefixStore(store.get(f"irt/{name}").decode(), store)


def _answer(store: Any, rank: int, expected_call: str) -> str:
    """Return the name under which a rank has answered to this call."""
    while True:
        if store.check([f"irt/answer/{rank}"]):
            call, name = str(store.get(f"irt/answer/{rank}"), "ascii").split()
            if call == expected_call:
                return name
        time.sleep(POLL)


@contextmanager
def _quiet() -> Iterator[None]:
    with open(os.devnull, "w") as null_device, redirect_stdout(null_device), redirect_stderr(null_device):
        yield


def find_rank() -> int:
    """Return which rank this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def count_ranks() -> int:
    """Return how many ranks there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def count_restarts() -> int:
    """Return how often torchrun has started the workers of this job again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def find_gpu() -> torch.device:
    """Return the GPU of this rank."""
    if count_ranks() == 1:
        return torch.device("cuda")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def take_part(length: int) -> slice:
    """Return this rank's part of so many things; all parts together are all of them, in order."""
    return slice(length * find_rank() // count_ranks(), length * (find_rank() + 1) // count_ranks())


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Return the sum over all ranks, on each of them. It has no gradient."""
    if count_ranks() == 1:
        return tensor
    totals = tensor.clone()
    dist.all_reduce(totals)
    return totals


def gather_flags(*flags: bool) -> tuple[bool, ...]:
    """Return which of the flags are up on some rank."""
    if count_ranks() == 1:
        return flags
    return tuple(bool(flag) for flag in sum_over_ranks(torch.tensor(flags, dtype=torch.int32)))


def wait() -> None:
    """Wait until all ranks are here."""
    gather_flags(False)


def wait_for_turn(lock: Lock, is_late: Callable[[], bool]) -> Iterator[None]:
    """Yield while another job makes the file of `lock`, until rank 0 of this one holds it.

    Raises Stopped on all ranks where one of them is late.
    """
    while not run_on_first(lock.attempt):
        if gather_flags(is_late())[0]:
            raise Stopped(f"{lock.path.name} is still being made by another process")
        yield


def run_on_first(action: Callable[[], Any]) -> Any:
    """Do `action` on rank 0 alone; return its answer, something that JSON can hold, on every rank.

    A UserError of the action is raised on every rank.
    """
    if count_ranks() == 1:
        return action()
    return json.loads(share_bytes(lambda: json.dumps(action()).encode()))


def share_bytes(action: Callable[[], bytes]) -> bytes:
    """Do what `run_on_first` does, for bytes."""
    if count_ranks() == 1:
        return action()
    if find_rank() > 0:
        message = _broadcast(None)
        if message[:1] == _ERROR:
            raise FromFirst(message[1:].decode())
        return message[1:]
    try:
        data = action()
    except UserError as error:
        _broadcast(_ERROR + str(error).encode())
        raise
    _broadcast(_GOOD + data)
    return data


_GOOD, _ERROR = b"+", b"!"


def _broadcast(text: bytes | None) -> bytes:
    """Return the text that rank 0 sends to all ranks."""
    length = torch.tensor(len(text or b""))
    dist.broadcast(length, 0)
    data = torch.frombuffer(bytearray(text), dtype=torch.uint8) if text else torch.empty(int(length), dtype=torch.uint8)
    dist.broadcast(data, 0)
    return data.numpy().tobytes()
