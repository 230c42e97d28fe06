"""Imports the five libraries, once for all models: each model's process is forked from one that
has them (benchmarks/real_models.py). This file is the exception that does something when imported.
"""

from __future__ import annotations

import warnings
from contextlib import suppress

import torch
import torchvision_stub
from modelspeed.graph.capture import capture

kept = torchvision_stub.declare()
with warnings.catch_warnings(), suppress(ImportError):  # each model says what it lacks
    warnings.simplefilter("ignore")
    import timm  # noqa: F401
    import torchvision  # noqa: F401
    import transformers
    import ultralytics.nn.tasks  # noqa: F401
    from segmentation_models_pytorch import create_model  # noqa: F401

    transformers.AutoModel, transformers.PreTrainedModel  # noqa: B018
capture(torch.nn.Linear(2, 2), torch.ones(1, 2))  # has the exporter imported
