"""Named models of five libraries with random weights, and small inputs for them.

A name is `library:model`; nothing is downloaded.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision_stub
from modelspeed.core.model_io import Inputs
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

SUPPORT = Path(__file__).parents[1] / "tests" / "support"
Batch = Callable[[int], Inputs]  # rows -> inputs, all rows different
_kept: list[Any] = []


def build(name: str) -> tuple[nn.Module, Batch]:
    """The model in eval mode, with no unit that does nothing, and its inputs by batch size."""
    library, _, model = name.partition(":")
    if "real_libraries" not in sys.modules:
        _kept.append(torchvision_stub.declare())  # transformers imports it where it is installed
    torch.manual_seed(0)
    if library == "transformers":
        return _transformer(model)
    makers = {
        "timm": _timm, "torchvision": _torchvision, "smp": _segmenter, "ultralytics": _detector,
    }  # fmt: skip
    first, sizes = makers[library](model)
    batch = _fitting(first.eval(), sizes)
    _disturb(first, batch(4))
    fresh, _ = makers[library](model)  # one that was never called: heads remember the last shape
    fresh.load_state_dict(first.state_dict())
    return fresh.eval(), batch


def _timm(name: str) -> tuple[nn.Module, Sequence[tuple[int, ...]]]:
    import timm

    own = timm.get_pretrained_cfg(name)
    size = own.input_size if own is not None else (3, 224, 224)
    side = 64 if size[-1] % 7 else 112  # windows of 7 places need multiples of it
    try:
        model = timm.create_model(name, pretrained=False, img_size=side)
        _fitting(model.eval(), [(3, side, side)])  # some take the argument and cannot compute so
    except (TypeError, AssertionError, ValueError, RuntimeError):
        model = timm.create_model(name, pretrained=False)
    return model, [(3, 64, 64), (3, side, side), (3, 128, 128), size]


def _torchvision(name: str) -> tuple[nn.Module, Sequence[tuple[int, ...]]]:
    import torchvision

    more = {} if "segmentation" not in name and "detection" not in name else {"weights": None}
    if name.startswith(("deeplab", "fcn", "lraspp")):
        more = {"weights_backbone": None}
    model = torchvision.models.get_model(name, weights=None, **more)
    if name in _CLIPS:
        return model, [(3, 8, 64, 64), (3, 16, 112, 112), (3, 16, 224, 224)]
    return model, [(3, 64, 64), (3, 96, 96), (3, 224, 224), (3, 299, 299)]


_CLIPS = ("r3d_18", "mc3_18", "r2plus1d_18", "s3d", "swin3d_t", "mvit_v1_b", "mvit_v2_s")


def _segmenter(name: str) -> tuple[nn.Module, Sequence[tuple[int, ...]]]:
    import segmentation_models_pytorch as smp

    architecture, _, encoder = name.partition("/")
    model = smp.create_model(architecture, encoder, encoder_weights=None, classes=3)
    return model, [(3, 64, 64), (3, 128, 128), (3, 224, 224)]


def _detector(name: str) -> tuple[nn.Module, Sequence[tuple[int, ...]]]:
    from ultralytics.nn import tasks

    kind = name.rpartition("-")[2] if "-" in name else ""
    kinds = {
        "seg": "SegmentationModel", "pose": "PoseModel", "obb": "OBBModel",
        "cls": "ClassificationModel",
    }  # fmt: skip
    usual = "RTDETRDetectionModel" if "rtdetr" in name else "DetectionModel"
    model = getattr(tasks, kinds.get(kind, usual))(f"{name}.yaml", verbose=False)
    return model, [(3, 64, 64), (3, 128, 128)]


def _transformer(name: str) -> tuple[nn.Module, Batch]:
    sys.path.insert(0, str(SUPPORT))
    import hf

    entry = hf.ENTRIES[name]
    return entry.model(), lambda rows: Inputs((), entry.batch(rows))


def _images(rows: int, size: Sequence[int]) -> Inputs:
    generator = torch.Generator().manual_seed(rows)
    return Inputs((torch.randn(rows, *size, generator=generator),))


def _fitting(model: nn.Module, sizes: Sequence[tuple[int, ...]]) -> Batch:
    """Inputs of the first size that the model takes."""
    for number, size in enumerate(sizes):
        try:
            with torch.no_grad():
                _images(2, size).call(model)
        except (RuntimeError, AssertionError, ValueError, IndexError):
            if number == len(sizes) - 1:
                raise
            continue
        return lambda rows, size=size: _images(rows, size)
    raise ValueError(f"no size of {sizes} fits")


def _disturb(model: nn.Module, inputs: Inputs) -> None:
    """Move weights off their neutral values (ones, zeros, layer scales of 1e-6), which would hide
    a wrong channel, and give batch norms the statistics of what they see."""
    for parameter in model.parameters():
        if parameter.is_floating_point() and float(parameter.std(correction=0)) < 1e-6:
            parameter.data = _instead(parameter.data)
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        inputs.call(model)
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
        norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.8, 1.25)


def _instead(values: Tensor) -> Tensor:
    if float(values.abs().max()) == 0:  # a bias
        return 0.1 * torch.randn_like(values)
    return torch.empty_like(values).uniform_(0.5, 1.5)  # the weight of a norm or a layer scale
