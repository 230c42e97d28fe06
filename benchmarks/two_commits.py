"""The demo of two commits in turns: `two_commits.py BEFORE [AFTER]`. Prints a markdown table.

AFTER is HEAD where it is left out. Each commit is checked out into a worktree of its own, and runs
with this interpreter and its packages, a new cache each time. Exit code 1 where verdicts differ.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
VERDICTS = (0, 3, 4, 5)  # exit codes of runs that came to an end
WHERE = "import modelspeed; print(modelspeed.__path__[0])"


@dataclass
class Commit:
    """A checked-out commit, and what its runs said: records, and seconds of each."""

    name: str
    tree: Path
    packages: Path
    records: list[dict[str, Any]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def python(self, *words: str, cache: str = "") -> subprocess.CompletedProcess[str]:
        # From a folder without code: `-c` and `-m` put the current one before PYTHONPATH.
        others = os.environ.get("PYTHONPATH", "")
        path = os.pathsep.join(filter(None, (str(self.packages), others)))
        environment = {**os.environ, "PYTHONPATH": path, "MODELSPEED_CACHE": cache}
        return subprocess.run(
            [sys.executable, *words], cwd=self.packages.parent, env=environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def check_imported(self) -> None:
        done = self.python("-c", WHERE)
        if Path(done.stdout.strip()).resolve() != self.tree.resolve():
            sys.exit(f"`{self.name}` runs the code of `{done.stdout.strip()}`. {done.stderr}")

    def run(self, threads: int | None) -> None:
        with tempfile.TemporaryDirectory() as folder:
            words: tuple[str, ...] = (
                "-m",
                "modelspeed",
                "demo",
                "--out",
                f"{folder}/out",
                "--json",
            )
            words += ("--threads", str(threads)) if threads else ()
            started = time.monotonic()
            done = self.python(*words, cache=f"{folder}/cache")
            seconds = time.monotonic() - started
        if done.returncode not in VERDICTS or not done.stdout:
            sys.exit(f"`{self.name}` failed with exit code {done.returncode}:\n{done.stderr}")
        self.seconds.append(seconds)
        self.records.append(json.loads(done.stdout))

    @property
    def verdicts(self) -> set[str]:
        return {str(record["verdict"]) for record in self.records}

    def row(self) -> str:
        accuracy = (median(r["quality"][n] for r in self.records) for n in ("baseline", "final"))
        before, after = (f"{share:.4f}" for share in accuracy)
        gain = median(r["speedup"]["speedup"] for r in self.records)
        return (
            f"| {self.name} | {', '.join(sorted(self.verdicts))} | {before} -> {after} | "
            f"{gain:.2f}x | {min(self.seconds):.1f} | {median(self.seconds):.1f} |"
        )


@contextmanager
def checked_out(revision: str, folder: Path) -> Iterator[Commit]:
    """`revision` in a worktree below `folder`, and a folder that holds it as `modelspeed`."""
    name = git("rev-parse", "--short", "--verify", f"{revision}^{{commit}}")
    tree, packages = folder / "tree", folder / "packages"
    packages.mkdir(parents=True)
    git("worktree", "add", "--quiet", "--detach", str(tree), name)
    try:
        (packages / "modelspeed").symlink_to(tree, target_is_directory=True)
        commit = Commit(f"{revision} ({name})", tree, packages)
        commit.check_imported()
        yield commit
    finally:
        git("worktree", "remove", "--force", str(tree))


def git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"`git {' '.join(words)}`: {done.stderr.strip()}")
    return done.stdout.strip()


def compare(before: Commit, after: Commit, rounds: int, threads: int | None) -> int:
    """The exit code."""
    for number in range(rounds):
        # Who is first alternates too: the machine may be warmer for the second.
        for commit in (before, after) if number % 2 == 0 else (after, before):
            commit.run(threads)
            note = f"round {number + 1}: {commit.name}, {commit.seconds[-1]:.1f} s"
            print(note, file=sys.stderr, flush=True)
    print("| commit | verdict | accuracy | speed-up | least s | median s |")
    print("|---|---|---|---|---|---|")
    print(f"{before.row()}\n{after.row()}")
    least = min(after.seconds) / min(before.seconds)
    usual = median(after.seconds) / median(before.seconds)
    print(f"\nSeconds, after / before: {least:.2f} (least), {usual:.2f} (median).")
    machine = after.records[0]["machine"]
    print(f"Rounds: {rounds}. Machine: {machine['cpu']}, {machine['threads']} threads.")
    if before.verdicts == after.verdicts:
        return 0
    print("The verdicts differ.")
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("before", help="a commit")
    parser.add_argument("after", nargs="?", default="HEAD", help="another (default: HEAD)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="CPU threads of the demo")
    asked = parser.parse_args()
    if asked.rounds < 1:
        parser.error("`--rounds` must be 1 or more.")
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder) / "before", Path(folder) / "after"
        with checked_out(asked.before, first) as before, checked_out(asked.after, second) as after:
            return compare(before, after, asked.rounds, asked.threads)


if __name__ == "__main__":
    sys.exit(main())
