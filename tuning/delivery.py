"""From a finished variant to a record and a written, verified artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from torch.fx import GraphModule

from ..backends.registry import PLAIN, is_compiled, lowered
from ..backends.trust import trust
from ..checkpoints.artifact import save
from ..checkpoints.read import Source
from ..configs.load import dump_recipe
from ..core.errors import OutputsDiffer
from ..core.records import Candidate, Latency, LayerCost, LeftAlone, Record, Target, Verification
from ..core.workspace import workspace
from ..graph.capture import export, moved
from ..graph.edits.apply import to_json
from ..profiling.layers import profile_layers
from ..profiling.machine import fingerprint
from ..profiling.statistics import verdict
from ..reporting import html, markdown
from ..reporting import json as record_json
from ..search.variant import Variant
from .session import Bench, parameters_of
from .verification import verify

Kind = Literal["tune", "apply", "profile"]


@dataclass(frozen=True)
class Outcome:
    """What a run gives back. `folder` is None for a dry run or a profile."""

    record: Record
    folder: Path | None


def base_record(bench: Bench, kind: Kind, baseline: Latency) -> Record:
    """The part of a record that is known before anything is adjusted."""
    return replace(
        source_record(bench.source, kind, bench.job.target, baseline),
        parameters_before=parameters_of(bench.original),
        macs_before=bench.macs(bench.original),
        notices=(*baseline.notices, *bench.notices()),
    )


def source_record(source: Source, kind: Kind, target: Target, baseline: Latency) -> Record:
    """What is known of a model that is only run."""
    parameters = list(source.module.parameters())
    dtype = {"dtype": parameters[0].dtype} if parameters else {}
    return Record(
        kind=kind,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        version=version("modelspeed"),
        source=str(source.path),
        source_sha256=source.sha256,
        machine=fingerprint(target.device, **dtype),
        target=target,
        verdict="none",
        summary="",
        baseline=baseline,
        parameters_before=parameters_of(source.module),
        notices=baseline.notices,
    )


def layers(bench: Bench, module: GraphModule, runtime: str = PLAIN) -> tuple[LayerCost, ...]:
    """Per-layer costs of a graph as `runtime` runs it."""
    return profile_layers(lowered(module, bench.inputs, runtime), bench.inputs)


def finished(
    bench: Bench,
    record: Record,
    variant: Variant,
    checked: Verification,
    candidates: tuple[Candidate, ...],
) -> Record:
    """The whole record, its verdict from the fresh process's measurement."""
    target = bench.job.target
    aside = tuple(LeftAlone(name, reason) for name, reason in bench.set_aside.items())
    return replace(
        record,
        verdict=verdict(target, checked.final, checked.comparison),
        baseline=checked.baseline,
        final=checked.final,
        speedup=checked.comparison,
        quality=checked.quality,
        closeness=checked.closeness,
        parameters_after=parameters_of(variant.module),
        macs_after=bench.macs(variant.module),
        seconds=round(bench.seconds, 2),
        runtime_used=bench.runtime,
        runtimes=bench.compared,
        steps=tuple(variant.steps),
        candidates=candidates,
        layers_before=layers(bench, bench.original),
        layers_after=layers(bench, variant.module, bench.runtime),
        left_alone=tuple(
            dict.fromkeys((*variant.left_alone, *bench.unpackaged, *bench.left_out, *aside))
        ),
        notices=tuple(dict.fromkeys((*record.notices, *checked.final.notices))),
    )


def write(
    bench: Bench, folder: Path, variant: Variant, record: Record, recipe: str, force: bool
) -> None:
    """The artifact with its reports, complete or not at all."""
    bench.put_back(variant.module)
    package = bench.package if is_compiled(bench.runtime) else None
    if package is not None:
        trust(package)
    save(
        folder,
        program=moved(export(variant.module, bench.inputs), "cpu"),  # it loads on any machine
        edits=to_json(variant.edits),
        record=record,
        recipe_yaml=recipe,
        inputs=bench.inputs,
        runtime=bench.runtime,
        reports=reports(record),
        force=force,
        package=package,
    )


def reports(record: Record) -> Mapping[str, str]:
    return {
        "report.json": record_json.dumps(record),
        "report.md": markdown.render(record),
        "report.html": html.render(record),
    }


def verify_written(
    bench: Bench, out: Path, variant: Variant, record: Record, seconds: float = 10.0,
    judged: bool = True,
) -> Verification:  # fmt: skip
    """Write a trial artifact beside `out`, check it in a fresh process, remove it again.

    A runtime that computes something else there is left out from here on: the artifact is written
    again for the next one, at last for the plain graph.
    """
    bench.talk.stage("verifying in a fresh process")
    recipe = dump_recipe(bench.recipe)
    while True:
        try:
            with workspace(out, parents=True) as space:
                write(bench, space.new, variant, record, recipe, force=False)
                return verify(bench.job, space.new, recipe, bench.quiet_ms, seconds, judged)
        except OutputsDiffer as error:
            if bench.runtime == PLAIN:
                raise
            bench.leave_out(bench.runtime, str(error))
            # What was said of the compiler, or which runtime is chosen, is not so any more.
            bench.compared, bench.package, bench.unpackaged = (), None, ()
