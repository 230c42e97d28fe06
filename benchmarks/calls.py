"""What a call costs besides its operators: `python benchmarks/calls.py`, one thread.

Eager module, the graph as `torch.export` gives it, called directly
(`graph/lowering/direct_call.py`), prepacked, under OpenVINO: in turns.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch
from modelspeed.backends.readiness import runner
from modelspeed.backends.registry import PLAIN, prepare
from modelspeed.core.model_io import Inputs
from modelspeed.graph.capture import capture
from modelspeed.profiling.timer import measure_interleaved
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
import nets


class Pair(nn.Module):
    """An embedding and two layers with a mask by keyword, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.up, self.head = (
            nn.Embedding(50, 256),
            nn.Linear(256, 1024),
            nn.Linear(1024, 3),
        )

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        x = torch.relu(self.up(self.token(ids))) * mask[..., None]
        return {"logits": self.head(x.sum(1)), "hidden": x.sum(1)}


CASES = {
    "two linear layers": (
        lambda: nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)),
        [torch.randn(1, 32)],
    ),
    "embedding, mask": (Pair, [torch.randint(0, 50, (1, 64)), torch.ones(1, 64)]),
    "ViT of nets.py": (nets.vit, [torch.randn(1, 1, 32, 32)]),
    "1-d ResNet of nets.py": (nets.sound, [torch.randn(8, 1, 40)]),
}  # fmt: skip
RUNTIMES = (PLAIN, "onednn", "openvino")


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print("| net | eager ms | exported | called directly | prepacked | OpenVINO |")
    print("|---|---|---|---|---|---|")
    for name, (build, tensors) in CASES.items():
        model, inputs = build().eval(), Inputs(tuple(tensors))
        graph = capture(model, inputs)
        models = [model, graph, *(prepare(graph, inputs, name) for name in RUNTIMES)]
        rows = measure_interleaved([runner(m, inputs) for m in models], max_seconds=2.0)
        eager = rows[0].value_ms
        cells = [f"{r.value_ms:.4f} ({eager / r.value_ms:.2f}x)" for r in rows[1:]]
        print(f"| {name} | {eager:.4f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
