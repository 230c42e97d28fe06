"""A ladder on Ray Serve; the long test kills one of two replicas under load.

`make test-ray` installs Ray for it; elsewhere that test is skipped.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Timer
from types import SimpleNamespace

import pico
import pytest
import torch
from modelspeed.checkpoints.ladders import read_ladder
from modelspeed.core.errors import ArtifactError, MissingExtra, UsageError
from modelspeed.runtime import serving
from safetensors.torch import load, save
from small_ladder import write_ladder

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "serve"
SLO_MS = 1000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_ladder(tmp_path_factory.mktemp("serve"))


class FakeServe:
    """What `application` and a replica use of `ray.serve` and `starlette.responses`."""

    @staticmethod
    def Response(body, status, headers, media_type):
        return SimpleNamespace(body=body, status=status, headers=headers, media=media_type)

    def deployment(self, **options):
        self.options = options
        return lambda kind: SimpleNamespace(bind=lambda *a, **k: (kind, a, k))

    def get_replica_context(self):
        return SimpleNamespace(replica_id=SimpleNamespace(unique_id="abc"))


@pytest.fixture
def serve(monkeypatch):
    fake = FakeServe()
    monkeypatch.setattr(serving, "extra", lambda package, wanted_by: fake)
    return fake


def test_without_ray_the_sentence_names_the_extra(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.serve", None)
    with pytest.raises(MissingExtra, match=r"modelspeed\[serve\]"):
        serving.application(folder, slo_ms=25)


def test_a_replica_answers_what_serve_hands_over(folder, serve):
    threads = torch.get_num_threads()
    kind, args, given = serving.application(folder, slo_ms=5000, replicas=2, threads=threads)
    replica = kind(*args, **given)

    async def stream():
        yield save({"input0": pico.images(1)})

    request = SimpleNamespace(method="POST", query_params={"slo_ms": "4000"}, stream=stream)
    answer = asyncio.run(replica(request))
    assert answer.status == 200 and load(answer.body)["output"].shape == (1, 3)
    assert answer.headers["Modelspeed-Replica"] == "abc"
    asyncio.run(replica.check_health())
    replica.__del__()
    with pytest.raises(UsageError, match="closed"):
        asyncio.run(replica.check_health())


def test_replicas_reserve_the_threads_that_the_ladder_was_measured_with(folder, serve):
    _, args, given = serving.application(folder, slo_ms=25, replicas=3, max_queue=50)
    measured = read_ladder(folder).machine.threads
    assert serve.options["num_replicas"] == 3 and "autoscaling_config" not in serve.options
    assert serve.options["ray_actor_options"] == {"num_cpus": measured, "num_gpus": 0}
    assert serve.options["max_ongoing_requests"] > 50 and args == (str(folder),)
    assert given["threads"] == measured and given["max_queue"] == 50


def test_two_numbers_of_replicas_scale_by_the_queue(folder, serve):
    settings = {"upscale_delay_s": 5}
    serving.application(folder, slo_ms=1e6, replicas=(1, 8), autoscaling=settings)
    assert serve.options["autoscaling_config"] == {
        "min_replicas": 1, "max_replicas": 8, "target_ongoing_requests": 16, "upscale_delay_s": 5,
    }  # fmt: skip
    assert "num_replicas" not in serve.options
    assert serving.ongoing_target(read_ladder(folder), slo_ms=1e-6) == 1


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"replicas": 0}, "at least 1"),
        ({"replicas": (3, 2)}, "the first the smaller"),
        ({"threads": 0}, "`threads` is 0"),
        ({"slo_ms": -1}, "`slo_ms` is -1"),
        ({"max_queue": 0}, "`max_queue` is 0"),
    ],
)
def test_replicas_that_cannot_be_are_refused_before_any_starts(folder, serve, given, sentence):
    with pytest.raises(UsageError, match=sentence):
        serving.application(folder, **{"slo_ms": 25, **given})


def test_a_folder_that_is_not_a_ladder_is_refused_before_anything_starts(folder, tmp_path, serve):
    with pytest.raises(ArtifactError, match=r"ladder\.json"):
        serving.application(tmp_path, slo_ms=25)
    with pytest.raises(UsageError, match="not a ladder"):
        serving.LadderReplica(str(folder / "rungs" / "0-blocks2"), slo_ms=25)


@contextmanager
def served(folder, replicas=2):
    """The example's server as a process, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, EXAMPLE / "serve.py", folder, f"--replicas={replicas}",
               f"--slo-ms={SLO_MS}", f"--port={port}"]  # fmt: skip
    env = {**os.environ, "RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert any(line.startswith("ready") for line in server.stdout), server.wait()
            yield server, f"http://127.0.0.1:{port}/"
        finally:
            if server.poll() is None:
                server.terminate()
            server.wait(60)


def described(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer), answer.headers["Modelspeed-Replica"]


def both(url, without=""):
    """Waits until two replicas answer, neither of them `without`; their pids by name."""
    pids, until = {}, time.monotonic() + 90
    while len(pids) < 2 and time.monotonic() < until:
        found, name = described(url)
        pids.update({name: found["pid"]} if name != without else {})
    return pids


def half_sent(url, body):
    """A request of which half is here: the replica that has it waits for the rest."""
    connection = http.client.HTTPConnection(url.split("/")[2], timeout=60)
    connection.putrequest("POST", "/?slo_ms=60000")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[: len(body) // 2])
    return connection


def end_of(connection, body):
    with suppress(BrokenPipeError, ConnectionResetError):  # it may be answered already
        connection.send(body[len(body) // 2 :])
    status = connection.getresponse().status
    connection.close()
    return status


def count(ends, starts=("answered", "error", "no connection")):
    return sum(end.startswith(starts) for end in ends)


@pytest.mark.long
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two replicas need two CPUs")
def test_no_request_is_lost_without_an_error_where_a_replica_is_killed(folder):
    pytest.importorskip("ray.serve")
    client = runpy.run_path(str(EXAMPLE / "client.py"))
    with served(folder) as (server, url):
        pids = both(url)
        assert len(pids) == 2
        body = client["body_of"](url)
        assert client["send"](url, b"not tensors")[0].startswith("error 400")
        assert client["send"](url + "?slo_ms=0.001", body)[0].startswith("error 503")
        assert client["send"](url, body)[0].startswith("answered by")

        name, pid = next(iter(pids.items()))
        held = [half_sent(url, body) for _ in range(8)]  # some of them wait within that replica
        killer = Timer(1.5, os.kill, (pid, signal.SIGKILL))
        killer.start()
        ends = [end for end, _ in client["load_of"](url, 40, 5)]
        assert count(ends) == 200 and count(ends, "answered") >= 150, ends
        assert ends[-1].startswith("answered")
        statuses = [end_of(connection, body) for connection in held]
        assert set(statuses) == {200, 500}, statuses
        assert len(both(url, without=name)) == 2, "no other replica came in its place"

        # What is on its way when the server ends still ends.
        with ThreadPoolExecutor(30) as pool:
            waiting = [pool.submit(client["send"], url, body) for _ in range(30)]
            server.terminate()
            ends = [future.result(60)[0] for future in waiting]
        assert count(ends) == 30, ends
        assert server.wait(60) == 0
