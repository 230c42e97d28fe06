from __future__ import annotations

from . import options as o
from .errors import shown


def profile(
    checkpoint: o.Checkpoint,
    model: o.ModelOption = None,
    inputs: o.InputsOption = None,
    data: o.DataOption = None,
    config: o.ConfigOption = None,
    device: o.DeviceOption = "cpu",
    threads: o.ThreadsOrAutoOption = None,
    percentile: o.PercentileOption = None,
    batch: o.BatchOption = None,
    seed: o.SeedOption = 0,
    groups: o.GroupsOption = False,
    runtimes: o.RuntimesOption = False,
    json: o.JsonOption = False,
    trust_pickle: o.TrustOption = False,
    trust_code: o.TrustCodeOption = False,
    ignore: o.IgnoreOption = None,
    imports: o.ImportOption = None,
    debug: o.DebugOption = False,
) -> None:
    """Measure CHECKPOINT as it is: latency with its interval, and every layer."""
    with shown(debug):
        from ..configs.machine import MachineFlags
        from ..tuning.profile import profile as run
        from .finish import show
        from .job import Asked, job_for, recipe_for, say_code
        from .progress import Live

        flags = MachineFlags(device, threads, "plain", percentile, batch, seed)
        asked = Asked(
            checkpoint, config, None, model, data, inputs, trust_pickle,
            trust_code=trust_code, ignore=tuple(ignore or ()), imports=tuple(imports or ()),
        )  # fmt: skip
        recipe = recipe_for(asked, "tune").model_copy(update={"data": None})
        say_code(asked, recipe)
        job = job_for(asked, recipe, flags)
        with Live() as talk:
            outcome = run(job, recipe, talk, groups, runtimes)
        show(outcome.record, json)
