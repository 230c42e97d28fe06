"""Importance of each unit of each channel group. Higher scores are kept longer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import GraphModule

from ...core.errors import DataError
from ...graph.analysis.groups import Group, Member
from ...graph.capture import clone, tensor_at
from ...graph.layers import layers_of
from ...graph.train_mode import NoGradient, gradients
from ...profiling.losses import outputs_of, task_loss
from ..plan import Context
from .moments import Moment, collect
from .unit_order import Consumer, removal_order

Scores = dict[str, NDArray[np.float64]]
FISHER_BATCHES = 16


def magnitude(context: Context) -> Scores:
    """Mean squared weight of a unit over its members, each member normalized to mean 1.

    L2 criterion of Li et al. 2017 (Pruning Filters), summed over a group as in DepGraph
    (Fang et al. 2023, eq. 4). Scores of different groups are comparable through the normalization.
    """
    scores: Scores = {}
    for group in context.analysis.prunable:
        total = np.zeros(group.size)
        weights = [m for m in group.members if tensor_at(context.module, m.param).dim() >= 2]
        for member in weights or group.members:
            tensor = tensor_at(context.module, member.param).detach().double().square()
            value = _per_unit(tensor, member)
            total += value / max(float(value.mean()), 1e-30)
        scores[group.name] = total / max(1, len(weights or group.members))
    return scores


def fisher(context: Context) -> Scores:
    """Empirical Fisher information of a gate on each unit: (sum w dL/dw)^2 of a batch's mean loss,
    times the batch size, averaged over batches.

    The sum runs over the consumers' slices (exact gate derivative, Theis et al. 2018 eq. 6; groups
    coupled as in Liu et al. 2021, Group Fisher Pruning). Half of it is the predicted rise in loss,
    so groups compare directly. Raises DataError without data or where the loss is not finite.
    """
    if context.train is None:
        raise DataError("`importance: fisher` needs training data; use `importance: magnitude`.")
    module = clone(context.module)
    scores = {g.name: np.zeros(g.size) for g in context.analysis.prunable}
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    seen = 0
    for inputs, targets in islice(context.train, FISHER_BATCHES):
        module.zero_grad()
        with gradients():
            loss = task_loss(outputs_of(module, inputs, context.device), targets.to(context.device))
            if not torch.isfinite(loss):
                raise DataError("the loss on the training data is not finite (NaN or infinity).")
            loss.backward()  # type: ignore[no-untyped-call]
        seen += 1
        for group in context.analysis.prunable:
            # The gradient of a batch's mean, squared, is a batch size smaller than an example's.
            scores[group.name] += len(targets) * _gate_gradient(module, group) ** 2
    if not seen:
        raise DataError("the training data is empty.")
    return {name: value / seen for name, value in scores.items()}


def _gate_gradient(module: GraphModule, group: Group) -> NDArray[np.float64]:
    """d loss / d gate of each unit, from the consumers where there are any."""
    total = np.zeros(group.size)
    for member in consumers(module, group) or group.members:
        tensor = tensor_at(module, member.param)
        if tensor.grad is not None:
            total += _per_unit((tensor.detach() * tensor.grad).double(), member)
    return total


def consumers(module: GraphModule, group: Group) -> tuple[Member, ...]:
    """Members that read the units: weight axis 1 of convolutions and linear layers."""
    weights = {layer.weight for layer in layers_of(module)}
    return tuple(m for m in group.members if m.dim == 1 and m.param in weights)


def _per_unit(values: Tensor, member: Member) -> NDArray[np.float64]:
    """Sum of `values` over each unit's slice of the member's axis."""
    axes = [d for d in range(values.dim()) if d != member.dim]
    line = (values.sum(dim=axes) if axes else values).cpu().numpy()
    return np.array([line[list(unit)].sum() for unit in member.indices])


def compensated_scores(context: Context) -> Scores:
    """Rise in loss as units leave one after the other and the layers that read the group make up
    for each with what stays (`unit_order.removal_order`). Groups that no layer reads are ranked
    by `fisher`.
    """
    moments = collect(context)
    by_weight: dict[str, list[Moment]] = {}
    for moment in moments.values():
        by_weight.setdefault(moment.layer.weight, []).append(moment)
    scores: Scores = {}
    for group in context.analysis.prunable:
        readers = [
            _reader(context, member, moment)
            for member in consumers(context.module, group)
            for moment in by_weight.get(member.param, ())
            if moment.layer.groups == 1
        ]
        if readers:
            scores[group.name] = removal_order(readers, group.size).numpy()
    missing = [g for g in context.analysis.prunable if g.name not in scores]
    if missing:
        gates = fisher(context)
        scores |= {g.name: gates[g.name] / 2 for g in missing}
    return scores


def _reader(context: Context, member: Member, moment: Moment) -> Consumer:
    features = torch.tensor([i for unit in member.indices for i in unit])
    tensor = tensor_at(context.module, member.param).detach().double()
    weight = tensor.reshape(*tensor.shape[:2], -1)[:, features]
    covariance = moment.covariance()
    curvature = moment.sensitivity() / 2
    if covariance.dim() == 1:
        metric = torch.einsum("oct,o->c", weight.square(), curvature)
        return Consumer(metric.cpu(), covariance[features].cpu(), len(member.indices[0]))
    flat = (weight * curvature.sqrt()[:, None, None]).permute(0, 2, 1).flatten(0, 1)
    chosen = covariance[features][:, features]
    return Consumer((flat.T @ flat).cpu(), chosen.cpu(), len(member.indices[0]))


IMPORTANCE: Mapping[str, Callable[[Context], Scores]] = {
    "magnitude": magnitude,
    "fisher": fisher,
    "compensated": compensated_scores,
}


def scores_of(context: Context, name: str) -> tuple[Scores, str]:
    """Scores by the criterion `name`, or by weight norms where that can't be; then why."""
    if name != "magnitude" and context.train is None:
        return magnitude(context), f"`{name}` needs training data; weight norms rank instead"
    try:
        return IMPORTANCE[name](context), ""
    except NoGradient as error:
        return magnitude(context), f"`{name}`: {error}; weight norms rank instead"
