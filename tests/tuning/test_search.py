"""Widths and number formats are weighed against each other; what is exact enough goes first."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from modelspeed.configs.load import parse_recipe
from modelspeed.core.records import Latency, Target
from modelspeed.tuning import settle as settling
from modelspeed.tuning.allocation import Choice, Problem, Term
from modelspeed.tuning.chosen import Chosen
from modelspeed.tuning.forms import FLOAT, forms, is_exact, name_of
from modelspeed.tuning.search import Search
from modelspeed.tuning.talk import Quiet
from modelspeed.tuning.trials import Trial, shortlist

RECIPE = """
version: 1
adjust:
  - prune
  - quantize: {scheme: int8_weight}
  - quantize
  - precision
"""
INT8, HALF = 2, 3
PROBLEM = Problem(
    {"a": Choice((8, 16, 24, 32), (0.9, 0.4, 0.1, 0.0))},
    [Term(("a",), np.array([1.0, 2.0, 3.0, 4.0]))],
    fixed_ms=1.0,
)
WHOLE = PROBLEM.whole()


@pytest.fixture
def recipe(tmp_path):
    return parse_recipe(RECIPE, "recipe", tmp_path)


@dataclass
class Pretended(Search):
    """A format takes `speed` of the float time; each has a `distance` of its own to start with."""

    speed: dict[int, float] = field(default_factory=dict)
    rounding: dict[int, float] = field(default_factory=dict)

    def measure(self, picks, form=FLOAT):
        known = self._known(picks, form)
        if known is None:
            ms = self.problem.ms(picks) * self.speed.get(form, 1.0)
            latency = Latency(50.0, ms, ms, ms)
            known = Trial(
                picks, self.problem.ms(picks), self.problem.loss(picks), latency, "plain", form=form
            )
            self.trials.append(known)
        return known

    def _recover(self, trial):
        trial.distance = trial.loss + self.rounding.get(trial.form, 0.0)
        trial.held = 1.0 - trial.distance


def search(recipe, speed, rounding):
    bench = SimpleNamespace(
        recipe=recipe,
        original=None,
        device="cpu",
        data=SimpleNamespace(held_score=lambda *_: 1.0),
        talk=Quiet(),
        started=0.0,
        job=SimpleNamespace(target=None),
    )
    made = Pretended(bench, SimpleNamespace(problem=PROBLEM), speed=speed, rounding=rounding)
    made.in_time = lambda: True
    made.measure(WHOLE)
    made.forms = (FLOAT, *(f for f in forms(recipe) if f in speed))
    return made


def test_half_precision_is_asked_first_and_int8_weights_alone_are_no_format_to_compute_in(recipe):
    assert forms(recipe) == (HALF, INT8)
    assert [name_of(recipe, f) for f in (FLOAT, HALF, INT8)] == [
        "float32", "bfloat16", "int8_static",
    ]  # fmt: skip
    assert [is_exact(recipe, f) for f in (FLOAT, HALF, INT8)] == [True, True, False]


def test_nothing_is_removed_where_half_precision_alone_is_enough(recipe):
    found = search(recipe, {HALF: 0.4, INT8: 0.2}, {HALF: 0.005, INT8: 0.02}).solve(2.5)
    assert found.form == HALF and found.picks == WHOLE


def test_half_precision_that_loses_more_than_the_limit_is_no_shortcut(recipe):
    found = search(recipe, {HALF: 0.4}, {HALF: 0.3}).solve(4.2)
    assert found.form == FLOAT and found.picks == {"a": 2}


@pytest.mark.parametrize(("rounding", "form"), [(0.01, INT8), (0.8, FLOAT)])
def test_integers_and_narrower_layers_compete_by_distance_from_the_original(recipe, rounding, form):
    found = search(recipe, {INT8: 0.5}, {INT8: rounding}).solve(3.2)
    assert found.form == form
    assert found.latency.high_ms <= 3.2


def test_a_format_and_narrower_layers_go_together_where_neither_is_enough(recipe):
    found = search(recipe, {HALF: 0.5, INT8: 0.4}, {INT8: 5.0}).solve(1.6)
    assert found.form == HALF and found.picks == {"a": 1}


def test_a_wrong_prediction_of_time_still_ends_just_below_the_budget(recipe):
    made = search(recipe, {}, {})
    # What narrow layers take is predicted far too low: the way there is found by halving.
    widths = tuple(range(4, 68, 4))
    rises = tuple(1.0 - i / 16 for i in range(1, 17))
    times = np.array([float(i) ** 3 / 256 for i in range(1, 17)])
    problem = Problem({"a": Choice(widths, rises)}, [Term(("a",), times)])
    made.ground.problem, made.trials = problem, []
    real = {i: 1.0 + i for i in range(16)}

    def measure(picks, form=FLOAT):
        known = made._known(picks, form)
        if known is None:
            ms = real[picks["a"]]
            latency = Latency(50.0, ms, ms, ms)
            known = Trial(dict(picks), problem.ms(picks), problem.loss(picks), latency, "plain")
            made.trials.append(known)
        return known

    made.measure = measure
    measure(problem.whole())
    assert made.solve(10.2).latency.high_ms == 10.0


def test_out_of_reach_in_every_format_is_none(recipe):
    assert search(recipe, {HALF: 0.5}, {}).solve(0.9) is None


def test_fastest_within_a_limit_looks_at_every_format_that_keeps_to_it(recipe):
    made = search(recipe, {HALF: 0.5, INT8: 0.3}, {INT8: 0.5})
    made.say_feasible = lambda smallest: None
    found = made.within(0.85)
    assert found[0].form == HALF and found[0].picks == {"a": 2}
    assert INT8 not in {t.form for t in found}


def test_tried_formats_are_named(recipe):
    made = search(recipe, {HALF: 0.5}, {})
    made.measure(WHOLE, HALF)
    assert [c.label for c in made.candidates] == ["tried 1, bfloat16"]


def test_the_shortlist_begins_with_the_best_of_each_format():
    def trial(loss, form):
        return Trial({}, 1.0, loss, Latency(50.0, 1.0, 1.0, 1.0), "plain", form=form)

    rows = [trial(0.1, FLOAT), trial(0.2, FLOAT), trial(3.0, FLOAT), trial(2.0, INT8)]
    assert [(t.loss, t.form) for t in shortlist(rows)] == [
        (0.1, FLOAT), (2.0, INT8), (0.2, FLOAT),
    ]  # fmt: skip


def test_only_the_format_that_was_taken_is_planned(recipe):
    steps = tuple(recipe.adjust[f] for f in forms(recipe))
    half, integers = steps
    chosen = Chosen({}, formats=steps, taken=half)
    assert chosen.plan(half, None) is None
    assert "better way" in chosen.plan(integers, None).left_alone[0].reason
    nothing = chosen.plan(recipe.adjust[0], None)
    assert not nothing.edits and "nothing is removed" in nothing.left_alone[0].reason


class Settled(SimpleNamespace):
    """A search that answers with the slowest of its trials that fits."""

    def exact(self, budget_ms):
        return None

    def smallest(self):
        return self.trials[0]

    def say_feasible(self, smallest):
        pass

    def in_time(self):
        return True

    def solve(self, budget_ms):
        fitting = [t for t in self.trials if t.latency.high_ms <= budget_ms]
        return max(fitting, key=lambda t: t.latency.high_ms, default=None)


@pytest.mark.parametrize(("slower", "expected"), [(1.0, 4.8), (1.03, 4.0), (1.2, 4.0)])
def test_what_a_fresh_process_measures_decides_and_the_narrowest_is_the_last_resort(
    monkeypatch, slower, expected
):
    rows = [Trial({"a": i}, ms, 1.0, Latency(50.0, ms, ms, ms), "plain") for i, ms in
            enumerate((1.0, 4.0, 4.8, 6.0))]  # fmt: skip
    target = Target(ms=5.0)
    bench = SimpleNamespace(
        job=SimpleNamespace(target=target), talk=Quiet(), reference=rows[3].latency, runtime=""
    )
    made = Settled(bench=bench, trials=rows)
    monkeypatch.setattr(
        settling, "_verified", lambda _, found, *rest: slower * found.latency.high_ms / 5.0
    )
    found, least = settling.settle(made, None, None, "")
    assert (found.latency.high_ms, least) == (expected, 1.0)
