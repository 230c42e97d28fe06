"""Multiply the weights of chosen layers by a factor: the literature's teaching example."""

from __future__ import annotations

from fnmatch import fnmatchcase

from ..configs.settings import Scale
from ..core.naming import outside
from ..graph.capture import tensor_at
from ..graph.edits.apply import ScaleParameter
from .plan import Adjuster, Context, Plan, parameter_names


def plan(context: Context, settings: Scale) -> Plan:
    weights = [
        n
        for n in parameter_names(context.module)
        if n.endswith("weight") and tensor_at(context.module, n).dim() >= 2
    ]
    if settings.match:
        patterns = tuple(settings.match)
        weights = [n for n in weights if _named(n, patterns)]
    if settings.first is not None:
        weights = weights[: settings.first]
    return Plan(tuple(ScaleParameter(n, settings.factor) for n in weights))


def _named(name: str, patterns: tuple[str, ...]) -> bool:
    name = outside(name)
    layer = name.rpartition(".")[0]
    return any(fnmatchcase(layer, p) or fnmatchcase(name, p) for p in patterns)


ADJUSTER = Adjuster("scale", "multiply the weights of chosen layers by a factor", plan)
