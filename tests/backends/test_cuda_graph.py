"""One recording per shape of inputs. What CUDA itself does is replaced, but for the last tests."""

from __future__ import annotations

import warnings
from contextlib import contextmanager, nullcontext

import pico
import pytest
import torch
from modelspeed.backends import cuda_graph, ranking
from modelspeed.backends import registry as runtimes
from modelspeed.backends.cuda_graph import LOWERINGS, MOST, Recording, recorded
from modelspeed.core.errors import MeasureError
from modelspeed.core.model_io import Inputs, leaves
from modelspeed.core.records import Latency, LeftAlone
from modelspeed.graph.capture import capture, clone, export_program, module_of, moved
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class Keyed(nn.Module):
    """Named inputs, nested outputs, a constant made on the way."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x, mask=None):
        y = torch.relu(self.a(x)) * mask + torch.arange(4)
        return {"y": y, "both": (y.sum(-1), x)}


def given(rows=1):
    return Inputs((torch.randn(rows, 4),), {"mask": torch.rand(rows, 4)})


@pytest.fixture
def taken(monkeypatch):
    """The shapes that were recorded, on whatever device; five rows can't be."""
    shapes = []

    def record(usual, flat, together=None):
        shapes.append(flat[0].shape)
        if len(flat[0]) == 5:
            raise MeasureError("CUDA can't record this model as one graph")
        memory = [x.clone() for x in flat]
        outputs = [x.clone() for x in leaves(usual(*memory))]

        def replay():
            for mine, value in zip(outputs, leaves(usual(*memory)), strict=True):
                mine.copy_(value)

        return Recording(replay, memory, outputs, together)

    monkeypatch.setattr(cuda_graph, "record", record)
    return shapes


def test_every_shape_is_recorded_once_and_outputs_are_the_callers_own(taken):
    module = capture(Keyed().eval(), given())
    runnable = recorded(clone(module), module, given())
    pairs = []
    for rows, mode in ((1, torch.inference_mode), (3, torch.inference_mode), (1, torch.no_grad)):
        with mode():
            inputs = given(rows)
            pairs.append((inputs.call(runnable), inputs.call(module)))
    for answer, wanted in pairs:  # compared at the end: a later call may not have changed them
        assert answer.keys() == wanted.keys()
        torch.testing.assert_close(leaves(answer), leaves(wanted))
    assert [len(shape) and shape[0] for shape in taken] == [1, 3]
    assert not pairs[-1][0]["y"].requires_grad


def test_what_is_not_recorded_runs_as_usual(taken):
    module = capture(Keyed().eval(), given())
    with pytest.raises(MeasureError, match="can't record"):
        recorded(clone(module), module, given(5))
    taken.clear()
    runnable = recorded(clone(module), module, given())
    with torch.no_grad():
        for rows in (5, 5, *range(10, 10 + MOST)):
            inputs = given(rows)
            torch.testing.assert_close(leaves(inputs.call(runnable)), leaves(inputs.call(module)))
    assert len(taken) == MOST and taken.count((5, 4)) == 1
    assert runnable.pick([x.to("meta") for x in given()]) is None


def test_recordings_of_one_module_share_memory_until_its_weights_move(monkeypatch):
    pools = iter(range(10))
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: next(pools))
    seen = []

    def record(flat, together):
        seen.append(together.pool())
        return lambda *_: []

    recordings = cuda_graph.Recordings(record, torch.device("cpu"))
    for rows in (1, 2, 3):
        recordings([torch.ones(rows)])
    recordings.double()
    recordings([torch.ones(1)])
    assert seen == [0, 0, 0, 1]


def test_a_call_from_another_stream_waits_for_the_last_one(monkeypatch):
    class Stream:
        def __init__(self, name):
            self.name, self.waits = name, []

        def wait_stream(self, other):
            self.waits.append(other.name)

    first, second = Stream("first"), Stream("second")
    now, cuda, together = [first], torch.device("cuda"), cuda_graph.Together()
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: now[0])
    for stream in (first, first, second, second, first):
        now[0] = stream
        together.in_order(cuda)
    assert (first.waits, second.waits) == (["second"], ["first"])


