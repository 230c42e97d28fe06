"""Example inputs drawn from a seed, the same numbers on every machine, and samples of outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from ..core.errors import UsageError
from ..core.json_values import JsonObject
from ..core.model_io import Inputs, leaves, plain
from ..core.span import spans_from_json, spans_to_json
from ..profiling.closeness import TOLERANCE
from ..profiling.state import kept_state

SAMPLE_VALUES = 256
NO_BATCH = "none"  # as recipes and manifests say it
FLOOR = 1e-7  # a sample of zeros has no largest value


def batch_axis(spec: Mapping[str, Any]) -> int | None:
    """The axis of the batch in an input; None where it has none, as scalars and tables."""
    axis = spec.get("batch", 0)
    return axis if axis != NO_BATCH and len(spec["shape"]) > axis else None


def at_batch(specs: Sequence[Mapping[str, Any]], batch: int) -> list[dict[str, Any]]:
    """The same inputs with so many examples each, where they have a batch axis."""
    return [{**s, "shape": _with_size(s["shape"], batch_axis(s), batch)} for s in specs]


def other_sizes(specs: Sequence[Mapping[str, Any]]) -> list[list[dict[str, Any]]]:
    """The same inputs at a small and at a large size of what varies; none where nothing does."""
    if not any(spec.get("varies") for spec in specs):
        return []
    found = [[_at_end(spec, place) for spec in specs] for place in (0, 1)]
    given = [list(spec["shape"]) for spec in specs]
    return [row for row in found if [spec["shape"] for spec in row] != given]


def _at_end(spec: Mapping[str, Any], place: int) -> dict[str, Any]:
    shape = list(spec["shape"])
    for axis, span in spans_from_json(spec.get("varies", {})).items():
        shape[axis] = span.ends(shape[axis])[place]
    return {**spec, "shape": shape}


def _with_size(shape: Sequence[int], axis: int | None, size: int) -> list[int]:
    return [size if place == axis else n for place, n in enumerate(shape)]


def draw_inputs(specs: Iterable[JsonObject], seed: int) -> Inputs:
    """One CPU tensor per {shape, dtype, name?, range?, batch?, varies?}: normal floats, integers
    within `range`.

    `range` is [lowest, highest], 0 and 1 where it is not given. An entry with a name is passed as
    that keyword. `batch` is the axis of the batch, 0 where it is not given, or `none`; `varies` the
    spans of other sizes by axis.
    """
    generator = torch.Generator().manual_seed(seed)
    args: list[tuple[Tensor, JsonObject]] = []
    kwargs: dict[str, tuple[Tensor, JsonObject]] = {}
    for spec in specs:
        if spec.get("name"):
            kwargs[str(spec["name"])] = _draw(spec, generator), spec
        else:
            args.append((_draw(spec, generator), spec))
    inputs = Inputs(tuple(x for x, _ in args), {name: x for name, (x, _) in kwargs.items()})
    in_order = [spec for _, spec in (*args, *kwargs.values())]
    axes = tuple(batch_axis(spec) for spec in in_order)
    spans = tuple(spans_from_json(spec.get("varies", {})) for spec in in_order)
    return replace(
        inputs,
        batch_axes=() if axes == inputs.axes else axes,
        varies=spans if any(spans) else (),
    )


def _draw(spec: JsonObject, generator: torch.Generator) -> Tensor:
    shape = [int(n) for n in spec["shape"]]
    dtype = getattr(torch, str(spec["dtype"]), None)
    if not isinstance(dtype, torch.dtype):
        raise UsageError(f"`{spec['dtype']}` is not a dtype of torch.")
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    low, high = spec.get("range") or (0, 1)
    return torch.randint(int(low), int(high) + 1, shape, generator=generator).to(dtype)


def specs_of(inputs: Inputs) -> list[JsonObject]:
    """Specifications from which `draw_inputs` draws others like `inputs`; integers within the range
    seen."""
    rows = zip(inputs, inputs.names, inputs.axes, inputs.spans, strict=True)
    return [
        _spec(x, name, axis) | ({"varies": spans_to_json(spans)} if spans else {})
        for x, name, axis, spans in rows
    ]


def specs_of_program(program: ExportedProgram) -> list[JsonObject]:
    """Specifications of an exported program's example inputs; empty if it has none."""
    shown = program.example_inputs
    return specs_of(Inputs(tuple(leaves(shown[0])), dict(shown[1]))) if shown else []


def _spec(tensor: Tensor, name: str | None, axis: int | None) -> JsonObject:
    spec: JsonObject = {"name": name} if name else {}
    spec |= {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
    if not tensor.is_floating_point() and tensor.dtype != torch.bool and tensor.numel():
        spec["range"] = [int(tensor.min()), int(tensor.max())]
    if axis != (0 if tensor.dim() else None):
        spec["batch"] = NO_BATCH if axis is None else axis
    return spec


def reproduces(sample: Tensor, wanted: Tensor, tolerance: float = TOLERANCE) -> bool:
    """Are the samples equal but for rounding, judged by the size of what the model gives?

    Probabilities of a thousand classes are all below 1e-2: a fixed tolerance would take any.
    """
    finite = wanted[wanted.isfinite()].abs()
    scale = float(finite.max()) if len(finite) else 0.0
    return sample.shape == wanted.shape and torch.allclose(
        sample, wanted, rtol=tolerance, atol=max(FLOOR, tolerance * scale), equal_nan=True
    )


def sample_of(outputs: object) -> Tensor:
    """The first values of every output tensor, at most SAMPLE_VALUES in all, float32 on the CPU."""
    tensors = leaves(outputs)
    share = max(1, SAMPLE_VALUES // max(1, len(tensors)))
    parts = [x.detach().flatten()[:share].float().cpu() for x in tensors]
    return torch.cat(parts)[:SAMPLE_VALUES] if parts else torch.zeros(0)


def sample_calls(sample: JsonObject) -> list[Tensor]:
    """Calls in a row that a manifest's sample describes: two, in artifacts of the first days
    one."""
    return [torch.tensor(sample[key]) for key in ("outputs", "again") if key in sample]


def reproduces_calls(
    model: nn.Module, sample: JsonObject, inputs: Inputs, tolerance: float = TOLERANCE
) -> bool:
    """Called twice in a row, since a model may keep something from one call to the next."""
    wanted = sample_calls(sample)
    with torch.no_grad(), kept_state(model):
        samples = [sample_of(plain(inputs.map(torch.clone).call(model))) for _ in wanted]
    return all(reproduces(f, w, tolerance) for f, w in zip(samples, wanted, strict=True))
