"""Wrappings that training programs put around weights: dicts within dicts, averaged copies,
facts."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite

from torch import Tensor, nn

from .stand_ins import settings

# Averaged weights are what such trainings evaluate and publish, so they come first.
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "params_ema")
PLAIN = ("state_dict", "model_state_dict", "model", "network", "net", "module", "params")
PREFIXES = ("_orig_mod.", "module.", "model.")
SETTINGS = "hyper_parameters"  # of Lightning: class weights among them are not a model
DEEPEST = 8
MAX_PLAIN = 1000  # values of one setting; lists that hold another twice, again and again, have more


@dataclass(frozen=True)
class Unwrapped:
    """`content` is a state dict, a module or what was found instead; `facts` what lay around it."""

    content: object
    facts: dict[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def arch(self) -> str | None:
        """The architecture's name, as timm and torchvision's training scripts write it."""
        options = settings(self.facts.get("args"))
        named = self.facts.get("arch") or options.get("arch") or options.get("model")
        return named if isinstance(named, str) and named.isprintable() else None

    @property
    def hyper_parameters(self) -> dict[str, object]:
        """Lightning's plain ones: numbers, texts, and lists of them."""
        values = settings(self.facts.get(SETTINGS))
        return {str(k): v for k, v in values.items() if _plain(v) and not str(k).startswith("_")}

    @property
    def lightning(self) -> bool:
        return "pytorch-lightning_version" in self.facts


def unwrap(content: object) -> Unwrapped:
    """The innermost state dict or module under the usual keys."""
    facts: dict[str, object] = {}
    notes: list[str] = []
    for _ in range(DEEPEST):
        if not isinstance(content, Mapping):
            break
        inner = {str(k): v for k, v in content.items() if k != SETTINGS and _model_like(v)}
        key = _chosen(inner)
        if (
            key is None
            and len(inner) == 1
            and not any(isinstance(v, Tensor) for v in content.values())
        ):
            key = next(iter(inner))
        if key is None:
            break
        facts |= {str(k): v for k, v in content.items() if str(k) not in inner}
        passed = [k for k in (*PLAIN, *AVERAGED) if k in inner and k != key]
        if key in AVERAGED and passed:
            notes.append(
                f"the file holds averaged weights (`{key}`) beside `{passed[0]}`; they are used"
            )
        content = inner[key]
    return Unwrapped(content, facts, tuple(notes))


def state_dicts_in(content: Mapping[object, object]) -> list[str]:
    return [str(k) for k, v in content.items() if isinstance(v, Mapping) and _has_tensors(v)]


def _chosen(inner: Mapping[str, object]) -> str | None:
    plain = next((k for k in PLAIN if k in inner), None)
    averaged = next((k for k in AVERAGED if k in inner), None)
    if averaged is not None and (plain is None or _alike(inner[averaged], inner[plain])):
        return averaged
    return plain


def _model_like(value: object) -> bool:
    """Each dict is looked at once: a few that hold each other make an endless tree."""
    waiting, seen = deque[tuple[object, int]]([(value, 0)]), set[int]()
    while waiting:
        part, depth = waiting.popleft()
        if isinstance(part, nn.Module):
            return True
        if not isinstance(part, Mapping) or depth > DEEPEST or id(part) in seen:
            continue
        if _has_tensors(part):
            return True
        seen.add(id(part))
        waiting += [(part[k], depth + 1) for k in (*AVERAGED, *PLAIN) if k in part]
    return False


def _has_tensors(value: Mapping[object, object]) -> bool:
    # Optimizers keep tensors by number; weights have names.
    return any(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())


def _alike(a: object, b: object) -> bool:
    if not isinstance(a, Mapping) or not isinstance(b, Mapping):
        return type(a) is type(b)
    left, right = ({bare(k) for k, v in x.items() if isinstance(v, Tensor)} for x in (a, b))
    return left - {"n_averaged"} == right


def bare(name: object) -> str:
    """Without the prefixes that wrappers put before all names."""
    text = str(name)
    for prefix in PREFIXES:
        text = text.removeprefix(prefix)
    return text


def _plain(value: object) -> bool:
    waiting: list[tuple[object, int]] = [(value, 0)]
    count = 0
    while waiting:
        part, depth = waiting.pop()
        count += 1
        if isinstance(part, (list, tuple)):
            if len(part) > 32 or depth >= DEEPEST or count > MAX_PLAIN:
                return False
            waiting += [(v, depth + 1) for v in part]
        elif not (type(part) in (bool, int, str) or (type(part) is float and isfinite(part))):
            return False
    return True
