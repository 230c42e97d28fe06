"""A graph as plain PyTorch: equal outputs with torch alone, the names kept, nothing else runs."""

from __future__ import annotations

import random
import subprocess
import sys

import pico
import pytest
import torch
import zoo
from modelspeed.adjusters.plan import Context
from modelspeed.adjusters.quantize import plan
from modelspeed.checkpoints.graph_reader import read_graph
from modelspeed.checkpoints.graph_text import graph_text
from modelspeed.configs.recipe import make_step
from modelspeed.core.errors import EditError
from modelspeed.core.model_io import Inputs
from modelspeed.core.naming import inside
from modelspeed.graph.analysis.groups import analyze, keep_units
from modelspeed.graph.blocks import residual_blocks
from modelspeed.graph.capture import capture, clone, export_program
from modelspeed.graph.edits.apply import Cast, apply, leave_out
from modelspeed.graph.source import spelling
from safetensors.torch import save_file
from sources import assert_same, written
from torch import nn
from torch.fx import GraphModule

FRESH = """
import importlib.util, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
for folder in sorted(Path(sys.argv[1]).iterdir()):
    spec = importlib.util.spec_from_file_location(folder.name, folder / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    stored = torch.load(folder / "stored.pt")
    with torch.no_grad():
        got = module.load()(stored["inputs"])
    torch.testing.assert_close(got, stored["outputs"], rtol=0, atol=0, msg=folder.name)
    print(folder.name)
assert "modelspeed" not in sys.modules
"""


def tuned_net():
    """Pruned, a block less, in int8: edits upon edits."""
    module = capture(pico.net(["residual", "squeeze_excite", "residual"]), (pico.images(2),))
    rng = random.Random(3)
    analysis = analyze(module)
    dropped = {g.name: [rng.randrange(g.size)] for g in analysis.prunable}
    apply(module, keep_units(analysis, dropped))
    apply(module, leave_out(residual_blocks(module)[:1]))
    module = capture(module, (pico.images(2),))
    data = [(pico.images(8), None)]
    context = Context(module, Inputs.of((pico.images(1),)), data)
    apply(module, plan(context, make_step("quantize").settings).edits)
    return capture(module, (pico.images(2),)), pico.images(3)


def half_net():
    module = capture(pico.net(["depthwise", "grouped"]), (pico.images(2),))
    return capture(apply(module, [Cast("bfloat16")]), (pico.images(2),)), pico.images(3)


def of_zoo(name):
    entry = zoo.ZOO[name]
    return capture(entry.model(), entry.inputs), *entry.rows(3)


