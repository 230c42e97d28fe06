"""The same plan on a Ray cluster: each item is a task, placed, counted and tried again by Ray.

Nodes see the same files under the same paths. On a node the items share a gate, as they do here:
one that measures has the node to itself. A latency holds on one kind of machine, so all items run
on nodes of one fingerprint, that of the largest group.
"""

from __future__ import annotations

import importlib
import logging
import platform
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from types import ModuleType

from ..core.errors import MissingExtra, UsageError
from ..core.items import WRITTEN, Item
from ..core.workspace import recover
from ..profiling.gate import usual_folder
from .journal import BatchJournal
from .plan import ItemPlan, Options
from .process import PATIENCE, Process, Running
from .run import AGAIN, POLL, Watch, log_of, rows_of, to_do, written_since

WAIT = 0.5  # seconds between looks at the cluster
NODE_ID = "ray.io/node-id"  # the label that Ray gives each node


def run_on_ray(
    plans: Sequence[ItemPlan],
    options: Options,
    journal: BatchJournal,
    watch: Watch,
    *,
    address: str,
) -> tuple[Item, ...]:
    """A row for each plan, in its order. Raises MissingExtra, or UsageError without a cluster."""
    ray = connected(address)
    try:
        _all(ray, to_do(plans, journal, watch, options.resume), options, journal, watch)
    finally:
        ray.shutdown()
    return rows_of(plans, journal)


def connected(address: str) -> ModuleType:
    """Ray, connected to the cluster at `address`."""
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise MissingExtra('`--ray` needs Ray: pip install "modelspeed[ray]".') from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        first = (str(error).strip() or repr(error)).splitlines()[0]
        raise UsageError(f"`--ray {address}`: no cluster answers: {first}") from error
    return ray


def _all(
    ray: ModuleType,
    plans: Sequence[ItemPlan],
    options: Options,
    journal: BatchJournal,
    watch: Watch,
) -> None:
    waiting, running = list(plans), dict[object, Running]()
    nodes = group(ray, watch)
    seen_nodes = set[str]()
    try:
        while waiting or running:
            rooms = _rooms(ray, nodes)
            if seen_nodes != rooms.keys():  # at first, and whenever one is lost
                seen_nodes = set(rooms)
                left = [*waiting, *(seen.plan for seen in running.values())]
                _note_room(rooms.values(), left, options, watch)
            for plan in _startable(waiting, running.values()):
                waiting.remove(plan)
                running.update([_begun(ray, plan, options, journal, nodes)])
            done, _ = ray.wait(list(running), timeout=WAIT)
            for task in done:
                item = _result(ray, task, running.pop(task).plan)
                journal.end(item)
                watch.ended(item)
                if item.status not in WRITTEN and not options.keep_going:
                    waiting.clear()
                    for queued in [t for t, seen in running.items() if not _at_work(seen)]:
                        ray.cancel(queued)
                        del running[queued]
            watch.show([seen for seen in running.values() if _at_work(seen)], len(plans))
    finally:
        for task in running:
            ray.cancel(task)
        if running:
            ray.wait(list(running), num_returns=len(running), timeout=PATIENCE + WAIT)


def _startable(waiting: Sequence[ItemPlan], running: Iterable[Running]) -> list[ItemPlan]:
    """All that are not the same work as one that Ray has: the two would share a journal."""
    first = {plan.key: plan for plan in reversed(waiting)}
    busy = {seen.plan.key for seen in running}
    return [plan for key, plan in reversed(first.items()) if key not in busy]


def _begun(
    ray: ModuleType, plan: ItemPlan, options: Options, journal: BatchJournal, nodes: Sequence[str]
) -> tuple[object, Running]:
    journal.begin(plan.name, plan.key, 1)
    log = log_of(plan, options.out)
    log.touch()
    seen = Running(plan, log, log.stat().st_size)
    where = {"label_selector": {NODE_ID: f"in({','.join(nodes)})"}} if nodes else {}
    task = ray.remote(_item).options(
        max_retries=options.retries, retry_exceptions=False, scheduling_strategy="SPREAD",
        **_resources(plan, options), **where,
    )  # fmt: skip
    return task.remote(plan, options, time.time()), seen


def _at_work(seen: Running) -> bool:
    return seen.log.stat().st_size > seen.begin


def _result(ray: ModuleType, task: object, plan: ItemPlan) -> Item:
    try:
        item: Item = ray.get(task)
        return item
    except ray.exceptions.RayError as error:
        first = (str(error).strip() or repr(error)).splitlines()[0]
        return plan.item("killed", reason=f"its worker was lost: {first}", code=1)


def _item(plan: ItemPlan, options: Options, begun: float) -> Item:
    """Run one item on a node. Ray calls it again, elsewhere, where the node was lost."""
    log = log_of(plan, options.out)
    with log.open("a") as file:
        file.write(f"on {platform.node()}\n")
    attempt = 1
    while True:
        # A worker that was lost may have finished before that.
        if (written := written_since(plan, begun)) is not None:
            return replace(written, reused=False, attempts=attempt)
        recover(plan.folder)
        process = Process.start(
            plan, log, attempt, gate=usual_folder(), memory=options.memory, more=plan.resuming
        )
        try:
            while not process.done() and not process.ended_late(options.minutes):
                time.sleep(POLL)
        except BaseException:
            process.end()
            recover(plan.folder)
            raise
        item = process.item()
        recover(plan.folder)
        if item.status not in AGAIN or attempt > options.retries:
            return item
        attempt += 1


def _fingerprint() -> str:
    from ..profiling.machine import fingerprint

    return fingerprint().fingerprint


def group(ray: ModuleType, watch: Watch) -> list[str]:
    """Ids of the nodes of the largest group that are alike; empty where there is none at all."""
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
        with suppress(ray.exceptions.RayError):  # it was lost meanwhile
            groups[ray.get(answer)].append(node)
    best = max(groups.values(), key=len, default=[])
    if len(groups) > 1:
        watch.note(f"{len(alive) - len(best)} nodes are machines of another kind: not used")
    return best


def _rooms(ray: ModuleType, nodes: Sequence[str]) -> dict[str, Mapping[str, float]]:
    """All resources of each living node, of `nodes` if given."""
    living = (node for node in ray.nodes() if node["Alive"])
    return {n["NodeID"]: n["Resources"] for n in living if n["NodeID"] in nodes or not nodes}


def _note_room(
    rooms: Collection[Mapping[str, float]],
    plans: Sequence[ItemPlan],
    options: Options,
    watch: Watch,
) -> None:
    """Ray waits without a word for a node that an item fits on."""
    names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    for plan in plans:
        asked = _resources(plan, options)
        if not any(all(r.get(names[k], 0) >= v for k, v in asked.items()) for r in rooms):
            wanted = ", ".join(f"{names[k]} {v:,}" for k, v in asked.items())
            watch.note(f"`{plan.name}` waits for a node with room for it ({wanted}): there is none")


def _resources(plan: ItemPlan, options: Options) -> dict[str, int]:
    """Resources that a task asks for, by Ray's names."""
    words = [w for w in plan.command if w.startswith("--threads=")]
    asked = {"num_cpus": int(words[-1].partition("=")[2]) if words else 1}
    if options.memory:
        asked["memory"] = options.memory
    if any(w.startswith("--device=cuda") for w in plan.command):
        asked["num_gpus"] = 1
    return asked
