"""Random small nets: a list of steps is the whole net, so a failing one prints and shrinks well."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

Step = tuple[str, int, int]
Forward = Callable[[list[Tensor]], list[Tensor]]


class Generated(nn.Module):
    """Steps (operator, which live tensor it reads, how wide) over images (N, C, 4, 4)."""

    def __init__(self, steps: Sequence[Step]) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        self.channels, self.plan = [3], []
        for name, at, width in steps:
            source = at % len(self.channels)
            self.plan.append(OPERATORS[name](self, source, self.channels[source], width))
        last = len(self.channels) - 1
        self.one = nn.Conv2d(self.channels[last], 2, 1)
        self.two = nn.Linear(self.channels[last // 2], 3)
        self.outputs = (last, last // 2)
        self.double().eval()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        live = [x]
        for step in self.plan:
            live.extend(step(live))
        a, b = self.outputs
        return self.one(live[a]), self.two(live[b].mean((2, 3)))

    def keep(self, layer: nn.Module) -> nn.Module:
        self.layers.append(layer)
        return layer

    def unary(self, source: int, outputs: int, f: Callable[[Tensor], Tensor]) -> Forward:
        self.channels.append(outputs)
        return lambda live: [f(live[source])]

    def partner(self, source: int, width: int) -> int:
        """Another live tensor with as many channels, else the same one."""
        same = [i for i, c in enumerate(self.channels) if c == self.channels[source]]
        return same[width % len(same)]


def _layer(make: Callable[[int, int], nn.Module], even: bool = False) -> Callable[..., Forward]:
    def step(net: Generated, source: int, c: int, width: int) -> Forward:
        outputs = 2 + width % 6
        layer = net.keep(make(c, outputs)) if not even or c % 2 == 0 else nn.Identity()
        weight = getattr(layer, "weight", None)
        made = c
        if isinstance(layer, nn.ConvTranspose2d):
            made = layer.out_channels
        elif isinstance(layer, nn.Conv2d) and weight is not None:
            made = weight.shape[0]
        return net.unary(source, made, layer)

    return step


def _plain(f: Callable[[Tensor], Tensor]) -> Callable[..., Forward]:
    return lambda net, source, c, width: net.unary(source, c, f)


def _pair(f: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Forward]:
    def step(net: Generated, source: int, c: int, width: int) -> Forward:
        other = net.partner(source, width)
        net.channels.append(c)
        return lambda live: [f(live[source], live[other])]

    return step


def _cat(net: Generated, source: int, c: int, width: int) -> Forward:
    other = width % len(net.channels)
    net.channels.append(c + net.channels[other])
    return lambda live: [torch.cat([live[source], live[other]], 1)]


def _cut(net: Generated, source: int, c: int, width: int) -> Forward:
    first = 1 + width % max(1, c - 1)
    if first >= c:
        return net.unary(source, c, torch.neg)
    net.channels += [first, c - first]
    return lambda live: list(live[source].split([first, c - first], 1))


def _slice(net: Generated, source: int, c: int, width: int) -> Forward:
    start = width % c
    return net.unary(source, c - start, lambda x: x[:, start:])


def _shuffle(net: Generated, source: int, c: int, width: int) -> Forward:
    parts = 2 if c % 2 == 0 else 1

    def f(x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        return x.view(n, parts, c // parts, h, w).transpose(1, 2).reshape(n, c, h, w)

    return net.unary(source, c, f)


def _squeeze(net: Generated, source: int, c: int, width: int) -> Forward:
    down, up = net.keep(nn.Linear(c, 2 + width % 3)), net.keep(nn.Linear(2 + width % 3, c))

    def f(x: Tensor) -> Tensor:
        return x * torch.sigmoid(up(F.relu(down(x.mean((2, 3))))))[:, :, None, None]

    return net.unary(source, c, f)


def _mlp(net: Generated, source: int, c: int, width: int) -> Forward:
    norm, up = net.keep(nn.LayerNorm(c)), net.keep(nn.Linear(c, 3 + width % 5))
    gate, down = net.keep(nn.Linear(c, 3 + width % 5)), net.keep(nn.Linear(3 + width % 5, c))

    def f(x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        y = norm(tokens) if width % 2 else tokens
        y = tokens + down(F.silu(gate(y)) * up(y))
        return y.transpose(1, 2).reshape(-1, c, 4, 4)

    return net.unary(source, c, f)


def _attention(net: Generated, source: int, c: int, width: int) -> Forward:
    heads, size = 2 + width % 2, 3
    qkv = net.keep(nn.Linear(c, 3 * heads * size))
    out = net.keep(nn.Linear(heads * size, c))

    def f(x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        b, n, _ = tokens.shape
        if width % 3:
            q, k, v = qkv(tokens).reshape(b, n, 3, heads, size).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            parts = qkv(tokens).chunk(3, -1)
            q, k, v = (t.view(b, n, heads, size).transpose(1, 2) for t in parts)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, heads * size)
        return (tokens + out(y)).transpose(1, 2).reshape(b, c, 4, 4)

    return net.unary(source, c, f)


def _twice(net: Generated, source: int, c: int, width: int) -> Forward:
    layer = net.keep(nn.Conv2d(c, c, 1))
    return net.unary(source, c, lambda x: layer(F.relu(layer(x))))


def _scale(net: Generated, source: int, c: int, width: int) -> Forward:
    holder = net.keep(nn.ParameterList([nn.Parameter(torch.randn(1, c, 1, 1))]))
    return net.unary(source, c, lambda x: x * holder[0])


def _pixels(net: Generated, source: int, c: int, width: int) -> Forward:
    if c % 4:
        return net.unary(
            source, 4 * c, lambda x: F.pixel_unshuffle(F.interpolate(x, scale_factor=2.0), 2)
        )
    return net.unary(source, c // 4, lambda x: F.avg_pool2d(F.pixel_shuffle(x, 2), 2))


def _glu(net: Generated, source: int, c: int, width: int) -> Forward:
    return (
        net.unary(source, c // 2, lambda x: F.glu(x, 1)) if c % 2 == 0 else _cat(net, source, c, 0)
    )


OPERATORS: dict[str, Callable[..., Forward]] = {
    "conv": _layer(lambda c, o: nn.Conv2d(c, o, 3, padding=1)),
    "point": _layer(lambda c, o: nn.Conv2d(c, o, 1, bias=False)),
    "depthwise": _layer(lambda c, o: nn.Conv2d(c, c, 3, padding=1, groups=c)),
    "grouped": _layer(lambda c, o: nn.Conv2d(c, 2 * o, 1, groups=2), even=True),
    "transposed": _layer(lambda c, o: nn.ConvTranspose2d(c, o, 1)),
    "batch_norm": _layer(lambda c, o: nn.BatchNorm2d(c)),
    "group_norm": _layer(lambda c, o: nn.GroupNorm(2, c), even=True),
    "instance_norm": _layer(lambda c, o: nn.InstanceNorm2d(c, affine=True)),
    "prelu": _layer(lambda c, o: nn.PReLU(c)),
    "relu": _plain(F.relu),
    "sigmoid": _plain(torch.sigmoid),
    "pool": _plain(lambda x: F.max_pool2d(x, 3, 1, 1)),
    "where": _plain(lambda x: torch.where(x > 0, x, -0.5 * x)),
    "pad": _plain(lambda x: F.pad(x, (1, 0, 0, 1))[:, :, 1:, :-1]),
    "add": _pair(torch.add),
    "mul": _pair(torch.mul),
    "stack": _pair(lambda x, y: torch.stack([x, y], 0).mean(0)),
    "cat": _cat,
    "cut": _cut,
    "slice": _slice,
    "shuffle": _shuffle,
    "squeeze": _squeeze,
    "mlp": _mlp,
    "attention": _attention,
    "twice": _twice,
    "scale": _scale,
    "pixels": _pixels,
    "glu": _glu,
}


@st.composite
def programs(draw: st.DrawFn) -> list[Step]:
    """Two to seven steps, the first a convolution so that there is something to prune."""
    step = st.tuples(st.sampled_from(sorted(OPERATORS)), st.integers(0, 6), st.integers(0, 11))
    return [("conv", 0, draw(st.integers(0, 11))), *draw(st.lists(step, min_size=1, max_size=6))]
