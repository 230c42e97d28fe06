"""Tensors in a file beside the model's weights, and which of them may be left out with a note."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

import torch
from torch import Tensor, nn

from ..core.errors import UsageError

Tensors = Mapping[str, Tensor]
COUNTERS = {
    "total_ops": "counters of a profiler",  # thop writes both into every module
    "total_params": "counters of a profiler",
    "num_batches_tracked": "counters of batches",
    "n_averaged": "counters of averaged models",
}
PATIENCE = 5.0  # seconds of one pattern, which takes milliseconds for 100,000 names
INDICES = ("position_ids", "token_type_ids", "relative_position_index")
_SHADOW = re.compile(r"(?:[a-z0-9_]*_)?(?:ema|swa|shadow|averaged)(?:_[a-z0-9_]*)?", re.IGNORECASE)
_SUFFIX = re.compile(r"_(?:ema|swa|shadow|averaged)$", re.IGNORECASE)
_STATE = ("decay", "initted", "n_averaged", "num_updates", "step", "updates")
_LOSS = re.compile(r"(?:[a-z0-9_]*_)?(?:criterion|criteria|loss|losses)", re.IGNORECASE)
_LOSS_FIRST = re.compile(r"(?:criterion|loss)_(?!head)[a-z0-9_]*", re.IGNORECASE)
_METRIC = re.compile(r"(?:[a-z0-9_]*_)?metrics?", re.IGNORECASE)


def without_ignored(
    weights: Tensors, patterns: Sequence[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """`weights` without the names that a pattern is found in, and what was done.

    Raises UsageError for a pattern that is not a regular expression.
    """
    kept, notes = dict(weights), []
    for text in patterns:
        pattern = compiled_pattern(text)
        with _patient(text):
            names = [name for name in kept if pattern.search(name)]
        for name in names:
            del kept[name]
        said = f"leaves out {_count(names)}: {ticked(names)}" if names else "matches no tensor here"
        notes.append(f"`--ignore {text}` {said}")
    return kept, notes


@contextmanager
def _patient(pattern: str) -> Iterator[None]:
    """Inside, a search that backtracks for longer than `PATIENCE` ends in UsageError.

    A recipe may bring any pattern, a file any name. Timers ring in the main thread alone.
    """
    rings = threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")
    if not rings:
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise UsageError(
            f"`--ignore {pattern}` takes more than {PATIENCE:g} s to search in the names of "
            "tensors; write it without repeats within repeats."
        )

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def compiled_pattern(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError(f"`--ignore {pattern}` is not a regular expression: {error}.") from error


def surplus_by_reason(surplus: Tensors, wanted: Tensors, module: nn.Module) -> dict[str, list[str]]:
    """Of tensors that the model does not take those that can't be a part of it, by the reason."""
    buffers = {k: v for k, v in module.named_buffers() if k not in wanted}
    parts = {part for name in wanted for part in name.split(".")}
    mirror = _Mirror(wanted)
    by_reason: dict[str, list[str]] = {}
    for name, tensor in surplus.items():
        why = harmless(name, tensor, parts) or mirror.why(name, tensor)
        why = why or _made_by_class(name, tensor, buffers)
        if why:
            by_reason.setdefault(why, []).append(name)
    return by_reason


def harmless(name: str, tensor: Tensor | None = None, model: Collection[str] = ()) -> str:
    """The reason why a surplus tensor of that name is not part of a model; empty if it may be
    one.

    `model`: what the model calls its own parts. Without `tensor` the name alone decides.
    """
    *above, leaf = name.split(".")
    if leaf in COUNTERS and (tensor is None or tensor.numel() == 1):
        return COUNTERS[leaf]
    if leaf in INDICES and (tensor is None or not tensor.is_floating_point()):
        return "indices that classes make themselves"
    if leaf == "masked_bias" and (tensor is None or tensor.numel() == 1):
        return "masks that classes make themselves"
    if leaf == "bias" and tensor is not None and tensor.dtype in (torch.bool, torch.uint8):
        return "masks that classes make themselves"
    foreign = [part for part in above if part not in model]
    if any(_LOSS.fullmatch(part) or _LOSS_FIRST.fullmatch(part) for part in foreign):
        return "of the loss"
    return "of metrics" if any(_METRIC.fullmatch(part) for part in foreign) else ""


def is_shadow(prefix: str) -> bool:
    """Is it what averaged copies of all weights are kept under, such as `model_ema.`?"""
    return any(_SHADOW.fullmatch(part) for part in prefix.split("."))


def notes_on(by_reason: Mapping[str, Sequence[str]]) -> list[str]:
    return [
        f"{_count(names)} left out, {why}: {ticked(names)}"
        for why, names in by_reason.items()
        if why != COUNTERS["n_averaged"]  # of `AveragedModel`; which weights are used is said
    ]


class _Mirror:
    """Averaged copies mirror the model's own tensors: name for name, shape for shape.

    By its name alone a part called `ema` may as well be a layer (an attention goes by it).
    """

    def __init__(self, wanted: Tensors) -> None:
        self.wanted = wanted
        self.flat: dict[tuple[int, ...], list[str]] = {}
        for name, tensor in wanted.items():
            self.flat.setdefault(tuple(tensor.shape), []).append(name.replace(".", ""))

    def why(self, name: str, tensor: Tensor) -> str:
        parts = name.split(".")
        at = next((i for i, part in enumerate(parts) if _SHADOW.fullmatch(part)), None)
        if at is None:
            return ""
        rest = parts[at + 1 :]
        if not rest:  # `weight_ema` beside `weight`
            same = self._has([*parts[:at], _SUFFIX.sub("", parts[at])], tensor)
        elif self._inside(parts[:at]):
            same = False
        else:
            # Latent diffusion keeps them without the full stops of their names.
            flat = self.flat.get(tuple(tensor.shape), ()) if len(rest) == 1 else ()
            counts = tensor.numel() == 1 and rest[-1] in _STATE
            same = counts or self._has(rest, tensor) or any(map(rest[0].endswith, flat))
        return "averaged copies of the weights" if same else ""

    def _has(self, parts: Sequence[str], tensor: Tensor) -> bool:
        names = (".".join(parts[i:]) for i in range(len(parts)))
        return any(n in self.wanted and self.wanted[n].shape == tensor.shape for n in names)

    def _inside(self, parts: Sequence[str]) -> bool:
        """Is that a module of the model's?"""
        above = "".join(f"{part}." for part in parts)
        return bool(above) and any(name.startswith(above) for name in self.wanted)


def _made_by_class(name: str, tensor: Tensor, buffers: Tensors) -> str:
    """Buffers that the class fills itself are not read; they must be the same all the same."""
    own = next((v for k, v in buffers.items() if name == k or name.endswith(f".{k}")), None)
    if own is None or own.shape != tensor.shape:
        return ""
    same = torch.allclose(own.to(tensor.dtype).double(), tensor.double(), rtol=1e-3, equal_nan=True)
    return "what the class makes itself, the same" if same else ""


def _count(names: Collection[str]) -> str:
    return "1 tensor" if len(names) == 1 else f"{len(names)} tensors"


def ticked(names: Iterable[str]) -> str:
    some = list(names)
    return ", ".join(f"`{n}`" for n in some[:3]) + (", ..." if len(some) > 3 else "")
