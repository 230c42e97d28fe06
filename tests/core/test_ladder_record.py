from __future__ import annotations

import json

import pytest
from modelspeed.core.errors import ArtifactError
from modelspeed.core.ladder_record import (
    BatchLatency,
    CascadeRecord,
    LadderRecord,
    Rung,
    ladder_from_json,
    ladder_to_json,
)
from modelspeed.core.records import Machine, Target

MACHINE = Machine("cpu", 2, 1, "cpu", "float32", "2.9", "3.11", "Linux")


def rung(number=0, **changed):
    latencies = tuple(BatchLatency.of(b, [b * 1.0, b * 1.1, b * 1.5]) for b in (1, 2, 4))
    given = {"folder": f"rungs/{number}-half", "manifest_sha256": "a" * 64, "agreement": 1.0,
             "memory_bytes": 10, "latencies": latencies, "accuracy": 0.9 - number / 10}  # fmt: skip
    return Rung(**{**given, **changed})


def record(**changed):
    cascade = CascadeRecord(1, 0, 0.4, 0.01, 0.9, 0.2, 100)
    given = {"rungs": (rung(0), rung(1, target=Target(ms=2.0))), "metric": "accuracy",
             "cascades": (cascade,)}  # fmt: skip
    return LadderRecord(MACHINE, **{**given, **changed})


def test_a_record_comes_back_as_it_was():
    assert ladder_from_json(ladder_to_json(record())) == record()


def test_percentiles_are_of_the_samples():
    row = BatchLatency.of(2, [float(i) for i in range(1, 101)])
    assert (row.p50_ms, row.p95_ms, row.p99_ms) == (50.0, 95.0, 99.0)
    with pytest.raises(ArtifactError, match="no samples"):
        BatchLatency.of(1, [])


def test_a_worth_is_the_accuracy_or_else_the_agreement():
    assert record().scores == (0.9, 0.8)
    unknown = record(rungs=(rung(0, agreement=1.0), rung(1, accuracy=None, agreement=0.7)))
    assert unknown.scores == (1.0, 0.7)


def test_names_and_batches():
    assert rung().name == "0-half" and rung().batches == (1, 2, 4)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"rungs": ()}, "has 0 rungs"),
        ({"rungs": (rung(0), rung(0))}, "one folder for two rungs"),
        ({"rungs": (rung(0, latencies=()), rung(1))}, "no measured latency for `rungs/0-half`"),
        ({"rungs": (rung(0, latencies=rung().latencies[::-1]), rung(1))}, "do not rise"),
        ({"rungs": (rung(0, accuracy=float("nan")), rung(1))}, "finite number"),
        ({"rungs": (rung(0, folder="../../etc"), rung(1))}, "`rungs/N-NAME`"),
        ({"rungs": (rung(0, folder="rungs/0-a/../b"), rung(1))}, "`rungs/N-NAME`"),
        ({"rungs": (rung(0, manifest_sha256="x"), rung(1))}, "SHA-256"),
        ({"rungs": (rung(0),)}, "a cascade from rung 1 to 0"),
        ({"cascades": (CascadeRecord(1, 0, -1.0, 0.0, 0.9, 0.2, 100),)}, "at least 0"),
        ({"format_version": 7}, "format version 7"),
    ],
)
def test_what_does_not_fit_is_named(changed, text):
    with pytest.raises(ArtifactError, match=text):
        ladder_from_json(ladder_to_json(record(**changed)))


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"format_version": []}', "[" * 100_000])
def test_what_is_not_a_ladder_is_refused(text):
    with pytest.raises(ArtifactError):
        ladder_from_json(text)


def test_an_unknown_field_is_named():
    data = {**json.loads(ladder_to_json(record())), "speed": 1}
    with pytest.raises(ArtifactError, match="`speed`"):
        ladder_from_json(json.dumps(data))
