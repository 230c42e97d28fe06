"""Every adjuster by its YAML name. A test says that each file of this folder is in here."""

from __future__ import annotations

from . import (
    channels_last,
    compensate,
    drop_blocks,
    drop_dead,
    finetune,
    flush_subnormals,
    fold_batchnorm,
    input_size,
    low_rank,
    precision,
    prune,
    quantize,
    scale,
    sparsity_2_4,
)
from .plan import Adjuster

ADJUSTERS: dict[str, Adjuster] = {
    "fold_batchnorm": fold_batchnorm.ADJUSTER,
    "channels_last": channels_last.ADJUSTER,
    "input_size": input_size.ADJUSTER,
    "flush_subnormals": flush_subnormals.ADJUSTER,
    "drop_dead": drop_dead.ADJUSTER,
    "prune": prune.ADJUSTER,
    "drop_blocks": drop_blocks.ADJUSTER,
    "compensate": compensate.ADJUSTER,
    "low_rank": low_rank.ADJUSTER,
    "quantize": quantize.ADJUSTER,
    "precision": precision.ADJUSTER,
    "sparsity_2_4": sparsity_2_4.ADJUSTER,
    "scale": scale.ADJUSTER,
    "finetune": finetune.ADJUSTER,
}
