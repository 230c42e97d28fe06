"""The run over real libraries' models: what counts as equal, and that it goes on where it ended."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # behind `tests/support`
import real_check
import real_models
import real_names

NAN, ONES = float("nan"), torch.ones(2, 2)


def test_at_least_150_models_of_five_libraries_are_named_once():
    assert len(set(real_names.NAMES)) == len(real_names.NAMES) >= 150
    assert len({name.partition(":")[0] for name in real_names.NAMES}) == 5


@pytest.mark.parametrize(
    "found",
    [
        ONES * 1.01,
        ONES[:1],
        ONES.double(),
        (ONES, ONES),
        torch.tensor([[1, 1], [1, NAN]]),
        torch.tensor([[1, 1], [1, float("inf")]]),
        (),
    ],
)
def test_what_is_not_equal_is_apart(found):
    assert not real_check.gap(found, ONES) <= real_check.LIMIT


def test_the_smallest_output_counts_by_its_own_size_and_integers_must_be_the_same():
    small = {"logits": 1e6 * ONES, "scale": 1e-3 * ONES}
    assert real_check.gap(small, small) == 0
    assert real_check.gap(small | {"scale": 1.1e-3 * ONES}, small) > real_check.LIMIT
    assert real_check.gap(torch.tensor([1, 2]), torch.tensor([1, 3])) == 1


def test_the_lines_of_an_interrupted_run_count_but_for_the_one_cut_off(tmp_path):
    out = tmp_path / "lines.jsonl"
    out.write_text(
        '{"model": "timm:a", "ok": false, "failures": [["onednn", "Wrong"]]}\n'
        '{"model": "timm:a", "ok": true, "failures": []}\n'
        '{"model": "smp:b", "ok": false, "failures": [["folded", "apart"], ["onednn", "apart"]]}\n'
        '{"model": "timm:c", "ok": tr'
    )
    lines = real_models.lines_of(out)
    assert {name: line["ok"] for name, line in lines.items()} == {"timm:a": True, "smp:b": False}
    told = real_models.summary(lines)
    assert told.splitlines()[0] == "1 of 2 equal (smp: 0 of 1; timm: 1 of 1)"
    assert "- folded, onednn: apart\n    smp:b" in told
