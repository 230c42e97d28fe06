"""OpenVINO's own: a graph in its form, compiled for this machine, timed layer by layer."""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from ..core.errors import MeasureError, text_line
from ..core.extras import extra
from ..graph.edits.integer_weights import integer_weight
from ..graph.edits.quantization import rounded
from ..graph.layers import layers_of
from ..graph.lowering.lower import folded_copy
from ..graph.lowering.packing import replace
from ..profiling.clocks import WallClock, settle
from ..profiling.gate import alone
from .handing_over import by_place
from .openvino_check import check_ir

PACKAGE = "openvino"
TELEMETRY = "openvino_telemetry"
LAYERS = ("Convolution", "GroupConvolution", "MatMul")
MAX_STEPS = 8  # between a layer and its weight: conversions, scales, shapes
LEAST, MOST, MS = 10, 100, 6.0  # calls that are profiled; after MS LEAST of them are enough


@cache
def openvino() -> Any:
    """The package, imported without telling its makers, which it does otherwise.

    Raises MissingExtra.
    """
    if TELEMETRY in sys.modules:
        return extra(PACKAGE, f"--runtime {PACKAGE}")
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]
    try:
        return extra(PACKAGE, f"--runtime {PACKAGE}")
    finally:
        del sys.modules[TELEMETRY]


@cache
def _core() -> Any:
    return openvino().Core()


def convertible(module: GraphModule) -> GraphModule:
    """A copy for the converter: inputs and outputs by place, roundings by the name it knows.

    Raises MeasureError for outputs that are not tensors.
    """
    flat = folded_copy(module)
    for node in list(flat.graph.nodes):
        rounding = rounded(node)
        if rounding is not None:
            arguments = (rounding.source, rounding.scale, rounding.zero_point, 0, rounding.levels)
            replace(flat, node, torch.fake_quantize_per_tensor_affine, arguments)
    return by_place(flat)


def converted(module: GraphModule, given: Sequence[Tensor]) -> Any:
    """An `openvino.Model` of a `convertible` graph for inputs of these shapes alone.

    Its layers go by the names of the graph's nodes. Raises whatever the converter raises.
    """
    openvino()
    from openvino._offline_transformations import apply_moc_transformations
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # TorchScript is deprecated; here nothing of it is kept
        traced = torch.jit.trace(module, tuple(given), check_trace=False)  # type: ignore[no-untyped-call]
        frontend = FrontEndManager().load_by_framework("pytorch")
        decoder = TorchScriptPythonDecoder(traced, example_input=tuple(given))
        model = frontend.convert(frontend.load(decoder))
    _name_layers(model, module)
    model.reshape({place: list(x.shape) for place, x in enumerate(given)})
    # Ranges of FakeQuantize must be constants, or no integer kernels are made.
    apply_moc_transformations(model, cf=True, smart_reshape=False)
    return model


def files_of_model(model: Any) -> tuple[bytes, bytes]:
    """Text and weights of an `openvino.Model`, as `opened` takes them."""
    with tempfile.TemporaryDirectory(prefix="modelspeed-") as folder:
        xml, weights = Path(folder) / "model.xml", Path(folder) / "model.bin"
        openvino().serialize(model, str(xml), str(weights))
        return xml.read_bytes(), weights.read_bytes()


def opened(xml: bytes, weights: bytes) -> Any:
    """The `openvino.Model`. Raises MeasureError for what `check_ir` refuses or OpenVINO does."""
    try:
        check_ir(xml, len(weights))
        return _core().read_model(model=xml, weights=weights)
    except Exception as error:
        raise MeasureError(f"OpenVINO's model holds {text_line(error)}") from error


def compile_model(model: Any, **settings: object) -> Any:
    """For the latency of one call on as many threads as torch has now."""
    usual = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,  # else processes side by side share cores
        "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 wherever the processor has it
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,  # else activations beside integer weights are rounded
    }
    return _core().compile_model(model, "CPU", usual | settings)


@alone()
def profiled_times(module: GraphModule, given: Sequence[Tensor]) -> dict[str, float]:
    """ms of each layer by its node, with what is fused into it, in the whole model as it runs.

    What is not a layer goes by OpenVINO's names. Times are whole microseconds, so the mean of many
    calls counts: of the faster half, since disturbances only add to it.
    """
    model = compile_model(converted(convertible(module), given), PERF_COUNT=True)
    names = {n.name for n in module.graph.nodes}
    layer_of = {op.get_friendly_name(): name for op, name in _runs(model, names)}
    request = model.create_infer_request()
    for place, x in enumerate(given):
        request.get_input_tensor(place).data[...] = x.detach().numpy()
    if torch.get_num_threads() > 1:  # torch's threads wait actively since the conversion
        settle(request.infer, WallClock())
    request.infer()
    rows = defaultdict[str, list[float]](list)
    total = 0.0
    while len(next(iter(rows.values()), [])) < LEAST or (
        total < MS and len(next(iter(rows.values()))) < MOST
    ):
        request.infer()
        for row in request.get_profiling_info():
            ms = row.real_time.total_seconds() * 1e3
            ran = ms > 0 or row.node_name in layer_of  # what takes no microsecond reads as not run
            rows[row.node_name].append(ms + 5e-4 if ran else 0.0)  # rounded down
            total += ms
    times = defaultdict[str, float](float)
    for name, row in rows.items():
        faster = sorted(row)[: len(row) // 2 + 1]
        times[layer_of.get(name, name)] += sum(faster) / len(faster)
    return dict(times)


def integer_layers(model: Any) -> int:
    """The number of layers that a compiled model runs on integer kernels."""
    kinds = [_fact(op, "primitiveType") for op in model.get_runtime_model().get_ordered_ops()
             if _fact(op, "layerType") in ("Convolution", "FullyConnected", "MatMul")]  # fmt: skip
    return sum(kind.endswith("I8") for kind in kinds)


def _runs(model: Any, names: set[str]) -> Iterator[tuple[Any, str]]:
    """Each operation that runs a layer of the graph, and the layer's name."""
    for op in model.get_runtime_model().get_ordered_ops():
        for name in _fact(op, "originalLayersNames").split(","):
            layer = name.partition("/")[0]  # it may have become `layer/bias`
            if layer in names:
                yield op, layer


def _fact(op: Any, name: str) -> str:
    value = op.get_rt_info()[name]
    return str(getattr(value, "value", value))


def _name_layers(model: Any, module: GraphModule) -> None:
    nodes: dict[str, str] = {layer.weight: layer.node.name for layer in layers_of(module)}
    for node in module.graph.nodes:
        weight = integer_weight(node.args[1]) if len(node.args) > 1 else None
        if weight is not None:
            nodes[weight.integers] = node.name
    for op in model.get_ordered_ops():
        if op.get_type_name() in LAYERS:
            name = nodes.pop(_weight_of(op).removeprefix("self."), None)
            if name is not None:
                op.set_friendly_name(name)
                for reader in op.output(0).get_target_inputs():  # what both become goes by its name
                    if reader.get_node().get_type_name() == "Add":
                        reader.get_node().set_friendly_name(f"{name}/bias")


def _weight_of(op: Any) -> str:
    """The name of the constant that a layer multiplies with."""
    node = op.input_value(1).get_node()
    for _ in range(MAX_STEPS):
        if node.get_type_name() == "Constant" or not node.inputs():
            break
        node = node.input_value(0).get_node()
    return str(node.get_friendly_name())
