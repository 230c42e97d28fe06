"""A batch of many checkpoints with planted failures, killed half way and resumed; its cost.

    python benchmarks/batch.py [--count 50] [--sample 8] [--workers 2] [--folder DIR] [--ray]

Prints JSON. Exit code 1 where a row is not as planted, something was repeated or lost, the overhead
of an item is over 3 s, or latencies measured in the full batch are more than 3 % (median over the
sample) from those measured alone. Needs a quiet machine.

With `--ray` the same items on a local Ray cluster of two nodes, one of which is lost half way:
exit code 1 where a row is not as planted, or something done was repeated or lost.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from modelspeed.configs.load import load_recipe
from modelspeed.core.records import Target
from modelspeed.reporting.json import loads
from modelspeed.tuning.job import Job
from modelspeed.tuning.verification import verify

MODEL = """
import os, signal
import torch
from torch import nn

def build(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )

def greedy():
    return nn.Linear(1 << 17, 1 << 16)

def deadly():
    os.kill(os.getpid(), signal.SIGKILL)
"""
DATA = """
import torch

def loaders():
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, 10, (512,), generator=g)
    x = torch.randn(512, 1, 32, 32, generator=g) + y.view(-1, 1, 1, 1) / 5
    rows = [(x[i:i + 64], y[i:i + 64]) for i in range(0, 512, 64)]
    return rows[:6], rows[6:]
