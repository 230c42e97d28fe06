"""Candidates: the edits of a recipe's steps on a fresh copy of the original, nothing measured."""

from __future__ import annotations

from collections.abc import Callable

from torch.fx import GraphModule

from ..adjusters.plan import Plan
from ..adjusters.registry import ADJUSTERS
from ..configs.recipe import Step as RecipeStep
from ..configs.settings import Compensate
from ..data.load import CALIBRATION
from ..data.subset import FirstBatches
from ..graph.capture import clone
from ..graph.edits.apply import DropBlock, FoldBatchNorm, Resize, apply, kept_indices
from ..search.decision import Decision
from ..search.variant import Variant
from ..training.compensation import compensate
from ..training.finetuning import reestimate_batch_norm
from .exclusions import reason_of
from .session import Session

BN_BATCHES = 10


def new_candidate(session: Session) -> Variant:
    return Variant(session.fresh(), runtime=session.runtimes[0])


def plan_step(
    session: Session, variant: Variant, step: RecipeStep, decision: Decision | None
) -> Plan:
    """`decision` is None for a recipe as written."""
    context = session.context(variant.module)
    searched = decision.plan(step, context) if decision is not None else None
    return searched or ADJUSTERS[step.name].plan(context, step.settings)


def model_at(session: Session, last: RecipeStep) -> Variant:
    """The original after the steps ahead of `last`, untrained."""
    positions = [i for i, step in enumerate(session.recipe.adjust) if step is last]
    return _built(session, None, positions[0], lambda step: True, False)


def build(
    session: Session,
    decision: Decision | None,
    *,
    lossless: bool = False,
    recover: bool = False,
) -> Variant:
    """All edits of the recipe in order, without measuring or training. For the search.

    `recover` adds what is cheap enough for a candidate: compensation, or batch norms re-estimated.
    """

    def is_wanted(step: RecipeStep) -> bool:
        return not lossless or ADJUSTERS[step.name].lossless

    return _built(session, decision, len(session.recipe.adjust), is_wanted, recover)


def _built(
    session: Session,
    decision: Decision | None,
    end: int,
    is_wanted: Callable[[RecipeStep], bool],
    recover: bool,
) -> Variant:
    """By the steps before place `end`. A step that fails is left out from here on; one that the
    search decides on fails the candidate."""
    variant = new_candidate(session)
    for place, step in enumerate(session.recipe.adjust[:end]):
        if place in session.exclusions.steps or not is_wanted(step):
            continue
        try:
            plan = plan_step(session, variant, step, decision)
            if plan.is_training and recover:
                _recover(session, variant, step)
            plan.apply(variant.module)
        except Exception as error:
            if decision is not None and decision.decides(step):
                raise
            session.exclusions.leave_out_step(place, reason_of(error, f"`{step.name}`"))
            # Its edits may be half made, so all are made again without them.
            return _built(session, decision, end, is_wanted, recover)
        variant = variant.edited(variant.module, plan.edits)
    return variant


def _recover(session: Session, variant: Variant, step: RecipeStep) -> None:
    assert session.data is not None
    if isinstance(step.settings, Compensate):
        fit(session, variant, variant.module, step.settings)
    elif not any(s.name == "compensate" for s in session.recipe.adjust):
        reestimate_batch_norm(variant.module, session.data.calibration, BN_BATCHES, session.device)


def _at_its_size(original: GraphModule, variant: Variant) -> GraphModule:
    """The original at the input size of the variant: layers are compared output by output."""
    ends = [i for i, e in enumerate(variant.edits, 1) if isinstance(e, Resize)]
    return apply(clone(original), variant.edits[: ends[-1]]) if ends else original


def fit(session: Session, variant: Variant, module: GraphModule, settings: Compensate) -> int:
    """Compensate `module`, made by the variant's edits, in place; how many layers were fitted."""
    assert session.data is not None
    few, deadline = settings.examples <= CALIBRATION, session.time.work_deadline
    if any(isinstance(e, FoldBatchNorm) for e in variant.edits):
        return 0  # layers give batch-normed outputs now, which the original's are not
    return compensate(
        module,
        _at_its_size(session.original, variant),
        session.data.calibration if few else FirstBatches(session.data.train, deadline=deadline),
        kept_indices(variant.edits),
        session.device,
        shorter=any(isinstance(e, DropBlock) for e in variant.edits),
        examples=settings.examples,
        ridge=settings.ridge,
        like=session.inputs,
    )
