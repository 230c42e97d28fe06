"""`modelspeed.load`: a written artifact as a ready module for this machine."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.fx import GraphModule

from ..backends.agreement import agreeing, same_answers
from ..backends.registry import (
    NAMES,
    PLAIN,
    backend_of,
    furthest_lowering,
    is_compiled,
    opens_files,
    prepare,
    reopened,
    resolve,
)
from ..backends.trust import is_trusted
from ..checkpoints.artifact import LoadedArtifact, read_artifact, read_converted, read_package
from ..checkpoints.ladders import is_ladder
from ..checkpoints.samples import draw_inputs, reproduces_calls
from ..core.errors import (
    ArtifactError,
    MachineWarning,
    MeasureError,
    OutputsDiffer,
    UsageError,
    first_line,
)
from ..core.json_values import JsonObject
from ..core.model_io import Inputs
from ..core.records import Closeness, Machine, Notice
from ..core.records_json import from_json as record_from_json
from ..profiling.closeness import COARSE, plain_outputs, tolerance_of
from ..profiling.machine import check_device, fingerprint
from ..profiling.notices import (
    broken_package,
    converted_again,
    no_compiler,
    no_runtime,
    other_machine,
    runtime_differs,
    runtime_fails,
    untrusted_package,
)
from .loaded import Loaded, Origin


def load(
    folder: str | os.PathLike[str],
    *,
    model: nn.Module | None = None,
    runtime: str | None = None,
    device: str | None = None,
    trust_compiled: bool = False,
) -> nn.Module:
    """The variant in `folder` as an eval-mode module for this machine.

    `runtime`: `plain`, `lowered` or another overrides the recorded one. `device`: `cpu` or `cuda:N`
    instead of the one it was tuned for, or the CPU where that is missing. `model`: your own class
    as it was before tuning.
    A copy of it comes back with the recorded edits carried out on its modules; it is checked
    against the stored sample and runs as PyTorch runs it, without this machine's fast kernels.
    Compiled code in the artifact runs where your modelspeed made it on this machine, or where
    `trust_compiled` says that you trust whoever did; otherwise the graph is compiled again.
    The folder of a ladder gives a `Ladder`, with all of its rungs loaded.
    Warns (`MachineWarning`) if CPU, threads or torch are not those that a graph was tuned for.
    Raises ArtifactError if files are missing or changed, or if the class can't follow the edits.
    """
    if is_ladder(Path(folder)):
        return _ladder(Path(folder), model, runtime, device, trust_compiled)
    if model is not None:
        if runtime not in (None, PLAIN):
            raise UsageError(f"`runtime={runtime!r}` is for graphs; a class of yours runs `plain`.")
        from .own_class import onto  # edits are many modules, which graphs need none of

        return onto(model, Path(folder))
    opened = open_artifact(
        read_artifact(Path(folder)), runtime=runtime, device=device, trust_compiled=trust_compiled
    )
    for notice in opened.notices:
        _warn(notice)
    return opened.module


def _ladder(
    folder: Path,
    model: nn.Module | None,
    runtime: str | None,
    device: str | None,
    trust_compiled: bool,
) -> nn.Module:
    if model is not None:
        raise UsageError(
            f"`{folder}` is a ladder; `model=...` takes the folder of one of its rungs."
        )
    from .ladder.folder import open_ladder  # threads and queues, which one artifact needs none of

    ladder, notices = open_ladder(
        folder,
        partial(open_artifact, runtime=runtime, device=device, trust_compiled=trust_compiled),
        lambda artifact: device or _device(_machine(artifact.manifest)),
    )
    for notice in notices:
        _warn(notice, stacklevel=4)
    return ladder


@dataclass(frozen=True)
class Opened:
    """An artifact ready to be called: under which runtime, and how near its outputs come to those
    of `graph`, which is the program as stored."""

    module: Loaded
    graph: GraphModule
    runtime: str
    closeness: Closeness
    notices: tuple[Notice, ...]


def open_artifact(
    artifact: LoadedArtifact,
    *,
    runtime: str | None = None,
    device: str | None = None,
    trust_compiled: bool = False,
) -> Opened:
    """The loaded artifact, with the notices that `load` warns of. Raises what `load` raises."""
    tuned = _machine(artifact.manifest)
    there = device or _device(tuned)
    check_device(there)
    inputs = draw_inputs(artifact.manifest["inputs"], 0).map(lambda x: x.to(there))
    module = artifact.module(there)
    chosen = resolve(runtime, _recorded(artifact), module, inputs)
    package, ready, notices = _compiled_before(
        artifact, tuned, module, inputs, chosen, trust_compiled
    )
    if ready is None:
        ready, more = _converted_before(artifact, module, inputs, chosen)
        notices += more
    turns = _in_turn(chosen, module, inputs, twice=ready is not None and package is None)
    return _first(artifact, module, inputs, turns, package, ready, notices)


def _first(
    artifact: LoadedArtifact,
    module: GraphModule,
    inputs: Inputs,
    turns: Iterator[str],
    package: bytes | None,
    ready: nn.Module | None,
    notices: list[Notice],
) -> Opened:
    """The first of the runtimes in `turns` that gives the plain graph's outputs; `ready` is that
    of the first turn, where it is known already."""
    outputs, there = plain_outputs(module, (inputs,)), str(inputs[0].device)
    for name in turns:
        lacking = None if ready or is_compiled(name) else backend_of(name).lacks(there)
        if lacking:
            if backend_of(name).offered:  # a GPU can't be installed: another machine is said
                notices.append(no_runtime(name, lacking, _times(artifact.manifest)))
            continue
        try:
            if ready is None:
                runs, near = agreeing(module, inputs, name, outputs)
            else:
                runs, near = ready, same_answers(ready, outputs, name)
            origin = Origin(artifact.blueprint(there), inputs, name, package)
            return Opened(Loaded(origin, module, runs), module, name, near, tuple(notices))
        except MeasureError as error:
            notices.append(_refused(name, error, ready is not None and package is None))
        package, ready = None, None
    raise ArtifactError(f"`{artifact.folder}` does not run here: {notices[-1].seen}")


def _recorded(artifact: LoadedArtifact) -> str:
    name = str(artifact.manifest["runtime"])
    if name not in NAMES:
        raise ArtifactError(
            f"`{artifact.folder}`: its `runtime` is `{name[:40]}`; this modelspeed "
            f"knows {', '.join(NAMES)}."
        )
    return name


def _in_turn(chosen: str, module: GraphModule, inputs: Inputs, twice: bool) -> Iterator[str]:
    """Runtimes to load under. What comes after `chosen` is asked for where that fails: finding out
    packs all weights. `twice`: first as stored, then converted again."""
    yield from (chosen, chosen) if twice else (chosen,)
    rest = dict.fromkeys((furthest_lowering(module, inputs) or PLAIN, PLAIN))
    yield from (name for name in rest if name != chosen)


def _refused(name: str, error: Exception, kept: bool) -> Notice:
    if kept:
        return converted_again(name, str(error))
    differs = isinstance(error, OutputsDiffer)
    return runtime_differs(name, str(error)) if differs else runtime_fails(name, str(error))


def _converted_before(
    artifact: LoadedArtifact, module: GraphModule, inputs: Inputs, runtime: str
) -> tuple[nn.Module | None, list[Notice]]:
    """The converted model of the artifact, ready to be called; and notices to warn of."""
    device = str(inputs[0].device)
    recorded = artifact.manifest["runtime"] == runtime
    files = read_converted(artifact.folder, artifact.manifest) if recorded else {}
    if not files or not opens_files(runtime, device):
        return None, []
    ready = reopened(module, inputs, runtime, files)
    return (None, [converted_again(runtime, ready)]) if isinstance(ready, str) else (ready, [])


def _warn(notice: Notice, stacklevel: int = 3) -> None:
    text = f"{notice.seen} {notice.cause} {notice.remedy}"
    warnings.warn(text, MachineWarning, stacklevel=stacklevel)


def _device(tuned: Machine | None) -> str:
    on_gpu = tuned is not None and tuned.device.startswith("cuda") and torch.cuda.is_available()
    return "cuda" if on_gpu else "cpu"


def _compiled_before(
    artifact: LoadedArtifact,
    tuned: Machine | None,
    module: GraphModule,
    inputs: Inputs,
    runtime: str,
    trusted: bool,
) -> tuple[bytes | None, nn.Module | None, list[Notice]]:
    """The artifact's package and it ready to be called, where it may run; what to warn of."""
    package, ready, why = None, None, None
    other = other_machine(tuned, fingerprint(str(inputs[0].device))) if tuned else None
    compiled = is_compiled(runtime)
    if compiled and tuned is not None and other is None:
        package = read_package(artifact.folder, artifact.manifest)
        ready, why = _packaged(package, artifact, module, inputs, runtime, trusted)
    compiles = compiled and ready is None
    lacking = backend_of(runtime).lacks(str(inputs[0].device)) if compiles else None
    missing = no_compiler(runtime, lacking) if lacking else None
    notices = (other, why, missing)
    used = package if ready is not None else None
    return used, ready, [notice for notice in notices if notice is not None]


