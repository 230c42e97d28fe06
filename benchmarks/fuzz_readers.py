"""Damaged and hostile files, each kind in a process of its own: what reading them did.

python benchmarks/fuzz_readers.py [COUNT]     1,000 by default; exit code 1 where one misbehaved
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

SUPPORT = Path(__file__).parents[1] / "tests" / "support"
SECONDS = 600  # a kind that takes longer hangs
MEMORY = 8 << 30  # bytes; an absurd shape must not take the machine


def work(kind: str, count: int) -> None:
    """One kind in this process; prints each outcome as a line of JSON as soon as it is known."""
    import resource

    sys.path.insert(0, str(SUPPORT))
    import mutations

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        files = mutations.originals(Path(folder) / "files")
        names = sorted(mutations.MUTATIONS)
        for number in range(count):
            mutation = names[number % len(names)]
            outcome = mutations.outcome(kind, files[kind], mutation, number)
            print(json.dumps([mutation, number, outcome]), flush=True)


def kinds() -> list[str]:
    sys.path.insert(0, str(SUPPORT))
    import mutations

    with tempfile.TemporaryDirectory() as folder:
        return list(mutations.originals(Path(folder) / "files"))


def main(total: int) -> int:
    bad, counts = [], Counter()
    names = kinds()
    each = -(-total // len(names))
    for kind in names:
        command = [sys.executable, __file__, "--kind", kind, str(each)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
            lines, ended = done.stdout.splitlines(), done.returncode
        except subprocess.TimeoutExpired as error:
            lines, ended = (error.stdout or b"").decode().splitlines(), "a hang"
        outcomes = [json.loads(line) for line in lines]
        for mutation, number, text in outcomes:
            outcome = text.partition(":")[0]
            counts[kind, outcome] += 1
            if outcome not in ("read", "refused"):
                bad.append(f"{kind} {mutation} {number}: {text}")
        if len(outcomes) < each:
            bad.append(f"{kind}: the process ended with {ended} after {len(outcomes)}")
    for kind in names:
        row = {outcome: n for (k, outcome), n in counts.items() if k == kind}
        print(f"{kind:24}", ", ".join(f"{n} {outcome}" for outcome, n in sorted(row.items())))
    print(f"{counts.total()} files, {len(bad)} did what they must not")
    print("\n".join(bad))
    return 1 if bad else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--kind"]:
        work(sys.argv[2], int(sys.argv[3]))
    else:
        sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
