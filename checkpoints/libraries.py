"""Models by their name in a library: `torchvision:resnet18`, `timm:NAME`, `transformers:FOLDER`."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from inspect import signature
from pathlib import Path

from torch import nn

from ..configs.references import FILE, MODELS, parse_reference
from ..core.errors import ModelspeedError, UsageError, first_line
from ..core.extras import extra
from ..core.user_code import load_factory
from .folders import build_pretrained

Factory = Callable[..., nn.Module]
FETCH = ("weights", "weights_backbone", "checkpoint_path")


def model_factory(spec: str, base: Path) -> Factory:
    """The function that builds the model `spec` names, paths relative to `base`. No weights are
    fetched.

    Raises UsageError where there is no such thing (with near names), MissingExtra where the library
    is not installed.
    """
    reference = parse_reference(spec, MODELS)
    if reference is None or reference.kind == FILE:
        return load_factory(spec, base)
    if reference.kind == "transformers":
        folder = base / reference.place
        if not (folder / "config.json").is_file():
            raise UsageError(f"`{spec}`: there is no `{folder / 'config.json'}`.")
        return _said(spec, lambda **args: build_pretrained(folder, **args))
    build = _torchvision if reference.kind == "torchvision" else _timm
    return _said(spec, build(reference.place, spec))


def libraries_with(arch: str) -> list[str]:
    """`LIBRARY:arch` of the installed libraries that have it; timm's checkpoints name it `arch`."""
    specs: list[str] = []
    for library in ("timm", "torchvision"):
        with suppress(ModelspeedError):
            model_factory(f"{library}:{arch}", Path("."))
            specs.append(f"{library}:{arch}")
    return specs


def _torchvision(name: str, spec: str) -> Factory:
    models = extra("torchvision", spec).models
    _known(name, models.list_models(), spec)
    without: dict[str, None] = {"weights": None}
    if "weights_backbone" in signature(models.get_model_builder(name)).parameters:
        without["weights_backbone"] = None  # by itself it is fetched where `weights` are not
    return lambda **args: models.get_model(name, **without, **_harmless(args, spec))


def _timm(name: str, spec: str) -> Factory:
    timm = extra("timm", spec)
    # `resnet18.a1_in1k`: what follows the full stop names weights, which are not fetched.
    _known(name.partition(".")[0], timm.list_models(), spec)
    return lambda **args: timm.create_model(name, pretrained=False, **_harmless(args, spec))


def _harmless(args: dict[str, object], spec: str) -> dict[str, object]:
    """Raises UsageError for arguments that fetch weights or unpickle a file of weights."""
    for name in args:
        if name in FETCH or name.startswith("pretrained"):
            raise UsageError(
                f"`model.args` gives `{name}` to `{spec}`; weights come only from the checkpoint, "
                "so leave it out."
            )
    return args


def _known(name: str, names: Sequence[str], spec: str) -> None:
    if name not in names:
        near = difflib.get_close_matches(name[:80], names, 3)
        hint = f"near ones are {', '.join(f'`{n}`' for n in near)}" if near else "nor one like it"
        raise UsageError(f"`{spec}`: there is no model of that name; {hint}.")


def _said(spec: str, build: Factory) -> Factory:
    def call(**args: object) -> nn.Module:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return build(**args)
        except ModelspeedError:
            raise
        except Exception as error:
            shown = ", ".join(f"{k}={v!r}" for k, v in args.items()) or "no arguments"
            raise UsageError(
                f"`{spec}` can't be built with {shown}: {first_line(error)}"
            ) from error

    return call
