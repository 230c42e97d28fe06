from __future__ import annotations

import numpy as np
import pico
import pytest
import torch
from modelspeed.adjusters.methods.importance import fisher, magnitude
from modelspeed.adjusters.plan import Context
from modelspeed.adjusters.prune import Pruner, groups_left_alone, plan
from modelspeed.configs.recipe import make_step
from modelspeed.core.errors import DataError
from modelspeed.graph.capture import capture, clone
from modelspeed.graph.edits.apply import apply

DATA = [(pico.images(4), torch.tensor([0, 1, 2, 0]))]


def context(train=None, blocks=("residual",)):
    return Context(capture(pico.net(list(blocks)), (pico.images(),)), (pico.images(),), train)


def settings(**given):
    return make_step("prune", **{"importance": "magnitude", **given}).settings


def test_a_ratio_removes_that_share_of_each_group():
    at = context()
    pruned = apply(clone(at.module), plan(at, settings(ratio=0.5)).edits)
    assert pruned.get_parameter("stem.weight").shape[0] == 4
    assert pruned.get_parameter("blocks.0.conv1.weight").shape[:2] == (4, 4)


def test_a_skipped_layer_stays_and_is_reported():
    at = context()
    skipping = settings(ratio=0.5, match={"stem*": "skip"})
    pruned = apply(clone(at.module), plan(at, skipping).edits)
    assert pruned.get_parameter("stem.weight").shape[0] == 8
    assert any("`stem*`" in item.reason for item in groups_left_alone(at, skipping))


def test_levels_run_from_nothing_to_the_limit_and_rise():
    at = context()
    pruner = Pruner.of(at, settings(max_ratio=0.5))
    counts = [sum(map(len, pruner.at_level(level).values())) for level in (0.0, 0.3, 0.7, 1.0)]
    assert counts[0] == 0 and counts == sorted(counts)
    assert all(len(pruner.at_level(1.0)[g.name]) == g.size // 2 for g in at.analysis.prunable)


def test_kept_widths_are_multiples_of_round_to():
    at = context()
    pruner = Pruner.of(at, settings(max_ratio=0.8, round_to=4))
    for level in (0.2, 0.5, 0.9):
        dropped = pruner.at_level(level)
        assert all((g.size - len(dropped[g.name])) % 4 == 0 for g in at.analysis.prunable)


def test_a_unit_whose_consumers_are_zero_scores_lowest_under_fisher():
    at = context(DATA)
    at.module.get_parameter("blocks.0.conv2.weight").data[:, 3] = 0
    scores = fisher(at)["blocks.0.conv1"]
    assert int(np.argmin(scores)) == 3 and scores[3] == 0 and (np.delete(scores, 3) > 0).all()


def test_magnitude_ranks_by_weight():
    at = context()
    at.module.get_parameter("blocks.0.conv1.weight").data[5] = 0
    assert int(np.argmin(magnitude(at)["blocks.0.conv1"])) == 5


def test_fisher_without_data_is_refused():
    with pytest.raises(DataError, match="needs training data"):
        fisher(context())
