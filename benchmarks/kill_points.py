"""kill -9 at every point of what writes an artifact: what is left under the final name, and beside.

python benchmarks/kill_points.py             at every call into the file system, by Python's events
python benchmarks/kill_points.py --strace    at the entry of every system call that changes a disk

Prints a line a point and a markdown table; exit code 1 where one lost something. Each point is a
fork of this process; `fallback` is a kernel without renameat2(RENAME_EXCHANGE).
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
import killing
import sample_record
from modelspeed.checkpoints.artifact import check_writable, read_artifact
from modelspeed.checkpoints.staging import save
from modelspeed.core import workspace
from modelspeed.core.errors import ModelspeedError
from modelspeed.core.model_io import Inputs
from modelspeed.runtime.export import export

INPUTS = Inputs((torch.randn(2, 8),))
WAYS = ("save", "save --force", "save --force, fallback", "export python", "export python --force")


@dataclass
class Row:
    """By what was under the final name; `left`: siblings at once, `later`: after the next run."""

    at_once: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)
    left: int = 0
    later: int = 0


def artifact(folder: Path, text: str) -> Path:
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    program = torch.export.export(net, INPUTS.args)
    return save(
        folder, program=program, edits=[], record=sample_record.record(), recipe_yaml=text,
        inputs=INPUTS, runtime="plain", reports={"report.md": "x"}, force=True,
    )  # fmt: skip


def state(out: Path, files: dict[str, dict[str, bytes]]) -> str:
    """Which of the two is there, complete; artifacts are read and run as well."""
    if not out.exists():
        return "nothing"
    if (out / "recipe.yaml").exists():
        try:
            read_artifact(out, verify=True)
        except ModelspeedError as error:
            return f"broken: {error}"
        return (out / "recipe.yaml").read_text()
    written = contents(out)
    return next((name for name, known in files.items() if known == written), "broken")


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def walk(way: str, root: Path, hows: Sequence[Callable[..., bool]]) -> Row:
    source, out = root / "source", root / "work" / "out"
    python = way.startswith("export")
    make: Callable[[], object] = lambda: artifact(out, "new")  # noqa: E731
    if python:
        make = lambda: export(source, "python", out, True)  # noqa: E731
    files, row, before = {}, Row(), root / "before"
    shutil.rmtree(before, ignore_errors=True)
    if "--force" in way:
        other = artifact(root / "other", "old")
        export(other, "python", before, True) if python else shutil.copytree(other, before)
        files["old"] = contents(before)
    if python:
        files["new"] = contents(export(source, "python", root / "wanted", True))

    def prepare() -> Callable[[], object]:
        shutil.rmtree(out.parent, ignore_errors=True)
        out.parent.mkdir()
        if before.exists():
            shutil.copytree(before, out)
        return make

    for point in (p for how in hows for p in killing.every(how, prepare, out.parent)):
        outcome = state(out, files)
        left = [p.name for p in out.parent.iterdir() if p != out]
        if python:
            workspace.recover(out)
        else:
            check_writable(out, force=True)
        later = [p.name for p in out.parent.iterdir() if p != out]
        after = state(out, files)
        row.at_once[outcome] += 1
        row.after[after] += 1
        row.left += bool(left)
        row.later += bool(later)
        print(
            f"{way} {point}: {outcome}, {len(left)} beside; next run: {after}, {len(later)} beside"
        )
    return row


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--strace", action="store_true")
    traced = [partial(killing.traced, call) for call in killing.SYSTEM]
    hows = traced if asked.parse_args().strace else [killing.killed]
    torch.set_num_threads(1)
    exchange, rows, started = workspace.exchange, {}, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        artifact(root / "source", "new")
        for way in WAYS:
            if "fallback" in way:
                workspace.exchange = lambda one, other: False
            rows[way] = walk(way, root, hows)
            workspace.exchange = exchange
    print("\n| way | points | at once: old / new / nothing / broken | lost after the next run "
          "| points with siblings: at once / after the next run |")  # fmt: skip
    print("|---|---|---|---|---|")
    worst = 0
    for way, row in rows.items():
        total = sum(row.at_once.values())
        counts = [row.at_once[s] for s in ("old", "new", "nothing")]
        counts.append(total - sum(counts))
        good = row.after["new"] + (row.after["old"] if "--force" in way else row.after["nothing"])
        worst += total - good + row.later
        print(f"| {way} | {total} | {' / '.join(map(str, counts))} | {total - good} "
              f"| {row.left} / {row.later} |")  # fmt: skip
    print(f"\n{time.monotonic() - started:.0f} s")
    sys.exit(1 if worst else 0)


if __name__ == "__main__":
    main()
