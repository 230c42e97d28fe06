"""The ladder's example, on two small nets in place of a tuned one."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from modelspeed.checkpoints.ladders import RungSource, assemble_ladder
from modelspeed.checkpoints.staging import save
from modelspeed.core.model_io import Inputs
from modelspeed.core.records import Latency, Record, Target
from modelspeed.examples.digits.model import build
from modelspeed.graph.capture import export_program
from modelspeed.profiling.machine import fingerprint
from torch import zeros

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "ladder.py"))
ONE = Inputs.of((zeros(1, 1, 32, 32),))


@pytest.fixture
def folder(tmp_path):
    record = Record("tune", "now", "0", "m.pt", "0" * 64, fingerprint(), Target(), "none", "",
                    Latency(50, 1, 1, 1))  # fmt: skip
    artifact = save(
        tmp_path / "artifact", program=export_program(build(width=4).eval(), ONE), edits=[],
        record=record, recipe_yaml="version: 1\n", inputs=ONE, runtime="plain", reports={},
        force=False,
    )  # fmt: skip
    sources = [
        RungSource(artifact, name, 1.0 - place / 10, 100, {1: [ms] * 5, 2: [1.5 * ms] * 5})
        for place, (name, ms) in enumerate((("original", 40.0), ("fast", 20.0)))
    ]
    assemble_ladder(tmp_path / "ladder", sources, fingerprint())
    return tmp_path / "ladder"


def test_it_serves_a_load_and_draws_latency_and_accuracy_over_time(folder):
    answers, ladder = EXAMPLE["serve"](str(folder), 1.0)
    found = ladder.stats()
    assert len(answers) == sum(found.answers.values()) > 0
    assert all(0 <= at <= 1.0 and ms > 0 for at, ms, _ in answers)
    text = EXAMPLE["page"](answers, 1.0)
    assert text.count("<svg") == 3 and "median latency, ms" in text and "accuracy" in text
