"""Measurements that take no time, for runs whose figures nobody reads."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from modelspeed.backends import ranking
from modelspeed.core.records import Comparison, Latency
from modelspeed.profiling import warm_up
from modelspeed.profiling.undisturbed import Attempts
from modelspeed.search import width_multiple as multiples
from modelspeed.tuning import baseline, fresh_process
from modelspeed.tuning import delivery as results
from modelspeed.tuning import verification as verify
from modelspeed.tuning.job import Job
from modelspeed.tuning.quality import ALL, EvaluationPart

BEFORE, AFTER = Latency(50.0, 2.0, 1.9, 2.1), Latency(50.0, 1.0, 0.9, 1.1)
FASTER = Comparison(2.0, 1.9, 2.1, "faster")


def hasten(set_to: Callable[[Any, str, Any], None]) -> None:
    """`set_to` is `setattr`, or a monkeypatch's. The fresh process is this one."""
    for room in (baseline, multiples, ranking):
        for name in ("measure", "measure_interleaved"):
            if hasattr(room, name):
                set_to(room, name, partial(_short, getattr(room, name)))
    set_to(warm_up, "_refuse_hopeless", lambda *_: None)  # on a busy machine a call may take long
    set_to(baseline, "undisturbed", lambda attempt, *_, **__: Attempts(attempt()))
    set_to(verify, "_timed", lambda *_: Attempts([BEFORE, AFTER]))
    set_to(verify, "compare_samples", lambda *_: FASTER)
    set_to(results, "verify", _verify)
    set_to(results, "report_on", _report_on)
    set_to(fresh_process, "started_ahead", lambda *_: nullcontext())


def _verify(
    job: Job, folder: Path, recipe: str, usual_ms: float, seconds: float, judged: bool,
    part: EvaluationPart = ALL, patience: float = 0.0, stuck_after: float = 0.0,
) -> verify.Verification:  # fmt: skip
    request = verify.VerificationRequest(
        job, str(folder), usual_ms, seconds, recipe, judged, part, patience
    )
    return verify.verify_here(request)


def _report_on(
    job: Job, folder: Path, recipe: str, part: EvaluationPart, stuck_after: float = 0.0
) -> verify.Reported:
    request = verify.VerificationRequest(job, str(folder), 0.0, 0.0, recipe, True, part, only=True)
    return verify.report_here(request)


def _short(measure: Callable[..., Any], *args: Any, **options: Any) -> Any:
    return measure(*args, **{**options, "max_seconds": 0.05, "min_seconds": 0.0})
