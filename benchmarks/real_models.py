"""Real libraries' models: captured, pruned, lowered, written and loaded, each equal to itself.

python benchmarks/real_models.py --out FILE [--only PATTERN ...] [--jobs 2] [--seconds 120]

Needs timm, torchvision, segmentation_models_pytorch, ultralytics and transformers; no weights are
downloaded. One process a model, with a limit of time and memory, and one line of JSON in FILE a
model: those that have one are skipped, so that an interrupted run goes on. `--again` repeats the
failures, `--table` only prints. Exit code 1 where one fails.
"""

from __future__ import annotations

import argparse
import atexit
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from fnmatch import fnmatch
from pathlib import Path
from resource import RLIMIT_CPU, setrlimit
from signal import SIGXCPU
from typing import Any

import real_names

Line = dict[str, Any]
WAIT = 20  # times the limit of processor time, by the clock: the machine may do other work


def lines_of(out: Path) -> dict[str, Line]:
    """The last line of each model; a line that was cut off counts for nothing."""
    lines = {}
    for text in out.read_text(encoding="utf-8").splitlines() if out.exists() else ():
        try:
            line = json.loads(text)
            lines[str(line["model"])] = line
        except (ValueError, KeyError, TypeError):
            continue
    return lines


def one(name: str, args: argparse.Namespace, server: Any) -> Line:
    """The model's line, from a process of its own that may take so long and so much."""
    mine, theirs = server.Pipe(duplex=False)
    process = server.Process(target=work, args=(name, args, theirs))
    process.start()
    theirs.close()
    try:
        if not mine.poll(WAIT * args.seconds):
            return _failed(name, f"hangs: over {WAIT * args.seconds} s of the clock")
        return dict(mine.recv())
    except EOFError:
        process.join()
        ended = process.exitcode
        why = f"over {args.seconds} s" if ended == -SIGXCPU else f"its process ended with {ended}"
        return _failed(name, why)
    finally:
        process.kill()
        process.join()


def work(name: str, args: argparse.Namespace, answer: Any) -> None:
    """The model's own process, forked from one that has the libraries imported."""
    import real_check
    from modelspeed.core.processes import die_with_parent

    die_with_parent(os.getppid())
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # libraries talk
        os.dup2(nowhere, stream)
    setrlimit(RLIMIT_CPU, (args.seconds, args.seconds + 5))
    answer.send(real_check.line_of(name, args.inductor, args.memory_gb << 30))


def fork_server() -> Any:
    """Nothing is looked up on the network or left in the user's folders."""
    scratch = tempfile.mkdtemp(prefix="modelspeed-")
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    os.environ |= {
        "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "YOLO_OFFLINE": "true",
        "YOLO_CONFIG_DIR": scratch, "YOLO_VERBOSE": "false", "MPLCONFIGDIR": scratch,
        "MODELSPEED_CACHE": scratch, "PYTHONWARNINGS": "ignore",
    }  # fmt: skip
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["real_libraries", "real_check"])
    return server


def _failed(name: str, cause: str) -> Line:
    return {"model": name, "ok": False, "failures": [["process", cause]], "seconds": {}, "total": 0}


def row(line: Line) -> str:
    spent = line["seconds"]
    runs = sum(s for step, s in spent.items() if step not in _STEPS)
    cells = [f"{spent.get(step, 0):6.1f}" for step in _STEPS[:3]]
    cells += [f"{runs:6.1f}", *(f"{spent.get(step, 0):6.1f}" for step in _STEPS[3:])]
    left = 100 * line["left"] / line["parameters"] if line.get("left") else 100
    what = "equal" if line["ok"] else "; ".join(f"{s}: {c}" for s, c in line["failures"])[:110]
    batch = "any" if len(line.get("batches", ())) > 1 else "one"
    return (
        f"{line['model']:44} {line.get('parameters', 0) / 1e6:6.1f} {left:4.0f} % "
        f"{line.get('groups', 0):4} {batch} {' '.join(cells)} {line.get('gap', 0):8.1g} {what}"
    )


_STEPS = ("build", "capture", "eager", "analyze", "prune", "save", "load")
HEAD = (
    f"{'model':44} {'M':>6} {'left':>6} {'grps':>4} bat  build   capt  eager  lower  analy  prune"
    "   save   load      gap result"
)


def summary(lines: dict[str, Line]) -> str:
    """How many of each library are equal, and which are not, by step and cause."""
    counts = Counter((n.partition(":")[0], line["ok"]) for n, line in lines.items())
    parts = [
        f"{library}: {counts[library, True]} of {counts[library, True] + counts[library, False]}"
        for library in sorted({n.partition(":")[0] for n in lines})
    ]
    causes: dict[str, list[str]] = {}
    for name, line in sorted(lines.items()):
        by_cause: dict[str, list[str]] = {}
        for step, cause in line["failures"]:
            by_cause.setdefault(cause, []).append(step)
        for cause, steps in by_cause.items():
            causes.setdefault(f"{', '.join(steps)}: {cause}", []).append(name)
    told = [f"- {cause}\n    {', '.join(names)}" for cause, names in causes.items()]
    total = sum(line["ok"] for line in lines.values())
    return "\n".join([f"{total} of {len(lines)} equal ({'; '.join(parts)})", *told])


def run(wanted: list[str], args: argparse.Namespace) -> None:
    server = fork_server()
    with args.out.open("a", encoding="utf-8") as file, ThreadPoolExecutor(args.jobs) as pool:
        running = [pool.submit(one, name, args, server) for name in wanted]
        for done in as_completed(running):
            line = done.result()
            file.write(json.dumps(line) + "\n")
            file.flush()
            print(row(line), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True, help="file of one JSON line a model")
    parser.add_argument("--only", nargs="*", default=["*"], help="names, such as `timm:res*`")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=120, help="of processor a model")
    parser.add_argument("--memory-gb", type=int, default=12, help="of memory a model")
    parser.add_argument("--inductor", action="store_true", help="compile each as well (minutes)")
    parser.add_argument("--again", action="store_true", help="repeat those that failed")
    parser.add_argument("--table", action="store_true", help="only print what FILE holds")
    args = parser.parse_args()
    names = [n for n in real_names.NAMES if any(fnmatch(n, p) for p in args.only)]
    known = lines_of(args.out)
    print(HEAD)
    for name in (n for n in names if n in known and (known[n]["ok"] or not args.again)):
        print(row(known[name]))
    if not args.table:
        run([n for n in names if n not in known or (args.again and not known[n]["ok"])], args)
    known = {n: line for n, line in lines_of(args.out).items() if n in names}
    print(summary(known))
    return 0 if known and all(line["ok"] for line in known.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
