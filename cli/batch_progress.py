"""A batch on stderr: all items with a bar, and what each running one is doing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ..core.items import Item
from ..reporting.facts import ms
from ..reporting.text import clean

if TYPE_CHECKING:
    from ..batch.process import Running

_COLORS = {"met": "green", "done": "green", "missed": "yellow", "inconclusive": "yellow"}


class BatchLive:
    """A `Watch` on a terminal; one line for each item that ends where stderr is none."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        # Twice a second: drawing takes time that measuring items would like to have.
        self.progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(24), TimeElapsedColumn(),
            console=self.console, transient=True, disable=not self.console.is_terminal,
            refresh_per_second=2,
        )  # fmt: skip
        self._all = self.progress.add_task("batch", total=None)
        self._tasks: dict[str, int] = {}
        self._done = 0

    def __enter__(self) -> BatchLive:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def show(self, running: Sequence[Running], total: int) -> None:
        if not self.console.is_terminal:
            return
        text = f"{self._done} of {total} done"
        self.progress.update(self._all, description=text, completed=self._done, total=total)
        for name in set(self._tasks) - {p.name for p in running}:
            self.progress.remove_task(self._tasks.pop(name))  # type: ignore[arg-type]
        for item in running:
            text = f"  {_text(item.name)}: {_text(item.stage)}"
            if item.name not in self._tasks:
                self._tasks[item.name] = self.progress.add_task(text, total=None)
            self.progress.update(self._tasks[item.name], description=text)  # type: ignore[arg-type]

    def note(self, text: str) -> None:
        self.console.print(f"  {text}", highlight=False, markup=False)

    def ended(self, item: Item) -> None:
        self._done += 1
        color = _COLORS.get(item.status, "red")
        text = f"{ms(item.original_ms)} -> {ms(item.result_ms)}" if item.result_ms else item.reason
        earlier = " (earlier)" if item.reused else ""
        self.console.print(
            f"  {_text(item.name)}: [{color}]{item.status}[/]{earlier}, {_text(text)}",
            highlight=False, soft_wrap=not self.console.is_terminal,
        )  # fmt: skip


def _text(value: str) -> str:
    return escape(clean(value))
