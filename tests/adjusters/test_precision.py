from __future__ import annotations

import json
from types import SimpleNamespace

import pico
import pytest
import torch
from modelspeed.adjusters import precision, quantize
from modelspeed.adjusters.plan import Context
from modelspeed.configs.recipe import make_step
from modelspeed.core.errors import EditError
from modelspeed.core.model_io import Inputs
from modelspeed.graph.capture import capture, clone, export_program, module_of
from modelspeed.graph.edits.apply import Cast, apply, edits_from_json, edits_to_json
from modelspeed.graph.layers import layers_of
from modelspeed.graph.lowering.lower import lowerings

ONE = Inputs.of((pico.images(1),))


def settings(dtype="bfloat16", **more):
    return make_step("precision", dtype=dtype, **more).settings


def context(blocks=("residual",)):
    return Context(capture(pico.net(list(blocks)), tuple(ONE)), ONE)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """What the layer takes in float32 and in half precision, ms."""
    took = [1.0, 1.0]
    rows = lambda runs, **_: [SimpleNamespace(samples_ms=[ms]) for ms in took]  # noqa: E731
    monkeypatch.setattr(precision, "measure_interleaved", rows)
    return took


def test_float32_changes_nothing():
    made = precision.plan(context(), settings("float32"))
    assert made.edits == () and "float32" in made.left_alone[0].reason


def test_a_machine_without_the_arithmetic_is_left_alone_and_says_so(clock):
    clock[:] = [0.2, 6.0]
    made = precision.plan(context(), settings())
    assert made.edits == ()
    assert "takes 6 ms in bfloat16 and 0.2 ms in float32" in made.left_alone[0].reason


def test_a_model_in_int8_is_left_alone():
    at = context()
    weights = make_step("quantize", scheme="int8_weight").settings
    apply(at.module, quantize.plan(at, weights).edits)
    assert "int8 already" in precision.plan(at, settings()).left_alone[0].reason


def test_values_beyond_the_range_are_noticed():
    at = context()
    at.module.get_parameter("head.weight").data.fill_(1e6)
    assert "range" in precision.plan(at, settings("float16")).left_alone[0].reason
    assert precision.plan(at, settings("bfloat16")).edits


def test_an_unknown_format_is_refused():
    with pytest.raises(EditError, match="known: bfloat16, float16"):
        apply(context().module, [Cast("float8")])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("block", sorted(pico.BLOCKS))
def test_outputs_stay_float32_and_close_through_json_export_and_every_lowering(block, dtype):
    at = context([block])
    edits = edits_from_json(edits_to_json(precision.plan(at, settings(dtype)).edits))
    half = module_of(export_program(apply(clone(at.module), edits), tuple(ONE)))
    assert {p.dtype for p in half.parameters()} == {getattr(torch, dtype)}
    x = pico.images(5)
    with torch.inference_mode():
        wanted = at.module(x)
        size = float(wanted.abs().max())
        for module in (half, *(build() for build in lowerings(half, ONE).values())):
            found = module(x)
            assert found.dtype == torch.float32
            torch.testing.assert_close(found, wanted, rtol=0.03, atol=0.03 * size)


def test_half_precision_runs_on_packed_weights():
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("no bfloat16 kernels on this machine")
    half = apply(context().module, [Cast("bfloat16")])
    assert "aten.conv2d" not in lowerings(half, ONE)["onednn"]().code


def test_layers_that_are_left_out_compute_in_float32():
    at = context()
    layers = list(layers_of(at.module))
    ends = [layers[0].name, layers[-1].name]
    plan = precision.ADJUSTER.plan
    made = plan(at, settings(skip=tuple(ends)))
    assert [row.what for row in made.left_alone] == ends
    half = apply(
        clone(at.module), edits_from_json(json.loads(json.dumps(edits_to_json(made.edits))))
    )
    dtypes = {n: p.dtype for n, p in half.named_parameters() if n.endswith("weight")}
    floats = {f"{name}.weight" for name in ends}
    assert {n for n, d in dtypes.items() if d == torch.float32} == floats
    # The first layer reads the input and the last one gives the output as they are.
    casts = [n for n in half.graph.nodes if n.target is torch.ops.aten.to.dtype]
    assert not any(a.op == "placeholder" for n in casts for a in n.all_input_nodes)
    x = pico.images(3)
    wanted, all_half = at.module(x), apply(clone(at.module), plan(at, settings()).edits)(x)
    assert (half(x) - wanted).norm() < (all_half - wanted).norm()
    for build in lowerings(half, at.inputs).values():
        torch.testing.assert_close(build()(x), half(x), rtol=2e-2, atol=2e-2)
