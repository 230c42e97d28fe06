"""The range of an activation, from what training data shows, as scale and zero point of uint8."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from ...core.model_io import Batches, Inputs
from ...graph.capture import has_dynamic_batch
from ..plan import Context

SAMPLES = 4096  # values kept per batch and activation
OUTSIDE = 1e-4  # fraction of the values that `percentile` cuts off, half at each end
SHRINKS = 40  # ranges that `mse` tries, from 1/40 of what was seen to all of it


@dataclass
class ObservedRange:
    """Least and greatest value of one activation, and some of its values."""

    low: float = 0.0
    high: float = 0.0
    samples: list[Tensor] = field(default_factory=list)

    def note(self, value: Tensor, generator: torch.Generator) -> None:
        flat = value.detach().reshape(-1)
        self.low, self.high = min(self.low, float(flat.min())), max(self.high, float(flat.max()))
        if len(flat) > SAMPLES:
            flat = flat[torch.randint(len(flat), (SAMPLES,), generator=generator).to(flat.device)]
        self.samples.append(flat.cpu().clone())

    def steps(self, calibration: str, levels: int) -> tuple[float, int]:
        """(scale, zero point) for `levels` + 1 steps; 0 is always one of them."""
        low, high = self.low, self.high
        values = torch.cat(self.samples)
        if calibration == "percentile":
            cut = round(len(values) * OUTSIDE / 2)
            low = min(0.0, float(values.kthvalue(cut + 1).values))
            high = max(0.0, float(values.kthvalue(len(values) - cut).values))
        if calibration != "mse":
            return _steps(low, high, levels)
        tried = [_steps(low * i / SHRINKS, high * i / SHRINKS, levels)
                 for i in range(1, SHRINKS + 1)]  # fmt: skip
        return min(tried, key=lambda steps: _error(values, steps[0], steps[1], levels))


def _steps(low: float, high: float, levels: int) -> tuple[float, int]:
    scale = max(high - low, 1e-12) / levels
    return scale, min(levels, max(0, round(-low / scale)))


def _error(values: Tensor, scale: float, zero_point: int, levels: int) -> float:
    near = (values / scale).round().clamp(-zero_point, levels - zero_point) * scale
    return float((near - values).square().mean())


def batches(context: Context, examples: int) -> Iterable[Inputs]:
    """Inputs of the training data until `examples` have passed."""
    seen = 0
    for inputs, _ in context.train or ():
        if seen >= examples:
            break
        given = Inputs.of(inputs).like(context.inputs).map(lambda x: x.to(context.device))
        seen += given.batch
        yield given


def one_batch(
    train: Batches, module: GraphModule, examples: int, like: Inputs | None = None
) -> Inputs:
    """The same as one batch, on the CPU; the first alone where `module` takes no other number.

    `like`: inputs laid out as those of `train`. What has no batch is taken from the first, and what
    has other sizes than the first is left out.
    """
    parts: list[Inputs] = []
    for inputs, _ in train:
        given = Inputs.of(inputs).like(like) if like is not None else Inputs.of(inputs)
        if parts and not _of_one_size(parts[0], given):
            continue
        parts.append(given)
        enough = sum(part.batch for part in parts) >= examples
        if enough or not has_dynamic_batch(module, parts[0]):
            break
    columns = zip(zip(*parts, strict=True), parts[0].axes, strict=True)
    joined = iter([c[0] if axis is None else torch.cat(c, axis) for c, axis in columns])
    return parts[0].map(lambda _: next(joined))


def _of_one_size(a: Inputs, b: Inputs) -> bool:
    """True if they can be put together along the batch."""
    return len(a) == len(b) and all(
        x.dim() == y.dim() and all(x.shape[n] == y.shape[n] for n in range(x.dim()) if n != axis)
        for x, y, axis in zip(a, b, a.axes, strict=True)
    )


def observe(
    context: Context, module: GraphModule, reads: Mapping[Node, set[int]], examples: int
) -> dict[str, ObservedRange]:
    """By the name of its node: what passed through each argument that `reads` names."""
    watched = _Watched(module, reads, context.seed)
    names = [n.name for n in module.graph.nodes if n.op == "placeholder"]
    with torch.no_grad():
        for given in batches(context, examples):
            watched.seen_now = set()
            watched.run(*given.in_order(names), enable_io_processing=False)
    return watched.seen


class _Watched(Interpreter):
    def __init__(self, module: GraphModule, reads: Mapping[Node, set[int]], seed: int) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.reads, self.seen = reads, dict[str, ObservedRange]()
        self.seen_now: set[str] = set()
        self.generator = torch.Generator().manual_seed(seed)

    def run_node(self, n: Node) -> object:
        if n.op == "call_module":  # torch.export's input checks, not part of the model
            return None
        for place in self.reads.get(n, ()):
            source = n.args[place]
            assert isinstance(source, Node)
            if source.name not in self.seen_now:  # one value, however many layers read it
                self.seen_now.add(source.name)
                self.seen.setdefault(source.name, ObservedRange()).note(
                    self.env[source], self.generator
                )
        return super().run_node(n)
