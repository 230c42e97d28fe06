"""Stages of a run, as its progress names them."""

from __future__ import annotations

from ..configs.recipe import Recipe

OPENING = ("loading", "capturing the graph", "measuring the baseline", "choosing kernels")
SEARCH = ("ranking channel groups", "timing layers at other widths", "searching")
VERIFYING = "verifying in a fresh process"


def expected(recipe: Recipe, *, opened: bool = False, search: bool = False) -> list[str]:
    """The stages of a run to come; `opened`: the model is loaded and measured already."""
    opening, steps = () if opened else OPENING, [s.name for s in recipe.adjust]
    return [*opening, *(SEARCH if search else ()), *steps, VERIFYING]
