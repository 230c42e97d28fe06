"""What a user could run a trained net with instead: one function for each, for `alternatives.py`.

Each takes a case and gives something to call with the case's inputs. A package that is missing
raises ImportError, which the table states.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from modelspeed.adjusters.plan import Context
from modelspeed.adjusters.registry import ADJUSTERS
from modelspeed.backends.cuda_graph import LOWERINGS
from modelspeed.backends.inductor import INDUCTOR
from modelspeed.backends.lowered import PACKED
from modelspeed.backends.openvino import OPENVINO
from modelspeed.backends.ranking import rank_backends
from modelspeed.backends.readiness import runner
from modelspeed.backends.registry import (
    AUTO,
    backend_of,
    blob_of,
    furthest_lowering,
    last_names,
    prepare,
    ready,
)
from modelspeed.configs.recipe import make_step
from modelspeed.core.model_io import Inputs
from modelspeed.graph.capture import capture, clone
from modelspeed.profiling.timer import measure_interleaved
from torch import Tensor, nn
from torch.fx import GraphModule

CUDA_GRAPHS = tuple(LOWERINGS)


@dataclass(frozen=True)
class Case:
    """A net with one example input tensor; `shown` are more of them, to calibrate on.

    `images`: convolutions, which are quantized statically; else linear layers, dynamically.
    """

    name: str
    model: nn.Module
    x: Tensor
    shown: list[Tensor]
    held: list[Tensor]
    images: bool = True

    @property
    def device(self) -> str:
        return str(self.x.device)

    def on(self, device: str) -> Case:
        x, *rows = (t.to(device) for t in (self.x, *self.shown, *self.held))
        shown, held = rows[: len(self.shown)], rows[len(self.shown) :]
        return replace(self, model=self.model.to(device), x=x, shown=shown, held=held)

    @property
    def inputs(self) -> Inputs:
        return Inputs((self.x,))

    @property
    def batches(self) -> list[tuple[Tensor, None]]:
        return [(x, None) for x in self.shown]


class Called(nn.Module):
    """Another engine's session as a module on tensors."""

    thread_pool = "another"  # profiling/clocks.POOL: it is not measured beside torch's threads

    def __init__(self, run: Callable[[Any], Any]) -> None:
        super().__init__()
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.run(x.numpy()))


class Plain(nn.Module):
    """A function of tensors as a module."""

    def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)


def eager(case: Case) -> nn.Module:
    return case.model


def _ours(case: Case, kernels: str, adjuster: str = "", **settings: Any) -> nn.Module:
    module = _adjusted(case, adjuster, **settings)
    if reason := backend_of(kernels).lacks(case.device):
        raise RuntimeError(reason)
    return prepare(module, case.inputs, kernels, blob_of(module, case.inputs, kernels))


def _fastest(case: Case, adjuster: str = "", **settings: Any) -> nn.Module:
    """Under the runtime that `--runtime auto` takes, of those ranked and those that are late."""
    module, inputs = _adjusted(case, adjuster, **settings), case.inputs
    names = [
        *rank_backends(module, inputs, AUTO, (inputs,)).names,
        furthest_lowering(module, inputs),
    ]
    names += last_names(module, inputs, AUTO)
    tried = {n: ready(module, inputs, n) for n in dict.fromkeys(names) if n}
    runs = {n: m for n, m in tried.items() if isinstance(m, nn.Module)}
    rows = measure_interleaved([runner(m, inputs) for m in runs.values()], max_seconds=1.0)
    best = min(zip(runs, rows, strict=True), key=lambda row: row[1].value_ms)[0]
    print(f"- {adjuster or 'float32'}, auto: `{best}` of {', '.join(runs)}")
    return runs[best]


def _adjusted(case: Case, adjuster: str, **settings: Any) -> GraphModule:
    module = capture(case.model, tuple(case.inputs))
    if adjuster:
        step = make_step(adjuster, **settings).settings
        context = Context(module, case.inputs, case.batches, case.device)
        plan = ADJUSTERS[adjuster].plan(context, step)
        if not plan.edits:
            raise RuntimeError(plan.left_alone[0].reason)
        module = plan.apply(clone(module))
    return module


