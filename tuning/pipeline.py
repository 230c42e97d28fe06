"""Running a recipe's steps on a graph, each one measured, kept or rolled back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.fx import GraphModule

from ..adjusters.plan import Plan
from ..adjusters.registry import ADJUSTERS
from ..configs.layer_settings import Quantize
from ..configs.recipe import Step as RecipeStep
from ..configs.settings import Compensate, Finetune
from ..core.records import Comparison, Step
from ..graph.capture import clone
from ..graph.edits import Edit, to_json
from .bench import Bench
from .building import fit, fresh, plan_step
from .chosen import Chosen
from .forms import takes_a_format
from .goal import wanted
from .talk import VERIFYING
from .variant import Done, Variant
from .workers import together


@dataclass
class Run:
    """One measured pass over the recipe. `as_written` keeps steps that bring nothing (`apply`)."""

    bench: Bench
    chosen: Chosen | None
    as_written: bool = False
    lossless: bool = False

    def all(self) -> Variant:
        variant = fresh(self.bench)
        steps = self.bench.recipe.adjust
        names = [s.name for s in steps if not self.lossless or ADJUSTERS[s.name].lossless]
        self.bench.talk.expect([*names, VERIFYING])
        for step in steps:
            if self.lossless and not ADJUSTERS[step.name].lossless:
                reason = "the lossless steps reach the target, so accuracy is left untouched"
                if not wanted(self.bench.job.target):
                    reason = "no target asks for it"
                variant.steps.append(Step(step.name, _plain(step), "skipped", reason))
                continue
            self._one(variant, step)
        return variant

    def _one(self, variant: Variant, step: RecipeStep) -> None:
        self.bench.talk.stage(step.name)
        known = self.bench.journal.get(step.name, Done)
        if known is not None:
            known.redo(variant)
            self.bench.runtime = known.runtime
            return
        before = len(variant.edits)
        made, plan = self._measured(variant, step)
        variant.steps.append(made)
        variant.left_alone.extend(plan.left_alone)
        set_anew = made.status == "kept" and (plan.trains or plan.weights or _epochs(step))
        weights = variant.module.state_dict() if set_anew else {}
        edits = to_json(variant.edits[before:])
        done = Done(made, edits, plan.left_alone, weights, self.bench.runtime)
        self.bench.journal.put(step.name, done)

    def _measured(self, variant: Variant, step: RecipeStep) -> tuple[Step, Plan]:
        started = time.monotonic()
        plan = plan_step(self.bench, variant, step, self.chosen)
        if plan.trains and self.chosen is not None and not _lossy(variant):
            reason = "nothing before it cost accuracy, so there is nothing to win back"
            done = Step(step.name, _plain(step), "skipped", reason)
        elif plan.trains:
            done = self._train(variant, step)
        elif plan.edits:
            done = self._edit(variant, step, plan)
        else:
            reason = plan.left_alone[0].reason if plan.left_alone else "there is nothing to do here"
            done = Step(step.name, _plain(step), "skipped", reason)
        return _timed(done, time.monotonic() - started), plan

    def _edit(self, variant: Variant, step: RecipeStep, plan: Plan) -> Step:
        bench = self.bench
        changed = plan.carry_out(clone(variant.module))
        trained = ""
        if _epochs(step) and bench.data is not None:
            # bfloat16 has no bits to spare for values that are rounded to 8.
            settings = Finetune(epochs=_epochs(step), mixed=False)
            trained = f"; {self._trained(changed, [*variant.edits, *plan.edits], settings)[1]}"
        runtime = bench.runtime
        if takes_a_format(plan.edits):
            runtime = (bench.runtime_for if plan.for_speed else bench.fastest_runtime)(changed)
        runtime = bench.runtime_that_runs(changed, runtime)
        before, after, found = bench.compare(variant.module, changed, runtime)
        quality = bench.accuracy(variant.module), bench.accuracy(changed)
        objection = None if self.as_written else self._objection(step, plan, found, quality[1])
        if objection is None:
            variant.module = changed
            variant.edits.extend(plan.edits)
            bench.runtime = runtime
        return Step(
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
        droppable = plan.for_speed or (ADJUSTERS[step.name].lossless and not built_upon)
        if found.finding == "slower" and droppable:
            return "measured slower on this machine"
        if not plan.for_speed:
            return None
        if found.finding != "faster":
            return "measured no faster on this machine, and it is not exact"
        if self.chosen is not None and self.chosen.takes(step):
            return None  # weighed against narrower layers; the limit is judged on the whole
        start, limit = self.bench.accuracy(self.bench.original), self.bench.recipe.limits.max_drop
        if accuracy is not None and start is not None and start - accuracy > limit:
            return f"faster, but {start:.4f} -> {accuracy:.4f} is more than `limits.max_drop`"
        return None

    def _train(self, variant: Variant, step: RecipeStep) -> Step:
        before = self.bench.accuracy(variant.module)
        train = self._compensate if step.name == "compensate" else self._finetune
        kept, reason = train(variant, step)
        after = self.bench.accuracy(variant.module)
        status: Any = "kept" if kept else "rolled back"
        return Step(
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
            return False, "nothing was removed before it, or batch norms are folded already"
        scores = [data.held_score(m, bench.device) for m in (variant.module, fitted)]
        reason = f"{count} layers fitted; held-out {scores[0]:.4f} -> {scores[1]:.4f}"
        if scores[1] >= scores[0]:
            variant.module = fitted
            return True, reason
        return False, reason

    def _finetune(self, variant: Variant, step: RecipeStep) -> tuple[bool, str]:
        assert isinstance(step.settings, Finetune)
        return self._trained(variant.module, variant.edits, step.settings)

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


def _timed(step: Step, seconds: float) -> Step:
    from dataclasses import replace

    return replace(step, seconds=round(seconds, 3))
