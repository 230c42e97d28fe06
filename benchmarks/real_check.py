"""What must hold for one model of a library, each step timed.

python benchmarks/real_check.py NAME [--inductor]   (benchmarks/real_models.py runs many)
"""

from __future__ import annotations

import importlib
import json
import os
import random
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from modelspeed.core.processes import die_with_parent, limit_memory
from torch import Tensor, nn

LIMIT = 1e-3  # of the largest value; float32 sums in another order are 1e-6 to 1e-4 apart
NUDGE = 1e-6  # a model that makes much of so small a change of its input makes it of rounding too
MOST = 2e-2
DROPPED = 0.3
REGISTERED = {"transformers": "transformers.integrations.moe"}  # by operators' namespace
SUPPORT = Path(__file__).parents[1] / "tests" / "support"


class Wrong(Exception):
    """Two outputs that must be equal are not."""


class Findings:
    """Processor seconds, facts and failures by step. One that fails does not end the others."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.facts: dict[str, Any] = {}
        self.failures: list[list[str]] = []
        self.gap, self.limit = 0.0, LIMIT

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = sum(os.times()[:4])  # of processor, children too: other work here is not ours
        try:
            yield
        except Exception as error:
            self.failures.append([name, sentence(error)])
        self.seconds[name] = round(sum(os.times()[:4]) - start, 2)

    def equal(self, what: str, given: Any, wanted: Any) -> None:
        apart = gap(given, wanted)
        if not apart <= self.limit:
            raise Wrong(f"{what}: apart by {apart:.2g} of the largest value")
        self.gap = max(self.gap, apart)


def sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    kind = "" if isinstance(error, Wrong) else f"{type(error).__name__}: "
    return kind + (lines[0][:300] if lines else "")


def gap(given: Any, wanted: Any) -> float:
    """The largest difference over all outputs, relative to the largest value of each."""
    from modelspeed.core.model_io import leaves, plain

    mine, theirs = leaves(plain(given)), leaves(plain(wanted))
    if [(x.shape, x.dtype) for x in mine] != [(x.shape, x.dtype) for x in theirs] or not mine:
        return float("inf")
    return max(_gap(a, b) for a, b in zip(mine, theirs, strict=True))


def _gap(given: Tensor, wanted: Tensor) -> float:
    if not wanted.numel():
        return 0.0
    if not (wanted.is_floating_point() or wanted.is_complex()):
        return float((given != wanted).any())
    if wanted.is_complex():
        given, wanted = torch.view_as_real(given), torch.view_as_real(wanted)
    finite = wanted.isfinite()
    odd = torch.equal(given[~finite].nan_to_num(), wanted[~finite].nan_to_num())
    if not odd or not bool(given[finite].isfinite().all()):
        return float("inf")
    if not bool(finite.any()):
        return float("inf")  # nothing can be seen in it
    scale = float(wanted[finite].abs().max())
    return float((given[finite] - wanted[finite]).abs().max()) / max(scale, 1e-12)


def twice(model: nn.Module, inputs: Any) -> list[Any]:
    """What two calls in a row give."""
    with torch.inference_mode():
        return [_kept(inputs.call(model)) for _ in range(2)]


def _kept(outputs: Any) -> Any:
    from modelspeed.core.model_io import leaves, plain

    return [x.clone() for x in leaves(plain(outputs))]


class Original:
    """The library's model: what two calls in a row give, each time from the same state."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.state = {n: b.detach().clone() for n, b in model.named_buffers()}
        self.written: set[str] = set()

    def twice(self, inputs: Any) -> list[Any]:
        with torch.no_grad():  # caches that a model keeps must not be inference tensors
            calls = [_kept(inputs.call(self.model)) for _ in range(2)]
        self.restore()
        return calls

    def restore(self) -> None:
        for name, buffer in self.model.named_buffers():
            before = self.state.get(name)
            if before is not None and before.shape == buffer.shape:
                if not torch.equal(before.nan_to_num(), buffer.nan_to_num()):
                    self.written.add(name)
                    buffer.copy_(before)


