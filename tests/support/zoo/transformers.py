"""Whole transformers in small: the width of the residual stream is normed, so it stays whole."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import heads, merged
from .entry import IDS, IMAGE, TOKENS, conv, entry

NORMED = "normalizes over it"


class Block(nn.Module):
    """Pre-norm attention (3 heads of 4) and a feed-forward layer of 10 neurons."""

    def __init__(self, causal: bool = False) -> None:
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(12), nn.LayerNorm(12)
        self.qkv, self.o = nn.Linear(12, 36), nn.Linear(12, 12)
        self.up, self.down, self.causal = nn.Linear(12, 10), nn.Linear(10, 12), causal

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (heads(t, 3) for t in self.qkv(self.n1(x)).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.o(merged(y))
        return x + self.down(F.gelu(self.up(self.n2(x))))


@entry(IMAGE, {"block.qkv": 3, "block.up": 10}, frozen={"cls": NORMED, "place": NORMED})
class Vit(nn.Module):
    """A class token and a table of positions are parameters outside layers."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.block = nn.Conv2d(3, 12, 4, 4), Block()
        self.cls, self.place = (nn.Parameter(torch.zeros(1, n, 12)) for n in (1, 5))
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.place
        return self.head(self.norm(self.block(x))[:, 0])


@entry(IMAGE, {"block.qkv": 3, "block.up": 10})
class Swin(nn.Module):
    """Windows of 2 x 2 after a cyclic shift, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.block = nn.Conv2d(3, 12, 2, 2), Block()
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        x = torch.roll(x, (-1, -1), (1, 2))
        x = x.view(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        x = self.block(x).view(b, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5)
        x = torch.roll(x.reshape(b, h, w, c), (1, 1), (1, 2))
        return self.head(self.norm(x).mean((1, 2)))


@entry(IDS, {"block.qkv": 3, "block.up": 10}, frozen={"token.weight": "picked by number"})
class Gpt(nn.Module):
    """GPT-2: the head shares its weight with the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(7, 12), nn.Embedding(5, 12)
        self.block, self.norm = Block(causal=True), nn.LayerNorm(12)
        self.head = nn.Linear(12, 7, bias=False)
        self.head.weight = self.token.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token(ids) + self.place(torch.arange(ids.shape[1], device=ids.device))
        return self.head(self.norm(self.block(x)))


@entry(IDS, {"layer.self_attn": 3, "layer.linear1": 10, "pool": 9})
class Bert(nn.Module):
    """Post-norm encoder layer of torch over summed embeddings, pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.norm = nn.Embedding(7, 12), nn.LayerNorm(12)
        self.layer = nn.TransformerEncoderLayer(12, 3, 10, batch_first=True)
        self.pool, self.head = nn.Linear(12, 9), nn.Linear(9, 2)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.layer(self.norm(self.token(ids)))
        return self.head(torch.tanh(self.pool(x[:, 0])))


@entry(IDS, {"q": 2, "gate": 11})
class Llama(nn.Module):
    """RMS norm, grouped queries, rotary positions, SwiGLU."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.n1, self.n2 = nn.Embedding(7, 12), nn.RMSNorm(12), nn.RMSNorm(12)
        self.q, self.o = nn.Linear(12, 16, bias=False), nn.Linear(16, 12, bias=False)
        self.k, self.v = (nn.Linear(12, 8, bias=False) for _ in range(2))
        self.gate, self.up, self.down = nn.Linear(12, 11), nn.Linear(12, 11), nn.Linear(11, 12)
        self.head = nn.Linear(12, 7)

    def turned(self, x: Tensor) -> Tensor:
        angle = torch.arange(x.shape[2])[:, None] * torch.tensor([1.0, 0.1, 1.0, 0.1])
        half = torch.cat([-x[..., 2:], x[..., :2]], -1)
        return x * angle.cos() + half * angle.sin()

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token(ids)
        y = self.n1(x)
        q, k, v = heads(self.q(y), 4), heads(self.k(y), 2), heads(self.v(y), 2)
        k, v = (t.repeat_interleave(2, 1) for t in (self.turned(k), v))
        y = F.scaled_dot_product_attention(self.turned(q), k, v, is_causal=True)
        x = x + self.o(merged(y))
        y = self.n2(x)
        return self.head(x + self.down(F.silu(self.gate(y)) * self.up(y)))


@entry(TOKENS, {"gate": 11})
class SwiGlu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(12, 11), nn.Linear(12, 11), nn.Linear(11, 12)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.silu(self.gate(x)) * self.up(x))


@entry(TOKENS, {"up": 8})
class GeGlu(nn.Module):
    """Value and gate in one projection."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(12, 16), nn.Linear(8, 12)

    def forward(self, x: Tensor) -> Tensor:
        u, g = self.up(x).chunk(2, -1)
        return self.down(u * F.gelu(g))


@entry(TOKENS, {"experts.0.0": 5, "experts.1.0": 6, "experts.2.0": 7})
class Experts(nn.Module):
    """A dense mixture: every expert has neurons of its own; the router's outputs stay."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(12, 3)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(12, n), nn.GELU(), nn.Linear(n, 12)) for n in (5, 6, 7)
        )

    def forward(self, x: Tensor) -> Tensor:
        weight = self.router(x).softmax(-1)
        made = torch.stack([expert(x) for expert in self.experts], -1)
        return x + (made * weight[:, :, None]).sum(-1)


@entry(TOKENS, {"latent": 9, "q": 3, "o": 9})
class Perceiver(nn.Module):
    """A few learned latents read the input."""

    def __init__(self) -> None:
        super().__init__()
        self.latent = nn.Parameter(torch.randn(1, 4, 9))
        self.q, self.k, self.v = nn.Linear(9, 12), nn.Linear(12, 12), nn.Linear(12, 12)
        self.o, self.head = nn.Linear(12, 9), nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        q = heads(self.q(self.latent.expand(x.shape[0], -1, -1)), 3)
        y = F.scaled_dot_product_attention(q, heads(self.k(x), 3), heads(self.v(x), 3))
        return self.head(self.o(merged(y)).mean(1))


@entry(TOKENS, {"across.0": 7, "along.0": 10})
class Mixer(nn.Module):
    """MLPs across tokens and along channels."""

    def __init__(self) -> None:
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(12), nn.LayerNorm(12)
        self.across = nn.Sequential(nn.Linear(6, 7), nn.GELU(), nn.Linear(7, 6))
        self.along = nn.Sequential(nn.Linear(12, 10), nn.GELU(), nn.Linear(10, 12))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.across(self.n1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.along(self.n2(x))


@entry(IMAGE, {"stem": 6, "inner": 10, "up": 9})
class MobileVit(nn.Module):
    """Convolutions whose channels become the tokens' width and back."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner = conv(3, 6, 3), nn.Linear(6, 10)
        self.outer, self.up, self.head = nn.Linear(10, 6), conv(6, 9), nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        b, c, h, w = x.shape
        y = self.outer(F.gelu(self.inner(x.flatten(2).transpose(1, 2))))
        x = x + y.transpose(1, 2).reshape(b, c, h, w)
        return self.head(self.up(x).mean((2, 3)))
