"""Latency of each layer at other widths, timed here as the chosen runtime runs it.

Both axes of a layer (inputs, outputs) are swept with the other one whole, which shows the steps of
the kernels; in between t(i, o) = c + (t(i, all) - c)(t(all, o) - c) / (t(all, all) - c), with c
such that it holds where both are smallest. Points are cached on disk under the machine fingerprint.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from ..backends.registry import first_ready, library_version, profiles_itself, runtime_node_times
from ..core.cache import cache_folder
from ..core.files import write_whole
from ..core.model_io import Inputs
from ..graph.capture import tensor_at
from ..graph.interpreter import Recorder
from ..graph.layers import Layer, layers_of
from ..graph.lowering.fusing import activation_of
from ..profiling.clocks import Clock, clock_for
from ..profiling.gate import alone, working

PASSES = 2  # in different orders: a machine that is slow for a while spoils no point twice
BLOCKS, BLOCK_MS = 5, 0.4
VERSION = 3  # of the tables: another one where kernels or what is timed change
Point = tuple[int, int]
LAYER = "layer"  # the node in the graph of one layer


@dataclass(frozen=True)
class Shape:
    """A layer with what its time depends on besides its widths. `spatial_size` is its input's."""

    layer: Layer
    batch: tuple[int, ...]
    spatial_size: tuple[int, ...]
    kernel: tuple[int, ...]
    widths: Point
    act: Node | None

    @property
    def depthwise(self) -> bool:
        return self.layer.groups > 1 and self.layer.groups == self.widths[0] == self.widths[1]

    @property
    def tabled(self) -> bool:
        """True if its time is looked up by width; of grouped layers, only depthwise ones are."""
        return self.layer.groups == 1 or self.depthwise

    @property
    def key(self) -> str:
        layer = self.layer
        parts = (
            self.batch, self.spatial_size, self.kernel,
            layer.stride, layer.padding, layer.dilation,
        )  # fmt: skip
        words = [str(p).replace(" ", "") for p in parts]
        kind = "depthwise" if self.depthwise else "dense" if layer.groups == 1 else "grouped"
        act = str(self.act.target) if self.act is not None else "none"
        return "|".join(["conv" if layer.spatial_dims else "linear", kind, *words, act])


def shapes_of(module: GraphModule, inputs: Inputs) -> dict[str, Shape]:
    """By node name, for the shapes these inputs give."""
    seen = _Seen(module)
    with torch.no_grad():
        seen.of(inputs)
    shapes = {}
    for layer in layers_of(module):
        size = seen.sizes[layer.node.name]
        weight = tensor_at(module, layer.weight).shape
        act = activation_of(layer.node)
        batch, spatial_size = (size[:1], size[2:]) if layer.spatial_dims else (size[:-1], ())
        shapes[layer.node.name] = Shape(
            layer, tuple(batch), tuple(spatial_size), tuple(weight[2:]),
            (weight[1] * layer.groups, weight[0]), act.node if act else None,
        )  # fmt: skip
    return shapes


class _Seen(Recorder):
    def __init__(self, module: GraphModule) -> None:
        super().__init__(module)
        self.layers = {layer.node: layer for layer in layers_of(module)}
        self.sizes: dict[str, tuple[int, ...]] = {}

    def run_node(self, n: Node) -> object:
        if n in self.layers:
            self.sizes[n.name] = tuple(self.env[self.layers[n].source].shape)
        return super().run_node(n)


@dataclass
class LatencyTables:
    """Times (ms) of layers by width. `times[key][(inputs, outputs)]`."""

    runtime: str
    device: str
    store: Store
    clock: Clock
    times: dict[str, dict[Point, float]] = field(default_factory=dict)
    corners: dict[tuple[str, Point], Point] = field(default_factory=dict)

    @classmethod
    def of(cls, runtime: str, device: str, store: Store) -> LatencyTables:
        return cls(runtime, device, store, clock_for(device), store.read())

    def measure(
        self,
        wanted: Iterable[tuple[Shape, Iterable[Point]]],
        advance: Callable[[int], None],
        fits: Callable[[float], bool] = lambda _: True,
    ) -> int:
        """Time what is not known yet; how many points that were. `fits`: there is time for so many
        seconds more, without which each point is timed once."""
        rows = [(shape, list(row)) for shape, row in wanted]
        for shape, row in rows:
            corner = (min(i for i, _ in row), min(o for _, o in row))
            self.corners[(shape.key, shape.widths)] = corner
        points = {
            (shape.key, point): shape
            for shape, row in rows
            for point in row
            if point not in self.times.get(shape.key, {})
        }
        order = list(points)
        begun, sure = working(), True
        for number in range(PASSES):
            if number and not (sure := fits(2.0 * (working() - begun))):
                break
            random.Random(number).shuffle(order)
            for key, point in order:
                took = self._time(points[(key, point)], point)
                known = self.times.setdefault(key, {})
                known[point] = min(took, known.get(point, took))
                advance(1)
        if order and sure:  # what a slow moment may have spoiled is not for later runs
            self.store.write(self.times)
        return len(order)

    def at(self, shape: Shape, ins: int, outs: int) -> float:
        """ms at these widths, from the points of `points_for` that `measure` was given."""
        row, (all_in, all_out) = self.times[shape.key], shape.widths
        if shape.depthwise:
            return row[(outs, outs)]
        if (ins, outs) in row:
            return row[(ins, outs)]
        whole, by_in, by_out = row[shape.widths], row[(ins, all_out)], row[(all_in, outs)]
        base = self._base(row, shape.widths, self.corners[(shape.key, shape.widths)])
        return base + (by_in - base) * (by_out - base) / max(whole - base, 1e-9)

    @staticmethod
    def _base(row: Mapping[Point, float], widths: Point, least: Point) -> float:
        """The part of a call's cost that does not depend on the widths."""
        both, whole = row[least], row[widths]
        by_in, by_out = row[(least[0], widths[1])], row[(widths[0], least[1])]
        spread = both + whole - by_in - by_out
        base = (both * whole - by_in * by_out) / spread if spread > 1e-9 else 0.0
        return min(max(0.0, base), 0.95 * min(both, by_in, by_out, whole))

    def _time(self, shape: Shape, point: Point) -> float:
        generator = torch.Generator().manual_seed(0)
        size = (*shape.batch, point[0], *shape.spatial_size) if shape.layer.spatial_dims else (
            *shape.batch, point[0])  # fmt: skip
        x = torch.randn(size, generator=generator).to(self.device)
        layer, given = one_layer(shape, point, x), Inputs((x,))
        if profiles_itself(self.runtime):
            with suppress(Exception):  # what it does not take, it does not run in the model either
                times = runtime_node_times(layer, given, self.runtime)
                return times.get(LAYER) or sum(times.values())  # it may be fused into another name
        prepared = first_ready(layer, given, (self.runtime,), lambda _: None)[1]

        def run() -> object:
            return prepared(x)

        with alone(), torch.inference_mode():
            run()
            once = max(self.clock.time(run), 1e-3)
            count = max(1, min(50, round(BLOCK_MS / once)))

            def block() -> None:
                for _ in range(count):
                    run()

            return min(self.clock.time(block) for _ in range(BLOCKS)) / count


