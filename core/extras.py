"""Libraries that only some users need, imported when they are."""

from __future__ import annotations

import importlib.util
import warnings
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from .errors import MissingExtra, first_line

# Import name -> the extra of modelspeed that brings it.
EXTRAS = {
    "torchvision": "torchvision", "timm": "timm", "transformers": "transformers",
    "PIL.Image": "images", "onnx": "onnx", "onnxscript": "onnx", "torchmetrics": "metrics",
    "torchmetrics.classification": "metrics", "datasets": "datasets",
    "openvino": "openvino", "onnxruntime": "onnxruntime", "onnx_ir": "onnx",
    "prometheus_client.core": "serve", "ray": "serve", "ray.serve": "serve",
    "starlette.responses": "serve",
}  # fmt: skip


def is_installed(package: str) -> bool:
    """True if Python would import it; a mere folder of that name is not the package."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # of a stand-in that some test or tool left behind
        return False
    return spec is not None and spec.origin is not None


def version_of(package: str) -> str:
    """The installed version, `unknown` where the package came without its facts."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


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
            f"({first_line(error).rstrip('.')}); install it again, if it comes in "
            f"builds for torch the one made for torch {version('torch')}."
        ) from error
