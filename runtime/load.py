"""`modelspeed.load`: a written artifact as a ready module for this machine."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
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
    prepare,
    resolve,
)
from ..backends.trust import is_trusted
from ..checkpoints.artifact import (
    PROGRAM,
    LoadedArtifact,
    read_artifact,
    read_package,
    read_weights,
)
from ..checkpoints.samples import draw_inputs, reproduces, sample_calls, sample_of
from ..core.errors import (
    ArtifactError,
    CaptureError,
    EditError,
    MachineWarning,
    MeasureError,
    OutputsDiffer,
    UsageError,
    first_line,
)
from ..core.json_values import JsonObject
from ..core.model_io import Inputs, plain
from ..core.records import Closeness, Machine, Notice
from ..core.records_json import from_json as record_from_json
from ..graph.capture import module_of, moved
from ..graph.edits.apply import Edit, edits_from_json
from ..graph.edits.replay import replayed
from ..profiling.closeness import COARSE, TOLERANCE, plain_outputs, tolerance_of
from ..profiling.machine import check_device, fingerprint
from ..profiling.notices import (
    broken_package,
    no_compiler,
    no_runtime,
    other_machine,
    runtime_differs,
    runtime_fails,
    untrusted_package,
)
from ..profiling.state import kept_state
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
    Warns (`MachineWarning`) if CPU, threads or torch are not those that a graph was tuned for.
    Raises ArtifactError if files are missing or changed, or if the class can't follow the edits.
    """
    if model is not None:
        if runtime not in (None, PLAIN):
            raise UsageError(f"`runtime={runtime!r}` is for graphs; a class of yours runs `plain`.")
        return _onto(model, Path(folder))
    opened = open_artifact(
        read_artifact(Path(folder)), runtime=runtime, device=device, trust_compiled=trust_compiled
    )
    for notice in opened.notices:
        _warn(notice)
    return opened.module


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
    folder = artifact.folder
    tuned = _machine(artifact.manifest)
    there = device or _device(tuned)
    check_device(there)
    inputs = draw_inputs(artifact.manifest["inputs"], 0).map(lambda x: x.to(there))
    module = module_of(moved(artifact.program, there))
    if artifact.manifest["runtime"] not in NAMES:
        raise ArtifactError(
            f"`{folder}`: its `runtime` is `{artifact.manifest['runtime'][:40]}`; this modelspeed "
            f"knows {', '.join(NAMES)}."
        )
    chosen = resolve(runtime, str(artifact.manifest["runtime"]), module, inputs)
    package, ready, notices = _compiled_before(
        artifact, tuned, module, inputs, chosen, trust_compiled
    )
    outputs = plain_outputs(module, (inputs,))
    for name in _in_turn(chosen, module, inputs):
        if not is_compiled(name) and backend_of(name).lacks(there):
            continue  # the notice says so
        try:
            if ready is None:
                runs, near = agreeing(module, inputs, name, outputs)
            else:
                runs, near = ready, same_answers(ready, outputs, name)
            loaded = Loaded(Origin(artifact.program, inputs, name, package), module, runs)
            return Opened(loaded, module, name, near, tuple(notices))
        except OutputsDiffer as error:
            notices.append(runtime_differs(name, str(error)))
        except MeasureError as error:
            notices.append(runtime_fails(name, str(error)))
        package, ready = None, None
    raise ArtifactError(f"`{folder}` does not run here: {notices[-1].seen}")


def _in_turn(chosen: str, module: GraphModule, inputs: Inputs) -> Iterator[str]:
    """Runtimes to load under. What comes after `chosen` is asked for where that fails: finding out
    packs all weights."""
    yield chosen
    rest = dict.fromkeys((furthest_lowering(module, inputs) or PLAIN, PLAIN))
    yield from (name for name in rest if name != chosen)


def _warn(notice: Notice) -> None:
    text = f"{notice.seen} {notice.cause} {notice.remedy}"
    warnings.warn(text, MachineWarning, stacklevel=3)


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
    lacking = backend_of(runtime).lacks(str(inputs[0].device)) if ready is None else None
    missing = None
    if lacking and compiled:
        missing = no_compiler(runtime, lacking)
    elif lacking and backend_of(runtime).offered:  # a GPU can't be installed: `other` names it
        missing = no_runtime(runtime, lacking, _times(artifact.manifest))
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
    tolerance = COARSE if on_gpu else tolerance_of(artifact.program.state_dict.values())
    try:
        ready = prepare(module, inputs, runtime, package)
        if _reproduces(ready, manifest["sample"], drawn, tolerance):
            return ready, None
        return None, broken_package("it does not reproduce the stored sample")
    except (MeasureError, RuntimeError) as error:
        return None, broken_package(first_line(error))


def _onto(model: nn.Module, folder: Path) -> nn.Module:
    manifest, weights = read_weights(folder)
    specs = [dict(spec) for spec in manifest["inputs"]]
    inputs = draw_inputs(specs, int(manifest["sample"]["seed"]))
    edits = _edits(manifest, folder)
    try:
        return replayed(
            model, inputs, edits, weights, lambda own: _reproduces(own, manifest["sample"], inputs)
        )
    except Exception as error:  # of the class's own code, or edits of another class
        told = isinstance(error, (EditError, CaptureError))
        why = str(error).rstrip(".") if told else first_line(error).rstrip(".")
        raise ArtifactError(
            f"`{folder}` does not fit `{type(model).__name__}`: {why}. "
            f"`modelspeed.load({str(folder)!r})` and `{folder / PROGRAM}` need no class."
        ) from error


def _edits(manifest: JsonObject, folder: Path) -> list[Edit]:
    try:
        return edits_from_json(manifest["edits"])
    except (EditError, TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise ArtifactError(f"`{folder}`: its edits are damaged: {first_line(error)}") from error


def _reproduces(
    model: nn.Module, sample: JsonObject, inputs: Inputs, tolerance: float = TOLERANCE
) -> bool:
    """Called twice in a row, since a model may keep something from one call to the next."""
    wanted = sample_calls(sample)
    with torch.no_grad(), kept_state(model):
        samples = [sample_of(plain(inputs.map(torch.clone).call(model))) for _ in wanted]
    return all(reproduces(f, w, tolerance) for f, w in zip(samples, wanted, strict=True))
