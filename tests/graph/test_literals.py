"""No text, name or number of a program becomes code in the file that is written of it."""

from __future__ import annotations

import ast
import math
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from modelspeed.core.errors import EditError
from modelspeed.core.model_io import Inputs
from modelspeed.core.naming import MARK, outside
from modelspeed.graph.capture import capture, clone
from modelspeed.graph.source.grammar import Grammar
from modelspeed.graph.source.literals import literal, string_literal
from sources import assert_same, made, written
from torch import nn

EVIL = '"+__import__("os").system("touch MARKER")+"'
CALL = 'print("MARKER")'


@given(st.text(st.characters(codec=None)))
def test_any_text_is_one_constant_that_reads_back_the_same(text):
    assert ast.literal_eval(string_literal(text)) == text
    string_literal(text).encode("utf-8")
    assert "\n" not in string_literal(text)


def test_numbers_and_names_of_torch_read_back_the_same():
    for value in (0, -3, True, None, 2.5, 1e30, (1, 2), (3,), "a"):
        assert ast.literal_eval(literal(value)) == value
    for value in (torch.int8, torch.strided, torch.channels_last, math.inf, complex(math.inf, 1)):
        assert eval(literal(value)) == value
    assert literal([1, 2]) == "(1, 2)"


class Shout:
    def __repr__(self) -> str:
        return CALL


@pytest.mark.parametrize("value", [Shout(), {"a": 1}, {1}, (Shout(),), b"a", range(3), len])
def test_what_has_no_literal_is_refused(value):
    with pytest.raises(EditError, match="as an argument"):
        literal(value)


class Net(nn.Module):
    """All kinds of arguments: texts, numbers, lists of numbers, keywords."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding="same")
        self.down = nn.Conv2d(4, 4, 3, stride=2, groups=4)
        self.norm, self.group = nn.BatchNorm2d(4), nn.GroupNorm(2, 4)

    def forward(self, x):
        x = torch.nn.functional.gelu(self.norm(self.down(self.conv(x))), approximate="tanh")
        x = torch.nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear")
        x = self.group(x)[:, 1:, ::2].to(torch.float64).sum((2, 3), dtype=torch.float32)
        return torch.einsum("bc,bc->b", x, x)


IMAGES = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@cache
def captured():
    return capture(Net().eval(), (IMAGES,))


def net():
    return clone(captured())


def test_a_net_with_texts_is_written_as_it_was():
    assert 'padding="same"' in assert_same(net(), Inputs((IMAGES,))).text


def argument_positions():
    return [
        (i, key)
        for i, node in enumerate(net().graph.nodes)
        if node.op == "call_function"
        for key in (*range(len(node.args)), *node.kwargs)
    ]


@pytest.mark.parametrize("evil", [EVIL, CALL, "x\n    import os", Shout(), [CALL], ["a", EVIL]])
def test_an_argument_that_is_code_stays_a_text_or_is_refused(evil):
    for index, key in argument_positions():
        module = net()
        node = list(module.graph.nodes)[index]
        if isinstance(key, int):
            node.args = (*node.args[:key], evil, *node.args[key + 1 :])
        else:
            node.kwargs = {**node.kwargs, key: evil}
        harmless(module)


@pytest.mark.parametrize("name", ["x=1), print('MARKER'", "__class__", "a-b"])
def test_a_keyword_that_is_code_is_refused(name):
    for index in {i for i, _ in argument_positions()}:
        module = net()
        node = list(module.graph.nodes)[index]
        node.kwargs = {**node.kwargs, name: 1}
        harmless(module)


def harmless(module):
    """The text of the model holds the marker within constants alone, or there is no text."""
    try:
        text = written(module).text
    except (EditError, TypeError, ValueError, AttributeError, KeyError):
        return
    calls = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call)]
    assert not {"print", "__import__"} & {ast.unparse(c.func) for c in calls}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("        return ", "        import os\n        return "),
        ("self.conv(x)", "self.conv(__import__('os'))"),
        ("self.conv(x)", "self.conv(torch.load('a'))"),
        ("self.conv(x)", "self.conv(x.__class__)"),
        ("self.conv(x)", "self.other(x)"),
        ("self.conv(x)", "(lambda: x)()"),
        ("self.conv(x)", "[y for y in x]"),
        ("self.conv(x)", "self.conv(F.torch.os.system('a'))"),
        ("self.conv = nn.Conv2d(", "self.conv = nn.Conv2d(print(1), "),
        ("self.conv = nn.", "self.conv = nn.modules."),
        ("class Model(nn.Module)", "class Model(nn.Module, metaclass=print)"),
        ("def load(", "print(1)\n\n\ndef load("),
        ("from torch import nn", "from torch import nn, os"),
        ("    def forward", "    @print\n    def forward"),
        ("self, x: torch.Tensor", "self, x: torch.Tensor = print(1)"),
        (") -> torch.Tensor:", ") -> print(1):"),
    ],
)
def test_a_file_that_is_more_than_its_model_does_not_pass(monkeypatch, old, new):
    check = Grammar.check

    def planted(self, text, frame):
        assert old in text
        check(self, text.replace(old, new, 1), frame)

    monkeypatch.setattr(Grammar, "check", planted)
    with pytest.raises(EditError, match="source"):
        written(net())


FOLDED = (
    "ﬁ",
    "fi",
    "\uff41",
    "a",
    "\u212a",
    "K",
    "user__x",
    "x",
    "__x",
    "_x78_",
    "self",
    "meta",
    "if",
)


class Names(nn.Module):
    """Every name as a module, as one in a dict, and as a parameter; each counts differently."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.ModuleDict({name: nn.Linear(3, 3) for name in FOLDED})
        for name in FOLDED:
            self.add_module(name, nn.Linear(3, 3))
            self.words.register_parameter(f"{name}_", nn.Parameter(torch.rand(3)))

    def forward(self, x):
        y = x
        for place, name in enumerate(FOLDED):
            y = y + place * self._modules[name](x) - self.words[name](x)
            y = y * (self.words._parameters[f"{name}_"] + place / 9)
        return y


