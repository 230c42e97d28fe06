"""Seconds that dimension analysis takes: of ResNet-50 (under 2 s) and of 2,500 nodes (under 10 s).

python benchmarks/analysis.py
"""

from __future__ import annotations

import time

import torch
from modelspeed.graph.analysis.groups import analyze
from modelspeed.graph.capture import capture
from torch import Tensor, nn


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.a, self.b = conv_bn(inputs, width, 1), conv_bn(width, width, 3, stride)
        self.c, self.down = conv_bn(width, 4 * width, 1), None
        if stride != 1 or inputs != 4 * width:
            self.down = conv_bn(inputs, 4 * width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.c(self.b(self.a(x).relu()).relu())
        return (y + (x if self.down is None else self.down(x))).relu()


def resnet50() -> nn.Module:
    blocks, inputs = [], 64
    for width, count, first in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for number in range(count):
            blocks.append(Bottleneck(inputs, width, first if number == 0 else 1))
            inputs = 4 * width
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000)]
    return nn.Sequential(conv_bn(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1), *blocks, *pool)


def report(name: str, model: nn.Module, inputs: Tensor) -> None:
    module = capture(model, (inputs,))
    times = []
    for _ in range(3):
        started = time.perf_counter()
        analysis = analyze(module)
        times.append(time.perf_counter() - started)
    nodes = len(module.graph.nodes)
    print(f"{name}: {nodes} nodes, {len(analysis.prunable)} groups, {min(times):.2f} s (best of 3)")


def main() -> None:
    torch.set_num_threads(1)
    report("ResNet-50", resnet50(), torch.randn(2, 3, 64, 64))
    layer = nn.TransformerEncoderLayer(256, 8, 1024, batch_first=True)
    report("transformer", nn.TransformerEncoder(layer, 60), torch.randn(2, 16, 256))


if __name__ == "__main__":
    main()
