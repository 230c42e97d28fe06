"""Everything searched on OpenVINO against NNCF's int8 of the original on OpenVINO.

python benchmarks/joint_openvino.py [digits mobile] [--minutes 6]. Needs the benchmark extra.

NNCF quantizes the original with its usual settings, 300 examples. `modelspeed tune` gets half of
that latency as its target. In the end the original, NNCF's and ours are timed in turns in one
process, and the accuracy of all three is taken on the same evaluation data.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import modelspeed
import nets
import torch
from columns import Called
from modelspeed.backends.openvino_model import compile_model, openvino
from modelspeed.backends.readiness import runner
from modelspeed.checkpoints.read import read
from modelspeed.core.model_io import Inputs
from modelspeed.profiling.machine import fingerprint
from modelspeed.profiling.statistics import compare_samples
from modelspeed.profiling.timer import measure_interleaved
from torch import Tensor, nn

DIGITS = nets.HERE.parent / "examples" / "digits"
EXAMPLES = 300
RECIPE = """\
version: 1
model: {{factory: '{factory}', args: {args}}}
inputs: [{{shape: [1, 1, 32, 32], dtype: float32}}]
data: {{factory: '{data}', metric: accuracy}}
limits: {{max_drop: 0.01, minutes: {minutes}}}
adjust:
  - drop_blocks
  - prune: {{max_ratio: 0.95, importance: compensated}}
  - compensate
  - finetune: {{epochs: 3, distill: true}}
  - quantize
  - fold_batchnorm
"""


@dataclass(frozen=True)
class Net:
    checkpoint: Path
    build: Callable[[], nn.Module]
    factory: str
    args: str
    data: str
    batches: Callable[[], tuple[Any, Any]]


NETS = {
    "digits": Net(
        DIGITS / "digits_resnet.pt", nets.resnet, f"{DIGITS}/model.py:build", "{width: 32}",
        f"{DIGITS}/data.py:loaders", nets.digits,
    ),
    "mobile": Net(
        nets.TRAINED / "mobile.pt", nets.mobile, f"{nets.HERE}/nets.py:mobile", "{}",
        f"{nets.HERE}/nets.py:clutter", nets.clutter,
    ),
}  # fmt: skip


def accuracy(model: nn.Module, evaluate: Any) -> float:
    right = total = 0
    with torch.inference_mode():
        for images, labels in evaluate:
            for image, label in zip(images, labels, strict=True):
                right += int(model(image[None]).argmax(1)) == int(label)
                total += 1
    return right / total


def nncf_int8(model: nn.Module, train: Any) -> nn.Module:
    import nncf

    x = torch.zeros(1, 1, 32, 32)
    shown = [x[None] for images, _ in train for x in images][:EXAMPLES]
    converted = openvino().convert_model(model, example_input=x, input=[list(x.shape)])
    quantized = nncf.quantize(converted, nncf.Dataset([s.numpy() for s in shown]))
    request = compile_model(quantized).create_infer_request()
    return Called(lambda x: next(iter(request.infer([x]).values())).copy())


def timed(models: list[nn.Module], x: Tensor) -> list[Any]:
    runs = [runner(m, Inputs.of((x,))) for m in models]
    return measure_interleaved(runs, max_seconds=8.0, min_seconds=3.0)


def row_of(name: str, minutes: float) -> str:
    net = NETS[name]
    if name == "mobile":
        nets.checkpoint(name)
    original = read(net.checkpoint, factory=lambda **_: net.build(), args={}).module
    train, evaluate = net.batches()
    x = next(iter(evaluate))[0][:1]
    theirs = nncf_int8(original, train)
    eager, quantized = timed([original, theirs], x)
    target = quantized.value_ms / 2
    print(f"{name}: eager {eager.value_ms:.3g} ms, NNCF int8 {quantized.value_ms:.3g} ms",
          file=sys.stderr, flush=True)  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        recipe, out = Path(folder) / "modelspeed.yaml", Path(folder) / "out"
        recipe.write_text(RECIPE.format(factory=net.factory, args=net.args, data=net.data,
                                        minutes=minutes))  # fmt: skip
        words = [
            sys.executable,
            "-m",
            "modelspeed",
            "tune",
            str(net.checkpoint),
            "--json",
            "--config",
            str(recipe),
            "--target-ms",
            f"{target:.4g}",
            "--out",
            str(out),
        ]
        started = time.monotonic()
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
        record, seconds = json.loads(done.stdout), time.monotonic() - started
        ours = modelspeed.load(out)
        rows = timed([original, theirs, ours], x)
        gains = [compare_samples(rows[i].samples_ms, rows[2].samples_ms, 50) for i in (0, 1)]
        scores = [accuracy(model, evaluate) for model in (original, theirs, ours)]
    times = " / ".join(f"{row.value_ms:.3f}" for row in rows)
    points = " / ".join(f"{100 * score:.2f}" for score in scores)
    return (
        f"| {name} | {times} | {gains[0].speedup:.1f} ({gains[0].low:.1f}–{gains[0].high:.1f}) | "
        f"{gains[1].speedup:.2f} ({gains[1].low:.2f}–{gains[1].high:.2f}) | {points} | "
        f"{record['verdict']}, {record['runtime_used']} | {seconds:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("nets", nargs="*", default=list(NETS))
    parser.add_argument("--minutes", type=float, default=6.0)
    asked = parser.parse_args()
    print("| net | ms: eager / NNCF int8 / ours | over eager (99 %) | over NNCF | accuracy | "
          "verdict | s |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for name in asked.nets:
        print(row_of(name, asked.minutes), flush=True)
    machine = fingerprint()
    print(f"\nMachine: {machine.cpu}, {machine.threads} threads, torch {machine.torch}, "
          f"OpenVINO {openvino().get_version().partition('-')[0]}.")  # fmt: skip


if __name__ == "__main__":
    main()
