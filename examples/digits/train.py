"""Train the demo's checkpoint: `python train.py` writes digits_resnet.pt beside this file."""

from __future__ import annotations

from pathlib import Path

import torch
from data import loaders
from model import build
from torch import nn

EPOCHS = 12


def main() -> None:
    torch.manual_seed(0)
    model = build().train()
    train, held = loaders()
    optimiser = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 0.1, total_steps=EPOCHS * len(train), pct_start=0.2
    )
    for epoch in range(EPOCHS):
        for images, labels in train:
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            optimiser.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss {float(loss):.4f}, accuracy {accuracy(model, held):.4f}")
    torch.save(model.state_dict(), Path(__file__).with_name("digits_resnet.pt"))


@torch.no_grad()
def accuracy(model: nn.Module, batches: object) -> float:
    model.eval()
    right = [(model(x).argmax(1) == y) for x, y in batches]  # type: ignore[attr-defined]
    model.train()
    return float(torch.cat(right).float().mean())


if __name__ == "__main__":
    main()
