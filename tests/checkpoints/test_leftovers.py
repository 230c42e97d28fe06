"""One rule for what a file holds beside the weights: with and without a prefix the same."""

from __future__ import annotations

import signal

import pico
import pytest
import torch
from modelspeed.checkpoints import leftovers
from modelspeed.checkpoints.read import arch_arguments, read
from modelspeed.checkpoints.weights import fill
from modelspeed.core.errors import CheckpointError, UsageError
from torch import nn

PREFIXES = ("", "module.", "model.", "net.inner.")


def build():
    return pico.Net(["residual"])


@pytest.fixture
def weights():
    return pico.net(["residual"]).state_dict()


def stored(tmp_path, held):
    torch.save(held, tmp_path / "m.pt")
    return tmp_path / "m.pt"


def extras(weights):
    """What each kind looks like in a file, by the words of its note."""
    return {
        "counters of a profiler": {"total_ops": torch.zeros(1), "stem.total_params": torch.ones(1)},
        "indices that classes make": {"stem.position_ids": torch.arange(5).view(1, 5)},
        "counters of batches": {"stem.num_batches_tracked": torch.tensor(3)},
        "of the loss": {"criterion.weight": torch.ones(3), "aux_loss.w": torch.ones(3)},
        "of metrics": {"val_metrics.confmat": torch.ones(3, 3)},
        "averaged copies": {f"ema.{k}": v + 1 for k, v in weights.items()}
        | {"ema.decay": torch.tensor(0.9)},
        "averaged copies of": {f"model_ema.{k.replace('.', '')}": v for k, v in weights.items()},
        "averaged copies of the": {f"{k}_ema": v + 1 for k, v in weights.items()},
    }


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("inside", [True, False])
def test_what_is_no_part_of_a_model_is_left_out_and_said(tmp_path, weights, prefix, inside):
    for words, more in extras(weights).items():
        held = {f"{prefix}{k}": v for k, v in weights.items()}
        held |= {f"{prefix if inside else ''}{k}": v for k, v in more.items()}
        source = read(stored(tmp_path, held), factory=build)
        assert any(words in note for note in source.notes), (words, source.notes)
        found = source.module.state_dict()
        assert all(torch.equal(found[k], v) for k, v in weights.items())


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("inside", [True, False])
def test_the_rest_is_refused_with_its_name_unless_a_pattern_leaves_it_out(
    tmp_path, weights, prefix, inside
):
    at = prefix if inside else ""
    held = {f"{prefix}{k}": v for k, v in weights.items()}
    held |= {f"{at}projector.0.weight": torch.ones(3, 2), f"{at}projector.0.bias": torch.ones(3)}
    path = stored(tmp_path, held)
    with pytest.raises(
        CheckpointError, match=r"2 unexpected; likely .* without `projector`"
    ) as bad:
        read(path, factory=build)
    assert "--ignore '^projector\\.'" in str(bad.value)
    source = read(path, factory=build, ignore=[r"(^|\.)projector\."])
    assert any("leaves out 2 tensors" in note for note in source.notes)


def test_a_layer_that_only_sounds_like_one_is_refused(tmp_path, weights):
    held = weights | {"stem.ema.conv.weight": torch.ones(4, 4), "ema.gate": torch.ones(4)}
    with pytest.raises(CheckpointError, match="2 unexpected"):
        read(stored(tmp_path, held), factory=build)
    held = weights | {"stem.position_ids": torch.ones(5)}  # learned, so it is a weight
    with pytest.raises(CheckpointError, match="1 unexpected"):
        read(stored(tmp_path, held), factory=build)


def test_another_depth_is_still_the_cause_where_counters_lie_around(tmp_path):
    def net(depth):
        return nn.ModuleDict({"layers": nn.Sequential(*(nn.Linear(2, 2) for _ in range(depth)))})

    held = net(3).state_dict() | {f"layers.{i}.total_ops": torch.zeros(1) for i in range(3)}
    with pytest.raises(CheckpointError, match=r"2 unexpected; likely another depth"):
        fill(tmp_path / "a.pt", net(2), held)


def test_a_buffer_that_the_class_makes_itself_must_be_the_same(tmp_path):
    class Net(nn.Linear):
        def __init__(self):
            super().__init__(2, 2)
            self.register_buffer("inv_freq", torch.ones(3), persistent=False)

    held = Net().state_dict()
    assert "itself" in fill(tmp_path / "a.pt", Net(), held | {"inv_freq": torch.ones(3)})[0]
    with pytest.raises(CheckpointError, match="`inv_freq`"):
        fill(tmp_path / "a.pt", Net(), held | {"inv_freq": torch.ones(3) * 2})


def test_averaged_weights_alone_are_the_model(tmp_path, weights):
    held = {f"ema.module.{k}": v for k, v in weights.items()}
    found = read(stored(tmp_path, held), factory=build).module.state_dict()
    assert all(torch.equal(found[k], v) for k, v in weights.items())


def test_two_names_of_one_tensor_must_hold_the_same(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
            self.b.weight = self.a.weight

    same = {"a.weight": torch.ones(2, 2), "b.weight": torch.ones(2, 2)}
    assert fill(tmp_path / "a.pt", Tied(), same) == []
    other = same | {"b.weight": torch.zeros(2, 2)}
    with pytest.raises(CheckpointError, match=r"different values for `a\.weight` and `b\.weight`"):
        fill(tmp_path / "a.pt", Tied(), other)


def test_patterns_that_match_nothing_or_are_none_are_said(tmp_path, weights, monkeypatch):
    path = stored(tmp_path, weights)
    assert read(path, factory=build, ignore=["nothing"]).notes == (
        "`--ignore nothing` matches no tensor here",
    )
    with pytest.raises(UsageError, match="not a regular expression"):
        read(path, factory=build, ignore=["("])
    before = signal.getsignal(signal.SIGALRM)
    monkeypatch.setattr(leftovers, "PATIENCE", 0.2)
    path = stored(tmp_path, weights | {"a" * 60 + "!": torch.zeros(1)})
    with pytest.raises(UsageError, match="repeats within repeats"):
        read(path, factory=build, ignore=["(a+)+$"])
    assert signal.getsignal(signal.SIGALRM) == before
    path = stored(tmp_path, weights | {"old.x": torch.tensor(float("nan"))})
    assert read(path, factory=build, ignore=["^old"])


def test_the_number_of_classes_is_not_read_from_the_loss(tmp_path, weights):
    from modelspeed.checkpoints.contents import contents

    path = stored(tmp_path, weights | {"criterion.weight": torch.ones(99, 2)})
    assert arch_arguments(contents(path)) == {"num_classes": weights["head.weight"].shape[0]}
