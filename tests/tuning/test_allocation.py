from __future__ import annotations

import itertools

import numpy as np
import pytest
from modelspeed.tuning.allocation import Choice, Problem, Term


def random_problem(seed, groups=4, options=4):
    rng = np.random.default_rng(seed)
    names = [f"g{i}" for i in range(groups)]
    choices = {
        n: Choice(
            tuple(range(2, 2 + options)),
            (*np.sort(rng.random(options - 1))[::-1], 0.0),
        )
        for n in names
    }
    terms = [
        Term(pair, np.sort(np.sort(rng.random((options, options)), 0), 1))
        for pair in itertools.pairwise(names)
    ]
    terms.append(Term((names[0],), np.sort(rng.random(options))))
    return Problem(choices, terms, 0.5)


def brute(problem, budget):
    names = list(problem.choices)
    rows = itertools.product(*(range(len(problem.choices[n].widths)) for n in names))
    fitting = [
        p for p in (dict(zip(names, r, strict=True)) for r in rows) if problem.ms(p) <= budget
    ]
    return min((problem.loss(p) for p in fitting), default=None)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_the_solver_finds_what_trying_everything_finds(seed, share):
    problem = random_problem(seed)
    low, high = problem.ms(problem.least()), problem.ms(problem.whole())
    budget = low + share * (high - low)
    found = problem.solve(budget)
    assert found is not None and found.ms <= budget + 1e-9
    assert found.loss == pytest.approx(brute(problem, budget), abs=2e-3)
    assert found.loss == pytest.approx(problem.loss(found.picks))


def test_what_does_not_fit_is_refused():
    problem = random_problem(0)
    assert problem.solve(0.4) is None
