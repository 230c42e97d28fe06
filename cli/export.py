from __future__ import annotations

import json as json_text
import sys
from pathlib import Path
from typing import Annotated

from . import options as o
from .errors import shown


def export(
    folder: o.Folder,
    imports: o.ImportOption = None,
    format: Annotated[
        str,
        o.output(
            "--format",
            "pt2, state-dict, python (model.py and weights, needs only torch and safetensors), "
            "onnx (extra `onnx`) or aoti (compiled for this CPU)",
        ),
    ] = "pt2",
    rung: Annotated[
        int | None, o.output("--rung", "of a ladder: which one, 0 is the original")
    ] = None,
    out: Annotated[
        Path | None, o.output("--out", "file to write; a folder for the format python")
    ] = None,
    force: o.ForceOption = False,
    json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Write the model of an artifact, or of a ladder's rung, in another form."""
    with shown(debug):
        from ..core.user_code import import_all
        from ..runtime.export import export as write

        from .rung import beside_ladder, rung_of

        import_all(imports or ())
        artifact = rung_of(folder, rung)
        if artifact != folder:  # beside the ladder, not in it
            out = out or beside_ladder(folder, artifact, format)
        path = write(artifact, format, out, force, lambda text: sys.stderr.write(f"{text}\n"))
        sys.stderr.write(f"written to {path}\n")
        if json:
            sys.stdout.write(json_text.dumps({"path": str(path), "format": format}) + "\n")
