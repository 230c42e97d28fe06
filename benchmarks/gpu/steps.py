"""The steps of the GPU check in the order of their worth, each with a limit, one after the other.

Started by `run.sh`, which sets the paths. A step is a process group of its own: at its limit it is
asked for the stacks of its threads (SIGABRT, which Python's faulthandler answers into the log), and
killed after a few seconds. Each has a line in `$OUT/lines.jsonl` when it ends; what it found out by
then has lines of its own. What all of them say goes into `$OUT/log.txt`. Standard library only.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lines import NAME, emit, read

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SETUP = 25  # seconds: run.sh, before the first step
GRACE = 4  # seconds that a step has to say where it stood
TABLES = 5  # seconds: collect.py, at the end
WHOLE = {1: 480, 2: 440}  # seconds of each part, all limits together


@dataclass(frozen=True)
class Step:
    """`limit` in seconds, the grace included; `words` follow the interpreter's name.

    In `words`, DEVICE and OUT are filled in. `quick`: what replaces them on a machine without GPU.
    """

    name: str
    limit: int
    words: tuple[str, ...]
    quick: tuple[str, ...] | None = None
    part: int = 1

    @property
    def kind(self) -> str:
        return self.name.partition("-")[0]


def gpu_tests() -> tuple[str, ...]:
    """The files whose tests are marked: collecting all others would take longer than running."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return tuple(str(f.relative_to(ROOT)) for f in files if "mark.gpu" in f.read_text())


def script(name: str, *words: str) -> tuple[str, ...]:
    return (f"benchmarks/gpu/{name}.py", *words)


def command(name: str, *words: str) -> tuple[str, ...]:
    return script("command", name, *words)


def tuned(net: str, batch: int, limit: int, part: int = 1) -> Step:
    name = f"tune-{net}-b{batch}"
    words = ("--net", net, "--batch", str(batch), "--device", "DEVICE", "--minutes")
    # The rest is for two processes that start, one of which verifies.
    minutes = f"{max(0.1, (limit - 25) / 60):.2f}"
    return Step(name, limit, command(name, *words, minutes), command(name, *words, "0.05"), part)


def engines(net: str, batch: int, limit: int, part: int = 1) -> Step:
    words = ("--net", net, "--batch", str(batch), "--device", "DEVICE", "--seconds")
    return Step(
        f"engines-{net}-b{batch}", limit, script("engines", *words, str(limit - GRACE)),
        script("engines", *words, "600"), part,
    )  # fmt: skip


