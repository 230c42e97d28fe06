"""A session as a search sees it (search/lab.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from torch.fx import GraphModule

from ..adjusters.plan import Context
from ..configs.recipe import Recipe, Step
from ..core.progress import Progress
from ..core.records import Latency, Record, Target, Verification
from ..search.decision import Decision
from ..search.lab import HeldOut
from ..search.variant import Variant
from .candidates import build, model_at
from .delivery import staged, verified
from .exclusions import reason_of
from .ledger import BUILDING
from .session import Session

SECONDS = 5.0  # of measuring in the fresh process, for one candidate
T = TypeVar("T")


@dataclass(frozen=True)
class SessionLab:
    """`record` and `out`: what a candidate's artifact says, and beside what it is staged.

    `usual`: the runtime that is fastest for lossless work.
    """

    session: Session
    record: Record
    out: Path
    usual: str

    @property
    def recipe(self) -> Recipe:
        return self.session.recipe

    @property
    def target(self) -> Target:
        return self.session.job.target

    @property
    def reference(self) -> Latency:
        return self.session.reference

    @property
    def quiet_ms(self) -> float:
        return self.session.quiet_ms

    @property
    def runtime(self) -> str:
        return self.session.trusted(self.usual)

    @property
    def has_data(self) -> bool:
        return self.session.data is not None

    @property
    def progress(self) -> Progress:
        return self.session.progress

    @cached_property
    def fingerprint(self) -> str:
        return self.session.fingerprint

    def start(self, step: Step) -> Context:
        return self.context(model_at(self.session, step).module)

    def context(self, module: GraphModule) -> Context:
        return self.session.context(module)

    def build(self, decision: Decision, *, recover: bool = False) -> Variant:
        session = self.session
        with session.ledger.spends(BUILDING), session.time.building():
            return build(session, decision, recover=recover)

    def runtime_for(self, module: GraphModule) -> str:
        return self.session.runtime_for(module, self.runtime)

    def runtimes_for(self, module: GraphModule) -> tuple[str, ...]:
        return self.session.runtimes_for(module, self.runtime)

    def latency(self, variant: Variant, runtimes: tuple[str, ...] = ()) -> tuple[Latency, str]:
        with self.session.time.measuring():
            return self.session.relative_latency(variant.module, runtimes)

    def held_out(self, variant: Variant | None) -> HeldOut:
        return self.session.held_out(None if variant is None else variant.module)

    def verify(self, variant: Variant) -> Verification:
        variant = variant.under(self.session.trusted(variant.runtime))
        with staged(self.session, variant, self.record, self.out) as artifact:
            return verified(self.session, artifact, variant, self.record, SECONDS, judged=False)[-1]

    def remember(self, stage: str, kind: type[T], make: Callable[[], T]) -> T:
        return self.session.journal.kept(stage, kind, make)

    def recall(self, stage: str, kind: type[T]) -> T | None:
        return self.session.journal.get(stage, kind)

    def write_down(self, stage: str, value: Any) -> None:
        self.session.journal.put(stage, value)

    def leave_out_step(self, place: int, error: Exception) -> None:
        reason = reason_of(error, f"`{self.recipe.adjust[place].name}`")
        self.session.exclusions.leave_out_step(place, reason)

    def set_aside(self, name: str, why: Exception | str) -> str:
        reason = reason_of(why, name) if isinstance(why, Exception) else why
        self.session.exclusions.set_aside(name, reason)
        return reason

    def in_time(self, seconds: float | None = None) -> bool:
        time = self.session.time
        return time.in_search(time.costs.candidate if seconds is None else seconds)
