"""ONNX Runtime: the file that `modelspeed export --format onnx` writes, run here.

torch's exporter takes a second or two for a small network, too long for every candidate of a
search: the finished variant alone is tried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule

from ..core.errors import MeasureError, text_line
from ..core.extras import version_of
from ..core.files import ONNX_FILES
from ..core.model_io import Inputs
from ..graph.capture import clone
from ..graph.lowering.direct_call import without_pytree
from ..profiling.layers import node_times
from .handing_over import is_float32, lacks_library, running_on_library
from .onnx_check import check_onnx
from .onnx_model import NEEDED, PACKAGE, OnnxSession, nameless, onnx_program
from .shape_guard import Fast

ONNXRUNTIME = "onnxruntime"
CALLED = "ONNX Runtime"


class OnnxRuntime:
    """Float and int8 graphs on a CPU; half precision stays with torch's kernels."""

    name: str = ONNXRUNTIME
    known: tuple[str, ...] = (ONNXRUNTIME,)
    packed: tuple[str, ...] = ()
    offered = True
    per_candidate = False
    by_shape = True
    needs_compiler = False
    any_format = True
    profiles_itself = False

    @property
    def version(self) -> str:
        return version_of(PACKAGE) if self.lacks("cpu") is None else ""

    def lacks(self, device: str) -> str | None:
        return lacks_library(device, PACKAGE, PACKAGE, *NEEDED)

    def names(self, module: GraphModule, inputs: Inputs) -> tuple[str, ...]:
        runs = is_float32(module, inputs) and self.lacks(str(inputs[0].device)) is None
        return self.known if runs else ()

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
        accepted = partial(_accepted, _session(module, inputs))
        return running_on_library(usual, module, inputs, ONNXRUNTIME, CALLED, accepted)

    def blob(self, module: GraphModule, inputs: Inputs) -> bytes | None:
        return None

    @property
    def files(self) -> tuple[str, ...]:
        return ONNX_FILES

    def opens_files(self, device: str) -> bool:
        return lacks_library(device, PACKAGE, PACKAGE) is None

    def kept_model(self, module: GraphModule, inputs: Inputs) -> dict[str, bytes]:
        try:
            model = nameless(onnx_program(module, inputs).model_proto).SerializeToString()
            check_onnx(model)
        except Exception as error:
            raise MeasureError(f"the ONNX model can't be kept: {text_line(error)}") from error
        return {ONNX_FILES[0]: model}

    def reopened(
        self, module: GraphModule, inputs: Inputs, files: Mapping[str, bytes]
    ) -> nn.Module:
        try:
            check_onnx(files[ONNX_FILES[0]])
        except ValueError as error:
            raise MeasureError(f"`{ONNX_FILES[0]}` holds {text_line(error)}") from error
        usual = without_pytree(clone(module))
        try:
            accepted = partial(_accepted, OnnxSession(files[ONNX_FILES[0]]))
        except Exception as error:
            raise MeasureError(f"{CALLED} does not take it: {text_line(error)}") from error
        return running_on_library(usual, module, inputs, ONNXRUNTIME, CALLED, accepted)


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
