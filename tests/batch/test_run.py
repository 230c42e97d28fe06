"""Items that crash, hang and run out of memory are rows; nothing is repeated, nothing lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import items
import pytest
from items import plan
from modelspeed.batch.journal import NAME, BatchJournal
from modelspeed.batch.plan import Options
from modelspeed.batch.run import rows_of, run_batch
from modelspeed.core.errors import UsageError
from modelspeed.core.exit_codes import batch_exit_code
from modelspeed.core.workspace import recover

SUPPORT = str(Path(items.__file__).parent)


class Watched:
    def __init__(self):
        self.rows, self.most, self.stages = [], 0, set()

    def show(self, running, total):
        self.most = max(self.most, len(running))
        self.stages |= {p.stage for p in running}

    def ended(self, item):
        self.rows.append(item.name)

    def note(self, text):
        raise AssertionError(text)


@pytest.fixture
def out(tmp_path, monkeypatch):
    monkeypatch.setenv("SUPPORT", SUPPORT)
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def run(out, plans, **options):
    watch = Watched()
    with BatchJournal.open(out) as journal:
        rows = run_batch(plans, Options(out, **options), journal, watch, gate=out / "gate")
    return {row.name: row for row in rows}, watch


def runs(out):
    return (out / "runs").read_text().splitlines() if (out / "runs").is_file() else []


def test_each_way_to_fail_is_a_row_with_its_reason_and_the_others_are_done(out):
    modes = ("met", "missed", "refuse", "memory", "kill", "silent", "hang")
    rows, watch = run(out, [plan(out, m, m) for m in modes], workers=4, minutes=0.05,
                      memory=1 << 30)  # fmt: skip
    assert [(m, rows[m].status) for m in modes] == [
        ("met", "met"), ("missed", "missed"), ("refuse", "failed"), ("memory", "out of memory"),
        ("kill", "killed"), ("silent", "failed"), ("hang", "too slow"),
    ]  # fmt: skip
    assert rows["refuse"].reason == "`x.pt` is truncated or damaged."
    assert "not enough memory" in rows["memory"].reason
    assert "SIGKILL" in rows["kill"].reason and rows["kill"].attempts == 2
    assert rows["silent"].reason == "loading ..." and "still running" in rows["hang"].reason
    assert (rows["met"].result_ms, rows["met"].accuracy_after) == (2.5 * 1.02, 0.975)
    assert 1 < watch.most <= 4 and "loading" in watch.stages
    assert batch_exit_code(list(rows.values())) == 1 and len(watch.rows) == len(modes)
    assert not [p.name for p in out.iterdir() if p.name.startswith(".")]
    assert [n for n in runs(out) if n.startswith("kill")] == ["kill kill", "kill kill --resume"]


def test_done_items_are_left_and_failed_ones_tried_again_unless_resuming(out):
    plans = [plan(out, "a", "met"), plan(out, "b", "refuse"), plan(out, "c", "once")]
    rows, _ = run(out, plans)
    assert (rows["c"].status, rows["c"].attempts) == ("met", 2)
    assert len(runs(out)) == 4
    rows, _ = run(out, plans, resume=True)
    assert len(runs(out)) == 4 and all(r.reused for r in rows.values())
    assert rows["b"].status == "failed"
    run(out, plans)
    assert runs(out)[4:] == ["b refuse"]
    changed = plan(out, "a", "met", key="another target")
    rows, _ = run(out, [changed])
    assert runs(out)[5:] == ["a met"] and rows["a"].key == "another target"


def test_fail_fast_begins_no_more_and_says_so(out):
    plans = [plan(out, "a", "refuse"), plan(out, "b", "met"), plan(out, "c", "met")]
    rows, _ = run(out, plans, workers=1, keep_going=False)
    assert [rows[n].status for n in "abc"] == ["failed", "stopped", "stopped"]
    assert runs(out) == ["a refuse"] and "--resume" in rows["b"].reason


def test_the_same_work_is_not_done_twice_at_a_time(out):
    plans = [plan(out, n, "late", key="same") for n in "ab"]
    assert run(out, plans)[1].most == 1


BATCH = """
import sys
from pathlib import Path
from items import plan
from modelspeed.batch.journal import BatchJournal
from modelspeed.batch.plan import Options
from modelspeed.batch.run import run_batch

class Quiet:
    def show(self, running, total): pass
    def ended(self, item): pass
    def note(self, text): pass

out = Path(sys.argv[1])
plans = [plan(out, "a", "met"), plan(out, "b", "hang"), plan(out, "c", "met")]
with BatchJournal.open(out) as journal:
    run_batch(plans, Options(out, workers=1), journal, Quiet(), gate=out / "gate")
"""


def alive(out, name):
    found = subprocess.run(["pgrep", "-f", str(out / name)], capture_output=True, text=True)
    return found.stdout.split()


def test_a_batch_killed_half_way_takes_its_items_along_and_goes_on(out):
    env = {**os.environ, "PYTHONPATH": SUPPORT}
    parent = subprocess.Popen([sys.executable, "-c", BATCH, str(out)], env=env)
    try:
        end = time.monotonic() + 30
        while "b hang" not in runs(out) and time.monotonic() < end:
            time.sleep(0.02)
        with pytest.raises(UsageError, match="another batch"):
            BatchJournal.open(out)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    end = time.monotonic() + 5
    while alive(out, "b") and time.monotonic() < end:
        time.sleep(0.02)
    assert not alive(out, "b")  # it would have slept for minutes
    with (out / NAME).open("a") as file:
        file.write('{"event": "end", "item": {"na')  # torn by the kill
    plans = [plan(out, "a", "met"), plan(out, "b", "met", key="key-b-hang"), plan(out, "c", "met")]
    rows, _ = run(out, plans, resume=True, workers=1)
    assert [rows[n].status for n in "abc"] == ["met"] * 3
    assert runs(out) == ["a met", "b hang", "b met --resume", "c met"]
    assert rows["a"].reused and not rows["b"].reused


def test_what_was_written_before_its_end_was_noted_is_adopted(out):
    made = plan(out, "a", "met")
    run(out, [made])
    lines = (out / NAME).read_text().splitlines(keepends=True)
    (out / NAME).write_text(lines[0])
    rows, _ = run(out, [made], resume=True)
    assert rows["a"].status == "met" and rows["a"].reused and len(runs(out)) == 1
    assert json.loads((out / NAME).read_text().splitlines()[-1])["event"] == "end"


def test_an_older_artifact_is_not_taken_for_the_result_of_a_later_run(out):
    made = plan(out, "a", "met")
    run(out, [made])
    os.utime(made.folder / "report.json", (0, 0))
    lines = (out / NAME).read_text().splitlines(keepends=True)
    (out / NAME).write_text(lines[0])
    run(out, [made], resume=True)
    assert len(runs(out)) == 2


def test_what_was_moved_away_comes_back_and_half_written_folders_go(tmp_path):
    (tmp_path / ".a.old-modelspeed-7").mkdir()
    (tmp_path / ".a.old-modelspeed-7" / "report.json").write_text("{}")
    for name in (".a.tmp-modelspeed-7", ".a.trial-modelspeed", ".ab.trial-modelspeed"):
        (tmp_path / name).mkdir()
    recover(tmp_path / "a")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".ab.trial-modelspeed", "a"]
    assert (tmp_path / "a" / "report.json").is_file()


def test_rows_of_another_job_do_not_count(out):
    with BatchJournal.open(out) as journal:
        journal.end(plan(out, "a", "met").item("met"))
        assert rows_of([plan(out, "a", "met", key="new")], journal)[0].status == "stopped"
