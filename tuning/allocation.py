"""Which width each group gets: a multiple-choice knapsack with coupled widths, solved exactly.

Minimise the predicted rise in loss, sum_g loss_g(w_g), subject to the predicted time: every layer's
t(w_in, w_out) from the cost tables, whose pairs are tied to the two choices by flow variables
(Sherali & Adams 1990, level 1). scipy's HiGHS solves it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_matrix

Floats = NDArray[np.float64]
SECONDS = 10.0
GAP = 1e-3


@dataclass(frozen=True)
class Choice:
    """Of one group: `widths` rising, the last whole; `losses` the rise in loss at each."""

    widths: tuple[int, ...]
    losses: tuple[float, ...]


@dataclass(frozen=True)
class Term:
    """ms of a part of the net by the choices of one group [a] or two [a, b]."""

    groups: tuple[str, ...]
    ms: Floats


@dataclass(frozen=True)
class Allocation:
    """`picks` index each group's widths; `gap` is the solver's relative distance to the bound."""

    picks: dict[str, int]
    ms: float
    loss: float
    gap: float


@dataclass(frozen=True)
class Problem:
    """`fixed_ms` is what no choice changes."""

    choices: Mapping[str, Choice]
    terms: Sequence[Term]
    fixed_ms: float = 0.0

    def ms(self, picks: Mapping[str, int]) -> float:
        return self.fixed_ms + sum(
            float(t.ms[tuple(picks[g] for g in t.groups)]) for t in self.terms
        )

    def loss(self, picks: Mapping[str, int]) -> float:
        return sum(c.losses[picks[g]] for g, c in self.choices.items())

    def least(self) -> dict[str, int]:
        """Everything as narrow as allowed."""
        return {g: 0 for g in self.choices}

    def whole(self) -> dict[str, int]:
        return {g: len(c.widths) - 1 for g, c in self.choices.items()}

    def solve(self, budget_ms: float, seconds: float = SECONDS) -> Allocation | None:
        """The least loss within the budget; None where nothing fits or no time was left."""
        model = _Model(self)
        limit = np.concatenate([model.time(), [budget_ms - self.fixed_ms]])
        found = milp(
            model.costs,
            integrality=model.whole,
            bounds=Bounds(0, 1),
            constraints=[model.ties(), LinearConstraint(limit[:-1], -np.inf, limit[-1])],
            options={"time_limit": seconds, "mip_rel_gap": GAP},
        )
        if found.x is None:
            return None
        picks = model.picks(found.x)
        gap = float(found.mip_gap) if found.mip_gap is not None else 0.0
        return Allocation(picks, self.ms(picks), self.loss(picks), gap)


class _Model:
    """Columns: one per choice of a group, then one per pair of choices of each coupled term."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.start: dict[str, int] = {}
        column = 0
        for name, choice in problem.choices.items():
            self.start[name] = column
            column += len(choice.widths)
        self.singles = column
        self.pairs: list[tuple[Term, int]] = []
        for term in problem.terms:
            if len(term.groups) == 2:
                self.pairs.append((term, column))
                column += term.ms.size
        self.columns = column
        self.whole = np.zeros(column)
        self.whole[: self.singles] = 1
        self.costs = self._losses()

    def _losses(self) -> Floats:
        losses = np.zeros(self.columns)
        scale = max((max(c.losses) for c in self.problem.choices.values()), default=0.0) or 1.0
        for name, choice in self.problem.choices.items():
            at, count = self.start[name], len(choice.widths)
            losses[at : at + count] = np.array(choice.losses) / scale
            # Of equals the wider one.
            losses[at : at + count] += 1e-7 * (1 - np.array(choice.widths) / choice.widths[-1])
        return losses

    def time(self) -> Floats:
        row = np.zeros(self.columns)
        for term in self.problem.terms:
            if len(term.groups) == 1:
                at = self.start[term.groups[0]]
                row[at : at + len(term.ms)] += term.ms
        for term, at in self.pairs:
            row[at : at + term.ms.size] += term.ms.ravel()
        return row

    def ties(self) -> LinearConstraint:
        """One choice per group; the pairs of a term sum to the choices of either side."""
        rows: list[int] = []
        columns: list[int] = []
        values: list[float] = []
        right: list[float] = []

        def equation(entries: Sequence[tuple[int, float]], equals: float) -> None:
            for column, value in entries:
                rows.append(len(right))
                columns.append(column)
                values.append(value)
            right.append(equals)

        for name, choice in self.problem.choices.items():
            equation([(self.start[name] + i, 1.0) for i in range(len(choice.widths))], 1.0)
        for term, at in self.pairs:
            first, second = (self.start[g] for g in term.groups)
            height, width = term.ms.shape
            for a in range(height):
                row = [(at + a * width + b, 1.0) for b in range(width)]
                equation([*row, (first + a, -1.0)], 0.0)
            for b in range(width):
                row = [(at + a * width + b, 1.0) for a in range(height)]
                equation([*row, (second + b, -1.0)], 0.0)
        matrix = coo_matrix((values, (rows, columns)), shape=(len(right), self.columns)).tocsr()
        return LinearConstraint(matrix, right, right)

    def picks(self, solution: Floats) -> dict[str, int]:
        return {
            name: int(np.argmax(solution[self.start[name] :][: len(choice.widths)]))
            for name, choice in self.problem.choices.items()
        }
