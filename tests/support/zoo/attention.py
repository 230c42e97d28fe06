"""Attention in the forms people write: a unit is a head with its query, key, value and output."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .entry import TOKENS, entry


def heads(x: Tensor, count: int) -> Tensor:
    b, n, d = x.shape
    return x.view(b, n, count, d // count).transpose(1, 2)


def merged(x: Tensor) -> Tensor:
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


class _Qkv(nn.Module):
    """Four heads of size 5 over tokens of width 12."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(12, 20) for _ in range(3))
        self.o = nn.Linear(20, 12)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return heads(self.q(x), 4), heads(self.k(x), 4), heads(self.v(x), 4)


@entry(TOKENS, {"q": 4})
class Separate(_Qkv):
    """Separate projections, the product written out."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        return self.o(merged((q @ k.transpose(-1, -2) / 5**0.5).softmax(-1) @ v))


@entry(TOKENS, {"q": 4})
class Fused(_Qkv):
    """The fused kernel, causal."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        return self.o(merged(F.scaled_dot_product_attention(q, k, v, is_causal=True)))


@entry(TOKENS, {"qkv": 4})
class FusedQkv(nn.Module):
    """timm's form: one projection, reshaped to (3, heads, size of a head)."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.o = nn.Linear(12, 60), nn.Linear(20, 12)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 4, 5).permute(2, 0, 3, 1, 4).unbind(0)
        return self.o(merged(F.scaled_dot_product_attention(q, k, v)))


@entry(TOKENS, {"qkv": 4})
class ChunkedQkv(nn.Module):
    """GPT-2's form: one projection, cut in three, then heads."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.o = nn.Linear(12, 60), nn.Linear(20, 12)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (heads(t, 4) for t in self.qkv(x).split(20, dim=-1))
        return self.o(merged(F.scaled_dot_product_attention(q, k, v, is_causal=True)))


@entry(TOKENS, {"q": 2})
class GroupedQuery(nn.Module):
    """Llama's form: key heads are repeated for their queries; they go with all of these."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.o = nn.Linear(12, 20), nn.Linear(20, 12)
        self.k, self.v = nn.Linear(12, 10), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = heads(self.q(x), 4), heads(self.k(x), 2), heads(self.v(x), 2)
        k, v = (t[:, :, None].expand(b, 2, 2, n, 5).reshape(b, 4, n, 5) for t in (k, v))
        return self.o(merged(F.scaled_dot_product_attention(q, k, v)))


@entry(TOKENS, {"q": 4}, frozen={"k.weight": "size of a head"})
class MultiQuery(nn.Module):
    """One key head for all queries."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(12, 20), nn.Linear(12, 5), nn.Linear(12, 5)
        self.o = nn.Linear(20, 12)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        k, v = (f(x)[:, None].expand(b, 4, n, 5) for f in (self.k, self.v))
        return self.o(merged(F.scaled_dot_product_attention(heads(self.q(x), 4), k, v)))


@entry(TOKENS, {"attention": 4})
class Mha(nn.Module):
    """torch's own module, which merges batch and heads into one dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


@entry((*TOKENS, TOKENS[0][:, :4].cos()), {"q": 4})
class Cross(_Qkv):
    """Queries from one input, keys and values from another."""

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        q, k, v = heads(self.q(x), 4), heads(self.k(memory), 4), heads(self.v(memory), 4)
        return self.o(merged(F.scaled_dot_product_attention(q, k, v)))


@entry(TOKENS, {"q": 4})
class Rotary(_Qkv):
    """Rotated queries and keys: pairs inside a head belong together, so heads go whole."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(12, 16) for _ in range(3))
        self.o = nn.Linear(16, 12)
        angle = torch.outer(torch.arange(6.0), torch.tensor([1.0, 0.1]))
        self.register_buffer("angle", torch.cat([angle, angle], -1))

    def turned(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        return x * self.angle.cos() + torch.cat([-b, a], -1) * self.angle.sin()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        return self.o(merged(F.scaled_dot_product_attention(self.turned(q), self.turned(k), v)))


@entry(TOKENS, {"q": 4})
class RelativeBias(_Qkv):
    """A table of biases by distance, one column per head (Swin, T5)."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(11, 4))
        place = torch.arange(6)
        self.register_buffer("index", place[:, None] - place[None] + 5)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        bias = self.table[self.index.view(-1)].view(6, 6, 4).permute(2, 0, 1)
        return self.o(merged((q @ k.transpose(-1, -2) + bias[None]).softmax(-1) @ v))


@entry(TOKENS, {"q": 4})
class Cosine(_Qkv):
    """Normed queries and keys with a learned temperature per head (Swin v2)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        w = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-1, -2)
        return self.o(merged((w * self.scale.exp()).softmax(-1) @ v))


@entry(TOKENS, {"q": 4})
class Linear(_Qkv):
    """Keys and values are multiplied first; no softmax over positions."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        return self.o(merged(q @ (k.transpose(-1, -2) @ v)))


@entry(TOKENS, {"q": 4})
class Einsum(_Qkv):
    """The same product by letters, heads never moved."""

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (f(x).view(b, n, 4, 5) for f in (self.q, self.k, self.v))
        w = torch.einsum("bihd,bjhd->bhij", q, k).softmax(-1)
        return self.o(torch.einsum("bhij,bjhd->bihd", w, v).reshape(b, n, 20))


@entry(TOKENS, {"q": 4, "v": 4})
class TalkingHeads(_Qkv):
    """Heads mixed by a matrix before the softmax: those before and after are two groups."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        w = self.mix((q @ k.transpose(-1, -2)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.o(merged(w.softmax(-1) @ v))


@entry(TOKENS, {"qkv": 4})
class HeadsInBatch(nn.Module):
    """Batch and heads merged; positions of both axes added to the weights (SAM)."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.o = nn.Linear(12, 60), nn.Linear(20, 12)
        self.rows, self.columns = (nn.Parameter(torch.randn(n, n, 5)) for n in (2, 3))

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 4, 5).permute(2, 0, 3, 1, 4).reshape(3, b * 4, n, 5)
        grid = q.reshape(b * 4, 2, 3, 5)
        rows = torch.einsum("bhwc,hkc->bhwk", grid, self.rows)[..., None]
        columns = torch.einsum("bhwc,wkc->bhwk", grid, self.columns)[..., None, :]
        bias = (rows + columns).reshape(b * 4, n, n)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.o(y.view(b, 4, n, 5).transpose(1, 2).reshape(b, n, 20))


@entry(TOKENS, {"q": 4, "o": 12, "up": 9})
class EllipsisEinsum(_Qkv):
    """Letters with an ellipsis, and without a result spelled out."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = (nn.Parameter(torch.randn(n, m)) for n, m in ((12, 9), (9, 12)))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        w = torch.einsum("...id,...jd->...ij", q, k).softmax(-1)
        x = self.o(merged(torch.einsum("...ij,...jd->...id", w, v)))
        return torch.einsum("bnd,de", torch.einsum("...c,cd->...d", x, self.up).relu(), self.down)


@entry(TOKENS, {"q": 4})
class FullPrecision(_Qkv):
    """A region that switches autocast off for its sums."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        with torch.autocast("cpu", enabled=False):
            y = q.float() @ (k.float().transpose(-1, -2) @ v.float())
        return self.o(merged(y))
