"""Evaluations of whole models that later runs need not make again.

Kept only for data that lies on disk, under the hash of all that a result depends on: names, sizes
and times of the data's files, the recipe's words on them, the metric, the weights, and the outputs
on the first batch, bit by bit, so that changed code or another kernel is another model.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..configs.recipe import METRICS, Recipe
from ..configs.references import DATA, FILE, parse_reference
from ..core.cache import cache_folder, keep
from ..data.halves import Halves
from ..data.subset import FirstBatches
from ..profiling.accuracy import (
    AnyMetric,
    Forward,
    Score,
    in_eval_mode,
    mean_of,
    outputs_on,
    split_batch,
)
from ..profiling.side_by_side import (
    SideBySide,
    another,
    interval_of,
    interval_of_whole,
    judge,
)
from .journal import state_of
from .quality import EvaluationPart

VERSION = 3  # another one where what is kept changes
KEPT_DAYS = 60


@dataclass(frozen=True)
class Judgement:
    """One model on one part of the data: its metric, and the class it chose for each example.

    `rows`: value and examples of each batch; empty where the metric is of the whole. `values`: of
    each example; empty where the metric has none.
    """

    score: float
    chosen: Tensor
    rows: tuple[tuple[float, int], ...] = ()
    values: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def examples(self) -> int:
        return len(self.chosen)

    def first(self, examples: int) -> Judgement | None:
        """Of the first batches with so many examples; None where that divides a batch."""
        if examples == self.examples:
            return self
        ends = list(accumulate(count for _, count in self.rows))
        if examples not in ends:
            return None
        rows = self.rows[: ends.index(examples) + 1]
        return Judgement(mean_of(rows), self.chosen[:examples], rows, self.values[:examples])


@dataclass
class OneModel:
    """A model under way through the data. `weights`: their digest."""

    forward: Forward
    weights: str
    score: Score
    chosen: list[Tensor] = field(default_factory=list)

    def add(self, outputs: Tensor, targets: Tensor, index: int) -> None:
        self.score.add(outputs, targets, index)
        self.chosen.append(outputs.argmax(1).to("cpu", torch.int32))

    @property
    def judgement(self) -> Judgement:
        score = self.score
        return Judgement(score.result(), torch.cat(self.chosen), tuple(score.rows), score.each)


@dataclass(frozen=True)
class Judgements:
    """Those of one data set, metric and part. Without a `key` nothing is kept."""

    key: str | None = None

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        part: EvaluationPart,
        seed: int,
        threads: int,
        halves: Halves | None = None,
    ) -> Judgements:
        state = _data_state(recipe)
        if state is None or recipe.data is None:
            return cls()
        facts = [
            VERSION, version("modelspeed"), torch.__version__, recipe.data.model_dump_json(),
            str(part.examples), str(seed), str(threads), *state,
            *((part.half, str(halves.whole)) if halves is not None else ()),
        ]  # fmt: skip
        return cls(hashlib.sha256(json.dumps(facts).encode()).hexdigest())

    def judge(
        self,
        models: Sequence[tuple[Forward, str]],
        batches: Iterable[Any],
        metric: AnyMetric,
        device: str,
    ) -> SideBySide:
        """As `profiling.side_by_side.judge`, of the original and the final (model, weights' hash).

        What is known is not evaluated again.
        """
        other = another(metric)
        # What is read here in vain must not be missing there.
        again = partial(_from_now, batches, _seconds(batches))
        if self.key is None or other is None:
            return judge(models[0][0], models[1][0], batches, metric, device)
        rows = [
            OneModel(forward, weights, Score(one))
            for (forward, weights), one in zip(models, (metric, other), strict=True)
        ]
        found = self._found(rows, batches, device)
        if found is None:
            return judge(models[0][0], models[1][0], again(), metric, device)
        before, after = found
        same = float((before.chosen == after.chosen).double().mean())
        interval = interval_of((before.values, after.values), (before.rows, after.rows))
        if interval is None:
            interval = interval_of_whole(rows[0].score, rows[1].score, before.examples)
        return SideBySide(before.score, after.score, same, before.examples, interval)

    def _found(
        self, rows: list[OneModel], batches: Iterable[Any], device: str
    ) -> tuple[Judgement, Judgement] | None:
        """Both judgements in one pass of what is not known, on the batches that both were run on.

        None where outputs are not classes, or a file on disk is of other batches.
        """
        with torch.inference_mode():
            stream = iter(batches)
            first = next(stream, None)
            if first is None:
                return None
            inputs, targets = split_batch(first, 0)
            outputs = [_run(row.forward, inputs, 0, device) for row in rows]
            if any(x.dim() != 2 or x.shape[1] < 2 for x in outputs):
                return None
            keys = [self._name(r.weights, x) for r, x in zip(rows, outputs, strict=True)]
            known = [_read(key) for key in keys]
            if any(one is not None and not one.rows for one in known):
                known = [None] * len(rows)  # of the whole alone: it has no interval with another's
            for row, x in zip(rows, outputs, strict=True):
                row.add(x, targets.to(device), 0)
            todo = [row for row, one in zip(rows, known, strict=True) if one is None]
            if todo:
                _pass(todo, stream, device)
        made = [one or row.judgement for row, one in zip(rows, known, strict=True)]
        if not _is_late(batches):
            for key, one, judged in zip(keys, known, made, strict=True):
                if one is None:
                    _write(key, judged)
        least = min(one.examples for one in made)
        before, after = (one.first(least) for one in made)
        return (before, after) if before and after else None

    def _name(self, weights: str, outputs: Tensor) -> str:
        bits = outputs.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
        return hashlib.sha256(f"{self.key} {weights} ".encode() + bits).hexdigest()[:32]


def _run(forward: Forward, inputs: Any, index: int, device: str) -> Tensor:
    with in_eval_mode(forward):
        return outputs_on(forward, inputs, index, device)


def _pass(rows: list[OneModel], stream: Iterator[Any], device: str) -> None:
    """The rest of the batches, of which the first is in already."""
    for index, batch in enumerate(stream, start=1):
        inputs, targets = split_batch(batch, index)
        for row in rows:
            row.add(_run(row.forward, inputs, index, device), targets.to(device), index)


def _data_state(recipe: Recipe) -> list[str] | None:
    """The files that the data and the metric consist of; None where nobody can tell."""
    if recipe.data is None:
        return None
    reference = parse_reference(recipe.data.factory, DATA)
    if reference is None or reference.kind == FILE or reference.path(recipe.base) is None:
        return None  # a function's result depends on anything
    if recipe.data.metric not in METRICS and recipe.data.metric.partition(":")[0].endswith(".py"):
        return None
    lines = state_of(recipe.data.factory, Path(recipe.base))
    return [hashlib.sha256(line).hexdigest() for line in lines]


def _folder() -> Path:
    return cache_folder() / "judgements"


def _seconds(batches: Iterable[Any]) -> float:
    return batches.seconds if isinstance(batches, FirstBatches) else math.inf


def _from_now(batches: Iterable[Any], seconds: float) -> Iterable[Any]:
    return batches.from_now(seconds) if isinstance(batches, FirstBatches) else batches


def _is_late(batches: Iterable[Any]) -> bool:
    """True if time ended the pass: what it gives is not of all that it was to read."""
    return isinstance(batches, FirstBatches) and batches.late


def _read(name: str) -> Judgement | None:
    path = _folder() / f"{name}.safetensors"
    if not path.is_file():  # a pipe would be waited for
        return None
    try:
        with safe_open(path, framework="pt") as file:
            score = float((file.metadata() or {})["score"])
            names = ("chosen", "means", "counts", "values")
            chosen, means, counts, values = map(file.get_tensor, names)
    except (SafetensorError, OSError, KeyError, ValueError):
        return None
    if not _is_sound(score, chosen, means, counts) or not _are_sound(values, len(chosen)):
        return None
    rows = tuple(zip(means.tolist(), counts.tolist(), strict=True))
    return Judgement(score, chosen, rows, values)


def _is_sound(score: float, chosen: Tensor, means: Tensor, counts: Tensor) -> bool:
    """True for what `_write` writes, whatever a file says that is damaged."""
    kinds = ((chosen, torch.int32), (means, torch.float64), (counts, torch.int64))
    if any(x.dim() != 1 or x.dtype != dtype for x, dtype in kinds):
        return False
    whole = not len(counts) or int(counts.sum()) == len(chosen)
    finite = math.isfinite(score) and bool(means.isfinite().all())
    return finite and whole and len(means) == len(counts) and len(chosen) > 0


def _are_sound(values: Tensor, examples: int) -> bool:
    """The same of the values by example, of which there may be none."""
    known = values.dim() == 1 and values.dtype == torch.float32
    return known and len(values) in (0, examples) and bool(values.isfinite().all())


def _write(name: str, judged: Judgement) -> None:
    means = torch.tensor([mean for mean, _ in judged.rows], dtype=torch.float64)
    counts = torch.tensor([count for _, count in judged.rows], dtype=torch.int64)
    rows = {"chosen": judged.chosen, "means": means, "counts": counts, "values": judged.values}
    keep(_folder() / f"{name}.safetensors", save(rows, {"score": repr(judged.score)}))
    with suppress(OSError):
        old = time.time() - KEPT_DAYS * 86400
        for path in _folder().iterdir():
            if path.stat().st_mtime < old:
                path.unlink(missing_ok=True)
