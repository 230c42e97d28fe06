"""Statistics of each layer: second moments of its inputs, and how much its outputs matter.

One streamed pass over calibration data: inputs are sampled at random places, gradients are summed
as they come, so memory is bounded by one batch and one matrix [in, in] per layer.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ...core.errors import DataError
from ...core.model_io import Inputs, primary
from ...graph.capture import clone
from ...graph.interpreter import Recorder
from ...graph.layers import Layer, layers_of
from ...graph.train_mode import gradients
from ...profiling.losses import has_classes
from ..plan import Context

EXAMPLES = 256
FEW, SECONDS = 64, 6.0  # a large model has told enough with fewer examples after this time
SAMPLES = 6144
WIDEST = 4096  # above this many input features only the diagonal is kept: it bounds memory
TEMPERATURE = 4.0


@dataclass
class Moment:
    """Of one layer: `gram` [in, in] or [in] sums x x^T over `samples`; `mean` [in] sums x.

    `fisher` [out] sums the squared loss gradient of each output channel over `examples`.
    """

    layer: Layer
    gram: Tensor
    mean: Tensor
    fisher: Tensor
    samples: int = 0
    examples: int = 0

    def covariance(self) -> Tensor:
        """[in, in] or [in] in float64, about the mean."""
        mean = self.mean / max(1, self.samples)
        outer = torch.outer(mean, mean) if self.gram.dim() == 2 else mean * mean
        return self.gram / max(1, self.samples) - outer

    def sensitivity(self) -> Tensor:
        """[out]: d^2 loss / d output^2 of a channel, summed over its places."""
        return self.fisher / max(1, self.examples)


def collect(context: Context) -> dict[str, Moment]:
    """Moments by node name. Raises DataError without data or where outputs are not finite."""
    if context.train is None:
        raise DataError("`importance: compensated` needs training data; use `magnitude`.")
    module = clone(context.module)
    for parameter in module.parameters():
        parameter.requires_grad_(False)  # only the layers' outputs are asked
    watched = _Watched(module)
    generator = torch.Generator(context.device).manual_seed(context.seed)
    seen, started = 0, time.monotonic()
    for inputs, targets in context.train if watched.layers else ():
        given = Inputs.of(inputs).map(lambda x: x.to(context.device))
        examples = len(given[0])
        watched.begin(examples, SAMPLES * examples // EXAMPLES + 1, context.seed + seen)
        with gradients():
            outputs = primary(watched.of(given))
            if not bool(torch.isfinite(outputs).all()):
                raise DataError(
                    "the outputs on the training data are not finite (NaN or infinity)."
                )
            (outputs * direction(outputs.detach(), targets, generator)).sum().backward()
        seen += examples
        if enough(seen, started):
            break
    if not seen and watched.layers:
        raise DataError("the training data is empty.")
    return watched.moments


def enough(seen: int, started: float) -> bool:
    """True if so many examples will do, looked at since `time.monotonic()` was `started`."""
    return seen >= EXAMPLES or (seen >= FEW and time.monotonic() - started > SECONDS)


def direction(outputs: Tensor, targets: Any, generator: torch.Generator) -> Tensor:
    """A random v with E[v v^T] = the curvature of the loss in the outputs, so that E[(v J)^2] is
    the Gauss-Newton diagonal (Martens 2020, section 9.2).

    For classes it is that of cross-entropy with labels drawn from the softened prediction: a net
    that is sure of its answers has no gradient otherwise.
    """
    if not has_classes(outputs, targets):
        noise = torch.randn(outputs.shape, generator=generator, device=outputs.device)
        return noise.to(outputs.dtype) / math.sqrt(max(1, outputs[0].numel()))
    likely = (outputs / TEMPERATURE).softmax(1)
    drawn = torch.multinomial(likely, 1, generator=generator)
    direction: Tensor = likely.scatter_add(1, drawn, -torch.ones_like(likely[:, :1]))
    return direction


def rise(outputs: Tensor, changed: Tensor, targets: Any) -> float:
    """1/2 d^T H d per example, d the change of the outputs, H = E[v v^T] of `direction`."""
    gap = (changed - outputs).double()
    if not has_classes(outputs, targets):
        return 0.5 * float(gap.square().mean())
    likely = (outputs / TEMPERATURE).softmax(1).double()
    mean = (likely * gap).sum(1)
    return 0.5 * float(((likely * gap.square()).sum(1) - mean.square()).mean())


def asked(value: Tensor) -> Tensor:
    """`value` as something that gradients flow to; a copy, since what follows may work in place."""
    return value if value.requires_grad else value.requires_grad_(True).clone()


@dataclass
class _Pass:
    examples: int = 0
    samples: int = 0
    seed: int = 0


class _Watched(Recorder):
    """Runs the graph with gradients, and notes what its layers read and what they matter."""

    def __init__(self, module: GraphModule) -> None:
        super().__init__(module)
        self.layers = {layer.node: layer for layer in layers_of(module)}
        self.moments: dict[str, Moment] = {}
        self._pass = _Pass()

    def begin(self, examples: int, samples: int, seed: int) -> None:
        self._pass = _Pass(examples, samples, seed)

    def run_node(self, n: Node) -> object:
        layer = self.layers.get(n)
        if layer is None:
            return super().run_node(n)
        read: Tensor = self.env[layer.source]
        moment = self.moments.get(n.name) or self._first(n.name, layer, read)
        self._note(moment, read.detach())
        result = asked(super().run_node(n))
        axis = layer.channel_axis
        moment.examples += self._pass.examples
        result.register_hook(lambda g: self._matters(moment, g, axis))  # type: ignore[no-untyped-call]
        return result

    def _first(self, name: str, layer: Layer, read: Tensor) -> Moment:
        width = read.shape[layer.channel_axis]
        weight = self.module.get_parameter(layer.weight)
        shape = (width, width) if width <= WIDEST else (width,)
        new = {"dtype": torch.float64, "device": read.device}
        moment = Moment(
            layer, torch.zeros(shape, **new), torch.zeros(width, **new),  # type: ignore[call-overload]
            torch.zeros(weight.shape[0], **new),  # type: ignore[call-overload]
        )  # fmt: skip
        self.moments[name] = moment
        return moment

    def _note(self, moment: Moment, read: Tensor) -> None:
        flat = read.movedim(moment.layer.channel_axis, -1).reshape(-1, len(moment.mean))
        generator = torch.Generator().manual_seed(self._pass.seed)
        if len(flat) > self._pass.samples:
            chosen = torch.randint(len(flat), (self._pass.samples,), generator=generator)
            flat = flat[chosen.to(flat.device)]
        square = flat.T @ flat if moment.gram.dim() == 2 else flat.square().sum(0)
        moment.gram += square.double()
        moment.mean += flat.sum(0).double()
        moment.samples += len(flat)

    @staticmethod
    def _matters(moment: Moment, grad: Tensor, axis: int) -> None:
        moment.fisher += grad.movedim(axis, -1).square().flatten(0, -2).sum(0).double()
