"""A ladder of two pico nets, measured by some calls: `python small_ladder.py FOLDER`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pico
import torch
from modelspeed.checkpoints.ladders import RungSource, assemble_ladder
from modelspeed.checkpoints.staging import save
from modelspeed.core.model_io import Inputs
from modelspeed.core.records import Latency, Record, Target
from modelspeed.graph.capture import export_program
from modelspeed.profiling.machine import fingerprint
from torch import nn

BLOCKS = (2, 1)  # residual ones, by rung
SIZES = (1, 2, 4, 8)


def write_ladder(folder: Path) -> Path:
    sources = []
    for place, blocks in enumerate(BLOCKS):
        net = pico.net(["residual"] * blocks)
        artifact = _artifact(folder / f"artifact{place}", net)
        samples = {size: _samples(net, size) for size in SIZES}
        sources.append(RungSource(artifact, f"blocks{blocks}", 1.0 - place / 10, 100, samples))
    assemble_ladder(folder / "ladder", sources, fingerprint())
    return folder / "ladder"


def _artifact(folder: Path, net: nn.Module) -> Path:
    inputs = Inputs.of((pico.images(1),))
    record = Record("tune", "now", "0", "m.pt", "0" * 64, fingerprint(), Target(), "none", "",
                    Latency(50, 1, 1, 1))  # fmt: skip
    return save(
        folder, program=export_program(net, inputs), edits=[], record=record,
        recipe_yaml="version: 1\n", inputs=inputs, runtime="plain", reports={}, force=False,
    )  # fmt: skip


@torch.no_grad()
def _samples(net: nn.Module, size: int) -> list[float]:
    x, found = pico.images(size), []
    for _ in range(12):
        began = time.perf_counter()
        net(x)
        found.append(1000.0 * (time.perf_counter() - began))
    return found[2:]


if __name__ == "__main__":
    print(write_ladder(Path(sys.argv[1])))
