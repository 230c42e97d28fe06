"""Stand-ins for torchvision and timm: the same calls, one small model each.

Their own wheels fit one build of torch each, so a test can't ask for them.
"""

from __future__ import annotations

import importlib.machinery
import sys
from types import ModuleType, SimpleNamespace

from torch import nn

NAMES = ["resnet18", "resnet34", "mobilenet_v2"]


def build(name, num_classes=10, width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(width, num_classes))  # fmt: skip


def _module(name, **held):
    made = ModuleType(name)
    made.__spec__ = importlib.machinery.ModuleSpec(name, None)
    vars(made).update(held)
    return made


def create_model(name, pretrained=False, **args):
    assert not pretrained
    model = build(name, **args)
    model.default_cfg = {"input_size": (3, 160, 160)}
    return model


def segment(*, weights=None, weights_backbone="fetched", num_classes=10):
    assert weights is None and weights_backbone is None
    return build("fcn", num_classes)


def get_model_builder(name):
    return segment if name == "fcn" else lambda weights=None, **args: build(name, **args)


def get_model(name, weights=None, **args):
    assert weights is None
    return get_model_builder(name)(**args)


def install(monkeypatch, *libraries):
    """Only `libraries` can be imported, whatever is installed here."""
    made = {
        "timm": _module("timm", list_models=lambda: NAMES, create_model=create_model),
        "torchvision": _module("torchvision", models=SimpleNamespace(
            list_models=lambda: [*NAMES, "fcn"], get_model=get_model,
            get_model_builder=get_model_builder)),
    }  # fmt: skip
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, name, module if name in libraries else None)
