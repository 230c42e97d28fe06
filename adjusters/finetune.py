"""Train briefly: batch-norm re-estimation, then distillation from the original plus task loss.

The training loop is `training/finetuning.py`; this adjuster says that it is wanted and possible.
"""

from __future__ import annotations

from ..configs.settings import Finetune
from ..core.records import LeftAlone
from .plan import Adjuster, Context, Plan


def plan(context: Context, settings: Finetune) -> Plan:
    if context.train is None:
        return Plan((), (LeftAlone("finetune", "there is no training data"),))
    if settings.epochs == 0 and settings.bn_batches == 0:
        return Plan((), (LeftAlone("finetune", "`epochs` and `bn_batches` are 0"),))
    return Plan(is_training=True)


ADJUSTER = Adjuster("finetune", "train briefly with distillation, kept if better", plan)
