"""Halves of evaluation data: fixed, disjoint, of each class as much, read one by one."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from modelspeed.configs.recipe import DataSpec, Recipe
from modelspeed.core.errors import DataError
from modelspeed.core.model_io import Inputs
from modelspeed.data.halves import Halves, checked_halves
from modelspeed.data.labels import labels_of
from modelspeed.data.load import load_data
from modelspeed.graph.capture import capture
from torch import nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)


class Recorded(Dataset):
    """Numbers, of which it says which ones were read; sorted by their class."""

    def __init__(self, count, classes=4):
        self.count, self.classes, self.read = count, classes, []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.read.append(index)
        return torch.tensor([float(index)]), self.classes * index // self.count


class Labeled(Recorded):
    def __init__(self, targets):
        super().__init__(len(targets))
        self.targets = targets

    def __getitem__(self, index):
        return super().__getitem__(index)[0], self.targets[index]


def numbers(batches):
    """The inputs of all examples, which count them."""
    found = []
    for inputs, _ in batches:
        (x,) = inputs if not isinstance(inputs, torch.Tensor) else (inputs,)
        found += [int(v) for v in x.flatten()]
    return found


def classes(batches):
    return Counter(int(t) for _, targets in batches for t in targets)


def batches_of(targets, size):
    pairs = [(torch.arange(len(targets)).float()[:, None], torch.tensor(targets))]
    return [(x[i : i + size], y[i : i + size]) for x, y in pairs for i in range(0, len(y), size)]


class Stream:
    """Batches that nobody can take apart."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


FORMS = {
    "loader": lambda targets, size: DataLoader(
        TensorDataset(torch.arange(len(targets)).float()[:, None], torch.tensor(targets)), size
    ),
    "list": batches_of,
    "stream": lambda targets, size: Stream(batches_of(targets, size)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1, 16])
def test_halves_are_fixed_and_disjoint_and_hold_as_much_of_each_class(form, size):
    targets = [i * i % 5 for i in range(440)]
    halves = checked_halves(FORMS[form](targets, size), 0, 200)
    judge, report = numbers(halves.judge), numbers(halves.report)
    assert sorted(judge + report) == list(range(440)) and not set(judge) & set(report)
    first, second = classes(halves.judge), classes(halves.report)
    assert all(abs(first[c] - second[c]) <= 1 for c in range(5)) and len(judge) >= 200
    again = Halves(FORMS[form](targets, size), 0)
    assert numbers(again.judge) == judge and numbers(again.report) == report
    assert numbers(Halves(FORMS[form](targets, size), 1).judge) != judge
    if form == "stream":
        assert halves.counts is None and halves.within(-1.0).counts is None
    assert halves.within(60.0).counts == (len(judge), len(report))


def test_all_forms_of_the_same_data_have_the_same_halves():
    targets = [i % 3 for i in range(60)]
    halves = [set(numbers(Halves(make(targets, 8), 0).judge)) for make in FORMS.values()]
    assert halves[0] == halves[1] == halves[2]


def test_what_judges_is_read_without_what_reports():
    data = Recorded(400)
    halves = checked_halves(DataLoader(data, batch_size=16), 0, 200)
    assert data.read == []
    judged = classes(halves.judge)
    judge = set(data.read)
    assert len(judge) == 200 and all(abs(judged[c] - 50) <= 1 for c in range(4))
    data.read.clear()
    list(halves.report)
    assert not judge & set(data.read) and len(data.read) == 200


@pytest.mark.parametrize("form", FORMS)
def test_a_model_of_one_batch_size_gets_whole_batches(form):
    halves = checked_halves(FORMS[form]([i % 3 for i in range(480)], 16), 0, 100, whole=True)
    sizes = {len(y) for part in (halves.judge, halves.report) for _, y in part}
    assert sizes == {16}
    assert sorted(numbers(halves.judge) + numbers(halves.report)) == list(range(480))


def test_what_gives_two_halves_of_nothing_says_why():
    few = checked_halves(FORMS["loader"]([0, 1] * 24, 8), 0, 200)
    assert few == "half of the evaluation data is 24 examples, and it takes 200 to judge"
    assert checked_halves(Stream(batches_of([0, 1] * 24, 8)), 0, 200) == few
    one = checked_halves(FORMS["list"]([0], 1), 0, 1)
    assert one == "the evaluation data has no example for each half"
    whole = checked_halves(FORMS["list"]([0] * 500, 500), 0, 1, whole=True)
    assert whole == "the evaluation data has no batch for each half"
    dropping = DataLoader(Recorded(500), batch_size=400, drop_last=True)
    assert "no batch for each half" in checked_halves(dropping, 0, 1)


def test_data_that_differ_from_pass_to_pass_have_no_halves():
    weighted = WeightedRandomSampler([1.0] * 500, 500)
    loader = DataLoader(Recorded(500), batch_size=16, sampler=weighted)
    assert "other examples in each pass" in checked_halves(loader, 0, 200)


def test_data_of_another_kind_in_each_pass_have_no_halves():
    class Odd:
        def __init__(self):
            self.passes = 0

        def __iter__(self):
            self.passes += 1
            x = torch.zeros(500, 2)
            yield ((x,) * (1 + self.passes % 2), torch.zeros(500))

    assert "other examples in each pass" in checked_halves(Odd(), 0, 200)


def test_inputs_without_a_row_for_each_example_stay_in_whole_batches():
    batches = [(torch.full((7, 4), float(i)), torch.zeros(4)) for i in range(10)]
    halves = Halves(batches, 0)
    parts = [[int(x[0, 0]) for x, _ in part] for part in (halves.judge, halves.report)]
    assert sorted(parts[0] + parts[1]) == list(range(10)) and len(parts[0]) == 5


