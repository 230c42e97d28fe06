from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ..configs.presets import read_preset
from ..core.errors import UsageError
from ..core.files import write_whole
from ..core.json_values import JsonObject
from ..core.workspace import recover
from . import options as o
from .errors import shown

if TYPE_CHECKING:
    from ..checkpoints.inspect import Inspection

TEMPLATE = """\
# Recipe for `{name}`: {what}. Next: modelspeed tune {name} --target-ms 5
version: 1
{model}{ignore}{inputs}
# data: {{factory: "data.py:loaders", metric: accuracy}}   # returns (train, eval) batches; or
#                                        # folder:DIR (one sub-folder a class), arrays:FILE.npz,
#                                        # datasets:NAME
target: {{percentile: 50}}                 # add ms: 5.0, or pass --target-ms; batch: 8
limits: {{max_drop: 0.01, minutes: 20}}    # largest accepted drop of the metric; time budget
{adjust}"""


def init(
    checkpoint: o.Checkpoint,
    trust_pickle: o.TrustOption = False,
    ignore: o.IgnoreOption = None,
    imports: o.ImportOption = None,
    out: Annotated[Path, o.output("--out", "where to write")] = Path("modelspeed.yaml"),
    force: o.ForceOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Look into CHECKPOINT and write a commented recipe for it."""
    with shown(debug):
        from ..core.user_code import import_all
        from ..checkpoints.inspect import inspect_checkpoint

        recover(out)
        if out.exists() and not force:
            raise UsageError(f"`{out}` already exists; pass `--force` or another `--out`.")
        import_all(imports or ())
        inspection = inspect_checkpoint(checkpoint, trust_pickle=trust_pickle, ignore=ignore or ())
        text = TEMPLATE.format(
            name=_word(checkpoint.name), what=_word(inspection.what), model=_model(inspection),
            inputs=_inputs(inspection), ignore=_ignore(ignore or ()), adjust=_steps(),
        )  # fmt: skip
        write_whole(out, text)
        sys.stderr.write(f"`{_word(str(checkpoint))}` is {_word(inspection.what)}\n")
        for note in inspection.notes:
            sys.stderr.write(f"  {_word(note)}\n")
        command = shlex.join(["modelspeed", "tune", str(checkpoint), "--target-ms", "5"])
        sys.stderr.write(f"wrote {out}; next: {command}\n")


def _word(text: str) -> str:
    """A name from anywhere on one line: a line break would end the comment that it stands in."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _steps() -> str:
    """The steps that `tune` takes without a recipe, as a start for the user's own."""
    return "adjust:" + read_preset("balanced").partition("adjust:")[2]


def _model(inspection: Inspection) -> str:
    if inspection.factory is None:
        return ""
    args = f", args: {_flow(inspection.args)}" if inspection.args else ""
    why = "" if inspection.sure else "      # the file holds just weights: name the model's factory"
    return f"model: {{factory: {json.dumps(inspection.factory)}{args}}}{why}\n"


def _ignore(patterns: Sequence[str]) -> str:
    return f"ignore: {json.dumps(list(patterns))}\n" if patterns else ""


def _inputs(inspection: Inspection) -> str:
    shapes = inspection.inputs or ({"shape": [1, 3, 224, 224], "dtype": "float32"},)
    text = f"inputs: [{', '.join(map(_flow, shapes))}]"
    sure = inspection.inputs_sure and inspection.inputs
    return text if sure else f"# {text}   # a guess: what it takes"


def _flow(values: JsonObject) -> str:
    """A mapping on one line, read by YAML as it was."""
    return "{" + ", ".join(f"{_key(k)}: {json.dumps(v)}" for k, v in values.items()) + "}"


def _key(name: str) -> str:
    return name if name.isidentifier() and name.islower() else json.dumps(name)
