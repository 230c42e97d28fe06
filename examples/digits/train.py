"""Train the demo's checkpoint: `python train.py` writes digits_resnet.pt beside this file."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import torch
from model import build
from torch import Tensor, nn

from data import loaders

EPOCHS = 14
PEAK_LR = 0.1


def main() -> None:
    torch.set_num_threads(2)
    torch.manual_seed(0)
    model = build()
    train, held = loaders()
    optimizer = torch.optim.SGD(
        model.parameters(), PEAK_LR, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    # A short warm-up, then cosine decay.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_LR, total_steps=EPOCHS * len(train), pct_start=0.2
    )
    started = time.monotonic()
    for epoch in range(1, EPOCHS + 1):
        model.train()
        for images, labels in train:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            schedule.step()
        seconds = time.monotonic() - started
        print(
            f"epoch {epoch:2}: loss {loss.item():.4f}, accuracy {accuracy(model, held):.4f},"
            f" {seconds:.0f} s",
            flush=True,
        )
    # The last weights, not the best on the evaluation data: those would flatter themselves.
    torch.save(model.state_dict(), Path(__file__).with_name("digits_resnet.pt"))


@torch.no_grad()
def accuracy(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Fraction of right answers."""
    model.eval()
    right = [model(images).argmax(1) == labels for images, labels in batches]
    return torch.cat(right).float().mean().item()


if __name__ == "__main__":
    main()
