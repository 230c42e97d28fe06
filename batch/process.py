"""One item as a process of its own: started, watched, ended, and why it ended so."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..core.errors import ModelspeedError
from ..core.files import read_text
from ..core.items import OF_CODE, Item, Status
from ..core.processes import python
from ..core.records import Record
from ..profiling.gate import VARIABLE, Enrolment
from ..reporting.json import loads
from .plan import ItemPlan

TAIL = 20_000  # bytes of a log that are looked at
PATIENCE = 10.0  # seconds between SIGTERM and SIGKILL
_OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "Cannot allocate memory",
                  "MemoryError", "std::bad_alloc", "CUDA out of memory")  # fmt: skip
_TALK = "modelspeed: "


@dataclass(frozen=True)
class Running:
    """An item at work, here or elsewhere; what it says is in its log from byte `begin` on."""

    plan: ItemPlan
    log: Path
    begin: int

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def stage(self) -> str:
        """The last stage that it reported."""
        lines = [t.strip() for t in self.said().splitlines() if t.rstrip().endswith(" ...")]
        return lines[-1].removesuffix(" ...") if lines else "starting"

    def said(self) -> str:
        """The end of it."""
        with self.log.open("rb") as file:
            file.seek(max(self.begin, self.log.stat().st_size - TAIL))
            return file.read().decode("utf-8", "replace")


@dataclass
class Process:
    """A running item and the process that does it."""

    seen: Running
    child: subprocess.Popen[bytes]
    enrolment: Enrolment
    attempt: int
    started: float = field(default_factory=time.monotonic)
    overdue: bool = False

    @classmethod
    def start(
        cls,
        plan: ItemPlan,
        log: Path,
        attempt: int,
        *,
        gate: Path,
        memory: int,
        more: tuple[str, ...],
    ) -> Process:
        """The plan's command in a process group of its own, that ends with this process."""
        words = (*plan.command, *more)
        before = python("-m", "modelspeed.batch.child", str(os.getpid()), str(memory))
        with log.open("ab") as out:
            begin = out.tell()
            child = subprocess.Popen(
                (*before, *words), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env=_environment(os.environ, gate), start_new_session=True,
            )  # fmt: skip
        return cls(Running(plan, log, begin), child, Enrolment(gate, child.pid), attempt)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def done(self) -> bool:
        self.enrolment.relieve()
        if self.child.poll() is None:
            return False
        self._sweep()
        return True

    def ended_late(self, minutes: float | None) -> bool:
        """Ended because its time was over."""
        if minutes is None or self.seconds < 60 * minutes:
            return False
        self.end()
        self.overdue = True
        return True

    def ask_to_end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGTERM)
            os.killpg(self.child.pid, signal.SIGCONT)

    def end(self) -> None:
        """Stop it: it may clean up for a while."""
        self.ask_to_end()
        try:
            self.child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()
        self._sweep()

    def _sweep(self) -> None:
        # Whatever it has started and left behind computes no more.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.enrolment.close()

    def item(self) -> Item:
        """The row of an item that has ended by itself."""
        code, plan = self.child.returncode, self.seen.plan
        status, reason = ending(code, self.seen.said())
        if self.overdue:
            status, reason, code = "too slow", f"still running after {self.seconds:.0f} s.", 1
        item = plan.item(
            status, reason=reason, code=code, attempts=self.attempt, seconds=round(self.seconds, 2)
        )
        if code not in OF_CODE:
            return item
        try:
            return item.measured(record_of(plan.folder))
        except (ModelspeedError, OSError) as error:
            return plan.item("failed", reason=str(error), code=1, attempts=self.attempt)


def ending(code: int, text: str) -> tuple[Status, str]:
    """Status and reason by exit code and what was printed."""
    words = [t.removeprefix(_TALK) for t in text.splitlines() if t.startswith(_TALK)]
    if code in OF_CODE:
        return OF_CODE[code], " ".join(words)
    last = next((t for t in reversed(text.splitlines()) if t.strip()), "it said nothing")
    if any(mark in text for mark in _OUT_OF_MEMORY):
        return "out of memory", " ".join(words) or last
    if code < 0:
        name = signal.Signals(-code).name
        hint = "; the system does that when memory runs out" if -code == signal.SIGKILL else ""
        return "killed", f"ended by {name}{hint}."
    return "failed", " ".join(words) or last


def record_of(folder: Path) -> Record:
    return loads(read_text(folder / "report.json"))


def _environment(env: Mapping[str, str], gate: Path) -> dict[str, str]:
    # One width for all logs, and no colors in them.
    return {**env, VARIABLE: str(gate), "COLUMNS": "120", "NO_COLOR": "1"}
