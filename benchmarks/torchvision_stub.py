"""Lets torchvision be imported beside a torch that its compiled part was not built for.

Its Python files describe the shapes of its own operators, which must be declared for that. No
classifier or segmentation net calls one; a detector that does fails when it is called.
"""

from __future__ import annotations

import torch

_SIZES = "SymInt pooled_height, SymInt pooled_width"
_SHAPE = "SymInt batch_size, SymInt channels, SymInt height, SymInt width"
_TAPS = (
    "SymInt stride_h, SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, "
    "SymInt dilation_w, SymInt groups, SymInt offset_groups, bool use_mask"
)
_DEFORM = "Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias"
OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    f"roi_align(Tensor input, Tensor rois, float spatial_scale, {_SIZES}, int sampling_ratio, "
    "bool aligned) -> Tensor",
    f"_roi_align_backward(Tensor grad, Tensor rois, float spatial_scale, {_SIZES}, {_SHAPE}, "
    "int sampling_ratio, bool aligned) -> Tensor",
    f"roi_pool(Tensor input, Tensor rois, float spatial_scale, {_SIZES}) -> (Tensor, Tensor)",
    "_roi_pool_backward(Tensor grad, Tensor rois, Tensor argmax, float spatial_scale, "
    f"{_SIZES}, {_SHAPE}) -> Tensor",
    f"ps_roi_align(Tensor input, Tensor rois, float spatial_scale, {_SIZES}, "
    "int sampling_ratio) -> (Tensor, Tensor)",
    "_ps_roi_align_backward(Tensor grad, Tensor rois, Tensor mapping, float spatial_scale, "
    f"{_SIZES}, int sampling_ratio, {_SHAPE}) -> Tensor",
    f"ps_roi_pool(Tensor input, Tensor rois, float spatial_scale, {_SIZES}) -> (Tensor, Tensor)",
    "_ps_roi_pool_backward(Tensor grad, Tensor rois, Tensor mapping, float spatial_scale, "
    f"{_SIZES}, {_SHAPE}) -> Tensor",
    f"deform_conv2d({_DEFORM}, {_TAPS}) -> Tensor",
    f"_deform_conv2d_backward(Tensor grad, {_DEFORM}, {_TAPS}) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)


def declare() -> torch.library.Library:
    """Declare what torchvision's files describe. Keep what this returns: it ends with it."""
    library = torch.library.Library("torchvision", "DEF")
    for schema in OPERATORS:
        library.define(schema)
    return library
