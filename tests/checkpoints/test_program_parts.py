import sys
import zipfile

import pytest
import torch
from hostile import ATTACKS, hostile
from modelspeed.checkpoints.program_text import Texts
from modelspeed.checkpoints.programs import load_program
from modelspeed.checkpoints.read import read
from modelspeed.core.errors import CheckpointError, UnsafePickle
from torch import nn

BATCH = torch.export.Dim("batch", min=1, max=64)


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    path = tmp_path_factory.mktemp("honest") / "m.pt2"
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    program = torch.export.export(net, (torch.ones(2, 3),), dynamic_shapes=({0: BATCH},))
    torch.export.save(program, path)
    return path


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A folder whose module leaves the file `ran` behind when it is imported."""
    monkeypatch.chdir(tmp_path)
    leaves = f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
    body = f"{leaves}import enum\nclass E(enum.Enum):\n    A = 1\n"
    (tmp_path / "hostile_module.py").write_text(body)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "ran"
    sys.modules.pop("hostile_module", None)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_program_never_runs(honest, trap, tmp_path, attack):
    path = hostile(honest, tmp_path / "evil.pt2", attack, f"echo > {trap}")
    if attack == "guards":  # every export has some, so they are left out instead
        program = load_program(path)
        assert program.module()(torch.ones(2, 3)).shape == (2, 2)
    else:
        with pytest.raises(CheckpointError) as caught:
            read(path)
        assert len(str(caught.value).splitlines()) == 1
        unknown = attack in ("jit operator", "library by attributes")
        assert isinstance(caught.value, UnsafePickle) is not unknown
    assert not trap.exists()


@pytest.mark.parametrize("attack", [name for name, (_, real) in ATTACKS.items() if real])
def test_the_attacks_are_real_ones(honest, trap, tmp_path, attack):
    path = hostile(honest, tmp_path / "evil.pt2", attack, f"echo > {trap}")
    try:
        load_program(path, trust=True).module()(torch.ones(2, 3))
    except Exception:
        pass  # what matters is what ran on the way
    assert trap.exists()


def test_names_that_differ_by_case_alone_are_refused(honest, tmp_path):
    path = copy(honest, tmp_path / "m.pt2")
    with zipfile.ZipFile(path, "a") as out:
        out.writestr("m/data/weights/Weight_0", b"x")
    with pytest.raises(UnsafePickle, match="Weight_0"):
        load_program(path)


def test_texts_for_people_are_left_out(honest, tmp_path):
    path = copy(honest, tmp_path / "m.pt2")
    with zipfile.ZipFile(path, "a") as out:
        out.writestr("m/extra/readme.txt", "hello")
    assert load_program(path).module()(torch.ones(5, 3)).shape == (5, 2)


class Flow(nn.Module):
    """What exports hold beside plain operators: switches, branches, sizes, keywords, buffers."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleDict({"conv 1x1": nn.Conv1d(3, 3, 1), "a/b": nn.Linear(4, 4)})
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x, *, mask=None):
        x = torch.cond(mask.sum() > 0, lambda t: t.sin(), lambda t: t.cos(), (x,))
        with torch.no_grad():
            y = self.layers["conv 1x1"](x)
        with torch.autocast("cpu", torch.bfloat16):
            y = self.layers["a/b"](y)
        y = torch.vmap(lambda t: t * 2)(y)
        return {"a (b)": y.reshape(x.shape[0] * 3, -1) * self.scale, "size": x.shape[0] * 2}


def test_what_real_exports_hold_is_read(tmp_path):
    x, mask = torch.ones(2, 3, 4), torch.ones(2)
    model = Flow().eval()
    shapes = {"x": {0: BATCH}, "mask": {0: BATCH}}
    program = torch.export.export(model, (x,), {"mask": mask}, dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "m.pt2")
    found = load_program(tmp_path / "m.pt2").module()(x, mask=mask)
    assert torch.equal(found["a (b)"], model(x, mask=mask)["a (b)"])


def test_a_text_that_is_written_as_a_literal_may_hold_anything():
    texts = Texts()
    texts.cleaned(b'{"arg": {"as_string": "f(\'x\')"}, "metadata": {"stack_trace": "f(x)\\n"}}')
    assert texts.found == []
    texts.cleaned(b'{"name": "f(x)", "as_string": {"name": "g(y)"}, "h(z)": 1}')
    assert len(texts.found) == 3


def copy(source, to):
    to.write_bytes(source.read_bytes())
    return to