@pytest.mark.parametrize("waits", [True, False])
def test_a_recording_that_fails_is_undone(monkeypatch, waits):
    """Where CUDA refuses, torch 2.11 leaves the allocator and the stream as they were set."""
    said, mode = [], [0]

    class Graph:
        replay = None

    class Stream:
        def wait_stream(self, other):
            pass

    here = Stream()

    @contextmanager
    def stream(given):
        try:
            yield
        finally:
            said.append(("back on", given))

    @contextmanager
    def capture_of(graph, pool, capture_error_mode):
        said.append((capture_error_mode, pool))
        yield
        raise RuntimeError("operation not permitted when stream is capturing")

    def usual(x):
        if mode[0] == "warn" and waits:
            warnings.warn("called a synchronizing CUDA operation (Triggered there)", stacklevel=1)
        return x + 1

    def undone(device, pool):
        said.append(("undone", device, pool))
        raise RuntimeError("not currently recording to mempool_id")  # as later versions say

    for name, value in {
        "device": lambda _: nullcontext(), "current_stream": lambda *_: here, "Stream": Stream,
        "stream": stream, "CUDAGraph": Graph, "graph": capture_of,
        "graph_pool_handle": lambda: (0, 7), "get_sync_debug_mode": lambda: mode[0],
        "set_sync_debug_mode": lambda value: mode.__setitem__(0, value),
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", undone, raising=False)
    monkeypatch.setattr(cuda_graph, "_FAILED", [])
    with pytest.raises(
        MeasureError, match="synchronizing CUDA operation$" if waits else "not permitted"
    ):
        cuda_graph.record(usual, [torch.ones(1)])
    assert mode == [0]
    assert (("undone", 0, (0, 7)) in said) is not waits
    assert len(cuda_graph._FAILED) == (0 if waits else 1)
    assert waits or ("back on", here) in said


def test_moved_or_cast_weights_are_recorded_anew(taken):
    module = capture(pico.net(["residual"]), (pico.images(1),))
    runnable = recorded(clone(module), module, Inputs((pico.images(1),)))
    assert set(runnable.double().usual.state_dict()) == set(module.state_dict())
    x = pico.images(1).double()
    assert runnable(x).dtype == runnable(x).dtype == torch.float64 and len(taken) == 2
    runnable.to("cpu")
    assert runnable(x).dtype == torch.float64 and len(taken) == 3


def test_only_a_gpu_has_them_and_an_artifact_made_for_one_runs_elsewhere():
    module = capture(pico.net(["residual"]), (pico.images(1),))
    assert not set(LOWERINGS) & set(runtimes.candidate_names(module, Inputs((pico.images(1),))))
    with FakeTensorMode():
        shown = Inputs((torch.empty(1, 1, 12, 12, device="cuda"),))
        names = runtimes.candidate_names(module, shown)
    assert names == ("folded", "channels_last", *LOWERINGS)
    ready = runtimes.prepare(module, Inputs((pico.images(1),)), "cuda_graph")
    assert torch.equal(ready(pico.images(2)), module(pico.images(2)))


def test_a_program_is_moved_with_the_constants_that_it_makes():
    program = export_program(Keyed().eval(), given())
    assert moved(program, "cpu") is program
    assert "device(type='cpu')" in module_of(program).code
    program = module_of(moved(program, "meta"))
    assert "'cpu'" not in program.code and {p.device.type for p in program.parameters()} == {"meta"}
    assert program(*(x.to("meta") for x in given().args), mask=given().kwargs["mask"].to("meta"))


@pytest.mark.parametrize("kind", [MeasureError, RuntimeError, AssertionError, KeyError])
def test_a_runtime_that_does_not_work_is_left_out_with_the_reason(monkeypatch, kind):
    def prepare(module, inputs, name, blob=None):
        if name == "folded":
            raise kind("CUDA can't record this model as one graph: a copy to the CPU")
        return module

    monkeypatch.setattr(runtimes, "prepare", prepare)
    monkeypatch.setattr(ranking, "_worth_measuring", lambda modules, _: modules)
    monkeypatch.setattr(
        ranking, "measure_interleaved", lambda runs, **_: [Latency(50, 1, 1, 1) for _ in runs]
    )
    inputs = Inputs((pico.images(1),))
    module = capture(pico.net([]), inputs)
    found = ranking.rank_backends(module, inputs, "lowered", (inputs,))
    assert "folded" not in found.names and found.names[0] == "plain"
    assert found.left_out == (
        LeftAlone(
            "runtime `folded`", "CUDA can't record this model as one graph: a copy to the CPU"
        ),
    )


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("name", LOWERINGS)
def test_on_a_gpu_recordings_give_the_same_for_every_batch(name):
    inputs = Inputs((pico.images(1).cuda(),))
    module = capture(pico.net(["residual", "depthwise"]).cuda(), inputs)
    runnable = runtimes.prepare(module, inputs, name)
    with torch.inference_mode():
        first, again = pico.images(1).cuda(), pico.images(1).cuda() + 1
        answers = [runnable(first), runnable(again), runnable(pico.images(3).cuda())]
        wanted = [module(first), module(again), module(pico.images(3).cuda())]
    for mine, right in zip(answers, wanted, strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-2, atol=1e-3)
    with pytest.raises(RuntimeError):
        runnable(pico.images(1))


@gpu
@pytest.mark.gpu
def test_on_a_gpu_what_waits_for_the_cpu_is_refused_in_a_sentence():
    class Waits(nn.Module):
        def forward(self, x):
            return x * float(x.sum().item())

    inputs = Inputs((torch.ones(1, 4).cuda(),))
    with pytest.raises(MeasureError, match="CUDA can't record"):
        cuda_graph.record(Waits(), list(inputs))
    torch.testing.assert_close(torch.ones(2).cuda() + 1, torch.full((2,), 2.0).cuda())
