from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..core.errors import CheckpointError, UsageError
from . import options as o
from .errors import shown

TEMPLATE = """\
# Recipe for `{name}`. Next: modelspeed tune {name} --target-ms 5
version: 1
{model}{inputs}
# data: {{factory: "data.py:loaders", metric: accuracy}}   # returns (train, eval) batches
target: {{percentile: 50, batch: 1}}       # add ms: 5.0, or pass --target-ms
limits: {{max_drop: 0.01, minutes: 20}}    # largest accepted drop of the metric; time budget
adjust:
  - flush_subnormals                     # lossless
  - prune: {{max_ratio: 0.8, importance: fisher}}
  - finetune: {{epochs: 2, distill: true}}
  - fold_batchnorm                       # lossless
  - channels_last                        # lossless
"""


def init(
    checkpoint: o.Checkpoint,
    out: Annotated[Path, typer.Option("--out", help="where to write")] = Path("modelspeed.yaml"),
    force: o.ForceOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Look into CHECKPOINT and write a commented recipe for it."""
    with shown(debug):
        if out.exists() and not force:
            raise UsageError(f"`{out}` already exists; pass `--force` or another `--out`.")
        text = TEMPLATE.format(name=checkpoint.name, **_looked_into(checkpoint))
        out.write_text(text, encoding="utf-8")
        sys.stderr.write(f"wrote {out}; next: modelspeed tune {checkpoint} --target-ms 5\n")


def _looked_into(checkpoint: Path) -> dict[str, str]:
    from ..checkpoints.read import read
    from ..tuning.job import program_inputs

    inputs = "# inputs: [{shape: [1, 3, 224, 224], dtype: float32}]   # what the model takes"
    try:
        source = read(checkpoint)
    except CheckpointError as error:
        if "weights alone" not in str(error):
            raise
        model = 'model: {factory: "model.py:build"}      # the file holds weights alone\n'
        return {"model": model, "inputs": inputs}
    specs = [", ".join(f"{k}: {v}" for k, v in s.items()) for s in program_inputs(source)]
    if specs:
        inputs = "inputs: [" + ", ".join(f"{{{spec}}}" for spec in specs) + "]"
    return {"model": "", "inputs": inputs}
