"""Every back end, one row each, and what the rooms above ask of a runtime by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from torch import nn
from torch.fx import GraphModule

from ..core.errors import MeasureError, UsageError
from ..core.files import MAX_PACKAGE_BYTES
from ..core.model_io import Inputs
from .cuda_graph import CudaGraph
from .inductor import Inductor
from .lowered import LOWERED as LOWERED
from .lowered import Lowered
from .onnxruntime import OnnxRuntime
from .openvino import OpenVino
from .plain import PLAIN as PLAIN
from .plain import Plain
from .protocol import Backend, KeepsModel
from .readiness import called_once, furthest

# Of two that are both the furthest, the later row is tried first.
BACKENDS: tuple[Backend, ...] = (
    Plain(), OpenVino(), OnnxRuntime(), Lowered(), CudaGraph(), Inductor()
)  # fmt: skip
AUTO = "auto"  # asked for, not run: whichever back end is fastest
_BY_NAME = {name: backend for backend in BACKENDS for name in backend.known}
NAMES = tuple(_BY_NAME)
OFFERED = (AUTO, *(b.name for b in BACKENDS if b.offered))
OTHERS = tuple(b.name for b in BACKENDS if b.offered and b.name not in (PLAIN, LOWERED))


def backend_of(name: str) -> Backend:
    """Raises UsageError for a name that there isn't."""
    if name not in _BY_NAME:
        raise UsageError(f"the runtime is `{name}`; allowed are {', '.join(NAMES)}.")
    return _BY_NAME[name]


def requires(name: str, device: str) -> None:
    """Raises UsageError if this machine lacks what runtime `name` needs on `device`."""
    if name != AUTO and (reason := backend_of(name).lacks(device)):
        raise UsageError(f"`--runtime {name}` {reason}; add that, or use `--runtime {AUTO}`.")


def missing(device: str) -> dict[str, str]:
    """Runtimes that a user may ask for and this machine lacks something for, with what it is."""
    reasons = {name: backend_of(name).lacks(device) for name in OTHERS}
    return {name: reason for name, reason in reasons.items() if reason}


def library_version(name: str) -> str:
    """The version of the library that runtime `name` needs; empty where that is torch."""
    return backend_of(name).version


def library_versions() -> tuple[str, ...]:
    """Of all that are installed, with the names of their back ends."""
    return tuple(f"{b.name} {b.version}" for b in BACKENDS if b.version)


def is_compiled(name: str) -> bool:
    """True if preparing it takes a compiler and minutes."""
    return name != AUTO and backend_of(name).needs_compiler


def is_last(name: str) -> bool:
    """True if preparing it takes too long for candidates, so only the last variant is prepared."""
    return name != AUTO and not backend_of(name).per_candidate


def last_names(module: GraphModule, inputs: Inputs, asked: str) -> tuple[str, ...]:
    """Runtimes that only the last variant is timed under, where the user lets us choose."""
    late = (b for b in BACKENDS if not b.per_candidate and not b.needs_compiler)
    return tuple(n for b in late for n in b.names(module, inputs)) if asked == AUTO else ()


def keeps_runtime(name: str) -> bool:
    """True if graphs in another number format can keep the runtime `name`."""
    return backend_of(name).any_format


def candidate_names(module: GraphModule, inputs: Inputs, asked: str = AUTO) -> tuple[str, ...]:
    """Runtimes beside `plain` that each candidate of a search may be timed under here.

    `asked` is the user's word. A back end that takes seconds to prepare tries its candidates as
    `lowered` does.
    """
    if is_last(asked):
        asked = LOWERED
    backends = (b for b in BACKENDS if b.per_candidate and b.name != PLAIN)
    return tuple(
        name
        for backend in backends
        if asked in (AUTO, _asked_for(backend))
        for name in backend.names(module, inputs)
    )


def lowered(module: GraphModule, inputs: Inputs, name: str) -> GraphModule:
    """A copy of `module` with the operators that runtime `name` runs (see `Backend.graph`)."""
    return backend_of(name).graph(module, inputs, name)


