"""`arrays:FILE`: inputs and targets from one file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from modelspeed.configs.recipe import DataSpec, Recipe
from modelspeed.core.errors import DataError
from modelspeed.data.arrays import array_loaders
from modelspeed.data.load import load_data
from safetensors.numpy import save_file

SPEC = DataSpec(factory="arrays:x", batch=4, share=0.25)


def arrays(rows=20, **more):
    rng = np.random.default_rng(0)
    made = {"inputs": rng.normal(size=(rows, 3)), "targets": np.arange(rows, dtype=np.uint8) % 2}
    return {**made, **more}


def written(folder, held, suffix=".npz"):
    path = folder / f"a{suffix}"
    np.savez(path, **held) if suffix == ".npz" else save_file(held, path)
    return path


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_examples_are_parted_the_same_way_each_time(tmp_path, suffix):
    path = written(tmp_path, arrays(), suffix)
    train, held = array_loaders(SPEC, path)
    inputs, targets = next(iter(held))
    assert inputs.dtype == torch.float32 and targets.dtype == torch.int64
    assert (len(train.dataset), len(held.dataset)) == (15, 5)
    assert not set(train.dataset.indices) & set(held.dataset.indices)
    assert array_loaders(SPEC, path)[1].dataset.indices == held.dataset.indices


def test_evaluation_arrays_are_taken_where_they_are_given(tmp_path):
    more = {"eval_inputs": np.ones((3, 3)), "eval_targets": np.zeros(3)}
    train, held = array_loaders(SPEC, written(tmp_path, arrays(**more)))
    assert (len(train.dataset), len(held.dataset)) == (20, 3)


def test_inputs_by_keyword_reach_the_model_by_keyword(tmp_path):
    held = arrays()
    ids = np.arange(40).reshape(20, 2)
    path = written(tmp_path, {"inputs.input_ids": ids, "targets": held["targets"]})
    inputs, _ = next(iter(array_loaders(SPEC, path)[1]))
    assert set(inputs) == {"input_ids"} and inputs["input_ids"].dtype == torch.int64
    found = load_data(Recipe(data=DataSpec(factory="arrays:a.npz", batch=2), base=tmp_path))
    assert found is not None and found.metric_name == "accuracy"


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ({"x": np.ones(3)}, "holds `x`; it must hold `inputs`"),
        ({"inputs": np.ones((3, 2)), "targets": np.ones(4)}, "one row per example"),
        ({"inputs": np.ones((1, 2)), "targets": np.ones(1)}, "has 1 examples"),
        ({"inputs": np.ones(3), "inputs.a": np.ones(3), "targets": np.ones(3)}, "keep one form"),
        ({"inputs": np.array([{}] * 3), "targets": np.ones(3)}, "can't be read as .npz"),
    ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path, held, words):
    with pytest.raises(DataError, match=words) as caught:
        array_loaders(SPEC, written(tmp_path, held))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"hello"])
def test_what_is_no_archive_is_one_sentence(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"can't be read as \.npz"):
        array_loaders(SPEC, tmp_path / "a.npz")
    with pytest.raises(DataError, match="No such file"):
        array_loaders(SPEC, tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"eval_inputs": np.ones((3, 3))}, "it must hold"),
        ({"weights": np.ones(20)}, "holds `weights`; allowed are"),
        ({"eval_inputs.a": np.ones((3, 3)), "eval_targets": np.ones(3)}, "keywords of `inputs`"),
    ],
)
def test_arrays_that_would_be_passed_over_are_refused(tmp_path, more, words):
    with pytest.raises(DataError, match=words):
        array_loaders(SPEC, written(tmp_path, arrays(**more)))
