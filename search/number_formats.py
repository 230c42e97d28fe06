"""What a search may take besides widths: steps after pruning that bring nothing but speed.

Number formats and ranks go by the place of their step in the recipe; FLOAT is none of them. Half
precision is of the whole model, integers and ranks are chosen layer by layer (ways.py).
"""

from __future__ import annotations

from collections.abc import Iterable

from ..configs.facts import Facts, Scope
from ..configs.layer_settings import Precision, Quantize
from ..configs.recipe import Recipe
from ..graph.edits.apply import Cast, Edit, QuantizeWeight, Sparsify

FLOAT = -1


def halves(recipe: Recipe) -> tuple[int, ...]:
    """It rounds so little that nothing need be removed where it is fast enough."""
    return _open(recipe, "the whole model")


def integers(recipe: Recipe) -> tuple[int, ...]:
    """Integer weights alone are for the size of the file first: asked for, they are part of every
    candidate, which is measured with them."""
    return tuple(i for i in _open(recipe, "layers") if _facts(recipe, i).changes_format)


def ranks(recipe: Recipe) -> tuple[int, ...]:
    """Where the recipe leaves the ranks open, of the form that is searched."""
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


def name_of(recipe: Recipe, form: int) -> str:
    if form == FLOAT:
        return "float32"
    settings = recipe.adjust[form].settings
    if isinstance(settings, Precision):
        return settings.dtype
    return settings.scheme if isinstance(settings, Quantize) else recipe.adjust[form].name


def takes_a_format(edits: Iterable[Edit]) -> bool:
    """Whether what the edits make is fast on packed or sparse kernels alone."""
    return any(isinstance(e, (Cast, QuantizeWeight, Sparsify)) for e in edits)