def runtime_node_times(module: GraphModule, inputs: Inputs, name: str) -> dict[str, float]:
    """ms of each node as runtime `name` runs it (see `Backend.node_times`)."""
    return backend_of(name).node_times(module, inputs, name)


def profiles_itself(name: str) -> bool:
    """True if layers are to be timed by `node_times`, not by calling each alone."""
    return backend_of(name).profiles_itself


def prepares_by_shape(name: str) -> bool:
    """True if the first call at another shape of inputs takes long."""
    return backend_of(name).by_shape


def prepare(module: GraphModule, inputs: Inputs, name: str, blob: bytes | None = None) -> nn.Module:
    """`module` under runtime `name`, ready to be called. Its operators are no longer the graph's.

    `blob`: the same, compiled before; its native code runs. Raises MeasureError if the compiler or
    CUDA refuses; without a compiler the furthest lowering is as near.
    """
    return backend_of(name).prepare(module, inputs, name, blob)


def kept_model(module: GraphModule, inputs: Inputs, name: str) -> dict[str, bytes]:
    """Files of `module` as the library of runtime `name` has it; none where torch runs it.

    Raises MeasureError where they can't be kept.
    """
    backend = backend_of(name)
    files = backend.kept_model(module, inputs) if isinstance(backend, KeepsModel) else {}
    if any(len(content) > MAX_PACKAGE_BYTES for content in files.values()):
        raise MeasureError(f"the converted graph is larger than {MAX_PACKAGE_BYTES >> 30} GB")
    return files


def opens_files(name: str, device: str) -> bool:
    """True if runtime `name` keeps files in artifacts, and this machine has what opens them."""
    backend = backend_of(name)
    return isinstance(backend, KeepsModel) and backend.opens_files(device)


def reopened(
    module: GraphModule, inputs: Inputs, name: str, files: Mapping[str, bytes]
) -> nn.Module | str:
    """`ready` from the files that `kept_model` gave, or the reason why they are of no use here."""
    backend = backend_of(name)
    if not isinstance(backend, KeepsModel) or set(files) != set(backend.files):
        return "its files are another runtime's"
    return called_once(lambda: backend.reopened(module, inputs, files), inputs)


def blob_of(module: GraphModule, inputs: Inputs, name: str) -> bytes | None:
    """`module` compiled ahead of time under runtime `name`, None where nothing is to be kept.

    Raises MeasureError with the compiler's first line if it fails.
    """
    return backend_of(name).blob(module, inputs)


def ready(
    module: GraphModule, inputs: Inputs, name: str, blob: bytes | None = None
) -> nn.Module | str:
    """The module that `prepare` makes, called once on `inputs`; or the reason it can't run here."""
    return called_once(lambda: prepare(module, inputs, name, blob), inputs)


def first_ready(
    module: GraphModule, inputs: Inputs, names: Iterable[str], say: Callable[[str], None]
) -> tuple[str, nn.Module]:
    """The first of `names` that runs here, and it; `plain` if none does."""
    for name in names:
        runnable = ready(module, inputs, name)
        if not isinstance(runnable, str):
            return name, runnable
        say(f"`{name}` is left out: {runnable}")
    return PLAIN, prepare(module, inputs, PLAIN)


def resolve(asked: str | None, recorded: str, module: GraphModule, inputs: Inputs) -> str:
    """The runtime to load under; `lowered` is the one recorded, or the furthest there is here.

    Raises UsageError for a name that there isn't.
    """
    if asked is None or asked == AUTO:
        return recorded
    backend_of(asked)
    if asked != LOWERED:
        return asked
    if _asked_for(backend_of(recorded)) == LOWERED:
        return recorded
    return furthest_lowering(module, inputs) or PLAIN


def _asked_for(backend: Backend) -> str:
    """The word of the user's that stands for it, beside AUTO."""
    return backend.name if backend.offered else LOWERED


def furthest_lowering(module: GraphModule, inputs: Inputs) -> str | None:
    """The furthest runtime that runs here and needs no compiler, None if there is only `plain`."""
    choice = furthest((b for b in BACKENDS if b.per_candidate), module, inputs)
    return choice[1] if choice else None
