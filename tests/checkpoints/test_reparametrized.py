"""Weights that torch's utilities split in two, into a class that has them whole."""

from __future__ import annotations

import warnings

import pytest
import torch
from modelspeed.checkpoints.weights import fill
from modelspeed.core.errors import CheckpointError
from torch import Tensor, nn
from torch.nn.utils import parametrizations as p
from torch.nn.utils import prune


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.up = nn.Conv2d(1, 4, 3), nn.ConvTranspose2d(4, 4, 2)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.up(self.conv(x).relu()).mean((2, 3)))


def layers(net):
    return net.conv, net.up, net.head


def pruned(net):
    for layer in layers(net):
        prune.l1_unstructured(layer, "weight", 0.5)
        prune.random_unstructured(layer, "bias", 0.5)


def normed(net, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for layer in layers(net):
            nn.utils.weight_norm(layer, **options)
            layer.weight_g.data *= 1.5


def spectral(net):
    for layer in layers(net):
        nn.utils.spectral_norm(layer)
    net(torch.ones(2, 1, 6, 6))  # a step of its power iteration
    for layer in layers(net):
        layer.weight_orig.data *= 1.3


def parametrized(net):
    for layer in layers(net):
        p.weight_norm(layer)
        layer.parametrizations.weight.original0.data *= 1.5


def parametrized_spectral(net):
    for layer in layers(net):
        p.spectral_norm(layer)
    net(torch.ones(2, 1, 6, 6))


FORMS = {
    "pruning masks": pruned, "weight norms": normed,
    "weight norms of": lambda net: normed(net, dim=None),
    "weight norms  ": lambda net: normed(net, dim=1),
    "spectral norms": spectral, "weight norms ": parametrized,
    "spectral norms ": parametrized_spectral,
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("prefix", ["", "module.", "net._orig_mod."])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_halves_are_put_together_for_a_class_that_has_them_whole(tmp_path, name, prefix):
    torch.manual_seed(0)
    trained = Net()
    FORMS[name](trained)
    held = {f"{prefix}{k}": v.detach().clone() for k, v in trained.state_dict().items()}
    made = Net().eval()
    notes = fill(tmp_path / "a.pt", made, held)
    x = torch.randn(2, 1, 6, 6)
    trained.eval()
    torch.testing.assert_close(made(x), trained(x))
    assert any(note.startswith(name.strip().removesuffix(" of")) for note in notes)


def test_a_class_with_the_same_split_takes_the_halves_as_they_are(tmp_path):
    trained, made = Net(), Net()
    for net in (trained, made):
        pruned(net)
    assert fill(tmp_path / "a.pt", made, trained.state_dict()) == []
    assert torch.equal(made.conv.weight_mask, trained.conv.weight_mask)


def test_halves_that_do_not_fit_and_unknown_functions_are_refused(tmp_path):
    trained = Net()
    pruned(trained)
    held = trained.state_dict() | {"conv.weight_mask": torch.ones(2, 1, 3, 3)}
    with pytest.raises(CheckpointError, match=r"`conv\.weight_mask` do not fit each other"):
        fill(tmp_path / "a.pt", Net(), held)
    turned = Net()
    p.orthogonal(turned.head)
    with pytest.raises(CheckpointError, match=r"`head\.weight` was saved under a param"):
        fill(tmp_path / "a.pt", Net(), turned.state_dict())
    split = Net()
    pruned(split)
    with pytest.raises(CheckpointError, match=r"the class splits `conv\.bias`.*holds it whole"):
        fill(tmp_path / "a.pt", split, Net().state_dict())


def test_a_part_that_is_only_called_so_is_not_touched(tmp_path):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain_v, self.gain_g = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))

    made = Own()
    assert fill(tmp_path / "a.pt", made, {"gain_v": torch.zeros(2), "gain_g": torch.zeros(2)}) == []
    assert not made.gain_v.any()