def _times(manifest: JsonObject) -> dict[str, float]:
    """ms by runtime, as measured where it was tuned."""
    try:
        return {str(row["name"]): float(row["ms"]) for row in manifest["record"]["runtimes"]}
    except (TypeError, KeyError, ValueError):
        return {}


def _machine(manifest: JsonObject) -> Machine | None:
    record = manifest.get("record")
    try:
        return record_from_json(Machine, record["machine"], "machine")  # type: ignore[index]
    except (ArtifactError, TypeError, KeyError):
        return None  # a damaged record says nothing, and the variant runs without it


def _packaged(
    package: bytes | None,
    artifact: LoadedArtifact,
    module: GraphModule,
    inputs: Inputs,
    runtime: str,
    trusted: bool,
) -> tuple[nn.Module | None, Notice | None]:
    manifest = artifact.manifest
    if package is None:
        return None, None
    if not (trusted or is_trusted(package)):
        return None, untrusted_package()
    drawn = draw_inputs(manifest["inputs"], int(manifest["sample"]["seed"]))
    drawn = drawn.map(lambda x: x.to(inputs[0].device))
    on_gpu = inputs[0].device.type == "cuda"  # its convolutions round to 10 bits (TF32)
    tolerance = COARSE if on_gpu else tolerance_of(artifact.weights.values())
    try:
        ready = prepare(module, inputs, runtime, package)
        if reproduces_calls(ready, manifest["sample"], drawn, tolerance):
            return ready, None
        return None, broken_package("it does not reproduce the stored sample")
    except (MeasureError, RuntimeError) as error:
        return None, broken_package(first_line(error))
