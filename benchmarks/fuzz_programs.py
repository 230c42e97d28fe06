"""Programs (`.pt2`) with one field replaced by what could become code: did any of it run?

python benchmarks/fuzz_programs.py [COUNT] [FIRST]     10,000 by default; exit code 1 where one did
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

SUPPORT = Path(__file__).parents[1] / "tests" / "support"
SECONDS = 60  # a file that takes longer hangs
MEMORY = 16 << 30  # bytes; an absurd shape must not take the machine
WORKERS = 2
GOOD = ("read", "refused", "read, does not run")


def work(first: int, count: int, step: int) -> None:
    """In this process; prints each outcome as a line of JSON as soon as it is known."""
    import logging
    import resource
    import warnings

    sys.path.insert(0, str(SUPPORT))
    from program_fields import Fields, programs

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        marker, path = Path(folder) / "ran", Path(folder) / "m.pt2"
        fields = Fields(programs(Path(folder)), marker)
        for seed in range(first, first + count, step):
            what = fields.written(seed, path)
            print(json.dumps([seed, what, fields.outcome(path)]), flush=True)
            marker.unlink(missing_ok=True)


def watched(first: int, count: int, step: int, seen: queue.Queue[tuple[int, str, str]]) -> None:
    """`work` in a child that is replaced where it hangs or ends."""
    end = first + count
    while first < end:
        words = [sys.executable, __file__, "--work", *map(str, (first, end - first, step))]
        child = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=_lines, args=(child, lines), daemon=True).start()
        limit = 5 * SECONDS  # torch is imported and the nets are exported first
        try:
            while line := lines.get(timeout=limit):
                seed, what, said = json.loads(line)
                seen.put((seed, what, said))
                first, limit = seed + step, SECONDS
            if first < end:
                seen.put((first, "", f"ended the process with {child.wait()}"))
        except queue.Empty:
            seen.put((first, "", "a hang"))
        child.kill()
        child.wait()
        if first < end:
            first += step


def _lines(child: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        lines.put(line)
    lines.put("")


def main(count: int, first: int) -> int:
    began = time.monotonic()
    seen: queue.Queue[tuple[int, str, str]] = queue.Queue()
    threads = [
        threading.Thread(target=watched, args=(first + at, count - at, WORKERS, seen))
        for at in range(WORKERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outcomes = sorted(seen.queue)
    counts = Counter(said for *_, said in outcomes if said in GOOD)
    bad = [f"{seed}: {what}: {said}" for seed, what, said in outcomes if said not in GOOD]
    shown = ", ".join(f"{counts[said]:,} {said}" for said in GOOD)
    seconds = time.monotonic() - began
    print(f"{len(outcomes):,} files: {shown}; {len(bad)} did what they must not ({seconds:.0f} s)")
    print("\n".join(bad))
    return 1 if bad or len(outcomes) != count else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(*map(int, sys.argv[2:5]))
    else:
        numbers = [int(word) for word in sys.argv[1:3]]
        sys.exit(main(*(numbers + [10_000, 0][len(numbers) :])))
