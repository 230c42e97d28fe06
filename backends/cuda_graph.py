"""One CUDA graph per shape of inputs: all kernels of a call are launched at once.

At batch 1 a GPU waits for Python and for launches; a recorded graph needs neither (CUDA C++
Programming Guide, "CUDA Graphs"; `torch.cuda.graph`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from threading import Lock, RLock
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
MOST = 8  # shapes; their activations share memory, inputs and outputs have their own
_RECORDING = RLock()  # one at a time in a process; another thread may only use the GPU
# Recordings that failed: torch's allocator keeps pointers to them.
_FAILED: list[torch.cuda.CUDAGraph] = []
LOWERINGS = {"cuda_graph": "folded", "cuda_graph_channels_last": "channels_last"}


class CudaGraph:
    """A lowering recorded as a whole. A graph in any number format gains by it."""

    name: str = "cuda_graph"
    known: tuple[str, ...] = tuple(LOWERINGS)
    packed: tuple[str, ...] = tuple(LOWERINGS)
    offered = False
    per_candidate = True
    by_shape = True
    needs_compiler = False
    any_format = True
    profiles_itself = True  # around a call of one small kernel lies mostly its launch
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
        return node_times(self.graph(module, inputs, name), inputs, launched=False)

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


@dataclass
class Together:
    """Memory of activations and the turn to use it, which the recordings of one module share.

    So one call at a time. Outputs are copied out before the next one.
    """

    lock: Lock = field(default_factory=Lock)
    _pool: Any = None
    _stream: torch.cuda.Stream | None = None

    def pool(self) -> Any:
        """A handle of the memory, as torch gives it out."""
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        return self._pool

    def new_pool(self) -> None:
        """For the recordings to come: what one that failed leaves in the old one is not known."""
        self._pool = None

    def in_order(self, device: torch.device) -> None:
        """A call from another stream than the last one's waits for that."""
        if device.type != "cuda":
            return
        here = torch.cuda.current_stream(device)
        if self._stream is not None and self._stream != here:
            here.wait_stream(self._stream)
        self._stream = here


class Recording:
    """A recorded call. `given` and `outputs` are the memory it reads and writes each time.

    Outputs are copies, so the next call doesn't overwrite them.
    """

    def __init__(
        self,
        replay: Callable[[], object],
        given: Sequence[Tensor],
        outputs: Sequence[Any],
        together: Together,
    ) -> None:
        self._replay, self._given, self._outputs = replay, given, outputs
        self._together = together

    def __call__(self, *flat: Tensor) -> list[Any]:
        with self._together.lock, torch.no_grad():
            self._together.in_order(self._given[0].device)
            for mine, value in zip(self._given, flat, strict=True):
                mine.copy_(value)
            self._replay()
            return [x.clone() if isinstance(x, Tensor) else x for x in self._outputs]


class Recordings(nn.Module):
    """A recording for each kind of inputs on `device`, made at the first call, at most MOST.

    None for all others, and where a call can't be recorded.
    """

    def __init__(
        self, record: Callable[[Sequence[Tensor], Together], Fast], device: torch.device
    ) -> None:
        super().__init__()
        self._record, self._device = record, device
        self._made: dict[Kinds, Fast | None] = {}
        self._together = Together()

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
        self._made[kinds(flat)] = self._record(flat, self._together)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Recordings:
        self._made.clear()  # weights are read where they lay when it was recorded
        self._together = Together()  # memory that no recording uses any more is gone
        return self


def recorded(usual: nn.Module, module: GraphModule, inputs: Inputs) -> ShapeGuarded:
    """`usual`, which is `module` lowered for `inputs`, run as CUDA graphs.

    Raises MeasureError where a call with `inputs` can't be recorded.
    """
    recordings = Recordings(lambda flat, together: record(usual, flat, together), inputs[0].device)
    recordings.add(inputs.in_order(names_of(module)))
    return ShapeGuarded(usual, module, recordings)


def recorded_call(fast: Fast, given: Sequence[Tensor]) -> Fast:
    """`fast`, which takes inputs like `given` alone, as a CUDA graph; as it is where there is none.

    Compiled code still launches one kernel after the other.
    """
    if given[0].device.type != "cuda":
        return fast
    try:
        return record(fast, given)
    except MeasureError:
        return fast


def record(
    usual: Callable[..., Any], flat: Sequence[Tensor], together: Together | None = None
) -> Recording:
    """A call with inputs like `flat`. Raises MeasureError where CUDA refuses, or as eager does."""
    together = together or Together()
    # Not in inference mode: the memory is written again in later calls, which may be outside it.
    device, plain = torch.cuda.device(flat[0].device), torch.inference_mode(False)
    state = preserved_state(usual) if isinstance(usual, nn.Module) else nullcontext()
    with _RECORDING, plain, torch.no_grad(), device, state:
        given = [x.clone() for x in flat]
        here = torch.cuda.current_stream()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(here)
        try:
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    usual(*given)
        finally:
            here.wait_stream(side)
        try:
            with _never_waiting():
                usual(*given)
            replay, outputs = _captured(usual, given, together.pool())
        except RuntimeError as error:
            together.new_pool()
            why = text_line(error)
            raise MeasureError(f"CUDA can't record this model as one graph: {why}") from error
        return Recording(replay, given, pytree.tree_leaves(outputs), together)


@contextmanager
def _never_waiting() -> Iterator[None]:
    """Raises RuntimeError where the CPU waits for the GPU, which CUDA can't record.

    Known beforehand, since a recording that fails leaves torch's allocator in a state of its own.
    A warning of torch tells, not an error: the mode holds for other threads, too.
    """
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
    if waits := [str(w.message) for w in seen if "synchronizing CUDA operation" in str(w.message)]:
        raise RuntimeError(waits[0].partition(" (Triggered")[0])


def _captured(
    usual: Callable[..., Any], given: Sequence[Tensor], pool: Any
) -> tuple[Callable[[], object], Any]:
    """The replay of one call and its outputs. Raises RuntimeError where CUDA refuses."""
    graph = torch.cuda.CUDAGraph()
    # Other threads may go on using the GPU. Where recording fails, `torch.cuda.graph` leaves its
    # own stream behind as the current one, which the outer block sets right.
    recording = torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local")
    try:
        with torch.cuda.stream(torch.cuda.current_stream()), recording:
            outputs = usual(*given)
    except RuntimeError:
        _FAILED.append(graph)
        with suppress(RuntimeError, AttributeError):  # else nothing is recorded any more
            torch._C._cuda_endAllocateToPool(given[0].device.index or 0, pool)
        raise
    return graph.replay, outputs
