"""A graph compiled ahead of time by AOTInductor: made once, it loads without compiling.

A package is native code, so whoever made it may do anything. One that lies in an artifact runs
only where this user's own modelspeed compiled it on this machine, which a list in the user's cache
remembers by hash, or where the caller says that it is trusted.
"""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

from ..core.cache import cache_folder
from ..core.errors import MeasureError, first_line, text_line
from ..core.files import MOST_PACKAGE, PACKAGE
from ..core.model_io import Inputs
from ..graph.lowering.lower import folded_copy
from .inductor import refuse_state
from .shape_guard import Specialised, for_inputs


def write_package(program: ExportedProgram, path: Path) -> None:
    """Compile `program` for this machine, weights frozen. Raises what the compiler raises."""
    from torch._inductor import aoti_compile_and_package

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        aoti_compile_and_package(
            program, package_path=str(path), inductor_configs={"freezing": True}
        )


def build(module: GraphModule, inputs: Inputs) -> bytes:
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
        if path.stat().st_size > MOST_PACKAGE:
            raise MeasureError(f"the compiled package is larger than {MOST_PACKAGE >> 30} GB")
        return path.read_bytes()


def opened(package: bytes, usual: nn.Module, module: GraphModule, inputs: Inputs) -> Specialised:
    """`module` as `build` compiled it for `inputs`; `usual` is how other shapes run.

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


def remember(package: bytes) -> None:
    """Note that this user's modelspeed compiled `package`; without a cache it compiles at load."""
    if is_remembered(package):
        return
    with suppress(OSError):
        cache_folder().mkdir(parents=True, exist_ok=True)
        with _list().open("a", encoding="ascii") as file:
            file.write(f"{hashlib.sha256(package).hexdigest()}\n")


def is_remembered(package: bytes) -> bool:
    try:
        return hashlib.sha256(package).hexdigest() in _list().read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return False


def _list() -> Path:
    return cache_folder() / "compiled.txt"
