"""The largest memory that one stage used: on a GPU, or of a process that trains one stage after another."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

_RESET = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def start_peak() -> None:
    """Forget the peaks of earlier stages of this process."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif sys.platform == "linux":
        _RESET.write_text("5", encoding="ascii")  # Linux: lower the high-water mark to what is resident now


def peak_bytes(device: torch.device) -> int:
    """Bytes since `start_peak`: allocated on the GPU, or resident in this process on a CPU.

    Only Linux lets a process lower its high-water mark; elsewhere the figure is the process's largest so far.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "linux":
        line = next(row for row in _STATUS.read_text(encoding="ascii").splitlines() if row.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024  # of `ru_maxrss`
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
