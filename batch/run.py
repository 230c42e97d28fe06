"""Run a plan: so many items at a time, each a process; whatever one does, the others go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from ..core.errors import ModelspeedError
from ..core.exit_codes import run_exit_code
from ..core.items import OF_CODE, WRITTEN, Item
from ..core.workspace import recover
from .journal import BatchJournal
from .plan import ItemPlan, Options
from .process import Process, Running, record_of

POLL = 0.1  # seconds
AGAIN = ("killed",)  # what another attempt may change; a refusal stays one


class Watch(Protocol):
    def show(self, running: Sequence[Running], total: int) -> None: ...

    def ended(self, item: Item) -> None: ...

    def note(self, text: str) -> None: ...


def run_batch(
    plans: Sequence[ItemPlan], options: Options, journal: BatchJournal, watch: Watch, *, gate: Path
) -> tuple[Item, ...]:
    """A row for each plan, in its order. Items still running when this ends early are ended."""
    runner = _Runner(options, journal, watch, gate)
    runner.waiting = [(plan, 1) for plan in to_do(plans, journal, watch, options.resume)]
    try:
        runner.all(len(plans))
    finally:
        for process in runner.running:
            process.ask_to_end()
        for process in runner.running:
            process.end()
            recover(process.seen.plan.folder)
    return rows_of(plans, journal)


def to_do(
    plans: Sequence[ItemPlan], journal: BatchJournal, watch: Watch, resume: bool
) -> list[ItemPlan]:
    """Items that an earlier batch did not finish; rows that are still valid are noted."""
    left = []
    for plan in plans:
        item = earlier(plan, journal, resume)
        if item is None:
            left.append(plan)
            continue
        if plan.name in journal.ended:
            journal.ended[plan.name] = item
        else:
            journal.end(item)
        watch.ended(item)
    return left


def rows_of(plans: Sequence[ItemPlan], journal: BatchJournal) -> tuple[Item, ...]:
    """A row for each plan as things stand."""
    items = (journal.ended.get(p.name) for p in plans)
    return tuple(
        item if item is not None and item.key == plan.key else
        plan.item("stopped", reason="the batch ended before it did; `--resume` goes on.", code=1)
        for plan, item in zip(plans, items, strict=True)
    )  # fmt: skip


def earlier(plan: ItemPlan, journal: BatchJournal, resume: bool) -> Item | None:
    """The row of an earlier batch that still holds for this plan."""
    item = journal.ended.get(plan.name)
    if item is not None and item.key == plan.key:
        there = (plan.folder / "report.json").is_file()
        if (item.status in WRITTEN and there) or (item.status not in WRITTEN and resume):
            return replace(item, reused=True)
    key, at = journal.begun.get(plan.name, ("", 0.0))
    if item is None and key == plan.key:
        return written_since(plan, at)
    return None


def written_since(plan: ItemPlan, at: float) -> Item | None:
    """The result that a run wrote although its end is not in the journal: the batch was killed
    then."""
    try:
        if (plan.folder / "report.json").stat().st_mtime < at:
            return None
        record = record_of(plan.folder)
    except (OSError, ModelspeedError):
        return None
    code = run_exit_code(record, plan.max_drop)
    item = plan.item(OF_CODE[code], code=code, seconds=record.seconds, reused=True)
    return item.measured(record)


@dataclass
class _Runner:
    options: Options
    journal: BatchJournal
    watch: Watch
    gate: Path
    waiting: list[tuple[ItemPlan, int]] = field(default_factory=list)
    running: list[Process] = field(default_factory=list)
    stopped: bool = False
    sleep: Callable[[float], None] = time.sleep

    def all(self, total: int) -> None:
        while self.waiting or self.running:
            while len(self.running) < self.options.workers and (ready := self._ready()):
                self.waiting.remove(ready)
                self._start(*ready)
            for process in [p for p in self.running if self._over(p)]:
                self.running.remove(process)
                self._ended(process)
            self.watch.show([p.seen for p in self.running], total)
            if self.running:
                self.sleep(POLL)

    def _ready(self) -> tuple[ItemPlan, int] | None:
        """The next that is not the same work as one that runs: the two would share a journal."""
        busy = {p.seen.plan.key for p in self.running}
        return next((w for w in self.waiting if w[0].key not in busy), None)

    def _start(self, plan: ItemPlan, attempt: int) -> None:
        begun = self.journal.begun.get(plan.name, ("", 0.0))[0] == plan.key
        again = attempt > 1 or (self.options.resume and begun)
        self.journal.begin(plan.name, plan.key, attempt)
        recover(plan.folder)
        log = log_of(plan, self.options.out)
        more = plan.resuming if again else ()
        self.running.append(
            Process.start(plan, log, attempt, gate=self.gate, memory=self.options.memory, more=more)
        )

    def _over(self, process: Process) -> bool:
        if process.done():
            return True
        return process.ended_late(self.options.minutes)

    def _ended(self, process: Process) -> None:
        plan, item = process.seen.plan, process.item()
        recover(plan.folder)
        if item.status in AGAIN:  # it may have finished before it was killed
            done = written_since(plan, self.journal.begun[plan.name][1])
            item = item if done is None else replace(done, reused=False, attempts=process.attempt)
        stopping = self.stopped and not self.options.keep_going
        if item.status in AGAIN and process.attempt <= self.options.retries and not stopping:
            self.waiting.insert(0, (plan, process.attempt + 1))
            return
        self.journal.end(item)
        self.watch.ended(item)
        if item.status not in WRITTEN and not self.options.keep_going:
            self.stopped = True
            self.waiting.clear()


def log_of(plan: ItemPlan, out: Path) -> Path:
    log = out / "logs" / f"{plan.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    return log
