"""A graph compiled ahead of time by AOTInductor: made once, it loads without compiling.

A package is native code: one that lies in an artifact runs only where it is trusted (trust.py).
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from threading import Lock

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

from ..core.errors import MeasureError, first_line, text_line
from ..core.files import MAX_PACKAGE_BYTES, PACKAGE
from ..core.model_io import Inputs
from ..graph.lowering.lower import folded_copy
from .compiler import refuse_state
from .cuda_graph import recorded_call
from .shape_guard import ShapeGuarded, for_inputs, names_of


def write_package(program: ExportedProgram, path: Path) -> None:
    """Compile `program` for this machine, weights frozen. Raises what the compiler raises."""
    from torch._inductor import aoti_compile_and_package

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        aoti_compile_and_package(
            program, package_path=str(path), inductor_configs={"freezing": True}
        )


def build_package(module: GraphModule, inputs: Inputs) -> bytes:
    """The package of `module` for inputs like `inputs` alone, in seconds to minutes.

    Raises MeasureError with the compiler's first line where it fails.
    """
    refuse_state(module)
    with tempfile.TemporaryDirectory(prefix="modelspeed-") as folder:
        path = Path(folder) / PACKAGE
        try:
            with torch.no_grad():
                graph = folded_copy(module)
                program = torch.export.export(graph, inputs.args, dict(inputs.kwargs))
            write_package(program, path)
        except Exception as error:
            why = text_line(error)
            raise MeasureError(f"AOTInductor fails on this model: {why}") from error
        if path.stat().st_size > MAX_PACKAGE_BYTES:
            raise MeasureError(f"the compiled package is larger than {MAX_PACKAGE_BYTES >> 30} GB")
        return path.read_bytes()


def load_package(
    package: bytes, usual: nn.Module, module: GraphModule, inputs: Inputs
) -> ShapeGuarded:
    """`module` as `build_package` compiled it for `inputs`; `usual` is how other shapes run.

    This runs native code of the package. Raises MeasureError where it can't be loaded.
    """
    device, names = inputs[0].device, names_of(module)
    on_gpu = device.type == "cuda"
    with tempfile.TemporaryDirectory(prefix="modelspeed-") as folder:
        path = Path(folder) / PACKAGE
        path.write_bytes(package)
        try:
            # Its own bookkeeping between threads asks events, which a CUDA graph does not allow.
            loader = torch._inductor.aoti_load_package(
                str(path), run_single_threaded=on_gpu, device_index=device.index if on_gpu else -1
            ).loader
        except Exception as error:
            raise MeasureError(f"`{PACKAGE}` can't be loaded: {first_line(error)}") from error
    lock = Lock() if on_gpu else nullcontext()

    # Called by place: rebuilding nested arguments takes longer than a small net.
    def fast(*flat: Tensor) -> Sequence[Tensor]:
        with lock:
            return loader.boxed_run(list(flat))

    with torch.no_grad():
        given = [x.contiguous() for x in inputs.in_order(names)]
        return for_inputs(usual, module, inputs, recorded_call(fast, given))
