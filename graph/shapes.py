"""The shapes a graph notes at its nodes, brought up to date after edits."""

from __future__ import annotations

from torch import Tensor
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx import GraphModule, Interpreter, Node

from .capture import tensor_at


def refresh(module: GraphModule) -> None:
    """Compute `meta["val"]` of all nodes again if a parameter has another shape than noted."""
    if any(_stale(module, node) for node in module.graph.nodes):
        renew(module)


def renew(module: GraphModule) -> None:
    """Compute `meta["val"]` of all nodes again.

    Nothing runs: fake tensors carry shapes, the batch stays a symbol.
    """
    inputs = [n.meta["val"] for n in module.graph.nodes if n.op == "placeholder"]
    mode = next((x.fake_mode for x in inputs if isinstance(x, FakeTensor)), None)
    if mode is not None:
        _Shapes(module, mode).run(*inputs, enable_io_processing=False)


def output_shapes(module: GraphModule) -> list[str]:
    """As noted; the batch is a symbol."""
    values = [n.meta.get("val") for n in module.graph.output_node().all_input_nodes]
    return [str(list(value.shape)) for value in values if isinstance(value, Tensor)]


def _stale(module: GraphModule, node: Node) -> bool:
    noted = node.meta.get("val")
    if node.op != "get_attr" or not isinstance(noted, Tensor):
        return False
    return noted.shape != tensor_at(module, str(node.target)).shape


class _Shapes(Interpreter):
    def __init__(self, module: GraphModule, mode: FakeTensorMode) -> None:
        super().__init__(module, garbage_collect_values=True)
        self._mode = mode

    def run_node(self, n: Node) -> object:
        if n.op == "call_module":  # torch.export's input checks, not part of the model
            return None
        # Composite operators written in C++ would make a number of the batch.
        with enable_python_dispatcher(), self._mode:
            value = super().run_node(n)
            if n.op == "get_attr" and isinstance(value, Tensor):
                value = self._mode.from_tensor(value, static_shapes=True)
        if n.op not in ("placeholder", "output") and "val" in n.meta:
            n.meta["val"] = value
        return value
