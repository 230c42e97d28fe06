"""Libraries that only some users need, imported when they are."""

from __future__ import annotations

import importlib
import warnings
from importlib.metadata import version
from types import ModuleType

from .errors import MissingExtra, first_line

# Import name -> the extra of modelspeed that brings it.
EXTRAS = {
    "torchvision": "torchvision", "timm": "timm", "transformers": "transformers",
    "PIL.Image": "images", "onnx": "onnx", "onnxscript": "onnx", "torchmetrics": "metrics",
    "torchmetrics.classification": "metrics", "datasets": "datasets",
    "openvino": "openvino", "onnxruntime": "onnxruntime", "onnx_ir": "onnx",
}  # fmt: skip


def extra(package: str, wanted_by: str) -> ModuleType:
    """The package. Raises MissingExtra with the command that installs it."""
    name = package.partition(".")[0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"`{wanted_by}` needs the package `{name}`, which is not installed; install it "
            f"with `pip install 'modelspeed[{EXTRAS[package]}]'`."
        ) from error
    except Exception as error:  # torchvision made for another build of torch raises RuntimeError
        raise MissingExtra(
            f"`{wanted_by}` needs the package `{name}`, which is installed but does not load "
            f"({first_line(error).rstrip('.')}); install the one made for torch {version('torch')}."
        ) from error
