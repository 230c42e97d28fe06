"""Small topologies, one idea each: what is pruned, and that pruning equals ignoring the units."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import zoo
from architectures import document
from masked import ignoring, pruned
from modelspeed.backends.registry import ready
from modelspeed.checkpoints.staging import write_program
from modelspeed.core.model_io import Inputs
from modelspeed.graph.analysis.groups import analyze
from modelspeed.graph.capture import capture, export_program, has_dynamic_batch
from modelspeed.graph.lowering.lower import lowerings
from modelspeed.graph.source.spelling import FALLBACK
from sources import assert_same

NAMES = sorted(zoo.ZOO)
DOCUMENT = Path(__file__).parents[2] / "docs" / "architectures.md"


@pytest.fixture(scope="module")
def captured():
    """Each entry captured and analyzed once, for all the tests of this file."""
    done = {}

    def get(name):
        if name not in done:
            entry = zoo.ZOO[name]
            module = capture(entry.model(), entry.inputs)
            done[name] = (entry, module, analyze(module))
        return done[name]

    return get


def dropped_of(analysis, seed):
    rng = random.Random(seed)
    dropped = {
        g.name: sorted(rng.sample(range(g.size), rng.randint(1, g.size - 1)))
        for g in analysis.prunable
    }
    kept = {name: units for name, units in dropped.items() if rng.random() < 0.7}
    return kept or dropped


@pytest.mark.parametrize("name", NAMES)
def test_the_groups_are_the_expected_ones_and_the_rest_has_a_reason(name, captured):
    entry, module, analysis = captured(name)
    assert {g.name: g.size for g in analysis.prunable} == dict(entry.expect)
    grouped = {m.param for g in analysis.groups for m in g.members}
    assert {n for n, p in module.named_parameters() if p.dim()} <= grouped
    assert all(g.frozen for g in analysis.groups if g not in analysis.prunable and g.size > 1)
    for param, reason in entry.frozen.items():
        of_it = [g.frozen for g in analysis.groups if param in {m.param for m in g.members}]
        assert None not in of_it
        assert any(reason in (text or "") for text in of_it), of_it


@pytest.mark.parametrize("name", [n for n in NAMES if zoo.ZOO[n].expect])
def test_pruning_equals_ignoring_the_dropped_units(name, captured):
    entry, module, analysis = captured(name)
    for seed in range(4):
        dropped = dropped_of(analysis, seed)
        smaller, masked = pruned(module, analysis, dropped), ignoring(module, analysis, dropped)
        for rows in (1, 3) if entry.batch else (2,):
            inputs = entry.rows(rows)
            torch.testing.assert_close(smaller(*inputs), masked(*inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_captured_graph_equals_the_model_at_other_batch_sizes(name, captured):
    entry, module, _ = captured(name)
    model = entry.model()
    assert has_dynamic_batch(module) == entry.batch
    for rows in (1, 3) if entry.batch else (2,):
        inputs = entry.rows(rows)
        torch.testing.assert_close(module(*inputs), model(*inputs), rtol=1e-4, atol=1e-5)


# matrix_exp takes no images that lie channels-last, which kernels give.
REFUSED = {("Unknown", n) for n in ("channels_last", "onednn", "onednn_channels_last")}


@pytest.mark.parametrize("name", NAMES)
def test_every_lowering_equals_the_model_in_two_calls_in_a_row(name, captured):
    entry, module, _ = captured(name)
    model, shown = entry.model(), Inputs(entry.rows(2))
    for runtime in ("plain", *lowerings(module, shown)):
        made = ready(module, shown, runtime)
        if isinstance(made, str):  # left out by name, as in a run
            assert (name, runtime) in REFUSED, made
            continue
        for rows in (1, 3) if entry.batch else (2,):
            with torch.no_grad():
                want = model(*entry.rows(rows))
                for _ in range(2):
                    got = made(*entry.rows(rows))
                    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4, msg=runtime)


@pytest.mark.parametrize("name", ["CachedAnchors", "InstalledOnce"])
def test_a_model_with_memory_in_attributes_runs_on_after_it_was_captured(name):
    entry = zoo.ZOO[name]
    model, other = entry.model(), entry.model()
    capture(model, entry.inputs)
    with torch.no_grad():
        torch.testing.assert_close(model(*entry.rows(3)), other(*entry.rows(3)))


@pytest.mark.parametrize("name", NAMES)
def test_the_source_of_the_graph_gives_the_same_with_every_operator_spelled(name, captured):
    entry, module, _ = captured(name)
    for rows in (1, 3) if entry.batch else (2,):
        source = assert_same(module, Inputs(entry.rows(rows)))
    assert FALLBACK not in source.text


FRESH = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
assert "modelspeed" not in sys.modules
for path in sorted(Path(sys.argv[1]).glob("*.pt2")):
    stored = torch.load(path.with_suffix(".pt"))
    got = torch.export.load(path).module()(*stored["inputs"])
    torch.testing.assert_close(got, stored["outputs"], rtol=1e-4, atol=1e-5, msg=path.stem)
    print(path.stem)
"""


@pytest.mark.long
def test_every_pruned_entry_is_equal_after_save_and_load_in_a_fresh_process(tmp_path, captured):
    for name in NAMES:
        entry, module, analysis = captured(name)
        smaller = pruned(module, analysis, dropped_of(analysis, 5))
        write_program(tmp_path / f"{name}.pt2", export_program(smaller, entry.inputs))
        inputs = entry.rows(3 if entry.batch else 2)
        with torch.no_grad():
            stored = {"inputs": inputs, "outputs": smaller(*inputs)}
        torch.save(stored, tmp_path / f"{name}.pt")
    command = [sys.executable, "-W", "ignore", "-c", FRESH, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == NAMES


def test_the_document_of_architectures_is_the_generated_one(captured):
    found = {name: captured(name)[2] for name in NAMES}
    assert DOCUMENT.read_text(encoding="utf-8") == document(found)
