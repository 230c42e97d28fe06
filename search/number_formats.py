"""What a search may take besides widths: steps after pruning that bring nothing but speed.

Number formats and ranks go by the place of their step in the recipe; FLOAT is none of them. Half
precision is of the whole model, integers and ranks are chosen layer by layer (ways.py).
"""

from __future__ import annotations

from collections.abc import Iterable

from ..configs.layer_settings import LowRank, Precision, Quantize
from ..configs.recipe import Recipe
from ..graph.edits.apply import Cast, Edit, QuantizeWeight, Sparsify

FLOAT = -1


def halves(recipe: Recipe) -> tuple[int, ...]:
    """It rounds so little that nothing need be removed where it is fast enough."""
    return tuple(i for i, s in enumerate(recipe.adjust) if isinstance(s.settings, Precision))


def integers(recipe: Recipe) -> tuple[int, ...]:
    """Integer weights alone are for the size of the file first: asked for, they are part of every
    candidate, which is measured with them."""
    return tuple(
        i
        for i, s in enumerate(recipe.adjust)
        if isinstance(s.settings, Quantize) and not s.settings.scheme.endswith("_weight")
    )


def ranks(recipe: Recipe) -> tuple[int, ...]:
    """Where the recipe leaves the ranks open, of the form that is searched."""
    rows = ((i, s.settings) for i, s in enumerate(recipe.adjust))
    opened = ((i, s) for i, s in rows if isinstance(s, LowRank) and s.rank is s.ratio is None)
    return tuple(i for i, s in opened if s.form in ("auto", "channels"))


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