DIGITS = "examples/digits/digits_resnet.pt"
TRUSTED = "--trust-code"  # a copy of the repository may be writable by others
STEPS = (
    Step("doctor", 30, command("doctor", "doctor", "--device", "DEVICE", "--seconds", "4"),
         command("doctor", "doctor", "--device", "DEVICE", "--seconds", "0.5", "--threads", "1")),
    Step("tests", 55, ("-m", "pytest", "-m", "gpu", "-n", "6", "-p", "no:cacheprovider",
                       "-o", "filterwarnings=default", "--junitxml", "OUT/tests.xml", "TESTS"),
         ("-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "--collect-only", "TESTS")),
    Step("aa", 25, ("benchmarks/aa.py", "--device", "DEVICE", "--repeats", "20", "--seconds", "0.3",
                    "--lines"),
         ("benchmarks/aa.py", "--device", "DEVICE", "--repeats", "2", "--seconds", "0.05",
          "--calls", "20", "--lines")),
    Step("digits", 40, command("digits", "tune", DIGITS, TRUSTED, "--device", "DEVICE",
                               "--target-speedup", "2", "--minutes", "0.4",
                               "--out", "SCRATCH/digits", "--force"),
         command("digits", "tune", DIGITS, TRUSTED, "--device", "DEVICE", "--target-speedup", "1.1",
                 "--minutes", "0.05", "--threads", "1", "--preset", "lossless",
                 "--runtime", "lowered",
                 "--out", "SCRATCH/digits", "--force")),
    Step("profile", 35, command("profile", "profile", DIGITS, TRUSTED, "--device", "DEVICE",
                                "--runtimes", "--out", "SCRATCH/profile.json", "--force"),
         command("profile", "profile", DIGITS, TRUSTED, "--device", "DEVICE", "--threads", "1",
                 "--out", "SCRATCH/profile.json", "--force")),
    Step("nets", 45, script("train", "--device", "DEVICE", "--seconds", "9"),
         script("train", "--device", "DEVICE", "--seconds", "0.2")),
    tuned("resnet50", 1, 60),
    engines("resnet50", 1, 55),
    tuned("vit", 1, 50),
    engines("vit", 1, 45),
    Step("pruning-resnet50-b32", 100,
         script("pruning", "--net", "resnet50", "--batch", "32", "--device", "DEVICE"),
         script("pruning", "--net", "resnet50", "--batch", "4", "--device", "DEVICE"), 2),
    tuned("bert", 1, 50, 2),
    engines("bert", 1, 40, 2),
    tuned("resnet50", 32, 55, 2),
    engines("resnet50", 32, 40, 2),
    engines("vit", 32, 40, 2),
    engines("bert", 32, 30, 2),
)  # fmt: skip


def chosen(part: int, only: list[str]) -> list[Step]:
    """Steps by name, or of a part; the nets are drawn and trained where they are missing."""
    if only:
        return [step for step in STEPS if step.name in only]
    nets = [step for step in STEPS if step.name == "nets" and part != 1]
    return nets + [step for step in STEPS if step.part == part]


def filled(words: tuple[str, ...], device: str) -> list[str]:
    known = {"DEVICE": device, "OUT": os.environ["OUT"],
             "SCRATCH": os.environ["MODELSPEED_GPU_SCRATCH"]}  # fmt: skip
    found: list[str] = []
    for word in words:
        if word == "TESTS":
            found += gpu_tests()
            continue
        for name, value in known.items():
            word = value if word == name else word.replace(f"{name}/", f"{value}/")
        found.append(word)
    return found


def run(step: Step, device: str, quick: bool, log: Path) -> bool:
    words = step.quick if quick and step.quick is not None else step.words
    begun = time.monotonic()
    with log.open("ab") as file:
        file.write(f"\n===== {step.name}\n".encode())
        file.flush()
        process = subprocess.Popen(
            [sys.executable, *filled(words, device)], cwd=ROOT, stdin=subprocess.DEVNULL,
            stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
        late = not _ends(process, (10 if quick else 1) * step.limit - GRACE)
    seconds = round(time.monotonic() - begun, 1)
    code = process.returncode
    emit("step", name=step.name, rc=code, seconds=seconds, limit=step.limit, late=late)
    state = "stopped at its limit" if late else "FAILED" if code else "ended"
    print(f"{step.name}: {state} after {seconds} s (limit {step.limit} s)", flush=True)
    return not late and code == 0


def _ends(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """False where it had to be stopped. Nothing that it has started is left behind."""
    try:
        process.wait(seconds)
        return True
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE - 1)
        return False
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def plan(steps: list[Step], part: int) -> str:
    rows = [("setup", SETUP), *((s.name, s.limit) for s in steps), ("tables", TABLES)]
    whole = sum(limit for _, limit in rows)
    lines = [f"{name:24} {limit:4} s" for name, limit in rows]
    return "\n".join([*lines, f"{'all limits of part ' + str(part):24} {whole:4} s"])


def tables() -> None:
    """The tables so far."""
    words = [sys.executable, str(HERE / "collect.py"), str(Path(os.environ["OUT"]) / NAME)]
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(words, timeout=TABLES, check=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny nets, a step of each kind")
    parser.add_argument("--plan", action="store_true", help="print the steps and run nothing")
    parser.add_argument("--part", type=int, choices=[1, 2], default=1)
    parser.add_argument("--only", nargs="*", default=[], help="steps by name")
    flags = parser.parse_args()
    if unknown := set(flags.only) - {step.name for step in STEPS}:
        parser.error(f"no step `{unknown.pop()}`; known: {', '.join(s.name for s in STEPS)}")
    steps = chosen(flags.part, flags.only)
    if flags.quick and not flags.only:  # one of each kind: the others go through the same code
        first: dict[str, Step] = {}
        for step in STEPS:
            first.setdefault(step.kind, step)
        steps = list(first.values())
    if flags.plan:
        print(plan(steps, flags.part))
        return 0
    log = Path(os.environ["OUT"]) / "log.txt"
    good = [run(step, flags.device, flags.quick, log) for step in steps]
    tables()
    missing = [row["missing"] for row in read(Path(os.environ["OUT"]) / NAME) if row.get("missing")]
    failed = flags.quick and any(not why.startswith("not installed") for why in missing)
    return 0 if all(good) and not failed else 1


if __name__ == "__main__":
    raise SystemExit(main())
