"""ONNX Runtime: the file that `modelspeed export --format onnx` writes, run here.

torch's exporter takes a second or two for a small network, too long for every candidate of a
search: the finished variant alone is tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from ..core.errors import MeasureError, text_line
from ..core.extras import is_installed, version_of
from ..core.model_io import Inputs
from ..graph.capture import clone
from ..graph.lowering.direct_call import without_pytree
from ..graph.lowering.lower import can_prepack
from ..profiling.clocks import POOL
from ..profiling.layers import node_times
from .by_shape import CompiledByShape
from .onnx_model import NEEDED, PACKAGE, OnnxSession, onnx_program
from .shape_guard import Fast, ShapeGuarded, names_of

ONNXRUNTIME = "onnxruntime"
CALLED = "ONNX Runtime"


class OnnxRuntime:
    """Float and int8 graphs on a CPU; half precision stays with torch's kernels."""

    name: str = ONNXRUNTIME
    known: tuple[str, ...] = (ONNXRUNTIME,)
    packed: tuple[str, ...] = ()
    offered = True
    per_candidate = False
    needs_compiler = False
    any_format = True
    profiles_itself = False

    @property
    def version(self) -> str:
        return version_of(PACKAGE) if self.lacks("cpu") is None else ""

    def lacks(self, device: str) -> str | None:
        if torch.device(device).type != "cpu":
            return "needs `--device cpu`, the only one that it runs on here"
        for package in (PACKAGE, *NEEDED):
            if not is_installed(package):
                return f"needs the package `{package}` (`pip install 'modelspeed[{PACKAGE}]'`)"
        return None

    def names(self, module: GraphModule, inputs: Inputs) -> tuple[str, ...]:
        floats = (p for p in module.parameters() if p.is_floating_point())
        fits = can_prepack(inputs) and all(p.dtype == torch.float32 for p in floats)
        return self.known if fits and self.lacks(str(inputs[0].device)) is None else ()

    def graph(self, module: GraphModule, inputs: Inputs, name: str) -> GraphModule:
        return clone(module)  # its operators are not torch's

    def node_times(self, module: GraphModule, inputs: Inputs, name: str) -> dict[str, float]:
        return node_times(self.graph(module, inputs, name), inputs)

    def prepare(
        self, module: GraphModule, inputs: Inputs, name: str, blob: bytes | None = None
    ) -> nn.Module:
        """Without the package the plain graph is as near."""
        usual = without_pytree(clone(module))
        if self.lacks(str(inputs[0].device)):
            return usual
        session = _session(module, inputs)
        shapes = CompiledByShape(CALLED, lambda flat: _accepted(session, flat))
        shapes.first(inputs.in_order(names_of(module)))
        guarded = ShapeGuarded(usual, module, shapes.of)
        setattr(guarded, POOL, ONNXRUNTIME)
        return guarded

    def blob(self, module: GraphModule, inputs: Inputs) -> bytes | None:
        return None


def _session(module: GraphModule, inputs: Inputs) -> OnnxSession:
    try:
        return OnnxSession(onnx_program(module, inputs).model_proto.SerializeToString())
    except Exception as error:
        raise MeasureError(f"{CALLED} fails on this model: {text_line(error)}") from error


def _accepted(session: OnnxSession, flat: Sequence[Any]) -> Fast:
    """One session serves every batch; it raises for inputs that it does not take."""
    if not all(isinstance(x, Tensor) and x.device.type == "cpu" for x in flat):
        raise MeasureError("an input is not a tensor on the CPU")
    session(*flat)
    return session
