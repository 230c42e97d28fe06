from __future__ import annotations

import os
import subprocess
import sys

import pytest
from modelspeed.core.processes import python

LIMITED = """
import os, sys
from modelspeed.core.processes import die_with_parent, limit_memory, python
limit_memory(int(sys.argv[1]))
try:
    bytearray(1 << 30)
except MemoryError:
    print("refused")
"""
# A child that asks to die with its parent, and a parent that ends at once.
ORPHAN = """
import os, subprocess, sys
child = "import os, sys, time; from modelspeed.core.processes import die_with_parent;"
child += "die_with_parent(int(sys.argv[1])); print(os.getpid(), flush=True); time.sleep(600)"
made = subprocess.Popen([sys.executable, "-c", child, str(os.getpid())], stdout=subprocess.PIPE)
sys.stdout.buffer.write(made.stdout.readline())
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.parametrize(("limit", "said"), [(1 << 29, "refused\n"), (0, "")])
def test_memory_above_the_limit_is_refused_and_0_is_no_limit(limit, said):
    done = subprocess.run([sys.executable, "-c", LIMITED, str(limit)], capture_output=True,
                          text=True, check=True)  # fmt: skip
    assert done.stdout == said


def test_a_process_dies_with_its_parent():
    done = subprocess.run(
        [sys.executable, "-c", ORPHAN], capture_output=True, text=True, check=True
    )
    pid = int(done.stdout)
    for _ in range(500):
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return
            os.sched_yield()
        except FileNotFoundError:
            return
    pytest.fail(f"process {pid} lives on")


def test_a_module_in_the_current_folder_is_not_found_by_a_child(tmp_path, monkeypatch):
    (tmp_path / "typer.py").write_text("raise SystemExit('code of the folder ran')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    command = python("-m", "modelspeed", "--version")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("modelspeed"), done.stderr
    monkeypatch.setattr(sys, "path", ["", *sys.path])  # who asked for it keeps it
    assert python("-c", "1") == (sys.executable, "-c", "1")
