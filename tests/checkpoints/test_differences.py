"""Weights that do not fit: the sentence names the likely cause, the table shows the tensors."""

from __future__ import annotations

import pytest
import torch
from modelspeed.checkpoints.weights import fill
from modelspeed.core.errors import CheckpointError
from torch import nn


def net(width=4, classes=3, depth=2):
    blocks = nn.Sequential(*(nn.Linear(width, width) for _ in range(depth)))
    return nn.ModuleDict({"stem": nn.Linear(5, width), "blocks": blocks,
                          "head": nn.Linear(width, classes)})  # fmt: skip


def told(tmp_path, held, model):
    with pytest.raises(CheckpointError) as caught:
        fill(tmp_path / "a.pt", model, held)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (net(classes=7), "another number of classes: `head` has 3 outputs in the file and 7"),
        (net(depth=4), "another depth: the file has fewer blocks in `blocks`"),
        (net(depth=1), "another depth: the file has more blocks in `blocks`"),
        (net(width=8), "another width: the file's layers are 0.5 times as wide"),
        (nn.ModuleDict({**net(), "aux": nn.Linear(4, 2)}), "only a part of the model was saved"),
        (nn.ModuleDict({"stem": nn.Linear(5, 4)}), "built without `blocks`, `head`, a head"),
        (nn.ModuleDict({"stem": nn.Linear(5, 4), "blocks": net()["blocks"],
                        "top": nn.Linear(4, 3)}), "renamed (the shapes are the same): `head."),
    ],
)  # fmt: skip
def test_the_likely_cause_is_named(tmp_path, model, words):
    first, head, *rows = told(tmp_path, net().state_dict(), model)
    assert words in first and first.endswith(".") and rows and head.split()[0] == "tensor"


def test_the_table_shows_both_shapes_and_stops_after_some_rows(tmp_path):
    lines = told(tmp_path, net().state_dict(), net(width=8, depth=9))
    assert lines[2].split() == ["stem.weight", "4x5", "8x5"]
    assert len(lines) == 11 and lines[-1].strip().startswith("and ")


def test_nothing_is_changed_where_it_does_not_fit(tmp_path):
    model = net(classes=7)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    told(tmp_path, net().state_dict(), model)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
