"""`load(folder, model=...)`: which fault is the file's and which is the class's."""

from __future__ import annotations

import pytest
import torch
from modelspeed.checkpoints.samples import draw_inputs, sample_of
from modelspeed.core.errors import ArtifactError
from modelspeed.runtime import load as loading
from modelspeed.runtime import own_class
from torch import nn
from torch.nn.utils import prune

SPEC = {"shape": [2, 3], "dtype": "float32", "name": None}


@pytest.fixture
def stored(monkeypatch):
    """What is read in place of a folder: edits, and tensors of which nothing was changed."""

    def set_to(model, edits=(), **tensors):
        held = {k: v.detach().clone() for k, v in model.state_dict().items()} | tensors
        x = draw_inputs([SPEC], 7)
        with torch.no_grad():
            found = sample_of(x.call(model))
        sample = {"seed": 7, "outputs": [float(v) for v in found]}
        manifest = {"inputs": [SPEC], "edits": edits, "sample": sample}
        monkeypatch.setattr(own_class, "read_weights", lambda _: (manifest, held))

    return set_to


def masked():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).eval()
    prune.l1_unstructured(model[0], "weight", 0.5)
    return model


def test_a_class_with_pruning_masks_is_no_damaged_file(stored):
    model = masked()
    stored(model)
    x = torch.ones(2, 3)
    assert torch.equal(loading.load("somewhere", model=model)(x), model(x))


@pytest.mark.parametrize("edits", [[{"edit": "nonsense"}], [{"edit": "Slice"}], [3], 5])
def test_edits_that_can_not_be_read_are_damaged(stored, edits):
    stored(masked(), edits)
    with pytest.raises(ArtifactError, match="its edits are damaged"):
        loading.load("somewhere", model=masked())


def test_a_class_that_fails_is_named_and_no_file_is_called_damaged(stored):
    class Odd(nn.Linear):
        def __deepcopy__(self, memo):
            raise RuntimeError("not me")

    stored(nn.Linear(3, 2))
    with pytest.raises(ArtifactError, match=r"does not fit `Odd`: .*not me") as caught:
        loading.load("somewhere", model=Odd(3, 2))
    assert "damaged" not in str(caught.value)
