"""Facts that hold for an adjuster with any settings: declared beside them, read by all others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# The part of an open step that a search chooses.
Scope = Literal["nothing", "units", "blocks", "layers", "the whole model"]
Need = Literal["never", "by its settings", "always"]


@dataclass(frozen=True)
class Facts:
    """`lossless`: outputs stay as they are, but for rounding. `is_training`: weights are trained or
    fitted where there is data, no edit of the graph is made. `changes_format`: what it leaves holds
    no float32 weights; `needs_float`: it scores, splits or trains those, so it comes before.
    `once`: a second time leaves it nothing to do. `first`: all others decide by what it leaves.
    """

    lossless: bool = False
    is_training: bool = False
    changes_format: bool = False
    needs_float: bool = False
    needs_data: Need = "never"
    searched: Scope = "nothing"
    once: bool = False
    first: bool = False
