"""Candidates: the edits of a recipe's steps on a fresh copy of the original, nothing measured."""

from __future__ import annotations

from collections.abc import Callable

from torch.fx import GraphModule

from ..adjusters.plan import Plan
from ..adjusters.registry import ADJUSTERS
from ..configs.recipe import Step as RecipeStep
from ..configs.settings import Compensate
from ..data.load import CALIBRATION
from ..graph.capture import clone
from ..graph.edits.apply import DropBlock, FoldBatchNorm, Resize, apply, kept_indices
from ..search.decision import Chosen
from ..search.variant import Variant
from ..training.compensation import compensate
from ..training.finetuning import reestimate_batch_norm
from .failing import reason_of
from .session import Bench

BN_BATCHES = 10


def fresh(bench: Bench) -> Variant:
    return Variant(bench.put_back(clone(bench.original)))


def plan_step(bench: Bench, variant: Variant, step: RecipeStep, chosen: Chosen | None) -> Plan:
    """`chosen` is None for a recipe as written."""
    context = bench.context(variant.module)
    searched = chosen.plan(step, context) if chosen is not None else None
    return searched or ADJUSTERS[step.name].plan(context, step.settings)


def before(bench: Bench, last: RecipeStep) -> Variant:
    """What the steps ahead of `last` make of the original, untrained."""
    places = [i for i, step in enumerate(bench.recipe.adjust) if step is last]
    return _made(bench, None, places[0], lambda step: True, False)


def build(
    bench: Bench,
    chosen: Chosen | None,
    *,
    lossless: bool = False,
    recover: bool = False,
) -> Variant:
    """All edits of the recipe in order, without measuring or training. For the search.

    `recover` adds what is cheap enough for a candidate: compensation, or batch norms re-estimated.
    """

    def wanted(step: RecipeStep) -> bool:
        return not lossless or ADJUSTERS[step.name].lossless

    return _made(bench, chosen, len(bench.recipe.adjust), wanted, recover)


def _made(
    bench: Bench,
    chosen: Chosen | None,
    end: int,
    wanted: Callable[[RecipeStep], bool],
    recover: bool,
) -> Variant:
    """By the steps before place `end`. A step that fails is left out from here on; one that the
    search decides on fails the candidate."""
    variant = fresh(bench)
    for place, step in enumerate(bench.recipe.adjust[:end]):
        if place in bench.failed or not wanted(step):
            continue
        try:
            plan = plan_step(bench, variant, step, chosen)
            if plan.is_training and recover:
                _recover(bench, variant, step)
            plan.apply(variant.module)
        except Exception as error:
            if chosen is not None and chosen.decides(step):
                raise
            bench.failed[place] = reason_of(error, f"`{step.name}`")
            # Its edits may be half made, so all are made again without them.
            return _made(bench, chosen, end, wanted, recover)
        variant.edits.extend(plan.edits)
    return variant


def _recover(bench: Bench, variant: Variant, step: RecipeStep) -> None:
    assert bench.data is not None
    if isinstance(step.settings, Compensate):
        fit(bench, variant, variant.module, step.settings)
    elif not any(s.name == "compensate" for s in bench.recipe.adjust):
        reestimate_batch_norm(variant.module, bench.data.calibration, BN_BATCHES, bench.device)


def _whole(bench: Bench, variant: Variant) -> GraphModule:
    """The original at the input size of the variant: layers are compared output by output."""
    ends = [i for i, e in enumerate(variant.edits, 1) if isinstance(e, Resize)]
    return apply(clone(bench.original), variant.edits[: ends[-1]]) if ends else bench.original


def fit(bench: Bench, variant: Variant, module: GraphModule, settings: Compensate) -> int:
    """Compensate `module`, made by the variant's edits, in place; how many layers were fitted."""
    assert bench.data is not None
    few = settings.examples <= CALIBRATION
    if any(isinstance(e, FoldBatchNorm) for e in variant.edits):
        return 0  # layers give batch-normed outputs now, which the original's are not
    return compensate(
        module,
        _whole(bench, variant),
        bench.data.calibration if few else bench.data.train,
        kept_indices(variant.edits),
        bench.device,
        shorter=any(isinstance(e, DropBlock) for e in variant.edits),
        examples=settings.examples,
        ridge=settings.ridge,
    )
