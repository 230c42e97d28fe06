"""A TorchScript archive is run as it comes, by those who trust it; nothing else is done with it."""

from __future__ import annotations

import warnings
import zipfile

import pico
import pytest
import torch
from modelspeed.configs.recipe import Recipe
from modelspeed.core.errors import CheckpointError, UnsafePickle, UsageError
from modelspeed.core.progress import Silent
from modelspeed.core.records import Target
from modelspeed.tuning import torchscript as scripts
from modelspeed.tuning.job import Job
from modelspeed.tuning.profile import profile
from modelspeed.tuning.session import latency_of

INPUTS = ({"shape": [1, 1, 12, 12], "dtype": "float32"},)


@pytest.fixture
def archive(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch would have all use export
        traced = torch.jit.trace(pico.net(["residual"]).eval(), pico.images())
        traced.save(tmp_path / "m.ts")
    return tmp_path / "m.ts"


def profiled(path, *, trust=True, **more):
    job = Job(str(path), Target(threads=1), inputs=INPUTS, trust_pickle=trust)
    return profile(job, Recipe(), Silent(), **more).record


def test_its_latency_is_measured_and_what_is_not_known_is_said(archive, monkeypatch):
    monkeypatch.setattr(scripts, "latency_of", lambda *given: latency_of(*given[:3], 0.3))
    record = profiled(archive)
    assert record.baseline.value_ms > 0 and record.kind == "profile"
    assert record.source_sha256 and not record.layers_before and not record.macs_before
    assert "holds no graph" in record.left_alone[0].reason


def test_without_trust_it_is_not_opened_and_a_damaged_one_is_named(archive, monkeypatch):
    with pytest.raises(UsageError, match="need a graph"):
        profiled(archive, groups=True)
    with zipfile.ZipFile(archive.with_name("bad.ts"), "w") as out:
        for name in ("a/data.pkl", "a/constants.pkl", "a/code/__torch__.py"):
            out.writestr(name, "x")
    with pytest.raises(CheckpointError, match=r"bad.ts` can't be read"):
        profiled(archive.with_name("bad.ts"))
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(UnsafePickle, match="a program of its own"):
        profiled(archive, trust=False)
