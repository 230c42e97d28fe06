"""A graph compiled ahead of time by AOTInductor: made once, it loads without compiling.

A package is native code: one that lies in an artifact runs only where it is trusted (trust.py).
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

from ..core.errors import MeasureError, first_line, text_line
from ..core.files import MAX_PACKAGE_BYTES, PACKAGE
from ..core.model_io import Inputs
from ..graph.lowering.lower import folded_copy
from .compiler import refuse_state
from .shape_guard import ShapeGuarded, for_inputs


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
    with tempfile.TemporaryDirectory(prefix="modelspeed-") as folder:
        path = Path(folder) / PACKAGE
        path.write_bytes(package)
        try:
            loader = torch._inductor.aoti_load_package(str(path)).loader
        except Exception as error:
            raise MeasureError(f"`{PACKAGE}` can't be loaded: {first_line(error)}") from error
    # Called by place: rebuilding nested arguments takes longer than a small net.
    return for_inputs(usual, module, inputs, lambda *flat: loader.boxed_run(list(flat)))
