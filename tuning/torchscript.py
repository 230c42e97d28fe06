"""`profile` of a TorchScript archive: it runs as it comes, so its latency is all there is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..checkpoints.scripts import read_script
from ..core.progress import Progress
from ..core.records import LeftAlone
from ..core.user_code import import_all
from ..profiling.gate import working
from .baseline import latency_of
from .batch_axes import settled
from .delivery import Outcome, source_record
from .job import Job, check_runs, example_inputs, prepare_machine
from .spinning import without_spinning
from .threads import with_fastest

WHY = "a TorchScript archive holds no graph: nothing is known of its layers, MACs and groups"


def profile_script(job: Job, progress: Progress) -> Outcome:
    started = working()
    prepare_machine(job.target, job.seed)
    progress.stage("loading")
    import_all(job.imports)
    source = read_script(Path(job.checkpoint), trust_pickle=job.trust_pickle)
    source.module.to(job.target.device)
    job = settled(job, source)
    inputs = example_inputs(job, source)
    check_runs(source, inputs)
    target = with_fastest(job.target, source.module, inputs, progress)
    target, remarks = without_spinning(target, source.module, inputs, progress)
    progress.stage("measuring")
    record = source_record(
        source, "profile", target, latency_of(source.module, inputs, target, 10.0)
    )
    left = (LeftAlone("the model", WHY),)
    seconds = round(working() - started, 2)
    record = replace(record, notices=(*remarks, *record.notices))
    return Outcome(replace(record, left_alone=left, seconds=seconds, summary="run as it is"), None)
