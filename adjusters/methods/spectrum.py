"""Directions in which a layer's outputs vary on training data, and what each rank loses of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from ...core.model_io import Inputs
from ...graph.capture import tensor_at
from ...graph.interpreter import Recorder
from ...graph.layers import Layer, outputs_at, patches_at, sample_positions
from ..plan import Context
from .calibration import batches

SAMPLES = 8192
WIDE = 1024


@dataclass
class OuterSums:
    """Sums of samples [n] and their outer products [n, n]: of a layer's outputs, or of its inputs
    where those are fewer numbers or are what is wanted."""

    of_outputs: bool
    samples: int
    total: Tensor
    square: Tensor

    @classmethod
    def of(cls, weight: Tensor, inputs: bool = False) -> OuterSums:
        outs, features = len(weight), weight[0].numel()
        size = features if inputs else min(outs, features)
        # Patches are wide: 512 channels of 3x3 would take 170 MB in float64.
        new = {"dtype": torch.float32 if size > WIDE else torch.float64, "device": weight.device}
        outputs = not inputs and outs <= features
        return cls(outputs, 0, torch.zeros(size, **new), torch.zeros(size, size, **new))  # type: ignore[call-overload]

    def note(self, samples: Tensor) -> None:
        self.samples += len(samples)
        self.total += samples.sum(0)
        self.square += samples.T @ samples

    def mean(self) -> Tensor:
        return self.total / max(1, self.samples)

    def covariance(self) -> Tensor:
        return self.square / max(1, self.samples) - torch.outer(self.mean(), self.mean())


@dataclass(frozen=True)
class Spectrum:
    """`basis` [out, full rank] of a layer's outputs, the most varying direction first; `variance`
    along each; `mean` [out] of the outputs."""

    basis: Tensor
    variance: Tensor
    mean: Tensor

    def error(self, rank: int) -> float:
        """Fraction of the outputs' variance that is lost at `rank`."""
        whole = float(self.variance.sum())
        return float(self.variance[rank:].sum()) / whole if whole > 0 else 0.0

    def rank(self, max_error: float) -> int:
        """The least with at most this error."""
        whole = float(self.variance.sum())
        left = whole - self.variance.cumsum(0)
        return int((left > max_error * whole).sum()) + 1

    def bias(self, rank: int, bias: Tensor) -> Tensor:
        """[out]: `bias` and the mean of what is cut off."""
        u = self.basis[:, :rank]
        return self.mean - u @ (u.T @ (self.mean - bias.double()))


def spectrum(weight: Tensor, bias: Tensor, seen: OuterSums | None) -> Spectrum:
    """Of the layer with `weight` [out, in, *kernel]; all inputs count alike without `seen`."""
    wide, shift = weight.detach().double().flatten(1), bias.double()
    if seen is None or not seen.samples:
        basis, values, _ = torch.linalg.svd(wide, full_matrices=False)
        return Spectrum(basis, values.square(), shift)
    if seen.of_outputs:
        values, vectors = torch.linalg.eigh(seen.covariance())
        return Spectrum(vectors.flip(1), values.flip(0).clamp_min(0), seen.mean())
    if len(wide) <= wide.shape[1]:
        read = wide.to(seen.square.dtype)
        values, vectors = torch.linalg.eigh((read @ seen.covariance() @ read.T).double())
        mean = wide @ seen.mean().double() + shift
        return Spectrum(vectors.flip(1), values.flip(0).clamp_min(0), mean)
    # The root of the inputs' covariance, from its eigenvectors: it may well be singular.
    values, vectors = torch.linalg.eigh(seen.covariance().double())
    root = vectors * values.clamp_min(0).sqrt()
    basis, values, _ = torch.linalg.svd(wide @ root, full_matrices=False)
    return Spectrum(basis, values.square(), wide @ seen.mean() + shift)


def observe_layers(
    context: Context, layers: Iterable[Layer], examples: int, inputs: Collection[Node] = ()
) -> dict[Node, OuterSums]:
    """Second moments of what passes through `layers` of the context's module on training data;
    empty without.

    Of those in `inputs` what they read.
    """
    watched = _Watched(context, layers, inputs)
    with torch.no_grad():
        for given in batches(context, examples):
            watched.samples = SAMPLES * len(given[0]) // examples + 1
            watched.of(given)
    return watched.seen


class _Watched(Recorder):
    def __init__(self, context: Context, layers: Iterable[Layer], inputs: Collection[Node]) -> None:
        super().__init__(context.module)
        self.layers = {layer.node: layer for layer in layers}
        self.weights = {n: tensor_at(context.module, o.weight) for n, o in self.layers.items()}
        self.seen: dict[Node, OuterSums] = {}
        self.samples, self.number, self.inputs = SAMPLES, 0, inputs

    def run_node(self, n: Node) -> object:
        layer = self.layers.get(n)
        if layer is None:
            return super().run_node(n)
        read, weight = self.env[layer.source], self.weights[n]
        seen = self.seen.get(n) or self.seen.setdefault(n, OuterSums.of(weight, n in self.inputs))
        output = super().run_node(n)
        self.number += 1
        where = sample_positions(layer, output, self.samples, seed=self.number)
        if seen.of_outputs:
            seen.note(outputs_at(layer, output, where))
        else:
            seen.note(patches_at(layer, read, weight.shape[2:], where).flatten(1))
        return output


def layer_inputs(context: Context, layers: Iterable[Layer]) -> dict[Node, Tensor]:
    """The tensor that each layer reads on the context's inputs."""
    watched = Recorder(context.module, {layer.source.name for layer in layers}, copy=True)
    with torch.no_grad():
        watched.of(Inputs.of(context.inputs))
    return {layer.node: watched.values[layer.source.name] for layer in layers}
