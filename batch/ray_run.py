"""The same plan on a Ray cluster: each item is a task, placed, counted and tried again by Ray.

Nodes see the same files under the same paths. On a node the items share a gate, as they do here:
one that measures has the node to itself. A latency holds on one kind of machine, so all items run
on nodes of one fingerprint, that of the largest group.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import MissingExtra, UsageError
from ..core.items import WRITTEN, Item
from ..profiling.gate import usual_folder
from .journal import Journal
from .plan import Options, Plan
from .process import Process, stage_of
from .run import AGAIN, POLL, Watch, clean, log_of, rows_of, to_do, written_since

WAIT = 0.5  # seconds between looks at the cluster


@dataclass(frozen=True)
class Remote:
    """A task that Ray has; its log is on the shared disk."""

    plan: Plan
    log: Path
    begin: int

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def stage(self) -> str:
        return stage_of(self.log, self.begin)


def run_on_ray(
    plans: Sequence[Plan], options: Options, journal: Journal, watch: Watch, *, address: str
) -> tuple[Item, ...]:
    """A row for each plan, in its order. Raises MissingExtra, or UsageError without a cluster."""
    ray = connected(address)
    try:
        _all(ray, to_do(plans, journal, watch, options.resume), options, journal, watch)
    finally:
        ray.shutdown()
    return rows_of(plans, journal)


def connected(address: str) -> Any:
    """Ray, connected to the cluster at `address`."""
    try:
        import ray
    except ImportError as error:
        raise MissingExtra('`--ray` needs Ray: pip install "modelspeed[ray]".') from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        first = (str(error).strip() or repr(error)).splitlines()[0]
        raise UsageError(f"`--ray {address}`: no cluster answers: {first}") from error
    return ray


def _all(ray: Any, plans: Sequence[Plan], options: Options, journal: Journal, watch: Watch) -> None:
    running: dict[Any, Remote] = {}
    nodes = group(ray, watch)
    for number, plan in enumerate(plans):
        journal.begin(plan.name, plan.key, 1)
        log = log_of(plan, options.out)
        log.touch()
        task = ray.remote(_item).options(
            num_cpus=_threads(plan), max_retries=options.retries, retry_exceptions=False,
            scheduling_strategy=_strategy(nodes, number), **_more(plan, options),
        )  # fmt: skip
        begun = time.time()
        running[task.remote(plan, options, begun)] = Remote(plan, log, log.stat().st_size)
    try:
        while running:
            done, _ = ray.wait(list(running), timeout=WAIT)
            for task in done:
                item = _result(ray, task, running.pop(task).plan)
                journal.end(item)
                watch.ended(item)
                if item.status not in WRITTEN and not options.keep_going:
                    return
            watch.show(list(running.values()), len(plans))
    finally:
        for task in running:
            ray.cancel(task, force=True)


def _result(ray: Any, task: Any, plan: Plan) -> Item:
    try:
        found: Item = ray.get(task)
        return found
    except ray.exceptions.RayError as error:
        first = (str(error).strip() or repr(error)).splitlines()[0]
        return plan.item("killed", reason=f"its worker was lost: {first}", code=1)


def _item(plan: Plan, options: Options, begun: float) -> Item:
    """What a task does on its node. Ray calls it again, elsewhere, where the node was lost."""
    attempt = 1
    while True:
        # A worker that was lost may have finished before that.
        if (found := written_since(plan, begun)) is not None:
            return found
        clean(plan.folder)
        process = Process.start(
            plan, log_of(plan, options.out), attempt, gate=usual_folder(), memory=options.memory,
            more=plan.resuming,
        )  # fmt: skip
        try:
            while not process.done() and not process.ended_late(options.minutes):
                time.sleep(POLL)
        except BaseException:
            process.end()
            raise
        item = process.item()
        clean(plan.folder)
        if item.status not in AGAIN or attempt > options.retries:
            return item
        attempt += 1


def _fingerprint() -> str:
    from ..profiling.machine import fingerprint

    return fingerprint().fingerprint


def group(ray: Any, watch: Watch) -> list[str]:
    """Ids of the nodes of the largest group that are alike; empty where all are."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    alive = [n["NodeID"] for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU")]
    ask = ray.remote(_fingerprint)
    answers = {
        node: ask.options(
            num_cpus=1, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote()
        for node in alive
    }
    groups: dict[str, list[str]] = defaultdict(list)
    for node, answer in answers.items():
        groups[ray.get(answer)].append(node)
    if len(groups) < 2:
        return []
    best = max(groups, key=lambda key: len(groups[key]))
    watch.note(f"{len(alive) - len(groups[best])} nodes are machines of another kind: not used")
    return groups[best]


def _strategy(nodes: Sequence[str], number: int) -> Any:
    if not nodes:
        return "SPREAD"
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(nodes[number % len(nodes)], soft=False)


def _threads(plan: Plan) -> int:
    words = [w for w in plan.command if w.startswith("--threads=")]
    return int(words[-1].partition("=")[2]) if words else 1


def _more(plan: Plan, options: Options) -> dict[str, Any]:
    asked: dict[str, Any] = {"memory": options.memory} if options.memory else {}
    if any(w.startswith("--device=cuda") for w in plan.command):
        asked["num_gpus"] = 1
    return asked
