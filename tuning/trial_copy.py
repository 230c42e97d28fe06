"""A copy of the model for calls that are only to see whether they work."""

from __future__ import annotations

import copy

import torch
from torch import nn


def trial_copy(model: nn.Module, device: str) -> nn.Module:
    """The model apart from the user's, on the CPU: what the first call ever made leaves in it, such
    as a mask of its batch size, stays there, and a size too large does not end a GPU's context.

    Where it can't be copied, itself if it is on the CPU, else a module that refuses every call.
    """
    try:
        return copy.deepcopy(model).to("cpu")
    except Exception:  # of whatever the user's class keeps
        return model if torch.device(device).type == "cpu" else Refusing()


class Refusing(nn.Module):
    """Nothing runs."""
