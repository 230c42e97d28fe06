"""A loaded module is a module like any other, under every runtime."""

from __future__ import annotations

import copy
import io
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import modelspeed
import pico
import pytest
import torch
from modelspeed.backends.openvino import OpenVino
from modelspeed.checkpoints.staging import save
from modelspeed.core.errors import MachineWarning, UsageError
from modelspeed.core.model_io import Inputs
from modelspeed.core.records import Latency, Record, RuntimeCost, Target
from modelspeed.graph.capture import export_program
from modelspeed.profiling.machine import fingerprint
from modelspeed.runtime import load as loading
from modelspeed.runtime.loaded import running
from torch import nn

RUNTIMES = ("plain", "folded", "channels_last", "onednn", "onednn_channels_last", "openvino")
COSTS = (RuntimeCost("plain", 2.0, 2, 2, 0), RuntimeCost("openvino", 1.0, 1, 1, 0))
ONE = Inputs.of((pico.images(1),))


def write(folder, runtime):
    machine = replace(fingerprint(), threads=torch.get_num_threads())
    record = Record("tune", "now", "0", "m.pt", "0" * 64, machine, Target(), "none", "",
                    Latency(50, 1, 1, 1),
                    runtimes=COSTS)  # fmt: skip
    return save(
        folder,
        program=export_program(pico.net(["residual", "depthwise"]), ONE),
        edits=[],
        record=record,
        recipe_yaml="version: 1\n",
        inputs=ONE,
        runtime=runtime,
        reports={},
        force=False,
    )


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifacts")
    return {name: write(folder / name, name) for name in RUNTIMES}


@pytest.fixture(params=RUNTIMES)
def module(request, artifacts):
    return modelspeed.load(artifacts[request.param])


def same(module, x=None, close=1e-5):
    x = pico.images(3) if x is None else x
    with torch.no_grad():
        wanted = pico.net(["residual", "depthwise"])(x.float())
        torch.testing.assert_close(module(x).float(), wanted, rtol=close, atol=close)


def saved_whole(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), saved_whole]
)
def test_copies_and_pickles_give_the_same_and_are_their_own(module, copied):
    same(copy.copy(module))
    again = copied(module)
    same(again)
    again.load_state_dict({k: v * 0 for k, v in again.state_dict().items()})
    assert not again(pico.images(3)).any()
    same(module)


def test_the_state_is_the_users_and_new_weights_are_packed_again(module):
    net = pico.net(["residual", "depthwise"])
    kept = {k: v.clone() for k, v in net.state_dict().items()}
    assert module.state_dict().keys() == kept.keys()
    assert sum(p.numel() for p in module.parameters()) == sum(p.numel() for p in net.parameters())
    for assign in (False, True):
        module.load_state_dict({k: v * 0 for k, v in kept.items()}, assign=assign)
        assert not module(pico.images(2)).any()
        module.load_state_dict(kept, assign=assign)
        same(module)
    with pytest.raises(RuntimeError, match="Missing key"):
        module.load_state_dict({})
    same(module)


def test_number_formats_and_devices_are_carried_out_or_refused_at_once(module):
    assert module.float() is module and module.to("cpu") is module and module.cpu() is module
    same(module)
    same(copy.deepcopy(module).double(), pico.images(3).double())
    same(copy.deepcopy(module).to(torch.bfloat16), pico.images(3).bfloat16(), close=0.1)
    with pytest.raises(UsageError, match="stays as it was"):
        module._apply(lambda t: t.to(torch.int32))
    same(module)


def test_training_is_refused_in_a_sentence(module):
    assert module.eval() is module and not module.training
    with pytest.raises(UsageError, match="can't be trained"):
        module.train()
    same(module)


def test_calls_with_other_weights_are_carried_out_or_refused(module):
    none = {k: torch.zeros_like(v) for k, v in module.named_parameters()}
    x = (pico.images(2),)
    if running(module) is module:
        assert not torch.func.functional_call(module, none, x).any()
    else:
        with pytest.raises(UsageError, match="packed"):
            torch.func.functional_call(module, none, x)
        with pytest.raises(UsageError, match="packed"):
            next(iter(module.children()))._parameters["weight"] = None
        with pytest.raises(UsageError, match="whole module"):
            next(iter(module.children())).double()
    same(module)


@pytest.mark.filterwarnings("ignore")  # what torch's compiler says to itself
def test_it_can_be_compiled_alone_and_inside_another(module):
    torch.compiler.reset()
    same(torch.compile(module, backend="eager"))
    same(torch.compile(nn.Sequential(module, nn.Identity()), backend="eager"))


def test_hooks_run_and_shared_memory_is_taken(module):
    seen = []
    handle = module.register_forward_hook(lambda *_: seen.append(1))
    same(module.share_memory())
    handle.remove()
    assert seen == [1]


@pytest.mark.parametrize("method", [pytest.param("spawn", marks=pytest.mark.long), "fork"])
@pytest.mark.filterwarnings("ignore")
def test_other_processes_take_it(artifacts, method):
    script = f"""
import sys, torch, multiprocessing
torch.set_num_threads(1)
import modelspeed
def call(module, x):
    torch.set_num_threads(1)
    return module(x).tolist()
if __name__ == "__main__":
    module, x = modelspeed.load({str(artifacts["onednn"])!r}), torch.ones(2, 1, 12, 12)
    with multiprocessing.get_context({method!r}).Pool(1) as pool:
        found = torch.tensor(pool.apply(call, (module, x)))
    torch.testing.assert_close(found, module(x).detach())
"""
    file = artifacts["onednn"].parent / f"{method}.py"
    file.write_text(script)
    words = [sys.executable, "-W", "ignore", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_loading_copying_and_pickling_warn_of_nothing(artifacts):
    script = f"""
import copy, os, pickle, torch, warnings
torch.set_num_threads({torch.get_num_threads()})
import modelspeed
warnings.simplefilter("error")
for folder in {[str(path) for path in artifacts.values()]!r}:
    module = modelspeed.load(folder)
    copy.deepcopy(module), pickle.loads(pickle.dumps(module)), module.double()
"""
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(os.sep))
    assert done.returncode == 0 and done.stderr == "", done.stderr


def test_loading_packs_for_no_other_runtime(artifacts, monkeypatch):
    asked = []
    monkeypatch.setattr(loading, "furthest_lowering", lambda *_: asked.append("packed"))
    for name in RUNTIMES:
        modelspeed.load(artifacts[name])
    assert not asked, "weights were packed for a runtime that nobody asked for"


def test_without_its_library_an_artifact_runs_on_torch_and_both_latencies_are_said(
    artifacts, monkeypatch
):
    monkeypatch.setattr(OpenVino, "lacks", lambda self, device: "needs the package `openvino`")
    with pytest.warns(MachineWarning, match="needs the package") as warned:
        module = modelspeed.load(artifacts["openvino"])
    text = str(warned[0].message)
    assert "`plain` 2 ms, `openvino` 1 ms" in text and "openvino" not in repr(module)
    same(module)


def test_torchs_kernels_can_be_asked_for(artifacts):
    assert "openvino" not in repr(modelspeed.load(artifacts["openvino"], runtime="lowered"))
    assert "`openvino`" in repr(modelspeed.load(artifacts["openvino"], runtime="auto"))
