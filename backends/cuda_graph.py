"""One CUDA graph per shape of inputs: all kernels of a call are launched at once.

At batch 1 a GPU waits for Python and for launches; a recorded graph needs neither (CUDA C++
Programming Guide, "CUDA Graphs"; `torch.cuda.graph`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from ..core.errors import MeasureError, text_line
from ..core.model_io import Inputs
from ..graph.capture import clone
from ..graph.lowering.direct_call import holding, without_pytree
from ..graph.lowering.lower import lowerings
from ..graph.state import preserved_state
from ..profiling.layers import node_times
from .shape_guard import Fast, Kinds, ShapeGuarded, kinds, names_of

WARM_UP = 3  # kernels are chosen and buffers made in the first calls, which can't be recorded
MOST = 8  # shapes; each holds the memory of its activations
LOWERINGS = {"cuda_graph": "folded", "cuda_graph_channels_last": "channels_last"}


class CudaGraph:
    """A lowering recorded as a whole. A graph in any number format gains by it."""

    name: str = "cuda_graph"
    known: tuple[str, ...] = tuple(LOWERINGS)
    packed: tuple[str, ...] = tuple(LOWERINGS)
    offered = False
    per_candidate = True
    needs_compiler = False
    any_format = True
    profiles_itself = False
    version = ""

    def lacks(self, device: str) -> str | None:
        return None if torch.device(device).type == "cuda" else "needs a CUDA GPU"

    def names(self, module: GraphModule, inputs: Inputs) -> tuple[str, ...]:
        if any(self.lacks(str(x.device)) for x in inputs):
            return ()
        there = lowerings(module, inputs)
        return tuple(name for name, lowering in LOWERINGS.items() if lowering in there)

    def graph(self, module: GraphModule, inputs: Inputs, name: str) -> GraphModule:
        if name not in self.names(module, inputs):
            return clone(module)
        return lowerings(module, inputs)[LOWERINGS[name]]()

    def node_times(self, module: GraphModule, inputs: Inputs, name: str) -> dict[str, float]:
        return node_times(self.graph(module, inputs, name), inputs)

    def prepare(
        self, module: GraphModule, inputs: Inputs, name: str, blob: bytes | None = None
    ) -> nn.Module:
        """An artifact that was tuned on a GPU runs elsewhere as well, without the recording."""
        graph = without_pytree(self.graph(module, inputs, name))
        return (
            holding(graph) if self.lacks(str(inputs[0].device)) else recorded(graph, module, inputs)
        )

    def blob(self, module: GraphModule, inputs: Inputs) -> bytes | None:
        return None


class Recording:
    """A recorded call. `given` and `outputs` are the memory it reads and writes each time.

    Outputs are copies, so the next call doesn't overwrite them. One call at a time; calls come
    from one stream.
    """

    def __init__(
        self, replay: Callable[[], object], given: Sequence[Tensor], outputs: Sequence[Any]
    ) -> None:
        self._replay, self._given, self._outputs, self._lock = replay, given, outputs, Lock()

    def __call__(self, *flat: Tensor) -> list[Any]:
        with self._lock, torch.no_grad():
            for mine, value in zip(self._given, flat, strict=True):
                mine.copy_(value)
            self._replay()
            return [x.clone() if isinstance(x, Tensor) else x for x in self._outputs]


class Recordings(nn.Module):
    """A recording for each kind of inputs on `device`, made at the first call, at most MOST.

    None for all others, and where a call can't be recorded.
    """

    def __init__(self, record: Callable[[Sequence[Tensor]], Fast], device: torch.device) -> None:
        super().__init__()
        self._record, self._device = record, device
        self._made: dict[Kinds, Fast | None] = {}

    def forward(self, flat: Sequence[Any]) -> Fast | None:
        kind = kinds(flat)
        if kind not in self._made:
            there = all(isinstance(x, Tensor) and x.device == self._device for x in flat)
            if not there or len(self._made) >= MOST:
                return None
            try:
                self.add(flat)
            except MeasureError:
                self._made[kind] = None
        return self._made[kind]

    def add(self, flat: Sequence[Tensor]) -> None:
        self._made[kinds(flat)] = self._record(flat)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Recordings:
        self._made.clear()  # weights are read where they lay when it was recorded
        return self


def recorded(usual: nn.Module, module: GraphModule, inputs: Inputs) -> ShapeGuarded:
    """`usual`, which is `module` lowered for `inputs`, run as CUDA graphs.

    Raises MeasureError where a call with `inputs` can't be recorded.
    """
    recordings = Recordings(lambda flat: record(usual, flat), inputs[0].device)
    recordings.add(inputs.in_order(names_of(module)))
    return ShapeGuarded(usual, module, recordings)


def record(usual: nn.Module, flat: Sequence[Tensor]) -> Recording:
    """A call with inputs like `flat`. Raises MeasureError where CUDA refuses, or as eager does."""
    # Not in inference mode: the memory is written again in later calls, which may be outside it.
    device, plain = torch.cuda.device(flat[0].device), torch.inference_mode(False)
    with plain, torch.no_grad(), device, preserved_state(usual):
        given = [x.clone() for x in flat]
        here = torch.cuda.current_stream()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(here)
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                usual(*given)
        here.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                outputs = usual(*given)
        except RuntimeError as error:
            why = text_line(error)
            raise MeasureError(f"CUDA can't record this model as one graph: {why}") from error
        return Recording(graph.replay, given, pytree.tree_leaves(outputs))
