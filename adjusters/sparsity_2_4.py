"""Two of every four weights of linear layers go, where a GPU multiplies what is left faster.

With training data the others make up for those that went (SparseGPT, Frantar & Alistarh 2023,
algorithm 1 with n:m blocks); without, the smallest go.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Node

from ..configs.layer_settings import SparsityTwoFour
from ..core.records import LeftAlone
from ..graph.capture import tensor_at
from ..graph.edits.apply import Sparsify
from ..graph.edits.sparsity import lacks_sparse_kernels, sparsifiable, two_of_four
from ..graph.interpreter import Recorder
from ..graph.layers import Layer, layers_of
from .methods.calibration import batches
from .plan import Adjuster, Context, Plan

RIDGE = 0.01  # of the mean variance: inputs that never vary have no inverse


def plan(context: Context, settings: SparsityTwoFour) -> Plan:
    if reason := lacks_sparse_kernels(context.device):
        return Plan((), (LeftAlone("sparsity_2_4", reason),))
    return chosen(context, settings)


def chosen(context: Context, settings: SparsityTwoFour) -> Plan:
    """The plan for a GPU that has the kernels."""
    layers, left = [], []
    for layer in layers_of(context.module):
        if reason := sparsifiable(context.module, layer):
            left.append(LeftAlone(layer.name, reason))
        elif not settings.selects(layer.name):
            left.append(LeftAlone(layer.name, "`match` and `skip` leave it dense"))
        else:
            layers.append(layer)
    seen = grams(context, layers, settings.examples)
    weights = {
        layer.weight: compensated_weight(
            tensor_at(context.module, layer.weight).detach(), seen[layer.node]
        )
        for layer in layers
        if layer.node in seen
    }
    edits = tuple(Sparsify(layer.weight) for layer in layers)
    return Plan(edits, tuple(left), must_be_faster=True, weights=weights)


def grams(context: Context, layers: list[Layer], examples: int) -> dict[Node, Tensor]:
    """By layer: sum of x x^T [in, in], float64, of what it reads; empty without training data."""
    sums: dict[Node, Tensor] = {}
    watched = Recorder(context.module, {layer.source.name for layer in layers}, copy=True)
    with torch.no_grad():
        for given in batches(context, examples) if layers else ():
            watched.of(given)
            for layer in layers:
                samples = watched.values[layer.source.name].flatten(0, -2).float()
                square = (samples.T @ samples).double()
                sums[layer.node] = sums.get(layer.node, 0.0) + square
    return sums


def compensated_weight(weight: Tensor, gram: Tensor) -> Tensor:
    """`weight` [out, in] at 2:4, what is left fitted to the inputs that sum to `gram` [in, in].

    Columns are settled from first to last; each column's error goes to the later ones.
    """
    size = gram.diagonal().mean().clamp_min(torch.finfo(gram.dtype).tiny)
    ridge = RIDGE * size * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    inverse = torch.linalg.inv(gram + ridge)
    root = torch.linalg.cholesky(inverse, upper=True)
    fitted = weight.double().clone()
    for start in range(0, fitted.shape[1], 4):
        block = slice(start, start + 4)
        score = fitted[:, block].square() / root.diagonal()[block].square()
        kept = two_of_four(torch.ones_like(score), score)
        for place in range(start, start + 4):
            error = fitted[:, place] * (1 - kept[:, place - start])
            fitted[:, place:] -= torch.outer(error / root[place, place], root[place, place:])
            fitted[:, place] *= kept[:, place - start]  # exactly, not but for rounding
    return fitted.to(weight.dtype)


ADJUSTER = Adjuster(
    "sparsity_2_4", "zero two of every four weights where a GPU runs that faster", plan
)
