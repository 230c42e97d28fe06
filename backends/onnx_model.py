"""ONNX: a graph written by torch's exporter, our integers as QuantizeLinear and DequantizeLinear.

`modelspeed export` writes what ONNX Runtime runs here, checked there before it is put in place.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule

from ..core.errors import MeasureError
from ..core.extras import extra
from ..core.model_io import Inputs
from ..graph.capture import export_program, has_dynamic_batch
from ..profiling.closeness import plain_outputs
from .compiler import refuse_state
from .onnx_graph import exportable
from .onnx_operators import translations
from .shape_guard import Fast, names_of

PACKAGE = "onnxruntime"
NEEDED = ("onnx", "onnxscript")
CPU = "CPUExecutionProvider"
ERRORS = 3  # its levels: of what it says, errors alone


def onnx_program(module: GraphModule, inputs: Inputs) -> Any:
    """A `torch.onnx.ONNXProgram`, inputs and outputs flat and in order, for any batch where the
    graph takes any, and for other sizes of what varies where it can be written so. Raises
    MissingExtra, MeasureError, and whatever the exporter raises."""
    for package in NEEDED:
        extra(package, "export --format onnx")
    refuse_state(module)
    graph = exportable(module)
    flat = inputs.by_place(names_of(graph))
    # It says at length which libraries it does not find.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    if flat.varies:
        with suppress(Exception):  # it has no form with open sizes for all that a graph does
            return _written(export_program(graph, flat))
    return _written(export_program(graph, replace(flat, varies=())))


def _written(program: ExportedProgram) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        written = torch.onnx.export(
            program, (), dynamo=True, verbose=False, custom_translation_table=translations()
        )
    if written is None:
        raise RuntimeError("torch's exporter gave nothing back")
    return written


def nameless(model: Any) -> Any:
    """In place: without the paths and lines of source that torch's exporter notes beside nodes."""
    waiting = [model.graph]
    del model.metadata_props[:]
    while waiting:
        graph = waiting.pop()
        values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
        for part in (graph, *graph.node, *values):
            del part.metadata_props[:]
            part.doc_string = ""
        for attribute in (a for node in graph.node for a in node.attribute):
            waiting += [attribute.g] if attribute.HasField("g") else attribute.graphs
    return model


@cache
def onnxruntime() -> Any:
    """The package, which tells its makers nothing (on Windows it would). Raises MissingExtra."""
    package = extra(PACKAGE, "ONNX Runtime")
    package.disable_telemetry_events()
    return package


class OnnxSession:
    """A model as a function of its inputs by place, on as many threads as torch has now.

    Many threads may call it at once. `settings` are attributes of `SessionOptions`.
    """

    def __init__(self, model: bytes | str, **settings: object) -> None:
        options = onnxruntime().SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = ERRORS
        # Threads spin for the next part of a call, which sleeping ones would start too late to
        # be of use; after it they would go on and disturb whatever runs beside them.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        for name, value in settings.items():
            setattr(options, name, value)
        self.session = onnxruntime().InferenceSession(model, options, providers=[CPU])
        self._names = [x.name for x in self.session.get_inputs()]
        self._run = self.session.run

    def __call__(self, *flat: Tensor) -> list[Tensor]:
        given = {n: x.detach().numpy() for n, x in zip(self._names, flat, strict=True)}
        return [torch.from_numpy(numpy.asarray(y)) for y in self._run(None, given)]


def check_file(path: Path, module: GraphModule, batches: Sequence[Inputs]) -> None:
    """Raises MeasureError where ONNX Runtime fails on the file, or gives other outputs than
    `module`; NotImplementedError where it has no kernel for a number format; MissingExtra."""
    onnxruntime()
    outputs = plain_outputs(module, batches)
    names = names_of(module)
    try:
        runs: Fast = OnnxSession(str(path))
    except Exception as error:
        if type(error).__name__ == "NotImplemented":
            raise NotImplementedError(str(error)) from error
        raise MeasureError(f"ONNX Runtime does not take it: {error}") from error

    def call(*args: Any, **kwargs: Any) -> Sequence[Any]:
        return runs(*Inputs(args, kwargs).in_order(names))

    found = outputs.closeness(call)
    if not found.holds:
        raise MeasureError(
            f"its outputs in ONNX Runtime differ by {found.error:.2g} of their size from the "
            f"artifact's; at most {found.allowed:g} is allowed"
        )


def checked_batches(module: GraphModule, draw: Callable[[int], Inputs]) -> list[Inputs]:
    """Two inputs, and where the graph takes any batch a third one of twice the size."""
    first, second = draw(0), draw(1)
    doubled = second.rows(lambda x, axis: torch.cat([x, x], axis))
    return [first, second, doubled] if has_dynamic_batch(module, first) else [first, second]
