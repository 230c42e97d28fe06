"""One net at one batch size under every engine, each measured in turns with eager.

    python benchmarks/gpu/engines.py --net resnet50 --batch 1 --device cuda --seconds 50

A line is written for each engine as soon as it is measured. None is begun in the last seconds, and
one that fails or is too late has a line with the reason. All run under the same settings, which are
torch's own and stand in each line: TF32 in convolutions, not in products; no cuDNN benchmark.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from lines import emit
from torch import Tensor, nn
from zoo import NETS, QUICK, SCRATCH, checkpoint, data_file

sys.path.insert(0, str(Path(__file__).parent.parent))
import modelspeed
from columns import COLUMNS, Case, Columns
from modelspeed.backends.readiness import runner
from modelspeed.core.model_io import Inputs
from modelspeed.profiling.gpu_state import read_gpu
from modelspeed.profiling.statistics import compare_samples
from modelspeed.profiling.timer import measure_interleaved

LATEST = 12.0  # seconds before the end after which no engine is begun
TAKEN, JUDGED, SHOWN = (0.3, 32, 4) if QUICK else (1.5, 512, 16)
QUICK_COLUMNS = ("eager", "modelspeed, lowered", "modelspeed, tuned")


def case_of(name: str, batch: int, device: str) -> tuple[Case, list[Tensor]]:
    """The trained net with inputs of the batch size, and the labels of those that are judged."""
    net, stored = NETS[name], torch.load(data_file(name))
    model = net.build().eval()
    model.load_state_dict(torch.load(checkpoint(name)))
    x, y = (t[: max(JUDGED, batch)] for t in stored["evaluate"])
    whole = len(x) // batch * batch
    held = [net.full(rows) for rows in x[:whole].split(batch)]
    shown = [net.full(rows) for rows in stored["train"][0][: batch * SHOWN].split(batch)]
    case = Case(f"{name}-b{batch}", model, held[0], shown, held, net.pictures)
    return case.on(device), list(y[:whole].split(batch))


def tuned(case: Case) -> Any:
    """What `modelspeed tune` has made of it before."""
    folder = SCRATCH / "tuned" / case.name
    if not folder.exists():
        raise RuntimeError("there is no artifact: `tune` has not ended")
    return modelspeed.load(folder, device=case.device, trust_compiled=True)


def columns_of(device: str) -> Columns:
    made = COLUMNS[torch.device(device).type]
    made = {"eager": made["eager"], "modelspeed, tuned": tuned, **made}
    if not QUICK:
        return made
    there = [n for n in QUICK_COLUMNS if n != "modelspeed, tuned" or (SCRATCH / "tuned").exists()]
    return {name: made[name] for name in there}


def outputs_of(case: Case, module: Any) -> list[Tensor]:
    with torch.inference_mode():
        return [Inputs((x,)).call(module).double().cpu() for x in case.held]


@cache
def wanted_of(model: nn.Module) -> list[Tensor]:
    """Eager's outputs, on which all others are judged."""
    return []


def judged(case: Case, labels: list[Tensor], module: Any) -> tuple[float, float]:
    """Accuracy, and |outputs - eager's| / |eager's|."""
    right = seen = gap = size = 0.0
    known = wanted_of(case.model)
    known.extend([] if known else outputs_of(case, case.model))  # once: it is the slowest
    rows = known if module is case.model else outputs_of(case, module)
    with torch.inference_mode():
        for wanted, found, y in zip(known, rows, labels, strict=True):
            right += float((found.argmax(1) == y).sum())
            seen += len(y)
            gap += float((found - wanted).square().sum())
            size += float(wanted.square().sum())
    return right / seen, (gap / max(size, 1e-30)) ** 0.5


def measured(case: Case, labels: list[Tensor], module: Any) -> dict[str, Any]:
    runs = [runner(m, case.inputs) for m in (case.model, module)]
    eager, row = measure_interleaved(runs, max_seconds=TAKEN, min_seconds=0.2, device=case.device)
    ratio = compare_samples(eager.samples_ms, row.samples_ms, 50.0)
    accuracy, error = judged(case, labels, module)
    state = read_gpu(case.device)
    return {
        "ms": row.value_ms, "low_ms": row.low_ms, "high_ms": row.high_ms,
        "eager_ms": eager.value_ms, "speedup": ratio.speedup, "low": ratio.low, "high": ratio.high,
        "accuracy": accuracy, "error": error, "sm_mhz": state.sm_mhz if state else None,
        "notices": sorted({n.code for n in (*eager.notices, *row.notices)}),
    }  # fmt: skip


def settings() -> dict[str, bool]:
    return {
        "tf32_convolutions": torch.backends.cudnn.allow_tf32,
        "tf32_products": torch.backends.cuda.matmul.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
    }


@contextmanager
def memory(device: str) -> Iterator[Callable[[], dict[str, int]]]:
    """MiB that are held after what the block has made, CUDA graphs' pools included."""
    if device == "cpu":
        yield dict
        return
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    yield lambda: {"mib": (torch.cuda.memory_reserved() - before) >> 20}


def row_of(case: Case, labels: list[Tensor], make: Callable[[Case], Any]) -> dict[str, Any]:
    begun = time.monotonic()
    with memory(case.device) as held, torch.no_grad():
        module = make(case)
        with torch.inference_mode():
            Inputs((case.x,)).call(module)
        took = {"ready_s": round(time.monotonic() - begun, 2), **held()}
        return measured(case, labels, module) | took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--net", choices=list(NETS), required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=60.0, help="limit of this process")
    flags = parser.parse_args()
    end = time.monotonic() + flags.seconds - LATEST
    warnings.simplefilter("ignore")  # the engines' talk about their next versions
    if QUICK:
        torch.set_num_threads(1)
    case, labels = case_of(flags.net, flags.batch, flags.device)
    for name, make in columns_of(flags.device).items():
        known = {"net": flags.net, "batch": flags.batch, "engine": name}
        if name == "eager, channels last" and not case.images:
            continue
        if time.monotonic() > end:
            emit("engine", **known, missing="no time was left")
            continue
        try:
            emit("engine", **known, **row_of(case, labels, make), settings=settings())
        except Exception as error:
            why = (str(error).strip() or repr(error)).splitlines()[0][:200]
            emit("engine", **known, missing=f"{type(error).__name__}: {why}")
        torch._dynamo.reset()  # and the memory of its CUDA graphs


if __name__ == "__main__":
    main()
