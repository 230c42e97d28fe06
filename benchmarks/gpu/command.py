"""A command of modelspeed as a user gives it; the figures of its JSON become a line.

python benchmarks/gpu/command.py NAME tune CHECKPOINT ... [--json is added]
python benchmarks/gpu/command.py NAME --net resnet50 --batch 1 --device cuda --minutes 0.5
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from lines import emit
from modelspeed.core.processes import python

HERE = Path(__file__).parent


def tune_words(flags: argparse.Namespace) -> list[str]:
    from zoo import NETS, SCRATCH, checkpoint

    out = SCRATCH / "tuned" / f"{flags.net}-b{flags.batch}"
    out.parent.mkdir(parents=True, exist_ok=True)
    code = f"{HERE / 'zoo.py'}:{flags.net}"
    more = ["--threads", "1", "--runtime", "lowered"] if flags.device == "cpu" else []
    return [
        "tune", str(checkpoint(flags.net)), "--model", code, "--data", f"{code}_data",
        "--config", str(HERE / "tune.yaml"), "--inputs", NETS[flags.net].inputs(flags.batch),
        "--batch", str(flags.batch), "--device", flags.device, "--minutes", str(flags.minutes),
        "--fastest", "--max-drop", "0.005", "--out", str(out), "--force", *more,
    ]  # fmt: skip


def ran(words: list[str]) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        python("-m", "modelspeed", *words, "--json"), stdout=subprocess.PIPE, text=True, check=False
    )
    try:
        return done.returncode, json.loads(done.stdout)
    except ValueError:
        return done.returncode, {}


def facts(record: dict[str, Any]) -> dict[str, Any]:
    """The figures that tables need: samples stay behind."""
    if "findings" in record:
        keep = ("floor", "between", "findings", "machine")
        return {key: record[key] for key in keep if key in record}
    quality, final = record.get("quality") or {}, record.get("final") or {}
    ratio = record.get("speedup") or {}
    return {
        "verdict": record.get("verdict"), "summary": record.get("summary"),
        "eager_ms": (record.get("baseline") or {}).get("value_ms"), "ms": final.get("value_ms"),
        "speedup": ratio.get("speedup"), "low": ratio.get("low"), "high": ratio.get("high"),
        "metric_before": quality.get("baseline"), "metric_after": quality.get("final"),
        "runtime": record.get("runtime_used"), "seconds": record.get("seconds"),
        "parameters": [record.get("parameters_before"), record.get("parameters_after")],
        "steps": {s["adjuster"]: s["status"] for s in record.get("steps", [])},
        "runtimes": [
            {k: row.get(k) for k in ("name", "ms", "ready_seconds", "error")}
            for row in record.get("runtimes", [])
        ],
        "left_alone": [
            row for row in record.get("left_alone", []) if str(row["what"]).startswith("runtime")
        ],
        "notices": sorted({n["code"] for n in record.get("notices", [])}),
        "machine": record.get("machine"),
    }  # fmt: skip


def main() -> int:
    if "--net" in sys.argv:
        parser = argparse.ArgumentParser()
        parser.add_argument("name")
        parser.add_argument("--net", required=True)
        parser.add_argument("--batch", type=int, default=1)
        parser.add_argument("--device", default="cuda")
        parser.add_argument("--minutes", type=float, default=0.5)
        flags = parser.parse_args()
        name, words = flags.name, tune_words(flags)
        known: dict[str, Any] = {"net": flags.net, "batch": flags.batch}
    else:
        name, *words = sys.argv[1:]
        known = {}
    code, record = ran(words)
    emit("command", name=name, command=words[0], rc=code, **known, **facts(record))
    return 0 if record else code or 1


if __name__ == "__main__":
    raise SystemExit(main())
