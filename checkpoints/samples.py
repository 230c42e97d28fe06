"""Example inputs drawn from a seed, the same numbers on every machine, and samples of outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from ..core.errors import UsageError
from ..core.json_values import JsonObject
from ..core.model_io import Inputs, leaves, plain
from ..profiling.closeness import TOLERANCE
from ..profiling.state import kept_state

SAMPLE_VALUES = 256
FLOOR = 1e-7  # a sample of zeros has no largest value


def at_batch(specs: Sequence[Mapping[str, Any]], batch: int) -> list[dict[str, Any]]:
    """The same inputs with another first size; scalars have none."""
    return [{**s, "shape": [batch, *s["shape"][1:]] if s["shape"] else []} for s in specs]


def draw_inputs(specs: Iterable[JsonObject], seed: int) -> Inputs:
    """One CPU tensor per {shape, dtype, name?, range?}: normal floats, integers within `range`.

    `range` is [lowest, highest], 0 and 1 where it is not given. An entry with a name is passed as
    that keyword.
    """
    generator = torch.Generator().manual_seed(seed)
    args: list[Tensor] = []
    kwargs: dict[str, Tensor] = {}
    for spec in specs:
        drawn = _draw(spec, generator)
        if spec.get("name"):
            kwargs[str(spec["name"])] = drawn
        else:
            args.append(drawn)
    return Inputs(tuple(args), kwargs)


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
    return [_spec(x, name) for x, name in zip(inputs, inputs.names, strict=True)]


def specs_of_program(program: ExportedProgram) -> list[JsonObject]:
    """Specifications of an exported program's example inputs; empty if it has none."""
    shown = program.example_inputs
    return specs_of(Inputs(tuple(leaves(shown[0])), dict(shown[1]))) if shown else []


def _spec(tensor: Tensor, name: str | None) -> JsonObject:
    spec: JsonObject = {"name": name} if name else {}
    spec |= {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
    if not tensor.is_floating_point() and tensor.dtype != torch.bool and tensor.numel():
        spec["range"] = [int(tensor.min()), int(tensor.max())]
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
