"""Progress on stderr: the run, its stage with a bar where the work is counted, notes that stay."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

ENOUGH = 0.05  # of counted work must be done before its rate says when the rest will be


class Live:
    """Progress on a terminal; plain lines if stderr is not one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = Console(stderr=True)
        self.progress = Progress(
            SpinnerColumn(), TextColumn("{task.description:<40}"), BarColumn(24), _Times(),
            console=self.console, transient=True, disable=not self.console.is_terminal,
            get_time=clock,
        )  # fmt: skip
        self._coming: list[str] = []
        self._top = ""
        self._run = self.progress.add_task("run", total=None, visible=False, limit=0.0)
        self._stage = self.progress.add_task("", total=None, visible=False)

    def __enter__(self) -> Live:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def expect(self, stages: Sequence[str], seconds: float | None = None) -> None:
        self._coming = list(stages)
        if seconds is not None:
            self.progress.update(self._run, limit=seconds)

    def stage(self, text: str, total: float | None = None) -> None:
        if not self.console.is_terminal:
            self.console.print(f"{text} ...", highlight=False)
        if self._coming[:1] == [text]:
            self._begin(self._coming.pop(0))
        name = text if text == self._top or not self._top else f"{self._top}: {text}"
        self.progress.remove_task(self._stage)
        self._stage = self.progress.add_task(f"  {name}", total=total)

    def _begin(self, top: str) -> None:
        done = self.progress.tasks[0].completed + bool(self._top)
        total = done + 1 + len(self._coming)
        self._top = top
        text = f"stage {done + 1:g} of {total:g}"
        self.progress.update(self._run, description=text, completed=done, total=total, visible=True)

    def advance(self, amount: float = 1.0) -> None:
        self.progress.advance(self._stage, amount)

    def note(self, text: str) -> None:
        soft = not self.console.is_terminal
        self.console.print(f"  {text}", highlight=False, markup=False, soft_wrap=soft)


class _Times(ProgressColumn):
    """Elapsed, and what is left of a run's time limit or of a stage's counted work."""

    def render(self, task: Task) -> Text:
        elapsed, text = task.elapsed or 0.0, ""
        if (limit := task.fields.get("limit")) and elapsed < limit:
            text = f", {_clock(limit - elapsed)} of the limit left"
        elif limit is None and task.total and ENOUGH * task.total <= task.completed < task.total:
            text = f", about {_clock(elapsed * (task.total / task.completed - 1))} left"
        return Text(_clock(elapsed) + text)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
