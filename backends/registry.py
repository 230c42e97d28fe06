"""How a graph runs here: as exported, lowered to fast kernels where that is faster, or compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn
from torch.fx import GraphModule

from ..core.errors import MeasureError, OutputsDiffer, UsageError, text_line
from ..core.model_io import Inputs
from ..core.records import Closeness, LeftAlone
from ..graph.capture import clone
from ..graph.lowering.direct_call import holding, without_pytree
from ..graph.lowering.lower import CUDA_GRAPHS, lowerings
from ..profiling.closeness import PlainOutputs, plain_outputs
from ..profiling.state import kept_state
from ..profiling.timer import measure_interleaved
from .aoti import opened
from .cuda_graph import recorded
from .inductor import INDUCTOR, compiled, why_not

PLAIN = "plain"
LOWERED = "lowered"
PACKED = ("onednn", "onednn_channels_last", *CUDA_GRAPHS)
NAMES = (PLAIN, LOWERED, "folded", "channels_last", *PACKED, INDUCTOR)
WORTH_TRYING = 1.5


def lowered(module: GraphModule, inputs: Inputs, name: str) -> GraphModule:
    """A copy of `module` as runtime `name` (`plain` or a lowering's name) runs it.

    Another machine may not have the kernels a variant was tuned for: there it stays as exported.
    """
    return lowerings(module, inputs).get(name, lambda: clone(module))()


def realise(
    module: GraphModule, inputs: Inputs, name: str, package: bytes | None = None
) -> nn.Module:
    """`lowered`, or compiled, ready to be called. Its operators are no longer the graph's own.

    `package`: the same, compiled before (backends/aoti.py); its native code runs. Raises
    MeasureError where the compiler or CUDA refuses; without a compiler the furthest lowering is
    as near.
    """
    if name != INDUCTOR:
        made = without_pytree(lowered(module, inputs, name))
        if name in CUDA_GRAPHS and inputs[0].device.type == "cuda":
            return recorded(made, module, inputs)
        return made if name == PLAIN else holding(made)
    usual = without_pytree(lowered(module, inputs, packed(module, inputs) or PLAIN))
    if package is not None:
        return opened(package, usual, module, inputs)
    if why_not(str(inputs[0].device)):
        return usual
    return compiled(module, usual, inputs)


def ready(
    module: GraphModule, inputs: Inputs, name: str, package: bytes | None = None
) -> nn.Module | str:
    """What `realise` makes, called once on `inputs`; or why it can't run so here, as words.

    Kernels and compilers refuse in errors of many kinds, some at the call only: whatever they
    raise, the run goes on without them.
    """
    try:
        made = realise(module, inputs, name, package)
        with kept_state(made):
            runner(made, inputs)()
        return made
    except Exception as error:
        return text_line(error)


def first_ready(
    module: GraphModule, inputs: Inputs, names: Iterable[str], say: Callable[[str], None]
) -> tuple[str, nn.Module]:
    """The first of `names` that runs here, and it; `plain` where none does."""
    for name in names:
        made = ready(module, inputs, name)
        if not isinstance(made, str):
            return name, made
        say(left_out(name, made))
    return PLAIN, realise(module, inputs, PLAIN)


def left_out(name: str, reason: str) -> str:
    return f"`{name}` is left out: {reason}"


def named(asked: str | None, recorded: str, module: GraphModule, inputs: Inputs) -> str:
    """The runtime to load under; `lowered` is the one recorded, or the furthest there is here.

    Raises UsageError for a name that there isn't.
    """
    if asked is None:
        return recorded
    if asked not in NAMES:
        raise UsageError(f"the runtime is `{asked}`; allowed are {', '.join(NAMES)}.")
    if asked != LOWERED:
        return asked
    known = recorded not in (PLAIN, INDUCTOR)
    return recorded if known else packed(module, inputs) or PLAIN


def promising(
    module: GraphModule,
    inputs: Inputs,
    runtime: str,
    percentile: float,
    probes: Sequence[Inputs],
) -> tuple[tuple[str, ...], tuple[LeftAlone, ...]]:
    """Names of the runtimes worth trying on variants of `module`, the one measured fastest first.

    And those left out, with the reason: they do not work with this model, or give other outputs
    on `probes` than the plain graph.

    `plain` comes first unless a lowering is measurably faster. A variant with other widths may
    run fastest under another one, so the second stays in where it is within 1.5x. Compiling takes
    too long for every variant: the last one is compiled (tuning/compare_backends.py).
    """
    if runtime == PLAIN:
        return (PLAIN,), ()
    made: dict[str, nn.Module] = {PLAIN: realise(module, inputs, PLAIN)}
    rows: list[LeftAlone] = []
    outputs = plain_outputs(module, probes)
    for name in lowerings(module, inputs):
        try:
            made[name] = agreeing(module, inputs, name, outputs)[0]
        except MeasureError as error:
            rows.append(LeftAlone(runtime_row(name), str(error)))
    device = str(inputs[0].device)
    latencies = measure_interleaved(
        [runner(m, inputs) for m in made.values()], percentile=50.0, max_seconds=3.0, device=device
    )
    measured = dict(zip(made, latencies, strict=True))
    ranked = sorted(measured, key=lambda name: measured[name].value_ms)
    best = measured[ranked[0]]
    if best.high_ms >= measured[PLAIN].low_ms:
        ranked.remove(PLAIN)
        ranked.insert(0, PLAIN)
    worth = (n for n in ranked[:2] if measured[n].value_ms <= WORTH_TRYING * best.value_ms)
    return tuple(worth), tuple(rows)


def agreeing(
    module: GraphModule, inputs: Inputs, name: str, outputs: PlainOutputs
) -> tuple[nn.Module, Closeness]:
    """`ready`, and how near its outputs come to the plain graph's. Errors as of `same_answers`."""
    made = ready(module, inputs, name)
    if isinstance(made, str):
        raise MeasureError(made)
    return made, same_answers(made, outputs, name)


def same_answers(made: nn.Module, outputs: PlainOutputs, name: str) -> Closeness:
    """How near the outputs of `made`, which runs under `name`, come to the plain graph's.

    Raises OutputsDiffer where that is not near enough, MeasureError where it fails on the inputs.
    """
    try:
        found = outputs.closeness(made)
    except Exception as error:
        reason = f"`{name}` fails on this model: {text_line(error)}"
        raise MeasureError(reason) from error
    if not found.holds:
        raise OutputsDiffer(
            f"the outputs of `{name}` differ from the plain graph's by {found.error:.2g} of their "
            f"size; at most {found.allowed:g} is allowed.",
            name,
        )
    return found


def runtime_row(name: str) -> str:
    """What a runtime that is left out is called in a report."""
    return f"runtime `{name}`"


def packed(module: GraphModule, inputs: Inputs) -> str | None:
    """The furthest runtime that runs here: int8 and half precision are fast on packed weights
    alone, and sparse weights on those of a GPU."""
    names = [n for n in reversed(list(lowerings(module, inputs))) if n in PACKED]
    return next((n for n in names if not isinstance(ready(module, inputs, n), str)), None)


def runner(module: nn.Module, inputs: Inputs) -> Callable[[], object]:
    """A call without gradients, as a user's inference loop makes it."""

    def run() -> object:
        with torch.inference_mode():
            return inputs.call(module)

    return run
