"""The machine that a benchmark ran on, as its tables name it."""

import os
import platform
from pathlib import Path

import torch

from interpret_robust.core.process_pool import count_cores


def describe_machine() -> dict[str, str]:
    """Return what decides a time, by name: processor, its instruction set and cores, threads, torch, GPU, and the load.

    `load` is the mean number of running processes over the last minute, by which to see whether others computed too.
    """
    description = {
        "processor": name_processor(),
        "instruction set": torch.backends.cpu.get_cpu_capability(),
        "cores": str(count_cores()),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load": f"{os.getloadavg()[0]:.1f}",
    }
    if torch.cuda.is_available():
        description |= {"gpu": torch.cuda.get_device_name(), "cuda": str(torch.version.cuda)}
    return description


def name_processor() -> str:
    """Return the processor's name: the first `model name` of /proc/cpuinfo where there is one, else the system's."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
