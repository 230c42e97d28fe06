"""Running a recipe's steps on a graph, each one measured, kept or rolled back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch.fx import GraphModule

from ..adjusters.plan import Plan
from ..adjusters.registry import ADJUSTERS
from ..configs.layer_settings import Quantize
from ..configs.recipe import Step as RecipeStep
from ..configs.settings import Compensate, Finetune
from ..core.records import Comparison, StepRecord
from ..graph.capture import clone
from ..graph.edits.apply import DropBlock, Edit, FoldBatchNorm, Slice, edits_to_json
from ..search.decision import Chosen
from ..search.number_formats import takes_a_format
from ..search.target import wanted
from ..search.variant import Done, Variant
from .candidates import fit, fresh, plan_step
from .distributed import together
from .failing import reason_of
from .session import Bench
from .stages import VERIFYING


@dataclass
class Run:
    """One measured pass over the recipe. `as_written` keeps steps that bring nothing (`apply`)."""

    bench: Bench
    chosen: Chosen | None
    as_written: bool = False
    lossless: bool = False
    errors: list[Exception] = field(default_factory=list, init=False)

    def all(self) -> Variant:
        """Every step that was asked for has a row. Raises what the first one met where the recipe
        is to be run as written and nothing of it works."""
        variant = fresh(self.bench)
        recipe = self.bench.recipe
        names = [s.name for s in recipe.adjust if self._wanted(s)]
        self.bench.talk.expect([*names, VERIFYING])
        places = iter(range(len(recipe.adjust)))
        for step, left_out in recipe.every_step():
            place = None if left_out else next(places)
            reason = left_out or ("" if self._wanted(step) else self._unwanted())
            if place in self.bench.failed:
                row = StepRecord(step.name, _plain(step), "rolled back", self.bench.failed[place])
                variant.steps.append(row)
            elif reason:
                variant.steps.append(StepRecord(step.name, _plain(step), "skipped", reason))
            else:
                self._one(variant, step)
        if self.as_written and self.errors and not any(s.status == "kept" for s in variant.steps):
            raise self.errors[0]
        return variant

    def _wanted(self, step: RecipeStep) -> bool:
        return not self.lossless or ADJUSTERS[step.name].lossless

    def _unwanted(self) -> str:
        if not wanted(self.bench.job.target):
            return "no target asks for it"
        return "the lossless steps reach the target, so accuracy is left untouched"

    def _one(self, variant: Variant, step: RecipeStep) -> None:
        self.bench.talk.stage(step.name)
        known = self.bench.journal.get(step.name, Done)
        if known is not None:
            known.redo(variant)
            self.bench.runtime = self.bench.trusted(known.runtime)
            return
        before = len(variant.edits)
        made, plan = self._measured(variant, step)
        variant.steps.append(made)
        variant.left_alone.extend(plan.left_alone)
        set_anew = made.status == "kept" and (plan.is_training or plan.weights or _epochs(step))
        weights = variant.module.state_dict() if set_anew else {}
        edits = edits_to_json(variant.edits[before:])
        done = Done(made, edits, plan.left_alone, weights, self.bench.runtime)
        self.bench.journal.put(step.name, done)

    def _measured(self, variant: Variant, step: RecipeStep) -> tuple[StepRecord, Plan]:
        started = time.monotonic()
        try:
            done, plan = self._tried(variant, step)
        except Exception as error:
            # All work is done on copies, so the variant is what it was.
            reason = reason_of(error, f"`{step.name}`")
            self.bench.talk.note(f"`{step.name}`: {reason}; the run goes on without it")
            self.errors.append(error.with_traceback(None))
            done, plan = StepRecord(step.name, _plain(step), "rolled back", reason), Plan()
        return replace(done, seconds=round(time.monotonic() - started, 3)), plan

    def _tried(self, variant: Variant, step: RecipeStep) -> tuple[StepRecord, Plan]:
        plan = plan_step(self.bench, variant, step, self.chosen)
        if plan.is_training and self.chosen is not None and not _lossy(variant):
            reason = "nothing before it cost accuracy, so there is nothing to win back"
            return StepRecord(step.name, _plain(step), "skipped", reason), plan
        if plan.is_training:
            return self._train(variant, step), plan
        if plan.edits:
            return self._edit(variant, step, plan), plan
        reason = plan.left_alone[0].reason if plan.left_alone else "there is nothing to do here"
        return StepRecord(step.name, _plain(step), "skipped", reason), plan

    def _edit(self, variant: Variant, step: RecipeStep, plan: Plan) -> StepRecord:
        bench = self.bench
        changed, trained = plan.apply(clone(variant.module)), ""
        if _epochs(step) and bench.data is not None:
            changed, trained = self._rounded(changed, [*variant.edits, *plan.edits], step)
        runtime = bench.runtime
        if takes_a_format(plan.edits):
            runtime = (bench.runtime_for if plan.must_be_faster else bench.fastest_runtime)(changed)
        runtime = bench.runtime_that_runs(changed, runtime)
        before, after, found = bench.compare(variant.module, changed, runtime)
        quality = bench.accuracy(variant.module), bench.accuracy(changed)
        objection = None if self.as_written else self._objection(step, plan, found, quality[1])
        if objection is None:
            variant.module = changed
            variant.edits.extend(plan.edits)
            bench.runtime = runtime
        return StepRecord(
            step.name,
            _plain(step),
            "kept" if objection is None else "rolled back",
            (objection or _why(found, self.as_written)) + trained,
            before.value_ms,
            after.value_ms,
            *quality,
            edits=len(plan.edits),
        )

    def _objection(
        self, step: RecipeStep, plan: Plan, found: Comparison, accuracy: float | None
    ) -> str | None:
        """Why the step goes again, None where it stays."""
        # What the search built upon stays: its units are numbered without those that went before.
        built_upon = self.chosen is not None and _is_ahead(self.bench, step)
        droppable = plan.must_be_faster or (ADJUSTERS[step.name].lossless and not built_upon)
        if found.finding == "slower" and droppable:
            return "measured slower on this machine"
        if not plan.must_be_faster:
            return None
        if found.finding != "faster":
            return "measured no faster on this machine, and it is not exact"
        if self.chosen is not None and self.chosen.takes(step):
            return None  # weighed against narrower layers; the limit is judged on the whole
        start, limit = self.bench.accuracy(self.bench.original), self.bench.recipe.limits.max_drop
        if accuracy is not None and start is not None and start - accuracy > limit:
            return f"faster, but {start:.4f} -> {accuracy:.4f} is more than `limits.max_drop`"
        return None

    def _train(self, variant: Variant, step: RecipeStep) -> StepRecord:
        before = self.bench.accuracy(variant.module)
        train = self._compensate if step.name == "compensate" else self._finetune
        kept, reason = train(variant, step)
        after = self.bench.accuracy(variant.module)
        status: Any = "kept" if kept else "rolled back"
        return StepRecord(
            step.name,
            _plain(step),
            status,
            reason,
            accuracy_before=before,
            accuracy_after=after,
        )

    def _compensate(self, variant: Variant, step: RecipeStep) -> tuple[bool, str]:
        bench, data, settings = self.bench, self.bench.data, step.settings
        assert data is not None
        assert isinstance(settings, Compensate)
        fitted = clone(variant.module)
        count = fit(bench, variant, fitted, settings)
        if not count:
            return False, _why_unfitted(variant.edits)
        scores = [data.held_out_score(m, bench.device) for m in (variant.module, fitted)]
        reason = f"{count} layers fitted; held-out {scores[0]:.4f} -> {scores[1]:.4f}"
        if scores[1] >= scores[0]:
            variant.module = fitted
            return True, reason
        return False, reason

    def _finetune(self, variant: Variant, step: RecipeStep) -> tuple[bool, str]:
        assert isinstance(step.settings, Finetune)
        made = clone(variant.module)
        kept, reason = self._trained(made, variant.edits, step.settings)
        if kept:
            variant.module = made
        return kept, reason

    def _rounded(
        self, module: GraphModule, edits: Sequence[Edit], step: RecipeStep
    ) -> tuple[GraphModule, str]:
        """Trained with its roundings in place, or as it is where that fails, and what happened."""
        # bfloat16 has no bits to spare for values that are rounded to 8.
        settings, made = Finetune(epochs=_epochs(step), mixed=False), clone(module)
        try:
            return made, f"; {self._trained(made, edits, settings)[1]}"
        except Exception as error:
            return module, f"; its training is left out: {reason_of(error, step.name)}"

    def _trained(
        self, module: GraphModule, edits: Sequence[Edit], settings: Finetune
    ) -> tuple[bool, str]:
        bench = self.bench
        deadline = bench.deadline - 0.25 * 60 * bench.recipe.limits.minutes
        trained = together(bench, module, edits, settings, deadline)
        rate = f" at {trained.rate:g}" if trained.rate else ""
        reason = (
            f"{trained.steps} steps{rate}; held-out {trained.before:.4f}, batch norms alone "
            f"{trained.reestimated:.4f}, trained {trained.after:.4f}; kept: {trained.kept}"
        )
        return trained.kept != "nothing", reason


def _why_unfitted(edits: Sequence[Edit]) -> str:
    if any(isinstance(e, FoldBatchNorm) for e in edits):
        return "batch norms are folded already, so layers give other values than the original's"
    if not any(isinstance(e, (Slice, DropBlock)) for e in edits):
        return "nothing was removed before it"
    return "no layer that reads what was removed could be fitted: weights are shared or computed"


def _epochs(step: RecipeStep) -> float:
    """Of training that is part of a step with edits."""
    return step.settings.finetune if isinstance(step.settings, Quantize) else 0.0


def _lossy(variant: Variant) -> bool:
    return any(s.status == "kept" and not ADJUSTERS[s.adjuster].lossless for s in variant.steps)


def _is_ahead(bench: Bench, step: RecipeStep) -> bool:
    """Whether the recipe comes to `step` before it prunes."""
    names = [s.name for s in bench.recipe.adjust]
    return "prune" in names[bench.recipe.adjust.index(step) + 1 :]


def _why(found: Comparison, as_written: bool) -> str:
    if found.finding == "faster":
        return "measured faster"
    if found.finding == "slower":
        reason = "as the recipe is written" if as_written else "since the search built upon it"
        return f"measured slower, kept {reason}"
    return "no significant change of latency"


def _plain(step: RecipeStep) -> dict[str, Any]:
    return dict(step.settings.model_dump(mode="json"))
