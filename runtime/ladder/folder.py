"""The folder of a ladder as a `Ladder` for this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

from torch import nn
from torch.fx import GraphModule

from ...backends.registry import is_compiled, prepares_by_shape
from ...checkpoints.artifact import LoadedArtifact, read_artifact
from ...checkpoints.ladders import read_ladder
from ...checkpoints.samples import draw_inputs
from ...core.errors import ArtifactError
from ...core.ladder_record import Rung
from ...core.model_io import Inputs
from ...core.records import Notice
from ...graph.capture import has_dynamic_batch
from ..loaded import running
from .ladder import Ladder
from .sharing import share_tensors
from .times import RungTimes

R = TypeVar("R", bound="OpenedRung")


class OpenedRung(Protocol):
    @property
    def module(self) -> nn.Module: ...
    @property
    def graph(self) -> GraphModule: ...
    @property
    def runtime(self) -> str: ...
    @property
    def notices(self) -> tuple[Notice, ...]: ...


def open_ladder(
    folder: Path,
    open_rung: Callable[[LoadedArtifact], OpenedRung],
    device_of: Callable[[LoadedArtifact], str],
) -> tuple[Ladder, tuple[Notice, ...]]:
    """All rungs of `folder`, ready, and what is to be warned of, each thing once.

    They are loaded at once: loading one when it is first chosen would make that answer late.
    Raises ArtifactError where the record or a rung is damaged.
    """
    record = read_ladder(folder)
    artifacts: list[LoadedArtifact] = []
    opened: list[OpenedRung] = []
    folders = [folder / rung.folder for rung in record.rungs]
    share_tensors(graphs_opened(folders, open_rung, artifacts, opened))
    device = device_of(artifacts[0])
    example = draw_inputs(artifacts[0].manifest["inputs"], 0).map(lambda x: x.to(device))
    times = [
        _times(rung, score, artifact, ready, example)
        for rung, score, artifact, ready in zip(
            record.rungs, record.scores, artifacts, opened, strict=True
        )
    ]
    ladder = Ladder(
        [ready.module for ready in opened], times, example=example, cascades=record.cascades
    )
    return ladder, _once(opened)


def graphs_opened(
    folders: Iterable[Path],
    open_rung: Callable[[LoadedArtifact], R],
    artifacts: list[LoadedArtifact],
    opened: list[R],
) -> Iterator[Sequence[GraphModule]]:
    """Graphs of rungs and those that run, rung by rung, so that what they share is never in memory
    for all. The lists take what was read, without its weights, and what came of it."""
    for folder in folders:
        artifact = read_artifact(folder)
        opened.append(open_rung(artifact))
        artifacts.append(replace(artifact, weights={}))
        del artifact
        yield _graphs_of(opened[-1])


def _graphs_of(ready: OpenedRung) -> list[GraphModule]:
    """The graph as stored, and copies that its runtime runs or falls back on.

    Only of those on a CPU which no compiler read: other code may know where their tensors lie.
    """
    runner = running(ready.module)
    if is_compiled(ready.runtime) or any(t.device.type != "cpu" for t in ready.graph.parameters()):
        return [ready.graph]
    return [ready.graph, *(part for part in runner.modules() if isinstance(part, GraphModule))]


def _times(
    rung: Rung, score: float, artifact: LoadedArtifact, ready: OpenedRung, example: Inputs
) -> RungTimes:
    fixed = not has_dynamic_batch(ready.graph, example)
    if fixed and rung.batches != (example.batch,):
        raise ArtifactError(
            f"`{artifact.folder}` runs at batch {example.batch} only, but the ladder has latencies "
            f"of batch {', '.join(map(str, rung.batches))}."
        )
    return RungTimes(
        name=rung.name,
        score=score,
        samples_ms={row.batch: row.samples_ms for row in rung.latencies},
        only_sizes=fixed or prepares_by_shape(ready.runtime),
    )


def _once(opened: Sequence[OpenedRung]) -> tuple[Notice, ...]:
    return tuple(dict.fromkeys(notice for ready in opened for notice in ready.notices))
