"""`model.graph.json`: the same graph as the program's, read without torch's serializer, and what a
stranger may write into it refused."""

from __future__ import annotations

import copy
import json
import random
import subprocess
import sys

import pico
import pytest
import torch
from modelspeed.checkpoints.graph_reader import read_graph
from modelspeed.checkpoints.graph_text import graph_text, same_graph
from modelspeed.checkpoints.graph_values import Unstorable
from modelspeed.graph.capture import capture, has_dynamic_batch
from modelspeed.graph.lowering.live import tensors_of
from torch import nn

X = pico.images(2)


class Tied(nn.Module):
    """Keywords, a dict of outputs, tied weights, a buffer that is not saved, and state."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.register_buffer("shift", torch.ones(4), persistent=False)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x, *, mask):
        self.calls += 1
        parts = (self.second(torch.relu(self.first(x))) + self.shift).split([1, 3], 1)
        return {"logits": parts[1].masked_fill(mask, float("-inf")), "others": (parts[0],)}


def nets():
    yield "images", capture(pico.net(["residual", "depthwise", "squeeze_excite"]), (X,)), {"x": X}
    torch.manual_seed(0)
    given = {"x": torch.randn(2, 4), "mask": torch.zeros(2, 3, dtype=torch.bool)}
    yield "tied", capture(Tied().eval(), given), given
    laid = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()).to(memory_format=torch.channels_last)
    image = torch.randn(2, 3, 8, 8)
    yield "channels_last", capture(laid.eval(), (image,)), {"input": image}


NETS = {name: (module, given) for name, module, given in nets()}


def text_of(module):
    return graph_text(module), {n: t.detach().clone() for n, t in tensors_of(module).items()}


@pytest.mark.parametrize("name", NETS)
def test_what_is_read_is_the_graph_that_was_written(name):
    module, given = NETS[name]
    again = read_graph(*text_of(module))
    assert same_graph(module, again)
    assert has_dynamic_batch(again) == has_dynamic_batch(module)
    pairs = list(zip(module.named_modules(), again.named_modules(), strict=True))
    assert all(a == b for (a, _), (b, _) in pairs)
    for (_, mine), (_, theirs) in pairs:
        assert mine._non_persistent_buffers_set == theirs._non_persistent_buffers_set
    for x in (given, {k: torch.cat([v, v]) for k, v in given.items()}):
        call = x if name == "tied" else {}
        args = () if call else tuple(x.values())
        wanted, found = module(*args, **call), again(*args, **call)
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_tied_weights_stay_one_and_formats_stay_theirs():
    tied = read_graph(*text_of(NETS["tied"][0]))
    assert len({id(t) for n, t in tensors_of(tied).items() if n.endswith("weight")}) == 1
    laid = next(iter(read_graph(*text_of(NETS["channels_last"][0])).parameters()))
    assert laid.is_contiguous(memory_format=torch.channels_last)


def test_without_weights_tensors_have_no_values_yet():
    module, _ = NETS["images"]
    again = read_graph(graph_text(module), None)
    assert {t.device.type for t in tensors_of(again).values()} == {"meta"}


def test_a_graph_within_a_graph_is_left_to_the_program():
    class Chooses(nn.Module):
        def forward(self, x):
            return torch.cond(x.sum() > 0, lambda a: a + 1, lambda a: a - 1, (x,))

    with pytest.raises(Unstorable, match="graph of its own"):
        graph_text(capture(Chooses().eval(), (torch.ones(2, 3),)))


def node(stored, kind):
    return next(n for n in stored["nodes"] if n["op"] == kind)


def tensor(stored):
    return next(iter(stored["tensors"].values()))


DEEP = json.loads("[" * 50 + "]" * 50)


def set_target(target):
    return lambda stored: node(stored, "call_function").update(target=target)


HOSTILE = {
    "a function of Python": set_target("os.system"),
    "a function by its module": set_target("torch.ops.os.system.default"),
    "an operator's attribute": set_target("torch.ops.aten.conv2d.__class__"),
    "a call of what is named": set_target("_operator.call"),
    "a file": set_target("torch.ops.aten.from_file.default"),
    "another process": set_target("torch.ops.c10d.allreduce_.default"),
    "a graph": set_target("torch.ops.higher_order.cond"),
    "an unknown operator": set_target("torch.ops.aten.nonesuch.default"),
    "no operator": set_target(["x"]),
    "source in a name": lambda s: node(s, "call_function").update(name="x=1;import os"),
    "a name twice": lambda s: s["nodes"][2].update(name=s["nodes"][1]["name"]),
    "a word of Python's": lambda s: node(s, "placeholder").update(target="lambda"),
    "source in an argument": lambda s: s.update(arguments=["x=print()"]),
    "another tensor": lambda s: node(s, "get_attr").update(target="__class__"),
    "a module's method": lambda s: node(s, "get_attr").update(target="forward"),
    "source in a tensor": lambda s: s["tensors"].update({"a');print('": tensor(s)}),
    "a node that comes later": lambda s: node(s, "call_function").update(args=[{"node": "output"}]),
    "a text for a tensor": lambda s: node(s, "call_function").update(args=["/etc/passwd"]),
    "an unknown keyword": lambda s: node(s, "call_function").update(kwargs={"x'": 1}),
    "a call of a method": lambda s: node(s, "call_function").update(op="call_method"),
    "a call of a module": lambda s: node(s, "call_function").update(op="call_module", target="0"),
    "a container that is imported": lambda s: s.update(
        out_spec=s["out_spec"].replace('"type": null', '"type": "os.system"')
    ),
    "a huge tensor": lambda s: tensor(s).update(shape=[1 << 40]),
    "deep arguments": lambda s: node(s, "call_function").update(args=DEEP),
    "another format": lambda s: s.update(format=2),
    "no nodes": lambda s: s.update(nodes=[]),
    "a list": lambda s: s.update(tensors=[]),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_a_stranger_writes_is_refused(kind):
    text, weights = text_of(NETS["images"][0])
    stored = json.loads(text)
    HOSTILE[kind](stored)
    with pytest.raises(ValueError):
        read_graph(json.dumps(stored), weights)


JUNK = [None, True, -1, 1 << 70, 1e308, "", "__class__", "os.system", "x\n", [], {}, [[]],
        {"node": "x"}, {"dtype": "float99"}, {"tuple": 1}, {"device": "cuda:9"}]  # fmt: skip


def places(value, found):
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        found.append((value, key))
        if isinstance(inner, (dict, list)):
            places(inner, found)
    return found


def test_damage_ends_in_one_kind_of_error_or_in_a_graph():
    text, weights = text_of(NETS["tied"][0])
    stored, chance, refused = json.loads(text), random.Random(0), 0
    for _ in range(200):
        damaged = copy.deepcopy(stored)
        holder, key = chance.choice(places(damaged, []))
        holder[key] = chance.choice(JUNK)
        try:
            read_graph(json.dumps(damaged), weights)
        except ValueError:
            refused += 1
    assert refused > 50


def test_text_that_is_no_json_is_refused():
    for text in ("", "{", "[" * 100_000, '"x"', "1", "null"):
        with pytest.raises(ValueError):
            read_graph(text, {})


def test_reading_imports_neither_torchs_compiler_nor_its_algebra(tmp_path):
    (tmp_path / "g.json").write_text(graph_text(NETS["images"][0]))
    code = (
        "import sys, modelspeed.runtime.load\n"
        "from modelspeed.checkpoints.graph_reader import read_graph\n"
        f"read_graph(open({str(tmp_path / 'g.json')!r}).read(), None)\n"
        "print([m for m in ('sympy', 'torch._dynamo', 'torch._export.serde.serialize')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
