"""Settings that all adjusters share, and those that go layer by layer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fnmatch import fnmatchcase
from glob import escape
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from ..core.bounds import Within
from .facts import Facts
from .flags import Flag

if TYPE_CHECKING:
    from typing_extensions import Self

# Strict: `epochs: "2"` is a typing slip to report, not a number to guess.
CONFIG = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def setting(flag: Flag, default: object = None) -> Any:
    """The field of a file that says the same as `flag`: its description and its bound."""
    bound = flag.bound
    limits: dict[str, Any] = {}
    if isinstance(bound, Within):
        if bound.low > -math.inf:
            limits["gt" if bound.above else "ge"] = bound.low
        if bound.high < math.inf:
            limits["lt" if bound.below else "le"] = bound.high
    return Field(default=default, description=flag.described, **limits)


class Settings(BaseModel):
    """The base of every adjuster's settings: frozen, no unknown keys, no silent conversion."""

    model_config = CONFIG
    facts: ClassVar[Facts] = Facts()

    def needs_data(self) -> bool:
        """True if the step, as it is set, can't run without training data."""
        return self.facts.needs_data == "always"

    def is_open(self) -> bool:
        """True if the step, as it is set, leaves something for a search to decide."""
        return self.facts.searched != "nothing"


class ByLayer(Settings):
    """Of adjusters that take some layers and leave others."""

    match: tuple[str, ...] = Field(
        default=("*",), description="Layer name patterns (`*` and `?`) to adjust."
    )
    skip: tuple[str, ...] = Field(
        default=(), description="Layer name patterns (`*` and `?`) to leave as they are."
    )

    def selects(self, layer: str) -> bool:
        """True if `match` and `skip` select the layer."""
        named = any(fnmatchcase(layer, pattern) for pattern in self.match)
        return named and not any(fnmatchcase(layer, pattern) for pattern in self.skip)

    def restricted_to(self, layers: Iterable[str], **changes: object) -> Self:
        """The same for just these layers, with other settings changed."""
        match = tuple(map(escape, sorted(layers)))
        return self.model_copy(update={"match": match, **changes})

    def rough(self) -> Self:
        """As fast to run, but made in less time and not as accurate."""
        return self
