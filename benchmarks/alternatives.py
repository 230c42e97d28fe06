"""modelspeed beside what a user would pick instead: every engine on the same net, interleaved.

python benchmarks/alternatives.py [resnet18 mobilenet bert ...] [--seconds 5] [--threads 2]
    [--only int8 openvino] [--device cuda] [--json FILE]

`pip install '.[bench]'` brings the other engines; a column whose package is missing says so. On a
GPU calls are timed by events; float32 means what torch takes it for (TF32 in convolutions).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from columns import COLUMNS, Case
from modelspeed.backends.readiness import runner
from modelspeed.core.model_io import Inputs
from modelspeed.profiling.clocks import clock_for
from modelspeed.profiling.machine import fingerprint
from modelspeed.profiling.side_by_side import agreement
from modelspeed.profiling.statistics import compare_samples
from modelspeed.profiling.timer import measure_interleaved
from nets import Encoder, Inverted, ViT, digits, resnet, resnet18, sound
from torch import Tensor, nn

SHOWN, HELD = 32, 16
SLOWEST = 8  # times eager; half precision without instructions for it would hold up all others


def _noise(*shape: int, count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


def _random(name: str, model: nn.Module, rows: list[Tensor], images: bool = True) -> Case:
    return Case(name, model.eval(), rows[0], rows[:SHOWN], rows[SHOWN:], images)


def big_resnet() -> Case:
    name = "ResNet-18, random weights, 1x3x224x224"
    return _random(name, resnet18(), _noise(1, 3, 224, 224, count=SHOWN + HELD))


def mobilenet() -> Case:
    """Widths of MobileNetV2 (Sandler et al. 2018, table 2)."""
    torch.manual_seed(0)
    rows, width, blocks = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
                           (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)), 32, []  # fmt: skip
    for expand, out, count, stride in rows:
        for number in range(count):
            blocks.append(Inverted(width, out, stride if number == 0 else 1, expand))
            width = out
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6(), *blocks,
        nn.Conv2d(width, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000),
    )  # fmt: skip
    rows_ = _noise(1, 3, 224, 224, count=SHOWN + HELD)
    return _random("MobileNetV2, random weights, 1x3x224x224", model, rows_)


class Bert(nn.Module):
    """A small encoder on tokens: 4 layers of width 512 (BERT-small, Turc et al. 2019)."""

    def __init__(self, width: int = 512, depth: int = 4, heads: int = 8) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(8000, width), nn.Embedding(128, width)
        self.blocks = nn.Sequential(*(Encoder(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 2)
        self.register_buffer("places", torch.arange(128))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token(ids) + self.place(self.places)
        return self.head(self.norm(self.blocks(x))[:, 0])


def bert() -> Case:
    torch.manual_seed(0)
    rows = [torch.randint(0, 8000, (1, 128)) for _ in range(SHOWN + HELD)]
    return _random("BERT-small, random weights, 1x128 tokens", Bert(), rows, images=False)


def small_resnet() -> Case:
    from modelspeed.checkpoints.read import read

    path = Path(__file__).parent.parent / "examples" / "digits" / "digits_resnet.pt"
    model = read(path, factory=lambda **_: resnet(), args={}).module
    train, held_out = ([x[i : i + 1] for x, _ in part for i in range(len(x))] for part in digits())
    return Case("Digits ResNet-20, trained, 1x1x32x32", model, train[0], train[:64], held_out)


class UNet(nn.Module):
    """Three scales, as Ronneberger et al. 2015."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width]
        self.down = nn.ModuleList(
            self._pair(i, o) for i, o in zip([3, *widths[:2]], widths, strict=True)
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in widths[1::-1])
        self.joined = nn.ModuleList(self._pair(2 * w, w) for w in widths[1::-1])
        self.head = nn.Conv2d(width, 5, 1)

    @staticmethod
    def _pair(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, 1, 1), nn.BatchNorm2d(outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1), nn.BatchNorm2d(outputs), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        seen: list[Tensor] = []
        for number, block in enumerate(self.down):
            x = block(nn.functional.max_pool2d(x, 2) if number else x)
            seen.append(x)
        for up, block, skip in zip(self.up, self.joined, seen[-2::-1], strict=True):
            x = block(torch.cat([up(x), skip], 1))
        return self.head(x)


