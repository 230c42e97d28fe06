"""Pico topologies by name, with the groups that the analysis should find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Entry:
    build: Callable[[], nn.Module]
    inputs: tuple[Tensor, ...]
    expect: dict[str, int] = field(default_factory=dict)
    exactly: bool = True


ZOO: dict[str, Entry] = {}
IMAGE = (torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8).sin(),)
TOKENS = (torch.linspace(-3, 3, 2 * 6 * 12).reshape(2, 6, 12).sin(),)
IDS = (torch.arange(10).reshape(2, 5) % 7,)


def entry(inputs, exactly=True, **expect):
    def register(cls):
        named = {k.replace("__", "."): v for k, v in expect.items()}
        ZOO[cls.__name__] = Entry(cls, inputs, named, exactly)
        return cls

    return register


@entry(IMAGE, a=8, b=8)
class Shuffle(nn.Module):
    """Channel shuffle between grouped convolutions: positions go in all groups together."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.a(x)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(self.b(x).mean((2, 3)))


ZOO["Shuffle"] = Entry(Shuffle, IMAGE, {"a": 4, "b": 8})


@entry(IMAGE, a=6, **{"a#2": 2}, b=6)
class SplitUneven(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(6, 6, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        u, v = self.a(x).split([6, 2], 1)
        return self.head(torch.cat([self.b(u).relu(), v], 1).mean((2, 3)))


@entry(IMAGE, exactly=False, stem=4, cat=4)
class C2f(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.inner, self.cat = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(12, 4, 1)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        parts = list(self.stem(x).chunk(2, 1))
        parts.append(parts[-1] + self.inner(parts[-1]).relu())
        return self.head(self.cat(torch.cat(parts, 1)).mean((2, 3)))


@entry(TOKENS, up=16)
class SwiGLU(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(12, 16), nn.Linear(12, 16), nn.Linear(16, 12)

    def forward(self, x):
        return x + self.down(F.silu(self.gate(x)) * self.up(x))


ZOO["SwiGLU"] = Entry(SwiGLU, TOKENS, {"gate": 16})


@entry(TOKENS, up=8)
class GEGLU(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(12, 16), nn.Linear(8, 12)

    def forward(self, x):
        u, g = self.up(x).chunk(2, -1)
        return self.down(u * F.gelu(g))


@entry(TOKENS, norm__0=0)
class TransformerLayer(nn.TransformerEncoderLayer):
    def __init__(self):
        super().__init__(12, 4, 20, batch_first=True)


ZOO["TransformerLayer"] = Entry(TransformerLayer, TOKENS, {"linear1": 20}, exactly=False)


@entry(TOKENS, k=4)
class Separate(nn.Module):
    """Separate q, k, v with the product written out."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(12, 12) for _ in range(4))

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = (f(x).view(b, n, 4, 3).transpose(1, 2) for f in (self.q, self.k, self.v))
        w = (q @ k.transpose(-1, -2) / 3**0.5).softmax(-1)
        return self.o((w @ v).transpose(1, 2).reshape(b, n, d))


@entry(TOKENS, qkv=4)
class FusedQkv(nn.Module):
    """timm's form: one projection, reshaped to (3, heads, size of a head)."""

    def __init__(self):
        super().__init__()
        self.qkv, self.o = nn.Linear(12, 36), nn.Linear(12, 12)

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 4, 3).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.o(y.transpose(1, 2).reshape(b, n, d))


@entry(TOKENS, qkv=4)
class ChunkedQkv(nn.Module):
    """GPT-2's form: one projection, split in three, then heads."""

    def __init__(self):
        super().__init__()
        self.qkv, self.o = nn.Linear(12, 36), nn.Linear(12, 12)

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = (t.view(b, n, 4, 3).transpose(1, 2) for t in self.qkv(x).split(12, dim=-1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(y.transpose(1, 2).contiguous().view(b, n, d))


@entry(TOKENS, k=2)
class GroupedQuery(nn.Module):
    """Llama's form: key heads are repeated for their queries."""

    def __init__(self):
        super().__init__()
        self.q, self.o = nn.Linear(12, 16), nn.Linear(16, 12)
        self.k, self.v = nn.Linear(12, 8), nn.Linear(12, 8)

    def forward(self, x):
        b, n, _ = x.shape
        q = self.q(x).view(b, n, 4, 4).transpose(1, 2)
        k, v = (f(x).view(b, n, 2, 4).transpose(1, 2) for f in (self.k, self.v))
        k, v = (t[:, :, None].expand(b, 2, 2, n, 4).reshape(b, 4, n, 4) for t in (k, v))
        return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, -1))


@entry(TOKENS)
class Mha(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.MultiheadAttention(12, 4, batch_first=True)

    def forward(self, x):
        return self.a(x, x, x, need_weights=False)[0]


ZOO["Mha"] = Entry(Mha, TOKENS, {"a": 4})


@entry(IMAGE, up=4, stem=8)
class Transposed(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.up = nn.Conv2d(3, 8, 3, 2, 1), nn.ConvTranspose2d(8, 4, 2, 2)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.head(self.up(self.stem(x).relu()))


@entry(IMAGE, stem=4)
class PixelShuffle(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.head(F.pixel_shuffle(self.stem(x), 2))


@entry(IMAGE, norm=4)
class GroupNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        return self.head(self.norm(self.stem(x)))


@entry(IDS, up=16)
class TiedEmbedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.tok = nn.Embedding(7, 12)
        self.up, self.down = nn.Linear(12, 16), nn.Linear(16, 12)

    def forward(self, ids):
        x = self.tok(ids)
        x = x + self.down(self.up(x).relu())
        return x @ self.tok.weight.t()


ZOO["TiedEmbedding"] = Entry(TiedEmbedding, IDS, {"up": 16}, exactly=False)


@entry(IMAGE, pw1=16)
class ConvNeXt(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.dw = nn.Conv2d(3, 8, 2, 2), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm, self.pw1, self.pw2 = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.gamma = nn.Parameter(torch.ones(8))
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem(x)
        y = self.norm(self.dw(x).permute(0, 2, 3, 1))
        y = (self.gamma * self.pw2(F.gelu(self.pw1(y)))).permute(0, 3, 1, 2)
        return self.head((x + y).mean((-2, -1)))


@entry(IMAGE, inner=8)
class Unfolded(nn.Module):
    """A linear layer whose output is laid out as channels and space."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(3, 32), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        return self.head(self.inner(x.mean((2, 3))).unflatten(1, (8, 2, 2)).relu())
