"""CUDA graphs and compiled code on a real GPU."""

from __future__ import annotations

import pico
import pytest
import torch
from modelspeed.backends import aoti, cuda_graph
from modelspeed.backends import registry as runtimes
from modelspeed.backends.compiler import lacks_compiler
from modelspeed.backends.cuda_graph import Recording, recorded
from modelspeed.core.errors import MeasureError
from modelspeed.core.model_io import Inputs, leaves
from modelspeed.graph.capture import capture, clone
from modelspeed.graph.edits.apply import Cast, Sparsify, apply
from modelspeed.graph.edits.sparsity import lacks_sparse_kernels
from torch import nn

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("default"),
]
CLOSE = {"rtol": 1e-2, "atol": 1e-3}  # convolutions round to 10 bits (TF32)


class Keyed(nn.Module):
    """Named inputs, nested outputs, a constant made on the way."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x, mask=None):
        y = torch.relu(self.a(x)) * mask + torch.arange(4, device=x.device)
        return {"y": y, "both": (y.sum(-1), x)}


class Waits(nn.Module):
    """The CPU asks for a value."""

    def forward(self, x):
        return x * float(x.sum().item())


class Synchronizes(nn.Module):
    """Waits in a way that torch's check does not see, so that the recording itself fails."""

    def forward(self, x):
        torch.cuda.synchronize()
        return x + 1


def given(rows=1):
    x, mask = torch.randn(rows, 4), torch.rand(rows, 4)
    return Inputs((x.cuda(),), {"mask": mask.cuda()})


def test_nested_outputs_of_changing_batches_are_the_callers_own():
    module = capture(Keyed().eval().cuda(), given())
    runnable = recorded(clone(module), module, given())
    pairs = []
    with torch.inference_mode():
        for rows in (1, 3, 1, 2, 3, 2, 1):  # recordings share memory: each overwrites the others'
            inputs = given(rows)
            pairs.append((inputs.call(runnable), inputs.call(module)))
    assert len(runnable.pick._made) == 3
    for answer, wanted in pairs:
        assert answer.keys() == wanted.keys()
        torch.testing.assert_close(leaves(answer), leaves(wanted), **CLOSE)


def test_recordings_of_many_batches_take_the_memory_of_the_largest():
    torch.manual_seed(0)
    layers = (
        m for _ in range(6) for m in (nn.Linear(1024, 4096), nn.ReLU(), nn.Linear(4096, 1024))
    )
    model = nn.Sequential(*layers).cuda().eval()
    inputs = Inputs((torch.randn(4096, 1024, device="cuda"),))
    module = capture(model, inputs)

    def reserved(call):
        torch.cuda.empty_cache()
        before = torch.cuda.memory_reserved()
        call()
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved() - before

    with torch.inference_mode():
        runnable = []
        one = reserved(lambda: runnable.append(recorded(clone(module), module, inputs)))
        more = reserved(
            lambda: [runnable[0](torch.randn(n, 1024, device="cuda")) for n in (4095, 4094, 4093)]
        )
    # Each has inputs and outputs of its own: 2 of 16 MB.
    assert more < max(one, 3 * 40 * 2**20)


@pytest.mark.parametrize("refused", [Waits, Synchronizes])
def test_after_one_that_can_not_be_recorded_others_are(refused):
    here = torch.cuda.current_stream()
    x = torch.ones(1, 4, device="cuda")
    for _ in range(2):
        with pytest.raises(MeasureError, match="CUDA can't record"):
            cuda_graph.record(refused(), [x])
        assert torch.cuda.current_stream() == here
        torch.cuda.empty_cache()  # asserts in torch that nothing is being recorded
        torch.cuda.synchronize()
    recording = cuda_graph.record(nn.ReLU(), [x])
    assert isinstance(recording, Recording)
    torch.testing.assert_close(recording(2 * x)[0], 2 * x)
    assert torch.randn(3, device="cuda").isfinite().all()


def test_calls_from_several_streams_wait_for_each_other():
    inputs = Inputs((torch.randn(512, 1024, device="cuda"),))
    torch.manual_seed(0)
    module = capture(nn.Sequential(*(nn.Linear(1024, 1024) for _ in range(8))).cuda(), inputs)
    runnable = recorded(clone(module), module, inputs)
    streams = [torch.cuda.Stream() for _ in range(3)]
    rows = [torch.randn(512, 1024, device="cuda") for _ in range(12)]
    torch.cuda.synchronize()
    answers = []
    with torch.inference_mode():
        for number, row in enumerate(rows):
            with torch.cuda.stream(streams[number % 3]):
                answers.append(runnable(row))
        torch.cuda.synchronize()
        for row, answer in zip(rows, answers, strict=True):
            torch.testing.assert_close(answer, module(row), **CLOSE)


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["folded", "channels_last", *cuda_graph.LOWERINGS])
def test_half_precision_gives_the_plain_graphs_outputs_under_every_lowering(half, name):
    inputs = Inputs((pico.images(2).cuda(),))
    module = capture(pico.net(["residual", "squeeze_excite"]).cuda(), inputs)
    cast = apply(clone(module), [Cast(half)])
    with torch.inference_mode():
        found = inputs.call(runtimes.prepare(cast, inputs, name))
        torch.testing.assert_close(found.float(), inputs.call(module), rtol=5e-2, atol=5e-2)


def test_a_sparse_net_is_recorded():
    if reason := lacks_sparse_kernels("cuda"):
        pytest.skip(reason)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 64)).cuda().eval()
    inputs = Inputs((torch.randn(64, 128, device="cuda"),))
    module = apply(
        capture(model, inputs),
        [Cast("float16"), Sparsify("0.weight"), Sparsify("2.weight")],
    )
    with torch.inference_mode():
        found = inputs.call(runtimes.prepare(module, inputs, "cuda_graph"))
        torch.testing.assert_close(found, inputs.call(module), rtol=1e-2, atol=1e-2)


@pytest.fixture
def compilable():
    if reason := lacks_compiler("cuda"):
        pytest.skip(reason)
    inputs = Inputs((pico.images(2).cuda(),))
    return capture(pico.net(["residual"]).cuda(), inputs), inputs


def gives_the_same(runnable, module):
    with torch.inference_mode():
        for rows in (2, 5, 2):
            x = pico.images(rows).cuda() + rows
            torch.testing.assert_close(runnable(x), module(x), **CLOSE)


def test_compiled_code_is_recorded_and_other_batches_run_as_usual(compilable):
    module, inputs = compilable
    runnable = runtimes.prepare(module, inputs, "inductor")
    gives_the_same(runnable, module)


def test_a_package_compiled_ahead_is_loaded_again_and_recorded(compilable):
    module, inputs = compilable
    package = runtimes.blob_of(module, inputs, "inductor")
    assert package is not None
    usual = clone(module)
    gives_the_same(aoti.load_package(package, usual, module, inputs), module)
    with pytest.raises(MeasureError, match="can't be loaded"):
        aoti.load_package(package[:1000], usual, module, inputs)
