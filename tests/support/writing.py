"""Pico nets that write into views, inputs and buffers, one idea each."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.part, self.up = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 3)

    def front(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.stem(x)))

    def back(self, y: Tensor) -> Tensor:
        return self.head(y.mean((2, 3)))


class PartialConvolution(Base):
    """FasterNet."""

    def forward(self, x):
        y = self.front(x)
        y[:, :2] = self.part(y[:, :2])
        return self.back(self.up(y).relu())


class Shift(Base):
    def forward(self, x):
        y = self.front(x)
        out = torch.zeros_like(y)
        out[:, :-1] = y[:, 1:]
        out[:, -1] = y[:, 0]
        return self.back(self.up(out))


class TemporalShift(Base):
    """Two channels look ahead, two back, the rest stays."""

    def forward(self, x):
        y = self.front(x)
        out = torch.zeros_like(y)
        out[:, :2, :-1] = y[:, :2, 1:]
        out[:, 2:4, 1:] = y[:, 2:4, :-1]
        out[:, 4:] = y[:, 4:]
        return self.back(self.up(out))


class PoseDecoding(Base):
    def forward(self, x):
        k = self.back(self.front(x))
        y = torch.cat([k, k, k], 1).clone()
        y[:, 2::3] = y[:, 2::3].sigmoid()
        return y


class Strided(Base):
    def forward(self, x):
        y = self.front(x)
        y[:, ::2] = y[:, ::2].sigmoid()
        return self.back(self.up(y))


class Masked(Base):
    def forward(self, x):
        y = self.front(x).clone()
        z = y
        y.masked_fill_(y > 1, 0.0)
        y[y > 0.5] = 2.0
        return self.back(self.up(y) + z)


class IndexPut(Base):
    def forward(self, x):
        y = self.front(x).clone()
        y.index_put_((torch.arange(y.shape[0]), torch.tensor([1])), torch.tensor(0.5))
        y[:, [0, 2]] *= 2
        return self.back(self.up(y))


class ResidualReadTwice(Base):
    def forward(self, x):
        y = self.front(x)
        z = y
        y += self.up(y)
        return self.back(z + self.up(z))


class ReluReadLater(Base):
    """A convolution reads before the write, but what it is fused with comes after."""

    def forward(self, x):
        y = self.stem(x)
        w, u = self.up(y), y + 1
        torch.relu_(y)
        return self.back(w + u + y)


class ThroughViews(Base):
    def forward(self, x):
        y = self.front(x)
        y.view(y.shape[0], -1)[:, :5] = 3.0
        y.transpose(1, 2)[:, 1] += 1
        y.chunk(2, 1)[1].narrow(1, 0, 2).mul_(2)
        return self.back(self.up(y))


class Halves(Base):
    def forward(self, x):
        y = self.front(x)
        a, b = y[:, :4], y[:, 4:]
        a.mul_(2)
        b.add_(a)
        return self.back(self.up(y) + torch.cat([b, a], 1))


class ThroughDropout(Base):
    """Dropout gives its input itself in evaluation."""

    def forward(self, x):
        y = self.stem(x)
        z = torch.relu_(nn.functional.dropout(y, 0.1, self.training))
        return self.back(self.up(y) + z)


class Normed(Base):
    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.Sequential(nn.InstanceNorm2d(8, affine=True), nn.GroupNorm(2, 8))

    def forward(self, x):
        y = self.norms(self.front(x))
        y[:, :2] = self.part(y[:, :2])
        return self.back(self.up(y))


class Input(Base):
    def forward(self, x):
        x.sub_(0.5)
        x[:, 0] = 0
        return self.back(self.up(self.front(x))), x


class Cache(Base):
    """A streaming convolution's last columns."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cache", torch.zeros(1, 8, 8, 2))

    def forward(self, x):
        y = self.front(x)
        z = torch.cat([self.cache.expand(y.shape[0], -1, -1, -1), y], 3)
        self.cache.copy_(z[:1, :, :, -2:])
        return self.back(self.up(z))


class Counter(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("n", torch.zeros(()))
        self.register_buffer("k", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        self.n += 1
        self.k += 1
        return self.back(self.up(self.front(x))) * self.n + self.k


class Swap(Base):
    """What is written first must not be what the second is given."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("b", torch.ones(3))
        self.register_buffer("a", torch.zeros(3))

    def forward(self, x):
        old = self.a.clone()
        self.a.copy_(self.b)
        self.b.copy_(old)
        return self.back(self.front(x)) + self.a, self.a


class Previous(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("a", torch.zeros(2, 3))

    def forward(self, x):
        o, view, old = self.back(self.front(x)), self.a[:, :2], self.a.clone()
        self.a[:1].copy_(o[:1])
        self.a[1].add_(1)
        return o + old.sum(0), view, old


class Rolling(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("a", torch.zeros(4, 3))

    def forward(self, x):
        o = self.back(self.front(x))
        self.a = torch.cat([self.a[1:], o[:1]])
        return o + self.a.mean(0)


STATELESS = {
    c.__name__: c
    for c in (
        PartialConvolution, Shift, TemporalShift, PoseDecoding, Strided, Masked, IndexPut,
        ResidualReadTwice, ReluReadLater, ThroughViews, Halves, ThroughDropout, Normed, Input,
    )
}  # fmt: skip
WITH_STATE = {c.__name__: c for c in (Cache, Counter, Swap, Previous, Rolling)}


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    net = (STATELESS | WITH_STATE)[name]().eval()
    net.bn.running_mean.normal_(0, 0.2)
    net.bn.running_var.uniform_(0.5, 2.0)
    return net


def frames(rows: int, seed: int = 1) -> Tensor:
    return torch.randn(rows, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