def check(name: str, inductor: bool) -> Findings:
    import real_zoo
    from modelspeed.graph.capture import capture, has_dynamic_batch

    findings = Findings()
    with findings.step("build"):
        model, batch = real_zoo.build(name)
        original = Original(model)
        shapes = [list(x.shape) for x in batch(1)]
        findings.facts |= {"inputs": shapes, "parameters": _size(model)}
    if findings.failures:
        return findings
    with findings.step("capture"):
        module = capture(model, batch(1))
        original.restore()
        sizes = (1, 3) if has_dynamic_batch(module) else (1,)
        findings.facts |= {"batches": list(sizes)}
    if findings.failures:
        return findings
    with findings.step("eager"):
        wanted = {rows: original.twice(batch(rows)) for rows in sizes}
        findings.facts["written"] = sorted(original.written)
        noise = max(gap(original.twice(_nudged(batch(n)))[0], wanted[n][0]) for n in sizes)
        findings.limit = min(MOST, max(LIMIT, 10 * noise))
        findings.facts["limit"] = float(f"{findings.limit:.2g}")
    if findings.failures:
        return findings
    _lowerings(findings, module, batch, wanted, inductor)
    _pruned(findings, module, batch, sizes)
    return findings


def _nudged(inputs: Any) -> Any:
    return inputs.map(lambda x: x * (1 + NUDGE) if x.is_floating_point() else x)


def _size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _lowerings(
    findings: Findings, module: Any, batch: Any, wanted: dict[int, list[Any]], inductor: bool
) -> None:
    """Each way of running the graph, against the library's model, two calls in a row."""
    from modelspeed.backends.inductor import INDUCTOR
    from modelspeed.backends.registry import PLAIN, prepare
    from modelspeed.graph.lowering.lower import lowerings

    for runtime in (PLAIN, *lowerings(module, batch(1)), *([INDUCTOR] if inductor else ())):
        with findings.step(runtime):
            runnable = prepare(module, batch(1), runtime)
            for rows, pair in wanted.items():
                if findings.facts["written"]:  # the state of the calls before is in it
                    runnable = prepare(module, batch(1), runtime)
                for call, (got, want) in enumerate(
                    zip(twice(runnable, batch(rows)), pair, strict=True)
                ):
                    findings.equal(f"batch {rows}, call {call + 1}", got, want)


def _pruned(findings: Findings, module: Any, batch: Any, sizes: Sequence[int]) -> None:
    from modelspeed.graph.analysis.groups import analyze, keep_units
    from modelspeed.graph.capture import clone

    sys.path.insert(0, str(SUPPORT))
    from masked import ignoring, pruned

    with findings.step("analyze"):
        analysis = analyze(module)
        findings.facts |= {
            "groups": len(analysis.prunable), "unknown": dict(analysis.unknown_ops),
        }  # fmt: skip
        if not analysis.prunable:
            raise Wrong(f"nothing is prunable: {_why_not(analysis)}")
    if "analyze" in {step for step, _ in findings.failures}:
        return
    smaller = edits = None
    with findings.step("prune"):
        dropped = _dropped(analysis)
        edits = keep_units(analysis, dropped)
        smaller, masked = pruned(module, analysis, dropped), ignoring(module, analysis, dropped)
        findings.facts["left"] = _size(smaller)
        moved = 0.0
        for rows in sizes:
            want = twice(clone(masked), batch(rows))
            moved = max(moved, gap(want[0], twice(clone(module), batch(rows))[0]))
            got = twice(clone(smaller), batch(rows))
            for call in range(2):
                findings.equal(f"batch {rows}, call {call + 1}", got[call], want[call])
        if moved < 10 * findings.limit:
            raise Wrong(f"nothing can be seen: without these units the output moves by {moved:.1g}")
        findings.facts["moved"] = float(f"{moved:.2g}")
    if smaller is not None and edits is not None:
        _written(findings, smaller, edits, batch, sizes)


def _why_not(analysis: Any) -> str:
    reasons = [g.frozen for g in analysis.groups if g.frozen and g.size > 1]
    return max(set(reasons), key=reasons.count) if reasons else "there are no groups"