class Tagger(nn.Module):
    """Two LSTM layers in both directions over tokens."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.token = nn.Embedding(8000, width)
        self.lstm = nn.LSTM(width, width, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * width, 17)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.lstm(self.token(ids))[0])


def vit() -> Case:
    torch.manual_seed(0)
    rows = _noise(1, 1, 32, 32, count=SHOWN + HELD)
    name = "ViT-tiny's layers (192, 12, 3 heads), random weights, 64 patches"
    return _random(name, ViT(192, 12, 3), rows, images=False)


def resnet1d() -> Case:
    torch.manual_seed(0)
    rows = _noise(1, 1, 400, count=SHOWN + HELD)
    return _random("1-D ResNet, random weights, 1x1x400", sound(), rows)


def unet() -> Case:
    torch.manual_seed(0)
    rows = _noise(1, 3, 128, 128, count=SHOWN + HELD)
    return _random("U-Net, random weights, 1x3x128x128", UNet(), rows)


def tagger() -> Case:
    torch.manual_seed(0)
    rows = [torch.randint(0, 8000, (1, 40)) for _ in range(SHOWN + HELD)]
    return _random("LSTM tagger, random weights, 1x40 tokens", Tagger(), rows, images=False)


CASES: dict[str, Callable[[], Case]] = {
    "resnet18": big_resnet, "mobilenet": mobilenet, "bert": bert, "digits": small_resnet,
    "vit": vit, "resnet1d": resnet1d, "unet": unet, "tagger": tagger,
}  # fmt: skip


def made(case: Case, only: list[str]) -> tuple[dict[str, tuple[Any, float]], dict[str, str]]:
    """By column: what to call and the seconds it took to make; and why the others are missing."""
    ready: dict[str, tuple[Any, float]] = {}
    missing: dict[str, str] = {}
    usual = 0.0  # the first column's, which is eager
    for name, make in COLUMNS[torch.device(case.device).type].items():
        if only and name != "eager" and not any(word in name for word in only):
            continue
        started = time.perf_counter()
        try:
            with torch.no_grad():
                module = make(case)
                took = _least_ms(module, case)
            usual = usual or took
            print(f"{name}: {took:.2f} ms a call", file=sys.stderr)
            if took > SLOWEST * usual:
                raise RuntimeError(f"{took:.0f} ms a call, more than {SLOWEST} times eager")
        except ImportError as error:
            missing[name] = f"not installed: {error.name}"
        except Exception as error:
            missing[name] = (str(error).strip() or repr(error)).splitlines()[0][:160]
        else:
            ready[name] = (module, time.perf_counter() - started)
    return ready, missing


def _least_ms(module: Any, case: Case) -> float:
    run, clock = runner(module, case.inputs), clock_for(case.device)
    return min(clock.time(run) for _ in range(4))


def error(case: Case, module: Any) -> float:
    """|outputs - eager's| / |eager's| on the held-out inputs."""
    gap = size = 0.0
    with torch.inference_mode():
        for x in case.held:
            wanted, outputs = (Inputs((x,)).call(m).double() for m in (case.model, module))
            gap += float((outputs - wanted).square().sum())
            size += float(wanted.square().sum())
    return (gap / size) ** 0.5


def report(case: Case, seconds: float, only: list[str]) -> list[dict[str, Any]]:
    ready, missing = made(case, only)
    runs = [runner(module, case.inputs) for module, _ in ready.values()]
    slowest = max(_least_ms(module, case) for module, _ in ready.values())
    rows = measure_interleaved(runs, max_seconds=max(seconds, 0.015 * slowest), device=case.device)
    print(f"\n{case.name}\n")
    print("| engine | p50 ms | least ms | over eager | ready in s | same answer | error |")
    print("|---|---|---|---|---|---|---|")
    entries = []
    for (name, (module, took)), row in zip(ready.items(), rows, strict=True):
        against = compare_samples(rows[0].samples_ms, row.samples_ms, 50)
        same = agreement(case.model, module, [(x, None) for x in case.held], case.device)
        entry = {
            "net": case.name, "engine": name, "p50_ms": row.value_ms,
            "least_ms": min(row.samples_ms), "speedup": against.speedup, "low": against.low,
            "high": against.high, "ready_s": took, "agreement": same, "error": error(case, module),
        }  # fmt: skip
        entries.append(entry)
        print(
            f"| {name} | {row.value_ms:.2f} | {entry['least_ms']:.2f} | {against.speedup:.2f}x "
            f"({against.low:.2f}–{against.high:.2f}) | {took:.1f} | {same:.4f} "
            f"| {entry['error']:.4f} |"
        )
    print()
    for name, reason in missing.items():
        print(f"- left out: {name} ({reason})")
        entries.append({"net": case.name, "engine": name, "missing": reason})
    return entries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("nets", nargs="*", default=list(CASES), metavar="NET")
    parser.add_argument("--seconds", type=float, default=5.0, help="time bound per engine")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="*", default=[], help="engines with one of these words")
    parser.add_argument("--device", choices=list(COLUMNS), default="cpu")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    flags = parser.parse_args()
    if unknown := set(flags.nets) - set(CASES):
        parser.error(f"no net `{unknown.pop()}`; known: {', '.join(CASES)}")
    if flags.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device here")
    torch.set_num_threads(flags.threads)
    warnings.simplefilter("ignore")  # the engines' talk about their next versions
    cases = (CASES[name]().on(flags.device) for name in flags.nets)
    entries = [row for case in cases for row in report(case, flags.seconds, flags.only)]
    machine = fingerprint(flags.device)
    print(
        f"\nMachine: {machine.cpu}, {machine.threads} threads, {machine.device}, "
        f"torch {machine.torch}."
    )
    if flags.json:
        flags.json.write_text(json.dumps(entries, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
