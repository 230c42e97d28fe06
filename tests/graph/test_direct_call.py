from __future__ import annotations

import pytest
import torch
from modelspeed.graph.capture import capture, clone
from modelspeed.graph.lowering.direct_call import (
    _FUNCTIONS,
    _METHODS,
    _NEURAL,
    holding,
    without_pytree,
)
from torch import nn
from torch._ops import OpOverload
from torch.fx.graph import CodeGen
from torch.nn import functional as F


class Pair(nn.Module):
    def forward(self, x, mask=None):
        y = x * 2 if mask is None else x * mask
        return {"logits": y.sum(1), "rest": (y, [x + 1])}


class Nested(nn.Module):
    def forward(self, pair):
        return pair[0] + pair[1]


def test_outputs_keep_their_structure_and_inputs_their_names():
    x, mask = torch.randn(2, 3), torch.rand(2, 3)
    for args, kwargs in (((x,), {}), ((x,), {"mask": mask}), ((), {"x": x, "mask": mask})):
        module = torch.export.export(Pair(), args, kwargs).module(check_guards=False)
        made = without_pytree(clone(module))
        assert type(made.graph._codegen) is CodeGen
        got, want = made(*args, **kwargs), Pair()(*args, **kwargs)
        torch.testing.assert_close(got, want)
        assert type(got["rest"]) is type(want["rest"])
    torch.testing.assert_close(made(mask=mask, x=x), want)


def test_nested_arguments_keep_their_wrapping():
    pair = (torch.randn(2), torch.randn(2))
    module = torch.export.export(Nested(), (pair,)).module(check_guards=False)
    torch.testing.assert_close(without_pytree(module)(pair), pair[0] + pair[1])


def test_a_graph_called_directly_can_be_copied_and_called_again():
    module = without_pytree(capture(nn.Sequential(nn.Linear(3, 2)), (torch.randn(1, 3),)))
    x = torch.randn(4, 3)
    torch.testing.assert_close(clone(module)(x), module(x))
    assert without_pytree(module) is module


CALLS = {
    "cat": lambda x: torch.cat([x, x], 1),
    "chunk and stack": lambda x: torch.stack(x.chunk(2, 1)),
    "pools": lambda x: F.avg_pool2d(F.max_pool2d(x, 2, padding=1), 2, ceil_mode=True),
    "pool to one": lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
    "pad": lambda x: F.pad(x, [1, 2], value=3.0) + F.pad(x[0], [1, 2], mode="reflect"),
    "upsample": lambda x: F.interpolate(x, scale_factor=2.0),
    "activations": lambda x: F.gelu(x, approximate="tanh") + F.silu(x) + F.hardswish(x) + F.relu6(x)
    + F.hardtanh(x) + F.leaky_relu(x, 0.3) + x.sigmoid() + x.tanh() + F.hardsigmoid(x),
    "in place": lambda x: F.hardtanh_((x * 2).add_(x, alpha=3).mul_(x).relu_()) + x.relu(),
    "arithmetic": lambda x: (x - 2 * x).abs().sqrt().pow(2).div(3, rounding_mode=None) / x.exp(),
    "alpha": lambda x: torch.sub(x, x, alpha=2) + torch.add(x, 1, alpha=4) + torch.clamp(x, min=0),
    "reductions": lambda x: x.mean([2, 3], keepdim=True) + x.sum(dim=(2, 3), keepdim=True),
    "softmax": lambda x: x.softmax(-1) + torch.softmax(x, 1, dtype=torch.float64),
    "sizes": lambda x: x.transpose(1, 2).reshape(2, -1).view(-1, 4, 8).permute(0, 2, 1).squeeze(),
    "where": lambda x: torch.where(x > 0, x, 0.5) + x.unsqueeze(1).expand(2, 3, 4, 8, 8)[:, 0],
    "split": lambda x: torch.cat(x.split([1, 3], 1)[::-1], 1).neg() + x.square().rsqrt(),
    "attention": lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True, scale=0.3),
    "matrices": lambda x: torch.addmm(x[0, 0], x[0, 1], x[0, 2], alpha=2.0) + x[0, 0] @ x[0, 1],
    "bmm": lambda x: torch.bmm(x[0], x[1]),
    "layout": lambda x: x.contiguous(memory_format=torch.channels_last) * 2,
    "norms": lambda x: F.layer_norm(x, (8,)) + F.group_norm(x, 2) + F.batch_norm(
        x, torch.zeros(4), torch.ones(4)),
    "layers": lambda x: F.conv2d(x, torch.ones(4, 2, 3, 3), padding="same", groups=2)
    + F.linear(x, torch.eye(8), torch.ones(8)),
    "signals": lambda x: F.max_pool1d(F.conv1d(x[0], torch.ones(8, 8, 3), stride=2), 3)
    + F.avg_pool1d(F.conv1d(x[0], torch.ones(8, 8, 3), stride=2), 3),
    "volumes": lambda x: F.conv3d(x[None], torch.ones(2, 2, 1, 1, 1)),
    "embedding": lambda x: F.embedding((x[0, 0] > 0).long(), torch.eye(4), padding_idx=0),
}  # fmt: skip


class Call(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.name = name

    def forward(self, x):
        return CALLS[self.name](x)


@pytest.mark.parametrize("name", sorted(CALLS))
def test_operators_called_directly_give_the_same(name):
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    module = torch.export.export(Call(name), (x,)).module(check_guards=False)
    made = without_pytree(clone(module))
    changed = sum(isinstance(n.target, OpOverload) for n in module.graph.nodes) - sum(
        isinstance(n.target, OpOverload) for n in made.graph.nodes
    )
    assert changed > 0
    got, want = made(x.clone()), module(x.clone())
    assert torch.equal(got, want) and got.stride() == want.stride()


def test_every_operator_called_directly_is_tried_here():
    tried = set()
    for name in CALLS:
        x = torch.randn(2, 4, 8, 8)
        graph = torch.export.export(Call(name), (x,)).module(check_guards=False).graph
        tried |= {n.target._schema.name for n in graph.nodes if isinstance(n.target, OpOverload)}
    assert {f"aten::{n}" for n in (*_FUNCTIONS, *_NEURAL, *_METHODS)} <= tried


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("shift", torch.ones(2))

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.linear(x)
        return y.float() + self.shift


def test_weights_that_are_held_follow_what_replaces_them():
    x = torch.randn(4, 3)
    module = holding(without_pytree(capture(Small().eval(), (x,))))
    assert any("Graph" in type(m).__name__ for m in module.children())  # its `with` is a sub-graph
    other = {k: torch.zeros_like(v) for k, v in module.state_dict().items()}
    for assign in (False, True):
        module.load_state_dict({**other, "shift": torch.full((2,), 2.0 + assign)}, assign=assign)
        assert torch.equal(module(x), torch.full((4, 2), 2.0 + assign))
    assert torch.equal(clone(module)(x), module(x))
    batch_norm = holding(without_pytree(capture(nn.BatchNorm1d(3).eval(), (x,))))
    assert batch_norm.double()(x.double()).dtype == torch.float64
