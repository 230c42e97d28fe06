"""Time, work and traffic of every op of a captured graph."""

from __future__ import annotations

from statistics import median
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node

from ..core.model_io import Inputs
from ..core.naming import outside
from ..core.records import LayerCost
from .clocks import Clock, CudaClock, clock_for, clock_of_kernels
from .gate import alone
from .macs import bytes_of, macs_of, op_name, shape_of
from .peak import peak_flops

NOTHINGS = (101, 11)  # calls that time the clock itself, and of a GPU's, which take a spin each
GUARDS = "_guards_fn"  # torch.export's input checks, not part of the model


def profile_layers(
    gm: GraphModule,
    inputs: Inputs,
    *,
    repeats: int = 10,
    clock: Clock | None = None,
    peak: float | None = None,
) -> tuple[LayerCost, ...]:
    """Cost of each op in graph order, run one at a time; ms is the median over `repeats`.

    The clock's own cost is subtracted. `share` is of the sum over ops, `peak_fraction` of `peak`
    FLOP/s (default: measured here, or what the best layer does if that is more). Python's cost of
    walking the graph is not counted, nor is on a GPU the launching of kernels.
    """
    device = str(inputs[0].device) if inputs else "cpu"
    runner, times = _timed(gm, inputs, repeats, clock or clock_of_kernels(device))
    total = sum(times.values())
    rates = {n: 2e3 * runner.work[n][0] / ms if ms else 0.0 for n, ms in times.items()}
    # A product that met a slow phase of the machine is not its peak: a layer may show more.
    rate = max(peak_flops(device, _dtype(gm)), *rates.values(), 0.0) if peak is None else peak
    return tuple(
        LayerCost(
            name=layer_name(node),
            op=_op(gm, node),
            ms=ms,
            share=ms / total if total else 0.0,
            macs=runner.work[node][0],
            bytes=runner.work[node][1],
            peak_fraction=rates[node] / rate if rate else 0.0,
            shape=runner.work[node][2],
        )
        for node, ms in times.items()
    )


def node_times(
    gm: GraphModule, inputs: Inputs, *, repeats: int = 10, launched: bool = True
) -> dict[str, float]:
    """ms of each node by its name, run one at a time as in `profile_layers`.

    A fast kernel's node goes by the name of the layer that it is (`meta["layer"]`). `launched`: on
    a GPU, each operator is launched on its own when it is its turn.
    """
    device = str(inputs[0].device) if inputs else "cpu"
    clock = (clock_for if launched else clock_of_kernels)(device)
    times = _timed(gm, inputs, repeats, clock)[1]
    return {node.meta.get("layer") or node.name: ms for node, ms in times.items()}


@alone()
def _timed(
    gm: GraphModule, inputs: Inputs, repeats: int, clock: Clock
) -> tuple[_Timed, dict[Node, float]]:
    runner = _Timed(gm, clock)
    with torch.no_grad():
        runner.all(inputs)  # first calls allocate and pick kernels
        runner.times.clear()
        for _ in range(max(1, repeats)):
            runner.all(inputs)
    overhead = median(clock.time(_nothing) for _ in range(NOTHINGS[isinstance(clock, CudaClock)]))
    return runner, {node: max(0.0, median(row) - overhead) for node, row in runner.times.items()}


def count_macs(gm: GraphModule, inputs: Inputs) -> int:
    """Multiply-accumulates of one forward pass on `inputs`."""
    runner = _Timed(gm, None)
    with torch.no_grad():
        runner.all(inputs)
    return sum(work[0] for work in runner.work.values())


def layer_name(node: Node) -> str:
    """The module path of the op's weight (`body.0.c1`), else the node's name."""
    if node.op == "call_module":
        return str(node.target)
    params = [str(n.target) for n in node.all_input_nodes if n.op == "get_attr"]
    weights = [p for p in params if p.endswith("weight")]
    for path in (*weights, *params):
        stem, dot, _ = path.rpartition(".")
        if dot:
            return outside(stem)
    return node.name


class _Timed(Interpreter):
    """Times the target's call alone; fetching arguments and freeing results stay outside."""

    def __init__(self, gm: GraphModule, clock: Clock | None) -> None:
        # Results are freed after their last use, as the graph's own code does.
        super().__init__(gm, garbage_collect_values=True)
        self._clock = clock
        self.times: dict[Node, list[float]] = {}
        self.work: dict[Node, tuple[int, int, str]] = {}

    def all(self, inputs: Inputs) -> None:
        """One pass, inputs flat in the graph's order: its own unpacking takes no keywords."""
        names = [n.name for n in self.graph.nodes if n.op == "placeholder"]
        self.run(*inputs.in_order(names), enable_io_processing=False)

    def run_node(self, n: Node) -> Any:
        if n.op == "call_module" and n.target == GUARDS:
            return None
        if n.op not in ("call_function", "call_method", "call_module"):
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        result: list[Any] = []
        call = getattr(self, n.op)

        def run() -> None:
            result.append(call(n.target, args, kwargs))

        if self._clock is None:
            run()
        else:
            self.times.setdefault(n, []).append(self._clock.time(run))
        if n not in self.work:
            traffic = bytes_of((args, kwargs), result[0])
            self.work[n] = (self._macs(n, args, result[0]), traffic, shape_of(args, result[0]))
        return result[0]

    def _macs(self, n: Node, args: tuple[Any, ...], result: object) -> int:
        if n.op == "call_module" and isinstance(n.target, str):
            module = self.fetch_attr(n.target)
            weight = getattr(module, "weight", None)
            kind = {torch.nn.Linear: "linear", torch.nn.Conv2d: "conv2d"}.get(type(module))
            return macs_of(kind, (*args, weight), result) if kind else 0
        return macs_of(n.target, args, result)


def _op(gm: GraphModule, node: Node) -> str:
    if node.op == "call_module":
        return type(gm.get_submodule(str(node.target))).__name__
    return op_name(node.target)


def _dtype(gm: GraphModule) -> torch.dtype:
    dtypes = (p.dtype for p in gm.parameters() if p.is_floating_point())
    return next(dtypes, torch.float32)


def _nothing() -> None:
    return None
