"""The search beside Torch-Pruning 1.6.1 at one share of eager's latency, before and after the same
fine-tuning.

    python benchmarks/gpu/pruning.py --net resnet50 --batch 32 --device cuda

As `benchmarks/engine.py` does it on a CPU: every variant in the runtime that is fastest here,
measured in turns with eager, trained by the same loop on the same data for as many steps.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from lines import emit
from zoo import HERE, NETS, QUICK, checkpoint

sys.path.insert(0, str(Path(__file__).parent.parent))
import peers
from engine import MOST, engine_rows
from modelspeed.configs.load import parse_recipe
from modelspeed.configs.recipe import make_step
from modelspeed.core.progress import Silent
from modelspeed.core.records import Target
from modelspeed.training.distillation import DistillationLoss
from modelspeed.training.finetuning import finetune, reestimate_batch_norm
from modelspeed.training.trainer import Trainer
from modelspeed.tuning.job import Job
from modelspeed.tuning.session import Session, open_session
from torch.fx import GraphModule

SHARE = 0.7  # of what lossless work takes: on a GPU that alone is several times as fast as eager
EPOCHS = 0.5
PEERS = ("torch-pruning uniform magnitude", "torch-pruning global magnitude")


def session_of(name: str, batch: int, device: str) -> Session:
    code = f"{HERE}/zoo.py:{name}"
    recipe = parse_recipe(
        f"version: 1\ndata: {{factory: '{code}_data'}}\nlimits: {{minutes: 1000}}\n"
        f"adjust: [prune: {{max_ratio: {MOST}}}]\n", "benchmark", Path.cwd(),
    )  # fmt: skip
    net = NETS[name]
    spec: dict[str, Any] = {"shape": [batch, *net.shape], "dtype": "float32"}
    if not net.pictures:
        spec |= {"dtype": "int64", "range": [0, 99]}
    target = Target(speedup=2.0, batch=batch, device=device, threads=1 if device == "cpu" else 0)
    job = Job(str(checkpoint(name)), target, f"zoo.py:{name}", str(HERE), {}, (spec,))
    session = open_session(job, recipe, Silent()).with_baseline()
    return session.with_kernels(session.original).with_plan(searches=True)


def accuracy(session: Session, module: GraphModule) -> float:
    assert session.data is not None
    return session.data.accuracy(module, session.device)[0]


def trained(session: Session, module: GraphModule) -> dict[str, float]:
    data = session.data
    assert data is not None
    reestimate_batch_norm(module, data.train, 20, session.device)
    row = {"before": accuracy(session, module)}
    settings = make_step("finetune", epochs=EPOCHS, lr=1e-3).settings
    torch.manual_seed(0)
    objective = DistillationLoss(module, session.original, settings)
    held_out = lambda m: data.held_out_score(m, session.device)  # noqa: E731
    finetune(
        Trainer(
            objective, data.train, data.held_out, held_out, settings, Silent(), session.device
        )
    )  # fmt: skip
    return row | {"after": accuracy(session, module)}


def variants(session: Session, method: str, share: float) -> Any:
    if method == "modelspeed":
        return engine_rows(session, {"through_norms": False, "blocks": False}, (share,))
    return peers.rows(session, method, (share,), time.monotonic)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--net", choices=list(NETS), required=True)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", default="cuda")
    flags = parser.parse_args()
    warnings.simplefilter("ignore")
    session = session_of(flags.net, flags.batch, flags.device)
    whole, base = session.reference.value_ms, accuracy(session, session.original)
    free = session.relative_latency(session.original)[0].value_ms / whole
    share = SHARE * free
    known = {"net": flags.net, "batch": flags.batch, "eager_ms": whole, "base": base,
             "lossless": free, "share": share}  # fmt: skip
    for method in ("modelspeed", *PEERS[: 1 if QUICK else None]):
        try:
            for _, module, used, seconds in variants(session, method, share):
                row = {"used": used / (share * whole), "seconds": round(seconds, 1)}
                if module is not None:
                    row |= trained(session, module)
                emit("pruning", **known, method=method, **row)
        except ImportError as error:
            emit("pruning", **known, method=method, reason=f"not installed: {error.name}")
        except Exception as error:
            if QUICK:
                raise
            why = (str(error).strip() or repr(error)).splitlines()[0][:200]
            emit("pruning", **known, method=method, missing=f"{type(error).__name__}: {why}")


if __name__ == "__main__":
    main()
