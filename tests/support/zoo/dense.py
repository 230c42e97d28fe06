"""Nets without attention over vectors: layers shared, tied, gated, pooled, recurrent."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .entry import IDS, TOKENS, VECTOR, entry


@entry(VECTOR, {"a": 8, "b": 7})
class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(10, 8), nn.Linear(8, 7), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.b(F.leaky_relu(self.a(x)))))


@entry(VECTOR, {"up": 8})
class TiedAutoencoder(nn.Module):
    """The decoder is the encoder's weight, transposed: one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(10, 8)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.up(x)) @ self.up.weight


@entry((*VECTOR, VECTOR[0][:, :6].cos()), {"left": 7, "right": 6})
class TwoTower(nn.Module):
    """Two inputs, two towers, joined at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(10, 7), nn.Linear(6, 6)
        self.head = nn.Linear(13, 4)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.head(torch.cat([self.left(x), self.right(y)], -1))


@entry(
    (*VECTOR, VECTOR[0][:, :6].cos()),
    {"left.0": 9, "right.0": 8},
    frozen={"left.2.bias": "reduces over it"},
)
class Clip(nn.Module):
    """Two towers that meet in an inner product, which needs all of the width."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Linear(10, 9), nn.GELU(), nn.Linear(9, 5))
        self.right = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 5))
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.scale * (self.left(x) * self.right(y)).sum(-1, keepdim=True)


@entry(VECTOR, {"trunk": 8, "a": 5})
class MultiHead(nn.Module):
    """Several outputs, one of them from the trunk itself."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.a = nn.Linear(10, 8), nn.Linear(8, 5)
        self.one, self.two = nn.Linear(5, 3), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.trunk(x))
        return self.one(F.relu(self.a(x))), self.two(x)


@entry(VECTOR, {}, frozen={"trunk.weight": "model's output"})
class FeatureOutput(nn.Module):
    """Features that the caller sees keep their width."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.head = nn.Linear(10, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.trunk(x))
        return self.head(x), x


@entry(VECTOR, {"stem": 8})
class SharedLayer(nn.Module):
    """One layer used twice: its outputs are its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.twice, self.head = nn.Linear(10, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head(F.relu(self.twice(F.relu(self.twice(x)))))


@entry(TOKENS, {"gate": 7})
class Glu(nn.Module):
    """glu halves its input: unit and gate go together."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.head = nn.Linear(12, 14), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.glu(self.gate(x), -1))


@entry(VECTOR, {"pieces": 5})
class Maxout(nn.Module):
    """The largest of three pieces: a unit is its three rows."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces, self.head = nn.Linear(10, 15), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pieces(x).view(-1, 5, 3).amax(-1))


@entry(TOKENS, {}, frozen={"cell.weight_ih_l0": "lstm", "cell.weight_hh_l0": "lstm"})
class Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(12, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0])


@entry(TOKENS, {"after": 7}, frozen={"cell.weight_hh_l0": "gru"})
class Gru(nn.Module):
    """What comes after a recurrent layer is pruned as ever."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(12, 8, batch_first=True, bidirectional=True)
        self.after, self.head = nn.Linear(16, 7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.after(self.cell(x)[0].mean(1))))


@entry(IDS, {"place": 9})
class SummedEmbeddings(nn.Module):
    """Without a norm the width of embeddings can shrink."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(7, 9), nn.Parameter(torch.randn(5, 9))
        self.head = nn.Linear(9, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head((self.token(ids) + self.place).mean(1))


@entry(VECTOR, {"a": 8})
class Prelu(nn.Module):
    """A learned slope per neuron."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.act, self.head = nn.Linear(10, 8), nn.PReLU(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.a(x)))


@entry(VECTOR, {"a": 8})
class Buffers(nn.Module):
    """Constants outside layers shrink with what they scale."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = nn.Linear(10, 8), nn.Linear(8, 3)
        self.register_buffer("shift", torch.arange(8.0))
        self.gain = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.where(self.shift > 3, self.a(x) * self.gain, self.shift))


@entry(VECTOR, {"a": 7, "b": 6})
class LowRank(nn.Module):
    """A factorized layer: the rank is a width like any other."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(10, 7, bias=False), nn.Parameter(torch.randn(7, 6))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.a(x) @ self.b))


@entry(VECTOR, {}, frozen={"a.weight": "reduces over it"})
class SelfNormalized(nn.Module):
    """Dividing by the length needs every unit."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = nn.Linear(10, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.normalize(self.a(x), dim=-1))


@entry(VECTOR, {}, frozen={"a.weight": "orders it"})
class Sorted(nn.Module):
    """Sorting over units mixes them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = nn.Linear(10, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.a(x).sort(-1)[0])
