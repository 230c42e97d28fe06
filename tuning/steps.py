"""Running a recipe's steps on a graph, each one measured, kept or rolled back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch.fx import GraphModule

from ..adjusters.plan import Plan
from ..adjusters.registry import ADJUSTERS
from ..configs.layer_settings import Quantize
from ..configs.recipe import Step as RecipeStep
from ..configs.settings import Compensate, Finetune
from ..core.records import Comparison, StepRecord
from ..graph.capture import clone
from ..graph.edits.apply import (
    Edit,
    edits_to_json,
)
from ..profiling.closeness import plain_outputs
from ..search.decision import Decision
from ..search.number_formats import takes_a_format
from ..search.target import is_set
from ..search.variant import Variant
from .baseline import compared
from .candidates import fit, new_candidate, plan_step
from .distributed import finetune_on_all
from .evaluation import Drop
from .exclusions import reason_of
from .ledger import EVALUATING, MEASURING, TRAINING
from .session import Session
from .stages import VERIFYING
from .tried_steps import Done, Seen, plain_settings, step_row, why_kept, why_unfitted


@dataclass(frozen=True)
class StepRunner:
    """One measured pass over the recipe. `as_written` keeps steps that bring nothing (`apply`)."""

    session: Session
    decision: Decision | None
    as_written: bool = False
    lossless: bool = False

    def all(self, runtime: str | None = None) -> Variant:
        """Every step that was asked for has a row. Raises what the first one met where the recipe
        is to be run as written and nothing of it works.

        `runtime`: what the variant runs under to begin with, the fastest unless given.
        """
        if self.lossless:
            return self._all(runtime)
        with self.session.time.running():
            return self._all(runtime)

    def _all(self, runtime: str | None) -> Variant:
        session, recipe, errors = self.session, self.session.recipe, list[Exception]()
        variant = new_candidate(session).under(runtime or session.runtimes[0])
        names = [s.name for s in recipe.adjust if self._is_wanted(s)]
        session.progress.expect([*names, VERIFYING])
        positions = iter(range(len(recipe.adjust)))
        for step, left_out in recipe.every_step():
            position = None if left_out else next(positions)
            failed = None if position is None else session.exclusions.steps.get(position)
            reason = left_out or ("" if self._is_wanted(step) else self._unwanted())
            if failed is not None:
                variant = variant.with_step(step_row(step, "rolled back", failed))
            elif reason:
                variant = variant.with_step(step_row(step, "skipped", reason))
            else:
                variant = self._one(variant, step, errors)
        if self.as_written and errors and not any(s.status == "kept" for s in variant.steps):
            raise errors[0]
        return variant

    def _is_wanted(self, step: RecipeStep) -> bool:
        return not self.lossless or ADJUSTERS[step.name].lossless

    def _unwanted(self) -> str:
        if not is_set(self.session.job.target):
            return "no target asks for it"
        return "the lossless steps reach the target, so accuracy is left untouched"

    def _one(self, variant: Variant, step: RecipeStep, errors: list[Exception]) -> Variant:
        session = self.session
        session.progress.stage(step.name)
        known = session.journal.get(step.name, Done)
        if known is not None:
            return known.redone(variant).under(session.trusted(known.runtime))
        after, row, plan = self._measured(variant, step, errors)
        after = after.with_step(row, plan.left_alone)
        retrained = row.status == "kept" and (plan.is_training or plan.weights or _epochs(step))
        weights = after.module.state_dict() if retrained else {}
        edits = edits_to_json(after.edits[len(variant.edits) :])
        done = Done(row, edits, plan.left_alone, weights, after.runtime)
        session.journal.put(step.name, done)
        return after

    def _measured(
        self, variant: Variant, step: RecipeStep, errors: list[Exception]
    ) -> tuple[Variant, StepRecord, Plan]:
        started = time.monotonic()
        try:
            after, row, plan = self._tried(variant, step)
        except Exception as error:
            # All work is done on copies, so the variant is what it was.
            reason = reason_of(error, f"`{step.name}`")
            self.session.progress.note(f"`{step.name}`: {reason}; the run goes on without it")
            errors.append(error.with_traceback(None))
            after, row, plan = variant, step_row(step, "rolled back", reason), Plan()
        return after, replace(row, seconds=round(time.monotonic() - started, 3)), plan

    def _tried(self, variant: Variant, step: RecipeStep) -> tuple[Variant, StepRecord, Plan]:
        plan = plan_step(self.session, variant, step, self.decision)
        if plan.is_training and self.decision is not None and not _lossy(variant):
            reason = "nothing before it cost accuracy, so there is nothing to win back"
            return variant, step_row(step, "skipped", reason), plan
        if plan.is_training:
            return *self._train(variant, step), plan
        if plan.edits:
            return *self._edit(variant, step, plan), plan
        reason = plan.left_alone[0].reason if plan.left_alone else "there is nothing to do here"
        return variant, step_row(step, "skipped", reason), plan

    def _edit(self, variant: Variant, step: RecipeStep, plan: Plan) -> tuple[Variant, StepRecord]:
        session = self.session
        changed, trained = plan.apply(clone(variant.module)), ""
        if _epochs(step) and session.data is not None:
            changed, trained = self._rounded(changed, [*variant.edits, *plan.edits], step)
        runtime = session.runtime_that_runs(changed, self._runtime(variant, changed, plan))
        with session.ledger.spends(MEASURING):
            before, after, comparison = compared(
                ((variant.module, variant.runtime), (changed, runtime)),
                session.inputs,
                session.job.target,
                session.progress,
            )
        objection = None if self.as_written else self._too_slow(step, plan, comparison)
        seen = Seen() if objection else self._seen(variant, changed, step)
        if not self.as_written:
            objection = objection or self._too_lossy(step, plan, seen.drop)
        row = StepRecord(
            step.name,
            plain_settings(step),
            "kept" if objection is None else "rolled back",
            (objection or why_kept(comparison, self.as_written)) + seen.text + trained,
            before.value_ms,
            after.value_ms,
            *seen.figures,
            edits=len(plan.edits),
        )
        if objection is not None:
            return variant, row
        return variant.edited(changed, plan.edits).under(runtime), row

    def _runtime(self, variant: Variant, changed: GraphModule, plan: Plan) -> str:
        """The runtime for the changed graph."""
        if not takes_a_format(plan.edits):
            return variant.runtime
        if plan.must_be_faster:
            return self.session.runtime_for(changed, variant.runtime)
        return self.session.fastest_runtime(changed)

    def _too_slow(self, step: RecipeStep, plan: Plan, comparison: Comparison) -> str | None:
        """The reason to undo the step for its latency; None if it stays."""
        # What the search built upon stays: its units are numbered without those that went before.
        built_upon = self.decision is not None and _is_ahead(self.session, step)
        droppable = plan.must_be_faster or (ADJUSTERS[step.name].lossless and not built_upon)
        if comparison.finding == "slower" and droppable:
            return "measured slower on this machine"
        if plan.must_be_faster and comparison.finding != "faster":
            return "measured no faster on this machine, and it is not exact"
        return None

    def _too_lossy(self, step: RecipeStep, plan: Plan, drop: Drop | None) -> str | None:
        """The reason to undo the step for what it costs against the original."""
        if not plan.must_be_faster or drop is None or not drop.above:
            return None
        if self.decision is not None and self.decision.takes(step):
            return None  # weighed against narrower layers; the limit is judged on the whole
        figures = f"{drop.before:.4f} -> {drop.after:.4f}"
        return f"faster, but {figures} is more than `limits.max_drop`"

    def _seen(self, variant: Variant, changed: GraphModule, step: RecipeStep) -> Seen:
        """Outputs on samples where the step is exact by construction, else the metric."""
        session = self.session
        if ADJUSTERS[step.name].lossless:
            with session.ledger.spends(EVALUATING):
                match = plain_outputs(variant.module, session.probes).closeness(changed)
            if match.error == 0.0:
                return Seen("; the same outputs")
            if match.holds:
                return Seen(f"; outputs within {match.error:.1e} of those before")
        drop = session.drop(session.original, changed, session.recipe.limits.max_drop)
        return Seen() if drop is None else Seen(f"; judged {drop.where}", drop)

    def _train(self, variant: Variant, step: RecipeStep) -> tuple[Variant, StepRecord]:
        session, train = self.session, self._finetune
        if step.name == "compensate":
            train = self._compensate
        with session.ledger.spends(TRAINING):
            trained, reason = train(variant, step)
        row = step_row(step, "rolled back" if trained is None else "kept", reason)
        if trained is None:
            return variant, row
        drop = session.drop(variant.module, trained, 0.0)
        if drop is not None:
            row = replace(
                row, reason=f"{reason}; judged {drop.where}",
                accuracy_before=drop.before, accuracy_after=drop.after,
            )  # fmt: skip
        return variant.edited(trained, ()), row

    def _compensate(self, variant: Variant, step: RecipeStep) -> tuple[GraphModule | None, str]:
        session, data, settings = self.session, self.session.data, step.settings
        assert data is not None
        assert isinstance(settings, Compensate)
        fitted = clone(variant.module)
        count = fit(session, variant, fitted, settings)
        if not count:
            return None, why_unfitted(variant.edits)
        models = (variant.module, fitted)
        scores = [data.rank(m, session.original, session.device) for m in models]
        before, after = map(data.ranked, scores)
        reason = f"{count} layers fitted; held-out {before} -> {after}"
        return (fitted if scores[1] >= scores[0] else None), reason

    def _finetune(self, variant: Variant, step: RecipeStep) -> tuple[GraphModule | None, str]:
        assert isinstance(step.settings, Finetune)
        if self.session.time.too_late_to_train:
            return None, "left out: not enough of `limits.minutes` is left for it"
        student = clone(variant.module)
        kept, reason = self._trained(student, variant.edits, step.settings)
        return (student if kept else None), reason

    def _rounded(
        self, module: GraphModule, edits: Sequence[Edit], step: RecipeStep
    ) -> tuple[GraphModule, str]:
        """Trained with its roundings in place, or as it is where that fails, and what happened."""
        # bfloat16 has no bits to spare for values that are rounded to 8.
        settings, student = Finetune(epochs=_epochs(step), mixed=False), clone(module)
        try:
            return student, f"; {self._trained(student, edits, settings)[1]}"
        except Exception as error:
            return module, f"; its training is left out: {reason_of(error, step.name)}"

    def _trained(
        self, module: GraphModule, edits: Sequence[Edit], settings: Finetune
    ) -> tuple[bool, str]:
        session = self.session
        deadline = session.time.training_deadline
        with session.ledger.spends(TRAINING):
            trained = finetune_on_all(session, module, edits, settings, deadline)
        assert session.data is not None
        rate = f" at {trained.rate:g}" if trained.rate else ""
        figures = (trained.before, trained.reestimated, trained.after)
        before, reestimated, after = map(session.data.ranked, figures)
        reason = (
            f"{trained.steps} steps{rate}; held-out {before}, batch norms alone {reestimated}, "
            f"trained {after}; kept: {trained.kept}"
        )
        return trained.kept != "nothing", reason


def _epochs(step: RecipeStep) -> float:
    """Of training that is part of a step with edits."""
    return step.settings.finetune if isinstance(step.settings, Quantize) else 0.0


def _lossy(variant: Variant) -> bool:
    return any(s.status == "kept" and not ADJUSTERS[s.adjuster].lossless for s in variant.steps)


def _is_ahead(session: Session, step: RecipeStep) -> bool:
    """True if `step` comes before pruning in the recipe."""
    names = [s.name for s in session.recipe.adjust]
    return "prune" in names[session.recipe.adjust.index(step) + 1 :]
