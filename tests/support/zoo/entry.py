"""What an entry of the zoo is, and the small inputs that entries share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


@dataclass(frozen=True)
class Entry:
    """A model, example inputs, the groups to be found and why some parameters stay whole.

    `expect` maps each prunable group to its size, and lists all of them; `frozen` maps a parameter
    to words of the reason for which none of its axes may go. `batch` says that rows may vary.
    """

    build: Callable[[], nn.Module]
    inputs: tuple[Tensor, ...]
    expect: Mapping[str, int]
    frozen: Mapping[str, str] = field(default_factory=dict)
    batch: bool = True

    def model(self) -> nn.Module:
        """The model in eval mode; no norm is neutral, no two units are equal."""
        torch.manual_seed(0)
        made = self.build().eval()
        for module in made.modules():
            if isinstance(module, _NormBase) and module.running_mean is not None:
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2.0)
        for parameter in made.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        return made

    def rows(self, count: int) -> tuple[Tensor, ...]:
        """The inputs with another batch size, all rows different."""
        return tuple(torch.cat([x, x.roll(1, 1), x])[:count] for x in self.inputs)


ZOO: dict[str, Entry] = {}


def entry(
    inputs: tuple[Tensor, ...],
    expect: Mapping[str, int],
    *,
    frozen: Mapping[str, str] | None = None,
    batch: bool = True,
) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Put the decorated class in the zoo under its name."""

    def register(cls: type[nn.Module]) -> type[nn.Module]:
        assert cls.__name__ not in ZOO
        ZOO[cls.__name__] = Entry(cls, inputs, expect, frozen or {}, batch)
        return cls

    return register


def _wave(*shape: int) -> Tensor:
    return torch.linspace(-9, 9, torch.Size(shape).numel()).reshape(shape).sin()


IMAGE = (_wave(2, 3, 8, 8),)
TOKENS = (_wave(2, 6, 12),)
VECTOR = (_wave(2, 10),)
SOUND = (_wave(2, 3, 16),)
VIDEO = (_wave(2, 3, 4, 6, 6),)
POINTS = (_wave(2, 9, 3),)
IDS = (torch.arange(10).reshape(2, 5) % 7,)


def conv(inputs: int, outputs: int, kernel: int = 1, **more: int) -> nn.Conv2d:
    """A convolution that keeps height and width (unless it strides)."""
    padding = kernel // 2 * more.get("dilation", 1)
    return nn.Conv2d(inputs, outputs, kernel, padding=padding, **more)  # type: ignore[arg-type]


def conv_bn(inputs: int, outputs: int, kernel: int = 1, **more: int) -> nn.Sequential:
    return nn.Sequential(conv(inputs, outputs, kernel, **more), nn.BatchNorm2d(outputs))
