"""Models of Hugging Face transformers, from configurations alone: heads and neurons go by 30 %."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from masked import ignoring, pruned
from modelspeed.core.model_io import leaves
from modelspeed.graph.analysis.groups import analyze
from modelspeed.graph.capture import capture

pytest.importorskip("transformers")
import hf

# The library's own deprecations and tracer warnings are not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")


def test_there_are_at_least_twenty_five_model_types():
    assert len({entry.type for entry in hf.ENTRIES.values()}) >= 25
    assert set(hf.FOUND) == set(hf.ENTRIES)


# Written as one of the others is, or slow.
ALIKE = {
    "bart-eager", "camembert", "deit", "electra", "gemma2", "gptj", "hubert", "llama-eager",
    "marian", "mistral", "mixtral", "mobilevit", "pegasus", "phi", "qwen2", "roberta", "siglip",
    "smollm3", "stablelm", "starcoder2", "swin", "t5", "vit-eager", "xlm-roberta", "yolos",
}  # fmt: skip
NAMES = [pytest.param(n, marks=pytest.mark.long) if n in ALIKE else n for n in sorted(hf.ENTRIES)]


@pytest.mark.parametrize("name", NAMES)
def test_heads_and_neurons_are_found_and_pruned_by_30_percent(name):
    torch.set_num_threads(1)
    entry = hf.ENTRIES[name]
    module = capture(entry.model(), entry.batch(2))
    analysis = analyze(module)
    assert Counter(g.size for g in analysis.prunable) == hf.FOUND[name]
    assert all(g.frozen for g in analysis.groups if g not in analysis.prunable and g.size > 1)
    dropped = {g.name: list(range(max(1, round(0.3 * g.size)))) for g in analysis.prunable}
    smaller, masked = pruned(module, analysis, dropped), ignoring(module, analysis, dropped)
    with torch.no_grad():
        got, want = (leaves(m(**entry.batch(2))) for m in (smaller, masked))
    assert len(got) == len(want) > 0
    for mine, theirs in zip(got, want, strict=True):
        assert torch.isfinite(mine).all()
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)
