"""OpenVINO: our int8 on integer kernels, the same answers in threads, forks and other shapes."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pico
import pytest
import torch
from modelspeed.adjusters.plan import Context
from modelspeed.adjusters.quantize import plan
from modelspeed.backends import by_shape, openvino, openvino_model
from modelspeed.backends.openvino import OpenVino
from modelspeed.backends.registry import candidate_names, runtime_node_times
from modelspeed.configs.recipe import make_step
from modelspeed.core.errors import MeasureError
from modelspeed.core.model_io import Inputs
from modelspeed.graph.capture import capture, clone
from modelspeed.graph.edits.apply import apply
from modelspeed.graph.layers import layers_of
from torch import nn

pytest.importorskip("openvino")
BACKEND = OpenVino()
X = pico.images(1)
Answer = namedtuple("Answer", "classes first")


@cache
def graph():
    return capture(pico.net(["residual", "depthwise"]), (X,))


@cache
def quantized():
    context = Context(graph(), Inputs.of((X,)), [(pico.images(16, s), None) for s in range(2)])
    return apply(clone(graph()), plan(context, make_step("quantize").settings).edits)


def prepared(module, *given):
    return BACKEND.prepare(module, Inputs.of(given or (X,)), "openvino")


def compiled(module, x=X):
    return openvino_model.compile_model(
        openvino_model.converted(openvino_model.convertible(module), [x])
    )


def whole_bytes():
    return torch.cpu._is_vnni_supported() and "AVX2" not in os.environ.get("ONEDNN_MAX_CPU_ISA", "")


@pytest.mark.skipif(not whole_bytes(), reason="no integer kernels for 8 bits without VNNI")
def test_every_int8_layer_runs_on_integer_kernels_and_no_float_one_does():
    layers = len(list(layers_of(graph())))
    assert openvino_model.integer_layers(compiled(quantized())) == layers
    assert openvino_model.integer_layers(compiled(graph())) == 0


def test_int8_stays_within_one_step_of_our_own():
    runs, x = prepared(quantized()), pico.images(1, 9)
    with torch.inference_mode():
        wanted, answer = quantized()(x), runs(x)
    assert float((answer - wanted).abs().max()) <= float(wanted.max() - wanted.min()) / 100


def test_floats_stay_floats():
    """By itself it takes bfloat16 where the processor has it: 0.3 % off."""
    runs, x = prepared(graph()), pico.images(1, 9)
    with torch.inference_mode():
        torch.testing.assert_close(runs(x), graph()(x), rtol=1e-5, atol=1e-6)


def test_times_of_layers_go_by_the_nodes_of_the_graph():
    for module in (graph(), quantized()):
        times = runtime_node_times(module, Inputs.of((X,)), "openvino")
        layers = {layer.node.name for layer in layers_of(graph())}
        assert {name: times.get(name, 0.0) for name in layers if not times.get(name)} == {}


def test_eight_threads_at_once_each_get_their_own_answer():
    runs = prepared(graph())
    inputs = [pico.images(1, seed) for seed in range(40)]
    with torch.inference_mode():
        wanted = [graph()(x) for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(runs, inputs))
    for answer, one in zip(answers, wanted, strict=True):
        torch.testing.assert_close(answer, one, rtol=1e-4, atol=1e-5)


def test_an_answer_is_not_overwritten_by_the_next_call():
    runs = prepared(graph())
    first = runs(X)
    kept = first.clone()
    runs(pico.images(1, 5))
    assert torch.equal(first, kept)


def test_it_runs_in_and_outside_of_inference_mode_and_takes_inputs_with_gradients():
    runs = prepared(graph())
    with torch.inference_mode():
        runs(X)
    runs(X)
    assert not runs(X.clone().requires_grad_()).requires_grad


def _child(runs, queue):
    queue.put(runs(X).detach().tolist())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_the_plain_graph():
    """OpenVINO's threads are not there, and it would wait for them for ever."""
    runs = prepared(graph())
    wanted = runs(X)
    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    child = fork.Process(target=_child, args=(runs, queue))
    child.start()
    answer = queue.get(timeout=60)
    child.join(60)
    torch.testing.assert_close(torch.tensor(answer), wanted.detach(), rtol=1e-5, atol=1e-6)


