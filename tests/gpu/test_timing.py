"""Clocks, tables and peaks on a real GPU."""

from __future__ import annotations

import time
from statistics import median

import pico
import pytest
import torch
from modelspeed.backends import registry as runtimes
from modelspeed.core.model_io import Inputs
from modelspeed.graph.capture import capture
from modelspeed.profiling.clocks import CudaClock, QueuedCudaClock
from modelspeed.profiling.layers import profile_layers
from modelspeed.profiling.peak import peak_flops
from modelspeed.profiling.questions import Order
from modelspeed.profiling.timer import measure, measure_interleaved
from torch import nn

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def products(size, count):
    a = torch.randn(size, size, device="cuda")

    def run():
        x = a
        for _ in range(count):
            x = a @ x
        return x

    return run


def test_events_and_the_wall_clock_agree_within_3_percent():
    run, clock = products(2048, 20), CudaClock()
    clock.wake(run)
    rows = []
    for _ in range(30):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        inner = clock.time(run)
        rows.append((inner, 1e3 * (time.perf_counter() - begun)))
    events, wall = (median(row) for row in zip(*rows, strict=True))
    assert wall == pytest.approx(events, rel=0.03)


def test_work_queued_earlier_is_not_counted():
    clock, long, short = CudaClock(), products(4096, 10), products(256, 1)
    clock.wake(long)
    alone = min(clock.time(short) for _ in range(10))
    long()
    assert clock.time(short) < alone + 0.5 * clock.time(long)


def test_behind_a_spin_a_small_kernel_takes_less_than_its_launch():
    x = torch.randn(64, device="cuda")
    run = lambda: torch.relu(x)  # noqa: E731
    usual, queued = CudaClock(), QueuedCudaClock()
    usual.wake(run)
    times = [median(clock.time(run) for _ in range(50)) for clock in (usual, queued)]
    assert 0.0 < times[1] < times[0]


def test_the_same_calls_are_not_found_to_differ():
    run, findings = products(512, 8), []
    for seed in range(5):
        order = Order(50.0)
        measure_interleaved(
            [run, run], max_seconds=1.0, min_seconds=0.0, device="cuda", seed=seed, question=order
        )
        findings.append(order.comparison().finding)
    assert findings.count("no significant change") == len(findings)


def test_layers_of_a_recorded_net_add_up_to_its_call():
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(1024, 1024) for _ in range(12))).cuda().eval()
    inputs = Inputs((torch.randn(64, 1024, device="cuda"),))
    module = capture(model, inputs)
    runnable = runtimes.prepare(module, inputs, "cuda_graph")
    with torch.inference_mode():
        whole = measure(lambda: inputs.call(runnable), max_seconds=1.0, device="cuda").value_ms
    parts = runtimes.runtime_node_times(module, inputs, "cuda_graph")
    assert 0.4 * whole < sum(parts.values()) < 1.6 * whole


def test_a_profile_names_every_layer_with_a_time_and_the_peak_is_a_gpus():
    inputs = Inputs((pico.images(4).cuda(),))
    rows = profile_layers(capture(pico.net(["residual"]).cuda(), inputs), inputs)
    assert any(row.ms > 0 for row in rows)
    assert peak_flops("cuda") > 2e12
