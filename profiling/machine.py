"""The machine a latency is valid for."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import torch

from ..core.errors import UsageError
from ..core.records import Machine


def usable_cores() -> int:
    """Cores this process may run on, which in a container are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def fingerprint(device: str = "cpu", dtype: torch.dtype = torch.float32) -> Machine:
    """Describes this process's machine; `fingerprint` is a hash (12 hex digits) of the rest."""
    machine = Machine(
        cpu=cpu_model(),
        cores=usable_cores(),
        threads=torch.get_num_threads(),
        device=_device_name(device),
        dtype=str(dtype).removeprefix("torch."),
        torch=str(torch.__version__),
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()}",
        isa=torch.backends.cpu.get_cpu_capability(),
    )
    facts = json.dumps(asdict(machine), sort_keys=True)
    return replace(machine, fingerprint=hashlib.sha256(facts.encode()).hexdigest()[:12])


@contextmanager
def threads(count: int) -> Iterator[int]:
    """Sets torch's intra-op threads for the block; 0 leaves them. Yields the number in force."""
    before = torch.get_num_threads()
    if count > 0:
        torch.set_num_threads(count)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    facts: dict[str, str] = {}
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            facts.setdefault(key.strip(), value.strip())
    name = facts.get("model name") or platform.processor() or platform.machine()
    # Virtual machines cut the name down to "AMD EPYC"; family and model still tell them apart.
    if "cpu family" in facts and "model" in facts:
        return f"{name} (family {facts['cpu family']}, model {facts['model']})"
    return name


def _device_name(device: str) -> str:
    if torch.device(device).type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"  # the same GPU twice is one machine
    return device


def check_device(device: str) -> None:
    """Raises UsageError where torch sees no such GPU."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.startswith("cuda") and (torch.device(device).index or 0) >= count:
        raise UsageError(f"the device is `{device}`, but torch sees {count} CUDA devices here.")
