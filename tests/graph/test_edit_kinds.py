"""The keys of edits in manifests: artifacts that were written once must load for good."""

from __future__ import annotations

from typing import get_args

from modelspeed.graph.edits.apply import KINDS, Edit, QuantizeDynamic, edits_from_json

WRITTEN = {
    "Slice", "Constant", "Scale", "FoldBatchNorm", "ChannelsLast", "FlushSubnormals", "DropBlock",
    "Equalize", "QuantizeWeight", "QuantizeInput", "QuantizeAnew", "Cast", "Factor",
    "SeparateSpace", "SeparateChannels", "Resize", "Sparsify",
}  # fmt: skip


def test_every_kind_of_edit_has_one_key():
    assert sorted(k.__name__ for k in KINDS.values()) == sorted(k.__name__ for k in get_args(Edit))
    assert len(set(KINDS.values())) == len(KINDS)


def test_no_key_that_was_written_once_is_gone():
    assert set(KINDS) >= WRITTEN


def test_a_key_is_read_whatever_its_class_is_called():
    found = edits_from_json([{"edit": "QuantizeAnew", "node": "n", "place": 0, "half": 63}])
    assert found == [QuantizeDynamic("n", 0, 63)]
