"""The world as a search sees it. `tuning` answers with real models, tests with arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from torch.fx import GraphModule

from ..adjusters.plan import Context
from ..configs.recipe import Recipe, Step
from ..core.progress import Progress
from ..core.records import Latency, Target, Verification
from .decision import Decision
from .variant import Variant

T = TypeVar("T")


@dataclass(frozen=True)
class HeldOut:
    """A variant on the data that decides: the metric, and the divergence from the original."""

    score: float
    divergence: float


class Lab(Protocol):
    """One opened job as the search sees it.

    `reference`: the original's latency, in whose ms all latencies are. `runtime`: what variants in
    float run under. `has_data`: `held_out` gives figures.
    """

    @property
    def recipe(self) -> Recipe: ...
    @property
    def target(self) -> Target: ...
    @property
    def reference(self) -> Latency: ...
    @property
    def quiet_ms(self) -> float:
        """The original's time in the quietest phase of the run so far."""

    @property
    def runtime(self) -> str: ...
    @property
    def has_data(self) -> bool: ...
    @property
    def progress(self) -> Progress: ...
    @property
    def fingerprint(self) -> str:
        """Of the machine with this job's device and dtype: what latency tables are valid for."""

    def start(self, step: Step) -> Context:
        """The model as it stands when the recipe reaches `step`, untrained."""

    def context(self, module: GraphModule) -> Context:
        """The adjusters' view of a graph made from the original."""

    def build(self, decision: Decision, *, recover: bool = False) -> Variant:
        """All edits of the recipe; `recover`: with compensation, or batch norms re-estimated.

        Raises what a step that the decision is about meets.
        """

    def runtimes_for(self, module: GraphModule) -> tuple[str, ...]:
        """Runtimes worth timing for a graph in another number format."""

    def runtime_for(self, module: GraphModule) -> str:
        """The fastest of them."""

    def latency(self, variant: Variant, runtimes: tuple[str, ...] = ()) -> tuple[Latency, str]:
        """Interleaved with the original, and the runtime it was fastest with (of `runtimes`)."""

    def held_out(self, variant: Variant | None) -> HeldOut:
        """Of the original for None. Only with data."""

    def verify(self, variant: Variant) -> Verification:
        """Measurements of the staged artifact in a fresh process; the artifact is thrown away."""

    def remember(self, stage: str, kind: type[T], make: Callable[[], T]) -> T:
        """The journal's entry for a stage; without one, it is made and written down."""

    def recall(self, stage: str, kind: type[T]) -> T | None:
        """The journal's next entry, if it is of that stage."""

    def write_down(self, stage: str, value: Any) -> None: ...

    def leave_out_step(self, place: int, error: Exception) -> None:
        """The recipe's step is left out from here on; the report says why."""

    def set_aside(self, name: str, why: Exception | str) -> str:
        """The report names it with the reason, which is returned."""

    def in_time(self, seconds: float | None = None) -> bool:
        """True if work of `seconds` (by default: one more candidate) still fits into the search's
        share of the time limit."""
