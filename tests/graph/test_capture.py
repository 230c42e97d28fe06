from __future__ import annotations

import json

import modelspeed
import pytest
import torch
from modelspeed.checkpoints.artifact import WEIGHTS
from modelspeed.cli.main import app
from modelspeed.graph.analysis.groups import analyze
from modelspeed.graph.capture import capture, clone
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner

NAMES = (
    "meta", "_graph", "recompile", "print_readable", "_in_spec", "_out_spec", "shape_env", "code",
    "graph", "lambda", "class", "None", "1a", "a-b", "a b", "é", "a\nb", "'", "self", "weight",
)  # fmt: skip


class Named(nn.Module):
    """A submodule, a parameter and a buffer under any names, at the top or further in."""

    def __init__(self, name, deep=False):
        super().__init__()
        self.name, self.inner = name, Named(name) if deep else None
        self.add_module(name, nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)))
        self.after = nn.Linear(4, 3)
        self.register_parameter(f"{name}\n", nn.Parameter(torch.randn(3)))
        self.register_buffer(f"{name} of", torch.randn(3))

    def forward(self, x):
        y = self.after(torch.relu(self._modules[self.name](x)))
        y = y * self._parameters[f"{self.name}\n"] + self._buffers[f"{self.name} of"]
        return y if self.inner is None else self.inner(y)


class Own(nn.Module):
    """Parameters under names that graphs have themselves."""

    def __init__(self):
        super().__init__()
        for name in ("meta", "code", "graph", "_in_spec", "self", "lambda"):
            self._parameters[name] = nn.Parameter(torch.randn(3))

    def forward(self, x):
        for parameter in self._parameters.values():
            x = x * parameter
        return x


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("deep", [False, True])
def test_any_name_of_a_submodule_is_carried(name, deep):
    model, x = Named(name, deep).eval(), torch.randn(2, 3)
    module = capture(model, (x,))
    torch.testing.assert_close(module(x), model(x))
    torch.testing.assert_close(clone(module)(x), model(x))
    torch.testing.assert_close(capture(module, (x,))(x), model(x))
    assert any(name in group.name.split(".") for group in analyze(module).prunable)


def test_parameters_with_names_of_graphs_are_carried():
    model, x = Own().eval(), torch.randn(2, 3)
    torch.testing.assert_close(capture(model, (x,))(x), model(x))


FILE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.meta, self.graph = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8)), nn.Linear(8, 8)
        self.add_module("lambda", nn.Linear(8, 3))
        self._parameters["code"] = nn.Parameter(torch.ones(8))

    def forward(self, x):
        y = torch.relu(self.graph(torch.relu(self.meta(x))))
        return self._modules["lambda"](y * self._parameters["code"])

def build():
    torch.manual_seed(0)
    return Net()
"""


def test_names_are_the_users_in_all_that_is_written_and_loaded(tmp_path):
    (tmp_path / "net.py").write_text(FILE)
    scope = {}
    exec(FILE, scope)
    model, x = scope["build"]().eval(), torch.randn(4, 3)
    torch.save(model.state_dict(), tmp_path / "net.pt")
    built, out = f"{tmp_path}/net.py:build", f"{tmp_path}/out"
    words = ["apply", f"{tmp_path}/net.pt", "--model", built, "--inputs", "1x3", "--preset",
             "lossless", "--without-data", "--out", out]  # fmt: skip
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    kept = {k for k in model.state_dict() if not k.startswith("meta.1")}
    assert kept <= set(load_file(tmp_path / "out" / WEIGHTS))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {"meta.0", "graph", "lambda"} <= {row["name"] for row in report["layers_before"]}
    assert "user__" not in json.dumps(report)
    for options in ({}, {"runtime": "plain"}, {"model": scope["build"]()}):
        loaded = modelspeed.load(tmp_path / "out", **options)
        torch.testing.assert_close(loaded(x), model(x), rtol=1e-4, atol=1e-5)
        assert kept <= set(loaded.state_dict())
        loaded.load_state_dict({k: v * 0 for k, v in loaded.state_dict().items()})
        assert not loaded(x).any()
    target = tmp_path / "source"
    done = CliRunner().invoke(app, ["export", f"{tmp_path}/out", "--format", "python",
                                    "--out", str(target)])  # fmt: skip
    assert done.exit_code == 0, done.output
    exec((target / "model.py").read_text(), {"__file__": str(target / "model.py")})
    assert "user__" not in (target / "model.py").read_text()
    assert kept <= set(load_file(target / WEIGHTS))
