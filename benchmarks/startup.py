"""How long `modelspeed --help` takes, beside a bare interpreter and `import torch`, in one run.

python benchmarks/startup.py [--repeats 20]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from statistics import median

COMMANDS = {
    "bare interpreter": ["-c", "pass"],
    "modelspeed --help": ["-m", "modelspeed", "--help"],
    "import torch": ["-c", "import torch"],
}


def seconds(words: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--repeats", type=int, default=20)
    repeats = parser.parse_args().repeats
    rows: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(repeats):
        for name, words in COMMANDS.items():
            rows[name].append(seconds(words))
    whole = median(rows["import torch"])
    print("| command | median s | part of `import torch` |\n|---|---|---|")
    for name, row in rows.items():
        print(f"| {name} | {median(row):.3f} | {median(row) / whole:.2f} |")


if __name__ == "__main__":
    main()
