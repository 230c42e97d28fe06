from __future__ import annotations

import pico
import pytest
import torch
from modelspeed.adjusters import low_rank
from modelspeed.adjusters.methods.spectrum import OuterSums, spectrum
from modelspeed.adjusters.plan import Context
from modelspeed.configs.recipe import make_step
from modelspeed.core.errors import EditError, ModelspeedError
from modelspeed.core.model_io import Inputs
from modelspeed.graph.capture import capture, clone, export_program, module_of
from modelspeed.graph.edits.apply import Factor, Slice, apply, edits_from_json, edits_to_json
from modelspeed.graph.lowering.lower import lowerings
from torch import nn

ONE = Inputs.of((pico.images(1),))
DATA = [(pico.images(16, seed), None) for seed in range(4)]


def settings(**given):
    return make_step("low_rank", **given).settings


def context(model=None, inputs=ONE, train=DATA):
    return Context(capture(model or pico.net(["residual"]), tuple(inputs)), inputs, train)


@pytest.fixture
def clock(monkeypatch):
    """ms: what the whole layer takes, two layers of the least rank, and each higher step more."""
    took = {"whole": 1.0, "split": 0.5, "step": 0.1}
    times = lambda runs, _: [  # noqa: E731
        took["whole"], *(took["split"] + i * took["step"] for i in range(len(runs) - 1))
    ]  # fmt: skip
    monkeypatch.setattr(low_rank, "undisturbed_ms", times)
    return took


class Narrow(nn.Module):
    """Its wide layer gives outputs that vary in three directions, on inputs of three kinds."""

    def __init__(self, outs=96, bias=True):
        super().__init__()
        self.spread = nn.Linear(3, 64)
        self.wide = nn.Linear(64, outs, bias=bias)

    def forward(self, x):
        return torch.relu(self.wide(self.spread(x)))


def narrow(**given):
    torch.manual_seed(0)
    return Narrow(**given).eval()


ROWS = Inputs.of((torch.randn(1, 3),))
SHOWN = [(torch.randn(64, 3, generator=torch.Generator().manual_seed(s)), None) for s in range(4)]


def test_layers_that_measure_no_faster_in_two_stay_and_say_so(clock):
    clock["split"] = 0.97
    made = low_rank.plan(context(narrow(), ROWS, SHOWN), settings())
    assert made.edits == () and not made.weights
    assert {item.what for item in made.left_alone} == {"spread", "wide"}
    assert any("takes 0.97 ms here, the layer as it is 1 ms" in i.reason for i in made.left_alone)


def test_a_rank_that_saves_no_operations_is_not_even_timed(monkeypatch):
    monkeypatch.setattr(low_rank, "undisturbed_ms", lambda *_: pytest.fail("timed"))
    made = low_rank.plan(context(), settings(max_error=0.0))
    assert made.edits == () and "no fewer operations" in made.left_alone[0].reason


def test_skipped_grouped_and_shared_layers_stay(clock):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.deep = nn.Conv2d(1, 8, 1), nn.Conv2d(8, 8, 3, groups=8)
            self.twice = nn.Linear(8, 8)

        def forward(self, x):
            y = self.deep(self.a(x)).mean((2, 3))
            return self.twice(torch.relu(self.twice(y)))

    made = low_rank.plan(context(Odd().eval()), settings(rank=1, skip=("a",)))
    said = {item.what: item.reason for item in made.left_alone}
    assert made.edits == ()
    assert "skip" in said["a"] and "grouped" in said["deep"] and "shared" in said["twice"]


def test_planning_changes_nothing(clock):
    at = context()
    before = {k: v.clone() for k, v in at.module.state_dict().items()}
    low_rank.plan(at, settings(ratio=0.5))
    assert all(torch.equal(v, before[k]) for k, v in at.module.state_dict().items())
    assert set(at.module.state_dict()) == set(before)


def test_a_higher_rank_that_takes_no_longer_is_taken(clock):
    clock["step"] = 0.001
    made = low_rank.plan(context(narrow(), ROWS, SHOWN), settings(max_error=1e-6, skip=("spread",)))
    assert [e.rank for e in made.edits] == [32]


@pytest.mark.parametrize("outs", [96, 32])  # more outputs than inputs, and fewer
@pytest.mark.parametrize("bias", [True, False])
def test_what_never_varies_in_the_data_is_cut_without_loss(clock, outs, bias):
    at = context(narrow(outs=outs, bias=bias), ROWS, SHOWN)
    made = low_rank.plan(at, settings(max_error=1e-6, skip=("spread",)))
    (edit,) = made.edits
    assert edit.rank == 3 and made.must_be_faster
    split = made.apply(clone(at.module))
    x = torch.randn(50, 3)
    torch.testing.assert_close(split(x), at.module(x), rtol=1e-4, atol=1e-4)