def test_names_that_fold_or_are_marked_come_back_as_the_users_and_stay_apart():
    model, x = Names().eval(), torch.randn(2, 3)
    module = capture(model, (x,))
    source = written(module)
    assert set(source.tensors) == set(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(module(x), model(x))
        torch.testing.assert_close(made(source)(x), model(x))


def renamed(old, new):
    module = capture(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).eval(), (torch.ones(2, 3),))
    module._modules[new] = module._modules.pop(old)
    for node in module.graph.nodes:
        if node.op == "get_attr" and str(node.target).startswith(f"{old}."):
            node.target = f"{new}.{str(node.target).partition('.')[2]}"
    return module


@pytest.mark.parametrize("evil", [EVIL.replace(".", "_x2e_"), '"""\nimport os\n"""', CALL, "x\\"])
def test_a_name_that_hides_code_behind_the_marker_stays_a_text(evil):
    hidden = MARK + "".join(c if c.isalnum() else f"_x{ord(c):x}_" for c in evil)
    module, x = renamed("0", hidden), torch.randn(2, 3)
    source = written(module)
    harmless(module)
    assert {n.partition(".")[0] for n in source.tensors} == {outside(hidden), "1"}
    first, second = (module._modules[name] for name in (hidden, "1"))
    wanted = x @ first.weight.T + first.bias
    with torch.no_grad():
        got = made(source)(x)
    torch.testing.assert_close(got, (wanted @ second.weight.T + second.bias).detach())


def test_two_names_that_are_one_outside_are_refused():
    with pytest.raises(EditError, match="`1` under two names"):
        written(renamed("0", f"{MARK}1"))


def test_letters_that_python_folds_do_not_become_another_name():
    class Folded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module("ﬁ", nn.Linear(3, 3))
            self.add_module("fi", nn.Linear(3, 3))
            self.add_module("__x", nn.Linear(3, 3))

        def forward(self, x):
            a, b, c = (m(x) for m in self._modules.values())
            return a + 2 * b - c

    x = torch.randn(2, 3)
    model = Folded().eval()
    with torch.no_grad():
        torch.testing.assert_close(made(written(capture(model, (x,))))(x), model(x))
