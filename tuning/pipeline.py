"""Running a recipe's steps on a graph, each one measured, kept or rolled back."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from torch.fx import GraphModule

from ..adjusters.plan import Plan
from ..adjusters.registry import ADJUSTERS
from ..configs.recipe import Step as RecipeStep
from ..configs.settings import Compensate, Finetune
from ..core.records import Comparison, LeftAlone, Step
from ..graph.capture import clone
from ..graph.edits import DropBlock, Edit, FoldBatchNorm, apply, from_json, kept_indices, to_json
from .bench import Bench
from .chosen import Chosen
from .compensation import compensate
from .data import CALIBRATION
from .finetuning import reestimate_batch_norm
from .goal import wanted
from .talk import VERIFYING
from .workers import together

BN_BATCHES = 10


@dataclass
class Variant:
    """A graph with the edits that made it from the capture."""

    module: GraphModule
    edits: list[Edit] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    left_alone: list[LeftAlone] = field(default_factory=list)


@dataclass(frozen=True)
class Done:
    """A finished step as the journal keeps it. `weights` only where edits don't make them.

    `runtime`: what the variant runs under after it.
    """

    step: Step
    edits: list[dict[str, Any]]
    left_alone: tuple[LeftAlone, ...]
    weights: dict[str, Any]
    runtime: str

    def redo(self, variant: Variant) -> None:
        """Take the variant to where it was after this step."""
        edits = from_json(self.edits)
        apply(variant.module, edits)
        if self.weights:
            variant.module.load_state_dict(self.weights)
        variant.edits.extend(edits)
        variant.steps.append(self.step)
        variant.left_alone.extend(self.left_alone)


def fresh(bench: Bench) -> Variant:
    return Variant(clone(bench.original))


def plan_step(bench: Bench, variant: Variant, step: RecipeStep, chosen: Chosen | None) -> Plan:
    """`chosen` is None for a recipe as written."""
    context = bench.context(variant.module)
    searched = chosen.plan(step, context) if chosen is not None else None
    return searched or ADJUSTERS[step.name].plan(context, step.settings)


def before(bench: Bench, last: RecipeStep) -> Variant:
    """What the steps ahead of `last` make of the original, untrained."""
    variant = fresh(bench)
    for step in bench.recipe.adjust:
        if step is last:
            break
        plan = plan_step(bench, variant, step, None)
        plan.carry_out(variant.module)
        variant.edits.extend(plan.edits)
    return variant


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
    variant = fresh(bench)
    for step in bench.recipe.adjust:
        if lossless and not ADJUSTERS[step.name].lossless:
            continue
        plan = plan_step(bench, variant, step, chosen)
        if plan.trains and recover:
            _recover(bench, variant, step)
        plan.carry_out(variant.module)
        variant.edits.extend(plan.edits)
    return variant


def _recover(bench: Bench, variant: Variant, step: RecipeStep) -> None:
    assert bench.data is not None
    if isinstance(step.settings, Compensate):
        fit(bench, variant, variant.module, step.settings)
    elif not any(s.name == "compensate" for s in bench.recipe.adjust):
        reestimate_batch_norm(variant.module, bench.data.calibration, BN_BATCHES, bench.device)


def fit(bench: Bench, variant: Variant, module: GraphModule, settings: Compensate) -> int:
    """Compensate `module`, made by the variant's edits, in place; how many layers were fitted."""
    assert bench.data is not None
    few = settings.examples <= CALIBRATION
    if any(isinstance(e, FoldBatchNorm) for e in variant.edits):
        return 0  # layers give batch-normed outputs now, which the original's are not
    return compensate(
        module,
        bench.original,
        bench.data.calibration if few else bench.data.train,
        kept_indices(variant.edits),
        bench.device,
        shorter=any(isinstance(e, DropBlock) for e in variant.edits),
        examples=settings.examples,
        ridge=settings.ridge,
    )


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
        set_anew = made.status == "kept" and (plan.trains or plan.weights)
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
        runtime = bench.runtime_for(changed) if plan.for_speed else bench.runtime
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
            objection or _why(found, self.as_written),
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
        if self.chosen is not None and step is self.chosen.taken:
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
        bench, settings = self.bench, step.settings
        assert isinstance(settings, Finetune)
        deadline = bench.deadline - 0.25 * 60 * bench.recipe.limits.minutes
        trained = together(bench, variant.module, variant.edits, settings, deadline)
        rate = f" at {trained.rate:g}" if trained.rate else ""
        reason = (
            f"{trained.steps} steps{rate}; held-out {trained.before:.4f}, batch norms alone "
            f"{trained.reestimated:.4f}, trained {trained.after:.4f}; kept: {trained.kept}"
        )
        return trained.kept != "nothing", reason


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
