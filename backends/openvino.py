"""OpenVINO: a graph converted in memory and compiled for each shape that it is called with.

Roundings are handed over as FakeQuantize, from which OpenVINO makes integer kernels: the arithmetic
of graph/edits/quantization.py it would fold into the weights, and run in floats.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from ..core.errors import MeasureError
from ..core.model_io import Inputs
from ..graph.capture import clone
from ..graph.lowering.direct_call import without_pytree
from ..graph.lowering.lower import can_prepack
from .by_shape import CompiledByShape
from .compiler import refuse_state
from .openvino_model import (
    PACKAGE,
    compile_model,
    converted,
    convertible,
    profiled_times,
)
from .shape_guard import Fast, ShapeGuarded, names_of

OPENVINO = "openvino"


class OpenVino:
    """Float and int8 graphs on a CPU; half precision stays with torch's kernels."""

    name: str = OPENVINO
    known: tuple[str, ...] = (OPENVINO,)
    packed: tuple[str, ...] = ()
    offered = True
    per_candidate = True
    needs_compiler = False
    any_format = True
    profiles_itself = True

    def lacks(self, device: str) -> str | None:
        if torch.device(device).type != "cpu":
            return "needs a CPU"
        if importlib.util.find_spec(PACKAGE) is None:
            return f"needs the package `{PACKAGE}` (`pip install 'modelspeed[{PACKAGE}]'`)"
        return None

    def names(self, module: GraphModule, inputs: Inputs) -> tuple[str, ...]:
        floats = (p for p in module.parameters() if p.is_floating_point())
        fits = can_prepack(inputs) and all(p.dtype == torch.float32 for p in floats)
        return self.known if fits and self.lacks(str(inputs[0].device)) is None else ()

    def graph(self, module: GraphModule, inputs: Inputs, name: str) -> GraphModule:
        return clone(module)  # its operators are not torch's

    def node_times(self, module: GraphModule, inputs: Inputs, name: str) -> dict[str, float]:
        return profiled_times(module, inputs.in_order(names_of(module)))

    def prepare(
        self, module: GraphModule, inputs: Inputs, name: str, blob: bytes | None = None
    ) -> nn.Module:
        """Without the package the plain graph is as near."""
        usual = without_pytree(clone(module))
        if self.lacks(str(inputs[0].device)):
            return usual
        refuse_state(module)
        graph = convertible(module)
        shapes = CompiledByShape("OpenVINO", lambda flat: _ready(graph, flat))
        shapes.first(inputs.in_order(names_of(module)))
        return ShapeGuarded(usual, module, shapes.of)

    def blob(self, module: GraphModule, inputs: Inputs) -> bytes | None:
        return None


class Requests:
    """A compiled model as a function; each thread has an inference request of its own.

    Inputs are copied into the request's memory: handing over an input's own takes OpenVINO 20 us
    a call, as long as it takes to copy 0.7 MB.
    """

    def __init__(self, model: Any, dtypes: Sequence[torch.dtype]) -> None:
        self._compiled, self._dtypes = compile_model(model), dtypes
        self._own = threading.local()

    def __call__(self, *flat: Tensor) -> list[Tensor]:
        try:
            infer, inputs, outputs = self._own.request
        except AttributeError:
            infer, inputs, outputs = self._own.request = self._new_request()
        for memory, value in zip(inputs, flat, strict=True):
            memory.copy_(value.detach())
        infer()
        return [
            memory.to(dtype, copy=True) for memory, dtype in zip(outputs, self._dtypes, strict=True)
        ]

    def _new_request(self) -> tuple[Callable[[], object], list[Tensor], list[Tensor]]:
        request = self._compiled.create_infer_request()
        ports = (
            (request.get_input_tensor, len(self._compiled.inputs)),
            (request.get_output_tensor, len(self._compiled.outputs)),
        )
        with torch.inference_mode(False):  # made there, they could not be written elsewhere
            inputs, outputs = (
                [torch.from_numpy(get(place).data) for place in range(count)]
                for get, count in ports
            )
        return request.infer, inputs, outputs


def _ready(graph: GraphModule, flat: Sequence[Any]) -> Fast:
    if not all(isinstance(x, Tensor) and x.device.type == "cpu" for x in flat):
        raise MeasureError("an input is not a tensor on the CPU")
    given = [x.detach().contiguous() for x in flat]
    with torch.no_grad():
        dtypes = [x.dtype for x in graph(*given)]
    requests = Requests(converted(graph, given), dtypes)
    requests(*given)
    return requests
