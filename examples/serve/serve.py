"""A ladder behind HTTP on Ray Serve, until Ctrl-C; `client.py` beside this sends requests.

pip install 'modelspeed[serve]'
python examples/serve/serve.py ckpt-ladder --replicas 2 --slo-ms 25
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from modelspeed.checkpoints.ladders import read_ladder
from modelspeed.core.errors import ModelspeedError, UsageError, text_line
from modelspeed.core.extras import extra
from modelspeed.runtime.serving import application

TIMEOUT_S = 30.0  # no client waits longer, whatever happens behind the proxy


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A ladder behind HTTP on Ray Serve.")
    parser.add_argument("ladder", type=Path, help="folder that `modelspeed ladder` wrote")
    parser.add_argument("--replicas", default="1", help="a number, or 1..8 to scale by the queue")
    parser.add_argument("--slo-ms", type=float, default=25.0, help="time to answer in")
    parser.add_argument("--threads", type=int, help="of each replica")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    return parser.parse_args()


def replicas_of(text: str) -> tuple[int, int]:
    fewest, dots, most = text.partition("..")
    try:
        return int(fewest), int(most if dots else fewest)
    except ValueError as error:
        raise UsageError(f"`--replicas` is `{text}`; it must be a number, or 1..8.") from error


def threads_of(ladder: Path, most: int, cpus: int) -> int:
    """As many as the ladder was measured with, or fewer if not all replicas have room then."""
    measured = read_ladder(ladder).machine.threads
    threads = max(1, min(measured, cpus // max(1, most)))
    if threads < measured:
        print(f"{most} replicas share {cpus} CPUs: each has {threads} threads, while the ladder "
              f"was measured with {measured}", file=sys.stderr)  # fmt: skip
    return threads


def check_port(host: str, port: int) -> None:
    """Serve itself would try again for ever."""
    try:
        socket.create_server((host, port)).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"`--host {host} --port {port}` can't be listened at: {error}.") from error


def run(asked: argparse.Namespace) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to Ray's makers
    serve, ray = extra("ray.serve", "serve.py"), extra("ray", "serve.py")
    fewest, most = replicas_of(asked.replicas)
    # What is wrong is said before Ray starts.
    read_ladder(asked.ladder)
    if os.environ.get("RAY_ADDRESS", "local") == "local":
        check_port(asked.host, asked.port)
    ray.init(include_dashboard=False)  # a new one, or the cluster at RAY_ADDRESS
    cpus = int(ray.cluster_resources().get("CPU", 0))
    threads = asked.threads or threads_of(asked.ladder, most, cpus)
    if fewest * threads > cpus:
        raise UsageError(
            f"{fewest} replicas with {threads} of `--threads` each need {fewest * threads} CPUs; "
            f"Ray has {cpus}."
        )
    app = application(
        asked.ladder,
        slo_ms=asked.slo_ms,
        replicas=fewest if fewest == most else (fewest, most),
        threads=threads,
    )
    serve.start(
        http_options={"host": asked.host, "port": asked.port, "request_timeout_s": TIMEOUT_S}
    )
    serve.run(app, name="ladder", route_prefix="/")
    url = f"http://{asked.host}:{asked.port}/"
    print(f"ready; next: python examples/serve/client.py {url}", flush=True)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
    serve.delete("ladder")  # requests that wait are answered first
    serve.shutdown()


if __name__ == "__main__":
    try:
        run(options())
    except ModelspeedError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except RuntimeError as error:  # of Serve, whose log above has the replicas' own words
        sys.exit(f"error: {text_line(error)}")