"""
RECIPE = """
version: 1
model: {factory: "model.py:build"}
inputs: [{shape: [1, 1, 32, 32]}]
data: {factory: "data.py:loaders"}
limits: {max_drop: 1.0, minutes: 3}
adjust: [drop_dead, prune, compensate, {finetune: {epochs: 1}}, fold_batchnorm, channels_last]
"""
PLANTED = {"corrupt": "failed", "class": "failed", "memory": "out of memory", "killed": "killed",
           "infeasible": "missed"}  # fmt: skip
SPEEDUP = "1.3"


def make(folder: Path, count: int) -> Path:
    """The checkpoints, five of them planted, and the jobs file."""
    (folder / "ckpts").mkdir(parents=True)
    for name, text in (("model.py", MODEL), ("data.py", DATA), ("modelspeed.yaml", RECIPE)):
        (folder / "ckpts" / name).write_text(text)
    scope: dict[str, Any] = {}
    exec(compile(MODEL, "model.py", "exec"), scope)
    names = [f"net{i:02}" for i in range(count - len(PLANTED))]
    for seed, name in enumerate([*names, *PLANTED]):
        torch.save(scope["build"](seed).state_dict(), folder / "ckpts" / f"{name}.pt")
    (folder / "ckpts" / "corrupt.pt").write_bytes(b"PK\x03\x04 torn")
    factory = "ckpts/model.py:"
    jobs: list[dict[str, Any]] = [{"checkpoint": f"ckpts/{name}.pt"} for name in names]
    jobs += [
        {"checkpoint": "ckpts/corrupt.pt"},
        {"checkpoint": "ckpts/class.pt", "model": factory + "no_such_class"},
        {"checkpoint": "ckpts/memory.pt", "model": factory + "greedy"},
        {"checkpoint": "ckpts/killed.pt", "model": factory + "deadly"},
        {"checkpoint": "ckpts/infeasible.pt", "target_ms": 0.0001},
    ]
    defaults = {"target_speedup": float(SPEEDUP), "threads": 1}
    file = {"version": 1, "memory_limit": "6GB", "retries": 1, "defaults": defaults, "jobs": jobs}
    (folder / "jobs.yaml").write_text(json.dumps(file))  # JSON is YAML
    return folder / "jobs.yaml"


def batch(
    words: list[str], env: dict[str, str], after: int = 0,
    then: Callable[[subprocess.Popen[bytes]], None] = lambda child: None,
) -> tuple[int, float]:  # fmt: skip
    """Exit code and seconds; `then` is called once, as soon as `after` items have ended."""
    start = time.monotonic()
    out = Path(words[words.index("--out") + 1])
    command = [sys.executable, "-m", "modelspeed", "batch", *words]
    child = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while child.poll() is None:
        time.sleep(0.2)
        if after and len(events(out, "end")) >= after:
            then(child)
            after = 0
    return child.returncode, time.monotonic() - start


def events(out: Path, kind: str) -> list[str]:
    """Names in the order of the journal."""
    path = out / "batch.jsonl"
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            event = json.loads(line)
        except ValueError:  # torn
            continue
        if event["event"] == kind:
            rows.append(event["item"]["name"] if kind == "end" else event["name"])
    return rows


def one_by_one(folder: Path, names: list[str], env: dict[str, str]) -> float:
    """Seconds of `modelspeed tune` for each, one after the other."""
    start = time.monotonic()
    for name in names:
        command = [sys.executable, "-m", "modelspeed", "tune", f"ckpts/{name}.pt", "--out",
                   f"alone/{name}", "--target-speedup", SPEEDUP, "--threads", "1"]  # fmt: skip
        subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True)
    return time.monotonic() - start


def gaps(folder: Path, names: list[str]) -> list[float]:
    """|batch / alone - 1| of each artifact and its original, measured again when all is quiet."""
    recipe = load_recipe(folder / "ckpts" / "modelspeed.yaml")
    inputs = tuple(i.model_dump(mode="json", exclude_none=True) for i in recipe.inputs)
    differences = []
    for name in names:
        record = loads((folder / "fast" / name / "report.json").read_text())
        checkpoint, base = str(folder / "ckpts" / f"{name}.pt"), str(folder / "ckpts")
        job = Job(checkpoint, Target(threads=1), "model.py:build", base, {}, inputs)
        again = verify(job, folder / "fast" / name, record.baseline.value_ms)
        assert record.final is not None
        differences += [abs(record.baseline.value_ms / again.baseline.value_ms - 1),
                  abs(record.final.value_ms / again.final.value_ms - 1)]  # fmt: skip
    return differences


def rows(out: Path) -> dict[str, Any]:
    """What the index says, and where that is not as planted."""
    items = {r["name"]: r for r in json.loads((out / "index.json").read_text())["items"]}
    wrong = {n: r["status"] for n, r in items.items() if r["status"] != PLANTED.get(n, "met")}
    statuses = dict(Counter(r["status"] for r in items.values()))
    return {"items": len(items), "statuses": statuses, "unexpected": wrong}


def killed(jobs: Path, names: list[str], options: argparse.Namespace, env: dict[str, str]) -> int:
    """Half way the batch is killed; then it is resumed. Timings beside those of single runs."""
    folder, out = jobs.parent, jobs.parent / "fast"
    common = [str(jobs), "--out", str(out), "--workers", str(options.workers)]
    _, before = batch(common, env, options.count // 2, subprocess.Popen.kill)
    ended = set(events(out, "end"))
    begun_before = len(events(out, "begin"))
    code, after = batch([*common, "--resume"], env)
    again = events(out, "begin")[begun_before:]
    files = [str(folder / "ckpts" / f"{n}.pt") for n in names]
    flags = [*files, "--target-speedup", SPEEDUP, "--threads", "1"]
    single = one_by_one(folder, names[1:], env) / max(1, len(names) - 1)
    _, serial = batch([*flags, "--out", str(folder / "serial"), "--workers", "1"], env)
    _, full = batch([*flags, "--out", str(folder / "full"), "--workers", str(options.workers)], env)
    differences = gaps(folder, names)
    report = {
        **rows(out), "exit_code": code, "repeated": sorted(ended & set(again)),
        "seconds": round(before + after, 1), "one_by_one_seconds_an_item": round(single, 2),
        "overhead_seconds_an_item": round(serial / len(names) - single, 2),
        "throughput_ratio": round(single / (full / len(names)), 2),
        "batch_against_alone_median": round(median(differences), 4),
        "batch_against_alone_worst": round(max(differences), 4),
    }  # fmt: skip
    slow = report["overhead_seconds_an_item"] > 3 or report["batch_against_alone_median"] > 0.03
    return int(bad(report, options.count) or slow)


def on_ray(jobs: Path, options: argparse.Namespace, env: dict[str, str]) -> int:
    """Half way one of two nodes is lost; what then ends is resumed, which begins nothing."""
    from ray.cluster_utils import Cluster

    out = jobs.parent / "fast"
    os.environ.update(env)  # the nodes'
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    ended: list[str] = []

    def lose(child: subprocess.Popen[bytes]) -> None:
        ended.extend(events(out, "end"))
        cluster.remove_node(second, allow_graceful=False)

    common = [str(jobs), "--out", str(out), "--ray", cluster.address]
    code, seconds = batch(common, env, options.count // 2, lose)
    begun = len(events(out, "begin"))
    batch([*common, "--resume"], env)
    cluster.shutdown()
    twice = {n for n, runs in Counter(tasks(out)).items() if runs > 1}
    report = {
        **rows(out), "exit_code": code, "ended_before_the_loss": len(ended),
        "begun_again_elsewhere": sorted(twice - set(ended)),
        "repeated": sorted(twice & set(ended)) + events(out, "begin")[begun:],
        "seconds": round(seconds, 1),
    }  # fmt: skip
    return int(bad(report, options.count))


def tasks(out: Path) -> list[str]:
    """The item of each task that began: the first line it writes says on which node."""
    logs = sorted((out / "logs").glob("*.log"))
    return [p.stem for p in logs for line in p.read_text().splitlines() if line.startswith("on ")]


def bad(report: dict[str, Any], count: int) -> bool:
    print(json.dumps(report, indent=2))
    wrong = report["unexpected"] or report["repeated"] or report["exit_code"] != 1
    return bool(wrong or report["items"] != count)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--sample", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--ray", action="store_true")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="modelspeed-batch-"))
    jobs = make(folder, options.count)
    env = {**os.environ, "MODELSPEED_CACHE": str(folder / "cache")}
    names = [f"net{i:02}" for i in range(min(options.sample, options.count - len(PLANTED)))]
    # Fill the cache of layer timings first, so that no side pays for the other.
    one_by_one(folder, names[:1], env)
    return on_ray(jobs, options, env) if options.ray else killed(jobs, names, options, env)


if __name__ == "__main__":
    raise SystemExit(main())
