"""Options of a search besides widths: steps after pruning that bring nothing but speed.

A number format or rank is named by the place of its step in the recipe; FLOAT is not a place. Half
precision is for the whole model; integers and ranks are chosen per layer (layer_options.py).
"""

from __future__ import annotations

from collections.abc import Iterable

from ..configs.facts import Facts, Scope
from ..configs.layer_settings import Precision, Quantize
from ..configs.recipe import Recipe
from ..graph.edits.apply import Cast, Edit, QuantizeWeight, Sparsify

FLOAT = -1


def half_precision_steps(recipe: Recipe) -> tuple[int, ...]:
    """Places of the steps that cast the whole model.

    Half precision costs so little accuracy that nothing is pruned if it meets the target.
    """
    return _open(recipe, "the whole model")


def integer_steps(recipe: Recipe) -> tuple[int, ...]:
    """Places of the steps that may quantize layers.

    Schemes that quantize only weights mainly save file size: they are not open to the search, but
    part of every candidate, which is measured with them.
    """
    return tuple(i for i in _open(recipe, "layers") if _facts(recipe, i).changes_format)


def low_rank_steps(recipe: Recipe) -> tuple[int, ...]:
    """Places of the steps whose ranks the recipe leaves open."""
    return tuple(i for i in _open(recipe, "layers") if not _facts(recipe, i).changes_format)


def _open(recipe: Recipe, scope: Scope) -> tuple[int, ...]:
    """Places of the steps that a search decides about, by what it chooses of them."""
    return tuple(
        i
        for i, step in enumerate(recipe.adjust)
        if step.settings.facts.searched == scope and step.settings.is_open()
    )


def _facts(recipe: Recipe, place: int) -> Facts:
    return recipe.adjust[place].settings.facts


def open_steps(recipe: Recipe) -> tuple[int, ...]:
    """Places of the steps that the search decides about."""
    return (*low_rank_steps(recipe), *integer_steps(recipe), *half_precision_steps(recipe))


def name_of(recipe: Recipe, number_format: int) -> str:
    if number_format == FLOAT:
        return "float32"
    settings = recipe.adjust[number_format].settings
    if isinstance(settings, Precision):
        return settings.dtype
    return settings.scheme if isinstance(settings, Quantize) else recipe.adjust[number_format].name


def takes_a_format(edits: Iterable[Edit]) -> bool:
    """True if the edited graph is fast only on packed or sparse kernels."""
    return any(isinstance(e, (Cast, QuantizeWeight, Sparsify)) for e in edits)