def _dropped(analysis: Any) -> dict[str, list[int]]:
    rng = random.Random(0)
    return {
        g.name: sorted(rng.sample(range(g.size), min(g.size - 1, max(1, round(DROPPED * g.size)))))
        for g in analysis.prunable
    }


def _written(
    findings: Findings, smaller: Any, edits: Any, batch: Any, sizes: Sequence[int]
) -> None:
    """The artifact as `apply` writes it, and what a fresh process makes of it."""
    from modelspeed.backends.registry import PLAIN
    from modelspeed.graph.capture import clone
    from modelspeed.graph.lowering.lower import lowerings

    with tempfile.TemporaryDirectory(prefix="modelspeed-") as folder:
        with findings.step("save"):
            runtime = next(reversed(list(lowerings(smaller, batch(1)))), PLAIN)
            calls = {rows: twice(clone(smaller), batch(rows)) for rows in sizes}
            stored = {"calls": calls, "inputs": {n: batch(n) for n in sizes}}
            more = {"written": findings.facts["written"], "limit": findings.limit}
            spaces = {str(n.target).partition(".")[0] for n in smaller.graph.nodes}
            more["imports"] = [module for key, module in REGISTERED.items() if key in spaces]
            torch.save(stored | more, f"{folder}/calls")
            _save(Path(folder) / "out", smaller, edits, batch(1), runtime)
        if "save" in {step for step, _ in findings.failures}:
            return
        with findings.step("load"):
            command = [sys.executable, "-W", "ignore", __file__, "--loaded", folder]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise Wrong((done.stderr.strip().splitlines() or ["no answer"])[-1][:300])
            findings.gap = max(findings.gap, float(done.stdout.split()[-1]))


def _save(folder: Path, module: Any, edits: Any, inputs: Any, runtime: str) -> None:
    from modelspeed.checkpoints.staging import save
    from modelspeed.core.records import Latency, Record, Target
    from modelspeed.graph.capture import export_program, moved
    from modelspeed.graph.edits.apply import edits_to_json
    from modelspeed.profiling.machine import fingerprint
    from modelspeed.tuning.delivery import reports

    record = Record(
        "apply", "2026-01-01T00:00:00+00:00", "0", "model.pt", "0" * 64, fingerprint(), Target(),
        "none", "as written", Latency(50, 1, 1, 1), runtime_used=runtime,
    )  # fmt: skip
    save(
        folder,
        program=moved(export_program(module, inputs), "cpu"),
        edits=edits_to_json(edits),
        record=record,
        recipe_yaml="version: 1\n",
        inputs=inputs,
        runtime=runtime,
        reports=reports(record),
        force=False,
    )


def loaded(folder: str) -> None:
    """The fresh process's side: the recorded runtime and the graph as it is, two calls each."""
    import modelspeed

    stored = torch.load(f"{folder}/calls", weights_only=False)
    for module in stored["imports"]:
        importlib.import_module(module)
    findings = Findings()
    findings.limit = stored["limit"]
    for runtime in (None, "plain"):
        model = modelspeed.load(f"{folder}/out", runtime=runtime)
        for number, (rows, pair) in enumerate(stored["calls"].items()):
            if number and stored["written"]:  # the state of the calls before is in it
                model = modelspeed.load(f"{folder}/out", runtime=runtime)
            for call, got in enumerate(twice(model, stored["inputs"][rows])):
                findings.equal(
                    f"{runtime or 'recorded'}, batch {rows}, call {call + 1}", got, pair[call]
                )
    print(findings.gap)


def line_of(name: str, inductor: bool, memory: int) -> dict[str, Any]:
    """What was found of the model `name`, in this process, which may take `memory` bytes."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    limit_memory(memory)
    findings = check(name, inductor)
    return {
        "model": name, "ok": not findings.failures, "failures": findings.failures,
        "gap": float(f"{findings.gap:.2g}"), **findings.facts, "seconds": findings.seconds,
        "total": round(sum(findings.seconds.values()), 1),
    }  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1] == "--loaded":
        die_with_parent(os.getppid())
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        loaded(sys.argv[2])
    else:
        print(json.dumps(line_of(sys.argv[1], "--inductor" in sys.argv, 0)))
