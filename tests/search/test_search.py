"""Widths and number formats are weighed against each other; what is exact enough goes first."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_lab import FakeLab
from modelspeed.configs.load import parse_recipe
from modelspeed.core.records import Latency, Target
from modelspeed.search.choice import Preference
from modelspeed.search.contenders import contenders
from modelspeed.search.decision import Decision, StepDecision
from modelspeed.search.layer_options import AS_IT_IS, LayerOption, LayerOptions, choice_of
from modelspeed.search.meet_target import meet_target
from modelspeed.search.number_formats import FLOAT, half_precision_steps, integer_steps, name_of
from modelspeed.search.trials import Trial, shortlist
from modelspeed.search.within_limit import fastest_within

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
TIMES = {8: 1.0, 16: 2.0, 24: 3.0, 32: 4.0}
LOSSES = {8: 0.9, 16: 0.4, 24: 0.1, 32: 0.0}


@pytest.fixture
def recipe(tmp_path):
    return parse_recipe(RECIPE, "recipe", tmp_path)


def lab(recipe, half=None, rounding=0.0, layer=None, **more):
    """One group of four widths. `layer`: the share of its time that it takes in integers, the
    loss as predicted and in truth; `half`: the share in half precision."""
    if layer is not None:
        share, said, true = layer
        more |= {"layers": {"conv": ("a", INT8, share, true)}, "said": {"conv": said}}
    formats = {} if half is None else {HALF: (half, rounding)}
    return FakeLab(recipe, {"a": TIMES}, {"a": LOSSES}, formats=formats, fixed_ms=1.0, **more)


def chosen(search, prefer="target"):
    """The trial that would be trained."""
    meet_target(search)
    limit = search.lab.recipe.limits.max_drop
    rows = contenders(search)
    return min(rows, key=lambda c: Preference(limit, prefer).key(c.standing)).source


def searched(recipe, *args, **more):
    return lab(recipe, *args, **more).search()


def test_half_precision_is_of_the_whole_and_int8_weights_alone_are_no_format_to_compute_in(recipe):
    assert half_precision_steps(recipe) == (HALF,) and integer_steps(recipe) == (INT8,)
    assert [name_of(recipe, f) for f in (FLOAT, HALF, INT8)] == [
        "float32", "bfloat16", "int8_static",
    ]  # fmt: skip


def test_nothing_is_removed_where_half_precision_alone_is_enough(recipe):
    search = searched(recipe, 0.4, 0.005, layer=(0.1, 0.01, 0.01))
    trial = search.solve(2.5)
    assert trial.number_format == HALF and trial.picks == search.problem.whole()


def test_half_precision_that_loses_more_than_the_limit_is_no_shortcut(recipe):
    trial = searched(recipe, 0.4, 0.3).solve(4.2)
    assert trial.number_format == FLOAT and trial.picks == {"a": 2}


@pytest.mark.parametrize(("loss", "formats"), [(0.05, (INT8,)), (0.8, ())])
def test_integers_and_narrower_layers_compete_by_what_they_cost(recipe, loss, formats):
    search = searched(recipe, layer=(0.5, loss, loss))
    trial = search.solve(3.2)
    assert trial.formats == formats and trial.latency.high_ms <= 3.2
    assert set(search.space.layer_options.taken(trial.picks)) == ({"conv"} if formats else set())


def test_what_is_predicted_of_integers_may_be_wrong_and_is_looked_at(recipe):
    """By the prediction rounding costs nothing; in truth it is far off, and widths are taken."""
    trial = searched(recipe, layer=(0.5, 0.0, 5.0)).solve(3.2)
    assert trial.formats == () and trial.picks == {"a": 1, RUNS: 1}


def test_a_format_and_narrower_layers_go_together_where_neither_is_enough(recipe):
    trial = searched(recipe, 0.5, layer=(0.4, 0.0, 5.0)).solve(1.6)
    assert trial.number_format == HALF and trial.picks == {"a": 1, RUNS: 1}


def test_a_wrong_prediction_of_time_still_ends_just_below_the_budget(recipe):
    """What narrow layers take is predicted far too low: the way there is found by halving."""
    steps = range(1, 17)
    fake = FakeLab(
        recipe,
        times={"a": {4 * i: float(i) for i in steps}},
        losses={"a": {4 * i: 1.0 - i / 16 for i in steps}},
        predicted={"a": {4 * i: i**3 / 256 for i in steps}},
    )
    assert fake.search().solve(10.2).latency.high_ms == 10.0


def test_out_of_reach_in_every_format_is_none(recipe):
    assert searched(recipe, 0.5).solve(0.9) is None


def test_fastest_within_a_limit_looks_at_every_format_that_keeps_to_it(recipe):
    trials = fastest_within(searched(recipe, 0.5, layer=(0.3, 0.0, 0.5)), 0.85)
    assert trials[0].number_format == HALF and trials[0].picks == {"a": 2, RUNS: 1}
    assert not any(INT8 in t.formats for t in trials)


TWO = {
    "times": {"a": TIMES, "b": {8: 0.5, 16: 1.5, 24: 2.0, 32: 3.0}},
    "losses": {"a": LOSSES, "b": {8: 0.5, 16: 0.3, 24: 0.25, 32: 0.0}},
    "layers": {"conv": ("b", INT8, 0.6, 0.12)},
    "fixed_ms": 0.5,
}


@pytest.mark.parametrize("budget", [2.5, 3.3, 4.1, 5.0, 6.2, 7.0])
def test_the_known_optimum_is_found_at_every_budget(recipe, budget):
    fake = FakeLab(recipe, **TWO)
    trial = fake.search().solve(budget)
    ms, loss = fake.of(fake.search().decision(trial))
    assert ms <= budget and loss == pytest.approx(fake.optimum(budget))


def test_the_search_ends_when_its_time_is_up_and_answers_with_what_it_has(recipe):
    whole, short = FakeLab(recipe, **TWO), FakeLab(recipe, **TWO, patience=1)
    assert whole.search().solve(4.1).latency.high_ms <= 4.1
    trial = short.search().solve(4.1)
    assert trial is not None and trial.latency.high_ms <= 4.1
    assert len(short.built) < len(whole.built)


def test_widths_that_do_not_build_are_named_and_the_best_of_the_others_is_found(recipe):
    fake = FakeLab(recipe, **TWO, broken=frozenset({16}))
    search = fake.search()
    trial = search.solve(4.1)
    assert trial is not None and not trial.failed and trial.latency.high_ms <= 4.1
    assert all("does not build" in reason for reason in fake.set_aside_rows.values())
    assert any(t.failed for t in search.trials) == bool(fake.set_aside_rows)


def test_a_lab_in_which_everything_fails_ends_with_lossless_work(recipe):
    fake = FakeLab(recipe, **TWO)
    search = fake.search()
    fake.build = None  # every question is answered with a TypeError
    trial = search.smallest()
    assert trial is search.trials[0] and not trial.failed


def test_every_trial_is_written_down_and_known_again(recipe):
    fake = FakeLab(recipe, **TWO)
    search = fake.search()
    search.solve(4.1)
    assert {id(t) for t in fake.written} == {id(t) for t in search.trials if not t.failed}
    count = len(fake.built)
    for trial in [t for t in search.trials if not t.failed]:
        search.measure(trial.picks, trial.number_format)
    assert len(fake.built) == count


def test_tried_formats_are_named(recipe):
    search = searched(recipe, 0.5, layer=(0.5, 0.0, 0.0))
    search.measure(search.problem.whole(), HALF)
    search.measure(search.problem.fastest())
    labels = ["tried 1, bfloat16", "tried 2, int8_static"]
    assert [c.label for c in search.candidates] == labels


def test_how_many_layers_run_in_integers_is_said(recipe):
    options = {n: (LayerOption(INT8, 0.5, 0.1), AS_IT_IS) for n in ("conv", "linear")}
    both = replace(lab(recipe).space(), layer_options=LayerOptions(options))
    picks = {choice_of("conv"): 0, choice_of("linear"): 1}
    assert both.formats(recipe, picks, FLOAT) == ((INT8,), "int8_static in 1 of 2 layers")


def test_the_shortlist_begins_with_the_best_of_each_format():
    def trial(loss, number_format):
        return Trial({}, 1.0, loss, Latency(50.0, 1.0, 1.0, 1.0), "plain", formats=number_format)

    rows = [trial(0.1, ()), trial(0.2, ()), trial(3.0, ()), trial(2.0, (INT8,))]
    assert [t.loss for t in shortlist(rows)] == [0.1, 2.0, 0.2]


def test_only_the_format_that_was_taken_is_planned(recipe):
    half, whole = recipe.adjust[HALF], recipe.adjust[INT8]
    chosen = Decision({}, open=(half, whole), taken=(StepDecision(half),))
    assert chosen.plan(half, None) is None
    assert "better way" in chosen.plan(whole, None).left_alone[0].reason
    nothing = chosen.plan(recipe.adjust[0], None)
    assert not nothing.edits and "nothing is removed" in nothing.left_alone[0].reason


@pytest.mark.parametrize(("slower", "expected"), [(1.0, 4.8), (1.03, 4.0), (1.2, 4.0)])
def test_what_a_fresh_process_measures_decides(recipe, slower, expected):
    """Four widths take 1, 4, 4.8 and 6 ms; the fresh process sees each `slower` times as slow."""
    times = {8: 1.0, 16: 4.0, 24: 4.8, 32: 6.0}
    fake = FakeLab(
        recipe, {"a": times}, {"a": LOSSES}, target=Target(ms=5.0), slower=lambda _: slower
    )
    assert chosen(fake.search()).latency.high_ms == expected
    assert all(fake.of(d)[0] <= 5.0 for d in fake.verified)


def test_what_the_fresh_process_refutes_is_measured_twice_and_another_is_taken(recipe):
    fake = FakeLab(recipe, {"a": TIMES}, {"a": LOSSES}, target=Target(ms=3.5), slower=lambda _: 9.0)
    search = fake.search()
    trial = chosen(search)
    refuted = [t for t in search.trials if t.share is not None]
    assert refuted and all(t.share > 1.0 for t in refuted) and trial not in refuted
    assert len(fake.verified) == 2 * len(refuted)


def test_a_trial_that_the_fresh_process_refuses_is_none_and_another_is_taken(recipe):
    fake = FakeLab(recipe, {"a": TIMES}, {"a": LOSSES}, target=Target(ms=3.5))
    search = fake.search()
    verify, refused = fake.verify, []

    def strict(variant):
        if not refused:
            refused.append(variant)
            raise RuntimeError("it does not load")
        return verify(variant)

    fake.verify = strict
    trial = chosen(search)
    assert not trial.failed and trial.latency.high_ms <= 3.5
    assert any("does not load" in reason for reason in fake.set_aside_rows.values())


def test_a_search_for_another_target_starts_from_what_is_known(recipe):
    first = lab(recipe, target=Target(ms=3.0))
    search = first.search()
    meet_target(search)
    tried, built = len(search.trials), len(first.built)
    assert any(t.share is not None for t in search.trials)
    other = search.toward(replace(first, target=Target(ms=1.5)))
    assert other.space is search.space and other.explored_ms is None and len(first.built) == built
    for before, after in zip(search.trials, other.trials, strict=True):
        assert after is not before
        assert after.share == (None if before.share is None else pytest.approx(2 * before.share))
    other.measure(other.problem.fastest())
    assert len(search.trials) == tried
