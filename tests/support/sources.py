"""A graph's generated source, and the model that it makes."""

from __future__ import annotations

import torch
from modelspeed.graph.source.text import SourceText, source_of
from torch import nn
from torch.fx import GraphModule


def written(module: GraphModule) -> SourceText:
    return source_of(module, "A model.")


def made(source: SourceText) -> nn.Module:
    scope: dict[str, object] = {"__file__": "model.py"}
    exec(compile(source.text, "model.py", "exec"), scope)
    net = scope["Model"]()  # type: ignore[operator]
    net.load_state_dict(source.tensors)
    return net.eval()


def assert_same(module, inputs) -> SourceText:
    """The source of `module` gives bit for bit what `module` gives."""
    source = written(module)
    with torch.no_grad():
        got, wanted = inputs.call(made(source)), inputs.call(module)
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)
    return source
