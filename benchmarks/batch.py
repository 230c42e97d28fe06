"""A batch of many checkpoints with planted failures, killed half way and resumed; its cost.

    python benchmarks/batch.py [--count 50] [--sample 8] [--workers 2] [--folder DIR]

Prints JSON. Exit code 1 where a row is not as planted, something was repeated or lost, the overhead
of an item is over 3 s, or latencies measured in the full batch are more than 3 % (median over the
sample) from those measured alone. Needs a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import torch
from modelspeed.configs.load import load_recipe
from modelspeed.core.records import Target
from modelspeed.reporting.json import loads
from modelspeed.tuning.job import Job
from modelspeed.tuning.verify import verify

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
    words: list[str], env: dict[str, str], kill_after: int | None = None
) -> tuple[int, float]:
    """Exit code and seconds; killed as soon as so many items have ended."""
    start = time.monotonic()
    out = Path(words[words.index("--out") + 1])
    command = [sys.executable, "-m", "modelspeed", "batch", *words]
    child = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while child.poll() is None:
        time.sleep(0.2)
        if kill_after is not None and len(events(out, "end")) >= kill_after:
            child.send_signal(signal.SIGKILL)
            child.wait()
    return child.returncode, time.monotonic() - start


def events(out: Path, kind: str) -> list[str]:
    """Names in the order of the journal."""
    path = out / "batch.jsonl"
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            found = json.loads(line)
        except ValueError:  # torn
            continue
        if found["event"] == kind:
            rows.append(found["item"]["name"] if kind == "end" else found["name"])
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
    found = []
    for name in names:
        record = loads((folder / "fast" / name / "report.json").read_text())
        checkpoint, base = str(folder / "ckpts" / f"{name}.pt"), str(folder / "ckpts")
        job = Job(checkpoint, Target(threads=1), "model.py:build", base, {}, inputs)
        again = verify(job, folder / "fast" / name, record.baseline.value_ms)
        assert record.final is not None
        found += [abs(record.baseline.value_ms / again.baseline.value_ms - 1),
                  abs(record.final.value_ms / again.final.value_ms - 1)]  # fmt: skip
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--sample", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="modelspeed-batch-"))
    jobs = make(folder, options.count)
    env = {**os.environ, "MODELSPEED_CACHE": str(folder / "cache")}
    names = [f"net{i:02}" for i in range(min(options.sample, options.count - len(PLANTED)))]
    # Fill the cache of layer timings first, so that no side pays for the other.
    one_by_one(folder, names[:1], env)
    common = [str(jobs), "--out", str(folder / "fast"), "--workers", str(options.workers)]
    _, before = batch(common, env, kill_after=options.count // 2)
    ended = set(events(folder / "fast", "end"))
    begun_before = len(events(folder / "fast", "begin"))
    code, after = batch([*common, "--resume"], env)
    again = events(folder / "fast", "begin")[begun_before:]
    rows = {r["name"]: r for r in json.loads((folder / "fast" / "index.json").read_text())["items"]}
    wrong = {n: r["status"] for n, r in rows.items() if r["status"] != PLANTED.get(n, "met")}
    files = [str(folder / "ckpts" / f"{n}.pt") for n in names]
    flags = [*files, "--target-speedup", SPEEDUP, "--threads", "1"]
    single = one_by_one(folder, names[1:], env) / max(1, len(names) - 1)
    _, serial = batch([*flags, "--out", str(folder / "serial"), "--workers", "1"], env)
    _, full = batch([*flags, "--out", str(folder / "full"), "--workers", str(options.workers)], env)
    differences = gaps(folder, names)
    report = {
        "items": len(rows), "statuses": dict(Counter(r["status"] for r in rows.values())),
        "unexpected": wrong, "exit_code": code, "repeated": sorted(ended & set(again)),
        "seconds": round(before + after, 1), "one_by_one_seconds_an_item": round(single, 2),
        "overhead_seconds_an_item": round(serial / len(names) - single, 2),
        "throughput_ratio": round(single / (full / len(names)), 2),
        "batch_against_alone_median": round(median(differences), 4),
        "batch_against_alone_worst": round(max(differences), 4),
    }  # fmt: skip
    print(json.dumps(report, indent=2))
    bad = wrong or report["repeated"] or code != 1 or len(rows) != options.count
    slow = report["overhead_seconds_an_item"] > 3 or report["batch_against_alone_median"] > 0.03
    return int(bool(bad or slow))


if __name__ == "__main__":
    raise SystemExit(main())
