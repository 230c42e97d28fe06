"""modelspeed: the most accurate variant of a checkpoint that meets a latency target here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["Ladder", "Refused", "TooLate", "__version__", "load"]

if TYPE_CHECKING:
    from .core.errors import Refused, TooLate
    from .runtime.ladder.ladder import Ladder
    from .runtime.load import load

    __version__: str


def __getattr__(name: str) -> Any:
    # Lazy, so that `modelspeed --help` and `--version` never import torch.
    if name == "load":
        from .runtime.load import load

        return load
    if name == "Ladder":
        from .runtime.ladder.ladder import Ladder

        return Ladder
    if name in ("Refused", "TooLate"):
        from .core import errors

        return getattr(errors, name)
    if name == "__version__":
        from importlib.metadata import version

        return version("modelspeed")
    raise AttributeError(f"module `modelspeed` has no attribute `{name}`")
