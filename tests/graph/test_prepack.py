"""Which layers are prepacked: what is timed is what would run, and a layer that loses stays."""

from __future__ import annotations

import pico
import pytest
import torch
import zoo
from modelspeed.core.model_io import Inputs, leaves, plain
from modelspeed.graph.capture import capture
from modelspeed.graph.lowering import prepack
from modelspeed.graph.lowering.lower import lowerings
from torch import nn

NAMES = ("onednn", "onednn_channels_last")
PACKED = "torch.ops.mkldnn"


class Signal(nn.Module):
    """Convolutions of a signal, with a residual, and linear layers with and without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(3, 4, 3, padding=1), nn.Conv1d(4, 4, 3, padding=1)
        self.c, self.d = nn.Linear(4 * 10, 6), nn.Linear(6, 6, bias=False)

    def forward(self, x):
        x = torch.relu(self.a(x))
        x = torch.relu(self.b(x) + x)
        y = nn.functional.gelu(self.c(x.flatten(1)))
        return self.d(y) + y


def cases():
    for block in sorted(pico.BLOCKS):
        yield block, pico.net([block, "residual"]), (pico.images(2),)
    yield "signal", Signal().eval(), (torch.randn(2, 3, 10),)
    for name in ("Vit", "MobileOne", "UNet", "Bert"):
        yield name, zoo.ZOO[name].model(), zoo.ZOO[name].inputs


CASES = [pytest.param(model, inputs, id=name) for name, model, inputs in cases()]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("model", "given"), CASES)
def test_what_is_timed_is_the_layer_itself_packed_and_as_it_is(model, given, name):
    asked = {}

    def compare(layer, packed, plain_run):
        with torch.inference_mode():
            one, other = packed(), plain_run()
        if other.dim() == 4 and one.shape != other.shape:
            one = one.movedim(-1, 1)  # rows of places
        torch.testing.assert_close(one.reshape(other.shape), other, rtol=1e-4, atol=1e-5)
        asked[layer] = asked.get(layer, 0) + 1
        return True

    graph, inputs = capture(model, given), Inputs.of(given)
    options = lowerings(graph, inputs, compare)
    if name not in options:
        pytest.skip("images alone have this lowering")
    ready = options[name]()
    assert sum(asked.values()) == ready.code.count(PACKED) > 0
    hash(tuple(asked))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("model", "given"), CASES)
def test_layers_that_are_not_worth_it_stay_as_they_are(model, given, name):
    """All of them, or every other one."""
    graph, inputs = capture(model, given), Inputs.of(given)
    answers = iter([True, False] * 1000)
    for test in (lambda *_: False, lambda *_: next(answers)):
        options = lowerings(graph, inputs, test)
        if name not in options:
            pytest.skip("images alone have this lowering")
        ready = options[name]()
        with torch.inference_mode():
            wanted, outputs = (leaves(plain(inputs.call(m))) for m in (graph, ready))
        for one, other in zip(wanted, outputs, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)
    assert PACKED not in lowerings(graph, inputs, lambda *_: False)[name]().code


def test_convolutions_are_packed_for_the_size_that_they_read(monkeypatch):
    """Without it a processor with AVX2 alone takes up to 14 times as long (RESULTS.md)."""
    seen = []
    pack = prepack.mkldnn._reorder_convolution_weight

    class Spy:
        def __getattr__(self, name):
            return getattr(torch.ops.mkldnn, name)

        def _reorder_convolution_weight(self, weight, *rest):
            seen.append((tuple(weight.shape), rest[4:]))
            return pack(weight, *rest)

    monkeypatch.setattr(prepack, "mkldnn", Spy())
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 4, 3, groups=2)).eval()
    x = torch.randn(2, 3, 17, 15)
    lowerings(capture(model, (x,)), Inputs.of((x,)))["onednn"]()
    assert seen == [((8, 3, 3, 3), ([2, 3, 17, 15],)), ((4, 4, 3, 3), ([2, 8, 8, 7],))]
