"""Fit the weights of what is left to the original's layer outputs: no gradients, seconds.

The least squares are `training/compensation.py`; this adjuster says that they are wanted.
"""

from __future__ import annotations

from ..configs.settings import Compensate
from ..core.records import LeftAlone
from .plan import Adjuster, Context, Plan


def plan(context: Context, settings: Compensate) -> Plan:
    del settings
    if context.train is None:
        return Plan((), (LeftAlone("compensate", "there is no training data"),))
    return Plan(is_training=True)


ADJUSTER = Adjuster(
    "compensate", "refit weights to the original's layer outputs, kept if not worse", plan
)
