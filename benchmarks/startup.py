"""How long starting takes: `modelspeed --help` beside a bare interpreter and `import torch`, and
`modelspeed.load` of an artifact beside one without the files that make it quick, in one run.

python benchmarks/startup.py [--repeats 20] [--artifact FOLDER] [--runtimes plain openvino]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

COMMANDS = {
    "bare interpreter": ["-c", "pass"],
    "modelspeed --help": ["-m", "modelspeed", "--help"],
    "import torch": ["-c", "import torch"],
}
RUNTIMES = ("plain", "onednn_channels_last", "openvino", "onnxruntime")
WARM = 4  # loads in a process that has loaded it once
# Prints the seconds of a first load, imports but torch's included, and the least of later ones.
LOADS = f"""
import sys, time, torch
start = time.perf_counter()
import warnings, modelspeed
warnings.simplefilter("ignore")
def load():
    begun = time.perf_counter()
    modelspeed.load(sys.argv[1])
    return time.perf_counter() - begun
load()
print(time.perf_counter() - start, min(load() for _ in range({WARM})))
"""


def seconds(words: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    return time.perf_counter() - start


def commands(repeats: int) -> None:
    rows: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(repeats):
        for name, words in COMMANDS.items():
            rows[name].append(seconds(words))
    whole = median(rows["import torch"])
    print("| command | median s | part of `import torch` |\n|---|---|---|")
    for name, row in rows.items():
        print(f"| {name} | {median(row):.3f} | {median(row) / whole:.2f} |")


def prepared(artifact: Path, folder: Path, runtime: str, quick: bool) -> Path:
    """A copy that runs under `runtime`; not `quick`: as artifacts were before they held graphs."""
    from modelspeed.backends.registry import kept_model
    from modelspeed.checkpoints.artifact import read_artifact, sha256
    from modelspeed.checkpoints.samples import draw_inputs
    from modelspeed.checkpoints.staging import write_graph

    shutil.copytree(artifact, folder)
    manifest = json.loads((folder / "modelspeed.json").read_text())
    facts = {k: v for k, v in manifest.items() if k not in ("graph_sha256", "converted_sha256")}
    if quick:
        opened = read_artifact(folder)
        inputs = draw_inputs(manifest["inputs"], 0)
        files = kept_model(opened.module(), inputs, runtime)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        facts |= write_graph(folder, opened.program)
        facts["converted_sha256"] = {name: sha256(folder / name) for name in files}
    (folder / "modelspeed.json").write_text(json.dumps({**facts, "runtime": runtime}))
    return folder


def loads(artifact: Path, runtimes: list[str], repeats: int) -> None:
    """Alternating, the least of each: disturbances only add to it."""
    print("| load, s beyond `import torch` | first | before | ratio | warm | before | ratio |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="modelspeed-") as scratch:
        for runtime in runtimes:
            kinds = [prepared(artifact, Path(scratch) / f"{runtime}{quick}", runtime, quick)
                     for quick in (True, False)]  # fmt: skip
            times: list[list[tuple[float, ...]]] = [[], []]
            for _ in range(repeats):
                for row, folder in zip(times, kinds, strict=True):
                    words = [sys.executable, "-c", LOADS, str(folder)]
                    done = subprocess.run(words, check=True, capture_output=True, text=True)
                    row.append(tuple(map(float, done.stdout.split())))
            (first, warm), (first_before, warm_before) = (
                tuple(map(min, zip(*row, strict=True))) for row in times
            )
            print(
                f"| {runtime} | {first:.2f} | {first_before:.2f} | {first_before / first:.1f} "
                f"| {warm:.3f} | {warm_before:.3f} | {warm_before / warm:.1f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--artifact", type=Path, help="of `modelspeed tune`; times its loading")
    parser.add_argument("--runtimes", nargs="+", default=RUNTIMES)
    asked = parser.parse_args()
    if asked.artifact is None:
        commands(asked.repeats)
    else:
        loads(asked.artifact, asked.runtimes, asked.repeats)


if __name__ == "__main__":
    main()
