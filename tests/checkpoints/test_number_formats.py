"""Every number format: artifact -> fresh process -> equal outputs, and `.pt2` with torch alone."""

from __future__ import annotations

import subprocess
import sys

import modelspeed
import pico
import pytest
import torch
from modelspeed.adjusters.plan import Context
from modelspeed.adjusters.registry import ADJUSTERS
from modelspeed.checkpoints import staging
from modelspeed.configs.recipe import make_step
from modelspeed.core.errors import ModelspeedError
from modelspeed.core.model_io import Inputs
from modelspeed.core.records import Latency, Record, Target
from modelspeed.graph.capture import capture, clone, export_program
from modelspeed.graph.edits.apply import edits_to_json
from modelspeed.profiling.machine import fingerprint
from torch import nn

RECORD = Record(
    "tune", "now", "0", "m.pt", "0" * 64, fingerprint(),
    Target(), "none", "", Latency(50, 1, 1, 1),
)  # fmt: skip
ALL = {"rounding": "adaptive", "equalize": True}
FORMATS = {
    **{name: ("quantize", {"calibration": name}) for name in ("minmax", "percentile", "mse")},
    "static_all": ("quantize", ALL),
    **{name: ("quantize", {"scheme": name}) for name in ("int8_dynamic", "int8_weight",
                                                         "int4_weight")},
    "int8_weight_all": ("quantize", {"scheme": "int8_weight", **ALL}),
    "int4_weight_all": ("quantize", {"scheme": "int4_weight", **ALL}),
    **{name: ("precision", {"dtype": name}) for name in ("bfloat16", "float16")},
}  # fmt: skip
FRESH = """
import sys
import torch
torch.set_num_threads(1)
if sys.argv[1] == "alone":
    sys.modules["modelspeed"] = None  # importing it fails
    load = lambda name: torch.export.load(f"{name}/model.pt2").module()
else:
    import modelspeed
    load = modelspeed.load
x = torch.load("x.pt")
with torch.no_grad():
    torch.save({name: load(name)(x) for name in sys.argv[2:]}, f"{sys.argv[1]}.pt")
"""


class Both(nn.Module):
    """A residual of convolutions, and linear layers large enough for kernels of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, stride=2, padding=1)
        self.conv1, self.conv2 = (nn.Conv2d(16, 16, 3, padding=1) for _ in range(2))
        self.norm = nn.BatchNorm2d(16)
        self.hidden, self.head = nn.Linear(256, 2048), nn.Linear(2048, 3)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = torch.relu(self.norm(self.conv2(torch.relu(self.conv1(x)))) + x)
        x = nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)
        return self.head(torch.relu(self.hidden(x)))


def made(name, module):
    adjuster, settings = FORMATS[name]
    context = Context(module, Inputs.of((pico.images(1),)), [(pico.images(16), None)])
    plan = ADJUSTERS[adjuster].plan(context, make_step(adjuster, **settings).settings)
    assert plan.edits
    return plan.apply(clone(module)), plan.edits


@pytest.mark.long
def test_every_format_gives_equal_outputs_in_a_fresh_process_and_with_torch_alone(tmp_path):
    torch.manual_seed(0)
    module, x = capture(Both().eval(), (pico.images(1),)), pico.images(3, 5)
    torch.save(x, tmp_path / "x.pt")
    graphs, here = {}, {}
    for name in FORMATS:
        graphs[name], edits = made(name, module)
        staging.save(
            tmp_path / name, program=export_program(graphs[name], (pico.images(1),)),
            edits=edits_to_json(edits),
            record=RECORD, recipe_yaml="version: 1\n", inputs=Inputs.of((pico.images(1),)),
            runtime="onednn", reports={}, force=False,
        )  # fmt: skip
        with torch.no_grad():
            here[name] = modelspeed.load(tmp_path / name)(x)
    for way in ("ours", "alone"):
        command = [sys.executable, "-W", "ignore", "-c", FRESH, way, *FORMATS]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    ours, alone = torch.load(tmp_path / "ours.pt"), torch.load(tmp_path / "alone.pt")
    for name in FORMATS:
        assert torch.equal(ours[name], here[name]), name
        with torch.no_grad():
            torch.testing.assert_close(alone[name], graphs[name](x), msg=name)
            gap = float((ours[name] - module(x)).norm() / module(x).norm())
        assert 0 < gap < (0.15 if name.startswith("int4") else 0.05), name
    sizes = {n: (tmp_path / n / "model.safetensors").stat().st_size for n in FORMATS}
    assert sizes["int4_weight"] < 0.9 * sizes["int8_weight"] < 0.6 * sizes["bfloat16"]
    with pytest.raises(ModelspeedError, match=r"model\.pt2"):  # a class of the user's holds floats
        modelspeed.load(tmp_path / "int4_weight", model=Both())
