"""OpenVINO: a graph converted in memory and compiled for each shape that it is called with.

Roundings are handed over as FakeQuantize, from which OpenVINO makes integer kernels: the arithmetic
of graph/edits/quantization.py it would fold into the weights, and run in floats.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx import GraphModule

from ..core.errors import MeasureError, text_line
from ..core.extras import version_of
from ..core.files import OPENVINO_FILES
from ..core.model_io import Inputs
from ..graph.capture import clone
from ..graph.lowering.direct_call import without_pytree
from .compiler import refuse_state
from .handing_over import is_float32, lacks_library, running_on_library
from .openvino_model import (
    PACKAGE,
    compile_model,
    converted,
    convertible,
    files_of_model,
    opened,
    profiled_times,
)
from .shape_guard import Fast, kinds, names_of

OPENVINO = "openvino"
Array = NDArray[Any]
DTYPES = {
    "f32": torch.float32, "i64": torch.int64, "i32": torch.int32, "u8": torch.uint8,
    "i8": torch.int8, "boolean": torch.bool,
}  # fmt: skip
TAKEN = tuple(DTYPES.values())


class OpenVino:
    """Float and int8 graphs on a CPU; half precision stays with torch's kernels."""

    name: str = OPENVINO
    known: tuple[str, ...] = (OPENVINO,)
    packed: tuple[str, ...] = ()
    offered = True
    per_candidate = True
    by_shape = True
    needs_compiler = False
    any_format = True
    profiles_itself = True

    @property
    def version(self) -> str:
        return version_of(PACKAGE) if self.lacks("cpu") is None else ""

    def lacks(self, device: str) -> str | None:
        return lacks_library(device, PACKAGE, PACKAGE)

    def names(self, module: GraphModule, inputs: Inputs) -> tuple[str, ...]:
        runs = is_float32(module, inputs) and self.lacks(str(inputs[0].device)) is None
        return self.known if runs else ()

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
        if not self.names(module, inputs):
            raise MeasureError("OpenVINO is given float32 alone, for its other formats round more")
        refuse_state(module)
        graph = convertible(module)
        ready = partial(_ready, graph)
        return running_on_library(usual, module, inputs, OPENVINO, "OpenVINO", ready)

    def blob(self, module: GraphModule, inputs: Inputs) -> bytes | None:
        return None

    @property
    def files(self) -> tuple[str, ...]:
        return OPENVINO_FILES

    def opens_files(self, device: str) -> bool:
        return self.lacks(device) is None

    def kept_model(self, module: GraphModule, inputs: Inputs) -> dict[str, bytes]:
        given = _given(inputs.in_order(names_of(module)))
        try:
            files = files_of_model(converted(convertible(module), given))
            opened(*files)
        except Exception as error:
            raise MeasureError(f"OpenVINO's model can't be kept: {text_line(error)}") from error
        return dict(zip(OPENVINO_FILES, files, strict=True))

    def reopened(
        self, module: GraphModule, inputs: Inputs, files: Mapping[str, bytes]
    ) -> nn.Module:
        """At other shapes the graph is converted again, as by `prepare`."""
        flat = inputs.in_order(names_of(module))
        model = opened(*(files[name] for name in OPENVINO_FILES))
        if not _takes(model, flat):
            raise MeasureError("OpenVINO's model takes other inputs")
        formats = [y.get_element_type().to_string() for y in model.outputs]
        requests = Requests(model, [DTYPES[name] for name in formats])
        usual = without_pytree(clone(module))
        graph = cache(lambda: convertible(module))
        made_for = kinds(flat)

        def compiled(given: Sequence[Any]) -> Fast:
            return requests if kinds(given) == made_for else _ready(graph(), given)

        return running_on_library(usual, module, inputs, OPENVINO, "OpenVINO", compiled)


class Requests:
    """A compiled model as a function; each thread has an inference request of its own.

    Inputs are copied into the request's memory: handing over an input's own takes OpenVINO 20 us
    a call, as long as it takes to copy 0.7 MB. NumPy copies, since torch would do so on all cores
    and its threads wait actively beside OpenVINO's for milliseconds.
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
            np.copyto(memory, value.detach().numpy())
        infer()
        return [
            torch.from_numpy(memory.copy()).to(dtype)
            for memory, dtype in zip(outputs, self._dtypes, strict=True)
        ]

    __call__._torchdynamo_disable = True  # type: ignore[attr-defined]  # it can't see what runs

    def _new_request(self) -> tuple[Callable[[], object], list[Array], list[Array]]:
        request = self._compiled.create_infer_request()
        inputs, outputs = (
            [get(place).data for place in range(len(ports))]
            for get, ports in (
                (request.get_input_tensor, self._compiled.inputs),
                (request.get_output_tensor, self._compiled.outputs),
            )
        )
        return request.infer, inputs, outputs


def _given(flat: Sequence[Any]) -> list[Tensor]:
    if not all(isinstance(x, Tensor) and x.device.type == "cpu" and x.dtype in TAKEN for x in flat):
        raise MeasureError("an input is not a tensor on the CPU of a format that is handed over")
    return [x.detach().contiguous() for x in flat]


def _takes(model: Any, flat: Sequence[Tensor]) -> bool:
    """Requests copy inputs into memory of the model's own shapes, and never others."""
    return (
        len(model.inputs) == len(flat)
        and all(
            not place.get_partial_shape().is_dynamic
            and list(place.get_shape()) == list(x.shape)
            and DTYPES.get(place.get_element_type().to_string()) == x.dtype
            for place, x in zip(model.inputs, flat, strict=True)
        )
        and all(y.get_element_type().to_string() in DTYPES for y in model.outputs)
    )


def _ready(graph: GraphModule, flat: Sequence[Any]) -> Fast:
    given = _given(flat)
    with torch.no_grad():
        dtypes = [x.dtype for x in graph(*given)]
    requests = Requests(converted(graph, given), dtypes)
    requests(*given)
    return requests
