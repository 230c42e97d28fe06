"""int8 and half precision against the user's eager model and torch.compile, interleaved in one run.

python benchmarks/int8.py [--seconds 5] [--threads 2] [--compile]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import modelspeed.examples.digits as digits
import torch
from modelspeed.adjusters.plan import Context
from modelspeed.adjusters.registry import ADJUSTERS
from modelspeed.checkpoints.factory import load_factory
from modelspeed.checkpoints.read import read
from modelspeed.configs.recipe import make_step
from modelspeed.core.calling import Inputs
from modelspeed.graph.capture import capture, clone
from modelspeed.graph.edits import Cast, apply
from modelspeed.graph.lowering import folded_copy, variants
from modelspeed.profiling.accuracy import agreement
from modelspeed.profiling.machine import fingerprint
from modelspeed.profiling.statistics import compare
from modelspeed.profiling.timer import measure_interleaved
from modelspeed.tuning.runtimes import runner
from torch import Tensor, nn


class Block(nn.Module):
    """Basic block of He et al. 2016, figure 2."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet18() -> nn.Module:
    torch.manual_seed(0)
    widths = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2),
              (256, 256, 1), (256, 512, 2), (512, 512, 1)]  # fmt: skip
    return nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1), *(Block(*w) for w in widths),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000),
    ).eval()  # fmt: skip


def digits_net() -> tuple[nn.Module, Any, Any]:
    folder = Path(str(digits.__file__)).parent
    factory = load_factory("model.py:build", folder)
    source = read(folder / "digits_resnet.pt", factory=factory, args={"width": 32}).module
    return source, *load_factory("data.py:loaders", folder)()


def lowered(name: str, module: Any, inputs: Inputs) -> dict[str, nn.Module]:
    kernels = ("onednn", "onednn_channels_last")
    return {f"{name}, {k}": b() for k, b in variants(module, inputs).items() if k in kernels}


def compiled(module: Any, inputs: Inputs) -> Callable[..., Any]:
    import torch._inductor.config as inductor

    inductor.freezing = True
    made = torch.compile(folded_copy(module))
    started = time.perf_counter()
    runner(made, inputs)()
    print(f"torch.compile with freezing took {time.perf_counter() - started:.1f} s")
    return made  # type: ignore[no-any-return]


def report(source: nn.Module, inputs: Inputs, train: Any, held: Any, flags: Any) -> None:
    graph = capture(source, tuple(inputs))
    plan = ADJUSTERS["quantize"].plan(
        Context(graph, inputs, train), make_step("quantize", examples=64).settings
    )
    int8 = apply(clone(graph), plan.edits)
    made: dict[str, Any] = {"eager": source}
    made |= lowered("float32", graph, inputs)
    made |= lowered("bfloat16", apply(folded_copy(graph), [Cast("bfloat16")]), inputs)
    made |= lowered("int8", int8, inputs)
    if flags.compile:
        made["torch.compile, freezing"] = compiled(graph, inputs)
    rows = measure_interleaved(
        [runner(m, inputs) for m in made.values()], max_seconds=flags.seconds
    )
    print(
        "| runtime | p50 ms | least ms | speed-up over eager | agreement |\n|---|---|---|---|---|"
    )
    for (name, module), row in zip(made.items(), rows, strict=True):
        found = compare(rows[0].samples_ms, row.samples_ms, 50)
        speedup = f"{found.speedup:.2f} ({found.low:.2f}–{found.high:.2f})"
        same = agreement(graph, module, held)
        print(
            f"| {name} | {row.value_ms:.2f} | {min(row.samples_ms):.2f} | {speedup} | {same:.4f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="time bound per runtime")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compile", action="store_true", help="torch.compile too (minutes)")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    print("\nResNet-18, random weights, 1x3x224x224\n")
    images = [(torch.randn(4, 3, 224, 224), None) for _ in range(4)]
    report(resnet18(), Inputs.of((torch.randn(1, 3, 224, 224),)), images[:3], images[3:], flags)
    print("\nDigits ResNet-20, trained, 1x1x32x32\n")
    source, train, held = digits_net()
    report(source, Inputs.of((torch.randn(1, 1, 32, 32),)), train, held, flags)
    machine = fingerprint()
    print(f"\nMachine: {machine.cpu}, {machine.threads} threads, torch {machine.torch}.")


if __name__ == "__main__":
    main()
