from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from modelspeed.core.errors import EditError
from modelspeed.core.model_io import Inputs
from modelspeed.graph.capture import capture, clone, export_program, module_of
from modelspeed.graph.edits.apply import QuantizeWeight, apply, edits_from_json, edits_to_json
from modelspeed.graph.edits.integer_weights import group_of, integer_weight, packed, unpacked
from modelspeed.graph.lowering.lower import lowerings
from modelspeed.graph.lowering.weight_only import linear4, linear8
from modelspeed.profiling.layers import count_macs
from torch import nn

AVX512 = torch.cpu._is_avx512_supported()


def captured(*sizes, rows=1):
    torch.manual_seed(0)
    layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
    inputs = Inputs.of((torch.randn(rows, sizes[0]),))
    return capture(nn.Sequential(*layers).eval(), tuple(inputs)), inputs


def in_integers(module, inputs, group):
    """As it comes out of a file."""
    edits = [QuantizeWeight(n.name, group) for n in module.graph.nodes
             if n.target is torch.ops.aten.linear.default]  # fmt: skip
    made = apply(clone(module), edits_from_json(edits_to_json(edits)))
    return module_of(export_program(made, tuple(inputs)))


def test_two_integers_share_a_byte():
    integers = torch.randint(0, 16, (5, 12), dtype=torch.uint8)
    assert packed(integers).shape == (5, 6)
    assert torch.equal(unpacked(packed(integers)), integers)


@pytest.mark.parametrize(
    ("inputs", "most", "group"),
    [(768, 128, 128), (784, 128, 112), (96, 128, 96), (34, 128, 34), (63, 128, None),
     (2 * 1009, 128, None), (8, 128, None)],
)  # fmt: skip
def test_groups_are_the_largest_divisor_that_is_worth_its_scales(inputs, most, group):
    assert group_of(torch.zeros(4, inputs), most) == group
    assert group_of(torch.zeros(4, inputs, 1, 1), most) is None


def test_each_weight_is_within_half_a_step_of_its_group():
    module, inputs = captured(96, 8)
    made = in_integers(module, inputs, 32)
    (held,) = filter(None, map(integer_weight, made.graph.nodes))
    gap = (held.floats(made) - module.get_parameter("0.weight")).abs().view(8, 3, 32)
    step = made.get_buffer("0.weight_scale")
    assert step.shape == (8, 3, 1) and bool((gap <= 0.5001 * step).all())
    assert made.get_parameter("0.weight").shape == (8, 48)
    product = held.floats(made) @ inputs[0].T + made.get_parameter("0.bias")[:, None]
    torch.testing.assert_close(made(inputs[0]), product.T)


@pytest.mark.parametrize("group", [5, 64])
def test_groups_that_do_not_divide_the_inputs_are_refused(group):
    module, _ = captured(96, 8)
    with pytest.raises(EditError, match=f"groups of {group}"):
        apply(module, [QuantizeWeight("linear", group)])


@pytest.mark.skipif(not AVX512, reason="the kernels were measured with AVX-512")
@pytest.mark.parametrize(("group", "kernel"), [(None, "linear8"), (128, "linear4")])
def test_large_layers_that_read_one_row_run_on_integers(group, kernel):
    module, inputs = captured(1024, 512, 1024)
    made = in_integers(module, inputs, group)
    ready = lowerings(made, inputs)["onednn"]()
    assert ready.code.count(f"{kernel}(") == 2
    assert count_macs(ready, inputs) == 2 * 1024 * 512
    named = {n.meta["layer"] for n in ready.graph.nodes if n.target in (linear8, linear4)}
    assert named == {"linear", "linear_1"}
    for rows in (1, 3):
        x = torch.randn(rows, 1024)
        with torch.inference_mode():
            wanted, found = made(x), ready(x)
        assert float((found - wanted).norm()) < 0.01 * float(wanted.norm())


@pytest.mark.parametrize("group", [None, 128])
@pytest.mark.parametrize(("sizes", "rows"), [((128, 64), 1), ((1024, 512), 32)])
def test_small_layers_and_many_rows_run_as_floats(group, sizes, rows):
    module, inputs = captured(*sizes, rows=rows)
    made = in_integers(module, inputs, group)
    ready = lowerings(made, inputs)["onednn"]()
    assert "linear8" not in ready.code and "linear4" not in ready.code
    assert not any(t.dtype in (torch.int8, torch.uint8) for t in ready.buffers())
    torch.testing.assert_close(ready(inputs[0]), made(inputs[0]))
