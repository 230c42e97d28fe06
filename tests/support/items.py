"""Programs that stand in for `modelspeed tune` in a batch: they end in known ways, in no time."""

from __future__ import annotations

import sys
from pathlib import Path

from modelspeed.batch.plan import ItemPlan

# Appends to `runs` what it was called with; writes a sample record where it is to succeed.
PROGRAM = """
import os, signal, sys, time
from pathlib import Path
out, mode, *words = sys.argv[1:]
out, runs = Path(out), Path(out).parent / "runs"
with runs.open("a") as file:
    file.write(" ".join([out.name, mode, *words]) + "\\n")
print("loading ...", flush=True)
def write():
    sys.path.insert(0, os.environ["SUPPORT"])
    from sample_record import record
    from modelspeed.reporting.json import dumps
    out.mkdir()
    (out / "report.json").write_text(dumps(record()))
def say(text):
    print("modelspeed:", text, file=sys.stderr)
if mode in ("met", "missed", "late", "slow"):
    time.sleep({"late": 0.5, "slow": 4.0}.get(mode, 0.0))
    write()
    sys.exit(3 if mode == "missed" else 0)
if mode in ("refuse", "refuse late"):
    time.sleep(2.0 if mode == "refuse late" else 0.0)
    say("`x.pt` is truncated or damaged.")
    sys.exit(1)
if mode == "once" and "--resume" in words:
    write()
    sys.exit(0)
if mode == "memory":
    try:
        bytearray(1 << 33)
    except MemoryError:
        say("there is not enough memory; try a smaller `--batch`.")
        sys.exit(1)
    sys.exit(0)
if mode in ("kill", "once"):
    (out.parent / f".{out.name}.trial-modelspeed").mkdir()
    os.kill(os.getpid(), signal.SIGKILL)
if mode == "silent":
    sys.exit(7)
time.sleep(600)
"""


def plan(out: Path, name: str, mode: str, key: str = "") -> ItemPlan:
    folder = out / name
    command = (sys.executable, "-c", PROGRAM, str(folder), mode)
    return ItemPlan(name, out / f"{name}.pt", folder, key or f"key-{name}-{mode}", command)
