"""Files of few bytes that claim much, fork without end, or hold another kind of number."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from modelspeed.checkpoints.contents import contents
from modelspeed.checkpoints.read import read
from modelspeed.checkpoints.wrappings import AVERAGED, PLAIN
from modelspeed.core.errors import CheckpointError
from torch import nn


class One(nn.Module):
    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.register_buffer("w", torch.ones(1, dtype=dtype))


def saved(tmp_path, held):
    torch.save(held, tmp_path / "m.pt")
    return tmp_path / "m.pt"


def safetensors(tmp_path, shape, dtype, data):
    facts = {"w": {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}}
    header = json.dumps(facts).encode()
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + data)
    return tmp_path / "m.safetensors"


def refused(path, words, factory=One):
    with pytest.raises(CheckpointError, match=words) as caught:
        read(path, factory=factory)
    assert len(str(caught.value).splitlines()[0]) < 400


def test_a_rank_of_a_hundred_thousand_is_refused(tmp_path):
    refused(safetensors(tmp_path, [1] * 100_000, "F32", bytes(4)), "has 100000 dimensions")


@pytest.mark.skipif(not hasattr(torch, "float4_e2m1fn_x2"), reason="this torch has no float4")
def test_numbers_of_four_bits_are_named(tmp_path):
    refused(safetensors(tmp_path, [2], "F4", bytes(1)), "float4")
    held = {"w": torch.empty(2, dtype=torch.float4_e2m1fn_x2)}
    refused(saved(tmp_path, held), "float4")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: torch.empty(2, 2, device="meta"), "device `meta`"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "is nested"),
        (lambda: torch.ones(2, 2).to_sparse_csr(), "is sparse"),
        (lambda: torch.ones(1).expand(10**11), "claims 100000000000 values"),
        (lambda: torch.ones(1).expand(2**31, 2**31), "claims"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_hold_less_than_they_claim_are_named(tmp_path, make, words):
    refused(saved(tmp_path, {"w": make()}), words)


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        (torch.complex64, torch.float32),
        (torch.float32, torch.complex64),
        (torch.bool, torch.float32),
        (torch.int8, torch.float32),
        (torch.int64, torch.bfloat16),
        (torch.float32, torch.int64),
        (torch.int32, torch.bool),
    ],
)
def test_another_kind_of_number_does_not_fill_a_tensor(tmp_path, held, wanted):
    path = saved(tmp_path, {"w": torch.ones(1, dtype=held)})
    refused(path, r"`w` is \w+ in the file and \w+ in the model", lambda: One(wanted))


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        (torch.float16, torch.float32),
        (torch.float64, torch.float32),
        (torch.float8_e4m3fn, torch.float32),
        (torch.int32, torch.int64),
        (torch.uint8, torch.bool),
    ],
)
def test_the_same_kind_in_another_width_does(tmp_path, held, wanted):
    path = saved(tmp_path, {"w": torch.ones(1, dtype=held)})
    assert read(path, factory=lambda: One(wanted)).module.w.dtype == wanted


def test_counters_that_were_cast_with_the_rest_are_read(tmp_path):
    weights = {k: v.half() for k, v in nn.BatchNorm1d(2).state_dict().items()}
    module = read(saved(tmp_path, weights), factory=lambda: nn.BatchNorm1d(2)).module
    assert module.num_batches_tracked == 0


def test_dicts_that_hold_each_other_are_looked_at_once(tmp_path):
    held = {}
    for _ in range(12):
        held = dict.fromkeys((*AVERAGED, *PLAIN), held)
    refused(saved(tmp_path, held), "holds no tensors")
    weights = {"w": torch.ones(1)}
    for _ in range(6):
        weights = dict.fromkeys(PLAIN, weights)
    assert contents(saved(tmp_path, weights)).weights.keys() == {"w"}


def test_settings_that_fork_are_left_out(tmp_path):
    held = [1]
    for _ in range(7):
        held = [held] * 32
    about = {"w": torch.ones(1)}, {"a": held, "b": 3}
    path = saved(tmp_path, {"state_dict": about[0], "hyper_parameters": about[1]})
    assert contents(path).about.hyper_parameters == {"b": 3}
