"""A ladder on Ray Serve: replicas that each load it and answer HTTP through a stream.

Ray starts, routes, scales and replaces them; no server of our own is needed. Nodes see the folder
under the same path.

    from ray import serve
    from modelspeed.runtime.serving import application

    serve.run(application("ckpt-ladder", slo_ms=25, replicas=(1, 8)))
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..checkpoints.ladders import read_ladder
from ..core.errors import UsageError
from ..core.extras import extra
from ..core.ladder_record import LadderRecord
from .http_service import PROBE_MS, HttpService
from .ladder.ladder import Ladder
from .ladder.stream import check_limits
from .load import load

HERE = "modelspeed.runtime.serving"


class LadderReplica:
    """The deployment class: one process with the ladder in `folder` and a stream before it.

    `threads`: of torch, which replicas on one machine share among them. `loading`: arguments of
    `modelspeed.load`.
    """

    def __init__(
        self,
        folder: str,
        *,
        slo_ms: float,
        max_queue: int = 1024,
        threads: int | None = None,
        loading: Mapping[str, Any] | None = None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)  # before loading, which prepares for that number
        self._response = extra("starlette.responses", HERE).Response
        ladder = load(folder, **(loading or {}))
        if not isinstance(ladder, Ladder):
            raise UsageError(f"`{folder}` is not a ladder; `modelspeed ladder` makes one.")
        self.service = HttpService(ladder, slo_ms, max_queue)
        context = extra("ray.serve", HERE).get_replica_context()
        self._name = str(context.replica_id.unique_id)

    async def __call__(self, request: Any) -> Any:
        """The answer to an HTTP request, which Serve hands over as Starlette's."""
        answer = await self.service.answer(
            request.method, request.query_params.get("slo_ms"), request.stream()
        )
        headers = {**answer.headers, "Modelspeed-Replica": self._name}
        return self._response(answer.body, answer.status, headers, answer.media_type)

    async def check_health(self) -> None:
        """Serve replaces the replica where this raises or does not return in time."""
        await self.service.check()

    def __del__(self) -> None:
        """Serve calls this once no request is left, before it ends the process."""
        if service := self.__dict__.get("service"):
            service.close()


def application(
    folder: str | os.PathLike[str],
    *,
    slo_ms: float,
    replicas: int | tuple[int, int] = 1,
    threads: int | None = None,
    max_queue: int = 1024,
    autoscaling: Mapping[str, Any] | None = None,
    runtime: str | None = None,
    device: str | None = None,
    trust_compiled: bool = False,
) -> Any:
    """The application that `ray.serve.run` takes: the ladder in `folder` behind one HTTP route.

    `slo_ms`: the time of requests that do not bring their own. `replicas`: how many, or the fewest
    and the most, between which Serve goes by the requests that wait; `autoscaling` adds to or
    replaces its settings. `threads`: of each replica, reserved as CPUs of Ray; those that the
    ladder was measured with, if not given. The rest as for `modelspeed.load`.
    Raises MissingExtra without `ray[serve]`, ArtifactError for a damaged folder.
    """
    serve = extra("ray.serve", HERE)
    place = Path(folder).absolute()
    record = read_ladder(place)
    threads = record.machine.threads if threads is None else threads
    _check(slo_ms, max_queue, replicas, threads)
    loading = {"runtime": runtime, "device": device, "trust_compiled": trust_compiled}
    gpus = int((device or record.machine.device).startswith("cuda"))
    deployment = serve.deployment(
        name="ladder",
        ray_actor_options={"num_cpus": threads, "num_gpus": gpus},
        # The stream refuses what is too much, since it knows deadlines; Serve holds nothing back.
        max_ongoing_requests=2 * max_queue,
        max_queued_requests=max_queue,
        health_check_timeout_s=3 * PROBE_MS / 1000.0,
        # A line for each request costs as much time as a small net's answer.
        logging_config={"enable_access_log": False},
        **_scale(replicas, record, slo_ms, autoscaling or {}),
    )(LadderReplica)
    return deployment.bind(
        str(place), slo_ms=slo_ms, max_queue=max_queue, threads=threads, loading=loading
    )


def ongoing_target(record: LadderRecord, slo_ms: float) -> int:
    """Requests that a replica is to have at a time: as many as the top rung answers together
    within half of `slo_ms`, while as many again wait."""
    fit = [row.batch for row in record.rungs[0].latencies if row.p95_ms <= slo_ms / 2]
    return 2 * max(fit) if fit else 1


def _scale(
    replicas: int | tuple[int, int],
    record: LadderRecord,
    slo_ms: float,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    if isinstance(replicas, int):
        return {"num_replicas": replicas}
    fewest, most = replicas
    usual = {
        "min_replicas": fewest,
        "max_replicas": most,
        "target_ongoing_requests": ongoing_target(record, slo_ms),
    }
    return {"autoscaling_config": {**usual, **settings}}


def _check(slo_ms: float, max_queue: int, replicas: int | tuple[int, int], threads: int) -> None:
    fewest, most = (replicas, replicas) if isinstance(replicas, int) else replicas
    if not 1 <= fewest <= most or threads < 1:
        raise UsageError(
            f"`replicas` is {replicas} and `threads` is {threads}; both must be at least 1, and of "
            "two numbers of replicas the first the smaller."
        )
    check_limits(slo_ms, max_queue)  # here, and not in each replica that would fail
