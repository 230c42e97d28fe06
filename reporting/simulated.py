"""Simulated streams as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..core.simulated import Simulated
from .facts import Table, percent


def simulated_table(rows: Mapping[str, Sequence[Simulated]], enough: float) -> Table:
    """By policy, for the fewest replicas, with how many it takes until `enough` are in time."""
    cells = []
    for name, outcomes in rows.items():
        first = outcomes[0]
        needed = next((str(one.replicas) for one in outcomes if one.attainment >= enough), "more")
        shares = ", ".join(
            f"{rung} {percent(count / max(1, sum(first.answers)))}"
            for rung, count in zip(first.names, first.answers, strict=True)
        )
        cells.append((name, percent(first.attainment), percent(first.accuracy),
                      percent(first.accuracy * first.attainment), shares, needed))  # fmt: skip
    head = ("policy", "in time", "accuracy", "accuracy x in time", "answers",
            f"replicas for {percent(enough)}")  # fmt: skip
    count = next(iter(rows.values()))[0].replicas
    return Table(f"Simulated, with {count} replica{'s' * (count > 1)}", head, tuple(cells))
