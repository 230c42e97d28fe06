"""A multiple-choice knapsack that gives each group its width and each layer its number format.

Minimize the predicted rise in loss, a sum over all choices, subject to the predicted time: every
layer's t(w_in, w_out, format) from the cost tables, whose tuples are tied to the choices by flow
variables (Sherali & Adams 1990, level 1). A residual block that is left out is width 0 of all
groups that live only in it. scipy's HiGHS solves it to within GAP.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_matrix

Floats = NDArray[np.float64]
SECONDS = 10.0
GAP = 1e-2  # the predicted rise in loss is not known better than that


@dataclass(frozen=True)
class Choice:
    """Options rising, the last of which changes nothing; `losses` the rise in loss at each.

    Those of a group are widths (0 leaves out the block that it lives in), those of a layer the
    indexes of its options.
    """

    options: tuple[int, ...]
    losses: tuple[float, ...]


@dataclass(frozen=True)
class Term:
    """ms of a part of the net by the options of one choice [a] or more [a, b, ...]."""

    names: tuple[str, ...]
    ms: Floats


@dataclass(frozen=True)
class Allocation:
    """`picks` index each choice's options; `gap` is the solver's relative distance to the bound."""

    picks: dict[str, int]
    ms: float
    loss: float
    gap: float


@dataclass(frozen=True)
class Problem:
    """`fixed_ms` is what no choice changes.

    `blocks`: the groups of each block that can be left out, all of them or none; at most `most`
    blocks are. `barred` options are not taken.
    """

    choices: dict[str, Choice]
    terms: list[Term]
    fixed_ms: float = 0.0
    blocks: tuple[tuple[str, ...], ...] = ()
    most: int = 0
    barred: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def ms(self, picks: Mapping[str, int]) -> float:
        return self.fixed_ms + sum(
            float(t.ms[tuple(picks[n] for n in t.names)]) for t in self.terms
        )

    def loss(self, picks: Mapping[str, int]) -> float:
        return sum(c.losses[picks[g]] for g, c in self.choices.items())

    def fastest(self) -> dict[str, int]:
        """The picks that are predicted to take the least time."""
        model = _Model(self)
        time = model.time()
        # Losses, scaled to be negligible, decide between picks that take the same time.
        solution = model.solve(time + 1e-6 * time.max(initial=0.0) * model.costs, [], SECONDS)
        return self.whole() if solution is None else model.picks(solution.x)

    def whole(self) -> dict[str, int]:
        """The last option of each choice that is not barred."""
        return {name: max(self.open(name)) for name in self.choices}

    def open(self, name: str) -> list[int]:
        barred = self.barred.get(name, ())
        return [i for i in range(len(self.choices[name].options)) if i not in barred]

    def allows(self, picks: Mapping[str, int]) -> bool:
        return all(picks[name] not in barred for name, barred in self.barred.items())

    def variants(self) -> list[Problem]:
        """The same problem with square-rooted losses, and without dropping blocks.

        Roots spread the cuts over more choices: large predicted losses are the least certain.
        """
        choices = {
            name: replace(c, losses=tuple(max(0.0, x) ** 0.5 for x in c.losses))
            for name, c in self.choices.items()
        }
        rooted = [replace(self, choices=choices)]
        return [*rooted, replace(self, most=0)] if self.blocks else rooted

    def solve(self, budget_ms: float, seconds: float = SECONDS) -> Allocation | None:
        """The least loss within the budget; None if nothing fits or the time ran out."""
        model = _Model(self)
        limit = LinearConstraint(model.time(), -np.inf, budget_ms - self.fixed_ms)
        solution = model.solve(model.costs, [limit], seconds)
        if solution is None:
            return None
        picks = model.picks(solution.x)
        gap = float(solution.mip_gap) if solution.mip_gap is not None else 0.0
        return Allocation(picks, self.ms(picks), self.loss(picks), gap)


@contextmanager
def _silent() -> Iterator[None]:
    """HiGHS prints some lines whatever its options say, and stdout is for `--json`."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


