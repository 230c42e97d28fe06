"""Draws the data and trains each net for some seconds; what lies in the scratch folder stays.

    python benchmarks/gpu/train.py --device cuda --seconds 10 [NET ...]

AdamW from random weights, bfloat16 on a GPU, a linear rise of the rate and then its cosine over the
time that is given. Such nets are no use to anybody, but accuracy can be lost in them.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch
from lines import emit
from torch import nn
from torch.nn import functional as F
from zoo import BATCH, EVALUATE, NETS, QUICK, TRAIN, checkpoint, data_file

RISE, FEWEST = 0.1, 4


def drawn(name: str, device: str) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    path, draw = data_file(name), NETS[name].draw
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = {"train": draw(TRAIN, False, 1, device), "evaluate": draw(EVALUATE, True, 2, device)}
        _saved(rows, path)
    return dict(torch.load(path))


def _saved(value: object, path: Path) -> None:
    part = path.with_suffix(".part")
    torch.save(value, part)
    part.rename(path)  # a stop in the middle leaves no half file


def accuracy(model: nn.Module, name: str, x: torch.Tensor, y: torch.Tensor, device: str) -> float:
    model.eval()
    with torch.inference_mode():
        found = [model(NETS[name].full(rows.to(device))).argmax(1).cpu() for rows in x.split(BATCH)]
    return float((torch.cat(found) == y).float().mean())


def trained(name: str, device: str, seconds: float) -> tuple[nn.Module, int]:
    """The net, and the steps that fitted."""
    net, (x, y) = NETS[name], drawn(name, device)["train"]
    torch.manual_seed(0)
    model = net.build().to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=net.rate, weight_decay=0.05)
    x, y = x.to(device), y.to(device)
    generator = torch.Generator().manual_seed(3)
    begun, steps = time.monotonic(), 0
    while (share := (time.monotonic() - begun) / seconds) < 1.0 or steps < FEWEST:
        rows = torch.randint(len(x), (BATCH,), generator=generator).to(device)
        rise = min(1.0, share / RISE)
        for entry in optimizer.param_groups:
            entry["lr"] = net.rate * rise * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
        with torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=device != "cpu"):
            loss = F.cross_entropy(model(net.full(x[rows])), y[rows])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        steps += 1
        if device != "cpu":
            torch.cuda.synchronize()  # else the clock sees the queue
    return model, steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("nets", nargs="*", default=list(NETS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each net")
    flags = parser.parse_args()
    if QUICK:
        torch.set_num_threads(1)
    for name in flags.nets:
        if checkpoint(name).exists():
            continue
        begun = time.monotonic()
        model, steps = trained(name, flags.device, flags.seconds)
        known = accuracy(model, name, *drawn(name, flags.device)["evaluate"], flags.device)
        _saved({k: v.cpu() for k, v in model.state_dict().items()}, checkpoint(name))
        emit(
            "net", net=name, steps=steps, batch=BATCH, accuracy=known,
            seconds=round(time.monotonic() - begun, 1),
            parameters=sum(p.numel() for p in model.parameters()),
        )  # fmt: skip


if __name__ == "__main__":
    main()
