"""The user's own class after the edits computes what the edited graph computes."""

from __future__ import annotations

import copy
import random
import threading

import pico
import pytest
import torch
import zoo
from modelspeed.core.errors import EditError
from modelspeed.core.model_io import Inputs
from modelspeed.graph.analysis.groups import analyze, keep_units
from modelspeed.graph.blocks import residual_blocks
from modelspeed.graph.capture import capture
from modelspeed.graph.edits.apply import Cast, FoldBatchNorm, QuantizeWeight, apply, leave_out
from modelspeed.graph.edits.copying import copied
from modelspeed.graph.edits.folding import foldable
from modelspeed.graph.edits.replay import replayed
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune


class Heads(nn.Module):
    """Heads and widths in attributes, two of the same value that mean different things."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.dim, self.depth = 4, 20, 4
        self.qkv, self.out = nn.Linear(12, 60), nn.Linear(20, 12)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        parts = self.qkv(x).reshape(b, n, 3, self.heads, self.dim // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, self.dim)
        return self.out(y) * self.depth


class Viewed(nn.Module):
    """A tuple of sizes, a tied weight, a group norm, a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(1, 8, 3), nn.GroupNorm(4, 8)
        self.up = nn.ConvTranspose2d(8, 6, 2)
        self.shape = (6, 11, 11)
        self.a, self.b = nn.Linear(6, 5), nn.Linear(6, 5)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(F.relu(self.norm(self.one(x))))
        y = y.view(x.shape[0], *self.shape).mean((2, 3))
        return self.a(y) + self.b(y)


def dropped_of(analysis, seed):
    rng = random.Random(seed)
    return {g.name: sorted(rng.sample(range(g.size), rng.randint(1, g.size - 1)))
            for g in analysis.prunable}  # fmt: skip


def edited(model, x, *, fold=False, drop=0):
    """The graph after pruning at random, and the edits that made it so."""
    graph = capture(copied(model), x)
    edits = list(leave_out(residual_blocks(graph)[:drop]))
    apply(graph, edits)
    analysis = analyze(graph)
    pruning = keep_units(analysis, dropped_of(analysis, 0))
    apply(graph, pruning)
    folds = [FoldBatchNorm(n.name) for n in graph.graph.nodes if fold and foldable(n)]
    return apply(graph, folds), [*edits, *pruning, *folds]


def follow(model, x, graph, edits):
    inputs = Inputs.of(x)
    held = {**dict(graph.named_parameters()), **dict(graph.named_buffers())}
    wanted = inputs.call(graph)

    def accepts(made):
        found = inputs.call(made)
        return found.shape == wanted.shape and torch.allclose(found, wanted, rtol=1e-4, atol=1e-4)

    with torch.no_grad():
        return replayed(model, inputs, edits, held, accepts)


TOKENS = torch.randn(2, 6, 12, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (pico.net(["residual", "depthwise", "grouped"]), pico.images()),
        (pico.net(["squeeze_excite", "branches"], side=2, view=True), pico.images()),
        (Viewed(), pico.images()),
        (Heads(), TOKENS),
    ],
)
def test_widths_go_into_modules_and_attributes_and_the_model_stays_as_it_was(model, x):
    before = copy.deepcopy(model.state_dict())
    graph, edits = edited(model, x, fold=True)
    made = follow(model, x, graph, edits)
    assert type(made) is type(model) and edits
    count = sum(p.numel() for p in made.parameters())
    assert count < sum(p.numel() for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_attributes_say_what_the_tensors_are():
    model = pico.net(["grouped", "depthwise"])
    graph, edits = edited(model, pico.images(), fold=True)
    made = follow(model, pico.images(), graph, edits)
    for conv in (m for m in made.modules() if isinstance(m, nn.Conv2d)):
        assert conv.weight.shape[:2] == (conv.out_channels, conv.in_channels // conv.groups)
    assert isinstance(made.bn, nn.Identity) and made.head.in_features == made.head.weight.shape[1]
    heads = follow(Heads(), TOKENS, *edited(Heads(), TOKENS))
    assert (heads.heads, heads.depth) != (4, 4) and heads.depth == 4


def test_tied_weights_stay_tied():
    made = follow(Viewed(), pico.images(), *edited(Viewed(), pico.images()))
    assert made.a.weight is made.b.weight


def test_a_block_that_was_left_out_is_gone_from_the_class():
    model = pico.net(["residual", "residual"])
    graph, edits = edited(model, pico.images(), drop=1, fold=True)
    made = follow(model, pico.images(), graph, edits)
    assert len(list(made.parameters())) < len(list(model.parameters())) - 4


def test_a_batch_norm_of_the_users_own_class_keeps_what_else_it_does():
    class Norm(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.silu(super().forward(x))

    model = nn.Sequential(nn.Conv2d(1, 4, 3), Norm(4), nn.Conv2d(4, 2, 3)).eval()
    model[1].running_mean.fill_(0.3)
    made = follow(model, pico.images(), *edited(model, pico.images(), fold=True))
    assert isinstance(made[1], Norm)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("SplitUneven", "`SplitUneven` has the size 6 in its code"),
        ("Mha", r"`attention` \(MultiheadAttention\) can't take `in_proj_weight`"),
        ("Standardized", r"`a` \(_Standardized\) has `gain`, which the artifact does not have"),
        ("Octave", "`Octave` has the size 6 in its code"),
    ],
)
def test_a_class_that_cant_follow_is_told_which_module(name, words):
    entry = zoo.ZOO[name]
    graph, edits = edited(entry.model(), entry.inputs)
    with pytest.raises(EditError, match=words):
        follow(entry.model(), entry.inputs, graph, edits)


def test_int8_and_half_precision_are_refused_by_name():
    model = pico.net(["residual"])
    graph = capture(copy.deepcopy(model), pico.images())
    for edit, words in (
        (QuantizeWeight("conv2d"), "`stem` holds int"),
        (Cast("bfloat16"), "`Net`"),
    ):
        with pytest.raises(EditError, match=words):
            follow(model, pico.images(), graph, [edit])


def test_another_class_is_no_match():
    model = pico.net(["residual"])
    graph, edits = edited(model, pico.images())
    with pytest.raises(EditError):
        follow(pico.net(["grouped"]), pico.images(), graph, edits)


class Split(nn.Module):
    def __init__(self, split=None) -> None:
        super().__init__()
        self.a, self.bn, self.b = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 3)
        self.head = nn.Linear(6, 3)
        self.bn.running_mean.uniform_(-1, 1)
        self.bn.weight.data.uniform_(0.5, 2)
        for layer in (self.a, self.b, self.head) if split else ():
            split(layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.bn(self.a(x)).relu()).relu().mean((2, 3)))


