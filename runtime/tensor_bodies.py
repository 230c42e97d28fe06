"""Bodies of HTTP requests and answers: tensors by name, as safetensors, which holds no code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..core.errors import UsageError, first_line
from ..core.json_values import JsonObject
from ..core.model_io import Inputs, plain

CONTENT_TYPE = "application/octet-stream"
HEADER = 1 << 16  # bytes for names, dtypes and shapes, beside those of the values


def wanted_inputs(row: Inputs) -> list[JsonObject]:
    """Name, dtype and shape of each tensor of `row`, the inputs of one request: keywords by their
    name, others by their place, `input0` the first."""
    return [{"name": n, "dtype": _dtype(x), "shape": list(x.shape)} for n, x in _named(row)]


def most_bytes(row: Inputs) -> int:
    """The largest body that a request like `row` can need."""
    return HEADER + sum(x.numel() * x.element_size() for x in row)


def read_inputs(body: bytes, row: Inputs) -> Inputs:
    """Inputs like those of `row`, and on its device. Raises UsageError for any others."""
    try:
        tensors = load(body)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, AttributeError) as error:
        raise UsageError(
            f"the body is truncated or not in the form of safetensors: {first_line(error)}"
        ) from error
    wanted = dict(_named(row))
    if tensors.keys() != wanted.keys():
        raise UsageError(f"the body has {_listed(tensors)}; this ladder takes {_listed(wanted)}.")
    for name, like in wanted.items():
        if tensors[name].dtype != like.dtype or tensors[name].shape != like.shape:
            raise UsageError(
                f"`{name}` is {_form(tensors[name])}; this ladder takes {_form(like)}."
            )
    placed = [tensors[name].to(like.device) for name, like in wanted.items()]
    count = len(row.args)
    return Inputs(tuple(placed[:count]), dict(zip(row.kwargs, placed[count:], strict=True)))


def write_outputs(outputs: Any) -> bytes:
    """One tensor is `output`; of several each has its key or place, `a.0` within `a`.

    Raises UsageError if one is of a kind that safetensors does not hold.
    """
    # Copies: outputs may share their memory, which the format refuses.
    tensors = {
        name: x.detach().cpu().clone().contiguous() for name, x in _leaves(plain(outputs), "")
    }
    try:
        return save(tensors)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise UsageError(f"the outputs can't be sent: {first_line(error)}") from error


def _named(row: Inputs) -> Iterator[tuple[str, Tensor]]:
    for place, (name, x) in enumerate(zip(row.names, row, strict=True)):
        yield name or f"input{place}", x


def _form(x: Tensor) -> str:
    return f"{_dtype(x)} of shape {list(x.shape)}"


def _dtype(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def _listed(names: Mapping[str, object]) -> str:
    shown = [f"`{name[:40]}`" for name in sorted(names)[:8]]
    more = len(names) - len(shown)
    return ", ".join(shown or ["no tensors"]) + (f" and {more} more" if more else "")


def _leaves(outputs: Any, at: str) -> Iterator[tuple[str, Tensor]]:
    """Tensors with their names; what is None or a number beside them is left out."""
    if isinstance(outputs, Tensor):
        yield at or "output", outputs
    elif isinstance(outputs, (Mapping, tuple)):
        items: Iterable[tuple[object, Any]] = (
            outputs.items() if isinstance(outputs, Mapping) else enumerate(outputs)
        )
        for name, value in items:
            yield from _leaves(value, f"{at}.{name}" if at else str(name))
