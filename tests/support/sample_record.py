"""A record with something in every field, hostile names included."""

from __future__ import annotations

from modelspeed.core.records import (  # fmt: skip
    Candidate,
    Comparison,
    Latency,
    LayerCost,
    LeftAlone,
    Machine,
    Notice,
    Quality,
    Record,
    RuntimeCost,
    StepRecord,
    Target,
)


def latency(ms: float) -> Latency:
    samples = tuple(ms * (1 + 0.001 * (i % 40)) for i in range(200))
    return Latency(50.0, ms * 1.02, ms * 1.01, ms * 1.03, samples)


def record(**changes: object) -> Record:
    layers = tuple(
        LayerCost(f"layer{i}", "conv2d", 0.1 * i, 0.1, 10**6, 10**5, 0.5) for i in range(30)
    )
    fields: dict[str, object] = {
        "kind": "tune",
        "created": "2026-11-24T00:00:00+00:00",
        "version": "0.1.0",
        "source": "</script><script>alert(1)</script>.pt",
        "source_sha256": "0" * 64,
        "machine": Machine("EPYC", 2, 2, "cpu", "float32", "2.13", "3.11", "Linux", "AVX2", "abc"),
        "target": Target(ms=3.0),
        "verdict": "met",
        "summary": "2.5 ms meets the target of 3 ms",
        "baseline": latency(6.0),
        "final": latency(2.5),
        "speedup": Comparison(2.4, 2.35, 2.45, "faster"),
        "quality": Quality("accuracy", True, 0.98, 0.975, 0.99, 600),
        "parameters_before": 100,
        "parameters_after": 60,
        "macs_before": 1000,
        "macs_after": 500,
        "steps": (
            StepRecord("prune", {"max_ratio": 0.8}, "kept", "measured faster", 4.0, 2.6, 0.98, 0.9),
            StepRecord("scale", {}, "rolled back", "measured slower on this machine"),
        ),
        "candidates": tuple(
            Candidate(
                f"c{i}", 2.0 + i, 1.9 + i, 2.1 + i, 0.9 + 0.01 * i, 1.1 * (2.0 + i), 0.5, i == 1
            )
            for i in range(5)
        ),
        "layers_before": layers,
        "layers_after": layers[:20],
        "runtimes": (RuntimeCost("inductor", 2.5, 2.4, 2.6, 31.0, True),),
        "left_alone": (LeftAlone("head", "it is part of the model's output"),),
        "notices": (Notice("noisy", "CV 8 %", "other programs", "--threads 1"),),
    }
    return Record(**{**fields, **changes})  # type: ignore[arg-type]
