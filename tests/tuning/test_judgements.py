"""Data on disk is not evaluated again for a model that was judged on it before."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from modelspeed.configs.load import parse_recipe
from modelspeed.data.halves import Halves
from modelspeed.data.subset import FirstBatches
from modelspeed.profiling.side_by_side import judge
from modelspeed.tuning.judgements import Judgements
from modelspeed.tuning.quality import ALL, EvaluationPart
from safetensors.torch import load_file, save_file
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


def of(folder, part=ALL, recipe=RECIPE, halves=None):
    return Judgements.of(parse_recipe(recipe, "recipe.yaml", folder), part, 0, 1, halves)


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


def test_each_half_of_the_data_has_judgements_of_its_own(folder):
    models, halves = [(Net(0), "a"), (Net(1), "b")], Halves([], 0)
    parts = [EvaluationPart(half=half) for half in ("judge", "report")]
    keys = {of(folder, part, halves=halves).key for part in parts} | {of(folder).key}
    seeded = RECIPE.replace('npz"', 'npz", judge_seed: 1')
    assert len(keys) == 3 and of(folder, parts[0], seeded, halves).key not in keys
    for part in parts:
        data = Read()
        of(folder, part, halves=halves).judge(models, data, "accuracy", "cpu")
        assert data.count == 5


def test_the_interval_of_a_drop_is_known_again(folder):
    models = [(Net(0), "a"), (Net(1), "b")]
    first = of(folder).judge(models, Read(), "accuracy", "cpu")
    low, high = first.interval
    assert low <= first.before - first.after <= high
    assert of(folder).judge(models, Read(), "accuracy", "cpu").interval == first.interval


def test_nothing_is_kept_of_what_a_function_returns_or_of_outputs_that_are_not_classes(folder):
    (folder / "data.py").write_text("def loaders(): ...\n")
    assert of(folder, recipe=RECIPE.replace("arrays:data.npz", "data.py:loaders")).key is None
    data, models = Read(), [(Net(0, 1), "a"), (Net(1, 1), "b")]
    data.rows = [(x, y[:, None].float()) for x, y in data.rows]
    first = of(folder).judge(models, data, "mse", "cpu")
    assert of(folder).judge(models, data, "mse", "cpu") == first
    assert not list((folder / "cache").rglob("*.safetensors"))


class Clock:
    """A second for each time that it is asked."""

    now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


def cut(data, after):
    """The data as far as it is read by the deadline, which comes with batch number `after`."""
    clock = Clock()
    return FirstBatches(data, deadline=after + 1.0, clock=clock)


def test_a_known_original_is_compared_on_the_batches_that_another_variant_got_through(folder):
    original = Net(0)
    whole = of(folder).judge([(original, "a"), (Net(1), "b")], Read(), "accuracy", "cpu")
    data, other = Read(), Net(2)
    batches = cut(data, after=3)
    found = of(folder).judge([(original, "a"), (other, "c")], batches, "accuracy", "cpu")
    assert batches.late and data.count == 3 == other.calls
    assert found == judge(Net(0), Net(2), Read().rows[:3], "accuracy", "cpu")
    assert found[3] == 24 and whole[3] == 40


def test_a_pass_that_time_cut_short_is_not_kept_as_the_judgement_of_all_data(folder):
    models = [(Net(0), "a"), (Net(1), "b")]
    first = of(folder).judge(models, cut(Read(), after=2), "accuracy", "cpu")
    assert first[3] == 16 and not list((folder / "cache").rglob("*.safetensors"))
    assert of(folder).judge(models, Read(), "accuracy", "cpu")[3] == 40


class Least:
    """A metric of the whole."""

    def reset(self):
        self.seen = []

    def add(self, outputs, targets):
        self.seen.append(float((outputs.argmax(1) == targets).double().mean()))

    def result(self):
        return min(self.seen)


def test_a_metric_of_the_whole_is_judged_again_of_both_since_its_interval_needs_all(folder):
    original = Net(0)
    first = of(folder).judge([(original, "a"), (Net(1), "b")], Read(), Least(), "cpu")
    again = of(folder).judge([(original, "a"), (Net(1), "b")], Read(), Least(), "cpu")
    assert again == first and first.interval is not None and original.calls == 10
    found = of(folder).judge([(original, "a"), (Net(2), "c")], cut(Read(), 3), Least(), "cpu")
    assert found == judge(Net(0), Net(2), Read().rows[:3], Least(), "cpu")


DAMAGES = {
    "scalar": {"chosen": torch.tensor(1, dtype=torch.int32)},
    "two rows": {"chosen": torch.zeros(8, 5, dtype=torch.int32)},
    "float": {"chosen": torch.zeros(40)},
    "short": {"chosen": torch.zeros(3, dtype=torch.int32)},
    "empty": {"chosen": torch.zeros(0, dtype=torch.int32), "means": torch.zeros(0).double(),
              "counts": torch.zeros(0).long()},
    "not finite": {"means": torch.full((5,), torch.nan).double()},
    "no counts": {"counts": None},
    "values short": {"values": torch.zeros(3)},
    "values not finite": {"values": torch.full((40,), torch.nan)},
}  # fmt: skip


@pytest.mark.parametrize("damage", [*DAMAGES, "score", "no safetensors", "pipe"])
def test_a_damaged_entry_is_judged_again(folder, damage):
    models = [(Net(0), "a"), (Net(1), "b")]
    first = of(folder).judge(models, Read(), "accuracy", "cpu")
    for path in (folder / "cache").rglob("*.safetensors"):
        rows, score = load_file(path), "nan" if damage == "score" else "0.5"
        rows |= DAMAGES.get(damage, {})
        save_file({n: x for n, x in rows.items() if x is not None}, path, {"score": score})
        if damage == "no safetensors":
            path.write_text("hello")
        if damage == "pipe":
            path.unlink()
            os.mkfifo(path)
    data = Read()
    assert of(folder).judge(models, data, "accuracy", "cpu") == first and data.count == 5
