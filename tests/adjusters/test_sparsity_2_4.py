from __future__ import annotations

import pytest
import torch
from modelspeed.adjusters import sparsity_2_4
from modelspeed.adjusters.plan import Context
from modelspeed.adjusters.sparsity_2_4 import chosen, compensated_weight
from modelspeed.configs.recipe import make_step
from modelspeed.core.errors import EditError
from modelspeed.core.model_io import Inputs
from modelspeed.graph.capture import capture, clone, export_program, module_of, tensor_at
from modelspeed.graph.edits.apply import Cast, Sparsify, apply, edits_from_json, edits_to_json
from modelspeed.graph.edits.sparsity import is_two_of_four, lacks_sparse_kernels, two_of_four
from modelspeed.graph.lowering.lower import lowerings
from modelspeed.graph.lowering.sparse import sparse_weights
from torch import nn

ONE = Inputs.of((torch.randn(1, 64),))
gpu = pytest.mark.skipif(
    not torch.cuda.is_available() or lacks_sparse_kernels("cuda") is not None,
    reason="no GPU with 2:4 kernels",
)


class Net(nn.Module):
    """Two layers that can be sparse, one that is too narrow and one that is used twice."""

    def __init__(self):
        super().__init__()
        self.mix, self.up, self.down = nn.Linear(64, 64), nn.Linear(64, 128), nn.Linear(128, 64)
        self.twice, self.head = nn.Linear(64, 64, bias=False), nn.Linear(64, 3)

    def forward(self, x):
        x = torch.tanh(self.mix(x))
        x = self.down(torch.relu(self.up(x)))
        return self.head(self.twice(self.twice(x)))


def settings(**given):
    return make_step("sparsity_2_4", **given).settings


def context(half="bfloat16", device="cpu"):
    torch.manual_seed(0)
    inputs = ONE.map(lambda x: x.to(device))
    module = capture(Net().eval().to(device), inputs)
    shown = [(torch.randn(64, 64), None) for _ in range(4)]
    return Context(apply(module, [Cast(half)]) if half else module, inputs, shown, device)


def test_a_machine_without_the_kernels_is_left_alone_and_says_so():
    made = sparsity_2_4.plan(context(), settings())
    assert made.edits == ()
    assert "compute capability 8.0 or later" in made.left_alone[0].reason


def test_layers_that_have_no_kernel_stay_dense_with_the_reason():
    made = chosen(context(), settings(skip=("mix",)))
    reasons = {entry.what: entry.reason for entry in made.left_alone}
    assert [e.param for e in made.edits] == ["up.weight", "down.weight"] and made.must_be_faster
    assert "not a multiple of [32, 64]" in reasons["head"] and "more than one" in reasons["twice"]
    assert "leave it dense" in reasons["mix"]
    assert "`precision` comes first" in chosen(context(half=""), settings()).left_alone[0].reason


def test_two_of_four_stay_through_json_export_and_lowering():
    at = context()
    plan = chosen(at, settings())
    edits = edits_from_json(edits_to_json(plan.edits))
    bare = apply(clone(at.module), edits)
    made = module_of(export_program(plan.apply(clone(at.module)), tuple(ONE)))
    for edit in edits:
        for module in (bare, made):
            weight = tensor_at(module, edit.param)
            assert is_two_of_four(weight) and 0.49 < float((weight != 0).float().mean()) <= 0.5
        assert not is_two_of_four(tensor_at(at.module, edit.param))
    converted = []
    lowered = sparse_weights(clone(made), lambda w: converted.append(w.shape) or w.clone())
    assert len(converted) == len(edits) == 3
    x = torch.randn(5, 64)
    with torch.no_grad():
        assert torch.equal(lowered(x), made(x))
        torch.testing.assert_close(lowerings(made, ONE)["folded"]()(x), made(x))  # dense on a CPU


def test_what_stays_makes_up_for_what_goes():
    torch.manual_seed(0)
    weight = torch.randn(32, 16)
    x = torch.randn(256, 4) @ torch.randn(4, 16) + 0.1 * torch.randn(256, 16)
    gram = (x.T @ x).double()
    fitted, smallest = compensated_weight(weight, gram), two_of_four(weight)
    assert is_two_of_four(fitted)
    errors = [float((x @ (w - weight).T).square().sum()) for w in (fitted, smallest)]
    assert errors[0] < 0.5 * errors[1]
    alike = compensated_weight(weight, torch.eye(16, dtype=torch.float64))
    torch.testing.assert_close(alike, smallest)


def test_the_smallest_of_each_four_go():
    weight = torch.tensor([[1.0, -4.0, 3.0, 0.5, 2.0, 2.5, 0.0, -1.0]])
    assert two_of_four(weight).tolist() == [[0.0, -4.0, 3.0, 0.0, 2.0, 2.5, 0.0, 0.0]]
    with pytest.raises(EditError, match="2:4 sparsity takes two axes"):
        apply(context().module, [Sparsify("up.bias")])


@gpu
@pytest.mark.gpu
def test_on_a_gpu_the_sparse_kernels_give_the_same():
    at = context("float16", "cuda")
    made = chosen(at, settings()).apply(clone(at.module))
    x = torch.randn(40, 64).cuda()
    with torch.inference_mode():
        wanted = made(x)
        for build in lowerings(made, at.inputs).values():
            found = build()(x)
            torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-2)
    assert "_packed_" in lowerings(made, at.inputs)["folded"]().code
