"""Stand-ins for what training programs pickle beside weights: they take anything and do nothing."""

from __future__ import annotations

from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable, Mapping

# By full name: dicts of settings, whose values are worth having.
DICTS = {
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
}
PACKAGES = (
    "pytorch_lightning.", "lightning.", "lightning_fabric.", "omegaconf.", "transformers.",
    "accelerate.", "torchmetrics.",
)  # fmt: skip
NAMES = {
    "argparse.Namespace", "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.Path",
    "pathlib.PurePosixPath", "pathlib._local.PosixPath", "typing.Any",
    "__builtin__.dict", "builtins.dict", "types.SimpleNamespace", "datetime.datetime",
    "datetime.timedelta",
    # The best metric so far, or the state of a random generator; no weights of a torch model.
    "numpy.dtype", "numpy.ndarray", "numpy.float16", "numpy.float32", "numpy.float64",
    "numpy.int32", "numpy.int64",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core")
      for name in ("scalar", "_reconstruct")),
}  # fmt: skip


class StandIn:
    """In place of an object of another class: holds its state and does nothing."""

    state: object = None  # of the class: unpickling may skip `__init__`

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.state = state


def settings(value: object) -> Mapping[str, object]:
    """The items of a dict, an `argparse.Namespace` or the stand-in of one; empty for the rest."""
    state = value.state if isinstance(value, StandIn) else value
    state = vars(state) if isinstance(state, Namespace) else state
    return state if isinstance(state, Mapping) else {}


def some_dict(*_: object) -> OrderedDict[object, object]:
    """In place of a `defaultdict`, whose factory is not kept."""
    return OrderedDict()


def stand_in_for(name: str) -> Callable[..., object] | None:
    """The class to read in place of `module.name`; None if that would hide what a file holds."""
    if name == "collections.defaultdict":
        return some_dict
    if name in DICTS:
        return OrderedDict
    return StandIn if name in NAMES or name.startswith(PACKAGES) else None