def test_other_shapes_are_compiled_once_and_those_beyond_the_bound_run_as_the_graph(monkeypatch):
    monkeypatch.setattr(by_shape, "MAX_SHAPES", 2)
    made = []
    usual = openvino.converted
    monkeypatch.setattr(
        openvino,
        "converted",
        lambda graph, given: made.append(len(given[0])) or usual(graph, given),
    )
    runs = prepared(graph())
    for batch in (1, 3, 3, 1, 2, 3, 1):
        x = pico.images(batch)
        torch.testing.assert_close(runs(x), graph()(x), rtol=1e-4, atol=1e-5)
    assert made == [1, 3]


def test_inputs_that_it_does_not_take_run_as_the_graph():
    runs = prepared(graph())
    with pytest.raises(RuntimeError, match="channels"):
        runs(torch.ones(1, 2, 12, 12))
    torch.testing.assert_close(runs(x=X), graph()(X), rtol=1e-4, atol=1e-5)


class Structured(nn.Module):
    """Several inputs by name, whole numbers among them, and a named tuple."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(9, 4), nn.Linear(4, 3)

    def forward(self, words, scale):
        y = self.head(self.table(words).mean(1)) * scale
        return {"answer": Answer(y.argmax(1), y[:, 0] > 0), "scores": y}


def test_outputs_keep_their_structure_and_their_types():
    model = Structured().eval()
    words, scale = torch.tensor([[1, 2, 8]]), torch.tensor([[2.0]])
    inputs = Inputs((words,), {"scale": scale})
    module = capture(model, inputs)
    runs = BACKEND.prepare(module, inputs, "openvino")
    answer, wanted = runs(words, scale=scale), model(words, scale=scale)
    assert type(answer["answer"]) is type(module(words, scale=scale)["answer"])
    for one, other in zip(
        (*answer["answer"], answer["scores"]), (*wanted["answer"], wanted["scores"]), strict=True
    ):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other.detach(), rtol=1e-4, atol=1e-5)


class Keeps(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        self.seen.add_(1)
        return x * self.seen


def test_a_model_that_keeps_something_is_refused():
    x = torch.ones(2, 3)
    with pytest.raises(MeasureError, match="each call writes"):
        prepared(capture(Keeps().eval(), (x,)), x)


def test_half_precision_stays_with_torch():
    module = capture(nn.Linear(4, 4).eval().bfloat16(), (torch.ones(2, 4, dtype=torch.bfloat16),))
    inputs = Inputs.of((torch.ones(2, 4, dtype=torch.bfloat16),))
    assert "openvino" not in candidate_names(module, inputs)
    with pytest.raises(MeasureError, match="float32 alone"):
        BACKEND.prepare(module, inputs, "openvino")
    x = X.bfloat16()
    with pytest.raises(RuntimeError, match="type"):  # the plain graph's own sentence
        prepared(graph())(x)


def test_the_users_word_says_what_is_tried():
    inputs = Inputs.of((X,))
    lowered = candidate_names(graph(), inputs, "lowered")
    assert candidate_names(graph(), inputs, "openvino") == ("openvino",)
    assert candidate_names(graph(), inputs, "inductor") == lowered and "openvino" not in lowered
    assert candidate_names(graph(), inputs) == ("openvino", *lowered)


def test_its_makers_are_not_told():
    """Imported by itself it sends them a message over the network."""
    code = (
        "import sys, socket\n"
        "def refuse(*_): raise SystemExit('the network was asked')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "import torch\n"
        "from modelspeed.backends.registry import ready\n"
        "from modelspeed.core.model_io import Inputs\n"
        "from modelspeed.graph.capture import capture\n"
        "x = torch.ones(1, 2)\n"
        "net = capture(torch.nn.Linear(2, 2).eval(), (x,))\n"
        "assert not isinstance(ready(net, Inputs.of((x,)), 'openvino'), str)\n"
        "assert 'openvino_telemetry' not in sys.modules\n"
    )
    env = {k: v for k, v in os.environ.items() if k != "CI"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
