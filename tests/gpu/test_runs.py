"""Whole runs, training and artifacts on a real GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings

import modelspeed
import pico
import pytest
import torch
import torch.distributed as dist
from modelspeed.adjusters.plan import Adjuster
from modelspeed.adjusters.registry import ADJUSTERS
from modelspeed.checkpoints.read import read
from modelspeed.cli.main import app
from modelspeed.configs.recipe import make_step
from modelspeed.core.errors import UsageError
from modelspeed.core.progress import Silent
from modelspeed.graph.capture import capture, clone
from modelspeed.profiling.machine import check_device, fingerprint
from modelspeed.training.distillation import DistillationLoss
from modelspeed.training.finetuning import finetune
from modelspeed.training.process_group import ProcessGroup
from modelspeed.training.trainer import Trainer
from torch.nn.parallel import DistributedDataParallel
from typer.testing import CliRunner

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("default"),
]
DATA = [(pico.images(8, seed), torch.arange(8) % 3) for seed in range(4)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MODELSPEED_CACHE", str(tmp_path / "cache"))
    made = pico.project(tmp_path / "user").parent
    monkeypatch.chdir(made)
    return made


def run(*words):
    done = CliRunner().invoke(app, [str(w) for w in words])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def flags():
    return (
        torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
    )  # fmt: skip


def loaded(where, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return modelspeed.load(where, **options)


def test_a_net_is_tuned_on_the_gpu_and_runs_with_and_without_one(folder):
    before = flags()
    code, out, err = run(
        "tune", "ckpt.pt", "--device", "cuda", "--fastest", "--max-drop", "0.9", "--json",
        "--out", "fast",
    )  # fmt: skip
    assert code == 0, err
    assert flags() == before, "both sides are measured under the user's flags"
    assert json.loads(out)["machine"]["device"].startswith("cuda (")
    x = pico.images(3)
    with torch.inference_mode():
        here, there = loaded("fast"), loaded("fast", device="cpu")
        torch.testing.assert_close(here(x.cuda()).cpu(), there(x), rtol=2e-2, atol=2e-2)
    code = "import sys, torch, modelspeed, warnings; warnings.simplefilter('ignore'); " \
           "assert not torch.cuda.is_available(); " \
           "x = torch.load('x.pt'); torch.save(modelspeed.load('fast')(x), 'y.pt')"  # fmt: skip
    torch.save(x, "x.pt")
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(torch.load("y.pt"), there(x), rtol=1e-3, atol=1e-3)


def test_an_artifact_of_the_cpu_runs_on_the_gpu(folder):
    code, _, err = run("tune", "ckpt.pt", "--threads", "1", "--preset", "lossless", "--out", "fast")
    assert code == 0, err
    x = pico.images(3)
    with torch.inference_mode():
        there, here = loaded("fast", device="cuda"), loaded("fast")
        torch.testing.assert_close(there(x.cuda()).cpu(), here(x), rtol=2e-2, atol=2e-2)
        torch.testing.assert_close(there.cpu()(x), here(x), rtol=1e-3, atol=1e-3)


def test_a_checkpoint_saved_on_the_gpu_is_read_on_the_cpu(folder):
    state = torch.load("ckpt.pt")
    torch.save({k: v.cuda() for k, v in state.items()}, "gpu.pt")
    for kind in ("state", "module"):
        if kind == "module":
            program = torch.export.export(pico.net(["residual"]).cuda(), (pico.images().cuda(),))
            torch.export.save(program, "gpu.pt2")
            source = read(folder / "gpu.pt2")
        else:
            scope = {}
            exec(compile(pico.MODEL_FILE, "model.py", "exec"), scope)
            source = read(folder / "gpu.pt", factory=scope["build"], args={})
        assert source.module is not None
    code, _, err = run("profile", "gpu.pt", "--device", "cpu", "--threads", "1")
    assert code == 0, err
    code, _, err = run(
        "profile", "gpu.pt2", "--device", "cuda", "--inputs", "2x1x12x12", "--batch", "2"
    )
    assert code == 0, err


def test_too_little_memory_leaves_a_step_out_and_the_run_goes_on(folder, monkeypatch):
    def greedy(context, settings):
        torch.empty(1 << 46, device="cuda")

    monkeypatch.setitem(ADJUSTERS, "drop_dead", Adjuster("drop_dead", "greedy", greedy))
    (folder / "modelspeed.yaml").write_text(
        pico.RECIPE.split("limits")[0] + "adjust: [drop_dead, fold_batchnorm]\n"
    )
    code, out, err = run("apply", "ckpt.pt", "--device", "cuda", "--json", "--out", "fast")
    assert code == 0, err
    first, second = json.loads(out)["steps"]
    assert "OutOfMemoryError" in first["reason"] and second["status"] != "failed"


def test_too_little_memory_for_the_model_is_a_sentence(folder):
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6)
    try:
        code, _, err = run("profile", "ckpt.pt", "--device", "cuda", "--batch", "4096")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert code == 1 and "not enough memory" in err and "Traceback" not in err


def objective_of(**settings):
    teacher = capture(pico.net(["residual"]), (pico.images(),))
    for module in (student := clone(teacher)).parameters():
        module.data.mul_(0.7)
    chosen = make_step("finetune", bn_batches=0, **settings).settings
    return DistillationLoss(student.cuda(), teacher.cuda(), chosen), teacher.cuda(), chosen


def trainer_of(group=None, **settings):
    objective, teacher, chosen = objective_of(**settings)
    x = DATA[0][0].cuda()

    def closeness(module):
        return -float((module(x) - teacher(x)).square().mean().detach())

    return Trainer(
        objective, DATA, DATA[:1], closeness, chosen, Silent(), "cuda",
        group=group or ProcessGroup(),
    )  # fmt: skip


@pytest.mark.parametrize("mixed", [False, True])
def test_fine_tuning_helps_in_full_and_in_reduced_precision(mixed, monkeypatch):
    monkeypatch.setattr("modelspeed.training.trainer.FASTER", 1e9 if mixed else 0.0)
    trainer = trainer_of(epochs=8, alpha=1.0, mixed=mixed)
    done = finetune(trainer)
    assert done.after > done.before
    assert trainer._dtype is (torch.bfloat16 if mixed else None)
    assert all(p.dtype == torch.float32 for p in trainer.objective.student.parameters())


def test_gradients_go_through_nccl(tmp_path, monkeypatch):
    """One GPU is one process of NCCL; half of the batches is its share of a group of two."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    dist.init_process_group(
        "cpu:gloo,cuda:nccl", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        trainer = trainer_of(ProcessGroup(0, 2), epochs=8, lr=1e-3, mixed=False)
        before = trainer.score()
        trainer.run()
        assert isinstance(trainer._loss_of, DistributedDataParallel)
        assert trainer.score()[1] > before[1]
    finally:
        dist.destroy_process_group()


def test_devices_are_named_by_number():
    count = torch.cuda.device_count()
    check_device("cuda:0")
    with pytest.raises(UsageError, match=f"torch sees {count} CUDA devices"):
        check_device(f"cuda:{count}")
    assert fingerprint("cuda").fingerprint == fingerprint("cuda:0").fingerprint


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no second CUDA device")
def test_the_second_gpu_is_used_alone(folder):
    before = torch.cuda.memory_allocated(0)
    code, _, err = run("tune", "ckpt.pt", "--device", "cuda:1", "--fastest", "--max-drop", "0.9",
                       "--out", "fast")  # fmt: skip
    assert code == 0, err
    assert torch.cuda.memory_allocated(0) == before
    x = pico.images(2).to("cuda:1")
    assert loaded("fast", device="cuda:1")(x).device == x.device
