"""The residual width of transformers, off by default: pruned nets equal narrower ones."""

from __future__ import annotations

import pytest
import torch
from masked import pruned
from modelspeed.adjusters.plan import Context
from modelspeed.adjusters.prune import plan
from modelspeed.configs.recipe import make_step
from modelspeed.graph.analysis.groups import analyze
from modelspeed.graph.capture import capture, clone
from modelspeed.graph.edits.apply import apply
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 12


class PreNorm(nn.Module):
    """Heads of their own size, so that the residual width is free; layer norms, class token."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.token = nn.Linear(5, width)
        self.cls = nn.Parameter(torch.randn(1, 1, width))
        self.place = nn.Parameter(torch.randn(1, 8, width))
        self.n1, self.n2, self.n3 = (nn.LayerNorm(width) for _ in range(3))
        self.qkv, self.out = nn.Linear(width, 24), nn.Linear(8, width)
        self.up, self.down = nn.Linear(width, 10), nn.Linear(10, width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), self.token(x)], 1) + self.place
        q, k, v = self.qkv(self.n1(x)).reshape(x.shape[0], 8, 3, 2, 4).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape[0], 8, 8)
        x = x + self.out(y)
        x = x + self.down(F.gelu(self.up(self.n2(x))))
        return self.head(self.n3(x)[:, 0])


def residual(analysis):
    return max(analysis.prunable, key=lambda g: len(g.members))


def tokens(batch: int = 2) -> Tensor:
    return torch.randn(batch, 7, 5, generator=torch.Generator().manual_seed(batch))


def test_layer_norms_hold_the_width_fast_unless_asked():
    module = capture(PreNorm(), tokens())
    names = {g.name for g in analyze(module).prunable}
    assert names == {"qkv", "up"}
    group = residual(analyze(module, prune_normalized_dims=True))
    assert group.size == WIDTH
    assert {m.param for m in group.members} >= {
        "cls",
        "place",
        "n1.weight",
        "n3.bias",
        "qkv.weight",
    }


@pytest.mark.parametrize("drop", [(0,), (1, 4, 5, 11)])
def test_a_narrower_residual_stream_equals_the_class_built_narrower(drop):
    torch.manual_seed(0)
    module = capture(PreNorm(), tokens())
    analysis = analyze(module, prune_normalized_dims=True)
    made = pruned(module, analysis, {residual(analysis).name: drop})
    narrow = PreNorm(WIDTH - len(drop)).eval()
    narrow.load_state_dict(made.state_dict())
    for batch in (1, 3):
        torch.testing.assert_close(made(tokens(batch)), narrow(tokens(batch)))


def test_a_hugging_face_llama_is_narrowed_through_its_written_out_norm():
    transformers = pytest.importorskip("transformers")

    def llama(width: int) -> nn.Module:
        config = transformers.LlamaConfig(
            hidden_size=width, head_dim=8, num_attention_heads=4, num_key_value_heads=2,
            num_hidden_layers=2, intermediate_size=48, vocab_size=50, use_cache=False,
        )  # fmt: skip
        return transformers.LlamaForCausalLM(config).eval()

    torch.manual_seed(0)
    ids = {"input_ids": torch.arange(12).reshape(2, 6)}
    module = capture(llama(32), ids)
    assert not any(g.size == 32 and len(g.members) > 9 for g in analyze(module).prunable)
    analysis = analyze(module, prune_normalized_dims=True)
    made = pruned(module, analysis, {residual(analysis).name: range(0, 32, 4)})
    narrow = llama(24)
    narrow.load_state_dict(made.state_dict(), strict=False)
    torch.testing.assert_close(made(**ids)["logits"], narrow(**ids).logits)


def test_the_setting_of_prune_switches_it_on():
    module = capture(PreNorm(), tokens())
    context = Context(module, (tokens(),))
    shapes = []
    for wanted in (False, True):
        step = make_step("prune", ratio=0.5, importance="magnitude", through_norms=wanted)
        made = apply(clone(module), plan(context, step.settings).edits)
        shapes.append(tuple(made.get_parameter("up.weight").shape))
        assert made(tokens(3)).shape == (3, 3)
    assert shapes == [(5, 12), (5, 6)]