def lowered(case: Case) -> nn.Module:
    return _ours(case, PACKED[case.images])


def bfloat16(case: Case) -> nn.Module:
    return _ours(case, PACKED[case.images], "precision")


def bfloat16_inductor(case: Case) -> nn.Module:
    """What `--runtime inductor` makes of the `precision` step's result."""
    return _ours(case, INDUCTOR, "precision")


def int8(case: Case) -> nn.Module:
    return _ours(case, PACKED[case.images], "quantize", examples=len(case.shown))


def on_openvino(case: Case) -> nn.Module:
    return _ours(case, OPENVINO)


def int8_on_openvino(case: Case) -> nn.Module:
    return _ours(case, OPENVINO, "quantize", examples=len(case.shown))


def auto(case: Case) -> nn.Module:
    return _fastest(case)


def auto_int8(case: Case) -> nn.Module:
    return _fastest(case, "quantize", examples=len(case.shown))


def inductor(case: Case) -> nn.Module:
    return _ours(case, INDUCTOR)


def compiled(case: Case) -> Any:
    import torch._inductor.config as settings

    with settings.patch(freezing=True):
        return _called(torch.compile(copy.deepcopy(case.model)), case)


def max_autotune(case: Case) -> Any:
    return _called(torch.compile(copy.deepcopy(case.model), mode="max-autotune"), case)


def max_autotune_half(case: Case) -> Any:
    """Inputs and outputs stay float32, as the user's program has them."""
    model = torch.compile(copy.deepcopy(case.model).half(), mode="max-autotune")
    return _called(_cast(model, torch.float16), case)


def compiled_default(case: Case) -> Any:
    return _called(torch.compile(copy.deepcopy(case.model)), case)


def channels_last(case: Case) -> Any:
    model = copy.deepcopy(case.model).to(memory_format=torch.channels_last)
    return Plain(lambda x: model(x.to(memory_format=torch.channels_last)))


def half(case: Case) -> Any:
    return _cast(copy.deepcopy(case.model).half(), torch.float16)


def brain_half(case: Case) -> Any:
    return _cast(copy.deepcopy(case.model).bfloat16(), torch.bfloat16)


def _cast(model: Any, dtype: torch.dtype) -> Plain:
    return Plain(lambda x: model(x.to(dtype) if x.is_floating_point() else x).float())


def _called(model: Any, case: Case) -> Any:
    with torch.inference_mode():
        model(case.x)
    return model


def cuda_graph(case: Case) -> nn.Module:
    return _ours(case, CUDA_GRAPHS[case.images])


def cuda_graph_half(case: Case) -> nn.Module:
    return _ours(case, CUDA_GRAPHS[case.images], "precision", dtype="float16")


def inductor_half(case: Case) -> nn.Module:
    return _ours(case, INDUCTOR, "precision", dtype="float16")


def compiled_bfloat16(case: Case) -> Any:
    """Inputs and outputs stay float32, as the user's program has them."""
    import torch._inductor.config as settings

    model = torch.compile(copy.deepcopy(case.model).to(torch.bfloat16))
    with settings.patch(freezing=True):
        return _called(_cast(model, torch.bfloat16), case)


def fx_static(case: Case) -> nn.Module:
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    mapping = get_default_qconfig_mapping("x86")
    prepared = prepare_fx(copy.deepcopy(case.model), mapping, (case.x,))
    with torch.inference_mode():
        for x in case.shown:
            prepared(x)
    return convert_fx(prepared)


def dynamic(case: Case) -> nn.Module:
    """Linear layers only: convolutions have no dynamic kernels there."""
    model = copy.deepcopy(case.model)
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, torch.qint8)


def torchao(case: Case) -> Any:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    model = copy.deepcopy(case.model)
    quantize_(model, Int8DynamicActivationInt8WeightConfig())
    with torch.inference_mode():
        runnable = torch.compile(model)
        runnable(case.x)
    return runnable


