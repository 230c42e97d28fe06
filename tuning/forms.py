"""Number formats that a search may take: steps that come after pruning and bring nothing but speed.

A form is the place of its step in the recipe; FLOAT is the model without any of them.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..configs.recipe import Recipe, Step
from ..configs.settings import Precision, Quantize
from ..graph.edits import Cast, Edit, QuantizeWeight

FLOAT = -1


def forms(recipe: Recipe) -> tuple[int, ...]:
    """The formats of a recipe, the more exact ones first: half precision, then integers."""
    steps = list(enumerate(recipe.adjust))
    halves = [i for i, s in steps if isinstance(s.settings, Precision)]
    return (*halves, *(i for i, s in steps if in_integers(s)))


def is_exact(recipe: Recipe, form: int) -> bool:
    """Whether the format rounds so little that nothing need be removed where it is fast enough."""
    return form == FLOAT or isinstance(recipe.adjust[form].settings, Precision)


def in_integers(step: Step) -> bool:
    """Integer weights alone are for the size of the file first: asked for, they are part of every
    candidate, which is measured with them."""
    return isinstance(step.settings, Quantize) and not step.settings.scheme.endswith("_weight")


def name_of(recipe: Recipe, form: int) -> str:
    if form == FLOAT:
        return "float32"
    settings = recipe.adjust[form].settings
    if isinstance(settings, Precision):
        return settings.dtype
    assert isinstance(settings, Quantize)
    return settings.scheme


def takes_a_format(edits: Iterable[Edit]) -> bool:
    return any(isinstance(e, (Cast, QuantizeWeight)) for e in edits)
