"""docs/architectures.md from the zoo: `make architectures` writes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import hf
import zoo
from modelspeed.graph.analysis.groups import Analysis, analyze, is_kernel_axis
from modelspeed.graph.capture import capture

HEAD = """\
# Architectures

Written by `make architectures`; a test compares it with what the analysis finds.
Every row is a net of `tests/support/zoo/`: pruned at random it equals the original with the dropped
units set to zero, at other batch sizes too, and loads in a fresh process. The reasons are those
that `modelspeed profile --groups` prints.

| net | idea | pruned (units) | stays whole, because |
|---|---|---|---|
"""
MODELS = """
## Model types of `transformers`

Tiny configurations; 30 % of every group pruned. Groups found, as size x number: heads (whole key
heads where queries share them), feed-forward neurons, and other widths a family has.

| model type | groups |
|---|---|
"""


def document(found: Mapping[str, Analysis]) -> str:
    rows = "".join(_row(name, found[name]) for name in sorted(found))
    types = "".join(f"| {name} | {_sizes(sizes)} |\n" for name, sizes in hf.FOUND.items())
    return HEAD + rows + MODELS + types


def _row(name: str, analysis: Analysis) -> str:
    idea = (zoo.ZOO[name].build.__doc__ or "").strip().splitlines()
    units = ", ".join(f"`{g.name}` {g.size}" for g in analysis.prunable)
    reasons = sorted({g.frozen for g in analysis.groups if g.frozen and not is_kernel_axis(g)})
    text = "; ".join(reasons).replace("|", "/")
    return f"| {name} | {idea[0] if idea else ''} | {units or '–'} | {text} |\n"


def _sizes(sizes: Mapping[int, int]) -> str:
    return ", ".join(f"{size} x {count}" for size, count in sizes.items()) or "none"


def main() -> None:
    found = {n: analyze(capture(e.model(), e.inputs)) for n, e in zoo.ZOO.items()}
    path = Path(__file__).parents[2] / "docs" / "architectures.md"
    path.write_text(document(found), encoding="utf-8")


if __name__ == "__main__":
    main()
