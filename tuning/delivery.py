"""From a final_record variant to its record and artifact: staged, verified there, then sealed.

The folder that the fresh process loaded and measured is the one that gets the name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from torch.fx import GraphModule

from ..backends.registry import PLAIN, kept_model, lowered
from ..backends.trust import trust
from ..checkpoints.read import Source
from ..checkpoints.staging import Staged, stage
from ..configs.load import dump_recipe
from ..core.errors import MeasureError, OutputsDiffer
from ..core.records import (
    Candidate,
    JudgedScore,
    Latency,
    LayerCost,
    Quality,
    Record,
    Target,
    Verification,
)
from ..graph.capture import export_program, module_of, moved
from ..graph.edits.apply import edits_to_json
from ..profiling.layers import profile_layers
from ..profiling.machine import fingerprint
from ..profiling.statistics import verdict
from ..reporting import html, markdown
from ..reporting import json as record_json
from ..search.target import is_set
from ..search.variant import Variant
from .ledger import MEASURING, WRITING
from .session import Session, parameters_of
from .sizes import size_lines, written_sizes
from .stages import VERIFYING
from .verification import report_on, verify

Kind = Literal["tune", "apply", "profile"]
VERDICT_SECONDS = 6.0  # of measuring a run, for the verdict
UNASKED = 5.0  # seconds to wait for a quiet machine where no target is judged by the figures
EXACT = ("original", "lossless")  # candidates with the original's accuracy


@dataclass(frozen=True)
class Outcome:
    """The result of a run. `folder` is None for a dry run or a profile."""

    record: Record
    folder: Path | None


def baseline_record(session: Session, kind: Kind, baseline: Latency) -> Record:
    """The part of a record that is known before anything is adjusted."""
    return replace(
        source_record(session.source, kind, session.job.target, baseline),
        parameters_before=parameters_of(session.original),
        macs_before=session.macs(session.original),
        sizes=size_lines(session.inputs),
        notices=(*baseline.notices, *session.notices()),
    )


def source_record(source: Source, kind: Kind, target: Target, baseline: Latency) -> Record:
    """A record with all that is known of a model that is only run, not captured."""
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


def layers(session: Session, module: GraphModule, runtime: str = PLAIN) -> tuple[LayerCost, ...]:
    """Per-layer costs of a graph as `runtime` runs it."""
    return profile_layers(lowered(module, session.inputs, runtime), session.inputs)


@dataclass(frozen=True)
class _Layers:
    rows: tuple[LayerCost, ...]


def _original_layers(session: Session, record: Record) -> tuple[LayerCost, ...]:
    """Of the original; a quiet machine's are kept for the next run of this checkpoint."""
    quiet = all(n.code not in ("cpu_contention", "disturbed") for n in record.notices)
    return session.cache.kept(
        "layers", _Layers, lambda: _Layers(layers(session, session.original)), lambda _: quiet
    ).rows


def final_record(
    session: Session,
    record: Record,
    variant: Variant,
    checked: Verification,
    candidates: tuple[Candidate, ...],
) -> Record:
    """The whole record, its verdict from the fresh process's measurement."""
    target = session.job.target
    with session.ledger.spends(MEASURING):
        before, after = (
            _original_layers(session, record),
            layers(session, variant.module, variant.runtime),
        )
    return replace(
        record,
        verdict=verdict(target, checked.judged, checked.comparison),
        reference_ms=checked.reference_ms,
        max_drop=session.recipe.limits.max_drop,
        judge=session.data.remark if session.data is not None else "",
        baseline=checked.baseline,
        final=checked.final,
        speedup=checked.comparison,
        quality=checked.quality,
        closeness=checked.closeness,
        parameters_after=parameters_of(variant.module),
        macs_after=session.macs(variant.module),
        seconds=round(session.seconds, 2),
        time_spent=session.time_spent,
        runtime_used=variant.runtime,
        runtimes=variant.runtime_costs,
        steps=variant.steps,
        candidates=tuple(_with_accuracy(c, checked.quality) for c in candidates),
        layers_before=before,
        layers_after=after,
        left_alone=tuple(dict.fromkeys((*variant.left_alone, *session.exclusions.rows))),
        notices=tuple(dict.fromkeys((*record.notices, *checked.final.notices))),
    )