def points_for(shape: Shape, ins: Iterable[int], outs: Iterable[int]) -> list[Point]:
    """Both sweeps and the corner where both are smallest."""
    ins, outs = sorted(set(ins)), sorted(set(outs))
    if shape.depthwise:
        return [(o, o) for o in outs]
    all_in, all_out = shape.widths
    sweep = [(i, all_out) for i in ins] + [(all_in, o) for o in outs]
    return list(dict.fromkeys([*sweep, (ins[0], outs[0]), shape.widths]))


def one_layer(shape: Shape, point: Point, x: Tensor) -> GraphModule:
    """The layer with its bias and activation as a graph of its own, weights random."""
    layer, (ins, outs) = shape.layer, point
    groups = outs if shape.depthwise else layer.groups
    root = nn.Module()
    generator = torch.Generator().manual_seed(0)
    size = (outs, ins // groups, *shape.kernel)
    # No gradients, no subnormal sums: random weights time like real ones.
    weight = torch.randn(size, generator=generator) / max(1, ins // groups) ** 0.5
    root.weight = nn.Parameter(weight.to(x.device), requires_grad=False)
    root.bias = nn.Parameter(torch.zeros(outs, device=x.device), requires_grad=False)
    graph = Graph()
    data = graph.placeholder("x")
    data.meta["val"] = x
    row: list[object] = [data, graph.get_attr("weight"), graph.get_attr("bias")]
    given = list(layer.node.args[3:])
    if layer.spatial_dims:
        row += [*given[:3], groups] if len(given) >= 4 else given
    output = graph.create_node("call_function", layer.node.target, tuple(row), name=LAYER)  # type: ignore[arg-type]
    output.meta["val"] = _shape_only(layer.node.target, row, root, x)
    if shape.act is not None:
        rest = tuple(a for a in shape.act.args[1:])
        output = graph.call_function(shape.act.target, (output, *rest), dict(shape.act.kwargs))  # type: ignore[arg-type]
    graph.output(output)
    return GraphModule(root, graph)


def _shape_only(target: Any, row: list[object], root: nn.Module, x: Tensor) -> Tensor:
    """A meta tensor shaped like the layer's output: kernels are packed for its positions."""
    arguments = (x, root.weight, root.bias, *row[3:])
    output: Tensor = target(*(t.to("meta") if isinstance(t, Tensor) else t for t in arguments))
    return output


@dataclass(frozen=True)
class Store:
    """Tables on disk, one file per machine fingerprint and runtime."""

    path: Path

    @classmethod
    def of(cls, fingerprint: str, runtime: str) -> Store:
        name = "-".join(
            filter(None, (str(VERSION), fingerprint, runtime, library_version(runtime)))
        )
        return cls(cache_folder() / f"costs-{name}.json")

    def read(self) -> dict[str, dict[Point, float]]:
        """Empty where there is no file or an unreadable one: it is only a cache."""
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
            return {
                key: {_point(text): float(ms) for text, ms in row.items()}
                for key, row in data.items()
            }
        except (OSError, ValueError, AttributeError, TypeError, ArithmeticError, RecursionError):
            return {}

    def write(self, times: Mapping[str, Mapping[Point, float]]) -> None:
        """Write the whole file or nothing. The run goes on if the cache can't be written."""
        whole = self.read()  # another process may have added points meanwhile
        for key, row in times.items():
            whole.setdefault(key, {}).update(row)
        data = {k: {f"{i},{o}": ms for (i, o), ms in row.items()} for k, row in whole.items()}
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, json.dumps(data))


def _point(text: str) -> Point:
    ins, outs = text.split(",")
    return int(ins), int(outs)