def masks(layer):
    prune.l1_unstructured(layer, "weight", 0.3)
    prune.random_unstructured(layer, "bias", 0.3)


SPLITS = {
    "masks": masks, "weight norm": nn.utils.weight_norm, "spectral norm": nn.utils.spectral_norm,
    "parametrized weight norm": parametrizations.weight_norm,
    "parametrized spectral norm": parametrizations.spectral_norm,
}  # fmt: skip


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_class_with_masks_norms_or_parametrizations_follows(split, fold):
    torch.manual_seed(0)
    model = Split(SPLITS[split]).eval()
    graph, edits = edited(model, pico.images(), fold=fold)
    made = follow(model, pico.images(), graph, edits)
    assert type(made) is Split and made.a.weight.shape[0] < 8
    assert "weight" in made.a.state_dict() and "weight_orig" not in made.a.state_dict()
    assert len(dict(model.named_parameters())) == len(dict(Split(SPLITS[split]).named_parameters()))


def test_what_cant_be_copied_of_a_class_is_shared_and_computed_tensors_are_copied():
    model = Split(masks)
    model.lock, model.kept = threading.Lock(), {"last": model.a.weight * 2}
    made = copied(model)
    assert made.lock is model.lock and made.kept["last"] is not model.kept["last"]
    assert torch.equal(made.a.weight_orig, model.a.weight_orig)
    assert made.a.weight_orig is not model.a.weight_orig
    graph, edits = edited(model, pico.images())
    assert follow(model, pico.images(), graph, edits).lock is model.lock


def test_a_class_that_refuses_to_be_copied_is_named():
    class Locked(Split):
        def __deepcopy__(self, memo):
            raise TypeError("cannot be copied at all")

    with pytest.raises(EditError, match="`Locked` can't be copied: cannot be copied at all"):
        copied(Locked())


class Tied(nn.Module):
    """The head is the embedding's table, whichever stands first."""

    def __init__(self, first: str, shared_module: bool = False) -> None:
        super().__init__()
        table, head = nn.Embedding(20, 8), nn.Linear(8, 20, bias=False)
        head.weight = table.weight
        parts = {"head": head, "table": table}
        for name in (first, *parts):
            setattr(self, name, parts[name])
        self.fc = nn.Linear(8, 12)
        self.back = nn.Linear(12, 8)
        self.again = self.fc if shared_module else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.back(F.relu(self.fc(self.table(x)))))


@pytest.mark.parametrize("first", ["head", "table"])
@pytest.mark.parametrize("kept", ["head", "table"])
@pytest.mark.parametrize("shared", [True, False])
def test_a_tied_weight_is_found_under_any_of_its_names(first, kept, shared):
    model = Tied(first, shared).eval()
    x = torch.arange(6).view(2, 3)
    graph, edits = edited(model, x)
    tensors = {
        **dict(graph.named_parameters(remove_duplicate=False)),
        **dict(graph.named_buffers()),
    }
    gone = "table" if kept == "head" else "head"
    held = {k.replace("fc.", "again.") if shared else k: v for k, v in tensors.items()}
    held[f"{kept}.weight"] = held.pop(f"{gone}.weight")
    wanted = graph(x)
    made = replayed(model, Inputs.of(x), edits, held, lambda m: torch.allclose(m(x), wanted))
    assert made.head.weight is made.table.weight and made.fc.out_features < 12


def test_a_tie_that_the_artifact_parts_is_parted():
    model = Tied("table").eval()
    x = torch.arange(6).view(2, 3)
    held = {k: v.clone() for k, v in model.state_dict().items()}
    held["head.weight"] *= 2
    wanted = model(x) * 2
    made = replayed(model, Inputs.of(x), [], held, lambda m: torch.allclose(m(x), wanted))
    assert made.head.weight is not made.table.weight