class _Model:
    """The knapsack as a linear program in 0-1 columns.

    One column per option of a choice, then one per tuple of options of each coupled term. A layer's
    time depends on the product of its input and output picks, which is not linear; a column for
    each tuple makes it linear again, and `ties` keeps tuples and picks consistent.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.start: dict[str, int] = {}
        column = 0
        for name, choice in problem.choices.items():
            self.start[name] = column
            column += len(choice.options)
        singles = column
        self.coupled: list[tuple[Term, int]] = []
        for term in problem.terms:
            if len(term.names) > 1:
                self.coupled.append((term, column))
                column += term.ms.size
        self.columns = column
        self.whole = np.zeros(column)
        # Only the options are integer variables: once they are 0 or 1, `ties` leaves the tuples no
        # other value, and branching on them would multiply the solver's work.
        self.whole[:singles] = 1
        self.most = np.ones(column)
        for name, barred in problem.barred.items():
            self.most[[self.start[name] + option for option in barred]] = 0
        self.costs = self._losses()

    def solve(self, costs: Floats, limits: list[LinearConstraint], seconds: float) -> Any:
        """HiGHS's answer; None if nothing fits or the time ran out."""
        with _silent():
            solution = milp(
                costs,
                integrality=self.whole,
                bounds=Bounds(0, self.most),
                constraints=[self.ties(), *self.blocks(), *limits],
                options={"time_limit": seconds, "mip_rel_gap": GAP},
            )
        return None if solution.x is None else solution

    def blocks(self) -> list[LinearConstraint]:
        """The groups of a block go to width 0 together; not too many blocks do."""
        rows = []
        for first, *others in self.problem.blocks:
            for other in others:
                row = np.zeros(self.columns)
                row[self.start[first]], row[self.start[other]] = 1.0, -1.0
                rows.append(LinearConstraint(row, 0.0, 0.0))
        if self.problem.blocks:
            row = np.zeros(self.columns)
            row[[self.start[names[0]] for names in self.problem.blocks]] = 1.0
            rows.append(LinearConstraint(row, 0.0, float(self.problem.most)))
        return rows

    def _losses(self) -> Floats:
        losses = np.zeros(self.columns)
        # Relative to the largest: HiGHS's tolerances are absolute.
        scale = max((max(c.losses) for c in self.problem.choices.values()), default=0.0) or 1.0
        for name, choice in self.problem.choices.items():
            at, count = self.start[name], len(choice.options)
            losses[at : at + count] = np.array(choice.losses) / scale
            # Prefer the wider of two equal options.
            losses[at : at + count] += 1e-7 * (1 - np.array(choice.options) / choice.options[-1])
        return losses

    def time(self) -> Floats:
        row = np.zeros(self.columns)
        for term in self.problem.terms:
            if len(term.names) == 1:
                at = self.start[term.names[0]]
                row[at : at + len(term.ms)] += term.ms
        for term, at in self.coupled:
            row[at : at + term.ms.size] += term.ms.ravel()
        return row

    def ties(self) -> LinearConstraint:
        """One option per choice; the tuples of a term sum to the options of each of its choices.

        The tuples are flows through the options: of a layer with picks x and y, sum over y of
        z[x, y] = pick[x], and sum over x of z[x, y] = pick[y]. The usual z >= pick[x] + pick[y] - 1
        would couple them, too, but its relaxation is far looser, so the solver would branch more.
        """
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
            equation([(self.start[name] + i, 1.0) for i in range(len(choice.options))], 1.0)
        for term, at in self.coupled:
            indexes = at + np.arange(term.ms.size).reshape(term.ms.shape)
            for axis, name in enumerate(term.names):
                for option, same in enumerate(np.moveaxis(indexes, axis, 0)):
                    row = [(int(index), 1.0) for index in same.ravel()]
                    equation([*row, (self.start[name] + option, -1.0)], 0.0)
        matrix = coo_matrix((values, (rows, columns)), shape=(len(right), self.columns)).tocsr()
        return LinearConstraint(matrix, right, right)

    def picks(self, solution: Floats) -> dict[str, int]:
        return {
            name: int(np.argmax(solution[self.start[name] :][: len(choice.options)]))
            for name, choice in self.problem.choices.items()
        }
