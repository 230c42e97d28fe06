from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from modelspeed.core.model_io import Inputs
from modelspeed.graph.capture import capture
from modelspeed.profiling.layers import count_macs, profile_layers
from modelspeed.profiling.macs import bytes_of, macs_of
from modelspeed.profiling.peak import measure_peak
from torch import nn


class FakeClock:
    """Every call takes 1 ms, an empty one 0.25 ms."""

    def __init__(self) -> None:
        self.ticks = itertools.count()

    def time(self, run: Callable[[], object]) -> float:
        run()
        return 0.25 if run.__name__ == "_nothing" else 1.0

    def now(self) -> float:
        return float(next(self.ticks))

    def load(self) -> None:
        return None


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.depthwise = nn.Conv2d(4, 4, 3, groups=4, bias=False)
        self.fc = nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.depthwise(self.body(x))
        return self.fc(y.mean((2, 3)))


@pytest.fixture(scope="module")
def captured() -> torch.fx.GraphModule:
    torch.set_num_threads(1)
    x = torch.randn(2, 1, 8, 8)
    dynamic = ({0: torch.export.Dim("batch")},)
    return torch.export.export(Net().eval(), (x,), dynamic_shapes=dynamic).module()


MACS = 8 * 8 * 4 * 9 + 6 * 6 * 4 * 9 + 40


def test_macs_are_counted_by_hand(captured: torch.fx.GraphModule) -> None:
    assert count_macs(captured, Inputs((torch.randn(1, 1, 8, 8),))) == MACS
    assert count_macs(captured, Inputs((torch.randn(3, 1, 8, 8),))) == 3 * MACS


def test_layers_carry_the_users_names_and_their_costs(captured: torch.fx.GraphModule) -> None:
    x = torch.randn(1, 1, 8, 8)
    layers = profile_layers(captured, Inputs((x,)), repeats=3, clock=FakeClock(), peak=1e6)
    ops = {layer.op: layer for layer in layers if layer.name != "depthwise"}
    assert [layer.name for layer in layers][:2] == ["body.0", "body.1"]
    assert layers[-1].name == "fc"
    assert {layer.ms for layer in layers} == {0.75}, "the clock's own cost is subtracted"
    assert sum(layer.share for layer in layers) == pytest.approx(1.0)
    assert sum(layer.macs for layer in layers) == MACS
    conv = ops["conv2d"]
    assert conv.shape == "1x1x8x8 -> 1x4x8x8"
    assert conv.bytes == 4 * (64 + 36 + 4 + 256)
    assert conv.peak_fraction == pytest.approx(2 * conv.macs / 0.75e-3 / 1e6)
    assert ops["linear"].macs == 40
    assert ops["relu"].macs == 0


def test_profiling_leaves_the_graph_as_it_was(captured: torch.fx.GraphModule) -> None:
    x = torch.randn(1, 1, 8, 8)
    before = captured(x)
    profile_layers(captured, Inputs((x,)), repeats=1, clock=FakeClock(), peak=1e6)
    assert torch.equal(captured(x), before)


def test_modules_in_the_graph_are_profiled() -> None:
    traced = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(3, 5), nn.ReLU()))
    layers = profile_layers(traced, Inputs((torch.randn(2, 3),)), clock=FakeClock(), peak=1e6)
    assert [(layer.op, layer.macs) for layer in layers] == [("Linear", 30), ("ReLU", 0)]


def test_products_count_rows_by_columns_by_depth() -> None:
    a, b, out = torch.randn(2, 3, 4), torch.randn(2, 4, 5), torch.randn(2, 3, 5)
    assert macs_of(torch.ops.aten.bmm.default, (a, b), out) == 120
    assert macs_of(torch.ops.aten.matmul.default, (a, b), out) == 120
    bias = torch.randn(5)
    assert macs_of(torch.ops.aten.addmm.default, (bias, a[0], b[0]), out[0]) == 60
    q, k, v = torch.randn(1, 2, 7, 4), torch.randn(1, 2, 9, 4), torch.randn(1, 2, 9, 6)
    attention = torch.ops.aten.scaled_dot_product_attention.default
    assert macs_of(attention, (q, k, v), torch.randn(1, 2, 7, 6)) == 2 * 7 * 9 * 10


def test_onednn_layers_are_counted_from_prepacked_weights() -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch was built without oneDNN")
    x, w = torch.randn(1, 4, 8, 8), torch.randn(8, 2, 3, 3)
    ones = [1, 1]
    packed = torch.ops.mkldnn._reorder_convolution_weight(w, ones, ones, ones, 2, [1, 4, 8, 8])
    work = 8 * 8 * 8 * 2 * 9
    with torch.no_grad():
        op = torch.ops.mkldnn._convolution_pointwise.default
        args = (x, packed, None, ones, ones, ones, 2, "relu", [], "")
        out = op(*args)
        assert macs_of(op, args, out) == work
        assert bytes_of(args, out) == 4 * (256 + w.numel() + 512)
        fused = torch.ops.mkldnn._convolution_pointwise.binary
        args = (x, out, packed, None, ones, ones, ones, 2, "add", 1.0, None, [], None)
        assert macs_of(fused, args, fused(*args)) == work
        linear = torch.ops.mkldnn._linear_pointwise.default
        weight = torch.ops.mkldnn._reorder_linear_weight(torch.randn(5, 3), 2)
        args = (torch.randn(2, 3), weight, None, "none", [], "")
        assert macs_of(linear, args, linear(*args)) == 30


def test_no_layer_is_above_the_peak_where_that_was_measured_in_a_slow_phase(monkeypatch) -> None:
    monkeypatch.setattr("modelspeed.profiling.layers.peak_flops", lambda *given: 1.0)
    captured = capture(torch.nn.Linear(3, 4), Inputs((torch.randn(2, 3),)))
    layers = profile_layers(captured, Inputs((torch.randn(2, 3),)), clock=FakeClock())
    assert max(layer.peak_fraction for layer in layers) == 1.0


def test_the_peak_is_that_of_the_fastest_product() -> None:
    torch.set_num_threads(1)
    flops = measure_peak("cpu", torch.float32, FakeClock(), seconds=2.0, size=8)
    assert flops == pytest.approx(2 * 8**3 / 1e-3)
