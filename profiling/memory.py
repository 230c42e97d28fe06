"""Memory that this process holds now, to tell what a model takes by the difference."""

from __future__ import annotations

import ctypes
import gc
import os
from pathlib import Path

import torch

STATM = Path("/proc/self/statm")


def used_memory(device: str = "cpu") -> int:
    """Bytes on `device`: what torch has allocated of a GPU, else the process's resident pages,
    after what is free was given back. 0 where the system does not tell."""
    gc.collect()
    if torch.device(device).type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    _trim()
    if not STATM.is_file():
        return 0
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _trim() -> None:
    """Freed memory goes back to the system, where the allocator can: otherwise the next model
    would be put into what the last one left, and seem to take nothing."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
