"""Settings for running on this machine: flags, never part of the recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from ..core.errors import UsageError
from ..core.records import Target
from ..core.runtimes import DEFAULT_RUNTIME, RUNTIMES, Runtime
from . import flags as f
from .sentences import as_text, nearest

if TYPE_CHECKING:
    from .recipe import Recipe

AUTO_THREADS = -1
RUNTIME = f.Flag("--runtime", f.MACHINE_PANEL, " or ".join((", ".join(RUNTIMES[:-1]),
                 RUNTIMES[-1])))  # fmt: skip


@dataclass(frozen=True)
class MachineFlags:
    """The annotations make these the flags of commands; see cli/takes.py.

    `threads` None leaves torch's own choice, AUTO_THREADS finds the fastest count here;
    `percentile`, `batch` None leave the recipe's."""

    device: Annotated[str, f.DEVICE] = "cpu"
    threads: Annotated[int | None, f.AUTO_OR_THREADS] = None
    runtime: Annotated[Runtime, RUNTIME] = DEFAULT_RUNTIME
    percentile: Annotated[float | None, f.PERCENTILE] = None
    batch: Annotated[int | None, f.BATCH] = None
    seed: Annotated[int, f.SEED] = 0

    def __post_init__(self) -> None:
        """Raises UsageError naming the first flag that can't be."""
        f.DEVICE.check(self.device)
        if self.runtime not in RUNTIMES:
            hint = nearest(self.runtime, RUNTIMES)
            raise UsageError(f"`--runtime` is {as_text(self.runtime)}; {hint}")
        f.THREADS.check(None if self.threads == AUTO_THREADS else self.threads)
        f.BATCH.check(self.batch)
        f.PERCENTILE.check(self.percentile)
        f.SEED.check(self.seed)


def resolve_target(
    recipe: Recipe,
    flags: MachineFlags,
    ms: float | None = None,
    speedup: float | None = None,
    fastest: bool = False,
) -> Target:
    """The target of this run; flags (`--target-ms`, `--target-speedup`) win over the recipe."""
    f.TARGET_MS.check(ms)
    f.TARGET_SPEEDUP.check(speedup)
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
        batch=(asked.batch or 1) if flags.batch is None else flags.batch,
        device=flags.device,
        threads=0 if flags.threads in (None, AUTO_THREADS) else flags.threads,
        auto_threads=flags.threads == AUTO_THREADS,
        runtime=flags.runtime,
    )
