"""ONNX Runtime: our int8 on integer kernels, the same answers in threads and forks, any batch."""

from __future__ import annotations

import multiprocessing
from collections import Counter, namedtuple
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from queue import Empty

import pico
import pytest
import torch
from modelspeed.adjusters import quantize
from modelspeed.adjusters.plan import Context
from modelspeed.backends import onnxruntime
from modelspeed.backends.onnx_graph import exportable
from modelspeed.backends.onnx_model import OnnxSession, onnx_program
from modelspeed.backends.onnxruntime import OnnxRuntime
from modelspeed.backends.registry import candidate_names
from modelspeed.configs.recipe import make_step
from modelspeed.core.errors import MeasureError
from modelspeed.core.model_io import Inputs
from modelspeed.graph.capture import capture, clone
from modelspeed.graph.edits.apply import apply
from modelspeed.graph.edits.quantization import LAYERS
from torch import nn

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
BACKEND = OnnxRuntime()
X = pico.images(1)
INTEGER = ("QLinearConv", "QGemm", "MatMulIntegerToFloat")
Answer = namedtuple("Answer", "classes first")


class Convolutions(nn.Module):
    """Pooling, a sum of two branches, a depthwise layer: all is rounded before it is read."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.left, self.right = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 1)
        self.depth = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.stem(x)), 2)
        x = torch.relu(self.left(x) + self.right(x))
        return self.head(nn.functional.relu6(self.depth(x)).amax((2, 3)))


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down, self.head = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 3, False)

    def forward(self, x):
        return self.head((x + self.down(nn.functional.gelu(self.up(x)))).mean(1))


def tokens(count, seed=0):
    return torch.randn(count, 5, 8, generator=torch.Generator().manual_seed(seed))


CASES = {
    "convolutions": (Convolutions, pico.images),
    "rows": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(144, 8), nn.ReLU(), nn.Linear(8, 3)),
             pico.images),
    "tokens": (Tokens, tokens),
}  # fmt: skip


@cache
def graph():
    return capture(pico.net(["residual"]), (X,))


def integers(model, draw, levels=255):
    torch.manual_seed(0)
    module = capture(model().eval(), (draw(1),))
    context = Context(module, Inputs.of((draw(1),)), [(draw(16, s), None) for s in range(2)])
    usual, quantize.largest_level = quantize.largest_level, lambda: levels
    try:
        edits = quantize.plan(context, make_step("quantize").settings).edits
    finally:
        quantize.largest_level = usual
    return apply(clone(module), edits)


@cache
def quantized(case, levels=255):
    return integers(*CASES[case], levels)


def prepared(module, *given):
    return BACKEND.prepare(module, Inputs.of(given or (X,)), "onnxruntime")


def kernels(module, x, path):
    """Operators by their number, as ONNX Runtime has made them for this machine."""
    model = onnx_program(module, Inputs.of((x,))).model_proto.SerializeToString()
    OnnxSession(model, optimized_model_filepath=str(path))
    return Counter(node.op_type for node in onnx.load(str(path)).graph.node)


@pytest.mark.parametrize("levels", [127, 255])
@pytest.mark.parametrize("case", CASES)
def test_every_int8_layer_runs_on_integer_kernels(case, levels, tmp_path):
    module, draw = quantized(case, levels), CASES[case][1]
    found = kernels(module, draw(1), tmp_path / "made.onnx")
    layers = len([n for n in module.graph.nodes if n.target in LAYERS])
    assert sum(found[kind] for kind in INTEGER) == layers
    assert not found["Conv"] and not found["FusedConv"] and not found["Gemm"] + found["MatMul"]
    assert found["Min"] == 0 or levels == 127


def test_a_sum_of_integers_is_added_as_integers(tmp_path):
    found = kernels(quantized("convolutions"), X, tmp_path / "made.onnx")
    assert found["QLinearAdd"] == 1 and not found["Add"]


def test_float_layers_stay_floats(tmp_path):
    found = kernels(graph(), X, tmp_path / "made.onnx")
    assert not sum(found[kind] for kind in (*INTEGER, "QuantizeLinear"))
    runs, x = prepared(graph()), pico.images(1, 9)
    with torch.inference_mode():
        torch.testing.assert_close(runs(x), graph()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_int8_stays_within_a_hundredth_of_our_own(case):
    module, draw = quantized(case, quantize.largest_level()), CASES[case][1]
    runs, x = prepared(module, draw(1)), draw(16, 9)
    with torch.inference_mode():
        wanted, answer = module(x), runs(x)
    error = (answer - wanted).square().mean().sqrt()
    assert float(error) <= float(wanted.max() - wanted.min()) / 100


class Averaged(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.relu(self.layer(x)).mean((2, 3)))


def test_a_convolution_whose_output_nothing_bounds_stays_in_floats_exactly(tmp_path):
    """A mean of values says little of how large they may be: no rounding is made up for it."""
    module = integers(Averaged, pico.images)
    found = kernels(module, X, tmp_path / "made.onnx")
    assert (found["Conv"] + found["FusedConv"], found["QGemm"]) == (1, 1)
    x = pico.images(4, 9)
    with torch.inference_mode():
        torch.testing.assert_close(prepared(module)(x), module(x), rtol=1e-2, atol=1e-3)


def test_the_graph_is_not_changed():
    module = quantized("convolutions")
    before = module.code
    exportable(module)
    assert module.code == before


def test_integer_weights_are_a_quarter_of_the_size():
    wide = nn.Sequential(nn.Flatten(), nn.Linear(144, 256), nn.ReLU(), nn.Linear(256, 256))
    sizes = [
        len(onnx_program(m, Inputs.of((X,))).model_proto.SerializeToString())
        for m in (integers(lambda: wide, pico.images), capture(wide.eval(), (X,)))
    ]
    assert sizes[0] < sizes[1] / 3


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
def _forked(runs):
    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    child = fork.Process(target=_child, args=(runs, queue))
    child.start()
    try:
        return queue.get(timeout=20)
    except Empty:
        return None
    finally:
        child.kill()
        child.join(20)


def test_a_forked_process_has_the_plain_graph():
    runs = prepared(graph())
    wanted = runs(X)
    answer = None
    for _ in range(3):  # a lock that another thread of this process held when it forked stays shut
        answer = answer or _forked(runs)
    torch.testing.assert_close(torch.tensor(answer), wanted.detach(), rtol=1e-4, atol=1e-5)


def test_every_batch_runs_on_what_was_made_once(monkeypatch):
    made = []
    usual = onnxruntime.OnnxSession
    monkeypatch.setattr(onnxruntime, "OnnxSession", lambda *a: made.append(1) or usual(*a))
    runs = prepared(graph())
    monkeypatch.setattr(runs, "usual", None)
    for batch in (1, 3, 2, 1):
        x = pico.images(batch)
        torch.testing.assert_close(runs(x), graph()(x).detach(), rtol=1e-4, atol=1e-5)
    assert made == [1]


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
    runs = BACKEND.prepare(module, inputs, "onnxruntime")
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
    x = torch.ones(2, 4, dtype=torch.bfloat16)
    module = capture(nn.Linear(4, 4).eval().bfloat16(), (x,))
    assert BACKEND.names(module, Inputs.of((x,))) == ()


def test_asked_for_by_name_the_search_goes_by_torchs_kernels():
    inputs = Inputs.of((X,))
    lowered = candidate_names(graph(), inputs, "lowered")
    assert candidate_names(graph(), inputs, "onnxruntime") == lowered
