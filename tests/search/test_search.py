"""Widths and number formats are weighed against each other; what is exact enough goes first."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest
from modelspeed.configs.load import parse_recipe
from modelspeed.core.progress import Silent
from modelspeed.core.records import Latency, Target
from modelspeed.search import meet_target as settling
from modelspeed.search.decision import Chosen, Taken
from modelspeed.search.droppable_blocks import Depth
from modelspeed.search.knapsack import Choice, Problem, Term
from modelspeed.search.layer_options import AS_IT_IS, Way, Ways, choice_of
from modelspeed.search.number_formats import FLOAT, halves, integers, name_of
from modelspeed.search.search import Search
from modelspeed.search.space import Ground
from modelspeed.search.trials import Trial, shortlist
from modelspeed.search.within_limit import within

RECIPE = """
version: 1
adjust:
  - prune
  - quantize: {scheme: int8_weight}
  - quantize
  - precision
"""
INT8, HALF = 2, 3
RUNS = choice_of("conv")
WIDTHS = Choice((8, 16, 24, 32), (0.9, 0.4, 0.1, 0.0))
TIMES = np.array([1.0, 2.0, 3.0, 4.0])


def ground(share=None, loss=0.0):
    """One group of four widths; in integers its layer takes `share` of its time."""
    if share is None:
        return Ground(None, Depth(), Problem({"a": WIDTHS}, [Term(("a",), TIMES)], 1.0), Ways())
    choices = {"a": WIDTHS, RUNS: Choice((0, 1), (loss, 0.0))}
    term = Term(("a", RUNS), TIMES[:, None] * np.array([share, 1.0]))
    ways = Ways({"conv": (Way(INT8, share, loss), AS_IT_IS)})
    return Ground(None, Depth(), Problem(choices, [term], 1.0), ways)


@pytest.fixture
def recipe(tmp_path):
    return parse_recipe(RECIPE, "recipe", tmp_path)


@dataclass
class Pretended(Search):
    """What takes a format runs in `speed` of what is predicted, and is off by `rounding`."""

    speed: dict[int, float] = field(default_factory=dict)
    rounding: dict[int, float] = field(default_factory=dict)

    def measure(self, picks, form=FLOAT):
        known = self.known(picks, form)
        if known is None:
            formats, name = self.ground.formats(self.bench.recipe, picks, form)
            ms = self.problem.ms(picks) * np.prod([self.speed.get(f, 1.0) for f in formats])
            known = Trial(
                picks, self.problem.ms(picks), self.problem.loss(picks),
                Latency(50.0, ms, ms, ms), "plain", form=form, formats=formats, name=name,
            )  # fmt: skip
            self.trials.append(known)
        return known

    def _recover(self, trial):
        trial.distance = trial.loss + sum(self.rounding.get(f, 0.0) for f in trial.formats)
        trial.held = 1.0 - trial.distance


def search(recipe, half=None, rounding=None, integers=None):
    bench = SimpleNamespace(
        recipe=recipe,
        original=None,
        device="cpu",
        data=SimpleNamespace(held_out_score=lambda *_: 1.0),
        talk=Silent(),
        started=0.0,
        job=SimpleNamespace(target=None),
    )
    speed = {} if half is None else {HALF: half}
    made = Pretended(bench, ground(*integers or ()), speed=speed, rounding=rounding or {})
    made.in_time = lambda: True
    made.measure(made.problem.whole())
    made.forms = (FLOAT,) if half is None else (FLOAT, HALF)
    made.steps = (INT8,) if integers else ()
    return made


def test_half_precision_is_of_the_whole_and_int8_weights_alone_are_no_format_to_compute_in(recipe):
    assert halves(recipe) == (HALF,) and integers(recipe) == (INT8,)
    assert [name_of(recipe, f) for f in (FLOAT, HALF, INT8)] == [
        "float32", "bfloat16", "int8_static",
    ]  # fmt: skip


def test_nothing_is_removed_where_half_precision_alone_is_enough(recipe):
    made = search(recipe, 0.4, {HALF: 0.005}, integers=(0.1, 0.01))
    found = made.solve(2.5)
    assert found.form == HALF and found.picks == made.problem.whole()


def test_half_precision_that_loses_more_than_the_limit_is_no_shortcut(recipe):
    found = search(recipe, 0.4, {HALF: 0.3}).solve(4.2)
    assert found.form == FLOAT and found.picks == {"a": 2}


@pytest.mark.parametrize(("loss", "formats"), [(0.05, (INT8,)), (0.8, ())])
def test_integers_and_narrower_layers_compete_by_what_they_cost(recipe, loss, formats):
    made = search(recipe, integers=(0.5, loss))
    found = made.solve(3.2)
    assert found.formats == formats and found.latency.high_ms <= 3.2
    assert set(made.ground.ways.taken(found.picks)) == ({"conv"} if formats else set())


def test_what_is_predicted_of_integers_may_be_wrong_and_is_looked_at(recipe):
    """By the prediction rounding costs nothing; in truth it is far off, and widths are taken."""
    found = search(recipe, rounding={INT8: 5.0}, integers=(0.5, 0.0)).solve(3.2)
    assert found.formats == () and found.picks == {"a": 1, RUNS: 1}


def test_a_format_and_narrower_layers_go_together_where_neither_is_enough(recipe):
    found = search(recipe, 0.5, {INT8: 5.0}, integers=(0.4, 0.0)).solve(1.6)
    assert found.form == HALF and found.picks == {"a": 1, RUNS: 1}


def test_a_wrong_prediction_of_time_still_ends_just_below_the_budget(recipe):
    made = search(recipe)
    # What narrow layers take is predicted far too low: the way there is found by halving.
    widths = tuple(range(4, 68, 4))
    rises = tuple(1.0 - i / 16 for i in range(1, 17))
    times = np.array([float(i) ** 3 / 256 for i in range(1, 17)])
    problem = Problem({"a": Choice(widths, rises)}, [Term(("a",), times)])
    made.ground, made.trials = replace(made.ground, problem=problem), []
    real = {i: 1.0 + i for i in range(16)}

    def measure(picks, form=FLOAT):
        known = made.known(picks, form)
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
    assert search(recipe, 0.5).solve(0.9) is None


def test_fastest_within_a_limit_looks_at_every_format_that_keeps_to_it(recipe):
    made = search(recipe, 0.5, {INT8: 0.5}, integers=(0.3, 0.0))
    made.say_feasible = lambda smallest: None
    found = within(made, 0.85)
    assert found[0].form == HALF and found[0].picks == {"a": 2, RUNS: 1}
    assert not any(INT8 in t.formats for t in found)


def test_tried_formats_are_named(recipe):
    made = search(recipe, 0.5, integers=(0.5, 0.0))
    made.measure(made.problem.whole(), HALF)
    made.measure(made.problem.fastest())
    labels = ["tried 1, bfloat16", "tried 2, int8_static"]
    assert [c.label for c in made.candidates] == labels


def test_how_many_layers_run_in_integers_is_said(recipe):
    ways = {n: (Way(INT8, 0.5, 0.1), AS_IT_IS) for n in ("conv", "linear")}
    both = replace(ground(), ways=Ways(ways))
    picks = {choice_of("conv"): 0, choice_of("linear"): 1}
    assert both.formats(recipe, picks, FLOAT) == ((INT8,), "int8_static in 1 of 2 layers")


def test_the_shortlist_begins_with_the_best_of_each_format():
    def trial(loss, form):
        return Trial({}, 1.0, loss, Latency(50.0, 1.0, 1.0, 1.0), "plain", formats=form)

    rows = [trial(0.1, ()), trial(0.2, ()), trial(3.0, ()), trial(2.0, (INT8,))]
    assert [t.loss for t in shortlist(rows)] == [0.1, 2.0, 0.2]


def test_only_the_format_that_was_taken_is_planned(recipe):
    half, whole = recipe.adjust[HALF], recipe.adjust[INT8]
    chosen = Chosen({}, open=(half, whole), taken=(Taken(half),))
    assert chosen.plan(half, None) is None
    assert "better way" in chosen.plan(whole, None).left_alone[0].reason
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
        job=SimpleNamespace(target=target),
        talk=Silent(),
        reference=rows[3].latency,
        runtime="",
        trusted=lambda name: name,
    )
    made = Settled(bench=bench, trials=rows)
    monkeypatch.setattr(
        settling, "_verified", lambda _, found, *rest: slower * found.latency.high_ms / 5.0
    )
    found, least = settling.settle(made, None, None)
    assert (found.latency.high_ms, least) == (expected, 1.0)
