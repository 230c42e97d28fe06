"""The model as an adjuster sees it, and its answer. Adjusters decide; they change nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from ..configs.settings import SETTINGS
from ..core.model_io import Batches, Inputs
from ..core.records import LeftAlone
from ..graph.analysis.groups import Analysis, analyze
from ..graph.capture import tensor_at
from ..graph.edits.apply import Edit, Equalize, FoldBatchNorm, apply
from ..graph.layers import Layer

EXACT = (FoldBatchNorm, Equalize)  # edits that leave outputs as they are


@dataclass(frozen=True)
class Context:
    """The model as it stands, with what is known about its use. `train` is None without data.

    `prune_normalized_dims`: as in `graph.groups.analyze`. `lowered`: it will run on packed kernels.
    `model`: the user's own, which `module` is a capture of, where it's at hand.
    """

    module: GraphModule
    inputs: Inputs
    train: Batches | None = None
    device: str = "cpu"
    seed: int = 0
    prune_normalized_dims: bool = False
    lowered: bool = True
    model: nn.Module | None = None

    @cached_property
    def analysis(self) -> Analysis:
        return analyze(self.module, self.prune_normalized_dims)


@dataclass(frozen=True)
class Plan:
    """Edits to apply, and what was left as it is with the reason.

    `is_training`: weights are trained. `must_be_faster`: the edits bring nothing but speed, so they
    are dropped where they do not measure faster. `weights`: values that parameters get after the
    edits, where data has a say in them.
    """

    edits: tuple[Edit, ...] = ()
    left_alone: tuple[LeftAlone, ...] = ()
    is_training: bool = False
    must_be_faster: bool = False
    weights: Mapping[str, Tensor] = field(default_factory=dict)

    def apply(self, module: GraphModule) -> GraphModule:
        """Edits and weights on `module` itself."""
        apply(module, self.edits)
        for name, value in self.weights.items():
            tensor_at(module, name).data.copy_(value)
        return module

    def apply_to_layer(self, layer: Layer, module: GraphModule) -> GraphModule:
        """Of `layer` alone, on `module` itself, where the plan's exact edits have been made."""
        before = {name for name, _ in _tensors(module)}
        edits = [e for e in self.edits if getattr(e, "node", "") == layer.node.name]
        apply(module, [e for e in edits if not isinstance(e, EXACT)])
        new = {name for name, _ in _tensors(module)} - before
        for name in {layer.weight, layer.bias, *new} & set(self.weights):
            tensor_at(module, str(name)).data.copy_(self.weights[str(name)])
        return module


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


@dataclass(frozen=True)
class Adjuster:
    """One named strategy. What holds for it is said beside its settings."""

    name: str
    summary: str
    plan: Callable[[Context, Any], Plan]

    @property
    def lossless(self) -> bool:
        """True if its edits can't change outputs beyond rounding."""
        return SETTINGS[self.name].facts.lossless


def parameter_names(module: nn.Module) -> list[str]:
    """Names of all floating-point parameters and buffers, tied ones once."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return [n for n, t in named if t.is_floating_point() and t.dtype != torch.bool]
