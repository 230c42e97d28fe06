"""Graphs that take what the original takes, and no size for which they were not captured."""

from __future__ import annotations

import json
from collections import Counter

import modelspeed
import pico
import pytest
import quick
import sized
import torch
import zoo
from masked import ignoring, pruned
from modelspeed.backends.registry import ready
from modelspeed.checkpoints.samples import draw_inputs, other_sizes, specs_of
from modelspeed.cli.main import app
from modelspeed.core.errors import UsageError
from modelspeed.core.model_io import Inputs, leaves, plain
from modelspeed.core.span import Span
from modelspeed.graph.analysis.groups import analyze
from modelspeed.graph.capture import export_program, module_of
from modelspeed.graph.lowering.lower import lowerings
from modelspeed.tuning.sizes import captured_at_sizes, size_lines, written_sizes
from typer.testing import CliRunner

TAKES = {
    "Pooled": (sized.Pooled, sized.images(2, 3), [Span(3)] * 2),
    "Text": (sized.Text, sized.text(16), [Span(1, 24, 1, "same")] * 2),
    "UNet": (sized.UNet, sized.images(2, 3), [Span(8, None, 4)] * 2),
    "Resized": (sized.Resized, sized.images(2, 3), [Span(9)] * 2),
    "Windows": (sized.Windows, sized.images(2, 3), [Span(8, None, 4)] * 2),
    "Branching": (sized.Branching, sized.images(2), [Span(1, 20)]),
    "Flat": (sized.Flat, sized.images(2, 3), []),
}


def captured(name):
    kind, specs, _ = TAKES[name]
    model = sized.made(kind)
    return model, captured_at_sizes(model, draw_inputs(specs, 0), 1)


def drawn(inputs):
    """A small, the shown and a large size."""
    specs = specs_of(inputs)
    return [draw_inputs(row, 3) for row in (specs, *other_sizes(specs))]


LONG = ("Windows", "Resized")  # captures with many guards
NAMES = [pytest.param(n, marks=pytest.mark.long) if n in LONG else n for n in TAKES]


@pytest.mark.parametrize("name", NAMES)
def test_the_sizes_found_are_those_that_the_model_takes(name):
    _, done = captured(name)
    spans = [span for row in done.inputs.spans for _, span in sorted(row.items())]
    ties = {span.tied for span in spans if span.tied}
    plain = [Span(s.low, s.high, s.multiple, "same" if s.tied else "") for s in spans]
    assert plain == TAKES[name][2] and len(ties) <= 1
    assert bool(done.left_out) == (name == "Flat")


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("Branching", "Flat")])
def test_pruning_equals_ignoring_at_three_sizes_under_every_lowering(name):
    model, done = captured(name)
    analysis = analyze(done.graph)
    assert analysis.prunable
    dropped = {group.name: [0] for group in analysis.prunable}
    smaller = pruned(done.graph, analysis, dropped)
    masked = ignoring(done.graph, analysis, dropped)
    program = export_program(smaller, done.inputs)
    assert written_sizes(module_of(program), done.inputs).varies == done.inputs.varies
    runs = [ready(smaller, done.inputs, n) for n in ("plain", *lowerings(smaller, done.inputs))]
    with torch.no_grad():
        for inputs in drawn(done.inputs):
            torch.testing.assert_close(inputs.call(done.graph), inputs.call(model))
            wanted = inputs.call(masked)
            for run in (program.module(check_guards=False), *runs):
                got = inputs.call(run)
                torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(zoo.ZOO))
def test_every_net_of_the_zoo_is_pruned_alike_at_every_size_it_takes(name):
    entry = zoo.ZOO[name]
    rows = entry.rows(1)
    free = tuple(_images_and_tokens(x) for x in rows)
    if not any(free):
        pytest.skip("it takes neither images nor tokens")
    done = captured_at_sizes(entry.model(), Inputs(rows, varies=free), 1)
    analysis = analyze(done.graph)
    dropped = {g.name: list(range(max(1, g.size // 3))) for g in analysis.prunable if g.size > 1}
    smaller = pruned(done.graph, analysis, dropped)
    masked = ignoring(done.graph, analysis, dropped)
    with torch.no_grad():
        for inputs in drawn(done.inputs):
            got, want = leaves(inputs.call(smaller)), leaves(inputs.call(masked))
            torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)


def _images_and_tokens(x):
    if x.is_floating_point():
        return {axis: Span() for axis in range(2, x.dim())} if x.dim() > 3 else {}
    return {1: Span()} if x.dim() == 2 else {}


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_a_library_model_of_text_takes_other_lengths():
    pytest.importorskip("transformers")
    import hf

    entry = hf.ENTRIES["distilbert"]
    given = entry.batch(1)
    inputs = Inputs((), given, varies=tuple({1: Span(1, 64)} for _ in given))
    model = entry.model()
    done = captured_at_sizes(model, inputs, 1)
    assert not done.left_out
    assert Counter(g.size for g in analyze(done.graph).prunable) == hf.FOUND["distilbert"]
    with torch.no_grad():
        for length in (1, 9, 64):
            rows = {name: x[:, :1].expand(3, length).contiguous() for name, x in given.items()}
            got, want = leaves(done.graph(**rows)), leaves(plain(model(**rows)))
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


RECIPE = """
version: 1
model: {factory: "model.py:build"}
inputs: [{shape: [1, 1, 12, 12], varies: {2: 6..40, 3: 6..40}}]
data: {factory: "data.py:loaders"}
limits: {max_drop: 1.0}
adjust: [{prune: {ratio: 0.5}}, fold_batchnorm]
"""


def test_an_artifact_takes_the_sizes_asked_for_and_refuses_others_in_a_sentence(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("MODELSPEED_CACHE", str(tmp_path / "cache"))
    quick.hasten(monkeypatch.setattr)
    checkpoint = pico.project(tmp_path, RECIPE)
    words = ["apply", str(checkpoint), "--out", str(tmp_path / "out"), "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code in (0, 5), done.output
    assert json.loads(done.stdout)["sizes"][0] == "`input 0` axis 2: 6 to 40"
    loaded = modelspeed.load(tmp_path / "out")
    plain = modelspeed.load(tmp_path / "out", runtime="plain")
    assert (tmp_path / "out" / "model.graph.json").exists()
    with torch.no_grad():
        for sides in ((12, 12), (6, 40), (31, 17)):
            x = torch.randn(2, 1, *sides)
            torch.testing.assert_close(loaded(x), plain(x), rtol=1e-3, atol=1e-4)
    with pytest.raises(UsageError, match="`input 0` is 41 in axis 3; the artifact takes 6 to 40"):
        loaded(torch.ones(1, 1, 12, 41))
    with pytest.raises(UsageError, match="takes only 1 there"):
        loaded(torch.ones(1, 2, 12, 12))


def test_lines_say_what_varies():
    inputs = draw_inputs(sized.text(), 0)
    assert size_lines(inputs) == (
        "`input_ids` axis 1: 1 or more", "`attention_mask` axis 1: 1 or more",
    )  # fmt: skip
