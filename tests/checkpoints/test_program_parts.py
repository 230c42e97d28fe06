import io
import json
import sys
import zipfile
from collections import Counter

import pytest
import torch
from hostile import ATTACKS, hostile
from modelspeed.checkpoints.program_text import Texts
from modelspeed.checkpoints.programs import load_program
from modelspeed.checkpoints.read import read
from modelspeed.cli.main import app
from modelspeed.core.errors import CheckpointError, UnsafePickle
from program_fields import VMAP, Fields, programs
from torch import nn
from typer.testing import CliRunner

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
    for held in (nn.Identity, nn.Flatten):  # what attacks leave behind where they are real
        if "__class_getitem__" in vars(held):
            del held.__class_getitem__


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


SINCE_213 = {"opaque object", "opaque object in capitals", "switch keyword"}


@pytest.mark.parametrize("attack", [name for name, (_, real) in ATTACKS.items() if real])
def test_the_attacks_are_real_ones(honest, trap, tmp_path, attack):
    path = hostile(honest, tmp_path / "evil.pt2", attack, f"echo > {trap}")
    try:
        load_program(path, trust=True).module()(torch.ones(2, 3))
    except Exception:
        pass  # what matters is what ran on the way
    assert trap.exists() or (attack in SINCE_213 and torch.__version__ < "2.13")


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
        y = torch.vmap(lambda t: t * 2)(y) if VMAP else y * 2
        return {"a (b)": y.reshape(x.shape[0] * 3, -1) * self.scale, "size": x.shape[0] * 2}


def test_what_real_exports_hold_is_read(tmp_path):
    x, mask = torch.ones(2, 3, 4), torch.ones(2)
    model = Flow().eval()
    shapes = {"x": {0: BATCH}, "mask": {0: BATCH}}
    program = torch.export.export(model, (x,), {"mask": mask}, dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "m.pt2")
    found = load_program(tmp_path / "m.pt2").module()(x, mask=mask)
    assert torch.equal(found["a (b)"], model(x, mask=mask)["a (b)"])


def literal(text):
    """A program's JSON whose only node takes `text`."""
    mode = {"name": "mode", "arg": {"as_string": text}, "kind": 2}
    node = {"target": "torch.ops.aten.pad.default", "outputs": [], "inputs": [mode]}
    node["metadata"] = {"stack_trace": text}
    return {"graph_module": {"graph": {"nodes": [node]}}}


def test_a_text_that_is_written_as_a_literal_may_hold_anything():
    texts = Texts()
    held = json.loads(texts.cleaned(json.dumps(literal("f('x')\n")).encode()))
    (node,) = held["graph_module"]["graph"]["nodes"]
    assert texts.refused == [] and node["inputs"][0]["arg"] == {"as_string": "f('x')\n"}
    held["graph_module"]["graph"]["nodes"][0]["name"] = "f(x)"
    held["opset_version"] = {"g(y)": 1}
    texts.cleaned(json.dumps(held).encode())
    assert texts.refused == ["the name f(x)", "the name g(y)"]


def test_an_argument_is_a_literal_of_its_schemas_type():
    held = literal("constant")
    held["graph_module"]["graph"]["nodes"][0]["inputs"][0]["arg"] = {"as_operator": "_operator.add"}
    with pytest.raises(ValueError, match="takes no `mode as as_operator`"):
        Texts().cleaned(json.dumps(held).encode())


@pytest.mark.parametrize(
    "name",
    ["x: y", "*z", "class", "None", "\uff45xec", "a b", "", "a;b", "x\n", "self", "torch", "__x__",
     "x" * 2000],
)  # fmt: skip
def test_a_name_is_an_identifier_that_python_reads_as_it_is_written(name):
    texts = Texts()
    texts.cleaned(json.dumps({"graph_module": {"graph": {"nodes": [{"name": name}]}}}).encode())
    assert len(texts.refused) == 1


@pytest.mark.parametrize(
    "change",
    [{"sizes": [2**40]}, {"strides": [2**62]}, {"storage_offset": 2**61}, {"sizes": [1] * 100},
     {"sizes": [-1]}, {"layout": 1}, {"dtype": 0}, {"sizes": [2**20] * 40, "strides": [0] * 40}],
)  # fmt: skip
def test_weights_that_claim_more_than_the_file_holds_are_refused(honest, tmp_path, change):
    def patched(config):
        meta = next(iter(config["config"].values()))["tensor_meta"]
        for key, value in change.items():
            numbers = [{"as_int": n} for n in value] if isinstance(value, list) else value
            whole = key == "storage_offset"
            meta[key] = {"as_int": value} if whole else numbers
        if "sizes" in change and "strides" not in change:
            meta["strides"] = [{"as_int": 1}] * len(change["sizes"])
        elif "strides" in change:
            meta["sizes"] = meta["sizes"][: len(change["strides"])]

    path = rewritten(honest, tmp_path / "m.pt2", "data/weights/model_weights_config.json", patched)
    with pytest.raises(CheckpointError, match=r"claims|shape|can't be|dense"):
        read(path)


def test_example_inputs_that_fork_for_ever_are_refused(honest, tmp_path):
    held = [torch.ones(2, 3)]
    for _ in range(60):
        held = [held, held]
    content = io.BytesIO()
    torch.save(((held,), {}), content)
    path = rewritten(honest, tmp_path / "m.pt2", "data/sample_inputs/model.pt", content.getvalue())
    with pytest.raises(CheckpointError, match="more values"):
        read(path)


def test_a_counter_of_symbols_is_not_run_up(honest, tmp_path):
    def patched(program):
        program["range_constraints"]["u99999999999"] = {"min_val": 0, "max_val": 1}

    with pytest.raises(UnsafePickle, match="u99999999999"):
        read(rewritten(honest, tmp_path / "m.pt2", "models/model.json", patched))


def test_a_program_whose_parts_do_not_fit_is_a_sentence(honest, tmp_path):
    def patched(program):
        signature = program["graph_module"]["module_call_graph"][0]["signature"]
        signature["forward_arg_names"] = ["x", "x"]

    with pytest.raises(CheckpointError, match="damaged"):
        read(rewritten(honest, tmp_path / "m.pt2", "models/model.json", patched))


def test_fields_that_are_replaced_by_code_never_run(tmp_path):
    fields = Fields(programs(tmp_path), tmp_path / "ran")
    assert [fields.outcome(p) for p in tmp_path.glob("*.pt2")] == ["read"] * 4
    path, found = tmp_path / "m.pt2", Counter()
    for seed in range(80):
        what = fields.written(seed, path)
        said = fields.outcome(path)
        assert said in ("read", "refused", "read, does not run"), f"{what}: {said}"
        found[said] += 1
    assert found["refused"] > 50 and found["read"] > 1


@pytest.mark.parametrize("verb", [["profile"], ["tune", "--dry-run"]])
def test_no_verb_runs_what_a_program_names(honest, trap, tmp_path, verb):
    path = hostile(honest, tmp_path / "evil.pt2", "surplus name", f"echo > {trap}")
    done = CliRunner().invoke(app, [verb[0], str(path), *verb[1:]])
    assert done.exit_code == 1 and "would run code" in done.stderr and not trap.exists()


def rewritten(source, to, part, new):
    """`source` with another `part`: bytes, or what changes its JSON in place."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(to, "w") as out:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith(part):
                if callable(new):
                    held = json.loads(content)
                    new(held)
                content = json.dumps(held).encode() if callable(new) else new
            out.writestr(name, content)
    return to


def copy(source, to):
    to.write_bytes(source.read_bytes())
    return to
