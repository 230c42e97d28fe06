from __future__ import annotations

import itertools

import numpy as np
import pytest
from modelspeed.search.knapsack import Choice, Problem, Term


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
    rows = itertools.product(*(range(len(problem.choices[n].options)) for n in names))
    fitting = [
        p for p in (dict(zip(names, r, strict=True)) for r in rows) if problem.ms(p) <= budget
    ]
    return min((problem.loss(p) for p in fitting), default=None)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_the_solver_finds_what_trying_everything_finds(seed, share):
    problem = random_problem(seed)
    low, high = problem.ms(problem.fastest()), problem.ms(problem.whole())
    budget = low + share * (high - low)
    solution = problem.solve(budget)
    assert solution is not None and solution.ms <= budget + 1e-9
    assert solution.loss == pytest.approx(brute(problem, budget), abs=2e-3)
    assert solution.loss == pytest.approx(problem.loss(solution.picks))


@pytest.mark.parametrize("barred", [{}, {"g1 runs": (0,)}, {"g1 runs": (1,), "g2": (3,)}])
def test_a_layer_runs_another_way_where_that_costs_less(barred):
    plain = random_problem(3, groups=3)
    rng = np.random.default_rng(5)
    term = Term(("g0", "g1", "g1 runs"), rng.random((4, 4))[..., None] * np.array([0.4, 1.0]))
    choices = {**plain.choices, "g1 runs": Choice((0, 1), (0.05, 0.0))}
    problem = Problem(choices, [*plain.terms, term], 0.5, barred=barred)
    assert problem.allows(problem.whole())
    names, sizes = list(choices), [len(c.options) for c in choices.values()]
    every = [dict(zip(names, row, strict=True)) for row in np.ndindex(*sizes)]
    every = [p for p in every if problem.allows(p)]
    fastest = problem.ms(problem.fastest())
    assert fastest == pytest.approx(min(map(problem.ms, every)), rel=2e-3)
    budget = fastest + 0.4 * (problem.ms(problem.whole()) - fastest)
    solution = problem.solve(budget)
    assert solution is not None and problem.allows(solution.picks)
    least = min(problem.loss(p) for p in every if problem.ms(p) <= budget)
    assert solution.loss == pytest.approx(least, abs=2e-3)


def test_what_does_not_fit_is_refused():
    problem = random_problem(0)
    assert problem.solve(0.4) is None


def with_blocks(seed, most):
    """Of `random_problem`, groups g1 and g2 are one block, g3 another."""
    plain = random_problem(seed)
    inner = {"g1", "g2", "g3"}
    choices = {
        n: Choice((0, *c.options), (0.3 if n in ("g1", "g3") else 0.0, *c.losses))
        if n in inner
        else c
        for n, c in plain.choices.items()
    }
    terms = [
        Term(t.names, np.pad(t.ms, [(int(g in inner), 0) for g in t.names])) for t in plain.terms
    ]
    return Problem(choices, terms, plain.fixed_ms, (("g1", "g2"), ("g3",)), most)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("most", [1, 2])
def test_blocks_go_as_a_whole_and_not_too_many(seed, most):
    problem = with_blocks(seed, most)

    def legal(picks):
        widths = {name: c.options[picks[name]] for name, c in problem.choices.items()}
        gone = [{widths[g] == 0 for g in names} for names in problem.blocks]
        return all(len(g) == 1 for g in gone) and sum(True in g for g in gone) <= most

    names, sizes = list(problem.choices), [len(c.options) for c in problem.choices.values()]
    every = [dict(zip(names, row, strict=True)) for row in np.ndindex(*sizes)]
    every = [p for p in every if legal(p)]
    fastest = problem.fastest()
    assert legal(fastest)
    assert problem.ms(fastest) == pytest.approx(min(problem.ms(p) for p in every), rel=2e-3)
    for share in (0.1, 0.4, 0.7):
        low, high = problem.ms(fastest), problem.ms(problem.whole())
        solution = problem.solve(low + share * (high - low))
        assert solution is not None and legal(solution.picks)
        fitting = [p for p in every if problem.ms(p) <= low + share * (high - low)]
        assert solution.loss == pytest.approx(min(problem.loss(p) for p in fitting), abs=2e-3)