def _onnx(case: Case, folder: str) -> str:
    path = str(Path(folder) / "model.onnx")
    torch.onnx.export(case.model, (case.x,), path, input_names=["x"], dynamo=True, verbose=False,
                      external_data=False)  # fmt: skip
    return path


def _session(path: str) -> Called:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Called(lambda x: session.run(None, {"x": x})[0])


def onnxruntime(case: Case) -> nn.Module:
    import onnxruntime  # noqa: F401

    with tempfile.TemporaryDirectory() as folder:
        return _session(_onnx(case, folder))


def onnxruntime_int8(case: Case) -> nn.Module:
    from onnxruntime import quantization as q
    from onnxruntime.quantization.shape_inference import quant_pre_process

    rows: Iterator[dict[str, Any]] = iter([{"x": x.numpy()} for x in case.shown])

    class Reader(q.CalibrationDataReader):
        def get_next(self) -> dict[str, Any] | None:
            return next(rows, None)

    reduce = not torch.cpu._is_vnni_supported()
    with tempfile.TemporaryDirectory() as folder:
        ready, quantized = (str(Path(folder) / f"{n}.onnx") for n in ("ready", "int8"))
        quant_pre_process(_onnx(case, folder), ready, skip_symbolic_shape=True)
        if case.images:
            q.quantize_static(
                ready, quantized, Reader(), per_channel=True, reduce_range=reduce,
                activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8,
            )  # fmt: skip
        else:
            q.quantize_dynamic(ready, quantized, per_channel=True, reduce_range=reduce)
        return _session(quantized)


def _openvino(case: Case, quantized: bool) -> nn.Module:
    import openvino as ov

    model = ov.convert_model(case.model, example_input=case.x, input=[list(case.x.shape)])
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    if quantized:
        import nncf

        kind = {} if case.images else {"model_type": nncf.ModelType.TRANSFORMER}
        model = nncf.quantize(model, nncf.Dataset([x.numpy() for x in case.shown]), **kind)
    else:  # else it takes half precision by itself where the machine has it
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    request = ov.Core().compile_model(model, "CPU", settings).create_infer_request()
    return Called(lambda x: next(iter(request.infer([x]).values())).copy())


def openvino(case: Case) -> nn.Module:
    return _openvino(case, False)


def openvino_int8(case: Case) -> nn.Module:
    return _openvino(case, True)


Columns = dict[str, Callable[[Case], Any]]
CPU: Columns = {
    "eager": eager,
    "modelspeed, auto": auto,
    "modelspeed, int8, auto": auto_int8,
    "modelspeed, lowered": lowered,
    "modelspeed, inductor": inductor,
    "modelspeed, bfloat16": bfloat16,
    "modelspeed, bfloat16, inductor": bfloat16_inductor,
    "modelspeed, int8": int8,
    "modelspeed, openvino": on_openvino,
    "modelspeed, int8, openvino": int8_on_openvino,
    "torch.compile, freezing": compiled,
    "torch.compile, bfloat16": compiled_bfloat16,
    "torch.ao FX static int8": fx_static,
    "torch.ao quantize_dynamic": dynamic,
    "torchao int8 dynamic, compiled": torchao,
    "ONNX Runtime": onnxruntime,
    "ONNX Runtime int8": onnxruntime_int8,
    "OpenVINO": openvino,
    "OpenVINO int8": openvino_int8,
}
CUDA: Columns = {  # the most telling first: on a machine that is lent the time may be up
    "eager": eager,
    "modelspeed, CUDA graph": cuda_graph,
    "modelspeed, CUDA graph, float16": cuda_graph_half,
    "torch.compile, max-autotune, float16": max_autotune_half,
    "torch.compile, max-autotune": max_autotune,
    "modelspeed, inductor, float16": inductor_half,
    "torch.compile": compiled_default,
    "eager, channels last": channels_last,
    "eager, float16": half,
    "eager, bfloat16": brain_half,
    "modelspeed, inductor": inductor,
}
COLUMNS = {"cpu": CPU, "cuda": CUDA}
