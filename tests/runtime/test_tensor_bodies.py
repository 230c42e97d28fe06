from __future__ import annotations

import json
import pickle
import struct
from dataclasses import dataclass

import pytest
import torch
from modelspeed.core.errors import UsageError
from modelspeed.core.model_io import Inputs
from modelspeed.runtime.tensor_bodies import most_bytes, read_inputs, wanted_inputs, write_outputs
from safetensors.torch import load, save

ROW = Inputs(
    (torch.zeros(1, 2, 3), torch.zeros(1, dtype=torch.int64)),
    {"mask": torch.zeros(1, 2, dtype=torch.bool), "half": torch.zeros(1, 2, dtype=torch.bfloat16)},
)
GOOD = {
    "input0": torch.arange(6.0).reshape(1, 2, 3),
    "input1": torch.tensor([5]),
    "mask": torch.tensor([[True, False]]),
    "half": torch.full((1, 2), 1.5, dtype=torch.bfloat16),
}


def test_inputs_come_back_by_place_and_by_name():
    args, kwargs = (read := read_inputs(save(GOOD), ROW)).args, read.kwargs
    assert torch.equal(args[0], GOOD["input0"]) and torch.equal(args[1], GOOD["input1"])
    assert list(kwargs) == ["mask", "half"] and torch.equal(kwargs["mask"], GOOD["mask"])
    assert kwargs["half"].dtype == torch.bfloat16 and len(save(GOOD)) <= most_bytes(ROW)


def test_a_client_is_told_what_to_send():
    assert wanted_inputs(ROW) == [
        {"name": "input0", "dtype": "float32", "shape": [1, 2, 3]},
        {"name": "input1", "dtype": "int64", "shape": [1]},
        {"name": "mask", "dtype": "bool", "shape": [1, 2]},
        {"name": "half", "dtype": "bfloat16", "shape": [1, 2]},
    ]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"mask": None}, "the body has `half`, `input0`, `input1`; this ladder takes `half`"),
        ({"more": torch.zeros(1)}, "the body has .*`more`; this ladder takes"),
        ({"input0": torch.zeros(1, 3, 2)}, r"`input0` is float32 of shape \[1, 3, 2\]; .* \[1, 2,"),
        ({"input0": torch.zeros(2, 2, 3)}, r"`input0` is float32 of shape \[2, 2, 3\]"),
        ({"input0": torch.zeros(0, 2, 3)}, r"`input0` is float32 of shape \[0, 2, 3\]"),
        ({"input0": torch.zeros(1, 2, 3).double()}, "`input0` is float64 .* takes float32"),
        ({"input1": torch.zeros(1)}, "`input1` is float32 .* takes int64"),
    ],
)
def test_inputs_of_another_kind_are_refused_in_a_sentence(change, sentence):
    tensors = {name: x for name, x in {**GOOD, **change}.items() if x is not None}
    with pytest.raises(UsageError, match=sentence):
        read_inputs(save(tensors), ROW)


def headed(header):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        save(GOOD)[:-3],
        save(GOOD) + b"more",
        pickle.dumps(GOOD),
        struct.pack("<Q", 1 << 60) + b"{}",
        headed({"input0": {"dtype": "F32", "shape": [1 << 62, 4], "data_offsets": [0, 0]}}),
        headed({"input0": {"dtype": "F31", "shape": [1], "data_offsets": [0, 4]}}) + bytes(4),
        headed({"input0": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}) + bytes(4),
        headed([1]),
    ],
)
def test_what_is_not_whole_safetensors_is_refused_in_a_sentence(body):
    with pytest.raises(UsageError, match="not in the form of safetensors"):
        read_inputs(body, ROW)


@dataclass
class Output:
    logits: torch.Tensor
    cache: tuple[torch.Tensor, ...]
    loss: None = None


def test_outputs_are_named_by_their_place():
    x = torch.arange(6.0).reshape(1, 6)
    assert torch.equal(load(write_outputs(x))["output"], x)
    shared = load(write_outputs((x, None, x.reshape(2, 3).T)))
    assert sorted(shared) == ["0", "2"] and torch.equal(shared["2"], x.reshape(2, 3).T)
    named = load(write_outputs(Output(x, (x, x + 1))))
    assert sorted(named) == ["cache.0", "cache.1", "logits"]


def test_outputs_that_the_format_does_not_hold_are_said():
    with pytest.raises(UsageError, match="can't be sent"):
        write_outputs(torch.zeros(2, dtype=torch.complex128))