def test_data_beats_the_weights_alone(clock):
    """Weights without the data keep directions that its inputs never have."""
    at = context(narrow(), ROWS, SHOWN)
    rows = settings(rank=3, skip=("spread",))
    blind = low_rank.plan(context(narrow(), ROWS, None), rows).apply(clone(at.module))
    seen = low_rank.plan(at, rows).apply(clone(at.module))
    x = torch.randn(50, 3)
    error = [(m(x) - at.module(x)).norm() / at.module(x).norm() for m in (seen, blind)]
    assert error[0] < 1e-3 < 0.3 < error[1]


def test_the_error_that_is_promised_is_the_error_on_the_data():
    torch.manual_seed(0)
    weight, bias, x = torch.randn(12, 20), torch.randn(12), torch.randn(4000, 20) + 1
    x[:, :10] *= 0.1
    y = x @ weight.T + bias
    for seen, rows in ((OuterSums.of(weight), y), (OuterSums.of(weight.T), None)):
        if rows is None:
            weight, bias, y = weight.T, torch.randn(20), None
            x = torch.randn(4000, 12) * torch.linspace(0.1, 1, 12)
            y, rows = x @ weight.T + bias, x
        seen.note(rows)
        found = spectrum(weight, bias, seen)
        rank = found.rank(0.1)
        assert found.error(rank) <= 0.1 < found.error(rank - 1)
        u = found.basis[:, :rank].float()
        near = x @ (u @ (u.T @ weight)).T + found.bias(rank, bias).float()
        lost = float((near - y).square().sum() / (y - y.mean(0)).square().sum())
        assert lost == pytest.approx(found.error(rank), rel=0.02)


@pytest.mark.parametrize("block", sorted(pico.BLOCKS))
def test_edits_survive_json_export_and_every_lowering(block):
    at = context(pico.net([block, "residual"]))
    made = low_rank.plan(at, settings(ratio=0.4))
    assert made.edits
    split = clone(at.module)
    apply(split, edits_from_json(edits_to_json(made.edits)))
    split.load_state_dict({**split.state_dict(), **made.weights})
    x = pico.images(5)
    with torch.inference_mode():
        wanted = split(x)
        assert not torch.equal(wanted, at.module(x))
        again = module_of(export_program(clone(split), tuple(ONE)))
        for module in (again, *(build() for build in lowerings(again, ONE).values())):
            torch.testing.assert_close(module(x), wanted, rtol=1e-4, atol=1e-5)


def test_one_dimensional_and_padded_convolutions_keep_their_shape():
    model = nn.Sequential(
        nn.Conv1d(4, 16, 5, stride=2, padding=2, dilation=2), nn.ReLU(),
        nn.Conv1d(16, 16, 3, padding="same"), nn.BatchNorm1d(16),
    ).eval()  # fmt: skip
    inputs = Inputs.of((torch.randn(1, 4, 40),))
    at = context(model, inputs, [(torch.randn(8, 4, 40), None)])
    made = low_rank.plan(at, settings(ratio=0.99, match=("*",)))
    split = apply(clone(at.module), [Factor(n, 4) for n in ("conv1d", "conv1d_1")])
    assert split(inputs[0]).shape == at.module(inputs[0]).shape
    assert made.edits == () or made.apply(clone(at.module))(inputs[0]).shape[-1] == 18


def test_split_layers_can_be_sliced_and_full_rank_is_exact():
    at = context(pico.net(["residual"], width=8))
    split = apply(clone(at.module), [Factor("conv2d_1", 8)])
    torch.testing.assert_close(split(pico.images()), at.module(pico.images()), rtol=1e-4, atol=1e-5)
    keep = (0, 1, 4, 5, 6)
    cut = [Slice("blocks.0.conv1.weight", 0, keep), Slice("blocks.0.conv1.expand.weight", 1, keep)]
    assert apply(split, cut)(pico.images()).shape == (2, 3)


def test_edits_that_do_not_fit_are_refused():
    at = context(pico.net(["depthwise"]))
    for node, rank, part in (
        ("conv2d_2", 0, "can't have 0"),
        ("conv2d_2", 9, "rank 8"),
        ("relu", 1, "not a layer"),
        ("conv2d_1", 1, "grouped"),
        ("nothing", 1, "no node"),
    ):
        with pytest.raises(EditError, match=part):
            apply(clone(at.module), [Factor(node, rank)])


def test_rank_and_ratio_exclude_each_other():
    with pytest.raises((ModelspeedError, ValueError), match="both `rank` and `ratio`"):
        settings(rank=2, ratio=0.5)


def test_the_least_of_interleaved_calls_counts():
    class Clock:
        def __init__(self):
            self.times = iter([5.0, 9.0, 4.0, 3.0, 7.0, 8.0, 6.0, 9.0, 9.0, 9.0, 1.0, 1.0])
            self.seconds = 0.0

        def time(self, run):
            run()
            self.seconds += 1.0
            return next(self.times)

        def now(self):
            return self.seconds

    assert low_rank.undisturbed_ms([int, int], Clock()) == [4.0, 3.0]
