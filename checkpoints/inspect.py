"""A checkpoint's own account of what it is: for a recipe that fits it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor
from torch.export import ExportedProgram

from ..core.json_values import JsonObject
from .contents import Contents, contents
from .folders import config_inputs
from .libraries import model_factory
from .program_ranges import open_sizes
from .read import arch_arguments, library_of
from .samples import specs_of_program

UNKNOWN = "model.py:build"
SIDE = 224  # pixels; what most classifiers of photographs take


@dataclass(frozen=True)
class Inspection:
    """`what` in words. `factory` is None where the file needs none; `sure` where it is known.

    `inputs` are entries of a recipe; a guess unless `inputs_sure`.
    """

    what: str
    factory: str | None = None
    args: JsonObject = field(default_factory=dict)
    sure: bool = True
    inputs: tuple[JsonObject, ...] = ()
    inputs_sure: bool = False
    notes: tuple[str, ...] = ()


def inspect_checkpoint(
    path: Path, *, trust_pickle: bool = False, ignore: Sequence[str] = ()
) -> Inspection:
    """Raises what `read` raises for a file that can't be read; a file of only weights is not an
    error here."""
    content = contents(path, trust_pickle=trust_pickle, ignore=ignore)
    if content.program is not None:
        inputs = tuple(_program_inputs(content.program))
        return Inspection("an exported program", None, {}, True, inputs, True, content.about.notes)
    if content.kind == "folder":
        what = f"`{type(content.module).__name__}` of transformers"
        inputs = tuple(config_inputs(path))
        # Vision models of video and text beside images have an `image_size` too.
        main = getattr(content.module, "main_input_name", None)
        sure = len(inputs) == 1 and inputs[0]["name"] == main
        return Inspection(what, None, {}, True, inputs, sure, content.about.notes)
    if content.module is not None:
        return Inspection(f"a pickled `{type(content.module).__name__}`", notes=content.about.notes)
    return _weights(content)


def _program_inputs(program: ExportedProgram) -> Iterator[JsonObject]:
    """With what varies as recipes say it; the first axis is the batch, which varies anyway."""
    for spec, spans in zip(specs_of_program(program), open_sizes(program), strict=True):
        varies = {str(axis): span.text() for axis, span in sorted(spans.items()) if axis}
        yield spec | ({"varies": varies} if varies else {})


def _weights(content: Contents) -> Inspection:
    weights, about = content.weights or {}, content.about
    spec = library_of(content)
    if spec is not None:
        args = arch_arguments(content)
        return Inspection(
            f"weights of `{about.arch}`",
            spec,
            args,
            True,
            _images_of(spec, args),
            True,
            about.notes,
        )
    named = f" of `{about.arch}`" if about.arch else ""
    kind = "a Lightning checkpoint" if about.lightning else "weights"
    what = f"{kind}{named}, {len(weights)} tensors"
    guess = _guess(weights)
    return Inspection(what, UNKNOWN, about.hyper_parameters, False, guess, False, about.notes)


def _images_of(spec: str, args: JsonObject) -> tuple[JsonObject, ...]:
    model = model_factory(spec, Path("."))(**args)
    shape = getattr(model, "default_cfg", {}).get("input_size") or (3, SIDE, SIDE)
    return ({"shape": [1, *shape], "dtype": "float32"},)


def _guess(weights: dict[str, Tensor]) -> tuple[JsonObject, ...]:
    """From the first layer: how many channels or features it reads."""
    first = next((v for k, v in weights.items() if v.dim() > 1 and "emb" not in k), None)
    if first is None:
        return ()
    sizes = {2: (), 3: (1000,), 4: (SIDE, SIDE), 5: (16, SIDE, SIDE)}.get(first.dim())
    shape = None if sizes is None else [1, first.shape[1], *sizes]
    return ({"shape": shape, "dtype": "float32"},) if shape else ()
