"""Settings for running on this machine: flags, never part of the recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from ..core.bounds import BATCH, DEVICE, PERCENTILE, THREADS
from ..core.errors import UsageError
from ..core.records import Target
from .recipe import Recipe
from .sentences import as_text, nearest

Runtime = Literal["plain", "lowered", "inductor"]
AUTO_THREADS = -1


@dataclass(frozen=True)
class MachineFlags:
    """`threads` None leaves torch's own choice, AUTO_THREADS finds the fastest count here;
    `percentile`, `batch` None leave the recipe's."""

    device: str = "cpu"
    threads: int | None = None
    runtime: Runtime = "lowered"
    percentile: float | None = None
    batch: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises UsageError naming the first flag that can't be."""
        if meant := DEVICE.unlike(self.device):
            raise UsageError(f"`--device` is {as_text(self.device)}; it must be {meant}.")
        if self.runtime not in get_args(Runtime):
            hint = nearest(self.runtime, get_args(Runtime))
            raise UsageError(f"`--runtime` is {as_text(self.runtime)}; {hint}")
        threads = None if self.threads == AUTO_THREADS else self.threads
        for flag, value, bound in (
            ("threads", threads, THREADS),
            ("batch", self.batch, BATCH),
            ("percentile", self.percentile, PERCENTILE),
        ):
            if value is not None and (meant := bound.unlike(value)):
                raise UsageError(f"`--{flag}` is {value:g}; it must be {meant}.")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"`--seed` is {self.seed}; it must be from 0 to 2**63 - 1.")


def resolve_target(
    recipe: Recipe,
    flags: MachineFlags,
    ms: float | None = None,
    speedup: float | None = None,
    fastest: bool = False,
) -> Target:
    """The target of this run; flags (`--target-ms`, `--target-speedup`) win over the recipe."""
    if ms is not None and not (math.isfinite(ms) and ms > 0):
        raise UsageError(f"`--target-ms` is {ms:g}; it must be a finite number greater than 0.")
    if speedup is not None and not (math.isfinite(speedup) and speedup > 1):
        raise UsageError(
            f"`--target-speedup` is {speedup:g}; it must be a finite number greater than 1."
        )
    if ms is not None and speedup is not None:
        raise UsageError("`--target-ms` and `--target-speedup` exclude each other; keep one.")
    if fastest and (ms is not None or speedup is not None):
        raise UsageError(
            "`--fastest` is a goal of its own; leave out `--target-ms` and `--target-speedup`."
        )
    asked = recipe.target
    if ms is None and speedup is None and not fastest:
        ms, speedup, fastest = asked.ms, asked.speedup, asked.fastest
    return Target(
        fastest=fastest,
        ms=ms,
        speedup=speedup,
        percentile=asked.percentile if flags.percentile is None else flags.percentile,
        batch=asked.batch if flags.batch is None else flags.batch,
        device=flags.device,
        threads=0 if flags.threads in (None, AUTO_THREADS) else flags.threads,
        auto_threads=flags.threads == AUTO_THREADS,
        runtime=flags.runtime,
    )
