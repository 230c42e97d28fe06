"""Measure a checkpoint as it is: latency, layers, machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..backends.ranking import rank_backends, runtime_row
from ..backends.registry import LOWERED, OTHERS, PLAIN, missing
from ..checkpoints.detect import is_script
from ..configs.recipe import Recipe
from ..core.errors import UsageError
from ..core.naming import outside
from ..core.progress import Progress
from ..core.records import ChannelGroup, LeftAlone, RuntimeCost
from ..graph.analysis.groups import Analysis, is_kernel_axis
from .compare_backends import costs, measure_runtimes
from .delivery import Outcome, baseline_record, layers
from .job import Job
from .session import Session, open_session
from .torchscript import profile_script


def profile(
    job: Job, recipe: Recipe, progress: Progress, groups: bool = False, runtimes: bool = False
) -> Outcome:
    """Baseline latency with its interval, per-layer costs, and what analysis can't handle yet.

    `groups` also lists the channel groups, and why some can't be pruned; `runtimes` measures the
    checkpoint as it is, lowered and compiled. Of a TorchScript archive there is the latency alone.
    """
    if is_script(Path(job.checkpoint)):
        if groups or runtimes:
            raise UsageError("`--groups` and `--runtimes` need a graph; TorchScript holds none.")
        return profile_script(job, progress)
    session = open_session(job, recipe, progress).with_threads()
    progress.stage("measuring")
    baseline = session.latency(session.source.module, 10.0)
    record = baseline_record(session, "profile", baseline)
    progress.stage("profiling layers")
    analysis = session.context(session.original).analysis
    frozen = [
        LeftAlone(op, f"this operator has no rule yet (first seen at node `{node}`)")
        for op, node in analysis.unknown_ops.items()
    ]
    compared = compare_backends(session) if runtimes else ()
    return Outcome(
        replace(
            record,
            layers_before=layers(session, session.original),
            groups=channel_groups(analysis) if groups else (),
            runtimes=compared,
            left_alone=(*frozen, *session.exclusions.rows),
            seconds=round(session.seconds, 2),
            summary=f"{len(analysis.prunable)} prunable channel groups",
        ),
        None,
    )


def compare_backends(session: Session) -> tuple[RuntimeCost, ...]:
    """The original under `plain`, the lowering that is fastest here, and every other back end."""
    session.progress.stage("comparing runtimes")
    ranking = rank_backends(session.original, session.inputs, LOWERED, session.probes)
    session.exclusions.note_runtimes(ranking.left_out)
    lowering = next((n for n in ranking.names if n != PLAIN), PLAIN)
    names: tuple[str, ...] = (PLAIN, lowering)
    lacking = missing(session.device)
    session.exclusions.note_runtimes(LeftAlone(runtime_row(n), r) for n, r in lacking.items())
    names = (*names, *(name for name in OTHERS if name not in lacking))
    return costs(measure_runtimes(session, session.original, names), "")


def channel_groups(analysis: Analysis) -> tuple[ChannelGroup, ...]:
    """The groups as facts, prunable ones first; kernel axes are none to a user."""
    shown = (g for g in analysis.groups if g.size > 1 and not is_kernel_axis(g))
    return tuple(
        ChannelGroup(
            g.name, g.size, tuple(f"{outside(m.param)}[{m.dim}]" for m in g.members), g.frozen
        )
        for g in shown
    )
