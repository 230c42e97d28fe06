"""A batch on a local Ray cluster of two nodes, one of which is lost half way.

`make test-ray` installs Ray for it; elsewhere it is skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import items
import pytest
from items import plan
from modelspeed.batch import ray_run
from modelspeed.batch.journal import BatchJournal
from modelspeed.batch.plan import Options
from modelspeed.batch.ray_run import _note_room, _rooms, connected
from modelspeed.core.errors import MissingExtra

# In a process of its own: Ray warns, and leaves threads behind.
CLUSTER = """
import json, sys, threading, time
from pathlib import Path
from items import plan
from modelspeed.batch.journal import BatchJournal
from modelspeed.batch.plan import Options
from modelspeed.batch.ray_run import run_on_ray
from ray.cluster_utils import Cluster

class Watch:
    def __init__(self): self.count = 0
    def show(self, running, total): pass
    def ended(self, item): self.count += 1
    def note(self, text): pass

out, watch = Path(sys.argv[1]), Watch()
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
second = cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()

def run(plans, **options):
    with BatchJournal.open(out) as journal:
        options = Options(out, **options)
        return run_on_ray(plans, options, journal, watch, address=cluster.address)

failing = [plan(out, "f", "refuse late"), *(plan(out, n, "slow") for n in ("g", "h", "i"))]
stopped = run(failing, keep_going=False)
(out / "runs").unlink()
names = ("a", "b", "c", "d")
plans = [plan(out, n, "slow") for n in names] + [plan(out, "e", "refuse")]

def lose():
    # Two items run at a time, one of them on the second node.
    while not (out / "runs").is_file() or len((out / "runs").read_text().splitlines()) < 2:
        time.sleep(0.05)
    cluster.remove_node(second, allow_graceful=False)

threading.Thread(target=lose, daemon=True).start()
rows = run(plans, retries=2) + run(plans, resume=True) + stopped
print(json.dumps([[r.name, r.status, r.reason, r.reused] for r in rows]))
cluster.shutdown()
"""


def test_without_ray_the_sentence_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"modelspeed\[ray\]"):
        connected("auto")


def test_an_item_that_no_node_has_room_for_is_named(tmp_path):
    said, size = [], 4 << 30
    room, more = {"CPU": 2.0, "memory": float(size)}, {"CPU": 64.0, "memory": 64.0 * size}
    nodes = [
        {"NodeID": "a", "Alive": True, "Resources": room},
        {"NodeID": "b", "Alive": False, "Resources": more},
        {"NodeID": "unlike", "Alive": True, "Resources": more},
    ]
    rooms = _rooms(SimpleNamespace(nodes=lambda: nodes), ["a", "b"]).values()
    wide = plan(tmp_path, "wide", "met")
    wide = replace(wide, command=(*wide.command, "--threads=4"))
    watch = SimpleNamespace(note=said.append)
    plans = [plan(tmp_path, "small", "met"), wide]
    _note_room(rooms, plans, Options(tmp_path, memory=size), watch)
    assert len(said) == 1 and said[0].startswith("`wide` waits") and "CPU 4" in said[0]
    _note_room(rooms, plans[:1], Options(tmp_path, memory=size + 1), watch)
    assert "memory 4,294,967,297" in said[1]


def test_a_batch_whose_nodes_are_lost_says_what_waits(tmp_path, monkeypatch):
    said, asked, item = [], [], plan(tmp_path, "small", "met")
    states = iter([True, True, False, False])  # of the group's one node, at each look
    watch = SimpleNamespace(note=said.append, ended=lambda i: None, show=lambda r, n: None)
    (tmp_path / "logs").mkdir()

    def nodes():
        return [{"NodeID": "a", "Alive": next(states), "Resources": {"CPU": 2.0}},
                {"NodeID": "unlike", "Alive": True, "Resources": {"CPU": 9.0}}]  # fmt: skip

    waits = iter([([], []), ([], []), ([], []), (["task"], [])])
    task = SimpleNamespace(remote=lambda *_: "task")
    ray = SimpleNamespace(
        nodes=nodes, wait=lambda *_, **__: next(waits), get=lambda _: item.item("met"),
        remote=lambda _: SimpleNamespace(options=lambda **given: asked.append(given) or task),
        exceptions=SimpleNamespace(RayError=RuntimeError),
    )  # fmt: skip
    monkeypatch.setattr(ray_run, "group", lambda *_: ["a"])
    with BatchJournal.open(tmp_path) as journal:
        ray_run._all(ray, [item], Options(tmp_path), journal, watch)
    assert asked[0]["label_selector"] == {"ray.io/node-id": "in(a)"}
    assert len(said) == 1 and said[0].startswith("`small` waits")


def test_all_items_are_done_although_a_node_is_lost(tmp_path):
    pytest.importorskip("ray")
    support = str(Path(items.__file__).parent)
    env = {
        **os.environ,
        "SUPPORT": support,
        "PYTHONPATH": support,
        "RAY_DISABLE_IMPORT_WARNING": "1",
    }
    done = subprocess.run([sys.executable, "-c", CLUSTER, str(tmp_path)], env=env, text=True,
                          capture_output=True, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads(done.stdout.strip().splitlines()[-1])
    assert [row[1] for row in rows[:5]] == ["met"] * 4 + ["failed"], rows
    assert "truncated" in rows[4][2]
    assert all(row[3] for row in rows[5:10])  # resuming repeats nothing
    # After the first failure what runs is done; the last one is never begun.
    assert [rows[i][1] for i in (10, 11, 13)] == ["failed", "met", "stopped"], rows[10:]
    runs = (tmp_path / "runs").read_text().splitlines()
    assert 6 <= len(runs) <= 7, runs  # the one on the lost node was begun again
