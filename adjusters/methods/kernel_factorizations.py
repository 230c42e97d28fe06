"""Convolutions split along the axes of their kernel or around few channels, by what they read.

The codes of graph/edits/kernel_factoring.py are chosen by the covariance of what is read at one
place of the kernel; the layer behind them is then fitted to the outputs by least squares, where
the whole patch counts, pulled toward the weights it would have without.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import partial
from math import prod

import torch
from torch import Tensor
from torch.fx import GraphModule

from ...graph.edits.apply import SpatialFactor, TuckerFactor
from ...graph.edits.kernel_factoring import (
    by_channels,
    by_rows,
    encoder,
    names,
    spatial_weights,
    tucker_weights,
)
from ...graph.layers import Layer
from .factorizations import STEPS, Factorization, bias_name, stepped, weight_and_bias
from .spectrum import OuterSums

RIDGE = 0.005  # of the codes' mean variance, as `compensate` has it
SHARES = 12  # input ranks that are looked at for each layer


class Encoded:
    """W[o, p, t] ~ sum_r K[o, r, t] P[r, p] for every rank at once: codes come in order.

    `weight` [out, p, t]; `seen` holds samples of p x t numbers, None: all count alike.
    """

    def __init__(self, weight: Tensor, seen: OuterSums | None, most: int) -> None:
        _, parts, kernel_positions = weight.shape
        self.weight = wide = weight.double()
        kernel = (parts, kernel_positions)
        self.mean = None if seen is None else seen.mean().double().reshape(kernel)
        square = None if seen is None else seen.covariance().reshape(*kernel * 2)
        metric = None if square is None else square.diagonal(dim1=1, dim2=3).mean(-1)
        codes, plain = encoder(weight, metric)
        self.codes, self.plain = codes[:most], plain[:, :most]
        if square is None:
            eye = torch.eye(kernel_positions, dtype=wide.dtype, device=wide.device)
            self.gram = torch.einsum("rs,tu->rtsu", self.codes @ self.codes.T, eye)
            read = wide
        else:
            few = self.codes.to(square.dtype)
            self.gram = torch.einsum("rtqu,sq->rtsu", torch.tensordot(few, square, 1), few).double()
            flat = square.reshape(parts * kernel_positions, -1)
            read = (wide.flatten(1).to(square.dtype) @ flat).double().reshape(weight.shape)
        self.cross = torch.einsum("opt,rp->ort", read, self.codes)
        self.total = float((read * wide).sum())

    def fitted(self, rank: int) -> tuple[Tensor, Tensor, Tensor]:
        """K, and what codes share with each other and with the outputs; kernels are flattened."""
        size = rank * self.plain.shape[2]
        gram = self.gram[:rank, :, :rank].reshape(size, size)
        cross, plain = self.cross[:, :rank].flatten(1), self.plain[:, :rank].flatten(1)
        pull = RIDGE * gram.diagonal().mean().clamp_min(1e-30) * torch.eye(size).to(gram)
        return plain + torch.linalg.solve(gram + pull, (cross - plain @ gram).T).T, gram, cross

    def error(self, rank: int) -> float:
        """Fraction of the outputs' variance that is lost."""
        decoder, gram, cross = self.fitted(rank)
        kept = (decoder * (2 * cross - decoder @ gram)).sum()
        return 1.0 - float(kept) / max(self.total, 1e-30)

    def directions(self, rank: int) -> tuple[Tensor, Tensor]:
        """Of the outputs, the most varying first [out, out], and what is lost after each [out]."""
        decoder, gram, cross = self.fitted(rank)
        near, both = decoder @ gram @ decoder.T, cross @ decoder.T
        basis = torch.linalg.eigh(near)[1].flip(1)
        shares = ((basis.T @ (both + both.T - near)) * basis.T).sum(1)
        return basis, 1.0 - shares.cumsum(0) / max(self.total, 1e-30)

    def bias(self, bias: Tensor, decoder: Tensor) -> Tensor:
        """[out]: `bias` and the mean of what `decoder` [out, codes x kernel positions] loses."""
        if self.mean is None:
            return bias
        codes = self.codes[: decoder.shape[1] // self.mean.shape[1]] @ self.mean
        whole = self.weight.flatten(1) @ self.mean.flatten()
        return (bias.double() + whole - decoder @ codes.flatten()).to(bias.dtype)


def spatial_splits(
    module: GraphModule, layer: Layer, seen: OuterSums | None, max_error: float
) -> list[Factorization]:
    """k x 1, then 1 x k, at the least rank that is within `max_error` and steps above it."""
    weight, _ = weight_and_bias(module, layer)
    out, ins, rows, columns = weight.shape
    each = ins * rows * layer.stride[1] + out * columns
    most = min(ins * rows, out * columns, (weight.numel() - 1) // each)
    encoded = Encoded(by_rows(weight), seen, most)
    least = bisect_left(range(1, most + 1), -max_error, key=lambda r: -encoded.error(r)) + 1
    return [
        Factorization(
            f"spatial, rank {rank}",
            SpatialFactor(layer.node.name, rank),
            encoded.error(rank),
            rank * each,
            partial(_spatial, module, layer, encoded, rank),
        )
        for rank in (stepped(least, most) if least <= most else ())
    ]


def _spatial(module: GraphModule, layer: Layer, encoded: Encoded, rank: int) -> dict[str, Tensor]:
    weight, bias = weight_and_bias(module, layer)
    decoder, _, _ = encoded.fitted(rank)
    second = decoder.reshape(len(weight), rank, -1)
    parts = spatial_weights(encoded.codes[:rank], second, weight.shape[2])
    return _named(module, layer, parts, encoded.bias(bias, decoder))


def tucker_splits(
    module: GraphModule, layer: Layer, seen: OuterSums | None, max_error: float
) -> list[Factorization]:
    """1x1, k x k, 1x1 at the ranks within `max_error` that multiply least, and steps above them."""
    weight, _ = weight_and_bias(module, layer)
    out, ins = weight.shape[:2]
    encoded = Encoded(by_channels(weight), seen, ins)

    def split(first: int, second: int, error: float) -> Factorization:
        cost = first * (ins * prod(layer.stride) + second * prod(weight.shape[2:])) + second * out
        values = partial(_tucker, module, layer, encoded, (first, second))
        edit = TuckerFactor(layer.node.name, (first, second))
        return Factorization(f"tucker, ranks {first} and {second}", edit, error, cost, values)

    best: Factorization | None = None
    for first in sorted({-(-ins * share // SHARES) for share in range(1, SHARES)}):
        lost = encoded.directions(first)[1]
        second = int((lost > max_error).sum()) + 1
        if second > out:
            continue
        candidate = split(first, second, float(lost[second - 1]))
        if best is not None and candidate.cost >= best.cost:
            break
        best = candidate
    if best is None or best.cost >= weight.numel():
        return []
    first, second = best.edit.ranks  # type: ignore[union-attr]
    pairs = {(_up(first, step, ins), _up(second, step, out)) for step in STEPS} - {(first, second)}
    more = (split(a, b, float(encoded.directions(a)[1][b - 1])) for a, b in sorted(pairs))
    return [best, *(w for w in more if w.cost < weight.numel())]


def _up(rank: int, step: int, most: int) -> int:
    return min(most, -(-rank // step) * step)


def _tucker(
    module: GraphModule, layer: Layer, encoded: Encoded, ranks: tuple[int, int]
) -> dict[str, Tensor]:
    weight, bias = weight_and_bias(module, layer)
    last = encoded.directions(ranks[0])[0][:, : ranks[1]]
    core = last.T @ encoded.fitted(ranks[0])[0]
    kernel = tuple(weight.shape[2:])
    parts = tucker_weights(
        encoded.codes[: ranks[0]], core.reshape(ranks[1], ranks[0], -1), last, kernel
    )
    return _named(module, layer, parts, encoded.bias(bias, last @ core))


def _named(
    module: GraphModule, layer: Layer, parts: tuple[Tensor, ...], bias: Tensor
) -> dict[str, Tensor]:
    called = names(module, layer.weight, len(parts))
    weights = dict(zip(called, (part.to(bias.dtype) for part in parts), strict=True))
    return weights | {bias_name(layer, called[-1]): bias}
