"""Data on disk is not evaluated again for a model that was judged on it before."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from modelspeed.configs.load import parse_recipe
from modelspeed.profiling.side_by_side import judge
from modelspeed.tuning.judgements import Judgements
from modelspeed.tuning.quality import ALL, EvaluationPart
from torch import nn

RECIPE = 'version: 1\ndata: {factory: "arrays:data.npz"}\n'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MODELSPEED_CACHE", str(tmp_path / "cache"))
    np.savez(tmp_path / "data.npz", inputs=np.zeros((8, 4)), targets=np.zeros(8, int))
    return tmp_path


class Read:
    def __init__(self):
        random = torch.Generator().manual_seed(0)
        self.rows = [
            (torch.randn(8, 4, generator=random), torch.randint(3, (8,), generator=random))
            for _ in range(5)
        ]
        self.count = 0

    def __iter__(self):
        for row in self.rows:
            self.count += 1
            yield row


class Net(nn.Module):
    def __init__(self, seed, width=3):
        super().__init__()
        torch.manual_seed(seed)
        self.layer, self.calls = nn.Linear(4, width), 0

    def forward(self, x):
        self.calls += 1
        return self.layer(x)


def of(folder, part=ALL, recipe=RECIPE):
    return Judgements.of(parse_recipe(recipe, "recipe.yaml", folder), part, 0, 1)


def test_a_second_run_reads_one_batch_and_says_the_same(folder):
    data, models = Read(), [(Net(0), "a"), (Net(1), "b")]
    first = of(folder).judge(models, data, "accuracy", "cpu")
    assert first == judge(Net(0), Net(1), Read(), "accuracy", "cpu")
    assert data.count == 5 and [m.calls for m, _ in models] == [5, 5]
    assert of(folder).judge(models, data, "accuracy", "cpu") == first
    assert data.count == 6 and [m.calls for m, _ in models] == [6, 6]


def test_another_variant_is_judged_beside_the_known_original(folder):
    original, data = Net(0), Read()
    of(folder).judge([(original, "a"), (Net(1), "b")], data, "accuracy", "cpu")
    other = Net(2)
    found = of(folder).judge([(original, "a"), (other, "c")], data, "accuracy", "cpu")
    assert found == judge(Net(0), Net(2), Read(), "accuracy", "cpu")
    assert original.calls == 6 and other.calls == 5


@pytest.mark.parametrize("change", ["data", "part", "metric", "weights", "code"])
def test_whatever_a_result_depends_on_makes_it_another_one(folder, change):
    models = [(Net(0), "a"), (Net(1), "b")]
    of(folder).judge(models, Read(), "accuracy", "cpu")
    if change == "data":
        np.savez(folder / "data.npz", inputs=np.ones((9, 4)), targets=np.zeros(9, int))
    if change == "weights":
        models = [(Net(0), "x"), (Net(1), "y")]
    if change == "code":
        models = [(Net(3), "a"), (Net(4), "b")]
    recipe = RECIPE.replace('npz"', 'npz", metric: top5') if change == "metric" else RECIPE
    part = EvaluationPart(16) if change == "part" else ALL
    data = Read()
    of(folder, part, recipe).judge(models, data, "accuracy", "cpu")
    assert data.count == 5


def test_nothing_is_kept_of_what_a_function_returns_or_of_outputs_that_are_not_classes(folder):
    (folder / "data.py").write_text("def loaders(): ...\n")
    assert of(folder, recipe=RECIPE.replace("arrays:data.npz", "data.py:loaders")).key is None
    data, models = Read(), [(Net(0, 1), "a"), (Net(1, 1), "b")]
    data.rows = [(x, y[:, None].float()) for x, y in data.rows]
    first = of(folder).judge(models, data, "mse", "cpu")
    assert of(folder).judge(models, data, "mse", "cpu") == first
    assert not list((folder / "cache").rglob("*.safetensors"))
