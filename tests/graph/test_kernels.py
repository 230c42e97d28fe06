"""Every operator x activation x sum x layout x dimension x number format under every lowering."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from modelspeed.adjusters.plan import Context
from modelspeed.adjusters.quantize import plan
from modelspeed.backends import registry as runtimes
from modelspeed.backends.ranking import rank_backends
from modelspeed.configs.recipe import make_step
from modelspeed.core.model_io import Inputs
from modelspeed.graph.capture import capture, clone
from modelspeed.graph.edits.apply import Cast, apply
from modelspeed.graph.lowering import kernels, prepack
from modelspeed.graph.lowering import lower as lowering
from modelspeed.graph.lowering.int8 import largest_level
from modelspeed.graph.lowering.lower import lowerings
from torch import nn
from torch.nn import functional as F

C = 16
LAYERS = {
    "conv1d": (lambda: nn.Conv1d(C, C, 3, padding=1), (C, 6)),
    "conv1d pointwise": (lambda: nn.Conv1d(C, C, 1), (C, 6)),
    "conv1d grouped": (lambda: nn.Conv1d(C, C, 3, padding=1, groups=4), (C, 6)),
    "conv2d": (lambda: nn.Conv2d(C, C, 3, padding=1), (C, 6, 6)),
    "conv2d pointwise": (lambda: nn.Conv2d(C, C, 1), (C, 6, 6)),
    "conv2d grouped": (lambda: nn.Conv2d(C, C, 3, padding=1, groups=4, bias=False), (C, 6, 6)),
    "conv2d depthwise": (lambda: nn.Conv2d(C, C, 3, padding=1, groups=C), (C, 6, 6)),
    "conv2d same": (lambda: nn.Conv2d(C, C, 3, padding="same", dilation=2), (C, 6, 6)),
    "conv3d": (lambda: nn.Conv3d(C, C, 3, padding=1), (C, 4, 4, 4)),
    "transposed": (lambda: nn.ConvTranspose2d(C, C, 3, padding=1), (C, 6, 6)),
    "linear": (lambda: nn.Linear(C, C), (C,)),
    "linear of rows": (lambda: nn.Linear(C, C, bias=False), (5, C)),
}
ACTIVATIONS = {
    "none": lambda x: x, "relu": F.relu, "relu_": lambda x: F.relu_(x), "silu": F.silu,
    "gelu": F.gelu, "gelu tanh": lambda x: F.gelu(x, approximate="tanh"), "relu6": F.relu6,
    "hardtanh": lambda x: F.hardtanh(x, -0.5, 0.5), "hardswish": F.hardswish, "elu": F.elu,
    "sigmoid": torch.sigmoid, "tanh": torch.tanh, "leaky": lambda x: F.leaky_relu(x, 0.1),
}  # fmt: skip


class Every(nn.Module):
    """Each activation behind a layer of its own, alone and behind the sum with a residual."""

    def __init__(self, make):
        super().__init__()
        self.first = make()
        self.alone, self.summed = (nn.ModuleList(make() for _ in ACTIVATIONS) for _ in range(2))

    def forward(self, x):
        y = self.first(x)
        alone = [act(layer(y)) for layer, act in zip(self.alone, ACTIVATIONS.values(), strict=True)]
        both = zip(self.summed, ACTIVATIONS.values(), strict=True)
        summed = [act(layer(x) + y) for layer, act in both]
        return [*alone, *summed]


def check(module, shape, wanted, close):
    names = [f"{name} {where}" for where in ("alone", "summed") for name in ACTIVATIONS]
    example = Inputs.of((torch.randn(2, *shape),))
    for kind, build in lowerings(module, example).items():
        lowered = build()
        for rows in (1, 5):
            x = torch.randn(rows, *shape)
            for layout in (torch.contiguous_format, torch.channels_last):
                if layout is torch.channels_last and x.dim() != 4:
                    continue
                with torch.inference_mode():
                    found = lowered(x.contiguous(memory_format=layout))
                    right = wanted(x)
                for name, a, b in zip(names, found, right, strict=True):
                    differ = (a - b).abs().max().item()
                    assert differ <= close, (kind, name, rows, layout, differ)


HALVES = ("conv1d", "conv2d", "conv2d pointwise", "conv2d grouped", "conv2d depthwise", "linear")
CASES = [(layer, "float32") for layer in LAYERS]
CASES += [(layer, dtype) for layer in HALVES for dtype in ("bfloat16", "float16")]
OLDER = "float32 and conv2d or float32 and linear or False-conv2d or False-linear or asked"


@pytest.mark.parametrize(("layer", "dtype"), CASES)
def test_every_activation_and_sum_behind_every_layer_runs_in_every_lowering(layer, dtype):
    torch.manual_seed(0)
    make, shape = LAYERS[layer]
    module = capture(Every(make).eval(), (torch.randn(2, *shape),))
    if dtype != "float32":
        module = apply(module, [Cast(dtype)])
    check(module, shape, module, 1e-4 if dtype == "float32" else 0.1)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("weights", [False, True])
def test_the_same_in_integers(layer, weights):
    torch.manual_seed(0)
    make, shape = LAYERS[layer]
    inputs = (torch.randn(2, *shape),)
    module = capture(Every(make).eval(), inputs)
    data = [(torch.randn(8, *shape), None) for _ in range(2)]
    schemes = ("int8_weight", "int4_weight") if weights else ("int8_static", "int8_dynamic")
    for scheme in schemes:
        step = make_step("quantize", scheme=scheme)
        made = plan(Context(module, Inputs.of(inputs), data), step.settings)
        quantized = apply(clone(module), made.edits)
        check(quantized, shape, quantized, 40 / largest_level())  # the next integer, here and there


def test_what_a_kernel_takes_is_asked_once(monkeypatch):
    kernels.convolves.cache_clear()
    asked = []
    monkeypatch.setattr(kernels, "_gives", lambda *_: asked.append(1) or False)
    module = capture(Every(LAYERS["conv2d"][0]).eval(), (torch.randn(2, C, 6, 6),))
    try:
        for _ in range(2):
            for build in lowerings(module, (torch.randn(2, C, 6, 6),)).values():
                assert "pointwise" not in build().code
        assert len(asked) == 1
    finally:
        kernels.convolves.cache_clear()


def test_a_kernel_that_gives_something_else_is_not_taken(monkeypatch):
    kernels.multiplies.cache_clear()
    monkeypatch.setitem(kernels._PLAIN, "relu", torch.abs)
    try:
        assert not kernels.multiplies(torch.float32, ("relu", (), ""))
        assert kernels.multiplies(torch.float32, ("tanh", (), ""))
    finally:
        kernels.multiplies.cache_clear()


@pytest.mark.parametrize("kind", [RuntimeError, ValueError, KeyError])
def test_a_lowering_that_raises_is_left_out_of_all_that_choose_one(monkeypatch, kind):
    def fails(*_):
        raise kind("Unary Fusion behavior undefined.")

    inputs = Inputs.of((torch.randn(1, C, 6, 6),))
    module = capture(nn.Sequential(nn.Conv2d(C, C, 3), nn.SiLU()).eval(), inputs)
    monkeypatch.setattr(prepack.Packing, "convolution", fails)
    said = []
    found = rank_backends(module, inputs, "lowered", (inputs,))
    names, left = found.names, found.left_out
    assert not {"onednn", "onednn_channels_last"} & set(names) and len(left) == 2
    assert all("Unary Fusion behavior undefined" in row.reason for row in left)
    assert runtimes.furthest_lowering(module, inputs) is None
    assert "Unary" in str(runtimes.ready(module, inputs, "onednn"))
    assert runtimes.first_ready(module, inputs, ("onednn",), said.append)[0] == "plain"
    lowering.lower(module, inputs)


@pytest.mark.skipif("AVX2" in os.environ.get("ONEDNN_MAX_CPU_ISA", ""), reason="runs itself")
@pytest.mark.long
def test_all_of_it_holds_on_an_older_processor():
    env = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    words = [sys.executable, "-m", "pytest", __file__, "-x", "-p", "no:cacheprovider", "-k", OLDER]
    root = Path(__file__).parents[2]
    done = subprocess.run(words, cwd=root, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
