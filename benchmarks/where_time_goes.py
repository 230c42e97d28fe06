"""Where the time of each verb goes, stage by stage: `where_time_goes.py [profile apply ...]`.

ResNet-18 at 224x224 for `profile`, `apply` of one exact step (`fold_batchnorm`) with the cache of
this machine empty and filled, and `check`; the digits demo for `tune`. Each is the command as a
user starts it; a stage lasts until the next one is announced. `--package DIR` takes the
`modelspeed` in DIR instead, to see another version of it. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
import nets

DIGITS = Path(__file__).parents[1] / "examples" / "digits"
VERBS = ("profile", "apply", "apply again", "check", "tune")
STARTING, STAGE = "starting", " ..."
RECIPE = "version: 1\nadjust:\n  - fold_batchnorm\n"


def saved(model: nn.Module, path: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=1024)
    given = (torch.randn(2, 3, 224, 224),)
    torch.export.save(torch.export.export(model, given, dynamic_shapes=({0: batch},)), path)


def command(verb: str, folder: Path) -> list[str]:
    fast, program = str(folder / "fast"), str(folder / "resnet18.pt2")
    if verb == "profile":
        return ["profile", program]
    if verb.startswith("apply"):
        return ["apply", program, str(folder / "fold.yaml"), "--out", fast, "--force"]
    if verb == "check":
        return ["check", fast, "--target-ms", "1000"]
    digits = [str(DIGITS / "digits_resnet.pt"), "--config", str(DIGITS / "modelspeed.yaml")]
    return ["tune", *digits, "--target-speedup", "2", "--out", str(folder / "digits"), "--force"]


def stages(words: Sequence[str], env: dict[str, str]) -> dict[str, float]:
    """Seconds of each stage in the order of the run. Exits where the command fails."""
    spent, stage, begun = dict[str, float](), STARTING, time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "modelspeed", *words],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env,
    )  # fmt: skip
    assert process.stderr is not None
    said: list[str] = []
    for line in process.stderr:
        said.append(line)
        if line.rstrip().endswith(STAGE):
            now = time.monotonic()
            spent[stage] = spent.get(stage, 0.0) + now - begun
            stage, begun = line.strip().removesuffix(STAGE), now
    spent[stage] = spent.get(stage, 0.0) + time.monotonic() - begun
    if process.wait() not in (0, 3, 4, 5):  # verdicts, not failures
        raise SystemExit(f"`modelspeed {' '.join(words)}` failed:\n{''.join(said)}")
    return spent


def table(verb: str, spent: dict[str, float]) -> str:
    whole = sum(spent.values())
    rows = [f"| {name} | {s:.1f} | {s / whole:.0%} |" for name, s in spent.items()]
    return "\n".join(
        [f"\n`{verb}`: {whole:.0f} s\n", "| stage | seconds | share |", "|---|---|---|", *rows]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("verbs", nargs="*", metavar="VERB", help=", ".join(VERBS))
    parser.add_argument("--runtime", help="of `profile`, `apply` and `tune` (default: auto)")
    parser.add_argument("--package", type=Path, help="folder that holds `modelspeed`")
    options = parser.parse_args()
    verbs = options.verbs or list(VERBS)
    if unknown := set(verbs) - set(VERBS):
        parser.error(f"{', '.join(sorted(unknown))}: allowed are {', '.join(VERBS)}")
    if "check" in verbs and not any(v.startswith("apply") for v in verbs):
        verbs = ["apply", *verbs]  # it makes the artifact
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        saved(nets.resnet18().eval(), folder / "resnet18.pt2")
        (folder / "fold.yaml").write_text(RECIPE)
        env = {**os.environ, "MODELSPEED_CACHE": str(folder / "cache")}
        if options.package:
            env["PYTHONPATH"] = str(options.package.resolve())
        for verb in verbs:
            words = command(verb, folder)
            if options.runtime and verb != "check":
                words += ["--runtime", options.runtime]
            print(table(verb, stages(words, env)), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
