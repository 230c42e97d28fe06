"""Whatever happens to a run, one of the two is complete in its place, and what is dead goes."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import killing
import pytest
from modelspeed.core import workspace as place
from modelspeed.core.files import write_whole
from modelspeed.core.workspace import recover, workspace

# In a process of its own, which forks: pytest's has threads of torch.
WALK = """
import json, shutil, sys
from pathlib import Path
import killing
from modelspeed.core import workspace as place
from modelspeed.core.files import write_whole
from modelspeed.core.workspace import recover, workspace

root, what, way = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
out = root / "out"
if way == "two steps":
    place.exchange = lambda one, other: False

def state():
    if out.is_dir():
        return "".join(sorted(p.name + p.read_text() for p in out.iterdir()))
    return out.read_text() if out.exists() else ""

def folder(text):
    with workspace(out) as space:
        space.new.mkdir()
        for name in "ab":
            (space.new / name).write_text(text)
        space.put(replace=True)

make = folder if what == "folder" else lambda text: write_whole(out, text)

def prepare():
    for path in root.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if way != "fresh":
        make("old")
    return lambda: make("new")

rows = []
for point in killing.every(killing.killed, prepare, root):
    at_once, siblings = state(), len([p for p in root.iterdir() if p != out])
    recover(out)
    rows.append([at_once, siblings, state(), [p.name for p in root.iterdir() if p != out]])
print(json.dumps(rows))
"""


def walk(tmp_path: Path, what: str, way: str) -> list[list[str]]:
    env = {**os.environ, "PYTHONPATH": str(Path(killing.__file__).parent)}
    done = subprocess.run([sys.executable, "-c", WALK, str(tmp_path), what, way], env=env,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("way", ["fresh", "over", "two steps"])
@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_kill_at_any_call_loses_nothing_and_leaves_nothing_for_long(tmp_path, what, way):
    rows = walk(tmp_path, what, way)
    old, new = ("aoldbold", "anewbnew") if what == "folder" else ("old", "new")
    before = "" if way == "fresh" else old
    assert len(rows) > 12 and any(siblings for _, siblings, _, _ in rows)
    if (what, way) == ("folder", "two steps"):  # for the blink between the two
        assert "" in {row[0] for row in rows}
    else:
        assert {row[0] for row in rows} == {before, new}
    assert {row[2] for row in rows} == {before, new}
    assert not any(row[3] for row in rows)


HOLD = """
import sys
from pathlib import Path
from modelspeed.core.workspace import workspace
with workspace(Path(sys.argv[1])) as space:
    space.new.mkdir()
    print(space.folder, flush=True)
    sys.stdin.read()
    space.put(replace=True)
"""


def test_what_a_living_run_works_in_is_left_alone(tmp_path):
    out = tmp_path / "out"
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(out)], text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    assert other.stdout is not None
    folder = Path(other.stdout.readline().strip())
    recover(out)
    with workspace(out) as space:
        space.new.write_text("x")
    assert folder.is_dir() and (folder / "new" / "out").is_dir()
    other.communicate("")
    assert other.returncode == 0 and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_used_number_of_a_process_is_no_obstacle_and_no_shelter(tmp_path):
    """In a container it is always the same one, and it is alive."""
    number = os.getpid()
    for name in (f".out.tmp-modelspeed-{number}", f".out.tmp-modelspeed-{number}-0123abcd",
                 ".out.trial-modelspeed", ".out.tmp-mine", ".outer.tmp-modelspeed-7"):  # fmt: skip
        (tmp_path / name).mkdir()
    (tmp_path / f".out.probe-modelspeed-{number}").touch()
    (tmp_path / ".out.tmp-modelspeed-7-0123abcd").symlink_to(tmp_path / ".out.tmp-mine")
    with workspace(tmp_path / "out") as space:
        space.new.mkdir()
        space.put(replace=False)
    left = [".out.tmp-mine", ".out.tmp-modelspeed-7-0123abcd", ".outer.tmp-modelspeed-7", "out"]
    assert sorted(p.name for p in tmp_path.iterdir()) == left
    assert not list((tmp_path / ".out.tmp-mine").iterdir())


def test_without_locks_nothing_is_taken_for_dead(tmp_path, monkeypatch):
    import fcntl

    (tmp_path / ".out.tmp-modelspeed-7-0123abcd").mkdir()

    def none(*_args: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    write_whole(tmp_path / "out", "x")
    assert (tmp_path / "out").read_text() == "x"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_appeared_meanwhile_is_not_replaced_unasked(tmp_path):
    with pytest.raises(OSError), workspace(tmp_path / "out") as space:
        space.new.mkdir()
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "theirs").write_text("x")
        space.put(replace=False)
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "theirs"]


def test_ctrl_c_between_the_two_renames_keeps_the_old(tmp_path, monkeypatch):
    out, replace, calls = tmp_path / "out", os.replace, []
    out.mkdir()
    (out / "a").write_text("old")

    def stop(source: object, target: object) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(place, "exchange", lambda one, other: False)
    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt), workspace(out) as space:
        space.new.mkdir()
        space.put(replace=True)
    assert len(calls) == 3 and [p.name for p in tmp_path.rglob("*")] == ["out", "a"]


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o002])
def test_modes_follow_the_umask_whatever_a_library_sets(tmp_path, umask):
    before = os.umask(umask)
    try:
        with workspace(tmp_path / "out") as space:
            space.new.mkdir()
            (space.new / "a").touch(mode=0o600)
            space.put(replace=False)
        write_whole(tmp_path / "b", "x")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "out" / "a", tmp_path / "b")]
    assert modes == [0o666 & ~umask] * 2


def test_everything_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    out, seen = tmp_path / "out", []

    def sync(path: Path) -> None:
        seen.append((path.name, out.exists()))

    monkeypatch.setattr(place, "sync", sync)
    with workspace(out) as space:
        space.new.mkdir()
        (space.new / "a").touch()
        space.put(replace=False)
    assert {("a", False), ("out", False), ("new", False)} <= set(seen)
    assert seen[-1] == (tmp_path.name, True)
