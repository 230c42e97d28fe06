"""Names of a forward's variables: one that is read for the last time passes its name on."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Iterable

from torch.fx import Node

GENERIC = ("x", "y", "z", "u", "v", "w")
TAKEN = set(
    """self torch nn F device Group Model load load_file Path WEIGHTS getattr super float complex
    True False None""".split()
)


class Variables:
    """`last` says after which position each value is read no more."""

    def __init__(self, last: dict[Node, int]) -> None:
        self._last = last
        self._names: dict[Node, str] = {}
        self._since: dict[str, int] = {}
        self._kept: set[str] = set()
        self._clock = 0

    def __getitem__(self, node: Node) -> str:
        return self._names[node]

    def __contains__(self, node: Node) -> bool:
        return node in self._names

    def keep(self, wanted: str) -> str:
        """A name that is never passed on."""
        name = self._free([_clean(wanted)])
        self._kept.add(name)
        return name

    def give(self, node: Node, wanted: str | None) -> str:
        """A name of its own, `wanted` or like it; a generic one for None."""
        generic = wanted is None or wanted in TAKEN
        name = self._free(list(GENERIC) if generic else [_clean(str(wanted))])
        return self._set(node, name)

    def follow(self, node: Node, inputs: Iterable[Node], now: int) -> str | None:
        """The name of an input that is read for the last time, of several the oldest one."""
        ending = [n for n in inputs if n in self._names and self._last.get(n, -1) <= now]
        names = {self._names[n] for n in ending} & set(GENERIC)
        if not names:
            return None
        return self._set(node, min(names, key=lambda n: (self._since[n], n)), anew=False)

    def end(self, now: int) -> None:
        """Forget what is read no more."""
        for node in [n for n in self._names if self._last.get(n, -1) <= now]:
            del self._names[node]
        live = set(self._names.values())
        self._since = {name: at for name, at in self._since.items() if name in live}

    def _set(self, node: Node, name: str, anew: bool = True) -> str:
        self._clock += 1
        if anew or name not in self._since:
            self._since[name] = self._clock
        self._names[node] = name
        return name

    def _free(self, wanted: list[str]) -> str:
        used = set(self._names.values()) | self._kept | TAKEN
        free = next((name for name in wanted if name not in used), None)
        number, base = 2, wanted[min(1, len(wanted) - 1)]
        while free is None:
            free = f"{base}_{number}" if f"{base}_{number}" not in used else None
            number += 1
        return free


def parameter_name(name: str) -> str:
    """A name for a parameter of `forward`, as it was where Python and the file allow that."""
    name = _clean(name)
    return f"{name}_" if name in TAKEN else name


def _clean(name: str) -> str:
    # Python folds letters that look alike (NFKC), so two names could become one unseen.
    name = re.sub(r"\W", "_", unicodedata.normalize("NFKC", name))
    return f"{name}_" if keyword.iskeyword(name) or not name.isidentifier() else name