def test_a_class_with_one_example_is_missing_in_one_half_and_said(tmp_path):
    labels = [*([0, 1] * 220), 2]
    halves = Halves(DataLoader(Labeled(labels), batch_size=8), 0)
    assert halves.single_classes == 1
    assert sorted(classes(part)[2] for part in (halves.judge, halves.report)) == [0, 1]
    (tmp_path / "data.py").write_text(
        f"import torch\nfrom torch.utils.data import DataLoader, TensorDataset\n"
        f"labels = torch.tensor({labels})\n"
        "def loaders():\n"
        "    data = TensorDataset(torch.zeros(len(labels), 4), labels)\n"
        "    return DataLoader(data, batch_size=8), DataLoader(data, batch_size=8)\n"
    )
    data = load_data(Recipe(data=DataSpec(factory="data.py:loaders"), base=tmp_path))
    assert "A class has a single example, so one half lacks it" in data.remark


def test_labels_are_taken_from_where_data_sets_have_them_and_from_nowhere_else():
    targets = torch.tensor([2, 0, 1])
    assert labels_of(TensorDataset(torch.zeros(3, 1), targets), [0, 2]) == [2, 1]
    assert labels_of(Subset(TensorDataset(torch.zeros(3, 1), targets), [2, 1]), [0, 1]) == [1, 0]
    assert labels_of(Labeled([1, 2, 3]), [1]) == [2]
    assert labels_of(Labeled([0.5, 1.5]), [1]) is None
    assert labels_of(Labeled([[1], [2, 3]]), [1]) is None
    assert labels_of(Labeled(targets), [3]) is None
    assert labels_of(Recorded(3), [1]) is None


DATA = """
import torch
def loaders():
    x, y = torch.randn({count}, 4), torch.arange({count}) % 3
    batches = [(x[i:i + 8], y[i:i + 8]) for i in range(0, {count}, 8)]
    return batches, {evaluation}
"""


def loaded(folder, count=408, evaluation="batches", **spec):
    name = f"data_{count}_{len(evaluation)}.py"  # a file is read once
    (folder / name).write_text(DATA.format(count=count, evaluation=evaluation))
    return load_data(Recipe(data=DataSpec(factory=f"{name}:loaders", **spec), base=folder))


def test_a_half_judges_where_there_is_enough_and_training_keeps_all_of_its_data(tmp_path):
    data = loaded(tmp_path)
    assert data.halves.counts == (204, 204)
    assert sum(len(y) for _, y in data.train) == 408 and data.train_batches == 51
    assert "evaluation examples; the report reads the others" in data.remark
    assert sum(len(y) for _, y in data.held_out) == 204


def test_too_little_is_judged_as_before_and_said(tmp_path):
    data = loaded(tmp_path, count=48)
    assert data.halves is None and data.on_the_way is data.reported is data.eval
    assert (
        "held-out training data" in data.remark
        and "half of the evaluation data is 24 examples" in data.remark
    )
    assert sum(len(y) for _, y in data.train) < 48


def test_the_recipe_says_which_data_judges(tmp_path):
    assert loaded(tmp_path, judge="train").halves is None
    assert loaded(tmp_path, count=48, judge="half").halves.counts == (24, 24)
    with pytest.raises(DataError, match=r"`data.judge` is `half`, but the evaluation data has no"):
        loaded(tmp_path, count=1, judge="half")
    with pytest.raises(DataError, match="but there is no evaluation data"):
        loaded(tmp_path, evaluation="None", judge="half")
    other = loaded(tmp_path, judge_seed=1)
    assert not torch.equal(other.halves.judge[0][1], loaded(tmp_path).halves.judge[0][1])


def test_without_evaluation_data_the_originals_answers_judge(tmp_path):
    data = loaded(tmp_path, evaluation="None")
    assert not data.is_labeled and "nearness to the original's answers" in data.remark
    with pytest.raises(DataError, match="the eval data is empty"):
        loaded(tmp_path, evaluation="[]")


def test_a_model_of_one_batch_size_is_judged_by_whole_batches_or_as_before(tmp_path):
    fixed = torch.export.export(nn.Linear(4, 3), (torch.zeros(8, 4),)).module()
    data = loaded(tmp_path).fitting(fixed)
    assert data.halves.whole and {len(y) for _, y in data.held_out} == {8}
    few = loaded(tmp_path, count=48, judge="half").fitting(fixed)
    assert few.halves.whole and few.halves.counts == (24, 24)
    one = loaded(tmp_path, count=8, judge="half").fitting(fixed)
    assert one.halves is None and "has no batch for each half" in one.remark
    usual = loaded(tmp_path)
    assert usual.fitting(capture(nn.Linear(4, 3), (torch.zeros(8, 4),))) is usual


class Streamed(IterableDataset):
    def __iter__(self):
        return iter((torch.tensor([float(i)]), i % 4) for i in range(900))


def test_a_loader_of_iterable_data_is_halved_though_nobody_knows_its_length():
    halves = checked_halves(DataLoader(Streamed(), batch_size=30), 0, 200)
    judge, report = (
        {int(value) for inputs, _ in half for x in Inputs.of(inputs) for value in x}
        for half in (halves.judge, halves.report)
    )
    assert judge.isdisjoint(report) and len(judge | report) == 900


class Spent:
    """The same iterator for each pass."""

    def __init__(self, count):
        self.rest = iter([(torch.zeros(4, 1), torch.zeros(4).long())] * count)

    def __iter__(self):
        return self.rest


def test_data_that_is_spent_after_one_pass_is_not_halved():
    assert "other examples in each pass" in checked_halves(Spent(1), 0, 2)