def _with_accuracy(row: Candidate, quality: Quality | None) -> Candidate:
    """Steps that are exact change no accuracy: nobody has to measure it again."""
    if row.accuracy is not None or quality is None or row.label not in EXACT:
        return row
    judged = quality.judged
    return replace(row, accuracy=judged.baseline if judged else quality.baseline)


def reports(record: Record) -> Mapping[str, str]:
    return {
        "report.json": record_json.dumps(record),
        "report.md": markdown.render(record),
        "report.html": html.render(record),
    }


def _converted(session: Session, variant: Variant) -> dict[str, bytes]:
    """Files of the runtime's library, so that loading need not convert; a reason where not."""
    try:
        return kept_model(variant.module, session.inputs, variant.runtime)
    except MeasureError as error:
        row = f"{error}; `load` converts it each time"
        session.exclusions.set_aside(f"runtime `{variant.runtime}` in the artifact", row)
        return {}


@contextmanager
def staged(session: Session, variant: Variant, record: Record, out: Path) -> Iterator[Staged]:
    """The variant's artifact beside `out`, gone at the end unless it is sealed."""
    session.put_back(variant.module)
    if variant.blob is not None:
        trust(variant.blob)
    with ExitStack() as stack:
        with session.ledger.spends(WRITING), session.time.timed("writing"):
            inputs = session.inputs
            program = moved(export_program(variant.module, inputs), "cpu")  # it loads anywhere
            if inputs.varies:
                inputs = written_sizes(module_of(program), inputs)
            folder = stage(
                out,
                program=program,
                edits=edits_to_json(variant.edits),
                inputs=inputs,
                record=record,
                runtime=variant.runtime,
                recipe_yaml=dump_recipe(session.recipe),
                package=variant.blob,
                converted=_converted(session, variant),
            )
            artifact = stack.enter_context(folder)
        yield artifact


def verified(
    session: Session, artifact: Staged, variant: Variant, record: Record,
    seconds: float = VERDICT_SECONDS, judged: bool = True, reports: bool = False,
) -> tuple[Staged, Variant, Verification]:  # fmt: skip
    """Verify the staged folder in a fresh process. `reports`: it ships whatever comes of that, so
    the last word is spoken with it.

    A runtime whose outputs differ there is left out from here on: the same weights are then
    loaded under the next one, and in the end as the plain graph.
    """
    session.progress.stage(VERIFYING)
    recipe, usual_ms = dump_recipe(session.recipe), session.quiet_ms
    while True:
        time = session.time
        patience = time.patience if judged else time.search_patience
        if not is_set(session.job.target):  # nothing is judged by the figures
            patience = min(patience, UNASKED)
        try:
            with session.verifying() as spent:
                checked = verify(
                    session.job, artifact.folder, recipe, usual_ms, seconds, judged,
                    session.last_word if reports else session.judging, patience,
                    time.stuck_after,
                )  # fmt: skip
                spent.append(checked.judging_seconds)
            session.baseline.note(checked.baseline.value_ms)
            return artifact, variant, checked
        except OutputsDiffer as error:
            if variant.runtime == PLAIN:
                raise
            session.exclusions.leave_out_runtime(variant.runtime, str(error))
            variant = variant.under(session.trusted(variant.runtime))
            artifact = artifact.without_package()
            artifact.describe(record, variant.runtime, recipe)


def reported(session: Session, artifact: Staged, checked: Verification) -> Verification:
    """With the last word on the artifact that ships, of data that decided nothing."""
    quality = checked.quality
    if quality is None or not session.is_halved or not quality.known:
        return checked
    recipe = dump_recipe(session.recipe)
    try:
        with session.verifying("reporting") as spent:
            last = report_on(
                session.job, artifact.folder, recipe, session.last_word, session.time.stuck_after
            )
            spent.append(last.judging_seconds)
    except MeasureError as error:  # what was chosen is not lost for that
        session.progress.note(f"{error}; the accuracy is that of the examples that judged")
        return checked
    assert quality.baseline is not None and quality.final is not None
    judged = JudgedScore(quality.baseline, quality.final, quality.examples)
    return replace(checked, quality=replace(last.quality, judged=judged))


def sealed(
    session: Session, artifact: Staged, variant: Variant, record: Record, out: Path, force: bool,
) -> Outcome:  # fmt: skip
    """The folder as it was measured, under its name, with the record and the reports."""
    recipe = dump_recipe(session.recipe)
    artifact.describe(record, variant.runtime, recipe, reports(record))
    artifact.seal(force=force)
    return Outcome(record, out)
