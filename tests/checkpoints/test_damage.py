"""Damaged and hostile files of every kind: read, or one sentence; no code runs, nothing is left.

`benchmarks/fuzz_readers.py` does the same a thousand times and more.
"""

from __future__ import annotations

import os

import mutations
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from modelspeed.checkpoints.read import read

KINDS = (
    "zip.pt", "old.pt", "light.ckpt", "hostile.pt", "s.safetensors", "p.pt2", "r.yaml", "a.npz",
    "index", "fast/modelspeed.json", "fast/model.safetensors", "fast/model.pt2",
)  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage")
    here = os.getcwd()
    os.chdir(folder)
    yield mutations.originals(folder / "files")
    os.chdir(here)


def test_every_kind_of_file_is_damaged(files):
    assert set(files) == set(KINDS)


@settings(
    max_examples=300, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(kind=st.sampled_from(KINDS), mutation=st.sampled_from(sorted(mutations.MUTATIONS)),
       seed=st.integers(0, 1 << 32))  # fmt: skip
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_file_is_read_or_refused_in_a_sentence(files, kind, mutation, seed):
    found = mutations.outcome(kind, files[kind], mutation, seed)
    assert found.partition(":")[0] in ("read", "refused"), found


def test_the_watch_sees_code_that_runs(files, monkeypatch):
    """What `--trust-pickle` would run, so that the test above can fail."""
    path = files["hostile.pt"][0]
    monkeypatch.setattr(mutations, "read", lambda p, factory: read(p, factory=factory,
                                                                   trust_pickle=True))  # fmt: skip
    monkeypatch.setitem(mutations.MUTATIONS, "none", lambda data, rng: data)
    found = mutations.outcome("hostile.pt", (path, path.name), "none", 0)
    (path.parent.parent / "ran").unlink()
    assert found.startswith("code ran")