def test_a_fresh_process_with_torch_and_safetensors_alone_gives_the_same(tmp_path):
    nets = {
        "tuned": tuned_net(), "half": half_net(), "vit": of_zoo("Vit"), "sound": of_zoo("Sound"),
        "mixed": (capture(pico.net(list(pico.BLOCKS), view=True), (pico.images(2),)),
                  pico.images(3)),
    }  # fmt: skip
    for name, (module, inputs) in nets.items():
        folder = tmp_path / name
        folder.mkdir()
        source = written(module)
        (folder / "model.py").write_text(source.text)
        save_file({k: v.detach().clone() for k, v in source.tensors.items()},
                  folder / "model.safetensors")  # fmt: skip
        with torch.no_grad():
            torch.save({"inputs": inputs, "outputs": module(inputs)}, folder / "stored.pt")
        assert spelling.FALLBACK not in source.text
    assert "torch.int8" in (tmp_path / "tuned" / "model.py").read_text()
    command = [sys.executable, "-W", "ignore", "-c", FRESH, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == sorted(nets)
    tidy = [sys.executable, "-m", "ruff", "--isolated"]
    for step in (["format", "--check"], ["check", "--select", "E,F,I,B", "--ignore", "E501"]):
        done = subprocess.run([*tidy, *step, str(tmp_path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_it_reads_like_a_model_and_keeps_the_keys_of_the_checkpoint():
    model = pico.net(["residual"])
    module = capture(model, (pico.images(2),))
    source = written(module)
    assert set(source.tensors) == set(model.state_dict())
    for line in (
        "        self.stem = nn.Conv2d(1, 8, 3, stride=2, padding=1)",
        "                    bn1=nn.BatchNorm2d(8),",
        "        # blocks.0",
        "        x = self.stem(x)",
        "        y = self.blocks[0].conv1(x)",
        "        x = F.adaptive_avg_pool2d(x, 1).flatten(1)",
        "- x: float32 [batch, 1, 12, 12]",
    ):
        assert line in source.text.splitlines(), source.text
    assert source.text == written(clone(module)).text


def test_a_graph_that_was_read_has_the_same_text():
    """Its sizes that change from call to call are texts."""
    module = capture(pico.net(["residual"]), (pico.images(2),))
    again = read_graph(graph_text(module), dict(module.state_dict()))
    assert written(again).text == written(module).text


class Odd(nn.Module):
    """Names that are not names of Python, numbers with gaps, lists of tensors, one tensor twice."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.ModuleDict({"0": nn.Linear(4, 4), "2": nn.Linear(4, 4)})
        self.words = nn.ModuleDict({"a-b": nn.Linear(4, 4), "my layer": nn.Linear(4, 4)})
        self.gains = nn.ParameterList([nn.Parameter(torch.rand(4)) for _ in range(2)])
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.steps["0"].weight
        self.register_buffer("shift", torch.rand(4))

    def forward(self, x, mask=None):
        for layer in (*self.steps.values(), *self.words.values()):
            x = torch.relu(layer(x))
        y = self.tied(x * self.gains[0] + self.gains[1]) - self.shift
        return {"y": y, "both": (y[..., -1] * mask[:, 0], [mask])}


def test_odd_names_tied_tensors_keywords_and_nested_outputs_survive():
    torch.manual_seed(0)
    inputs = Inputs((torch.randn(2, 4),), {"mask": torch.rand(2, 4)})
    source = assert_same(capture(Odd().eval(), inputs), inputs)
    assert "F.linear(x, self.tied.weight, self.tied.bias)" in source.text


def test_a_name_cannot_bring_code_into_the_file():
    evil = 'a"\nimport os\n"""'
    module = capture(Odd().eval(), Inputs((torch.ones(2, 4),), {"mask": torch.ones(2, 4)}))
    odd = inside("a-b")
    module.words._modules[evil] = module.words._modules.pop(odd)
    for node in module.graph.nodes:
        if node.op == "get_attr":
            node.target = str(node.target).replace(f".{odd}.", f".{evil}.")
    text = written(module).text
    compile(text, "model.py", "exec")
    assert "\nimport os" not in text


class Self(nn.Module):
    """A submodule called `self`, embeddings, a branch that nobody reads, powers, a large number."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleDict({"self": nn.Linear(4, 4), "words": nn.Embedding(9, 4, 0)})
        self.unread = nn.Linear(4, 4)

    def forward(self, ids):
        self.unread(torch.ones(1, 4)).relu()
        x = self.inner["self"](self.inner["words"](ids))
        return {"mean": torch.where(x > 0, x**2, -3e38).amax((1, 2)), "x": (x, x.mT)}


def test_embeddings_are_modules_and_what_nobody_reads_is_left_out():
    torch.manual_seed(0)
    ids = torch.tensor([[1, 2, 3], [4, 5, 0]])
    source = assert_same(capture(Self().eval(), (ids,)), Inputs((ids,)))
    assert "words=nn.Embedding(9, 4, padding_idx=0)" in source.text
    assert "self=nn.Linear(4, 4)" in source.text and "x**2" in source.text
    assert "unread" not in source.text


class Rough(nn.Module):
    """The weight of a convolution is also read by itself; one layer runs at two strides."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        y = self.a(x) * self.a.weight.mean()
        z = nn.functional.conv2d(y, self.b.weight, self.b.bias, 2, 1)
        y.add_(1.0)
        y.clamp_(max=0.5)
        return self.b(y).mean((2, 3)) + z.mean((2, 3)), y.max(1)[1], 2 - y


def test_what_is_read_by_itself_is_no_module_and_changes_in_place_stay_in_place():
    module = capture(Rough().eval(), (pico.images(2),))
    source = assert_same(module, Inputs((pico.images(3),)))
    assert "nn.Conv2d" not in source.text
    assert "x.add_(1.0)" in source.text


def test_an_operator_without_a_spelling_is_called_by_its_own_name():
    module = capture(nn.Sequential(nn.Linear(3, 4), nn.Softmax(-1)).eval(), (torch.ones(2, 3),))
    (softmax,) = [n for n in module.graph.nodes if spelling.operator_of(n) == "softmax"]
    softmax.target = torch.ops.aten._softmax.default
    softmax.args = (*softmax.args, False)
    module.recompile()
    source = assert_same(module, Inputs((torch.ones(2, 3),)))
    assert "# An operator without a spelling of its own." in source.text
    assert "torch.ops.aten._softmax.default(x, -1, False)" in source.text


def test_the_stored_form_is_written_as_well_as_the_captured_one():
    model = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)).eval()
    program = export_program(model, torch.randn(2, 2, 8))
    assert_same(program.module(check_guards=False), Inputs((torch.randn(3, 2, 8),)))


@pytest.mark.parametrize("kind", ["nested", "foreign"])
def test_what_cannot_be_written_is_refused(kind):
    if kind == "nested":

        class Pair(nn.Module):
            def forward(self, pair):
                return pair[0] + pair[1]

        both = (torch.ones(2), torch.ones(2))
        module = torch.export.export(Pair(), (both,)).module(check_guards=False)
        words = "nested"
    else:
        graph = torch.fx.Graph()
        graph.output(graph.call_function(len, (graph.placeholder("x"),)))
        module, words = GraphModule(nn.Module(), graph), "no plain spelling"
    with pytest.raises(EditError, match=words):
        written(module)
