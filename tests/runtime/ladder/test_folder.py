"""A ladder of two real artifacts, from its folder."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys

import modelspeed
import pico
import pytest
import torch
from modelspeed.checkpoints.ladders import RungSource, assemble_ladder, read_ladder
from modelspeed.checkpoints.staging import save
from modelspeed.core.errors import ArtifactError, UsageError
from modelspeed.core.ladder_record import CascadeRecord
from modelspeed.core.model_io import Inputs
from modelspeed.core.records import Latency, Record, Target
from modelspeed.graph.capture import capture, export_program
from modelspeed.graph.lowering.live import tensors_of
from modelspeed.graph.lowering.lower import lowerings
from modelspeed.profiling.machine import fingerprint
from modelspeed.runtime.ladder.sharing import share_tensors
from modelspeed.runtime.loaded import running
from torch.fx import GraphModule

ONE = Inputs.of((pico.images(1),))
SAMPLES = ({1: [4.0, 4.1, 4.2], 2: [6.0, 6.1, 6.2]}, {1: [1.0, 1.1, 1.2], 2: [1.5, 1.6, 1.7]})
CASCADE = CascadeRecord(1, 0, 0.9, 0.0, 0.9, 0.5, 100)


def net(rung):
    """The second net shares its stem and its head with the first one."""
    made = pico.net(["residual", "residual"])
    if rung:
        made.blocks = made.blocks[:1]
    return made


def write(folder, rung, inputs=ONE, runtime="plain"):
    record = Record("tune", "now", "0", "m.pt", "0" * 64, fingerprint(), Target(), "none", "",
                    Latency(50, 1, 1, 1))  # fmt: skip
    return save(
        folder,
        program=export_program(net(rung), inputs),
        edits=[],
        record=record,
        recipe_yaml="version: 1\n",
        inputs=inputs,
        runtime=runtime,
        reports={},
        force=False,
    )


def sources(folder, **other):
    return [
        RungSource(write(folder / f"artifact{rung}", rung, **other), ("original", "fast")[rung],
                   1.0 - rung / 10, 100, SAMPLES[rung], 0.9 - rung / 10, Target(ms=4.0))
        for rung in (0, 1)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("ladder")
    assemble_ladder(
        place / "ladder", sources(place), fingerprint(), metric="accuracy", cascades=[CASCADE]
    )
    return place / "ladder"


@pytest.fixture(scope="module")
def ladder(folder):
    return modelspeed.load(folder)


def test_the_folder_holds_a_record_and_an_artifact_for_each_rung(folder):
    assert sorted(p.name for p in folder.iterdir()) == ["ladder.json", "rungs"]
    assert sorted(p.name for p in (folder / "rungs").iterdir()) == ["0-original", "1-fast"]
    record = read_ladder(folder)
    assert [r.name for r in record.rungs] == ["0-original", "1-fast"]
    assert record.rungs[1].latencies[0].p50_ms == 1.1 and record.rungs[0].target == Target(ms=4.0)
    alone = modelspeed.load(folder / "rungs" / "1-fast")
    torch.testing.assert_close(alone(pico.images(3)), net(1)(pico.images(3)))


def test_load_gives_a_ladder_whose_rungs_answer(ladder):
    assert isinstance(ladder, modelspeed.Ladder) and ladder.names == ("0-original", "1-fast")
    for count, budget, rung in ((1, None, 0), (3, 1e9, 0), (2, 1e-9, 1)):
        y, how = ladder.answer(pico.images(count), budget_ms=budget)
        torch.testing.assert_close(y, net(rung)(pico.images(count)), rtol=1e-4, atol=1e-5)
        assert how.rung == rung and how.taken_ms > 0
    with pytest.raises(modelspeed.TooLate):
        ladder(pico.images(1), budget_ms=1e-9, on_late="refuse")


def test_equal_tensors_are_in_memory_once(ladder):
    places = [
        {name: t.data_ptr() for name, t in rung.state_dict().items()} for rung in ladder.rungs
    ]
    for name in ("stem.weight", "head.weight", "blocks.0.conv1.weight", "bn.running_mean"):
        assert places[0][name] == places[1][name]


@pytest.mark.parametrize("runtime", ["folded", "openvino"])
def test_what_runs_shares_equal_tensors_too(folder, runtime):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    ladder, x = modelspeed.load(folder, runtime=runtime), pico.images(3)
    for place, rung in enumerate(ladder.rungs):
        shown = {n: t for n, t in rung.state_dict().items() if n.startswith("head.")}
        (graph,) = (p for p in running(rung).modules() if isinstance(p, GraphModule))
        tensors = tensors_of(graph)
        assert [n for n in shown if n in tensors], "nothing to compare"
        for name in set(shown) & set(tensors):
            assert tensors[name].data_ptr() == shown[name].data_ptr()
        torch.testing.assert_close(ladder._ready[place](x), net(place)(x), rtol=1e-3, atol=1e-4)


def test_its_stream_and_cascade_give_the_rungs_answers(ladder):
    x = pico.images(6)
    with ladder.stream(slo_ms=60_000) as stream:
        found = [stream.submit(row[None]) for row in x]
    wanted = [net(0)(x), net(1)(x)]
    for i, future in enumerate(found):
        torch.testing.assert_close(
            future.result(0)[0], wanted[future.how.rung][i], rtol=1e-4, atol=1e-5
        )
    y, how = ladder.cascade().answer(x)
    assert how.unsure == how.went_up > 0
    sure = (torch.softmax(wanted[1], 1).sort(1).values.diff(dim=1)[:, -1] >= 0.9)[:, None]
    torch.testing.assert_close(
        y, torch.where(sure, wanted[1], wanted[0]), rtol=1e-4, atol=1e-5, check_stride=False
    )


def test_a_runtime_that_prepares_for_each_shape_gets_the_measured_ones(folder):
    pytest.importorskip("openvino")
    ladder, x = modelspeed.load(folder, runtime="openvino"), pico.images(5)
    assert all(row.only_sizes for row in ladder.predictor.times.rungs)
    with ladder.stream(slo_ms=60_000) as stream:
        found = [stream.submit(row[None]) for row in x]
    for i, future in enumerate(found):
        wanted = net(future.how.rung)(x)[i]
        torch.testing.assert_close(future.result(0)[0], wanted, rtol=1e-3, atol=1e-4)


class OneRow(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(144, 3)

    def forward(self, x):
        return self.head(x.reshape(1, 144))


def test_a_graph_of_fixed_batch_keeps_to_it(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "net", lambda rung: OneRow().eval())
    with pytest.raises(ArtifactError, match="runs at batch 1 only"):
        assemble_ladder(tmp_path / "ladder", sources(tmp_path), fingerprint())
        modelspeed.load(tmp_path / "ladder")
    monkeypatch.setitem(globals(), "SAMPLES", ({1: [4.0] * 9}, {1: [1.0] * 9}))
    for rung in (0, 1):
        shutil.rmtree(tmp_path / f"artifact{rung}")
    assemble_ladder(tmp_path / "ladder", sources(tmp_path), fingerprint(), force=True)
    ladder = modelspeed.load(tmp_path / "ladder")
    with ladder.stream(slo_ms=60_000) as stream:
        found = [stream.submit(row[None]) for row in pico.images(5)]
    assert all(future.result(0).shape == (1, 3) for future in found)


@pytest.mark.parametrize("what", ["rung", "record", "other rung"])
def test_a_changed_folder_is_refused_in_a_sentence(folder, tmp_path, what):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    manifest = copy / "rungs" / "1-fast" / "modelspeed.json"
    if what == "rung":
        manifest.unlink()
    elif what == "record":
        (copy / "ladder.json").write_text("{}")
    else:
        shutil.copy(copy / "rungs" / "0-original" / "modelspeed.json", manifest)
    with pytest.raises(ArtifactError, match=r"ladder\.json"):
        modelspeed.load(copy)


def test_a_class_of_ones_own_takes_one_rung(folder):
    with pytest.raises(UsageError, match="one of its rungs"):
        modelspeed.load(folder, model=net(0))
    own = modelspeed.load(folder / "rungs" / "0-original", model=net(0))
    torch.testing.assert_close(own(pico.images(2)), net(0)(pico.images(2)))


def test_only_a_ladder_is_replaced(folder, tmp_path):
    target = tmp_path / "ladder"
    made = sources(tmp_path)
    assemble_ladder(target, made, fingerprint())
    with pytest.raises(UsageError, match="already exists"):
        assemble_ladder(target, made, fingerprint())
    assert len(assemble_ladder(target, made[:1], fingerprint(), force=True).rungs) == 1
    assert [p.name for p in (target / "rungs").iterdir()] == ["0-original"]
    (target / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds more"):
        assemble_ladder(target, made, fingerprint(), force=True)
    with pytest.raises(UsageError, match="not a ladder"):
        assemble_ladder(made[0].artifact, made, fingerprint(), force=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["artifact0", "artifact1", "ladder"]


@pytest.mark.parametrize("one_disk", [True, False])
def test_staged_artifacts_are_moved_where_they_can_be(tmp_path, monkeypatch, one_disk):
    def elsewhere(source, target):
        raise OSError(errno.EXDEV, "another disk")

    made = sources(tmp_path)
    before = [(row.artifact / "model.safetensors").stat().st_ino for row in made]
    if not one_disk:
        monkeypatch.setattr("os.rename", elsewhere)
    assemble_ladder(tmp_path / "ladder", made, fingerprint(), move=True)
    monkeypatch.undo()
    rungs = [tmp_path / "ladder" / rung.folder for rung in read_ladder(tmp_path / "ladder").rungs]
    after = [(rung / "model.safetensors").stat().st_ino for rung in rungs]
    assert (before == after) == one_disk
    assert [p.name for p in tmp_path.iterdir()] == ["ladder"]
    assert modelspeed.load(tmp_path / "ladder")(pico.images(1)).shape == (1, 3)


def test_what_is_measured_badly_is_not_written(tmp_path):
    made = sources(tmp_path)
    with pytest.raises(ArtifactError, match="0 rungs"):
        assemble_ladder(tmp_path / "ladder", [], fingerprint())
    (made[1].artifact / "modelspeed.json").unlink()
    with pytest.raises(ArtifactError, match="not an artifact"):
        assemble_ladder(tmp_path / "ladder", made, fingerprint())
    assert not (tmp_path / "ladder").exists()


def test_what_a_graph_writes_into_is_not_shared():
    class Counting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(4))
            self.weight = torch.nn.Parameter(torch.ones(4))

        def forward(self, x):
            self.count.add_(1)
            return x * self.weight + self.count

    graphs = [capture(Counting(), (torch.ones(2, 4),)) for _ in range(2)]
    assert share_tensors([[graph] for graph in graphs]) == 16
    first, second = ({n: t.data_ptr() for n, t in g.state_dict().items()} for g in graphs)
    assert first["weight"] == second["weight"] and first["count"] != second["count"]


def test_weights_packed_for_onednn_are_shared_where_they_lie_the_same():
    graphs = [capture(net(rung), (pico.images(2),)) for rung in (0, 1)]
    packed = [lowerings(graph, ONE)["onednn"]() for graph in graphs]
    share_tensors([[graphs[rung], packed[rung]] for rung in (0, 1)])
    places = [
        {torch.ops.mkldnn.data_ptr(t) for t in tensors_of(graph).values() if t.is_mkldnn}
        for graph in packed
    ]
    assert places[1] and places[1] < places[0]  # the second net's layers are the first one's, too
    for rung in (0, 1):
        wanted = net(rung)(pico.images(2))
        torch.testing.assert_close(packed[rung](pico.images(2)), wanted, rtol=1e-3, atol=1e-4)


def test_zeros_of_either_sign_are_not_one_tensor():
    class Bias(torch.nn.Module):
        def __init__(self, value):
            super().__init__()
            self.bias = torch.nn.Parameter(torch.full((4,), value))

        def forward(self, x):
            return x + self.bias

    graphs = [capture(Bias(v), (torch.ones(4),)) for v in (0.0, -0.0)]
    assert share_tensors([[graph] for graph in graphs]) == 0


def test_the_ladder_adds_little_to_the_time_of_an_import():
    code = (
        "import time, modelspeed.runtime.loaded, modelspeed.checkpoints.artifact\n"
        "import modelspeed.profiling.notices, modelspeed.backends.registry, asyncio, logging\n"
        "import sys; before = set(sys.modules); start = time.process_time()\n"
        "import modelspeed.runtime.ladder.folder\n"
        "print(time.process_time() - start, *sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, *modules = done.stdout.split()
    assert float(seconds) < 0.05
    assert not {m for m in modules if m.partition(".")[0] not in ("modelspeed", "concurrent")}
