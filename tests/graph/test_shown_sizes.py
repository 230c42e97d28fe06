"""Symbols in numbers, whether they are a capture's or the texts of a stored graph."""

from __future__ import annotations

import sized
import torch
from modelspeed.checkpoints.graph_reader import read_graph
from modelspeed.checkpoints.graph_text import graph_text
from modelspeed.checkpoints.samples import draw_inputs
from modelspeed.graph.capture import capture
from modelspeed.graph.shown_sizes import ShownSizes


def test_sizes_of_all_values_are_those_of_a_run():
    inputs = draw_inputs(sized.images(2, 3), 0)
    module = capture(sized.made(sized.UNet), inputs)
    stored = read_graph(graph_text(module), dict(module.state_dict()))
    wanted = {}

    class Shapes(torch.fx.Interpreter):
        def run_node(self, n):
            value = super().run_node(n)
            wanted[n.name] = list(value.shape) if isinstance(value, torch.Tensor) else None
            return value

    Shapes(module).run(*inputs, enable_io_processing=False)
    for graph in (module, stored):
        sizes = ShownSizes.of(graph, inputs)
        found = {n.name: sizes.of_node(n) for n in graph.graph.nodes if n.op == "call_function"}
        told = {name for name, shape in found.items() if shape is not None}
        assert told and {n: found[n] for n in told} == {n: wanted[n] for n in told}


def test_what_is_no_arithmetic_stands_for_the_batch():
    sizes = ShownSizes(3, {"s1": 10})
    assert [sizes.number(n) for n in (4, "s1", "2*s1", "((s1 - 1)//2) + 1")] == [4, 10, 20, 5]
    assert [sizes.number(n) for n in ("s9", "__import__('os')", "s1//0", "Max(s1, 2)")] == [3] * 4
