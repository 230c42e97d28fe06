"""Running a graph while looking at values on the way."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.fx import GraphModule, Interpreter, Node

from ..core.model_io import Inputs


class Recorder(Interpreter):
    """Runs a graph node by node; `values` holds what the named nodes gave in the last run.

    Values are kept as they are: an in-place operator after a node changes them (`copy=True`).
    """

    def __init__(self, module: GraphModule, names: Iterable[str] = (), copy: bool = False) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.values: dict[str, Any] = {}
        self._names, self._copy = frozenset(names), copy

    def of(self, inputs: Inputs) -> Any:
        """The outputs, nested as the model nests them."""
        self.values = {}
        names = [n.name for n in self.graph.nodes if n.op == "placeholder"]
        flat = self.run(*inputs.in_order(names), enable_io_processing=False)
        return self.graph.process_outputs(flat)

    def run_node(self, n: Node) -> Any:
        if n.op == "call_module":  # torch.export's input checks, not part of the model
            return None
        value = super().run_node(n)
        if n.name in self._names:
            self.values[n.name] = value.clone() if self._copy else value
        return value
