from __future__ import annotations

from dataclasses import dataclass

import torch
from modelspeed.core.model_io import Inputs, leaves, plain, primary


@dataclass
class Output:
    hidden: torch.Tensor
    logits: torch.Tensor
    cache: object = None


def test_inputs_are_read_as_users_write_them():
    x, y = torch.zeros(1), torch.ones(1)
    assert Inputs.of(x).args == (x,)
    assert Inputs.of([x, y]).args == (x, y)
    assert Inputs.of({"a": x}).kwargs == {"a": x}
    assert Inputs.of(Inputs((x,), {"b": y})).names == (None, "b")


def test_keywords_come_in_the_order_of_the_graph():
    given = Inputs(("x",), {"b": "y", "a": "z"})
    assert given.in_order(["x", "a", "b"]) == ["x", "z", "y"]
    assert given.in_order(["p", "q", "r"]) == ["x", "y", "z"]


def test_a_dataclass_becomes_a_dict_without_what_holds_no_tensor():
    made = plain(Output(torch.zeros(2), torch.ones(2)))
    assert list(made) == ["hidden", "logits"]
    assert len(leaves(made)) == 2


def test_logits_are_the_primary_output_else_the_first_tensor():
    output = Output(torch.zeros(2), torch.ones(3))
    assert primary(output) is output.logits
    assert primary((output.hidden, output.logits)) is output.hidden
